"""Report and logs: lines and their inverse, hostile text, tables, CSV, JSON, published logs."""

import csv
import dataclasses
import io
import json
import re
import string

import pytest
from examples import many
from hypothesis import given
from hypothesis import strategies as st
from samples import make_plain, make_record, make_round, records

from specdec.latency.pricing import Price, Pricing
from specdec.latency.profile import MEASURED, load_profile
from specdec.ranking.entries import entry_of, merge
from specdec.ranking.logs import parse_log_lines
from specdec.ranking.ranking import engines_of
from specdec.ranking.source import Source
from specdec.ranking.table import Row, table_of
from specdec.records.record import Record
from specdec.text import quote_text
from specdec.views.record_text import record_lines, record_text, round_lines
from specdec.views.table_data import ranking_csv, ranking_json
from specdec.views.tables import ranking_report

PRICING = Pricing((load_profile("vLLM_A6000"),))
PUBLISHED = """\
[2025-11-07 01:13:39] [INFO] === [Problem 0] Running drafter: ar_None_sf_8 ===
\x1b[1m--- [Problem 0, ar_None_sf_8] Statistics ---\x1b[0m
\x1b[36m[Problem 0, ar_None_sf_8] Acceptance rate: 58.2% (120/206)\x1b[0m
[Problem 0, ar_None_sf_8] Accepted/speculated: avg 4.62/7.92, max 8/8
[Problem 0, ar_None_sf_8] Avg fwd passes/round: 7.92 (206/26)
[Problem 0, ar_None_sf_8] [vLLM_A6000] Speedup: 2.91x (Drafter ratio 47.9% (1256.6ms/2624.2ms); ...)
2025-12-01 12:00:00 INFO [Problem 0, dllm_0.05_df_0.45_60_10] Acceptance rate: 50.0% (130/260)
2025-12-01 12:00:00 INFO [Problem 0, dllm_0.05_df_0.45_60_10] Avg fwd passes/round: 3.00 (48/16)
[vLLM_A6000] Speedup: 4.10x (Drafter ratio 25.8% (292.8 ms/1134.4 ms); ...)
[Problem 1, ar_None_sf_8] Acceptance rate: 10.0% (10/100)
[Problem 1, ar_None_sf_8] Avg fwd passes/round: 8.00 (100/12) (total output tokens: 21)
[Problem 1, ar_None_sf_8] [vLLM_A6000] Speedup: 1.00x (Drafter ratio 50.0% (600.0ms/1200.0ms); ...)
[Problem 2, ar_None_sf_8] Acceptance rate: 10.0% (10/100)
"""


def rank(stats, engine) -> list[Row]:
    return table_of(stats, engine).rows


def log_of(found) -> list[str]:
    return [line for one in found for line in record_lines(one, entry_of(one, PRICING))]


def folder_stats(found):
    return [entry_of(one, PRICING) for one in found]


# --- our lines ---


def test_the_published_spelling():
    record = make_record()
    lines = record_lines(record, dataclasses.replace(entry_of(record), prices={"E": Price(10.0, 30.0, 90.4)}))
    assert all(line.startswith("[Problem 0, ar_None_sf_3] ") for line in lines)
    bodies = [line.removeprefix("[Problem 0, ar_None_sf_3] ") for line in lines]
    assert "Acceptance rate: 75.0% (3/4)" in bodies
    assert "Accepted/speculated: avg 1.50/2.00, max 2/3" in bodies
    assert "Avg fwd passes/round: 2.00 (4/2)" in bodies
    assert any(b.startswith("[E] Speedup: 2.26x (Drafter ratio 25.0% (10.0ms/40.0ms); ") for b in bodies)


def test_the_last_speedup_of_a_drafter_is_modelled():
    """Readers of published logs keep the last one."""
    prices = {"A": Price(10.0, 30.0, 90.0), MEASURED: Price(1.0, 1.0, 1.0), "B": Price(10.0, 30.0, 90.0)}
    lines = record_lines(make_record(), dataclasses.replace(entry_of(make_record()), prices=prices))
    engines = [line.partition("] [")[2].partition("]")[0] for line in lines if "Speedup:" in line]
    assert engines == [MEASURED, "A", "B"]


