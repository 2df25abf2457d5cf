"""How passes run on a GPU, and how the fused products are cut into programs; the kernels are in `products.py`."""

from dataclasses import dataclass, replace
from math import inf

NUM_PROGRAMS = 132  # multiprocessors of an H100 or H200
SHARED_MEMORY = 160 * 1024  # bytes of a program's that the largest cuts take
TILE = 64  # lines of weights that tensor cores take at once
FEW_ROWS = 32  # up to this number of rows attention has little more to do than to read the cache
ONE_TILE = 64  # up to this number of rows a tile of a product has them all
# Rows of a tree's pass, the last known token among them: for trees of 16, 32, 64, 128 and 256 nodes, with little room
# to spare, and for trees of 127 and 255, whose rows fill the matrix library's tiles of 128. Up to 64 rows are
# multiplied in fused kernels that take powers of two. The library multiplies 264 rows in less time than 272.
TREE_COUNTS = (16, 32, 64, 80, 128, 144, 256, 264)
MAX_NODES = TREE_COUNTS[-1] - 1
# Of weights in 8 bits, up to a number of rows: inputs of a step, and how many steps are on their way.
INT8_STEPS = ((16, 256, 4), (32, 128, 4), (64, 128, 3), (inf, 64, 4))
MIN_STEPS = 4  # a split does at least this number of steps, or its start would cost more than it saves


@dataclass(frozen=True)
class BackendOptions:
    """How passes run on a GPU; results differ by rounding only.

    `fused_up_to`: passes of at most this number of tokens multiply in kernels with the norms, the rotation, the gate
    and the residual sum inside, those of more than `ONE_TILE` where a plan was measured; longer ones in the matrix
    library. `overlaps`: a layer's kernels begin while the one before them ends, on GPUs that can; this changes no bit.
    """

    fused_up_to: int = TREE_COUNTS[-1]
    overlaps: bool = True


@dataclass(frozen=True)
class Plan:
    """How one product is cut: tiles of `block_n` outputs, steps of `block_k` inputs, `splits` programs per tile.

    `block_m`: rows of a tile of the kernels for many rows (`products_many.py`), a power of two or the sum of two, as
    144; 0: the kernels of few rows, whose tile has all. With it also `copies_weights`, which then come by the copy
    engine ("add"), and a `block_n` that is such a sum, as 192 ("gated").
    """

    block_n: int
    block_k: int
    splits: int = 1
    num_warps: int = 4
    num_stages: int = 4
    block_m: int = 0
    copies_weights: bool = False


@dataclass(frozen=True)
class AttentionPlan:
    """How attention of many rows is cut: `splits` programs for each tile of `block_rows` lines (rows under one of the
    heads that share a KV head), in steps of `block_positions` keys, a power of two from 16 to 64."""

    block_rows: int = 64
    block_positions: int = 64
    splits: int = 1
    num_warps: int = 4
    num_stages: int = 2


# The most lines under all heads together, and the cut for up to that number; None: the kernels of few rows. Only passes
# of more than FEW_ROWS rows are looked up. What `profiling.tune_attention` prints belongs here. Measured on an H200 in
# bfloat16 with 32 heads, at 64 rows and from 65 on; not float32.
ATTENTION_PLANS: tuple[tuple[float, AttentionPlan | None], ...] = (
    (32 * 32, None),
    (64 * 32, AttentionPlan(64, 64, 4, num_stages=3)),
    (inf, AttentionPlan(64, 64, 2, num_stages=3)),
)


def plan_attention(num_lines: int, head_size: int, itemsize: int = 2) -> AttentionPlan | None:
    """The cut for `num_lines` lines under all heads together, more than `FEW_ROWS` rows, of `itemsize` bytes a value;
    None for the kernels of few rows."""
    plan = next((plan for most, plan in ATTENTION_PLANS if num_lines <= most), None)
    return None if plan is None else fitting(plan, head_size, itemsize)


def fitting(plan: AttentionPlan, head_size: int, itemsize: int) -> AttentionPlan:
    """The same, no larger than values of that size leave room for."""
    if itemsize > 2:  # larger tiles of float32 would not fit the registers
        return replace(plan, block_rows=16, block_positions=32)
    return replace(plan, block_positions=32) if head_size > 128 else plan


def smaller_attention(plan: AttentionPlan) -> AttentionPlan:
    """The same for GPUs with less than `SHARED_MEMORY`."""
    return replace(plan, block_rows=min(64, plan.block_rows), num_warps=4, num_stages=2)


