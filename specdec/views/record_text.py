"""Report: strings for people about one record. Its log lines and .txt, and quoted text.

The inverse of the log lines is `ranking/logs.py`; tables of many records are `tables.py`.
"""

import json
from collections.abc import Mapping, Sequence

from specdec.latency.pricing import Price
from specdec.latency.profile import MEASURED
from specdec.ranking.entries import COUNTS, Entry
from specdec.records.record import Record
from specdec.records.rounds import Round
from specdec.text import quote_text, visible

_ANSWERS = {True: "correct", False: "wrong", None: "not graded"}


def record_lines(record: Record, entry: Entry) -> list[str]:
    """One question's log lines in the published spelling, each starting with "[Problem ID, NAME] ".

    `entry`: the record's own. The first line, ours, has everything a ranking needs in full precision. The measured
    speedup comes before the modelled ones, for the published plots keep the last "Speedup:" of a drafter.
    """
    head = f"[Problem {record.question_id}, {visible(record.drafter_name)}] "
    num_rounds = max(record.num_rounds, 1)
    accepted, drafted, num_passes = entry.num_accepted, entry.num_drafted, entry.num_forward_passes
    passes = f"{num_passes / num_rounds:.2f} ({num_passes}/{record.num_rounds})"
    longest = max((turn.draft_len for turn in record.rounds), default=0)
    longest_accepted = max((turn.accepted_len for turn in record.rounds), default=0)
    lines = [
        f"Totals: {_totals_json(entry)}",
        f"Acceptance rate: {accepted / max(drafted, 1):.1%} ({accepted}/{drafted})",
        f"Accepted/speculated: avg {accepted / num_rounds:.2f}/{drafted / num_rounds:.2f}, "
        f"max {longest_accepted}/{longest}",
        f"Avg fwd passes/round: {passes}",
    ]
    prices = sorted(entry.prices.items(), key=lambda price: price[0] != MEASURED)
    lines += [_speedup_line(engine, price, record.num_output_tokens) for engine, price in prices]
    return [head + line for line in lines]


def round_lines(record: Record) -> list[str]:
    """What DEBUG adds: which record it is, and a line per round as published, for its plot over rounds. Of a record
    without drafts: nothing."""
    head = f"=== [Problem {record.question_id}] Running drafter: {visible(record.drafter_name)} ==="
    rounds = [
        f"--- Speculation round {index} acceptance rate {turn.accepted_len / max(turn.asked_len, 1):.2f} "
        f"({turn.accepted_len}/{turn.asked_len}) ---"
        for index, turn in enumerate(record.rounds)
    ]
    return [head, *rounds] if record.num_drafted else []


def _speedup_line(engine: str, price: Price, num_output_tokens: int) -> str:
    share, speedup = (price.drafter_share, price.speedup) if price.total_ms else (0.0, 0.0)
    ms_per_token = price.total_ms / max(num_output_tokens, 1)
    return (
        f"[{engine}] Speedup: {speedup:.2f}x (Drafter ratio {share:.1%} "
        f"({price.draft_ms:.1f}ms/{price.total_ms:.1f}ms); Avg TPT of SD: {ms_per_token:.2f}ms) "
        f"(num output tokens: {num_output_tokens})"
    )


def _totals_json(entry: Entry) -> str:
    totals = {
        "source": entry.source.to_builtins(),
        "settings": entry.settings,
        "origin": entry.origin,
        "output": entry.output,
        **{name.removeprefix("num_"): getattr(entry, name) for name in COUNTS},
        "draft_ms": entry.draft_ms,
        "verify_ms": entry.verify_ms,
        "prices": _prices(entry.prices),
        "other_prices": _prices(entry.other_prices),
        "correct": entry.is_correct,
        "degenerate": entry.is_degenerate,
        "losslessness": entry.losslessness,
        "accounting": entry.accounting,
        "category": entry.category,
        **({"conditions": known} if (known := entry.conditions.to_builtins()) else {}),
        **({} if entry.ttft_ms is None else {"ttft_ms": entry.ttft_ms}),
        **({} if entry.rounds is None else {"shapes": entry.rounds.to_log()}),
        **({} if entry.has_seen is None else {"has_seen": entry.has_seen}),
        "ceilings": {key: vars(ceiling) for key, ceiling in entry.ceilings.items()},
    }
    return json.dumps(totals, allow_nan=False)


def _prices(prices: Mapping[str, Price]) -> dict[str, list[float]]:
    return {name: [one.draft_ms, one.verify_ms, one.baseline_ms] for name, one in prices.items()}


def record_text(record: Record, entry: Entry, token_text: Sequence[str] | None = None) -> str:
    """The .txt beside the pickle: question and answer (quoted as in a log), totals, a line per round. `entry`: the
    record's own; `token_text`: per round, the text it emitted."""
    dataset, settings = visible(record.identity.dataset), record.identity.to_builtins()
    parts = [f"Question {record.question_id} of {dataset}, drafter {record.drafter_name}", ""]
    parts += ["Settings", *(visible(f"  {key} = {value!r}") for key, value in settings.items()), "", "Question"]
    for key, value in record.raw_data.items():
        parts += quote_text(f"{key}: {value}")
    parts += ["", "Answer", *quote_text(record.output_text), "", "Totals"]
    parts += [
        f"  output tokens {record.num_output_tokens}, rounds {record.num_rounds}",
        f"  accepted / drafted {record.num_accepted}/{record.num_drafted} ({record.acceptance_rate:.1%})",
        f"  acceptance length {record.acceptance_len:.2f} (tokens per round, bonus included)",
        f"  against plain decoding: {'sampled' if record.is_sampled else record.divergence or 'not compared'}",
        f"  answer {_ANSWERS[entry.is_correct]}; {'' if entry.is_degenerate else 'not '}degenerate (mostly one loop)",
        f"  drafter passes {record.num_forward_passes} ({record.passes_per_round:.2f} per round)",
        f"  measured: prompt {record.prefill_ms:.1f} ms, drafting {record.draft_ms:.1f} ms, "
        f"verifying {record.verify_ms:.1f} ms, {record.measured_ms_per_token:.3f} ms per token",
        "",
        "Rounds",
    ]
    for index, turn in enumerate(record.rounds):
        text = token_text[index] if token_text is not None and index < len(token_text) else None
        parts.append(_round_line(index, turn, text))
    return "\n".join(parts) + "\n"


def _round_line(index: int, turn: Round, text: str | None) -> str:
    line = (
        f"  {index}: at {turn.prefix_len}, drafted {turn.draft_len}, accepted {turn.accepted_len}, "
        f"passes {turn.num_forward_passes} (prefill {turn.num_prefill_passes}, "
        f"denoise {turn.num_denoise_passes}, commit {turn.num_commit_passes}), "
        f"stop {visible(turn.stop_reason)}, draft {turn.draft_ms:.2f} ms, verify {turn.verify_ms:.2f} ms"
    )
    return line if text is None else f"{line} | {visible(text)}"
