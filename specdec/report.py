"""Report: strings for people. A record's log lines and .txt, quoted text, rankings as text, CSV and JSON.

The inverse of the log lines is `logs.py` (`parse_log_lines` is importable from here too); the numbers come
from `records.py` and `ranking.py`.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from specdec import ranking
from specdec.ceiling import CEILING_COLUMNS, Ceiling, ceiling_table
from specdec.latency import MEASURED, Price
from specdec.logs import parse_log_lines
from specdec.ranking import PlainRow, QuestionStats, RankRow
from specdec.records import Record
from specdec.rounds import Round

__all__ = ["parse_log_lines", "quote_text", "ranking_report", "record_lines", "record_text"]

COLUMNS = (
    ("rank", "rank"),
    ("drafter", "drafter_name"),
    ("questions", "num_questions"),
    ("left out", "num_left_out"),
    ("speedup, mean", "speedup_mean"),
    ("speedup, ratio", "speedup_ratio"),
    ("acceptance rate", "acceptance_rate"),
    ("acceptance length", "acceptance_len"),
    ("rounds", "num_rounds"),
    ("passes per round", "passes_per_round"),
    ("draft ms", "draft_ms"),
    ("verify ms", "verify_ms"),
    ("total ms", "total_ms"),
    ("drafted", "num_drafted"),
    ("accepted", "num_accepted"),
)
_FORMATS = {
    "speedup_mean": "{:.2f}x",
    "speedup_ratio": "{:.2f}x",
    "acceptance_rate": "{:.1%}",
    "acceptance_len": "{:.2f}",
    "passes_per_round": "{:.2f}",
    "draft_ms": "{:.1f}",
    "verify_ms": "{:.1f}",
    "total_ms": "{:.1f}",
}
_LEGEND = (
    "Speedup, mean: mean of the questions' speedups; ratio: ratio of the sums. "
    "Acceptance length: tokens per round, bonus included."
)


def quote_text(text: str) -> list[str]:
    """Text for a log: every line starts with "| ", so none can be taken for a line of the program.

    Only "\\n" starts a new line; any other character that does not print (carriage returns, escapes, the line
    separators of Unicode) is spelled out. `quote_text("a\\rb\\nc") == ["| a\\\\rb", "| c"]`.
    """
    return ["| " + visible(line) for line in text.split("\n")]


def visible(text: str) -> str:
    """`text` on one line: what does not print is spelled as in a Python string."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def record_lines(record: Record, prices: dict[str, Price], ceilings: dict[str, Ceiling] | None = None) -> list[str]:
    """One question's log lines in the published spelling, each starting with "[Problem ID, NAME] ".

    `prices` by engine name. The first line, ours, has everything a ranking needs in full precision.
    """
    head = f"[Problem {record.question_id}, {visible(record.drafter_name)}] "
    num_rounds = max(record.num_rounds, 1)
    accepted, drafted = record.num_accepted, record.num_drafted
    passes = f"{record.passes_per_round:.2f} ({record.num_forward_passes}/{record.num_rounds})"
    longest = max((turn.draft_len for turn in record.rounds), default=0)
    longest_accepted = max((turn.accepted_len for turn in record.rounds), default=0)
    lines = [
        f"Totals: {_totals_json(ranking.stats_of(record, prices, ceilings))}",
        f"Acceptance rate: {record.acceptance_rate:.1%} ({accepted}/{drafted})",
        f"Accepted/speculated: avg {accepted / num_rounds:.2f}/{drafted / num_rounds:.2f}, "
        f"max {longest_accepted}/{longest}",
        f"Avg fwd passes/round: {passes}",
    ]
    lines += [_speedup_line(engine, price, record.num_output_tokens) for engine, price in prices.items()]
    return [head + line for line in lines]


def _speedup_line(engine: str, price: Price, num_output_tokens: int) -> str:
    share, speedup = (price.drafter_share, price.speedup) if price.total_ms else (0.0, 0.0)
    ms_per_token = price.total_ms / max(num_output_tokens, 1)
    return (
        f"[{engine}] Speedup: {speedup:.2f}x (Drafter ratio {share:.1%} "
        f"({price.draft_ms:.1f}ms/{price.total_ms:.1f}ms); Avg TPT of SD: {ms_per_token:.2f}ms) "
        f"(num output tokens: {num_output_tokens})"
    )


