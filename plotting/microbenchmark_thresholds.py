"""Figure: FailFast's tau: the speedup over the confidence below which a draft stops growing, a column per data set.

python -m plotting.microbenchmark_thresholds results --out tau.pdf
"""

from plotting.cli import RANKINGS, Command, rankings
from plotting.sweep_figure import Sweep
from specdec.drafters.block_diffusion import FailFast

SWEEP = Sweep(
    kinds=(FailFast,),
    axis="tau",
    x_label="τ (confidence below which a draft stops)",
    quantities=("speedup_mean",),
    flag="--sweep_lowconf_threshold",
)
main = Command("microbenchmark_thresholds", __doc__, SWEEP.figure, RANKINGS, rankings)

if __name__ == "__main__":
    raise SystemExit(main())
