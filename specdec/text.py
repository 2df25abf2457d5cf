"""Columns: rows of text, aligned."""

from collections.abc import Iterable, Sequence

TEXT, MARKDOWN = "text", "markdown"  # what a table is written for: a terminal, or a page


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


def quote_text(text: str) -> list[str]:
    """Text for a log: every line starts with "| ", so none can be taken for a line of the program.

    Only "\\n" starts a new line; any other character that does not print (carriage returns, escapes, the line
    separators of Unicode) is spelled out. `quote_text("a\\rb\\nc") == ["| a\\\\rb", "| c"]`.
    """
    return ["| " + visible(line) for line in text.split("\n")]


def visible(text: str, keep: str = "") -> str:
    """`text` on one line: what does not print, but for the characters of `keep`, is spelled as in a Python string."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode("ascii") for c in text)


def ranges(numbers: Iterable[int]) -> str:
    """`ranges([4, 1, 2, 3, 9]) == "1-4,9"`."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in parts)
