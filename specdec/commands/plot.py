"""Draw a figure or a table: failfast plot NAME INPUT... --out FILE."""

from __future__ import annotations

from collections.abc import Sequence

from specdec.commands.dispatch import dispatch


def verb(arguments: Sequence[str]) -> int:
    return dispatch("failfast plot", "plotting", arguments)
