"""The search for a tree's nodes as a kernel: node for node what the host's gives, and a drafter by it drafts the same.

On a GPU if there is one, else in Triton's interpreter (TRITON_INTERPRET=1).
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from dflash_heads import loaded_dflash, toy_dflash
from toys import random_ids, toy_model, weaken_attention

from specdec.decoding.loop import speculate
from specdec.decoding.target import Target
from specdec.decoding.trees import Candidates, Tree, slots_first
from specdec.drafters.base import Setup
from specdec.drafters.dflash_trees import DflashSureTree, DflashTree, DflashTreeDrafter
from specdec.models.dflash_trees import DflashTrees, in_order
from specdec.models.graph.graph_lm import GraphLM
from specdec.records.rounds import Round

pytest.importorskip("triton", reason="Triton is not installed: kernels are for GPUs")
if not (torch.cuda.is_available() or os.environ.get("TRITON_INTERPRET") == "1"):
    pytest.skip("kernels need a GPU or TRITON_INTERPRET=1", allow_module_level=True)

from specdec.models.graph.tree_search import search_slots  # noqa: E402

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def found_by_kernel(candidates: Candidates, depth: int, num_nodes: int, stop_ids: tuple[int, ...]) -> Tree:
    pairs = np.stack([candidates.tokens_SK, candidates.log_probs_SK], -1).astype(float)
    tokens_SK, log_probs_SK = in_order(torch.from_numpy(pairs).to(DEVICE))
    is_last_SK = torch.isin(tokens_SK, torch.tensor(stop_ids, dtype=torch.long, device=DEVICE)).int()
    found = search_slots(tokens_SK, log_probs_SK, is_last_SK, torch.tensor([depth], device=DEVICE), num_nodes)
    rows_N3 = found.cpu().numpy()
    return Tree.of_rows(rows_N3[rows_N3[:, 2] > -np.inf])


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(
    ("sizes", "num_nodes", "steps"), [((3, 4), 20, None), ((5, 8), 64, 1.0), ((5, 8), 200, 2.0), ((15, 32), 64, 8.0)]
)
def test_the_nodes_and_their_order_are_the_hosts(
    seed: int, sizes: tuple[int, int], num_nodes: int, steps: float | None
) -> None:
    """With many equals, as logits in bfloat16 have, with what has no probability, stop tokens and few levels."""
    rng = np.random.default_rng(seed)
    log_probs_SK = np.log(rng.dirichlet(np.full(sizes[1], 0.5), sizes[0]) + 1e-9)
    log_probs_SK = np.minimum(log_probs_SK if steps is None else np.round(log_probs_SK * steps) / steps, 0)
    log_probs_SK[rng.random(sizes) < (0.2 if seed % 2 else 0)] = -np.inf
    tokens_SK = np.stack([rng.permutation(40)[: sizes[1]] for _ in range(sizes[0])])
    candidates, depth, stop_ids = (
        Candidates.of(tokens_SK, log_probs_SK),
        min(2 + seed % 4, sizes[0]),
        tuple(range(seed % 5)),
    )
    wanted = slots_first(candidates.first(depth), num_nodes, stop_ids)
    assert found_by_kernel(candidates, depth, num_nodes, stop_ids) == wanted and len(wanted)


@pytest.mark.parametrize("spec", [DflashTree(24), DflashSureTree(0.02, 24)], ids=str)
def test_a_drafter_by_it_drafts_the_same_trees(spec: DflashTree, tmp_path: Path, monkeypatch) -> None:
    """Round for round, also where the answer ends within a tree; candidates with it are the network's own."""
    target = weaken_attention(toy_model("qwen3", 31, scale=4.0, hidden_size=64, num_layers=3), 0.3).to(DEVICE)
    lm = GraphLM(target)
    network = loaded_dflash(tmp_path, toy_dflash("DFlashDraftModel", lm.model, 5), lm, "graph")
    trees: list[list[Round]] = []
    for is_found in (True, False):
        monkeypatch.setattr(DflashTrees, "finds_paths", lambda network, *_, is_found=is_found: is_found)
        drafter = DflashTreeDrafter(network, spec, Setup((3, 7), {"slot_top_k": 8}))
        asked = {"max_new_tokens": 14, "stop_ids": ()}
        trees.append(
            [turn for size in (2, 30) for turn in speculate(Target(lm), drafter, random_ids(size, size), **asked)]
        )
    drafted = [[(turn.draft_tokens, turn.draft_parents, turn.confidences) for turn in rounds] for rounds in trees]
    assert drafted[0] == drafted[1] and max(len(tokens) for tokens, _, _ in drafted[0]) > 8
