"""Trace: one question's target text and every drafter's chains along it; its schema, file, path and checks.

One `.npz` per question: numpy arrays and a JSON text, nothing that could be executed. No torch.
"""

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

from specdec.decoding.chains import ARRAYS, Chains
from specdec.decoding.offers import KINDS, Offers
from specdec.decoding.stopping import cut_after_stop
from specdec.decoding.target import count_accepted
from specdec.drafters.base import Spec
from specdec.errors import MALFORMED, UserError, user_error
from specdec.records import fields
from specdec.records.identity import Identity, current_name
from specdec.records.pickles import write_atomic
from specdec.records.record import identity_path
from specdec.records.turns import row_of

VERSION = 3
CHAINS_ALONE = 2  # what a trace without offers is written as: programs of before read it
READ = 1, CHAINS_ALONE, VERSION
_UNREADABLE = (
    *MALFORMED,
    *(EOFError, MemoryError, RuntimeError),  # RuntimeError: encrypted
    *(zipfile.BadZipFile, zlib.error, struct.error),
)


_STATED = {
    "provenance": fields.is_dict,
    "raw_data": fields.is_dict,
    "prompt_ids": fields.is_tokens,
    "output_tokens": fields.is_tokens,
    "output_text": fields.is_str,
}
_CHAINS = {"name": fields.is_str, "identity": fields.is_dict, "chain_len": fields.is_count}
_OFFERS = {
    "kind": lambda value: value in KINDS,
    "name": fields.is_str,
    "identity": fields.is_dict,
    "size": fields.is_count,
}


