"""Decodes many prompts at once, greedily or by sampling: rows of a fixed batch, each refilled when its answer ends.

Written for throughput: one decoding step of the whole batch has fixed shapes, so on CUDA it is a replayed graph, and
the host looks at the tokens every few steps only. It is not the benchmark's decoder; that is specdec.
Shape suffixes: B rows of the batch, R rows being filled, P prompt positions, L positions of the buffer, H KV heads,
G query heads per KV head, D head size, V vocabulary.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import AttentionInterface, Cache, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from specdec.errors import UserError
from specdec.models.kv_buffer import as_cache
from training.answers import DecodeSettings
from training.batches import rounded
from training.graphs import Graphs


def _grouped_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key_BHLD: torch.Tensor,
    value_BHLD: torch.Tensor,
    attention_mask: torch.Tensor,
    scaling: float,
    **rest: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of a single query per row, without copies of keys and values per query head; longer queries by SDPA."""
    if query.shape[2] > 1:
        return sdpa_attention_forward(module, query, key_BHLD, value_BHLD, attention_mask, scaling=scaling, **rest)
    batch, num_heads, _, size = query.shape
    query_BHGD = query.reshape(batch, key_BHLD.shape[1], -1, size)
    scores_BHGL = (query_BHGD @ key_BHLD.transpose(2, 3)).float() * scaling
    weights_BHGL = scores_BHGL.masked_fill(~attention_mask, -torch.inf).softmax(-1).to(query.dtype)
    return (weights_BHGL @ value_BHLD).reshape(batch, 1, num_heads, size), None


@contextmanager
def _with_grouped_attention(model: PreTrainedModel) -> Iterator[None]:
    AttentionInterface.register("grouped", _grouped_attention)
    usual = model.config._attn_implementation
    model.config._attn_implementation = "grouped"
    try:
        yield
    finally:
        model.config._attn_implementation = usual


class _RowCache(Cache):
    """Keys and values of all rows, each row at a position of its own; the model only asks for the two methods below.

    Attributes:
        rows_R: the rows that a prompt pass fills from position 0 on, or None while decoding.
        position_B: where decoding puts each row's next token.
        live: decoding attends to positions 0 to live - 1.
    """

    is_compileable = False

    def __init__(self, num_rows: int, num_positions: int, device: torch.device) -> None:
        self.layers: list = []  # the base class would build layers of its own
        self.rows_R: torch.Tensor | None = None
        self.position_B = torch.zeros(num_rows, dtype=torch.long, device=device)
        self.live = self.num_positions = num_positions
        self._buffers: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *_: object, **__: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Stores the new positions (B, H, L, D) of a layer; returns what they attend to (a prompt: itself)."""
        if layer_idx not in self._buffers:
            shape = (len(self.position_B), key_states.shape[1], self.num_positions, key_states.shape[3])
            self._buffers[layer_idx] = key_states.new_zeros(shape), value_states.new_zeros(shape)
        buffers = self._buffers[layer_idx]
        for buffer, new_BHLD in zip(buffers, (key_states, value_states), strict=True):
            if self.rows_R is None:
                buffer.scatter_(2, self.position_B[:, None, None, None].expand_as(new_BHLD), new_BHLD)
            else:
                buffer[self.rows_R, :, : new_BHLD.shape[2]] = new_BHLD
        if self.rows_R is not None:
            return key_states, value_states
        return buffers[0][:, :, : self.live], buffers[1][:, :, : self.live]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Not asked for anything that matters: positions and masks are given."""
        return 0


@dataclass
class _Row:
    """The prompt that a row answers, and the answer so far."""

    number: int
    prompt_len: int
    answer: list[int] = field(default_factory=list)
    is_done: bool = False

    def take(self, new: Sequence[int], stop_ids: Collection[int], limit: int) -> None:
        """Goes on with the answer, up to its first stop token or the limit."""
        for token in () if self.is_done else new:
            self.answer.append(token)
            if token in stop_ids or len(self.answer) == limit:
                self.is_done = True
                return


