"""Records: round trips, the published schema, finding and resuming. Hostile files: test_hostile_records.py."""

import dataclasses
import pickle
from pathlib import Path

import pytest
from examples import many
from hypothesis import given
from published_format import PublishedReader
from samples import AR, FAILFAST, make_plain, make_record, make_round, records, saved, trees, with_settings

from specdec.errors import UserError
from specdec.ranking.entries import entry_of, records_of
from specdec.records import pickles
from specdec.records.identity import LIVE, REPLAY, TRACE, first_difference
from specdec.records.places import load_finished
from specdec.records.record import Record, find_records, load_record, record_path, save_record
from specdec.records.rounds import Round

ROOT = Path(__file__).resolve().parent.parent
COST_AWARE = "dllm_0.05_ca_60_Big_1@P"
PUBLISHED_KEYS = {
    "orig_model_inputs",
    "raw_data",
    "num_target_tokens",
    "stats_each_round",
    "num_speculation_rounds",
    "total_num_forward_passes",
    "accepted_tokens",
    "drafted_tokens",
    "rejected_tokens",
    "acceptance_rate",
    "total_output_tokens",
}
PUBLISHED_ROUND_KEYS = {
    "target_tokens",
    "prefix_len",
    "spec_len",
    "~draft_proposal",
    "accepted_len",
    "acceptance_rate",
    "num_forward_passes",
    "final_token",
    "bonus_token",
}


@given(records())
@many(60)
def test_a_record_survives_the_pickle(record):
    data = pickles.dumps(record.to_builtins())
    assert Record.from_builtins(pickles.loads(data)) == record
    assert pickle.loads(data) == record.to_builtins()  # and any reader of pickles sees the same


@given(records())
@many(60)
def test_the_published_keys_hold_and_agree(record):
    data = record.to_builtins()
    assert data.keys() >= PUBLISHED_KEYS
    assert all(entry.keys() >= PUBLISHED_ROUND_KEYS for entry in data["stats_each_round"])
    assert data["num_target_tokens"] == record.identity.max_new_tokens
    assert PublishedReader(data).output_tokens == record.output_tokens == data["output_tokens"]


def test_correction_bonus_and_cut():
    corrected, bonus = make_round(accepted=2), make_round(accepted=3)
    cut = make_round(accepted=3, next_token=None)
    assert (corrected.correction_token, corrected.bonus_token) == (9, None)
    assert (bonus.correction_token, bonus.bonus_token) == (None, 9)
    assert (cut.correction_token, cut.bonus_token, cut.emitted_tokens) == (None, None, [5, 6, 7])
    plain = make_round(draft=(), accepted=0)
    assert (plain.emitted_tokens, plain.acceptance_rate, plain.num_forward_passes) == ([9], 0.0, 0)


def test_derived_numbers():
    record = make_record()
    assert record.output_tokens == [5, 6, 9, 8, 9]
    assert (record.num_accepted, record.num_drafted, record.acceptance_rate) == (3, 4, 0.75)
    assert (record.num_rounds, record.acceptance_len, record.passes_per_round) == (2, 2.5, 2.0)
    assert (record.draft_ms, record.verify_ms, record.measured_ms_per_token) == (8.0, 20.0, 5.6)


