"""The Triton kernels against the plain operations: on a GPU if there is one, else in Triton's interpreter.

Neither comes with the CPU environment: `pip install triton` and TRITON_INTERPRET=1 run them without a GPU.
"""

from __future__ import annotations

import math
import os
import random
from itertools import product

import pytest
import torch
from planned import run_by_plans
from test_tree_verification import path_to
from toys import random_ids, toy_model

from specdec.models.graph import plans
from specdec.models.graph import reference as plain

triton = pytest.importorskip("triton", reason="Triton is not installed: kernels are for GPUs")
if not (torch.cuda.is_available() or os.environ.get("TRITON_INTERPRET") == "1"):
    pytest.skip("kernels need a GPU or TRITON_INTERPRET=1", allow_module_level=True)

from specdec.models.graph import kernels  # noqa: E402
from specdec.models.graph.branches import WORD, BranchBuffers, Branches  # noqa: E402
from specdec.models.graph.graph_lm import INITIAL_CAPACITY, GraphLM  # noqa: E402
from specdec.models.graph.kernels import GpuOperations  # noqa: E402
from specdec.models.graph.network import LibraryProducts, Place, Stream  # noqa: E402
from specdec.models.graph.plans import (  # noqa: E402
    AttentionPlan,
    BackendOptions,
    Plan,
    fitting,
    plan_attention,
    plan_rows,
    smaller_attention,
)
from specdec.models.graph.products import FusedProducts  # noqa: E402
from specdec.models.graph.weights import HEAD_SIZES  # noqa: E402
from specdec.models.int8 import Int8Matrix  # noqa: E402
from specdec.models.lm import CachedLM  # noqa: E402
from specdec.models.tree_rows import TreeRows  # noqa: E402

IS_GPU = torch.cuda.is_available()
DEVICE = "cuda" if IS_GPU else "cpu"
HALF = torch.bfloat16 if torch.cuda.is_available() else torch.float16  # the interpreter multiplies no bfloat16
TOLERANCE = {torch.float32: {"atol": 1e-5, "rtol": 1e-5}, HALF: {"atol": 2e-2, "rtol": 2e-2}}


def assert_near(got: torch.Tensor, want: torch.Tensor) -> None:
    """For products: float32 to 1e-5. Of half, what is rounded twice on the one way and once on the other may leave a
    small element few right digits: within 2 % as a whole, and none further off than 5 % of the largest."""
    if want.dtype == torch.float32:
        torch.testing.assert_close(got.cpu(), want, **TOLERANCE[want.dtype])
        return
    assert got.dtype == want.dtype and got.shape == want.shape
    apart, size = got.cpu().float() - want.float(), want.float()
    assert apart.norm() <= 0.02 * size.norm() and apart.abs().max() <= 0.05 * size.abs().max()


@pytest.fixture(params=[torch.float32, HALF], ids=["float32", "half"])
def dtype(request) -> torch.dtype:
    torch.manual_seed(0)
    return request.param


def compare(name: str, *arguments: object, tolerance: dict[str, float]) -> None:
    """The kernel on the device, the plain operation on the CPU; both may write to their arguments."""
    ours = [a.clone().to(DEVICE) if isinstance(a, torch.Tensor) else a for a in arguments]
    theirs = [a.clone() if isinstance(a, torch.Tensor) else a for a in arguments]
    got, want = getattr(GpuOperations(True), name)(*ours), getattr(plain, name)(*theirs)
    if want is not None:
        torch.testing.assert_close(got.cpu(), want, **tolerance)
    for mine, its in zip(ours, theirs, strict=True):
        if isinstance(mine, torch.Tensor):
            torch.testing.assert_close(mine.cpu(), its, **tolerance)


@pytest.mark.parametrize(("rows", "size"), [(1, 64), (5, 192), (32, 100)])
def test_receive(dtype, rows: int, size: int) -> None:
    sent, inputs = torch.randint(0, 50, (2 * 32 + 4,)), torch.zeros(2 * 32 + 4, dtype=torch.long)
    if DEVICE == "cuda":
        sent = sent.pin_memory()
    embedding, hidden = torch.randn(50, size).to(dtype), torch.zeros(rows, size, dtype=dtype)
    ours = [tensor.to(DEVICE, copy=True) for tensor in (inputs, embedding, hidden)]
    GpuOperations(True).receive(sent, *ours)
    plain.receive(sent, inputs, embedding, hidden)
    for got, want in zip(ours, (inputs, embedding, hidden), strict=True):
        assert torch.equal(got.cpu(), want)


