"""Heads by the clock: settings are chosen on questions that the result is not told of, each family's fastest."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path

import pytest
from samples import make_plain, make_record, make_round

from experiments import heads_clock
from experiments.heads_clock import DATASETS, told, tuning
from specdec.errors import UserError
from specdec.records.record import identity_path, save_record

MS = {"dflash_sf_8": 9.0, "dflash_df_0.2_15_1": 8.0, "eagle3_sf_4": 7.0, "lookup_3_sf_10": 5.0}


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Every run's words; a run leaves a record of each of its drafters, which take MS a round, or 30."""
    calls: list[list[str]] = []

    def run(words: list[str]) -> int:
        calls.append(words)
        out = Path(words[words.index("--output_dir") + 1])
        names = words[words.index("--drafters") + 1 :]
        for question in map(int, words[words.index("--question_ids") + 1 : words.index("--drafters")]):
            for name in ("lookup_3_sf_10" if name == "lookup" else name for name in names if name != "plain"):
                rounds = [make_round(3, draft_ms=MS.get(name, 30.0)), make_round(6, (8,), 1, draft_ms=30.0)]
                record = make_record(question, name, rounds)
                save_record(record, identity_path(out, record.identity))
            plain = make_plain(question)
            save_record(plain, identity_path(out, plain.identity))
        return 0

    monkeypatch.setattr(heads_clock.cli, "main", run)
    return calls


def work_folder(tmp_path: Path, *families: str) -> Path:
    for family in families:
        (tmp_path / heads_clock.FAMILIES[family][1]).mkdir(parents=True)
    return tmp_path


@pytest.mark.parametrize("dataset", DATASETS)
@pytest.mark.parametrize(("num", "num_tuning"), [(30, 2), (30, 10), (1, 1), (7, 5)])
def test_no_question_is_tuned_on_and_told_of(dataset: str, num: int, num_tuning: int) -> None:
    flags = Namespace(num_questions=num, num_tuning=num_tuning)
    one, other = told(dataset, flags), tuning(dataset, flags)
    assert len(set(one)) == num and len(set(other)) == num_tuning and not set(one) & set(other)
    begin, end = heads_clock.SPREAD.get(dataset, (0, num + num_tuning))
    assert all(begin <= question < end for question in one + other)
    if dataset == "spec_bench" and num == 30:
        assert {(question - 80) // 80 for question in one} == set(range(5))  # all kinds


def test_more_questions_than_there_are_is_an_error_in_one_line() -> None:
    flags = Namespace(num_questions=399, num_tuning=1)
    assert len(tuning("spec_bench", flags)) == 1 and len(told("spec_bench", flags)) == 399
    for ask in (told, tuning):
        with pytest.raises(UserError, match="spec_bench has 400 questions: ask for fewer"):
            ask("spec_bench", Namespace(num_questions=399, num_tuning=2))


def test_the_fastest_of_each_family_on_some_questions_runs_on_others(tmp_path, called, capsys) -> None:
    work = work_folder(tmp_path, "dflash", "dspark", "eagle3")
    flags = "--data_dir data --datasets gsm8k --num_questions 35 --num_tuning 6 --dtypes bfloat16"
    assert heads_clock.main([str(work), *flags.split()]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    chosen = found["chosen"]["bfloat16"]
    assert chosen["all"][:2] == ["plain", "lookup_3_sf_10"] and "eagle3_sf_4" in chosen["all"]
    assert set(chosen["all"]) == {"plain", "lookup_3_sf_10", "eagle3_sf_4", "dflash_df_0.2_15_1"}
    assert chosen["dspark"] == ["plain", "dflash_df_0.2_15_1"]
    assert found["tuned_on"] == {"gsm8k": list(range(35, 41))} and found["told_of"] == {"gsm8k": list(range(35))}
    rows = found["folders"]["bfloat16"]["dspark"]["rows"]["gsm8k"]
    assert [row["num_questions"] for row in rows] == [35]
    ranked = [row["drafter"] for row in found["side_by_side"]["bfloat16"]["all"]]
    assert ranked[0] == "all: lookup_3_sf_10" and len(ranked) == len(set(ranked)) == 4
    assert {"all: dflash_df_0.2_15_1", "dspark: dflash_df_0.2_15_1"} < set(ranked)
    heads = [words[words.index("--dflash_dir") + 1] for words in called]
    assert set(heads) == {str(work / "dflash/dflash"), str(work / "dspark/dspark")}
    sizes = [words.index("--drafters") - words.index("--question_ids") - 1 for words in called]
    assert sizes == [6, 6, 30, 30, 5, 5]  # each run, then the next questions


def test_when_the_time_is_up_no_run_begins(tmp_path, called, capsys) -> None:
    work = work_folder(tmp_path, "dflash")
    assert heads_clock.main([str(work), "--data_dir", "data", "--limit_s", "0"]) == 0
    assert not called and json.loads(capsys.readouterr().out.splitlines()[-1])["folders"] == {}


def test_a_folder_without_heads_and_a_run_that_fails_end_in_one_line(tmp_path, called, capsys, monkeypatch) -> None:
    assert heads_clock.main([str(tmp_path), "--data_dir", "data"]) == 2
    assert "heads.sh" in capsys.readouterr().err
    monkeypatch.setattr(heads_clock.cli, "main", lambda words: 2)
    assert heads_clock.main([str(work_folder(tmp_path, "dspark")), "--data_dir", "data"]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
