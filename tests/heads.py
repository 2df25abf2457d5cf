"""EAGLE-3 heads for the tests, in their three layouts: random ones, and ones that were taught to agree with a target
now and then; and what they compute, from the text of the layouts alone, without any cache. Not tests.

The second implementation shares nothing with the program: it runs the whole sequence again for every token.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import save_file
from torch.nn.functional import cross_entropy, silu
from toys import causal_logits

from specdec.drafters.eagle3 import EAGLE3_HEAD
from specdec.models.checkpoints import TARGET, ModelSource
from specdec.models.eagle3_network import Eagle3Network
from specdec.models.heads import HeadSource
from specdec.models.lm import CachedLM

HEADS, KV_HEADS, HEAD_SIZE, INNER = 4, 2, 8, 48
THETA, EPS = 10000.0, 1e-5
LAYOUTS = ("safeailab", "speculators", "deepspec")


@dataclass
class ToyHead:
    """A head's tensors under short names, and how it computes. `taps` are outputs of layers."""

    layout: str
    taps: tuple[int, ...]
    size: int
    vocab_size: int
    draft_vocab_size: int
    flags: dict[str, bool] = field(default_factory=dict)
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    num_target_layers: int = 2
    target_size: int = 32

    @property
    def body(self) -> str:
        return "midlayer" if self.layout == "safeailab" else "layers.0"

    @property
    def has_qk_norm(self) -> bool:
        return self.layout == "deepspec" or bool(self.flags.get("qwen3"))


def toy_head(
    layout: str,
    target: torch.nn.Module,
    seed: int,
    *,
    taps: Sequence[int] = (1, 0, 1),
    draft_vocab_size: int | None = None,
    has_embedding: bool = True,
    size: int | None = None,
    **flags: bool,
) -> ToyHead:
    """Random weights; `flags` as in its config.json, and `qwen3`: layers of that kind (in speculators' layout)."""
    config = target.config
    head = ToyHead(
        layout, tuple(taps), size or config.hidden_size, config.vocab_size, draft_vocab_size or config.vocab_size, flags
    )
    head.num_target_layers, head.target_size = config.num_hidden_layers, config.hidden_size
    generator = torch.Generator().manual_seed(seed)

    def random(*sizes: int) -> torch.Tensor:
        return torch.randn(*sizes, generator=generator) * (0.3 if len(sizes) == 1 else sizes[-1] ** -0.5)

    c, body, fused = head.size, head.body, len(taps) * config.hidden_size
    t = head.tensors
    t["fc.weight"] = random(c, fused)
    for name in ("norm", f"{body}.hidden_norm", f"{body}.input_layernorm", f"{body}.post_attention_layernorm"):
        t[f"{name}.weight"] = 1 + random(c)
    t["lm_head.weight"] = 2 * random(head.draft_vocab_size, c)
    for name, rows in (("q", HEADS), ("k", KV_HEADS), ("v", KV_HEADS)):
        t[f"{body}.self_attn.{name}_proj.weight"] = 2 * random(rows * HEAD_SIZE, 2 * c)
    t[f"{body}.self_attn.o_proj.weight"] = random(c, HEADS * HEAD_SIZE)
    for name in ("gate", "up"):
        t[f"{body}.mlp.{name}_proj.weight"] = random(INNER, c)
    t[f"{body}.mlp.down_proj.weight"] = random(c, INNER)
    if head.has_qk_norm:
        t |= {f"{body}.self_attn.{name}_norm.weight": 1 + random(HEAD_SIZE) for name in "qk"}
    if flags.get("norm_before_fc"):
        t["input_norm.weight"] = 1 + random(fused)
    if flags.get("fc_norm"):
        t |= {f"fc_norm.{index}.weight": 1 + random(config.hidden_size) for index in range(len(taps))}
    if has_embedding:
        t["embed_tokens.weight"] = random(config.vocab_size, c) * c**0.5
    if head.draft_vocab_size != head.vocab_size:
        chosen = torch.randperm(config.vocab_size, generator=generator)[: head.draft_vocab_size].sort().values
        t["d2t"] = chosen - torch.arange(head.draft_vocab_size)
        t["t2d"] = torch.zeros(config.vocab_size, dtype=torch.bool).index_fill(0, chosen, True)
    return head


