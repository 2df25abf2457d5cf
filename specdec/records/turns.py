"""Turns: how the turns of one conversation are numbered. Each is a question, with a record, of its own.

The first turn has its row's index, as a question of a single turn has; turn t of it, counted from 0, has t million
more. So numbers stay as they are when a file grows, or when later turns are asked for that were left out before.
"""

STRIDE = 1_000_000  # more rows than any data set asked here has


def turn_id(row: int, turn: int) -> int:
    """The question's number. `turn_id(3, 1) == 1000003`: the second turn of row 3."""
    return turn * STRIDE + row


def row_of(question_id: int) -> int:
    """The row that a question is of. `row_of(1000003) == 3`."""
    return question_id % STRIDE


def turn_of(question_id: int) -> int:
    """Which turn of its row a question is, from 0. `turn_of(1000003) == 1`."""
    return question_id // STRIDE


def question_name(question_id: int) -> str:
    """For people: "3", or "3 turn 2"."""
    turn = turn_of(question_id)
    return f"{row_of(question_id)} turn {turn + 1}" if turn else str(row_of(question_id))


def natural(question_id: int) -> tuple[int, int]:
    """For sorting: the turns of a row stand together."""
    return row_of(question_id), turn_of(question_id)
