"""Trust: whether the times that were measured say something of the drafters, or of how busy the machine was.

Signs of a busy machine, each known to fail somewhere, so that none counts where it says nothing:
wall clock over the process's CPU time (on a CPU: near 1 or less alone; on a GPU the host may sleep while the device
works, so that it is not asked there); runnable processes against cores (only where several threads or a GPU's host
compete: one thread's own CPU time is the better witness, and an average lags by a minute); and how unequal the tokens
of plain decoding are, which all cost about the same. Not here: whether the differences are more than chance.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from statistics import median
from typing import Any

from specdec.drafters.plain import PLAIN
from specdec.records.record import Record

MOST_WALL_OVER_CPU = 1.25
MOST_LOAD = 1.25  # runnable processes a core
MOST_SPREAD = 2.0  # the slowest tenth of plain decoding's tokens over its median
MIN_TOKENS = 10  # for a tenth of them to mean something


@dataclass(frozen=True)
class Conditions:
    """How busy the machine was while a record was made; None: not known. `spread`: of plain decoding alone."""

    wall_ms: float | None = None
    cpu_ms: float | None = None
    load: float | None = None
    num_cores: int | None = None
    num_threads: int | None = None
    spread: float | None = None

    @classmethod
    def of(cls, record: Record) -> "Conditions":
        """A record's, as far as it holds them. What is not a number is not known."""
        rounds, machine = record.rounds, record.provenance.get("machine")
        known = machine if isinstance(machine, dict) else {}
        ends = known.get("load")
        loads = [one for one in ends if _is_number(one)] if isinstance(ends, list | tuple) else []
        has_cpu = bool(rounds) and all(turn.cpu_ms is not None for turn in rounds)
        counts = {"num_cores": known.get("num_cores"), "num_threads": record.provenance.get("num_threads")}
        return cls(
            wall_ms=float(record.draft_ms + record.verify_ms) if has_cpu else None,
            cpu_ms=float(sum(turn.cpu_ms or 0.0 for turn in rounds)) if has_cpu else None,
            load=float(max(loads)) if loads else None,
            spread=spread([turn.verify_ms for turn in rounds]) if record.drafter_name == PLAIN else None,
            **{name: count for name, count in counts.items() if type(count) is int and count > 0},
        )

    @classmethod
    def from_builtins(cls, data: Any) -> "Conditions":
        """The inverse of `to_builtins`. Raises TypeError or ValueError for anything else."""
        made = cls(**data)
        if not all(value is None or _is_number(value) for value in vars(made).values()):
            raise ValueError("a condition that is not a number")
        return made

    def to_builtins(self) -> dict[str, Any]:
        """What is known."""
        return {part.name: getattr(self, part.name) for part in fields(self) if getattr(self, part.name) is not None}


def spread(times_ms: Sequence[float]) -> float | None:
    """The 90th percentile over the median. Example: `spread([1.0] * 9 + [5.0] * 2) == 5.0`."""
    if len(times_ms) < MIN_TOKENS or median(times_ms) <= 0:
        return None
    ordered = sorted(times_ms)
    return ordered[int(0.9 * len(ordered))] / median(ordered)


def doubt(found: Sequence[Conditions], on_gpu: bool) -> str:
    """Why the times of these records are not to be trusted; "" where nothing speaks against them.

    `"measured times are not to be trusted: the machine was busy (wall/CPU 2.1; load 11 on 2 cores)"`
    """
    timed = [(one.wall_ms, one.cpu_ms) for one in found if one.wall_ms is not None and one.cpu_ms is not None]
    wall, cpu = sum(one for one, _ in timed), sum(one for _, one in timed)
    over_cpu = wall / cpu if cpu > 0 and not on_gpu else 0.0
    load = median([one.load for one in found if one.load is not None] or [0.0])
    num_cores = max([one.num_cores for one in found if one.num_cores] or [0])
    competes = on_gpu or any((one.num_threads or 1) > 1 for one in found)
    uneven = median([one.spread for one in found if one.spread is not None] or [0.0])
    is_busy = over_cpu > MOST_WALL_OVER_CPU or uneven > MOST_SPREAD
    if not is_busy and not (competes and num_cores and load > MOST_LOAD * num_cores):
        return ""
    signs = [f"wall/CPU {over_cpu:.1f}"] if over_cpu > MOST_WALL_OVER_CPU else []
    signs += [f"load {load:.0f} on {num_cores} cores"] if num_cores and load > MOST_LOAD * num_cores else []
    signs += [f"plain decoding's slow tokens took {uneven:.1f} times as long"] if uneven > MOST_SPREAD else []
    return f"measured times are not to be trusted: the machine was busy ({'; '.join(signs)})"


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and 0 <= value < float("inf")  # type: ignore[operator]
