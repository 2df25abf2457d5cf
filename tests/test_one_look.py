"""One look: a ranking fits the terminal, says why and how far from the best; a run's lines, log, page, next steps."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from examples import many
from hypothesis import given
from hypothesis import strategies as st
from samples import make_plain, make_record
from test_verdicts import noisy, ranked, two_sets

from specdec.commands import next_steps, rank
from specdec.commands import run as failfast
from specdec.commands.run import parse_args
from specdec.errors import UserError
from specdec.latency.pricing import Price, Pricing
from specdec.models import loaded
from specdec.ranking.ceiling import Ceiling
from specdec.ranking.entries import Entry, entry_of
from specdec.ranking.table import table_of
from specdec.runs.run_file import RunFile, find_logs
from specdec.text import MARKDOWN, columns, cut
from specdec.views.brief import COLUMNS, brief_table
from specdec.views.labels import short_labels
from specdec.views.progress import question_line
from specdec.views.tables import answers_line, ranking_report
from specdec.views.verdict import headline, in_short
from specdec.views.view import View
from specdec.views.why import ceiling_line, why_line

FAILFAST, AR, LOOKUP, STATIC = "dllm_0.05_df_0.45_60_10", "ar_None_sf_10", "lookup_3_sf_10", "dllm_0.05_sf_10"
PRICING = Pricing.load(["vLLM_A6000"])


def account(
    name: str, tokens: int, passes: int, draft_ms: float, verify_ms: float, accepted: float = 0.5
) -> list[Entry]:
    """Entries of 6 questions, 10 rounds each: `tokens` in 10 rounds; a plain token costs 10 ms."""
    return [
        Entry(
            question_id=question,
            drafter_name=name,
            num_output_tokens=tokens,
            num_accepted=int(100 * accepted),
            num_drafted=100,
            num_forward_passes=passes,
            num_rounds=10,
            prices={"E": Price(draft_ms, verify_ms, 10.0 * tokens + question % 2)},
        )
        for question in range(6)
    ]


def why(*entries: list[Entry]) -> str:
    return why_line(table_of([one for own in entries for one in own], "E"))


# ---- why -------------------------------------------------------------------------------------------------------------


def test_a_drafter_that_accepts_more_and_loses_is_told_by_its_passes() -> None:
    said = why(account(FAILFAST, 51, 26, 30.0, 100.0, 0.44), account(AR, 64, 87, 100.0, 100.0, 0.70))
    assert said == (
        "Why: AR static accepts more of its draft (70% against 44%) and gives more tokens a round (6.4 against 5.1), "
        "but needs 8.7 passes a round against 2.6: drafting is 50% of its time, against 23%."
    )


def test_a_drafter_that_loses_by_verification_is_told_so() -> None:
    said = why(account(FAILFAST, 51, 26, 30.0, 100.0), account(AR, 64, 20, 30.0, 200.0))
    assert "but to verify its drafts costs as much as 20.0 tokens of plain decoding a round" not in said
    assert "to verify its drafts costs as much as 2.0 tokens of plain decoding a round, against 1.0" in said


def test_as_many_passes_that_cost_more_are_told_so() -> None:
    said = why(account(FAILFAST, 51, 26, 30.0, 100.0), account(AR, 64, 26, 100.0, 100.0))
    assert "its passes cost more: drafting is 50% of its time, against 23%" in said


def test_ar_wins_by_tokens_over_the_best_of_another_kind() -> None:
    others = account(FAILFAST, 40, 20, 30.0, 100.0, 0.3), account(LOOKUP, 12, 0, 0.0, 100.0)
    said = why(account(AR, 64, 87, 20.0, 100.0, 0.7), *others)
    assert said.startswith("Why: a round of AR static gives more (6.4 tokens against FailFast's 4.0, 70% of a draft")
    assert "and costs 1.2 tokens of plain decoding against 1.3" in said and "prompt lookup" not in said


def test_dearer_rounds_may_win() -> None:
    said = why(account(FAILFAST, 80, 40, 60.0, 100.0), account(AR, 40, 40, 40.0, 100.0))
    assert said.startswith(
        "Why: a round of AR static costs less (1.4 tokens of plain decoding against FailFast's 1.6), but gives"
    )


def test_none_beats_plain_decoding_because_rounds_cost_more_than_they_give() -> None:
    said = why(account(AR, 15, 90, 180.0, 100.0), account(LOOKUP, 11, 0, 10.0, 200.0))
    assert said == (
        "Why: a round of AR static costs as much as 2.8 tokens of plain decoding (64% of it drafting) and gives 1.5."
    )


def test_shares_stand_in_the_order_of_the_tokens_before_them() -> None:
    said = why(account(AR, 74, 90, 80.0, 110.0, 0.78), account(FAILFAST, 46, 26, 30.0, 100.0, 0.48))
    assert "gives 4.6 tokens against 7.4, 48% of a draft accepted against 78%." in said
    said = why(account(AR, 74, 90, 20.0, 110.0, 0.78), account(FAILFAST, 46, 26, 30.0, 100.0, 0.48))
    assert "gives more (7.4 tokens against FailFast's 4.6, 78% of a draft accepted against 48%)" in said


def test_rounds_that_give_or_cost_the_same_are_said_to() -> None:
    said = why(account(FAILFAST, 51, 26, 30.0, 100.0), account(AR, 51, 87, 100.0, 100.0))
    assert said.startswith("Why: a round of FailFast gives as many tokens as one of AR static (5.1) and costs 1.3")
    said = why(account(FAILFAST, 51, 26, 30.0, 100.0), account(AR, 40, 87, 50.0, 80.0))
    assert said.endswith("(5.1 tokens against AR static's 4.0) and costs as much: 1.3 tokens of plain decoding.")


def test_a_reason_is_one_for_what_it_explains() -> None:
    said = why(account(FAILFAST, 80, 26, 500.0, 100.0), account(AR, 85, 30, 600.0, 190.0))  # drafting 83 %, then 76 %
    assert said.endswith("but to draft costs as much as 6.0 tokens of plain decoding a round, against 5.0.")
    said = why(account(FAILFAST, 51, 26, 30.0, 100.0), account(AR, 50, 30, 30.0, 200.0))
    assert said.endswith("costs 1.3 tokens of plain decoding against 2.3: verification is 1.0 against 2.0 of that.")


@given(
    st.lists(
        st.tuples(st.integers(10, 80), st.integers(0, 90), st.sampled_from((0.0, 1.0, 50.0, 50.1, 99.0)),
                  st.sampled_from((1.0, 50.0, 50.01, 200.0)), st.sampled_from((0.0, 0.5, 0.501, 1.0))),
        min_size=2, max_size=3,
    )
)  # fmt: skip
def test_numbers_that_a_reason_compares_are_told_apart_and_stand_in_its_direction(
    settings: list[tuple[int, int, float, float, float]],
) -> None:
    names = (FAILFAST, AR, LOOKUP)
    said = why(*(account(name, *values) for name, values in zip(names, settings, strict=False)))
    for pattern, is_up in (
        (r"more of its draft \(([\d.]+)% against ([\d.]+)%\)", True),
        (r"more tokens a round \(([\d.]+) against ([\d.]+)\)", True),
        (r"gives more \(([\d.]+) tokens against .*?'s ([\d.]+)[,)]", True),
        (r"needs ([\d.]+) passes a round against ([\d.]+)", True),
        (r"drafting is ([\d.]+)% of its time, against ([\d.]+)%", True),
        (r"drafting is ([\d.]+)% of its time against ([\d.]+)%", False),
        (r"and costs ([\d.]+) tokens of plain decoding against ([\d.]+)", False),
        (r"costs less \(([\d.]+) tokens of plain decoding against .*?'s ([\d.]+)\)", False),
        (r"as much as ([\d.]+) tokens of plain decoding \(.*gives ([\d.]+)\.$", True),
    ):
        for one, other in re.findall(pattern, said):
            assert (float(one.rstrip(".")) > float(other.rstrip("."))) is is_up and one != other, said


def test_undecided_settings_of_one_kind_are_called_by_their_names() -> None:
    table = table_of(ranked(noisy((3.0, 2.9), 8, 1.0)), "E")
    assert "cannot be told apart" in in_short(table)
    first, second = account(STATIC, 51, 26, 30.0, 100.0), account("dllm_0.05_sf_4", 40, 20, 25.0, 100.0)
    assert "dllm_0.05_sf_10" in why(first, second) and "dllm_0.05_sf_4" in why(first, second)


def test_the_order_of_the_means_that_is_not_that_of_the_sums_is_told() -> None:
    fast, slow = account(FAILFAST, 51, 26, 30.0, 100.0), account(AR, 64, 87, 100.0, 100.0)
    fast[0] = replace(fast[0], prices={"E": Price(1.0, 1.0, 510.0)}, num_output_tokens=51)
    slow[0] = replace(slow[0], prices={"E": Price(10.0, 10.0, 9000.0)}, num_output_tokens=900)
    slow[1:] = [replace(one, prices={"E": Price(100.0, 200.0, 640.0)}) for one in slow[1:]]
    table = table_of([*fast, *slow], "E")
    first, second = table.rows
    if (first.number("speedup_ratio") or 0) < (second.number("speedup_ratio") or 0):
        assert "over all tokens together it is not slower" in why_line(table)


def test_a_single_drafter_has_its_account_and_a_busy_machine_none() -> None:
    assert "gives 5.1 tokens and costs as much as 1.3 of plain decoding (23% of it" in why(
        account(STATIC, 51, 26, 30.0, 100.0)
    )
    table = replace(table_of(account(STATIC, 51, 26, 30.0, 100.0), "E"), doubt="the machine was busy")
    assert why_line(table) == "" and why_line(table_of([], "E")) == ""


def test_the_ceiling_is_told_where_it_is_known() -> None:
    known = [
        replace(one, ceilings={"E": Ceiling(65.0, 26.0, 13.0, 26.0)}) for one in account(STATIC, 51, 26, 30.0, 100.0)
    ]
    said = ceiling_line(table_of(known, "E"))
    assert "give 7.85x (ratio of sums); dLLM static reaches 50% of it, and loses 20% to drafting too far, 10%" in said
    assert ceiling_line(table_of(account(STATIC, 51, 26, 30.0, 100.0), "E")) == ""


def test_a_drafter_of_no_family_is_called_by_its_name() -> None:
    table = table_of([*account("their_engine", 51, 26, 30.0, 100.0), *account(AR, 20, 87, 100.0, 100.0)], "E")
    found = headline(table)
    assert found is not None and "their_engine is fastest" in found.before and "other" not in found.before


# ---- width, rows, form -----------------------------------------------------------------------------------------------


@many(30)
@given(st.integers(45, 120), st.integers(1, 6), st.sampled_from([None, 1, 3]))
def test_no_line_is_wider_than_the_terminal(width: int, num_questions: int, top: int | None) -> None:
    stats = ranked(noisy((3.0, 2.9, 2.8, 1.0), num_questions, 0.8)) + two_sets()
    for line in ranking_report(stats, View(width=width, top=top)).splitlines():
        assert len(line) <= width, line


def test_the_least_columns_go_first_and_are_named() -> None:
    stats = [one for own in (account(FAILFAST, 51, 26, 30.0, 100.0), account(AR, 64, 87, 100.0, 100.0)) for one in own]
    wide, narrow = (ranking_report(stats, View(width=width)) for width in (100, 70))
    assert all(column.title in wide for column in COLUMNS) and "No room" not in wide
    assert "No room for: accepted, passes" in narrow
    assert "FailFast τ 0.45, N_max 60, N 10" in narrow and FAILFAST in narrow  # in words; in the verdict as on disk


def test_so_many_rows_as_are_asked_for_and_plain_decoding() -> None:
    stats = ranked(noisy((3.0, 2.9, 2.8, 1.5), 6, 0.1))
    text = ranking_report(stats, View(top=2))
    assert "and 2 more" in text and re.findall(r"^(\d|-)  ", text, re.M) == ["1", "2", "-"]
    assert re.findall(r"^(\d|-)  ", ranking_report(stats, View(wide=True, top=2)), re.M) == ["1", "2", "-"]


def test_markdown_has_tables_that_a_page_shows() -> None:
    for view in (View(format=MARKDOWN), View(format=MARKDOWN, wide=True)):
        text = ranking_report(ranked(noisy((3.0, 2.9), 6, 0.1)), view)
        head = next(line for line in text.splitlines() if line.startswith("| rank"))
        rows = [line for line in text.splitlines() if line.startswith("| 1 ")]
        assert "\n\n| rank" in text and rows[0].count("|") == head.count("|")


def test_the_same_flags_show_a_ranking_everywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for verb in ("rank", "run", "replay"):
        program = f"failfast {verb}"
        with pytest.raises(SystemExit):
            {"rank": rank, "run": failfast}.get(verb, failfast).main(["--help"], program)
        shown = capsys.readouterr().out
        assert all(flag in shown for flag in ("--wide", "--top", "--format"))


def test_a_toys_answers_are_not_held_against_the_drafters() -> None:
    plain = [replace(entry_of(make_plain(one), PRICING), is_correct=False) for one in range(3)]
    assert answers_line(plain) == "Right answers: 0 of 3 (bundled is a toy: only its speed counts)."
    assert answers_line([]) == ""


# ---- a line a question -----------------------------------------------------------------------------------------------


def test_short_labels_say_no_more_than_tells_them_apart() -> None:
    names = ["plain", AR, "dllm_0.05_sf_4", STATIC, FAILFAST]
    assert list(short_labels(names).values()) == ["plain decoding", "AR", "dLLM 4", "dLLM 10", "FailFast"]
    both = short_labels([AR, "ar_None_df_0.45_60_10", "from_a_server"])
    assert list(both.values()) == ["AR static", "AR dynamic", "from_a_server"]


def test_a_questions_line_has_the_best_that_fit() -> None:
    records = [make_plain(3), make_record(3), make_record(3, FAILFAST), make_record(3, STATIC)]
    entries = [entry_of(record, PRICING) for record in records]
    (engine,) = PRICING.entries("bundled")
    line = question_line(entries, engine)
    assert line.startswith("q3   5 tokens | ") and line.count("x | ") == 3
    speeds = [float(text) for text in re.findall(r"(\d\.\d\d)x", line)]
    assert speeds == sorted(speeds, reverse=True)
    assert "+2" in question_line(entries, engine, 45) and len(question_line(entries, engine, 45)) <= 45


# ---- a run's own log -------------------------------------------------------------------------------------------------


def test_a_log_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    with RunFile(tmp_path, {"left_out": {}}) as run_file:
        run_file.write_log(["one", "tw\udce9"])
        assert find_logs(tmp_path) == find_logs(run_file.path.parent) == [run_file.log_path]
        assert run_file.log_path.read_text() == "one\ntw\\udce9\n"
        run_file.log_path.unlink()
        run_file.log_path.mkdir()
        with pytest.raises(UserError, match=r"cannot write .*log.txt: .*; finished records are kept"):
            run_file.write_log(["three"])


def test_several_runs_logs_rank_as_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from specdec.views.record_text import record_lines

    for question in (0, 1):
        with RunFile(tmp_path, {}) as run_file:
            for record in (make_plain(question), make_record(question)):
                run_file.write_log(record_lines(record, entry_of(record, PRICING)))
    assert rank.main([str(tmp_path)]) == rank.main([str(tmp_path / "runs")]) == 0
    assert capsys.readouterr().out.count("2 questions") == 2


def test_a_file_that_is_no_log_says_where_a_runs_log_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run.out").write_text("q0   49 tokens | dLLM 3.41x | all exact\n")
    assert rank.main([str(tmp_path / "run.out")]) == 2
    assert "OUTPUT_DIR/runs/ID/log.txt" in capsys.readouterr().err


def test_next_steps_are_called_as_the_program_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = parse_args(["--output_dir", "results of mine"])
    assert "failfast rank 'results of mine' --wide" in next_steps.next_lines(config)
    monkeypatch.setattr(sys, "argv", ["failfast.py"])
    assert "parse_log.py 'results of mine' --wide" in next_steps.next_lines(config)
    recorded = next_steps.next_lines(parse_args(["--record"]))
    assert "-m specdec.replay results" in recorded
    traffic = tmp_path / "traffic.jsonl"
    traffic.write_text('{"prompt": "x"}\n')
    asked = next_steps.next_lines(parse_args(["--dataset_name", str(traffic)]))
    assert "failfast.py recommend results" in asked and "FILE.jsonl" not in asked
    assert "once all shards are done" in next_steps.next_lines(parse_args(["--shard", "0/2"]))


def test_what_is_asked_is_said_before_anything_is_looked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def find(*_: object) -> None:
        raise UserError("found: " + capsys.readouterr().out)

    monkeypatch.setattr(failfast, "asked_problems", find)
    assert failfast.main(["--output_dir", str(tmp_path)]) == 2
    assert f"found: Target bundled on bundled, up to 1024 tokens each -> {tmp_path}" in capsys.readouterr().err


# ---- the demo --------------------------------------------------------------------------------------------------------

MAKE = Path(__file__).parent.parent / "Makefile"


def demo_flags() -> list[str]:
    """What `make demo` gives failfast.py, but the folder."""
    lines = re.search(r"^demo:.*?failfast\.py (.*?) --output_dir \$\(DEMO_DIR\)$", MAKE.read_text(), re.M | re.S)
    assert lines is not None
    return lines[1].replace("\\\n", "").split()


@pytest.mark.slow
def test_the_demo_answers_in_one_look(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = parse_args(demo_flags())
    assert (asked.questions.limit or 0) >= 8
    folder = Path("results", "demo")
    monkeypatch.chdir(tmp_path)
    fewer = ["--num_questions", "5", "--max_new_tokens", "24", "--device", "cpu", "--output_dir", str(folder)]
    line = [*demo_flags(), *fewer]
    assert failfast.main(line) == 0
    shown = capsys.readouterr().out
    lines = shown.splitlines()
    more = (asked.questions.limit or 0) - 5  # lines of questions that the demo has and this test has not
    assert len(lines) + more < 40 and max(map(len, lines)) <= 100
    assert lines[0].startswith("Target bundled on bundled") and lines[1].startswith("12 M parameters, float32, cpu")
    assert [one.split()[0] for one in lines[2:7]] == ["q0", "q1", "q2", "q3", "q4"]
    assert not re.search(r"^\[Problem", shown, re.M)
    for said in (
        "\nWhy: ",
        "\nCeiling: ",
        "\nMeasured: ",
        "plain decoding  ",
        f"Report: {folder}/report.html",
        "Next: ",
    ):
        assert said in shown, said
    assert (folder / "report.html").stat().st_size > 50_000
    (log,) = find_logs(folder)
    assert rank.run([str(log)]) == rank.run([str(log.parent)]) == rank.run([str(folder)])
    assert rank.run([str(folder)]).strip() in shown
    monkeypatch.setattr(loaded, "load_lm", None)
    assert failfast.main(line) == 0 and capsys.readouterr().out == shown  # also of the log of a run that found all
    newest = find_logs(folder)[-1]
    assert newest != log or len(find_logs(folder)) == 2
    assert rank.run([str(folder / "runs")]) == rank.run([str(log)])


@pytest.mark.slow
def test_a_report_that_fails_loses_no_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    line = ["--num_questions", "1", "--max_new_tokens", "8", "--device", "cpu", "--drafters", "plain", "lookup",
            "--output_dir", str(tmp_path)]  # fmt: skip
    (tmp_path / "report.html").mkdir()
    assert failfast.main(line) == 0
    assert "No report: cannot write" in capsys.readouterr().out
    (tmp_path / "report.html").rmdir()
    assert failfast.main([*line, "--no_report"]) == 0 and not (tmp_path / "report.html").exists()
    assert failfast.main([*line, "--shard", "0/1"]) == 0 and not (tmp_path / "report.html").exists()
    assert "once all shards are done" in capsys.readouterr().out
    monkeypatch.setattr("specdec.commands.page.report_html", lambda *_: 1 / 0)
    assert failfast.main(line) == 0 and "No report: division by zero" in capsys.readouterr().out


def test_names_of_wide_characters_take_the_columns_that_a_terminal_gives_them() -> None:
    names = ("\u901f\u3044\u4e0b\u66f8\u304d\u6a5f" * 9, "\u901f\u3044", "a\u0301b")
    entries = [one for at, name in enumerate(names) for one in account(name, 60 - at, 26, 30.0, 100.0)]
    for width in (40, 60, 100):
        lines = "\n".join(brief_table(table_of(entries, "E"), View(width=width))).splitlines()
        assert max(map(columns, lines)) <= width
        assert len({columns(line[: line.index("x") + 1]) for line in lines if re.search(r"\dx", line)}) == 1
    assert columns(cut(names[0], 9)) == 9 and cut(names[1], 4) == names[1]
