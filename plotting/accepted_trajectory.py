"""Figure: one answer, token by token, as it was kept: `visualize_trajectory` without what was rejected.

python -m plotting.accepted_trajectory results/pickles/bundled/gsm8k/0/ar_None_sf_8/256.pickle --out answer.pdf
"""

from argparse import Namespace
from dataclasses import replace

from matplotlib.figure import Figure

from plotting.cli import DRAFTS, Command
from plotting.visualize_trajectory import figure, read_trajectory
from specdec.views.trajectory import Step


def kept(step: Step) -> Step:
    """The round without its rejected tokens."""
    return replace(step, rejected=[], confidences=step.confidences[: len(step.accepted)])


def build(options: Namespace) -> Figure:
    record, steps = read_trajectory(options)
    return figure(record, [kept(step) for step in steps], options.first_round)


main = Command("accepted_trajectory", __doc__, build, (*DRAFTS, "tokenizer", "first_round"))

if __name__ == "__main__":
    raise SystemExit(main())
