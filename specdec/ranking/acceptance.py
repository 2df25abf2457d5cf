"""Acceptance: rounds by what they drafted, accepted and emitted, and what follows: rates by position, histograms.

Counts are kept and rates derived; docs/measures.md defines every one of them. Positions count from 1. Not here: means
over questions and their intervals (`quantities.py`).
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from specdec.records.fields import is_count
from specdec.records.record import Record
from specdec.records.rounds import Round

MAX_LEN = 1_000_000  # tokens of a draft: a log that says more is damaged


class Shape(NamedTuple):
    """What a round came to, in tokens."""

    drafted: int  # of a tree, the places of the text that it guessed at before the first without a right guess
    accepted: int
    emitted: int  # the target's own token, the bonus, included: one more than accepted, unless the output ends before


@dataclass(frozen=True)
class RoundCounts:
    """How many rounds have each shape, in the order of shapes."""

    counts: tuple[tuple[Shape, int], ...]

    @classmethod
    def of(cls, record: Record) -> "RoundCounts":
        return cls._made(Counter(map(_shape, record.rounds)))

    @classmethod
    def united(cls, parts: Iterable["RoundCounts"]) -> "RoundCounts":
        """The rounds of all of them together."""
        total: Counter[Shape] = Counter()
        for part in parts:
            total.update(dict(part.counts))
        return cls._made(total)

    @classmethod
    def _made(cls, counts: Mapping[Shape, int]) -> "RoundCounts":
        return cls(tuple(sorted(counts.items())))

    def to_log(self) -> list[list[int]]:
        """`[drafted, accepted, emitted, rounds]` of every shape, as a log line says it."""
        return [[*shape, count] for shape, count in self.counts]

    @classmethod
    def from_log(cls, data: Any) -> "RoundCounts":
        """The inverse of `to_log`. Raises ValueError or TypeError for anything else."""
        found: dict[Shape, int] = {}
        for drafted, accepted, emitted, count in data:
            is_known = all(is_count(one) for one in (drafted, accepted, emitted, count)) and drafted < MAX_LEN
            if not (is_known and accepted <= drafted and emitted in (accepted, accepted + 1)):
                raise ValueError("no shape of a round")
            found[Shape(drafted, accepted, emitted)] = count
        return cls._made(found)

    @property
    def num_rounds(self) -> int:
        return sum(count for _, count in self.counts)

    @property
    def num_drafts(self) -> int:
        """Rounds that drafted anything: what rates are of."""
        return sum(count for shape, count in self.counts if shape.drafted)

    @property
    def num_positions(self) -> int:
        """How far anything can be said: the last position that was drafted after all before it were accepted."""
        return max((min(shape.drafted, shape.accepted + 1) for shape, _ in self.counts), default=0)

    @property
    def histogram(self) -> list[int]:
        """`histogram[k]`: rounds with a draft of which exactly k tokens were accepted."""
        return _tally((shape.accepted, count) for shape, count in self.counts if shape.drafted)

    @property
    def emitted_histogram(self) -> list[int]:
        """`emitted_histogram[k]`: rounds, drafting or not, that emitted exactly k tokens, bonus included."""
        return _tally((shape.emitted, count) for shape, count in self.counts)

    @property
    def num_accepted_at(self) -> list[int]:
        """Of positions 1, 2, ...: rounds whose draft was accepted up to there, or farther."""
        return self._reaching(lambda shape: shape.accepted)

    @property
    def num_reached_at(self) -> list[int]:
        """Of positions 1, 2, ...: rounds that drafted this one and had all before it accepted."""
        return self._reaching(lambda shape: min(shape.drafted, shape.accepted + 1))

    def _reaching(self, end: Callable[[Shape], int]) -> list[int]:
        """Of positions 1, 2, ...: rounds whose `end` lies there or farther."""
        ends = [(end(shape), count) for shape, count in self.counts]
        return [sum(count for last, count in ends if last >= i) for i in range(1, self.num_positions + 1)]

    @property
    def unconditional(self) -> list[float]:
        """Of positions 1, 2, ...: accepted up to there / rounds with a draft."""
        return [count / self.num_drafts for count in self.num_accepted_at]

    @property
    def conditional(self) -> list[float]:
        """Of positions 1, 2, ...: accepted there / drafted there with all before it accepted."""
        pairs = zip(self.num_accepted_at, self.num_reached_at, strict=True)
        return [accepted / reached for accepted, reached in pairs]

    def to_builtins(self) -> dict[str, Any]:
        """As JSON data: the counts, and the rates to 6 digits."""
        return {
            "num_rounds": self.num_rounds,
            "num_drafts": self.num_drafts,
            "histogram": self.histogram,
            "num_reached_at": self.num_reached_at,
            "unconditional": [round(rate, 6) for rate in self.unconditional],
            "conditional": [round(rate, 6) for rate in self.conditional],
        }


def _shape(turn: Round) -> Shape:
    drafted = turn.num_reached if turn.is_tree else turn.draft_len
    return Shape(drafted, turn.accepted_len, turn.num_emitted)


def _tally(pairs: Iterable[tuple[int, int]]) -> list[int]:
    """`_tally([(0, 2), (3, 1), (0, 1)]) == [3, 0, 0, 1]`."""
    total: Counter[int] = Counter()
    for value, count in pairs:
        total[value] += count
    return [total[value] for value in range(max(total, default=-1) + 1)]
