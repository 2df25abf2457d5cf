"""Columns: rows of text, aligned."""

from collections.abc import Iterable, Sequence
from unicodedata import combining, east_asian_width

TEXT, MARKDOWN = "text", "markdown"  # what a table is written for: a terminal, or a page


def aligned(cells: Sequence[Sequence[str]], num_left: int = 1, *, is_ruled: bool = True) -> list[str]:
    """One line per row, the first (titles) ruled off; the first `num_left` columns to the left, the rest to the right.

    >>> aligned([["a", "b"], ["x", "10"]], is_ruled=False)
    ['a   b', 'x  10']
    """
    widths = [max(map(columns, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(
            text + _pad(text, width) if index < num_left else _pad(text, width) + text
            for index, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
    return [lines[0], "  ".join("-" * width for width in widths), *lines[1:]] if is_ruled else lines


def _pad(text: str, width: int) -> str:
    return " " * (width - columns(text))


def columns(text: str) -> int:
    """The columns that a text takes on a terminal: Chinese, Japanese and Korean characters take two, accents none.

    >>> columns("AR"), columns("\u540d\u524d")
    (2, 4)
    """
    if text.isascii():
        return len(text)
    return sum(2 if east_asian_width(one) in "WF" else 0 if combining(one) else 1 for one in text)


def cut(text: str, room: int) -> str:
    """`text` in at most `room` columns; "~" at the end of what is cut. `cut("abcdef", 4) == "abc~"`."""
    if columns(text) <= room:
        return text
    while text and columns(text) > room - 1:
        text = text[:-1]
    return text + "~"


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


def named(value: object, room: int = 200) -> str:
    """What a document calls something, for people: one line of at most `room` columns, whatever it holds."""
    return cut(visible(str(value)[: 4 * room]), room)


def ranges(numbers: Iterable[int]) -> str:
    """`ranges([4, 1, 2, 3, 9]) == "1-4,9"`."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in parts)


def count_text(number: float) -> str:
    """A count of parameters. `count_text(1.54e9) == "1.54 B"`."""
    return f"{number / 1e9:.2f} B" if number >= 1e9 else f"{number / 1e6:.1f} M"


def size_text(num_bytes: float) -> str:
    """`size_text(3 * 2**30) == "3.0 GiB"`."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if num_bytes < 1024 or unit == "GiB":
            break
        num_bytes /= 1024
    return f"{num_bytes:.0f} {unit}" if unit == "bytes" else f"{num_bytes:.1f} {unit}"
