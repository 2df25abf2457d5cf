"""PagedLM: many rows of a single block each, run at once over a tree of blocks that were run before.

The sibling of `lm.CachedLM` for recording. A page holds the keys and values of a block of tokens, computed after
the pages before it; a row is a path of pages and the block to run after them. Rows that begin alike share their
pages: the prefix of a text is stored once, however many drafts are written after it. It knows nothing of drafting.

Shape suffixes: B rows, F = 2 H, H KV heads, K kept outputs, L tokens of a block, N pages of the longest path, P past
and new positions, D head size, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from specdec.models.joined import JoinedBody
from specdec.models.kv_buffer import JointCache, as_cache
from specdec.models.lm import CachedLM

INITIAL_PAGES = 256
Item = TypeVar("Item")


@dataclass(frozen=True)
class Row:
    """`tokens`, one block long, after the blocks of `path`; `keep`: the tokens whose outputs are wanted."""

    path: tuple[int, ...]
    tokens: tuple[int, ...]
    keep: tuple[int, ...]


class PagedLM:
    """A model and its pages. Inside a block of `block_size` tokens all see each other (1: causal attention).

    Example: after `[first] = paged.add_trunk(tokens_of_two_blocks)[:1]`, `paged.forward([Row((first,), block,
    (0,))])` returns [1, V] logits: what follows the first token of `block` after the first block.
    """

    def __init__(self, lm: CachedLM, block_size: int) -> None:
        self.lm, self.block_size = lm, block_size
        self._pool = PagePool(block_size)
        self._rows: list[Row] = []

    def add_trunk(self, tokens: Sequence[int], keep: Sequence[int]) -> tuple[list[int], torch.Tensor]:
        """Run whole blocks of `tokens` from position 0 in one pass: a page per block, and the kept logits_KV."""
        if len(tokens) % self.block_size:
            raise ValueError(f"{len(tokens)} tokens are not a whole number of blocks of {self.block_size}")
        self.lm.rollback(0)
        logits_KV = self.lm.forward(tokens, block_size=self.block_size, keep=keep)
        self.lm.commit(len(tokens))
        pages = self._pool.add_blocks(self.lm.keys_values(), len(tokens) // self.block_size)
        self.lm.rollback(0)
        return pages, logits_KV

    @torch.inference_mode()
    def forward(self, rows: Sequence[Row]) -> torch.Tensor:
        """Run all rows in one pass. Returns [K, V] logits of their kept tokens, row after row."""
        device, size = self.lm.device, self.block_size
        self.lm.require_known([token for row in rows for token in row.tokens])
        lengths_B = torch.tensor([len(row.path) for row in rows], device=device)
        longest = int(lengths_B.max())
        path_BN = torch.tensor([[*row.path, *[0] * (longest - len(row.path))] for row in rows], device=device)
        self._pool.select(path_BN.view(len(rows), longest))
        past_BP = torch.arange(longest * size, device=device) < (size * lengths_B)[:, None]
        mask_BP = torch.cat([past_BP, past_BP.new_ones(len(rows), size)], dim=1)
        positions_BL = size * lengths_B[:, None] + torch.arange(size, device=device)
        kept_K = torch.tensor([i * size + k for i, row in enumerate(rows) for k in row.keep], device=device)
        is_joined = isinstance(self.lm.body, JoinedBody)
        hidden = self.lm.body(
            input_ids=torch.tensor([row.tokens for row in rows], device=device),
            attention_mask=self.lm.masks(positions_BL[:, None], mask_BP[:, None, None, :].expand(-1, 1, size, -1)),
            position_ids=positions_BL,
            **as_cache(self.lm.body, self._pool),
            use_cache=True,
            **({"kept_K": kept_K} if is_joined else {}),
        ).last_hidden_state
        self._rows = list(rows)
        return self.lm.head(hidden if is_joined else hidden.flatten(0, 1)[kept_K])

    def commit(self, indices: Sequence[int]) -> list[int]:
        """Keep the blocks of these rows of the last forward: a new page for each."""
        return self._pool.commit(indices)

    def clear(self) -> None:
        """Forget all pages."""
        self._pool.used = 0


class PagePool(JointCache):
    """Keys and values of all pages and layers; it hands the model each row's past and its new block."""

    def __init__(self, block_size: int) -> None:
        super().__init__()
        self.block_size = block_size
        self.used = 0
        self._pages: dict[int, torch.Tensor] = {}  # by layer: [pages, L, F, D]
        self._new: dict[int, torch.Tensor] = {}
        self._path_BN = torch.empty(0, 0, dtype=torch.long)

    def select(self, path_BN: torch.Tensor) -> None:
        """The pages of the rows of the next forward; what pads a path is masked by the caller."""
        self._path_BN = path_BN

    def store(self, new_BFLD: torch.Tensor, layer_idx: int) -> torch.Tensor:
        """They are kept where `commit` says so."""
        self._new[layer_idx] = new_BFLD
        num_rows, num_pages = self._path_BN.shape
        if not num_pages:
            return new_BFLD
        pages = self._pages[layer_idx]
        past_BPFD = pages[self._path_BN.flatten()].view(num_rows, -1, *pages.shape[2:])
        return torch.cat([past_BPFD.transpose(1, 2), new_BFLD], dim=2)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Number of past positions of the longest row (the model asks before it runs its layers)."""
        return self._path_BN.shape[1] * self.block_size

    def commit(self, indices: Sequence[int]) -> list[int]:
        """Store the new blocks of these rows; returns their pages."""
        chosen = torch.tensor(list(indices), device=self._path_BN.device)
        return self._add({layer: new[chosen].transpose(1, 2) for layer, new in self._new.items()}, len(indices))

    def add_blocks(self, kv: dict[int, tuple[torch.Tensor, torch.Tensor]], num_blocks: int) -> list[int]:
        """Cut the keys and values of a single sequence, [1, H, P, D] per layer, into pages."""
        joint = {layer: torch.cat([keys[0], values[0]]).transpose(0, 1) for layer, (keys, values) in kv.items()}
        sizes = num_blocks, self.block_size
        return self._add({layer: both.unflatten(0, sizes) for layer, both in joint.items()}, num_blocks)

    def _add(self, blocks: dict[int, torch.Tensor], count: int) -> list[int]:
        begin, self.used = self.used, self.used + count
        for layer, new in blocks.items():
            self._pages[layer] = _grown(self._pages.get(layer, new[:0]), self.used)
            self._pages[layer][begin : self.used] = new
        return list(range(begin, self.used))


def _grown(pages: torch.Tensor, count: int) -> torch.Tensor:
    """`pages` itself if it has room for `count`, else a copy of at least twice the room."""
    if len(pages) >= count:
        return pages
    grown = pages.new_zeros(max(2 * len(pages), count, INITIAL_PAGES), *pages.shape[1:])
    grown[: len(pages)] = pages
    return grown


def in_groups(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """`items` in order, `size` at a time."""
    return (items[begin : begin + size] for begin in range(0, len(items), size))
