"""Rows of a data set, as dicts: from a JSON-lines file or from the Hugging Face hub, and their fields, checked.

It knows no data set: `sets.py` knows what the fields mean.
"""

import codecs
import json
from dataclasses import dataclass
from pathlib import Path

from specdec.errors import UserError, hub_reason, user_error

MAX_TEXTS = 26  # of a field that lists some: options have letters


def read_jsonl(path: Path) -> list[dict]:
    """One JSON object per line, UTF-8; blank lines are skipped. UserError names the file, and the line."""
    return [row for _, row in numbered_jsonl(path)]


def numbered_jsonl(path: Path) -> list[tuple[int, dict]]:
    """The same, each row with the number of its line, from 1."""
    with user_error(f"read the questions in {path}"):
        lines = path.read_bytes().split(b"\n")
    is_blank = [not line.removeprefix(codecs.BOM_UTF8).strip() for line in lines]
    rows = [(at, _parse_line(path, at, line)) for at, line in enumerate(lines, 1) if not is_blank[at - 1]]
    if not rows:
        raise UserError(f"{path} is empty: it has no questions")
    return rows


@dataclass(frozen=True)
class HubSplit:
    """A split of a data set on the hub; `files`: read these JSON-lines files of it instead of what it has for a
    loader."""

    name: str
    config: str | None
    split: str
    files: tuple[str, ...] = ()


def read_hub(where: HubSplit, local_file: str) -> list[dict]:
    """All rows of a split. `local_file` is where --data_dir would look, for the message.

    Raises UserError whatever goes wrong: no network, a gated or renamed data set, no `datasets` package.
    """
    # Imported here: it takes seconds, and neither bundled questions nor local files need it.
    try:
        from datasets import load_dataset
        from huggingface_hub.utils import logging as hub_logging

        hub_logging.set_verbosity_error()  # its retries are not the user's; the outcome is one line
        if where.files:
            files = [f"hf://datasets/{where.name}/{file}" for file in where.files]
            rows = list(load_dataset("json", None, split="train", data_files=files))
        else:
            rows = list(load_dataset(where.name, where.config, split=where.split))
    except Exception as error:  # the hub fails in many types, some of them private
        raise UserError(
            f"cannot load {where.name} from the Hugging Face hub ({hub_reason(error, where.name)}); "
            f"put its rows into DIR/{local_file} and give --data_dir DIR"
        ) from error
    if not rows:
        raise UserError(f"{where.name} has no questions")
    return rows


def _parse_line(path: Path, number: int, line: bytes) -> dict:
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}, line {number}: not UTF-8 (byte {line[error.start]:#04x}): save it as UTF-8"
        ) from error
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
