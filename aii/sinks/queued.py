"""A queue before somebody who takes one event at a time and may be gone for a while."""

from __future__ import annotations

import logging
import threading
from collections import deque

from aii.sinks.base import OTHERS, droppable
from aii.streaming.events import CallEnded, Event, Final

log = logging.getLogger(__name__)

FINALS = 100_000
"""Finals and ends of calls held for a peer that is gone; beyond them new ones are lost."""


LAST_TRIES = 3
"""Attempts at an event while the sink is being closed: a lost connection is made again."""


class QueuedSink:
    """Hands events to ``_deliver``, one after the other, on a thread of its own.

    What ``_deliver`` raises as OSError is tried again, at longer and longer intervals, in order.
    Meanwhile events are held: beyond ``size`` no partials, beyond ``OTHERS`` times that only finals
    and ends of calls, and of those ``FINALS`` (in memory: they do not outlive the server).

    Args:
        name: what the log calls this sink.
        size: see above.
        first, most: seconds between attempts, at first and at most.
    """

    def __init__(
        self, *, name: str, size: int = 1000, first: float = 0.5, most: float = 30.0
    ) -> None:
        self.dropped = 0
        self.lost = 0
        self._name = name
        self._size = size
        self._first, self._most = first, most
        self._held: deque[Event] = deque()
        self._flying = 0
        self._changed = threading.Condition()
        self._closing = False
        self._trouble = False
        self._thread = threading.Thread(target=self._run, name=f"aii-{name}", daemon=True)

    def start(self) -> None:
        """Begin to deliver; at the end of a subclass's construction."""
        self._thread.start()

    # For subclasses.

    def _wanted(self, event: Event) -> bool:
        """Whether the event is for this sink at all."""
        return True

    def _deliver(self, event: Event) -> None:
        """Bring the event to the peer; OSError if that is to be tried again."""
        raise NotImplementedError

    def _hang_up(self) -> None:
        """Let go of the peer: it failed, or all is over."""

    # For everybody.

    @property
    def pending(self) -> int:
        """Events that the peer does not have yet."""
        with self._changed:
            return len(self._held) + self._flying

    def emit(self, event: Event) -> None:
        """Hold the event for the peer; drop it if it may be and too much is held."""
        if not self._wanted(event):
            return
        with self._changed:
            if self._closing:
                return
            last = isinstance(event, Final | CallEnded)
            room = FINALS if last else self._size * (1 if droppable(event) else OTHERS)
            if len(self._held) < room:
                self._held.append(event)
                self._changed.notify_all()
            elif last:
                self.lost += 1
            else:
                self.dropped += 1

    def close(self, timeout: float = 0.0) -> bool:
        """Deliver what is held within ``timeout`` seconds; whether the thread has ended."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(timeout)
        with self._changed:
            lost = self.lost + self._flying + len(self._held)
        if lost:
            log.error("%s: %d events are lost", self._name, lost)
        if self.dropped:
            log.warning("%s was too slow: %d events were dropped", self._name, self.dropped)
        return not self._thread.is_alive()

    # The thread.

    def _run(self) -> None:
        while (event := self._next()) is not None:
            if not self._try(event):
                break
        self._hang_up()

    def _next(self) -> Event | None:
        with self._changed:
            self._flying = 0
            self._changed.wait_for(lambda: self._held or self._closing)
            if not self._held:
                return None
            self._flying = 1
            return self._held.popleft()

    def _try(self, event: Event) -> bool:
        """Deliver, again and again if need be; False if the end came first."""
        failures = 0
        while True:
            try:
                self._deliver(event)
            except OSError as error:
                self._hang_up()
                failures += 1
                self._say(error)
                with self._changed:
                    if self._closing and failures >= LAST_TRIES:
                        return False
                    wait = min(self._first * 2.0 ** min(failures - 1, 30), self._most)
                    if self._closing:
                        self._changed.wait(wait)
                    else:
                        self._changed.wait_for(lambda: self._closing, wait)
            except Exception:  # whatever it is: it must not end the queue
                log.exception("%s: an event is lost by a mistake of ours", self._name)
                self.lost += 1
                return True
            else:
                if self._trouble:
                    self._trouble = False
                    log.warning("%s is reached again", self._name)
                return True

    def _say(self, error: OSError) -> None:
        if not self._trouble:
            self._trouble = True
            why = "no answer in time" if isinstance(error, TimeoutError) else ""
            why = why or error.strerror or str(error) or type(error).__name__
            log.warning("%s cannot be reached: %s; finals wait", self._name, why)
