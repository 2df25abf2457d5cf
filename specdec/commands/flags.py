"""Flags: parsers that take no abbreviations and answer in one line, made of the settings of `config.py` and of the
drafter families. The published spellings of flags are read here and nowhere else.
"""

import argparse
import os
import re
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import fields
from difflib import get_close_matches
from typing import Any, NoReturn

from specdec.config import parts
from specdec.drafters.asked import model_flags
from specdec.drafters.families import flags as family_flags
from specdec.drafters.flags import Flag
from specdec.errors import exit_status

GROUPS = {
    "questions": "which questions",
    "models": "target and backend",
    "decoding": "decoding",
    "drafters": "drafters",
    "recording": "traces",
    "pricing": "prices",
    "output": "output",
}
VIEW_FLAGS = ("wide", "top", "format")  # how a ranking is shown


class StrictParser(argparse.ArgumentParser):
    """argparse that takes no abbreviations and says what is wrong in one line, with status 2.

    `examples`: command lines that --help shows last.
    """

    def __init__(self, examples: Sequence[str] = (), **kwargs: Any) -> None:
        epilog = "examples:\n" + "\n".join(f"  {line}" for line in examples) if examples else None
        kwargs = {"formatter_class": argparse.RawDescriptionHelpFormatter, "epilog": epilog, **kwargs}
        super().__init__(allow_abbrev=False, **kwargs)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        return super().parse_known_args([_at_home(one) for one in (sys.argv[1:] if args is None else args)], namespace)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}{self._meant(message)} (see --help)\n")

    def _meant(self, message: str) -> str:
        """For an unknown flag the nearest known one, as "; did you mean --num_questions?"."""
        unknown = re.search(r"unrecognized arguments: (?:.* )?(--[^\s=]+)", message)
        near = get_close_matches(unknown[1], list(self._option_string_actions), n=1) if unknown else []
        return f"; did you mean {near[0]}?" if near else ""


def _at_home(argument: str) -> str:
    """An argument with the user's home for a "~" that no shell has read, as in --output_dir=~/results."""
    flag, equals, value = argument.partition("=")
    if flag.startswith("--") and equals:
        return flag + equals + os.path.expanduser(value)
    return os.path.expanduser(argument)


def program_name(module: str) -> str:
    """What the command of a folder is called, in usage and errors: as `failfast VERB NAME` (`cli.py`) where that
    started it, else `python -m MODULE`."""
    started_as = sys.argv[0]
    is_by_verb = started_as.startswith("failfast ") and started_as.endswith(f" {module.rpartition('.')[2]}")
    return started_as if is_by_verb else f"python -m {module}"


def status_as(module: str, work: Callable[[], None]) -> int:
    """The exit status of the command of a folder, with mistakes under its name."""
    return exit_status(program_name(module), work)


def all_flags() -> dict[str, dict[str, Flag]]:
    """Every setting's flag by name, in the groups of --help."""
    found = {
        name: {one.name: one.metadata["flag"] for one in fields(part) if "flag" in one.metadata}
        for name, part in parts().items()
    }
    found["drafters"] |= {flag.name: flag for flag in (*model_flags(), *family_flags())}
    return found


def add_flags(parser: argparse.ArgumentParser, names: Collection[str] | None = None) -> None:
    """The flags of all settings, or of those called `names`, in groups."""
    for group, found in all_flags().items():
        chosen = {name: flag for name, flag in found.items() if names is None or name in names}
        if chosen:
            section = parser.add_argument_group(GROUPS[group])
            for name, flag in chosen.items():
                _add(section, name, flag)


def _add(section: argparse._ArgumentGroup, name: str, flag: Flag) -> None:
    more: dict[str, Any] = {"action": "store_true"} if flag.default is False else {"type": text, **flag.more}
    if callable(more.get("choices")):
        more["choices"] = tuple(more["choices"]())
    if all(str(choice).isupper() for choice in more.get("choices", ("",))):
        more["type"] = str.upper  # names in capitals are read in any case
    help_text = flag.help.replace("%", "%%") + _default_text(flag.default)
    # The published spelling stands first: it is what scripts use.
    spellings = [*flag.published, name]
    section.add_argument(*(f"--{one}" for one in spellings), dest=name, default=flag.default, help=help_text, **more)


def text(value: str) -> str:
    """For flags: a text that names something."""
    if not value.strip():
        raise argparse.ArgumentTypeError("an empty text names nothing")
    return value


def _default_text(default: Any) -> str:
    if default is None or default is False:
        return ""
    return f" (default: {' '.join(map(str, default)) if isinstance(default, tuple) else default})"


def add_reading_flags(parser: argparse.ArgumentParser) -> None:
    """How records are priced and graded, and whether they must be of the same questions."""
    add_flags(parser, ("latency_profile", "latency_target", "pass_accounting", "run_code", "allow_seen"))
    parser.add_argument(
        "--allow_unequal",
        action="store_true",
        help="rank configurations that were run on different questions, over those that all of them have",
    )
