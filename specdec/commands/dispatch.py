"""Verbs whose commands are modules of another folder: `failfast plot pareto ...` is `python -m plotting.pareto ...`."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from specdec.errors import UserError, exit_status

PROJECT = Path(__file__).resolve().parents[2]


def commands_of(folder: str) -> list[str]:
    """The modules of a folder that are commands: those that can be run by themselves."""
    files = sorted((PROJECT / folder).glob("*.py"))
    return [path.stem for path in files if '__name__ == "__main__"' in path.read_text(encoding="utf-8")]


def dispatch(program: str, folder: str, arguments: Sequence[str]) -> int:
    """Run the command that the first argument names. 2 and one line for none, or an unknown one."""
    known = commands_of(folder)
    if arguments and arguments[0] in known:
        return int(import_module(f"{folder}.{arguments[0]}").main(list(arguments[1:])))
    return exit_status(program, lambda: _explain(program, known, arguments))


def _explain(program: str, known: Sequence[str], arguments: Sequence[str]) -> None:
    """Print the names; UserError where they were not asked for."""
    if not arguments or arguments[0] not in ("-h", "--help"):
        said = f"no command is called {arguments[0]!r}" if arguments else "name a command"
        raise UserError(f"{said}: {', '.join(known)}")
    print(f"usage: {program} NAME ... ({program} NAME --help says more)\n\nNAME is one of:")
    print("\n".join(f"  {name}" for name in known))
