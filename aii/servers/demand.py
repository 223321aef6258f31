"""How many calls the engine works for, and so how busy one more would make it. Pure.

Late answers tell of too many calls only when the windows of all of them have come, seconds after
the last was accepted. What a call costs is known before: the engine's work of the last seconds,
shared among the calls that had windows in them.
"""

from __future__ import annotations

from collections import deque

from aii.engine.api import SPAN

FORESEEN = 0.8
"""How busy the engine's busier thread may become by one more call. Not 1: windows come unevenly,
and two threads that are both at work are slower than each by itself."""

KNOWN_FOR = 600.0
"""Seconds for which the cost of a call is remembered."""

TELLING = 0.25
"""Share of the open calls that must have been at work for their cost to be taken from them."""


class Demand:
    """The calls of a server (each leg by itself) and when they are at work. The owner locks."""

    def __init__(self) -> None:
        self._open: dict[str, list[float]] = {}
        self._over: deque[tuple[float, float]] = deque()
        self._legs = 0
        self._cost = 0.0
        self._told = 0.0

    def begin(self, call_id: str, works_from: float) -> None:
        """A call, or a further leg of it, begins, and has its first window at ``works_from``."""
        self._open.setdefault(call_id, []).append(works_from)
        self._legs += 1

    def end(self, call_id: str, now: float) -> None:
        """A leg of the call is over."""
        begun = self._open[call_id]
        self._over.append((begun.pop(), now))
        self._legs -= 1
        if not begun:
            del self._open[call_id]
        while self._over[0][1] <= now - SPAN:
            self._over.popleft()

    def at_work(self, now: float) -> float:
        """So many calls' windows came within the last ``SPAN`` seconds; those in part count so."""
        since = now - SPAN
        own = [(begun, now) for calls in self._open.values() for begun in calls]
        spans = (min(end, now) - max(begun, since) for begun, end in (*own, *self._over))
        return sum(span for span in spans if span > 0) / SPAN

    def foreseen(self, busy: float, now: float) -> float:
        """How busy the engine will be with all calls and one more; 0 if that cannot be told.

        Args:
            busy: how busy the calls have made it within the last ``SPAN`` seconds.
        """
        working = self.at_work(now)
        if working >= max(1.0, TELLING * self._legs):
            self._cost, self._told = busy / working, now
        elif now - self._told > KNOWN_FOR:
            self._cost = 0.0
        return self._cost * (self._legs + 1)
