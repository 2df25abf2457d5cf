"""Table: a ranking for a paper (LaTeX with booktabs) or a page (Markdown); no figure.

python -m plotting.pretty_table results --out table.tex
python -m plotting.pretty_table ranking.json --reference paper.json --out table.md
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from plotting import cli
from plotting.points import Point
from plotting.settings import Ranking, Setting, engine_note
from plotting.style import label_of, ranking_note
from specdec.errors import exit_status

FORMATS = (".tex", ".md")
Show = Callable[[Point], str]


def _times(point: Point) -> str:
    return f"{point.value:.2f}×" + ("" if point.low is None else f" ({point.low:.2f} to {point.high:.2f})")


# Quantity -> head of its column, how a value is shown.
COLUMNS: dict[str, tuple[str, Show]] = {
    "speedup_mean": ("speedup, mean (95% interval)", _times),
    "speedup_ratio": ("speedup, ratio of sums (95% interval)", _times),
    "acceptance_rate": ("acceptance rate", lambda point: f"{point.value:.1%}"),
    "acceptance_len": ("tokens per round, bonus included", lambda point: f"{point.value:.2f}"),
    "passes_per_round": ("passes per round", lambda point: f"{point.value:.2f}"),
    "ceiling_share": ("share of the ceiling", lambda point: f"{point.value:.1%}"),
}
_LATEX = {
    "\\": r"\textbackslash{}",
    **{character: "\\" + character for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "×": r"$\times$",
    "τ": r"$\tau$",
}


def cells(ranking: Ranking) -> list[list[str]]:
    """Head and rows, as text; columns of which nothing is known are left out. The best and what is level with it end
    with a mark."""
    known = [name for name in COLUMNS if any(one.has(name) for one in ranking.settings)]
    head = ["drafter", *(COLUMNS[name][0] for name in known)]
    return [head, *(_row(setting, known) for setting in ranking.settings)]


def _row(setting: Setting, known: Sequence[str]) -> list[str]:
    mark = " *" if setting.is_level else ""
    values = [COLUMNS[name][1](setting.points[name]) if setting.has(name) else "-" for name in known]
    return [(setting.own_label or label_of(setting.drafter_name)) + mark, *values]


def caption(ranking: Ranking) -> str:
    """What the table holds, in words."""
    text = f"{ranking.title}; {engine_note(ranking.engine)}; {ranking_note([ranking])}"
    level = any(setting.is_level is not None for setting in ranking.settings)
    return text + ("; * the best, and what cannot be distinguished from it (paired bootstrap, Holm)" if level else "")


def markdown(ranking: Ranking) -> str:
    """A Markdown table and its caption."""
    head, *rows = [[cell.replace("|", "\\|") for cell in row] for row in cells(ranking)]
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + f"\n\n{caption(ranking)}\n"


def latex(ranking: Ranking) -> str:
    """A LaTeX table environment; needs the booktabs package."""
    head, *rows = [" & ".join(map(escaped, row)) + r" \\" for row in cells(ranking)]
    columns = "l" + "r" * (len(cells(ranking)[0]) - 1)
    lines = [r"\begin{table}", r"\centering", rf"\begin{{tabular}}{{{columns}}}", r"\toprule", head, r"\midrule", *rows]
    lines += [r"\bottomrule", r"\end{tabular}", rf"\caption{{{escaped(caption(ranking))}}}", r"\end{table}"]
    return "\n".join(lines) + "\n"


def escaped(text: str) -> str:
    """Text for LaTeX. Example: `escaped("50%") == r"50\\%"`."""
    return "".join(_LATEX.get(character, character) for character in text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 2 a mistake of the user's."""

    def work() -> None:
        options = cli.parse("pretty_table", __doc__, cli.RANKING_FLAGS, arguments)
        cli.check_format(options.out, FORMATS)
        make = latex if options.out.suffix == ".tex" else markdown
        tables = [make(ranking) for ranking in (*cli.rankings(options), *cli.references(options)) if ranking.settings]
        cli.write(options.out, "\n".join(tables).encode())

    return exit_status("plotting.pretty_table", work)


if __name__ == "__main__":
    sys.exit(main())