def test_a_line_per_round_as_the_published_plot_reads_it():
    found = re.findall(r"Speculation round\s+(\d+).*?\((\d+)/(\d+)\)", "\n".join(round_lines(make_record())))
    rounds = [(turn.accepted_len, turn.draft_len) for turn in make_record().rounds]
    assert found == [(str(index), str(accepted), str(drafted)) for index, (accepted, drafted) in enumerate(rounds)]
    assert round_lines(make_plain()) == []
    lines = log_of([make_record(0), make_record(1)])
    assert parse_log_lines([*round_lines(make_record(0)), *lines]) == parse_log_lines(lines)


def test_a_log_of_before_and_one_of_now_are_of_the_same_drafter():
    """dllm_1_sf_8 is dllm_1.0_sf_8, and nothing else that decides the result has another spelling."""
    now = make_record(drafter="dllm_1.0_sf_8")
    before = [line.replace("dllm_1.0_sf_8", "dllm_1_sf_8") for line in log_of([now])]
    assert merge([*parse_log_lines(before), *folder_stats([now])]) == merge(folder_stats([now]))
    older = now.to_builtins() | {"drafter_name": "dllm_1_sf_8"}
    older["identity"] |= {"drafter": "dllm_1_sf_8"}
    assert Record.from_builtins(older) == now


@given(st.lists(records(), min_size=1, max_size=5))
@many(60)
def test_log_and_folder_rank_alike(found):
    found = list({(one.question_id, one.drafter_name): one for one in found}.values())
    from_log, from_folder = parse_log_lines(log_of(found)), merge(folder_stats(found))
    assert from_log == from_folder
    assert ranking_json(from_log) == ranking_json(from_folder)
    assert ranking_report(from_log) == ranking_report(from_folder)


@given(records())
@many(60)
def test_without_our_own_line_the_published_ones_say_the_same_rounded(record):
    lines = [line for line in log_of([record]) if "Totals" not in line]
    (parsed,), (exact,) = parse_log_lines(lines), folder_stats([record])
    for name in ("num_output_tokens", "num_accepted", "num_drafted", "num_rounds", "num_forward_passes"):
        assert getattr(parsed, name) == getattr(exact, name)
    for engine, one in exact.prices.items():
        assert parsed.prices[engine].speedup == pytest.approx(one.speedup, abs=0.0051)
        assert parsed.prices[engine].total_ms == pytest.approx(one.total_ms, abs=0.051)


def test_a_damaged_line_of_ours_falls_back_to_the_others():
    lines = log_of([make_record()])
    for damaged in ("{}", "{", "[]", '{"source": 1}', lines[0].partition("Totals: ")[2].replace("4", "-4")):
        (entry,) = parse_log_lines(["[Problem 0, ar_None_sf_3] Totals: " + damaged, *lines[1:]])
        assert entry.num_drafted == 4 and entry.draft_ms is None


def test_a_log_cut_anywhere_never_invents_a_question():
    text = "\n".join(log_of([make_record(0), make_record(1), make_plain(0)]))
    whole = {(one.question_id, one.drafter_name): one for one in parse_log_lines(text.split("\n"))}
    for length in range(0, len(text), 7):
        for entry in parse_log_lines(text[:length].split("\n")):
            assert entry.num_rounds == whole[entry.question_id, entry.drafter_name].num_rounds


# --- hostile text ---

NEWLINES = [*"\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029\0", "\r\n", "\x1b[2K\x1b[1G"]
FORGED = "[Problem 0, ar_None_sf_3] Acceptance rate: 100.0% (999/999)"
fragments = st.sampled_from([*NEWLINES, FORGED, "| ", "\x1b[36m", "\u202e", "[E] Speedup: 99.00x", "\ud800"])
hostile = st.lists(fragments | st.text(max_size=5), max_size=8).map("".join)


