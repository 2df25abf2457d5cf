"""Places: which record of a results folder is whose, also where an older version put it. Not what a record holds.

A record is what its identity says, wherever it lies. Names once held no first window and no rule: a record of another
window or rule may lie, a guest, under the name of the published ones. It counts as what it is, and is not in the way.
"""

import contextlib
import logging
from pathlib import Path

from specdec.errors import UserError, user_error
from specdec.records.identity import PUBLISHED, Identity, former_name
from specdec.records.record import Record, find_records, load_record, save_record

OVERWRITE = "use --overwrite or another --output_dir"
log = logging.getLogger("failfast")


def place_of(path: Path) -> Path | None:
    """Where the record that goes to `path` lies: there, or as a guest under its drafter's former name; None where none
    does. A damaged file is whatever its place says."""
    name = path.parent.name
    former = path.parent.with_name(former_name(name)) / path.name
    with contextlib.suppress(UserError):
        if path.exists():
            return None if former == path and _is_guest(load_record(path), path) else path
        return former if former.exists() and load_record(former).drafter_name == name else None
    return path if path.exists() else None


def load_finished(path: str | Path, identity: Identity, advice: str = OVERWRITE) -> Record | None:
    """The record that goes to `path` if it was made under `identity`; None if there is none.

    UserError for a damaged record, and for one made under another identity: the first difference, and `advice`.
    """
    path = Path(path)
    with user_error(f"read {path}"):
        place = path if path.exists() else place_of(path)
    record = None if place is None else load_record(place)
    if record is None or record.drafter_name != identity.drafter == former_name(record.drafter_name):
        return None
    if record.identity.origin == PUBLISHED:
        raise UserError(f"{place} was made by the published program: {advice}")
    record.identity.require(identity, f"{place} was made", advice)
    return record


def load_records(output_dir: str | Path) -> list[Record]:
    """All records of a results folder, or of a folder in it, but guests that are also where they would be put today.

    UserError for a damaged one.
    """
    found = [(path, load_record(path)) for path in find_records(output_dir)]
    return [one for path, one in found if not _is_guest(one, path) or not _own_place(one, path).exists()]


def put_record(record: Record, path: Path, text: str | None = None) -> None:
    """`save_record`, after a guest at `path` was copied to its own place: nothing is lost. Raises UserError."""
    if path.exists():
        with contextlib.suppress(UserError):  # a damaged one
            _keep_guest(path)
    save_record(record, path, text)


def _keep_guest(path: Path) -> None:
    guest = load_record(path)
    own = _own_place(guest, path)
    if not _is_guest(guest, path) or own.exists():
        return
    beside = path.with_suffix(".txt")
    save_record(guest, own, beside.read_text(encoding="utf-8") if beside.exists() else None)
    log.warning("%s: an older version's record of %s, kept at %s", path, guest.drafter_name, own)


def _is_guest(record: Record, path: Path) -> bool:
    return record.drafter_name != path.parent.name == former_name(record.drafter_name)


def _own_place(record: Record, path: Path) -> Path:
    """Where a record that lies at `path` would be put today."""
    return path.parent.with_name(record.drafter_name) / path.name
