"""Stop: a signal's wish that a run end after its current round. What a stopped run keeps is not decided here."""

import signal
from typing import Self


class StopRequest:
    """SIGINT and SIGTERM stop the run after the current round; a second SIGINT stops it at once.

    A cluster may send SIGTERM several times, to the script and to all its processes; that is one request. An
    exception raised wherever the signal happens to come can end in the middle of a library's own code, which may
    abort the process instead.
    """

    def __init__(self) -> None:
        self.signal: int | None = None

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """Raise KeyboardInterrupt if a stop has been asked for."""
        if self.signal is not None:
            raise KeyboardInterrupt

    def _note(self, number: int, _frame: object) -> None:
        if number == signal.SIGINT:
            self.check()
        self.signal = number
