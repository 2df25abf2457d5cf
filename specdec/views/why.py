"""Why: one sentence for a ranking that says why the first is first, from the table's own sums; and how far it is from
the best possible.

A speedup is the tokens of a round over what a round costs in tokens of plain decoding; what it costs is drafting and
verification. Not here: how sure the order is (`verdict.py`).
"""

import math
from dataclasses import dataclass

from specdec.drafters.families import known_spec
from specdec.ranking.table import Row, Table
from specdec.text import visible
from specdec.views.labels import title
from specdec.views.palette import kind_of
from specdec.views.verdict import DOUBTED, NOT_PLAIN, kind_of_verdict

ALIKE = 1e-3  # two numbers that are nearer, relatively, are said to be as much
MOST_DIGITS = 6  # of two numbers that differ more


@dataclass(frozen=True)
class Account:
    """What a round of a configuration gives and costs. `draft_cost`, `verify_cost`: in tokens of plain decoding."""

    name: str
    tokens: float
    passes: float
    draft_cost: float
    verify_cost: float
    acceptance: float | None

    @property
    def cost(self) -> float:
        return self.draft_cost + self.verify_cost

    @property
    def draft_share(self) -> float:
        return self.draft_cost / self.cost

    @property
    def speedup(self) -> float:
        return self.tokens / self.cost


def account_of(row: Row, name: str) -> Account | None:
    """None where the row does not hold the sums."""
    sums = row.sums
    needed = ("num_output_tokens", "num_rounds", "num_forward_passes", "draft_ms", "verify_ms", "baseline_ms")
    if not all(sums.get(part) is not None for part in needed) or not sums["num_rounds"] or not sums["baseline_ms"]:
        return None
    if not sums["num_output_tokens"] or not sums["draft_ms"] + sums["verify_ms"]:
        return None
    per_round = sums["num_output_tokens"] / sums["baseline_ms"] / sums["num_rounds"]  # plain tokens a ms, a round
    return Account(
        name=name,
        tokens=sums["num_output_tokens"] / sums["num_rounds"],
        passes=sums["num_forward_passes"] / sums["num_rounds"],
        draft_cost=sums["draft_ms"] * per_round,
        verify_cost=sums["verify_ms"] * per_round,
        acceptance=row.number("acceptance_rate"),
    )


def why_line(table: Table) -> str:
    """One sentence; "" where nothing is ranked, the times say nothing, or the sums are not known."""
    first = table.first
    if first is None or (verdict := kind_of_verdict(table, first)) == DOUBTED:
        return ""
    rival_row = rival_of(table, first)
    names = _titles(first, rival_row)
    account = account_of(first, names[0])
    if account is None:
        return ""
    if verdict == NOT_PLAIN:
        return f"Why: {_against_plain(account)}."
    rival = None if rival_row is None else account_of(rival_row, names[1])
    return f"Why: {_alone(account) if rival is None else _compared(account, rival)}."


def rival_of(table: Table, first: Row) -> Row | None:
    """Whom the first is compared with: the best AR drafter of a fixed length; where it is one itself, the best of
    another kind; where there is none, the next row."""
    others = [row for row in table.rows if row.rank is not None and row is not first]
    kinds = [row for row in others if kind_of(row.drafter_name) is not kind_of(first.drafter_name)]
    references = [row for row in kinds if getattr(known_spec(row.drafter_name), "is_reference", False)]
    return next(iter([*references, *kinds, *others]), None)


def _titles(first: Row, rival: Row | None) -> tuple[str, str]:
    """Short names; the names on disk where both are of one kind."""
    if rival is not None and kind_of(first.drafter_name) is kind_of(rival.drafter_name):
        return visible(first.drafter_name), visible(rival.drafter_name)
    return title(first), "" if rival is None else title(rival)


def _against_plain(one: Account) -> str:
    if one.speedup >= 1:  # the mean of the questions is not the ratio of the sums
        return f"{_alone(one)}: over all tokens together it is not slower than plain decoding, but over questions it is"
    most = "drafting" if one.draft_cost > one.verify_cost else "verification"
    share = max(one.draft_share, 1 - one.draft_share)
    cost, tokens = _apart(one.cost, one.tokens)
    return (
        f"a round of {one.name} costs as much as {cost} tokens of plain decoding ({share:.0%} of it {most}) "
        f"and gives {tokens}"
    )


def _alone(one: Account) -> str:
    tokens, cost = _apart(one.tokens, one.cost)
    return (
        f"a round of {one.name} gives {tokens} tokens and costs as much as {cost} of plain decoding "
        f"({one.draft_share:.0%} of it drafting)"
    )


