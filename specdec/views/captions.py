"""Captions: in words, what a table's times are, over how many questions it is, and what its intervals are.

Shared by text, LaTeX, Markdown, the HTML report and figures.
"""

from collections.abc import Iterable, Sequence

from specdec.latency.accounting import PUBLISHED
from specdec.latency.profile import MEASURED, ROOFLINE, engine_of
from specdec.ranking.entries import Entry
from specdec.ranking.scopes import each, num_questions
from specdec.ranking.statistics import LEVEL, Value
from specdec.ranking.table import Table
from specdec.records.turns import row_of
from specdec.text import visible


def engine_title(engine: str) -> str:
    """What a table's speedups are: measured, or modelled by which profile (as if for which target)."""
    if engine == MEASURED:
        return "Measured time, against plain decoding in the same run"
    return f"Modelled time, {engine}{_caution(engine)}"


def _caution(engine: str) -> str:
    """What to know of a modelled engine's prices: bounds, or of a program that is not this one; "" if nothing."""
    if f"({ROOFLINE})" in engine:
        return ": lower bounds of every pass, calculated and not measured"
    other = engine_of(engine.partition(" ")[0])
    return f": passes as in {other}, another engine than this program's" if other else ""


def time_words(engine: str) -> str:
    """The same for a headline: "Measured", "Modelled, as if Qwen2.5-32B-Instruct under vLLM_A6000"."""
    if engine == MEASURED:
        return "Measured"
    entry = engine.partition(" as if ")[2]
    return (
        f"Modelled, as if {entry} under {profile_words(engine)}"
        if entry
        else f"Modelled, under {profile_words(engine)}"
    )


def profile_words(engine: str) -> str:
    """A modelled engine's profile with a mark: "H100 (bound)", of H100_bound; "A6000 (vLLM)", an engine that is not
    this program's, unless the profile's own name says it."""
    profile = engine.partition(" as if ")[0]
    other = engine_of(profile.partition(" ")[0])
    words = profile.replace(f"_bound ({ROOFLINE})", f" ({ROOFLINE})").replace(f"({ROOFLINE})", "(bound)")
    return words + (f" ({other})" if other and other not in profile else "")


def scope_line(stats: Sequence[Entry]) -> str:
    """Target, data sets and budgets: "Target bundled: gsm8k, 8 questions, up to 96 tokens"; "" if unknown. Whether the
    target thinks is said where a run decided it."""
    by_target: dict[str, list[str]] = {}
    for group in each(stats):
        source = group[0].source if group else None
        if source is None or not (source.target and source.dataset):
            continue
        many = _asked(group)
        budget = "" if source.max_new_tokens is None else f", up to {source.max_new_tokens} tokens"
        thinking = f", thinking {source.thinking}" if source.thinking else ""
        by_target.setdefault(source.target, []).append(f"{source.dataset}, {many}{budget}{thinking}")
    return visible("; ".join(f"Target {name}: {'; '.join(parts)}" for name, parts in by_target.items()))


def _asked(stats: Sequence[Entry]) -> str:
    """How many questions one data set's entries are of, and where these are turns, of how many conversations."""
    num_turns, num_rows = num_questions(stats), len({row_of(entry.question_id) for entry in stats})
    return questions_note([num_turns]) if num_rows == num_turns else f"{num_rows} conversations of {num_turns} turns"


def engine_note(engine: str) -> str:
    """The same in short, for a note."""
    return "measured wall clock" if engine == MEASURED else f"modelled time: {engine}"


def questions_note(num_questions: Iterable[int], num_left_out: int = 0) -> str:
    """Examples: "30 questions", "1 question", "28 to 30 questions (2 degenerate left out)"."""
    counts = sorted(set(num_questions))
    if not counts:
        return "questions not counted"
    many = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else f"{counts[0]}"
    left_out = f" ({num_left_out} degenerate left out)" if num_left_out else ""
    return f"{many} question{'' if counts == [1] else 's'}{left_out}"


def interval_note(has_intervals: bool) -> str:
    """What bands and bars are, or that there are none."""
    return f"bands and bars: {LEVEL:.0%} intervals over questions" if has_intervals else "no intervals"


def ranking_note(tables: Sequence[Table]) -> str:
    """How many questions tables are over."""
    counts = [count for table in tables for count in table.num_questions]
    return questions_note(counts, max(table.num_degenerate for table in tables))


def full_note(tables: Sequence[Table], references: Sequence[Table] = ()) -> str:
    """The questions of tables, what their intervals are, and whose way of counting theirs and the references' is."""
    values = [value for table in tables for row in table.rows for value in row.values.values()]
    parts = [ranking_note(tables), interval_note(have_intervals(values)), accounting_note([*tables, *references])]
    return "; ".join(filter(None, parts))


def accounting_note(tables: Sequence[Table]) -> str:
    """Which tables count passes and drafted tokens as the published program does; "" if none does."""
    found = dict.fromkeys(table.title for table in tables if table.accounting == PUBLISHED)
    if not found:
        return ""
    is_all = all(table.accounting == PUBLISHED for table in tables)
    return "passes counted as published" + ("" if is_all else f" in {', '.join(found)} alone: not like for like")


def have_intervals(values: Iterable[Value]) -> bool:
    """Whether any of them has one."""
    return any(value.low is not None for value in values)
