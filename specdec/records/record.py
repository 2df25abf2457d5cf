"""Record: what one question under one drafter gave; its schema on disk, paths, safe load, atomic save.

Counts are stored, rates are derived. Not here: prices (`latency/`), strings for people
(`views/`), one round (`rounds.py`), what decides it all (`identity.py`), and the pickle format itself (`pickles.py`).
"""

import dataclasses
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from specdec.errors import UserError, user_error
from specdec.records import fields, older, pickles, published
from specdec.records.divergence import Divergence
from specdec.records.identity import LIVE, REPLAY, TRACE, Identity, current
from specdec.records.rounds import Round, totals

SCHEMA_VERSION = 2  # 1: `older.py`
TREES_VERSION = 3  # of records with trees: whoever knows chains alone must not take their tokens for one
_TREES = ("provenance", "raw_data")
_NO_PLACE = "choose another --output_dir or free space"


@dataclass(frozen=True)
class Record:
    """One question under one drafter, as it is kept on disk."""

    identity: Identity  # everything that changes results; compared on resume
    provenance: dict[str, Any]  # versions, git revision, device name, date: kept, not compared
    prompt_ids: list[int]
    raw_data: dict[str, Any]  # the question's row
    output_text: str
    prefill_ms: float  # the target's prompt pass
    rounds: list[Round]
    divergence: Divergence | None = None  # from plain decoding; None where that was not at hand

    @property
    def question_id(self) -> int:
        return self.identity.question_id

    @property
    def drafter_name(self) -> str:
        return self.identity.drafter

    @property
    def output_tokens(self) -> list[int]:
        return [token for turn in self.rounds for token in turn.emitted_tokens]

    @property
    def num_output_tokens(self) -> int:
        return sum(turn.num_emitted for turn in self.rounds)

    @property
    def num_rounds(self) -> int:
        return len(self.rounds)

    @property
    def num_drafted(self) -> int:
        return sum(turn.draft_len for turn in self.rounds)

    @property
    def num_accepted(self) -> int:
        return sum(turn.accepted_len for turn in self.rounds)

    @property
    def num_forward_passes(self) -> int:
        return sum(turn.num_forward_passes for turn in self.rounds)

    @property
    def acceptance_rate(self) -> float:
        """Accepted / drafted tokens; 0.0 when nothing was drafted."""
        return _ratio(self.num_accepted, self.num_drafted)

    @property
    def acceptance_len(self) -> float:
        """Tokens emitted per round, bonus included."""
        return _ratio(self.num_output_tokens, self.num_rounds)

    @property
    def passes_per_round(self) -> float:
        return _ratio(self.num_forward_passes, self.num_rounds)

    @property
    def draft_ms(self) -> float:
        """Measured, all rounds."""
        return sum(turn.draft_ms for turn in self.rounds)

    @property
    def verify_ms(self) -> float:
        """Measured, all rounds; the prompt pass (`prefill_ms`) is not in it."""
        return sum(turn.verify_ms for turn in self.rounds)

    @property
    def is_sampled(self) -> bool:
        """Whether the target sampled: then the text is one of many, and plain decoding's is another."""
        return self.identity.is_sampled

    @property
    def is_timed(self) -> bool:
        """Whether the target's passes were measured; a replay has none."""
        return self.verify_ms > 0

    @property
    def measured_ms_per_token(self) -> float:
        """Wall clock of drafting and verifying per output token, without the prompt pass."""
        return _ratio(self.draft_ms + self.verify_ms, self.num_output_tokens)

    @property
    def ttft_ms(self) -> float | None:
        """Time to the first token: the target's prompt pass, then drafting and verifying of the first round.

        Here the prompt's pass gives no token, so that the first one comes with the first round, and often others with
        it. None without times or rounds.
        """
        if not self.is_timed or not self.rounds:
            return None
        return float(self.prefill_ms + self.rounds[0].draft_ms + self.rounds[0].verify_ms)

    def to_builtins(self) -> dict[str, Any]:
        """Plain builtins under the published keys, then ours. TypeError if a field holds anything else."""
        entries = [turn.to_builtins(len(self.prompt_ids)) for turn in self.rounds]
        values = {
            "orig_model_inputs": self.prompt_ids,
            "raw_data": self.raw_data,
            "stats_each_round": entries,
            "schema_version": TREES_VERSION if any(turn.is_tree for turn in self.rounds) else SCHEMA_VERSION,
            "question_id": self.question_id,
            "drafter_name": self.drafter_name,
            "output_tokens": self.output_tokens,
            "output_text": self.output_text,
            "prefill_ms": float(self.prefill_ms),
            "identity": self.identity.to_builtins(),
            "provenance": self.provenance,
        }
        judged = {} if self.divergence is None else {"divergence": self.divergence.to_builtins()}
        return pickles.plain(values | totals(entries, self.identity.max_new_tokens) | judged)

    @classmethod
    def from_builtins(cls, data: Any) -> "Record":
        """The inverse of `to_builtins`; UserError names what is missing, wrong or inconsistent."""
        version = fields.take(data, "schema_version", fields.is_count)
        if version not in (older.VERSION, SCHEMA_VERSION, TREES_VERSION):
            raise UserError(f"schema_version is {version}, not {SCHEMA_VERSION} or {TREES_VERSION}")
        data = _current(older.renewed(data, SCHEMA_VERSION) if version == older.VERSION else data)
        provenance = fields.take(data, "provenance", fields.is_dict)
        prompt_ids = fields.take(data, "orig_model_inputs", fields.is_tokens)
        rounds = _rounds_of(fields.take(data, "stats_each_round", fields.is_list), len(prompt_ids))
        made = cls(
            identity=Identity.from_builtins(
                fields.take(data, "identity", fields.is_dict), _former_origin(provenance, rounds)
            ),
            provenance=provenance,
            prompt_ids=prompt_ids,
            raw_data=fields.take(data, "raw_data", fields.is_dict),
            output_text=fields.take(data, "output_text", fields.is_str),
            prefill_ms=fields.take(data, "prefill_ms", fields.is_ms),
            rounds=rounds,
            divergence=Divergence.from_builtins(data["divergence"]) if "divergence" in data else None,
        )
        try:
            made = dataclasses.replace(made, **pickles.plain({key: getattr(made, key) for key in _TREES}))
            fields.require_equal(made.to_builtins(), data | {"identity": made.identity.to_builtins()})
        except TypeError as error:
            raise UserError(str(error)) from None
        _check_prefixes(made)
        return made


