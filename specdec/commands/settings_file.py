"""Settings file: flags of a command in a TOML file, by their names. It knows no flag and reads no command line.

target_model_name = "/my models/one"
tau = [0.3, 0.45]
with_traces = true
"""

import argparse
import os
import tomllib
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

from specdec.errors import MALFORMED, UserError, user_error

Actions = Mapping[str, argparse.Action]  # by flag, "--tau"
Converter = Callable[[argparse.Action, list[str]], Any]  # what argparse makes of the words after a flag
SETTINGS = "settings"  # the flag that names the file


def read_settings(path: str, actions: Actions, convert: Converter) -> dict[str, Any]:
    """What the file says, by the settings' names. Raises UserError: unreadable, an unknown or repeated setting, a value
    that the flag does not take."""
    try:
        with user_error(f"read the settings {path}"), open(path, "rb") as file:
            found = tomllib.load(file)
            str(found)  # ValueError: a number of thousands of digits, which no flag reads
    except MALFORMED as error:
        raise UserError(f"the settings {path} are not TOML ({error})") from error
    made: dict[str, Any] = {}
    for name, value in found.items():
        action = _action(path, name, actions)
        if action.dest in made:
            raise UserError(f"{path} gives {action.dest} twice, once as {name}: leave one out")
        made[action.dest] = _value(f"{path}: {name}", value, action, convert)
    return made


def _action(path: str, name: str, actions: Actions) -> argparse.Action:
    known = {flag.removeprefix("--"): action for flag, action in actions.items() if flag.startswith("--")}
    known = {flag: action for flag, action in known.items() if action.dest not in ("help", SETTINGS)}
    if name not in known:
        near = get_close_matches(name.removeprefix("--"), list(known), n=1)
        meant = f"; did you mean {near[0]}?" if near else ""
        raise UserError(f"{path} has a setting {name!r}, which is no flag of this command{meant}")
    return known[name]


def _value(where: str, value: Any, action: argparse.Action, convert: Converter) -> Any:
    """What the flag makes of it."""
    if action.nargs == 0:
        if not isinstance(value, bool):
            raise UserError(f"{where} takes true or false, not {value!r}")
        return value
    takes_list = action.nargs in ("+", "*")
    if isinstance(value, list) and not takes_list:
        raise UserError(f"{where} takes one value, not a list")
    values = value if isinstance(value, list) else [value]
    if not values or not all(isinstance(one, str | int | float) and not isinstance(one, bool) for one in values):
        raise UserError(f"{where} takes {'texts or numbers' if takes_list else 'a text or a number'}, not {value!r}")
    try:
        return convert(action, [os.path.expanduser(str(one)) for one in values])
    except argparse.ArgumentError as error:
        raise UserError(f"{where}: {error.message}") from error
