"""Log lines and whatever else goes to standard error, without anybody waiting for its reader.

A pipe that nobody drains, or a terminal that is stopped, blocks who writes to it. That must be one
thread of ours and never a call, the engine, or the main thread, which has to see signals.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import threading
import warnings
from collections import deque
from collections.abc import Iterator
from typing import TextIO

HELD = 1 << 20
"""Characters that wait for a slow reader; further text is dropped and counted."""


class QueuedStream(io.TextIOBase):
    """A text stream that never blocks: what is written goes to ``stream`` on a thread of its own.

    Args:
        stream: where the text goes in the end.
        most: characters held; text beyond them is dropped whole, and how often is said when there
            is room again.
    """

    def __init__(self, stream: TextIO, *, most: int = HELD) -> None:
        super().__init__()
        self.dropped = 0
        self._stream = stream
        self._most = most
        self._held: deque[str] = deque()
        self._size = 0
        self._unsaid = 0
        self._ending = False
        self._broken = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="aii-log", daemon=True)
        self._thread.start()

    def write(self, text: str) -> int:
        """Hold ``text`` for writing, or drop it when too much is held."""
        with self._changed:
            if self._ending or self._broken:
                return len(text)
            if self._size + len(text) > self._most:
                self.dropped += 1
                self._unsaid += 1
                return len(text)
            self._held.append(text)
            self._size += len(text)
            self._changed.notify()
        return len(text)

    def isatty(self) -> bool:
        """Whether the stream behind is a terminal."""
        return self._stream.isatty()

    def writable(self) -> bool:
        return True

    def finish(self, timeout: float) -> bool:
        """Write what is held within ``timeout`` seconds; whether the thread has come to rest."""
        with self._changed:
            self._ending = True
            self._changed.notify()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            while (text := self._next()) is not None:
                self._stream.write(text)
                self._stream.flush()
        except Exception:  # and there is no place left to say so
            with self._changed:
                self._broken = True
                self._held.clear()

    def _next(self) -> str | None:
        """All that is held, or None when there is nothing more to come."""
        with self._changed:
            self._changed.wait_for(lambda: self._held or self._ending)
            if self._unsaid:
                self._held.append(
                    f"aii: {self._unsaid} lines were dropped here: nobody read them\n"
                )
                self._unsaid = 0
            if not self._held:
                return None
            text = "".join(self._held)
            self._held.clear()
            self._size = 0
            return text


@contextlib.contextmanager
def logging_to(stream: TextIO, level: str) -> Iterator[QueuedStream]:
    """Within: log lines of ``level`` and above, warnings, and ``sys.stderr`` go to ``stream``
    through a queue. The caller finishes the queue."""
    queue = QueuedStream(stream)
    handler = logging.StreamHandler(queue)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    root = logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(level.upper())
    try:
        with contextlib.redirect_stderr(queue), warnings.catch_warnings():
            warnings.showwarning = _log_warning
            yield queue
    finally:
        root.removeHandler(handler)
        root.setLevel(before)


def _log_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: object = None,
    line: str | None = None,
) -> None:
    logging.getLogger("aii").warning("%s", " ".join(str(message).split()))


class Once:
    """For the log of one call: the first of each kind is logged, further ones are counted."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._counts: dict[str, int] = {}

    def log(self, kind: str, level: int, message: str, *args: object) -> None:
        """Log a line unless one of this ``kind`` (a noun in the plural) has been."""
        self._counts[kind] = self._counts.get(kind, 0) + 1
        if self._counts[kind] == 1:
            self._logger.log(level, message, *args)

    def more(self) -> str:
        """What was counted and not logged, as the end of a sentence; "" where nothing was."""
        more = [f"{n - 1} more {kind}" for kind, n in self._counts.items() if n > 1]
        return "; " + ", ".join(more) if more else ""


def fill_standard_streams() -> None:
    """Put the null device where this process was started without a standard stream (``>&-``).

    Otherwise the next file or socket that is opened gets the number of a standard stream, and
    ``print`` to a missing stderr goes to stdout.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this one
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
