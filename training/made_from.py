"""Made from: what a finished step of a training was made from, kept beside its output and compared before it is reused.

It says nothing of steps that are half done: their checkpoints and partial answers have identities of their own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from specdec.errors import UserError, user_error
from specdec.models.checkpoints import find_model, fingerprint
from specdec.records.identity import first_difference
from specdec.records.pickles import plain, write_atomic
from training.export import TOKENIZER_FILES
from training.models import TRAINED

SCHEMA = 1  # one more whenever the same settings make something else


def note_path(output: Path) -> Path:
    """`note_path(Path("work/answers.npz")).name == "answers.npz.made_from.json"`."""
    return output.with_name(output.name + ".made_from.json")


def is_made(output: Path, asked: Mapping[str, Any]) -> bool:
    """Whether `output` is there, made from just that. Raises UserError where it is there and was made otherwise."""
    if not output.exists():
        return False
    path = note_path(output)
    advice = "use another folder, or remove it to have it made again"
    if not path.is_file():
        raise UserError(f"{output} does not say what it was made from (no {path.name}): {advice}")
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        stored = None
    if not isinstance(stored, dict):
        raise UserError(f"{path} is damaged, so that nobody knows what {output} was made from: {advice}")
    difference = first_difference(stored, _whole(asked))
    if difference is not None:
        raise UserError(f"{output} was made with other settings ({difference}): {advice}")
    return True


def note(output: Path, asked: Mapping[str, Any]) -> None:
    """Write down what `output` is going to be made from: before it is, so that none is ever without."""
    path = note_path(output)
    with user_error(f"write {path}", "choose another folder"):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, (json.dumps(_whole(asked), indent=1) + "\n").encode())


def target_facts(target_dir: Path) -> dict[str, str]:
    """Which model a target is, and in which words it is asked."""
    files = [target_dir / name for name in TOKENIZER_FILES]
    return {
        "target_sha256": fingerprint(find_model(TRAINED, str(target_dir))),
        "tokenizer_sha256": sha256(path.read_bytes() for path in files if path.is_file()),
    }


def text_facts(name: str, texts: Iterable[str]) -> dict[str, Any]:
    """How many texts, and which: `{"num_NAME": ..., "NAME_sha256": ...}`."""
    found = [text.encode("utf-8", "surrogatepass") for text in texts]
    return {f"num_{name}": len(found), f"{name}_sha256": sha256(found)}


def sha256(parts: Iterable[bytes]) -> str:
    """Of parts in their order, each kept apart from the next."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()


def _whole(asked: Mapping[str, Any]) -> dict[str, Any]:
    return plain({**asked, "schema": SCHEMA})
