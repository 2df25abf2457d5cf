"""Accounting: what the published program counts for the drafts of a record; where it is used, and that it is said.

The cases are derived from its description: it keeps the outputs of one pass (the last block that a draft committed,
else the prefix's whole blocks), takes them for the prefix's if their number is right, and looks for a static draft's
end after denoising passes alone.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from samples import FAILFAST, make_plain, make_record, make_round, record_path, save_record, with_settings

from plotting import cli, microbenchmark_thresholds
from specdec.commands import rank
from specdec.errors import UserError
from specdec.latency.accounting import OURS, PUBLISHED, num_drafted, num_passes
from specdec.latency.pricing import Pricing
from specdec.ranking.entries import entry_of, merge
from specdec.ranking.table import table_of
from specdec.records.record import Record
from specdec.records.rounds import Round
from specdec.views.paper import markdown
from specdec.views.record_text import record_lines

STATIC = "dllm_0.05_sf_8"


def turn(prefix_len: int, emitted: int = 3, *, prefill: int = 0, denoise: int = 2, commit: int = 0, **more) -> Round:
    """A round of a draft of 8 that emits `emitted` tokens."""
    passes = {"num_prefill_passes": prefill, "num_denoise_passes": denoise, "num_commit_passes": commit}
    return make_round(prefix_len, tuple(range(20, 28)), emitted - 1, asked_len=8, **passes, **more)


def passes(rounds: list[Round], drafter: str = STATIC, **settings) -> list[int]:
    """As published, round by round: the total less that of the rounds before."""
    record = make_record(drafter=drafter, rounds=rounds)
    record = replace(record, identity=with_settings(record.identity, {"block_size": 32, **settings}))
    sums = [num_passes(replace(record, rounds=rounds[:count]), PUBLISHED) for count in range(len(rounds) + 1)]
    return [after - before for before, after in zip(sums, sums[1:], strict=False)]


def test_a_prefix_is_run_once_and_again_when_its_whole_blocks_are_more():
    rounds = [turn(70, prefill=1), turn(73), turn(76), turn(96, prefill=1), turn(99)]
    assert passes(rounds) == [3, 2, 2, 3, 2]


def test_after_a_draft_that_committed_a_block_the_prefix_is_run_again():
    rounds = [turn(90, prefill=1, commit=1, emitted=8), turn(98), turn(101, commit=1), turn(104), turn(107)]
    assert passes(rounds) == [4, 3, 3, 3, 2]


def test_one_block_that_was_committed_is_taken_for_a_prefix_of_one_block():
    """32 outputs are kept, and a prefix of 33 to 63 tokens needs 32."""
    assert passes([turn(30, commit=1), turn(33), turn(60, commit=1), turn(62), turn(64, prefill=1)]) == [3, 2, 3, 2, 3]


def test_no_prefix_of_a_block_or_less_is_run():
    assert passes([turn(20), turn(31), turn(32, prefill=1), turn(33, prefill=1)]) == [2, 2, 2, 3]


def test_a_static_draft_that_ends_with_a_blocks_first_token_takes_one_pass_more():
    assert passes([turn(89, prefill=1, commit=1)]) == [5]  # its last token is at 96
    assert passes([turn(88, prefill=1)]) == passes([turn(90, prefill=1)]) == [3]
    assert passes([turn(89, prefill=1, commit=1, stop_reason="stop_token")]) == [4]
    assert passes([turn(89, prefill=1, commit=1, stop_reason="low_confidence")], FAILFAST) == [4]
    cut = replace(turn(89, prefill=1, commit=1), asked_len=9)  # by the budget
    assert passes([cut]) == [4]


def test_without_kept_caches_every_long_prefix_is_run():
    assert passes([turn(70, prefill=1), turn(73, prefill=1)], reuse_drafter_kvs=False) == [3, 3]
    assert passes([turn(20), turn(23)], reuse_drafter_kvs=False) == [2, 2]


def test_other_blocks_than_32():
    assert passes([turn(20, prefill=1), turn(23), turn(24, prefill=1)], block_size=8) == [3, 2, 3]


def test_what_was_not_drafted_takes_no_pass():
    last = make_round(73, (), 0, asked_len=8)
    assert passes([turn(70, prefill=1), last]) == [3, 0]


def test_ar_passes_and_drafted_tokens_count_what_was_asked():
    rounds = [make_round(3), make_round(6, (8,), 1, stop_reason="stop_token", asked_len=3)]
    record = make_record(rounds=rounds)
    assert (num_passes(record, OURS), num_passes(record, PUBLISHED)) == (4, 6)
    assert (num_drafted(record, OURS), num_drafted(record, PUBLISHED)) == (4, 6)
    older = make_record(rounds=[replace(one, asked_len=0) for one in rounds])  # whose windows are not known
    assert (num_passes(older, PUBLISHED), num_drafted(older, PUBLISHED)) == (6, 6)


def test_plain_decoding_counts_alike():
    assert num_passes(make_plain(), PUBLISHED) == num_drafted(make_plain(), PUBLISHED) == 0


PRICING = {accounting: Pricing.load(["vLLM_A6000"], accounting=accounting) for accounting in (OURS, PUBLISHED)}
DRAFTED = [turn(3, commit=1, prefill=1, denoise=1), turn(6), turn(9)]


def run_of(folder: Path) -> list[Record]:
    found = []
    for tau in (0.3, 0.45, 0.6):
        name = f"dllm_0.05_df_{tau}_60_10"
        rounds = [replace(one, prefix_len=one.prefix_len + 67) for one in DRAFTED]
        found.append(make_record(drafter=name, rounds=rounds, prompt_ids=[1] * 70))
        save_record(found[-1], record_path(folder, "bundled", "gsm8k", 0, name, 64))
    return found


def test_entries_prices_and_lines_follow_and_say_so(tmp_path):
    record, *_ = run_of(tmp_path)
    ours, published = (entry_of(record, PRICING[accounting]) for accounting in (OURS, PUBLISHED))
    assert (ours.num_forward_passes, published.num_forward_passes) == (7, 8)
    ((name, price),) = published.prices.items()
    assert "as published" in name and "as published" not in "".join(ours.prices)
    assert price.draft_ms == pytest.approx(8 / 7 * next(iter(ours.prices.values())).draft_ms)
    assert published.accounting == PUBLISHED and not published.has_measured_times and ours.has_measured_times
    lines = record_lines(record, published)
    assert any("Avg fwd passes/round: 2.67 (8/3)" in line for line in lines)
    table = table_of([published], name)
    assert table.accounting == PUBLISHED and "passes counted as published" in markdown(table)
    with pytest.raises(UserError, match="rank the two runs apart"):
        merge([ours, published])


def test_a_ranking_is_asked_to_count_as_published(tmp_path):
    run_of(tmp_path)
    found = []
    for accounting in (OURS, PUBLISHED):
        document = json.loads(rank.run([str(tmp_path), "--json", "--pass_accounting", accounting]))
        (engine,) = [one for one in document["engines"] if one["engine"].startswith("vLLM_A6000")]
        found.append((engine["pass_accounting"], engine["rows"][0]["passes_per_round"]))
    assert found == [(OURS, pytest.approx(7 / 3)), (PUBLISHED, pytest.approx(8 / 3))]
    log = tmp_path / "run.log"
    log.write_text("\n".join(record_lines(one, entry_of(one, PRICING[PUBLISHED]))[0] for one in run_of(tmp_path)))
    again = json.loads(rank.run([str(log), "--json"]))
    assert again["engines"][-1]["pass_accounting"] == PUBLISHED


def test_beside_the_papers_numbers_a_figure_counts_as_the_paper(tmp_path):
    run_of(tmp_path)
    paper = Path(__file__).resolve().parent.parent / "docs" / "reference" / "failfast_paper.json"

    def read(*more: str):
        flags = microbenchmark_thresholds.main.flags
        return cli.rankings(cli.parse("x", "", flags, [str(tmp_path), "--out", "x.png", *more]))

    beside, alone = read("--reference", str(paper)), read()
    asked = read("--reference", str(paper), "--pass_accounting", OURS)
    assert [tables[0].accounting for tables, _ in (beside, alone, asked)] == [PUBLISHED, OURS, OURS]
    assert all(one.accounting == PUBLISHED for one in beside[1])
    drawn = microbenchmark_thresholds.main.draw(*beside)
    assert "passes counted as published" in " ".join(text.get_text() for text in drawn.texts)
    drawn = microbenchmark_thresholds.main.draw(*asked)
    assert "alone: not like for like" in " ".join(text.get_text() for text in drawn.texts)
