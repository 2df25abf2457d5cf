"""The fused products of many rows against the plain operations: on a GPU if there is one, else in Triton's interpreter
(see kernel_toys.py)."""

from __future__ import annotations

import random
from argparse import Namespace
from ast import literal_eval
from dataclasses import replace
from math import inf

import pytest
import torch
from kernel_toys import DEVICE, HALF, IS_GPU, assert_adds, assert_near, random_branches, streams
from test_tree_verification import path_to
from toys import random_ids, toy_model

from profiling import engine_candidates, planned_passes, profile_engine, tune_engine
from specdec.models.graph import plans, tiles
from specdec.models.graph.branches import Branches
from specdec.models.graph.graph_lm import INITIAL_CAPACITY, GraphLM
from specdec.models.graph.kernels import GpuOperations
from specdec.models.graph.network import LibraryProducts, Place
from specdec.models.graph.plans import ONE_TILE, BackendOptions, Plan
from specdec.models.graph.products import FusedProducts
from specdec.models.graph.products_many import ManyRows
from specdec.models.graph.weights import join_weights
from specdec.models.int8 import Int8Matrix
from specdec.models.lm import CachedLM

ROWS = (65, 80, 144, 257, 264)  # of passes: some fill their tiles, some leave rows of the last one empty


@pytest.fixture(params=[torch.float32, HALF], ids=["float32", "half"])
def dtype(request) -> torch.dtype:
    torch.manual_seed(0)
    return request.param


def on_device(place: list, tree: Branches | None) -> Place:
    there = None if tree is None else Branches(tree.depths_M.to(DEVICE), tree.sees_MW.to(DEVICE))
    return Place(*(None if one is None else one.to(DEVICE, copy=True) for one in place), there)


def by_kernels(lm: GraphLM) -> GraphLM:
    """The model's passes by kernels, also in the interpreter."""
    lm._operations = GpuOperations(True)
    lm._library, lm._fused = LibraryProducts(lm._operations), FusedProducts(True)
    lm._allocate(INITIAL_CAPACITY)
    return lm


def small(plan: Plan, dtype: torch.dtype) -> Plan:
    """For float32, whose sums and values need twice the room."""
    block_m = 80 if plan.block_m == 144 else min(plan.block_m, 64)
    return plan if dtype != torch.float32 else replace(plan, block_m=block_m, num_stages=2)


