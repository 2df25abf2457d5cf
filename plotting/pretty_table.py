"""Table: a ranking for a paper (LaTeX with booktabs) or a page (Markdown); no figure.

python -m plotting.pretty_table results --out table.tex
python -m plotting.pretty_table ranking.json --reference paper.json --out table.md
"""

from collections.abc import Sequence

from plotting import cli
from specdec.commands.flags import status_as
from specdec.views.paper import latex, markdown

FORMATS = (".tex", ".md")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 2 a mistake of the user's."""

    def work() -> None:
        options = cli.parse("pretty_table", __doc__, cli.RANKINGS, arguments)
        cli.check_format(options.out, FORMATS)
        make = latex if options.out.suffix == ".tex" else markdown
        tables = [make(table) for table in (*cli.tables(options), *cli.references(options)) if table.rows]
        cli.write(options.out, "\n".join(tables).encode())

    return status_as("plotting.pretty_table", work)


if __name__ == "__main__":
    raise SystemExit(main())
