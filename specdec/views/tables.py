"""Tables: rankings for people on a terminal, with intervals and what cannot be told apart.

Which columns of `ranking/table.py` are shown. Those for programs: `table_data.py`; for papers and pages: `paper.py`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from specdec.drafters.families import known_spec
from specdec.latency.profile import MEASURED
from specdec.ranking.comparisons import MARGIN, Difference
from specdec.ranking.entries import Entry
from specdec.ranking.lossless import losslessness_line
from specdec.ranking.question_sets import unequal
from specdec.ranking.ranking import PlainRow, by_drafter, engines_of, plain_row, under_other_profiles
from specdec.ranking.scopes import each
from specdec.ranking.statistics import LEVEL, MIN_QUESTIONS, Value
from specdec.ranking.table import (
    CEILING_SHARES,
    QUANTITIES,
    Row,
    Table,
    first_by_number,
    table_of,
)
from specdec.text import aligned, visible
from specdec.views.captions import engine_title, scope_line
from specdec.views.categories import category_table
from specdec.views.verdict import profiles_line, too_few_line, verdict_line

_INTERVAL = f"{LEVEL:.0%} interval"
_LEGEND = (
    "Speedup, mean: mean of the questions' speedups; ratio: ratio of the sums. "
    "Acceptance length: tokens per round, bonus included.\n"
    "Correct: answers graded right / graded. Degenerate: outputs that are mostly one loop, which inflates acceptance.\n"
    "Best: above plain decoding and all that are not level. Behind: slower than the first. Level: not told from it, "
    f"and closer than {MARGIN:.0%} of its speedup. Undecided: neither is shown (paired bootstrap over questions, Holm "
    f"correction, {1 - LEVEL:.0%})."
)
TOP = 5  # rows of each data set's table, where there is one of all of them as well
_CEILING_LEGEND = (
    "Of the ceiling: the least time of any choice of recorded drafters and draft lengths, knowing the text, over the "
    "time taken.\nThe rest of the time is lost to drafting on for too long, to stopping too early, and to passes that "
    "a better choice of drafter would save."
)


@dataclass(frozen=True)
class Column:
    """A column on a terminal. `keys`: what of it CSV and JSON say in its place, unrounded."""

    title: str
    cell: Callable[[Row], str]
    keys: tuple[str, ...] = ()
    is_first: bool = False  # stays where there is little room


def ranking_report(stats: Sequence[Entry]) -> str:
    """What is ranked; every engine's table, each followed by what it shows, and before it the first rows of each data
    set's; then plain decoding's own time."""
    parts = [scope_line(stats)]
    groups = each(stats)
    for engine in engines_of(stats):
        if len(groups) > 1:
            parts += [top_table(table_of(group, engine, intervals=())) for group in groups]
        table = table_of(stats, engine, intervals=())  # the speedups have theirs, and no others are shown
        parts += [ranking_table(table, "All together. " * (len(groups) > 1))]
        parts += [difference_table(table), ceiling_table(table), category_table(stats, engine)]
    parts += [
        unpriced_line(stats),
        profiles_line(winners(stats)),
        plain_line(plain_row(stats)),
        losslessness_line(stats),
    ]
    parts = list(filter(None, parts))
    for group in groups:
        sources = sorted({entry.source for entry in group})
        if len(sources) > 1:
            parts.append("Questions of several runs together: " + "; ".join(visible(one.title) for one in sources))
    if counts := unequal(stats):
        parts.append(f"Careful: the configurations were run on different questions ({visible(counts)}).")
    return "\n\n".join(parts) + "\n"


def unpriced_line(stats: Sequence[Entry]) -> str:
    """The drafters that a profile of the run does not know, so that they are in no table of its prices; "" for none."""
    found = {name: own for name, own in by_drafter(stats).items() if (spec := known_spec(name)) and spec.has_own_price}
    missing = {
        engine: sorted(name for name, own in found.items() if not any(engine in one.prices for one in own))
        for engine in dict.fromkeys(name for entry in stats for name in entry.prices if name != MEASURED)
    }
    return "\n".join(
        f"Not priced by {visible(engine)}, which does not say what a pass of theirs costs: {visible(', '.join(names))}."
        for engine, names in missing.items()
        if names
    )


def plain_line(row: PlainRow | None) -> str:
    """Plain decoding's measured time, in words."""
    if row is None or row.ms_per_token is None:
        return "Plain decoding: not measured."
    return f"Plain decoding, measured: {row.ms_per_token:.3f} ms per token (questions: {row.num_questions})."


def winners(stats: Sequence[Entry]) -> list[tuple[str, Row]]:
    """(engine, its first row) under every profile that knows the target: those asked for, then all others."""
    made = []
    for entries in (stats, under_other_profiles(stats)):
        found = [(engine, first_by_number(entries, engine)) for engine in engines_of(entries) if engine != MEASURED]
        made += [(engine, row) for engine, row in found if row is not None]
    return made