@pytest.mark.parametrize("splits", [1, 3])
@pytest.mark.parametrize(("rows", "num_tokens", "first"), [(65, 65, 0), (80, 70, 7), (144, 130, 20), (264, 257, 100)])
@pytest.mark.parametrize(("is_normed", "is_tree"), [(True, False), (False, True), (True, True), (False, False)])
def test_queries_of_many_rows(
    dtype, splits: int, rows: int, num_tokens: int, first: int, is_normed: bool, is_tree: bool
) -> None:
    """Also with more rows than tokens, a tree's angles, and, in chains without norms, biases."""
    heads, kv_heads, size = 3, 1, 16 if rows < 100 else 64
    ours, theirs, fused, library = streams(dtype, rows, 192)
    outer = (heads + 2 * kv_heads) * size
    block_m = {65: 64, 80: 80, 144: 144, 264: 256}[rows]
    fused.plans["heads", rows, outer, 192] = small(Plan(size, 32, splits, 8, 2, block_m), dtype)
    w, bias = (torch.randn(outer, 192) / 192**0.5).to(dtype), torch.randn(outer).to(dtype) if not is_normed else None
    angles, cache = torch.rand(512, size // 2) * 6, torch.randn(2, kv_heads, 512, size).to(dtype)
    place = [torch.stack((angles.cos(), angles.sin())), cache, torch.tensor([first, num_tokens, 1, -1])]
    place += [(1 + torch.randn(2, size)).to(dtype)] if is_normed else [None]
    tree = random_branches(rows, num_tokens) if is_tree else None
    there = on_device(place, tree)
    fused._library = None  # it is not asked
    got = fused.queries(ours, w.to(DEVICE), None if bias is None else bias.to(DEVICE), there)
    assert_near(got, library.queries(theirs, w, bias, Place(*place, tree)))
    assert_near(there.cache_2GPD, cache)


@pytest.mark.parametrize(
    "plan",
    [Plan(192, 32, 1, 8, 3, 256), Plan(64, 64, 1, 4, 3, 64), Plan(96, 32, 1, 4, 3, 128), Plan(192, 32, 1, 8, 3, 144)],
    ids=str,
)
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize(("inner", "outer"), [(64, 48), (192, 296)])
def test_gated_product_of_many_rows(dtype, plan: Plan, rows: int, inner: int, outer: int) -> None:
    """Also of widths that no tile divides: tiles of two powers of two, and of one, of lines and of rows."""
    ours, theirs, fused, library = streams(dtype, rows, inner)
    fused.plans["gated", rows, 2 * outer, inner], fused._library = small(plan, dtype), None
    w = (torch.randn(2 * outer, inner) / inner**0.5).to(dtype)
    assert_near(fused.gated(ours, w.to(DEVICE)), library.gated(theirs, w))


@pytest.mark.parametrize("copies", [False, True], ids=["read", "copied"])
@pytest.mark.parametrize(("splits", "block_m"), [(1, 64), (2, 256), (5, 128), (7, 64), (3, 144), (1, 144)])
@pytest.mark.parametrize(("rows", "inner", "outer"), [(80, 64, 48), (257, 576, 192), (144, 1024, 64)])
def test_add_product_of_many_rows(
    dtype, copies: bool, splits: int, block_m: int, rows: int, inner: int, outer: int
) -> None:
    """Also with more splits than steps. Twice: the workspace is left clean. A tap gets what is added."""
    ours, theirs, fused, library = streams(dtype, rows, outer)
    plan = Plan(64, 32, splits, 4, 2, block_m, copies)
    fused.plans["add", rows, outer, inner] = small(plan, dtype)
    fused.plans["gated", rows, 64, outer] = small(Plan(64, 16, 1, 4, 2, 64), dtype)
    fused._library = None
    assert_adds((ours, theirs, fused, library), rows, inner)


@pytest.mark.parametrize("fused_kinds", [(), ("gated",), ("add",), ("heads", "gated"), ("heads", "add")], ids=str)
def test_products_without_a_plan_are_the_librarys(monkeypatch, fused_kinds: tuple[str, ...]) -> None:
    """Each product may be either's, whatever those before and after it are, and without a plan bits are the library's.
    Weights in 8 bits have no plans."""
    for kind, outer in {"heads": 128, "gated": 192, "add": 64}.items():
        if kind in fused_kinds:
            plan = Plan(32 if kind == "heads" else 64, 32, 1, 4, 2, 64)
            monkeypatch.setitem(plans.MEASURED_PLANS, (kind, 80, outer, 64), plan)
    for is_int8 in (False, True):
        torch.manual_seed(0)
        ours, _, fused, _ = streams(HALF, 80, 64)
        library, theirs = LibraryProducts(GpuOperations(True)), replace(ours, hidden_MC=ours.hidden_MC.clone())
        matrices = [(torch.randn(outer, 64) / 8).to(HALF).to(DEVICE) for outer in (128, 192, 64)]
        w_NC, w_2IC, w_CI = (Int8Matrix.of(w) for w in matrices) if is_int8 else matrices
        angles, cache = torch.rand(128, 16) * 6, torch.zeros(2, 1, 128, 32, dtype=HALF)
        place = [torch.stack((angles.cos(), angles.sin())), cache, torch.tensor([3, 77, 1, -1])]
        place.append((1 + torch.randn(2, 32)).to(HALF))
        found = []
        for products, stream in ((fused, ours), (library, theirs)):
            there = on_device(place, None)
            products.add(stream, stream.hidden_MC.clone(), w_CI, stream.norm_C)
            q_MHD = products.queries(stream, w_NC, None, there)
            products.add(stream, q_MHD.flatten(1), w_CI, stream.norm_C)
            gated = products.gated(stream, w_2IC)
            products.add(stream, gated[:, :64].contiguous(), w_CI, stream.norm_C)
            found.append((q_MHD, gated, stream.hidden_MC, there.cache_2GPD))
        for got, want in zip(*found, strict=True):
            if is_int8 or not fused_kinds:
                assert torch.equal(got, want)
            assert_near(got, want.cpu())


def test_plans_of_many_rows_are_for_hopper(monkeypatch) -> None:
    """Elsewhere what is usual stays: few rows by the kernels of few, many by the library."""
    few, many = ("add", 16, 64, 64), ("add", 80, 64, 64)
    for key in (few, many):
        monkeypatch.setitem(plans.MEASURED_PLANS, key, Plan(64, 32, block_m=64))
    launcher = FusedProducts(True)._launcher
    for has_copy_engine in (True, False):
        monkeypatch.setattr(tiles, "has_copy_engine", lambda _, answer=has_copy_engine: answer)
        known = [launcher.known("add", torch.zeros(key[1], 64, dtype=HALF), 64, False) for key in (few, many)]
        assert [plan is not None for plan in known] == [has_copy_engine] * 2
        assert launcher.plan("add", torch.zeros(16, 64, dtype=HALF), 64, False).block_m == 64 * has_copy_engine


@pytest.mark.parametrize("architecture", ["qwen3", "qwen2"])
@pytest.mark.parametrize("num_tokens", [66, 130, 257] if IS_GPU else [66])
def test_a_whole_model_by_plans_of_many_rows(architecture: str, num_tokens: int) -> None:
    """Chains and trees, with heads' norms and with biases, against eager modules; also the chain of 257 tokens, whose
    pass of 512 rows is the library's as a rule."""
    model = toy_model(architecture, 7, scale=2.0, hidden_size=64).to(DEVICE)
    eager, graph = CachedLM(model), by_kernels(GraphLM(model, options=BackendOptions(512)))
    layer = graph.weights.layers[0]
    matrices = {"heads": layer.qkv_NC, "gated": layer.gate_up_2IC, "add": layer.output_CHD}
    for kind, w in (*matrices.items(), ("add", layer.down_CI)):
        for rows in (96, 256, 512) + plans.TREE_COUNTS:
            if rows > ONE_TILE:
                width = graph.weights.head_size if kind == "heads" else 64
                graph._fused.plans[kind, rows, *w.shape] = Plan(width, 32, 1 + (kind == "add"), 4, 2, 64)
    rng, tokens = random.Random(num_tokens), random_ids(num_tokens, num_tokens)
    parents = [rng.randint(max(-1, row - 4), row - 1) for row in range(num_tokens)]
    graph._library.operations = graph._fused._library.operations = None  # nothing is asked of either
    for how in ({}, {"parents": parents}):
        got, want = (lm.forward(tokens, **how) for lm in (graph, eager))
        torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)
        for lm in (eager, graph):
            lm.commit(path_to(num_tokens - 1, parents) if how else num_tokens)


