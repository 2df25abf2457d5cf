"""Speculation with published acceptance: tokens a second of this engine beside published ones, each with its hardware.

    python -m experiments.published_acceptance --target Qwen3-8B --profile DIR/H200_Qwen3-8B.json --out DIR

Random weights accept nothing, so which tokens of a draft are accepted follows the published mean acceptance length,
and how probable a tree's candidates are follows one made-up curve, so that trees are as deep as trained heads' are.
Everything else is really run, by the program's own loop: the head's passes over the target's features, the tree, its
verification, the commit. The baseline is plain decoding in the same engine and process. Acceptance lengths count the
target's own token. The last line on stdout is JSON.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from experiments.published import PUBLISHED, SETS, Published
from profiling.common import attempt, machine, parser_of, run_command, save_json
from profiling.profile_engine import Settings, add_engine_flags, make_lm, read_settings
from profiling.roofline import entry_name, find_shape
from profiling.shaped_heads import make_head
from specdec.decoding.loop import speculate
from specdec.decoding.stopping import Draft
from specdec.decoding.target import Target, Verification, own_next, parents_of_rows
from specdec.decoding.trees import ROOT, depths
from specdec.drafters.base import Drafter, Setup
from specdec.drafters.families import parse_name
from specdec.drafters.plain import NoDrafter
from specdec.errors import UserError
from specdec.latency.profile import LatencyProfile, load_profile, verification_ms
from specdec.models.checkpoints import TARGET
from specdec.records.rounds import Round

if TYPE_CHECKING:
    from specdec.models.lm import CachedLM

FIRST, RATIO = 0.85, 0.5  # of a slot's candidates: the first one's probability, and each next one's of what is left
MOST_RANKS = 512


def main(arguments: Sequence[str] | None = None) -> int:
    parser = parser_of("experiments.published_acceptance", __doc__)
    parser.add_argument("--target", choices=sorted(PUBLISHED), default="Qwen3-8B", help="a shape by name")
    parser.add_argument("--profile", help="latency profile to model with: profile_engine's, with --heads")
    parser.add_argument("--datasets", nargs="+", choices=(*SETS, "chat"), help="these alone")
    parser.add_argument("--context", type=int, default=512, help="prompt tokens")
    parser.add_argument("--new_tokens", type=int, default=384, help="output tokens")
    parser.add_argument("--runs", type=int, default=2, help="each case and plain decoding in turn; the median counts")
    parser.add_argument("--out", type=Path, help="folder for published_TARGET.json, written after every case")
    add_engine_flags(parser)
    return run_command(parser, measure, arguments)


def measure(flags: Namespace) -> dict[str, Any]:
    settings = read_settings(flags)
    profile = load_profile(flags.profile) if flags.profile else None
    if profile is not None and entry_name(flags.target) not in profile.target_ms_per_token:
        raise UserError(f"the profile {profile.name} has no target {entry_name(flags.target)}")
    bench = Bench(flags, settings, profile)
    result: dict[str, Any] = {
        "what": "speculation with published acceptance: everything but which tokens are accepted really run",
        **{name: getattr(flags, name) for name in ("target", "context", "new_tokens", "engine")},
        "provenance": machine(settings.device),
        "cases": [],
    }
    for case in PUBLISHED[flags.target]:
        if flags.datasets and case.dataset not in flags.datasets:
            continue
        result["cases"].append({"published": vars(case), **attempt(partial(bench.run, case))})
        if flags.out:
            save_json(result, flags.out / f"published_{flags.target}.json")
    return result


def lengths_of(mean: float) -> Iterator[int]:
    """Whole numbers without end whose running mean is `mean`. Example: of 2.5 it is 2, 3, 2, 3, ..."""
    index = 0
    while True:
        yield int((index + 1) * mean + 1e-9) - int(index * mean + 1e-9)
        index += 1


def path_of(draft: Draft, length: int) -> Sequence[int]:
    """A path of a draft with `length` tokens, or as many as it has at most: of a tree the first of those."""
    if draft.parents is None:
        return range(min(length, len(draft.tokens)))
    levels = depths(draft.parents)
    deepest = min(length, max(levels, default=0))
    at, path = levels.index(deepest) if deepest else ROOT, list[int]()
    while at != ROOT:
        path.append(at)
        at = draft.parents[at]
    return path[::-1]


class PublishedTarget(Target):
    """Verifies in earnest, then accepts as many tokens as were published."""

    def __init__(self, lm: CachedLM, acceptance_length: float) -> None:
        super().__init__(lm)
        self._lengths = lengths_of(acceptance_length)

    def _judge(self, tokens: list[int], draft: Draft) -> Verification:
        greedy, _ = self.lm.predict(tokens, parents=parents_of_rows(draft), taps=self.taps)
        path = path_of(draft, next(self._lengths) - 1)
        return Verification(path, own_next(path, greedy))


class Sure:
    """A head whose candidates are as probable as `FIRST` and `RATIO` say: random weights hold all tokens alike."""

    def __init__(self, network: Any) -> None:
        self._network = network
        if hasattr(network, "few"):  # it chooses itself what goes on, by what it holds probable
            network.few = partial(_few_sure, network.few, _curve_on(network.device))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._network, name)

    def candidates(self, *asked: Any) -> np.ndarray:
        return _sure(self._network.candidates(*asked))

    def take_root(self, *asked: Any) -> np.ndarray:
        return _sure(self._network.take_root(*asked))

    def grow(self, *asked: Any) -> np.ndarray:
        return _sure(self._network.grow(*asked))


def _curve_on(device: torch.device) -> torch.Tensor:
    """The curve's log-probabilities, of more ranks than a node has candidates."""
    return torch.as_tensor(_sure(np.zeros((MOST_RANKS, 2)))[:, 1], dtype=torch.float32, device=device)


