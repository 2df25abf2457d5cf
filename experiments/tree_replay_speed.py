"""Time of replaying the settings of `--grid trees` on made-up questions of 1,024 tokens, with ceilings, on one core.

    python -m experiments.tree_replay_speed --num_questions 30

No model is needed: traces are made up, with 32 candidates for each of 15 slots after every prefix, easy and hard
stretches by turns, so that trees of 64 nodes get about 6 tokens a round. What is timed is this process's CPU time from
reading a trace to its settings' entries in a ranking; making traces is not. The last line on stdout is JSON.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from profiling.common import parser_of, run_command
from specdec.decoding.offers import Offers, Slots
from specdec.decoding.trees import Candidates
from specdec.drafters.base import Spec
from specdec.drafters.dflash_trees import OFFERS, DflashTree
from specdec.drafters.families import GRIDS
from specdec.latency.pricing import Pricing
from specdec.latency.profile import LatencyProfile
from specdec.ranking.entries import entry_of
from specdec.ranking.oracle import TraceJudges
from specdec.records.identity import Identity
from specdec.traces.replay import replay
from specdec.traces.trace import Trace

SLOTS, TOP_K, NUM_TOKENS, WORDS = 15, 32, 1024, 3000
PROFILE = LatencyProfile(
    name="made-up",
    draft_pass_ms=4.0,
    target_ms_per_token={"made-up": 10.0},
    verify_ms={"made-up": {1: 10.0, 16: 11.0, 64: 14.0, 256: 30.0}},
    provenance={},
    family_pass_ms={"dflash": 2.0},
)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = parser_of("experiments.tree_replay_speed", __doc__, ())
    parser.add_argument("--num_questions", type=int, default=30, help="questions to replay on")
    return run_command(parser, measure, arguments)


def measure(flags: Any) -> dict[str, Any]:
    settings = GRIDS["trees"]()
    gc.disable()  # as the processes of `failfast replay` do
    cpu_s, num_bytes, num_rounds, lengths = 0.0, 0, 0, list[float]()
    for seed in range(flags.num_questions):
        data = made_up(seed).to_bytes()
        begin = time.process_time()
        rounds, length = replay_all(Trace.from_bytes(data), settings)
        cpu_s += time.process_time() - begin
        num_bytes, num_rounds = num_bytes + len(data), num_rounds + rounds
        lengths.append(length)
    return {
        **{"settings": len(settings), "questions": flags.num_questions, "tokens": NUM_TOKENS, "cpu_s": round(cpu_s, 1)},
        "loads_torch": "torch" in sys.modules,
        "rounds": num_rounds,
        "mb_per_trace": round(num_bytes / flags.num_questions / 1e6, 2),
        "acceptance_len_at_64_nodes": round(sum(lengths) / len(lengths), 2),
    }


def replay_all(trace: Trace, settings: Sequence[Spec]) -> tuple[int, float]:
    """The rounds of all settings, and the acceptance length of 64 nodes."""
    pricing = Pricing((PROFILE,))
    judges, num_rounds, length = TraceJudges(trace, pricing), 0, 0.0
    for spec in settings:
        record = replay(trace, spec)
        entry_of(record, pricing, judges)
        num_rounds += record.num_rounds
        length = record.acceptance_len if spec == DflashTree(64) else length
    return num_rounds, length


def made_up(seed: int) -> Trace:
    """A text, and candidates among which its own token stands at a rank that depends on how easy the place is."""
    rng = np.random.default_rng(seed)
    text = rng.integers(0, WORDS, NUM_TOKENS).tolist()
    ease = np.clip(0.85 + 0.15 * np.sin(np.arange(NUM_TOKENS) / 40) + rng.normal(0, 0.1, NUM_TOKENS), 0.3, 0.99)
    offers = [candidates(rng, text[at : at + SLOTS], float(ease[at])) for at in range(NUM_TOKENS - 1)]
    settings = {"prompt_sha256": f"p{seed}", "stop_ids": [WORDS], "dtype": "float32", "device": "cpu"}
    identity = Identity("made-up", "made-up", seed, "plain", NUM_TOKENS, settings)
    slots: dict[str, Offers] = {OFFERS: Slots.pack(OFFERS, {"drafter_sha256": "made-up"}, offers)}
    return Trace(identity, {}, {}, [1, 2, 3], text, [1.0] * NUM_TOKENS, "", {}, slots)


def candidates(rng: np.random.Generator, text: Sequence[int], ease: float) -> Candidates:
    tokens_SK = np.stack([rng.permutation(WORDS)[:TOP_K] for _ in range(SLOTS)])
    probs_SK = -np.sort(-rng.dirichlet([0.15] * (TOP_K + 1), SLOTS)[:, :TOP_K], axis=1) + 1e-6
    for slot, token in enumerate(text):
        sure = ease * 0.97**slot
        rank = int(rng.geometric(sure)) - 1
        if rank < TOP_K and token not in tokens_SK[slot]:
            tokens_SK[slot, rank] = token
        probs_SK[slot, 0] = max(probs_SK[slot, 0], sure)
    return Candidates.of(tokens_SK, np.log(probs_SK / np.maximum(probs_SK.sum(1, keepdims=True), 1)))


if __name__ == "__main__":
    sys.exit(main())
