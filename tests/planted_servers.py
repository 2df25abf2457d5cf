"""Planted servers: what a server would count that answers and drafts like this or that, by a second implementation. Not
tests.

Target and drafter are pure functions of a text, so that what either says after any text is known, also after an end. A
server's loop is written out here as vLLM runs it, token by token, and shares no code with the program's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from hashlib import sha256
from typing import Any

from specdec.decoding.stopping import cut_after_stop
from specdec.ranking.conventions import Written
from specdec.ranking.served_counts import ServedCounts
from specdec.ranking.text_findings import Pair

STOP = 2
Says = Callable[[Sequence[int]], int]
Drafts = Callable[[list[int]], list[int]]


def said(seed: int, text: Sequence[int], below: int) -> int:
    return int.from_bytes(sha256(repr((seed, list(text))).encode()).digest()[:4], "big") % below


def target(text: Sequence[int]) -> int:
    """Any of 40 tokens by the last three; now and then the end."""
    token = said(1, text[-3:], 44)
    return STOP if token >= 40 and len(text) > 12 else 3 + token % 40


def drafter(text: Sequence[int]) -> int:
    """The target's token two times in three."""
    return target(text) if said(2, text[-4:], 3) else 3 + said(3, text[-2:], 40)


def shifted(text: Sequence[int]) -> int:
    """A drafter that reads one layer too low: right less often, and elsewhere."""
    return target(text) if said(4, text[-4:], 3) == 0 else 3 + said(5, text[-2:], 40)


def unmapped(text: Sequence[int]) -> int:
    """The drafter's word in place of its token, as where d2t is ignored: the same for small tokens alone."""
    token = drafter(text)
    return token if token < 20 else token // 2


def written_by(says: Says, text: Sequence[int], stop_ids: Sequence[int], most: int) -> list[int]:
    found: list[int] = []
    while len(found) < most and not (found and found[-1] in stop_ids):
        found.append(says([*text, *found]))
    return found


def oldest_place(text: Sequence[int], most: int, longest: int) -> list[int]:
    """What followed the longest run of up to `longest` tokens that the text ends with, where it stood first."""
    for size in range(min(longest, len(text) - 1), 0, -1):
        for begin in range(len(text) - size):
            if list(text[begin : begin + size]) == list(text[-size:]):
                return list(text[begin + size : begin + size + most])
    return []


def copied_counts(question_id: int, prompt: list[int], text: Sequence[int], drafts: Drafts) -> ServedCounts:
    """Of a server that copies its drafts, along a text that the target has written after the prompt."""
    at, counts = 1, {"num_rounds": 0, "num_drafts": 0, "num_drafted": 0, "num_accepted": 0}
    while at < len(text):
        draft = drafts([*prompt, *text[:at]])
        accepted = 0
        while accepted < len(draft) and text[at + accepted : at + accepted + 1] == [draft[accepted]]:
            accepted += 1
        for name, value in zip(counts, (1, bool(draft), len(draft), accepted), strict=True):
            counts[name] += value
        at += accepted + 1
    return ServedCounts(question_id, num_tokens=len(text), output_ids=list(text), prompt_ids=prompt, **counts)


@dataclass(frozen=True)
class Planted:
    """A server: what it is asked with, its models, and how it drafts and counts."""

    says: Says = target
    drafts: Says = drafter
    draft_len: int = 5
    budget: int = 60
    stop_ids: tuple[int, ...] = (STOP,)
    counts_bonus: bool = False
    prompt: Callable[[list[int]], list[int]] = list

    def answer(self, question_id: int, prompt_ids: list[int]) -> ServedCounts:
        """Counts as vLLM's: the first token from the prompt's pass, whole drafts, and what it accepts past the end."""
        prompt = self.prompt(prompt_ids)
        output = [self.says(prompt)]
        positions, rounds = [0] * self.draft_len, 0
        while len(output) < self.budget and output[-1] not in self.stop_ids:
            draft: list[int] = []
            for _ in range(self.draft_len):
                draft.append(self.drafts([*prompt, *output, *draft]))
            accepted: list[int] = []
            while len(accepted) < len(draft) and self.says([*prompt, *output, *accepted]) == draft[len(accepted)]:
                accepted.append(draft[len(accepted)])
            for position in range(len(accepted)):
                positions[position] += 1
            new = [*accepted, self.says([*prompt, *output, *accepted])]
            output += cut_after_stop(new, self.stop_ids)[: self.budget - len(output)]
            rounds += 1
        return ServedCounts(
            question_id=question_id,
            num_drafted=rounds * self.draft_len,
            num_accepted=sum(positions) + rounds * self.counts_bonus,
            num_rounds=rounds,
            num_drafts=rounds,
            num_tokens=len(output),
            accepted_per_position=None if self.counts_bonus else positions,
            prompt_ids=prompt,
            output_ids=output,
            finish_reason="stop" if output[-1] in self.stop_ids else "length",
        )


def prompt_of(question_id: int) -> list[int]:
    return [1, 10 + question_id, 11, 12 + question_id, 13]


@cache
def recorded(question_id: int, drafts: Says = drafter, longest: int = 9, budget: int = 60) -> Written:
    """What a trace holds: the target's text and the chains after each prefix, which end at a stop token."""
    prompt = prompt_of(question_id)
    text = written_by(target, prompt, [STOP], budget)
    count = min(len(text), budget - 1)
    return Written(
        text, [written_by(drafts, [*prompt, *text[:at]], [STOP], longest) for at in range(count)], {STOP}, budget
    )


def pair(question_id: int, written: Written, one: ServedCounts, gap: float = 3.0, **changes: Any) -> Pair:
    """`gap`: between the two best logits at every token."""
    made = Pair(
        question_id,
        prompt_of(question_id),
        written.tokens,
        [gap] * len(written.tokens),
        written.stop_ids,
        written.budget,
        one.prompt_ids,
        one.output_ids,
        one.length,
        one.finish_reason,
    )
    return replace(made, **changes)
