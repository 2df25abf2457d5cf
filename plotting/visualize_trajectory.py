"""Figure: one answer, token by token: what each round drafted, what of it was accepted, and what the target put in the
place of the first rejected token.

    python -m plotting.visualize_trajectory results/pickles/bundled/gsm8k/0/ar_None_sf_8/256.pickle --out answer.pdf
"""

import unicodedata
from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from plotting import fit, style
from plotting.cli import DRAFTS, Command
from plotting.inputs import read_drafts
from specdec.errors import UserError
from specdec.models.token_text import find_tokenizer, read_token_bytes
from specdec.records.record import Record
from specdec.views import palette
from specdec.views.palette import label_of
from specdec.views.terminal import ACCEPTED, BONUS, CORRECTION, REJECTED
from specdec.views.trajectory import BYTES, Piece, Reader, Step, trajectory

COLUMNS, MAX_LINES = 96, 40
LINE = 0.235  # inches
FONT, FONT_SIZE = "DejaVu Sans Mono", 8.2
GROUNDS = {  # of a fate: colour, how strong, in words
    ACCEPTED: (palette.BLUE, 0.4, "accepted (deeper: surer)"),
    REJECTED: (palette.ORANGE, 0.3, "rejected, struck through"),
    CORRECTION: (palette.BLACK, 1.0, "the target's correction"),
    BONUS: (palette.SKY, 0.35, "bonus"),
}
GLYPHS = {"\n": "↵", "\t": "⇥"}


@dataclass(frozen=True)
class Cell:
    """A piece of text in its place, in characters. `opens`: the round that it is the first piece of."""

    line: int
    column: int
    width: int
    text: str
    fate: str
    confidence: float | None
    opens: int | None


@style.styled
def figure(record: Record, steps: Sequence[Step], first_round: int = 0) -> Figure:
    """As many rounds from `first_round` on as fit. UserError if there is no such round."""
    if not 0 <= first_round < len(steps):
        raise UserError(f"there is no round {first_round}: the record has {len(steps)}, from 0")
    cells = layout(steps, first_round, columns())
    num_lines, last_round = cells[-1].line + 1, max(cell.opens for cell in cells if cell.opens is not None)
    drawn, grid = style.panels(1, 1, 1.0 + LINE * num_lines)
    axes = grid[0][0]
    axes.set_xlim(0, columns())
    axes.set_ylim(num_lines - 0.3, -0.7)
    axes.axis("off")
    for cell in cells:
        draw(axes, cell)
    axes.set_title(f"{label_of(record.drafter_name)}; {record.identity.dataset}, question {record.question_id}")
    fates_drawn = {cell.fate for cell in cells}
    grounds = [ground for fate, ground in GROUNDS.items() if fate in fates_drawn]
    style.legend(drawn, {words: Patch(facecolor=(colour, strength)) for colour, strength, words in grounds})
    more = "" if last_round == len(steps) - 1 else f"; --first_round {last_round + 1} goes on"
    whole = f"rounds {first_round} to {last_round} (of {len(steps)}, from 0)"
    style.note(drawn, f"{whole}; small numbers stand where they begin, if there is room{more}")
    return drawn


def columns() -> int:
    """How many characters a line of the page has."""
    return int(COLUMNS * (style.page().width or style.WIDTH) / style.WIDTH)


def layout(steps: Sequence[Step], first_round: int, width: int = COLUMNS) -> list[Cell]:
    """The pieces in lines of `width` characters; whole rounds, until MAX_LINES are full (but one round at least)."""
    placed: list[Cell] = []
    line = column = 0
    for number in range(first_round, len(steps)):
        begin = len(placed)
        opens: int | None = number
        for piece, fate, confidence in fates(steps[number]):
            for text in _parts(shown(piece), width):
                taken = cells_of(text)
                if column + taken > width:
                    line, column = line + 1, 0
                placed.append(Cell(line, column, taken, text, fate, confidence, opens))
                column, opens = column + taken, None
            if "\n" in piece.text and fate != REJECTED:
                line, column = line + 1, 0
        if begin and line >= MAX_LINES:
            return placed[:begin]
    return placed