@dataclass(frozen=True)
class Trace:
    """What one question gave: the target's greedy text and, per drafter, the chains after each of its prefixes.

    `identity` is that of the question's plain decoding record: models, settings, budget. `output_tokens` end with
    a stop token or at the budget; `gaps` are the differences between the best and the second logit at each.
    Chain i of `chains[NAME]` starts after the prompt and the first i output tokens; so do `offers`, of which trees are
    made.
    """

    identity: Identity
    provenance: dict[str, Any]
    raw_data: dict[str, Any]
    prompt_ids: list[int]
    output_tokens: list[int]
    gaps: list[float]
    output_text: str
    chains: dict[str, Chains]
    offers: dict[str, Offers] = field(default_factory=dict)

    @property
    def question_id(self) -> int:
        return self.identity.question_id

    @property
    def stop_ids(self) -> frozenset[int]:
        return frozenset(self.identity.settings["stop_ids"])

    @property
    def num_prefixes(self) -> int:
        """Prefixes after which at least one token can be drafted: not the last one before the budget's end."""
        return num_prefixes(len(self.output_tokens), self.identity.max_new_tokens)

    def chains_of(self, spec: Spec) -> Chains:
        """The chains that `spec` drafts from. Raises UserError if they were not recorded."""
        found = self.chains.get(spec.chains_name or "")
        if found is None or found.chain_len < spec.chain_len({}):
            found = spec.derived_chains(self) or found
        if found is None:
            raise UserError(
                f"the trace of question {self.question_id} has no chains for {spec.name} (it has: "
                f"{', '.join(sorted(self.chains)) or 'none'}): record it with failfast.py --record and this drafter"
            )
        return found

    def offers_of(self, spec: Spec) -> Offers:
        """What `spec` makes trees of. Raises UserError if it was not recorded."""
        found = self.offers.get(spec.chains_name or "")
        if found is None:
            raise UserError(
                f"the trace of question {self.question_id} has no offers for {spec.name} (it has: "
                f"{', '.join(sorted(self.offers)) or 'none'}): record it with failfast.py --record and this drafter"
            )
        return found

    def recorded_of(self, spec: Spec) -> Chains | Offers | None:
        """What `spec` drafts from; None where it drafts from the text alone. Raises UserError if that is not there."""
        if spec.chains_name is None:
            return None
        return self.offers_of(spec) if spec.parts[-1].is_tree else self.chains_of(spec)

    def draftable(self, at: int, tokens: Sequence[int]) -> list[int]:
        """Of the tokens of a chain after `at` output tokens those that can be drafted: within the budget, and none
        after a stop token."""
        return cut_after_stop(list(tokens[: max(0, self.identity.max_new_tokens - at - 1)]), self.stop_ids)

    def match(self, at: int, tokens: Sequence[int]) -> int:
        """How many tokens of a draft after `at` output tokens the text has too."""
        return count_accepted(tokens, self.output_tokens[at : at + len(tokens)])

    def to_bytes(self) -> bytes:
        meta = {key: value for key, value in vars(self).items() if key not in ("chains", "offers", "gaps")}
        version = VERSION if self.offers else CHAINS_ALONE
        meta |= {"version": version, "identity": self.identity.to_builtins()}
        meta |= {"chains": [[c.name, c.identity, c.chain_len] for c in self.chains.values()]}
        if self.offers:
            meta |= {"offers": [[one.kind, one.name, one.identity, one.size] for one in self.offers.values()]}
        text = np.frombuffer(json.dumps(meta).encode(), np.uint8)
        arrays: dict[str, Any] = {"meta": text, "gaps": np.array(self.gaps, np.float32)}
        for index, chains in enumerate(self.chains.values()):
            arrays |= {f"{index}_{key}": array for key, array in chains.arrays.items()}
        for index, offers in enumerate(self.offers.values()):
            arrays |= {f"offers_{index}_{key}": array for key, array in offers.arrays.items()}
        file = io.BytesIO()
        np.savez_compressed(file, **arrays)
        return file.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """The inverse of `to_bytes`. Raises UserError, or one of `_UNREADABLE`, for anything else."""
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            meta = json.loads(arrays["meta"].tobytes())
            version = fields.take(meta, "version", fields.is_count)
            if version not in READ:
                raise UserError(f"another version of the format than {VERSION}")
            made = [
                Chains(**described, arrays={key: current(arrays[f"{index}_{key}"], version) for key in ARRAYS})
                for index, described in enumerate(_described(meta, "chains", _CHAINS))
            ]
            listed = _described(meta, "offers", _OFFERS) if version == VERSION else []
            offers = [_offers(arrays, index, **one) for index, one in enumerate(listed)]
            gaps = arrays["gaps"].tolist()
        if unknown := meta.keys() - {"version", "identity", "chains", "offers", *_STATED}:
            raise UserError(f"has an unknown part {min(unknown)!r}")
        own = Identity.from_builtins(fields.take(meta, "identity", fields.is_dict))
        stated = {key: fields.take(meta, key, is_valid) for key, is_valid in _STATED.items()}
        trace = cls(
            **stated,
            identity=own,
            gaps=gaps,
            chains={chains.name: chains for chains in made},
            offers={one.name: one for one in offers},
        )
        trace.check()
        return trace

    def check(self) -> None:
        """UserError unless all parts fit each other."""
        for key, is_valid in (("prompt_sha256", fields.is_str), ("stop_ids", fields.is_tokens)):
            fields.take(dict(self.identity.settings), key, is_valid)
        if self.identity.is_sampled:
            raise UserError("traces are of greedy runs")
        for tokens in (self.prompt_ids, self.output_tokens):
            if not tokens or not fields.is_tokens(tokens):
                raise UserError("prompt or output is not a list of tokens")
        if not self.stop_ids.isdisjoint(self.output_tokens[:-1]):
            raise UserError("the output goes on after a stop token")
        if not fields.is_floats(self.gaps) or len(self.gaps) != len(self.output_tokens):
            raise UserError("not one gap per output token")
        everything: list[Chains | Offers] = [*self.chains.values(), *self.offers.values()]
        for recorded in everything:
            recorded.check()
            if recorded.num_prefixes != self.num_prefixes:
                what = f"{recorded.num_prefixes} {'chains' if isinstance(recorded, Chains) else 'offers'}"
                raise UserError(f"{recorded.name}: {what} for {self.num_prefixes} prefixes")


