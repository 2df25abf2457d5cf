"""Say what is done, missing and failed in a results folder. Loads no model."""

from __future__ import annotations

from collections.abc import Sequence

from specdec.commands.flags import StrictParser
from specdec.errors import exit_status
from specdec.runs.status import read_status, status_report


def verb(arguments: Sequence[str]) -> int:
    parser = StrictParser(prog="failfast status", description=__doc__, examples=("failfast status results",))
    parser.add_argument("output_dir", metavar="OUTPUT_DIR", help="results folder")

    def work() -> None:
        print(status_report(read_status(parser.parse_args(arguments).output_dir)), end="")

    return exit_status(parser.prog, work)
