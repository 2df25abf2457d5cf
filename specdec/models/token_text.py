"""Token bytes: what every token id stands for, read from a tokenizer.json as it lies on disk.

Loads no tokenizer library and fetches nothing. It only takes tokens apart: `tokens.py` makes tokens of a text.
`specdec/views/trajectory.py` decides what people are shown of the bytes.
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from specdec.errors import MALFORMED, UserError
from specdec.models.checkpoints import BUNDLED, BUNDLED_DIR, SMOLLM2, TARGET
from specdec.models.config_fields import is_count

FILE_NAME = "tokenizer.json"
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


@dataclass(frozen=True)
class TokenBytes:
    """`by_id`: the bytes that a token adds to a text. `specials`: ids that are not text, and their names."""

    by_id: dict[int, bytes]
    specials: dict[int, str]


def read_token_bytes(path: str | Path) -> TokenBytes:
    """The tokens of a tokenizer.json, or of a folder with one. Raises UserError for anything else."""
    file = Path(path)
    file = file / FILE_NAME if file.is_dir() else file
    try:
        return token_bytes_of(json.loads(file.read_text(encoding="utf-8")))
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror or error}; give a {FILE_NAME}") from None
    except MALFORMED:
        raise UserError(f"{file} is no {FILE_NAME} of the tokenizers library") from None


def token_bytes_of(tokenizer: dict[str, Any]) -> TokenBytes:
    """The tokens of a tokenizer.json's content: BPE, Unigram or WordPiece, byte level or with "▁" for a space.

    A word-level one, which has no decoder, joins its words by spaces, as the library does.
    """
    decoders = set(_types(tokenizer.get("decoder")))
    vocabulary = tokenizer["model"]["vocab"]
    if isinstance(vocabulary, list):
        vocabulary = {piece: index for index, (piece, _) in enumerate(vocabulary)}
    if "ByteLevel" in decoders:
        byte_of = {character: byte for byte, character in enumerate(_byte_characters())}
        by_id = {index: _byte_level(piece, byte_of) for piece, index in vocabulary.items()}
    elif "WordPiece" in decoders:
        # What goes on with a word begins with "##"; a new word is written after a space.
        by_id = {index: f" {piece}".removeprefix(" ##").encode() for piece, index in vocabulary.items()}
    elif decoders:
        by_id = {index: _sentence_piece(piece) for piece, index in vocabulary.items()}
    else:
        by_id = {index: f" {piece}".encode() for piece, index in vocabulary.items()}
    added = {one["id"]: one for one in tokenizer.get("added_tokens") or ()}
    by_id |= {index: str(one["content"]).encode() for index, one in added.items()}
    specials = {index: str(one["content"]) for index, one in added.items() if one.get("special")}
    if not all(map(is_count, (*by_id, *added))):
        raise ValueError("a token without an id")
    return TokenBytes(by_id, specials)


def stored_tokens(name: str, is_needed: bool) -> Callable[[], TokenBytes] | None:
    """What reads the tokens of a target, by its name; None, or a UserError if needed, where no tokenizer is here."""
    found = find_tokenizer(name)
    if found is None and is_needed:
        raise UserError(f"the tokenizer of {name!r} is not on this machine: name the target's folder")
    return None if found is None else partial(read_token_bytes, found)


def find_tokenizer(name: str) -> Path | None:
    """The tokenizer.json of a target: bundled, smollm2, a folder, or a name in the hub's cache; None without one."""
    if name == BUNDLED:
        return BUNDLED_DIR / TARGET.bundled_folder / FILE_NAME
    folder = Path(name).expanduser()
    if name == SMOLLM2:
        from specdec.models.smollm2 import smollm2_folder

        try:
            folder = smollm2_folder()
        except (UserError, OSError):
            return None
    if (folder / FILE_NAME).is_file():
        return folder / FILE_NAME
    return _in_hub_cache(name)


def _in_hub_cache(name: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(name, FILE_NAME)
    except (HFValidationError, OSError):
        return None
    return Path(found) if isinstance(found, str) else None


def _types(decoder: dict[str, Any] | None) -> Iterator[str]:
    if decoder:
        yield decoder["type"]
        for part in decoder.get("decoders", ()):
            yield from _types(part)


def _byte_characters() -> list[str]:
    """Byte-level BPE's printable character for each byte: itself, or the next unused one from U+0100 on."""
    kept = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in kept else next(others)) for byte in range(0x100)]


def _byte_level(piece: str, byte_of: dict[str, int]) -> bytes:
    try:
        return bytes([byte_of[character] for character in piece])
    except KeyError:
        return piece.encode()


def _sentence_piece(piece: str) -> bytes:
    found = _BYTE.fullmatch(piece)
    return bytes([int(found[1], 16)]) if found else piece.replace("▁", " ").encode()