def _compared(first: Account, rival: Account) -> str:
    """The two accounts beside each other: what the rival has more of, and what it loses that by."""
    tokens, rival_tokens = _apart(first.tokens, rival.tokens)
    cost, rival_cost = _apart(first.cost, rival.cost)
    if rival.speedup >= first.speedup:  # the order of the means is not that of the sums
        return (
            f"{_alone(first)}; of {rival.name} {rival_tokens} tokens for {rival_cost} ({rival.draft_share:.0%} "
            "drafting): over all tokens together it is not slower"
        )
    if _is_more(rival.tokens, first.tokens):
        return f"{rival.name} {_accepts_more(first, rival)}, but {_pays(first, rival)}"
    if _is_more(first.cost, rival.cost):
        return (
            f"a round of {rival.name} costs less ({rival_cost} tokens of plain decoding against {first.name}'s "
            f"{cost}), but gives {rival_tokens} tokens against {tokens}{_shares(rival, first)}"
        )
    if not _is_more(first.tokens, rival.tokens):
        same = f"a round of {first.name} gives as many tokens as one of {rival.name} ({tokens})"
        return f"{same} and {_pays_less(first, rival)}"
    return (
        f"a round of {first.name} gives more ({tokens} tokens against {rival.name}'s {rival_tokens}"
        f"{_shares(first, rival)}) and {_pays_less(first, rival)}"
    )


def _is_more(one: float, other: float) -> bool:
    return one > other and not math.isclose(one, other, rel_tol=ALIKE)


def _apart(one: float, other: float, kind: str = "f") -> tuple[str, str]:
    """Two numbers with as many digits as tell them apart: 1.0 and 1.04 are "1.00" and "1.04". `kind`: "f", or "%"."""
    texts = ("", "")
    for digits in range(int(kind == "f"), MOST_DIGITS):
        texts = f"{one:.{digits}{kind}}", f"{other:.{digits}{kind}}"
        if texts[0] != texts[1]:
            return texts
    return f"{one:.{int(kind == 'f')}{kind}}", f"{other:.{int(kind == 'f')}{kind}}"


def _accepts_more(first: Account, rival: Account) -> str:
    tokens = f"more tokens a round ({_against(rival.tokens, first.tokens)})"
    if rival.acceptance is None or first.acceptance is None or not _is_more(rival.acceptance, first.acceptance):
        return f"gives {tokens}"
    return f"accepts more of its draft ({_against(rival.acceptance, first.acceptance, '%')}) and gives {tokens}"


def _against(one: float, other: float, kind: str = "f") -> str:
    return " against ".join(_apart(one, other, kind))


def _pays(first: Account, rival: Account) -> str:
    """What the dearer rounds of the rival cost more for."""
    what, costs = "to draft", (rival.draft_cost, first.draft_cost)
    if rival.draft_cost - first.draft_cost < rival.verify_cost - first.verify_cost:
        what, costs = "to verify its drafts", (rival.verify_cost, first.verify_cost)
    elif _is_more(rival.draft_share, first.draft_share):
        one, other = _apart(rival.draft_share, first.draft_share, "%")
        share = f"drafting is {one} of its time, against {other}"
        if not _is_more(rival.passes, first.passes):
            return f"its passes cost more: {share}"
        one, other = _apart(rival.passes, first.passes)
        return f"needs {one} passes a round against {other}: {share}"
    one, other = _apart(*costs)
    return f"{what} costs as much as {one} tokens of plain decoding a round, against {other}"


def _pays_less(first: Account, rival: Account) -> str:
    """What the rounds of the first cost less for; drafting's share where it is the reason."""
    if not _is_more(rival.cost, first.cost):
        return f"costs as much: {first.cost:.1f} tokens of plain decoding"
    one, other = _apart(first.cost, rival.cost)
    costs = f"costs {one} tokens of plain decoding against {other}"
    if _is_more(rival.draft_share, first.draft_share):
        one, other = _apart(first.draft_share, rival.draft_share, "%")
        return f"{costs}: drafting is {one} of its time against {other}"
    return f"{costs}: verification is {_against(first.verify_cost, rival.verify_cost)} of that"


def _shares(one: Account, other: Account) -> str:
    """The acceptance of both, in the order of the tokens before it, where it says the same as they do."""
    if one.acceptance is None or other.acceptance is None:
        return ""
    is_same_way = (one.acceptance > other.acceptance) == (one.tokens > other.tokens)
    if not is_same_way or math.isclose(one.acceptance, other.acceptance, rel_tol=ALIKE):
        return ""
    share, other_share = _apart(one.acceptance, other.acceptance, "%")
    return f", {share} of a draft accepted against {other_share}"


def ceiling_line(table: Table) -> str:
    """How far the first is from the best possible and where the rest goes; "" where no ceiling is known."""
    first = table.first
    needed = ("ceiling_share", "over_share", "under_share", "passes_share")
    if first is None or not first.has(*needed) or not first.sums["best_ms"]:
        return ""
    best = first.sums["baseline_ms"] / first.sums["best_ms"]
    share, over, under, passes = (first.values[name].value for name in needed)
    return (
        f"Ceiling: knowing the text, the best drafters and lengths give {best:.2f}x (ratio of sums); {title(first)} "
        f"reaches {share:.0%} of it, and loses {over:.0%} to drafting too far, {under:.0%} to stopping early, "
        f"{passes:.0%} to needless passes."
    )