def target_name(given: str) -> str:
    """What a target is called in paths, identities and tables: the last part of the folder or hub name that was given.

    Examples: "Qwen/Qwen2.5-7B-Instruct" gives "Qwen2.5-7B-Instruct", "models/toy/" gives "toy"; "." and ".." give the
    name of the folder that they stand for.
    """
    try:
        path = Path(given).expanduser()
    except RuntimeError:  # ~someone, who has no home here
        path = Path(given)
    return path.name if path.name not in ("", "..") else path.resolve().name or "root"


def record_path(
    output_dir: str | Path, target: str, dataset: str, question_id: int, drafter_name: str, max_new_tokens: int
) -> Path:
    """OUTPUT_DIR/pickles/TARGET/DATASET/QUESTION/DRAFTER/MAX_NEW_TOKENS.pickle.

    TARGET is the `target_name` of what was given.
    """
    folder = Path(output_dir) / "pickles" / target_name(target) / dataset / str(question_id) / drafter_name
    return folder / f"{max_new_tokens}.pickle"


def identity_path(output_dir: str | Path, identity: Identity) -> Path:
    """Where the record of an identity goes."""
    where = identity.target, identity.dataset, identity.question_id, identity.drafter, identity.max_new_tokens
    return record_path(output_dir, *where)


