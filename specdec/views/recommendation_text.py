"""Recommendation text: what `recommendation.py` found, in at most LINES lines of WIDTH columns, calm and whole."""

from collections.abc import Sequence
from textwrap import wrap

from specdec.drafters.families import known_spec
from specdec.ranking.comparisons import BEHIND, EQUAL, MARGIN
from specdec.ranking.statistics import MIN_QUESTIONS, Estimate, Value
from specdec.ranking.table import Row
from specdec.runs.footprint import Footprint
from specdec.text import count_text, size_text, visible
from specdec.views.captions import time_words
from specdec.views.recommendation import LOSSY, NO_PRICE, Recommendation, Served
from specdec.views.verdict import DOUBTED, MAYBE_FIRST, MAYBE_PLAIN, NOT_PLAIN, TOO_FEW, UNPAIRED

WIDTH, LINES = 100, 25
MOST_NAMES = 2  # of drafters that are alike
_INDENT = 12  # of a server's settings
_ALONE = "One request at a time (batch 1)"
_LOAD = f"{_ALONE}. Many at once: --concurrency N simulates it (docs/load.md)."
_MORE = "... (--json says all)"
_SECTION = 9  # lines that a section may need
_WHY_NOT = {
    NO_PRICE: "prices are missing.",
    DOUBTED: "{doubt}.",
    NOT_PLAIN: "no drafter beats plain decoding. Highest: {it}.",
    MAYBE_PLAIN: "no drafter can be told from plain decoding. Highest: {it}.",
    MAYBE_FIRST: "the highest cannot be told from plain decoding, though others can: {it}.",
    TOO_FEW: "too few questions ({count}; at least {least} are needed). Highest: {it}.",
    UNPAIRED: "the drafters were not run on the same questions. Highest: {it}.",
    LOSSY: "the highest ({it}) writes another text than plain decoding, and no tie explains it.",
}


def recommendation_text(
    scope: str,
    found: Sequence[Recommendation],
    by_dataset: Sequence[Recommendation] = (),
    notes: Sequence[str] = (),
    price_per_hour: float | None = None,
    at_once: Sequence[str] = (),
) -> str:
    """`scope`: target, data sets and budgets, in words. `by_dataset`: each data set's, where the winner differs.

    `notes`: what else is to be known, the most important first. `at_once`: what holds for many requests, where that was
    asked; it stands first, as what is cut stands last.
    """
    lines = [*_wrapped(scope), *(line for one in at_once for line in _wrapped(one))]
    lines.append(f"{_ALONE}:" if at_once else _LOAD)
    shown: set[str] = set()  # settings and memory stand once
    for one in found:
        cost = _cost(one, price_per_hour)
        lines += _section(one, shown, cost) if len(lines) + _SECTION <= LINES or one is found[0] else _brief(one, cost)
    lines += [line for note in [_by_dataset(by_dataset), *notes] if note for line in _wrapped(note)]
    shown_lines = lines if len(lines) <= LINES else [*lines[: LINES - 1], _MORE]
    return "\n".join(shown_lines) + "\n"


def _brief(one: Recommendation, cost: str) -> list[str]:
    """What is said, without settings."""
    return [*_indented(f"{time_words(one.table.engine)}: {_says(one)}", ""), *_indented(cost)]


def _section(one: Recommendation, shown: set[str], cost: str) -> list[str]:
    lines = [*_brief(one, cost), *_indented(_alike(one))]
    groups: dict[tuple[str, str], list[Served]] = {}
    for served in one.served:
        groups.setdefault((served.why_not, served.row.drafter_name if served.row else ""), []).append(served)
    for alike in groups.values():
        lines += _served_lines(alike, shown)
    memory = _memory(one)
    lines += [] if memory in shown else _indented(memory)
    shown.add(memory)
    return lines


def _says(one: Recommendation) -> str:
    """The recommendation, or why there is none."""
    it = "" if one.first is None else _named(one.first)
    if one.row is not None:
        many = "the only drafter" if len(one.table.rows) == 1 else f"best of {len(one.table.rows)} settings"
        return f"Use {it}, {many} over {one.table.over}."
    more = "" if one.num_more is None else f" About {one.num_more} more questions would decide."
    if one.kind not in _WHY_NOT:
        return f"Undecided, so nothing is recommended. First by number: {it}.{more}"
    count = max(one.table.num_questions, default=0)
    why = _WHY_NOT[one.kind].format(it=it, doubt=one.table.doubt, count=count, least=MIN_QUESTIONS)
    return f"Nothing is recommended: {why}{more}"


