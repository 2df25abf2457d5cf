"""Figure: how sure to be before a token is unmasked: speedup, acceptance and passes over the unmask threshold of a
static dLLM drafter, a column per data set.

    python -m plotting.threshold_insights_dataset results --out threshold.pdf
"""

from plotting.cli import RANKINGS, Command, rankings
from plotting.sweep_figure import Sweep
from specdec.drafters.block_diffusion import DllmStatic

SWEEP = Sweep(
    kinds=(DllmStatic,),
    axis="unmask_threshold",
    x_label="unmask threshold (confidence)",
    quantities=("speedup_mean", "acceptance_rate", "passes_per_round"),
    flag="--drafter_thresholds",
)
main = Command("threshold_insights_dataset", __doc__, SWEEP.figure, RANKINGS, rankings)

if __name__ == "__main__":
    raise SystemExit(main())
