"""Files for other programs: flat tables of records and rounds, and specdec_bench's two files, from definitions."""

from __future__ import annotations

import builtins
import csv
import json
from dataclasses import fields
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import pytest
from examples import many
from hypothesis import given
from hypothesis import strategies as st
from samples import make_plain, make_record, of_question, records
from written import tokens_of, written

from specdec.commands import rank
from specdec.commands.exports import WRITERS
from specdec.errors import UserError
from specdec.latency.pricing import Pricing
from specdec.latency.profile import load_profile
from specdec.ranking.entries import entry_of, merge
from specdec.ranking.source import Source
from specdec.records.record import Record, identity_path, save_record
from specdec.records.turns import row_of, turn_id, turn_of
from specdec.views.record_rows import KEYS, record_rows, round_rows
from specdec.views.record_text import record_lines
from specdec.views.specdec_bench import acceptance_rate, runs_of, timing

DRAFTERS = ("plain", "ar_None_sf_8", "ar_None_sf_4", "dllm_0.05_sf_8", "dllm_0.05_df_0.45_60_10", "lookup_3_sf_8")
PRICING = Pricing((load_profile("vLLM_A6000"),))


def results(folder: Path) -> list[Record]:
    """Three rows of two turns under six drafters, two categories."""
    numbers = [turn_id(row, turn) for row in range(3) for turn in range(2)]
    made = [
        written(
            tokens_of("The sum is 12. " * (2 + row_of(number))),
            drafter,
            question_id=number,
            raw_data={"question": "?", "category": ("writing", 'ma"th,\n')[row_of(number) % 2]},
        )
        for number in numbers
        for drafter in DRAFTERS
    ]
    for record in made:
        save_record(record, identity_path(folder, record.identity))
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("exports")
    results(made)
    return made


