"""Lossless: with any drafter the text is the target's own, over every kind of drafter and six architectures.

    python -m experiments.losslessness [--num_prompts 40] [--only NAME ...]

Targets are shrunk random checkpoints of real configs (`targets.py`), with attention made weaker, so that something can
be guessed. Every second prompt is drafted for by random models, or by copies of the target that are mostly wrong; the
others by heads that were fitted to these very texts (`made_heads.py`), and by copies that are mostly right. Every text
is held against plain decoding's, and a difference graded as a run's records are: two logits that rounding cannot tell
apart are a tie, anything else is a bug. A kind of drafter that is not tried here is an error. Float32 on a CPU. The
last line on stdout is one JSON document.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from experiments import targets
from experiments.made_heads import BLOCK, LAYOUTS, made_head
from profiling.common import parser_of, run_command, tokens_of
from specdec.decoding.cost_aware import EASE_EDGES, PASSES_AHEAD, Advice, Calibration, Curve, RoundCosts
from specdec.drafters.ar import AR_DRAFTER
from specdec.drafters.base import Setup, Spec
from specdec.drafters.block_diffusion import DLLM_DRAFTER
from specdec.drafters.families import kinds, parse_name
from specdec.drafters.plain import PLAIN, Plain
from specdec.errors import UserError
from specdec.models.checkpoints import Role
from specdec.models.joined import body_of
from specdec.models.lm import CachedLM
from specdec.models.load import load_lm
from specdec.records.divergence import BUG, EXACT, TIE
from specdec.runs.against_plain import diverging

REAL = ("Qwen2.5-7B", "Llama-3.1-8B", "Qwen3-8B", "Mistral-7B-v0.1", "Phi-3-mini-4k", "gemma-3-1b")
NUM_TOKENS, WEAKER = 10, 0.3
MASK_ID = targets.VOCAB_SIZE - 1
OPTIONS = {"block_size": 8, "small_block_size": 4, "dflash_block": BLOCK}
NOISE = {"random": 0.8, "sharpened": 0.1}  # of copies of the target, relative to their output head
# Of every kind of drafter, settings under which it is tried; those of heads over every kind of head, or over one.
OVER_EVERY_HEAD = ("eagle3_sf_5", "eagle3_df_0.5_9_3", "dflash_sf_6", "dflash_df_0.5_12_2")
OVER_ONE = (
    *("plain", "lookup_3_sf_10", "suffix_64", "suffix_64_earlier", "ar_None_sf_5", "ar_None_df_0.5_8_2"),
    *("dllm_0.5_sf_6", "dllm_0.5_df_0.45_12_4", "dllm_0.5_ca_12_T@P", "eagle3_ca_9_T@P", "dflash_ca_12_T@P"),
    *("lookup_3_sf_10_else_ar_None_sf_4", "suffix_64_s1.5_else_eagle3_sf_4", "lookup_2_sf_3_else_dflash_sf_5"),
    *("lookup_3_tree_8", "suffix_64_tree_8", "eagle3_tree_3_4_8", "eagle3_tree_df_0.02_3_4_8"),
    *("dflash_tree_8", "dflash_tree_df_0.02_8", "dflash_tree_pairs_0.02_8", "dflash_tree_ca_12_T@P"),
)
# What a policy by cost knows: here, that a token is as good as it is sure, and that a pass is worth a quarter of one.
PLACES = OPTIONS["small_block_size"] + 1
SEEN: list[list[list[float]]] = [[[1.0 + more for more in range(PASSES_AHEAD)]] * (len(EASE_EDGES) + 1)] * PLACES
KNOWN = Calibration("any", OPTIONS, [], [], Curve([0.0, 1.0], [0.0, 1.0]), SEEN, SEEN, {})
COSTS = RoundCosts(1.0, [4.0 + 0.5 * length for length in range(13)])
ADVICE = Advice(KNOWN, pass_ms=1.0, verify_ms=COSTS.verify_ms, rate=0.25)
Models = dict[Role | None, dict[str, Any]]  # by role: by what it is called, a model or a head


def main(arguments: Sequence[str] | None = None) -> int:
    parser = parser_of("experiments.losslessness", __doc__)
    parser.add_argument("--num_prompts", type=int, default=40, help="of each target (default: %(default)s)")
    parser.add_argument("--only", nargs="+", choices=REAL, help="these targets (default: all)")
    return run_command(parser, work, arguments)


def work(flags: argparse.Namespace) -> dict[str, Any]:
    torch.set_num_threads(1)
    found = {name: over_target(name, flags.num_prompts) for name in flags.only or REAL}
    counts = [counted for drafters in found.values() for counted in drafters.values()]
    total = {
        key: sum(one[key] for one in counts) for key in ("texts", "rounds", "drafted", "accepted", EXACT, TIE, BUG)
    }
    return {
        "what": "texts of every kind of drafter against plain decoding's, on shrunk random checkpoints of real configs",
        "num_prompts": flags.num_prompts,
        "num_new_tokens": NUM_TOKENS,
        "architectures": {name: targets.REAL[name][0] for name in found},
        "kinds": list(kinds()),
        "total": total,
        "targets": found,
    }


def specs() -> list[Spec]:
    """What is tried. Raises UserError for a kind that is forgotten."""
    found = [parse_name(name) for name in (*OVER_ONE, *OVER_EVERY_HEAD)]
    if forgotten := set(kinds()) - {spec.kind for spec in found}:
        raise UserError(f"no drafter here is of the kind {', '.join(sorted(forgotten))}: add its name to OVER_ONE")
    return found


def over_target(name: str, num_prompts: int) -> dict[str, dict[str, int]]:
    """By drafter and head, the counts over all prompts."""
    counts: dict[str, Counter[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        lm, models_of = made_target(name, Path(folder))
        prompts = [prompt_of(lm, seed) for seed in range(num_prompts)]
        plain = [decoded(lm, Plain(), None, prompt) for prompt in prompts]
        texts = [prompt + text[0] for prompt, text in zip(prompts, plain, strict=True)]
        for offset, way in enumerate(NOISE):
            models = models_of(way, texts[offset::2])
            for spec, title, model in tqdm(list(cases(models)), desc=f"{name}, {way}", disable=None):
                counted = counts.setdefault(f"{spec.name}{title and f', {title}'}", Counter())
                for prompt, (wanted, _) in list(zip(prompts, plain, strict=True))[offset::2]:
                    counted.update(graded(lm, spec, model, prompt, wanted))
    keys = ("texts", "rounds", "drafted", "accepted", EXACT, TIE, BUG)
    return {drafter: {key: counted[key] for key in keys} for drafter, counted in counts.items()}


def prompt_of(lm: CachedLM, seed: int) -> list[int]:
    """Random tokens; every second time with what the target writes after them, and once more, as texts say things
    again."""
    prompt = targets.prompt_of(seed)
    return [*prompt, *decoded(lm, Plain(), None, prompt)[0], *prompt] if seed % 2 else prompt


def made_target(name: str, folder: Path) -> tuple[CachedLM, Callable[[str, Sequence[list[int]]], Models]]:
    """A target, and the models of its drafters: `way` of NOISE, and the texts that heads may know."""
    (folder / "target").mkdir()
    source = targets.made(folder / "target", name)
    lm = load_lm(source, torch.device("cpu"), torch.float32)
    with torch.no_grad():
        for key, weight in lm.model.named_parameters():
            if key.endswith("o_proj.weight"):
                weight.mul_(WEAKER)
    lm = CachedLM(lm.model, body=body_of(lm.model))  # of these weights

    def models_of(way: str, texts: Sequence[list[int]]) -> Models:
        known = texts if way == "sharpened" else ()
        heads: Models = {None: {"": None}}
        for title, layout in LAYOUTS.items():
            place = folder / f"{way} {title}"
            heads.setdefault(layout.role, {})[title] = made_head(layout, lm, source, place, known)
        copies = {role: {"": noisy(lm, NOISE[way], seed)} for seed, role in enumerate((AR_DRAFTER, DLLM_DRAFTER))}
        return heads | copies

    return lm, models_of


def noisy(lm: CachedLM, strength: float, seed: int) -> CachedLM:
    """A copy of a target whose last norm has other weights, so that it is wrong now and then."""
    model = copy.deepcopy(lm.model)
    weight = model.get_submodule("model.norm").get_parameter("weight")
    with torch.no_grad():
        weight.mul_(1 + strength * torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed)))
    return CachedLM(model)


def cases(models: Models) -> Iterator[tuple[Spec, str, Any]]:
    """Every drafter over every model that may play its part, and what that is called."""
    for spec in specs():
        playing = list(models[spec.model_role].items())
        for title, model in playing[: None if spec.name in OVER_EVERY_HEAD else 1]:
            yield spec, title, model


def decoded(lm: CachedLM, spec: Spec, model: Any, prompt: list[int]) -> tuple[list[int], Counter[str]]:
    """The text, and what it took."""
    mask_id = MASK_ID if spec.model_role is DLLM_DRAFTER else None
    drafter = spec.drafter(Setup((), OPTIONS, lm=model, mask_id=mask_id, advice=ADVICE, costs=COSTS))
    rounds = targets.decoded(lm, drafter, prompt, NUM_TOKENS)
    drafted, accepted = (sum(getattr(turn, key) for turn in rounds) for key in ("draft_len", "accepted_len"))
    return tokens_of(rounds), Counter(texts=1, rounds=len(rounds), drafted=drafted, accepted=accepted)


def graded(lm: CachedLM, spec: Spec, model: Any, prompt: list[int], wanted: list[int]) -> Counter[str]:
    """The counts of one text, with how it differs from plain decoding's."""
    text, counted = decoded(lm, spec, model, prompt)
    kind = diverging(lm, prompt, text, wanted).kind
    return counted + Counter({kind: 1}) if spec.name != PLAIN or text == wanted else counted + Counter({BUG: 1})


if __name__ == "__main__":
    raise SystemExit(main())
