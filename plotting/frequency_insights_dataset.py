"""Figure: how often to verify: speedup and acceptance over the static draft length, for AR and dLLM drafters, a column
per data set.

    python -m plotting.frequency_insights_dataset results --out frequency.pdf
"""

from plotting.cli import RANKINGS, Command, rankings
from plotting.sweep_figure import Sweep
from specdec.drafters.ar import ArStatic
from specdec.drafters.block_diffusion import DllmStatic

SWEEP = Sweep(
    kinds=(ArStatic, DllmStatic),
    axis="draft_len",
    x_label="static draft length (tokens)",
    quantities=("speedup_mean", "acceptance_rate"),
    flag="--spec_len",
)
main = Command("frequency_insights_dataset", __doc__, SWEEP.figure, RANKINGS, rankings)

if __name__ == "__main__":
    raise SystemExit(main())
