"""TLS in front of the TCP listener: one thread turns encrypted connections into plain ones.

``wrap`` gives a socket that behaves as if the client had connected to it without TLS: what the
client sends can be read from it, what is written to it goes to the client, the client's goodbye is
an end of file, after which it can still be answered. So nothing behind it knows of TLS.
"""

from __future__ import annotations

import contextlib
import logging
import selectors
import socket
import ssl
import threading
import time
from collections import deque

from aii.servers.lifecycle import Bell

log = logging.getLogger(__name__)

CHUNK = 65536
"""Bytes read at once."""

HELD = 4 * CHUNK
"""Bytes of a connection that wait to go on, in each direction, before no more are read."""

HANDSHAKE = 15.0
"""Seconds in which a client must have introduced itself."""

LINGER = 10.0
"""Seconds that a client may leave our last bytes unread."""


class _Link:
    """One connection: the client's socket, and the near end of the plain one."""

    def __init__(self, raw: socket.socket, plain: socket.socket, context: ssl.SSLContext) -> None:
        self.raw = raw
        self.plain = plain
        self.caller = "a client"
        with contextlib.suppress(OSError):
            self.caller = str(raw.getpeername()[0])
        self.until: float | None = time.monotonic() + HANDSHAKE
        self.over = False
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_side=True)
        self.shaken = False
        self._to_plain = bytearray()
        self._to_raw = bytearray()
        self._gone = False  # nothing can be sent to the client any more
        self._client_done = False  # it sends no more,
        self._told_plain = False  # and the plain side knows
        self._server_done = False  # we send no more,
        self._said_goodbye = False  # and the client is told
        for sock in (raw, plain):
            sock.setblocking(False)

    @property
    def wanted(self) -> tuple[int, int]:
        """The events to wait for, of the client's socket and of the plain one."""
        read, write = selectors.EVENT_READ, selectors.EVENT_WRITE
        raw = read * (not self._client_done and len(self._to_plain) < HELD)
        raw |= write * bool(self._to_raw)
        plain = read * (self.shaken and not self._server_done and len(self._to_raw) < HELD)
        plain |= write * bool(self._to_plain)
        return raw, plain

    def move(self) -> None:
        """Pass on whatever can be passed on.

        A client that breaks off has ended its call: what came before still goes on.

        Raises:
            OSError: the near side is gone, or the client never introduced itself in TLS.
        """
        self._from_client()
        self._from_plain()
        self._flush()
        if self._said_goodbye and self.until is None:
            self.until = time.monotonic() + LINGER
        if self._said_goodbye and not self._to_raw:
            with contextlib.suppress(OSError):
                self.raw.shutdown(socket.SHUT_WR)
        self.over = self._said_goodbye and not self._to_raw and self._client_done

    def _from_client(self) -> None:
        while not self._client_done and len(self._to_plain) < HELD:
            try:
                data = _receive(self.raw)
            except OSError:
                if not self.shaken:
                    raise
                self._gone, data = True, b""
            if data is None:
                break
            if data:
                self._in.write(data)
            else:
                self._in.write_eof()
            if not self._shake():
                if not data:
                    raise ConnectionError("it left before it had introduced itself")
                continue
            self._decrypt()
            if not data:
                self._client_done = True

    def _shake(self) -> bool:
        """Go on with the introductions; whether they are done."""
        if not self.shaken:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                return False
            self.shaken, self.until = True, None
        return True

    def _decrypt(self) -> None:
        while True:
            try:
                data = self._tls.read(CHUNK)
            except ssl.SSLWantReadError:
                return
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                data = b""
            if not data:
                self._client_done = True
                return
            self._to_plain += data

    def _from_plain(self) -> None:
        while self.shaken and not self._server_done and len(self._to_raw) < HELD:
            data = _receive(self.plain)
            if data is None:
                break
            if data:
                self._tls.write(data)
            else:
                self._server_done = self._said_goodbye = True
                with contextlib.suppress(ssl.SSLError):
                    self._tls.unwrap()
            self._to_raw += self._out.read()
        self._to_raw += self._out.read()

    def _flush(self) -> None:
        if not self._gone:
            try:
                _send(self.raw, self._to_raw)
            except OSError:
                if not self.shaken:
                    raise
                self._gone = True  # but what it sent may still be there to read
        if self._gone:
            self._to_raw.clear()
        if not self._server_done:
            _send(self.plain, self._to_plain)
        else:
            self._to_plain.clear()  # nobody is there to take it
        if self._client_done and not self._to_plain and not self._told_plain:
            self._told_plain = True
            with contextlib.suppress(OSError):
                self.plain.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Free the sockets."""
        self.raw.close()
        self.plain.close()


def _receive(sock: socket.socket) -> bytes | None:
    """What a socket has; None when nothing is there now."""
    try:
        return sock.recv(CHUNK)
    except (BlockingIOError, InterruptedError):
        return None


def _send(sock: socket.socket, held: bytearray) -> None:
    """Send what the socket takes."""
    while held:
        try:
            count = sock.send(held[:CHUNK])
        except (BlockingIOError, InterruptedError):
            return
        del held[:count]


class TlsPump:
    """The thread; see the module.

    Args:
        context: with the certificate.
    """

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        self._bell = Bell()
        self._new: deque[_Link] = deque()
        self._links: dict[_Link, tuple[int, int]] = {}
        self._selector = selectors.DefaultSelector()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="aii-tls", daemon=True)
        self._thread.start()

    def wrap(self, raw: socket.socket) -> socket.socket:
        """A plain socket for a client that has just connected, which is ours from here on.

        Raises:
            OSError: there are no sockets left; ``raw`` is still the caller's.
        """
        near, far = socket.socketpair()
        self._new.append(_Link(raw, near, self._context))
        self._bell.ring()
        return far

    def close(self, timeout: float = 1.0) -> None:
        """Drop what is left of all connections."""
        self._stopping = True
        self._bell.ring()
        self._thread.join(timeout)

    def _run(self) -> None:
        self._selector.register(self._bell, selectors.EVENT_READ, None)
        try:
            while not self._stopping:
                ready = {key.data for key, _ in self._selector.select(self._timeout())}
                if None in ready:
                    self._bell.hush()
                    ready.discard(None)
                while self._new:
                    link = self._new.popleft()
                    self._links[link] = (0, 0)
                    ready.add(link)
                now = time.monotonic()
                ready |= {k for k in self._links if k.until is not None and k.until <= now}
                for link in ready:
                    if link in self._links:
                        self._move(link, now)
        except Exception:
            log.exception("TLS has ended because of a mistake of ours")
        finally:
            for link in [*self._links, *self._new]:
                link.close()
            self._selector.close()
            self._bell.close()

    def _timeout(self) -> float | None:
        moments = [link.until for link in self._links if link.until is not None]
        return max(min(moments) - time.monotonic(), 0.0) if moments else None

    def _move(self, link: _Link, now: float) -> None:
        """Pass on what can be passed on; drop a link that is over, late or broken."""
        try:
            link.move()
        except OSError as error:  # ssl.SSLError is one
            why = getattr(error, "reason", None) or error.strerror or str(error)
            if link.shaken:
                log.info("%s: the TLS connection has ended: %s", link.caller, why)
            else:
                why = why.lower().replace("_", " ")
                log.info(
                    "%s: no TLS connection comes about: %s; a client of this port must speak TLS "
                    "and trust its certificate",
                    link.caller,
                    why,
                )
            self._drop(link)
            return
        if link.over or (link.until is not None and link.until <= now):
            if not link.over:
                log.info("%s: the TLS connection is cut: it takes too long", link.caller)
            self._drop(link)
            return
        before, wanted = self._links[link], link.wanted
        for sock, old, new in zip((link.raw, link.plain), before, wanted, strict=True):
            if old and not new:
                self._selector.unregister(sock)
            elif new and not old:
                self._selector.register(sock, new, link)
            elif new != old:
                self._selector.modify(sock, new, link)
        self._links[link] = wanted

    def _drop(self, link: _Link) -> None:
        for sock, registered in zip((link.raw, link.plain), self._links.pop(link), strict=True):
            if registered:
                self._selector.unregister(sock)
        link.close()
