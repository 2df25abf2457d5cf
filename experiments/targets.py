"""Targets of today against transformers' own greedy generate, text for text, on shrunk random checkpoints.

    python -m experiments.targets [--num_prompts 200] [--only NAME ...]

Every real config.json below is shrunk: widths, layers and table; what makes its architecture is kept, such as heads
wider than hidden size over heads, windows that the text crosses, kinds of layers, experts, rotary scaling. Weights are
random and the head sharpened. Each prompt is answered by transformers, by plain decoding on every backend that runs the
network, and with an AR drafter that is often wrong, so that keys are dropped. A difference at two logits that all but
agree is a tie, any other a bug. The last line on stdout is one JSON document.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from profiling.common import parser_of, run_command
from specdec.decoding.loop import Drafter, speculate
from specdec.decoding.target import Target
from specdec.drafters.ar import ArDrafter, ArStatic
from specdec.drafters.base import Setup
from specdec.drafters.plain import Plain
from specdec.models.architectures import Architecture, find_architecture
from specdec.models.checkpoints import TARGET, ModelSource, find_model
from specdec.models.graph.weights import unsupported
from specdec.models.lm import CachedLM
from specdec.models.load import check_network, load_lm, model_config
from specdec.records.divergence import BUG, EXACT, TIE
from specdec.records.rounds import Round

VOCAB_SIZE, HEAD_SIZE, MAX_POSITIONS, WINDOW, FIRST_POSITIONS = 128, 16, 256, 12, 96
TOO_CLOSE = 1e-4  # logits nearer than this may swap in float32
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
YARN = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
QWEN = {"use_sliding_window": False, "rope_theta": 1e6, "rms_norm_eps": 1e-6}
LONGROPE = {"type": "longrope", "short_factor": [], "long_factor": []}  # lists of numbers; see `shrunk`


def _shape(hidden: int, inner: int, heads: tuple[int, int], **more: Any) -> dict[str, Any]:
    """`heads`: query and key-value heads."""
    sizes = {"hidden_size": hidden, "intermediate_size": inner, "tie_word_embeddings": False}
    return {**sizes, "num_attention_heads": heads[0], "num_key_value_heads": heads[1], **more}


# What the config.json of real checkpoints says of their networks.
REAL: dict[str, tuple[str, dict[str, Any]]] = {
    "Qwen2.5-7B": ("qwen2", _shape(3584, 18944, (28, 4), **QWEN, sliding_window=131072, max_window_layers=28)),
    "Qwen2.5-7B, YaRN": ("qwen2", _shape(3584, 18944, (28, 4), **QWEN, rope_scaling=YARN)),
    "Llama-3.1-8B": (
        "llama",
        _shape(4096, 14336, (32, 8), rope_theta=5e5, rms_norm_eps=1e-5, rope_scaling=LLAMA3),
    ),
    "Qwen3-8B": ("qwen3", _shape(4096, 12288, (32, 8), head_dim=128, **QWEN, sliding_window=None)),
    "Qwen3-0.6B": ("qwen3", _shape(1024, 3072, (16, 8), head_dim=128, **QWEN) | {"tie_word_embeddings": True}),
    "Qwen3-30B-A3B": (
        "qwen3_moe",
        _shape(2048, 6144, (32, 4), head_dim=128, **QWEN, sliding_window=None, decoder_sparse_step=1)
        | {"moe_intermediate_size": 768, "num_experts": 128, "num_experts_per_tok": 8, "norm_topk_prob": True},
    ),
    "Mistral-7B-v0.1": ("mistral", _shape(4096, 14336, (32, 8), rope_theta=1e4, sliding_window=4096)),
    "Mistral-Nemo": ("mistral", _shape(5120, 14336, (32, 8), head_dim=128, rope_theta=1e6, sliding_window=None)),
    "Phi-3-mini-4k": ("phi3", _shape(3072, 8192, (32, 32), rope_theta=1e4, sliding_window=2047)),
    "Phi-4-mini": (
        "phi3",
        _shape(3072, 8192, (24, 8), partial_rotary_factor=0.75, sliding_window=262144, rope_scaling=LONGROPE)
        | {"tie_word_embeddings": True, "original_max_position_embeddings": 4096},
    ),
    "gemma-3-1b": (
        "gemma3_text",
        _shape(1152, 6912, (4, 1), head_dim=256, query_pre_attn_scalar=256, sliding_window=512)
        | {"rope_theta": 1e6, "rope_local_base_freq": 1e4, "sliding_window_pattern": 6, "tie_word_embeddings": True},
    ),
    "gemma-3-4b, its text": (
        "gemma3_text",
        _shape(2560, 10240, (8, 4), head_dim=256, query_pre_attn_scalar=256, sliding_window=1024)
        | {"rope_theta": 1e6, "rope_local_base_freq": 1e4, "rope_scaling": {"rope_type": "linear", "factor": 8.0}}
        | {"tie_word_embeddings": True, "final_logit_softcapping": 30.0},
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = parser_of("experiments.targets", __doc__)
    parser.add_argument("--num_prompts", type=int, default=200, help="of each target (default: %(default)s)")
    parser.add_argument("--only", nargs="+", choices=tuple(REAL), help="these targets (default: all)")
    return run_command(parser, work, arguments)


def work(flags: argparse.Namespace) -> dict[str, Any]:
    found = {name: compared(name, flags.num_prompts) for name in flags.only or REAL}
    return {
        "what": "texts of shrunk random checkpoints of real configs against transformers' own greedy generate",
        "num_prompts": flags.num_prompts,
        "targets": found,
        "num_bugs": sum(counts.get(BUG, 0) for way in found.values() for counts in way.values()),
    }


def compared(name: str, num_prompts: int, max_new_tokens: int = 16) -> dict[str, dict[str, int]]:
    """By way of decoding, how often its texts were exact, ties and bugs; tokens drafted and accepted."""
    counts: dict[str, Counter[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        source = made(Path(folder), name)
        theirs = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
        ways = decoders(source)
        for seed in range(num_prompts):
            prompt = prompt_of(seed)
            wanted = generated(theirs, prompt, max_new_tokens)
            for way, (lm, drafter) in ways.items():
                rounds = decoded(lm, drafter, prompt, max_new_tokens)
                found = counts.setdefault(way, Counter())
                found[graded(theirs, prompt, wanted, [token for turn in rounds for token in turn.emitted_tokens])] += 1
                found["drafted"] += sum(turn.draft_len for turn in rounds)
                found["accepted"] += sum(turn.accepted_len for turn in rounds)
    return {way: dict(counted) for way, counted in counts.items()}


def shrunk(row: Architecture, config: dict[str, Any]) -> dict[str, Any]:
    """A small config.json of the same kind. Ratios of heads to key-value heads and of head size to hidden size stay."""
    heads, key_heads = config["num_attention_heads"], config["num_key_value_heads"]
    few = min(key_heads, 2)
    wide = heads // key_heads * few
    hidden = config["hidden_size"] * wide * HEAD_SIZE // (heads * _head_size(config))
    small = {
        **{"num_attention_heads": wide, "num_key_value_heads": few, "hidden_size": hidden, "vocab_size": VOCAB_SIZE},
        **{"intermediate_size": 2 * hidden, "max_position_embeddings": MAX_POSITIONS, "initializer_range": 0.2},
        **{"num_hidden_layers": 7 if row.has_local_rope else 3, "pad_token_id": 0},
    }
    own = {
        "head_dim": HEAD_SIZE,
        "sliding_window": WINDOW if (config.get("sliding_window") or 10**6) < 10**5 else config.get("sliding_window"),
        "query_pre_attn_scalar": HEAD_SIZE,
        "original_max_position_embeddings": FIRST_POSITIONS,
        "rope_scaling": _scaling(config),
        **{"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": hidden},
    }
    kept = {name: value for name, value in own.items() if name in config}
    return {"model_type": row.name, "architectures": [row.model_class], **config, **small, **kept}


def _head_size(config: dict[str, Any]) -> int:
    return int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])


def _scaling(config: dict[str, Any]) -> dict[str, Any]:
    """Rotary scaling that begins within a short text; of Phi's factors, of the short length that fits."""
    scaling = dict(config.get("rope_scaling") or {})
    if "short_factor" in scaling:
        pairs = range(int(HEAD_SIZE * config["partial_rotary_factor"]) // 2)
        return {**scaling, "short_factor": [1 + 0.2 * i for i in pairs], "long_factor": [1.0 + 9 * i for i in pairs]}
    is_stretched = scaling.get("rope_type", scaling.get("type")) in ("yarn", "llama3")
    return {**scaling, "original_max_position_embeddings": 16} if is_stretched else scaling


def made(folder: Path, name: str) -> ModelSource:
    """A checkpoint whose network transformers itself makes of the shrunk config.json, with random weights."""
    kind, config = REAL[name]
    row = find_architecture(kind)
    if row is None:
        raise ValueError(f"no architecture {kind}")
    text = json.dumps(shrunk(row, config))
    (folder / "config.json").write_text(text)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.from_pretrained(folder))
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
        model.get_submodule("model.norm").get_parameter("weight").mul_(4.0)  # sharper, with tied tables as well
    model.save_pretrained(folder, safe_serialization=True)
    (folder / "config.json").write_text(text)
    (folder / "generation_config.json").unlink(missing_ok=True)
    source = find_model(TARGET, str(folder))
    check_network(source)
    return source


