"""Paper: rankings as tables for LaTeX (with booktabs and graphicx) or for a page (Markdown): one a ranking, or one of
all data sets side by side.

`tables.py` makes those for terminals and programs.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from specdec.errors import UserError
from specdec.ranking.statistics import LEVEL
from specdec.ranking.table import QUANTITIES, Row, Table
from specdec.views.captions import accounting_note, engine_note, ranking_note
from specdec.views.palette import label_of

_INTERVAL = f" ({LEVEL:.0%} interval)"
COLUMNS = {  # quantity -> head of its column; those with an interval show it
    "speedup_mean": f"speedup, mean{_INTERVAL}",
    "speedup_ratio": f"speedup, ratio of sums{_INTERVAL}",
    "acceptance_rate": "acceptance rate",
    "acceptance_len": "tokens per round, bonus included",
    "passes_per_round": "passes per round",
    "ceiling_share": "share of the ceiling",
}
_SHORT = {  # the same where there is little room; the caption has the rest
    "speedup_mean": "speedup",
    "speedup_ratio": "of sums",
    "acceptance_rate": "accepted",
    "acceptance_len": "tokens",
    "passes_per_round": "passes",
    "ceiling_share": "of ceiling",
}
_LONG = {  # quantity -> what the caption says of its short head
    "speedup_mean": "speedup: mean of the questions'",
    "speedup_ratio": "of sums: ratio of the sums",
    "acceptance_rate": "accepted: of the drafted tokens",
    "acceptance_len": "tokens: per round, bonus included",
    "passes_per_round": "passes: of the drafter per round",
    "ceiling_share": "of ceiling: share of the best possible",
}
_EQUALS = "the first, and what is not shown to be behind it (paired bootstrap, Holm)"
_LATEX = {
    "\\": r"\textbackslash{}",
    **{character: "\\" + character for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "×": r"$\times$",
    "τ": r"$\tau$",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
}


@dataclass(frozen=True)
class Cell:
    """A number as text, with its interval, if that is shown. `is_best`: of its column, or not shown to be behind it."""

    text: str = "-"
    interval: str = ""
    is_best: bool = False


@dataclass(frozen=True)
class Sheet:
    """A table as text: every group of columns is one ranking's, `quantities` are the columns of each."""

    groups: list[str]
    quantities: list[str]
    rows: list[tuple[str, list[Cell]]]
    caption: str
    has_level: bool

    @property
    def label(self) -> str:
        """What LaTeX calls it. Example: of gsm8k and MATH "tab:gsm8k-math"."""
        words = (re.sub(r"[^a-z0-9]+", "-", group.lower()).strip("-") for group in self.groups)
        return f"tab:{'-'.join(word or 'ranking' for word in words)}"


def sheet(tables: Sequence[Table], columns: Sequence[str] = ()) -> Sheet:
    """Rankings side by side, a row per drafter in the order of the first that has it. `columns`: which quantities
    (default: of one ranking all that are known, of several the mean speedup). UserError where nothing is known."""
    wanted = columns or (tuple(COLUMNS) if len(tables) == 1 else ("speedup_mean",))
    known = [name for name in wanted if any(row.has(name) for table in tables for row in table.rows)]
    if not known:
        raise UserError(f"of {', '.join(wanted)} nothing is known here: choose other --columns")
    names = dict.fromkeys((row.drafter_name, row.own_label) for table in tables for row in table.rows)
    rows = []
    for name, own in names:
        mine = [_row_of(table, name, own) for table in tables]
        rows.append((own or label_of(name), [_cell(row, quantity) for row in mine for quantity in known]))
    level = any(row.standing for table in tables for row in table.rows)
    return Sheet([table.title for table in tables], known, rows, caption(tables), level)


def _row_of(table: Table, name: str, own: str) -> Row | None:
    return next((row for row in table.rows if (row.drafter_name, row.own_label) == (name, own)), None)


