"""How much a text's pairs tie the slots of a DFlash head: the numbers of `specdec/decoding/pairs.py`, from traces.

    python -m experiments.tie_slots TUNING_DIR --told DIR

At every slot up to the first that the text does not have, one of the slot's candidates is the text's token, or none is.
The four numbers are those under which the texts are most probable. What is printed is the mean surprise of a step, in
nats, with the slots as they are and tied, on the tuning traces and on others; the last line on stdout is JSON.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from profiling.common import parser_of, run_command
from specdec.decoding.pairs import LEAST_REST, Followers, Ties
from specdec.drafters.dflash_trees import OFFERS
from specdec.errors import UserError
from specdec.traces.trace import Trace, find_traces, load_trace

NAMES = ("own", "pair", "triple", "others")
SEEN = Ties(own=1.0, pair=1.0, triple=1.0)  # what marks a pair with 1 and a triple with 2
Steps = tuple[torch.Tensor, torch.Tensor]  # what each candidate, and all others, have [N, K + 1, 4]; which it is [N]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = parser_of("experiments.tie_slots", __doc__)
    parser.add_argument("traces", help="a folder of traces that hold dflash_tree's offers")
    parser.add_argument("--told", help="a folder of others")
    parser.add_argument("--slot_top_k", type=int, default=16, help="candidates of a slot")
    return run_command(parser, measure, arguments)


def measure(flags: argparse.Namespace) -> dict[str, Any]:
    tuning = steps_in(flags.traces, flags.slot_top_k)
    learnt = learn(tuning)
    alone, built_in = torch.tensor([1.0, 0.0, 0.0, 0.0]), torch.tensor([getattr(Ties(), name) for name in NAMES])
    result: dict[str, Any] = {"ties": dict(zip(NAMES, (round(one, 3) for one in learnt.tolist()), strict=True))}
    others = {"told": steps_in(flags.told, flags.slot_top_k)} if flags.told else {}
    for name, steps in {"tuning": tuning, **others}.items():
        result[name] = {
            "steps": len(steps[1]),
            "alone": surprise(steps, alone),
            "tied": surprise(steps, learnt),
            "tied_as_built_in": surprise(steps, built_in),
        }
    return result


def learn(steps: Steps) -> torch.Tensor:
    """The four numbers, in the order of NAMES, that make these steps most probable (a convex problem)."""
    weights = torch.tensor([1.0, 0.0, 0.0, 0.0], requires_grad=True)
    optimiser = torch.optim.LBFGS([weights], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> float:
        optimiser.zero_grad()
        found = cross_entropy(steps[0] @ weights, steps[1])
        found.backward()
        return found.item()

    optimiser.step(loss)
    return weights.detach()


def surprise(steps: Steps, weights: torch.Tensor) -> float:
    return round(float(cross_entropy(steps[0] @ weights, steps[1])), 4)


def steps_in(folder: str, top_k: int) -> Steps:
    traces = [load_trace(path) for path in find_traces(folder)]
    if not traces or any(OFFERS not in trace.offers or trace.offers[OFFERS].size < top_k for trace in traces):
        raise UserError(f"{folder}: give traces of --drafters dflash_tree with {top_k} candidates of a slot or more")
    found = [step for trace in traces for step in steps_of(trace, top_k)]
    return torch.from_numpy(np.stack([has for has, _ in found])), torch.tensor([which for _, which in found])


def steps_of(trace: Trace, top_k: int) -> Iterator[tuple[np.ndarray, int]]:
    text, arrays, followers = [*trace.prompt_ids, *trace.output_tokens], trace.offers[OFFERS].arrays, Followers()
    followers.read(text)
    for at in range(trace.num_prefixes):
        end = len(trace.prompt_ids) + at
        for slot, wanted in enumerate(text[end : end + arrays["tokens"].shape[1]]):
            tokens, log_probs = (arrays[key][at, slot, :top_k] for key in ("tokens", "log_probs"))
            before, last = [-1, *text][end + slot - 1 : end + slot + 1]
            tied = followers.ties(before, last, set(tokens.tolist()), end, SEEN) if slot else {}
            has = np.zeros((top_k + 1, len(NAMES)), np.float32)
            has[:top_k, 0] = np.maximum(log_probs, -700)
            has[:top_k, 1] = [token in tied for token in tokens.tolist()]
            has[:top_k, 2] = [tied.get(token, 0.0) > 1 for token in tokens.tolist()]
            has[top_k] = np.log(max(1 - np.exp(log_probs).sum(), LEAST_REST)), 0, 0, 1
            places = np.flatnonzero(tokens == wanted)
            yield has, int(places[0]) if len(places) else top_k
            if not len(places):
                break


if __name__ == "__main__":
    sys.exit(main())
