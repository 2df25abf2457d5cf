"""Train drafters for a target: failfast train NAME ..."""

from __future__ import annotations

from collections.abc import Sequence

from specdec.commands.dispatch import dispatch


def verb(arguments: Sequence[str]) -> int:
    return dispatch("failfast train", "training", arguments)
