"""The Triton kernels by which trees grow level by level against the plain operations: the few most probable tokens,
what goes on from them, and attention of a level; and a head's whole trees on them.
"""

from __future__ import annotations

import math
import random
from dataclasses import replace
from typing import Any

import heads
import pytest
import torch
from heads import loaded_head, toy_head
from kernel_toys import DEVICE, IS_GPU, TOLERANCE, dtype
from test_eagle3 import VARIANTS
from test_eagle3_levels import assert_same, tree_of
from toys import random_ids, toy_model, weaken_attention

from specdec.models import eagle3_joined
from specdec.models.graph import kernels, plans
from specdec.models.graph import reference as plain
from specdec.models.graph.attention import attend_many
from specdec.models.graph.branches import Branches, Level, num_words
from specdec.models.graph.graph_lm import GraphLM
from specdec.models.graph.kernels import GpuOperations
from specdec.models.graph.network import Means
from specdec.models.graph.plans import AttentionPlan, smaller_attention
from specdec.models.graph.products import FusedProducts
from specdec.models.lm import CachedLM
from specdec.models.tree_rows import TreeRows

__all__ = ["dtype"]  # a fixture


def few_both(logits: torch.Tensor, tokens: torch.Tensor, count: int) -> tuple[torch.Tensor, ...]:
    """The kernels' tokens, log-probabilities and what the host is given of them, and the plain operation's."""
    found = [torch.zeros(len(logits), count, 2, dtype=torch.float64) for _ in range(2)]
    there = found[0].to(DEVICE, copy=True)
    ours = GpuOperations(True).few_most_probable(logits.to(DEVICE), tokens.to(DEVICE), there)
    theirs = plain.few_most_probable(logits, tokens, found[1])
    return *(one.cpu() for one in ours), there.cpu(), *theirs, found[1]


@pytest.mark.parametrize("count", [1, 4, 10])
@pytest.mark.parametrize(("rows", "vocab_size"), [(1, 10), (3, 64), (10, 5000), (2, 9000)] + [(10, 151_936)] * IS_GPU)
def test_few_most_probable(dtype, rows: int, vocab_size: int, count: int) -> None:
    """Of logits that differ: a shuffled range."""
    places = torch.stack([torch.randperm(vocab_size) for _ in range(rows)])
    logits = (places.float() / vocab_size * 30).to(dtype)
    best = torch.stack([torch.randperm(vocab_size)[:count] for _ in range(rows)])
    logits.scatter_(1, best, 32 + torch.arange(count).to(dtype).expand(rows, -1))
    tokens, log_probs, found, *want = few_both(logits, torch.randperm(2 * vocab_size)[:vocab_size], count)
    assert torch.equal(tokens, want[0])
    torch.testing.assert_close(log_probs, want[1], atol=1e-5, rtol=1e-5)
    assert torch.equal(found, torch.stack([tokens.double(), log_probs.double()], dim=-1))


def test_equals_are_in_the_order_of_their_tokens_and_what_is_never_written_comes_last() -> None:
    logits = torch.full((2, 5000), -torch.inf)
    logits[0, [4000, 17, 3, 2900]], logits[1, [5, 4999]] = torch.tensor([2.0, 1.0, 2.0, 2.0]), 1.0
    tokens, log_probs, *_, want_tokens, want, _ = few_both(logits, torch.arange(5000).flip(0), 4)
    assert tokens[0].tolist() == want_tokens[0].tolist() == [999, 2099, 4996, 4982]
    assert tokens[1, :2].tolist() == want_tokens[1, :2].tolist() == [0, 4994]
    torch.testing.assert_close(log_probs, want, atol=1e-6, rtol=1e-6)
    assert log_probs[1].tolist() == [pytest.approx(math.log(0.5))] * 2 + [-math.inf] * 2


def test_what_is_not_a_number_gives_tokens_that_there_are_and_no_number() -> None:
    tokens, log_probs, *_ = few_both(torch.full((2, 3000), math.nan), 7 + torch.arange(3000), 5)
    assert log_probs.isnan().all() and tokens.min() >= 0 and tokens.max() < 3007


def random_level(rng: random.Random, begin: int, count: int, words: int) -> Level:
    level = Level.allocate(begin, count, words, torch.device("cpu"))
    level.scores_N.copy_(-torch.rand(count) * 3)
    level.sees_NW.copy_(torch.tensor([[rng.getrandbits(63) for _ in range(words)] for _ in range(count)]))
    return level


def there(level: Level) -> Level:
    parts = level.ids_N, level.parents_N, level.scores_N, level.sees_NW
    return Level(level.begin, *(part.to(DEVICE, copy=True) for part in parts))


