"""Status: what the runs of a results folder were asked for, and what of it is done, missing or failed.

Asked is what the run.json files say, done is what has a record or a trace that begins and ends as one; a ranking reads
the rest.
"""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from specdec.drafters.plain import PLAIN
from specdec.errors import UserError
from specdec.records import pickles
from specdec.records.identity import Identity, former_name
from specdec.records.places import place_of
from specdec.records.record import record_path
from specdec.runs.run_file import FAILED, TRACES, find_runs, read_run
from specdec.text import aligned, ranges, visible
from specdec.traces import trace

Configuration = tuple[str, str, int, str]  # target, data set, budget, drafter (or TRACES)
UNENDED = "without an end (running, or killed)"


@dataclass
class Progress:
    """Question ids of a configuration; failed ones are those without a record on which a run broke off."""

    asked: set[int] = field(default_factory=set)
    done: set[int] = field(default_factory=set)
    failed: set[int] = field(default_factory=set)

    @property
    def missing(self) -> set[int]:
        return self.asked - self.done - self.failed


@dataclass(frozen=True)
class Status:
    """`outcomes` counts the runs by how they ended; `damaged` says which run.json or record is not whole."""

    configurations: dict[Configuration, Progress]
    outcomes: Counter[str]
    errors: list[str]
    damaged: list[str]


def read_status(output_dir: str | Path) -> Status:
    """Look at a results folder. Raises UserError where no run has ever been started."""
    paths = find_runs(output_dir)
    if not paths:
        raise UserError(f"{output_dir} holds no runs: give the --output_dir of a run that was started")
    status = Status({}, Counter(), [], [])
    for path in paths:
        try:
            document = read_run(path)
        except UserError as error:
            status.damaged.append(str(error))
            continue
        end = document["end"] or {"outcome": UNENDED, "failed": None}
        status.outcomes[end["outcome"]] += 1
        if end["outcome"] == FAILED:
            status.errors.append(f"{path.parent.name}: {end.get('error')}")
        left_out = document.get("left_out") or {}
        for drafter in document["drafters"] or [TRACES]:
            key = (document["target"], document["dataset"], document["max_new_tokens"], drafter)
            progress = status.configurations.setdefault(key, Progress())
            progress.asked.update(number for number in document["question_ids"] if str(number) not in left_out)
            if end["failed"] is not None and end["failed"]["drafter"] == drafter:
                progress.failed.add(end["failed"]["question_id"])
    num_named = Counter(former_name(name) for name in {drafter for *_, drafter in status.configurations})
    for configuration, progress in status.configurations.items():
        is_shared = num_named[former_name(configuration[-1])] > 1
        present = {one: _place(output_dir, configuration, one, is_shared) for one in progress.asked}
        is_whole = trace.seems_whole if configuration[-1] == TRACES else pickles.seems_whole
        progress.done |= {question for question, path in present.items() if path is not None and is_whole(path)}
        progress.failed -= progress.done
        damaged = (path for question, path in present.items() if path is not None and question not in progress.done)
        status.damaged.extend(f"{path} is not whole: remove it, and it is made again" for path in damaged)
    return status


def _place(output_dir: str | Path, configuration: Configuration, question_id: int, is_shared: bool) -> Path | None:
    """Where a question's record, or trace, lies. Whose record a file is takes long to read, and is in doubt only where
    drafters share a former name."""
    target, dataset, budget, drafter = configuration
    if drafter == TRACES:
        path = trace.trace_path(output_dir, Identity(target, dataset, question_id, PLAIN, budget))
        return path if path.is_file() else None
    path = record_path(output_dir, target, dataset, question_id, drafter, budget)
    return path if path.is_file() and not is_shared else place_of(path)


def status_report(status: Status) -> str:
    """A table of all configurations, and how the runs ended, for people."""
    cells = [["target", "data set", "budget", "drafter", "asked", "done", "missing", "failed", "not done: questions"]]
    for (target, dataset, budget, drafter), progress in sorted(status.configurations.items()):
        counts = [len(part) for part in (progress.asked, progress.done, progress.missing, progress.failed)]
        names = [visible(target), visible(dataset), str(budget), visible(drafter)]
        cells.append([*names, *map(str, counts), ranges(progress.missing | progress.failed) or "-"])
    lines = aligned(cells, num_left=4)
    lines.append("Runs: " + ", ".join(f"{number} {outcome}" for outcome, number in sorted(status.outcomes.items())))
    lines += [visible(f"Failed: {error}") for error in status.errors]
    lines += [visible(f"Left out: {error}") for error in status.damaged]
    return "\n".join(lines) + "\n"