def config_of(head: ToyHead, **changes: Any) -> dict[str, Any]:
    """Its config.json, as its layout has it; `changes` set entries, None removes one."""
    layer = {
        "hidden_size": head.size,
        "intermediate_size": INNER,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "num_hidden_layers": 1,
        "head_dim": HEAD_SIZE,
        "hidden_act": "silu",
        "rms_norm_eps": EPS,
        "rope_theta": THETA,
        "vocab_size": head.vocab_size,
        "max_position_embeddings": 64,
    }
    flags = {name: value for name, value in head.flags.items() if name != "qwen3"}
    if head.layout == "safeailab":
        config = {"architectures": ["LlamaForCausalLMEagle3"], "model_type": "llama", **layer, **flags}
        config |= {"draft_vocab_size": head.draft_vocab_size, "target_hidden_size": head.target_size}
        config |= {"eagle_config": {"eagle_aux_hidden_state_layer_ids": list(head.taps)}}
    elif head.layout == "speculators":
        kind = "qwen3" if head.flags.get("qwen3") else "llama"
        config = {"speculators_model_type": "eagle3", "architectures": ["Eagle3Speculator"], **flags}
        config |= {"transformer_layer_config": {"model_type": kind, **layer}, "draft_vocab_size": head.draft_vocab_size}
        config |= {"eagle_aux_hidden_state_layer_ids": [tap + 1 for tap in head.taps]}
        config |= {"target_hidden_size": head.target_size, "speculators_config": {"verifier": {"name_or_path": None}}}
    else:
        config = {"architectures": ["Qwen3Eagle3Model"], "model_type": "qwen3", **layer}
        config |= {"target_layer_ids": list(head.taps), "num_target_layers": head.num_target_layers, "ttt_length": 7}
    return {key: value for key, value in {**config, **changes}.items() if value is not None}


def save_head(folder: Path, head: ToyHead, *, suffix: str = "safetensors", **changes: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config_of(head, **changes)))
    tensors = {name: tensor.contiguous() for name, tensor in head.tensors.items()}
    if suffix == "bin":
        torch.save(tensors, folder / "pytorch_model.bin")
    else:
        save_file(tensors, folder / "model.safetensors")
    return folder


