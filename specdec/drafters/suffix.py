"""Suffix decoding: what followed most often where the text's last words stood before. No model, no pass.

Of every length m of a match between the text's end and an earlier place, the most frequent way on is followed from
token to token, for as long as the product of its shares stays at or above a floor, for at most m x factor + offset
tokens. The match is taken from which most tokens are to be expected. `suffix_tree.py` counts.

Source: SuffixDecoding (arXiv 2411.04975) as the program ArcticInference runs it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np

from specdec.decoding.chains import Chain, Chains, Text
from specdec.decoding.stopping import Draft, cut_after_stop
from specdec.drafters.base import Drafter, Family, Recorded, Recording, Setup, Spec, number_text
from specdec.drafters.earlier import NOTHING, Earlier
from specdec.drafters.flags import AMOUNTS, LENGTHS, PROBABILITIES, Flag
from specdec.drafters.suffix_tree import Guess, SuffixTree

if TYPE_CHECKING:
    from torch import Tensor

MAX_DEPTH = Flag("suffix_depth", "suffix decoding: tokens of a match and its draft, at most", (64,), (), LENGTHS)
FACTOR = Flag("suffix_factor", "suffix decoding: a match of M tokens drafts M x this + the offset", (1.0,), (), AMOUNTS)
OFFSET = Flag("suffix_offset", "suffix decoding: tokens that a match of any length drafts more", (0.0,), (), AMOUNTS)
FLOOR = Flag("suffix_floor", "suffix decoding: a draft ends before it is less probable", (0.1,), (), PROBABILITIES)
MIN_SCORE = Flag("suffix_min_score", "suffix decoding: tokens to be expected of a draft, at least", (0.0,), (), AMOUNTS)
READS_EARLIER = Flag("suffix_earlier", "suffix decoding: draft from the answers to the run's earlier questions as well")
LONGEST = Flag("suffix_max_draft_len", "suffix decoding: tokens of a draft, at most", (64,), (), LENGTHS)


# How a setting that is not the published program's stands in a name.
EARLIER = "_earlier"
LETTERS = {"factor": "f", "offset": "o", "floor": "p", "min_score": "s", "max_draft_len": "n"}


@dataclass(frozen=True)
class Suffix(Spec):
    """Suffix decoding within these limits; the defaults are the published program's.

    A match and its draft have at most `max_depth` tokens together. A draft from which fewer than `min_score` tokens are
    to be expected is left out. `earlier`: it also drafts from the answers to the questions before, and from its own
    answer without the prompt beside them, where more is to be expected of these.
    """

    max_depth: int = 64
    factor: float = 1.0
    offset: float = 0.0
    floor: float = 0.1
    min_score: float = 0.0
    max_draft_len: int = 64
    earlier: bool = False

    name_pattern = "suffix_{max_depth}"
    label_pattern = "suffix decoding, depth {max_depth}"
    swept: ClassVar[tuple[Flag, ...]] = (MAX_DEPTH, FACTOR, OFFSET, FLOOR, MIN_SCORE, LONGEST, READS_EARLIER)
    kind = "suffix"
    title = "suffix decoding"
    hue = "#F0E442"
    marker = "h"
    serving = {
        "vLLM": {
            "method": "suffix",
            "num_speculative_tokens": "{max_draft_len}",
            "suffix_decoding_max_tree_depth": "{max_depth}",
            "suffix_decoding_max_spec_factor": "{factor}",
            "suffix_decoding_min_token_prob": "{floor}",
            "suffix_decoding_max_cached_requests": "0",
        }
    }
    not_served = "it has no suffix decoding of these settings"
    is_default = False

    @property
    def name(self) -> str:
        others = "".join(f"_{LETTERS[key]}{value!r}" for key, value in self._unlike_published().items())
        return super().name + others + EARLIER * self.earlier

    @property
    def variant(self) -> str:
        others = [f"{LETTERS[key]}{number_text(value)}" for key, value in self._unlike_published().items()]
        return " ".join([*others, *["earlier"] * self.earlier])

    @property
    def label(self) -> str:
        others = [f"{key.replace('_', ' ')} {number_text(value)}" for key, value in self._unlike_published().items()]
        return ", ".join([super().label, *others, *["earlier answers"] * self.earlier])

    def _unlike_published(self) -> dict[str, float]:
        """The settings that are not as published, in the order of LETTERS."""
        asked = {key: (type(getattr(Suffix, key))(getattr(self, key)), getattr(Suffix, key)) for key in LETTERS}
        return {key: value for key, (value, usual) in asked.items() if value != usual}

    @classmethod
    def parse(cls, name: str) -> Self | None:
        endings = "".join(rf"(?:_{letter}(?P<{key}>[0-9.e+-]+))?" for key, letter in LETTERS.items())
        found = re.fullmatch(rf"suffix_(?P<max_depth>\d+){endings}", name.removesuffix(EARLIER))
        if found is None:
            return None
        given = {key: type(getattr(Suffix, key))(text) for key, text in found.groupdict().items() if text is not None}
        spec = cls(**given, earlier=name.endswith(EARLIER))
        return spec if spec.name == name else None  # one spelling each

    def limit(self, match_len: int) -> int:
        """How many tokens a match of this length drafts at most. Example: `Suffix(factor=1.5).limit(3) == 4`."""
        wanted = np.float32(match_len) * np.float32(self.factor) + np.float32(self.offset)
        return min(self.max_draft_len, int(float(wanted) + 1e-6), self.max_depth - match_len)

    def is_served(self, server: str) -> bool:
        return super().is_served(server) and not (self.offset or self.min_score or self.earlier)

    @property
    def reads_earlier(self) -> bool:
        return self.earlier

    @property
    def chains_name(self) -> str | None:
        """None where no trace can hold them: they come from other questions' texts as well."""
        return None if self.earlier else self.name

    def derived_chains(self, trace: Recorded) -> Chains:
        text = Text([*trace.prompt_ids, *trace.output_tokens], len(trace.prompt_ids), trace.num_prefixes)
        return Chains.pack(self.name, {}, self.max_draft_len, suffix_chains(text, self))

    def drafter(self, setup: Setup) -> Drafter:
        return SuffixDrafter(self, setup.stop_ids, setup.earlier)

    def replayed(self, trace: Recorded, setup: Setup) -> Drafter:
        """The live drafter: all that it reads are texts."""
        return SuffixDrafter(self, trace.stop_ids, setup.earlier)