def _cell(row: Row | None, name: str) -> Cell:
    value = None if row is None else row.values.get(name)
    if row is None or value is None:
        return Cell()
    is_best = name == "speedup_mean" and bool(row.may_be_best)
    text = QUANTITIES[name].text(value).replace("x", "×")
    if value.low is None or value.high is None or _INTERVAL not in COLUMNS[name]:
        return Cell(text, "", is_best)
    return Cell(text, f"{max(value.low, 0.0):.2f} to {value.high:.2f}", is_best)


def caption(tables: Sequence[Table]) -> str:
    """What the table holds, in words."""
    titles = ", ".join(table.title for table in tables)
    parts = titles, engine_note(tables[0].engine), ranking_note(tables), accounting_note(tables)
    return "; ".join(filter(None, parts))


def markdown(*tables: Table, columns: Sequence[str] = ()) -> str:
    """A Markdown table of one ranking, or of several side by side, and its caption. Raises UserError as `sheet`."""
    made = sheet(tables, columns)
    prefixes = [f"{group}, " if len(tables) > 1 else "" for group in made.groups]
    head = ["drafter", *(prefix + COLUMNS[name] for prefix in prefixes for name in made.quantities)]
    rows = []
    for name, cells in made.rows:
        is_marked = len(tables) == 1 and any(cell.is_best for cell in cells)
        rows.append([name + " *" * is_marked, *(_markdown_cell(cell, len(tables) > 1) for cell in cells)])
    lines = [[cell.replace("|", "\\|") for cell in line] for line in (head, *rows)]
    lines.insert(1, ["---", *["---:"] * (len(head) - 1)])
    mark = "bold" if len(tables) > 1 else "*"
    note = f"{made.caption}; {mark} {_EQUALS}" if made.has_level else made.caption
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + f"\n\n{note}\n"


def _markdown_cell(cell: Cell, is_bold: bool) -> str:
    text = f"**{cell.text}**" if cell.is_best and is_bold else cell.text
    return f"{text} ({cell.interval})" if cell.interval else text


def latex(*tables: Table, columns: Sequence[str] = ()) -> str:
    """The same as a LaTeX table environment, never wider than its column; needs booktabs and graphicx."""
    made = sheet(tables, columns)
    many = len(made.quantities)
    short = (_SHORT[name] for _ in made.groups for name in made.quantities)
    heads = [_line(map(escaped, ["drafter", *short]))]
    if len(tables) > 1 and many > 1:
        spans = [rf"\multicolumn{{{many}}}{{c}}{{{escaped(group)}}}" for group in made.groups]
        begins = [2 + many * at for at in range(len(spans))]
        rules = [rf"\cmidrule(lr){{{begin}-{begin + many - 1}}}" for begin in begins]
        heads = [_line(["", *spans]), "".join(rules), *heads]
    elif len(tables) > 1:
        heads = [_line(map(escaped, ["drafter", *made.groups]))]
    rows = [_line([escaped(name), *map(_latex_cell, cells)]) for name, cells in made.rows]
    words = [made.caption, *(_LONG[name] for name in made.quantities)]
    has_any = any(cell.interval for _, cells in made.rows for cell in cells)
    words += [f"in brackets: {LEVEL:.0%} intervals"] if has_any else []
    words += [f"bold: {_EQUALS}"] if made.has_level else []
    lines = [r"\begin{table}", r"\centering", rf"\caption{{{escaped('; '.join(words))}}}", rf"\label{{{made.label}}}"]
    lines += [r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"]
    lines += [rf"\begin{{tabular}}{{l{'r' * (many * len(made.groups))}}}", r"\toprule", *heads, r"\midrule", *rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}}", r"\end{table}"]) + "\n"


def _line(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"


def _latex_cell(cell: Cell) -> str:
    text = rf"\textbf{{{escaped(cell.text)}}}" if cell.is_best else escaped(cell.text)
    return rf"{text} {{\scriptsize ({cell.interval})}}" if cell.interval else text


def escaped(text: str) -> str:
    """Text for LaTeX. Example: `escaped("50%") == r"50\\%"`."""
    parts = text.split("N_max")
    return r"$N_{\max}$".join("".join(_LATEX.get(character, character) for character in part) for part in parts)
