"""Figure: which drafter under which load: speedup over plain decoding by the number of requests at a time, and the
acceptance length at which a drafter would break even, beside the one that it has.

Of each kind of drafter the setting that is best at that load. Simulated by a latency profile that has rows
(docs/load.md), not measured. Studies that `failfast load --json` wrote are drawn as they are, one below the other.

    python -m plotting.load results --latency_target Qwen2.5-7B-Instruct --out load.pdf
    python -m plotting.load docs/results/2026-11-28-load.json --out load.pdf
"""

from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from plotting import style
from plotting.cli import DRAFTS, Command
from plotting.inputs import read_records
from specdec.drafters.families import parse_name
from specdec.drafters.plain import PLAIN
from specdec.errors import UserError
from specdec.ranking.load_files import KeptStudy, read_load_file
from specdec.ranking.load_study import Asked, Study, priced_by
from specdec.ranking.load_table import CONCURRENCY, LoadRow, LoadTable
from specdec.ranking.requests import requests_of, without_loops
from specdec.ranking.statistics import Value
from specdec.views import palette
from specdec.views.palette import GREY, label_of

DRAWN = {"speedup", "break_even_len"}
LOADS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


@style.styled
def figure(studies: Sequence[KeptStudy], note: str) -> Figure:
    """Two panels a study, over its loads in their order. UserError for one load alone."""
    drawn, grid = panels(len(studies))
    for study, axes in zip(studies, grid, strict=True):
        draw_study(axes, [table for table in study.tables if table.load.kind == CONCURRENCY])
        if len(studies) > 1:
            axes[0].set_title(study.title, loc="left")
    style.legend(drawn)
    style.note(drawn, note)
    return drawn


def panels(num_studies: int) -> tuple[Figure, Sequence[Sequence[Axes]]]:
    """Two panels a study, below each other where there is no room beside each other."""
    height = 1.0 + 2.4 * num_studies
    if num_studies == 1 or (style.page().width or style.WIDTH) / 2 >= style.MIN_PANEL:
        return style.panels(num_studies, 2, height)
    drawn, grid = style.panels(2 * num_studies, 1, 2 * height)
    own = [line[0] for line in grid]
    return drawn, list(zip(own[::2], own[1::2], strict=True))


def draw_study(axes: Sequence[Axes], tables: Sequence[LoadTable]) -> None:
    if len(tables) < 2:
        raise UserError("a line needs two loads: give more of --concurrency")
    left, right = axes
    lines = best_by_kind(tables)
    for rows in lines.values():
        draw(left, tables, rows, "speedup")
        draw(right, tables, rows, "break_even_len")
        own = [row.acceptance_len or 0.0 for row in rows]
        look = palette.family_look(type(parse_name(rows[0].name)))
        places = list(zip(loads(tables), own, strict=True))
        right.plot(*zip(*places, strict=True), color=look.colour, linestyle=":", linewidth=1, label="its own length")
    left.axhline(1, color=GREY, linewidth=1, label=label_of(PLAIN))
    for load, row in changes(tables):
        style.name_point(left, label_of(row.name), (load, row.number("speedup")))
    for one in axes:
        one.set_xscale("log", base=2)
        one.set_xticks(loads(tables), [f"{load:g}" for load in loads(tables)])
        one.set_xlabel("requests at a time")
        one.set_ylim(bottom=0)
        one.minorticks_off()
    left.set_ylabel("speedup (× plain decoding)")
    right.set_ylabel("acceptance length\nto break even (tokens per round)")


def loads(tables: Sequence[LoadTable]) -> list[float]:
    return [table.load.value for table in tables]


def best_by_kind(tables: Sequence[LoadTable]) -> Mapping[str, list[LoadRow]]:
    """Of each kind of drafter the best setting at each load. Raises UserError."""
    kinds = dict.fromkeys(row.kind for row in tables[0].choices if row.name != PLAIN)
    return {kind: [_best(table, kind) for table in tables] for kind in kinds}


def _best(table: LoadTable, kind: str) -> LoadRow:
    """UserError where a file does not say what is drawn of it."""
    found = next((row for row in table.choices if row.kind == kind), None)
    if found is None or not found.values.keys() >= DRAWN:
        raise UserError(f"the input lacks the speedup of {kind}, {table.load.label}, or its length to break even")
    return found


def changes(tables: Sequence[LoadTable]) -> list[tuple[float, LoadRow]]:
    """The best drafter where it is another than at the load before."""
    found: list[tuple[float, LoadRow]] = []
    for table in tables:
        best = table.best
        if best is not None and (not found or found[-1][1].name != best.name):
            found.append((table.load.value, best))
    return [(load, row) for load, row in found if row.name != PLAIN]


def draw(axes: Axes, tables: Sequence[LoadTable], rows: Sequence[LoadRow], quantity: str) -> None:
    """A kind's line with its intervals."""
    kind = type(parse_name(rows[0].name))
    values: list[Value] = [row.values[quantity] for row in rows]
    style.curve(axes, loads(tables), values, palette.family_look(kind), kind.title)


def build(options: Namespace) -> Figure:
    studies = [read_load_file(path) for path in options.inputs if path.suffix == ".json"]
    if folders := [path for path in options.inputs if path.suffix != ".json"]:
        studies.append(simulated(folders, options))
    title = f"{studies[0].title}; " if len(studies) == 1 else ""
    profiles = ", ".join(dict.fromkeys(study.profile for study in studies))
    rows = [row for study in studies for row in study.tables[0].rows]
    has_bands = any(one.low is not None for row in rows for name, one in row.values.items() if name in DRAWN)
    bands = "bands: 95 % intervals; " if has_bands else ""
    return figure(studies, f"simulated by {profiles}; {title}{bands}dotted: the acceptance length that it has")


def simulated(folders: Sequence[Path], options: Namespace) -> KeptStudy:
    """The loads of records. Raises UserError."""
    records = read_records(folders, None, options.question_ids)
    chosen = [one for one in records if options.drafters is None or one.drafter_name in (*options.drafters, PLAIN)]
    chosen = without_loops(chosen) if options.without_degenerate else chosen
    requests = requests_of(chosen, options.allow_unequal, options.allow_seen)
    profile, entry = priced_by(options.latency_profile, options.latency_target[0], requests.target)
    return KeptStudy.of(Study(requests, profile, entry, Asked(tuple(options.concurrency or LOADS))))


FLAGS = (
    *DRAFTS,
    "latency_profile",
    "latency_target",
    "allow_unequal",
    "allow_seen",
    "without_degenerate",
    "concurrency",
)
TAKES = "folders of results, records' pickles, or studies of loads as JSON (of failfast load, --json)"
main = Command("load", __doc__, build, FLAGS, takes=TAKES)

if __name__ == "__main__":
    raise SystemExit(main())
