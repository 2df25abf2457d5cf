"""Why: one sentence for a ranking that says why the first is first, from the table's own sums; and how far it is from
the best possible.

A speedup is the tokens of a round over what a round costs in tokens of plain decoding; what it costs is drafting and
verification. Not here: how sure the order is (`verdict.py`).
"""

from dataclasses import dataclass

from specdec.drafters.families import known_spec
from specdec.ranking.table import Row, Table
from specdec.text import visible
from specdec.views.labels import title
from specdec.views.palette import kind_of
from specdec.views.verdict import DOUBTED, NOT_PLAIN, kind_of_verdict


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
    most = "drafting" if one.draft_cost > one.verify_cost else "verification"
    share = max(one.draft_share, 1 - one.draft_share)
    return (
        f"a round of {one.name} costs as much as {one.cost:.1f} tokens of plain decoding ({share:.0%} of it {most}) "
        f"and gives {one.tokens:.1f}"
    )


def _alone(one: Account) -> str:
    return (
        f"a round of {one.name} gives {one.tokens:.1f} tokens and costs as much as {one.cost:.1f} of plain decoding "
        f"({one.draft_share:.0%} of it drafting)"
    )


def _compared(first: Account, rival: Account) -> str:
    """The two accounts beside each other: what the rival has more of, and what it loses that by."""
    if rival.speedup >= first.speedup:  # the order of the means is not that of the sums
        return (
            f"{_alone(first)}; of {rival.name} {rival.tokens:.1f} tokens for {rival.cost:.1f} ({rival.draft_share:.0%} "
            "drafting): over all tokens together it is not slower"
        )
    if rival.tokens > first.tokens:
        return f"{rival.name} {_accepts_more(first, rival)}, but {_pays(first, rival)}"
    if rival.cost < first.cost:
        return (
            f"a round of {rival.name} costs less ({rival.cost:.1f} tokens of plain decoding against {first.name}'s "
            f"{first.cost:.1f}), but gives {rival.tokens:.1f} tokens against {first.tokens:.1f}{_shares(first, rival)}"
        )
    return (
        f"a round of {first.name} gives more ({first.tokens:.1f} tokens against {rival.name}'s {rival.tokens:.1f}"
        f"{_shares(first, rival)}) and {_pays_less(first, rival)}"
    )


def _accepts_more(first: Account, rival: Account) -> str:
    tokens = f"more tokens a round ({rival.tokens:.1f} against {first.tokens:.1f})"
    if rival.acceptance is None or first.acceptance is None or rival.acceptance <= first.acceptance:
        return f"gives {tokens}"
    return f"accepts more of its draft ({rival.acceptance:.0%} against {first.acceptance:.0%}) and gives {tokens}"


def _pays(first: Account, rival: Account) -> str:
    """What the dearer rounds of the rival cost more for."""
    if rival.draft_cost - first.draft_cost < rival.verify_cost - first.verify_cost:
        return (
            f"to verify its drafts costs as much as {rival.verify_cost:.1f} tokens of plain decoding a round, against "
            f"{first.verify_cost:.1f}"
        )
    share = f"drafting is {rival.draft_share:.0%} of its time, against {first.draft_share:.0%}"
    if rival.passes <= first.passes:
        return f"its passes cost more: {share}"
    return f"needs {rival.passes:.1f} passes a round against {first.passes:.1f}: {share}"


def _pays_less(first: Account, rival: Account) -> str:
    share = f"drafting is {first.draft_share:.0%} of its time against {rival.draft_share:.0%}"
    return f"costs {first.cost:.1f} tokens of plain decoding against {rival.cost:.1f}: {share}"


def _shares(first: Account, rival: Account) -> str:
    """The acceptance of both, where it says the same as the tokens do."""
    if first.acceptance is None or rival.acceptance is None or first.acceptance <= rival.acceptance:
        return ""
    return f", {first.acceptance:.0%} of a draft accepted against {rival.acceptance:.0%}"


def ceiling_line(table: Table) -> str:
    """How far the first is from the best possible and where the rest goes; "" where no ceiling is known."""
    first = table.first
    needed = ("ceiling_share", "over_share", "under_share", "passes_share")
    if first is None or not first.has(*needed) or not first.sums["best_ms"]:
        return ""
    best = first.sums["baseline_ms"] / first.sums["best_ms"]
    share, over, under, passes = (first.values[name].value for name in needed)
    return (
        f"Ceiling: knowing the text, the best choices of drafter and length give {best:.2f}x (ratio of sums); "
        f"{title(first)} reaches {share:.0%} of it, and loses {over:.0%} to drafting too far, {under:.0%} to stopping "
        f"early, {passes:.0%} to passes that a better choice would save."
    )
