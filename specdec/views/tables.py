"""Tables: rankings for people on a terminal, with intervals and what cannot be told apart.

Which columns of `ranking/table.py` are shown. Those for programs: `table_data.py`; for papers and pages: `paper.py`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from specdec.drafters.families import known_spec
from specdec.latency.profile import MEASURED, STAND_INS
from specdec.ranking.comparisons import MARGIN, Difference
from specdec.ranking.entries import Entry
from specdec.ranking.lossless import losslessness_line
from specdec.ranking.question_sets import unequal
from specdec.ranking.ranking import PlainRow, by_drafter, engines_of, plain_entries, plain_row, under_other_profiles
from specdec.ranking.scopes import each
from specdec.ranking.statistics import LEVEL, MIN_QUESTIONS, Value
from specdec.ranking.table import (
    CEILING_SHARES,
    QUANTITIES,
    Row,
    Table,
    first_by_number,
    num_unpriced,
    table_of,
)
from specdec.runs.drafter_facts import DrafterFacts
from specdec.text import visible
from specdec.views import brief
from specdec.views.brief import brief_table, brief_tables, notes, shown_rows
from specdec.views.captions import engine_title, scope_line
from specdec.views.categories import category_line, category_table
from specdec.views.drafters_table import drafters_table
from specdec.views.verdict import Winner, profiles_line, too_few_line, verdict_line
from specdec.views.view import ALL, View
from specdec.views.why import ceiling_line, why_line

_INTERVAL = f"{LEVEL:.0%} interval"
_LEGEND = (
    "Speedup, mean: mean of the questions' speedups; ratio: ratio of the sums. "
    "Acceptance length: tokens per round, bonus included.\n"
    "Correct: answers graded right / graded. Degenerate: outputs that are mostly one loop, which inflates acceptance.\n"
    "Best: above plain decoding and all that are not level. Behind: slower than the first. Level: not told from it, "
    f"and closer than {MARGIN:.0%} of its speedup. Undecided: neither is shown (paired bootstrap over questions, Holm "
    f"correction, {1 - LEVEL:.0%}).\n"
    "Names: kind_THRESHOLD_rule_...; None in ar_None_sf_8: AR drafters unmask nothing, so have no threshold."
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


def ranking_report(stats: Sequence[Entry], view: View = ALL, facts: Sequence[DrafterFacts] = ()) -> str:
    """What is ranked: tables, each followed by what it shows, before them the first rows of each data set's; then
    plain decoding's own time. Under the first engine in brief (`brief.py`), or all of everything, as the view says:
    then with a table of the drafters themselves, by `facts`."""
    parts = [*_all_tables(stats, view), drafters_table(facts, stats, view)] if view.wide else _brief_tables(stats, view)
    parts += [view.wrapped(one) for one in _closing(stats)]
    return "\n\n".join(filter(None, parts)) + "\n"


def _all_tables(stats: Sequence[Entry], view: View) -> list[str]:
    parts, groups, engines = [scope_line(stats)], each(stats), engines_of(stats)
    for engine in engines:
        if len(groups) > 1:
            parts += [top_table(table_of(group, engine, intervals=()), view) for group in groups]
        table = table_of(stats, engine, intervals=())  # the speedups have theirs, and no others are shown
        parts += [ranking_table(table, "All together. " * (len(groups) > 1), view)]
        parts += [difference_table(table, view), ceiling_table(table, view), category_table(stats, engine, view)]
    parts += [_LEGEND] if engines else []
    parts += [unpriced_line(stats), profiles_line(winners(stats)), plain_line(plain_row(stats))]
    return [*parts, losslessness_line(stats)]


def _brief_tables(stats: Sequence[Entry], view: View) -> list[str]:
    engines, groups = engines_of(stats), each(stats)
    if not engines:
        return [view.wrapped(scope_line(stats))]
    parts = []
    if len(groups) > 1:
        parts = [top_table(table_of(group, engines[0], intervals=()), view) for group in groups]
    tables = [table_of(stats, engine, intervals=()) for engine in engines]
    scope = scope_line(stats)
    parts.append(brief_tables(tables, view, f"{scope}. " if scope else ""))
    said = [*notes(tables[0]), category_line(stats, engines[0]), profiles_line(winners(stats))]
    said += [unpriced_line(stats), brief.legend(tables[0])]
    untimed = "" if MEASURED in engines else plain_line(plain_row(stats))
    closing = untimed, losslessness_line(stats), answers_line(stats)
    said.append(" ".join(filter(None, closing)))
    return ["\n\n".join(parts) + "\n" + "\n".join(view.wrapped(one) for one in said if one)]


def _closing(stats: Sequence[Entry]) -> list[str]:
    """What to know of the questions and the answers, beside any ranking of them."""
    parts = []
    for group in each(stats):
        sources = sorted({entry.source for entry in group})
        if len(sources) > 1:
            parts.append("Questions of several runs together: " + "; ".join(visible(one.title) for one in sources))
    if counts := unequal(stats):
        parts.append(f"Careful: the configurations were run on different questions ({visible(counts)}).")
    return parts


def answers_line(stats: Sequence[Entry]) -> str:
    """How many of plain decoding's answers are right, and of a toy that it is one; "" where none was graded."""
    graded = [entry for entry in plain_entries(stats) if entry.is_correct is not None]
    if not graded:
        return ""
    num_right = sum(bool(entry.is_correct) for entry in graded)
    toys = sorted({entry.source.target for entry in graded} & STAND_INS.keys())
    note = f" ({toys[0]} is a toy: only its speed counts)" if toys else ""
    return f"Right answers: {num_right} of {len(graded)}{note}."


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


