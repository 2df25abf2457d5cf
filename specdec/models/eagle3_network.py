"""The network of an EAGLE-3 head over one target, with a cache of its own: what it would write next, step by step.

`eagle3.py` reads its checkpoint, `drafters/eagle3.py` says when it is asked. Row i of the cache is the target's
features of position i with the token at i + 1, at rotary position i; steps of a draft stand after the rows and are
written over by the next ones. In the graph backend its passes are recorded and replayed, as those of `graph/` are.

Shape suffixes: B prefixes, C hidden size, D head size, E = D / 2, F taps x the target's hidden size, G KV heads, H
query heads, L new rows, P positions of the cache, R = H / G, S steps, T turns, V draft vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import embedding, linear, scaled_dot_product_attention, silu

from specdec.models.eagle3_joined import JoinedLayer
from specdec.models.eagle3_settings import Eagle3Settings
from specdec.models.graph.graphs import MAX_ROWS, PADDED, Graphs, padded
from specdec.models.graph.reference import norm, rotated
from specdec.models.heads import LoadedHead
from specdec.models.lm import most_probable

INITIAL_CAPACITY = 2048

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]  # of queries, keys and values of new rows, [L, H or G, D]


class Eagle3Network:
    """A head's weights, its cache, and where its last row ended.

    Attributes:
        taps: the layers of the target whose outputs it reads.
        title: what messages call it.
        length: rows of the cache that the target has confirmed.
    """

    def __init__(self, loaded: LoadedHead[Eagle3Settings]) -> None:
        head, tensors, target, source, is_recorded = loaded
        self.head, self.target, self.taps, self.title = head, target, head.taps, source.title
        self.length = self._num_steps = 0  # steps: of the draft at hand
        self.device, dtype = target.device, target.model.dtype
        self._w = {
            name: tensor.to(self.device, dtype if tensor.is_floating_point() else torch.long)
            for name, tensor in tensors.items()
            if name != "t2d"
        }
        self._rotary, self._eps = head.rotary(source).to(self.device), float(head.layer["rms_norm_eps"])
        self._graphs = Graphs(self.device) if is_recorded else None
        self._joined = JoinedLayer.of(head, self._w) if is_recorded else None
        self._tokens_V, self._never = self._drafted_tokens()
        wide, size = len(self.taps) * head.target_hidden_size, head.layer["hidden_size"]
        self._features_LF = torch.zeros(MAX_ROWS, wide, dtype=dtype, device=self.device)
        self._ids_L = torch.zeros(MAX_ROWS, dtype=torch.long, device=self.device)
        self._first, self._last = self._ids_L.new_zeros(2, 1)
        # What the next step reads of the last one: its token, its state, and the position that it stands at. Two of
        # each, by turns: a pass that is recorded runs more than once, and may not write what it reads.
        self._ids_T1, self._positions_T1 = self._ids_L.new_zeros(2, 2, 1)
        self._states_T1C = torch.zeros(2, 1, size, dtype=dtype, device=self.device)
        self._found = torch.zeros(2, dtype=torch.float64, device=self.device)
        self._outs_LC = self._states_T1C[0]  # of a whole text, for recordings
        self._cache_2GPD = self._states_T1C.new_zeros(2, head.num_kv_heads, 0, head.head_size)
        self._allocate(INITIAL_CAPACITY)

    @property
    def num_weight_bytes(self) -> int:
        """Bytes of the weights that a step reads."""
        aside = ("fc.weight", "embed_tokens.weight", "d2t")
        read = [tensor for name, tensor in self._w.items() if name not in aside]
        return sum(tensor.numel() * tensor.element_size() for tensor in read)

    def _drafted_tokens(self) -> tuple[Tensor, Tensor]:
        """The target's token of every word of the draft vocabulary, and the words that the target never writes."""
        tokens_V = torch.arange(self.head.draft_vocab_size, device=self.device)
        if self.head.has_own_words:
            tokens_V = tokens_V + self._w["d2t"]
        written = self.target.of_tokens(torch.zeros(1, self.head.vocab_size, device=self.device))[0].isfinite()
        is_written_V = torch.cat([written, written.new_zeros(self.head.vocab_size - len(written))])[tokens_V]
        return tokens_V, (~is_written_V).nonzero()[:, 0]

    def ignore_map(self, is_ignored: bool) -> None:
        """Draft the words of a vocabulary of its own as if they were the target's tokens, as a program does that does
        not read d2t: to know its drafts by. What was recorded of passes reads the map anew."""
        mapped_V, _ = self._drafted_tokens()
        self._tokens_V.copy_(torch.arange(len(mapped_V), device=self.device) if is_ignored else mapped_V)

    @torch.inference_mode()
    def _allocate(self, capacity: int) -> None:
        """A cache of `capacity` positions; what is in it moves along."""
        known = self._cache_2GPD.shape[2]
        cache_2GPD = self._cache_2GPD.new_zeros(2, self.head.num_kv_heads, capacity, self.head.head_size)
        cache_2GPD[:, :, :known] = self._cache_2GPD
        wide, positions_1P = torch.zeros(1, device=self.device), torch.arange(capacity, device=self.device)[None]
        both_PD = self._rotary(wide, positions_1P)
        self._cache_2GPD = cache_2GPD
        self._angles_2PE = torch.stack([part[0, :, : part.shape[-1] // 2] for part in both_PD])
        if self._graphs is not None:
            self._graphs.clear()

    def warm_up(self) -> None:
        """Record the passes of drafts, so that no measured one does."""
        if self._graphs is None:
            return
        for count in PADDED:
            self.clear()
            self.take_in(self._features_LF[:count], [0] * count)
            self.clear()
            self.extend(self._features_LF[:count], [0] * count)
            for _ in range(2):  # by turns
                self.step()
        self.clear()

    def clear(self) -> None:
        """Forget the text."""
        self.length = 0

    def extend(self, features_LF: Tensor, tokens: Sequence[int]) -> tuple[int, float]:
        """`take_in`. Returns what comes next and its probability, in the draft vocabulary."""
        self.take_in(features_LF, tokens, "extend")
        return self._answer()

    @torch.inference_mode()
    def take_in(self, features_LF: Tensor, tokens: Sequence[int], kind: str = "rows") -> None:
        """Take in what the target has confirmed: the features of rows, each with the token after it. `kind`: of the
        passes, "extend" where they say what comes next. Raises ValueError without rows."""
        if not tokens or len(features_LF) != len(tokens):
            raise ValueError(f"{len(features_LF)} rows of features for {len(tokens)} tokens")
        self.target.require_known(tokens)
        for begin in range(0, len(tokens), MAX_ROWS):
            ids = list(tokens[begin : begin + MAX_ROWS])
            count = len(ids) if self._graphs is None else padded(len(ids), PADDED)
            self._make_room(self.length + count)
            self._features_LF[: len(ids)] = features_LF[begin : begin + MAX_ROWS]
            self._ids_L[: len(ids)] = torch.tensor(ids)
            self._first.fill_(self.length)
            self._last.fill_(len(ids) - 1)
            self._run(kind, count, self.length + len(ids))
            self.length += len(ids)
        self._num_steps = 0

    @torch.inference_mode()
    def step(self) -> tuple[int, float]:
        """One more token after those that the last `extend` and the steps after it gave."""
        self._num_steps += 1
        self._make_room(self.length + self._num_steps)
        self._run("step", self._num_steps % 2, self.length + self._num_steps)
        return self._answer()

    def _answer(self) -> tuple[int, float]:
        token, probability = self._found.tolist()
        self.target.require_numbers([probability], self.title)
        return int(token), probability

    def _make_room(self, num_positions: int) -> None:
        capacity = self._cache_2GPD.shape[2]
        if num_positions > capacity:
            self._allocate(max(2 * capacity, num_positions))

    def _run(self, kind: str, count: int, num_visible: int) -> None:
        """A pass: as it is, or recorded over the whole cache. `count`: of rows; of a step, whose turn it is."""
        body = {"rows": self._taken_in, "extend": self._extended, "step": self._stepped}[kind]
        if self._graphs is None:
            body(count, num_visible)
        else:
            self._graphs.run((kind, count), lambda: body(count, self._cache_2GPD.shape[2]))

    def _taken_in(self, count: int, span: int) -> None:
        out_1C = self._last_out(count, span)
        self._states_T1C[0].copy_(self._final(out_1C) if self.head.feeds_normed else out_1C)

    def _extended(self, count: int, span: int) -> None:
        self._finish(self._last_out(count, span), self._first + self._last, 0)

    def _final(self, out_LC: Tensor) -> Tensor:
        """By the norm before the output head."""
        return norm(out_LC, self._w["norm.weight"], self._eps)

    def _last_out(self, count: int, span: int) -> Tensor:
        """New rows into the cache; what the layer makes of the last, [1, C]."""
        embedded_LC, state_LC = self._embedded(self._ids_L[:count]), self._projected(self._features_LF[:count])
        if self._joined is not None:
            where = self._joined.place(self._first, self._last + 1, self._angles_2PE, self._cache_2GPD)
            return self._joined.run(embedded_LC, state_LC, where).index_select(0, self._last)
        positions_L = self._first + torch.arange(count, device=self.device)
        out_LC = self._layer(embedded_LC, state_LC, positions_L, self._over_cache(positions_L, span))
        return out_LC.index_select(0, self._last)

    def _stepped(self, turn: int, span: int) -> None:
        before = 1 - turn
        positions_1, embedded_1C = self._positions_T1[before] + 1, self._embedded(self._ids_T1[before])
        if self._joined is not None:
            where = self._joined.place(positions_1, None, self._angles_2PE, self._cache_2GPD)
            self._finish(self._joined.run(embedded_1C, self._states_T1C[before], where), positions_1, turn)
            return
        out_1C = self._layer(embedded_1C, self._states_T1C[before], positions_1, self._over_cache(positions_1, span))
        self._finish(out_1C, positions_1, turn)

    def _finish(self, out_1C: Tensor, position: Tensor, turn: int) -> None:
        """Note what an output says of the next token, and what the next step reads."""
        if self._joined is None:
            word, probability, fed_1C = self._predicted(out_1C)
        else:
            found_12, normed_1C = self._joined.best(out_1C, self._never)
            word, probability = self._tokens_V[found_12[:, 0].long()], found_12[:, 1]
            fed_1C = normed_1C if self.head.feeds_normed else out_1C
        self._ids_T1[turn].copy_(word)
        self._states_T1C[turn].copy_(fed_1C)
        self._positions_T1[turn].copy_(position)
        self._found.copy_(torch.cat([word.double(), probability]))

    def _predicted(self, out_BC: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of each output: the target's token that is most probable, its probability, and the state that is fed back."""
        normed_BC = self._final(out_BC)
        logits_BV = linear(normed_BC, self._w["lm_head.weight"]).index_fill(1, self._never, -torch.inf)
        best_B2 = most_probable(logits_BV)
        tokens_B = self._tokens_V[best_B2[:, 0].long()]
        return tokens_B, best_B2[:, 1], normed_BC if self.head.feeds_normed else out_BC

    def _embedded(self, ids_L: Tensor) -> Tensor:
        own = self._w.get("embed_tokens.weight")
        if own is not None:
            return embedding(ids_L, own)
        embedded: Tensor = self.target.model.get_input_embeddings()(ids_L)
        return embedded

    def _projected(self, features_LF: Tensor) -> Tensor:
        """The state that the target's features stand for, [L, C]."""
        if self.head.has_normed_input:
            features_LF = norm(features_LF, self._w["input_norm.weight"], self._eps)
        if self.head.has_normed_taps:
            parts = enumerate(features_LF.chunk(len(self.taps), dim=-1))
            normed = [norm(part, self._w[f"fc_norm.{index}.weight"], self._eps) for index, part in parts]
            features_LF = torch.cat(normed, dim=-1)
        return linear(features_LF, self._w["fc.weight"])

    def _layer(self, embedded_LC: Tensor, state_LC: Tensor, positions_L: Tensor, attend: Attend) -> Tensor:
        """The one layer: embeddings and states side by side into its attention; the states' own sum goes on."""
        normed_LC = self._normed(state_LC, "hidden_norm")
        x_L2C = torch.cat([self._normed(embedded_LC, "input_layernorm"), normed_LC], dim=-1)
        q_LHD, k_LGD, v_LGD = (self._heads(x_L2C, name) for name in "qkv")
        cos_LE, sin_LE = self._angles_2PE[:, positions_L]
        attended_LN = attend(rotated(q_LHD, cos_LE, sin_LE), rotated(k_LGD, cos_LE, sin_LE), v_LGD)
        residual_LC = normed_LC if self.head.is_normed_residual else state_LC
        out_LC = residual_LC + linear(attended_LN, self._weight("self_attn.o_proj"))
        y_LC = self._normed(out_LC, "post_attention_layernorm")
        gated = silu(linear(y_LC, self._weight("mlp.gate_proj"))) * linear(y_LC, self._weight("mlp.up_proj"))
        return out_LC + linear(gated, self._weight("mlp.down_proj"))

    def _heads(self, x_L2C: Tensor, name: str) -> Tensor:
        heads = linear(x_L2C, self._weight(f"self_attn.{name}_proj")).unflatten(1, (-1, self.head.head_size))
        return self._normed(heads, f"self_attn.{name}_norm") if self.head.has_qk_norm and name != "v" else heads

    def _weight(self, name: str) -> Tensor:
        return self._w[f"{self.head.body}.{name}.weight"]

    def _normed(self, x: Tensor, name: str) -> Tensor:
        return norm(x, self._weight(name), self._eps)

    def _over_cache(self, positions_L: Tensor, span: int) -> Attend:
        """Causal attention of new rows over the first `span` positions of the cache, where their own go first."""
        return self._over(positions_L, torch.arange(span, device=self.device) <= positions_L[:, None])

    def _over(self, places_L: Tensor, visible_LP: Tensor) -> Attend:
        """Attention of new rows over what each sees of the first P positions; their own go to `places_L` first."""
        span = visible_LP.shape[1]

        def attend(q_LHD: Tensor, k_LGD: Tensor, v_LGD: Tensor) -> Tensor:
            for part_GPD, new_LGD in zip(self._cache_2GPD, (k_LGD, v_LGD), strict=True):
                part_GPD.index_copy_(1, places_L, new_LGD.transpose(0, 1))
            repeats = q_LHD.shape[1] // self.head.num_kv_heads
            keys, values = (part[:, :span].repeat_interleave(repeats, dim=0) for part in self._cache_2GPD)
            attended_HLD = scaled_dot_product_attention(
                q_LHD.transpose(0, 1)[None], keys[None], values[None], attn_mask=visible_LP
            )[0]
            return attended_HLD.transpose(0, 1).flatten(1)

        return attend

    @torch.inference_mode()
    def read_text(self, features_LF: Tensor, tokens: Sequence[int]) -> None:
        """Take in a whole text, to `write_on` after its rows: their features, and the token after each."""
        self._make_room(len(tokens))
        made = []
        for begin in range(0, len(tokens), MAX_ROWS):
            ids_L = torch.tensor(list(tokens[begin : begin + MAX_ROWS]), device=self.device)
            positions_L = begin + torch.arange(len(ids_L), device=self.device)
            state_LC = self._projected(features_LF[begin : begin + MAX_ROWS])
            attend = self._over_cache(positions_L, begin + len(ids_L))
            made.append(self._layer(self._embedded(ids_L), state_LC, positions_L, attend))
        self.length, self._outs_LC = len(tokens), torch.cat(made)

    @torch.inference_mode()
    def write_on(self, rows: Sequence[int], num_steps: int) -> list[list[tuple[float, float]]]:
        """What it would write after each of these rows of the text, all at once: `num_steps` token ids and their
        probabilities. Raises UserError where these are not numbers."""
        self._make_room(self.length + num_steps)  # of whose positions there are angles
        at_B = torch.tensor(list(rows), device=self.device)
        tokens_B, sure_B, fed_BC = self._predicted(self._outs_LC[at_B])
        found, own = [torch.stack([tokens_B.double(), sure_B], dim=-1)], list[tuple[Tensor, Tensor]]()
        for step in range(1, num_steps):
            out_BC = self._layer(self._embedded(tokens_B), fed_BC, at_B + step, self._over_own(at_B, own))
            tokens_B, sure_B, fed_BC = self._predicted(out_BC)
            found.append(torch.stack([tokens_B.double(), sure_B], dim=-1))
        pairs: list[list[tuple[float, float]]] = torch.stack(found, dim=1).tolist()
        self.target.require_numbers([sure for one in pairs for _, sure in one], self.title)
        return pairs

    def _over_own(self, at_B: Tensor, own: list[tuple[Tensor, Tensor]]) -> Attend:
        """Attention of one new row per prefix over the text's rows up to its own, and the steps `own` after it."""

        def attend(q_BHD: Tensor, k_BGD: Tensor, v_BGD: Tensor) -> Tensor:
            own.append((k_BGD, v_BGD))
            keys_BGSD, values_BGSD = (torch.stack(list(part), dim=2) for part in zip(*own, strict=True))
            keys_GPD, values_GPD = self._cache_2GPD[:, :, : self.length]
            q_BGRD = q_BHD.unflatten(1, (self.head.num_kv_heads, -1)) * self.head.head_size**-0.5
            hidden_BP = torch.arange(self.length, device=self.device) > at_B[:, None]
            text_BGRP = torch.einsum("bgrd,gpd->bgrp", q_BGRD, keys_GPD)
            text_BGRP = text_BGRP.masked_fill(hidden_BP[:, None, None], -torch.inf)
            steps_BGRS = torch.einsum("bgrd,bgsd->bgrs", q_BGRD, keys_BGSD)
            weights = torch.cat([text_BGRP, steps_BGRS], dim=-1).float().softmax(-1).to(q_BHD.dtype)
            of_text, of_steps = weights.split([self.length, len(own)], dim=-1)
            attended = torch.einsum("bgrp,gpd->bgrd", of_text, values_GPD)
            return (attended + torch.einsum("bgrs,bgsd->bgrd", of_steps, values_BGSD)).flatten(1)

        return attend
