"""Repetition: telling an output that has fallen into a loop, which any drafter copies with ease.

About token ids alone; used for the flag beside every acceptance rate, and to keep loops out of training.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

LONGEST_PERIOD = 512


def is_repetitive(tokens: Sequence[int]) -> bool:
    """Whether more than half of the tokens repeat what stood one fixed distance before (an endless loop).

    That is an n-gram, repeated at least twice, that covers more than half of the text; a number that counts on
    inside of it does not hide it.

    >>> is_repetitive([1, 2, 3] * 10), is_repetitive(list(range(30)))
    (True, False)
    """
    array = np.asarray(tokens)
    longest = min(LONGEST_PERIOD, len(array) // 3)
    return any(2 * np.count_nonzero(array[p:] == array[:-p]) > len(array) for p in range(1, longest + 1))
