"""Figure: FailFast's N_max: the speedup over the longest draft, a column per data set.

python -m plotting.microbenchmark_maxlen results --out maxlen.pdf
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from plotting import sweep_figure
from plotting.sweep_figure import Sweep
from specdec.drafters.block_diffusion import FailFast

SWEEP = Sweep(
    kinds=(FailFast,),
    axis="max_draft_len",
    x_label="N_max (confidences after which a draft stops growing)",
    quantities=("speedup_mean",),
    flag="--sweep_max_spec_len",
)


def main(arguments: Sequence[str] | None = None) -> int:
    return sweep_figure.main("microbenchmark_maxlen", __doc__, SWEEP, arguments)


if __name__ == "__main__":
    sys.exit(main())