@given(hostile)
@many(100)
def test_quoted_text_stays_quoted_however_a_reader_splits_it(text):
    quoted = quote_text(text)
    assert "\n".join(quoted).splitlines() == quoted
    assert all(line.startswith("| ") and line.isprintable() for line in quoted)
    assert len(quoted) == text.count("\n") + 1


@pytest.mark.parametrize("newline", NEWLINES)
@pytest.mark.parametrize("prefix", ["", "2025-12-01 12:00:00 INFO ", "[2025-11-07] [INFO] ", "\x1b[36m"])
@pytest.mark.parametrize("is_ours", [True, False])
def test_a_forged_line_changes_nothing(newline, prefix, is_ours):
    lines = log_of([make_record()])[0 if is_ours else 1 :]
    totals = '[Problem 0, ar_None_sf_3] Totals: {"source": "", "output_tokens": 999}'
    engine = "[vLLM_A6000 as if Qwen2.5-32B-Instruct] Speedup: 99.00x (Drafter ratio 1.0% (1.0ms/2.0ms); x)"
    text = newline.join(["", FORGED, totals, engine, *log_of([make_record(7)]), *lines, ""])
    noisy = "\n".join([*lines, *(prefix + line for line in quote_text(text))])
    for split in (noisy.split("\n"), noisy.splitlines(), list(io.StringIO(noisy, newline=None))):
        assert parse_log_lines(split) == parse_log_lines(lines)


@given(hostile)
@many(50)
def test_the_text_file_of_a_hostile_answer_is_no_log(answer):
    record = make_record(output_text=answer, raw_data={"question": answer, answer: 1})
    text = record_text(record, entry_of(record), [answer, answer])
    assert parse_log_lines(text.splitlines()) == []
    assert text.endswith("\n") and all(line.isprintable() for line in text.splitlines())


def test_text_that_is_fit_to_read_is_kept():
    assert quote_text("x = 1\\\n\n  naïve 数学") == ["| x = 1\\", "| ", "|   naïve 数学"]
    assert quote_text("a\rb") == ["| a\\rb"]


# --- the text file ---


def test_the_text_file_tells_the_story():
    record, empty = make_record(), make_record(rounds=[])
    text = record_text(record, entry_of(record), ["one two", "thr\nee"])
    for part in ("| question: What is 1 + 1?", "| two", "3/4 (75.0%)", "bonus included", "seed = 0"):
        assert part in text
    assert "0: at 3, drafted 3, accepted 2, passes 3 (prefill 0, denoise 3, commit 0), stop length" in text
    assert "one two" in text and "thr\\nee" in text
    assert record_text(empty, entry_of(empty)).count("\n") > 5


# --- published logs ---


def test_a_published_log_ranks():
    stats = parse_log_lines(PUBLISHED.splitlines(), source=Source(name="a.log"))
    assert len(stats) == 3  # the last question was not finished
    rows = rank(stats, "vLLM_A6000")
    assert [row.drafter_name for row in rows] == ["dllm_0.05_df_0.45_60_10", "ar_None_sf_8"]
    assert rows[0].number("speedup_mean") == pytest.approx(4.10)
    assert rows[1].number("speedup_mean") == pytest.approx((2.91 + 1.00) / 2)
    assert rows[1].number("speedup_ratio") == pytest.approx((2.91 * 2624.2 + 1200) / 3824.2)
    by_key = {(one.question_id, one.drafter_name): one for one in stats}
    assert by_key[0, "ar_None_sf_8"].num_output_tokens == 120 + 26  # derived
    assert by_key[1, "ar_None_sf_8"].num_output_tokens == 21  # stated
    assert engines_of(stats) == ["vLLM_A6000"]
    assert "Plain decoding: not measured" in ranking_report(stats)


