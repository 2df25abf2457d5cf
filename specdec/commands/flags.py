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

from specdec.commands.settings_file import SETTINGS, read_settings
from specdec.config import parts
from specdec.drafters.asked import model_flags
from specdec.drafters.families import BASELINE_SWEEP, switches
from specdec.drafters.families import flags as family_flags
from specdec.drafters.flags import Flag
from specdec.errors import UserError, exit_status

# The groups of --help, in its order, and their titles there.
GROUPS = {
    "input": "what is read",
    "questions": "which questions",
    "models": "models, and what runs them",
    "decoding": "decoding",
    "server": "the server that is asked",
    "measuring": "how it is measured",
    "drafters": "which drafters",
    "sweeps": "their lengths and thresholds: every combination is run",
    "drafting": "how drafters draft",
    "recording": "traces",
    "load": "how many ask at once",
    "pricing": "prices",
    "profile": "the latency profile that is written",
    "output": "output",
}
VIEW_FLAGS = ("wide", "top", "format")  # how a ranking is shown


class StrictParser(argparse.ArgumentParser):
    """argparse that takes no abbreviations and says what is wrong in one line, with status 2.

    Its usage is a line: what has to be given, and [FLAG ...]. `examples`: command lines that --help shows last.
    """

    def __init__(self, examples: Sequence[str] = (), **kwargs: Any) -> None:
        epilog = "examples:\n" + "\n".join(f"  {line}" for line in examples) if examples else None
        kwargs = {"formatter_class": argparse.RawDescriptionHelpFormatter, "epilog": epilog, **kwargs}
        super().__init__(allow_abbrev=False, **kwargs)
        self._groups: dict[str, argparse._ArgumentGroup] = {}

    def group(self, name: str) -> argparse._ArgumentGroup:
        """The section of --help that GROUPS calls so; the same one whoever asks."""
        if name not in self._groups:
            self._groups[name] = self.add_argument_group(GROUPS[name])
        return self._groups[name]

    def add_settings_flag(self) -> None:
        """--settings FILE.toml: every flag of this parser by its name, under those of the command line."""
        self.group("input").add_argument(
            f"--{SETTINGS}",
            action="append",
            metavar="FILE",
            help="take flags from this TOML file, by name: tau = [0.3, 0.45]; the command line wins (default: none)",
        )

    def explain(self, name: str, help_text: str) -> None:
        """Another text for a flag that this parser has, where the usual one does not hold."""
        for action in self._actions:
            if action.dest == name:
                action.help = help_text

    def format_usage(self) -> str:
        self._say_usage()
        return super().format_usage()

    def format_help(self) -> str:
        self._say_usage()
        places = {title: place for place, title in enumerate(GROUPS.values())}
        self._action_groups.sort(key=lambda group: places.get(str(group.title), -1))
        return super().format_help()

    def _say_usage(self) -> None:
        """What has to be given, in order, and that there are flags: --help lists them in groups."""
        needed = [action for action in self._actions if action.required or not action.option_strings]
        words = [f"{action.option_strings[0]} " if action.option_strings else "" for action in needed]
        values = [str(action.metavar or action.dest.upper()) for action in needed]
        given = [
            f"{word}{value}{' ...' if action.nargs in ('+', '*') else ''}"
            for action, word, value in zip(needed, words, values, strict=True)
        ]
        self.usage = self.usage or " ".join([self.prog, *given, "[FLAG ...]"]).replace("%", "%%")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        words = [_at_home(one) for one in (sys.argv[1:] if args is None else args)]
        if f"--{SETTINGS}" in self._option_string_actions:
            self._take_settings(words)
        found, others = super().parse_known_args(words, namespace)
        if hasattr(found, SETTINGS):
            delattr(found, SETTINGS)
        return found, others

    def _take_settings(self, words: Sequence[str]) -> None:
        """Make what the files say the defaults; a later file wins over an earlier one."""
        files = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        files.add_argument(f"--{SETTINGS}", action="append", nargs="?", default=[])
        try:
            for path in filter(None, files.parse_known_args(words)[0].settings):
                self.set_defaults(**read_settings(path, self._option_string_actions, self._get_values))
        except UserError as error:
            self.error(str(error))

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
    found["models"] |= {flag.name: flag for flag in model_flags()}
    found |= {"sweeps": {}, "drafting": {}}
    for flag in family_flags():
        found[_group_of(flag)][flag.name] = flag
    return {name: found[name] for name in GROUPS if name in found}


def _group_of(flag: Flag) -> str:
    """Of a flag of the drafters' families: which there are, what is swept, or how they draft."""
    if flag in (*switches().values(), BASELINE_SWEEP):
        return "drafters"
    return "sweeps" if flag.more.get("nargs") == "+" else "drafting"


def add_flags(parser: StrictParser, names: Collection[str] | None = None) -> None:
    """The flags of all settings, or of those called `names`, in groups."""
    for group, found in all_flags().items():
        chosen = {name: flag for name, flag in found.items() if names is None or name in names}
        if chosen:
            for name, flag in chosen.items():
                _add(parser.group(group), name, flag)


def _add(section: argparse._ArgumentGroup, name: str, flag: Flag) -> None:
    more: dict[str, Any] = {"action": "store_true"} if flag.default is False else {"type": text, **flag.more}
    if callable(more.get("choices")):
        more["choices"] = tuple(more["choices"]())
    if callable(more.get("metavar")):
        more["metavar"] = more["metavar"]()
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
    """As a command has it, which may have set another (`set_defaults`)."""
    if default is None or default is False:
        return ""
    return f" (default: {' '.join(map(str, default)) if isinstance(default, tuple) else '%(default)s'})"


def add_reading_flags(parser: StrictParser) -> None:
    """How records are priced and graded, and whether they must be of the same questions."""
    add_flags(parser, ("latency_profile", "latency_target", "pass_accounting", "run_code", "allow_seen"))
    parser.group("output").add_argument(
        "--allow_unequal",
        action="store_true",
        help="rank configurations that were run on different questions, over those that all of them have",
    )
