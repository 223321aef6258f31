"""What a server process needs around its sockets: a bell, file limits, signals."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

FILES_PER_CALL = 1
"""Descriptors of an open call: its socket."""


class Bell:
    """Wakes a thread that waits in ``select``: the waiter watches the bell, others ring it.

    Ringing is allowed from any thread, from signal handlers, and after the bell is closed.
    """

    def __init__(self) -> None:
        self._near, self._far = socket.socketpair()
        self._near.setblocking(False)
        self._far.setblocking(False)
        # Reentrant, for a signal may come while its own thread rings.
        self._lock = threading.RLock()
        self._closed = False

    def fileno(self) -> int:
        """For selectors; readable when it has been rung."""
        return self._near.fileno()

    def ring(self) -> None:
        """Wake the waiter; many rings before it wakes are one."""
        with (
            self._lock
        ):  # so that the number of a closed socket, perhaps reused, is never written to
            if not self._closed:
                with contextlib.suppress(BlockingIOError):
                    self._far.send(b"!")

    def hush(self) -> None:
        """Forget the rings so far; the waiter calls this when it wakes."""
        with contextlib.suppress(BlockingIOError):
            while len(self._near.recv(4096)) == 4096:
                pass

    def close(self) -> None:
        """Free the sockets."""
        with self._lock:
            self._closed = True
            self._near.close()
            self._far.close()


def make_selector() -> selectors.BaseSelector:
    """A selector for few sockets that, unlike ``select``, works beyond descriptor 1023, and unlike
    ``epoll`` takes no descriptor of its own."""
    return getattr(selectors, "PollSelector", selectors.DefaultSelector)()


def raise_file_limit() -> int:
    """Lift this process's soft limit of open files to the hard one; the limit that now holds.

    The usual soft limit of 1,024 ends at some 900 calls.
    """
    try:
        import resource
    except ImportError:  # not a POSIX system
        return 512
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        hard = max(soft, 1 << 20)
    if soft < hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


class StoppedEarly(BaseException):
    """A signal has come before there was anything to stop in order."""


class Signals:
    """What SIGINT and SIGTERM do: the first one stops, a second one ends the process at once.

    Until ``hand_over`` is called, stopping means that :class:`StoppedEarly` is raised in the main
    thread.
    """

    def __init__(self) -> None:
        self._stop: Callable[[], None] | None = None
        self._seen = False

    def hand_over(self, stop: Callable[[], None]) -> None:
        """From now on the first signal calls ``stop``.

        Raises:
            StoppedEarly: it has come already, and somebody on the way has swallowed that.
        """
        self._stop = stop
        if self._seen:
            raise StoppedEarly

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._seen:
            os._exit(128 + number)
        self._seen = True
        if self._stop is None:
            raise StoppedEarly
        self._stop()


@contextlib.contextmanager
def signals() -> Iterator[Signals]:
    """Within, SIGINT and SIGTERM are handled as :class:`Signals` says.

    Only in the main thread. The handlers from before are put back at the end.
    """
    handling = Signals()
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, handling._handle) for number in numbers}
    try:
        yield handling
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def before_signals(act: Callable[[Callable[[], None]], None]) -> Iterator[None]:
    """Within, something is done before SIGINT or SIGTERM reach the handlers of another's server.

    The first one calls ``act(go_on)``, on the main thread between two of its instructions; the
    handler from before is called once ``go_on`` is, on the main thread too. A second one goes
    through at once. Nothing is changed outside the main thread, or where the handler is none of
    Python's.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    seen: list[int] = []

    def handler_of(number: int, before: Callable[[int, FrameType | None], Any]) -> Any:
        def handle(number: int, frame: FrameType | None) -> None:
            seen.append(number)
            if len(seen) == 1:
                act(lambda: before(number, frame))
            else:
                before(number, frame)

        return handle

    ours = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        before = signal.getsignal(number)
        if callable(before):
            ours[number] = handler_of(number, before), before
            signal.signal(number, ours[number][0])
    try:
        yield
    finally:
        for number, (own, before) in ours.items():
            if signal.getsignal(number) is own:  # else somebody has set another since
                signal.signal(number, before)
