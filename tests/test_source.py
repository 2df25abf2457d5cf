"""Sources: facts and never a sentence; what logs and files of before say in one is still read."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from samples import make_plain, make_record, of_question, with_settings

from specdec.latency.pricing import Pricing
from specdec.latency.profile import load_profile
from specdec.ranking.entries import entry_of, merge
from specdec.ranking.logs import parse_log_lines
from specdec.ranking.source import Source
from specdec.ranking.table import table_of
from specdec.ranking.table_files import read_table_file
from specdec.views.record_text import record_lines
from specdec.views.table_data import ranking_document, ranking_json
from specdec.views.tables import ranking_report

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results"
SAMPLED = {"decoding": "sampled", "temperature": 0.7, "top_k": 40, "top_p": 0.95}
ENGINE = "vLLM_A6000 as if Qwen2.5-32B-Instruct"
# As the program wrote them while a source was one string.
OLD_LOG = """\
[Problem 0, plain] Totals: {"source": "bundled gsm8k 64 float32", "settings": "811949743074", "output": \
"37b3d1f6149d", "output_tokens": 5, "accepted": 0, "drafted": 0, "rounds": 5, "forward_passes": 0, "draft_ms": 0.0, \
"verify_ms": 50.0, "prices": {"vLLM_A6000 as if Qwen2.5-32B-Instruct": [0.0, 263.0, 263.0]}, "correct": null, \
"degenerate": true, "losslessness": "", "ceilings": {}}
[Problem 0, ar_None_sf_3] Totals: {"source": "bundled gsm8k 64 float32", "settings": "46ab59242db7", "output": \
"7c5ea4c87eb7", "output_tokens": 5, "accepted": 3, "drafted": 4, "rounds": 2, "forward_passes": 4, "draft_ms": 8.0, \
"verify_ms": 20.0, "prices": {"vLLM_A6000 as if Qwen2.5-32B-Instruct": [24.4, 105.2, 263.0]}, "correct": null, \
"degenerate": false, "losslessness": "", "ceilings": {}}
"""
names = st.text(min_size=1, max_size=12) | st.sampled_from(["my model", "a/b", "temperature", "x gsm8k 64 float32 cpu"])


def source_of(target: str, **changes: object) -> Source:
    record = make_record()
    identity = dataclasses.replace(record.identity, target=target)
    return Source.of(dataclasses.replace(record, identity=with_settings(identity, changes)))


@given(names, st.booleans(), st.booleans())
def test_json_keeps_every_part(target: str, is_sampled: bool, has_device: bool) -> None:
    changes = (SAMPLED if is_sampled else {}) | ({"device": "cpu"} if has_device else {})
    source = source_of(target, **changes)
    assert Source.from_builtins(json.loads(json.dumps(source.to_builtins(), allow_nan=False))) == source
    assert (source.target, source.dataset, source.is_sampled) == (target, "gsm8k", is_sampled)


@given(names, names)
def test_two_targets_are_two_sources_in_a_log_too(one: str, other: str) -> None:
    records = [make_record(question) for question in (0, 1)]
    records = [of_question(record, target=target) for record, target in zip(records, (one, other), strict=True)]
    entries = parse_log_lines(line for record in records for line in record_lines(record, entry_of(record)))
    assert [entry.source.target for entry in entries] == [one, other]
    titles = [source["target"] for source in ranking_document(entries)["sources"]]
    assert sorted(titles) == sorted({one, other})


def test_titles_are_for_people() -> None:
    assert source_of("my model").title == "my model gsm8k 64 float32"
    sampled = source_of("my model", device="cuda", **SAMPLED)
    assert sampled.title == "my model gsm8k 64 float32 cuda temperature 0.7 top_k 40 top_p 0.95"
    assert Source(name="a.log").title == "a.log" and Source().title == ""


@pytest.mark.parametrize("changes", [{}, {"device": "cpu"}, {"device": "cuda", **SAMPLED}])
@pytest.mark.parametrize("target", ["bundled", "my model", "temperature", "x gsm8k 64 float32 cpu"])
def test_a_title_of_before_is_the_same_source(target: str, changes: dict) -> None:
    source = source_of(target, **changes)
    assert Source.from_builtins(source.title) == source


@pytest.mark.parametrize("title", ["", "a.log", "some folder/run 1.log", "bundled gsm8k", "x math 64 temperature hot"])
def test_another_sentence_is_a_name(title: str) -> None:
    assert Source.from_builtins(title) == Source(name=title) and Source(name=title).title == title


@pytest.mark.parametrize(
    "damaged",
    [
        *(
            1,
            None,
            ["bundled"],
            {"targets": "x"},
            {"target": 1},
            {"max_new_tokens": True},
            {"temperature": float("nan")},
        ),
        *({"max_new_tokens": ""}, {"temperature": ""}, {"dataset": None}),
    ],
)
def test_a_damaged_source_is_no_entry(damaged: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        Source.from_builtins(damaged)
    record = make_record()
    head, _, totals = record_lines(record, entry_of(record))[0].partition("Totals: ")
    line = f"{head}Totals: {json.dumps(json.loads(totals) | {'source': damaged})}"
    assert parse_log_lines([line]) == []


# --- results of before ---


def test_a_log_of_before_ranks_as_it_did_and_is_of_the_same_run_as_its_records() -> None:
    pricing = Pricing((load_profile("vLLM_A6000"),))
    old, new = parse_log_lines(OLD_LOG.splitlines()), [entry_of(one, pricing) for one in (make_plain(), make_record())]
    unsaid = {"origin": "live", "ttft_ms": None, "rounds": None}  # what logs of before did not say
    told, known = ([dataclasses.replace(entry, **unsaid) for entry in made] for made in (old, merge(new)))
    assert told == known and merge([*old, *new]) == merge(new)
    for engine, speedup in ((ENGINE, 2.0293209876543212), ("measured", 1.7857142857142858)):
        (row,) = table_of(old, engine).rows
        assert row.num_questions == 1
        assert (row.number("speedup_mean"), row.number("acceptance_rate")) == (speedup, 0.75)
    assert ranking_json(told) == ranking_json(known) and ranking_report(old) == ranking_report(new)


def test_stored_rankings_are_read_as_before() -> None:
    read = []
    for path in sorted(RESULTS.glob("*.json")):
        document = json.loads(path.read_text(encoding="utf-8"))
        stored = document.get("ranking", document) if isinstance(document, dict) else {}
        if "engines" in stored and "sources" in stored:
            check_stored(path, document, stored)
            read.append(path)
    assert len(read) >= 6


def check_stored(path: Path, document: dict, stored: dict) -> None:
    rankings, sources = read_table_file(path), [Source.from_builtins(one) for one in stored["sources"]]
    assert [one.engine for one in rankings] == [engine["engine"] for engine in stored["engines"]]
    for ranking, engine in zip(rankings, stored["engines"], strict=True):
        assert ranking.title == str(document.get("label") or ", ".join(one.title for one in sources))
        assert ranking.target == sources[0].target
        points = [(one.drafter_name, one.number("speedup_mean")) for one in ranking.rows]
        assert points == [(row["drafter_name"], row["speedup_mean"]) for row in engine["rows"]]


def test_a_ranking_file_knows_its_target_by_name(tmp_path: Path) -> None:
    record = of_question(make_record(), target="my model")
    entries = [entry_of(record, Pricing((load_profile("vLLM_A6000"),), "Qwen2.5-7B-Instruct"))]
    (tmp_path / "ranking.json").write_text(ranking_json(entries))
    ranking, _ = read_table_file(tmp_path / "ranking.json")
    assert (ranking.target, ranking.title) == ("my model", "my model gsm8k 64 float32")