class SuffixReader(Drafter):
    """What has been read of the text, and of earlier answers where the spec wants them; the next prefix says what was
    kept of a draft."""

    def __init__(self, spec: Suffix, stop_ids: Collection[int], earlier: Earlier = NOTHING) -> None:
        self.spec, self.stop_ids, self.earlier = spec, stop_ids, earlier
        self.reset()

    def reset(self, features: Tensor | None = None) -> None:
        self._tree, self._prompt_len = SuffixTree(self.spec.max_depth), 0
        if self.spec.earlier:
            answers_of(self.spec).with_last([], self.earlier)

    def texts(self, ids: list[int]) -> Iterator[SuffixTree]:
        """What is drafted from after a text: itself, and the answers. A text that is not the one before's goes on
        anew."""
        known = len(self._tree.tokens)
        if not known or self._tree.tokens != ids[:known]:
            self.reset()
            self._prompt_len = len(ids)
        self._tree.extend(ids[len(self._tree.tokens) :])
        yield self._tree
        if self.spec.earlier:
            yield answers_of(self.spec).with_last(ids[self._prompt_len :], self.earlier)


class SuffixDrafter(SuffixReader):
    """Drafts in a row."""

    def propose(self, prefix_ids: Sequence[int], budget: int) -> Draft:
        guess = self.guess(prefix_ids)
        tokens = cut_after_stop(guess.tokens[: max(budget, 0)], self.stop_ids)
        asked_len, shares = len(guess.tokens), guess.shares[: len(tokens)]
        if not tokens:
            return Draft(asked_len=asked_len)
        reason = "stop_token" if tokens[-1] in self.stop_ids else "length"
        return Draft(tokens, shares, stop_reason=reason, token_confidences=[*shares], asked_len=asked_len)

    def guess(self, prefix_ids: Sequence[int]) -> Guess:
        """What may follow a text, whatever the budget and the stop tokens."""
        ids = list(prefix_ids)
        found = max((best_guess(tree, ids, self.spec) for tree in self.texts(ids)), key=lambda guess: guess.score)
        return found if found.score >= np.float32(self.spec.min_score) else Guess()


