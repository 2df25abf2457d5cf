"""Conventions: how rounds are cut and counted, and the counts of a recorded text and its drafts under any of them.

Programs that run the same drafter on the same text count otherwise. It reads neither a model nor a file: a text, what
was drafted after each of its prefixes, and a `Convention` give a `Tally`. `reconcile.py` looks for the convention that
gives a server's counts.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

from specdec.decoding.stopping import cut_after_stop
from specdec.decoding.target import count_accepted


@dataclass(frozen=True)
class Convention:
    """How a program cuts rounds and counts them; the defaults are this program's. `draft_len`: tokens of a draft.

    `first_from_prompt`: the prompt's pass gives the first token, so that drafting begins after it. `is_whole`: drafts
    have `draft_len` tokens, also after the drafter's stop token and past the budget. `counts_past_end`: what is
    accepted after the end of the answer counts as accepted. `counts_bonus`: so does the target's own token.
    """

    draft_len: int
    first_from_prompt: bool = False
    is_whole: bool = False
    counts_past_end: bool = False
    counts_bonus: bool = False


@dataclass(frozen=True)
class Written:
    """A recorded answer: its `tokens`, and what was drafted after the first 0, 1, 2, ... of them (None: not known).

    A draft may be longer than any convention's, and ends early where nothing was found, or at a stop token: but for one
    that `is_copied` from texts, which a server copies on after it.
    """

    tokens: Sequence[int]
    drafts: Sequence[Sequence[int] | None]
    stop_ids: Collection[int]
    budget: int
    is_copied: bool = False

    def cut(self, num_tokens: int, budget: int | None = None) -> Written:
        """The same, as if the answer had ended after `num_tokens`."""
        tokens, drafts = self.tokens[:num_tokens], self.drafts[:num_tokens]
        return replace(self, tokens=tokens, drafts=drafts, budget=budget or self.budget)


@dataclass
class Tally:
    """Counts of one answer. `num_accepted_at`: of positions 1, 2, ...: rounds that accepted up to there, or farther.
    `num_open`: drafted tokens after the answer's end, of which no record says whether they were accepted."""

    num_rounds: int = 0
    num_drafts: int = 0
    num_drafted: int = 0
    num_accepted: int = 0
    num_accepted_at: list[int] = field(default_factory=list)
    num_open: int = 0

    def add(self, drafted: int, accepted: int) -> None:
        """One round."""
        self.num_rounds += 1
        self.num_drafts += drafted > 0
        self.num_drafted += drafted
        self.num_accepted += accepted
        self.num_accepted_at += [0] * (drafted - len(self.num_accepted_at))
        for position in range(accepted):
            self.num_accepted_at[position] += 1


def tally(written: Written, convention: Convention) -> Tally:
    """The counts of an answer under a convention.

    >>> answer = Written([7, 8, 9, 2], [[7, 8, 1], [8, 9, 2], [9, 2], [2]], {2}, 16)
    >>> tally(answer, Convention(3))
    Tally(num_rounds=2, num_drafts=2, num_drafted=4, num_accepted=3, num_accepted_at=[2, 1, 0], num_open=0)
    >>> tally(answer, Convention(3, first_from_prompt=True))
    Tally(num_rounds=1, num_drafts=1, num_drafted=3, num_accepted=3, num_accepted_at=[1, 1, 1], num_open=0)
    """
    found, at = Tally(), int(convention.first_from_prompt)
    while at < len(written.tokens):
        draft, drafted = _draft(written, at, convention)
        accepted = count_accepted(draft or [], written.tokens[at : at + convention.draft_len])
        is_cut = at + accepted == len(written.tokens)
        if is_cut and not convention.is_whole:
            drafted = accepted
        found.add(drafted, accepted)
        if (is_cut or draft is None) and convention.counts_past_end:
            found.num_open += drafted - accepted
        at += accepted + 1
    if convention.counts_bonus:
        found.num_accepted += found.num_rounds
    return found


def _draft(written: Written, at: int, convention: Convention) -> tuple[Sequence[int] | None, int]:
    """What is drafted after the first `at` tokens (None: not known), and as how many tokens it counts."""
    length, room = convention.draft_len, written.budget - at - 1
    known = written.drafts[at] if at < len(written.drafts) else None
    if known is None:
        return None, length if convention.is_whole else 0
    if not convention.is_whole:
        draft = cut_after_stop(list(known[: min(length, room)]), written.stop_ids)
        return draft, len(draft)
    draft = list(known[:length])
    has_stopped = not written.is_copied and any(token in written.stop_ids for token in draft)
    return draft, length if has_stopped else len(draft)
