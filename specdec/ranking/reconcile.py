"""Reconcile: why a server's acceptance counts are not those of the records, by changing one thing at a time.

First what can be read off the tokens (`text_findings.py`). Then, for questions with the same text, conventions
(`conventions.py`) are changed in our own counts until they are the server's, in every question; the fewest changes win.
`others` are drafts of the same drafter under a mistake (taps off by one, its vocabulary map ignored), tried likewise.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

from specdec.ranking.conventions import Convention, Tally, Written, tally
from specdec.ranking.served_counts import ServedCounts
from specdec.ranking.text_findings import Finding, Pair, Show, end_findings, parting_findings, prompt_findings

OURS = "as recorded"
# Conventions by the field that is changed: what a server does that we do not. In the order in which they are named.
CHANGES = {
    "first_from_prompt": ("first token", "comes from the prompt's pass, so that drafting begins after it"),
    "is_whole": ("whole drafts", "go on after the drafter's stop token and past the budget"),
    "counts_past_end": ("past the end", "counts what is accepted after the answer's end"),
    "counts_bonus": ("bonus", "counts the target's own token as accepted"),
}
Answers = Mapping[int, Written]


@dataclass(frozen=True)
class Hypothesis:
    """What a server may do: whose drafts (a key of the variants), under which convention."""

    drafts: str
    convention: Convention

    def changes(self, own: Convention) -> list[Finding]:
        """What it changes of ours, drafts first."""
        found = [] if self.drafts == OURS else [Finding("drafter", self.drafts)]
        if self.convention.draft_len != own.draft_len:
            found.append(Finding("block length", f"drafts of {self.convention.draft_len} tokens, ours {own.draft_len}"))
        names = [name for name in CHANGES if getattr(self.convention, name) != getattr(own, name)]
        return found + [Finding(*CHANGES[name]) for name in names]


@dataclass
class Reconciled:
    """What was found. `questions`: those whose counts were compared; `steps`: (what was changed last, counts of all of
    them, how many agree); `tallies`: by question, ours and the explained; `apart`: questions left unexplained."""

    findings: list[Finding]
    questions: list[int] = field(default_factory=list)
    steps: list[tuple[str, Tally, int]] = field(default_factory=list)
    tallies: dict[int, tuple[Tally, Tally]] = field(default_factory=dict)
    apart: list[int] = field(default_factory=list)

    @property
    def is_explained(self) -> bool:
        return bool(self.questions) and not self.apart


def agrees(one: Tally, served: ServedCounts) -> bool:
    """Whether a server's counts are these; tokens of which it is open whether they were accepted may be or not."""
    pairs = [(served.num_rounds, one.num_rounds), (served.num_drafts, one.num_drafts)]
    if any(theirs is not None and theirs != ours for theirs, ours in pairs) or served.num_drafted != one.num_drafted:
        return False
    extra = served.num_accepted - one.num_accepted
    if not 0 <= extra <= one.num_open:
        return False
    positions = served.accepted_per_position
    if not positions:
        return True
    longest = max(len(positions), len(one.num_accepted_at))
    padded = [[*counts, *[0] * (longest - len(counts))] for counts in (positions, one.num_accepted_at)]
    more = [theirs - ours for theirs, ours in zip(*padded, strict=True)]
    return all(0 <= step <= 1 for step in more) and sum(more) <= one.num_open


def distance(one: Tally, served: ServedCounts) -> int:
    """How far a server's counts are from these, in rounds and tokens."""
    extra = served.num_accepted - one.num_accepted
    found = abs(served.num_drafted - one.num_drafted) + max(-extra, 0, extra - one.num_open)
    return found + (0 if served.num_rounds is None else abs(served.num_rounds - one.num_rounds))


def reconcile(
    pairs: Sequence[Pair],
    served: Mapping[int, ServedCounts],
    variants: Mapping[str, Answers],
    own: Convention,
    longest: int,
    show: Show | None = None,
) -> Reconciled:
    """`variants`: answers with drafts, by whose they are; OURS is one. `longest`: tokens that drafts are known for."""
    findings = [*prompt_findings(pairs, show), *parting_findings(pairs), *end_findings(pairs, show)]
    answers = {name: _comparable(pairs, one) for name, one in variants.items()}
    questions = sorted(answers[OURS].keys() & served.keys())
    found = Reconciled(findings, questions)
    if not questions:
        return found
    best = min(_hypotheses(list(variants), own, longest), key=lambda one: _cost(one, answers, served, own))
    found.findings += _shared(best, answers, served, own)
    found.findings = _merged(found.findings)
    found.steps = list(_steps(best, answers, served, own))
    for number in questions:
        theirs = tally(answers[best.drafts][number], best.convention)
        found.tallies[number] = tally(answers[OURS][number], own), theirs
        if not agrees(theirs, served[number]):
            found.apart.append(number)
    found.findings += _pattern(found, served)
    return found


