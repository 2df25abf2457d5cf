"""Figure: what another drafter pass buys, for a narrow column: `concavity_intuition` without the AR drafter.

python -m plotting.concavity_intuition_wrapped results --out concavity_wrapped.pdf
"""

from collections.abc import Sequence

from matplotlib.figure import Figure

from plotting import concavity_intuition
from plotting.cli import RANKINGS, Command, rankings
from specdec.ranking.table import Table

WIDTH = 3.4  # inches per column


def figure(tables: Sequence[Table], references: Sequence[Table] = ()) -> Figure:
    """A column per ranking. UserError where no threshold varies."""
    return concavity_intuition.figure(tables, references, has_ar=False, width=WIDTH * len(tables))


main = Command("concavity_intuition_wrapped", __doc__, figure, RANKINGS, rankings)

if __name__ == "__main__":
    raise SystemExit(main())
