"""Text findings: why a server's prompts or answers are not those of the records, by their tokens alone.

Prompts come first, for another prompt has another answer; then how answers end, then where they part. Nothing is
counted here (`reconcile.py`), and no tokenizer is at hand: `show` gives tokens as text where the caller has one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from specdec.text import ranges, visible

Show = Callable[[Sequence[int]], str]
NEAR_TIE = 0.5  # logits: what rounding to bfloat16 makes of logits of some tens, and no more
THINK = "think"


@dataclass(frozen=True)
class Finding:
    """Something that explains a difference. `kind`: one word; `questions`: those that show it."""

    kind: str
    text: str
    questions: tuple[int, ...] = ()

    @property
    def sentence(self) -> str:
        where = (
            f" (question{'s' if len(self.questions) > 1 else ''} {ranges(self.questions)})" if self.questions else ""
        )
        return f"{self.kind}: {self.text}{where}"


@dataclass(frozen=True)
class Pair:
    """One question: what is recorded, and what the server gave; None: it does not say.

    `gaps`: between the target's two best logits at each recorded token.
    """

    question_id: int
    prompt_ids: Sequence[int]
    tokens: Sequence[int]
    gaps: Sequence[float]
    stop_ids: Collection[int]
    budget: int
    served_prompt: Sequence[int] | None
    served: Sequence[int] | None
    served_length: int | None
    finish_reason: str | None = None
    served_again: Sequence[int] | None = None

    @property
    def parts_at(self) -> int | None:
        """The first token that differs; None where one answer is the other's beginning, or nobody says."""
        return None if self.served is None else first_difference(self.tokens, self.served)

    @property
    def ends_otherwise(self) -> bool:
        """Whether one answer is longer, and the same as far as the other goes."""
        length = self.served_length
        return self.parts_at is None and length is not None and length != len(self.tokens)

    @property
    def has_same_prompt(self) -> bool:
        return self.served_prompt is None or list(self.served_prompt) == list(self.prompt_ids)


def first_difference(ours: Sequence[int], theirs: Sequence[int]) -> int | None:
    """`first_difference([1, 2], [1, 3]) == 1`; None where one is the other's beginning."""
    return next((index for index, pair in enumerate(zip(ours, theirs, strict=False)) if pair[0] != pair[1]), None)


def prompt_findings(pairs: Sequence[Pair], show: Show | None = None) -> list[Finding]:
    """What is different about the prompts: a finding a kind, those of most questions first."""
    by_kind: dict[str, list[tuple[int, str]]] = {}
    for pair in pairs:
        if not pair.has_same_prompt:
            kind, text = _of_prompt(list(pair.prompt_ids), list(pair.served_prompt or ()), show)
            by_kind.setdefault(kind, []).append((pair.question_id, text))
    found = [Finding(kind, said[0][1], tuple(one for one, _ in said)) for kind, said in by_kind.items()]
    return sorted(found, key=lambda one: -len(one.questions))


def _of_prompt(ours: list[int], theirs: list[int], show: Show | None) -> tuple[str, str]:
    """The kind of a difference of two prompts, and the difference."""
    head = _common(ours, theirs)
    longest = min(len(ours), len(theirs)) - head
    tail = min(longest, _common(ours[::-1], theirs[::-1]))
    mine, other = ours[head : len(ours) - tail], theirs[head : len(theirs) - tail]
    if mine and other and 5 * (head + tail) < min(len(ours), len(theirs)):
        return "tokenizer", f"prompts share {head + tail} tokens at their ends: another tokenizer, or other questions"
    said = f"ours has {_shown(mine, show)} where the server has {_shown(other, show)}, at token {head} of the prompt"
    if head == 0 and len(mine) + len(other) == 1 or theirs[:1] * 2 + ours[1:] == theirs:
        return "BOS", f"one token at the beginning: {said}"
    if show is not None and THINK in (show(mine) + show(other)).lower():
        return "thinking", f"the prompts turn it on or off: {said}"
    if tail == 0 and not (mine and other):
        return "thinking", f"thinking mode or generation prompt, for the prompts end otherwise: {said}"
    return "template", f"chat template or system prompt: {said}"


def _common(ours: Sequence[int], theirs: Sequence[int]) -> int:
    found = first_difference(ours, theirs)
    return min(len(ours), len(theirs)) if found is None else found


