"""Offers: what a trace holds for trees, on disk and off, and every tree that follows from it."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_up import made_up_candidates, made_up_trace, with_levels, with_slots

from specdec.decoding import tree_rules, trees
from specdec.decoding.chains import Chains
from specdec.decoding.offers import Levels, Offers, Slots, packed
from specdec.errors import UserError
from specdec.traces.trace import Trace, load_trace, save_trace


def whole_trace(seed: int = 1) -> Trace:
    return with_levels(with_slots(made_up_trace(seed, num_tokens=12), "slots"), "levels")


def test_round_trip(tmp_path: Path) -> None:
    trace = whole_trace()
    save_trace(trace, tmp_path / "one.npz")
    found = load_trace(tmp_path / "one.npz")
    assert list(found.offers) == ["slots", "levels"] and list(found.chains) == list(trace.chains)
    for name, offers in trace.offers.items():
        other = found.offers[name]
        assert (type(other), other.name, other.identity, other.size) == (
            type(offers),
            name,
            offers.identity,
            offers.size,
        )
        assert all(np.array_equal(other.arrays[key], array) for key, array in offers.arrays.items())
        assert all(other.arrays[key].dtype == array.dtype for key, array in offers.arrays.items())


def test_a_program_that_knows_no_trees_reads_no_trace_of_them(tmp_path: Path) -> None:
    """And goes on reading those without any."""
    versions = []
    for trace in (made_up_trace(1), whole_trace()):
        save_trace(trace, tmp_path / "one.npz")
        with np.load(tmp_path / "one.npz") as stored:
            versions.append(b'"version": 3' in stored["meta"].tobytes())
    assert versions == [False, True]


def test_what_follows_from_slots_is_what_the_builder_makes() -> None:
    rng = np.random.default_rng(0)
    made = [made_up_candidates(rng, [1, 2, 3], 5, 6) for _ in range(3)]
    offers = Slots.pack("slots", {}, made)
    assert (offers.size, offers.depth, offers.num_prefixes) == (6, 5, 3)
    for at, candidates in enumerate(made):
        for num_nodes in (3, 1, 100, 64):
            falling = offers.falling(at, 5, num_nodes, [3])
            assert tree_rules.by_rule(falling, tree_rules.FixedNodes(num_nodes)) == tree_rules.best_first(
                candidates, num_nodes, [3]
            )
        few = trees.Candidates(candidates.tokens_SK[:2, :3], candidates.log_probs_SK[:2, :3])
        assert offers.of_size(3).falling(at, 2, 12, ()).first(12) == tree_rules.best_first(few, 12)
    assert offers.num_passes(0, 5, 0.9, ()) == 1 and offers.passes_for(3) == 1


@pytest.mark.parametrize("seed", range(4))
def test_what_follows_from_levels_is_what_growing_gives(seed: int) -> None:
    """At every depth, at every threshold, with stop tokens."""
    rng, known = np.random.default_rng(seed), {}

    def expand(paths):
        known.update({path: made_up_candidates(rng, [len(path)], 1, 3) for path in paths if path not in known})
        rows = [known[path] for path in paths]
        return trees.Candidates(*(np.concatenate([getattr(row, key) for row in rows]) for key in vars(rows[0])))

    stop_ids = [5]
    offers = Levels.pack("levels", {}, 5, [trees.Tree(), trees.scored_tree(expand, 5, 3, stop_ids=stop_ids)])
    assert offers.num_passes(0, 5, 0.0, stop_ids) == 0 and len(offers.falling(0, 5, 9, stop_ids)) == 0
    for depth in range(1, 6):
        for sure in (0.0, 0.01, 0.1, 0.3, 0.6):
            wanted = trees.scored_tree(expand, depth, 3, sure=sure, stop_ids=stop_ids)
            passes = offers.num_passes(1, depth, sure, stop_ids)
            assert passes == max(trees.depths(wanted.parents))
            for num_nodes in (1, 7, 40):
                falling = offers.falling(1, passes, num_nodes, stop_ids)
                grown = wanted.falling(num_nodes).first(num_nodes)
                assert tree_rules.by_rule(falling, tree_rules.FixedNodes(num_nodes)) == grown


def test_a_leaf_that_is_as_probable_as_was_asked_to_the_last_bit_is_so_live_and_replayed() -> None:
    """Of two even candidates: rounded to float32, as a network gives it, the logarithm of a half is just below it."""
    even = trees.Candidates.of([[1, 2]], np.log([[0.5, 0.5]]))
    below = float(even.log_probs_SK[0, 0])
    assert below < np.log(0.5) == trees.log_of(0.5)

    def expand(paths):
        return trees.Candidates(even.tokens_SK.repeat(len(paths), 0), even.log_probs_SK.repeat(len(paths), 0))

    offers = Levels.pack("levels", {}, 2, [trees.scored_tree(expand, 2, 2)])
    for sure, passes in ((0.5, 1), (0.4999999, 2)):
        grown = trees.scored_tree(expand, 2, 2, sure=sure)
        assert max(trees.depths(grown.parents)) == offers.num_passes(0, 2, sure, ()) == passes


def test_how_far_a_text_is_on_offer() -> None:
    tokens = [[1, 2], [3, 4], [5, 6]]
    slots = Slots.pack("slots", {}, [trees.Candidates.of(tokens, np.log([[0.6, 0.4]] * 3))])
    for text, length in (([2, 3, 6, 1], 3), ([2, 3], 2), ([2, 9, 6], 1), ([9], 0), ([], 0)):
        assert slots.match(0, text) == length
        chain = slots.true_chain(0, text)
        assert chain.tokens == text[:length] or ([*chain.tokens], length) == ([-1], 0)
        assert chain.passes_for == [0, *[1] * max(length, 1)]
    levels = Levels.pack("levels", {}, 3, [trees.Tree([1, 2, 3], [-1, -1, 1], [-1.0, -1.5, -2.0])])
    chain = levels.true_chain(0, [2, 3, 4])
    assert (chain.tokens, chain.passes_for, chain.num_passes) == ([2, 3], [0, 1, 2], 2)


def test_what_is_recorded_decides_on_its_arrays() -> None:
    tree, candidates = trees.Tree([1], [-1], [-0.5]), trees.Candidates.of([[1]], [[-0.5]])
    assert isinstance(packed("a", {}, 3, [tree]), Levels) and isinstance(packed("a", {}, 3, [candidates]), Slots)
    assert isinstance(packed("a", {}, 3, []), Chains)


def test_a_greater_size_than_was_recorded_is_an_error_in_one_line() -> None:
    offers = whole_trace().offers
    with pytest.raises(UserError, match=r"^d_8 needs 8 levels, and the trace of question 3 holds 4: record more"):
        offers["levels"].require(8, "d_8", 3)
    with pytest.raises(UserError, match=r"needs 5 candidates of a slot"):
        offers["slots"].require(5, "d", 3)
    offers["slots"].require(4, "d", 3)


def damaged(offers: Offers, key: str, change) -> Offers:
    array = offers.arrays[key].copy()
    return replace(offers, arrays=offers.arrays | {key: change(array)})


def changed(value):
    def change(array: np.ndarray) -> np.ndarray:
        array.flat[-1] = value
        return array

    return change


DAMAGE = {
    "slots of another type": ("slots", "tokens", lambda array: array.astype(np.int64)),
    "slots without tokens": ("slots", "tokens", changed(-1)),
    "slots that are sorted otherwise": ("slots", "log_probs", lambda array: array[:, :, ::-1].copy()),
    "not a number": ("slots", "log_probs", changed(np.nan)),
    "above one": ("levels", "log_probs", changed(0.5)),
    "slots of another shape": ("slots", "log_probs", lambda array: array[:, :2]),
    "flat slots": ("slots", "tokens", lambda array: array.reshape(-1)),
    "fewer parents": ("levels", "parents", lambda array: array[:-1]),
    "fewer counts": ("levels", "num_nodes", changed(1)),
    "counts below 0": ("levels", "num_nodes", changed(-1)),
    "a parent that comes later": ("levels", "parents", changed(30000)),
    "a parent below the root": ("levels", "parents", changed(-2)),
    "a path more probable than its beginning": ("levels", "log_probs", changed(0.0)),
    "a level after the next": ("levels", "parents", changed(-1)),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_named(name: str, tmp_path: Path) -> None:
    trace, (which, key, change) = whole_trace(), DAMAGE[name]
    broken = replace(trace, offers=trace.offers | {which: damaged(trace.offers[which], key, change)})
    with pytest.raises(UserError, match=f"^{which}: "):
        broken.check()
    (tmp_path / "one.npz").write_bytes(broken.to_bytes())
    with pytest.raises(UserError, match=r"one\.npz is not a whole trace"):
        load_trace(tmp_path / "one.npz")


def test_offers_that_lack_an_array_or_their_kind_are_named(tmp_path: Path) -> None:
    data = whole_trace().to_bytes()
    with np.load(io.BytesIO(data)) as stored:
        arrays = dict(stored)
    text = arrays["meta"].tobytes().replace(b'["slots", "slots"', b'["spots", "slots"')
    for changes in ({"offers_0_tokens": None}, {"meta": np.frombuffer(text, np.uint8)}):
        kept = {key: value for key, value in {**arrays, **changes}.items() if value is not None}
        with open(tmp_path / "one.npz", "wb") as file:
            np.savez(file, **kept)
        with pytest.raises(UserError, match=r"one\.npz is not a whole trace"):
            load_trace(tmp_path / "one.npz")
