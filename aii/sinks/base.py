"""The interface of a sink, and the queue that stands between a call and a slow output."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Protocol, TextIO

from aii.streaming.events import Event, Partial, Skipped

log = logging.getLogger(__name__)


class Sink(Protocol):
    """Takes the events of all calls; never blocks and never raises."""

    def emit(self, event: Event) -> None:
        """Take one event; may be called from any thread."""

    def close(self, timeout: float = 0.0) -> bool:
        """Write what is still held within ``timeout`` seconds; whether all of it is out."""


def droppable(event: Event) -> bool:
    """Whether an event may be dropped when its reader is too slow: never a final or an end."""
    return isinstance(event, Partial) or (isinstance(event, Skipped) and not event.lost)


class LineSink:
    """Writes one line per event to a text stream, from a thread of its own.

    When the stream does not take lines as fast as they come, up to ``size`` are held; beyond that,
    partials are dropped (and counted); finals are held however many they are, for a second of
    speech is only some twenty bytes of text. When the stream breaks, that is logged once and lines
    go nowhere from then on.

    Args:
        stream: where lines go.
        line: the event's line without its end, or None for no line.
        name: what the log calls this sink.
        size: lines held before partials are dropped.
        owned: whether to close the stream at the end.
    """

    def __init__(
        self,
        stream: TextIO,
        line: Callable[[Event], str | None],
        *,
        name: str,
        size: int = 1000,
        owned: bool = False,
    ) -> None:
        self.dropped = 0
        self._stream = stream
        self._line = line
        self._name = name
        self._size = size
        self._owned = owned
        self._held: deque[str] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._broken = False
        self._thread = threading.Thread(target=self._run, name=f"aii-{name}", daemon=True)
        self._thread.start()

    def emit(self, event: Event) -> None:
        """Hold the event's line for writing; drop it if it may be and the sink is full."""
        line = self._line(event)
        if line is None:
            return
        with self._changed:
            if self._broken or self._closing:
                return
            if len(self._held) >= self._size and droppable(event):
                self.dropped += 1
                if self.dropped == 1:
                    log.warning("%s is too slow: partial results are dropped there", self._name)
                return
            self._held.append(line + "\n")
            self._changed.notify()

    def close(self, timeout: float = 0.0) -> bool:
        """Write what is held within ``timeout`` seconds; say what was left or dropped.

        Returns whether the writing thread has ended; one that is stuck in a write has not.
        """
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(timeout)
        stuck = self._thread.is_alive()
        if stuck:
            log.error("%s takes no more: at least %d lines lost", self._name, len(self._held))
        if self.dropped:
            log.warning("%s was too slow: %d partial results dropped", self._name, self.dropped)
        return not stuck

    def _run(self) -> None:
        try:
            self._write_all()
        finally:
            if self._owned:
                with contextlib.suppress(OSError):
                    self._stream.close()

    def _write_all(self) -> None:
        while (lines := self._next()) is not None:
            try:
                self._stream.write(lines)
                self._stream.flush()
            except (OSError, ValueError) as error:
                log.error("%s cannot be written any more: %s", self._name, error)
                with self._changed:
                    self._broken = True
                    self._held.clear()
                return

    def _next(self) -> str | None:
        """All lines that are held, or None when there is nothing more to come."""
        with self._changed:
            self._changed.wait_for(lambda: self._held or self._closing)
            if not self._held:
                return None
            lines = "".join(self._held)
            self._held.clear()
            return lines
