"""The command line that all figures share: one parser, one way to save, one line for a mistake.

Each figure's own file says what the figure shows.
"""

import io
from argparse import Namespace
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib import font_manager
from matplotlib.figure import Figure

from plotting import style
from plotting.drawn import as_csv
from plotting.inputs import Asked, read_tables, under_one_engine
from plotting.style import Page
from specdec.commands.flags import StrictParser, add_flags, program_name, status_as
from specdec.drafters.flags import number, positive_int
from specdec.errors import UserError, user_error
from specdec.latency.accounting import ACCOUNTINGS
from specdec.ranking.table import Table
from specdec.ranking.table_files import read_table_file
from specdec.records.pickles import write_atomic

# Nothing in a file says when it was made or by which version, so that the same data gives the same file.
_METADATA = {
    ".png": {"Software": None},
    ".pdf": {"CreationDate": None, "Producer": None, "Creator": None},
    ".svg": {"Date": None, "Creator": None},
}
FORMATS = tuple(_METADATA)
DRAFTS = ("drafters", "question_ids")
PRICED = (
    *(*DRAFTS, "latency_profile", "latency_target", "pass_accounting", "allow_seen"),
    *("allow_unequal", "without_degenerate", "trace_dir"),
)
TABLES = (*PRICED, "engine")
RANKINGS = (*TABLES, "reference")
# What INPUT may be, by a flag that only figures of it take.
_TAKES = {
    "latency_profile": "folders of results, records' pickles, or rankings as JSON (of parse_log.py or replay, --json)",
    "drafters": "folders of results, or records' pickles",
    "chains": "folders of traces (OUTPUT_DIR of failfast.py --record), or single ones",
}
_FLAGS: dict[str, dict] = {
    "drafters": {"nargs": "+", "metavar": "NAME", "help": "these drafters alone, by their names on disk"},
    "latency_target": {
        "nargs": "+",
        "default": [None],
        "metavar": "NAME",
        "help": "for records: price as if the target were this entry of the profile",
    },
    "pass_accounting": {
        "choices": ACCOUNTINGS,
        "help": "for records: whose passes are counted (default: as in the --reference, else the ones made)",
    },
    "trace_dir": {"help": "for records: the results folder that holds their traces, for the ceiling"},
    "allow_unequal": {"action": "store_true", "help": "where drafters answered different questions: the common ones"},
    "without_degenerate": {"action": "store_true", "help": "leave out questions whose answer is mostly one loop"},
    "reference": {"type": Path, "metavar": "FILE", "help": "a ranking JSON to draw beside, in grey"},
    "chains": {"nargs": "+", "metavar": "NAME", "help": "recorded drafters, such as ar or dllm_0.05"},
    "tokenizer": {"type": Path, "metavar": "DIR", "help": "the target's folder (default: the bundled target's)"},
    "concurrency": {
        "nargs": "+",
        "type": positive_int,
        "metavar": "N",
        "help": "requests at a time (default: 1 to 256)",
    },
    "first_round": {"type": int, "default": 0, "help": "begin with this round (default: %(default)s)"},
}


@dataclass(frozen=True)
class Command:
    """A figure as a command. `draw` makes it of what `read` finds for the parsed flags (default: of those); `takes`:
    what INPUT may be (default: as its flags say)."""

    name: str
    about: str | None
    draw: Callable[..., Figure]
    flags: Sequence[str] = ()  # beside INPUT, --out and those of the page
    read: Callable[[Namespace], Iterable[Any]] = lambda options: (options,)
    takes: str = ""

    def __call__(self, arguments: Sequence[str] | None = None) -> int:
        """Parse, draw the figure, save it, say where. Exit status: 0, or 2 after one line for a user's mistake."""

        def work() -> None:
            made = parser(self.name, self.about, self.flags, FORMATS, takes=self.takes)
            add_page_flags(made)
            options = made.parse_args(arguments)
            check_format("--out", options.out, FORMATS)
            if options.data is not None:
                check_format("--data", options.data, (".csv",))
            with style.on(page_of(options)):
                figure = self.draw(*self.read(options))
                save(figure, options.out)
            if options.data is not None:
                write(options.data, as_csv(figure).encode())
            print("\n".join(str(path) for path in (options.out, options.data) if path is not None))

        return status_as(f"plotting.{self.name}", work)


