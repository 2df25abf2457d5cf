"""DFlash heads for the tests, of every kind: random ones, and ones that were taught to agree with a target now and
then; and what they compute, from the text of the layouts alone, block by block and without any cache. Not tests.

The second implementation shares nothing with the program.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from heads import features_of
from safetensors.torch import save_file
from torch.nn.functional import cross_entropy, silu

from specdec.drafters.dflash import DFLASH_HEAD
from specdec.models.checkpoints import TARGET, ModelSource
from specdec.models.dflash import read_dflash
from specdec.models.dflash_trees import DflashTrees
from specdec.models.heads import HeadSource
from specdec.models.lm import CachedLM

HEADS, KV_HEADS, HEAD_SIZE, INNER = 4, 2, 8, 48
THETA, EPS, RANK = 10000.0, 1e-6, 8
MASK_ID = 63
FULL, SLIDING = "full_attention", "sliding_attention"


@dataclass
class ToyDflash:
    """A head's tensors, and how it computes. `causal`: None, or as config.json says for all layers."""

    architecture: str
    taps: tuple[int, ...]
    size: int
    vocab_size: int
    block_size: int = 6
    kinds: tuple[str, ...] = (FULL, FULL)
    window: int | None = None
    causal: bool | None = None
    mask_id: int = MASK_ID
    num_target_layers: int = 3
    extra: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)

    @property
    def is_anchor_first(self) -> bool:
        return self.architecture == "Qwen3DSparkModel" or bool(self.extra.get("sample_from_anchor"))

    @property
    def slots(self) -> range:
        """Those that are drafts."""
        return range(0 if self.is_anchor_first else 1, self.block_size)


