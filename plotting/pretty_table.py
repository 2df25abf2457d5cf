"""Table: a ranking for a paper (LaTeX with booktabs and graphicx) or a page (Markdown); no figure.

python -m plotting.pretty_table results --out table.tex
python -m plotting.pretty_table results --layout datasets --columns speedup_mean acceptance_len --out table.tex
python -m plotting.pretty_table ranking.json --reference paper.json --out table.md
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from plotting import cli
from specdec.commands.flags import status_as
from specdec.drafters.flags import positive_int
from specdec.ranking.table import Table
from specdec.views.paper import COLUMNS, latex, markdown

FORMATS = (".tex", ".md")
PAGE_ROWS = 45  # of a table with its caption, on a page of text
RANKINGS, DATASETS = "rankings", "datasets"


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 2 a mistake of the user's."""

    def work() -> None:
        parser = cli.parser("pretty_table", __doc__, cli.RANKINGS, FORMATS)
        layout = "a table per ranking, or one with the data sets as columns (default: %(default)s)"
        parser.add_argument("--layout", choices=(RANKINGS, DATASETS), default=RANKINGS, help=layout)
        which = "these alone, in this order (default: of one ranking all that are known, of data sets speedup_mean)"
        parser.add_argument("--columns", nargs="+", choices=tuple(COLUMNS), default=(), metavar="NAME", help=which)
        parser.add_argument("--top", type=positive_int, metavar="N", help="the first N rows of each ranking")
        options = parser.parse_args(arguments)
        cli.check_format("--out", options.out, FORMATS)
        make = latex if options.out.suffix == ".tex" else markdown
        tables = [table for table in (*cli.tables(options), *cli.references(options)) if table.rows]
        tables = [replace(table, rows=table.rows[: options.top]) for table in tables]
        groups = [tables] if options.layout == DATASETS else [[table] for table in tables]
        cli.write(options.out, "\n".join(make(*group, columns=options.columns) for group in groups).encode())
        print(options.out)
        if options.out.suffix == ".tex":
            print("".join(too_long(options.out, group) for group in groups), end="", file=sys.stderr)

    return status_as("plotting.pretty_table", work)


def too_long(out: Path, tables: Sequence[Table]) -> str:
    """The line for a LaTeX table of these rankings that no page holds; "" where one does."""
    count = len({(row.drafter_name, row.own_label) for table in tables for row in table.rows})
    advice = "give --top N, or --drafters NAME ..."
    return f"{out}: a table of {count} rows is longer than a page: {advice}\n" if count > PAGE_ROWS else ""


if __name__ == "__main__":
    raise SystemExit(main())
