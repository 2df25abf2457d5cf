"""How many examples a property is tried on, and which: the same ones each time, or with FAILFAST_EXAMPLES others.

What a commit is judged by does not depend on chance. FAILFAST_EXAMPLES=20, or `make fuzz`, tries 20 times as many.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

_TIMES = os.environ.get("FAILFAST_EXAMPLES")


def many(num_examples: int) -> settings:
    """This number of examples of a property, or FAILFAST_EXAMPLES times as many."""
    return settings(max_examples=num_examples * int(_TIMES or 1))


def load_profile() -> None:
    """Examples have no time limit, and slow ones are not a failure: both would depend on how busy the machine is."""
    unhurried = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
    settings.register_profile("any machine", many(100), derandomize=not _TIMES, **unhurried)
    settings.load_profile("any machine")