def decoders(source: ModelSource) -> dict[str, tuple[CachedLM, Drafter]]:
    """By its name, the target of each way of decoding and its drafter."""
    backends = ["eager"] if unsupported(model_config(source)) else ["eager", "graph"]
    ways: dict[str, tuple[CachedLM, Drafter]] = {}
    for backend in backends:
        lm, draft_lm = (load_lm(source, torch.device("cpu"), torch.float32, backend=backend) for _ in range(2))
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for name, weight in draft_lm.model.named_parameters():
                if name.endswith("o_proj.weight"):  # so that it is right now and then
                    weight.add_(0.05 * torch.randn(weight.shape, generator=generator))
        ways[backend] = (lm, Plain().drafter(Setup(())))
        ways[f"{backend}, AR drafts of 4"] = (lm, ArDrafter(draft_lm, ArStatic(4), ()))
    return ways


def prompt_of(seed: int) -> list[int]:
    """Random tokens, as many as cross a window or do not."""
    generator = torch.Generator().manual_seed(seed)
    length = int(torch.randint(1, 48, (1,), generator=generator))
    return torch.randint(VOCAB_SIZE, (length,), generator=generator).tolist()


def generated(model: torch.nn.Module, prompt: list[int], max_new_tokens: int) -> list[int]:
    """What transformers' own generate writes."""
    asked = {"do_sample": False, "max_new_tokens": max_new_tokens, "eos_token_id": None, "pad_token_id": 0}
    ids = torch.tensor([prompt])
    whole = model.generate(ids, attention_mask=torch.ones_like(ids), **asked)  # type: ignore[operator]  # of its mixin
    return whole[0].tolist()[len(prompt) :]


def decoded(lm: CachedLM, drafter: Drafter, prompt: list[int], max_new_tokens: int) -> list[Round]:
    return speculate(Target(lm), drafter, prompt, max_new_tokens=max_new_tokens, stop_ids=(), clock=lambda: 0.0)


def graded(model: torch.nn.Module, prompt: list[int], wanted: list[int], text: list[int]) -> str:
    """Exact, or by the logits of an uncached pass of transformers' own model at the first difference."""
    if text == wanted:
        return EXACT
    at = next((i for i, pair in enumerate(zip(wanted, text, strict=False)) if pair[0] != pair[1]), None)
    if at is None:
        return BUG
    with torch.inference_mode():
        logits_V = model(input_ids=torch.tensor([prompt + wanted[:at]]), use_cache=False).logits[0, -1]
    return TIE if float(logits_V.max() - logits_V[text[at]]) < TOO_CLOSE else BUG


if __name__ == "__main__":
    raise SystemExit(main())