@pytest.mark.parametrize("stops", [[], [3], [2, 5, 9]])
@pytest.mark.parametrize(
    ("before", "count", "num_nodes", "begin", "words"),
    [(1, 10, 10, 0, 2), (1, 1, 1, 0, 1), (10, 10, 10, 10, 2), (4, 3, 5, 60, 2), (10, 10, 10, 120, 4), (3, 2, 6, 1, 1)],
)
def test_what_goes_on(before: int, count: int, num_nodes: int, begin: int, words: int, stops: list[int]) -> None:
    """Also between equals, and where a tree needs a word more."""
    rng = random.Random(f"{before} {count} {begin}")
    for has_equals in (False, True):
        level, after = random_level(rng, 0, before, words), Level.allocate(begin, num_nodes, words, torch.device("cpu"))
        scores = torch.randn(before, count).abs().sort(-1).values.neg()
        if has_equals:
            scores, _ = scores.round(), level.scores_N.round_()
        tokens = torch.stack([torch.randperm(20)[:count] for _ in range(before)])
        never, told = torch.tensor(stops).long(), torch.zeros(num_nodes, 2, dtype=torch.long)
        ours, told_there, found = there(after), told.to(DEVICE, copy=True), (tokens.to(DEVICE), scores.to(DEVICE))
        GpuOperations(True).go_on(found, never.to(DEVICE), there(level), ours, told_there)
        plain.go_on((tokens, scores), never, level, after, told)
        real = after.scores_N > -torch.inf
        assert torch.equal(ours.scores_N.cpu(), after.scores_N) and (real.any() or num_nodes == 1)
        for mine, its in ((ours.ids_N, after.ids_N), (ours.parents_N, after.parents_N), (told_there, told)):
            assert torch.equal(mine.cpu()[real], its[real])
        assert torch.equal(ours.sees_NW.cpu()[real], after.sees_NW[real])
        assert not torch.isin(after.ids_N[real], never).any()


@pytest.mark.parametrize(
    ("known", "rows", "first"),
    [(0, 3, 5), (10, 10, 30), (60, 10, 7), (70, 3, 100), (130, 7, 64), (20, 33, 9), (0, 64, 30), (90, 64, 0)],
)
@pytest.mark.parametrize(("heads", "kv_heads", "size"), [(4, 2, 16), (8, 2, 128)][: 1 + IS_GPU])
def test_attention_of_the_last_rows_of_a_tree(
    dtype, monkeypatch, known: int, rows: int, first: int, heads: int, kv_heads: int, size: int
) -> None:
    """They see what the whole tree's pass shows them, by the kernels of few rows, whatever the table of cuts says and
    however many words the tree has."""
    monkeypatch.setattr(plans, "ATTENTION_PLANS", ((math.inf, AttentionPlan()),))
    monkeypatch.setattr(kernels, "attend_many", None)
    rng, total = random.Random(known), known + rows
    queries, cache = torch.randn(total, heads, size).to(dtype), torch.randn(2, kv_heads, 320, size).to(dtype)
    state, tree = torch.tensor([first, total, 1, -1]), TreeRows.of([rng.randint(-1, row - 1) for row in range(total)])
    bits = torch.from_numpy(tree.packed(8 * num_words(total)).copy()).view(torch.long)
    want = plain.attend(queries, cache, state, None, Branches(torch.tensor(tree.depths), bits))[known:]
    part = Branches(torch.zeros(rows, dtype=torch.long), bits[known:].clone(), is_part=True)
    torch.testing.assert_close(plain.attend(queries[known:], cache, state, None, part), want, **TOLERANCE[dtype])
    part = replace(part, depths_M=part.depths_M.to(DEVICE), sees_MW=part.sees_MW.to(DEVICE))
    got = GpuOperations(True).attend(*(one.to(DEVICE) for one in (queries[known:], cache, state)), None, part)
    torch.testing.assert_close(got.cpu(), want, **TOLERANCE[dtype])


def test_many_rows_are_a_whole_tree() -> None:
    part = Branches(torch.zeros(3, dtype=torch.long), torch.zeros(3, 1, dtype=torch.long), is_part=True)
    inputs = torch.zeros(3, 2, 16), torch.zeros(2, 2, 128, 16), torch.tensor([0, 70, 1, -1])
    with pytest.raises(ValueError, match="take whole trees"):
        attend_many(inputs, None, part, smaller_attention(AttentionPlan()), {"OVERLAPS": False})


@pytest.mark.skipif(IS_GPU, reason="test_gpu.py compares there")
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_heads_trees_on_the_kernels(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the interpreter; as test_gpu.py's are on a GPU."""
    monkeypatch.setattr(heads, "HEAD_SIZE", 16)
    monkeypatch.setattr(heads, "INNER", 64)
    layout, how = VARIANTS[variant]
    target = weaken_attention(toy_model("qwen3", 31, scale=4.0, hidden_size=64), 0.3)
    head = toy_head(layout, target, 5, **{**how, **({"size": 96} if "size" in how else {})})
    networks: list[Any] = [loaded_head(head, CachedLM(target))]
    by = Means(GpuOperations(True), FusedProducts(True))
    monkeypatch.setattr(eagle3_joined, "means_of_head", lambda *_: by)
    networks.append(loaded_head(head, GraphLM(target), "graph"))
    networks[1].prepare(3, 3, ())
    assert_same(*(tree_of(network, random_ids(5, 20), 3, 3) for network in networks))
    assert networks[1]._growing is not None
