"""Masked training batches for block diffusion, as drafting meets them (Fast-dLLM v2, arXiv 2509.26328, and more).

One document becomes [noisy 0; noisy 1; clean] with shared position ids: two differently masked copies of the blocks
that hold the answer, and the clean blocks before the last. A noisy block sees itself and the clean blocks before it, a
clean block itself and the clean blocks before it. It knows nothing of models; the loop and the loss are elsewhere.
Shape suffixes: B documents, G answer blocks, S places in a block, L positions of the sequence, N predicted tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from training.batches import Batch, TokenDocs, rounded

if TYPE_CHECKING:
    import torch

NUM_VARIANTS = 2
CLEAN = NUM_VARIANTS  # kind of the clean part; the noisy copies are 0 and 1
_NO_BLOCK = 1 << 20  # block number of padding: later than every real block, so nothing real sees it


@dataclass(frozen=True)
class NoiseSettings:
    """How blocks are masked and weighted. Every field changes the result."""

    block_size: int = 32
    small_block_size: int = 8
    head_share: float = 0.85  # blocks masked "known head, unknown tail"; the others: complementary random masks
    decay: float = 0.85  # loss weight per position of distance from the known head
    beyond_weight: float = 0.3  # factor after the head's sub-block: drafting fills those in later passes
    random_weight: float = 0.5  # loss weight of a randomly masked token
    first_weight: float = 1.0  # loss weight of a block's first token, predicted from the clean block before it


@dataclass(frozen=True)
class _Grid:
    """The answer blocks of some documents, (B, G) or (B, G, S)."""

    blocks_BG: np.ndarray
    is_block_BG: np.ndarray
    positions_BGS: np.ndarray
    is_inside_BGS: np.ndarray
    is_answer_BGS: np.ndarray
    flat_BGS: np.ndarray


def sort_keys(docs: TokenDocs, block_size: int) -> np.ndarray:
    """Documents with equally many answer blocks, then equally many blocks, belong together."""
    num_answer_blocks = -(-docs.lengths // block_size) - docs.prompt_lens // block_size
    return num_answer_blocks * 10_000 + docs.lengths // block_size


def _answer_grid(docs: TokenDocs, rows: np.ndarray, size: int) -> _Grid:
    lengths, prompt_lens = docs.lengths[rows, None], docs.prompt_lens[rows, None]
    num_blocks = -(-lengths // size)
    first = prompt_lens // size
    most = rounded(size * int((num_blocks - first).max())) // size
    blocks_BG = first + np.arange(most)
    positions_BGS = blocks_BG[..., None] * size + np.arange(size)
    is_inside_BGS = positions_BGS < lengths[..., None]
    return _Grid(
        blocks_BG=blocks_BG,
        is_block_BG=blocks_BG < num_blocks,
        positions_BGS=positions_BGS,
        is_inside_BGS=is_inside_BGS,
        is_answer_BGS=is_inside_BGS & (positions_BGS >= prompt_lens[..., None]),
        flat_BGS=np.where(is_inside_BGS, docs.starts[rows, None, None] + positions_BGS, 0),
    )


def _draw_masks(grid: _Grid, settings: NoiseSettings, rng: np.random.Generator) -> list[tuple[np.ndarray, np.ndarray]]:
    """(is_masked_BGS, weight_BGS) of each noisy copy. Place 0 of a block is always known: no output inside predicts it.

    Head lengths are uniform over those that leave an answer token unknown; the second copy's is half the range away.
    """
    size = grid.positions_BGS.shape[-1]
    place_S = np.arange(size)
    can_mask_BGS = grid.is_answer_BGS & (place_S > 0)
    count_BG = can_mask_BGS.sum(-1)
    lowest_BG = np.where(count_BG > 0, can_mask_BGS.argmax(-1), size)
    draw_BG, share_BG = rng.random((2, *count_BG.shape))
    is_random_BG1 = (rng.random(count_BG.shape) >= settings.head_share)[..., None]
    scattered_BGS = rng.random(can_mask_BGS.shape) < share_BG[..., None]
    masks = []
    for variant in range(NUM_VARIANTS):
        head_BG = lowest_BG + np.floor((draw_BG + variant / NUM_VARIANTS) % 1 * count_BG).astype(np.int64)
        distance_BGS = place_S - head_BG[..., None]
        chosen_BGS = np.where(is_random_BG1, scattered_BGS ^ bool(variant), distance_BGS >= 0)
        is_masked_BGS = chosen_BGS & can_mask_BGS
        is_beyond_BGS = place_S // settings.small_block_size > head_BG[..., None] // settings.small_block_size
        tail_weight_BGS = settings.decay ** np.maximum(distance_BGS, 0)
        tail_weight_BGS *= np.where(is_beyond_BGS, settings.beyond_weight, 1.0)
        masks.append((is_masked_BGS, np.where(is_random_BG1, settings.random_weight, tail_weight_BGS) * is_masked_BGS))
    return masks


def noisy_batch(
    docs: TokenDocs, rows: np.ndarray, settings: NoiseSettings, mask_id: int, rng: np.random.Generator
) -> Batch:
    """The training batch of some documents; the last block is filled up with masks, as in drafting."""
    size = settings.block_size
    grid = _answer_grid(docs, rows, size)
    num_docs, num_blocks = grid.blocks_BG.shape
    noisy_width = num_blocks * size
    # No other block sees the last block of a document, so the clean part ends before it.
    clean_lens = (-(-docs.lengths[rows] // size) - 1) * size
    clean_width = rounded(int(clean_lens.max()))
    place_BL = np.broadcast_to(np.arange(clean_width), (num_docs, clean_width))
    is_clean_BL = place_BL < clean_lens[:, None]
    clean_flat_BL = np.where(is_clean_BL, docs.starts[rows, None] + place_BL, 0)
    clean_ids = np.where(is_clean_BL, docs.tokens[clean_flat_BL], mask_id)
    width = NUM_VARIANTS * noisy_width + clean_width
    token_BGS = docs.tokens[grid.flat_BGS]
    ids, sources, tokens, weights = [], [], [], []
    for variant, (is_masked_BGS, weight_BGS) in enumerate(_draw_masks(grid, settings, rng)):
        known_BGS = grid.is_inside_BGS & ~is_masked_BGS
        ids.append(np.where(known_BGS, token_BGS, mask_id).reshape(num_docs, noisy_width))
        row_N, block_N, place_N = np.nonzero(weight_BGS)
        # Token shift: a place is predicted by the output before it, inside its noisy block.
        sources.append(row_N * width + variant * noisy_width + block_N * size + place_N - 1)
        tokens.append(grid.flat_BGS[row_N, block_N, place_N])
        weights.append(weight_BGS[row_N, block_N, place_N])
    # Every block's first answer token is predicted by the clean output right before it.
    row_N, block_N = np.nonzero(grid.is_answer_BGS[..., 0] & (grid.blocks_BG > 0))
    sources.append(row_N * width + NUM_VARIANTS * noisy_width + grid.positions_BGS[row_N, block_N, 0] - 1)
    tokens.append(grid.flat_BGS[row_N, block_N, 0])
    weights.append(np.full(len(row_N), settings.first_weight))
    noisy_positions = grid.positions_BGS.reshape(num_docs, noisy_width)
    noisy_blocks = np.where(grid.is_block_BG, grid.blocks_BG, _NO_BLOCK).repeat(size, axis=1)
    clean_blocks = np.where(is_clean_BL, place_BL // size, _NO_BLOCK)
    return Batch(
        ids_BL=np.concatenate([*ids, clean_ids], axis=1).astype(np.int64),
        source_N=np.concatenate(sources),
        token_N=np.concatenate(tokens),
        weight_N=np.concatenate(weights).astype(np.float32),
        num_tokens=int(docs.lengths[rows].sum()),
        positions_BL=np.concatenate([*[noisy_positions] * NUM_VARIANTS, place_BL], axis=1),
        blocks_BL=np.concatenate([*[noisy_blocks] * NUM_VARIANTS, clean_blocks], axis=1).astype(np.int32),
        kinds_L=np.arange(NUM_VARIANTS + 1).repeat([noisy_width] * NUM_VARIANTS + [clean_width]),
    )


def block_mask(blocks_BL: torch.Tensor, kinds_L: torch.Tensor) -> torch.Tensor:
    """Who sees whom (B, 1, L, L), True = query (third axis) sees key: its own block of its own copy, and clean
    blocks before it."""
    query_BL1, key_B1L = blocks_BL[:, :, None], blocks_BL[:, None, :]
    is_own_BLL = (query_BL1 == key_B1L) & (kinds_L[:, None] == kinds_L[None, :])
    is_earlier_BLL = (key_B1L < query_BL1) & (kinds_L[None, :] == CLEAN)
    return (is_own_BLL | is_earlier_BLL)[:, None]
