"""Served: how a server with speculative decoding of its own is told to draft as a drafter here does, in its own words.

What a family is called there stands in the family's file (`Spec.serving`); how each server takes it stands here. A
server that has no words for a drafter does not have it. Not here: starting or asking servers (`profiling/serving/`).

Sources: vLLM's docs/features/speculative_decoding (`--speculative-config`), SGLang's
docs/advanced_features/speculative_decoding, as in November 2026.
"""

import json
import shlex
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from specdec.drafters.base import Spec

Setting = str | int | float

MODEL = "{model}"  # stands for the drafter's checkpoint in a family's words
UNKNOWN_MODEL = "DRAFTER"


@dataclass(frozen=True)
class Words:
    """Parts of a command line, which may stand on lines of their own; `ending`: what a line then ends with."""

    parts: tuple[str, ...]
    ending: str = ""

    @property
    def text(self) -> str:
        return " ".join(self.parts)

    def lines(self, width: int) -> list[str]:
        """As many parts on a line as fit; the shell reads them as one command."""
        found: list[str] = []
        for part in self.parts:
            fits = found and len(found[-1]) + 1 + len(part) + len(self.ending) <= width
            found = [*found[:-1], f"{found[-1]} {part}"] if fits else [*found, part]
        return [*(line + self.ending for line in found[:-1]), *found[-1:]]


def _vllm(settings: Mapping[str, Setting]) -> Words:
    """One flag with a JSON object. Lines may end between its members: that is white space to JSON."""
    members = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in settings.items())
    return Words(tuple(f"--speculative-config {shlex.quote(f'{{{members}}}')}".split("\n")))


def _sglang(settings: Mapping[str, Setting]) -> Words:
    flags = (f"--speculative-{key} {shlex.quote(str(value))}" for key, value in settings.items())
    return Words(tuple(flags), ending=" \\")


SERVERS: Mapping[str, Callable[[Mapping[str, Setting]], Words]] = {"vLLM": _vllm, "SGLang": _sglang}


def words_of(spec: Spec, server: str, model: str | None = None) -> Words | None:
    """What the server is started with to draft so; None where it does not have it. `model`: the drafter's checkpoint.

    Example: `words_of(ArStatic(8), "SGLang", "m").text` begins with "--speculative-algorithm STANDALONE".
    """
    if not spec.is_served(server):
        return None
    draft_len = spec.chain_len({})
    known = {**vars(spec), "model": model or UNKNOWN_MODEL, "num_verified": draft_len + 1}
    settings = {
        key: pattern.format(**known) if pattern == MODEL else _value(pattern.format(**known))
        for key, pattern in spec.serving[server].items()
    }
    return SERVERS[server](settings)


def _value(text: str) -> Setting:
    """A number where the text is one."""
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text
