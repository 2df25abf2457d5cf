"""Records of trees: what the loop cuts, what a file says of branches, and who refuses to read it. No model here."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from samples import make_record, make_round

from specdec.decoding.loop import Drafter, speculate
from specdec.decoding.stopping import Draft
from specdec.decoding.target import Verification, accepted_path, own_next
from specdec.decoding.trees import depths, is_chain
from specdec.errors import UserError
from specdec.ranking.acceptance import RoundCounts, Shape
from specdec.records import pickles
from specdec.records.record import Record, load_record, save_record
from specdec.records.rounds import Round

TEXT = [3, 1, 4, 1, 5, 9, 2, 6]


class Script:
    """A target that writes TEXT."""

    def start(self, prompt_ids: Sequence[int], taps: Sequence[int] = ()) -> None:
        self.at = 0

    def verify(self, draft: Draft) -> Verification:
        levels = [0, *depths(draft.parents or [])]
        own = [(TEXT[self.at + level :] or [0])[0] for level in levels]
        path = accepted_path(draft, own)
        self.at += len(path) + 1
        return Verification(path, own_next(path, own))


class Once(Drafter):
    """One tree, then nothing."""

    def __init__(self, tokens: list[int], parents: list[int]) -> None:
        sure = [0.9 - 0.1 * node for node in range(len(tokens))]
        self.draft: Draft | None = Draft(tokens, sure, token_confidences=[*sure], parents=parents)

    def propose(self, prefix_ids: Sequence[int], budget: int) -> Draft:
        draft, self.draft = self.draft, None
        return draft or Draft()


def first_round(tokens: list[int], parents: list[int], *, stop_ids: Sequence[int] = (), budget: int = 8) -> Round:
    rounds = speculate(Script(), Once(tokens, parents), [7], max_new_tokens=budget, stop_ids=stop_ids)
    output = [token for turn in rounds for token in turn.emitted_tokens]
    end = next((TEXT.index(token) + 1 for token in TEXT if token in stop_ids), budget)
    assert output == TEXT[:end]
    return rounds[0]


def test_a_round_says_the_tree_and_the_path() -> None:
    turn = first_round([8, 3, 1, 2, 4], [-1, -1, 1, 1, 2])
    assert (turn.draft_parents, turn.accepted_path, turn.accepted_len) == ([-1, -1, 1, 1, 2], [1, 2, 4], 3)
    assert (turn.emitted_tokens, turn.bonus_token, turn.correction_token) == ([3, 1, 4, 1], 1, None)
    assert (turn.refused_nodes, turn.num_reached, turn.draft_len) == ([], 3, 5)
    turn = first_round([8, 3, 7, 2], [-1, -1, 1, 1])
    assert (turn.accepted_tokens, turn.correction_token, turn.bonus_token) == ([3], 1, None)
    assert (turn.refused_nodes, turn.num_reached) == ([2, 3], 2)


def test_a_tree_that_is_a_chain_is_recorded_as_one() -> None:
    turn = first_round([3, 1, 9], [-1, 0, 1])
    assert not turn.is_tree and turn.accepted_len == 2 and "draft_parents" not in turn.to_builtins(1)


def test_nodes_deeper_than_the_outputs_last_token_are_cut_on_every_branch() -> None:
    """A stop token on the path: what was drafted for its own place stays, on other branches too."""
    tokens, parents = [3, 8, 1, 2, 6, 4, 5], [-1, -1, 0, 0, 1, 2, 4]
    turn = first_round(tokens, parents, stop_ids=[1])
    assert turn.is_cut and turn.emitted_tokens == [3, 1] and turn.next_token is None
    assert (turn.draft_tokens, turn.draft_parents) == ([3, 8, 2, 6, 1], [-1, -1, 0, 1, 0])
    assert turn.accepted_path == [0, 4] and turn.confidences == pytest.approx([0.9, 0.8, 0.6, 0.5, 0.7])
    cut = first_round([3, 8, 1], [-1, -1, 0], stop_ids=[3])
    assert (cut.draft_tokens, cut.accepted_path, cut.draft_parents) == ([8, 3], [1], [-1, -1])
    chain = first_round([3, 1, 4, 9], [-1, 0, 1, 1], stop_ids=[1])  # what is left of it does not branch
    assert not chain.is_tree and chain.draft_tokens == [3, 1]


def random_round(seed: int) -> Round:
    rng = random.Random(seed)
    parents = [rng.randint(-1, node - 1) for node in range(rng.randint(2, 9))]
    tokens: list[int] = []
    for parent, level in zip(parents, depths(parents), strict=True):
        taken = [token for token, other in zip(tokens, parents, strict=False) if other == parent]
        tokens.append(TEXT[level - 1] if TEXT[level - 1] not in taken and rng.random() < 0.6 else 100 + len(tokens))
    return first_round(tokens, parents, stop_ids=[TEXT[3 + 2 * (seed % 2)]] if seed % 3 == 0 else ())


def test_rounds_read_back_what_they_wrote() -> None:
    made = [random_round(seed) for seed in range(300)]
    assert {turn.is_cut for turn in made} == {turn.is_tree for turn in made} == {True, False}
    for turn in made:
        data = pickles.plain(turn.to_builtins(1))
        assert Round.from_builtins(data, 1) == turn
        assert turn.draft_parents is None or not is_chain(turn.draft_parents)
        assert [turn.draft_tokens[node] for node in turn.accepted_nodes] == turn.accepted_tokens


def tree_record() -> Record:
    """Two rounds, the first of a tree."""
    tree = make_round(draft_tokens=[5, 6, 7], accepted_len=1, next_token=8, confidences=[0.5, 0.4, 0.3])
    tree = dataclasses.replace(tree, draft_parents=[-1, -1, 1], accepted_path=[1], target_tokens=None)
    return make_record(rounds=[tree])


def test_a_record_says_by_its_schema_that_it_holds_trees(tmp_path: Path) -> None:
    record, path = tree_record(), tmp_path / "pickles" / "tree.pickle"
    save_record(record, path)
    data = pickles.loads(path.read_bytes())
    assert data["schema_version"] == 3 and load_record(path).rounds == record.rounds
    entry = data["stats_each_round"][0]
    assert (entry["draft_parents"], entry["accepted_path"], entry["bonus_token"]) == ([-1, -1, 1], [1], None)
    chain = make_record()
    assert chain.to_builtins()["schema_version"] == 2
    with pytest.raises(UserError, match="schema_version does not agree"):
        Record.from_builtins(chain.to_builtins() | {"schema_version": 3})
    with pytest.raises(UserError, match="schema_version does not agree"):
        Record.from_builtins(data | {"schema_version": 2})


DAMAGE: dict[str, Callable[[dict[str, Any]], object]] = {
    "parents": lambda turn: turn.update(draft_parents=[-1, -1, 2]),
    "too few parents": lambda turn: turn.update(draft_parents=[-1, -1]),
    "a parent before the root": lambda turn: turn.update(draft_parents=[-1, -2, 1]),
    "parents that are words": lambda turn: turn.update(draft_parents=["a"]),
    "no path": lambda turn: turn.pop("accepted_path"),
    "no parents": lambda turn: turn.pop("draft_parents"),
    "a path that is none": lambda turn: turn.update(accepted_path=[2]),
    "a path of another length": lambda turn: turn.update(accepted_path=[1, 2]),
    "a path to nowhere": lambda turn: turn.update(accepted_path=[3]),
    "a path of another token": lambda turn: turn.update(accepted_path=[0]),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_trees_are_named(damage: str) -> None:
    data = pickles.plain(tree_record().to_builtins())
    DAMAGE[damage](data["stats_each_round"][0])
    with pytest.raises(UserError, match=r"draft_parents|accepted_path|target_tokens|output_tokens"):
        Record.from_builtins(data)


def test_positions_of_a_tree_are_places_of_the_text() -> None:
    found = RoundCounts.of(tree_record())
    assert found.counts == ((Shape(2, 1, 2), 1),) and found.conditional == [1.0, 0.0]