def _rms(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return weight * x / torch.sqrt((x * x).mean(-1, keepdim=True) + EPS)


def _turned(x: torch.Tensor) -> torch.Tensor:
    """Rotary embedding of [L, heads, D] at positions 0 .. L - 1, as complex numbers."""
    half = x.shape[-1] // 2
    angles = torch.arange(len(x))[:, None] * THETA ** (-torch.arange(half) / half)
    turned = torch.complex(x[..., :half], x[..., half:]) * torch.polar(torch.ones_like(angles), angles)[:, None]
    return torch.cat([turned.real, turned.imag], dim=-1)


def states_of(head: ToyHead, features: torch.Tensor) -> torch.Tensor:
    """What stands for the target's features in the layer's input."""
    t = head.tensors
    if head.flags.get("norm_before_fc"):
        features = _rms(features, t["input_norm.weight"])
    if head.flags.get("fc_norm"):
        parts = features.chunk(len(head.taps), -1)
        features = torch.cat([_rms(part, t[f"fc_norm.{i}.weight"]) for i, part in enumerate(parts)], -1)
    return features @ t["fc.weight"].T


def outputs_of(head: ToyHead, embedded: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
    """The layer over a whole sequence."""
    t, body = head.tensors, head.body
    normed = _rms(states, t[f"{body}.hidden_norm.weight"])
    x = torch.cat([_rms(embedded, t[f"{body}.input_layernorm.weight"]), normed], -1)
    q, k, v = ((x @ t[f"{body}.self_attn.{name}_proj.weight"].T).unflatten(-1, (-1, HEAD_SIZE)) for name in "qkv")
    if head.has_qk_norm:
        q, k = (_rms(part, t[f"{body}.self_attn.{name}_norm.weight"]) for name, part in (("q", q), ("k", k)))
    q, k = _turned(q), _turned(k)
    mixed = torch.empty_like(q)
    rows = []
    for index in range(HEADS):
        group = index * KV_HEADS // HEADS
        scores = q[:, index] @ k[:, group].T * HEAD_SIZE**-0.5
        hidden = torch.ones(len(x), len(x), dtype=torch.bool).triu(1)
        rows.append(scores.masked_fill(hidden, -torch.inf).softmax(-1) @ v[:, group])
    mixed = torch.cat(rows, -1)
    out = (normed if head.flags.get("norm_before_residual") else states) + mixed @ t[
        f"{body}.self_attn.o_proj.weight"
    ].T
    y = _rms(out, t[f"{body}.post_attention_layernorm.weight"])
    gate, up = (y @ t[f"{body}.mlp.{name}_proj.weight"].T for name in ("gate", "up"))
    return out + (silu(gate) * up) @ t[f"{body}.mlp.down_proj.weight"].T


def logits_of(head: ToyHead, outputs: torch.Tensor) -> torch.Tensor:
    return _rms(outputs, head.tensors["norm.weight"]) @ head.tensors["lm_head.weight"].T


def embedding_of(head: ToyHead, target: torch.nn.Module) -> torch.Tensor:
    own = head.tensors.get("embed_tokens.weight")
    return target.get_input_embeddings().weight.detach() if own is None else own


def draft_of(
    head: ToyHead, target: torch.nn.Module, features: torch.Tensor, prefix: Sequence[int], length: int
) -> list[tuple[int, float]]:
    """The draft after a prefix, of which `features` are all rows but the last: tokens and their probabilities."""
    table = embedding_of(head, target)
    embedded, states = table[list(prefix[1:])], states_of(head, features[: len(prefix) - 1])
    found: list[tuple[int, float]] = []
    with torch.no_grad():
        for _ in range(length):
            last = outputs_of(head, embedded, states)[-1:]
            probability, word = logits_of(head, last)[0].softmax(-1).max(-1)
            token = (
                int(word) + int(head.tensors["d2t"][word]) if head.draft_vocab_size != head.vocab_size else int(word)
            )
            found.append((token, float(probability)))
            fed = _rms(last, head.tensors["norm.weight"]) if head.flags.get("norm_output") else last
            embedded, states = torch.cat([embedded, table[[token]]]), torch.cat([states, fed])
    return found


def features_of(target: torch.nn.Module, tokens: Sequence[int], taps: Sequence[int]) -> torch.Tensor:
    """Outputs of layers, by hooks on the raw model and one uncached forward."""
    found: dict[int, torch.Tensor] = {}
    layers = target.model.layers

    def keep(index: int) -> Any:
        return lambda _, given, out: found.__setitem__(index, (out[0] if isinstance(out, tuple) else out)[0])

    handles = [layers[index].register_forward_hook(keep(index)) for index in set(taps)]
    try:
        causal_logits(target, tokens)
    finally:
        for handle in handles:
            handle.remove()
    return torch.cat([found[tap] for tap in taps], -1).clone()


def taught(head: ToyHead, target: torch.nn.Module, texts: Sequence[Sequence[int]], *, epochs: int = 10) -> ToyHead:
    """The head, after it has learnt what the target writes after every prefix of some texts: it is right there often,
    elsewhere hardly ever."""
    rows = []
    for ids in texts:
        best = causal_logits(target, ids).argmax(-1).clone()
        rows.append((torch.tensor(ids), best, features_of(target, ids, head.taps)))
    table = embedding_of(head, target).clone()
    words = torch.arange(head.vocab_size)
    if head.draft_vocab_size != head.vocab_size:
        words = torch.full((head.vocab_size,), -100)
        words[head.tensors["t2d"]] = torch.arange(head.draft_vocab_size)
    learnt = [name for name, tensor in head.tensors.items() if tensor.is_floating_point() and "embed" not in name]
    for name in learnt:
        head.tensors[name] = head.tensors[name].clone().requires_grad_(True)
    optimizer = torch.optim.Adam([head.tensors[name] for name in learnt], lr=0.01)
    for ids, best, features in rows * epochs:
        out = outputs_of(head, table[ids[1:]], states_of(head, features[:-1]))
        fed = _rms(out, head.tensors["norm.weight"]) if head.flags.get("norm_output") else out
        second = outputs_of(head, table[ids[2:]], fed[:-1])  # as if all of them were drafts: near enough
        loss = cross_entropy(logits_of(head, out), words[best[1:]])
        loss = loss + cross_entropy(logits_of(head, second), words[best[2:]])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for name in learnt:
        head.tensors[name] = head.tensors[name].detach()
    return head


def loaded_head(head: ToyHead, lm: CachedLM, backend: str = "eager") -> Eagle3Network:
    """The program's own network of a head, by way of its files."""
    with TemporaryDirectory() as folder:
        path, config = save_head(Path(folder), head), lm.model.config.to_dict()
        target = ModelSource(TARGET, "toy", path, config)
        files = sorted(path.glob("*.safetensors"))
        source = HeadSource(EAGLE3_HEAD, "toy head", path, config_of(head), target, files)
        source.head.check(source, target)
        return source.head.load(source, lm, backend)
