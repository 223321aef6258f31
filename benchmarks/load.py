"""Many calls at once from one thread: frames in real time, evenly spread, replies read.

Call number i of n sends its frames at i / n of each period, as calls do that begin at any time, so
the load is the same in every millisecond. A frame that the server does not take at once stays
in the call's own line and is sent before the next ones: nothing is left out.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

STAMP = struct.Struct("<Q")
"""Microseconds of the monotonic clock, at the start of frames that are stamped."""


@dataclass(eq=False)
class Call:
    """One call and what became of it.

    Attributes:
        number: 0 to n - 1.
        audio: SLIN that it sends, from the start again when it ends.
        stamped: whether frames begin with the time they were sent.
        delay: seconds of ``Load.run`` before its first frame.
        ahead: frames that come at once with the first one.
        sent: frames that were due so far and are on the way.
        began: when its first frame went out.
        backlog: bytes that the server has not taken yet.
        received: bytes that came back and are not taken by the reader.
        error: why the connection broke, or "".
    """

    number: int
    sock: socket.socket
    audio: memoryview
    stamped: bool = False
    delay: float = 0.0
    ahead: int = 0
    sent: int = 0
    began: float = 0.0
    backlog: deque[bytes] = field(default_factory=deque)
    received: bytearray = field(default_factory=bytearray)
    error: str = ""


class Load:
    """Calls against a server.

    Args:
        address: host and port.
        frame: bytes per frame.
        period: seconds from one frame of a call to its next.
        on_reply: called with a call and the time when something has come back from it.
    """

    def __init__(
        self,
        address: tuple[str, int],
        *,
        frame: int = 640,
        period: float = 0.02,
        on_reply: Callable[[Call, float], None] | None = None,
    ) -> None:
        self.calls: list[Call] = []
        self.latest = 0.0
        """Seconds by which the latest frame left too late: our own delay, not the server's."""
        self.stalls = 0
        """Times that the server did not take a frame at once."""
        self._address = address
        self._frame = frame
        self._period = period
        self._on_reply = on_reply
        self._ran = 0.0
        self._selector = selectors.DefaultSelector()

    def __enter__(self) -> Load:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def add(self, preamble: bytes, audio: bytes, *, stamped: bool = False) -> Call:
        """Open one more call, which sends ``preamble`` now and audio once ``run`` runs."""
        whole = len(audio) // self._frame * self._frame
        sock = socket.create_connection(self._address, timeout=30)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.sendall(preamble)
        sock.setblocking(False)
        call = Call(len(self.calls), sock, memoryview(audio)[:whole], stamped)
        self.calls.append(call)
        self._selector.register(sock, selectors.EVENT_READ, call)
        return call

    def run(self, seconds: float) -> None:
        """Send for so long; may be called again to go on."""
        count = max(len(self.calls), 1)
        step = self._period / count
        begin = time.monotonic()
        total = round(seconds / self._period) * len(self.calls)
        position = 0
        while position < total:
            now = time.monotonic()
            due = min(int((now - begin) / step) + 1, total)
            if due > position:
                self.latest = max(self.latest, now - begin - position * step)
            while position < due:
                call = self.calls[position % count]
                if call.delay <= self._ran + position * step:
                    self._send(call)
                position += 1
            self._listen(max(0.0, min(begin + position * step - time.monotonic(), 0.001)))
        self._ran += total * step

    def finish(self, timeout: float) -> None:
        """Half-close every call and read until the server has closed them all."""
        until = time.monotonic() + timeout
        for call in self.calls:
            while call.backlog and not call.error and time.monotonic() < until:
                self._flush(call)
                self._listen(0.001)
            with contextlib.suppress(OSError):
                call.sock.shutdown(socket.SHUT_WR)
        while self._selector.get_map() and time.monotonic() < until:
            self._listen(0.05)

    def close(self) -> None:
        """Close whatever is open."""
        self._selector.close()
        for call in self.calls:
            call.sock.close()

    def _send(self, call: Call) -> None:
        offset = call.sent * self._frame % len(call.audio)
        count = 1 if call.sent else 1 + call.ahead
        data: bytes | memoryview = call.audio[offset : offset + count * self._frame]
        if call.stamped:
            data = STAMP.pack(time.monotonic_ns() // 1000) + bytes(data[STAMP.size :])
        if not call.sent:
            call.began = time.monotonic()
        call.sent += count
        if call.error:
            return
        if call.backlog:
            call.backlog.append(bytes(data))
            self._flush(call)
            return
        try:
            taken = call.sock.send(data)
        except BlockingIOError:
            taken = 0
        except OSError as error:
            call.error = error.strerror or str(error)
            return
        if taken < len(data):
            self.stalls += 1
            call.backlog.append(bytes(data[taken:]))

    def _flush(self, call: Call) -> None:
        try:
            while call.backlog:
                data = call.backlog[0]
                taken = call.sock.send(data)
                if taken < len(data):
                    call.backlog[0] = data[taken:]
                    return
                call.backlog.popleft()
        except BlockingIOError:
            return
        except OSError as error:
            call.error = error.strerror or str(error)

    def _listen(self, timeout: float) -> None:
        for key, _ in self._selector.select(timeout):
            call: Call = key.data
            try:
                data = call.sock.recv(65536)
            except BlockingIOError:
                continue
            except OSError as error:
                call.error = error.strerror or str(error)
                data = b""
            if not data:
                self._selector.unregister(call.sock)
                continue
            call.received += data
            if self._on_reply is not None:
                self._on_reply(call, time.monotonic())
