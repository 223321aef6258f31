"""The interface of a sink, and the queue that stands between a call and a slow output."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Protocol, TextIO

from aii.streaming.events import CallEnded, Event, Final, Partial, Skipped

log = logging.getLogger(__name__)

OTHERS = 4
"""Beyond so many times a sink's size, everything but finals and ends is dropped."""


class Sink(Protocol):
    """Takes the events of all calls; never blocks and never raises."""

    def emit(self, event: Event) -> None:
        """Take one event; may be called from any thread."""

    def close(self, timeout: float = 0.0) -> bool:
        """Write what is still held within ``timeout`` seconds; whether all of it is out."""


class Output(Protocol):
    """Where a sink's bytes go."""

    def write(self, data: bytes) -> int | None:
        """Write the beginning of ``data``; how many bytes were taken. OSError: none were."""

    def close(self) -> None:
        """Let go of it."""


class TextOutput:
    """An output that is a text stream, which takes all or breaks for good."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, data: bytes) -> int:
        """Write and flush all of ``data`` (whole lines of UTF-8)."""
        self._stream.write(data.decode())
        self._stream.flush()
        return len(data)

    def close(self) -> None:
        """Close the stream."""
        self._stream.close()


def droppable(event: Event) -> bool:
    """Whether an event is dropped first when its reader is too slow: never a final or an end."""
    return isinstance(event, Partial) or (isinstance(event, Skipped) and not event.lost)


class LineSink:
    """Writes one line per event to an output, from a thread of its own.

    When the output does not take lines as fast as they come, up to ``size`` are held. Beyond that
    partials are dropped, beyond ``OTHERS`` times that everything but finals and ends of calls:
    those are held however many they are, for a second of speech is only some twenty bytes of text.

    When the output breaks, that is logged once and lines go nowhere from then on; with ``retry``
    they are held as above and written once it works again. What was lost is said at the end.

    Args:
        output: where lines go.
        line: the event's line without its end, or None for no line.
        name: what the log calls this sink.
        size: lines held before partials are dropped.
        owned: whether to close the output at the end.
        retry: seconds after which, at the latest, a failed write is tried again; 0 is never.
    """

    def __init__(
        self,
        output: Output,
        line: Callable[[Event], str | None],
        *,
        name: str,
        size: int = 1000,
        owned: bool = False,
        retry: float = 0.0,
    ) -> None:
        self.dropped = 0
        self._output = output
        self._line = line
        self._name = name
        self._size = size
        self._owned = owned
        self._retry = retry
        self._held: deque[str] = deque()
        self._flying = 0  # lines that are being written
        self._lost = 0
        self._said: set[str] = set()
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
            if self._closing:
                return
            if self._broken:
                self._lost += 1
            elif not self._drops(event):
                self._held.append(line + "\n")
                self._changed.notify()

    def _drops(self, event: Event) -> bool:
        """Whether there is no room for an event; counted, and said when it begins."""
        if isinstance(event, Final | CallEnded):
            return False
        first = droppable(event)
        if len(self._held) < self._size * (1 if first else OTHERS):
            return False
        self.dropped += 1
        what = "partial results are" if first else "all but finals and ends of calls is"
        if what not in self._said:
            self._said.add(what)
            log.warning("%s is too slow: %s dropped there", self._name, what)
        return True

    def close(self, timeout: float = 0.0) -> bool:
        """Write what is held within ``timeout`` seconds; say what was lost or dropped.

        Returns whether the writing thread has ended; one that is stuck in a write has not.
        """
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(timeout)
        stuck = self._thread.is_alive()
        with self._changed:
            lost = self._lost + self._flying + len(self._held)
        if stuck:
            log.error("%s takes no more: up to %d lines are lost", self._name, lost)
        elif lost:
            log.warning("%s: %d lines are lost", self._name, lost)
        if self.dropped:
            log.warning("%s was too slow: %d lines were dropped", self._name, self.dropped)
        return not stuck

    # The thread.

    def _run(self) -> None:
        try:
            while (data := self._next()) is not None:
                self._write(data)
        except Exception as error:  # whatever it is: a sink never harms a call
            with self._changed:
                self._broken = True
                self._lost += self._flying + len(self._held)
                self._flying = 0
                self._held.clear()
            log.error("%s cannot be written any more: %s", self._name, _why(error))
        finally:
            if self._owned:
                with contextlib.suppress(OSError):
                    self._output.close()

    def _next(self) -> bytes | None:
        """All lines that are held, or None when there is nothing more to come."""
        with self._changed:
            self._flying = 0
            self._changed.wait_for(lambda: self._held or self._closing)
            if not self._held:
                return None
            lines = "".join(self._held)
            self._flying = len(self._held)
            self._held.clear()
        return lines.encode("utf-8", "replace")

    def _write(self, data: bytes) -> None:
        """Write all of ``data``, trying again if that was asked for.

        Raises:
            OSError: it failed for good, or is failing while the sink is being closed.
        """
        failures = 0
        while data:
            closing = self._closing
            try:
                count = self._output.write(data)
                if not count:
                    raise OSError("nothing was taken")
            except OSError as error:
                if not self._retry or closing:
                    raise
                if failures == 0:
                    log.error(
                        "%s cannot be written: %s; it is tried again and again, finals are kept",
                        self._name,
                        _why(error),
                    )
                self._pause(self._retry / 2 ** max(3 - failures, 0))
                failures += 1
                continue
            data = data[count:]
            with self._changed:
                self._flying = data.count(b"\n")
            if failures:
                failures = 0
                log.warning("%s is written again", self._name)

    def _pause(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._closing, seconds)


def _why(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
