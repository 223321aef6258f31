"""The socket of one call, on which nobody waits: what comes and what goes.

Reading and writing take what the socket has and give what it takes. What a client does not read
stays in a bounded outbox.

A live call sends 50 frames a second, and being woken for each of them costs far more than the
frame. So once a stream has shown that it is live, nobody watches its socket: its frames gather for
60 ms and are read together. A pause ends that, and so does a framing that is just measuring one.
"""

from __future__ import annotations

import selectors
import socket
import threading
from collections.abc import Callable

from aii.servers.loop import TICK
from aii.sinks.socket import Outbox

CHUNK = 65536
"""Bytes read at once."""

LINGER = 10.0
"""Seconds that a client may leave our last bytes unread before we close."""

DRAIN = 1.0
"""Seconds that a client has to close after we have; closing on unread bytes would reset it."""

GATHER = 0.06
"""Seconds for which the bytes of a live stream gather."""

LIVE = 0.05
"""Seconds that bytes of a live stream are apart, at most, ..."""

PROVEN = 0.2
"""... for so many seconds before they are gathered, ..."""

LIVE_RATE = 400_000
"""... and bytes per second: 48 kHz in stereo is half of that; a file comes faster."""


class _Space(threading.local):
    """Where all calls of a thread read to, one after the other. Each listener has a thread."""

    def __init__(self) -> None:
        self.buffer = bytearray(CHUNK)


_space = _Space()


class Line:
    """One call's socket, which ``close`` closes.

    Attributes:
        outbox: replies.
        control: bytes that the framing itself says; they go before the replies.
        takes_text: whether replies may be written at all.
        received: bytes that have come.
        last_byte: when the last of them were read.
        pause: seconds for which nothing came before them; where they had gathered, at most so many.
        end: "" while the client may send, then "eof" or "connection reset".
        trouble: what the first failed read or write said, or "".
    """

    def __init__(self, sock: socket.socket, outbox: Outbox, clock: Callable[[], float]) -> None:
        self.outbox = outbox
        self.control = bytearray()
        self.takes_text = True
        self.received = 0
        self.last_byte = clock()
        self.pause = 0.0
        self.end = ""
        self.trouble = ""
        self._sock = sock
        self._clock = clock
        self._gathering = False
        self._since = self.last_byte  # the last byte came at this time or later
        self._proof = self.last_byte  # since when the stream looks live,
        self._proven = 0  # and how many bytes have come since
        self._leaving = False  # we have said goodbye,
        self._until = 0.0  # and are gone by then
        sock.setblocking(False)

    def fileno(self) -> int:
        """The socket's number."""
        return self._sock.fileno()

    def close(self) -> None:
        """Free the socket."""
        self._sock.close()

    @property
    def unsent(self) -> int:
        """Bytes that wait to be written."""
        return len(self.control) + (len(self.outbox) if self.takes_text else 0)

    def wanted(self, reading: bool) -> int:
        """The events to wait for; ``reading``: bytes are wanted as they come."""
        read = selectors.EVENT_READ if reading and not self.end else 0
        return read | selectors.EVENT_WRITE if self.unsent else read

    @property
    def gathered(self) -> float | None:
        """When the bytes that gather are to be read; None where none are let gather."""
        return self.last_byte + GATHER if self._gathering and not self.end else None

    def ready(self, events: int, now: float) -> bool:
        """Whether there may be something to read, after ``events`` of the socket."""
        if events & selectors.EVENT_READ:
            return True
        return self._gathering and not self.end and now >= self.last_byte + GATHER - TICK

    def read(self) -> bytes | None:
        """What the socket has: bytes, none (b"") at the end, None when nothing is there now."""
        buffer = _space.buffer
        try:
            count = self._sock.recv_into(buffer)
        except (BlockingIOError, InterruptedError):
            self._gathering = False
            return None
        except OSError as error:
            self._fail(error)
            self.end = "connection reset"
            return b""
        if count:
            self.received += count
            self._note(self._clock(), count)
            return bytes(memoryview(buffer)[:count])
        # A reset that a write has met first looks like an end of file here.
        self.end = "connection reset" if self.trouble else "eof"
        self.outbox.half_closed()
        return b""

    def rest(self) -> None:
        """The silence so far was ours: we did not read."""
        self.last_byte = self._since = self._clock()
        self._gathering = False

    def _note(self, now: float, count: int) -> None:
        """Bytes have come: how long the pause before them was, and whether the stream is live."""
        self.pause = now - self._since
        self._since = self.last_byte if self._gathering else now
        self.last_byte = now
        self._proven += count
        if self._gathering:
            self._gathering = count <= GATHER * LIVE_RATE
        elif self.pause > LIVE:
            self._proof, self._proven = now, 0
        elif (elapsed := now - self._proof) >= PROVEN:
            self._gathering = self._proven <= elapsed * LIVE_RATE
            self._proof, self._proven = now, 0

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

    # After the call.

    @property
    def gone_by(self) -> float:
        """When ``part`` is to be called at the latest."""
        return self._until

    def part(self, events: int) -> bool:
        """The last replies, then a clean end. Called until it says that all is done."""
        now = self._clock()
        if not self._until:
            self._until = now + LINGER
            if not self.takes_text:
                self.outbox.mute()
        if events & selectors.EVENT_READ:
            self.read()
        if self._leaving:
            return self.end != "" or now >= self._until
        if self.write():
            self._until = now + LINGER
        if self.unsent and now < self._until:
            return False
        if self.end:
            return True
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            return True
        self._leaving, self._until = True, now + DRAIN
        return False

    def _fail(self, error: OSError) -> None:
        self.trouble = self.trouble or error.strerror or str(error)
