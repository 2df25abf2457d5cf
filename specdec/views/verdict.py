"""Verdict: what a ranking shows, in words, no stronger than it is: a best one, several that cannot be told apart, too
few questions to say, or nothing that beats plain decoding. One wording for text, files and the report.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from specdec.drafters.families import known_spec
from specdec.latency.profile import MEASURED
from specdec.ranking.comparisons import BEHIND, BEST, MARGIN, standing_of_first
from specdec.ranking.quantities import COMPARED, QUANTITIES
from specdec.ranking.statistics import MIN_QUESTIONS
from specdec.ranking.table import Row, Table
from specdec.text import visible
from specdec.views.captions import profile_words, time_words
from specdec.views.palette import kind_of

DOUBTED, FASTEST, UNDECIDED, TOO_FEW, UNPAIRED, NOT_PLAIN, MAYBE_PLAIN, MAYBE_FIRST = (
    "doubted",
    "fastest",
    "undecided",
    "too_few",
    "unpaired",
    "none",
    "not_told_from_plain",
    "first_not_told_from_plain",
)
_LINES = {
    DOUBTED: "Best configuration: none ({doubt}). Highest: {it}",
    FASTEST: "Best configuration: {it}",
    UNDECIDED: "{count} settings cannot be told apart; {title} is first by number: {it}",
    TOO_FEW: "Too few questions to say ({count}; at least {least} needed). Highest: {it}",
    UNPAIRED: "Not the same questions for all, so nothing to say. Highest: {it}",
    NOT_PLAIN: "No drafter beats plain decoding here. Highest: {it}",
    MAYBE_PLAIN: "No drafter can be told from plain decoding here. Highest: {it}",
    MAYBE_FIRST: "The highest cannot be told from plain decoding, though others can: {it}",
}
_SHORT = {  # after the order of all
    DOUBTED: "{doubt}",
    FASTEST: "The first is best",
    UNDECIDED: "{count} of them cannot be told apart",
    TOO_FEW: "Too few questions to say (at least {least} needed)",
    UNPAIRED: "Not the same questions for all, so nothing to say",
    NOT_PLAIN: "None beats plain decoding",
    MAYBE_PLAIN: "None can be told from plain decoding",
    MAYBE_FIRST: "The first cannot be told from plain decoding, though others can",
}
_HEADLINES = {  # before the speedup
    DOUBTED: "{doubt}. Highest: {title}, ",
    FASTEST: "{title} is fastest: ",
    UNDECIDED: "{count} settings cannot be told apart; {title} first by number: ",
    TOO_FEW: "too few questions to say ({count}; at least {least} needed). Highest: {title}, ",
    UNPAIRED: "not the same questions for all, so nothing to say. Highest: {title}, ",
    NOT_PLAIN: "no drafter beats plain decoding here. Highest: {title}, ",
    MAYBE_PLAIN: "no drafter can be told from plain decoding here. Highest: {title}, ",
    MAYBE_FIRST: "the highest cannot be told from plain decoding, though others can: {title}, ",
}


@dataclass(frozen=True)
class Headline:
    """A heading: `before`, the speedup of the first row, `after`."""

    kind: str
    before: str
    after: str = " as fast as plain decoding"


def kind_of_verdict(table: Table, first: Row) -> str:
    """Which of the words above hold."""
    if table.doubt:
        return DOUBTED
    against_plain = standing_of_first(first.values["speedup_mean"])
    if against_plain == BEHIND:
        return NOT_PLAIN
    if not table.num_paired:
        return TOO_FEW if (table.num_rows or max(table.num_questions)) < MIN_QUESTIONS else UNPAIRED
    if against_plain != BEST:
        return MAYBE_FIRST if any(map(beats_plain, table.rows)) else MAYBE_PLAIN
    return UNDECIDED if _num_contenders(table) > 1 else FASTEST


def beats_plain(row: Row) -> bool:
    """Whether a ranked row is surely faster than plain decoding: its interval is above 1."""
    is_ranked = bool(row.rank) and row.has("speedup_mean")
    return is_ranked and standing_of_first(row.values["speedup_mean"]) == BEST


def verdict_line(table: Table) -> str:
    """One sentence for a table on a terminal, or why there is none."""
    first = table.first
    if first is None:
        missing = "plain decoding of the same questions" if table.engine == MEASURED else "prices"
        return f"Best configuration: none ({missing} missing)"
    mean, ratio = (QUANTITIES[name].text(first.values[name]) for name in COMPARED)
    it = f"{visible(first.drafter_name)} ({mean} mean of questions, {ratio} ratio of sums, {table.engine})"
    return _filled(_LINES, table, first, it)


def in_short(table: Table) -> str:
    """The same where the order stands before it: what it is worth."""
    first = table.first
    if first is None:
        return verdict_line(table)
    return _SHORT[kind_of_verdict(table, first)].format(
        doubt=table.doubt[:1].upper() + table.doubt[1:], count=_num_contenders(table), least=MIN_QUESTIONS
    )


def headline(table: Table) -> Headline | None:
    """A heading for a page, which says what time it is of; None where nothing is ranked."""
    if table.first is None:
        return None
    kind = kind_of_verdict(table, table.first)
    return Headline(kind, f"{time_words(table.engine)}: {_filled(_HEADLINES, table, table.first, '')}")


def heading(kind: str, when: str, title: str, count: int) -> Headline:
    """The same of a ranking that is no table: `when` says what time it is of, `title` what kind of drafter is first;
    `count`: of what cannot be told apart, or of questions."""
    return Headline(kind, f"{when}: {_HEADLINES[kind].format(title=title, count=count, least=MIN_QUESTIONS, doubt='')}")


def too_few_line(table: Table) -> str:
    """How many questions would do, where these are too few for the settings; "" where they are not."""
    if table.num_needed is None:
        return ""
    many = "1 setting" if len(table.rows) == 1 else f"{len(table.rows)} settings"
    return (
        f"{table.over} are too few for {many}; about {table.num_needed} would do "
        f"(to show differences of {MARGIN:.0%} of the best)."
    )


class Winner(NamedTuple):
    """The first row of an engine's ranking, and how many configurations the engine has no price of."""

    engine: str
    row: Row
    num_unpriced: int


