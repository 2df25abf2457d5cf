"""Studies of loads in files: read as they were written, drawn, and made by one command."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from made_up import made_up_trace
from test_load_report import write_records

from experiments import load_study
from experiments.kept_records import kept_in, kept_records
from plotting import load as figure
from specdec.commands import load
from specdec.errors import UserError
from specdec.ranking.entries import records_of
from specdec.ranking.load_files import read_load_file
from specdec.traces.trace import save_trace, trace_path

FLAGS = ("--latency_target", "Qwen2.5-7B-Instruct", "--context", "1024", "--concurrency", "1", "64", "--seeds", "5")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_records(tmp_path_factory.mktemp("kept") / "results")


@pytest.fixture(scope="module")
def kept(results: Path) -> Path:
    """What `failfast load --json` says of them."""
    path = results.parent / "load.json"
    path.write_text(load.run([str(results), *FLAGS, "--json"]))
    return path


def test_a_kept_study_is_read_as_it_was_written(kept):
    found, document = read_load_file(kept), json.loads(kept.read_text())
    assert found.title == "bundled as if Qwen2.5-7B-Instruct, 6 questions" and found.profile == "H100_bound (roofline)"
    for table, own in zip(found.tables, document["loads"], strict=True):
        assert table.load.value == own["value"] and table.best.name == own["best"]
        for row, theirs in zip(table.rows, own["rows"], strict=True):
            assert (row.name, row.acceptance_len, row.may_be_best) == tuple(
                theirs[key] for key in ("name", "acceptance_len", "may_be_best")
            )
            assert {name: vars(value) for name, value in row.values.items()} == {
                name: theirs[name] for name in row.values
            }
            assert {"speedup", "break_even_len", "tokens_per_s"} <= row.values.keys()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"loads": None}, "is not a study of loads"),
        ({"loads": [{}]}, "is not a study of loads"),
        ({"target": 3, "profile": 5, "is_bound": 1, "num_questions": "x"}, "is not a study of loads"),
        ("speedup", "a number that is not finite"),
    ],
)
def test_another_file_is_one_line(kept, tmp_path, change, why):
    document: dict[str, Any] = json.loads(kept.read_text())
    if isinstance(change, dict):
        document |= change
    else:
        document["loads"][0]["rows"][0][change]["value"] = float("inf")
    (tmp_path / "x.json").write_text(json.dumps(document))
    with pytest.raises(UserError, match=why):
        read_load_file(tmp_path / "x.json")


@pytest.mark.slow
def test_studies_are_drawn_as_records_are_one_below_the_other(kept, results, tmp_path):
    drawn = {}
    for name, inputs in (("kept", [kept]), ("made", [results]), ("two", [kept, kept])):
        flags = FLAGS[:2] + FLAGS[4:7] if name == "made" else ()
        data = tmp_path / f"{name}.csv"
        line = [*map(str, inputs), "--out", str(tmp_path / f"{name}.svg"), "--data", str(data), *flags]
        assert figure.main(line) == 0
        drawn[name] = list(csv.DictReader(data.read_text(encoding="utf-8").splitlines()))
    shape = [(row["series"], row["x"]) for row in drawn["kept"]]
    assert shape == [(row["series"], row["x"]) for row in drawn["made"]] and len(drawn["two"]) == 2 * len(shape)
    own = {row["name"]: row for row in json.loads(kept.read_text())["loads"][1]["rows"]}
    (at_64,) = [
        float(row["y"])
        for row in drawn["kept"]
        if (row["panel"][:7], row["series"], row["x"]) == ("speedup", "AR, static", "64.0")
    ]
    assert at_64 == pytest.approx(own["ar_None_sf_8"]["speedup"]["value"])


def test_one_load_is_no_line(kept, tmp_path, capsys):
    document = json.loads(kept.read_text())
    (tmp_path / "one.json").write_text(json.dumps(document | {"loads": document["loads"][:1]}))
    assert figure.main([str(tmp_path / "one.json"), "--out", str(tmp_path / "x.png")]) == 2
    assert "a line needs two loads" in capsys.readouterr().err


def test_every_kept_record_names_its_sums(results) -> None:
    records = records_of(results)
    summary = json.loads(json.dumps(kept_records(records)))
    kept = {(one["dataset"], one["question_id"], one["drafter"]): one for one in kept_in(summary)}
    assert len(kept) == len(records)
    for record in records:
        one = kept[record.identity.dataset, record.question_id, record.drafter_name]
        assert one["num_accepted"] == sum(turn.accepted_len for turn in record.rounds)
        assert one["num_drafted"] == sum(turn.draft_len for turn in record.rounds)


@pytest.mark.slow
def test_the_script_makes_a_study_of_a_recording(tmp_path):
    """Replayed settings, bounds with heads, every policy; nothing is left in the project."""
    for question in range(6):
        trace = made_up_trace(question, num_tokens=30, chain_len=16, max_new_tokens=40, vocab_size=9)
        save_trace(trace, trace_path(tmp_path, trace.identity))
    asked = {"RECORDED": str(tmp_path), "OUT": str(tmp_path / "load.json"), "LOADS": "1 16", "WHAT": "made up"}
    asked |= {"SETTINGS": "--drafters plain ar_sf lookup --spec_len 2 4", "PYTHON": sys.executable}
    script = Path(load_study.__file__).parents[1] / "scripts" / "load_study.sh"
    subprocess.run([script], env=os.environ | asked, check=True, capture_output=True)
    document = json.loads((tmp_path / "load.json").read_text())
    assert document["profile"] == "H100_heads_bound" and document["records"] == "made up"
    assert [len(table.rows) for table in read_load_file(tmp_path / "load.json").tables] == [5, 5]
    assert {row["policy"] for row in document["loads"][0]["rows"]} == {"fixed", "scheduled", "clairvoyant"}
    assert "H100_heads_bound.json" in document["command"] and str(tmp_path) not in document["command"]
