"""Records that this version did not write: those of schema 1, and pickles of the published program."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
from examples import many
from hypothesis import given
from published_format import PublishedReader
from samples import AR, FAILFAST, make_record, make_round, records

from plotting import acc_pro_len_cdf
from specdec.commands import rank
from specdec.errors import UserError
from specdec.ranking.entries import entry_of
from specdec.records import pickles
from specdec.records.identity import PUBLISHED
from specdec.records.places import load_finished
from specdec.records.record import Record, load_record, record_path, save_record
from specdec.records.rounds import Round

CUT = make_round(9, (5, 6), 2, next_token=None, stop_reason="stop_token", asked_len=8)


def in_schema_1(record: Record) -> dict[str, Any]:
    """What the version before wrote: the published keys in a meaning of its own."""
    data = record.to_builtins()
    for turn, entry in zip(record.rounds, data["stats_each_round"], strict=True):
        del entry["is_cut"]
        entry |= {
            "target_tokens": turn.emitted_tokens,
            "prefix_len": turn.prefix_len,
            "spec_len": turn.draft_len,
            "~draft_proposal": turn.draft_tokens,
            "accepted_len": turn.accepted_len,
            "acceptance_rate": turn.acceptance_rate,
            "final_token": turn.next_token if turn.accepted_len < turn.draft_len else None,
            "bonus_token": turn.next_token if turn.accepted_len == turn.draft_len else None,
        }
    return data | {
        "schema_version": 1,
        "num_target_tokens": record.num_output_tokens,
        "accepted_tokens": record.num_accepted,
        "drafted_tokens": record.num_drafted,
        "rejected_tokens": record.num_drafted - record.num_accepted,
        "acceptance_rate": record.acceptance_rate,
        "total_output_tokens": record.num_output_tokens,
    }


def without_windows(rounds: list[Round]) -> list[dict[str, Any]]:
    """All that schema 1 held of rounds."""
    return [vars(turn) | {"asked_len": 0, "target_tokens": None} for turn in rounds]


@given(records())
@many(40)
def test_a_record_of_schema_1_is_read_as_what_it_was(record):
    found = Record.from_builtins(pickles.loads(pickles.dumps(in_schema_1(record))))
    assert without_windows(found.rounds) == without_windows(record.rounds)
    assert found.identity == record.identity and found.output_tokens == record.output_tokens
    counts = [getattr(record, name) for name in ("num_accepted", "num_drafted", "acceptance_rate", "num_rounds")]
    assert [getattr(found, name) for name in ("num_accepted", "num_drafted", "acceptance_rate", "num_rounds")] == counts
    assert Record.from_builtins(found.to_builtins()) == found
    PublishedReader(found.to_builtins())


def test_a_record_of_schema_1_is_finished_and_ranked(tmp_path):
    record = make_record(rounds=[make_round(3), make_round(6), CUT])
    path = record_path(tmp_path, "bundled", "gsm8k", 0, AR, 64)
    path.parent.mkdir(parents=True)
    path.write_bytes(pickle.dumps(in_schema_1(record)))
    found = load_finished(path, record.identity)
    assert found is not None and found.output_tokens == record.output_tokens
    assert entry_of(found) == entry_of(record)
    assert AR in rank.run([str(tmp_path)])
    save_record(found, path)  # written again, it is of today's schema
    assert pickle.loads(path.read_bytes())["schema_version"] == 2


DAMAGED = {
    "a total": (lambda d: d.update(drafted_tokens=9), "drafted_tokens"),
    "a length": (lambda d: d["stats_each_round"][0].update(spec_len=9), "round 0: spec_len"),
    "no last token": (lambda d: d["stats_each_round"][0].update(final_token=None), "round 0"),
    "accepted more than drafted": (lambda d: d["stats_each_round"][1].update(accepted_len=2), "round 1: accepted_len"),
    "a prefix in the prompt": (lambda d: d["stats_each_round"][0].update(prefix_len=2), "prefix_len"),
    "tokens that were not emitted": (lambda d: d["stats_each_round"][1].update(target_tokens=[1]), "round 1: target"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_record_of_schema_1_is_refused_by_name(name):
    damage, named = DAMAGED[name]
    data = in_schema_1(make_record())
    damage(data)
    with pytest.raises(UserError, match=named):
        Record.from_builtins(data)


# ---- pickles of the published program


def published_round(
    prefix_len: int, draft: list[int], accepted_len: int, final: int, asked_len: int, num_passes: int
) -> dict[str, Any]:
    own = [*draft[:accepted_len], final, *[7] * len(draft)][: len(draft)]
    return {
        "target_tokens": own,
        "prefix_len": prefix_len,
        "spec_len": asked_len,
        "~draft_proposal": draft,
        "accepted_len": accepted_len,
        "acceptance_rate": accepted_len / asked_len,
        "num_forward_passes": num_passes,
        "final_token": final,
        "bonus_token": final if accepted_len == len(draft) else None,
    }


def published_record(asked_len: int = 4) -> dict[str, Any]:
    """Three rounds: a correction, a bonus, and one that goes on after the stop token and over the budget of 8."""
    rounds = [
        published_round(0, [5, 6, 9, 9], 2, 8, asked_len, 3),
        published_round(3, [4, 4, 4, 4], 4, 5, asked_len, 3),
        published_round(8, [6, 2], 2, 0, asked_len, 4),
    ]
    return {
        "orig_model_inputs": [1, 2, 3],
        "raw_data": {"problem": "What is 1 + 1?", "options": {"A": "2", "B": "3"}},
        "num_target_tokens": 8,
        "stats_each_round": rounds,
        "num_speculation_rounds": 3,
        "total_num_forward_passes": 10,
        "accepted_tokens": 8,
        "drafted_tokens": 3 * asked_len,
        "rejected_tokens": 2,
        "acceptance_rate": 8 / (3 * asked_len),
        "total_output_tokens": 11,
    }


def put(folder: Path, data: dict[str, Any], drafter: str = FAILFAST, question: str = "0", protocol: int = 4) -> Path:
    path = folder / "pickles" / "Qwen2.5-32B-Instruct" / "math" / question / drafter / "8.pickle"
    path.parent.mkdir(parents=True)
    path.write_bytes(pickle.dumps(data, protocol))
    return path


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_published_pickle_is_read(protocol, tmp_path):
    PublishedReader(published_record())  # which is what it should look like
    record = load_record(put(tmp_path, published_record(), protocol=protocol))
    where = record.identity
    assert (where.target, where.dataset, where.question_id, where.drafter) == (
        "Qwen2.5-32B-Instruct",
        "math",
        0,
        FAILFAST,
    )
    assert (where.max_new_tokens, where.origin) == (8, PUBLISHED)
    assert record.output_tokens == [5, 6, 8, 4, 4, 4, 4, 5, 6, 2, 0]
    assert (record.num_accepted, record.num_drafted, record.num_forward_passes) == (8, 10, 10)
    assert [turn.asked_len for turn in record.rounds] == [4, 4, 4]
    assert [turn.prefix_len for turn in record.rounds] == [3, 6, 11]
    assert not record.is_timed


def test_published_pickles_are_ranked_and_drawn(tmp_path):
    for question in "012":
        put(tmp_path, published_record(), question=question)
        put(tmp_path, published_record(8), AR, question)
    ranking = rank.run([str(tmp_path), "--wide"])
    assert AR in ranking and FAILFAST in ranking and "vLLM_A6000" in ranking
    assert acc_pro_len_cdf.main([str(tmp_path), "--out", str(tmp_path / "figure.png")]) == 0


def test_a_published_pickle_is_not_taken_for_one_of_ours_nor_to_be_removed(tmp_path):
    path = put(tmp_path, published_record())
    with pytest.raises(UserError, match="made by the published program: use --overwrite or another --output_dir"):
        load_finished(path, load_record(path).identity)
    elsewhere = tmp_path / "8.pickle"
    elsewhere.write_bytes(path.read_bytes())
    with pytest.raises(UserError, match="published program.*QUESTION") as caught:
        load_record(elsewhere)
    assert "remove" not in str(caught.value)


NOT_PUBLISHED = {
    "a total": (lambda d: d.update(accepted_tokens=9), "accepted_tokens"),
    "a gap": (lambda d: d["stats_each_round"][1].update(prefix_len=2), "round 1: prefix_len"),
    "no token": (lambda d: d["stats_each_round"][1].update(final_token=None), "round 1: final_token"),
    "a draft beyond its window": (lambda d: d["stats_each_round"][0].update(spec_len=3), "round 0"),
    "accepted against the target": (lambda d: d["stats_each_round"][0].update(accepted_len=3), "round 0"),
    "two last tokens": (lambda d: d["stats_each_round"][0].update(bonus_token=8), "round 0: bonus_token"),
    "no question": (lambda d: d.update(raw_data=[]), "raw_data"),
}


@pytest.mark.parametrize("name", NOT_PUBLISHED)
def test_a_damaged_published_pickle_is_refused_by_name(name, tmp_path):
    damage, named = NOT_PUBLISHED[name]
    data = published_record()
    damage(data)
    with pytest.raises(UserError, match=f"pickle of the published program that cannot be read: .*{named}") as caught:
        load_record(put(tmp_path, data))
    assert "\n" not in str(caught.value)
