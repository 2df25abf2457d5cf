"""PagedLM: many rows of a single block each, run at once over a tree of blocks that were run before.

The sibling of `lm.CachedLM` for recording. A page holds the keys and values of a block of tokens, computed after
the pages before it; a row is a path of pages and the block to run after them. Rows that begin alike share their
pages: the prefix of a text is stored once, however many drafts are written after it. It knows nothing of drafting.

Shape suffixes: B rows, H KV heads, K kept outputs, L tokens of a block, N pages of the longest path, P past and new
positions, D head size, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from transformers import Cache

from specdec.models.lm import CachedLM, as_cache

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
        body = self.lm.model.get_submodule("model")  # without its head, which runs for few
        hidden_BLE = body(
            input_ids=torch.tensor([row.tokens for row in rows], device=device),
            attention_mask=self.lm.masks(positions_BL[:, None], mask_BP[:, None, None, :].expand(-1, 1, size, -1)),
            position_ids=positions_BL,
            **as_cache(body, self._pool),
            use_cache=True,
        ).last_hidden_state
        self._rows = list(rows)
        kept = torch.tensor([i * size + k for i, row in enumerate(rows) for k in row.keep], device=device)
        hidden_KE = hidden_BLE.flatten(0, 1)[kept]
        return self.lm.head(hidden_KE)

    def commit(self, indices: Sequence[int]) -> list[int]:
        """Keep the blocks of these rows of the last forward: a new page for each."""
        return self._pool.commit(indices)

    def clear(self) -> None:
        """Forget all pages."""
        self._pool.used = 0


class PagePool(Cache):
    """Keys and values of all pages and layers; `update` hands the model each row's past and its new block."""

    is_compileable = False

    def __init__(self, block_size: int) -> None:
        self.layers: list = []  # the base class would build layers of its own
        self.block_size = block_size
        self.used = 0
        self._pages: dict[int, list[torch.Tensor]] = {}  # layer -> keys and values, each [pages, L, H, D]
        self._new: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._path_BN = torch.empty(0, 0, dtype=torch.long)

    def select(self, path_BN: torch.Tensor) -> None:
        """The pages of the rows of the next forward; what pads a path is masked by the caller."""
        self._path_BN = path_BN

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *_: object, **__: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Given the new ones, [B, H, L, D]: past and new keys and values of every row, [B, H, P, D]."""
        self._new[layer_idx] = (key_states, value_states)
        num_rows, num_pages = self._path_BN.shape
        if not num_pages:
            return key_states, value_states
        past_and_new = []
        for pages, new_BHLD in zip(self._pages[layer_idx], self._new[layer_idx], strict=True):
            past_BPHD = pages[self._path_BN.flatten()].view(num_rows, -1, *pages.shape[2:])
            past_and_new.append(torch.cat([past_BPHD.transpose(1, 2), new_BHLD], dim=2))
        return past_and_new[0], past_and_new[1]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Number of past positions of the longest row (the model asks before it runs its layers)."""
        return self._path_BN.shape[1] * self.block_size

    def commit(self, indices: Sequence[int]) -> list[int]:
        """Store the new blocks of these rows; returns their pages."""
        chosen = torch.tensor(list(indices), device=self._path_BN.device)
        blocks = {layer: [new_BHLD[chosen].transpose(1, 2) for new_BHLD in both] for layer, both in self._new.items()}
        return self._store(blocks, len(indices))

    def add_blocks(self, kv: dict[int, tuple[torch.Tensor, torch.Tensor]], num_blocks: int) -> list[int]:
        """Cut the keys and values of a single sequence, [1, H, P, D] per layer, into pages."""
        blocks = {
            layer: [one[0].transpose(0, 1).unflatten(0, (num_blocks, self.block_size)) for one in both]
            for layer, both in kv.items()
        }
        return self._store(blocks, num_blocks)

    def _store(self, blocks: dict[int, list[torch.Tensor]], count: int) -> list[int]:
        begin, self.used = self.used, self.used + count
        for layer, both in blocks.items():
            stored = self._pages.setdefault(layer, [new[:0] for new in both])
            for index, new in enumerate(both):
                stored[index] = _grown(stored[index], self.used)
                stored[index][begin : self.used] = new
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
