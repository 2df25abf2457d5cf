"""Figure: how heads do while training.make_drafters trains them: the acceptance length of the real loop on questions
held back (on-policy), and beside it the share of right tokens after the target's own text (off-policy).

    python -m plotting.training_curves results/mine/{eagle3,dflash}/training.json --out training.pdf

Input is the training.json of a head (or its *.curve.json while it is trained), the folder of one or of several, or one
file of several: {"heads": {NAME: training.json}}. Each is called by its name there, by its family, or by its file.
"""

from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from plotting import style
from plotting.cli import Command
from specdec.errors import MALFORMED, UserError, user_error
from specdec.records.fields import is_number, parse_json
from specdec.text import named
from specdec.views import palette

REPORT = "training.json"
PANELS = {"acceptance_length": "acceptance length (tokens)", "accuracy": "share of right tokens"}
Curve = Sequence[Mapping[str, Any]]


@style.styled
def figure(curves: Mapping[str, Curve]) -> Figure:
    """A curve per head over the tokens it has seen: name -> the looks of its training. UserError for more heads than
    colours."""
    if len(curves) > len(palette.SERIES):
        raise UserError(f"{len(curves)} heads do not fit: give at most {len(palette.SERIES)}")
    drawn, grid = style.panels(1, len(PANELS), 3.0)
    for (quantity, label), axes in zip(PANELS.items(), (one for line in grid for one in line), strict=True):
        for (name, curve), look in zip(curves.items(), palette.SERIES, strict=False):
            places = [(seen["tokens"] / 1e6, seen[quantity]) for seen in curve]
            style.line(axes, places, look, label=name, marker=look.marker)
        axes.set_xlabel("tokens of documents seen (millions)")
        axes.set_ylabel(label)
        axes.set_ylim(bottom=1 if quantity == "acceptance_length" else 0)
    style.percent_axis(axes.yaxis)
    style.legend(drawn)
    counts = sorted({look["questions"] for curve in curves.values() for look in curve})
    asked = " or ".join(map(str, counts))
    style.note(drawn, f"by the real loop on {asked} questions held back, the target's own token of a round included")
    return drawn


def read_curves(path: Path) -> dict[str, Curve]:
    """Name -> curve of a file. Raises UserError for one that holds none."""
    try:
        with user_error(f"read {path}"):
            found = parse_json(path.read_text(encoding="utf-8"))
        heads = found["heads"] if isinstance(found, dict) and "heads" in found else {"": found}
        curves: dict[str, Curve] = {
            named(name or _name(path, one)): [dict(look) for look in (one["curve"] if isinstance(one, dict) else one)]
            for name, one in heads.items()
        }
        for look in (look for curve in curves.values() for look in curve):
            if not all(is_number(look[key]) and look[key] >= 0 for key in ("tokens", "questions", *PANELS)):
                raise TypeError("not a number")
    except MALFORMED:
        curves = {}
    if not curves or not all(curves.values()):
        raise UserError(f"{path} holds no looks at a training: give the training.json of a head")
    return curves


def files_in(path: Path) -> list[Path]:
    """The training.json of a head's folder, or of each head's in a work folder; a file alone. Raises UserError for a
    folder without any."""
    if not path.is_dir():
        return [path]
    found = (
        [path / REPORT]
        if (path / REPORT).is_file()
        else [one for one in sorted(path.glob(f"*/{REPORT}")) if _has_looks(one)]
    )
    if not found:
        raise UserError(f"{path} holds no {REPORT} of a head, nor a folder that does: give what make_drafters made")
    return found


def _has_looks(path: Path) -> bool:
    """AR and block-diffusion drafters beside the heads are not looked at while they train."""
    try:
        return bool(read_curves(path))
    except UserError:
        return False


def _name(path: Path, report: Any) -> str:
    family = report.get("family") if isinstance(report, dict) else None
    return str(family or path.name.partition(".")[0])


def build(options: Namespace) -> Figure:
    curves: dict[str, Curve] = {}
    for path in (file for asked in options.inputs for file in files_in(asked)):
        for name, curve in read_curves(path).items():
            curves[name if name not in curves else f"{name} ({path.parent.name})"] = curve
    return figure(curves)


main = Command("training_curves", __doc__, build, takes="training.json of heads, their folders, or files of several")

if __name__ == "__main__":
    raise SystemExit(main())
