"""Prompt lookup: the tokens that followed the text's own last words when they stood there before. No model, no pass.

The last `match_len` tokens, then fewer down to one, are looked for in the prompt and the output so far, the newest
place first; the tokens that followed there, up to `draft_len`, are the draft. Every drafter must beat it.

Source: prompt lookup decoding as in transformers' `generate(prompt_lookup_num_tokens=...)`, which takes the oldest
place instead of the newest.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from specdec.decoding.chains import Chain, Chains, Text
from specdec.decoding.stopping import Draft, cut_after_stop
from specdec.drafters.base import Drafter, Family, Recorded, Recording, Setup, Spec
from specdec.drafters.flags import DRAFT_LEN, LENGTHS, Flag

if TYPE_CHECKING:
    from torch import Tensor

OLDEST = "it looks up the oldest place where the words stood, ours the newest"
MATCH_LEN = Flag("match_len", "prompt lookup: the longest run of last tokens that is looked up", (3,), (), LENGTHS)


@dataclass(frozen=True)
class Lookup(Spec):
    """Looks up the last `match_len` tokens or fewer, and drafts at most `draft_len`."""

    match_len: int
    draft_len: int

    name_pattern = "lookup_{match_len}_sf_{draft_len}"
    label_pattern = "prompt lookup {match_len}, static {draft_len}"
    swept = (MATCH_LEN, DRAFT_LEN)
    kind = "lookup"
    title = "prompt lookup"
    hue = "#56B4E9"
    marker = "p"
    serving = {
        "vLLM": {
            "method": "ngram",
            "num_speculative_tokens": "{draft_len}",
            "prompt_lookup_max": "{match_len}",
            "prompt_lookup_min": "1",
        }
    }
    not_served = "its NGRAM looks up what all requests wrote, which is another method"

    @property
    def chains_name(self) -> str:
        return f"lookup_{self.match_len}"

    def derived_chains(self, trace: Recorded) -> Chains:
        text = Text([*trace.prompt_ids, *trace.output_tokens], len(trace.prompt_ids), trace.num_prefixes)
        longest = max(len(trace.output_tokens), self.draft_len)
        return Chains.pack(self.chains_name, {}, longest, lookup_chains(text, self.match_len, longest))

    def served_drafts(self, trace: Recorded) -> dict[str, list[list[int]]]:
        """vLLM's ngram takes the oldest place."""
        text, index = [*trace.prompt_ids, *trace.output_tokens], Index(self.match_len, takes_oldest=True)
        begin = len(trace.prompt_ids)
        return {OLDEST: [index.following(text[: begin + at]) for at in range(len(trace.output_tokens))]}

    def drafter(self, setup: Setup) -> Drafter:
        return LookupDrafter(self, setup.stop_ids)

    def replayed(self, trace: Recorded, setup: Setup) -> Drafter:
        """The live drafter: all that it reads is the text."""
        return LookupDrafter(self, trace.stop_ids)


class LookupDrafter(Drafter):
    """Drafts from what it has read, of which it keeps an index across rounds; the next prefix says what was kept."""

    def __init__(self, spec: Lookup, stop_ids: Collection[int]) -> None:
        self.spec, self.stop_ids = spec, stop_ids
        self._index = Index(spec.match_len)

    def reset(self, features: Tensor | None = None) -> None:
        self._index = Index(self.spec.match_len)

    def propose(self, prefix_ids: Sequence[int], budget: int) -> Draft:
        found = self._index.following(prefix_ids)[: min(self.spec.draft_len, max(budget, 0))]
        tokens = cut_after_stop(found, self.stop_ids)
        asked_len = self.spec.draft_len
        if not tokens:
            return Draft(asked_len=asked_len)
        # A token that was looked up has no probability.
        reason = "stop_token" if tokens[-1] in self.stop_ids else "length"
        return Draft(tokens, stop_reason=reason, token_confidences=[None] * len(tokens), asked_len=asked_len)


class Index:
    """Where every run of 1 .. `match_len` tokens of a text ended last (`takes_oldest`: first) before the text's end."""

    def __init__(self, match_len: int, *, takes_oldest: bool = False) -> None:
        self.match_len, self.takes_oldest = match_len, takes_oldest
        self._ids: list[int] = []
        self._ends: dict[tuple[int, ...], int] = {}

    def following(self, prefix_ids: Sequence[int]) -> list[int]:
        """What followed the longest known run that the text ends with; [] if none is known.

        Example: `Index(2).following([7, 1, 2, 9, 1, 2]) == [9, 1, 2]`.
        """
        self._read(prefix_ids)
        for size in range(min(self.match_len, len(prefix_ids) - 1), 0, -1):
            end = self._ends.get(tuple(prefix_ids[-size:]))
            if end is not None:
                return list(prefix_ids[end:])
        return []

    def _read(self, prefix_ids: Sequence[int]) -> None:
        """Note the runs that end before the text's last token; a text that is not the one before's goes on anew."""
        if self._ids != list(prefix_ids[: len(self._ids)]):
            self._ids = []
            self._forget()
        for end in range(max(len(self._ids), 1), len(prefix_ids)):
            for size in range(1, min(self.match_len, end) + 1):
                self._note(tuple(prefix_ids[end - size : end]), end)
        self._ids = list(prefix_ids)

    def _note(self, run: tuple[int, ...], end: int) -> None:
        self._ends[run] = self._ends.get(run, end) if self.takes_oldest else end

    def _forget(self) -> None:
        self._ends = {}


def lookup_chains(text: Text, match_len: int, chain_len: int) -> list[Chain]:
    """What it would draft after every prefix, known before any pass."""
    index, made = Index(match_len), []
    for at in text.prefix_lens:
        tokens = index.following(text.ids[:at])[:chain_len]
        made.append(Chain(tokens, [0.0] * len(tokens), [0] * len(tokens), [], [], []))
    return made


def record(recording: Recording, wanted: Mapping[str, int]) -> dict[str, list[Chain]]:
    """One chain per prefix, from the text alone."""
    return {
        name: lookup_chains(recording.text, int(name.removeprefix("lookup_")), length)
        for name, length in wanted.items()
    }


FAMILY = Family((Lookup,), (MATCH_LEN, DRAFT_LEN), record)
