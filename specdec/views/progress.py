"""Progress: what a run says while it goes on: what it was asked, by what it is done, and a line a question.

The ranking at its end is `tables.py`; the lines that a parser reads are `record_text.py`.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from specdec.config import RunConfig
from specdec.drafters.plain import PLAIN
from specdec.latency.profile import MEASURED
from specdec.ranking.entries import Entry
from specdec.ranking.lossless import SAMPLED, graded_outputs
from specdec.records.divergence import EXACT
from specdec.records.turns import question_name
from specdec.text import visible
from specdec.views.labels import short_labels
from specdec.views.view import WIDTH


@dataclass(frozen=True)
class Machine:
    """By what a run is done."""

    num_parameters: int
    dtype: str
    device: str
    backend: str
    num_threads: int | None = None
    speedups: str = ""  # "modelled" or "measured": those of single questions

    @classmethod
    def of_run(cls, described: Mapping[str, Any], num_parameters: int, num_threads: object) -> "Machine":
        """That of an earlier run, from its run.json."""
        made = described["generation"]
        known = num_threads if isinstance(num_threads, int) else None
        return cls(num_parameters, str(made["dtype"]), str(made["device"]), str(made["backend"]), known)


def asked_line(config: RunConfig) -> str:
    """What is asked, before anything is read or loaded."""
    decoding, asked = config.decoding, config.questions
    how = f", temperature {decoding.temperature:g}" if decoding.is_sampled else ""
    what = f"Target {config.models.target_name} on {asked.dataset}, up to {decoding.max_new_tokens} tokens each{how}"
    return visible(f"{what} -> {config.output.output_dir}")


def machine_line(machine: Machine, num_configurations: int, num_questions: int) -> str:
    """Size, dtype, device, backend, threads, and how much is to do; known before any weight is loaded."""
    size = machine.num_parameters
    shown = f"{size / 1e9:.1f} B" if size >= 1e9 else f"{size / 1e6:.0f} M"
    threads = "" if machine.num_threads is None else f", {_many(machine.num_threads, 'thread')}"
    how = f"{shown} parameters, {machine.dtype}, {machine.device}, {machine.backend}{threads}"
    counts = f"{_many(num_configurations, 'configuration')} x {_many(num_questions, 'question')}"
    return f"{how}; {counts}{machine.speedups and f'; speedups {machine.speedups}'}"


def question_line(entries: Sequence[Entry], engine: str, width: int = WIDTH) -> str:
    """A question's outcome: `"q3  40 tokens | FailFast 4.46x | dLLM 4.20x | AR 4.10x | all exact"`.

    The best first, as many as fit into `width`; under one engine, or measured where it has no price.
    """
    name = f"q{question_name(entries[0].question_id)}"
    head = f"{name:4} {entries[0].num_output_tokens} tokens"
    labels = short_labels([entry.drafter_name for entry in entries])
    drafted = [entry for entry in entries if entry.drafter_name != PLAIN]
    speeds = {labels[one.drafter_name]: _speedup(one, engine) for one in drafted}
    cells = [f"{label} {speed:.2f}x" for label, speed in sorted(speeds.items(), key=lambda item: -item[1]) if speed]
    cells = cells or [f"{labels[one.drafter_name]}" for one in drafted]
    last = _grades(entries)
    return " | ".join([head, *_fitting(cells, width - len(head) - len(last) - 6), *filter(None, [last])])


def _speedup(entry: Entry, engine: str) -> float:
    price = entry.prices.get(engine) or entry.prices.get(MEASURED)
    return price.speedup if price is not None and price.total_ms else 0.0


def _fitting(cells: Sequence[str], room: int) -> list[str]:
    """The cells from the first on that stand in `room` characters, and how many more there are."""
    if len(" | ".join(cells)) <= room:
        return list(cells)
    shown: list[str] = []
    for cell in cells:
        if len(" | ".join([*shown, cell, f"+{len(cells)}"])) > room:
            break
        shown.append(cell)
    return [*shown, f"+{len(cells) - len(shown)}"]


def _grades(entries: Sequence[Entry]) -> str:
    """Whether the outputs equal plain decoding's, in a word or two."""
    grades = Counter(grade for _, grade in graded_outputs(entries))
    if not grades:
        return ""
    others = [f"{count} {grade}" for grade, count in grades.items() if grade not in (EXACT, SAMPLED)]
    return ", ".join(others) or ("sampled" if grades[SAMPLED] else "all exact")


def _many(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
