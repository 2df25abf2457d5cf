"""Figure: what another drafter pass buys, for a narrow column: `concavity_intuition` without the AR drafter.

python -m plotting.concavity_intuition_wrapped results --out concavity_wrapped.pdf
"""

from functools import partial

from plotting import concavity_intuition
from plotting.cli import RANKINGS, Command, rankings

WIDTH = 3.4  # inches

figure = partial(concavity_intuition.figure, has_ar=False, width=WIDTH)
main = Command("concavity_intuition_wrapped", __doc__, figure, RANKINGS, rankings)

if __name__ == "__main__":
    raise SystemExit(main())
