"""Table: a ranking for a paper (LaTeX with booktabs and graphicx) or a page (Markdown); no figure.

python -m plotting.pretty_table results --out table.tex
python -m plotting.pretty_table results --layout datasets --columns speedup_mean acceptance_len --out table.tex
python -m plotting.pretty_table ranking.json --reference paper.json --out table.md
"""

from collections.abc import Sequence

from plotting import cli
from specdec.commands.flags import status_as
from specdec.views.paper import COLUMNS, latex, markdown

FORMATS = (".tex", ".md")
RANKINGS, DATASETS = "rankings", "datasets"


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 2 a mistake of the user's."""

    def work() -> None:
        parser = cli.parser("pretty_table", __doc__, cli.RANKINGS, FORMATS)
        layout = "a table per ranking, or one with the data sets as columns (default: %(default)s)"
        parser.add_argument("--layout", choices=(RANKINGS, DATASETS), default=RANKINGS, help=layout)
        which = "these alone, in this order (default: of one ranking all that are known, of data sets speedup_mean)"
        parser.add_argument("--columns", nargs="+", choices=tuple(COLUMNS), default=(), metavar="NAME", help=which)
        options = parser.parse_args(arguments)
        cli.check_format("--out", options.out, FORMATS)
        make = latex if options.out.suffix == ".tex" else markdown
        tables = [table for table in (*cli.tables(options), *cli.references(options)) if table.rows]
        groups = [tables] if options.layout == DATASETS else [[table] for table in tables]
        cli.write(options.out, "\n".join(make(*group, columns=options.columns) for group in groups).encode())
        print(options.out)

    return status_as("plotting.pretty_table", work)


if __name__ == "__main__":
    raise SystemExit(main())
