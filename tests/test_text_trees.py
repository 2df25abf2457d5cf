"""Trees over the text alone: what they draft is what stands there, and the text is the target's own."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import product
from math import prod

import pytest

from specdec.decoding.loop import speculate
from specdec.decoding.stopping import Draft
from specdec.decoding.target import Verification, accepted_path, own_next
from specdec.decoding.trees import depths, is_tree
from specdec.drafters.base import Setup
from specdec.drafters.families import parse_name
from specdec.drafters.suffix import Suffix, SuffixDrafter
from specdec.drafters.text_trees import LookupTree, SuffixDecodingTree

SPECS = [
    *(LookupTree(match_len, nodes) for match_len, nodes in product((1, 3), (1, 6, 20))),
    *(
        SuffixDecodingTree(8, factor=4.0, floor=floor, tree_nodes=nodes)
        for floor, nodes in product((0.0, 0.3), (4, 16))
    ),
    SuffixDecodingTree(8, factor=2.0, min_score=1.5, tree_nodes=9, earlier=True),
]


class Written:
    """A target that writes a text."""

    def __init__(self, text: Sequence[int]) -> None:
        self.text, self.at = list(text), 0

    def start(self, prompt_ids: Sequence[int], taps: Sequence[int] = ()) -> None:
        self.at = 0

    def verify(self, draft: Draft) -> Verification:
        parents = draft.parents if draft.parents is not None else list(range(-1, len(draft.tokens) - 1))
        own = [(self.text[self.at + level :] or [0])[0] for level in (0, *depths(parents))]
        path = accepted_path(draft, own)
        self.at += len(path) + 1
        return Verification(path, own_next(path, own))


def repetitive(seed: int, length: int) -> list[int]:
    """Phrases that come again, now with one end, now with another."""
    rng, text = random.Random(seed), list[int]()
    phrases = [[rng.randrange(9) for _ in range(4)] for _ in range(3)]
    while len(text) < length:
        text += rng.choice(phrases)[: rng.randint(2, 4)] + [rng.randrange(9)]
    return text[:length]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_the_text_is_the_targets_own_and_trees_are_sound(spec: LookupTree | SuffixDecodingTree) -> None:
    num_trees, accepted = 0, set()
    for seed in range(6):
        prompt, text = repetitive(seed, 20), repetitive(seed, 80)[20:]
        stop_ids = {text[50]} if seed % 2 else set[int]()
        rounds = speculate(Written(text), spec.drafter(Setup(stop_ids)), prompt, max_new_tokens=60, stop_ids=stop_ids)
        end = next((at + 1 for at, token in enumerate(text) if token in stop_ids), 60)
        assert [token for turn in rounds for token in turn.emitted_tokens] == text[:end]
        for turn in rounds:
            parents = turn.draft_parents or list(range(-1, turn.draft_len - 1))
            assert is_tree(parents, turn.draft_tokens) and turn.draft_len <= spec.most_nodes
            assert max(depths(parents), default=0) <= len(prompt) + 60 - turn.prefix_len - 1 or turn.is_cut
            num_trees += turn.is_tree
            accepted.add(turn.accepted_len)
    assert (num_trees > 0) == (spec.most_nodes > 1) and len(accepted) >= (2 if spec.most_nodes == 1 else 3)


def test_a_lookup_tree_is_what_followed_at_all_places_of_the_longest_run() -> None:
    drafter = LookupTree(2, 9).drafter(Setup(()))
    draft = drafter.propose([5, 6, 1, 2, 5, 6, 1, 3, 9, 5, 6], 2)
    assert draft.tokens == [1, 2, 3] and draft.parents == [-1, 0, 0] and draft.confidences == [1.0, 0.5, 0.5]
    assert drafter.propose([5, 6, 1, 2, 5, 6, 1, 3, 9, 5, 6, 1], 1).tokens == [2, 3]
    assert LookupTree(2, 1).drafter(Setup(())).propose([1, 2, 1, 3, 1], 4).tokens == [3]  # of equals the newest
    assert drafter.propose([4, 5], 4) == Draft(asked_len=9) and drafter.propose([4, 4], 0) == Draft(asked_len=9)


def stands(text: Sequence[int], run: Sequence[int]) -> int:
    """How often a run stands in a text."""
    return sum(list(text[at : at + len(run)]) == list(run) for at in range(len(text) - len(run) + 1))


def shares_after(text: Sequence[int], run: Sequence[int], depth: int) -> dict[tuple[int, ...], float]:
    """How probable each path after a run is, by looking everywhere: a run that stands there once goes on in one way."""
    found: dict[tuple[int, ...], float] = {(): 1.0}
    for level in range(depth):
        for path in [path for path in found if len(path) == level]:
            for token in set(text):
                times, count = stands(text, [*run, *path, token]), stands(text, [*run, *path])
                if times:
                    found[*path, token] = found[path] * (1.0 if count == 1 else times / count)
    del found[()]
    return found


def test_a_suffix_tree_holds_the_most_probable_ways_on() -> None:
    """Against counts by looking everywhere, from the match from which most is to be expected."""
    sizes = set()
    for seed in range(25):
        text, depth, best, shares = repetitive(seed, 40), 3, list[float](), dict[tuple[int, ...], float]()
        for match_len in range(1, 40):
            after = shares_after(text, text[-match_len:], depth)
            if not after:
                break
            if sum(most := sorted(after.values())[-8:]) >= sum(best) - 1e-9:
                best, shares = most, after
        draft = SuffixDecodingTree(64, factor=9.0, floor=0.0, tree_nodes=8).drafter(Setup(())).propose(text, depth)
        paths: list[tuple[int, ...]] = []
        for token, parent in zip(draft.tokens, draft.parents or (), strict=True):
            paths.append((*(paths[parent] if parent >= 0 else ()), token))
        drafted = [prod(draft.confidences[paths.index(path[:n])] for n in range(1, len(path) + 1)) for path in paths]
        assert drafted == pytest.approx([shares[path] for path in paths])
        assert sorted(drafted) == pytest.approx(best)
        sizes.add(len(drafted))
    assert len(sizes) >= 3


def test_one_node_a_level_is_the_chain() -> None:
    """Where nothing branches, tree and chain draft the same."""
    text = [1, 2, 3, 4, 5, 6, 7, 1, 2, 3]
    chain = SuffixDrafter(Suffix(16, factor=2.0), ()).propose(text, 9)
    tree = SuffixDecodingTree(16, factor=2.0).drafter(Setup(())).propose(text, 9)
    assert tree.tokens == chain.tokens and tree.confidences == chain.confidences and tree.parents == [-1, 0, 1, 2, 3, 4]


def test_names_are_read_back() -> None:
    assert all(parse_name(spec.name) == spec for spec in SPECS)
    assert (LookupTree(3, 16).name, SuffixDecodingTree(64, tree_nodes=32).name) == (
        "lookup_3_tree_16",
        "suffix_64_tree_32",
    )
    assert SPECS[-1].name == "suffix_8_f2.0_s1.5_earlier_tree_9"
