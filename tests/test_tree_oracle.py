"""The ceiling of trees: as good as the best of all trees that were on offer, and never beaten by any rule."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import product

import pytest
from made_up import made_up_trace, with_slots
from test_trees import all_trees

from specdec.decoding.target import count_accepted
from specdec.drafters.base import Spec
from specdec.drafters.dflash_trees import OFFERS, DflashCostTree, DflashPairsTree, DflashSureTree, DflashTree
from specdec.drafters.families import parse_name
from specdec.drafters.text_trees import LookupTree, SuffixDecodingTree, text_paths
from specdec.errors import UserError
from specdec.latency.pricing import price
from specdec.latency.profile import LatencyProfile
from specdec.latency.tree_costs import TreeCosts
from specdec.ranking.oracle import Board, Costs, Judge, Oracle
from specdec.traces.calibration import tree_costs
from specdec.traces.replay import replay
from specdec.traces.trace import Trace

TARGET, PASS_MS = "Big", 2.0
HYBRID = "lookup_3_tree_12_else_dflash_tree_16"


def profile(verify_ms: dict[int, float] | None, pass_ms: float = PASS_MS) -> LatencyProfile:
    tables = {TARGET: verify_ms} if verify_ms else {}
    return LatencyProfile("made-up", 4.0, {TARGET: 10.0}, tables, {}, family_pass_ms={"dflash": pass_ms})


PROFILES = {
    "flat": profile(None),
    "dear drafts": profile(None, 9.0),
    "rising": profile({1: 10.0, 4: 11.0, 64: 30.0}),
    "steep": profile({1: 10.0, 3: 18.0, 6: 60.0}),
    "falling": profile({1: 20.0, 4: 9.0, 6: 12.0}),
    "dear trees": replace(
        profile({1: 10.0, 4: 11.0, 64: 30.0}),
        trees={TARGET: TreeCosts({4: 13.0, 16: 25.0}, {"dflash": {4: 3.0, 16: 5.0}})},
    ),
}


def least_of_all_trees(trace: Trace, costs: Costs, num_nodes: int) -> float:
    """By trying, in every round, every tree of up to `num_nodes` nodes that the slots offer, and no draft."""
    tokens_PSK, text = trace.offers[OFFERS].arrays["tokens"], trace.output_tokens
    num_slots, top_k = tokens_PSK.shape[1:]
    choices = [tree for n in range(1, num_nodes + 1) for tree in all_trees(num_slots, top_k, n)]

    @cache
    def rest_ms(at: int) -> float:
        if at >= len(text):
            return 0.0
        found = [costs.verify_ms[0] + rest_ms(at + 1)]
        budget = trace.identity.max_new_tokens - at - 1
        for tree in choices if at < trace.num_prefixes else ():
            if max(map(len, tree)) > budget:
                continue
            accepted = 0
            for path in sorted(tree, key=len):
                words = [int(tokens_PSK[at, slot, rank]) for slot, rank in enumerate(path)]
                accepted = max(accepted, len(path) if words == text[at : at + len(path)] else 0)
            found.append(PASS_MS + costs.verify_ms[len(tree)] + rest_ms(min(at + accepted + 1, len(text))))
        return min(found)

    return rest_ms(0)


@pytest.mark.parametrize("name", ["flat", "rising", "steep", "falling"])
def test_as_good_as_the_best_of_all_trees(name: str) -> None:
    costs = Costs.of(PROFILES[name], TARGET, 30)
    for seed in range(8):
        trace = made_up_trace(seed, num_tokens=7, max_new_tokens=7 + seed % 2)
        trace = with_slots(trace, OFFERS, num_slots=3, top_k=2)
        found = Oracle(Board(trace, costs), (OFFERS,)).best_ms
        least = least_of_all_trees(trace, costs, 4)
        assert found <= least + 1e-9
        if name != "falling":  # there a tree of more nodes may be verified for less
            assert found == pytest.approx(least)


RULES: list[Spec] = [
    *map(DflashTree, (1, 2, 5, 12, 40)),
    *(DflashSureTree(floor, most) for floor, most in product((0.0, 0.02, 0.1, 0.5), (3, 40))),
    *(DflashPairsTree(floor, 12) for floor in (0.0, 0.1)),
    DflashCostTree(40, "Big@made-up"),
]
TOP_K = {"slot_top_k": 4}


@pytest.mark.parametrize("name", PROFILES)
def test_never_beaten_and_every_millisecond_has_its_place(name: str) -> None:
    reached, shares = set(), []
    for seed in range(4):
        trace = made_up_trace(seed, num_tokens=40, vocab_size=6, max_new_tokens=40 + seed % 2)
        trace = with_slots(trace, OFFERS)
        judge = Judge(trace, PROFILES[name], TARGET)
        for spec in RULES:
            record = replay(trace, spec, TOP_K, costs=tree_costs(spec, [PROFILES[name]]))
            total_ms = price(record, PROFILES[name], TARGET).total_ms
            ceiling = judge.ceiling(record)
            assert ceiling.total_ms == pytest.approx(total_ms, abs=1e-6), spec
            assert min(ceiling.over_ms, ceiling.under_ms, ceiling.passes_ms) > -1e-6, spec
            shares.append(ceiling.share)
            reached |= {turn.accepted_len for turn in record.rounds}
    assert max(shares) <= 1 + 1e-9 and min(shares) < 0.8 and len(reached) >= 4


def test_a_trace_that_offers_less_than_a_record_drew_from_is_no_ceiling_of_it() -> None:
    trace = made_up_trace(1, num_tokens=20)
    whole, part = (with_slots(trace, OFFERS, top_k=top_k) for top_k in (4, 2))
    record = replay(whole, DflashTree(5), {"slot_top_k": 4})
    with pytest.raises(UserError, match=r"dflash_tree_5 needs 4 candidates of a slot, and .* holds 2"):
        Judge(part, PROFILES["flat"], TARGET).ceiling(record)
    with pytest.raises(UserError, match=r"dflash_tree_5 needs 3 candidates of a slot, and .* holds 2"):
        replay(part, DflashTree(5), {"slot_top_k": 3})
    with pytest.raises(UserError, match=r"has no offers for dflash_tree_5 \(it has: none\): record it"):
        replay(trace, DflashTree(5))


def test_a_chains_ceiling_counts_the_trees_that_were_on_offer() -> None:
    trace = with_slots(made_up_trace(3, num_tokens=30, vocab_size=6), OFFERS)
    judge = Judge(trace, PROFILES["rising"], TARGET)
    (of_tree,) = {judge.ceiling(replay(trace, spec, TOP_K)).best_ms for spec in RULES[:3]}
    record = replay(trace, RULES[3], TOP_K)
    assert judge.ceiling(record).best_ms == of_tree < price(record, PROFILES["rising"], TARGET).total_ms


@pytest.mark.parametrize("name", PROFILES)
def test_trees_over_the_text_alone_beat_no_ceiling(name: str) -> None:
    specs = [LookupTree(2, 5), LookupTree(3, 30), SuffixDecodingTree(8, factor=2.0, tree_nodes=12), parse_name(HYBRID)]
    shares, accepted = [], set()
    for seed in range(3):
        trace = made_up_trace(seed, num_tokens=60, vocab_size=2 + seed, max_new_tokens=60 + seed % 2)
        judge = Judge(with_slots(trace, OFFERS), PROFILES[name], TARGET)
        for spec in specs:
            record = replay(judge.trace, spec, TOP_K)
            ceiling, total_ms = judge.ceiling(record), price(record, PROFILES[name], TARGET).total_ms
            assert ceiling.total_ms == pytest.approx(total_ms, abs=1e-6), spec
            assert min(ceiling.over_ms, ceiling.under_ms, ceiling.passes_ms) > -1e-6, spec
            shares.append(ceiling.share)
            accepted |= {turn.accepted_len for turn in record.rounds}
    assert max(shares) <= 1 + 1e-9 and min(shares) < 0.9 and len(accepted) >= 4


def test_the_longest_way_on_is_found_as_by_looking_everywhere() -> None:
    for seed in range(5):
        trace = made_up_trace(seed, num_tokens=25, vocab_size=2)
        ids, chains = [*trace.prompt_ids, *trace.output_tokens], text_paths(trace).chains
        for at, chain in enumerate(chains):
            end, lengths = len(trace.prompt_ids) + at, [0]
            for place in (place for place in range(1, end) if ids[place - 1] == ids[end - 1]):
                lengths.append(count_accepted(ids[place:end], ids[end:]))
            assert [*chain.tokens] == (ids[end : end + max(lengths)] or [-1])
