"""Runs: OUTPUT_DIR/runs/RUN_ID/run.json, what one run was asked to do and with what, and how it ended; and its log.txt.

Written before any work and completed at the end, each time atomically. A run that was killed has no end. What it
computed are records, which need no run.json to be read.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from specdec.config import RunConfig
from specdec.drafters.families import filled_block
from specdec.errors import MALFORMED, UserError, user_error
from specdec.models.card import read_card
from specdec.models.checkpoints import stamp
from specdec.questions.sets import Problem
from specdec.records import fields
from specdec.records.identity import current
from specdec.records.pickles import plain, write_atomic
from specdec.records.provenance import provenance
from specdec.runs.shards import Shard

if TYPE_CHECKING:
    import torch

    from specdec.runs.jobs import Job
    from specdec.session import Session

SCHEMA_VERSION = 1
DONE, STOPPED, FAILED = "done", "stopped", "failed"
TRACES = "traces"  # in place of a drafter: what a run that records makes
LOG_NAME = "log.txt"
SIZES = ("num_parameters", "kv_values_per_token")  # of a model, by its config.json
MAX_BYTES = 64 * 2**20


class RunFile:
    """One run's run.json while the run goes on; a context manager that writes how it ended.

    Attributes:
        path: the file.
        job: the (question_id, drafter or TRACES) being worked on; a failure is blamed on it.
        num_computed, num_found: records or traces made, and those that were there already.
        left_out: questions that are not asked, by number, and why.
    """

    def __init__(self, output_dir: str | Path, description: dict[str, Any]) -> None:
        """Write the file. Raises UserError where that cannot be done."""
        # Only differences of the monotonic clock are durations: the date may be set while a run goes on.
        self._begin_s = time.monotonic()
        self.job: tuple[int, str] | None = None
        self.num_computed = self.num_found = 0
        self.left_out: dict[int, str] = {}
        self._document = {"schema_version": SCHEMA_VERSION, "start": _now(), **description, "end": None}
        folder = Path(output_dir) / "runs"
        with user_error(f"write to {folder}", "choose another --output_dir"):
            self.path = _new_folder(folder) / "run.json"
            self._write()

    def __enter__(self) -> RunFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        outcome = DONE if kind is None else STOPPED if issubclass(kind, KeyboardInterrupt) else FAILED
        blamed = {"question_id": self.job[0], "drafter": self.job[1]} if outcome == FAILED and self.job else None
        self._document["end"] = {
            "time": _now(),
            "elapsed_s": round(time.monotonic() - self._begin_s, 3),
            "outcome": outcome,
            "num_computed": self.num_computed,
            "num_found": self.num_found,
            "error": f"{type(error).__name__}: {error}"[:2000] if outcome == FAILED else None,
            "failed": blamed,
        }
        self._document["left_out"] = {str(number): why for number, why in self.left_out.items()}
        # The records are safe by now; that the end is not written says no more than a kill would.
        with contextlib.suppress(OSError):
            self._write()

    def ask(self, jobs: Sequence[Job]) -> None:
        """Note jobs that could not be planned before others had been done: the later turns of a conversation."""
        self._document["questions"] |= questions_of(jobs)

    def write_log(self, lines: Iterable[str]) -> None:
        """Add lines to the run's own log, which `parse_log.py` ranks. Raises UserError where that cannot be done."""
        text = "".join(f"{line}\n" for line in lines).encode(errors="backslashreplace")
        with user_error(f"write {self.log_path}", "finished records are kept"), open(self.log_path, "ab") as log:
            log.write(text)

    @property
    def log_path(self) -> Path:
        return self.path.with_name(LOG_NAME)

    def _write(self) -> None:
        text = json.dumps(self._document, indent=2, ensure_ascii=False) + "\n"
        write_atomic(self.path, text.encode(errors="backslashreplace"))  # of names of files that are not UTF-8


def read_run(path: Path) -> dict[str, Any]:
    """A run.json as a dict whose keys for `status.py` are sound. Raises UserError that names a damaged one."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"larger than {MAX_BYTES // 2**20} MiB")
        document = fields.parse_json(path.read_text(encoding="utf-8"))
        if fields.take(document, "schema_version", fields.is_count) != SCHEMA_VERSION:
            raise UserError(f"schema_version is {document['schema_version']}, not {SCHEMA_VERSION}")
        for key in ("target", "dataset"):
            fields.take(document, key, fields.is_file_name)
        fields.take(document, "max_new_tokens", fields.is_count)
        fields.take(document, "question_ids", fields.is_tokens)
        fields.take(document, "drafters", lambda names: fields.is_list(names) and all(map(fields.is_file_name, names)))
        fields.take({"left_out": None, **document}, "left_out", lambda value: value is None or fields.is_dict(value))
        document["drafters"] = [_present_name(name, document) for name in document["drafters"]]
        end = fields.take(document, "end", lambda value: value is None or fields.is_dict(value))
        if end is not None:
            fields.take(end, "outcome", lambda value: value in (DONE, STOPPED, FAILED))
            blamed = fields.take(end, "failed", lambda value: value is None or fields.is_dict(value))
            if blamed is not None:
                fields.take(blamed, "question_id", fields.is_count)
                blamed["drafter"] = _present_name(fields.take(blamed, "drafter", fields.is_file_name), document)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    except (UserError, *MALFORMED) as error:
        raise UserError(f"{path} is not a whole run.json ({error}); no record depends on it: remove it") from None
    return document


def _present_name(drafter: str, document: dict[str, Any]) -> str:
    """A drafter's name in an older run.json as it is now: what its name did not say, its identity did."""
    identities = document.get("identities")
    known = identities.get(drafter) if isinstance(identities, dict) else None
    return str(current({**known, "drafter": drafter})["drafter"]) if isinstance(known, dict) else drafter


