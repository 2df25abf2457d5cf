"""Figure: how often to verify: speedup and acceptance over the static draft length, for AR and dLLM drafters, a column
per data set.

    python -m plotting.frequency_insights_dataset results --out frequency.pdf
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from plotting import sweep_figure
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


def main(arguments: Sequence[str] | None = None) -> int:
    return sweep_figure.main("frequency_insights_dataset", __doc__, SWEEP, arguments)


if __name__ == "__main__":
    sys.exit(main())
