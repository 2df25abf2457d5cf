"""Paper: a table for LaTeX (with booktabs) or for a page (Markdown).

`tables.py` makes those for terminals and programs.
"""

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
_LATEX = {
    "\\": r"\textbackslash{}",
    **{character: "\\" + character for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "×": r"$\times$",
    "τ": r"$\tau$",
}


def cells(table: Table) -> list[list[str]]:
    """Head and rows as text; columns of which nothing is known are left out. The best and its equals have a mark."""
    known = [name for name in COLUMNS if any(row.has(name) for row in table.rows)]
    names = [(row.own_label or label_of(row.drafter_name)) + " *" * bool(row.may_be_best) for row in table.rows]
    rows = [[name, *(_cell(row, one) for one in known)] for name, row in zip(names, table.rows, strict=True)]
    return [["drafter", *(COLUMNS[name] for name in known)], *rows]


def _cell(row: Row, name: str) -> str:
    value = row.values.get(name)
    text = QUANTITIES[name].text(value).replace("x", "×")
    if value is None or value.low is None or _INTERVAL not in COLUMNS[name]:
        return text
    return f"{text} ({max(value.low, 0.0):.2f} to {value.high:.2f})"


def caption(table: Table) -> str:
    """What the table holds, in words."""
    parts = table.title, engine_note(table.engine), ranking_note([table]), accounting_note([table])
    text = "; ".join(filter(None, parts))
    level = any(row.standing for row in table.rows)
    return text + ("; * the first, and what is not shown to be behind it (paired bootstrap, Holm)" if level else "")


def markdown(table: Table) -> str:
    """A Markdown table and its caption."""
    head, *rows = [[cell.replace("|", "\\|") for cell in row] for row in cells(table)]
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + f"\n\n{caption(table)}\n"


def latex(table: Table) -> str:
    """A LaTeX table environment; needs the booktabs package."""
    head, *rows = [" & ".join(map(escaped, row)) + r" \\" for row in cells(table)]
    columns = "l" + "r" * (len(cells(table)[0]) - 1)
    lines = [r"\begin{table}", r"\centering", rf"\begin{{tabular}}{{{columns}}}", r"\toprule", head, r"\midrule", *rows]
    lines += [r"\bottomrule", r"\end{tabular}", rf"\caption{{{escaped(caption(table))}}}", r"\end{table}"]
    return "\n".join(lines) + "\n"


def escaped(text: str) -> str:
    """Text for LaTeX. Example: `escaped("50%") == r"50\\%"`."""
    return "".join(_LATEX.get(character, character) for character in text)
