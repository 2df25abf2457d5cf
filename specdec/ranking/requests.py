"""Requests: records as what a simulated server runs: the rounds of every drafter over the same questions, as arrays.

`latency/load.py` serves them. Plain decoding is always among them: a token a round.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product

import numpy as np

from specdec.decoding.cost_aware import has_seen
from specdec.drafters.families import known_spec, parse_name
from specdec.drafters.plain import PLAIN
from specdec.errors import UserError
from specdec.latency.pricing import tree_extra_ms
from specdec.latency.profile import LatencyProfile
from specdec.latency.serving import Recorded
from specdec.questions.repetition import is_degenerate
from specdec.records.record import Record
from specdec.records.turns import row_of

Question = tuple[str, int, int]  # data set, number, budget
NEVER = 2**40  # requests: what no server runs


@dataclass(frozen=True)
class Requests:
    """The common questions of some drafters' records, in order; `drafters` begins with plain decoding."""

    target: str
    questions: tuple[Question, ...]
    drafters: tuple[str, ...]
    records: Mapping[tuple[str, Question], Record]

    @cached_property
    def prompt_lens_Q(self) -> np.ndarray:
        return np.array([len(self._any(one).prompt_ids) for one in self.questions])

    @cached_property
    def output_lens_Q(self) -> np.ndarray:
        return np.array([self._any(one).num_output_tokens for one in self.questions])

    def texts(self) -> list[tuple[list[int], list[int]]]:
        """Each question's prompt and answer, in tokens."""
        found = [self._any(question) for question in self.questions]
        return [(one.prompt_ids, one.output_tokens) for one in found]

    @cached_property
    def groups(self) -> list[np.ndarray]:
        """The questions by conversation: its turns resemble each other, and count as one observation."""
        found: dict[tuple[str, int, int], list[int]] = {}
        for place, (dataset, number, budget) in enumerate(self.questions):
            found.setdefault((dataset, row_of(number), budget), []).append(place)
        return [np.array(places) for places in found.values()]

    @cached_property
    def kinds(self) -> tuple[str, ...]:
        """What the passes are priced as that any drafter makes."""
        return tuple(sorted({*map(self.kind_of, self.drafters)} - {""}))

    def kind_of(self, drafter: str) -> str:
        """What its passes are priced as; "" where it makes none."""
        has_passes = self.tables[0][self._span(self.drafters.index(drafter))].any()
        return parse_name(drafter).passes_priced_as if has_passes else ""

    def without(self, names: Collection[str]) -> "Requests":
        """The same without these drafters."""
        return replace(self, drafters=tuple(name for name in self.drafters if name not in names))

    @cached_property
    def tables(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Passes, drafted, accepted and emitted tokens of all rounds, by drafter and question."""
        rows = [row for name in self.drafters for question in self.questions for row in self._rounds(name, question)]
        passes_F, drafted_F, accepted_F, emitted_F = np.array(rows, int).T
        return passes_F, drafted_F, accepted_F, emitted_F

    @cached_property
    def spans_2WQ(self) -> np.ndarray:
        """Where the rounds of each begin, and where they end."""
        numbers = [[len(self._rounds(name, question)) for question in self.questions] for name in self.drafters]
        ends_WQ = np.cumsum(numbers).reshape(len(self.drafters), -1)
        return np.stack([ends_WQ - np.array(numbers), ends_WQ])

    def beside_ms(self, profile: LatencyProfile, entry: str) -> np.ndarray:
        """Of all rounds, as in `tables`, what their trees take beyond drafts in a row, by pricing's own rule."""
        spans = product(self.drafters, self.questions)
        parts = [self._beside_ms(name, question, profile, entry) for name, question in spans]
        return np.concatenate(parts)

    def policy(self, drafters: np.ndarray, beside_ms_F: np.ndarray, off_above: np.ndarray | None = None) -> Recorded:
        """Servers that take these drafters' rounds, by their places; where more than `off_above` run, plain ones."""
        limit = np.full(len(drafters), NEVER) if off_above is None else off_above
        (begins_WQ, ends_WQ), plain = self.spans_2WQ, np.zeros(len(drafters), int)
        return Recorded(*self.tables, beside_ms_F, begins_WQ, ends_WQ, drafters, plain, limit)

    def kinds_of(self, drafters: np.ndarray, kinds: Sequence[str]) -> np.ndarray:
        """The place of each one's kind of passes among `kinds`; 0 where it makes none."""
        words = [parse_name(self.drafters[at]).passes_priced_as for at in drafters]
        return np.array([kinds.index(word) if word in kinds else 0 for word in words])

    @property
    def has_reuse(self) -> bool:
        """Whether any drafter goes on with what was rejected (`--reuse_drafts`)."""
        return any(record.identity.settings.get("reuse_drafts") for record in self.records.values())

    def acceptance_len(self, drafter: str) -> float:
        """Tokens a round, bonus included, over all questions."""
        span = self._span(self.drafters.index(drafter))
        return float(self.tables[3][span].mean())

    def _span(self, at: int) -> slice:
        return slice(int(self.spans_2WQ[0, at, 0]), int(self.spans_2WQ[1, at, -1]))

    def _any(self, question: Question) -> Record:
        return next(
            self.records[name, question] for name in (PLAIN, *self.drafters) if (name, question) in self.records
        )

    def _rounds(self, name: str, question: Question) -> list[tuple[int, int, int, int]]:
        record = self.records.get((name, question))
        if record is None:  # of plain decoding alone, which follows from any other's text
            return [(0, 0, 0, 1)] * self._any(question).num_output_tokens
        return [
            (turn.num_forward_passes, turn.draft_len, turn.accepted_len, len(turn.emitted_tokens))
            for turn in record.rounds
        ]

    def _beside_ms(self, name: str, question: Question, profile: LatencyProfile, entry: str) -> np.ndarray:
        record, spec = self.records.get((name, question)), parse_name(name)
        if record is None or entry not in profile.trees:
            return np.zeros(len(self._rounds(name, question)))
        return np.array([sum(tree_extra_ms(profile, entry, spec, turn)) for turn in record.rounds])


def without_loops(records: Sequence[Record]) -> list[Record]:
    """Those of questions that no drafter answered with mostly one loop, which is easy to draft. UserError if none."""
    loops = {_key(record) for record in records if is_degenerate(record.output_tokens)}
    kept = [record for record in records if _key(record) not in loops]
    if not kept:
        raise UserError("every answer is mostly one loop: leave out --without_degenerate")
    return kept


def _key(record: Record) -> Question:
    return record.identity.dataset, record.question_id, record.identity.max_new_tokens


def requests_of(records: Sequence[Record], allow_unequal: bool = False, allow_seen: bool = False) -> Requests:
    """The requests of some records. Raises UserError: several targets, no drafter, an empty answer, drafters of other
    questions than the rest (unless `allow_unequal`: the common ones), a policy on what taught it (but `allow_seen`)."""
    targets = sorted({record.identity.target for record in records})
    if len(targets) > 1:
        raise UserError(f"records of several targets ({', '.join(targets)}): give one, as OUTPUT_DIR/pickles/TARGET")
    found: dict[str, dict[Question, Record]] = {}
    for record in records:
        if not record.rounds:
            raise UserError(f"question {record.question_id}, {record.drafter_name}: an empty answer cannot be served")
        found.setdefault(record.drafter_name, {})[_key(record)] = record
    drafters = [name for name in found if name != PLAIN]
    for name in drafters:
        if known_spec(name) is None:
            raise UserError(f"{name} is not a drafter of this program: what its passes cost is not known")
    if not drafters:
        raise UserError("the records are of plain decoding alone: give those of a drafter")
    common = set.intersection(*(set(found[name]) for name in drafters))
    taught = {key for own in found.values() for key, one in own.items() if has_seen(one.provenance)}
    if taught & common and not allow_seen:
        raise UserError(
            f"a policy has learnt from question {min(taught & common)[1]}: run others, or give --allow_seen"
        )
    short = next((name for name in drafters if len(common) < len(found[name])), None)
    if not common or (short and not allow_unequal):
        raise UserError(
            "the drafters were run on different questions: --allow_unequal takes those that all of them have"
        )
    questions = tuple(key for key in found[drafters[0]] if key in common)
    kept = {(name, key): one for name, own in found.items() for key, one in own.items() if key in common}
    if not all((PLAIN, key) in kept for key in common):
        kept = {key: one for key, one in kept.items() if key[0] != PLAIN}
    return Requests(targets[0], questions, (PLAIN, *drafters), kept)
