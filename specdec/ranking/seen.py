"""Seen: questions that a policy has learnt from, which no ranking with that policy may count.

What it did there says nothing of other questions. Not here: what it has learnt (`decoding/cost_aware.py`).
"""

from collections.abc import Sequence

from specdec.drafters.families import known_spec
from specdec.ranking.entries import Entry
from specdec.ranking.question_sets import question_key
from specdec.text import ranges, visible

ADVICE = "--allow_seen ranks"


def unseen(stats: Sequence[Entry], allow_seen: bool = False) -> tuple[list[Entry], str]:
    """(entries to rank, a sentence about those left out or kept, or "").

    A question that taught a policy is left out for all configurations, so that they are compared over the same ones.
    Where that leaves a policy no question it is left out itself, and the questions stay.
    """
    key = question_key(stats)
    learnt = {entry.drafter_name for entry in stats if _has_learnt(entry)}
    kept, untold = list(stats), sorted({one.drafter_name for one in stats if _has_learnt(one) and one.has_seen is None})
    lines = [_untold(name) for name in untold]
    seen = {key(entry) for entry in stats if entry.has_seen}
    if seen and allow_seen:
        return kept, "\n".join([*lines, f"Careful: {_questions(stats, seen)} taught a policy that is ranked here."])
    hopeless = sorted(n for n in learnt if all(key(one) in seen for one in stats if one.drafter_name == n))
    if hopeless:
        kept = [entry for entry in kept if entry.drafter_name not in hopeless]
        names = ", ".join(map(visible, hopeless))
        lines.append(f"Left out: {names}, which learnt from every question that it was run on ({ADVICE} it).")
        seen = {key(entry) for entry in kept if entry.has_seen}
    if seen:
        lines.append(f"Left out: {_questions(stats, seen)}, which taught the cost-aware policy ({ADVICE} them).")
        kept = [entry for entry in kept if key(entry) not in seen]
    return kept, "\n".join(lines)


def _has_learnt(entry: Entry) -> bool:
    spec = known_spec(entry.drafter_name)
    return spec is not None and any(part.needs_advice for part in spec.parts)


def _questions(stats: Sequence[Entry], seen: set) -> str:
    """Example: "4 of 8 questions (0, 2, 4, 6)"."""
    key = question_key(stats)
    asked = {key(entry) for entry in stats}
    return f"{len(seen)} of {len(asked)} questions ({ranges({number for _, number in seen})})"


def _untold(name: str) -> str:
    return f"Careful: records of {visible(name)} do not say which questions it learnt from: rank held-out ones alone."