def _alike(one: Recommendation) -> str:
    if not one.alike:
        return ""
    names = "; ".join(_in_words(row) for row in one.alike[:MOST_NAMES])
    more = len(one.alike) - MOST_NAMES
    names += f"; and {more} more" if more > 0 else ""
    return f"Level with it (closer than {MARGIN:.0%}): {names}." if one.row else f"Not told from it: {names}."


def _served_lines(alike: Sequence[Served], shown: set[str]) -> list[str]:
    """Servers of which the same is to be said, then the settings of each, if they do not stand there yet."""
    first, names = alike[0], " and ".join(one.server for one in alike)
    lacks = (
        f"{names}: not there: {first.why_not}"
        if first.why_not
        else f"{names} have it"
        if alike[1:]
        else f"{names} has it"
    )
    if first.row is None:
        return _indented(f"{lacks}; nor is any other drafter that pays.")
    best = f". Best that is there: {_in_words(first.row)}, {_slower(first)}" if first.why_not else ""
    new = [one for one in alike if one.words and one.words.text not in shown]
    shown.update(one.words.text for one in new if one.words)
    lines = _indented(f"{lacks}{best}{':' if new else '; settings as above.'}")
    for one in new:
        words = [] if one.words is None else one.words.lines(WIDTH - _INDENT)
        lines += [f"    {one.server if at == 0 else '':{_INDENT - 4}}{visible(line)}" for at, line in enumerate(words)]
    return lines


def _slower(served: Served) -> str:
    """How much less than the wanted drafter, with its interval, whose signs are turned with the difference's."""
    if served.row is None or served.difference is None:
        return "by how much less is not known"
    one: Estimate = served.difference.estimate
    remark = {BEHIND: "", EQUAL: "; level"}.get(served.row.standing, "; not certain among these settings")
    return f"{-one.value:.2f}x less ({-one.high:.2f} to {-one.low:.2f}{remark})"


def _memory(one: Recommendation) -> str:
    if one.spec is None:
        return ""
    if one.spec.model_role is None:
        return "Drafter's memory: none, it has no model."
    known: Footprint | None = one.footprint
    if known is None or known.weight_bytes is None or known.kv_bytes_per_token is None:
        return "Drafter's memory: unknown, the records do not say it."
    return (
        f"Drafter's memory, as run: {count_text(known.num_parameters or 0)} parameters, "
        f"{size_text(known.weight_bytes)} in {known.dtype}; KV cache {size_text(known.kv_bytes_per_token)} a token."
    )


def _cost(one: Recommendation, price_per_hour: float | None) -> str:
    """Example: "A million output tokens at 2.5 an hour: 7.31 (plain decoding 21.93); modelled, one request ..."."""
    cost = one.cost(price_per_hour)
    if cost is None or (cost.first is None and cost.plain is None):
        return ""
    plain = None if cost.plain is None else f"plain decoding {cost.plain:,.2f}"
    amount = plain or "" if cost.first is None else f"{cost.first:,.2f}" + (f" ({plain})" if plain else "")
    how = "measured" if cost.is_measured else "a modelled bound, real time costs more" if cost.is_bound else "modelled"
    return f"A million output tokens at {price_per_hour:g} an hour: {amount}; {how}, one request at a time."


def _by_dataset(found: Sequence[Recommendation]) -> str:
    parts = [
        f"{visible(one.table.dataset)}: {_named(one.first)}" + ("" if one.row else " (by number alone)")
        for one in found
        if one.first is not None
    ]
    return (
        f"The first changes with the data set ({time_words(found[0].table.engine)}): {'; '.join(parts)}."
        if parts
        else ""
    )


def _named(row: Row) -> str:
    """Example: "AR, static 8: 4.10x plain decoding (3.90 to 4.30)"."""
    return f"{_in_words(row)}: {_speedup(row.values['speedup_mean'])}"


def _speedup(value: Value) -> str:
    bounds = "" if value.low is None else f" ({value.low:.2f} to {value.high:.2f})"
    return f"{value.value:.2f}x plain decoding{bounds}"


def _in_words(row: Row) -> str:
    spec = known_spec(row.drafter_name)
    return visible(row.drafter_name if spec is None else spec.label)


def _wrapped(text: str) -> list[str]:
    return [line for part in text.splitlines() for line in wrap(part, WIDTH)]


def _indented(text: str, first: str = "  ") -> list[str]:
    return wrap(text, WIDTH, initial_indent=first, subsequent_indent=f"{first}  ", break_on_hyphens=False)