# Plans that were measured, in place of those that are computed: by kind, rows (`plan_rows`), outer and inner size, in
# 16-bit values. What `profiling.tune_engine` prints belongs here. Only here are "heads": products whose tile is one
# head, which is normed or turned by a tree's depths in them; without a plan the library multiplies. So it does products
# of more than ONE_TILE rows of any kind.
MEASURED_PLANS: dict[tuple[str, int, int, int], Plan] = {
    # Qwen3-8B on an H200
    ("heads", 16, 6144, 4096): Plan(128, 128, 2, num_stages=3),
    ("add", 16, 4096, 4096): Plan(64, 128, 2),
    ("gated", 16, 24576, 4096): Plan(64, 128, num_stages=3),
    ("heads", 64, 6144, 4096): Plan(128, 128, 2, block_m=64),
    ("add", 64, 4096, 4096): Plan(64, 128, 2, num_stages=6),
    ("gated", 64, 24576, 4096): Plan(192, 128, num_warps=8, num_stages=3, block_m=64),
    ("add", 64, 4096, 12288): Plan(64, 128, 2),
    ("gated", 80, 24576, 4096): Plan(128, 64, block_m=80),
    ("add", 80, 4096, 12288): Plan(64, 128, 2, num_stages=5, block_m=80, copies_weights=True),
    ("gated", 128, 24576, 4096): Plan(192, 64, num_stages=5, block_m=128),
    ("add", 128, 4096, 12288): Plan(64, 128, 2, block_m=128, copies_weights=True),
    ("add", 256, 4096, 4096): Plan(64, 64, num_stages=8, block_m=128, copies_weights=True),
    ("gated", 256, 24576, 4096): Plan(192, 64, num_warps=8, block_m=256),
    ("add", 256, 4096, 12288): Plan(128, 64, 2, num_warps=8, num_stages=6, block_m=128, copies_weights=True),
    # SmolLM2-135M on an H200, with 1 row
    ("rotated", 16, 960, 576): Plan(16, 64, num_warps=2, num_stages=8),
    ("add", 16, 576, 576): Plan(16, 64, num_warps=2, num_stages=8),
    ("gated", 16, 3072, 576): Plan(16, 64, num_warps=2, num_stages=8),
    ("add", 16, 576, 1536): Plan(16, 128, num_warps=2, num_stages=8),
}


def measured_plan(kind: str, num_rows: int, outer: int, inner: int, itemsize: int) -> Plan | None:
    """The plan that was measured for `num_rows` rows of values of `itemsize` bytes; None: there is none."""
    return MEASURED_PLANS.get((kind, plan_rows(num_rows), outer, inner)) if itemsize == 2 else None


def plan_rows(num_rows: int) -> int:
    """What a plan is found by: rows of the tile that all fit in, or many rows as they are."""
    return tile_rows(num_rows) if num_rows <= ONE_TILE else num_rows


def tile_rows(num_rows: int) -> int:
    """Rows of the tile that `num_rows` rows are padded to: a power of two, which tensor cores want to be 16 at least.

    Example: `tile_rows(17) == 32`.
    """
    return max(16, 1 << (num_rows - 1).bit_length())


def plan_product(outer: int, inner: int, kind: str, itemsize: int = 2) -> Plan:
    """The cut for a product of `kind` "rotated", "gated" or "add", of values of `itemsize` bytes.

    Found on an H200 (`profiling.tune_engine`) with 32 tokens of Qwen2.5-1.5B and 64 of Qwen2.5-7B.
    """
    short, step, wide = (_step(inner, 2 * size // itemsize) for size in (64, 128, 256))
    if kind == "rotated":
        return Plan(TILE, step, _splits(outer, inner, step, 2 * NUM_PROGRAMS))
    if kind == "gated":
        is_one_wave = outer <= 3 * NUM_PROGRAMS * TILE  # three programs at a time find room in a multiprocessor
        return Plan(TILE, short) if is_one_wave else Plan(2 * TILE, short, num_stages=3)
    if inner <= 2048:  # whole lines are read in less time than splits need to be merged
        return Plan(16, wide, num_warps=2)
    return Plan(TILE, step, _splits(outer, inner, step, NUM_PROGRAMS), num_stages=6 if itemsize == 2 else 3)


def plan_int8(kind: str, num_rows: int, outer: int, inner: int, itemsize: int = 2) -> Plan:
    """The same for weights in 8 bits and `num_rows` rows of values of `itemsize` bytes; of "scaled", nothing is fused
    to the product, and there may be more than 64 rows."""
    size, num_stages = next(steps for most, *steps in INT8_STEPS if num_rows <= most)
    step = _step(inner, 2 * size // itemsize)
    splits = 1 if kind == "gated" else _splits(outer * -(-num_rows // 128), inner, step, 2 * NUM_PROGRAMS)
    return Plan(TILE, step, splits, num_stages=num_stages)


def _splits(outer: int, inner: int, step: int, num_programs: int) -> int:
    """As many as make at most `num_programs` of whole tiles, each doing enough."""
    return max(1, min(inner // (step * MIN_STEPS), num_programs // -(-outer // TILE)))


def _step(inner: int, wanted: int) -> int:
    """The largest power of two up to `wanted` that divides `inner`."""
    while inner % wanted:
        wanted //= 2
    return wanted
