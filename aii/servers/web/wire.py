"""uvicorn's connections, with what a port needs that strangers can reach.

* A connection that sends no whole request in time, or its body too slowly, is closed.
* An address has only so many connections, and all together too.
* A WebSocket that we do not read from, because too much waits for the engine, is not held to be
  dead for not answering pings: its answers are among what we do not read.
* A client that does not read what we send can be cut, with a reason that it finds if it ever reads.

``scope["extensions"]["aii.cut"](code, reason)`` cuts; other servers do not have it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from aii.servers.web.rates import network_of

log = logging.getLogger(__name__)

CLOSING = 15.0
"""Seconds for a client to answer our close; uvicorn itself waits ten."""

LINGER = 5.0
"""Seconds for a client to take our last bytes before its connection is dropped."""


@dataclass
class Limits:
    """What is counted over all connections of a listener.

    Attributes:
        connections: at once.
        per_address: at once from one address.
        proxies: networks of proxies, who come in the name of many.
        header: seconds for a whole request head, once TLS has begun; see :mod:`.door`.
        body: seconds for a whole body.
        reader: seconds for the next piece of an answer to be read.
        refused: told of each refusal: a word, the client, a line.
    """

    connections: int = 1000
    per_address: int = 100
    proxies: tuple[str, ...] = ()
    header: float = 15.0
    body: float = 600.0
    reader: float = 20.0
    refused: Callable[[str, str, str], None] = lambda why, who, line: None
    open: Counter[str] = field(default_factory=Counter)

    def enter(self, address: str) -> str | None:
        """Count a connection; the reason if it may not be."""
        if self.open.total() >= self.connections:
            return self._refuse(
                "connections", address, "too many connections are open; try again later"
            )
        if self.open[address] >= self.per_address and not self._is_proxy(address):
            return self._refuse(
                "address", address, "too many connections from this address; close some"
            )
        self.open[address] += 1
        return None

    def _refuse(self, why: str, address: str, line: str) -> str:
        self.refused(why, address, line)
        return line

    def _is_proxy(self, address: str) -> bool:
        try:
            found = ip_network(address)
            return any(
                found.version == proxy.version and proxy.overlaps(found)
                for proxy in map(ip_network, self.proxies)
            )
        except ValueError:
            return False

    def leave(self, address: str) -> None:
        """The connection is closed."""
        self.open[address] -= 1
        if self.open[address] <= 0:
            del self.open[address]


def classes(limits: Limits) -> tuple[type[H11Protocol], type[WebSocketsSansIOProtocol]]:
    """The two classes for uvicorn's ``http`` and ``ws``, with these limits."""

    class Http(_Http):
        pass

    class WebSocket(_WebSocket):
        pass

    Http.limits = WebSocket.limits = limits
    return Http, WebSocket


def _with_cut(app: Any, cut: Callable[[int, str], None]) -> Any:
    """``app`` that can cut its connection."""

    async def cutting(scope: Any, receive: Any, send: Any) -> Any:
        extensions = scope.setdefault("extensions", {})
        extensions["aii.cut"] = cut
        return await app(scope, receive, send)

    return cutting


def _who(connection: Any) -> str:
    """The address of a connection's client."""
    return str((connection.client or ("unknown", 0))[0])


