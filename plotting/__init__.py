"""Figures from records, traces and rankings: one file per figure, each run as `python -m plotting.NAME`."""

import sys

from specdec.errors import exit_status, require_package


def _has_what_it_needs() -> bool:
    """Whether figures can be drawn. A command that could not (`python -m` sets argv[0] to "-m" while it looks for the
    module) ends here, with one line."""
    status = exit_status("python -m plotting", lambda: require_package("matplotlib")) if sys.argv[:1] == ["-m"] else 0
    if status:
        sys.exit(status)
    return True


CAN_DRAW = _has_what_it_needs()
