"""Sampled speculation with trees is lossless: whatever the tree, the exact distribution of the target's next three
tokens comes out of the loop; and the same test finds a bug that makes it another one.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
import torch
from heads import features_of
from laws import NUM_WORDS, PROMPT, TEXTS, exact_law, p_value, tiny_head, tiny_models

from specdec.decoding import sampled
from specdec.decoding.loop import Drafter, speculate
from specdec.decoding.sampled import SampledTarget
from specdec.decoding.sampling import Sampler, Warp
from specdec.decoding.stopping import Draft
from specdec.decoding.trees import depths
from specdec.drafters.base import Setup
from specdec.drafters.eagle3_trees import Eagle3Tree, Eagle3TreeDrafter
from specdec.records.rounds import Round

pytestmark = pytest.mark.slow
NUM_SAMPLES = 1000
WARPS = [Warp(0.7), Warp(1.0), Warp(1.0, top_k=3, top_p=0.8)]


class RandomTrees(Drafter):
    """After the same prefix always the same tree, of tokens that nothing speaks for."""

    words = range(NUM_WORDS)

    def propose(self, prefix_ids: Sequence[int], budget: int) -> Draft:
        rng, tokens, parents = random.Random(str(list(prefix_ids))), list[int](), list[int]()
        for _ in range(rng.randint(1, 7)):
            parent = rng.randint(-1, len(tokens) - 1)
            taken = [token for token, other in zip(tokens, parents, strict=True) if other == parent]
            left = [token for token in self.words if token not in taken]
            if left and (parent < 0 or depths(parents)[parent] < budget):
                tokens.append(rng.choice(left))
                parents.append(parent)
        return Draft(tokens, token_confidences=[None] * len(tokens), parents=parents)


class UnknownInTrees(RandomTrees):
    """One of the tokens is none that the target predicts."""

    words = range(NUM_WORDS + 1)


class UnknownInRows(Drafter):
    """The same of drafts in a row."""

    def propose(self, prefix_ids: Sequence[int], budget: int) -> Draft:
        rng = random.Random(str(list(prefix_ids)))
        tokens = [rng.randrange(NUM_WORDS + 1) for _ in range(min(3, budget))]
        return Draft(tokens, token_confidences=[None] * len(tokens))


class HeadTrees(Eagle3TreeDrafter):
    """A head that is given the features of every prefix anew, and asked once for each."""

    def __init__(self) -> None:
        super().__init__(tiny_head(), Eagle3Tree(3, 2, 6), Setup(()))
        self.known: dict[tuple[int, ...], Draft] = {}
        self.read, self.taps = self.taps, ()  # the tiny target keeps none

    def propose(self, prefix_ids: Sequence[int], budget: int) -> Draft:
        key = *prefix_ids, budget
        if key not in self.known:
            self.reset(features_of(tiny_models()["target"].model, prefix_ids[:-1], self.read))
            self.known[key] = super().propose(prefix_ids, budget)
        return self.known[key]


def outcomes(drafter: Drafter, warp: Warp) -> tuple[torch.Tensor, list[Round]]:
    """Counts of TEXTS, and all rounds."""
    counts, places, rounds = torch.zeros(len(TEXTS), dtype=torch.long), dict(zip(TEXTS, range(999), strict=False)), []
    for number in range(NUM_SAMPLES):
        target = SampledTarget(tiny_models()["target"], Sampler(warp, f"{number}"))
        made = speculate(target, drafter, PROMPT, max_new_tokens=5, stop_ids=())
        counts[places[tuple(token for turn in made for token in turn.emitted_tokens)[:3]]] += 1
        rounds += made
    return counts, rounds


@pytest.mark.parametrize("warp", WARPS, ids=str)
@pytest.mark.parametrize("kind", [RandomTrees, HeadTrees])
def test_the_targets_law_comes_out(kind: type[Drafter], warp: Warp, one_thread: None) -> None:
    counts, rounds = outcomes(kind(), warp)
    assert p_value(counts, exact_law(warp)) > 1e-3
    assert {turn.accepted_len for turn in rounds} >= {0, 1, 2} and any(turn.is_tree for turn in rounds)
    for turn in rounds[:50]:
        assert len(turn.target_probabilities) == len(turn.draft_probabilities) == turn.draft_len
        assert all(turn.target_probabilities[node] > 0 for node in turn.accepted_nodes)


@pytest.mark.parametrize("kind", [UnknownInTrees, UnknownInRows])
def test_a_token_that_the_target_does_not_predict_has_no_chance(kind: type[Drafter], one_thread: None) -> None:
    counts, rounds = outcomes(kind(), WARPS[0])
    assert p_value(counts, exact_law(WARPS[0])) > 1e-3
    told = [pair for turn in rounds for pair in zip(turn.draft_tokens, turn.target_probabilities, strict=True)]
    assert {chance for token, chance in told if token == NUM_WORDS} == {0.0}
    assert all(chance > 0 for token, chance in told if token < NUM_WORDS)


def test_a_bug_is_found(one_thread: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The target's own token is taken from after the root, wherever the path ends."""
    monkeypatch.setattr(sampled, "own_next", lambda path, own: own[0])
    counts, _ = outcomes(RandomTrees(), Warp(1.0))
    assert p_value(counts, exact_law(Warp(1.0))) < 1e-6