def _few_sure(
    few: Callable[..., tuple[torch.Tensor, torch.Tensor]],
    curve_R: torch.Tensor,
    logits_BV: torch.Tensor,
    found_BK2: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """`Eagle3Levels.few`, with the curve's probabilities."""
    tokens_BK, log_probs_BK = few(logits_BV, found_BK2)
    return tokens_BK, curve_R[: tokens_BK.shape[1]].expand_as(log_probs_BK).contiguous()


def _sure(found_K2: np.ndarray) -> np.ndarray:
    """Pairs of tokens and log-probabilities, the latter by the curve."""
    ranks = np.arange(found_K2.shape[-2])
    after = np.log(1 - FIRST) + np.log(1 - RATIO) + np.log(RATIO) * (ranks - 1)
    return np.stack([found_K2[..., 0], np.broadcast_to(np.where(ranks, after, np.log(FIRST)), found_K2.shape[:-1])], -1)


class Bench:
    """One target, and the head at hand, loaded and warmed up."""

    def __init__(self, flags: Namespace, settings: Settings, profile: LatencyProfile | None) -> None:
        self.flags, self.settings, self.profile = flags, settings, profile
        self.source = find_shape(TARGET, flags.target)
        self.lm = make_lm(flags.target, TARGET, settings)
        self.prompt_ids = [1 + index % 97 for index in range(flags.context)]
        self._head: tuple[str, Any] = "", None

    def _drafter(self, case: Published) -> Drafter:
        kind, head = self._head
        if kind != case.head:
            head = make_head(case.head, self.source, self.lm, self.settings.engine)
            head.warm_up()
            self._head = case.head, head
        return parse_name(case.drafter).drafter(Setup((), lm=Sure(head)))

    def run(self, case: Published) -> dict[str, Any]:
        """Medians of tokens a second with and without the drafter, what a round took, and what a profile says."""
        drafter, plain, drafted = self._drafter(case), list[float](), list[float]()
        rounds: list[Round] = []
        for turn in range(1 + self.flags.runs):  # the first records what the others replay, and does not count
            ms_plain, _ = self._decode(Target(self.lm), NoDrafter(), self.flags.new_tokens // 4)
            target = PublishedTarget(self.lm, case.acceptance_length)
            ms, rounds = self._decode(target, drafter, self.flags.new_tokens)
            if turn:
                plain.append(ms_plain)
                drafted.append(ms)
        speedup = median(plain) / median(drafted)
        return {
            "tokens_per_s": 1e3 / median(drafted),
            "plain_tokens_per_s": 1e3 / median(plain),
            "speedup": speedup,
            "acceptance_length": _mean_emitted(rounds[:-1] or rounds),
            "drafted": median(made.draft_len for made in rounds),
            "passes": median(made.num_forward_passes for made in rounds),
            "draft_ms": median(made.draft_ms for made in rounds),
            "verify_ms": median(made.verify_ms for made in rounds),
            "round_ms": median(drafted) * self.flags.new_tokens / len(rounds),
            **self._modelled(rounds, case, speedup),
        }

    def _decode(self, target: Target, drafter: Drafter, budget: int) -> tuple[float, list[Round]]:
        """Wall-clock ms per token of a whole answer, without the target's prompt, and its rounds."""
        clock = self.lm.clock
        begin = clock()
        rounds = speculate(target, drafter, self.prompt_ids, max_new_tokens=budget, stop_ids=(), clock=clock)
        return (1e3 * (clock() - begin) - target.prefill_ms) / budget, rounds

    def _modelled(self, rounds: Sequence[Round], case: Published, speedup: float) -> dict[str, float]:
        """The paper's formula over these rounds, by the profile that was given."""
        kind, entry = parse_name(case.drafter).priced_as, entry_name(self.flags.target)
        if self.profile is None or not self.profile.knows(kind, entry):
            return {}
        passes_ms = self.profile.pass_ms(kind, entry) * sum(made.num_forward_passes for made in rounds)
        total_ms = passes_ms + sum(verification_ms(self.profile, entry, made.draft_len + 1) for made in rounds)
        modelled = len(rounds) * _mean_emitted(rounds) * self.profile.target_ms_per_token[entry] / total_ms
        return {"modelled_speedup": modelled, "modelled_over_measured": modelled / speedup}


def _mean_emitted(rounds: Sequence[Round]) -> float:
    """Tokens a round; of an answer's rounds the last is cut."""
    return sum(len(made.emitted_tokens) for made in rounds) / len(rounds)


if __name__ == "__main__":
    sys.exit(main())
