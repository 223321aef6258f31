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
"""Share of the open calls that must be at work for their cost to be taken from them."""

MEMORABLE = 3.0
"""Calls at work from which on their cost is remembered: one may be like no other."""


class Demand:
    """The calls of a server (each leg by itself) and when they are at work. The owner locks.

    A call is at work from its first window on, one ``step`` of audio after its beginning; and for
    one step more when it ends, as it then has a last window, however short it was.
    """

    def __init__(self) -> None:
        self._open: dict[str, list[tuple[float, float]]] = {}
        self._over: deque[tuple[float, float]] = deque()
        self._cost = 0.0
        self._told = float("-inf")

    def begin(self, call_id: str, now: float, step: float) -> None:
        """A call, or a further leg of it, begins, whose windows come every ``step`` seconds."""
        self._open.setdefault(call_id, []).append((now + step, step))

    def end(self, call_id: str, now: float) -> None:
        """A leg of the call is over; of several that which began first."""
        works_from, step = self._open[call_id].pop(0)
        self._over += [(works_from, now), (now, now + step)]
        if not self._open[call_id]:
            del self._open[call_id]
        while self._over and self._over[0][1] <= now - SPAN:
            self._over.popleft()

    def at_work(self, now: float) -> float:
        """So many calls' windows came within the last ``SPAN`` seconds; those in part count so."""
        return self._working(now) + sum(_within(*span, now) for span in self._over)

    def _working(self, now: float) -> float:
        """The same of the calls that are open."""
        return sum(_within(begun, now, now) for legs in self._open.values() for begun, _ in legs)

    def foreseen(self, busy: float, now: float) -> float:
        """How busy the engine will be with all calls and one more, as far as that can be told.

        Args:
            busy: how busy the calls have made it within the last ``SPAN`` seconds.
        """
        legs = sum(map(len, self._open.values()))
        working = self.at_work(now)
        cost = 0.0
        if working >= max(1.0, TELLING * legs):
            cost = busy / working
            if working >= MEMORABLE:
                self._cost, self._told = cost, now
        elif now - self._told <= KNOWN_FOR:
            cost = self._cost
        return busy + cost * (legs + 1 - self._working(now))


def _within(begin: float, end: float, now: float) -> float:
    """The share of the last ``SPAN`` seconds that lies from ``begin`` to ``end``."""
    return max(min(end, now) - max(begin, now - SPAN), 0.0) / SPAN
