"""References: whether an answer to a question of one's own agrees with its reference. Never asks a model.

The rule: where the answer has a box, the box counts. Else a reference that is a letter must be the letter stated, one
that is a number the answer's last number, and any other text must stand in the answer, whatever its case and blanks.
"""

import re

from specdec.questions.mathtext import is_same_answer, last_boxed

_NUMBER = re.compile(r"[-+]?\d+(?:,\d{3})*(?:\.\d+)?")
_STATED = re.compile(r"(?:answer|option|choice)(?:\s+is)?:?\s*\**\s*\(?([A-Z])\)?(?![A-Za-z])")
_ALONE = re.compile(r"\s*\**\(?([A-Z])\)?[.:]?\**\s*")


def agrees(answer: str, reference: str) -> bool:
    """Whether the answer is right.

    >>> agrees("It is 1,080 in all.", "1080"), agrees("So the answer is (B).", "B"), agrees("Paris, I think", "paris")
    (True, True, True)
    """
    boxed, reference = last_boxed(answer), reference.strip()
    if boxed is not None:
        return _words(boxed) == _words(reference) or is_same_answer(boxed, reference)
    if re.fullmatch("[A-Z]", reference):
        stated, alone = _STATED.findall(answer), _ALONE.fullmatch(answer)
        return (stated[-1] if stated else alone[1] if alone else None) == reference
    if _NUMBER.fullmatch(reference):
        numbers = _NUMBER.findall(answer)
        return bool(numbers) and float(numbers[-1].replace(",", "")) == float(reference.replace(",", ""))
    return re.search(rf"(?<!\w){re.escape(_words(reference))}(?!\w)", _words(answer)) is not None


def _words(text: str) -> str:
    return " ".join(text.split()).casefold()
