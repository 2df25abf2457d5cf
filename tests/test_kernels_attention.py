"""Attention's kernels, of few rows and of many, against the plain operation."""

from __future__ import annotations

import math
import random
from itertools import product

import pytest
import torch
from kernel_toys import DEVICE, HALF, IS_GPU, TOLERANCE, compare, dtype, random_branches

from specdec.models.graph import kernels, plans
from specdec.models.graph import reference as plain
from specdec.models.graph.branches import WORD, BranchBuffers, Branches
from specdec.models.graph.kernels import GpuOperations
from specdec.models.graph.plans import AttentionPlan, fitting, plan_attention, smaller_attention
from specdec.models.graph.weights import HEAD_SIZES
from specdec.models.tree_rows import TreeRows

__all__ = ["dtype"]  # a fixture


@pytest.mark.parametrize(("block_size", "window"), [(1, None), (32, None), (1, 40), (1, 3)])
@pytest.mark.parametrize(
    ("rows", "num_tokens", "first"), [(1, 1, 0), (1, 1, 255), (2, 2, 100), (16, 11, 0), (32, 32, 64), (64, 50, 190)]
)
@pytest.mark.parametrize(("heads", "kv_heads", "size"), [(4, 2, 16), (6, 2, 64), (7, 1, 32)])
def test_attend(
    dtype, block_size, window, rows: int, num_tokens: int, first: int, heads: int, kv_heads: int, size: int
) -> None:
    queries, cache = torch.randn(rows, heads, size), torch.randn(2, kv_heads, 256, size)
    state = torch.tensor([first, num_tokens, block_size, -1])
    compare("attend", queries.to(dtype), cache.to(dtype), state, window, tolerance=TOLERANCE[dtype])


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize(
    ("rows", "num_tokens", "first"), [(1, 1, 0), (16, 11, 0), (32, 17, 20)] + [(80, 65, 100), (144, 144, 7)] * IS_GPU
)
@pytest.mark.parametrize(("heads", "kv_heads", "size"), [(4, 2, 16), (7, 1, 32)][: 1 + IS_GPU])
def test_attend_in_a_tree(
    dtype, window, rows: int, num_tokens: int, first: int, heads: int, kv_heads: int, size: int
) -> None:
    queries, cache = torch.randn(rows, heads, size).to(dtype), torch.randn(2, kv_heads, 256, size).to(dtype)
    state, tree = torch.tensor([first, num_tokens, 1, -1]), random_branches(rows, num_tokens)
    on_device = Branches(tree.depths_M.to(DEVICE), tree.sees_MW.to(DEVICE))
    got = GpuOperations(True).attend(*(one.to(DEVICE) for one in (queries, cache, state)), window, on_device)
    want = plain.attend(queries, cache, state, window, tree)
    torch.testing.assert_close(got.cpu()[:num_tokens], want[:num_tokens], **TOLERANCE[dtype])
    assert got.isfinite().all()


@pytest.mark.parametrize("num_rows", [1, 63, 64, 65, 130])
def test_a_trees_bits_say_what_its_rows_see(num_rows: int) -> None:
    rng, count = random.Random(num_rows), num_rows + 5
    rows = TreeRows.of([rng.randint(-1, row - 1) for row in range(num_rows)])
    buffers = BranchBuffers(200, torch.device("cpu"))
    for turn in (TreeRows.of([-1] * count), rows):  # the second leaves nothing of the first
        buffers.send(turn, count)
    branches = buffers.receive(count)
    seen = branches.sees(count)
    assert torch.equal(seen[:num_rows, :num_rows], torch.from_numpy(rows.sees_LL))
    assert not seen[:num_rows, num_rows:].any()
    assert seen[num_rows:].nonzero().tolist() == [[row, 0] for row in range(5)]  # padding sees the first row
    assert branches.depths_M.tolist() == [*rows.depths, *[0] * 5]


def attend_both(
    dtype: torch.dtype, sizes: tuple[int, int, int], rows: tuple[int, int, int], how: tuple, plan: AttentionPlan | None
) -> None:
    """Attention by the kernels and by plain torch; `sizes`: query heads, KV heads, head size; `rows`: rows of the pass,
    real ones, the first's position; `how`: block size, window, and whether it is a tree. `plan`: None for the kernels
    of few rows."""
    (heads, kv_heads, size), (count, num_tokens, first), (block_size, window, is_tree) = sizes, rows, how
    queries = torch.randn(count, heads, size).to(dtype)
    cache = torch.randn(2, kv_heads, first + count + 3, size).to(dtype)
    cache[:, :, first + num_tokens :] = torch.nan  # what was never written is not read
    state = torch.tensor([first, num_tokens, block_size, -1])
    tree = random_branches(count, num_tokens) if is_tree else None
    there = None if tree is None else Branches(tree.depths_M.to(DEVICE), tree.sees_MW.to(DEVICE))
    operations = GpuOperations(True)
    operations.attention_plans |= {} if plan is None else {count: plan}
    got = operations.attend(*(one.to(DEVICE) for one in (queries, cache, state)), window, there)
    want = plain.attend(queries, cache, state, window, tree)
    torch.testing.assert_close(got.cpu()[:num_tokens], want[:num_tokens], **TOLERANCE[dtype])
    assert got.isfinite().all()


