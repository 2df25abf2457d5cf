"""Figure: whether the latency model can be trusted: modelled over measured speedup, a mark per setting. On the diagonal
they agree.

INPUT: records with measured times (or a ranking JSON of such), priced by a profile of the same machine, or what
`experiments.profile_speculation` wrote.

    python -m plotting.modelled_vs_measured results --latency_profile here.json --latency_target bundled --out model.pdf
"""

import sys
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from plotting import cli, style
from plotting.cli import PRICED, Command
from plotting.inputs import read_records, read_tables, require_one_target
from specdec.drafters.base import Spec
from specdec.drafters.families import kinds
from specdec.errors import UserError
from specdec.latency.profile import MEASURED, LatencyProfile, load_profiles
from specdec.ranking.statistics import Value
from specdec.ranking.table import Row, Table
from specdec.ranking.table_files import is_finite, read_json
from specdec.text import named
from specdec.views import palette
from specdec.views.captions import have_intervals, interval_note, questions_note
from specdec.views.palette import Look

MARGIN = 1.05  # of the axes beyond the farthest mark


SCRIPTED = "P"  # the mark of cases that no record is of


@dataclass(frozen=True)
class Pair:
    """One drafter's two speedups. `name` stands beside its mark, `group` in the key; the drafter (`row`) of a scripted
    case is not known. `engine` is what modelled it."""

    name: str
    group: str
    engine: str
    measured: Value
    modelled: Value
    row: Row | None = None


@style.styled
def figure(pairs: Sequence[Pair], careful: str = "") -> Figure:
    """Marks by kind of drafter, each with its name. `careful`: why the two should not be compared. UserError without
    anything measured and modelled."""
    if not pairs:
        raise UserError(
            "nothing here was both measured and modelled: give records of a live run with plain decoding among them "
            "(replays have no times), and a --latency_profile"
        )
    drawn, grid = style.panels(1, 1, 5.0)
    axes = grid[0][0]
    for group in dict.fromkeys(pair.group for pair in pairs):
        draw(axes, group, [pair for pair in pairs if pair.group == group])
    points = [point for pair in pairs for point in (pair.measured, pair.modelled)]
    farthest = max(point.value for point in points)
    limits = style.framed(points) or (0.0, MARGIN * farthest)
    limits = (min(0.9 * min(point.value for point in points), 1.0), max(limits[1], MARGIN * farthest))
    axes.plot(limits, limits, color=palette.GREY, linewidth=0.8, zorder=0, label="modelled = measured")
    axes.set_xlim(limits)
    axes.set_ylim(limits)
    axes.set_xlabel("measured speedup (× plain decoding)")
    axes.set_ylabel("modelled speedup (× plain decoding)")
    style.legend(drawn)
    counts = [pair.row.num_questions for pair in pairs if pair.row and pair.row.num_questions is not None]
    engines = ", ".join(dict.fromkeys(pair.engine for pair in pairs))
    has_any = have_intervals([pair.measured for pair in pairs])
    parts = f"modelled by: {engines}", questions_note(counts), interval_note(has_any), careful
    style.note(drawn, "; ".join(filter(None, parts)))
    return drawn


def draw(axes: Axes, group: str, members: Sequence[Pair]) -> None:
    """The marks of one group, with their names."""
    drafters = [pair.row for pair in members if pair.row is not None]
    kind = type(drafters[0].spec) if drafters else _kind_in(group)
    look = Look(palette.GREY, SCRIPTED) if kind is None else palette.family_look(kind)
    look = look if drafters else replace(look, marker=SCRIPTED)
    xs, ys = [pair.measured for pair in members], [pair.modelled for pair in members]
    places = [point.value for point in xs], [point.value for point in ys]
    names = [pair.name or group for pair in members]
    style.marks(axes, places, look, group, names, xerr=style.reach(xs), yerr=style.reach(ys), elinewidth=0.6)
    if drafters:
        style.own_marks(axes, *places, drafters)
    for pair in members:
        style.name_point(axes, pair.name, (pair.measured.value, pair.modelled.value), look.colour)