def find_logs(folder: Path) -> list[Path]:
    """The logs of a results folder, of its runs, or of one run, oldest first; maybe none."""
    return sorted(path for pattern in ("", "*/", "runs/*/") for path in folder.glob(f"{pattern}{LOG_NAME}"))


def find_runs(output_dir: str | Path) -> list[Path]:
    """The run.json files of a results folder, maybe none."""
    return sorted(Path(output_dir).glob("runs/*/run.json"))


def runs_of(folder: str | Path) -> list[dict[str, Any]]:
    """What is known of the runs that filled a results folder, or a folder in it, oldest first; a damaged run.json is
    left out."""
    place = Path(folder)
    root = next((one.parent for one in (place, *place.resolve().parents) if one.name == "pickles"), place)
    runs = []
    for path in find_runs(root):
        try:
            runs.append(read_run(path))
        except UserError:  # no record depends on it; `failfast.py --status` names it
            continue
    return runs


def slurm_ids(environment: Mapping[str, str]) -> dict[str, str]:
    """What Slurm says of the job: its ids, node, partition and how often it was started again."""
    wanted = ("JOB_ID", "ARRAY_", "JOB_NAME", "JOB_NODELIST", "JOB_PARTITION", "RESTART_COUNT", "CLUSTER_NAME")
    names = tuple(f"SLURM_{name}" for name in wanted)
    return {name: value for name, value in sorted(environment.items()) if name.startswith(names)}


def _new_folder(runs: Path) -> Path:
    """A folder of its own for this run, whatever the clock says and whoever starts at the same moment."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    folder = runs / f"{stamp}-{os.getpid()}-{secrets.token_hex(4)}"
    folder.mkdir(parents=True)
    return folder


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def describe_run(session: Session, problems: Sequence[Problem], shard: Shard, jobs: Sequence[Job]) -> dict[str, Any]:
    """Plain builtins. `problems` are those of the shard, `jobs` those of the problems, question by question; none
    when traces are recorded."""
    config = session.config
    specs = [] if config.recording.record else session.specs  # a run that records leaves TRACES
    return plain(
        {
            "target": config.models.target_name,
            "dataset": config.questions.dataset,
            "max_new_tokens": config.decoding.max_new_tokens,
            "drafters": [spec.name for spec in specs],
            "settings": config.settings(),
            "generation": {
                "decoding": _decoding(config),
                "stop_ids": sorted(session.stop_ids),
                "mask_ids": {role.title: mask for role, mask in session.mask_ids.items()},
                "dtype": session.dtype_name,
                "device": str(session.device),
                "backend": session.backend_title,
                "context_len": session.context_len,
            },
            "models": {
                role.title: {
                    "name": source.name,
                    "sha256": session.fingerprints.get(role),
                    **{size: getattr(source, size) for size in SIZES},
                    "block_size": filled_block(role, session.options),
                    "card": read_card(source.path),
                    **stamp(source),
                }
                for role, source in session.sources.items()
            },
            "chat_template_sha256": _sha256(getattr(session.tokenizer, "chat_template", None)),
            # With these a later run sees that its records are there already (`resume.py`).
            "questions": questions_of(jobs),
            "identities": {job.spec.name: session.results_identity(job.spec) for job in jobs[: len(specs)]},
            **this_run(problems, shard, session.device),
        }
    )


def questions_of(jobs: Sequence[Job]) -> dict[str, dict[str, str]]:
    """What a later run compares of each question."""
    return {
        str(job.problem.question_id): {
            "sha256": question_sha256(job.problem),
            "prompt_sha256": job.identity.settings["prompt_sha256"],
        }
        for job in jobs
    }


def this_run(problems: Sequence[Problem], shard: Shard, device: torch.device | None) -> dict[str, Any]:
    """What two runs with the same settings need not share. `device` None: nothing is computed."""
    return {
        "question_ids": [turn.question_id for problem in problems for turn in problem.turns],
        "questions_sha256": _sha256([[problem.prompt, problem.row] for problem in problems]),
        "shard": dict(vars(shard)),
        "provenance": provenance(device),
        "host": platform.node(),
        "slurm": slurm_ids(os.environ),
    }


def question_sha256(problem: Problem) -> str:
    return _sha256([problem.prompt, problem.row])


def _decoding(config: RunConfig) -> str:
    how = config.decoding
    if not how.is_sampled:
        return "greedy: plain argmax, no logits processor"
    warp = f"temperature {how.temperature}, then top_k {how.top_k}, then top_p {how.top_p}"
    return f"sampled: {warp}, no other logits processor; drafts: {how.draft_sampling}"


def _sha256(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