def profiles_line(winners: Sequence[Winner]) -> str:
    """Where the first configuration changes with the latency profile; "" where there is one profile, or one winner.
    Bounds, and profiles of other engines, have their mark; those without a price of all say so."""
    if len({one.row.drafter_name for one in winners}) < 2:
        return ""
    mean = QUANTITIES["speedup_mean"]
    profiles: dict[tuple[str, int], list[str]] = {}
    for engine, row, lacking in winners:
        won = f"{visible(row.drafter_name)} {mean.text(row.values[mean.name])}"
        profiles.setdefault((won, lacking), []).append(profile_words(engine))
    parts = (
        f"under {', '.join(names)}{f' ({lacking} not priced)' if lacking else ''}: {won}"
        for (won, lacking), names in profiles.items()
    )
    return f"The first by number changes with the profile: {'; '.join(parts)}."


def _num_contenders(table: Table) -> int:
    return sum(row.may_be_best is True for row in table.rows)


def _filled(words: dict[str, str], table: Table, first: Row, it: str) -> str:
    kind = kind_of_verdict(table, first)
    few = table.over.removesuffix(" questions") if table.num_rows else max(table.num_questions)
    count = _num_contenders(table) if kind == UNDECIDED else few
    is_known = known_spec(first.drafter_name) is not None
    # In a sentence, where a comma would part it.
    title = kind_of(first.drafter_name).title.replace(",", "") if is_known else visible(first.drafter_name)
    return words[kind].format(it=it, title=title, count=count, least=MIN_QUESTIONS, doubt=table.doubt)
