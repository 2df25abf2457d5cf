"""How tiles of many rows are cut, reduced and left: device functions of `products_many.py`.

A tile has N lines of weights and M + REST rows, both powers of two (REST may be 0). Sums and scales are pairs: those of
the M rows, and those of the rest, at which nobody looks where there is none. A tile's end is made in pieces: PARTS of
the M rows, and after them the rest.
"""

from __future__ import annotations

import triton
import triton.language as tl

from specdec.models.graph.tiles import arrive, sum_of_parts


@triton.jit
def place_of(num_rows: tl.tensor, TILE_M: tl.constexpr) -> tuple[tl.tensor, tl.tensor]:
    """Which tile of weights a program has, and its first row: side by side are those that share a tile of weights."""
    row_tiles = tl.cdiv(num_rows, TILE_M)
    return tl.program_id(0) // row_tiles, tl.program_id(0) % row_tiles * TILE_M


@triton.jit
def share_of_split(inner: tl.tensor, SPLITS: tl.constexpr, BLOCK_K: tl.constexpr) -> tuple[tl.tensor, tl.tensor]:
    """Where the inputs of a program's split begin and end."""
    share = tl.cdiv(tl.cdiv(inner, SPLITS), BLOCK_K) * BLOCK_K
    begin = tl.program_id(1) * share
    return begin, tl.minimum(begin + share, inner)


@triton.jit
def no_sums(N: tl.constexpr, M: tl.constexpr, REST: tl.constexpr) -> tuple[tl.tensor, tl.tensor]:
    """A tile's sums before its first step."""
    sums = tl.zeros((N, M), tl.float32)
    return sums, tl.zeros((N, REST), tl.float32) if REST else sums


@triton.jit
def add_step(
    sums: tl.tuple, w: tl.tensor, x: tl.tensor, rest_desc: tl.tensor, rest_begin: tl.tensor, at: tl.tensor,
    REST: tl.constexpr, PRECISION: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor]:  # fmt: skip
    """Sums with those of one more step: lines of weights times rows. Those of the rest come after the first product, as
    they are needed."""
    first = tl.dot(w, x, sums[0], input_precision=PRECISION)
    rest = sums[1]
    if REST:
        rest = tl.dot(w, rest_desc.load([rest_begin, at]).T, rest, input_precision=PRECISION)
    return first, rest