def parser(name: str, about: str | None, flags: Sequence[str], formats: Sequence[str], takes: str = "") -> StrictParser:
    """One for INPUT..., --out and those of `flags` that a figure takes."""
    made = StrictParser(prog=program_name(f"plotting.{name}"), description=about)
    what = takes or next(text for flag, text in {**_TAKES, "": "files"}.items() if flag in (*flags, ""))
    made.add_argument("inputs", nargs="+", metavar="INPUT", type=Path, help=what)
    ends = f"where to write it: a name that ends in {', '.join(formats)}; folders are made"
    made.add_argument("--out", required=True, type=Path, metavar="FILE", help=ends)
    add_flags(made, [flag for flag in flags if flag not in (*_FLAGS, "engine")])
    for flag in flags:
        if flag in _FLAGS:
            made.add_argument(f"--{flag}", **_FLAGS[flag])
    if "engine" in flags:  # which in failfast.py is what runs networks
        which = "of several pricings, the one to draw: a profile's name as in the ranking, or 'measured' (older name: "
        made.add_argument("--pricing", "--engine", dest="engine", metavar="NAME", help=which + "--engine)")
    return made


def parse(name: str, about: str | None, flags: Sequence[str], arguments: Sequence[str] | None) -> Namespace:
    """INPUT..., --out and those of `flags` that a figure takes."""
    return parser(name, about, flags, FORMATS).parse_args(arguments)


def add_page_flags(made: StrictParser) -> None:
    """What every figure's page and data take."""
    page = made.add_argument_group("page")
    inches: dict[str, Any] = {
        "type": number(float, lambda size: 1 <= size <= 50, "1 to 50 inches"),
        "metavar": "INCHES",
    }
    points = number(float, lambda size: 4 <= size <= 40, "4 to 40 points")
    dots = number(int, lambda many: 20 <= many <= 2400, "20 to 2400")
    page.add_argument("--width", **inches, help="of the figure (default: its own, mostly 7.2; a column has about 3.3)")
    page.add_argument("--height", **inches, help="of the figure (default: its own)")
    page.add_argument("--dpi", type=dots, default=Page.dpi, metavar="N", help="pixels per inch (default: %(default)s)")
    page.add_argument("--font", default=Page.font, metavar="NAME", help="family of the letters (default: %(default)s)")
    small = f"size of letters (default: {Page().letters:.0f}, less than {style.NARROW:.0f} inches wide 7)"
    page.add_argument("--font_size", type=points, metavar="POINTS", help=small)
    page.add_argument("--no_note", action="store_true", help="without the line below: what was measured, over what")
    page.add_argument("--title", metavar="TEXT", help="in place of the figure's own; 'none' for no title")
    page.add_argument("--no_title", dest="title", action="store_const", const="none", help="the same as --title none")
    page.add_argument(
        "--data", type=Path, metavar="CSV", help="write there what is drawn: panel, series, x, y, low, ..."
    )


def page_of(options: Namespace) -> Page:
    """The page asked for. UserError for a font that is not here."""
    if options.font not in font_manager.get_font_names():
        there = sorted(font_manager.get_font_names())
        raise UserError(f"no font is called {options.font!r} here (there are: {', '.join(there[:8])}, ...)")
    title = "" if options.title == "none" else options.title
    sizes = {name: getattr(options, name) for name in ("width", "height", "dpi", "font", "font_size")}
    return Page(**sizes, has_note=not options.no_note, title=title)


def asked(options: Namespace) -> Asked:
    """The flags that say how records become tables. Beside a reference passes are counted as they are there, so that
    like stands beside like."""
    found = Asked(**{key: getattr(options, key) for key in PRICED})
    if found.pass_accounting is not None or getattr(options, "reference", None) is None:
        return found
    theirs = {table.accounting for table in references(options)}
    return replace(found, pass_accounting=theirs.pop() if len(theirs) == 1 else None)


def tables(options: Namespace) -> list[Table]:
    """The tables of a figure that takes TABLES: one engine's, a data set each. Raises UserError."""
    return under_one_engine(read_tables(options.inputs, asked(options)), options.engine)


def references(options: Namespace) -> list[Table]:
    """The tables of --reference, maybe none. Raises UserError."""
    return [] if options.reference is None else read_table_file(options.reference)


def rankings(options: Namespace) -> tuple[list[Table], list[Table]]:
    """The tables and the references of a figure that takes RANKINGS. Raises UserError."""
    return tables(options), references(options)


def check_format(flag: str, path: Path, formats: Sequence[str]) -> None:
    """Raise UserError, before any work, for a file that cannot be written in any of `formats`."""
    if path.suffix not in formats:
        raise UserError(f"{flag} {path}: the name must end in {', '.join(formats)}")


def save(figure: Figure, path: Path) -> None:
    """Write the figure atomically, its folder too. Raises UserError where that cannot be done."""
    data = io.BytesIO()
    with matplotlib.rc_context(style.page().rc):
        figure.savefig(data, format=path.suffix[1:], metadata=_METADATA[path.suffix])
    write(path, data.getvalue())


def write(path: Path, data: bytes) -> None:
    """Write a file atomically, and its folder. Raises UserError where that cannot be done."""
    with user_error(f"write {path}", "choose another place"):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, data)
