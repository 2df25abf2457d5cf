"""Figure: whether the latency model can be trusted: modelled over measured speedup, a mark per setting. On the diagonal
they agree.

INPUT: records with measured times (or a ranking JSON of such), priced by a profile of the same machine, or what
`experiments.profile_speculation` wrote.

    python -m plotting.modelled_vs_measured results --latency_profile here.json --latency_target bundled --out model.pdf
"""

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from plotting import cli, style
from plotting.cli import PRICED, Command
from plotting.inputs import read_tables, require_one_target
from specdec.drafters.families import kinds
from specdec.errors import UserError
from specdec.latency.profile import MEASURED
from specdec.ranking.statistics import Value
from specdec.ranking.table import Row, Table
from specdec.ranking.table_files import is_finite, read_json
from specdec.views import palette
from specdec.views.captions import have_intervals, interval_note, questions_note

MARGIN = 1.05  # of the axes beyond the farthest mark


@dataclass(frozen=True)
class Pair:
    """One drafter's two speedups. `name` stands beside its mark, `group` decides how that looks where the drafter
    (`row`) is not known; `engine` is what modelled it."""

    name: str
    group: str
    engine: str
    measured: Value
    modelled: Value
    row: Row | None = None


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
    spare = iter((*palette.SPARE, *map(palette.family_look, kinds().values())))
    for group in groups:
        members = [pair for pair in pairs if pair.group == group]
        drafters = [pair.row for pair in members if pair.row is not None]
        look = palette.family_look(type(drafters[0].spec)) if drafters else next(spare)
        xs, ys = [pair.measured for pair in members], [pair.modelled for pair in members]
        places = [point.value for point in xs], [point.value for point in ys]
        style.marks(axes, places, look, group, xerr=style.reach(xs), yerr=style.reach(ys), elinewidth=0.6)
        if drafters:
            style.own_marks(axes, *places, drafters)
        for pair in members:
            where = (pair.measured.value, pair.modelled.value)
            axes.annotate(pair.name, where, (4, 4), textcoords="offset points", fontsize=7)
    points = [point for pair in pairs for point in (pair.measured, pair.modelled)]
    farthest = max(point.value if point.high is None else point.high for point in points)
    limits = (min(0.9 * min(point.value for point in points), 1.0), MARGIN * farthest)
    axes.plot(limits, limits, color=palette.GREY, linewidth=0.8, zorder=0, label="modelled = measured")
    axes.set_xlim(limits)
    axes.set_ylim(limits)
    axes.set_aspect("equal")
    axes.set_xlabel("measured speedup (× plain decoding)")
    axes.set_ylabel("modelled speedup (× plain decoding)")
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    counts = [pair.row.num_questions for pair in pairs if pair.row and pair.row.num_questions is not None]
    engines = ", ".join(dict.fromkeys(pair.engine for pair in pairs))
    has_any = have_intervals([pair.measured for pair in pairs])
    style.note(drawn, f"modelled by: {engines}; {questions_note(counts)}; {interval_note(has_any)}")
    return drawn


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
                name = str(getattr(row.spec, "draft_len", row.spec.variant))
                made.append(Pair(name, kind, table.engine, point, row.values["speedup_mean"], row))
    return made


def read_cases(path: Path) -> list[Pair] | None:
    """The cases of a profile_speculation JSON, or of a document that holds it under "speculation"; else None.
    UserError for a speedup that is not a finite number."""
    document = read_json(path)
    document = document.get("speculation", document) if isinstance(document, dict) else document
    if not isinstance(document, dict) or not isinstance(document.get("cases"), dict):
        return None
    device = document.get("provenance", {}).get("device_name", "?")
    made, where = [], f"{document.get('target', '?')}, {document.get('engine', '?')}, {device}"
    for name, case in document["cases"].items():
        speeds = [case.get(key) if isinstance(case, dict) else None for key in ("measured_speedup", "modelled_speedup")]
        measured, modelled = (Value(speed) if is_finite(speed) else None for speed in speeds)
        if measured is None or modelled is None:
            raise UserError(f"{path}: case {name} has no finite measured and modelled speedup")
        made.append(Pair("", name, f"{path.stem} ({where})", measured, modelled))
    return made


def build(options: Namespace) -> Figure:
    cases = {path: read_cases(path) for path in options.inputs if path.suffix == ".json"}
    others = [path for path in options.inputs if cases.get(path) is None]
    pairs = [pair for found in cases.values() for pair in found or ()]
    if others:
        tables = read_tables(others, cli.asked(options))
        require_one_target(table.target for table in tables)
        pairs += pairs_of(tables)
    return figure(pairs)


main = Command("modelled_vs_measured", __doc__, build, PRICED)

if __name__ == "__main__":
    raise SystemExit(main())
