"""Suffix decoding: what followed most often where the text's last words stood before. No model, no pass.

Of every length m of a match between the text's end and an earlier place, the most frequent way on is followed from
token to token, for as long as the product of its shares stays at or above a floor, for at most m x factor + offset
tokens. The match is taken from which most tokens are to be expected. `suffix_tree.py` counts.

Source: SuffixDecoding (arXiv 2411.04975) as the program ArcticInference runs it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from specdec.decoding.chains import Chain, Chains, Text
from specdec.decoding.stopping import Draft, cut_after_stop
from specdec.drafters.base import Drafter, Family, Recorded, Recording, Setup, Spec, number_text
from specdec.drafters.flags import AMOUNTS, LENGTHS, PROBABILITIES, Flag
from specdec.drafters.suffix_tree import Guess, SuffixTree

MAX_DEPTH = Flag("suffix_depth", "suffix decoding: tokens of a match and its draft, at most", (64,), (), LENGTHS)
FACTOR = Flag("suffix_factor", "suffix decoding: a match of M tokens drafts M x this + the offset", (1.0,), (), AMOUNTS)
OFFSET = Flag("suffix_offset", "suffix decoding: tokens that a match drafts beside", (0.0,), (), AMOUNTS)
FLOOR = Flag("suffix_floor", "suffix decoding: drafts end before they are less probable", (0.1,), (), PROBABILITIES)
MIN_SCORE = Flag("suffix_min_score", "suffix decoding: expect so many tokens, or draft none", (0.0,), (), AMOUNTS)
LONGEST = Flag("suffix_max_draft_len", "suffix decoding: tokens of a draft, at most", (64,), (), LENGTHS)


# How a setting that is not the published program's stands in a name.
LETTERS = {"factor": "f", "offset": "o", "floor": "p", "min_score": "s", "max_draft_len": "n"}


@dataclass(frozen=True)
class Suffix(Spec):
    """Suffix decoding within these limits; the defaults are the published program's.

    A match and its draft have at most `max_depth` tokens together. A draft from which fewer than `min_score` tokens are
    to be expected is left out.
    """

    max_depth: int = 64
    factor: float = 1.0
    offset: float = 0.0
    floor: float = 0.1
    min_score: float = 0.0
    max_draft_len: int = 64

    name_pattern = "suffix_{max_depth}"
    label_pattern = "suffix decoding, depth {max_depth}"
    swept = (MAX_DEPTH, FACTOR, OFFSET, FLOOR, MIN_SCORE, LONGEST)
    kind = "suffix"
    title = "suffix decoding"
    hue = "#F0E442"
    marker = "h"
    not_served = "its suffix decoding has no offset and no least score: docs/drafters/suffix.md has its words"
    is_default = False

    @property
    def name(self) -> str:
        return super().name + "".join(f"_{LETTERS[key]}{value!r}" for key, value in self._unlike_published().items())

    @property
    def variant(self) -> str:
        return " ".join(f"{LETTERS[key]}{number_text(value)}" for key, value in self._unlike_published().items())

    @property
    def label(self) -> str:
        others = [f"{key.replace('_', ' ')} {number_text(value)}" for key, value in self._unlike_published().items()]
        return ", ".join([super().label, *others])

    def _unlike_published(self) -> dict[str, float]:
        """The settings that are not as published, in the order of LETTERS."""
        asked = {key: (type(getattr(Suffix, key))(getattr(self, key)), getattr(Suffix, key)) for key in LETTERS}
        return {key: value for key, (value, usual) in asked.items() if value != usual}

    @classmethod
    def parse(cls, name: str) -> Self | None:
        endings = "".join(rf"(?:_{letter}(?P<{key}>[0-9.e+-]+))?" for key, letter in LETTERS.items())
        found = re.fullmatch(rf"suffix_(?P<max_depth>\d+){endings}", name)
        if found is None:
            return None
        given = {key: type(getattr(Suffix, key))(text) for key, text in found.groupdict().items() if text is not None}
        spec = cls(**given)
        return spec if spec.name == name else None  # one spelling each

    def limit(self, match_len: int) -> int:
        """How many tokens a match of this length drafts at most. Example: `Suffix(factor=1.5).limit(3) == 4`."""
        wanted = np.float32(match_len) * np.float32(self.factor) + np.float32(self.offset)
        return min(self.max_draft_len, int(float(wanted) + 1e-6), self.max_depth - match_len)

    @property
    def chains_name(self) -> str:
        return self.name

    def derived_chains(self, trace: Recorded) -> Chains:
        text = Text([*trace.prompt_ids, *trace.output_tokens], len(trace.prompt_ids), trace.num_prefixes)
        return Chains.pack(self.chains_name, {}, self.max_draft_len, suffix_chains(text, self))

    def drafter(self, setup: Setup) -> Drafter:
        return SuffixDrafter(self, setup.stop_ids)

    def replayed(self, trace: Recorded, setup: Setup) -> Drafter:
        """The live drafter: all that it reads is the text."""
        return SuffixDrafter(self, trace.stop_ids)


class SuffixDrafter(Drafter):
    """Drafts from what it has read; the next prefix says what was kept."""

    def __init__(self, spec: Suffix, stop_ids: Collection[int]) -> None:
        self.spec, self.stop_ids = spec, stop_ids
        self._tree = SuffixTree(spec.max_depth)

    def reset(self) -> None:
        self._tree = SuffixTree(self.spec.max_depth)

    def propose(self, prefix_ids: Sequence[int], budget: int) -> Draft:
        guess = self.guess(prefix_ids)
        tokens = cut_after_stop(guess.tokens[: max(budget, 0)], self.stop_ids)
        asked_len, shares = len(guess.tokens), guess.shares[: len(tokens)]
        if not tokens:
            return Draft(asked_len=asked_len)
        reason = "stop_token" if tokens[-1] in self.stop_ids else "length"
        return Draft(tokens, shares, stop_reason=reason, token_confidences=[*shares], asked_len=asked_len)

    def guess(self, prefix_ids: Sequence[int]) -> Guess:
        """What may follow a text, whatever the budget and the stop tokens; a text that is not the one before's goes on
        anew."""
        ids = list(prefix_ids)
        if self._tree.tokens != ids[: len(self._tree.tokens)]:
            self._tree = SuffixTree(self.spec.max_depth)
        self._tree.extend(ids[len(self._tree.tokens) :])
        found = best_guess(self._tree, ids, self.spec)
        return found if found.score >= np.float32(self.spec.min_score) else Guess()


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


FAMILY = Family((Suffix,), (MAX_DEPTH, FACTOR, OFFSET, FLOOR, MIN_SCORE, LONGEST), record)
