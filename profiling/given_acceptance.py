"""Rounds whose acceptance is given: random weights accept nothing, so which tokens of a draft are kept follows a mean
length, and how probable a tree's candidates are follows one made-up curve, so that trees are as deep as trained heads'
are. Everything else is really run, by the program's own loop, and its passes are timed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from specdec.decoding.loop import Drafter, speculate
from specdec.decoding.stopping import Draft
from specdec.decoding.target import Target, Verification, own_next, parents_of_rows
from specdec.decoding.trees import ROOT, depths
from specdec.drafters.base import Setup
from specdec.drafters.families import parse_name
from specdec.records.rounds import Round

if TYPE_CHECKING:
    from specdec.models.lm import CachedLM

PASSES = ("read", "draft", "on_host", "extend", "step", "paths")  # a head's, beside those that give candidates
FIRST, RATIO = 0.85, 0.5  # of a slot's candidates: the first one's probability, and each next one's of what is left
MOST_RANKS = 512


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


class GivenTarget(Target):
    """Verifies in earnest, then accepts as many tokens as were given.

    Attributes:
        pass_ms: of each round, what its pass took, from tokens to predictions on the host.
    """

    def __init__(self, lm: CachedLM, acceptance_length: float) -> None:
        super().__init__(lm)
        self.pass_ms: list[float] = []
        self._lengths = lengths_of(acceptance_length)

    def _judge(self, tokens: list[int], draft: Draft) -> Verification:
        begin = time.perf_counter()
        greedy, _ = self.lm.predict(tokens, parents=parents_of_rows(draft), taps=self.taps)
        self.pass_ms.append(1e3 * (time.perf_counter() - begin))
        path = path_of(draft, next(self._lengths) - 1)
        return Verification(path, own_next(path, greedy))


class Sure:
    """A head whose candidates are as probable as `FIRST` and `RATIO` say: random weights hold all tokens alike.

    Attributes:
        pass_ms: what its passes have taken so far, each to what it gives on the host.
    """

    def __init__(self, network: Any) -> None:
        self._network, self.pass_ms = network, 0.0
        curve_R = _curve_on(network.device)
        if hasattr(network, "few"):  # it chooses itself what goes on, by what it holds probable
            network.few = partial(_few_sure, network.few, curve_R)
        if hasattr(network, "_best") and "_best" not in vars(network):  # where paths are found on the device
            network._best = partial(_best_sure, network._best, curve_R)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._network, name)
        return partial(self._timed, found) if name in PASSES else found

    def _timed(self, call: Callable[..., Any], *asked: Any, **named: Any) -> Any:
        begin = time.perf_counter()
        made = call(*asked, **named)
        self.pass_ms += 1e3 * (time.perf_counter() - begin)
        return made

    def candidates(self, *asked: Any) -> np.ndarray:
        return _sure(self._timed(self._network.candidates, *asked))

    def take_root(self, *asked: Any) -> np.ndarray:
        return _sure(self._timed(self._network.take_root, *asked))

    def grow(self, *asked: Any) -> np.ndarray:
        return _sure(self._timed(self._network.grow, *asked))


def _sure(found_K2: np.ndarray) -> np.ndarray:
    """Pairs of tokens and log-probabilities, the latter by the curve."""
    sure_K2 = found_K2.copy()
    sure_K2[..., 1] = _curve(found_K2.shape[-2])
    return sure_K2


@cache
def _curve(count: int) -> np.ndarray:
    ranks = np.arange(count)
    return np.where(ranks, np.log(1 - FIRST) + np.log(1 - RATIO) + np.log(RATIO) * (ranks - 1), np.log(FIRST))


def _curve_on(device: torch.device) -> torch.Tensor:
    """The curve's log-probabilities, of more ranks than a node has candidates."""
    return torch.as_tensor(_curve(MOST_RANKS), dtype=torch.float32, device=device)


def _best_sure(best: Callable[..., torch.Tensor], curve_R: torch.Tensor, *asked: Any) -> torch.Tensor:
    """`DflashTrees._best`, with the curve's probabilities."""
    found_BSK2 = best(*asked)
    found_BSK2[..., 1] = curve_R[: found_BSK2.shape[-2]]
    return found_BSK2


def _few_sure(
    few: Callable[..., tuple[torch.Tensor, torch.Tensor]],
    curve_R: torch.Tensor,
    logits_BV: torch.Tensor,
    found_BK2: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """`Eagle3Levels.few`, with the curve's probabilities."""
    tokens_BK, log_probs_BK = few(logits_BV, found_BK2)
    return tokens_BK, curve_R[: tokens_BK.shape[1]].expand_as(log_probs_BK).contiguous()


class GivenRounds:
    """A head's drafter beside a target, and answers of theirs."""

    def __init__(self, lm: CachedLM, head: Any, drafter_name: str) -> None:
        self.lm, self.head = lm, Sure(head)
        self.drafter: Drafter = parse_name(drafter_name).drafter(Setup((), lm=self.head))

    def decode(self, prompt_ids: Sequence[int], acceptance_length: float, budget: int) -> tuple[float, list[Round]]:
        """Wall-clock ms of an answer of `budget` tokens, without the target's prompt, and its rounds. What is noted of
        its passes is this answer's."""
        self.target, self.head.pass_ms = GivenTarget(self.lm, acceptance_length), 0.0
        return timed_rounds(self.target, self.drafter, prompt_ids, budget)

    def parts_ms(self, total_ms: float, rounds: Sequence[Round]) -> dict[str, float]:
        """Of the last answer, in ms a round: the drafter's passes, all that is not a pass without the commit, the
        target's pass, and what follows it: the accepted path, and keeping it."""
        count, drafting = len(rounds), self.head.pass_ms / len(rounds)
        verifying = median(self.target.pass_ms)
        keeping = median(made.verify_ms for made in rounds) - verifying
        return {
            "draft": drafting,
            "host": total_ms / count - drafting - sum(made.verify_ms for made in rounds) / count,
            "verify": verifying,
            "commit": keeping,
        }


def timed_rounds(target: Target, drafter: Drafter, prompt_ids: Sequence[int], budget: int) -> tuple[float, list[Round]]:
    """Wall-clock ms of an answer, without the target's prompt, and its rounds."""
    clock = target.lm.clock
    begin = clock()
    rounds = speculate(target, drafter, prompt_ids, max_new_tokens=budget, stop_ids=(), clock=clock)
    return 1e3 * (clock() - begin) - target.prefill_ms, rounds
