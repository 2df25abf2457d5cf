"""What it costs a round that the target hands its hidden states to a drafter: the same rounds with taps and without, in
turns, in one process.

    python -m experiments.profile_taps --num_questions 4 --max_new_tokens 128 --dtype float32

Nothing is drafted by a model: the drafts are the target's own next tokens, the last of them wrong, so that a round is
the loop, a verification and what is handed on. Each answer is decoded with taps and without by turns; equal rounds are
a pair. Wall time of whole rounds, as the loop's clock sees them. The bar: 5 % of a round on a CPU. The last line on
stdout is JSON.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from statistics import median, quantiles
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from profiling.common import DECODING_FLAGS, DRAFTER_FLAGS, asked_prompts, parser_of, run_measurement, tokens_of
from specdec.config import RunConfig
from specdec.decoding.loop import speculate
from specdec.decoding.stopping import Draft
from specdec.decoding.target import Target, Verification
from specdec.drafters.plain import NoDrafter, Plain

if TYPE_CHECKING:
    from specdec.decoding.target import Features
    from specdec.session import Session

FLAGS = tuple(flag for flag in DECODING_FLAGS if flag not in DRAFTER_FLAGS)
NUM_TAPS = (3, 5)  # of EAGLE-3 and of DFlash
DRAFT_LENS = (0, 8)
TURNS = 3  # of each answer, with taps and without


class Knowing(NoDrafter):
    """Drafts what the target will write, but for the last token, and keeps what it is handed of the target."""

    def __init__(self, text: Sequence[int], draft_len: int, taps: Sequence[int]) -> None:
        self.text, self.draft_len, self.taps = text, draft_len, taps
        self.kept: list[Features | None] = []

    def reset(self, features: Features | None = None) -> None:
        self.kept = [features]

    def propose(self, prefix_ids: Sequence[int], budget: int) -> Draft:
        tokens = list(self.text[len(prefix_ids) :][: min(budget, self.draft_len)])
        return Draft([*tokens[:-1], *([(tokens[-1] + 1) % 100] if tokens else [])])

    def observe(self, verification: Verification) -> None:
        self.kept.append(verification.features)


def main(arguments: Sequence[str] | None = None) -> int:
    return run_measurement(parser_of("experiments.profile_taps", __doc__, FLAGS), measure, arguments)


def measure(config: RunConfig, session: Session) -> dict[str, Any]:
    """Per number of taps and of drafted tokens: how many pairs of rounds, their medians and ratios."""
    texts = []
    for prompt_ids in asked_prompts(config, session):
        texts.append((prompt_ids, prompt_ids + tokens_of(session.decode(Plain(), prompt_ids))))
    num_layers = session.sources[next(iter(session.sources))].config["num_hidden_layers"]
    found = {}
    for count in NUM_TAPS:
        taps = [1 + index * (num_layers - 3) // (count - 1) for index in range(count)]
        session.target().lm.warm_up(taps)
        for draft_len in DRAFT_LENS:
            pairs = [pair for text in tqdm(texts, disable=None) for pair in _pairs(session, text, draft_len, taps)]
            found[f"{count} taps, drafts of {draft_len}"] = {"taps": taps, **_summary(pairs)}
    return {"what": "a round with taps over one without", "engine": session.backend, "bar": 1.05, "rounds": found}


def _pairs(
    session: Session, text: tuple[list[int], list[int]], draft_len: int, taps: Sequence[int]
) -> list[tuple[float, float]]:
    """(ms without taps, ms with them) of every round of one answer, some times over."""
    made: list[tuple[float, float]] = []
    for turn in range(TURNS):
        order = ((), taps) if turn % 2 else (taps, ())
        times = {bool(asked): _round_times(session, text, draft_len, asked) for asked in order}
        made += zip(times[False], times[True], strict=True)
    return made


def _round_times(
    session: Session, text: tuple[list[int], list[int]], draft_len: int, taps: Sequence[int]
) -> list[float]:
    """ms from the beginning of every round but the last to that of the next."""
    prompt_ids, whole = text
    lm, begins = session.target().lm, []

    def clock() -> float:
        begins.append(lm.clock())
        return begins[-1]

    drafter = Knowing(whole, draft_len, taps)
    budget = len(whole) - len(prompt_ids)
    speculate(Target(lm), drafter, prompt_ids, max_new_tokens=budget, stop_ids=session.stop_ids, clock=clock)
    starts = begins[::3]
    return [1e3 * (after - before) for before, after in zip(starts, starts[1:], strict=False)]


def _summary(pairs: Sequence[tuple[float, float]]) -> dict[str, Any]:
    ratios = [with_taps / without for without, with_taps in pairs]
    tenths = quantiles(ratios, n=10)
    return {
        "num_pairs": len(pairs),
        "without_ms": median(without for without, _ in pairs),
        "with_ms": median(with_taps for _, with_taps in pairs),
        "ratio": {"median": median(ratios), "p10": tenths[0], "p90": tenths[-1]},
    }


if __name__ == "__main__":
    sys.exit(main())
