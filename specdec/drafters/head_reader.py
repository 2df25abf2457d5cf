"""Head reader: what the live drafters of all heads share, how they take in the target's hidden states. Of no family."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from specdec.decoding.loop import Drafter
from specdec.decoding.target import Verification
from specdec.models.heads import HeadNetwork

if TYPE_CHECKING:
    from torch import Tensor

Network = TypeVar("Network", bound=HeadNetwork)


class HeadReader(Drafter, Generic[Network]):
    """A head answers. What it is given of the target waits until it is asked: its passes are under the clock."""

    def attach(self, network: Network) -> None:
        """Read what this head reads, for it."""
        self.network, self.taps = network, network.taps
        self._waiting: list[Tensor] = []

    def reset(self, features: Tensor | None = None) -> None:
        self.network.clear()
        self._waiting = [] if features is None else [features]

    def observe(self, verification: Verification) -> None:
        if verification.features is not None:
            self._waiting.append(verification.features)

    def taken(self) -> list[Tensor]:
        """What has waited, in the order of the text; it is handed out once."""
        waiting, self._waiting = self._waiting, []
        return waiting
