"""All listeners of a process as one: raw TCP, AudioSocket on a port of its own, and the web."""

from __future__ import annotations

import importlib.util
import selectors
import ssl
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from aii.config import ServerConfig
from aii.errors import ConfigError, MissingExtraError
from aii.servers.address import is_local, shown
from aii.servers.lifecycle import Bell, make_selector
from aii.servers.models import Models
from aii.servers.refusals import Refusals
from aii.servers.services import Services
from aii.servers.tcp import TcpServer
from aii.servers.tls import server_context, trouble_with

if TYPE_CHECKING:
    from aii.protocols import Framing
    from aii.servers.web.listener import WebListener
    from aii.servers.web.state import Web

WEB_PACKAGES = ("fastapi", "uvicorn", "websockets", "multipart")
"""What the extra ``web`` installs, by the names under which it is imported."""

LOOK = 0.5
"""Seconds between looks at whether the web listener still serves."""


def make_web(config: ServerConfig, *, by_default: bool) -> Web | None:
    """The web side, or None where there is to be none.

    Args:
        config: what was asked for.
        by_default: whether there is one where nothing was asked and the extra is installed.

    Raises:
        ConfigError: nothing is left to listen.
        MissingExtraError: it was asked for and is not installed.
    """
    wanted = config.wants_web(by_default)
    missing = [name for name in WEB_PACKAGES if importlib.util.find_spec(name) is None]
    if wanted and missing:
        raise MissingExtraError(missing[0], "web")
    if wanted or (wanted is None and not missing):
        from aii.servers.web.state import Web

        return Web(config)
    if config.port is None and config.audiosocket_port is None:
        raise ConfigError("--port none and no web listener: nothing would listen; give one of them")
    return None


class Listeners:
    """They listen from their creation on. ``failure`` says why ``serve`` has ended by itself.

    Args:
        config: ports, addresses, certificates.
        services: what each call is given.
        models: the engine.
        audiosocket: a framing for the port that speaks AudioSocket alone.
        web: the web side, or None.
        version: of the product.

    Raises:
        ConfigError: one of them cannot listen, or a certificate cannot be used.
    """

    def __init__(
        self,
        config: ServerConfig,
        services: Services,
        models: Models,
        *,
        audiosocket: Callable[[], Framing],
        web: Web | None = None,
        version: str = "0",
    ) -> None:
        context = tls_context(config)
        self._trouble = "" if context is None else trouble_with(context, config.tls_cert or "")
        tcp_context = context if config.tls in ("both", "tcp") else None
        self._stopping = False
        self.failure = ""
        self._refusals = Refusals() if web is None else web.refused
        self._tcp: list[tuple[str, TcpServer]] = []
        self._web: WebListener | None = None
        if web is not None:
            from aii.servers.web.listener import WebListener

            web.attach(services, models)
            web_context = context if config.tls in ("both", "web") else None
            self._web = WebListener(web, version=version, context=web_context)
        if config.audiosocket_port is not None:
            own = replace(services, make_framing=audiosocket)
            server = TcpServer(
                config.host,
                config.audiosocket_port,
                own,
                max_calls=config.max_calls,
                count=self.open_calls,
                refusals=self._refusals,
                options="--host or --audiosocket-port",
            )
            self._tcp.append(("AudioSocket on", server))
        if config.port is not None:
            server = TcpServer(
                config.host,
                config.port,
                services,
                max_calls=config.max_calls,
                count=self.open_calls,
                context=tcp_context,
                refusals=self._refusals,
            )
            self._tcp.append(("TLS listening on" if tcp_context else "listening on", server))
            if web is not None and tcp_context is None:
                web.tcp_port = server.address[1]
        self._bell = Bell()  # last: a port that is taken must leave nothing open

    def lines(self) -> list[str]:
        """What listens where, a line each; scripts read the port from the last one."""
        web = [] if self._web is None else [f"web on {self._web.url}"]
        return [*web, *(f"{what} {shown(server.address)}" for what, server in self._tcp)]

    def warnings(self, config: ServerConfig) -> list[str]:
        """What somebody should know who has opened it to other machines."""
        lines = [
            f"{shown(server.address)} can be reached from other machines, and there is no access "
            "control on this port"
            for _, server in self._tcp
            if not is_local(server.address[0])
        ]
        if self._web is not None and not is_local(self._web.address[0]):
            if config.token is None:
                lines.append(
                    f"{self._web.url} can be reached from other machines and asks for no token; "
                    "give one with --token"
                )
            elif not self._web.secure:
                lines.append(f"{self._web.url} is not encrypted; give it --tls-cert")
        if self._trouble:
            lines.append(self._trouble)
        return lines

    def open_calls(self) -> int:
        """Connections that are open, on all TCP ports together."""
        return sum(server.open_calls for _, server in self._tcp)

    def counts(self) -> dict[str, int]:
        """Calls by TCP that were accepted and refused."""
        total: Counter[str] = Counter(accepted=0, refused=0)
        for _, server in self._tcp:
            total.update(server.counts)
        return dict(total)

    def stop(self) -> None:
        """Make ``serve`` return; from any thread or a signal handler."""
        self._stopping = True
        for _, server in self._tcp:
            server.stop()
        self._bell.ring()

    def serve(self) -> None:
        """Serve until ``stop``, or until the web listener fails.

        Raises:
            ServiceError: the web listener does not come up.
        """
        if self._web is not None:
            self._web.start()
        others = [
            threading.Thread(target=server.serve, name="aii-tcp", daemon=True)
            for _, server in self._tcp
        ]
        for thread in others:
            thread.start()
        selector = make_selector()
        selector.register(self._bell, selectors.EVENT_READ)
        try:
            while not self._stopping and (self._web is None or self._web.alive):
                selector.select(None if self._web is None else LOOK)
        finally:
            selector.close()
        if not self._stopping:
            self.failure = "the web listener has ended; the log says why"
        self.stop()
        for thread in others:
            thread.join()

    def finish(self, timeout: float) -> bool:
        """End all open calls: last words within ``timeout`` seconds, then without.

        Returns whether all were finished in time.
        """
        done: list[bool] = []
        ends: list[Callable[[float], bool]] = [server.finish for _, server in self._tcp]
        if self._web is not None:
            ends.append(self._web.finish)
        threads = [
            threading.Thread(target=lambda end=end: done.append(end(timeout)), daemon=True)
            for end in ends
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout + 15.0)
        self._bell.close()
        self._refusals.close()
        return len(done) == len(ends) and all(done)


def tls_context(config: ServerConfig) -> ssl.SSLContext | None:
    """For the listeners that are encrypted; None where none is.

    Raises:
        ConfigError: the certificate cannot be used, or is missing.
    """
    if config.tls_cert is None:
        if config.tls_key is not None:
            raise ConfigError("--tls-key is given without --tls-cert; give the certificate too")
        if config.tls != "both":
            raise ConfigError(
                f"--tls {config.tls} without --tls-cert encrypts nothing; give the certificate too"
            )
        return None
    return server_context(config.tls_cert, config.tls_key)
