"""GraphLM: a CachedLM whose passes are replayed CUDA graphs over fixed buffers.

A pass is two graphs: the layers over a number of tokens padded up to one of `TOKEN_COUNTS`, and
the LM head over a number of kept rows padded likewise. Lengths are read on the device, so that one
graph serves every length; rewinding moves a counter, as in every CachedLM. Where there is no GPU
the same code runs without graphs, on the plain operations. Shape suffixes as in `reference.py`.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence

import torch
from transformers import PreTrainedModel

from specdec.errors import UserError
from specdec.models.graph.graphs import Graphs, padded
from specdec.models.graph.means import means_for
from specdec.models.graph.network import Buffers, LibraryProducts, Network, Products
from specdec.models.graph.plans import MAX_NODES, TREE_COUNTS, BackendOptions
from specdec.models.graph.weights import join_weights, unsupported
from specdec.models.lm import CachedLM
from specdec.models.tree_rows import TreeRows

TOKEN_COUNTS = (1, 2, 4, 8, 16, 32, 64, 96, 128, 256, 512)  # the last are for prompts, which run in chunks
MAX_TOKENS = TOKEN_COUNTS[-1]
MAX_VERIFIED = 128  # rows of a draft's pass, the last known token among them
INITIAL_CAPACITY = 2048


class GraphLM(CachedLM):
    """A CachedLM, see there; logits agree within rounding."""

    def __init__(
        self,
        hf_model: PreTrainedModel,
        vocab_size: int | None = None,
        options: BackendOptions | None = None,
        gaps: Sequence[int] = (),
    ) -> None:
        """Raises ValueError for a model that `weights.unsupported` names."""
        super().__init__(hf_model, vocab_size, gaps)
        if reason := unsupported(hf_model.config):
            raise ValueError(f"the graph backend does not run {reason}")
        self.options = options or BackendOptions()
        self.weights = join_weights(hf_model, vocab_size, gaps)
        self.graphs = Graphs(self.device)
        self._operations, self._fused = means_for(self.weights.layers[0], self.options.overlaps)
        self._library = LibraryProducts(self._operations)
        self._no_logits_0V = self.weights.head_VC.new_empty(0, len(self.weights.head_VC))
        self._is_busy = False  # the device may still have to read what was sent
        self._allocate(INITIAL_CAPACITY)

    @property
    def capacity(self) -> int:
        """Positions that the cache has room for; it grows by doubling."""
        return self._buffers.cache_L2GPD.shape[3]

    @torch.inference_mode()
    def predict(
        self,
        tokens: Sequence[int],
        *,
        block_size: int = 1,
        parents: Sequence[int] | None = None,
        keep: Sequence[int] | None = None,
        never: int | None = None,
        taps: Sequence[int] = (),
    ) -> tuple[list[int], list[float]]:
        chosen: list[int] = []
        sure: list[float] = []
        with self._pass(tokens, block_size, parents, taps):
            for _, num_kept in self._chunks(list(tokens), block_size, keep, -1 if never is None else never):
                if num_kept:
                    self._finish()
                    ids, probabilities = self.on_host(self._buffers.found[:num_kept])
                    chosen += ids
                    sure += probabilities
        return chosen, sure

    def forward_within(self, tokens: Sequence[int], at: int, keep: Sequence[int]) -> torch.Tensor:
        raise NotImplementedError("the graph backend has no sub-block cache")

    def keys_values(self) -> dict[int, tuple[torch.Tensor, torch.Tensor]]:
        both_2GPD = enumerate(self._buffers.cache_L2GPD[:, :, :, : self.length])
        return {layer_idx: (keys_GPD[None], values_GPD[None]) for layer_idx, (keys_GPD, values_GPD) in both_2GPD}

    def warm_up(self, taps: Sequence[int] = (), num_nodes: int = 0) -> None:
        """Record all graphs but predictions at more rows than a draft has, so that no measured pass does."""
        for count in TOKEN_COUNTS:
            self.predict([0] * count, keep=None if count <= MAX_VERIFIED else [], taps=taps)
        for count in TREE_COUNTS[: bisect_left(TREE_COUNTS, 1 + num_nodes) + 1] if num_nodes else ():
            self.predict([0] * count, parents=range(-1, count - 1), taps=taps)
        self.rollback(0)

    def _run(self, tokens: list[int], block_size: int, keep: Sequence[int] | None) -> torch.Tensor:
        chunks = self._chunks(tokens, block_size, keep, -1)
        logits_KV = torch.cat([logits[:num_kept, : self.vocab_size].clone() for logits, num_kept in chunks])
        self._finish()
        return logits_KV

    def _chunks(
        self, tokens: list[int], block_size: int, keep: Sequence[int] | None, never: int
    ) -> Iterator[tuple[torch.Tensor, int]]:
        """Run `tokens` in whole blocks; yields logits_KV, good until the next chunk, and how many rows count."""
        self._require_room()
        if self.length + len(tokens) > self.capacity:
            self._grow(self.length + len(tokens))
        keep = range(len(tokens)) if keep is None else keep
        begin = 0
        while begin < len(tokens):
            end = _chunk_end(self.length, begin, len(tokens), block_size)
            rows = [index - begin for index in keep if begin <= index < end]
            self._finish()
            self._buffers.send(tokens[begin:end], rows, (self.length + begin, end - begin, block_size, never))
            if self._parents is not None:
                self._buffers.branches.send(TreeRows.of(self._parents), padded(end, TREE_COUNTS))
            self._is_busy = self.device.type == "cuda"
            logits_KV = self._run_chunk(end - begin, len(rows))
            if self._taps.asked:  # the next pass writes over the buffer; the copy is asked for while the pass runs
                tapped_MTC = self._buffers.taps(self._taps.asked)
                self._taps.add(tapped_MTC[: end - begin].flatten(1).clone())
            yield logits_KV, len(rows)
            begin = end

    def _run_chunk(self, num_tokens: int, num_kept: int) -> torch.Tensor:
        """Logits after the kept rows, padded."""
        is_tree, asked = self._parents is not None, self._taps.asked
        counts = TREE_COUNTS if is_tree else TOKEN_COUNTS
        count, kept_count = padded(num_tokens, counts), padded(num_kept, counts)
        kind = "tree" if is_tree else "body"
        self.graphs.run((kind, count, *asked), lambda: self.network.body(count, self._products(count), is_tree, asked))
        if not num_kept:
            return self._no_logits_0V
        return self.graphs.run(("head", kept_count), lambda: self.network.head(kept_count))

    def _require_room(self) -> None:
        """Raise UserError for a tree of more rows than a recorded pass has: it cannot be cut into chunks."""
        num_rows = len(self._parents or ())
        if num_rows > TREE_COUNTS[-1]:
            raise UserError(
                f"the graph backend verifies trees of at most {MAX_NODES} tokens, not {num_rows - 1}: ask for fewer, "
                "or add --engine eager"
            )

    @torch.inference_mode()
    def _move(self, rows_L: torch.Tensor) -> None:
        new_L2GPD = self._buffers.cache_L2GPD[:, :, :, self.length :]
        new_L2GPD[:, :, :, : len(rows_L)] = new_L2GPD.index_select(3, rows_L)

    def _products(self, count: int) -> Products:
        return self._library if self._fused is None or count > self.options.fused_up_to else self._fused

    def _finish(self) -> None:
        """Wait for the device: its results are there, and what was sent may be overwritten."""
        if self._is_busy:
            torch.cuda.current_stream(self.device).synchronize()
            self._is_busy = False

    @torch.inference_mode()
    def _grow(self, num_positions: int) -> None:
        """Double the cache until it holds `num_positions` positions; what is committed moves along."""
        self._finish()
        capacity = self.capacity
        while capacity < num_positions:
            capacity *= 2
        committed = self._buffers.cache_L2GPD[:, :, :, : self.length]
        self._allocate(capacity)
        self._buffers.cache_L2GPD[:, :, :, : self.length] = committed

    @torch.inference_mode()
    def _allocate(self, capacity: int) -> None:
        weights = self.weights
        cache_L2GPD = torch.zeros(
            (len(weights.layers), 2, weights.num_kv_heads, capacity, weights.head_size),
            dtype=weights.dtype,
            device=self.device,
        )
        self._buffers = Buffers.allocate(weights, MAX_TOKENS, cache_L2GPD, self._rotary_table(capacity))
        self.network = Network(weights, self._buffers, self._operations)
        self.graphs.clear()

    def _rotary_table(self, capacity: int) -> torch.Tensor:
        """cos and sin of every position, float32 [2, P, D / 2], as the model's own module computes them."""
        # After the longest text nobody looks, and angles that change with a text's length would change there.
        last = self.model.config.max_position_embeddings - 1
        positions_1P = torch.arange(capacity, device=self.device).clamp(max=last)[None]
        wide = torch.zeros(1, dtype=torch.float32, device=self.device)
        both_PD = self.model.get_submodule("model.rotary_emb")(wide, positions_1P)
        return torch.stack([part[0, :, : part.shape[-1] // 2] for part in both_PD]).contiguous()


def _chunk_end(length: int, begin: int, num_tokens: int, block_size: int) -> int:
    """Where the chunk that begins at `begin` of `num_tokens` ends: at its last whole block, or with the tokens.

    Example: after 32 committed positions, blocks of 32: `_chunk_end(32, 0, 600, 32) == 512`.
    Raises ValueError for blocks longer than a chunk.
    """
    if num_tokens - begin <= MAX_TOKENS:
        return num_tokens
    end = (length + begin + MAX_TOKENS) // block_size * block_size - length
    if end <= begin:
        raise ValueError(f"the graph backend runs blocks of at most {MAX_TOKENS} positions, not {block_size}")
    return end
