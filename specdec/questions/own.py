"""Questions of one's own: a JSON-lines file, or a folder of some, a question a line.

A line has one of `prompt` (text), `messages` (a conversation as chat programs hand it on, to be answered after its last
turn) and `turns` (texts of the user's, each answered by the target before the next is asked); beside it, as one likes,
`system`, `reference`, `category` and `id`. Other fields are kept with the record and mean nothing here.
"""

from pathlib import Path
from typing import Any

from specdec.errors import UserError
from specdec.questions.formats import Asked
from specdec.questions.problem import ASSISTANT, ROLES, SYSTEM, USER, Message
from specdec.questions.rows import numbered_jsonl

ENDING = ".jsonl"
KINDS = ("prompt", "messages", "turns")


def name_of(given: str) -> str | None:
    """What a file or folder of one's own is called, in paths and tables; None for what is neither.

    "logs/traffic.jsonl" gives "traffic.jsonl", and so does a folder "logs/traffic": no data set of the program's is
    called so. Raises UserError for a file that is not there.
    """
    path = Path(given).expanduser()
    if is_own(path.name):
        if not path.exists():
            raise UserError(f"--dataset_name {given}: there is no such file")
        return path.name
    if path.is_file():
        raise UserError(f"--dataset_name {given}: questions are read from JSON lines: name the file NAME{ENDING}")
    return f"{path.resolve().name}{ENDING}" if path.is_dir() else None


def is_own(dataset: str) -> bool:
    """Whether a data set is a file or folder of the user's, by its name."""
    return dataset.endswith(ENDING)


def read_rows(path: Path) -> list[tuple[str, dict]]:
    """Every row with its place: "traffic.jsonl, line 3". Files of a folder in the order of their names; rows without a
    category have their file's name for one.

    Raises UserError that names file and line: not there, not JSON lines in UTF-8, empty, an `id` given twice.
    """
    files = sorted(path.glob(f"*{ENDING}")) if path.is_dir() else [path]
    if not files:
        raise UserError(f"{path} has no {ENDING} file in it")
    found = [(file, number, row) for file in files for number, row in numbered_jsonl(file)]
    if path.is_dir():
        found = [(file, number, {**row, "category": row.get("category", file.stem)}) for file, number, row in found]
    rows = [(f"{file}, line {number}", row) for file, number, row in found]
    _check_ids(rows)
    return rows


def _check_ids(rows: list[tuple[str, dict]]) -> None:
    seen: dict[str, str] = {}
    for place, row in rows:
        if row.get("id") is None:
            continue
        key = repr(row["id"])
        if key in seen:
            raise UserError(f"{place}: field 'id' is {key:.60}, as in {seen[key]}: give every question its own")
        seen[key] = place


def read(row: dict) -> Asked:
    """What a row asks. Raises UserError that names the field which is wrong."""
    given = [kind for kind in KINDS if row.get(kind) is not None]
    if not given:
        raise UserError(f"no field 'prompt', 'messages' or 'turns' (it has: {', '.join(map(str, row)) or 'none'})")
    if len(given) > 1:
        raise UserError(f"fields '{given[0]}' and '{given[1]}' are two questions: give one of them")
    if row.get("category") is not None:
        _text(row["category"], "field 'category'")
    before: tuple[Message, ...] = ()
    if row.get("system") is not None:
        before = ((SYSTEM, _text(row["system"], "field 'system'")),)
    if given == ["messages"]:
        *said, (_, prompt) = _messages(row["messages"], has_system=bool(before))
        before, prompts = (*before, *said), [prompt]
    else:
        prompts = _prompts(row[given[0]], given[0])
    return Asked(tuple(zip(prompts, _references(row.get("reference"), len(prompts)), strict=True)), before)


def _prompts(value: Any, kind: str) -> list[str]:
    if kind == "prompt":
        return [_text(value, "field 'prompt'")]
    if not isinstance(value, list) or not value:
        raise UserError("field 'turns' is not a list of texts")
    return [_text(one, f"field 'turns', turn {at}") for at, one in enumerate(value, 1)]


def _messages(value: Any, *, has_system: bool) -> list[Message]:
    if not isinstance(value, list) or not value:
        raise UserError("field 'messages' is not a list of messages")
    found = [_message(one, f"field 'messages', message {at}") for at, one in enumerate(value, 1)]
    places = [at for at, (role, _) in enumerate(found) if role == SYSTEM]
    if places and has_system:
        raise UserError("field 'messages' has a system message, and field 'system' is another: give one of them")
    if places not in ([], [0]):
        raise UserError(f"field 'messages', message {places[-1] + 1}: a system message can only be the first")
    if found[-1][0] != USER:
        what = "an assistant" if found[-1][0] == ASSISTANT else "a system"
        raise UserError(f"field 'messages' ends with {what} turn: the last must be the user's, which is answered")
    return found


def _message(value: Any, what: str) -> Message:
    if not isinstance(value, dict):
        raise UserError(f"{what} is not an object with a role and a content")
    role = value.get("role")
    if role not in ROLES:
        raise UserError(f"{what} has the unknown role {role!r:.40} (known: {', '.join(ROLES)})")
    return str(role), _text(value.get("content"), f"{what}: content")


def _references(value: Any, count: int) -> list[str | None]:
    """A reference each turn; a single one belongs to the last turn."""
    if isinstance(value, list):
        if len(value) != count:
            raise UserError(f"field 'reference' has {len(value)} entries for {count} turns")
        return [None if one is None else _text(one, "field 'reference'") for one in value]
    return [None] * (count - 1) + [None if value is None else _text(value, "field 'reference'")]


def _text(value: Any, what: str) -> str:
    """Text, or a number as text. Raises UserError for anything else, and for a text without a character."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise UserError(f"{what} is not text")
    if not str(value).strip():
        raise UserError(f"{what} is empty")
    return str(value)