def current(array: np.ndarray, version: int) -> np.ndarray:
    """An array of a file of this version as it is kept now: version 1 kept confidences as float32."""
    return array.astype(np.float64) if version == 1 and array.dtype == np.float32 else array


def _described(meta: dict[str, Any], part: str, keys: Mapping[str, Callable[[Any], bool]]) -> list[dict[str, Any]]:
    """What a trace's text says of each drafter's `part`. Raises UserError, or ValueError for a number of them."""
    listed = [dict(zip(keys, one, strict=True)) for one in fields.take(meta, part, fields.is_list)]
    found = [{key: fields.take(one, key, is_valid) for key, is_valid in keys.items()} for one in listed]
    return [one | {"name": current_name(one["name"])} for one in found]


def _offers(arrays: Mapping[str, np.ndarray], index: int, *, kind: str, **described: Any) -> Offers:
    made = KINDS[kind]
    return made(**described, arrays={key: arrays[f"offers_{index}_{key}"] for key in made.dtypes})


def num_prefixes(num_output_tokens: int, max_new_tokens: int) -> int:
    """Prefixes of an output after which something can be drafted: the last token before the budget's end is the
    target's own."""
    return min(num_output_tokens, max_new_tokens - 1)


def trace_path(output_dir: str | Path, identity: Identity) -> Path:
    """OUTPUT_DIR/traces/TARGET/DATASET/QUESTION/MAX_NEW_TOKENS.npz; `identity` is the plain decoding record's."""
    below = identity_path(output_dir, identity).relative_to(Path(output_dir) / "pickles")
    return Path(output_dir) / "traces" / below.parent.parent / f"{identity.max_new_tokens}.npz"


def seems_whole(path: Path) -> bool:
    """Whether a file ends as a trace does: a look that takes no time, not a check of content."""
    try:
        return zipfile.is_zipfile(path)
    except OSError:
        return False


def save_trace(trace: Trace, path: Path) -> None:
    """Writes the file atomically. Raises UserError where that cannot be done."""
    trace.check()
    with user_error(f"write {path}", "choose another --output_dir"):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, trace.to_bytes())


def load_trace(path: str | Path) -> Trace:
    """Reads a trace, executing nothing. UserError names an unreadable, truncated or foreign file."""
    with user_error(f"read {path}"):
        try:
            return Trace.from_bytes(Path(path).read_bytes())
        except (UserError, *_UNREADABLE) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            what = f"{path} is not a whole trace of this program ({reason})"
            raise UserError(f"{what}: remove it and record again with failfast.py --record") from None


def load_matching(path: Path, identity: Identity) -> Trace | None:
    """The trace at `path` if it was made under `identity` (a plain decoding record's); None if there is no file.

    UserError names the first difference: another model, prompt, budget, device, ...
    """
    if not path.exists():
        return None
    trace = load_trace(path)
    trace.identity.require(identity, f"{path} was recorded", "use another --output_dir")
    return trace


def find_traces(folder: str | Path, question_ids: Sequence[int] | None = None) -> list[Path]:
    """The traces of a results folder, or of any folder in it, in the order of their questions: all, or those of these
    questions. UserError where there is none."""
    root = Path(folder)
    found = [root] if root.is_file() else [path for path in root.rglob("*.npz") if not path.name.startswith(".")]
    if not found:
        raise UserError(f"{folder} holds no traces: record some with failfast.py --record --output_dir {folder}")
    if question_ids is not None:
        missing = set(question_ids) - {_row(path) for path in found}
        if missing:
            raise UserError(f"{folder} holds no trace of question {min(missing)}: record it with failfast.py --record")
        found = [path for path in found if _row(path) in question_ids]
    return sorted(found, key=lambda path: [(len(part) if part.isdigit() else 0, part) for part in path.parts])


def _row(path: Path) -> int | None:
    """The row of the question that a trace's folder is named after."""
    name = path.parent.name
    return row_of(int(name)) if name.isascii() and name.isdigit() else None
