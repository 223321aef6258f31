"""The raw TCP server: accepts calls and hands them to the loop; one engine serves them all."""

from __future__ import annotations

import contextlib
import errno
import logging
import selectors
import socket
import ssl
import time
from collections.abc import Callable

from aii.servers.address import BACKLOG, listen, shown
from aii.servers.connection import Connection
from aii.servers.lifecycle import Bell, make_selector
from aii.servers.loop import Loop
from aii.servers.refusals import Refusals
from aii.servers.services import Services
from aii.servers.tls_pump import TlsPump
from aii.sinks.socket import Outbox

log = logging.getLogger(__name__)

REFUSED_AT_ONCE = 64
"""Refused clients that are given a moment to read why; further ones are closed at once."""

OUT_OF_FILES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class TcpServer:
    """Listens from its creation on.

    Args:
        host: address or name to listen on, IPv4 or IPv6.
        port: 0 picks a free one; see ``address``.
        services: what each connection is given.
        max_calls: calls at once; further ones are refused with a line, as they are where the
            services have no room.
        count: how many there are, where others share the limit; None to count our own.
        context: for TLS, or None.
        refusals: told of each call that is refused.
        options: those that name host and port, for the message when they cannot be had.

    Raises:
        ConfigError: it cannot listen there (see :func:`aii.servers.address.listen`).
    """

    def __init__(
        self,
        host: str,
        port: int,
        services: Services,
        *,
        max_calls: int = 500,
        count: Callable[[], int] | None = None,
        context: ssl.SSLContext | None = None,
        refusals: Refusals | None = None,
        options: str = "--host or --port",
    ) -> None:
        self._services = services
        self._max_calls = max_calls
        self._count = count or (lambda: self.open_calls)
        self._listener = listen(host, port, options=options)
        self._pump = None if context is None else TlsPump(context)
        self._listener.setblocking(False)
        self.address: tuple[str, int] = self._listener.getsockname()[:2]
        self._bell = Bell()
        self._stopping = False
        self._loop: Loop[Connection] = Loop(clock=services.clock)
        self._refusals = refusals or Refusals()
        self._refused: dict[socket.socket, float] = {}
        self.counts = {"accepted": 0, "refused": 0}

    @property
    def open_calls(self) -> int:
        """Connections that are open."""
        return len(self._loop)

    def stop(self) -> None:
        """Make ``serve`` return; from any thread or a signal handler."""
        self._stopping = True
        self._bell.ring()

    def serve(self) -> None:
        """Accept calls until ``stop``; those too that wait with the kernel when it comes."""
        self._loop.start()
        selector = make_selector()
        selector.register(self._bell, selectors.EVENT_READ)
        selector.register(self._listener, selectors.EVENT_READ)
        try:
            while not self._stopping:
                timeout = 0.5 if self._refused else None
                for key, _ in selector.select(timeout):
                    if key.fileobj is self._listener:
                        self._accept(selector)
                    elif isinstance(key.fileobj, socket.socket):
                        self._drain(selector, key.fileobj)
                    else:
                        self._bell.hush()
                self._forget_refused(selector)
            for _ in range(BACKLOG):  # they count as open: what they sent is still heard
                if not self._accept(selector):
                    break
        finally:
            for sock in self._refused:
                sock.close()
            selector.close()
            self._listener.close()

    def finish(self, timeout: float) -> bool:
        """End the open calls: their last words within ``timeout`` seconds, then without.

        Returns whether all calls were finished in time.
        """
        open_calls = self._order(Connection.stop)
        if open_calls:
            log.info("%d open calls are being finished", open_calls)
        in_time = self._loop.wait_until_empty(timeout if open_calls else 0.0)
        if not in_time:
            self._order(Connection.abort)
        self._loop.stop(1.0)
        if self._pump is not None:
            self._pump.close()
        self._bell.close()
        return in_time

    def _order(self, order: Callable[[Connection], None]) -> int:
        """Give an order to all open calls; how many there are."""
        calls = self._loop.members()
        for call in calls:
            order(call)
        return len(calls)

    def _accept(self, selector: selectors.BaseSelector) -> bool:
        """Take one connection from the kernel, if there is one; whether there may be more."""
        try:
            sock, peer = self._listener.accept()
        except BlockingIOError:
            return False
        except (InterruptedError, ConnectionAbortedError):
            return True
        except OSError as error:
            log.error("cannot accept a call: %s", error.strerror or error)
            if error.errno in OUT_OF_FILES:
                time.sleep(0.05)  # the call stays with the kernel until a descriptor is free
            return False
        self._take(selector, sock, shown(peer))
        return True

    def _take(self, selector: selectors.BaseSelector, sock: socket.socket, caller: str) -> None:
        """Hand a connection to the loop, or refuse it."""
        try:
            _tune(sock)
            if self._pump is not None:
                sock = self._pump.wrap(sock)
            if self._count() >= self._max_calls:
                why = f"{self._max_calls} calls are open already; try again later"
                self._refusals("calls", caller, f"{why} (--max-calls)")
                self._refuse(selector, sock, why)
                return
            if why := self._services.no_room():
                why += "; try again later"
                self._refusals("full", caller, f"{why} (--when-full, --objective)")
                self._refuse(selector, sock, why)
                return
            connection = Connection(sock, caller, self._services, self._loop)
        except OSError as error:
            log.error("%s: cannot serve the call: %s", caller, error.strerror or error)
            sock.close()
            return
        self._loop.add(connection)
        self.counts["accepted"] += 1  # last: who counts them finds the call among the open ones

    def _refuse(self, selector: selectors.BaseSelector, sock: socket.socket, why: str) -> None:
        """Say why, then let the client close: closing first would take the line from it."""
        self.counts["refused"] += 1
        sock.setblocking(False)
        outbox = Outbox(self._services.reply)
        outbox.say(f"refused: {why}")
        try:
            sock.send(outbox.peek())
            sock.shutdown(socket.SHUT_WR)
        except OSError:
            sock.close()
            return
        if len(self._refused) >= REFUSED_AT_ONCE:
            sock.close()
            return
        self._refused[sock] = time.monotonic() + 1.0
        selector.register(sock, selectors.EVENT_READ)

    def _drain(self, selector: selectors.BaseSelector, sock: socket.socket) -> None:
        """A refused client sends or closes."""
        data = b""
        with contextlib.suppress(OSError):
            data = sock.recv(65536)
        if not data:
            self._refused[sock] = 0.0
            self._forget_refused(selector)

    def _forget_refused(self, selector: selectors.BaseSelector) -> None:
        now = time.monotonic()
        for sock in [sock for sock, until in self._refused.items() if until <= now]:
            del self._refused[sock]
            selector.unregister(sock)
            sock.close()


def _tune(sock: socket.socket) -> None:
    """Replies go out at once; a caller whose machine has vanished is noticed within minutes."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4)):
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
