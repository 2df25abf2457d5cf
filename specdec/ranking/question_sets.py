"""Question sets: which questions each configuration answered, and what remains when only common ones count.

Averages over different questions cannot be compared; this says where that would happen.
"""

from collections.abc import Callable, Iterable, Sequence

from specdec.errors import UserError
from specdec.ranking.entries import PLAIN, UNKNOWN, Entry
from specdec.ranking.ranking import by_drafter, engines_of, priced_under
from specdec.ranking.source import Source
from specdec.ranking.statistics import MIN_QUESTIONS
from specdec.records.turns import row_of

Question = tuple[Source, int]  # source and index
Row = tuple[str, int]  # data set and row: what is drawn independently of others


def question_key(stats: Iterable[Entry]) -> Callable[[Entry], Question]:
    """What tells the questions of `stats` apart: source and index.

    A log of the published program does not state its source; where one takes part, the index decides alone.
    """
    has_sources = all(entry.settings for entry in stats)
    return lambda entry: (entry.source if has_sources else UNKNOWN, entry.question_id)


def row_key(stats: Iterable[Entry]) -> Callable[[Entry], Row]:
    """What questions of one row share: the turns of a conversation, and a question asked under several budgets.

    They resemble each other, so that statistics count them once (`table.py`).
    """
    key = question_key(stats)

    def row(entry: Entry) -> Row:
        source, question_id = key(entry)
        return source.dataset or source.name, row_of(question_id)

    return row


def num_rows(stats: Sequence[Entry]) -> int:
    """How many rows the drafters' questions are of: conversations, where these have turns."""
    return len(set(map(row_key(stats), (entry for entry in stats if entry.drafter_name != PLAIN))))


def paired(stats: Sequence[Entry], columns: Sequence[list[Entry]]) -> list[list[list[Entry]]]:
    """Each column's entries by row, the rows in the same order and the questions in them too; [] if they cannot be
    paired, or are of fewer than MIN_QUESTIONS rows."""
    key, row = question_key(stats), row_key(stats)
    ordered = [sorted(column, key=key) for column in columns]
    questions = [[key(entry) for entry in column] for column in ordered]
    if not columns or any(other != questions[0] for other in questions) or len(set(questions[0])) < len(questions[0]):
        return []
    made = [_grouped(column, row) for column in ordered]
    return made if len(made[0]) >= MIN_QUESTIONS else []


def _grouped(column: Sequence[Entry], row: Callable[[Entry], Row]) -> list[list[Entry]]:
    found: dict[Row, list[Entry]] = {}
    for entry in column:
        found.setdefault(row(entry), []).append(entry)
    return list(found.values())


def unequal(stats: Sequence[Entry]) -> str:
    """How many questions each configuration has, where they are not the same ones; else "".

    `"ar_None_sf_8: 3, dllm_0.9_sf_8: 2"`; questions without an engine's price do not count under that engine.
    """
    for named in _sets(stats):
        if len(set(named.values())) > 1:
            return ", ".join(f"{name}: {len(questions)}" for name, questions in named.items())
    return ""


def comparable(stats: Sequence[Entry], allow_unequal: bool) -> tuple[list[Entry], str]:
    """(entries to rank, a sentence about the questions left out or "").

    Raises UserError where configurations answered different questions: always without `allow_unequal`, and
    with it if they have none in common.
    """
    counts = unequal(stats)
    if not counts:
        return list(stats), ""
    key = question_key(stats)
    common = set(map(key, stats))
    for named in _sets(stats):
        if len(set(named.values())) > 1:
            common.intersection_update(*named.values())
    if not common:
        raise UserError(f"the configurations have no question in common ({counts}): rank them apart")
    if not allow_unequal:
        raise UserError(
            f"the configurations were run on different questions ({counts}): run the missing ones, "
            f"or rank over the {len(common)} common ones with --allow_unequal"
        )
    kept = [entry for entry in stats if key(entry) in common]
    return kept, f"Careful: ranked over the {len(common)} questions that all configurations have ({counts})."


def _sets(stats: Sequence[Entry]) -> list[dict[str, frozenset[Question]]]:
    """Configuration -> its questions; over all entries, then per engine over those with its price."""
    key, found = question_key(stats), by_drafter(stats)
    priced = [{name: priced_under(engine, own) for name, own in found.items()} for engine in engines_of(stats)]
    return [{name: frozenset(map(key, own)) for name, own in group.items() if own} for group in (found, *priced)]
