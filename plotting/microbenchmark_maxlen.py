"""Figure: FailFast's N_max: the speedup over the longest draft, a column per data set.

python -m plotting.microbenchmark_maxlen results --out maxlen.pdf
"""

from plotting.cli import RANKINGS, Command, rankings
from plotting.sweep_figure import Sweep
from specdec.drafters.block_diffusion import FailFast

SWEEP = Sweep(
    kinds=(FailFast,),
    axis="max_draft_len",
    x_label="N_max (confidences after which a draft stops growing)",
    quantities=("speedup_mean",),
    flag="--sweep_max_spec_len",
)
main = Command("microbenchmark_maxlen", __doc__, SWEEP.figure, RANKINGS, rankings)

if __name__ == "__main__":
    raise SystemExit(main())
