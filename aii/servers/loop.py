"""One thread that drives all calls: whose socket has something, who was rung, whose time has come.

A thread per call costs more than the call: at 1,000 live calls its wake-ups and the hand-overs of
Python's lock took four cores, this loop less than half of one (``benchmarks/LOG.md``). What a call
does when it is stepped must therefore never block, and an error of one must not reach another.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import logging
import selectors
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from aii.servers.lifecycle import Bell

log = logging.getLogger(__name__)

TICK = 0.004
"""Seconds by which something may be done early, so that more is done at once."""

LONGEST_SLEEP = 5.0
"""Seconds after which a member that waits for a later moment is stepped all the same."""


class Member(Protocol):
    """What a loop drives. Its methods are called on the loop's thread alone, and never block."""

    def fileno(self) -> int:
        """Its socket, the same for as long as it is a member."""

    def step(self, ready: int) -> None:
        """Do what is due; ``ready`` has the events of ``selectors`` that the socket is ready for.

        An exception ends the membership.
        """

    @property
    def wanted(self) -> int:
        """The events of ``selectors`` that it waits for, 0 for none."""

    @property
    def due(self) -> float | None:
        """When it wants to be stepped whatever happens, by the loop's clock; None is never."""

    @property
    def gone(self) -> bool:
        """Whether it is to be forgotten."""

    def leave(self) -> None:
        """It has been forgotten: free what it holds."""


M = TypeVar("M", bound=Member)


class _Seat(Generic[M]):
    """A member and what the loop knows of it."""

    __slots__ = ("alarm", "member", "rung", "watched")

    def __init__(self, member: M) -> None:
        self.member = member
        self.watched = 0
        self.alarm: float | None = None  # the time of its entry among the alarms
        self.rung = False


class Loop(Generic[M]):
    """Runs from ``start`` until ``stop``, then until its last member has gone.

    Args:
        clock: seconds, monotonic.
        name: of the thread.
    """

    def __init__(
        self, *, clock: Callable[[], float] = time.monotonic, name: str = "aii-calls"
    ) -> None:
        self._clock = clock
        self._selector = selectors.DefaultSelector()
        self._bell = Bell()
        self._selector.register(self._bell, selectors.EVENT_READ)
        self._seats: dict[M, _Seat[M]] = {}
        self._rung: deque[_Seat[M]] = deque()
        self._alarms: list[tuple[float, int, _Seat[M]]] = []
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._ending = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def __len__(self) -> int:
        """Members."""
        return len(self._seats)

    def members(self) -> list[M]:
        """All members now."""
        with self._changed:
            return list(self._seats)

    def add(self, member: M) -> None:
        """Drive ``member`` from now on; from any thread."""
        with self._changed:
            self._seats[member] = seat = _Seat(member)
        self._ring(seat)

    def ring(self, member: M) -> None:
        """Have ``member`` stepped soon; from any thread, and nothing where it is none any more."""
        seat = self._seats.get(member)
        if seat is not None:
            self._ring(seat)

    def _ring(self, seat: _Seat[M]) -> None:
        if not seat.rung:
            seat.rung = True
            self._rung.append(seat)
            self._bell.ring()

    def wait_until_empty(self, timeout: float) -> bool:
        """Wait for the last member to go; whether it has, within ``timeout`` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._seats, timeout)

    def stop(self, timeout: float = 0.0) -> bool:
        """End once there is no member left; whether that was within ``timeout`` seconds."""
        self._ending = True
        self._bell.ring()
        if self._thread.ident is not None:
            self._thread.join(timeout)
        if self._thread.is_alive():
            return False
        self._bell.close()
        self._selector.close()
        return True

    # The thread.

    def _run(self) -> None:
        while not (self._ending and not self._seats):
            for key, events in self._selector.select(self._patience()):
                if key.data is None:
                    self._bell.hush()
                else:
                    self._step(key.data, events)
            for _ in range(len(self._rung)):
                seat = self._rung.popleft()
                seat.rung = False  # first: what rings from now on is for the next time
                self._step(seat, 0)
            self._let_time_pass()

    def _patience(self) -> float:
        """Seconds to sleep if nothing happens."""
        if self._rung:
            return 0.0
        if not self._alarms:
            return LONGEST_SLEEP
        return min(max(self._alarms[0][0] - self._clock(), 0.0), LONGEST_SLEEP)

    def _let_time_pass(self) -> None:
        """Step those whose time has come; whose time comes again meanwhile, later."""
        soon, due = self._clock() + TICK, []
        while self._alarms and self._alarms[0][0] <= soon:
            moment, _, seat = heapq.heappop(self._alarms)
            if seat.alarm == moment:  # else an earlier one has been set since
                seat.alarm = None
                due.append(seat)
        for seat in due:
            self._step(seat, 0)

    def _step(self, seat: _Seat[M], ready: int) -> None:
        member = seat.member
        if self._seats.get(member) is not seat:
            return
        try:
            member.step(ready)
            gone = member.gone
            if not gone:
                self._watch(seat, member.wanted)
                self._set_alarm(seat, member.due)
        except Exception:
            log.exception("a connection ends because of a mistake of ours")
            gone = True
        if gone:
            self._forget(seat)

    def _watch(self, seat: _Seat[M], wanted: int) -> None:
        """Have the selector look at the member's socket for ``wanted`` events, possibly none."""
        if wanted == seat.watched:
            return
        fd = seat.member.fileno()
        if not seat.watched:
            self._selector.register(fd, wanted, seat)
        elif not wanted:
            self._selector.unregister(fd)
        else:
            self._selector.modify(fd, wanted, seat)
        seat.watched = wanted

    def _set_alarm(self, seat: _Seat[M], due: float | None) -> None:
        """Step the member at ``due``. An alarm that is set for earlier stays: it asks again then.

        One that is overtaken stays among the alarms until its time, which is why none is set for
        later than ``LONGEST_SLEEP``.
        """
        if due is None:
            return
        due = min(due, self._clock() + LONGEST_SLEEP)
        if seat.alarm is None or due < seat.alarm:
            seat.alarm = due
            heapq.heappush(self._alarms, (due, next(self._numbers), seat))

    def _forget(self, seat: _Seat[M]) -> None:
        with contextlib.suppress(Exception):
            self._watch(seat, 0)
        try:
            seat.member.leave()
        except Exception:
            log.exception("a connection ends untidily because of a mistake of ours")
        seat.alarm = None
        with self._changed:
            del self._seats[seat.member]
            self._changed.notify_all()
