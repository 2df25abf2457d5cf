"""Rows of a data set, as dicts: from a JSON-lines file or from the Hugging Face hub, and their fields, checked.

It knows no data set: `sets.py` knows what the fields mean.
"""

import json
from pathlib import Path

from specdec.errors import UserError, user_error

MAX_TEXTS = 26  # of a field that lists some: options have letters


def read_jsonl(path: Path) -> list[dict]:
    """One JSON object per line, UTF-8; blank lines are skipped. UserError names the file, and the line."""
    with user_error(f"read the questions in {path}"):
        lines = path.read_bytes().split(b"\n")
    rows = [_parse_line(path, number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not rows:
        raise UserError(f"{path} is empty: it has no questions")
    return rows


def read_hub(hub_name: str, hub_config: str | None, split: str, local_file: str) -> list[dict]:
    """All rows of a split. `local_file` is where --data_dir would look, for the message.

    Raises UserError whatever goes wrong: no network, a gated or renamed data set, no `datasets` package.
    """
    # Imported here: it takes seconds, and neither bundled questions nor local files need it.
    try:
        from datasets import load_dataset
        from huggingface_hub.utils import logging as hub_logging

        hub_logging.set_verbosity_error()  # its retries are not the user's; the outcome is one line
        rows = list(load_dataset(hub_name, hub_config, split=split))
    except Exception as error:  # the hub fails in many types, some of them private
        reason = f"{type(error).__name__}: {str(error).strip()}".splitlines()[0][:200]
        raise UserError(
            f"cannot load {hub_name} from the Hugging Face hub ({reason}); "
            f"put its rows into DIR/{local_file} and give --data_dir DIR"
        ) from error
    if not rows:
        raise UserError(f"{hub_name} has no questions")
    return rows


def _parse_line(path: Path, number: int, line: bytes) -> dict:
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}, line {number}: not JSON ({error})") from error
    if not isinstance(row, dict):
        raise UserError(f"{path}, line {number}: not a JSON object but a {type(row).__name__}")
    return row


def text(row: dict, name: str) -> str:
    """A field that is text, or a number. Raises UserError that names it."""
    value = _field(row, name)
    if not isinstance(value, str | int | float):
        raise UserError(f"has a field {name!r} that is not text")
    return str(value)


def texts(row: dict, name: str) -> list[str]:
    """A field that is a list of texts. Raises UserError that names it."""
    values = _field(row, name)
    if isinstance(values, list) and 1 <= len(values) <= MAX_TEXTS and all(isinstance(one, str) for one in values):
        return values
    raise UserError(f"has a field {name!r} that is not a list of 1 to {MAX_TEXTS} texts")


def _field(row: dict, name: str) -> object:
    value = row.get(name)
    if value is None and name in row:
        raise UserError(f"has a field {name!r} that is null")
    if value is None:
        raise UserError(f"lacks the field {name!r} (it has: {', '.join(map(str, row)) or 'none'})")
    return value
