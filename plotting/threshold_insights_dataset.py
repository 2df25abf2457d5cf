"""Figure: how sure to be before a token is unmasked: speedup, acceptance and passes over the unmask threshold of a
static dLLM drafter, a column per data set.

    python -m plotting.threshold_insights_dataset results --out threshold.pdf
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from plotting import sweep_figure
from plotting.sweep_figure import Sweep
from specdec.drafters.block_diffusion import DllmStatic

SWEEP = Sweep(
    kinds=(DllmStatic,),
    axis="unmask_threshold",
    x_label="unmask threshold (confidence)",
    quantities=("speedup_mean", "acceptance_rate", "passes_per_round"),
    flag="--drafter_thresholds",
)


def main(arguments: Sequence[str] | None = None) -> int:
    return sweep_figure.main("threshold_insights_dataset", __doc__, SWEEP, arguments)


if __name__ == "__main__":
    sys.exit(main())