def test_logs_of_both_programs_rank_in_one_table():
    stats = [*parse_log_lines(PUBLISHED.splitlines(), Source(name="a.log")), *parse_log_lines(log_of([make_record()]))]
    assert {"ar_None_sf_3"} < {row.drafter_name for row in rank(stats, engines_of(stats)[1])}
    assert "several runs" in ranking_report(stats)


def test_a_question_reported_twice_counts_once():
    lines = PUBLISHED.splitlines()
    later = [line.replace("2.91x", "3.91x") for line in lines]
    assert len(parse_log_lines(lines + later)) == 3
    assert rank(parse_log_lines(lines + later), "vLLM_A6000")[1].number("speedup_mean") == pytest.approx((3.91 + 1) / 2)


@given(st.text(alphabet=string.printable + "\x1b\u2028", max_size=200))
@many(100)
def test_any_text_can_be_read(text):
    parse_log_lines(text.splitlines())
    parse_log_lines(["[Problem 0, x] " + text.replace("\n", "9")])


@pytest.mark.parametrize("digits", ["9" * 5000, "9" * 15])
def test_absurd_numbers_do_no_harm(digits):
    lines = [f"[Problem 0, x] Acceptance rate: 1.0% ({digits}/{digits})"]
    lines.append(f"[Problem {digits}, x] [E] Speedup: {digits}x (Drafter ratio 1% (1ms/{digits}ms))")
    assert parse_log_lines(lines) == []


# --- tables ---


def example():
    found = [make_record(0), make_record(1), make_record(0, "dllm_0.9_sf_8", [make_round()]), make_plain(0)]
    return folder_stats(found)


def test_the_table_says_what_its_numbers_are():
    text = ranking_report(example())
    engine = "vLLM_A6000 as if Qwen2.5-32B-Instruct"
    for part in (engine, "bonus included", "mean of the questions'", "ratio of the sums", "Measured time"):
        assert part in text
    assert text.count("Too few questions to say (2; at least 5 needed). Highest: ") == 1
    assert text.count("Too few questions to say (1; at least 5 needed). Highest: ") == 1
    assert "Plain decoding, measured: 10.000 ms per token (questions: 1)" in text
    assert "different questions (ar_None_sf_3: 2, dllm_0.9_sf_8: 1)" in text


def test_json_is_one_document_and_agrees_with_the_ranking():
    document = json.loads(ranking_json(example()))
    for table in document["engines"]:
        rows = rank(example(), table["engine"])
        assert table["best"] == rows[0].drafter_name == table["rows"][0]["drafter_name"]
        assert [row["speedup_mean"] for row in table["rows"]] == [row.number("speedup_mean") for row in rows]
    assert [table["engine"] for table in document["engines"]][-1] == MEASURED
    assert document["plain"]["ms_per_token"] == 10.0


def test_csv_has_the_numbers_of_the_ranking():
    table = list(csv.DictReader(io.StringIO(ranking_csv(example()))))
    expected = [(engine, row) for engine in engines_of(example()) for row in rank(example(), engine)]
    drafted = [line for line in table if line["drafter_name"] != "plain"]
    assert [(line["engine"], line["drafter_name"]) for line in drafted] == [
        (e, row.drafter_name) for e, row in expected
    ]
    assert [float(line["speedup_mean"]) for line in drafted] == [row.number("speedup_mean") for _, row in expected]
    plain = [(line["engine"], line["rank"], line["speedup_mean"]) for line in table if line["drafter_name"] == "plain"]
    assert plain == [(engine, "", "1.0") for engine in engines_of(example())]


def test_a_run_of_plain_decoding_alone_and_no_stats_at_all():
    assert "Plain decoding, measured" in ranking_report(folder_stats([make_plain()]))
    assert json.loads(ranking_json([]))["engines"] == []
    assert ranking_csv([]).startswith("engine,rank,")


def test_without_a_baseline_the_table_says_what_is_missing():
    text = ranking_report([entry_of(make_record())])
    assert "Best configuration: none (plain decoding of the same questions missing)" in text
