"""Quantities: what is measured of a configuration, each a ratio of sums over questions, stated once.

PARTS are summed over questions, QUANTITIES are ratios of those sums; docs/measures.md defines them. Not here: intervals
and ranks (`table.py`), and rounds by position (`acceptance.py`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from specdec.latency.profile import MEASURED
from specdec.ranking.entries import COUNTS, Entry
from specdec.ranking.statistics import Value

_PRICES = ("speedup", "draft_ms", "verify_ms", "baseline_ms")
_GRADES = (
    "num_correct",
    "num_graded",
    "num_degenerate",
    "num_checked",
)  # right, of those graded; loops, of those checked
CEILING_PARTS = ("best_ms", "over_ms", "under_ms", "passes_ms")
# A question's own, summed for their mean: tokens a round, and what a client would see (of timed records alone).
_REQUEST = ("request_len", "tpot_ms", "ttft_ms")
PARTS = ("num_questions", *COUNTS, *_GRADES, *_PRICES, *CEILING_PARTS, *_REQUEST)
_TIME = ("draft_ms", "verify_ms")


@dataclass(frozen=True)
class Quantity:
    """A ratio of sums over questions: of `parts` to `per`, both sums of PARTS; without `per` the sum itself.

    `title` is its head in a table on a terminal; readers of papers and figures get more words (`views/`).
    """

    name: str
    title: str
    form: str
    parts: tuple[str, ...]
    per: tuple[str, ...] = ()
    is_share: bool = False

    @property
    def key(self) -> str:
        """What its interval is called in files: `KEY_low`, `KEY_high`."""
        return self.name.removeprefix("speedup_")

    def pair(self, sums: Mapping[str, float]) -> tuple[float, float] | None:
        """What is divided and what divides it, of one question's or all questions' parts; None: not all known."""
        if not sums.keys() >= {*self.parts, *self.per}:
            return None
        return sum(sums[part] for part in self.parts), sum(sums[part] for part in self.per) if self.per else 1

    def of(self, sums: Mapping[str, float]) -> float | None:
        """Its value; None where a part is not known, or there is nothing to divide by."""
        total, whole = self.pair(sums) or (0, 0)
        if not whole:
            return None
        return total / whole if self.per else total

    def text(self, value: Value | None) -> str:
        return "-" if value is None else self.form.format(value.value)


_QUANTITIES = (
    Quantity("speedup_mean", "speedup, mean", "{:.2f}x", ("speedup",), ("num_questions",)),
    Quantity("speedup_ratio", "speedup, ratio", "{:.2f}x", ("baseline_ms",), _TIME),
    Quantity("acceptance_rate", "acceptance rate", "{:.1%}", ("num_accepted",), ("num_drafted",), is_share=True),
    Quantity("acceptance_len", "acceptance length", "{:.2f}", ("num_output_tokens",), ("num_rounds",)),
    Quantity("request_acceptance_len", "acceptance length, mean", "{:.2f}", ("request_len",), ("num_questions",)),
    Quantity("passes_per_round", "passes per round", "{:.2f}", ("num_forward_passes",), ("num_rounds",)),
    Quantity("draft_ms", "draft ms", "{:.1f}", ("draft_ms",)),
    Quantity("verify_ms", "verify ms", "{:.1f}", ("verify_ms",)),
    Quantity("total_ms", "total ms", "{:.1f}", _TIME),
    Quantity("baseline_ms", "plain decoding ms", "{:.1f}", ("baseline_ms",)),
    Quantity("tpot_ms", "TPOT ms", "{:.2f}", ("tpot_ms",), ("num_questions",)),
    Quantity("ttft_ms", "TTFT ms", "{:.1f}", ("ttft_ms",), ("num_questions",)),
    Quantity("ceiling_share", "of the ceiling", "{:.1%}", ("best_ms",), CEILING_PARTS, is_share=True),
    Quantity("over_share", "over-drafting", "{:.1%}", ("over_ms",), CEILING_PARTS, is_share=True),
    Quantity("under_share", "under-drafting", "{:.1%}", ("under_ms",), CEILING_PARTS, is_share=True),
    Quantity("passes_share", "drafter passes", "{:.1%}", ("passes_ms",), CEILING_PARTS, is_share=True),
)
QUANTITIES = {one.name: one for one in _QUANTITIES}
CEILING_SHARES = ("ceiling_share", "over_share", "under_share", "passes_share")
MEASURED_ONLY = ("tpot_ms", "ttft_ms")
COMPARED = {"speedup_mean": "", "speedup_ratio": "ratio_"}  # what differences are of, and how those' names begin


def values_from(sums: Mapping[str, float]) -> dict[str, Value]:
    """The quantities that these sums give."""
    found = {name: quantity.of(sums) for name, quantity in QUANTITIES.items()}
    return {name: Value(value) for name, value in found.items() if value is not None}


def parts_of(entry: Entry, engine: str) -> dict[str, float]:
    """What a question contributes under an engine, as far as it is known of it."""
    grades = (flag for known in (entry.is_correct, entry.is_degenerate) for flag in (known is True, known is not None))
    found = {"num_questions": 1} | {name: getattr(entry, name) for name in COUNTS}
    found |= dict(zip(_GRADES, map(int, grades), strict=True))
    found |= {name: getattr(entry.prices[engine], name) for name in _PRICES}
    found |= {"request_len": entry.num_output_tokens / entry.num_rounds} if entry.num_rounds else {}
    found |= _times(entry) if engine == MEASURED else {}
    return found | (vars(entry.ceilings[engine]) if engine in entry.ceilings else {})


def _times(entry: Entry) -> dict[str, float]:
    """TPOT and TTFT, as far as the clock knows them."""
    found = {"tpot_ms": entry.measured_ms_per_token if entry.has_measured_times else None, "ttft_ms": entry.ttft_ms}
    return {name: value for name, value in found.items() if value is not None}


def summed(parts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The sums over questions of what is known of all of them."""
    return {part: sum(one[part] for one in parts) for part in PARTS if all(part in one for one in parts)}
