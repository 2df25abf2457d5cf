"""CachedLM: one causal language model and its KV cache, with a single forward primitive.

This is the only place that runs a network. It knows nothing of drafting, verification or tokenizers: callers say which
tokens to run, which of them to keep, and how far to rewind.
Shape suffixes: B batch (always 1), F taps x hidden size, K kept positions, L new tokens, P past and new positions, V
vocabulary.
"""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from transformers import PretrainedConfig, PreTrainedModel

from specdec.errors import UserError
from specdec.models.architectures import find_architecture
from specdec.models.kv_buffer import KVBuffer, as_cache
from specdec.models.layer_settings import FULL, SLIDING, Windows, no_windows
from specdec.models.taps import Taps
from specdec.models.tree_rows import TreeRows, is_path


class CachedLM:
    """A model, the KV cache of its committed tokens, and `forward` / `commit` / `rollback`.

    Attributes:
        tokens: the committed token ids, positions 0 .. length-1.
        predictions: notes of a caller: committed length -> (token id, its probability) predicted
            to follow; dropped together with the tokens they depend on.
        features: of the rows that the last commit kept, what its pass tapped, [L, F], tap after tap; on the device.
            None where that pass had no taps.

    Example: `lm.forward([5, 7])` runs two tokens at positions 0 and 1 and returns logits [2, V];
    `lm.commit(1)` keeps the first, so that the next call runs at position 1.
    """

    def __init__(
        self,
        hf_model: PreTrainedModel,
        vocab_size: int | None = None,
        gaps: Sequence[int] = (),
        body: torch.nn.Module | None = None,
    ) -> None:
        """`vocab_size` cuts the logits: ids from there on (padding rows of a bigger table) are never predicted, nor are
        the `gaps` below it, whose logits are minus infinity. `body`: what runs it up to its head; None: its own
        modules.

        Raises ValueError for a model whose attention would misread the boolean mask.
        """
        if hf_model.config._attn_implementation != "sdpa":
            raise ValueError('CachedLM needs a model loaded with attn_implementation="sdpa"')
        self.model = hf_model.eval()
        self.body = hf_model.get_submodule("model") if body is None else body
        self.device = hf_model.get_input_embeddings().get_parameter("weight").device
        self.vocab_size = vocab_size
        self.windows = windows_of(hf_model.config)
        self._cap = getattr(hf_model.config, "final_logit_softcapping", None)
        self._num_rows = len(hf_model.get_input_embeddings().get_parameter("weight"))
        self._gaps = torch.tensor(list(gaps), dtype=torch.long, device=self.device)
        self.tokens: list[int] = []
        self.predictions: dict[int, tuple[int, float]] = {}
        self.features: torch.Tensor | None = None
        self._cache = KVBuffer()
        self._pending: list[int] = []
        self._taps = Taps(hf_model, self.body)
        self._parents: list[int] | None = None  # of the last forward's tokens, where they are a tree
        self._num_open = 0  # tokens of the last forward, whose keys and values stand after the committed ones
        self._block_size = self._pending_block_size = 1

    @property
    def length(self) -> int:
        return len(self.tokens)

    @torch.inference_mode()
    def forward(
        self,
        tokens: Sequence[int],
        *,
        block_size: int = 1,
        parents: Sequence[int] | None = None,
        keep: Sequence[int] | None = None,
        taps: Sequence[int] = (),
    ) -> torch.Tensor:
        """Run `tokens` at positions length .. length+L-1 and return logits_KV of the kept ones.

        Position q attends to position k iff k // block_size <= q // block_size: 1 is causal
        attention, 32 block diffusion. `parents`: the tokens are a tree instead, each with the index of the one before
        it that it goes on from (-1: the committed ones). A token sees the committed ones, those that it goes on from
        and itself, and stands at position length + the number of those that it goes on from. `keep` are
        ascending indices into `tokens` (None: all); the LM head is computed for no others. Nothing is committed; an
        exception leaves the cache as it was.
        `taps`: layers, from 0, whose outputs (the last layer's: before the final norm) `commit` leaves in `features`.
        Raises UserError for a layer that is not there, and for a tree that a pass of this backend cannot take.
        """
        with self._pass(tokens, block_size, parents, taps):
            return self._run(list(tokens), block_size, keep)

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
        """`forward`, and the most probable token after each kept position with its softmax probability.

        Chosen where the logits are, so that two short lists are all that comes from the device, in one
        transfer. `never` is an id that is not predicted (a mask): its logit counts as minus infinity.
        """
        logits_KV = self.forward(tokens, block_size=block_size, parents=parents, keep=keep, taps=taps)
        return self.on_host(most_probable(logits_KV, -1 if never is None else never))

    def on_host(self, packed_K2: torch.Tensor | np.ndarray, title: str | None = None) -> tuple[list[int], list[float]]:
        """`most_probable` on the host: token ids and probabilities. Waits for the device, if a tensor is there.

        Raises UserError where logits were not numbers: then no probability is one. `title`: as in `require_numbers`.
        """
        pairs_2K = np.asarray(packed_K2.cpu() if isinstance(packed_K2, torch.Tensor) else packed_K2).T
        probabilities: list[float] = pairs_2K[1].tolist()
        self.require_numbers(probabilities, title)
        return pairs_2K[0].astype(int).tolist(), probabilities

    def require_numbers(self, probabilities: Sequence[float], title: str | None = None) -> None:
        """Raise UserError unless all of them are finite. `title`: of the head on this model that gave them; None: it
        did itself."""
        if math.isfinite(sum(probabilities)):
            return
        dtype = str(self.model.dtype).removeprefix("torch.")
        wider = {"float16": "try --dtype bfloat16 or float32", "bfloat16": "try --dtype float32"}
        advice = wider.get(dtype, "its weights or its config.json are damaged")
        raise UserError(f"{title or self._name} gives logits that are not finite numbers in {dtype}: {advice}")

    def require_known(self, tokens: Sequence[int]) -> None:
        """Raise UserError for an id that the embedding table does not have; a GPU would read what is beside it."""
        if min(tokens) < 0 or max(tokens) >= self._num_rows:
            unknown = next(token for token in tokens if not 0 <= token < self._num_rows)
            raise UserError(f"{self._name} has no token {unknown}: its embedding table has {self._num_rows} rows")

    def no_features(self, taps: Sequence[int]) -> torch.Tensor:
        """The features of no row, [0, F]. Raises UserError for a layer that is not there."""
        return self._taps.of_no_token(taps)

    def of_tokens(self, logits_KV: torch.Tensor) -> torch.Tensor:
        """The logits of what is a token, cut to `vocab_size`."""
        logits_KV = logits_KV[:, : self.vocab_size]
        return logits_KV.index_fill(1, self._gaps.to(logits_KV.device), -torch.inf) if len(self._gaps) else logits_KV

    def head(self, hidden_KE: torch.Tensor) -> torch.Tensor:
        """logits_KV of hidden states after the last norm, capped where the network caps them."""
        logits_KV = self.model.get_output_embeddings()(hidden_KE)
        return self.of_tokens(logits_KV if self._cap is None else self._cap * torch.tanh(logits_KV / self._cap))

    @property
    def _name(self) -> str:
        return self.model.name_or_path or type(self.model).__name__

    @torch.inference_mode()
    def forward_within(self, tokens: Sequence[int], at: int, keep: Sequence[int]) -> torch.Tensor:
        """Run `tokens` in place of those at `at` of the last forward's, whose keys and values are looked at as they
        are; logits_KV of the kept ones (Fast-dLLM v2's sub-block cache).

        Approximate: the others' keys and values were computed before, next to what stood here then. Every token sees
        all. Another such pass may follow, but nothing can be committed. Raises ValueError outside the last forward.
        """
        if not tokens or at + len(tokens) > self._num_open:
            raise ValueError(f"no {len(tokens)} tokens at {at} of the last {self._num_open}")
        self._pending = []
        begin = self.length + at
        positions_L = torch.arange(begin, begin + len(tokens), device=self.device)
        num_after = self._num_open - at - len(tokens)
        mask_LP = torch.ones(len(tokens), self.length + self._num_open, dtype=torch.bool, device=self.device)
        self._cache.length, self._cache.num_after = begin, num_after
        try:
            return self._logits(list(tokens), positions_L, mask_LP, keep)
        finally:
            self._cache.num_after = 0

    def predict_within(
        self, tokens: Sequence[int], at: int, *, keep: Sequence[int], never: int | None = None
    ) -> tuple[list[int], list[float]]:
        """`predict` of `forward_within`."""
        self.require_known(tokens)
        return self.on_host(most_probable(self.forward_within(tokens, at, keep), -1 if never is None else never))

    @contextmanager
    def _pass(
        self, tokens: Sequence[int], block_size: int, parents: Sequence[int] | None = None, taps: Sequence[int] = ()
    ) -> Iterator[None]:
        """Around a pass over `tokens`: afterwards they may be committed, unless it failed."""
        if not tokens:
            raise ValueError("forward needs at least one token")
        if parents is not None and (len(parents) != len(tokens) or block_size != 1):
            raise ValueError(f"{len(tokens)} tokens in blocks of {block_size} are no tree of {len(parents)} tokens")
        self._parents = None if parents is None else list(parents)
        self.require_known(tokens)
        self._taps.begin(taps)
        self._pending, self._num_open = [], 0
        yield
        self._pending, self._pending_block_size = list(tokens), block_size
        self._num_open = len(tokens)

    def _run(self, tokens: list[int], block_size: int, keep: Sequence[int] | None) -> torch.Tensor:
        """The pass that `forward` makes: stores keys and values, returns logits_KV."""
        end = self.length + len(tokens)
        positions_L = torch.arange(self.length, end, device=self.device)
        blocks_P = torch.arange(end, device=self.device) // block_size
        mask_LP = blocks_P <= blocks_P[self.length :, None]
        if self._parents is not None:
            rows = TreeRows.of(self._parents)
            positions_L = self.length + torch.tensor(rows.depths, device=self.device)
            mask_LP[:, self.length :] = torch.from_numpy(rows.sees_LL).to(self.device)
        self._cache.length = self.length
        with self._taps.watched():
            return self._logits(tokens, positions_L, mask_LP, keep)

    def masks(self, positions: torch.Tensor, visible: torch.Tensor) -> torch.Tensor | dict[str, torch.Tensor]:
        """What the network takes as a mask: `visible` [..., L, P], true where a position may be looked at, with the
        windows of its layers. `positions` [..., L] are those of the queries; key p stands at position p, but the last L
        are the queries' own."""
        if not any(self.windows):
            return visible
        num_new = positions.shape[-1]
        past_P = torch.arange(visible.shape[-1] - num_new, device=visible.device)
        keys = torch.cat([past_P.expand(*positions.shape[:-1], -1), positions], dim=-1)
        distances = positions[..., :, None] - keys[..., None, :]
        near = {window: visible if window is None else visible & (distances < window) for window in set(self.windows)}
        if len(near) == 1:
            return next(iter(near.values()))
        return {FULL if window is None else SLIDING: mask for window, mask in near.items()}

    def _logits(
        self, tokens: list[int], positions_L: torch.Tensor, mask_LP: torch.Tensor, keep: Sequence[int] | None
    ) -> torch.Tensor:
        hidden_LE = self.body(
            input_ids=torch.tensor([tokens], device=self.device),
            attention_mask=self.masks(positions_L[None, None], mask_LP[None, None]),
            position_ids=positions_L[None],
            **as_cache(self.body, self._cache),
            use_cache=True,
        ).last_hidden_state[0]
        return self.head(hidden_LE if keep is None else hidden_LE[list(keep)]).to(self.device)

    @torch.inference_mode()
    def commit(self, kept: int | Sequence[int]) -> None:
        """Keep the first `kept` tokens of the last forward, or those with these indices, a path of a tree from its
        first token on, and drop the rest."""
        path = range(kept) if isinstance(kept, int) else kept
        is_negative = isinstance(kept, int) and kept < 0
        if is_negative or len(path) > len(self._pending) or not is_path(path, self._parents):
            raise ValueError(f"cannot commit {kept} of {len(self._pending)} tokens")
        rows_L = None if is_path(path, None) else self._sent(path)
        if rows_L is not None:
            self._move(rows_L)
        self.tokens += [self._pending[row] for row in path]
        self.features = self._taps.take(len(path), rows_L)
        self._block_size = self._pending_block_size
        self._pending, self._num_open = [], 0

    def _sent(self, numbers: Sequence[int]) -> torch.Tensor:
        """On the device, which need not be waited for."""
        is_gpu = self.device.type == "cuda"
        return torch.tensor(list(numbers), pin_memory=is_gpu).to(self.device, non_blocking=is_gpu)

    def _move(self, rows_L: torch.Tensor) -> None:
        """Keys and values of these rows of the last forward go to the places right after the committed ones."""
        self._cache.move(rows_L)

    def rollback(self, length: int) -> None:
        """Forget the committed positions from `length` on (and the last forward's tokens)."""
        if not 0 <= length <= self.length:
            raise ValueError(f"cannot roll back to {length} of {self.length} tokens")
        self._pending, self._num_open = [], 0
        if length < self.length:
            del self.tokens[length:]
            self.predictions = {at: value for at, value in self.predictions.items() if at <= length}

    def reuse(self, prefix_ids: Sequence[int], block_size: int = 1) -> int:
        """Roll back to the longest common prefix with `prefix_ids`, in whole blocks of `block_size`.

        Keys and values that were made under another block size are of no use and dropped. Returns
        the new length: what need not be run again.
        """
        shared = _common_len(self.tokens, list(prefix_ids))
        self.rollback(shared // block_size * block_size if block_size == self._block_size else 0)
        return self.length

    def keys_values(self) -> dict[int, tuple[torch.Tensor, torch.Tensor]]:
        """Keys and values of the committed positions by layer, each [B, H, length, D]; the next forward may write
        over them, so whoever keeps them copies them."""
        return self._cache.first(self.length)

    def warm_up(self, taps: Sequence[int] = (), num_nodes: int = 0) -> None:
        """Run a few throw-away passes, so that no measured one pays for first-use initialisation. `num_nodes`: of the
        largest tree that there will be."""
        for num_tokens in (1, 16, 32, 64):
            self.forward([0] * num_tokens, taps=taps)
        self.rollback(0)

    def clock(self) -> float:
        return device_clock(self.device)


def _common_len(ours: list[int], theirs: list[int]) -> int:
    """The length of the longest common prefix. Most often one list begins with the other: comparing slices is quick."""
    end = min(len(ours), len(theirs))
    if ours[:end] == theirs[:end]:
        return end
    return next(i for i in range(end) if ours[i] != theirs[i])


def device_clock(device: torch.device) -> float:
    """Seconds, read when `device` has finished all queued work."""
    if device.type == "cuda" and not torch.cuda.current_stream(device).query():  # waiting costs time, idle or not
        torch.cuda.synchronize(device)
    return time.perf_counter()


def most_probable(logits_KV: torch.Tensor, never: int = -1) -> torch.Tensor:
    """The argmax token of each row and its softmax probability, float64 [K, 2].

    One tensor, so that both cross to the host at once. The token `never` (-1: none) is left out; it
    may lie beyond a cut vocabulary. Of equal logits the first is taken. The probability is 1 / (1 + what the others
    weigh), of which a float32 holds even what is far too little to change the sum: values near 1 stay apart.
    """
    logits_KV = without(never, logits_KV.float())
    best_K1, tokens_K1 = logits_KV.max(-1, keepdim=True)
    others_K = (logits_KV - best_K1).exp().scatter(-1, tokens_K1, 0.0).sum(-1)
    return torch.stack((tokens_K1[:, 0].double(), 1 / (1 + others_K.double())), dim=-1)


def without(never: int, logits_KV: torch.Tensor) -> torch.Tensor:
    """The logits with the token `never`, if it is any of them, at minus infinity."""
    if not 0 <= never < logits_KV.shape[1]:
        return logits_KV
    logits_KV = logits_KV.clone()
    logits_KV[:, never] = -torch.inf
    return logits_KV


def windows_of(config: PretrainedConfig) -> Windows:
    """What each layer of a network sees, of its own settings; of an unknown architecture: all."""
    known, settings = find_architecture(config.model_type), config.to_dict()
    return no_windows(settings) if known is None else known.windows(settings)
