"""DFlash heads against their authors' own programs: random weights, the same small target, every draft of every round.

    python -m experiments.dflash_oracle --package FOLDER --deepspec CHECKOUT --jetspec CHECKOUT --num_rounds 300

FOLDER holds the package `dflash`. Targets are random networks of a few words, so that drafts are right now and then.
The heads are made by the authors' classes and written as checkpoints, which this program then reads. The mask, which
this program never drafts, has no chance on either side. The authors shorten the last blocks of a text, which are left
out. The last line on stdout is JSON.
"""

from __future__ import annotations

import importlib
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file

from profiling.common import parser_of, run_command
from specdec.decoding.loop import speculate
from specdec.decoding.target import Target
from specdec.drafters.base import Setup
from specdec.drafters.dflash import DFLASH_HEAD, DflashDrafter, DflashStatic
from specdec.errors import UserError
from specdec.models.checkpoints import TARGET, ModelSource
from specdec.models.dflash import read_dflash
from specdec.models.dflash_trees import DflashTrees
from specdec.models.heads import HeadSource
from specdec.models.lm import CachedLM

WORDS, MASK_ID, BLOCK, NEW_TOKENS = 12, 11, 6, 40
LAYER = {
    **{"vocab_size": WORDS, "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "head_dim": 8},
    **{"num_key_value_heads": 2, "num_target_layers": 6, "max_position_embeddings": 512, "use_sliding_window": True},
}
TARGETS = ("Qwen3", "Qwen2", "Llama")
Round = tuple[int, list[int], list[float]]  # tokens before, drafts, and how sure they are, where that is compared
OwnRounds = Callable[[Any, torch.nn.Module, list[int]], list[Round]]


@dataclass(frozen=True)
class Case:
    """A kind of head: its class's place, settings beside `LAYER`, and how its authors draft with it."""

    name: str
    module: str
    kind: str
    rounds: OwnRounds
    settings: dict[str, Any] = field(default_factory=dict)
    dflash: dict[str, Any] = field(default_factory=dict)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = parser_of("experiments.dflash_oracle", __doc__, ())
    parser.add_argument("--num_rounds", type=int, default=300, help="rounds of each kind of head")
    for name, what in SOURCES.items():
        parser.add_argument(f"--{name}", help=what)
    return run_command(parser, measure, arguments)


def measure(flags: Any) -> dict[str, Any]:
    torch.set_num_threads(1)
    given = {name: folder for name in SOURCES if (folder := getattr(flags, name))}
    sys.path += given.values()
    chosen = [case for name in given for case in CASES[name]]
    if not chosen:
        raise UserError("nothing to compare with: give --package, --deepspec or --jetspec")
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    found = {case.name: compare(case, flags.num_rounds) for case in chosen}
    return {"versions": versions, "num_rounds": flags.num_rounds, "heads": found}


def compare(case: Case, num_rounds: int) -> dict[str, Any]:
    """Totals over as many texts as the rounds take, a new head and target for each."""
    total = dict.fromkeys(("rounds", "equal", "drafted", "accepted", "left_out"), 0)
    apart: list[float] = []
    distinct, seed = set(), 0
    with tempfile.TemporaryDirectory() as folder:
        while total["rounds"] < num_rounds:
            seed += 1
            target, (head, loaded) = made_target(seed), made_head(case, seed, Path(folder))
            network = loaded(CachedLM(target))
            prompt = torch.randint(0, MASK_ID, (2 + seed % 37,), generator=generator(seed)).tolist()
            theirs = {at: (drafts, sures) for at, drafts, sures in case.rounds(head, target, prompt)}
            for turn in our_rounds(network, target, prompt):
                drafts, sures = theirs.get(turn.prefix_len, ([], []))
                if len(drafts) != network.head.num_drafts or turn.draft_len != len(drafts):
                    total["left_out"] += 1
                    continue
                apart += [abs(a - b) for a, b in zip(turn.confidences, sures, strict=False)]
                distinct.add(tuple(drafts))
                counts = 1, turn.draft_tokens == drafts, len(drafts), turn.accepted_len
                for key, count in zip(total, counts, strict=False):
                    total[key] += count
    return {**total, "texts": seed, "distinct": len(distinct), "confidences_apart": max(apart, default=None)}


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def made_target(seed: int) -> Any:
    """A random network, its architecture by turns, which never writes the mask."""
    name = TARGETS[seed % len(TARGETS)]
    settings = {key: value for key, value in LAYER.items() if key not in ("num_target_layers", "use_sliding_window")}
    config = getattr(transformers, f"{name}Config")(
        **settings, num_hidden_layers=6, initializer_range=0.2, pad_token_id=None, bos_token_id=None, eos_token_id=None
    )
    torch.manual_seed(seed)
    target = getattr(transformers, f"{name}ForCausalLM")(config).float().eval()
    target.lm_head.register_forward_hook(without_mask)
    return target


def without_mask(module: object, given: object, logits: torch.Tensor) -> torch.Tensor:
    logits = logits.clone()
    logits[..., MASK_ID] = -torch.inf
    return logits


def made_head(case: Case, seed: int, folder: Path) -> tuple[Any, Callable[[CachedLM], DflashTrees]]:
    """The authors' module with random weights, and this program's network from its checkpoint."""
    try:
        kind = getattr(importlib.import_module(case.module), case.kind)
    except ImportError as error:
        raise UserError(f"{case.module} is not here ({error}): see the head of this file") from error
    config = transformers.Qwen3Config(**{**LAYER, **case.settings, "attn_implementation": "sdpa"})
    vars(config)["dflash_config"] = case.dflash
    torch.manual_seed(1000 + seed)
    head = kind(config).float().eval()
    with torch.no_grad():
        for name, parameter in head.named_parameters():
            noise = torch.randn_like(parameter)
            parameter.copy_(1 + 0.3 * noise if "norm" in name and noise.dim() == 1 else 0.25 * noise)
    save_file({name: tensor.clone() for name, tensor in head.state_dict().items()}, folder / "model.safetensors")
    stated = {**LAYER, **case.settings, "architectures": [case.kind], "rms_norm_eps": config.rms_norm_eps}
    stated |= {"rope_theta": 10000.0, "dflash_config": case.dflash, "hidden_act": "silu"}
    return head, lambda lm: our_network(folder, stated, lm)


def our_network(folder: Path, config: dict[str, Any], lm: CachedLM) -> DflashTrees:
    (folder / "config.json").write_text(json.dumps(config))
    target = ModelSource(TARGET, "target", folder, {**LAYER, "num_hidden_layers": 6})
    source = HeadSource(DFLASH_HEAD, "head", folder, config, target, [folder / "model.safetensors"])
    head = read_dflash(source)
    head.check(source, target)
    return head.load(source, lm, "eager")


class CroppedTo(transformers.DynamicCache):
    """A cache whose `crop` is told the length that is left, as in transformers 4, for which they were written."""

    def crop(self, length: int) -> None:
        if (surplus := self.get_seq_length() - length) > 0:
            super().crop(-surplus)


def our_rounds(network: DflashTrees, target: torch.nn.Module, prompt: list[int]) -> Sequence[Any]:
    """After the first token, which the authors' programs write without a draft."""
    lm, first = network.target, next_token(target, prompt)
    drafter = DflashDrafter(network, DflashStatic(BLOCK), Setup(()))
    return speculate(Target(lm), drafter, [*prompt, first], max_new_tokens=NEW_TOKENS, stop_ids=())


@torch.inference_mode()
def next_token(target: torch.nn.Module, ids: list[int]) -> int:
    return int(target(torch.tensor([ids])).logits[0, -1].argmax())


def package_rounds(head: Any, target: torch.nn.Module, prompt: list[int]) -> list[Round]:
    """What the package's own generation sends to the target, after the prompt."""
    seen: list[Round] = []

    def watch(module: object, given: tuple[torch.Tensor, ...], named: dict[str, Any]) -> None:
        start = int(named["position_ids"][0, 0])
        if start:
            seen.append((start + 1, given[0][0, 1:].tolist(), []))

    handle = target.register_forward_pre_hook(watch, with_kwargs=True)
    generate = importlib.import_module("dflash.model").dflash_generate
    generate(head, target, torch.tensor([prompt]), NEW_TOKENS + BLOCK + 2, None)
    handle.remove()
    return seen


@torch.inference_mode()
def features_of(target: torch.nn.Module, ids: list[int], layers: Sequence[int]) -> torch.Tensor:
    states = target(torch.tensor([ids]), output_hidden_states=True).hidden_states
    return torch.cat([states[layer + 1] for layer in layers], dim=-1)


def told(target: torch.nn.Module, prompt: list[int]) -> list[int]:
    """The prompt and what the target writes after it."""
    ids = list(prompt)
    while len(ids) < len(prompt) + NEW_TOKENS + 1:
        ids.append(next_token(target, ids))
    return ids


def deepspec_rounds(head: Any, target: torch.nn.Module, prompt: list[int]) -> list[Round]:
    """Its own functions along the target's text."""
    head.lm_head.register_forward_hook(without_mask)
    ids = told(target, prompt)
    return deepspec_drafts(head, ids, features_of(target, ids, head.target_layer_ids), len(prompt))


@torch.inference_mode()
def deepspec_drafts(head: Any, ids: list[int], features: torch.Tensor, first: int) -> list[Round]:
    """Its own functions along a text, from the anchor at `first` on; its cache is kept and cropped by them."""
    ops = importlib.import_module("deepspec.eval.dspark.draft_ops")
    size, made, cache, known = head.block_size, [], CroppedTo(), 0
    positions = torch.arange(len(ids) + size)[None]
    for start in range(first, len(ids) - 1):
        block = torch.full((1, size), head.mask_token_id)
        block[0, 0] = ids[start]
        hidden = ops.forward_dspark_draft_block(
            head,
            draft_input_ids=block,
            position_ids=positions,
            past_key_values_draft=cache,
            target_hidden_states=features[:, known:start],
            start=start,
            block_size=size,
        )
        known = start
        drafted = ops.build_dspark_proposal(
            head,
            draft_input_ids=block,
            block_hidden=hidden,
            block_size=size,
            temperature=0.0,
            confidence_threshold=0.0,
        )
        scores = drafted.confidence_logits
        sures = [] if scores is None else scores[0].sigmoid().tolist()
        made.append((start + 1, drafted.verify_input_ids[0, 1:].tolist(), sures))
    return made


def jetspec_rounds(head: Any, target: torch.nn.Module, prompt: list[int]) -> list[Round]:
    """Its own drafter along the target's text, after every prefix."""
    place: Any = importlib.import_module("jetspec.draft_head_adapter")
    place.DynamicCache = CroppedTo
    drafter, ids = place.DraftHeadDrafter(head, target, BLOCK, head.target_layer_ids), told(target, prompt)
    features = features_of(target, ids, head.target_layer_ids)
    found: list[Round] = []
    for end in range(len(prompt) + 1, len(ids)):
        drafts = drafter.propose(torch.tensor([ids[:end]]), BLOCK - 1, target_hidden=features[:, : end - 1])
        found.append((end, drafts.tolist(), []))
    return found


PLAIN = {"mask_token_id": MASK_ID, "block_size": BLOCK, "target_layer_ids": [1, 3]}
SLIDING = {"num_hidden_layers": 3, "layer_types": [*["sliding_attention"] * 2, "full_attention"], "sliding_window": 5}
DFLASH2 = {"conv_kernel_size": 2, "conv_group_size": 8, "selector_rank": 16, "selector_top_k": 4, **PLAIN}
TWO = {"num_hidden_layers": 2, "block_size": BLOCK}
SPARK = {
    **TWO,
    **{"target_layer_ids": [0, 2, 4], "mask_token_id": MASK_ID, "num_anchors": 8, "markov_rank": 8},
    **{"markov_head_type": "vanilla", "enable_confidence_head": True, "confidence_head_with_markov": True},
}
PACKAGE = [
    Case("DFlash", "dflash.model", "DFlashDraftModel", package_rounds, {"num_hidden_layers": 2}, PLAIN),
    Case("DFlash, sliding layers", "dflash.model", "DFlashDraftModel", package_rounds, SLIDING, PLAIN),
    Case(
        *("DFlash, sliding, not causal", "dflash.model", "DFlashDraftModel", package_rounds),
        {**SLIDING, "is_causal": False},
        {**PLAIN, "output_multiplier": 2.0, "final_logit_softcapping": 3.0, "input_embedding_scale": 1.5},
    ),
    Case("DFlash, causal", "dflash.model", "DFlashDraftModel", package_rounds, {**TWO, "is_causal": True}, PLAIN),
    Case("DFlash2", "dflash.model", "DFlash2DraftModel", package_rounds, {**TWO, "is_causal": False}, DFLASH2),
    Case("DFlash2, sliding", "dflash.model", "DFlash2DraftModel", package_rounds, SLIDING, DFLASH2),
]
DEEPSPEC_MODULE = "deepspec.modeling.dspark.qwen3", "Qwen3DSparkModel", deepspec_rounds
DEEPSPEC = [
    Case("DSpark", *DEEPSPEC_MODULE, SPARK),
    Case("DSpark, gated", *DEEPSPEC_MODULE, {**SPARK, "markov_head_type": "gated"}),
    Case("DSpark, recurrent", *DEEPSPEC_MODULE, {**SPARK, "markov_head_type": "rnn"}),
    Case("DSpark, confidences of states alone", *DEEPSPEC_MODULE, {**SPARK, "confidence_head_with_markov": False}),
    Case("DeepSpec's DFlash", *DEEPSPEC_MODULE, {**SPARK, "markov_rank": 0, "enable_confidence_head": False}),
]
JETSPEC_PLACE = "jetspec.models.draft_head", "DFlashDraftModel", jetspec_rounds
JETSPEC = [
    Case("JetSpec", *JETSPEC_PLACE, TWO, {**PLAIN, "causal_head": True}),
    Case("JetSpec, both sides", *JETSPEC_PLACE, TWO, {**PLAIN, "causal_head": False}),
]
SOURCES = {
    "package": "the folder that has the package dflash",
    "deepspec": "a checkout of DeepSpec",
    "jetspec": "a checkout of JetSpec",
}
CASES = {"package": PACKAGE, "deepspec": DEEPSPEC, "jetspec": JETSPEC}


if __name__ == "__main__":
    sys.exit(main())
