"""The network of an EAGLE-3 head as it is trained: several steps on its own outputs (training-time test).

Row i stands for the target's features of position i with the token at i + 1. Its draft's step j reads what step j - 1
gave, un-normed, with the token after; it sees the rows up to i, and what its own draft's steps left. Its state is the
checkpoint's tensors (SafeAILab's layout). Source: EAGLE-3 (arXiv 2503.01840).
Shape suffixes: B documents, C hidden size, D head size, F taps x C, H heads, L positions, R rows that draft.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from training.head_layers import Angles, Mlp, Norm, Projections, Rotary, as_mean, attended, copy_weights

Kept = list[tuple[Tensor, Tensor]]  # keys and values, each [B, H, R, D], of a draft's own steps


class Eagle3Layer(nn.Module):
    """The one layer: embedding and state side by side into its attention; the state's own sum goes on."""

    def __init__(self, layer: dict[str, Any]) -> None:
        super().__init__()
        size, eps = layer["hidden_size"], layer["rms_norm_eps"]
        self.hidden_norm, self.input_layernorm = Norm(size, eps), Norm(size, eps)
        self.post_attention_layernorm = Norm(size, eps)
        self.self_attn = Projections(layer, 2 * size, has_norms=False)
        self.mlp = Mlp(size, layer["intermediate_size"])

    def read(self, embedded: Tensor, state: Tensor) -> Tensor:
        return torch.cat([self.input_layernorm(embedded), self.hidden_norm(state)], dim=-1)

    def rest(self, state: Tensor, attended_BHRD: Tensor) -> Tensor:
        out = state + self.self_attn.out(attended_BHRD)
        found: Tensor = out + self.mlp(self.post_attention_layernorm(out))
        return found

    def begin_from(self, layer: nn.Module) -> None:
        """Take over a target's layer; of the two halves that its attention reads, the state's."""
        state = dict(layer.state_dict())
        copy_weights(self, state)
        copy_weights(self.hidden_norm, {"weight": state["input_layernorm.weight"]})
        size = self.hidden_norm.weight.shape[0]
        with torch.no_grad():
            for name in ("q_proj", "k_proj", "v_proj"):
                weight = getattr(self.self_attn, name).weight
                weight[:, :size].normal_(std=0.02)
                weight[:, size:] = state[f"self_attn.{name}.weight"]


class Eagle3Head(nn.Module):
    """The whole head. `words`: the target's tokens that it drafts, of which it has its own head."""

    def __init__(self, config: dict[str, Any], num_taps: int, target: nn.Module, words: Tensor) -> None:
        super().__init__()
        size, width = config["hidden_size"], config["target_hidden_size"]
        self.fc = nn.Linear(num_taps * width, size, bias=False)
        self.midlayer, self.norm = Eagle3Layer(config), Norm(size, config["rms_norm_eps"])
        self.lm_head = nn.Linear(size, len(words), bias=False)
        self.rotary = Rotary(config)
        as_mean(self.fc, num_taps)
        last = list(target.get_submodule("model.layers").children())[-1]
        self.midlayer.begin_from(last)
        copy_weights(self.norm, target.get_submodule("model.norm").state_dict())
        copy_weights(self.lm_head, {"weight": target.get_submodule("lm_head").get_parameter("weight")[words]})

    def forward(self, features_BLF: Tensor, embedded_BLC: Tensor, rows_BR: Tensor, num_steps: int) -> Iterator[Tensor]:
        """Normed outputs of every step, each [B, R, C]. `embedded_BLC`: of the document's own tokens."""
        state_BLC, layer = self.fc(features_BLF).float(), self.midlayer
        after_BLC = embedded_BLC.roll(-1, dims=1)  # the last row belongs to no draft, and none sees it
        length = features_BLF.shape[1]
        all_L = torch.arange(length, device=rows_BR.device)
        read_BLC = layer.read(after_BLC, state_BLC)
        keys, values = layer.self_attn.keys(read_BLC, self.rotary(all_L[None])), layer.self_attn.values(read_BLC)
        mask_B1RL = (all_L <= rows_BR[..., None])[:, None]
        state, read = _taken(state_BLC, rows_BR), _taken(read_BLC, rows_BR)
        q = layer.self_attn.queries(read, self.rotary(rows_BR))
        state = layer.rest(state, attended(q, keys, values, mask_B1RL))
        yield self.norm(state)
        own: Kept = []
        for step in range(1, num_steps):
            angles = self.rotary(rows_BR + step)
            embedded = _taken(embedded_BLC, (rows_BR + 1 + step).clamp(max=length - 1))
            seen = _over_text_and_own(self._next(embedded, state, angles, own), (keys, values), own, mask_B1RL)
            state = layer.rest(state, seen)
            yield self.norm(state)

    def _next(self, embedded: Tensor, state: Tensor, angles: Angles, own: Kept) -> Tensor:
        """A step's queries; its keys and values go to `own`."""
        read, attention = self.midlayer.read(embedded, state), self.midlayer.self_attn
        own.append((attention.keys(read, angles), attention.values(read)))
        return attention.queries(read, angles)


def _taken(x_BLC: Tensor, rows_BR: Tensor) -> Tensor:
    return x_BLC.gather(1, rows_BR[..., None].expand(-1, -1, x_BLC.shape[-1]))


def _over_text_and_own(q: Tensor, text: tuple[Tensor, Tensor], own: Kept, mask_B1RL: Tensor) -> Tensor:
    """Attention of one step of every draft over the text before it and its own steps, [B, H, R, D]."""
    keys, values = text
    q = (q * q.shape[-1] ** -0.5).to(values.dtype)
    of_text = (q @ keys.to(values.dtype).transpose(2, 3)).float().masked_fill(~mask_B1RL, -torch.inf)
    of_own = torch.stack([(q * key).sum(-1).float() for key, _ in own], dim=-1)
    weights = torch.cat([of_text, of_own], dim=-1).softmax(-1).to(values.dtype)
    found = weights[..., : of_text.shape[-1]] @ values
    for number, (_, value) in enumerate(own):
        found = found + weights[..., of_text.shape[-1] + number, None] * value
    return found