MANY_ROWS = [(264, 257, 130), (80, 65, 0), (96, 96, 300), (144, 129, 700), (128, 128, 64)]
HOW = [(1, None, True), (1, 40, True), (1, None, False), (1, 90, False), (32, None, False)]


@pytest.mark.parametrize(("rows", "how"), list(product(MANY_ROWS, HOW) if IS_GPU else zip(MANY_ROWS, HOW, strict=True)))
def test_attend_with_many_rows(rows: tuple[int, int, int], how: tuple) -> None:
    torch.manual_seed(0)
    for plan in (AttentionPlan(), AttentionPlan(splits=2), None):
        attend_both(HALF, (2, 1, 16), rows, how, plan)


@pytest.mark.parametrize("group", range(1, 9) if IS_GPU else (1, 3, 7))
def test_attend_with_many_rows_under_every_number_of_heads(group: int) -> None:
    torch.manual_seed(0)
    attend_both(HALF, (2 * group, 2, 16), (72, 69, 7), (1, None, group % 2 == 0), AttentionPlan(32))


@pytest.mark.parametrize("is_tree", [True, False])
def test_attend_with_many_rows_of_every_size_of_values(dtype, is_tree: bool) -> None:
    for size in (16, 256):
        for plan in (fitting(AttentionPlan(), size, dtype.itemsize), None):
            attend_both(dtype, (1, 1, size), (68, 66, 10), (1, None, is_tree), plan)


PLANS = [AttentionPlan(128, 64, 1, 8, 3), AttentionPlan(64, 32, 3), AttentionPlan(16, 16, 8), AttentionPlan(32, 64, 2)]


@pytest.mark.parametrize("how", [(1, 7, True), (1, None, False)], ids=str)
@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_attend_by_every_kind_of_cut(plan: AttentionPlan, how: tuple) -> None:
    """Also splits that find nothing to see, and few rows."""
    torch.manual_seed(0)
    for rows in ((16, 11, 70), (80, 70, 3)):
        attend_both(HALF, (2, 1, 32), rows, how, plan)


def test_cuts_of_attention_are_small_enough() -> None:
    """For every size of values: queries, and keys and values of all steps on their way, also on GPUs below an A100."""
    shipped = [plan for _, plan in plans.ATTENTION_PLANS if plan is not None]
    for plan, head_size, itemsize in product([AttentionPlan(128, 64, 2, 8, 3), *shipped], HEAD_SIZES, (2, 4)):
        large = fitting(plan, head_size, itemsize)
        for cut, most in ((large, plans.SHARED_MEMORY), (smaller_attention(large), 99 * 1024)):
            steps = cut.num_stages - (itemsize == 4)  # float32 is multiplied from registers: one of them is there
            values = cut.block_rows + 2 * steps * cut.block_positions
            assert values * head_size * itemsize <= most
            assert WORD % cut.block_positions == 0 and cut.block_positions >= 16


def test_the_table_of_attention_says_which_kernels_run(monkeypatch) -> None:
    narrow, wide = AttentionPlan(32), AttentionPlan(128)
    for table, found in ((), [None] * 3), (((1536, None), (4608, narrow), (math.inf, wide)), [None, narrow, wide]):
        monkeypatch.setattr(plans, "ATTENTION_PLANS", table)
        assert [plan_attention(num_lines, 64) for num_lines in (1536, 1537, 9000)] == found


FROM_33_ROWS = [(33, 33, 5), (40, 36, 70), (64, 50, 0)]


@pytest.mark.parametrize(
    ("rows", "how"), list(product(FROM_33_ROWS, HOW) if IS_GPU else zip(FROM_33_ROWS[:2], HOW[::2], strict=False))
)
def test_passes_of_33_to_64_rows_run_by_a_cut_of_their_own(dtype, monkeypatch, rows: tuple, how: tuple) -> None:
    """Those of 32 heads, for which it was measured; of few heads, and up to 32 rows, the kernels of few rows run."""
    taken, attend = [], kernels.attend_many
    monkeypatch.setattr(kernels, "attend_many", lambda *given: taken.append(given[3]) or attend(*given))
    attend_both(dtype, (32, 8, 16), rows, how, None)
    assert taken == [fitting(AttentionPlan(64, 64, 4, 4, 3), 16, dtype.itemsize)]
    attend_both(dtype, (4, 2, 16), rows, how, None)
    attend_both(dtype, (48, 1, 16), (32, 20, 7), how, None)
    assert len(taken) == 1


@pytest.mark.parametrize("how", [(1, None, True), (1, 30, False), (32, None, False)], ids=str)
@pytest.mark.parametrize("size", [32, 64, 128, 256] if IS_GPU else [32])
def test_passes_of_many_rows_run_as_the_table_says(dtype, monkeypatch, size: int, how: tuple) -> None:
    """Nobody names a plan. Five heads share a KV head, and a tile ends amid a row's."""
    taken, attend = [], kernels.attend_many
    monkeypatch.setattr(kernels, "attend_many", lambda *given: taken.append(given[3]) or attend(*given))
    monkeypatch.setattr(plans, "ATTENTION_PLANS", ((650, None), *plans.ATTENTION_PLANS[1:]))
    attend_both(dtype, (10, 2, size), (72, 66, 70), how, None)
    attend_both(dtype, (5, 1, size), (72, 72, 3), how, None)
    assert taken == [plan_attention(720, size, dtype.itemsize)] and taken[0] is not None