def save_record(record: Record, path: str | Path, text: str | None = None) -> None:
    """Writes the record, and before it `text` (`report.record_text`; default: the answer) as .txt beside it.

    Atomic: at every moment the pickle is the old one, the new one or absent. UserError when the place cannot
    be written; TypeError or ValueError (a bug of the caller) for a record that could not be loaded again.
    """
    path = Path(path)
    data = pickles.dumps(record.to_builtins())
    try:
        Record.from_builtins(pickles.loads(data))
    except UserError as error:
        raise ValueError(f"inconsistent record: {error}") from None
    save_text(path, record.output_text + "\n" if text is None else text)
    with user_error(f"write {path}", _NO_PLACE):
        pickles.write_atomic(path, data)


def save_text(path: Path, text: str) -> None:
    """Writes the .txt beside the record at `path`. UserError when the place cannot be written."""
    with user_error(f"write {path}", _NO_PLACE):
        path.parent.mkdir(parents=True, exist_ok=True)
        pickles.write_atomic(path.with_suffix(".txt"), text.encode("utf-8", "backslashreplace"))


def check_writable(output_dir: str | Path) -> None:
    """Make the results folder. Raises UserError, before hours of work, where no record could be written."""
    folder = Path(output_dir) / "pickles"
    with user_error(f"write to {folder}", "choose another --output_dir"):
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()


def load_record(path: str | Path) -> Record:
    """Reads a record, or a pickle of the published program, executing nothing. UserError names an unreadable, damaged,
    foreign or unsafe file."""
    try:
        data = pickles.loads(pickles.read_bytes(Path(path)))
        return _published(data, Path(path)) if published.is_published(data) else Record.from_builtins(data)
    except _Foreign as error:
        raise UserError(f"{path} is a pickle of the published program that cannot be read: {error}") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    except (UserError, ValueError, MemoryError, RecursionError) as error:
        reason = str(error) or type(error).__name__
        message = f"{path} is not a record of this program ({reason}): remove it, or run failfast.py with --overwrite"
        raise UserError(message) from None


def find_records(output_dir: str | Path) -> list[Path]:
    """The pickles of a results folder (or of any folder in it), questions in numeric order; maybe none."""
    folder = Path(output_dir)
    root = folder / "pickles" if (folder / "pickles").is_dir() else folder
    found = (path for path in root.rglob("*.pickle") if not path.name.startswith("."))
    return sorted(found, key=_natural_order)


def _natural_order(path: Path) -> list[tuple[int, str]]:
    return [(len(part) if part.isdigit() else 0, part) for part in path.parts]


class _Foreign(Exception):
    """A pickle of the published program that cannot be read; the message says why."""


def _published(data: dict[str, Any], path: Path) -> Record:
    try:
        made = Record(**published.record_fields(data, path))
        _check_prefixes(made)
    except UserError as error:
        raise _Foreign(str(error)) from None
    return made


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else 0.0


def _current(data: dict[str, Any]) -> dict[str, Any]:
    """A record as it is spelled now; UserError where it and its identity are of two questions or drafters."""
    identity = fields.take(data, "identity", fields.is_dict)
    question_id = fields.take(data, "question_id", fields.is_count)
    name = fields.take(data, "drafter_name", fields.is_str)
    for key, value in (("question_id", question_id), ("drafter", name)):
        if identity.get(key) != value:
            raise UserError(f"identity has {key} {fields.shown(identity, key)}, the record {value!r}")
    identity = current(identity)
    return data | {"identity": identity, "drafter_name": identity["drafter"]}


def _former_origin(provenance: dict[str, Any], rounds: list[Round]) -> str:
    """Where a record is from that does not say so: a look into a trace took no time, a target's pass does."""
    if "replayed" in provenance:
        return REPLAY
    return LIVE if any(turn.verify_ms for turn in rounds) else TRACE


def _rounds_of(entries: list[Any], prompt_len: int) -> list[Round]:
    rounds = []
    for index, entry in enumerate(entries):
        try:
            rounds.append(Round.from_builtins(entry, prompt_len))
        except UserError as error:
            raise UserError(f"round {index}: {error}") from None
    return rounds


def _check_prefixes(record: Record) -> None:
    expected = len(record.prompt_ids)
    for index, turn in enumerate(record.rounds):
        if turn.prefix_len != expected:
            raise UserError(f"round {index}: prefix_len is {turn.prefix_len}, not {expected}")
        expected += len(turn.emitted_tokens)