def read_csv(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


# ---- flat tables -----------------------------------------------------------------------------------------------------


def test_csv_has_every_record_and_every_round(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert rank.main([str(folder), "--records", "csv", "--out", str(tmp_path / "tables")]) == 0
    said = capsys.readouterr()
    made = rank.records_of(folder)
    assert "Best configuration" in said.out or "Highest" in said.out
    assert f"records.csv: {len(made)} rows" in said.err
    found, turns = read_csv(tmp_path / "tables/records.csv"), read_csv(tmp_path / "tables/rounds.csv")
    key = ("target", "dataset", "max_new_tokens", "question_id", "drafter_name")
    by_key = {(one.identity.target, one.identity.dataset, str(one.identity.max_new_tokens), str(one.question_id),
               one.drafter_name): one for one in made}  # fmt: skip
    assert {tuple(row[name] for name in key) for row in found} == by_key.keys() and len(found) == len(made)
    for row in found:
        record = by_key[tuple(row[name] for name in key)]
        own = [one for one in turns if all(one[name] == row[name] for name in key)]
        assert (int(row["row"]), int(row["turn"])) == (row_of(record.question_id), turn_of(record.question_id))
        assert row["category"] == record.raw_data["category"]
        assert int(row["num_rounds"]) == len(record.rounds) == len(own)
        assert float(row["acceptance_len"]) == pytest.approx(len(record.output_tokens) / len(record.rounds))
        assert float(row["tpot_ms"]) == pytest.approx(record.measured_ms_per_token)
        for one, turn in zip(own, record.rounds, strict=True):
            assert int(one["draft_len"]) == turn.draft_len and int(one["accepted_len"]) == turn.accepted_len
            assert int(one["num_output_before"]) == turn.prefix_len - len(record.prompt_ids)
            assert float(one["verify_ms"]) == turn.verify_ms and one["stop_reason"] == turn.stop_reason
    settings = {row["drafter_name"]: row for row in found}
    assert settings["dllm_0.05_df_0.45_60_10"]["tau"] == "0.45" and settings["dllm_0.05_sf_8"]["tau"] == ""
    assert settings["ar_None_sf_4"]["draft_len"] == "4" and settings["ar_None_sf_4"]["family"] == "ar_sf"
    engine = next(name for name in found[0] if name.startswith("speedup ["))
    assert float(settings["ar_None_sf_4"][engine]) > 0


def test_parquet_has_the_same(folder: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    for form in ("csv", "parquet"):
        rank.run([str(folder), "--records", form, "--out", str(tmp_path)])
    for name in ("records", "rounds"):
        table = parquet.read_table(tmp_path / f"{name}.parquet")
        spelled = [{k: "" if v is None else str(v) for k, v in row.items()} for row in table.to_pylist()]
        assert spelled == read_csv(tmp_path / f"{name}.csv")
    assert str(table.schema.field("is_cut").type) == "bool" and str(table.schema.field("top_p").type) == "double"


@many(25)
@given(st.lists(records(), min_size=1, max_size=4), st.sampled_from(sorted(WRITERS)))
def test_any_record_makes_a_table(made: list[Record], form: str) -> None:
    """Whatever a question's row holds, and whichever drafters there are together."""
    if form == "parquet":
        pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    of_each = {(one.question_id, one.drafter_name): one for one in made}
    entries = merge(entry_of(one, PRICING) for one in of_each.values())
    pairs = [(of_each[entry.question_id, entry.drafter_name], entry) for entry in entries]
    for rows in (record_rows(pairs), round_rows([one for one, _ in pairs])):
        assert all(row.keys() <= rows.columns.keys() for row in rows.rows)
        for row in rows.rows:
            for name, value in row.items():
                kinds = (int, float) if rows.columns[name] is float else rows.columns[name]
                assert value is None or isinstance(value, kinds), name
        assert WRITERS[form](rows)


def test_flags_and_logs_that_do_not_go_together(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for flags in (["--records", "csv"], ["--out", str(tmp_path)]):
        with pytest.raises(UserError, match="go together"):
            rank.run([str(folder), *flags])
    log = tmp_path / "run.log"
    record = make_record()
    log.write_text("\n".join(record_lines(record, entry_of(record))))
    with pytest.raises(UserError, match="logs hold none"):
        rank.run([str(log), "--records", "csv", "--out", str(tmp_path)])
    with pytest.raises(UserError, match="cannot write"):
        rank.run([str(folder), "--records", "csv", "--out", str(log)])
    real = builtins.__import__

    def without(name: str, *more: Any, **others: Any) -> Any:
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *more, **others)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match="needs pyarrow, which is not installed: give --records csv"):
        rank.run([str(folder), "--records", "parquet", "--out", str(tmp_path)])


# ---- specdec_bench ---------------------------------------------------------------------------------------------------


def theirs(made: list[Record]) -> dict[str, Any]:
    """Their figures of a run, from the lengths of its steps: by brute force."""
    steps = {one.question_id: [len(turn.emitted_tokens) for turn in one.rounds] for one in made}
    lengths = [length for own in steps.values() for length in own]
    there = sorted(set(lengths))
    joint = {k: sum(one >= k for one in lengths) / len(lengths) for k in there}
    conditional = {}
    for index, k in enumerate(there):
        before = [one for one in lengths if index == 0 or one >= there[index - 1]]
        conditional[k] = sum(one >= k for one in before) / len(before)
    return {
        "Average_AL": fmean(fmean(own) for own in steps.values()),
        "Acceptance_Length_Histogram": {k: lengths.count(k) for k in there},
        "Conditional_Acceptance_Rate": pytest.approx(conditional),
        "Joint_Acceptance_Rate": pytest.approx(joint),
    }


@many(25)
@given(st.lists(records(drafter="ar_None_sf_8"), min_size=1, max_size=4))
def test_acceptance_is_as_they_count_it(made: list[Record]) -> None:
    made = [of_question(one, question_id=turn_id(index // 2, index % 2)) for index, one in enumerate(made)]
    (found,) = acceptance_rate(made)
    expected = theirs(made)
    assert {name: found[name] for name in expected} == expected | {"Average_AL": pytest.approx(expected["Average_AL"])}
    for one in made:
        own = found["Request_AL"][row_of(one.question_id)][turn_of(one.question_id)]
        assert own == pytest.approx(fmean(len(turn.emitted_tokens) for turn in one.rounds))


def test_the_files_of_a_folder(folder: Path, tmp_path: Path) -> None:
    rank.run([str(folder), "--specdec_bench", str(tmp_path)])
    made = rank.records_of(folder)
    names = {path.name for path in next(tmp_path.iterdir()).iterdir()}
    assert names == set(DRAFTERS) and len(list(tmp_path.iterdir())) == 1
    for drafter in DRAFTERS:
        own = [one for one in made if one.drafter_name == drafter]
        run = next(tmp_path.iterdir()) / drafter
        (said,), (times,) = (json.loads((run / name).read_text()) for name in ("acceptance_rate.json", "timing.json"))
        assert said["Request_AL"].keys() == {"0", "1", "2"} and said["Request_AL"]["0"].keys() == {"0", "1"}
        assert said["Acceptance_Length_Histogram"] == {
            str(k): count for k, count in theirs(own)["Acceptance_Length_Histogram"].items()
        }
        of_row = {row: [one for one in own if row_of(one.question_id) == row] for row in range(3)}
        means = {row: sum(len(one.output_tokens) for one in turns) / sum(len(one.rounds) for one in turns)
                 for row, turns in of_row.items()}  # fmt: skip
        assert said["Category_AL"] == pytest.approx({"writing": fmean([means[0], means[2]]), 'ma"th,\n': means[1]})
        ends = [(one.prefill_ms + one.draft_ms + one.verify_ms) / 1e3 for one in own]
        firsts = [(one.prefill_ms + one.rounds[0].draft_ms + one.rounds[0].verify_ms) / 1e3 for one in own]
        tokens = [len(one.output_tokens) for one in own]
        assert times["Output TPS"] == pytest.approx(sum(tokens) / sum(ends)) == times["Output TPS/gpu"]
        assert times["TTFT Time"]["mean"] == f"{fmean(firsts):.4f}"
        assert times["E2E Request Time"]["max"] == f"{max(ends):.4f}"
        assert times["Number of Output Tokens"]["std"] == f"{pstdev(tokens):.4f}"
        rates = [(count - 1) / (end - first) for count, end, first in zip(tokens, ends, firsts, strict=True)]
        assert float(times["Request Generation Tokens Per Second"]["min"]) == pytest.approx(min(rates), abs=1e-3)
        assert times.keys() >= {"Request Generation Step Time"}


def test_replayed_records_have_no_times_and_names_are_names_of_folders() -> None:
    untimed = make_plain(0, 3, verify_ms=0.0)
    assert timing([untimed]) is None and timing([untimed, make_plain(1)]) is None and timing([make_plain(1)])
    hostile = of_question(make_plain(0), target="../../etc", dataset=".. /x")
    ((sweep, run),) = runs_of([hostile])
    assert "/" not in sweep + run and not sweep.startswith(".")
    assert runs_of([make_record(rounds=[])]) == {}


def test_two_targets_never_share_a_folder() -> None:
    targets = ("Qwen/Qwen3", "Qwen_Qwen3", "qwen_qwen3")
    found = runs_of([of_question(make_plain(0), target=target) for target in targets])
    assert len(found) == 3 and len({sweep.casefold() for sweep, _ in found}) == 3


def test_rows_are_told_apart_by_all_that_tells_questions_apart() -> None:
    parts = {part.name for part in fields(Source)} - {"name"}  # a record states its parts
    assert parts | {"question_id", "drafter_name"} == set(KEYS)
    thought = [of_question(make_plain(0), settings={"thinking": way}) for way in ("on", "off")]
    assert {row["thinking"] for row in round_rows(thought).rows} == {"on", "off"}
