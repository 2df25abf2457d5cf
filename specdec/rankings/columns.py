"""Columns: rows of text, aligned."""

from __future__ import annotations

from collections.abc import Sequence


def aligned(cells: Sequence[Sequence[str]], num_left: int = 1, *, is_ruled: bool = True) -> list[str]:
    """One line per row, the first (titles) ruled off; the first `num_left` columns to the left, the rest to the right.

    >>> aligned([["a", "b"], ["x", "10"]], is_ruled=False)
    ['a   b', 'x  10']
    """
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(
            text.ljust(width) if index < num_left else text.rjust(width)
            for index, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
    return [lines[0], "  ".join("-" * width for width in widths), *lines[1:]] if is_ruled else lines