def top_table(table: Table) -> str:
    """A data set's first rows, and what they show."""
    columns = [column for column in COLUMNS if column.is_first]
    rows = [row for row in table.with_plain if row is table.plain or (row.rank or TOP) <= TOP]
    lines = aligned([[one.title for one in columns], *([one.cell(row) for one in columns] for row in rows)], num_left=2)
    title = f"{visible(table.dataset)}, up to {table.max_new_tokens} tokens. {engine_title(table.engine)}"
    more = len(table.rows) - len(rows) + 1
    lines += [f"and {more} more"] if more > 0 else []
    return "\n".join([title, *filter(None, [too_few_line(table)]), *lines, verdict_line(table)])


def ranking_table(table: Table, before: str = "") -> str:
    """One engine's ranking as aligned text with a title, a legend and what it shows."""
    cells = [[column.cell(row) for column in COLUMNS] for row in table.with_plain]
    lines = aligned([[column.title for column in COLUMNS], *cells], num_left=2)
    if not table.num_paired:
        lines.append(f"No intervals: they need the same {MIN_QUESTIONS} questions or more of every configuration.")
    head = [before + engine_title(table.engine), *filter(None, [too_few_line(table)])]
    return "\n".join([*head, *lines, _LEGEND, verdict_line(table)])


def difference_table(table: Table) -> str:
    """Every configuration's mean speedup less the best one's and less the AR baseline's, as text; "": none compared."""
    rows = [row for row in table.rows if row.rank is not None]
    if not table.num_paired or len(rows) < 2:
        return ""
    references = {"to_best": ("best", rows[0].drafter_name), "to_ar": ("AR baseline", table.ar_baseline)}
    known = {key: (title, visible(name)) for key, (title, name) in references.items() if name}
    head = ["drafter"]
    for title, _ in known.values():
        head += [f"less {title}", _INTERVAL, "p (Holm)", "more questions"]
    cells = [[_name(row), *(text for key in known for text in _differing(row.differences.get(key)))] for row in rows]
    names = "; ".join(f"{title}: {name}" for title, name in known.values())
    title = f"Paired differences of the mean speedup over {table.num_paired} questions ({names})"
    legend = (
        "More questions: about how many would separate the two with 80% chance, if the difference is as it looks, at "
        "the same corrected level."
    )
    return "\n".join([title, *aligned([head, *cells]), legend])


def ceiling_table(table: Table) -> str:
    """Per drafter the share of the ceiling, and what of its time is lost to what; "" if no ceiling is known."""
    quantities = [QUANTITIES[name] for name in CEILING_SHARES]
    rows = [row for row in table.rows if row.has(*CEILING_SHARES)]
    cells = [(row.drafter_name, *(one.text(row.values[one.name]) for one in quantities)) for row in rows]
    head = ("drafter", *(one.title for one in quantities))
    return "\n".join([*aligned([head, *cells], is_ruled=False), _CEILING_LEGEND]) if rows else ""


def _quantity(name: str, is_first: bool = False) -> Column:
    return Column(QUANTITIES[name].title, lambda row: QUANTITIES[name].text(row.values.get(name)), (name,), is_first)


def _count(title: str, name: str, is_first: bool = False) -> Column:
    return Column(title, lambda row: f"{row.sums.get(name, '-')}", (name,), is_first)


def _counts(title: str, part: str, whole: str) -> Column:
    return Column(
        title, lambda row: f"{row.sums[part]}/{row.sums[whole]}" if row.sums.get(whole) else "-", (part, whole)
    )


def _interval(name: str, is_first: bool = False) -> Column:
    return Column(_INTERVAL, lambda row: _bounds(row.values.get(name)), is_first=is_first)


def _name(row: Row) -> str:
    return visible(row.drafter_name)


def _bounds(value: Value | None) -> str:
    return "-" if value is None or value.low is None else f"{value.low:.2f} to {value.high:.2f}"


def _differing(difference: Difference | None) -> list[str]:
    if difference is None:
        return ["-"] * 4
    one, more = difference.estimate, "-" if difference.is_clear else difference.num_more_questions
    interval, questions = f"{one.low:.2f} to {one.high:.2f}", "any" if more is None else f"{more}"
    return [f"{one.value:+.2f}", interval, f"{difference.p_holm:.4f}", questions]


COLUMNS = (
    Column("rank", lambda row: "-" if row.rank is None else f"{row.rank}", ("rank",), is_first=True),
    Column("drafter", _name, ("drafter_name",), is_first=True),
    _count("questions", "num_questions", is_first=True),
    Column("left out", lambda row: f"{row.num_left_out}", ("num_left_out",)),
    _quantity("speedup_mean", is_first=True),
    _interval("speedup_mean", is_first=True),
    Column("standing", lambda row: row.standing or "-", ("standing",), is_first=True),
    _quantity("speedup_ratio"),
    _interval("speedup_ratio"),
    _quantity("acceptance_rate"),
    _counts("correct", "num_correct", "num_graded"),
    _counts("degenerate", "num_degenerate", "num_checked"),
    _quantity("acceptance_len"),
    _count("rounds", "num_rounds"),
    _quantity("passes_per_round"),
    _quantity("draft_ms"),
    _quantity("verify_ms"),
    _quantity("total_ms"),
    _count("drafted", "num_drafted"),
    _count("accepted", "num_accepted"),
)
