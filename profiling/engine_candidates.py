"""Which plans of the graph engine's products are worth a trial: what `tune_engine.py` tries. It runs nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import astuple, replace
from itertools import chain, product
from typing import TYPE_CHECKING

from specdec.models.graph.plans import ONE_TILE, Plan, measured_plan, plan_int8, plan_product

if TYPE_CHECKING:
    from specdec.models.graph.weights import Weights

Key = tuple[str, int, int, int]  # kind, rows, outer and inner size
SHORT_LINE = 1024  # inputs; products of fewer have few tiles of the usual size, so smaller ones are tried too

# Tiles of the kernels for many rows, by the most rows and by kind: lines and rows of a tile, inputs of a step, splits,
# warps, stages; the most promising first. At Qwen3-8B's shape most make one wave of 96 to 128 programs.
MANY: dict[int, dict[str, list[tuple[int, int, int, int, int, int]]]] = {
    64: {
        "heads": [(128, 64, 128, 2, 4, 4), (128, 64, 64, 2, 4, 8), (128, 64, 128, 2, 8, 4), (128, 64, 64, 5, 4, 4)],
        "add": [(64, 64, 128, 2, 4, 6), (128, 64, 64, 4, 4, 8), (64, 64, 128, 4, 4, 3), (64, 64, 64, 2, 4, 6)],
        "gated": [(192, 64, 64, 1, 4, 6), (192, 64, 64, 1, 8, 6), (128, 64, 64, 1, 4, 4), (192, 64, 128, 1, 8, 3)],
    },
    80: {
        "heads": [(128, 80, 64, 2, 4, 6), (128, 80, 128, 2, 8, 3), (128, 80, 64, 2, 8, 6)],
        "add": [(64, 80, 128, 2, 4, 5), (128, 80, 64, 4, 4, 6), (64, 80, 64, 2, 4, 6)],
        "gated": [(192, 80, 64, 1, 8, 6), (192, 80, 64, 1, 4, 6), (128, 80, 64, 1, 4, 4)],
    },
    128: {
        "heads": [(128, 128, 64, 2, 8, 6), (128, 128, 64, 2, 4, 6), (128, 128, 128, 2, 8, 3), (128, 64, 64, 2, 4, 4)],
        "add": [(64, 128, 64, 2, 4, 8), (128, 128, 64, 4, 8, 6), (64, 128, 128, 2, 4, 4), (64, 128, 64, 4, 4, 4)],
        "gated": [(192, 128, 64, 1, 8, 5), (128, 128, 64, 1, 8, 3), (192, 128, 64, 1, 4, 5), (128, 128, 64, 1, 4, 3)],
    },
    144: {
        "heads": [(128, 144, 64, 2, 8, 6), (128, 80, 64, 1, 4, 6), (128, 80, 64, 2, 4, 4)],
        "add": [(64, 144, 64, 2, 4, 6), (128, 144, 64, 4, 8, 6), (64, 144, 64, 2, 8, 6)],
        "gated": [(192, 144, 64, 1, 8, 5), (128, 144, 64, 1, 8, 3), (128, 80, 64, 1, 4, 4)],
    },
    256: {
        "heads": [(128, 128, 64, 1, 8, 6), (128, 256, 64, 2, 8, 4), (128, 128, 64, 1, 4, 4)],
        "add": [
            *((128, 128, 64, 2, 8, 6), (128, 256, 64, 4, 8, 4), (64, 128, 64, 1, 4, 8), (128, 128, 128, 2, 8, 3)),
            *((64, 256, 64, 2, 8, 5), (128, 128, 64, 4, 8, 3)),
        ],
        "gated": [(192, 256, 64, 1, 8, 4), (192, 256, 64, 1, 16, 4), (192, 128, 64, 1, 8, 5)],
    },
}


def plans_to_try(weights: Weights, key: Key) -> list[Plan | None]:
    """What is usual for a product (None), and all plans that are worth a trial, the most promising first: those of
    many rows, and of few rows those near the usual one."""
    (kind, count, outer, inner), size = key, weights.dtype.itemsize
    if weights.is_int8:
        usual = plan_int8(kind, count, outer, inner, size)
        return [None, *(plan for plan in candidates_int8(usual, inner) if plan != usual)]
    known = measured_plan(kind, count, outer, inner, size)
    found = [plan for plan in many_candidates(kind, count, weights.head_size, inner) if plan != known]
    if count > ONE_TILE:
        return [None, *found]
    if kind == "heads":
        return [None, *found, *(plan for plan in head_candidates(weights.head_size, inner) if plan != known)]
    usual = known or plan_product(outer, inner, kind, size)
    others = {plan for plan in candidates(kind, inner) if plan != usual}
    return [None, *found, *sorted(others, key=lambda plan: differences(plan, usual))]


def many_candidates(kind: str, count: int, head_size: int, inner: int) -> Iterator[Plan]:
    """Plans of the kernels for many rows, for `count` rows, also for more than any are listed for; none for fewer than
    fill half of the smallest tile."""
    rows = next((most for most in MANY if count <= most), max(MANY))
    for block_n, block_m, block_k, splits, warps, stages in MANY[rows].get(kind, []) if count > ONE_TILE // 2 else []:
        if inner % block_k == 0 and (kind != "heads" or block_n == head_size):
            plan = Plan(block_n, block_k, splits, warps, stages, block_m)
            yield plan
            if kind == "add":
                yield replace(plan, copies_weights=True)


def plan_name(plan: Plan) -> str:
    many = f" m{plan.block_m}" if plan.block_m else ""
    how = " copied" if plan.copies_weights else ""
    return f"n{plan.block_n} k{plan.block_k} s{plan.splits} w{plan.num_warps} x{plan.num_stages}{many}{how}"


def differences(plan: Plan, other: Plan) -> tuple[int, str]:
    """In how many things two plans differ; among equals, by name."""
    return sum(mine != its for mine, its in zip(astuple(plan), astuple(other), strict=True)), plan_name(plan)


def head_candidates(head_size: int, inner: int) -> Iterator[Plan]:
    """Plans whose tile is one head: the library multiplies without one."""
    for block_k, splits, warps, stages in (
        *((64, 5, 4, 4), (64, 5, 8, 4), (128, 2, 4, 3), (128, 2, 8, 3), (64, 2, 8, 6), (64, 3, 4, 4)),
        *((128, 5, 8, 3), (64, 8, 4, 4), (128, 3, 4, 4), (64, 4, 4, 5), (32, 5, 4, 6)),
    ):
        if inner % block_k == 0:
            yield Plan(head_size, block_k, splits, warps, stages)


def candidates(kind: str, inner: int) -> Iterator[Plan]:
    """Plans worth trying; those that do not divide the inner size are left out."""
    whole_lines = ((16,), (128, 256), (1,), (2, 4), (3, 4))
    choices: dict[str, list[tuple[tuple[int, ...], ...]]] = {
        "rotated": [whole_lines, ((64,), (64, 128), (1, 2, 3, 4), (4,), (3, 4, 6))],
        "gated": [((64, 128), (64, 128), (1,), (4, 8), (3, 4))],
        "add": [whole_lines, ((64,), (128, 256), (2, 3, 4, 6, 8), (4,), (4, 6))],
    }
    if inner < SHORT_LINE:
        choices[kind].append(((16, 32), (64,), (1,), (2, 4), (4, 8)))
    for block_n, block_k, splits, warps, stages in chain.from_iterable(product(*choice) for choice in choices[kind]):
        plan = Plan(block_n=block_n, block_k=block_k, splits=splits, num_warps=warps, num_stages=stages)
        if inner % plan.block_k == 0:
            yield plan


def candidates_int8(default: Plan, inner: int) -> Iterator[Plan]:
    """Plans for weights in 8 bits that lie around the usual one: a few, for each is compiled."""
    splits = {default.splits, max(1, default.splits // 2), 2 * default.splits} if default.splits > 1 else {1, 2}
    yield from (replace(default, splits=count) for count in splits)
    yield from (replace(default, num_stages=count) for count in (3, 5, 6))
    yield replace(default, num_warps=8)
    yield replace(default, block_n=2 * default.block_n)
    for block_k in (default.block_k // 2, 2 * default.block_k):
        if inner % block_k == 0:
            yield replace(default, block_k=block_k)
