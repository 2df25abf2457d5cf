"""Figure: FailFast's tau: the speedup over the confidence below which a draft stops growing, a column per data set.

python -m plotting.microbenchmark_thresholds results --out tau.pdf
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from plotting import sweep_figure
from plotting.sweep_figure import Sweep
from specdec.drafters.block_diffusion import FailFast

SWEEP = Sweep(
    kinds=(FailFast,),
    axis="tau",
    x_label="τ (confidence below which a draft stops)",
    quantities=("speedup_mean",),
    flag="--sweep_lowconf_threshold",
)


def main(arguments: Sequence[str] | None = None) -> int:
    return sweep_figure.main("microbenchmark_thresholds", __doc__, SWEEP, arguments)


if __name__ == "__main__":
    sys.exit(main())