def _shown(tokens: Sequence[int], show: Show | None) -> str:
    if not tokens:
        return "nothing"
    ids = " ".join(map(str, tokens[:8])) + (" ..." if len(tokens) > 8 else "")
    return f"[{ids}]" + (f" {visible(show(tokens))[:60]!r}" if show else "")


def end_findings(pairs: Sequence[Pair], show: Show | None = None) -> list[Finding]:
    """Why answers that are the same are not as long: the budget, or what ends an answer."""
    ends = [pair for pair in pairs if pair.has_same_prompt and pair.ends_otherwise]
    shorter = [pair for pair in ends if (pair.served_length or 0) < len(pair.tokens)]
    longer = [pair for pair in ends if (pair.served_length or 0) > len(pair.tokens)]
    found = _shorter(shorter, pairs)
    past_budget = [pair for pair in longer if len(pair.tokens) == pair.budget]
    if past_budget:
        text = f"the server goes on after {past_budget[0].budget} tokens, where the records end"
        found.append(Finding("budget", text, _ids(past_budget)))
    past_stop = [pair for pair in longer if pair not in past_budget]
    if past_stop:
        token = _shown(past_stop[0].tokens[-1:], show)
        found.append(Finding("stop ids", f"the server goes on after {token}, which ends ours", _ids(past_stop)))
    return sorted(found, key=lambda one: -len(one.questions))


def _shorter(shorter: Sequence[Pair], pairs: Sequence[Pair]) -> list[Finding]:
    """Answers that the server ended earlier: by a smaller budget, if that is what they say or all are of one length."""
    longest = max((pair.served_length or 0 for pair in pairs), default=0)
    by_budget = [pair for pair in shorter if pair.finish_reason == "length"]
    if not by_budget and not any(pair.finish_reason for pair in shorter):
        by_budget = [pair for pair in shorter if pair.served_length == longest]
    found = []
    if by_budget:
        least = min(pair.served_length or 0 for pair in by_budget)
        text = f"the server ends answers after {least} tokens, the records after {by_budget[0].budget}"
        found.append(Finding("budget", text, _ids(by_budget)))
    by_stop = [pair for pair in shorter if pair not in by_budget]
    if by_stop:
        last = sorted({pair.tokens[(pair.served_length or 1) - 1] for pair in by_stop})
        text = f"the server ends answers at {_shown(last, None)}, at which ours go on"
        found.append(Finding("stop ids", text, _ids(by_stop)))
    return found


def parting_findings(pairs: Sequence[Pair]) -> list[Finding]:
    """Why answers to the same prompts part: near ties, or something that changes what the target finds best."""
    parting = [pair for pair in pairs if pair.has_same_prompt and pair.parts_at is not None]
    again = [pair for pair in pairs if pair.served_again is not None and pair.served_again != pair.served]
    gaps = {pair.question_id: pair.gaps[pair.parts_at or 0] for pair in parting}
    if again:
        text = "the server answers the same question otherwise when it is asked again: it samples (generation_config)"
        return [Finding("sampling defaults", text, _ids(again))]
    if not parting:
        return []
    clear = [pair for pair in parting if gaps[pair.question_id] > NEAR_TIE]
    if not clear:
        text = f"answers part at near ties (the two best logits are at most {max(gaps.values()):.2g} apart): arithmetic"
        return [Finding("dtype", text, _ids(parting))]
    where = min(clear, key=lambda pair: pair.parts_at or 0)
    gap = f"logits {gaps[where.question_id]:.2g} apart"
    told = f"as early as token {where.parts_at} of question {where.question_id}, with {gap}"
    if all(_is_repeat(pair) for pair in clear):
        text = f"answers part where ours says a token again, as a repetition penalty makes them: {told}"
        return [Finding("sampling defaults", f"{text} (generation_config)", _ids(clear))]
    text = f"answers part where no near tie explains it, {told}: other weights, or sampling parameters of its own"
    return [Finding("model", text, _ids(clear))]


def _is_repeat(pair: Pair) -> bool:
    """Whether our token, where the answers part, has stood in the text before, and the server's has not."""
    at = pair.parts_at or 0
    before = {*pair.prompt_ids, *pair.tokens[:at]}
    return pair.served is not None and pair.tokens[at] in before


def _ids(pairs: Sequence[Pair]) -> tuple[int, ...]:
    return tuple(pair.question_id for pair in pairs)
