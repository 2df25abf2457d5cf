"""View: how much of a ranking is shown, in what form, and how wide. Which columns there are, say the tables.

Text is for a terminal and kept within its width; Markdown is for a page, which has room.
"""

import shutil
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TextIO

from specdec.config import OutputConfig
from specdec.text import MARKDOWN, TEXT, aligned

WIDTH = 100  # columns where no terminal says


@dataclass(frozen=True)
class View:
    """`wide`: all columns and all tables. `top`: so many rows of each; None: all. `width`: of a line, in columns."""

    wide: bool = False
    top: int | None = None
    format: str = TEXT
    width: int = WIDTH

    def wrapped(self, text: str) -> str:
        """Sentences as lines of this width, in text; what is one line stays one in Markdown and where all is shown."""
        if self.wide or self.format == MARKDOWN:
            return text
        fill = textwrap.TextWrapper(self.width, break_long_words=False, break_on_hyphens=False, drop_whitespace=True)
        return "\n".join("\n".join(fill.wrap(line)) for line in text.splitlines())

    def table(self, cells: Sequence[Sequence[str]], num_left: int = 1, *, is_ruled: bool = True) -> list[str]:
        """The lines of a table whose first row is its head; the first `num_left` columns stand to the left."""
        if self.format == TEXT:
            return aligned(cells, num_left, is_ruled=is_ruled)
        head, *rows = [[cell.replace("|", "\\|") for cell in row] for row in cells]
        rule = ["---" if index < num_left else "---:" for index in range(len(head))]
        # Markdown wants an empty line before and after a table.
        return ["", *(f"| {' | '.join(row)} |" for row in (head, rule, *rows)), ""]


ALL = View(wide=True)


def view_of(output: OutputConfig) -> View:
    """What the flags ask for, as wide as the terminal."""
    return View(output.wide, output.top, output.format, width_of(sys.stdout))


def width_of(stream: TextIO) -> int:
    """The columns of the terminal that a stream is, WIDTH at most; WIDTH where it is none."""
    return min(WIDTH, shutil.get_terminal_size((WIDTH, 24)).columns) if stream.isatty() else WIDTH