def toy_dflash(
    architecture: str, target: torch.nn.Module, seed: int, *, has_tables: bool = False, **how: Any
) -> ToyDflash:
    """Random weights; `how`: fields of ToyDflash."""
    size, vocab_size = target.config.hidden_size, target.config.vocab_size
    how = {"taps": (0, 1), "num_target_layers": target.config.num_hidden_layers, **how}
    head = ToyDflash(architecture=architecture, size=size, vocab_size=vocab_size, **how)
    generator = torch.Generator().manual_seed(seed)

    def random(*sizes: int) -> torch.Tensor:
        return torch.randn(*sizes, generator=generator) * (0.3 if len(sizes) == 1 else sizes[-1] ** -0.5)

    t = head.tensors
    t["fc.weight"] = random(size, len(head.taps) * size)
    t |= {f"{name}.weight": 1 + random(size) for name in ("hidden_norm", "norm")}
    for index in range(len(head.kinds)):
        at = f"layers.{index}"
        t |= {f"{at}.{name}_layernorm.weight": 1 + random(size) for name in ("input", "post_attention")}
        for name, rows in (("q", HEADS), ("k", KV_HEADS), ("v", KV_HEADS)):
            t[f"{at}.self_attn.{name}_proj.weight"] = 2 * random(rows * HEAD_SIZE, size)
        t |= {f"{at}.self_attn.{name}_norm.weight": 1 + random(HEAD_SIZE) for name in "qk"}
        t[f"{at}.self_attn.o_proj.weight"] = random(size, HEADS * HEAD_SIZE)
        t |= {f"{at}.mlp.{name}_proj.weight": random(INNER, size) for name in ("gate", "up")}
        t[f"{at}.mlp.down_proj.weight"] = random(size, INNER)
        if architecture == "DFlash2DraftModel":
            for name in ("attention", "mlp"):
                t[f"{at}.{name}_conv.base_kernel"] = 0.5 + random(2, 2, size)
                t[f"{at}.{name}_conv.kernel_projection.weight"] = random(4 * size // 8, size)
    if architecture == "DFlash2DraftModel":
        t |= {f"candidate_selector.{name}_codebook": random(vocab_size, RANK) for name in ("predecessor", "successor")}
        t["candidate_selector.hidden_projection.weight"] = random(RANK, size)
    if head.extra.get("markov_rank"):
        t |= {f"markov_head.markov_w{index}.weight": 3 * random(vocab_size, RANK) for index in (1, 2)}
    for name, kind, rows, width in (("gate", "gated", RANK, size + RANK), ("joint", "rnn", 3 * RANK, size + 2 * RANK)):
        if head.extra.get("markov_head_type") == kind:
            t |= {f"markov_head.{name}_proj.weight": 3 * random(rows, width)}
            t |= {f"markov_head.{name}_proj.bias": random(rows)}
    if head.extra.get("enable_confidence_head"):
        width = size + (RANK if head.extra.get("confidence_head_with_markov") else 0)
        t |= {"confidence_head.proj.weight": random(1, width), "confidence_head.proj.bias": random(1)}
    if has_tables:
        t |= {
            "embed_tokens.weight": random(vocab_size, size) * size**0.5,
            "lm_head.weight": 2 * random(vocab_size, size),
        }
    return head


def config_of(head: ToyDflash, **changes: Any) -> dict[str, Any]:
    """Its config.json, as its layout has it; `changes` set entries, None removes one."""
    own = {"mask_token_id": head.mask_id, "target_layer_ids": list(head.taps), "block_size": head.block_size}
    config = {
        **{"architectures": [head.architecture], "model_type": "qwen3", "num_target_layers": head.num_target_layers},
        **{"hidden_size": head.size, "intermediate_size": INNER, "num_attention_heads": HEADS, "head_dim": HEAD_SIZE},
        **{"num_key_value_heads": KV_HEADS, "num_hidden_layers": len(head.kinds), "rms_norm_eps": EPS},
        **{"rope_theta": THETA, "vocab_size": head.vocab_size, "hidden_act": "silu", "max_position_embeddings": 64},
        **{"layer_types": list(head.kinds), "use_sliding_window": SLIDING in head.kinds, "sliding_window": head.window},
    }
    if head.architecture == "DFlash2DraftModel":
        own |= {"conv_kernel_size": 2, "conv_group_size": 8, "selector_rank": RANK, "selector_top_k": 4}
        config["is_causal"] = bool(head.causal)
    elif head.causal is not None:
        own["causal_head"] = head.causal
    if head.architecture == "Qwen3DSparkModel":
        config |= {**own, **head.extra}
    else:
        config["dflash_config"] = {**own, **head.extra}
    return {key: value for key, value in {**config, **changes}.items() if value is not None}


def save_dflash(folder: Path, head: ToyDflash, **changes: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config_of(head, **changes)))
    save_file({name: tensor.contiguous() for name, tensor in head.tensors.items()}, folder / "model.safetensors")
    return folder


def loaded_dflash(folder: Path, head: ToyDflash, lm: CachedLM, backend: str = "eager") -> DflashTrees:
    """By the program, from its checkpoint."""
    config = config_of(head)
    target = ModelSource(TARGET, "target", folder, lm.model.config.to_dict())
    source = HeadSource(DFLASH_HEAD, "head", folder, config, target, [save_dflash(folder, head) / "model.safetensors"])
    found = read_dflash(source)
    found.check(source, target)
    return found.load(source, lm, backend)


