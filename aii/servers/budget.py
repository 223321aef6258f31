"""How much undecoded audio all calls together may hold."""

from __future__ import annotations

import logging
import math
import threading

log = logging.getLogger(__name__)

EASY = 0.9
"""Share of a limit below which reading goes on, so that it does not stop and go with each byte."""


class Budget:
    """Seconds of audio that wait in all calls, and whether they are more than ``limit``.

    Calls report what they hold; while it is too much, those that hold more than one window needs
    stop reading. So a call can always go on to its next final, and the total falls.
    """

    def __init__(self, limit: float = math.inf) -> None:
        self._limit = limit
        self._total = 0.0
        self._over = False
        self._lock = threading.Lock()

    @property
    def over(self) -> bool:
        """Whether calls should hold less."""
        return self._over

    @property
    def total(self) -> float:
        """Seconds held."""
        return self._total

    def change(self, seconds: float) -> None:
        """A call holds so many seconds more (or, below 0, fewer) than it said before."""
        if not seconds:
            return
        with self._lock:
            self._total += seconds
            before = self._over
            self._over = self._total > self._limit * (EASY if before else 1.0)
            changed, total = before != self._over, self._total
        if changed and before:
            log.warning("%.0f s of audio wait in all calls: all are read again", total)
        elif changed:
            log.warning(
                "%.0f s of audio wait in all calls, more than --max-backlog-total: calls that hold "
                "more than one window are not read until they are fewer",
                total,
            )