@triton.jit
def _rows_of(sums: tl.tensor, part: tl.constexpr, PARTS: tl.constexpr, N: tl.constexpr, M: tl.constexpr) -> tl.tensor:
    """A part of a tile's rows: they come one after the other, so that what a tile ends with finds registers beside its
    sums. Nothing moves."""
    if PARTS == 1:
        rows = sums
    else:
        first, second = tl.split(tl.permute(tl.reshape(sums, (N, 2, M // 2)), (0, 2, 1)))
        half: tl.constexpr = PARTS // 2
        rows = _rows_of(first if part < half else second, part % half, half, N, M // 2)
    return rows


@triton.jit
def piece_of(values: tl.tuple, piece: tl.constexpr, PARTS: tl.constexpr, N: tl.constexpr, M: tl.constexpr) -> tl.tensor:
    """One of the parts of a tile's rows, or after them what is left of the tile."""
    return _rows_of(values[0], piece, PARTS, N, M) if piece < PARTS else values[1]


@triton.jit
def rows_of_piece(piece: tl.constexpr, PARTS: tl.constexpr, M: tl.constexpr, REST: tl.constexpr) -> tl.tensor:
    """Which of the tile's rows they are."""
    return piece * (M // PARTS) + tl.arange(0, M // PARTS) if piece < PARTS else M + tl.arange(0, REST)


@triton.jit
def _left(
    parts_ptr: tl.tensor, piece: tl.constexpr, PARTS: tl.constexpr, N: tl.constexpr, M: tl.constexpr,
    REST: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor]:  # fmt: skip
    """Where a tile's first split leaves such a piece, and how far on the next does."""
    rows = rows_of_piece(piece, PARTS, M, REST)
    size: tl.constexpr = N * (M + REST)
    # Lines of a piece lie side by side, after those of the pieces before it.
    first = tl.program_id(0) * size + piece * (M // PARTS) * N
    within = tl.arange(0, N)[:, None] * rows.shape[0] + tl.arange(0, rows.shape[0])[None, :]
    return parts_ptr + first + within, tl.num_programs(0) * size


@triton.jit
def leave_sums(
    sums: tl.tuple, parts_ptr: tl.tensor, arrived_ptr: tl.tensor, SPLITS: tl.constexpr, PIECES: tl.constexpr,
    PARTS: tl.constexpr, N: tl.constexpr, M: tl.constexpr, REST: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """Leave a split's sums; whether it is the tile's last program."""
    for piece in tl.static_range(PIECES):
        place, stride = _left(parts_ptr, piece, PARTS, N, M, REST)
        tl.store(place + tl.program_id(1) * stride, piece_of(sums, piece, PARTS, N, M))
    return arrive(arrived_ptr + tl.program_id(0), SPLITS)


@triton.jit
def piece_of_all(
    sums: tl.tuple, parts_ptr: tl.tensor, piece: tl.constexpr, SPLITS: tl.constexpr, PARTS: tl.constexpr,
    N: tl.constexpr, M: tl.constexpr, REST: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """`piece_of` of the sums over all splits."""
    if SPLITS == 1:
        found = piece_of(sums, piece, PARTS, N, M)
    else:
        place, stride = _left(parts_ptr, piece, PARTS, N, M, REST)
        found = sum_of_parts(place, stride, SPLITS)
    return found


@triton.jit
def sides_of_pairs(sums: tl.tensor, N: tl.constexpr, M: tl.constexpr) -> tuple[tl.tensor, tl.tensor]:
    """The two values of each pair, of lines in the order of `lines_of_pairs`: a thread of a tensor core's tile has
    both, so that nothing moves."""
    left, right = tl.split(tl.permute(tl.reshape(sums, (N // 16, 2, 8, M)), (0, 2, 3, 1)))
    return tl.reshape(left, (N // 2, M)), tl.reshape(right, (N // 2, M))


@triton.jit
def lines_of_pairs(N: tl.constexpr) -> tuple[tl.tensor, tl.tensor]:
    """Of N lines, which pair each belongs to, and to which side of it: by turns eight of the one, eight of the other,
    as far apart as the two rows that a thread has of a tensor core's tile."""
    lines = tl.arange(0, N)
    return lines // 16 * 8 + lines % 8, lines // 8 % 2


@triton.jit
def row_scales(
    squares_ptr: tl.tensor, row_begin: tl.tensor, num_rows: tl.tensor, num_squares: tl.tensor, inner: tl.tensor,
    eps: tl.tensor, SQUARES: tl.constexpr, M: tl.constexpr, REST: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor]:  # fmt: skip
    """What each row of a tile is multiplied by, [1, rows]: one over the root of its mean square."""
    scales = _scales(squares_ptr, row_begin, num_rows, num_squares, inner, eps, SQUARES, M)
    rest = scales
    if REST:
        rest = _scales(squares_ptr, row_begin + M, num_rows, num_squares, inner, eps, SQUARES, REST)
    return scales, rest


@triton.jit
def _scales(
    squares_ptr: tl.tensor, row_begin: tl.tensor, num_rows: tl.tensor, num_squares: tl.tensor, inner: tl.tensor,
    eps: tl.tensor, SQUARES: tl.constexpr, M: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    rows, tiles = row_begin + tl.arange(0, M), tl.arange(0, SQUARES)[:, None]
    is_square = (tiles < num_squares) & (rows < num_rows)[None, :]
    squares = tl.load(squares_ptr + tiles * num_rows + rows[None, :], mask=is_square, other=0.0)
    return tl.rsqrt(tl.sum(squares, axis=0, keep_dims=True) / inner + eps)


@triton.jit
def pair_lines(first_pair: tl.tensor, num_pairs: tl.tensor, inner: tl.tensor, N: tl.constexpr) -> tl.tensor:
    """Where N lines of gate and up begin, from a pair on; after the last pair it once more. In 32 bits, to which the
    loop adds the rest: whole addresses would take the registers of sums."""
    pair, side = lines_of_pairs(N)
    return (tl.minimum(first_pair + pair, num_pairs - 1) + side * num_pairs) * inner