class Answers:
    """The tree of a run's answers so far, and of the one that is being written. It is kept from question to question,
    and holds what it would hold had it been made anew."""

    def __init__(self, max_depth: int) -> None:
        self.tree = SuffixTree(max_depth)
        self._texts: list[list[int]] = [[]]
        self._earlier = NOTHING

    def with_last(self, text: list[int], earlier: Earlier) -> SuffixTree:
        """The tree of the answers before and, last of all, of a text."""
        if earlier is not self._earlier or not self._goes_on(text):
            self._begin([*map(list, earlier.read()), []])
            self._earlier = earlier
        self._extend(text)
        return self.tree

    def _begin(self, wanted: list[list[int]]) -> None:
        """Hold these texts; what is held already, the last of it perhaps in part, is not read again."""
        last = len(self._texts) - 1
        if last >= len(wanted) or self._texts[:last] != wanted[:last] or not self._goes_on(wanted[last]):
            self.tree, self._texts, last = SuffixTree(self.tree.max_depth), [[]], 0
        self._extend(wanted[last])
        for text in wanted[last + 1 :]:
            self.tree.begin()
            self._texts.append([])
            self._extend(text)

    def _goes_on(self, text: list[int]) -> bool:
        """Whether a text begins with the last that is held."""
        return text[: len(self._texts[-1])] == self._texts[-1]

    def _extend(self, text: list[int]) -> None:
        new = text[len(self._texts[-1]) :]
        self.tree.extend(new)
        self._texts[-1] += new


@lru_cache(maxsize=8)
def answers_of(spec: Suffix) -> Answers:
    """What a drafter has read in this process."""
    return Answers(spec.max_depth)


def best_guess(tree: SuffixTree, ids: Sequence[int], spec: Suffix) -> Guess:
    """From which match between the end of `ids` and the tree's texts most is to be expected; of equals the longest."""
    best, floor = Guess(), np.float32(spec.floor)
    matches = tree.matches(ids[-spec.max_depth :])
    for match_len in range(len(matches), 0, -1):
        limit = spec.limit(match_len)
        if limit > best.score:  # for no token counts more than one
            guess = tree.follow(matches[match_len - 1], limit, floor)
            best = guess if guess.score > best.score else best
    return best


def suffix_chains(text: Text, spec: Suffix) -> list[Chain]:
    """What it would draft after every prefix, known before any pass."""
    drafter, made = SuffixDrafter(spec, ()), []
    for at in text.prefix_lens:
        guess = drafter.guess(text.ids[:at])
        made.append(Chain(guess.tokens, guess.shares, [0] * len(guess.tokens), [], [], []))
    return made


def record(recording: Recording, wanted: Mapping[str, int]) -> dict[str, list[Chain]]:
    """One chain per prefix, from the text alone."""
    specs = {name: Suffix.parse(name) for name in wanted}
    return {name: suffix_chains(recording.text, spec) for name, spec in specs.items() if spec is not None}


FAMILY = Family((Suffix,), Suffix.swept, record)