class BatchDecoder:
    """A model and the rows of its batch. `answers` is the whole of its use."""

    def __init__(self, model: PreTrainedModel, stop_ids: Collection[int], settings: DecodeSettings) -> None:
        self.model, self.stop_ids, self.settings = model.eval(), frozenset(stop_ids), settings
        self.device = next(model.parameters()).device

    @torch.inference_mode()
    def answers(self, prompts: Sequence[Sequence[int]]) -> Iterator[dict[int, list[int]]]:
        """Finished answers by prompt number, some at a time; each ends with the first stop token, or at the limit.

        Shorter prompts come first, so that attention spans no more positions than are in use.
        """
        if not prompts:
            return
        self._require_readable(prompts)
        waiting = sorted(range(len(prompts)), key=lambda n: (len(prompts[n]), n), reverse=True)
        rows: list[_Row | None] = [None] * min(self.settings.max_rows, len(prompts))
        self._reset(len(rows), max(map(len, prompts)))
        while waiting or any(rows):
            with self._graphs.stream(), _with_grouped_attention(self.model):
                self._refill(rows, waiting, prompts)
                finished = self._decode(rows)
            yield finished

    def _require_readable(self, prompts: Sequence[Sequence[int]]) -> None:
        """Raise UserError for an id that the model's embedding table does not have; a GPU would end in an assert."""
        last, num_rows = max(map(max, prompts)), self.model.config.vocab_size
        if last >= num_rows:
            raise UserError(f"a prompt has the token {last}, and the target's embedding table has {num_rows} rows")

    def _require_numbers(self) -> None:
        """Raise UserError where a logit was not a number: its token would mean nothing."""
        if not self._are_finite.item():
            dtype = str(self.model.dtype).removeprefix("torch.")
            raise UserError(f"the target gives logits that are not finite numbers in {dtype}: its answers are not kept")

    def _reset(self, num_rows: int, longest: int) -> None:
        room = rounded(longest + self.settings.max_new_tokens + self.settings.check_every)
        self._cache = _RowCache(num_rows, room, self.device)
        self._token_B = torch.zeros(num_rows, dtype=torch.long, device=self.device)
        self._place = torch.zeros(1, dtype=torch.long, device=self.device)
        self._are_finite = torch.ones((), dtype=torch.bool, device=self.device)
        shape = (num_rows, self.settings.check_every)
        self._new_BC = torch.zeros(shape, dtype=torch.long, device=self.device)
        self._graphs = Graphs[None](self.device)

    def _refill(self, rows: list[_Row | None], waiting: list[int], prompts: Sequence[Sequence[int]]) -> None:
        """Runs new prompts in free rows, once enough are free to make it worth a pass."""
        free = [place for place, row in enumerate(rows) if row is None]
        enough = max(1, int(len(rows) * self.settings.refill_share))
        while waiting and (len(free) >= enough or not any(rows)):
            places, free = free[:enough], free[enough:]
            numbers = [waiting.pop() for _ in range(min(len(places), len(waiting)))]
            places = places[: len(numbers)]
            first = self._prefill(places, [prompts[n] for n in numbers])
            for place, number, token in zip(places, numbers, first, strict=True):
                row = rows[place] = _Row(number, len(prompts[number]))
                row.take([token], self.stop_ids, self.settings.max_new_tokens)

    def _prefill(self, places: list[int], prompts: list[Sequence[int]]) -> list[int]:
        """One pass over right-padded prompts; what stands after a prompt is overwritten before it is seen."""
        lens_R = torch.tensor([len(p) for p in prompts], device=self.device)
        width = rounded(max(map(len, prompts)))
        ids_RP = torch.tensor([[*p, *[0] * (width - len(p))] for p in prompts], device=self.device)
        causal_PP = torch.ones((width, width), dtype=torch.bool, device=self.device).tril()
        rows_R = self._cache.rows_R = torch.tensor(places, device=self.device)
        hidden_RPD = self._hidden(ids_RP, None, causal_PP[None, None])
        self._cache.rows_R = None
        token_R = self._choose(hidden_RPD[torch.arange(len(prompts), device=self.device), lens_R - 1])
        self._token_B[rows_R] = token_R
        self._cache.position_B[rows_R] = lens_R
        self._require_numbers()
        return token_R.tolist()

    def _decode(self, rows: list[_Row | None]) -> dict[int, list[int]]:
        """A few steps of all rows; returns the answers that ended, and frees their rows."""
        num_steps = self.settings.check_every
        longest = max(row.prompt_len + len(row.answer) for row in rows if row)
        self._cache.live = min(rounded(longest + num_steps), self._cache.num_positions)
        self._place.zero_()
        for _ in range(num_steps):
            self._graphs.run(self._cache.live, self._step)
        self._require_numbers()
        finished = {}
        for place, new in enumerate(self._new_BC.tolist()):
            if (row := rows[place]) is None:
                continue
            row.take(new, self.stop_ids, self.settings.max_new_tokens)
            if row.is_done:
                finished[row.number] = row.answer
                rows[place] = None
        return finished

    def _step(self) -> None:
        """One token more in every row."""
        cache = self._cache
        is_seen_BL = torch.arange(cache.live, device=self.device) <= cache.position_B[:, None]
        hidden_B1D = self._hidden(self._token_B[:, None], cache.position_B[:, None], is_seen_BL[:, None, None])
        self._token_B.copy_(self._choose(hidden_B1D[:, 0]))
        self._new_BC.scatter_(1, self._place.expand(len(self._token_B), 1), self._token_B[:, None])
        self._place += 1
        # A row without a question goes on decoding what nobody reads, and must not leave the buffer.
        cache.position_B.add_(1).clamp_max_(cache.num_positions - 1)

    def _hidden(self, ids: torch.Tensor, positions: torch.Tensor | None, mask: torch.Tensor) -> torch.Tensor:
        body = self.model.get_submodule("model")
        output = body(
            input_ids=ids, position_ids=positions, attention_mask=mask, use_cache=True, **as_cache(body, self._cache)
        )
        return output.last_hidden_state

    def _choose(self, hidden_BD: torch.Tensor) -> torch.Tensor:
        logits_BV = self.model.get_submodule("lm_head")(hidden_BD).float()
        self._are_finite.logical_and_(logits_BV.amax(-1).isfinite().all())
        if self.settings.temperature > 0:  # the Gumbel trick: one pass, no host
            noise_BV = torch.empty_like(logits_BV).exponential_().log()
            logits_BV = logits_BV / self.settings.temperature - noise_BV
        return logits_BV.argmax(-1)
