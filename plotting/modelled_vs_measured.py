"""Figure: whether the latency model can be trusted: modelled over measured speedup, a mark per setting. On the diagonal
they agree.

INPUT: records with measured times (or a ranking JSON of such), priced by a profile of the same machine, or what
`experiments.profile_speculation` wrote.

    python -m plotting.modelled_vs_measured results --latency_profile here.json --latency_target bundled --out model.pdf
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from plotting import cli, style
from plotting.inputs import is_finite
from plotting.points import Point, have_intervals
from plotting.ranking_files import read_json
from plotting.rankings import read_rankings
from plotting.scatter import KIND_LABELS
from plotting.settings import Ranking, require_one_target
from specdec.errors import UserError
from specdec.latency.profile import MEASURED

MARGIN = 1.05  # of the axes beyond the farthest mark


@dataclass(frozen=True)
class Pair:
    """One setting's two speedups. `name` stands beside its mark, `group` decides how that looks; `engine` is what
    modelled it; `num_questions` None: not known."""

    name: str
    group: str
    engine: str
    measured: Point
    modelled: Point
    num_questions: int | None = None


@style.styled
def figure(pairs: Sequence[Pair]) -> Figure:
    """Marks by kind of drafter, static ones with their length. UserError without anything measured and modelled."""
    if not pairs:
        raise UserError(
            "nothing here was both measured and modelled: give records of a live run with plain decoding among them "
            "(replays have no times), and a --latency_profile"
        )
    drawn, grid = style.panels(1, 1, 5.0)
    axes, groups = grid[0][0], list(dict.fromkeys(pair.group for pair in pairs))
    spare = iter((*style.SPARE, *style.LOOKS.values()))
    by_label = {KIND_LABELS[kind.__name__]: look for kind, look in style.LOOKS.items()}
    for group in groups:
        members, look = [pair for pair in pairs if pair.group == group], by_label.get(group) or next(spare)
        xs, ys = [pair.measured for pair in members], [pair.modelled for pair in members]
        places = [point.value for point in xs], [point.value for point in ys]
        bars = {"xerr": style.reach(xs), "yerr": style.reach(ys), "elinewidth": 0.6, "ecolor": (look.colour, 0.5)}
        axes.errorbar(*places, fmt=look.marker, color=look.colour, label=group, **bars)
        for pair in members:
            where = (pair.measured.value, pair.modelled.value)
            axes.annotate(pair.name, where, (4, 4), textcoords="offset points", fontsize=7)
    points = [point for pair in pairs for point in (pair.measured, pair.modelled)]
    farthest = max(point.value if point.high is None else point.high for point in points)
    limits = (min(0.9 * min(point.value for point in points), 1.0), MARGIN * farthest)
    axes.plot(limits, limits, color=style.GREY, linewidth=0.8, zorder=0, label="modelled = measured")
    axes.set_xlim(limits)
    axes.set_ylim(limits)
    axes.set_aspect("equal")
    axes.set_xlabel("measured speedup (× plain decoding)")
    axes.set_ylabel("modelled speedup (× plain decoding)")
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    counts = [pair.num_questions for pair in pairs if pair.num_questions is not None]
    engines = ", ".join(dict.fromkeys(pair.engine for pair in pairs))
    has_any = have_intervals([pair.measured for pair in pairs])
    style.note(drawn, f"modelled by: {engines}; {style.questions_note(counts)}; {style.interval_note(has_any)}")
    return drawn


def pairs_of(rankings: Sequence[Ranking]) -> list[Pair]:
    """Every setting that has both, under each modelled engine; means of the questions' speedups."""
    measured = {(one.title, one.target): one for one in rankings if one.engine == MEASURED}
    made = []
    for ranking in (one for one in rankings if one.engine != MEASURED):
        clock = measured.get((ranking.title, ranking.target))
        timed = {one.drafter_name: one.points.get("speedup_mean") for one in clock.settings} if clock else {}
        for setting in ranking.settings:
            point = timed.get(setting.drafter_name)
            if point is not None and setting.has("speedup_mean"):
                kind = KIND_LABELS[type(setting.spec).__name__]
                name = str(getattr(setting.spec, "draft_len", ""))
                modelled = setting.points["speedup_mean"]
                made.append(Pair(name, kind, ranking.engine, point, modelled, setting.num_questions))
    return made


def read_cases(path: Path) -> list[Pair] | None:
    """The cases of a profile_speculation JSON, or of a document that holds it under "speculation"; else None.

    Raises UserError for a speedup that is not a finite number.
    """
    document = read_json(path)
    document = document.get("speculation", document) if isinstance(document, dict) else document
    if not isinstance(document, dict) or not isinstance(document.get("cases"), dict):
        return None
    device = document.get("provenance", {}).get("device_name", "?")
    made, where = [], f"{document.get('target', '?')}, {document.get('engine', '?')}, {device}"
    for name, case in document["cases"].items():
        speeds = [case.get(key) if isinstance(case, dict) else None for key in ("measured_speedup", "modelled_speedup")]
        if not all(map(is_finite, speeds)):
            raise UserError(f"{path}: case {name} has no finite measured and modelled speedup")
        made.append(Pair("", name, f"{path.stem} ({where})", *map(Point, speeds)))
    return made


def build(options: Namespace) -> Figure:
    cases = {path: read_cases(path) for path in options.inputs if path.suffix == ".json"}
    others = [path for path in options.inputs if cases.get(path) is None]
    pairs = [pair for found in cases.values() for pair in found or ()]
    if others:
        rankings = read_rankings(others, cli.asked(options))
        require_one_target(rankings)
        pairs += pairs_of(rankings)
    return figure(pairs)


def main(arguments: Sequence[str] | None = None) -> int:
    flags = ("drafters", "question_ids", *cli.PRICING)
    return cli.run("modelled_vs_measured", __doc__, build, flags, arguments)


if __name__ == "__main__":
    sys.exit(main())