def _drop_later(transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
    """Close, and do not wait for ever until the client has read everything."""
    transport.close()
    loop.call_later(LINGER, transport.abort)


class _Http(H11Protocol):
    """A connection that speaks HTTP, at first at least."""

    limits: Limits

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.app = _with_cut(self.app, self._cut)
        self._counted: str | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._waits_for = ""
        self._unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        address = network_of(_who(self))
        reason = self.limits.enter(address)
        if reason is not None:
            body = reason.encode()
            transport.write(
                b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\n"
                b"Content-Type: text/plain\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
            )
            _drop_later(transport, self.loop)
            return
        self._counted = address
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._unwatch()
        self._uncount()
        self._has_read()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """More waits to be read than the system takes."""
        super().pause_writing()
        self._wait_for_reader(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        """The client has read on."""
        self._has_read()
        super().resume_writing()

    def _wait_for_reader(self, held: int) -> None:
        """Cut the connection if of ``held`` bytes nothing is read in time."""

        def look() -> None:
            left = self.transport.get_write_buffer_size()
            if left < held:
                self._wait_for_reader(left)
                return
            self.limits.refused("slow reader", _who(self), "it does not read its answer")
            self.transport.abort()

        self._has_read()
        self._unread = self.loop.call_later(self.limits.reader, look)

    def _has_read(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def data_received(self, data: bytes) -> None:
        if self._counted is None:
            return  # it was refused
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        self._unwatch()
        super().handle_websocket_upgrade(event)
        websocket = self.transport.get_protocol()
        if isinstance(websocket, _WebSocket):  # it leaves for us both
            websocket.counted, self._counted = self._counted, None
        else:
            self._uncount()

    def _uncount(self) -> None:
        if self._counted is not None:
            self.limits.leave(self._counted)
            self._counted = None

    def _watch(self) -> None:
        """Give the client a time for what it has to send: a head, or a body."""
        theirs = self.conn.their_state
        waits_for = {h11.IDLE: "head", h11.SEND_BODY: "body"}.get(theirs, "")
        if waits_for == "head" and self.timeout_keep_alive_task is not None:
            waits_for = ""  # it may rest between requests; uvicorn looks after that
        if waits_for == self._waits_for:
            return
        self._unwatch()
        self._waits_for = waits_for
        if waits_for:
            seconds = self.limits.header if waits_for == "head" else self.limits.body
            self._deadline = self.loop.call_later(seconds, self._too_slow)

    def _unwatch(self) -> None:
        self._waits_for = ""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_slow(self) -> None:
        self._deadline = None
        if self.transport.is_closing():
            return
        line = "its request did not come in time"
        self.limits.refused("slow request", _who(self), line)
        if self.conn.our_state is h11.IDLE:
            body = b"the request did not come in time"
            self.transport.write(
                b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n"
                b"Content-Type: text/plain\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
            )
        _drop_later(self.transport, self.loop)

    def _cut(self, code: int, reason: str) -> None:
        _drop_later(self.transport, self.loop)


class _WebSocket(WebSocketsSansIOProtocol):
    """A WebSocket."""

    limits: Limits
    counted: str | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.app = _with_cut(self.app, self._cut)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.counted is not None:
            self.limits.leave(self.counted)
            self.counted = None
        super().connection_lost(exc)

    def keepalive_timeout(self) -> None:
        """No pong has come; unless we do not read, the client is dead."""
        if self.read_paused and not self.close_sent and not self.transport.is_closing():
            self.pong_timer = None
            self.pending_ping_payload = None
            self.schedule_ping()
            return
        self.limits.refused("no pong", _who(self), "it answers no ping; its connection is cut")
        super().keepalive_timeout()
        self.loop.call_later(LINGER, self.transport.abort)

    async def send(self, message: Any) -> None:
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body"):
            self.handshake_complete = True  # it was refused; uvicorn would call that our mistake

    def handle_parser_exception(self) -> None:
        """What came is too big or against the rules; the client is told."""
        close = self.conn.close_sent
        too_big = close is not None and close.code == 1009
        line = close.reason if close is not None and close.reason else "against the protocol"
        self.limits.refused("message size" if too_big else "message", _who(self), line)
        super().handle_parser_exception()

    async def run_asgi(self) -> None:
        await super().run_asgi()
        self.loop.call_later(CLOSING, self.transport.abort)

    def _cut(self, code: int, reason: str) -> None:
        """Close behind what was sent; the client may never read it."""
        if self.transport.is_closing():
            return
        if self.handshake_complete and not self.close_sent:
            self.conn.send_close(code, reason)
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.close_sent = True
        self.writable.set()
        _drop_later(self.transport, self.loop)
