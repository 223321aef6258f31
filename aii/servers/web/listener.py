"""The web listener: uvicorn on a thread of its own, beside whatever else the process serves."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import threading
from typing import Any

import uvicorn

from aii.errors import ServiceError
from aii.servers.address import BACKLOG, listen
from aii.servers.web.application import create_app
from aii.servers.web.door import Door
from aii.servers.web.state import Web
from aii.servers.web.wire import Limits, classes

log = logging.getLogger(__name__)

SPARE = 200
"""Connections beyond the sessions: pages, checks, recordings."""

PENDING = 20
"""TLS connections of one address, beyond those that it may have, that have not begun to speak: so
that who has too many is told so."""

KEEP_ALIVE = 15
"""Seconds for which a client may leave its connection without a request."""

START = 30.0
"""Seconds for the listener to start."""

KEEPALIVE_PROBES = (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4))


class WebListener:
    """Listens from its creation on; serves from ``start`` to ``finish``.

    Args:
        web: what is served; its parts must be attached before ``start``.
        version: of the product.
        context: for TLS, or None.

    Raises:
        ConfigError: it cannot listen there.
    """

    def __init__(self, web: Web, *, version: str, context: ssl.SSLContext | None = None) -> None:
        config = web.config
        self._web = web
        self._listener = listen(
            config.web_host or config.host,
            config.port_of_web,
            options="--web-host or --web-port",
        )
        _probe(self._listener)
        if context is not None:
            self._listener = Door(self._listener, _limits(web, PENDING))
        self.address: tuple[str, int] = self._listener.getsockname()[:2]
        self.secure = context is not None
        app = create_app(web, version=version)
        self._server = uvicorn.Server(_uvicorn_config(web, app, context))
        self._loop: asyncio.AbstractEventLoop | None = None
        self._started = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="aii-web", daemon=True)

    @property
    def url(self) -> str:
        """Where browsers find it."""
        host, port = self.address
        name = f"[{host}]" if ":" in host else host
        return f"{'https' if self.secure else 'http'}://{name}:{port}/"

    @property
    def alive(self) -> bool:
        """Whether it serves."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Serve, on a thread.

        Raises:
            ServiceError: it does not come up.
        """
        self._thread.start()
        if not self._started.wait(START) or self._failure is not None:
            raise ServiceError(f"the web listener does not start: {self._failure or 'no reason'}")

    def finish(self, timeout: float) -> bool:
        """End the sessions: their last words within ``timeout`` seconds, then without.

        Returns whether all were finished in time.
        """
        if self._loop is None or not self.alive:
            self._listener.close()
            return True
        future = asyncio.run_coroutine_threadsafe(self._finish(timeout), self._loop)
        self._thread.join(timeout + 10.0)
        return future.done() and not future.cancelled() and future.result()

    async def _finish(self, timeout: float) -> bool:
        for server in self._server.servers:
            server.close()  # no further clients; those who are here stay
        in_time = await self._web.finish(timeout)
        self._server.should_exit = True
        return in_time

    # The thread.

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            self._failure = error
            log.exception("the web listener has ended")
        finally:
            self._started.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        serving = asyncio.create_task(self._server.serve(sockets=[self._listener]))
        while not self._server.started and not serving.done():
            await asyncio.sleep(0.005)
        if not serving.done():
            self._started.set()
        await serving


def _probe(listener: socket.socket) -> None:
    """Clients whose machine has vanished are noticed within minutes; their sockets inherit it."""
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEPALIVE_PROBES:
        if hasattr(socket, name):
            listener.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _limits(web: Web, more: int = 0) -> Limits:
    """What is counted over all connections; ``more`` than were asked for."""
    config = web.config
    return Limits(
        connections=config.max_sessions + config.max_watchers + SPARE + more,
        per_address=config.max_per_address + more,
        proxies=config.trusted_proxies,
        reader=config.slow_reader,
        refused=web.refused,
    )


def _uvicorn_config(web: Web, app: Any, context: ssl.SSLContext | None) -> uvicorn.Config:
    config = web.config
    http, websocket = classes(_limits(web))
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # below are addresses with tokens
    return uvicorn.Config(
        app,
        loop="asyncio",
        lifespan="off",
        http=http,
        ws=websocket,
        ws_max_size=config.max_message_bytes,
        ws_ping_interval=config.ping or None,
        ws_ping_timeout=config.ping or None,
        ws_per_message_deflate=False,  # sound does not shrink, and costs time to try
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(config.trusted_proxies),
        forwarded_allow_ips=list(config.trusted_proxies),
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=2,
        backlog=BACKLOG,
        ssl_context_factory=None if context is None else (lambda own, default: context),
    )