@pytest.mark.parametrize("architecture", ["qwen3", "qwen2"])
def test_the_tuner_runs_each_product_by_a_plan(architecture: str, monkeypatch) -> None:
    """Of few rows and of many; there is no other product, and the kernels that are asked for are those of many."""
    lm, taken = by_kernels(GraphLM(toy_model(architecture, 7, hidden_size=64).to(DEVICE))), []
    for kind in ("queries", "gated", "add"):
        run = getattr(ManyRows, kind)
        monkeypatch.setattr(ManyRows, kind, lambda *given, run=run: taken.append(given[1]) or run(*given))
    for count in (64, 80):
        for name, (kind, outer, inner) in tune_engine.products_of(lm.weights, count).items():
            plan = Plan(lm.weights.head_size if kind == "heads" else 64, 32, 1, 4, 2, 64)
            tune_engine.run_product(lm, name, (kind, count, outer, inner), plan)
            assert taken.pop() is plan or kind == "rotated"
            assert not taken


def test_whole_passes_are_timed_by_plans_and_without(monkeypatch) -> None:
    """Each way has its own products; afterwards the engine has what it had."""
    lm, made = by_kernels(GraphLM(toy_model("qwen3", 7, hidden_size=64).to(DEVICE))), {}
    layer = lm.weights.layers[0]
    key, plan = ("gated", 64, *layer.gate_up_2IC.shape), Plan(64, 32, 1, 4, 2, 64)

    def once(lm: GraphLM, calls: dict, repeats: int) -> dict:
        for name, call in calls.items():
            call()
            made[name] = dict(lm._fused.plans)
        return {name: {"ms": 3.0} for name in calls}

    monkeypatch.setattr(planned_passes, "timed_in_turn", once)
    before = lm._fused
    found = planned_passes.measure_passes(lm, random_ids(1, 64), {key: plan}, (1e3, 1e30))
    assert lm._fused is before
    assert made == {"usual": {}, "best": {key: plan}}
    assert set(found) == {"chain", "tree"}
    limit_ms = profile_engine.weight_bytes(lm) / 1e3
    assert found["tree"]["best_ms"] == 3.0 and found["tree"]["best, over the limit"] == pytest.approx(3 / limit_ms)
    assert set(planned_passes.measure_passes(lm, random_ids(1, 80), {}, (1e3, 1e30))) == {"tree"}