def winners(stats: Sequence[Entry]) -> list[Winner]:
    """The first row under every profile that knows the target: those asked for, then all others."""
    made = []
    for entries in (stats, under_other_profiles(stats)):
        engines = [engine for engine in engines_of(entries) if engine != MEASURED]
        found = [(engine, first_by_number(entries, engine)) for engine in engines]
        made += [Winner(one, row, num_unpriced(stats, entries, one)) for one, row in found if row is not None]
    return made


def top_table(table: Table, view: View = ALL) -> str:
    """A data set's first rows, and what they show."""
    own = replace(view, top=TOP if view.top is None else view.top)
    title = f"{visible(table.dataset)}, up to {table.max_new_tokens} tokens. {engine_title(table.engine)}"
    head, verdict = [title, *filter(None, [too_few_line(table)])], view.wrapped(verdict_line(table))
    return "\n".join([*map(view.wrapped, head), *brief_table(table, own), verdict])


def ranking_table(table: Table, before: str = "", view: View = ALL) -> str:
    """One engine's ranking, all columns, with a title and what it shows."""
    cells = [[column.cell(row) for column in COLUMNS] for row in shown_rows(table, view)]
    lines = view.table([[column.title for column in COLUMNS], *cells], num_left=2)
    if not table.num_paired:
        lines.append(f"No intervals: they need the same {MIN_QUESTIONS} questions or more of every configuration.")
    head = [before + engine_title(table.engine), *filter(None, [too_few_line(table)])]
    return "\n".join([*head, *lines, *filter(None, [verdict_line(table), why_line(table), ceiling_line(table)])])


def difference_table(table: Table, view: View = ALL) -> str:
    """Every configuration's mean speedup less the best one's and less the AR baseline's, as text; "": none compared."""
    rows = [row for row in shown_rows(table, view) if row.rank is not None]
    if not table.num_paired or len(rows) < 2:
        return ""
    references = {"to_best": ("best", rows[0].drafter_name), "to_ar": ("AR baseline", table.ar_baseline)}
    known = {key: (title, visible(name)) for key, (title, name) in references.items() if name}
    head = ["drafter"]
    for title, _ in known.values():
        head += [f"minus {title}", _INTERVAL, "p (Holm)", "more questions"]
    cells = [[_name(row), *(text for key in known for text in _differing(row.differences.get(key)))] for row in rows]
    names = "; ".join(f"{title}: {name}" for title, name in known.values())
    title = f"Paired differences of the mean speedup over {table.over} ({names})"
    legend = (
        "More questions: about how many would separate the two with 80% chance, if the difference is as it looks, at "
        "the same corrected level."
    )
    return "\n".join([title, *view.table([head, *cells]), legend])


def ceiling_table(table: Table, view: View = ALL) -> str:
    """Per drafter the share of the ceiling, and what of its time is lost to what; "" if no ceiling is known."""
    quantities = [QUANTITIES[name] for name in CEILING_SHARES]
    rows = [row for row in shown_rows(table, view) if row.has(*CEILING_SHARES)]
    cells = [(row.drafter_name, *(one.text(row.values[one.name]) for one in quantities)) for row in rows]
    head = ("drafter", *(one.title for one in quantities))
    return "\n".join([*view.table([head, *cells], is_ruled=False), _CEILING_LEGEND]) if rows else ""


def _quantity(name: str) -> Column:
    return Column(QUANTITIES[name].title, lambda row: QUANTITIES[name].text(row.values.get(name)), (name,))


def _count(title: str, name: str) -> Column:
    return Column(title, lambda row: f"{row.sums.get(name, '-')}", (name,))


def _counts(title: str, part: str, whole: str) -> Column:
    return Column(
        title, lambda row: f"{row.sums[part]}/{row.sums[whole]}" if row.sums.get(whole) else "-", (part, whole)
    )


def _interval(name: str) -> Column:
    return Column(_INTERVAL, lambda row: _bounds(row.values.get(name)))


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
    Column("rank", lambda row: "-" if row.rank is None else f"{row.rank}", ("rank",)),
    Column("drafter", _name, ("drafter_name",)),
    _count("questions", "num_questions"),
    Column("left out", lambda row: f"{row.num_left_out}", ("num_left_out",)),
    _quantity("speedup_mean"),
    _interval("speedup_mean"),
    Column("standing", lambda row: row.standing or "-", ("standing",)),
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
