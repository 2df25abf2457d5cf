"""Step costs: what drafting costs inside a server, told from the times of its steps. It asks nothing.

A drafter that is served alone costs a server's whole step a token; inside a server that speculates most of that is
shared. With two draft lengths the difference of their steps is the cost of a drafted token alone (drafting it, and
verifying one token more), and what is left is the step's. Neither is told from a speedup, so a speedup may be predicted
from them.
"""

import statistics
from dataclasses import dataclass
from typing import Any

from profiling.new_profile import DraftCost
from profiling.serving.metrics import YES
from profiling.serving.ranking_row import ALIKE, ALIKE_IF_SAID
from specdec.errors import MALFORMED, UserError
from specdec.records.fields import is_count, is_ms

AR_METHODS = ("draft_model", "standalone")  # whose drafters are AR models, which every profile prices


@dataclass(frozen=True)
class StepCost:
    """A step of `drafted` tokens takes `ms`; `num` trials tell so."""

    drafted: float
    ms: float
    num: int


def step_cost(found: dict[str, Any], flag: str) -> StepCost:
    """The median over the trials of what a profiler printed. Raises UserError where it has no rounds or times."""
    try:
        pairs = [(one["decode_ms"], one["speculation"]["num_rounds"]) for one in found["trials"]]
        counts = found["speculation"]
        numbers = [rounds for _, rounds in pairs] + [counts["num_rounds"], counts["num_drafted"]]
        if not all(is_ms(ms) for ms, _ in pairs) or not all(map(is_count, numbers)):
            raise ValueError("times and counts")
        times = [ms / rounds for ms, rounds in pairs]
        return StepCost(counts["num_drafted"] / counts["num_rounds"], statistics.median(times), len(times))
    except MALFORMED as error:
        raise UserError(f"{flag} has no rounds and times of a server that speculates: measure it again") from error


def check_other_length(other: dict[str, Any], asked: dict[str, Any]) -> None:
    """Raises UserError unless `other` is of the same server, but for its draft length, as far as that can be known."""
    said = [key for key in ALIKE_IF_SAID if asked.get(key) and other.get(key)]
    for key in (*(key for key in ALIKE if key != "dataset"), *said):
        if asked.get(key) != other.get(key):
            raise UserError(f"--other_length was made with {key} {other.get(key)!r} and this with {asked.get(key)!r}")
    if other.get("speculates") != YES:
        raise UserError("--other_length is not of a server that speculates: give what this profiler printed of one")


def draft_cost_of_steps(
    found: dict[str, Any], other: dict[str, Any], plain_ms: float, method: str
) -> tuple[DraftCost, dict[str, float]]:
    """What a drafted token costs, and what a verification does by its tokens (one token: `plain_ms`).

    Raises UserError where the two draft lengths are one, or their times tell no cost.
    """
    short, long = sorted((step_cost(found, "this"), step_cost(other, "--other_length")), key=lambda one: one.drafted)
    if long.drafted - short.drafted < 1:
        raise UserError(f"--other_length drafts {other['speculation']['num_drafted']} tokens in as long rounds as this")
    token_ms = (long.ms - short.ms) / (long.drafted - short.drafted)
    base_ms = short.ms - token_ms * short.drafted
    if token_ms <= 0 or base_ms <= 0:
        raise UserError(
            f"rounds of {short.drafted:.1f} and {long.drafted:.1f} drafted tokens take {short.ms:.2f} and "
            f"{long.ms:.2f} ms, which tells no cost of drafting: ask more, on a quiet machine"
        )
    source = {
        "by_steps": "ms a step at two draft lengths: their difference a drafted token, the rest the verification",
        "steps": [vars(short), vars(long)],
        "method": method,
    }
    table = {1: plain_ms, round(short.drafted) + 1: base_ms, round(long.drafted) + 1: base_ms}
    family = None if method in AR_METHODS else method
    return DraftCost(token_ms, source, family=family), {str(count): ms for count, ms in table.items()}