def test_plans_of_many_rows_to_try_fit_a_programs_memory_and_what_they_cut() -> None:
    """Rows and weights of all steps on their way; tiles of heads are heads, and no sums need more than half the
    registers of the largest tile."""
    half = join_weights(toy_model("qwen3", 1).bfloat16(), None)
    shapes = {"heads": (6144, 4096), "gated": (24576, 4096), "add": (4096, 12288)}
    for count in (33, 64, 80, 128, 144, 256, 264):
        for kind, (outer, inner) in shapes.items():
            tried = engine_candidates.plans_to_try(replace(half, head_size=128), (kind, count, outer, inner))
            found = [plan for plan in tried[1:] if plan.block_m]
            assert tried[0] is None and found and len(set(tried)) == len(tried)
            for plan in found:
                assert outer % plan.block_n == inner % plan.block_k == 0 and (kind != "heads" or plan.block_n == 128)
                steps = plan.num_stages * plan.block_k * (plan.block_n + plan.block_m) * 2
                assert steps <= 227 * 1024 - 1024 and plan.block_n * plan.block_m <= 192 * 32 * plan.num_warps
    for kind, (outer, inner) in shapes.items():
        few = engine_candidates.plans_to_try(replace(half, head_size=128), (kind, 32, outer, inner))
        assert not any(plan is not None and plan.block_m for plan in few)


def test_the_tuner_prints_lines_by_which_the_engine_runs_many_rows(monkeypatch) -> None:
    """From trial to table, but for the clock: of each product the plan that is said to be the fastest, whose passes
    are near the usual ones, and which the engine then takes."""
    lm, named = by_kernels(GraphLM(toy_model("qwen3", 7, hidden_size=64).to(DEVICE))), "add"
    bench = Namespace(counts=[80], limit_s=inf)
    said = {name: Plan(64, 64, 1, 4, 3, 80) for name in ("gated", named)}

    def time_layers(lm: GraphLM, count: int, chosen: dict) -> float:
        return 100.0 - sum(plan == said.get(key[0]) for key, plan in chosen.items())

    monkeypatch.setitem(engine_candidates.MANY, 80, {kind: [(64, 80, 64, 1, 4, 3)] for kind in said})
    monkeypatch.setattr(tune_engine, "time_layers", time_layers)
    monkeypatch.setattr(tune_engine, "compile_ahead", lambda *_: None)
    monkeypatch.setattr(tune_engine, "after_context", lambda _: lm)
    monkeypatch.setattr(tune_engine, "CONTEXT", 0)
    monkeypatch.setattr(tune_engine, "token_ids", lambda: random_ids(1, 80))
    monkeypatch.setattr(planned_passes, "timed_in_turn", lambda _, calls, __: {name: {"ms": 1.0} for name in calls})
    found: dict = {}
    tune_engine.tune_plans(None, bench, (1e3, 1e30), found, lambda: None)
    one = found["80"]
    assert "MEASURED_PLANS" not in one["query, key, value"]  # there is no plan for its heads
    assert one["difference"]["tree"] < 1e-4 and one["passes"]["tree"]["usual_ms"] == 1.0
    layer = lm.weights.layers[0]
    for name, w in {"output": layer.output_CHD, "gate, up": layer.gate_up_2IC, "down": layer.down_CI}.items():
        kind = "gated" if name == "gate, up" else named
        assert one[name][engine_candidates.plan_name(said[kind])] < one[name]["usual"]
        half = replace(lm.weights, embedding_VC=torch.zeros(1, dtype=HALF))
        line = tune_engine.table_line(half, (kind, 80, *w.shape), said[kind])
        place, made = line["MEASURED_PLANS"].split(": ", 1)
        assert literal_eval(place) == (kind, 80, *w.shape) and made == f"{said[kind]},"
