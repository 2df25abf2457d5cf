"""The command `python -m specdec.replay`: traces x settings over several processes, ranked. Loads no model.

`replayed.py` does a single replay.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tqdm import tqdm

from specdec.config import RunConfig, StrictParser, add_flags, config_of
from specdec.decoding.cost_aware import FILE_NAME, advice_of
from specdec.drafters.specs import CostAware, DrafterSpec
from specdec.errors import UserError, exit_status
from specdec.latency.profile import LatencyProfile, load_profiles
from specdec.ranking.entries import QuestionStats, model_prices, stats_of
from specdec.ranking.oracle import judges_of
from specdec.records.identity import IDENTITY_KEYS
from specdec.records.pickles import write_atomic
from specdec.records.record import check_writable, record_path, save_record
from specdec.traces.replay import replay
from specdec.traces.trace import Trace, find_traces, load_trace
from specdec.views.record_text import record_lines, record_text
from specdec.views.tables import ranking_json, ranking_report

FLAGS = (
    "question_ids",
    "spec_len",
    "drafter_thresholds",
    "sweep_lowconf_threshold",
    "sweep_max_spec_len",
    "sweep_incr_len",
    "drafters",
    "run_ar",
    "ar_dynamic",
    "run_dllm_sf",
    "baseline_sweep",
    "failfast_rule",
    "reuse_drafts",
    "disable_reusing_drafter_kvs",
    "grid",
    "policy",
    "calibration",
    "latency_profile",
    "latency_target",
    "temperature",  # to be refused with a reason
)


@dataclass(frozen=True)
class Replays:
    """What to replay on every trace, and what to write of it."""

    config: RunConfig
    profiles: list[LatencyProfile]
    output_dir: str | None

    @property
    def specs(self) -> list[DrafterSpec]:
        return self.config.drafter_specs


@dataclass(frozen=True)
class Replayed:
    """What a single trace gave."""

    stats: list[QuestionStats] = field(default_factory=list)
    log_lines: list[str] = field(default_factory=list)


def build_parser() -> StrictParser:
    parser = StrictParser(prog="specdec.replay", description=__doc__)
    parser.add_argument("traces", metavar="TRACE_DIR", help="folder with traces (failfast.py --record), or one trace")
    add_flags(parser, FLAGS)
    parser.add_argument("--output_dir", help="write full records there, as a live run would (default: none)")
    parser.add_argument("--log", help="write a log there that parse_log.py ranks (default: none)")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print the ranking as one JSON document")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 2 a mistake of the user's (one line says which)."""
    return exit_status("specdec.replay", lambda: print(run(arguments), end=""))


def run(arguments: Sequence[str] | None = None) -> str:
    """The text to print for a command line. Raises UserError."""
    options = vars(build_parser().parse_args(arguments))
    folder, log, as_json = options.pop("traces"), options.pop("log"), options.pop("json")
    workers, output_dir = options.pop("workers"), options.pop("output_dir")
    paths = chosen_traces(folder, options["question_ids"])
    options["calibration"] = options["calibration"] or str(Path(folder) / FILE_NAME)
    # The models are the traces'; none is looked for.
    models = {"target_model_name": load_trace(paths[0]).identity["target"], "ar_model_name": "-", "dllm_dir": "-"}
    config = config_of(options | models | {"verify": "trace"})
    if output_dir is not None:
        check_writable(output_dir)
    what = Replays(config, load_profiles(config.latency_profile), output_dir)
    made = list(tqdm(replay_all(paths, what, workers), total=len(paths), desc="traces", disable=None))
    if log is not None:
        _write_log(Path(log), made)
    stats = [entry for one in made for entry in one.stats]
    return ranking_json(stats) + "\n" if as_json else ranking_report(stats)


def chosen_traces(folder: str | Path, question_ids: Sequence[int] | None) -> list[Path]:
    """The traces of a folder, or of these questions. Raises UserError where one has none."""
    paths = find_traces(folder)
    if question_ids is None:
        return paths
    by_question = {path.parent.name: path for path in paths}
    missing = [number for number in question_ids if str(number) not in by_question]
    if missing:
        raise UserError(f"{folder} holds no trace of question {missing[0]}: record it with failfast.py --record")
    return [path for path in paths if path.parent.name in set(map(str, question_ids))]


def replay_all(paths: Sequence[Path], what: Replays, workers: int) -> Iterable[Replayed]:
    """Every trace's replays, in order, by several processes."""
    work = partial(replay_trace, what=what)
    if workers <= 1 or len(paths) <= 1:
        yield from map(work, paths)
        return
    # Spawned: a fork would copy whatever the parent has started. Nothing here makes cycles, and looking for them
    # among a trace's many small lists takes half of the time.
    with multiprocessing.get_context("spawn").Pool(min(workers, len(paths)), initializer=gc.disable) as pool:
        yield from pool.imap(work, paths)


def replay_trace(path: Path, what: Replays) -> Replayed:
    """All settings on one trace."""
    trace, config, made = load_trace(path), what.config, Replayed()
    judges = judges_of(trace, what.profiles, config.latency_target)
    for spec in what.specs:
        record = replay(trace, spec, **_kept(trace, spec, what))
        prices = model_prices(record, what.profiles, config.latency_target)
        ceilings = {engine: judge.ceiling(record) for engine, judge in judges.items()}
        made.stats.append(stats_of(record, prices, ceilings))
        made.log_lines.extend(record_lines(record, prices, ceilings))
        if what.output_dir is not None:
            where = record_path(what.output_dir, *(record.identity[key] for key in IDENTITY_KEYS))
            save_record(record, where, record_text(record))
    return made


def _kept(trace: Trace, spec: DrafterSpec, what: Replays) -> dict[str, object]:
    """What a live dLLM drafter of these settings keeps and knows."""
    config, advice = what.config, None
    if isinstance(spec, CostAware):
        advice = advice_of(spec, config.calibration, what.profiles, trace.chains_of(spec).identity)
    reuse_kvs = not config.disable_reusing_drafter_kvs
    return {"reuse_kvs": reuse_kvs, "reuse_drafts": config.reuse_drafts, "advice": advice}


def _write_log(path: Path, made: Sequence[Replayed]) -> None:
    text = "\n".join(line for one in made for line in one.log_lines) + "\n"
    try:
        write_atomic(path, text.encode())
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}; choose another --log") from None


if __name__ == "__main__":
    sys.exit(main())
