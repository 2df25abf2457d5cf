"""Card: what a checkpoint's README.md says in its front matter of its data and of the model it was made from or for.

Text alone, bounded, for people to read: nothing is decided by it, and nothing of it is carried out. Not a reader of
YAML: of the two keys it takes a word, a list in brackets, or a list of lines.
"""

import re
from pathlib import Path

from specdec.text import named

NAME = "README.md"
KEYS = ("datasets", "base_model")
MAX_READ = 2**16  # characters of the file
MAX_TEXT = 200  # columns of what is kept of a key
_FENCE = "---"
_NOTHING = ("", "~", "null")


def read_card(folder: Path) -> dict[str, str | None]:
    """By key of KEYS, what the folder's card says, as one line; None: nothing, or there is no card.

    Example: "base_model: [a/b, 'c']" gives {"datasets": None, "base_model": "a/b, c"}.
    """
    lines = _front_matter(folder / NAME)
    return {key: _value(lines, key) for key in KEYS}


def _front_matter(file: Path) -> list[str]:
    """The lines between the first two fences; none where the file does not begin with one, or is not readable."""
    try:
        if not file.is_file():
            return []
        with file.open(encoding="utf-8", errors="replace") as stream:
            first, *lines = stream.read(MAX_READ).lstrip("\ufeff").split("\n")
    except OSError:
        return []
    ends = [index for index, line in enumerate(lines) if line.rstrip() == _FENCE]
    return lines[: ends[0]] if first.rstrip() == _FENCE and ends else []


def _value(lines: list[str], key: str) -> str | None:
    found = [index for index, line in enumerate(lines) if re.match(rf"{key}\s*:(\s|$)", line)]
    if not found:
        return None
    own = _bare(lines[found[0]].partition(":")[2])
    inline = own[1:].removesuffix("]").split(",") if own.startswith("[") else [own]
    parts = inline if own else _items(lines[found[0] + 1 :])
    words = [word for part in parts if (word := _bare(part)) not in _NOTHING]
    return named(", ".join(words), MAX_TEXT) or None


def _items(lines: list[str]) -> list[str]:
    """The words of the list that begins here: "- a", "- b"."""
    items = []
    for line in lines:
        item = re.match(r"\s*-\s+(.*)", line)
        if item is None and _bare(line):
            break
        items += [item[1]] if item else []
    return items


def _bare(text: str) -> str:
    """Without a comment, quotes and white space around it."""
    return re.sub(r"(^|\s)#.*", "", text).strip().strip("'\"").strip()