def _rms(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return weight * x / torch.sqrt((x * x).mean(-1, keepdim=True) + EPS)


def _turned(x: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Rotary embedding of [L, heads, D], as complex numbers."""
    half = x.shape[-1] // 2
    angles = positions[:, None] * THETA ** (-torch.arange(half) / half)
    turned = torch.complex(x[..., :half], x[..., half:]) * torch.polar(torch.ones_like(angles), angles)[:, None]
    return torch.cat([turned.real, turned.imag], dim=-1)


def _conv(x: torch.Tensor, base: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:
    """Slot by slot: base and delta are [taps, C] and [S, taps, groups]."""
    rows = []
    for slot in range(len(x)):
        total = torch.zeros_like(x[slot])
        for tap in range(min(len(base), slot + 1)):
            group = delta[slot, tap].repeat_interleave(len(total) // delta.shape[-1])
            total = total + (base[tap] + group) * x[slot - tap]
        rows.append(total)
    return torch.stack(rows)


def _hidden(head: ToyDflash, layer: int, queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """Which keys, at places of the text, each query of the block after them does not see."""
    slides = head.kinds[layer] == SLIDING
    is_causal = slides if head.causal is None and head.architecture != "DFlash2DraftModel" else bool(head.causal)
    if head.architecture == "Qwen3DSparkModel":
        slides = is_causal = False
    back = queries[:, None] - keys
    far = back.abs() >= (head.window if slides and head.window is not None else math.inf)
    return far | (back < 0) if is_causal else far


def _attention(head: ToyDflash, layer: int, x: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
    t, at, start = head.tensors, f"layers.{layer}.self_attn", len(context)
    both, places = torch.cat([context, x]), torch.arange(start + len(x))
    q = _turned(
        _rms((x @ t[f"{at}.q_proj.weight"].T).unflatten(-1, (-1, HEAD_SIZE)), t[f"{at}.q_norm.weight"]), places[start:]
    )
    k = _turned(
        _rms((both @ t[f"{at}.k_proj.weight"].T).unflatten(-1, (-1, HEAD_SIZE)), t[f"{at}.k_norm.weight"]), places
    )
    v = (both @ t[f"{at}.v_proj.weight"].T).unflatten(-1, (-1, HEAD_SIZE))
    hidden = _hidden(head, layer, places[start:], places)
    heads = []
    for index in range(HEADS):
        group = index * KV_HEADS // HEADS
        scores = (q[:, index] @ k[:, group].T / math.sqrt(HEAD_SIZE)).masked_fill(hidden, -torch.inf)
        heads.append(scores.softmax(-1) @ v[:, group])
    return torch.cat(heads, -1) @ t[f"{at}.o_proj.weight"].T


def _mlp(head: ToyDflash, layer: int, x: torch.Tensor) -> torch.Tensor:
    gate, up, down = (head.tensors[f"layers.{layer}.mlp.{name}_proj.weight"] for name in ("gate", "up", "down"))
    return (silu(x @ gate.T) * (x @ up.T)) @ down.T


def _sublayer(head: ToyDflash, place: str, x: torch.Tensor, run: Any) -> torch.Tensor:
    if head.architecture != "DFlash2DraftModel":
        return run(x)
    base, project = head.tensors[f"{place}.base_kernel"], head.tensors[f"{place}.kernel_projection.weight"]
    delta = (x @ project.T).reshape(len(x), 2, 2, -1)
    return _conv(run(_conv(x, base[0], delta[:, 0])), base[1], delta[:, 1])


def tables_of(head: ToyDflash, target: torch.nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings and output head: its own, or the target's."""
    theirs = target.get_input_embeddings().weight.detach(), target.get_output_embeddings().weight.detach()
    names = ("embed_tokens.weight", "lm_head.weight")
    return tuple(head.tensors.get(name, table) for name, table in zip(names, theirs, strict=True))


def states_of(head: ToyDflash, target: torch.nn.Module, anchor: int, features: torch.Tensor) -> torch.Tensor:
    """The normed outputs of the slots that are drafts, after the context that `features` are of."""
    t = head.tensors
    context = _rms(features @ t["fc.weight"].T, t["hidden_norm.weight"])
    ids = [anchor, *[head.mask_id] * (head.block_size - 1)]
    x = tables_of(head, target)[0][ids] * head.extra.get("input_embedding_scale", 1.0)
    for layer in range(len(head.kinds)):
        at = f"layers.{layer}"
        y = _rms(x, t[f"{at}.input_layernorm.weight"])
        x = x + _sublayer(head, f"{at}.attention_conv", y, lambda z, i=layer: _attention(head, i, z, context))
        y = _rms(x, t[f"{at}.post_attention_layernorm.weight"])
        x = x + _sublayer(head, f"{at}.mlp_conv", y, lambda z, i=layer: _mlp(head, i, z))
    return _rms(x, t["norm.weight"])[list(head.slots)]


def logits_of(head: ToyDflash, target: torch.nn.Module, states: torch.Tensor) -> torch.Tensor:
    logits = states @ tables_of(head, target)[1].T * head.extra.get("output_multiplier", 1.0)
    cap = head.extra.get("final_logit_softcapping")
    logits = logits if not cap else cap * torch.tanh(logits / cap)
    return logits.index_fill(1, torch.tensor([head.mask_id]), -torch.inf)


def draft_of(
    head: ToyDflash, target: torch.nn.Module, features: torch.Tensor, prefix: Sequence[int]
) -> list[tuple[int, float]]:
    """The block after a prefix, of which `features` are of all tokens but the last: tokens, and how sure each is."""
    t, before, found = head.tensors, prefix[-1], []
    memory = torch.zeros(RANK)
    with torch.no_grad():
        states = states_of(head, target, before, features[: len(prefix) - 1])
        for state, logits in zip(states, logits_of(head, target, states), strict=True):
            read = [state]
            if head.extra.get("markov_rank"):
                row = t["markov_head.markov_w1.weight"][before]
                told, memory = _told(head, row, state, memory)
                logits = logits + t["markov_head.markov_w2.weight"] @ told
                read += [row] if head.extra.get("confidence_head_with_markov") else []
            if head.architecture == "DFlash2DraftModel":
                logits = _selected(head, state, logits, before)
            sure, token = logits.softmax(-1).max(-1)
            if head.extra.get("enable_confidence_head"):
                score = t["confidence_head.proj.weight"][0] @ torch.cat(read) + t["confidence_head.proj.bias"][0]
                sure = torch.sigmoid(score)
            before = int(token)
            found.append((before, float(sure)))
    return found


def _told(
    head: ToyDflash, row: torch.Tensor, state: torch.Tensor, memory: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """What a Markov head multiplies with its second table, and what it remembers, one number after the other."""
    t, kind = head.tensors, head.extra["markov_head_type"]
    if kind == "vanilla":
        return row, memory
    name, read = ("gate", [state, row]) if kind == "gated" else ("joint", [memory, row, state])
    made = t[f"markov_head.{name}_proj.weight"] @ torch.cat(read) + t[f"markov_head.{name}_proj.bias"]
    if kind == "gated":
        return torch.sigmoid(made) * row, memory
    kept = torch.sigmoid(made[:RANK])
    return torch.tanh(made[2 * RANK :]), kept * memory + (1 - kept) * torch.tanh(made[RANK : 2 * RANK])


def _selected(head: ToyDflash, state: torch.Tensor, logits: torch.Tensor, before: int) -> torch.Tensor:
    """Scores of the four best tokens, of which the token before is told; the others have no chance."""
    books = [head.tensors[f"candidate_selector.{name}_codebook"] for name in ("predecessor", "successor")]
    asked = books[0][before] * (head.tensors["candidate_selector.hidden_projection.weight"] @ state)
    scores = torch.full_like(logits, -torch.inf)
    for token in logits.topk(4).indices.tolist():
        scores[token] = logits[token] + asked @ books[1][token]
    return scores


def taught(head: ToyDflash, target: torch.nn.Module, texts: Sequence[Sequence[int]], *, steps: int = 120) -> ToyDflash:
    """The head, after some steps of learning what these texts go on with: it is right often, not always."""
    known = [(list(text), features_of(target, text, head.taps)) for text in texts]
    names = [name for name in head.tensors if name.startswith(("fc", "layers", "norm", "hidden_norm"))]
    for name in names:
        head.tensors[name] = head.tensors[name].clone().requires_grad_(True)
    optimizer, generator = torch.optim.Adam([head.tensors[name] for name in names], lr=0.01), torch.Generator()
    shift = 1 if head.is_anchor_first else 0
    generator.manual_seed(0)
    for step in range(steps):
        ids, features = known[step % len(known)]
        at = int(torch.randint(1, len(ids) - head.block_size, (1,), generator=generator))
        states = states_of(head, target, ids[at], features[:at])
        wanted = torch.tensor([ids[at + slot + shift] for slot in head.slots])
        loss = cross_entropy(logits_of(head, target, states), wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for name in names:
        head.tensors[name] = head.tensors[name].detach()
    return head
