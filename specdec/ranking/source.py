"""Source: what makes question 0 of one run another question than question 0 of another: target, data set, prompts,
budget, arithmetic and sampling. Not the question itself, and not the drafter.
"""

import re
from dataclasses import dataclass, fields
from typing import Any

from specdec.records.fields import is_count, is_number
from specdec.records.record import Record

_TEXTS = ("target", "dataset", "dtype", "device", "prompt_style", "thinking", "name")
_COUNTS = ("max_new_tokens", "top_k")
_DEGREES = ("temperature", "top_p")
_SAID_WITH_NAME = ("prompt_style", "thinking", "temperature", "top_k", "top_p")


@dataclass(frozen=True)
class Source:
    """Where an entry's question comes from; a part that is not known is empty or None.

    `prompt_style`: empty where prompts are ours. `thinking`: "on" or "off"; empty: as the chat template has it.
    `temperature`, `top_k`, `top_p`: None where the target is greedy.
    `name`: what a log or a file that states none of
    the parts is called. Sources are ordered by title, as people see them.
    """

    target: str = ""
    dataset: str = ""
    max_new_tokens: int | None = None
    dtype: str = ""
    device: str = ""
    prompt_style: str = ""
    thinking: str = ""
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    name: str = ""

    @classmethod
    def of(cls, record: Record) -> "Source":
        """A record's. Values of other types, which no record of ours has, are left out."""
        identity = record.identity.to_builtins()
        known = {part.name for part in fields(cls)} - {"name"}
        return cls(**{key: value for key, value in identity.items() if key in known and _is_valid(key, value)})

    @classmethod
    def from_builtins(cls, data: Any) -> "Source":
        """The inverse of `to_builtins`; also of the title alone, which is all that files of before hold. ValueError or
        TypeError for anything else."""
        if isinstance(data, str):
            return _of_title(data)
        made = cls(**data)
        wrong = [key for key, value in data.items() if value != getattr(cls, key) and not _is_valid(key, value)]
        if wrong:
            raise ValueError(f"source has the {wrong[0]} {data[wrong[0]]!r:.40}")
        return made

    def to_builtins(self) -> dict[str, Any]:
        """The parts that are known, as JSON data."""
        return {key: value for key, value in vars(self).items() if value not in ("", None)}

    @property
    def title(self) -> str:
        """For people: `"bundled gsm8k 1024 float32 cpu"`; of sampled runs also `"temperature 1.0"` and so on."""
        if self.name:
            return self.name
        return " ".join(
            f"{key} {value}" if key in _SAID_WITH_NAME else str(value) for key, value in self.to_builtins().items()
        )

    @property
    def is_sampled(self) -> bool:
        return self.temperature is not None

    def __lt__(self, other: "Source") -> bool:
        return self._order < other._order

    @property
    def _order(self) -> tuple[str, ...]:
        return self.title, *map(repr, vars(self).values())


def _is_valid(key: str, value: Any) -> bool:
    if key in _TEXTS:
        return type(value) is str
    if key in _COUNTS:
        return is_count(value)
    return is_number(value)


# A title as it was written into logs and JSON files before they held the parts. Only a target can have spaces.
_TITLE = re.compile(
    r"(?P<target>.+) (?P<dataset>(?!top_k )\S+) (?P<max_new_tokens>\d{1,15})"
    r"(?: (?P<dtype>float32|bfloat16|float16))?(?: (?P<device>(?:cpu|cuda|mps)\S*))?"
    r"(?: temperature (?P<temperature>[\d.e+-]+))?(?: top_k (?P<top_k>\d{1,15}))?(?: top_p (?P<top_p>[\d.e+-]+))?"
)


def _of_title(title: str) -> Source:
    """A source from its title; a title of another form is a name."""
    found = _TITLE.fullmatch(title)
    if found is None:
        return Source(name=title)
    parts: dict[str, Any] = {key: value for key, value in found.groupdict().items() if value is not None}
    try:
        parts |= {key: int(parts[key]) for key in _COUNTS if key in parts}
        parts |= {key: float(parts[key]) for key in _DEGREES if key in parts}
    except ValueError:
        return Source(name=title)
    made = Source(**parts)
    return made if made.title == title else Source(name=title)
