"""Figure: the accuracy of an EAGLE-3 drafter while SpecForge trains it, from the progress bars in the training's log.

A step that was logged twice, as where a training went on from a checkpoint, counts as it was logged last. Of several
logs each has its curve, called by the file's name.

    python -m plotting.eagle_training logs/7b.log logs/32b.log --out training.pdf
"""

import re
from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from plotting import style
from plotting.cli import Command
from specdec.errors import UserError, user_error
from specdec.views import palette

# A bar: "Training Epoch 7:  61%|...| 31795/51967 [..., loss=0.56, acc=0.80]"
_BAR = re.compile(r"Epoch\s+(\d{1,9}):.*?\s(\d{1,12})/(\d{1,12}) .*\bacc=(\d\.\d+|\d)\b")
WINDOW = 250  # readings of a moving mean; bars say two digits, and a batch is few texts
COLOURS = (palette.BLUE, palette.VERMILLION, palette.ORANGE, palette.BLACK)


@style.styled
def figure(logs: dict[str, list[tuple[int, float]]]) -> Figure:
    """A curve per log: name -> (step of the whole training, accuracy). UserError for more logs than colours."""
    if len(logs) > len(COLOURS):
        raise UserError(f"{len(logs)} logs do not fit: give at most {len(COLOURS)}")
    drawn, grid = style.panels(1, 1, 3.0)
    axes = grid[0][0]
    for (name, readings), colour in zip(logs.items(), COLOURS, strict=False):
        steps, accuracies = smoothed(readings)
        axes.plot(steps, accuracies, color=colour, label=name)
    axes.set_xlabel("training step (batches)")
    axes.set_ylabel("accuracy (share of tokens)")
    style.percent_axis(axes.yaxis)
    style.legend(drawn)
    style.note(drawn, f"mean of the last {WINDOW} readings, fewer at the beginning")
    return drawn


def smoothed(readings: Sequence[tuple[int, float]]) -> tuple[list[int], list[float]]:
    """The steps, and at each the mean of the last WINDOW accuracies. Example: `[(1, 0.2), (2, 0.4)]` gives
    `([1, 2], [0.2, 0.3])`."""
    steps, values = zip(*readings, strict=True)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    begins = np.maximum(ends - WINDOW, 0)
    return list(steps), ((sums[ends] - sums[begins]) / (ends - begins)).tolist()


def read_log(path: Path) -> list[tuple[int, float]]:
    """(step of the whole training, accuracy) of a log, in order. Raises UserError for a file without progress bars."""
    found: dict[tuple[int, int], float] = {}
    lengths: dict[int, int] = {}
    with user_error(f"read {path}"):
        for epoch, step, length, accuracy in _bars(path):
            found[epoch, step] = accuracy
            lengths[epoch] = length
    if not found:
        raise UserError(f"{path} has no progress bar of a training: give SpecForge's log, with 'Epoch N:' and 'acc='")
    begins, before = {}, 0
    for epoch in sorted(lengths):
        begins[epoch], before = before, before + lengths[epoch]
    return [(begins[epoch] + step, found[epoch, step]) for epoch, step in sorted(found)]


def _bars(path: Path) -> Iterator[tuple[int, int, int, float]]:
    """(epoch, step, steps of the epoch, accuracy). A bar that is drawn over ends with a carriage return."""
    with path.open(encoding="utf-8", errors="replace", newline=None) as lines:
        for bar in filter(None, map(_BAR.search, lines)):
            yield int(bar[1]), int(bar[2]), int(bar[3]), float(bar[4])


def build(options: Namespace) -> Figure:
    is_clear = len({path.stem for path in options.inputs}) == len(options.inputs)
    return figure({path.stem if is_clear else str(path): read_log(path) for path in options.inputs})


main = Command("eagle_training", __doc__, build)

if __name__ == "__main__":
    raise SystemExit(main())