CORRUPTIONS = {
    "a total": (lambda d: d.update(accepted_tokens=4), "accepted_tokens"),
    "a total that is True": (lambda d: d["stats_each_round"][1].update(accepted_len=True), "accepted_len"),
    "accepted more than drafted": (lambda d: d["stats_each_round"][0].update(accepted_len=5), "accepted_len"),
    "a token as a string": (lambda d: d["stats_each_round"][0]["~draft_proposal"].append("5"), "~draft"),
    "a negative token": (lambda d: d["orig_model_inputs"].append(-1), "orig_model_inputs"),
    "a time that is NaN": (lambda d: d["stats_each_round"][0].update(draft_ms=float("nan")), "draft_ms"),
    "a time that is negative": (lambda d: d.update(prefill_ms=-1.0), "prefill_ms"),
    "two next tokens": (lambda d: d["stats_each_round"][0].update(bonus_token=1), "bonus_token"),
    "a gap": (lambda d: d["stats_each_round"][1].update(prefix_len=4), "prefix_len"),
    "a missing round": (lambda d: d["stats_each_round"].pop(), "does not agree"),
    "a round that is none": (lambda d: d["stats_each_round"].append(3), "dict"),
    "another drafter": (lambda d: d.update(drafter_name="x"), "drafter"),
    "an identity without target": (lambda d: d["identity"].pop("target"), "target"),
    "the next schema": (lambda d: d.update(schema_version=3), "schema_version"),
    "a token of the target's that is another": (
        lambda d: d["stats_each_round"][0].update(target_tokens=[5, 6, 7]),
        "target",
    ),
    "a target that says too little": (lambda d: d["stats_each_round"][0].update(target_tokens=[5, 6]), "target_tokens"),
    "a target that says too much": (lambda d: d["stats_each_round"][1].update(target_tokens=[8, 9]), "target_tokens"),
    "no last token": (lambda d: d["stats_each_round"][0].update(final_token=None), "final_token"),
    "a window below the draft": (lambda d: d["stats_each_round"][0].update(spec_len=2), "spec_len"),
    "a cut without a word": (lambda d: d["stats_each_round"][0].pop("is_cut"), "is_cut"),
    "a cut after a rejection": (lambda d: d["stats_each_round"][0].update(is_cut=True), "does not agree"),
}


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_an_inconsistent_record_is_refused_by_name(name, tmp_path):
    corrupt, named = CORRUPTIONS[name]
    data = make_record().to_builtins()
    corrupt(data)
    path = tmp_path / "64.pickle"
    path.write_bytes(pickle.dumps(data))
    with pytest.raises(UserError, match=named) as caught:
        load_record(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("key", sorted(make_record().to_builtins()))
def test_a_missing_key_is_named(key):
    data = make_record().to_builtins()
    del data[key]
    with pytest.raises(UserError, match=key):
        Record.from_builtins(data)


@given(trees)
@many(50)
def test_any_builtin_in_place_of_a_record_is_a_user_error(tree):
    with pytest.raises(UserError):
        Record.from_builtins(tree)


def test_find_records_in_numeric_order_and_without_temporary_files(tmp_path):
    for question_id in (10, 9, 100):
        record = make_record(question_id)
        save_record(record, record_path(tmp_path, "bundled", "gsm8k", question_id, record.drafter_name, 64))
    (tmp_path / "pickles" / "bundled" / ".64.pickle.1-ab.tmp").write_bytes(b"half")
    assert [load_record(path).question_id for path in find_records(tmp_path)] == [9, 10, 100]
    assert find_records(tmp_path / "pickles" / "bundled" / "gsm8k" / "9") != []
    assert find_records(tmp_path / "absent") == []


def test_resume(tmp_path):
    record, path = saved(tmp_path)
    assert load_finished(tmp_path / "absent.pickle", record.identity) is None
    assert load_finished(path, record.identity) == record
    with pytest.raises(UserError, match=r"64.pickle .*seed: stored 0, asked 1.*--overwrite"):
        load_finished(path, with_settings(record.identity, {"seed": 1}))
    with pytest.raises(UserError, match="first_window: stored nothing, asked 10"):
        load_finished(path, with_settings(record.identity, {"first_window": 10}))
    with pytest.raises(UserError, match="dtype: stored 'float32', asked nothing"):
        load_finished(path, dataclasses.replace(record.identity, settings={"seed": 0}))
    path.write_bytes(b"half")
    with pytest.raises(UserError, match="--overwrite"):
        load_finished(path, record.identity)


def test_identities_that_print_alike_differ():
    assert first_difference({"seed": 1}, {"seed": True}) is not None
    assert first_difference({"lengths": [1, 2]}, {"lengths": (1, 2)}) is None


# What earlier versions spelled differently -> what it is now; FAILFAST's name stood for any window and any rule.
OLDER = {
    FAILFAST: (FAILFAST, {}, {}),
    "another window": (f"{FAILFAST}_w9", {"first_window": 9}, {"first_window": 9}),
    "the strict rule": (f"{FAILFAST}_strict", {"rule": "strict"}, {"rule": "strict"}),
    "both": (f"{FAILFAST}_w9_strict", *[{"first_window": 9, "rule": "strict"}] * 2),
    "graphs": (FAILFAST, {"engine": "graph"}, {"backend": "graph"}),
    COST_AWARE: (COST_AWARE, {"engine": "Big_1@P"}, {"pricing": "Big_1@P"}),
    "cost-aware under graphs": (COST_AWARE, {"engine": "graph"}, {"backend": "graph", "pricing": "Big_1@P"}),
}


def older(drafter: str, settings: dict, **changes: object) -> dict:
    """What an earlier version would have written."""
    data = make_record(drafter=drafter, **changes).to_builtins()
    del data["identity"]["origin"]
    data["identity"] |= settings
    return data


@pytest.mark.parametrize("case", OLDER)
def test_an_older_record_is_read_as_what_it_was(case, tmp_path):
    name, before, now = OLDER[case]
    published = COST_AWARE if name == COST_AWARE else FAILFAST
    own = {"confidence_threshold": 0.45} if published == FAILFAST else {}
    path = record_path(tmp_path, "bundled", "gsm8k", 0, published, 64)
    path.parent.mkdir(parents=True)
    path.write_bytes(pickle.dumps(older(published, own | before)))
    record = load_record(path)
    assert (record.drafter_name, record.identity.origin) == (name, LIVE)
    known = {"seed": 0, "dtype": "float32"}
    assert record.identity.settings == known | ({"tau": 0.45} if own else {}) | now
    assert load_finished(path, record.identity) == record  # and what is asked now finds it
    save_record(record, path)
    assert load_record(path) == record
    (entry,) = map(entry_of, records_of(tmp_path))
    assert entry.drafter_name == name
    if name != published:  # it is not in the way of what has that name today
        assert load_finished(path, dataclasses.replace(record.identity, drafter=published)) is None


def test_an_older_replay_is_a_replay():
    replayed = older(FAILFAST, {"confidence_threshold": 0.45}, provenance={"replayed": "2025-01-01T00:00:00+00:00"})
    assert Record.from_builtins(replayed).identity.origin == REPLAY


def test_an_older_run_that_was_verified_by_a_trace_is_known_by_its_times():
    looked_up = older(AR, {}, rounds=[make_round(3, verify_ms=0.0), make_round(6, (8,), 1, verify_ms=0.0)])
    assert Record.from_builtins(looked_up).identity.origin == TRACE


@pytest.mark.parametrize("stored", [LIVE, REPLAY, TRACE])
@pytest.mark.parametrize("asked", [LIVE, REPLAY, TRACE])
def test_where_a_record_is_from_tells_it_apart(stored, asked, tmp_path):
    """A replay is never taken for a finished live run, nor the other way round."""
    of = {origin: dataclasses.replace(make_record().identity, origin=origin) for origin in (stored, asked)}
    path = tmp_path / "64.pickle"
    save_record(make_record(identity=of[stored]), path)
    if stored == asked:
        assert load_finished(path, of[asked]).identity.origin == stored
        return
    with pytest.raises(UserError, match=f"origin: stored '{stored}', asked '{asked}'"):
        load_finished(path, of[asked])


def test_an_origin_that_is_none_is_refused():
    data = make_record().to_builtins()
    data["identity"]["origin"] = "elsewhere"
    with pytest.raises(UserError, match="origin"):
        Record.from_builtins(data)


def test_plain_decoding_is_a_record_like_any_other(tmp_path):
    plain = make_plain()
    save_record(plain, tmp_path / "64.pickle")
    assert load_record(tmp_path / "64.pickle") == plain
    assert (plain.acceptance_len, plain.num_drafted, plain.measured_ms_per_token) == (1.0, 0, 10.0)


@given(records())
@many(30)
def test_rounds_survive(record):
    for prompt_len in (0, len(record.prompt_ids)):
        kept = [Round.from_builtins(turn.to_builtins(prompt_len), prompt_len) for turn in record.rounds]
        assert kept == record.rounds
