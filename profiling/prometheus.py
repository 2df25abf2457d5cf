"""Prometheus: its text format, read. What the metrics mean is `speculation.py`'s.

Source: the text exposition format 0.0.4; OpenMetrics' exemplars and timestamps are read past.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_NAME = re.compile(r"[a-zA-Z_:][\w:]*")
_LABEL = re.compile(r'\s*([a-zA-Z_]\w*)\s*=\s*"((?:[^"\\]|\\.)*)"\s*,?')
_ESCAPES = {"\\\\": "\\", '\\"': '"', "\\n": "\n"}


@dataclass(frozen=True)
class Sample:
    """One line: a name, its labels and a number (which may be infinite or none)."""

    name: str
    labels: dict[str, str]
    value: float


def parse_metrics(text: str) -> list[Sample]:
    """All samples of a page. Raises ValueError that quotes the first line which is none.

    `parse_metrics('a_total{b="c"} 3.0')` is `[Sample("a_total", {"b": "c"}, 3.0)]`.
    """
    stripped = (line.strip() for line in text.splitlines())
    return [_sample(line) for line in stripped if line and not line.startswith("#")]


def _sample(line: str) -> Sample:
    name = _NAME.match(line)
    if name is None:
        raise ValueError(f"not a metric: {line[:80]!r}")
    rest, labels = line[name.end() :].lstrip(), {}
    if rest.startswith("{"):
        end = 1
        for found in _labels(rest):
            labels[found[1]] = re.sub(r'\\[\\"n]', lambda match: _ESCAPES[match[0]], found[2])
            end = found.end()
        end = rest.find("}", end)
        if end < 0:
            raise ValueError(f"labels without an end: {line[:80]!r}")
        rest = rest[end + 1 :]
    try:
        return Sample(name[0], labels, float(rest.split()[0]))
    except (ValueError, IndexError):
        raise ValueError(f"a metric without a number: {line[:80]!r}") from None


def _labels(text: str) -> Iterator[re.Match[str]]:
    """The labels behind the opening brace, one after the other."""
    found = _LABEL.match(text, 1)
    while found is not None:
        yield found
        found = _LABEL.match(text, found.end())


def sum_of(samples: Sequence[Sample], name: str) -> float | None:
    """The sum of a counter over all its labels, with or without its "_total"; None if it is not there."""
    values = [sample.value for sample in samples if sample.name in (name, f"{name}_total")]
    return sum(values) if values else None


def mean_of(samples: Sequence[Sample], name: str) -> float | None:
    """The mean of a gauge over all its labels; None if it is not there."""
    values = [sample.value for sample in samples if sample.name == name]
    return sum(values) / len(values) if values else None
