"""Say what is done, missing and failed in a results folder. Loads no model."""

from collections.abc import Sequence

from specdec.commands.flags import StrictParser
from specdec.errors import exit_status
from specdec.runs.status import read_status, status_report


def main(arguments: Sequence[str], program: str) -> int:
    parser = StrictParser(prog=program, description=__doc__, examples=("failfast status results",))
    parser.add_argument("output_dir", metavar="OUTPUT_DIR", help="results folder")
    folder = parser.parse_args(arguments).output_dir
    return exit_status(program, lambda: print(status_report(read_status(folder)), end=""))