def _totals_json(stats: QuestionStats) -> str:
    totals = {
        "source": stats.source,
        "settings": stats.settings,
        "output": stats.output,
        "output_tokens": stats.num_output_tokens,
        "accepted": stats.num_accepted,
        "drafted": stats.num_drafted,
        "rounds": stats.num_rounds,
        "forward_passes": stats.num_forward_passes,
        "draft_ms": stats.draft_ms,
        "verify_ms": stats.verify_ms,
        "prices": {key: [p.draft_ms, p.verify_ms, p.baseline_ms] for key, p in stats.prices.items()},
        "ceilings": {key: vars(ceiling) for key, ceiling in stats.ceilings.items()},
    }
    return json.dumps(totals, allow_nan=False)


def record_text(record: Record, token_text: Sequence[str] | None = None) -> str:
    """The .txt beside the pickle: question, answer, totals, a line per round.

    `token_text`: per round, the text it emitted. Question and answer are quoted as in a log.
    """
    dataset = visible(str(record.identity["dataset"]))
    parts = [f"Question {record.question_id} of {dataset}, drafter {record.drafter_name}", ""]
    parts += ["Settings", *(_setting(key, value) for key, value in record.identity.items()), ""]
    parts += ["Question"]
    for key, value in record.raw_data.items():
        parts += quote_text(f"{key}: {value}")
    parts += ["", "Answer", *quote_text(record.output_text), "", "Totals"]
    parts += [
        f"  output tokens {record.num_output_tokens}, rounds {record.num_rounds}",
        f"  accepted / drafted {record.num_accepted}/{record.num_drafted} ({record.acceptance_rate:.1%})",
        f"  acceptance length {record.acceptance_len:.2f} (tokens per round, bonus included)",
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


def _setting(key: str, value: Any) -> str:
    return visible(f"  {key} = {value!r}")


def _round_line(index: int, turn: Round, text: str | None) -> str:
    line = (
        f"  {index}: at {turn.prefix_len}, drafted {turn.draft_len}, accepted {turn.accepted_len}, "
        f"passes {turn.num_forward_passes} (prefill {turn.num_prefill_passes}, "
        f"denoise {turn.num_denoise_passes}, commit {turn.num_commit_passes}), "
        f"stop {visible(turn.stop_reason)}, draft {turn.draft_ms:.2f} ms, verify {turn.verify_ms:.2f} ms"
    )
    return line if text is None else f"{line} | {visible(text)}"


def ranking_report(stats: Sequence[QuestionStats]) -> str:
    """Every engine's table, each followed by its best configuration, then plain decoding's own time."""
    parts = []
    for engine in ranking.engines_of(stats):
        rows = ranking.rank(stats, engine)
        parts.append(ranking_table(rows, engine))
        parts += filter(None, [ceiling_table([(row.drafter_name, row.ceiling) for row in rows])])
    parts.append(plain_line(ranking.plain_row(stats)))
    parts += _lossless_lines(stats)
    sources = sorted({entry.source for entry in stats})
    if len(sources) > 1:
        parts.append("Questions of several runs together: " + "; ".join(map(visible, sources)))
    uneven = _uneven(stats)
    if uneven:
        parts.append(f"Careful: the configurations were run on different questions ({uneven}).")
    return "\n\n".join(parts) + "\n"


def plain_line(row: PlainRow | None) -> str:
    """Plain decoding's measured time, in words."""
    if row is None or row.ms_per_token is None:
        return "Plain decoding: not measured."
    return f"Plain decoding, measured: {row.ms_per_token:.3f} ms per token (questions: {row.num_questions})."


def _lossless_lines(stats: Sequence[QuestionStats]) -> list[str]:
    """Whether the drafters' outputs equal plain decoding's, where both are known."""
    drafted = [entry for entry in stats if entry.drafter_name != ranking.PLAIN and entry.output]
    if not drafted or not any(entry.drafter_name == ranking.PLAIN and entry.output for entry in stats):
        return []
    different = ranking.different_outputs(stats)
    if not different:
        return ["Every output equals plain decoding."]
    questions = sorted({entry.question_id for entry in different})
    return [
        f"Careful: {len(different)} of {len(drafted)} outputs differ from plain decoding (questions "
        f"{', '.join(map(str, questions))}). In bfloat16 and float16 near-ties may fall either way; float32 is exact."
    ]


def _uneven(stats: Sequence[QuestionStats]) -> str:
    """How many questions each configuration has, if they are not the same ones; else ""."""
    asked: dict[str, set[tuple[str, int]]] = {}
    for entry in stats:
        if entry.drafter_name != ranking.PLAIN:
            asked.setdefault(entry.drafter_name, set()).add((entry.source, entry.question_id))
    if all(questions == next(iter(asked.values())) for questions in asked.values()):
        return ""
    return ", ".join(f"{name}: {len(questions)}" for name, questions in asked.items())


def engine_title(engine: str) -> str:
    """What a table's speedups are: measured, or modelled by which profile (as if for which target)."""
    if engine == MEASURED:
        return "Measured time, against plain decoding in the same run"
    return f"Modelled time, {engine}"


def ranking_table(rows: Sequence[RankRow], engine: str) -> str:
    """One engine's ranking as aligned text with a title, a legend and the best configuration."""
    cells = [[title for title, _ in COLUMNS]]
    cells += [[_cell(row, attribute) for _, attribute in COLUMNS] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(
            text.ljust(width) if title == "drafter" else text.rjust(width)
            for text, width, (title, _) in zip(line, widths, COLUMNS, strict=True)
        ).rstrip()
        for line in cells
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join([engine_title(engine), *lines, _LEGEND, best_line(rows, engine)])


def _cell(row: RankRow, attribute: str) -> str:
    value = getattr(row, attribute)
    if value is None:
        return "-"
    return visible(_FORMATS.get(attribute, "{}").format(value))


def best_line(rows: Sequence[RankRow], engine: str) -> str:
    """`Best configuration: NAME (...)`, or why there is none."""
    first = ranking.best(rows)
    if first is None:
        missing = "plain decoding of the same questions" if engine == MEASURED else "prices"
        return f"Best configuration: none ({missing} missing)"
    return (
        f"Best configuration: {first.drafter_name} ({first.speedup_mean:.2f}x mean of questions, "
        f"{first.speedup_ratio:.2f}x ratio of sums, {engine})"
    )


def row_dict(row: RankRow) -> dict[str, Any]:
    """A row under the columns' attribute names, unrounded; None where there is no value."""
    cells = {attribute: getattr(row, attribute) for _, attribute in COLUMNS}
    if row.ceiling is None:
        return cells
    return cells | vars(row.ceiling) | {"ceiling_share": row.ceiling.share}


def ranking_csv(stats: Sequence[QuestionStats]) -> str:
    """All engines in one CSV: `engine`, then the columns by attribute name, unrounded, empty for none.

    Plain decoding is one more row, without a rank, under "measured".
    """
    attributes = [*(attribute for _, attribute in COLUMNS), *CEILING_COLUMNS]
    out = io.StringIO()
    writer = csv.DictWriter(out, ["engine", *attributes], lineterminator="\n")
    writer.writeheader()
    for engine in ranking.engines_of(stats):
        for row in ranking.rank(stats, engine):
            writer.writerow({"engine": engine} | row_dict(row))
    plain = ranking.plain_row(stats)
    if plain is not None:
        cells = {"engine": MEASURED, "drafter_name": ranking.PLAIN}
        writer.writerow(cells | {"num_questions": plain.num_questions, "total_ms": plain.total_ms})
    return out.getvalue()


def ranking_json(stats: Sequence[QuestionStats]) -> str:
    """One JSON document: per engine the rows and the best configuration; plain decoding's measured time."""
    engines = []
    for engine in ranking.engines_of(stats):
        rows = ranking.rank(stats, engine)
        first = ranking.best(rows)
        engines.append(
            {
                "engine": engine,
                "best": None if first is None else first.drafter_name,
                "rows": [row_dict(row) for row in rows],
            }
        )
    plain = ranking.plain_row(stats)
    document = {
        "engines": engines,
        "plain": None if plain is None else vars(plain) | {"ms_per_token": plain.ms_per_token},
        "sources": sorted({entry.source for entry in stats}),
        "acceptance_len": "tokens per round, bonus included",
    }
    return json.dumps(document, indent=2, allow_nan=False)
