"""The command line: `failfast VERB`, each verb a file in `commands/` with the flags that it owns, or a folder of
commands: `failfast plot pareto ...` is `python -m plotting.pareto ...`.

Without a verb it is the published command (`python failfast.py`), which keeps all published flags. Imports no library
of models, so that every --help answers at once.
"""

import runpy
import sys
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType
from typing import NoReturn

import specdec
from specdec.errors import EXTRAS, UserError, exit_status, require_package

PROGRAM = "failfast"
# Verb -> the folder of its commands, and what they do.
FOLDERS = {
    "plot": ("plotting", "Draw a figure or a table: failfast plot NAME INPUT... --out FILE."),
    "profile": ("profiling", "Measure what passes and tokens cost: failfast profile NAME ..."),
    "train": ("training", "Train drafters for a target: failfast train NAME ..."),
}
# In the order of the work.
VERBS = (
    *("run", "rank", "recommend", "load", "record", "replay", "calibrate", "report", "reconcile", "status"),
    *FOLDERS,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status of a verb: 0 done, 2 a mistake of the user's (one line says which)."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if str(specdec.HOME) not in sys.path:  # what the folders of commands import each other from
        sys.path.insert(0, str(specdec.HOME))
    verb, *others = words or ["-"]
    if verb == "help":
        return exit_status(PROGRAM, lambda: print(overview()))
    if verb in FOLDERS:
        return _dispatch(verb, others)
    if verb in VERBS:
        return int(_command(verb).main(others, f"{PROGRAM} {verb}"))
    if verb.startswith("-"):
        return int(_command("run").main(words))
    return exit_status(PROGRAM, lambda: _unknown(verb))


def _unknown(verb: str) -> NoReturn:
    raise UserError(f"no verb is called {verb!r}: {', '.join(VERBS)}")


def overview() -> str:
    """The verbs, and what each does."""
    abouts = {verb: FOLDERS[verb][1] if verb in FOLDERS else str(_command(verb).__doc__) for verb in VERBS}
    lines = [f"  {verb:10}{about.splitlines()[0]}" for verb, about in abouts.items()]
    last = f"Without a verb: {PROGRAM} run, with the published flags."
    return "\n".join([f"{PROGRAM} VERB --help", "", *lines, "", last])


def _dispatch(verb: str, words: Sequence[str]) -> int:
    """Run the command of a folder that the first word names. 2 and one line for none, or an unknown one."""
    folder, _ = FOLDERS[verb]
    files = sorted((specdec.HOME / folder).glob("*.py"))
    known = [path.stem for path in files if '__name__ == "__main__"' in path.read_text(encoding="utf-8")]
    if words and words[0] in known:
        return _as_program(f"{folder}.{words[0]}", [f"{PROGRAM} {verb} {words[0]}", *words[1:]])
    return exit_status(f"{PROGRAM} {verb}", lambda: _explain(f"{PROGRAM} {verb}", known, words))


def _as_program(module: str, words: Sequence[str]) -> int:
    """The exit status of `python -m MODULE` with these words, run here."""
    before, sys.argv = sys.argv, list(words)
    try:
        runpy.run_module(module, run_name="__main__")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS:
            raise
        return exit_status(words[0], lambda: require_package(package))
    finally:
        sys.argv = before
    return 0


def _explain(program: str, known: Sequence[str], words: Sequence[str]) -> None:
    """Print the names; UserError where they were not asked for."""
    if not words or words[0] not in ("-h", "--help"):
        said = f"no command is called {words[0]!r}" if words else "name a command"
        raise UserError(f"{said}: {', '.join(known)}")
    print(f"usage: {program} NAME ... ({program} NAME --help says more)\n\nNAME is one of:")
    print("\n".join(f"  {name}" for name in known))


def _command(verb: str) -> ModuleType:
    return import_module(f"specdec.commands.{verb}")


if __name__ == "__main__":
    sys.exit(main())
