"""Losslessness: how many outputs of many equal plain decoding's, and what parted the others.

`divergence.py` compares one output; an output that nobody compared when it was made is compared here. Sampled
outputs are not compared: what has to be plain decoding's is their distribution, which no single text shows.
"""

from collections import Counter
from collections.abc import Iterable

from specdec.ranking.entries import PLAIN, Entry
from specdec.records.divergence import BUG, EXACT, TIE
from specdec.records.identity import SAMPLED

DIFFERENT = "different"  # another text, made when plain decoding was not there to judge it by
_WORDS = {TIE: "part at a near-tie of the target", BUG: "PART WHERE NO TIE EXPLAINS IT", DIFFERENT: "were not judged"}


def graded_outputs(stats: Iterable[Entry]) -> list[tuple[Entry, str]]:
    """Every drafted entry whose losslessness is known, with its grade; DIFFERENT where it was never judged."""
    stats = list(stats)
    plain, found = {(e.source, e.question_id): e.output for e in stats if e.drafter_name == PLAIN}, []
    for entry in stats:
        expected = plain.get((entry.source, entry.question_id), "")
        grade = entry.losslessness
        if expected and entry.output and grade != SAMPLED:
            is_equal = entry.output == expected
            grade = EXACT if is_equal else grade if grade in (TIE, BUG) else DIFFERENT
        if grade and entry.drafter_name != PLAIN:
            found.append((entry, grade))
    return found


def count_grades(stats: Iterable[Entry]) -> dict[str, int]:
    """How many outputs got each grade."""
    counts = Counter(grade for _, grade in graded_outputs(stats))
    return {grade: counts[grade] for grade in (EXACT, TIE, BUG, DIFFERENT, SAMPLED)}


def losslessness_line(stats: Iterable[Entry]) -> str:
    """Whether the drafters' outputs equal plain decoding's, in words; "" where nothing is known."""
    graded = graded_outputs(stats)
    found = [(entry, grade) for entry, grade in graded if grade != SAMPLED]
    if not found:
        return f"Sampled outputs, not compared with plain decoding: {len(graded)}." if graded else ""
    others = [(entry, grade) for entry, grade in found if grade != EXACT]
    if not others:
        return "Every output equals plain decoding."
    parts = []
    for grade, text in _WORDS.items():
        questions = sorted({entry.question_id for entry, one in others if one == grade})
        if questions:
            number = sum(one == grade for _, one in others)
            parts.append(f"{number} {text} (questions {', '.join(map(str, questions))})")
    return f"Careful: {len(others)} of {len(found)} outputs differ from plain decoding: {'; '.join(parts)}."
