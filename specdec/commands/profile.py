"""Measure what passes and tokens cost: failfast profile NAME ..."""

from __future__ import annotations

from collections.abc import Sequence

from specdec.commands.dispatch import dispatch


def verb(arguments: Sequence[str]) -> int:
    return dispatch("failfast profile", "profiling", arguments)
