"""How much of a text repeats itself: endless repetition is easy to draft, and so flatters every drafter.

It looks at token ids alone and judges no content.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

LONGEST_PERIOD = 100  # tokens
MOSTLY = 0.5  # an answer with a larger repeated_share is called degenerate


def repeated_share(tokens: Sequence[int]) -> float:
    """The largest share of the tokens (0..1) that repeat what stood one fixed distance before.

    >>> repeated_share([1, 2, 3] * 10), repeated_share(list(range(30)))
    (0.9, 0.0)
    """
    array = np.asarray(tokens)
    longest = min(LONGEST_PERIOD, len(array) // 3)
    counts = [np.count_nonzero(array[p:] == array[:-p]) for p in range(1, longest + 1)]
    return float(max(counts, default=0) / max(1, len(array)))


def is_degenerate(tokens: Sequence[int]) -> bool:
    """Whether most of the tokens are such repetitions.

    >>> is_degenerate([1, 2, 3] * 10)
    True
    """
    return repeated_share(tokens) > MOSTLY
