"""Scopes: which questions a ranking is over: one target's, of one data set, with one budget, or all of them together.

Questions of two data sets are never pooled in silence: `each` tells them apart, and `scope_of` names what a ranking
holds.
"""

from collections.abc import Sequence
from typing import Any

from specdec.ranking.entries import Entry
from specdec.ranking.source import Source

ALL = "all"  # the data set of a ranking over several


def each(stats: Sequence[Entry]) -> list[list[Entry]]:
    """The entries of every target, data set and budget, in order of their names; all as one where a log does not say.

    One group, or none, is the whole.
    """
    if any(not entry.source.dataset for entry in stats):
        return [list(stats)]
    groups: dict[tuple[str, str, int], list[Entry]] = {}
    for entry in stats:
        groups.setdefault(_key(entry.source), []).append(entry)
    return [groups[key] for key in sorted(groups)]


def scope_of(stats: Sequence[Entry]) -> dict[str, Any]:
    """`{"target": "bundled", "dataset": "gsm8k", "max_new_tokens": 96}`; data sets together are ALL; "" if unknown."""
    sources = {entry.source for entry in stats}
    datasets = sorted({source.dataset for source in sources} - {""})
    budgets = sorted({source.max_new_tokens for source in sources if source.max_new_tokens is not None})
    return {
        "target": ", ".join(sorted({source.target for source in sources} - {""})),
        "dataset": ALL if len(datasets) > 1 else "".join(datasets),
        "max_new_tokens": budgets[0] if len(budgets) == 1 else ", ".join(map(str, budgets)),
    }


def num_questions(stats: Sequence[Entry]) -> int:
    return len({(entry.source, entry.question_id) for entry in stats})


def _key(source: Source) -> tuple[str, str, int]:
    return source.target, source.dataset, source.max_new_tokens or 0
