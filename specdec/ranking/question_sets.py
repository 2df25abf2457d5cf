"""Question sets: which questions each configuration answered, and what remains when only common ones count.

Averages over different questions cannot be compared; this says where that would happen.
"""

from collections.abc import Callable, Iterable, Sequence

from specdec.errors import UserError
from specdec.ranking.entries import UNKNOWN, Entry
from specdec.ranking.ranking import by_drafter, engines_of, priced_under
from specdec.ranking.source import Source

Question = tuple[Source, int]  # source and index


def question_key(stats: Iterable[Entry]) -> Callable[[Entry], Question]:
    """What tells the questions of `stats` apart: source and index.

    A log of the published program does not state its source; where one takes part, the index decides alone.
    """
    has_sources = all(entry.settings for entry in stats)
    return lambda entry: (entry.source if has_sources else UNKNOWN, entry.question_id)


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
