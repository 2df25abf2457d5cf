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
from matplotlib.figure import Figure

from plotting.inputs import Asked, read_tables, under_one_engine
from plotting.style import RC
from specdec.commands.flags import StrictParser, add_flags, program_name, status_as
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
    "engine": {"help": "of several, the one to draw: a profile's name as in the ranking, or 'measured'"},
    "reference": {"type": Path, "metavar": "FILE", "help": "a ranking JSON to draw beside, in grey"},
    "chains": {"nargs": "+", "metavar": "NAME", "help": "recorded drafters, such as ar or dllm_0.05"},
    "tokenizer": {"type": Path, "metavar": "DIR", "help": "the target's folder (default: the bundled target's)"},
    "first_round": {"type": int, "default": 0, "help": "begin with this round (default: %(default)s)"},
}


@dataclass(frozen=True)
class Command:
    """A figure as a command. `draw` makes it of what `read` finds for the parsed flags (default: of those)."""

    name: str
    about: str | None
    draw: Callable[..., Figure]
    flags: Sequence[str] = ()  # beside INPUT and --out
    read: Callable[[Namespace], Iterable[Any]] = lambda options: (options,)

    def __call__(self, arguments: Sequence[str] | None = None) -> int:
        """Parse, draw the figure, save it. Exit status: 0, or 2 after one line for a user's mistake."""

        def work() -> None:
            options = parse(self.name, self.about, self.flags, arguments)
            check_format(options.out, FORMATS)
            save(self.draw(*self.read(options)), options.out)

        return status_as(f"plotting.{self.name}", work)


def parse(name: str, about: str | None, flags: Sequence[str], arguments: Sequence[str] | None) -> Namespace:
    """INPUT..., --out and those of `flags` that a figure takes."""
    parser = StrictParser(prog=program_name(f"plotting.{name}"), description=about)
    parser.add_argument("inputs", nargs="+", metavar="INPUT", type=Path, help="what the figure is drawn from")
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help="where to write it; the ending decides")
    add_flags(parser, [flag for flag in flags if flag not in _FLAGS])
    for flag in flags:
        if flag in _FLAGS:
            parser.add_argument(f"--{flag}", **_FLAGS[flag])
    return parser.parse_args(arguments)


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


def check_format(path: Path, formats: Sequence[str]) -> None:
    """Raise UserError, before any work, for a file that cannot be written in any of `formats`."""
    if path.suffix not in formats:
        raise UserError(f"--out {path}: the name must end in {', '.join(formats)}")


def save(figure: Figure, path: Path) -> None:
    """Write the figure atomically, its folder too. Raises UserError where that cannot be done."""
    data = io.BytesIO()
    with matplotlib.rc_context(RC):
        figure.savefig(data, format=path.suffix[1:], metadata=_METADATA[path.suffix])
    write(path, data.getvalue())


def write(path: Path, data: bytes) -> None:
    """Write a file atomically, and its folder. Raises UserError where that cannot be done."""
    with user_error(f"write {path}", "choose another place"):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, data)
