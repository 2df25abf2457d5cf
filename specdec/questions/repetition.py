"""How much of a text repeats itself: endless repetition is easy to draft, and so flatters every drafter.

It looks at token ids alone and judges no content.
"""

from collections.abc import Sequence

import numpy as np

LONGEST_PERIOD = 100  # tokens
MOSTLY = 0.5  # an answer with a larger repeated_share is called degenerate


def repeated_share(tokens: Sequence[int]) -> float:
    """The largest share of the tokens (0..1) that repeat what stood one fixed distance before.

    >>> repeated_share([1, 2, 3] * 10), repeated_share(list(range(30)))
    (0.9, 0.0)
    """
    return repeated_shares([tokens])[0]


def repeated_shares(texts: Sequence[Sequence[int]]) -> list[float]:
    """`repeated_share` of every text; many are far faster together than one by one.

    >>> repeated_shares([[1, 2, 3] * 10, [], [4, 4, 4, 4]])
    [0.9, 0.0, 0.75]
    """
    lengths = np.array([len(text) for text in texts], dtype=np.int64)
    shares = np.zeros(len(texts))
    for length in np.unique(lengths):
        numbers = np.flatnonzero(lengths == length)
        rows = np.array([texts[n] for n in numbers.tolist()])
        most = np.zeros(len(rows), dtype=np.int64)
        for period in range(1, min(LONGEST_PERIOD, length // 3) + 1):
            np.maximum(most, np.count_nonzero(rows[:, period:] == rows[:, :-period], axis=1), out=most)
        shares[numbers] = most / max(1, length)
    return shares.tolist()


def is_degenerate(tokens: Sequence[int]) -> bool:
    """Whether most of the tokens are such repetitions.

    >>> is_degenerate([1, 2, 3] * 10)
    True
    """
    return repeated_share(tokens) > MOSTLY
