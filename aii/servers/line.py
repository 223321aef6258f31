"""The socket of one call, on which nobody waits: what comes, what goes, and a bell.

Reading and writing take what the socket has and give what it takes. What a client does not read
stays in a bounded outbox.
"""

from __future__ import annotations

import selectors
import socket
from collections.abc import Callable

from aii.servers.lifecycle import Bell, make_selector
from aii.sinks.socket import Outbox

CHUNK = 65536
"""Bytes read at once."""

LINGER = 10.0
"""Seconds that a client may leave our last bytes unread before we close."""

DRAIN = 1.0
"""Seconds that a client has to close after we have; closing on unread bytes would reset it."""

LONGEST_WAIT = 3600.0
"""Seconds; the system's calls take no more than 24 days."""


class Line:
    """One call's socket, which ``close`` closes.

    Attributes:
        outbox: replies.
        control: bytes that the framing itself says; they go before the replies.
        takes_text: whether replies may be written at all.
        received: bytes that have come.
        last_byte: when the last of them came.
        end: "" while the client may send, then "eof" or "connection reset".
        trouble: what the first failed read or write said, or "".
    """

    def __init__(self, sock: socket.socket, outbox: Outbox, clock: Callable[[], float]) -> None:
        self.outbox = outbox
        self.control = bytearray()
        self.takes_text = True
        self.received = 0
        self.last_byte = clock()
        self.end = ""
        self.trouble = ""
        self._sock = sock
        self._clock = clock
        self._bell = Bell()
        self._selector = make_selector()
        self._watched = 0

    def open(self) -> None:
        """Before anything else, on the call's thread."""
        self._sock.setblocking(False)
        self._selector.register(self._bell, selectors.EVENT_READ)

    def ring(self) -> None:
        """Wake the thread that waits; from any thread."""
        self._bell.ring()

    def close(self) -> None:
        """Free the sockets."""
        self._selector.close()
        self._sock.close()
        self._bell.close()

    @property
    def unsent(self) -> int:
        """Bytes that wait to be written."""
        return len(self.control) + (len(self.outbox) if self.takes_text else 0)

    def wait(self, timeout: float | None, *, reading: bool = True) -> bool:
        """Wait for the socket or the bell; whether the socket has something to read."""
        reading = reading and not self.end
        wanted = selectors.EVENT_READ * reading | selectors.EVENT_WRITE * (self.unsent > 0)
        if wanted != self._watched:
            if self._watched:
                self._selector.unregister(self._sock)
            if wanted:
                self._selector.register(self._sock, wanted)
            self._watched = wanted
        readable = False
        timeout = LONGEST_WAIT if timeout is None else min(timeout, LONGEST_WAIT)
        for key, events in self._selector.select(timeout):
            if key.fileobj is self._bell:
                self._bell.hush()
            else:
                readable = bool(events & selectors.EVENT_READ)
        return readable

    def read(self) -> bytes | None:
        """What the socket has: bytes, none (b"") at the end, None when nothing is there now."""
        try:
            data = self._sock.recv(CHUNK)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError as error:
            self._fail(error)
            self.end = "connection reset"
            return b""
        if data:
            self.received += len(data)
            self.last_byte = self._clock()
        else:
            # A reset that a write has met first looks like an end of file here.
            self.end = "connection reset" if self.trouble else "eof"
            self.outbox.half_closed()
        return data

    def write(self) -> bool:
        """Write what the socket takes; whether anything went out."""
        wrote = False
        while self.unsent:
            control = bool(self.control)
            data = bytes(self.control) if control else self.outbox.peek()
            try:
                count = self._sock.send(data)
            except (BlockingIOError, InterruptedError):
                break
            except OSError as error:
                self._fail(error)
                self.control.clear()
                self.outbox.mute()
                break
            wrote = True
            if control:
                del self.control[:count]
            else:
                self.outbox.wrote(count)
        return wrote

    def part(self, aborted: Callable[[], bool]) -> None:
        """After the call: the last replies, then a clean end, unless it is ``aborted``."""
        if not self.takes_text:
            self.outbox.mute()
        until = self._clock() + LINGER
        while self.unsent and not aborted() and self._clock() < until:
            if self.wait(until - self._clock()):
                self.read()
            if self.write():
                until = self._clock() + LINGER
        if self.end:
            return
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            return
        until = self._clock() + DRAIN
        while not self.end and not aborted() and self._clock() < until:
            if self.wait(until - self._clock()):
                self.read()

    def _fail(self, error: OSError) -> None:
        self.trouble = self.trouble or error.strerror or str(error)