def in_words(case: str) -> str:
    """A case's name in the words of figures. Example: `in_words("paper_math_ar_8") == "paper math AR 8"`."""
    return " ".join(_kind_words().get(word, word) for word in case.split("_"))


def _kind_words() -> dict[str, str]:
    """What drafters are called, by the beginnings of their kinds' names."""
    return {name.partition("_")[0]: palette.short(kind) for name, kind in kinds().items()}


def _kind_in(words: str) -> type[Spec] | None:
    """The kind of drafter that a case in words names."""
    return next((kind for kind in kinds().values() if palette.short(kind) in words.split()), None)


def pairs_of(tables: Sequence[Table]) -> list[Pair]:
    """Every setting that has both, under each modelled engine; means of the questions' speedups."""
    measured = {(one.title, one.target): one for one in tables if one.engine == MEASURED}
    made = []
    for table in (one for one in tables if one.engine != MEASURED):
        clock = measured.get((table.title, table.target))
        timed = {one.drafter_name: one.values.get("speedup_mean") for one in clock.rows} if clock else {}
        for row in table.rows:
            point = timed.get(row.drafter_name)
            if point is not None and row.has("speedup_mean"):
                kind = palette.kind_of(row.drafter_name).title
                name = row.own_label or palette.label_of(row.drafter_name)
                made.append(Pair(name, kind, table.engine, point, row.values["speedup_mean"], row))
    return made


def read_cases(path: Path) -> list[Pair] | None:
    """The cases of a profile_speculation JSON, or of a document that holds it under "speculation"; else None.
    UserError for a speedup that is none."""
    document = read_json(path)
    document = document.get("speculation", document) if isinstance(document, dict) else document
    if not isinstance(document, dict) or not isinstance(document.get("cases"), dict):
        return None
    machine = document.get("provenance")
    device = machine.get("device_name", "?") if isinstance(machine, dict) else "?"
    measured_on = (document.get("target", "?"), document.get("engine", "?"), device)
    made, where = [], ", ".join(map(named, measured_on))
    for name, case in document["cases"].items():
        speeds = [case.get(key) if isinstance(case, dict) else None for key in ("measured_speedup", "modelled_speedup")]
        measured, modelled = (Value(speed) if is_finite(speed) and speed > 0 else None for speed in speeds)
        if measured is None or modelled is None:
            raise UserError(f"{path}: case {named(name)} has no finite measured and modelled speedup above 0")
        made.append(Pair("", named(in_words(name)), f"{named(path.stem)} ({where})", measured, modelled))
    return made


def other_hardware(paths: Sequence[Path], profiles: Sequence[LatencyProfile]) -> str:
    """Which profiles are not of the machine that the records are of, as far as both are known; "" for none."""
    records = read_records(paths) if paths else []
    measured = {str(device) for one in records if (device := one.provenance.get("device_name"))}
    modelled = {one.title: one.provenance.get("device_name") or one.provenance.get("hardware") for one in profiles}
    others = [
        f"{name} is of {device or 'unknown hardware'}" for name, device in modelled.items() if device not in measured
    ]
    if not measured or not others:
        return ""
    return f"careful, not the same machine: {', '.join(others)}, the measured times of {', '.join(sorted(measured))}"


def build(options: Namespace) -> Figure:
    cases = {path: read_cases(path) for path in options.inputs if path.suffix == ".json"}
    others = [path for path in options.inputs if cases.get(path) is None]
    pairs = [pair for found in cases.values() for pair in found or ()]
    careful = ""
    if others:
        folders = [path for path in others if path.suffix != ".json"]
        careful = other_hardware(folders, load_profiles(options.latency_profile))
        if careful:
            print(careful, file=sys.stderr)
        tables = read_tables(others, cli.asked(options))
        require_one_target(table.target for table in tables)
        pairs += pairs_of(tables)
    return figure(pairs, careful)


main = Command("modelled_vs_measured", __doc__, build, PRICED)

if __name__ == "__main__":
    raise SystemExit(main())
