"""Earlier: the questions that a run asks before one, and the target's own greedy answers to them, for drafters that
read those. Which questions these are is a part of a record's identity; their answers follow from it.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

ONE_TURN = "drafters that read earlier answers take questions of one turn: give --turns first"


@dataclass(frozen=True)
class Earlier:
    """`questions`: each one's number and the SHA-256 of its prompt, in the order of the run. `read` gives the tokens of
    the answers to them, in that order, when a drafter begins; it raises UserError where one is not there."""

    questions: Sequence[tuple[int, str]] = ()
    read: Callable[[], Sequence[Sequence[int]]] = field(default=list, repr=False, compare=False)

    @property
    def settings(self) -> dict[str, Any]:
        """What an identity says of them."""
        digest = hashlib.sha256(json.dumps([list(one) for one in self.questions]).encode()).hexdigest()
        return {"earlier_questions": len(self.questions), "earlier_sha256": digest}


NOTHING = Earlier()