@pytest.mark.parametrize(("rows", "size"), [(1, 64), (5, 192), (32, 1536)])
def test_norm(dtype, rows: int, size: int) -> None:
    x, weight = 3 * torch.randn(rows, size), 1 + torch.randn(size)
    compare("norm", x.to(dtype), weight.to(dtype), 1e-6, tolerance=TOLERANCE[dtype])


@pytest.mark.parametrize(("rows", "size"), [(1, 64), (4, 1500)])
def test_silu_product(dtype, rows: int, size: int) -> None:
    compare("silu_product", torch.randn(rows, 2 * size).to(dtype), tolerance=TOLERANCE[dtype])


@pytest.mark.parametrize(
    ("rows", "num_tokens", "first"), [(1, 1, 0), (4, 3, 7), (32, 32, 32), (32, 20, 44), (16, 1, 63)]
)
@pytest.mark.parametrize(("heads", "kv_heads", "size"), [(4, 2, 16), (7, 1, 64)])
@pytest.mark.parametrize("is_normed", [False, True])
def test_rotate_and_store(
    dtype, is_normed, rows: int, num_tokens: int, first: int, heads: int, kv_heads: int, size: int
) -> None:
    qkv = torch.randn(rows, (heads + 2 * kv_heads) * size).to(dtype)
    angles = torch.rand(64, size // 2) * 6
    rotary, cache = torch.stack((angles.cos(), angles.sin())), torch.randn(2, kv_heads, 64, size).to(dtype)
    state = torch.tensor([first, num_tokens, 1, -1])
    norms = (1 + torch.randn(2, size)).to(dtype) if is_normed else None
    compare("rotate_and_store", qkv, rotary, cache, state, norms, 1e-6, tolerance=TOLERANCE[dtype])


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


def random_branches(rows: int, num_tokens: int) -> Branches:
    """A random tree of `num_tokens` rows in a pass of `rows`, on the CPU."""
    buffers, rng = BranchBuffers(rows, torch.device("cpu")), random.Random(f"{rows} {num_tokens}")
    buffers.send(TreeRows.of([rng.randint(-1, row - 1) for row in range(num_tokens)]), rows)
    return buffers.receive(rows)


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


MANY_ROWS = [(272, 257, 130), (80, 65, 0), (96, 96, 300), (144, 129, 700), (128, 128, 64)]
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


def test_cuts_of_measured_products_divide_what_they_cut() -> None:
    for (kind, rows, outer, inner), plan in plans.MEASURED_PLANS.items():
        assert rows == plan_rows(rows) <= BackendOptions.fused_up_to and inner % plan.block_k == 0
        assert outer % plan.block_n == 0 and (kind != "heads" or plan.block_n in HEAD_SIZES)
        assert plan.block_m or rows <= plans.ONE_TILE


def test_the_table_of_attention_says_which_kernels_run(monkeypatch) -> None:
    narrow, wide = AttentionPlan(32), AttentionPlan(128)
    for table, found in ((), [None] * 3), (((1536, None), (4608, narrow), (math.inf, wide)), [None, narrow, wide]):
        monkeypatch.setattr(plans, "ATTENTION_PLANS", table)
        assert [plan_attention(num_lines, 64) for num_lines in (1536, 1537, 9000)] == found


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


@pytest.mark.parametrize(("rows", "num_tokens", "first"), [(16, 11, 0), (32, 17, 44)])
def test_rotate_and_store_in_a_tree(dtype, rows: int, num_tokens: int, first: int) -> None:
    qkv, angles = torch.randn(rows, 8 * 16).to(dtype), torch.rand(64, 8) * 6
    rotary, cache = torch.stack((angles.cos(), angles.sin())), torch.randn(2, 2, 64, 16).to(dtype)
    state, depths = torch.tensor([first, num_tokens, 1, -1]), random_branches(rows, num_tokens).depths_M
    compare("rotate_and_store", qkv, rotary, cache, state, None, 1e-6, depths, tolerance=TOLERANCE[dtype])


@pytest.mark.parametrize("never", [-1, 3, 4096, 20_000])
@pytest.mark.parametrize(("rows", "vocab_size"), [(1, 64), (8, 5000), (3, 9000)])
def test_most_probable(dtype, never: int, rows: int, vocab_size: int) -> None:
    logits = (4 * torch.randn(rows, vocab_size)).to(dtype)
    logits[:, 3] += 9
    logits[-1, 40] = logits[-1, 50] = logits.max() + 1  # of equal logits the first is taken
    found = torch.zeros(rows, 2, dtype=torch.float64)
    compare("most_probable", logits, torch.tensor([0, 1, 1, never]), found, tolerance={"atol": 1e-6, "rtol": 1e-5})


def test_probabilities_near_one_stay_apart() -> None:
    """The best alone in its chunk of logits, first among its equals, or in a later chunk."""
    for vocab_size, best in ((64, 5), (9000, 5), (9000, 8000)):
        logits = 30 - torch.tensor([9.0, 16.0, 14.0, 25.0, 20.0])[:, None] - 3 * torch.rand(5, vocab_size)
        logits[:, best] = 30.0
        found = torch.zeros(5, 2, dtype=torch.float64)
        ours = found.to(DEVICE)
        state = torch.tensor([0, 1, 1, -1])
        plain.most_probable(logits, state, found)
        GpuOperations(True).most_probable(logits.to(DEVICE), state.to(DEVICE), ours)
        assert ours[:, 0].tolist() == [best] * 5
        torch.testing.assert_close(1 - ours[:, 1].cpu(), 1 - found[:, 1], atol=4e-16, rtol=1e-5)


def streams(dtype: torch.dtype, rows: int, size: int) -> tuple[Stream, Stream, FusedProducts, LibraryProducts]:
    """The same residual stream on the device and on the CPU, begun, and what multiplies there."""
    hidden, norm = torch.randn(rows, size).to(dtype), (1 + 0.1 * torch.randn(size)).to(dtype)
    ours, theirs = Stream(hidden.to(DEVICE, copy=True), norm.to(DEVICE), 1e-6), Stream(hidden, norm, 1e-6)
    fused, library = FusedProducts(True), LibraryProducts(plain)
    fused.begin(ours)
    library.begin(theirs)
    return ours, theirs, fused, library


@pytest.mark.parametrize("cut", [(64, 32, 1), (64, 32, 3), (16, 32, 1)], ids=str)
@pytest.mark.parametrize(
    ("rows", "num_tokens", "first"), [(1, 1, 0), (4, 3, 7), (16, 16, 48), (32, 20, 32), (64, 40, 20)]
)
@pytest.mark.parametrize(("heads", "kv_heads", "size"), [(4, 2, 16), (7, 1, 64), (3, 3, 32)])
@pytest.mark.parametrize("is_biased", [True, False])
def test_queries_product(
    dtype, cut: tuple, rows: int, num_tokens: int, first: int, heads: int, kv_heads: int, size: int, is_biased: bool
) -> None:
    ours, theirs, fused, library = streams(dtype, rows, 192)
    outer = (heads + 2 * kv_heads) * size
    fused.plans["rotated", rows, outer, 192] = Plan(*cut)
    w = (torch.randn(outer, 192) / 192**0.5).to(dtype)
    bias = torch.randn(outer).to(dtype) if is_biased else None
    angles, cache = torch.rand(64, size // 2) * 6, torch.randn(2, kv_heads, 64, size).to(dtype)
    place = (torch.stack((angles.cos(), angles.sin())), cache, torch.tensor([first, num_tokens, 1, -1]))
    on_device = Place(*(tensor.to(DEVICE, copy=True) for tensor in place))
    got = fused.queries(ours, w.to(DEVICE), None if bias is None else bias.to(DEVICE), on_device)
    assert_near(got, library.queries(theirs, w, bias, Place(*place)))
    assert_near(on_device.cache_2GPD, cache)


@pytest.mark.parametrize("splits", [1, 3])
@pytest.mark.parametrize(("rows", "num_tokens", "first"), [(1, 1, 0), (16, 11, 20), (64, 40, 20)])
@pytest.mark.parametrize(("heads", "kv_heads", "size"), [(4, 2, 16), (3, 1, 64), (2, 1, 128)][: 2 + IS_GPU])
@pytest.mark.parametrize(("is_normed", "is_tree"), [(True, False), (False, True), (True, True)])
def test_queries_product_of_whole_heads(
    dtype, splits: int, rows: int, num_tokens: int, first: int, heads: int, kv_heads: int, size: int, is_normed: bool,
    is_tree: bool,
) -> None:  # fmt: skip
    """A tile is a head: its norm, and the angles of a tree's rows, are part of the product."""
    ours, theirs, fused, library = streams(dtype, rows, 192)
    outer = (heads + 2 * kv_heads) * size
    fused.plans["heads", rows, outer, 192] = Plan(size, 32, splits)
    w, bias = (torch.randn(outer, 192) / 192**0.5).to(dtype), torch.randn(outer).to(dtype) if is_tree else None
    angles, cache = torch.rand(128, size // 2) * 6, torch.randn(2, kv_heads, 128, size).to(dtype)
    place = [torch.stack((angles.cos(), angles.sin())), cache, torch.tensor([first, num_tokens, 1, -1])]
    place += [(1 + torch.randn(2, size)).to(dtype)] if is_normed else [None]
    tree = random_branches(rows, num_tokens) if is_tree else None
    there = None if tree is None else Branches(tree.depths_M.to(DEVICE), tree.sees_MW.to(DEVICE))
    on_device = Place(*(None if one is None else one.to(DEVICE, copy=True) for one in place), there)
    fused._library = None  # it is not asked
    got = fused.queries(ours, w.to(DEVICE), None if bias is None else bias.to(DEVICE), on_device)
    assert_near(got, library.queries(theirs, w, bias, Place(*place, tree)))
    assert_near(on_device.cache_2GPD, cache)


@pytest.mark.parametrize(
    ("size", "is_normed", "is_int8", "is_asked"),
    [(16, True, False, False), (32, True, False, True), (16, False, False, False), (16, True, True, True)],
    ids=["whole heads", "other heads", "no norms", "int8"],
)
def test_a_measured_plan_of_heads_is_for_heads_of_its_size(
    dtype, monkeypatch, size: int, is_normed: bool, is_int8: bool, is_asked: bool
) -> None:
    """Other models have products of the same sizes. Whatever the table holds, results are right; where it has nothing
    for them, the library is asked: for heads of other sizes, and always in float32 and of weights in 8 bits."""
    monkeypatch.setitem(plans.MEASURED_PLANS, ("heads", 16, 128, 64), Plan(16, 32, 2))
    ours, theirs, fused, library = streams(dtype, 9, 64)
    w, angles = (torch.randn(128, 64) / 8).to(dtype), torch.rand(64, size // 2) * 6
    matrix = Int8Matrix.of(w) if is_int8 else w
    there = Int8Matrix(matrix.values_NK.to(DEVICE), matrix.scale_N.to(DEVICE)) if is_int8 else w.to(DEVICE)
    cache = torch.randn(2, 32 // size, 64, size).to(dtype)
    place = [torch.stack((angles.cos(), angles.sin())), cache, torch.tensor([7, 8, 1, -1])]
    place += [(1 + torch.randn(2, size)).to(dtype)] if is_normed else [None]
    on_device = Place(*(None if one is None else one.to(DEVICE, copy=True) for one in place))
    asked, by_library = [], fused._library.queries
    monkeypatch.setattr(fused._library, "queries", lambda *given: asked.append(given) or by_library(*given))
    assert_near(fused.queries(ours, there, None, on_device), library.queries(theirs, matrix, None, Place(*place)))
    assert_near(on_device.cache_2GPD, cache)
    assert bool(asked) == (is_asked or is_normed and dtype == torch.float32)


@pytest.mark.parametrize("rows", [1, 16, 32, 64])
@pytest.mark.parametrize(("inner", "outer"), [(64, 48), (192, 576)])
@pytest.mark.parametrize(
    "plan", [Plan(16, 64), Plan(64, 64), Plan(128, 32, num_stages=3)], ids=["few", "narrow", "wide"]
)
def test_gated_product(dtype, plan: Plan, rows: int, inner: int, outer: int) -> None:
    ours, theirs, fused, library = streams(dtype, rows, inner)
    fused.plans["gated", rows, 2 * outer, inner] = plan
    w = (torch.randn(2 * outer, inner) / inner**0.5).to(dtype)
    assert_near(fused.gated(ours, w.to(DEVICE)), library.gated(theirs, w))


@pytest.mark.parametrize("splits", [1, 2, 5, 7])
@pytest.mark.parametrize("rows", [1, 4, 16, 32, 64])
@pytest.mark.parametrize(("inner", "outer"), [(64, 48), (576, 192), (1024, 64)])
def test_add_product_and_the_norm_behind_it(dtype, splits: int, rows: int, inner: int, outer: int) -> None:
    """Also with more splits than steps: a program without work adds nothing. Twice: the workspace is left clean."""
    ours, theirs, fused, library = streams(dtype, rows, outer)
    fused.plans[("add", rows, outer, inner)] = Plan(16, 32, splits)
    y, norm = torch.randn(rows, inner).to(dtype), (1 + 0.1 * torch.randn(outer)).to(dtype)
    w = (torch.randn(outer, inner) / inner**0.5).to(dtype)
    then = (torch.randn(64, outer) / outer**0.5).to(dtype)
    taps_M2C = torch.zeros(rows, 2, outer, dtype=dtype, device=DEVICE)
    for turn in range(2):
        fused.add(ours, y.to(DEVICE), w.to(DEVICE), norm.to(DEVICE), *taps_M2C.unbind(1)[:turn])
        library.add(theirs, y, w, norm)
        assert_near(ours.hidden_MC, theirs.hidden_MC)
        tapped = ours.hidden_MC if turn else torch.zeros_like(ours.hidden_MC)
        assert torch.equal(taps_M2C[:, 0], tapped) and not taps_M2C[:, 1].any()
        got = fused.gated(ours, then.to(DEVICE))
        assert_near(got, library.gated(theirs, then))


@pytest.mark.parametrize(
    ("architecture", "how"),
    [
        *product(("qwen2", "llama", "qwen3", "mistral"), ("fused", "library")),
        ("qwen3", "by plans"),
        ("mistral", "by plans"),
    ],
)
def test_a_whole_model_on_the_kernels(architecture: str, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = toy_model(architecture, 7, scale=2.0, hidden_size=64, tie=architecture == "qwen2").to(DEVICE)
    eager, graph = CachedLM(model), GraphLM(model)
    graph._operations = GpuOperations(True)
    graph._library = LibraryProducts(graph._operations)
    graph._fused = None if how == "library" else FusedProducts(True)
    if how == "by plans":
        run_by_plans(monkeypatch, graph)
    graph._allocate(INITIAL_CAPACITY)
    for step, (count, block_size) in enumerate([(64, 32), (32, 32), (20, 32), (1, 1), (3, 1), (9, 1)]):
        if block_size == 1 and step == 3:
            eager.rollback(0)
            graph.rollback(0)
        tokens = random_ids(step, count)
        got, want = (lm.forward(tokens, block_size=block_size) for lm in (graph, eager))
        torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)
        chosen, sure = graph.predict(tokens, block_size=block_size, keep=[count - 1], never=5)
        expected, probabilities = eager.predict(tokens, block_size=block_size, keep=[count - 1], never=5)
        assert chosen == expected and sure == pytest.approx(probabilities, abs=1e-4)
        for lm in (eager, graph):
            lm.commit(count)
    for num_tokens in (5, 17, 33, 65)[: 4 if IS_GPU else 2]:
        rng, tokens = random.Random(num_tokens), random_ids(num_tokens, num_tokens)
        parents = [rng.randint(max(-1, row - 4), row - 1) for row in range(num_tokens)]
        got, want = (lm.forward(tokens, parents=parents) for lm in (graph, eager))
        torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)
        for lm in (eager, graph):
            lm.commit(path_to(num_tokens - 1, parents))