def _comparable(pairs: Sequence[Pair], answers: Answers) -> dict[int, Written]:
    """The answers that the server has given too, cut where it ended them earlier."""
    found = {}
    for pair in pairs:
        length = pair.served_length
        is_known = pair.has_same_prompt and pair.parts_at is None and pair.question_id in answers
        if not is_known or (length is not None and (length > len(pair.tokens) or length < 2)):
            continue
        written = answers[pair.question_id]
        is_shorter = length is not None and length < len(pair.tokens)
        budget = length if is_shorter and pair.finish_reason != "stop" else None
        found[pair.question_id] = written.cut(length or 0, budget) if is_shorter else written
    return found


def _hypotheses(variants: Sequence[str], own: Convention, longest: int) -> Iterator[Hypothesis]:
    """All of them, those with the fewest changes first."""
    names = list(CHANGES)
    sets = [chosen for count in range(len(names) + 1) for chosen in combinations(names, count)]
    lengths = [own.draft_len, *(length for length in range(1, longest + 1) if length != own.draft_len)]
    for variant in sorted(variants, key=lambda name: name != OURS):
        for length in lengths:
            for chosen in sets:
                changed: dict[str, Any] = {name: not getattr(own, name) for name in chosen}
                yield Hypothesis(variant, replace(own, draft_len=length, **changed))


def _cost(
    one: Hypothesis, answers: Mapping[str, Answers], served: Mapping[int, ServedCounts], own: Convention
) -> tuple[int, int, int]:
    """(questions that do not agree, by how much, changes): the least is the best."""
    tallies = {number: tally(written, one.convention) for number, written in answers[one.drafts].items()}
    apart = [number for number, found in tallies.items() if not agrees(found, served[number])]
    far = sum(distance(tallies[number], served[number]) for number in apart)
    return len(apart), far, len(one.changes(own))


def _shared(
    best: Hypothesis, answers: Mapping[str, Answers], served: Mapping[int, ServedCounts], own: Convention
) -> list[Finding]:
    """The changes that the best hypothesis makes, where it explains anything: agrees more than we do unchanged."""
    ours = Hypothesis(OURS, own)
    if _cost(best, answers, served, own)[:2] >= _cost(ours, answers, served, own)[:2]:
        return []
    return best.changes(own)


def _merged(findings: Sequence[Finding]) -> list[Finding]:
    """Conventions last, and those of one server's usual way together after what is a mistake."""
    usual = {name for name, _ in CHANGES.values()}
    return [one for one in findings if one.kind not in usual] + [one for one in findings if one.kind in usual]


def _steps(
    best: Hypothesis, answers: Mapping[str, Answers], served: Mapping[int, ServedCounts], own: Convention
) -> Iterator[tuple[str, Tally, int]]:
    """Our counts, then with one change after the other, up to the best hypothesis."""
    at = Hypothesis(OURS, own)
    yield OURS, *_all_of(at, answers, served)
    if best.drafts != OURS:
        at = replace(at, drafts=best.drafts)
        yield f"drafter: {best.drafts}", *_all_of(at, answers, served)
    for name in ("draft_len", *CHANGES):
        value = getattr(best.convention, name)
        if value != getattr(own, name):
            changed: dict[str, Any] = {name: value}
            at = replace(at, convention=replace(at.convention, **changed))
            label = f"drafts of {value}" if name == "draft_len" else ": ".join(CHANGES[name])
            yield label, *_all_of(at, answers, served)


def _all_of(one: Hypothesis, answers: Mapping[str, Answers], served: Mapping[int, ServedCounts]) -> tuple[Tally, int]:
    """Its counts over all questions, and in how many they are the server's."""
    tallies = {number: tally(written, one.convention) for number, written in answers[one.drafts].items()}
    return united(list(tallies.values())), sum(agrees(found, served[number]) for number, found in tallies.items())


def united(tallies: Sequence[Tally]) -> Tally:
    """All of them together, without positions."""
    names = ("num_rounds", "num_drafts", "num_drafted", "num_accepted", "num_open")
    return Tally(**{name: sum(getattr(one, name) for one in tallies) for name in names})


def _pattern(found: Reconciled, served: Mapping[int, ServedCounts]) -> list[Finding]:
    """What counts that no hypothesis gives look like."""
    apart = tuple(found.apart)
    accepted = sum(served[number].num_accepted for number in apart)
    expected = sum(found.tallies[number][1].num_accepted for number in apart)
    if not apart:
        return []
    if accepted <= 0.05 * expected:
        text = (
            f"the server accepts {accepted} tokens, {expected} are expected: its drafter lacks weights, or is another"
        )
        return [Finding("weights", text, apart)]
    less = "fewer" if accepted < expected else "more"
    text = f"the server accepts {less} tokens than any convention gives ({accepted}, not {expected}): another drafter?"
    return [Finding("unexplained", text, apart)]