def fates(step: Step) -> Iterator[tuple[Piece, str, float | None]]:
    """Each piece of a round, what became of it, and how sure the drafter was of it."""
    drafted = [*((piece, ACCEPTED) for piece in step.accepted), *((piece, REJECTED) for piece in step.rejected)]
    for (piece, fate), confidence in zip(drafted, step.confidences, strict=True):
        yield piece, fate, confidence
    if step.own is not None:
        yield step.own, CORRECTION if step.is_correction else BONUS, None


def shown(piece: Piece) -> str:
    """Its text in characters that the font has: line breaks by a sign, others missing by a box."""
    text = f"<{piece.text}>" if piece.kind == BYTES else piece.text
    return "".join(character if _has_glyph(character) else "□" for character in (GLYPHS.get(c, c) for c in text))


def cells_of(text: str) -> int:
    """How many characters wide it is set. Example: `cells_of("ab") == 2`; East Asian ones take two."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def draw(axes: Axes, cell: Cell) -> None:
    """The text on its ground: blue as deep as the drafter was sure, orange and struck through, black, light blue."""
    top, middle = cell.line - 0.4, cell.line + 0.08
    colour, strength, _ = GROUNDS[cell.fate]
    if cell.fate == ACCEPTED:
        strength = 0.08 + 0.37 * (1.0 if cell.confidence is None else cell.confidence)
    ground: dict[str, Any] = {"facecolor": (colour, strength), "linewidth": 0, "gid": cell.fate, "label": cell.text}
    axes.add_patch(Rectangle((cell.column, top), cell.width, 0.9, **ground))
    colour = {CORRECTION: "white", REJECTED: "#7A2E00"}.get(cell.fate, "black")
    axes.text(cell.column, middle, cell.text, family=FONT, fontsize=FONT_SIZE, color=colour, va="center")
    if cell.fate == REJECTED:
        axes.plot([cell.column, cell.column + cell.width], [middle, middle], color="#7A2E00", linewidth=0.7)
    if cell.opens is not None:
        axes.plot([cell.column, cell.column], [top - 0.2, top + 0.9], color=palette.VERMILLION, linewidth=0.8)
        number: dict[str, Any] = {"fontsize": 5, "va": "center", "color": palette.VERMILLION, "gid": fit.NAME}
        axes.text(cell.column + 0.25, middle - 0.5, f"{cell.opens}", **number)


@cache
def _has_glyph(character: str) -> bool:
    return font_manager.get_font(font_manager.findfont(FONT)).get_char_index(ord(character)) != 0


def _parts(text: str, width: int) -> Iterator[str]:
    """The text in parts that fit a line."""
    size = width // 2  # even if every character takes two places
    yield from (text[begin : begin + size] for begin in range(0, len(text), size))


def read_trajectory(options: Namespace) -> tuple[Record, list[Step]]:
    """The one record asked for, and its rounds as text. Raises UserError."""
    records = read_drafts(options)
    if len(records) != 1:
        raise UserError(f"{len(records)} records: choose one by --drafters and --question_ids")
    (record,), target = records, records[0].identity.target
    tokenizer = options.tokenizer or find_tokenizer(target)
    if tokenizer is None:
        raise UserError(f"the tokenizer of {target} is not here: give the target's folder by --tokenizer")
    return record, trajectory(record, Reader(read_token_bytes(tokenizer)))


def build(options: Namespace) -> Figure:
    return figure(*read_trajectory(options), options.first_round)


main = Command("visualize_trajectory", __doc__, build, (*DRAFTS, "tokenizer", "first_round"))

if __name__ == "__main__":
    raise SystemExit(main())
