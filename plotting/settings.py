"""Settings: what is known of drafter configurations, as points with intervals, and rankings of them. No matplotlib.

Where they come from: `rankings.py` (records), `ranking_files.py` (JSON).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from plotting.points import Point
from specdec.drafters.specs import DrafterSpec, parse_drafter_name
from specdec.errors import UserError
from specdec.latency.profile import MEASURED

CEILING_PARTS = {  # shares of the time taken
    "ceiling_share": "best_ms",
    "over_share": "over_ms",
    "under_share": "under_ms",
    "passes_share": "passes_ms",
}
SHARES = ("acceptance_rate", *CEILING_PARTS)


@dataclass(frozen=True)
class Setting:
    """One drafter configuration under one engine. `points` by name of quantity; what is not known is not there."""

    drafter_name: str
    num_questions: int | None
    points: dict[str, Point]
    is_level: bool | None = None  # cannot be told from the best; None: not known
    own_label: str = ""  # a file's name for it, where it has one

    @property
    def spec(self) -> DrafterSpec:
        return parse_drafter_name(self.drafter_name)

    def has(self, *quantities: str) -> bool:
        return all(quantity in self.points for quantity in quantities)


@dataclass(frozen=True)
class Ranking:
    """All settings under one engine, best first. `title`: which questions, or which file."""

    title: str
    target: str
    engine: str
    settings: list[Setting]
    num_left_out: int = 0  # questions whose answer is degenerate, where those were not wanted

    @property
    def num_questions(self) -> list[int]:
        """Of every setting, where it is known."""
        return [one.num_questions for one in self.settings if one.num_questions is not None]


def under_one_engine(rankings: Sequence[Ranking], engine: str | None) -> list[Ranking]:
    """The rankings under `engine` (default: the first there is), one per data set.

    Raises UserError for an engine that is not there, and for several targets.
    """
    engines = list(dict.fromkeys(ranking.engine for ranking in rankings))
    if engine is not None and engine not in engines:
        raise UserError(f"no --engine {engine!r} (there are: {', '.join(map(repr, engines)) or 'none'})")
    require_one_target(rankings)
    return [ranking for ranking in rankings if ranking.engine == (engine or engines[0])]


def require_one_target(rankings: Sequence[Ranking]) -> None:
    """UserError for rankings of several targets, which one figure must not mix."""
    targets = sorted({ranking.target for ranking in rankings})
    if len(targets) > 1:
        raise UserError(f"input of several targets ({', '.join(targets)}): give one, as OUTPUT_DIR/pickles/TARGET")


def engine_note(engine: str) -> str:
    """What speedups under an engine are."""
    return "measured wall clock" if engine == MEASURED else f"modelled time: {engine}"
