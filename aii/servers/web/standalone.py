"""The web application for another server to run: ``uvicorn aii.servers.web:app --port 9000``.

Everything is set by the environment (``AII_MODEL``, ``WHISPER_LAN``, ``AII_TOKEN``...); address,
port and certificates are the server's that runs it. The model is loaded when it starts.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool

# What goes up here: who points uvicorn at us wants the same parts that `aii serve` makes.
from aii.cli import version
from aii.cli.parts import OTHER_VARIABLES, Parts, build
from aii.config import ServerConfig
from aii.errors import AiiError
from aii.servers.lifecycle import before_signals
from aii.servers.web.application import create_app
from aii.servers.web.state import Web

log = logging.getLogger(__name__)

_TOKEN = re.compile(r"""(\btoken=|\bauthorization: *(?:\w+ +)?)[^&\s"']+""", re.IGNORECASE)

SERVERS_OWN = {
    "tls_cert": "--ssl-certfile",
    "trusted_proxies": "--forwarded-allow-ips",
    "ping": "--ws-ping-interval and --ws-ping-timeout",
    "max_per_address": "a proxy that has such a limit",
}
"""Settings that only the server can fulfil that runs the application, and uvicorn's names."""


def make_app(environ: Mapping[str, str] | None = None) -> FastAPI:
    """The application; its parts are made at its start and closed at its end.

    Raises:
        ConfigError: a variable that has no meaning.
    """
    config = ServerConfig.load(
        {}, os.environ if environ is None else environ, other_variables=OTHER_VARIABLES
    )
    _log(config.log_level)
    for name, own in SERVERS_OWN.items():
        if getattr(config, name) != getattr(ServerConfig(), name):
            log.warning("AII_%s has no effect here; give uvicorn %s", name.upper(), own)
    web = Web(config)
    trouble: list[str] = []

    @contextlib.asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        try:
            parts: Parts = await run_in_threadpool(build, config, sys.stderr, *web.sinks)
        except AiiError as error:
            trouble.append(one_line(error))
            raise
        try:
            web.attach(parts.services, parts.models)
            with before_signals(_last_words(web)):
                yield
        finally:
            await web.finish(config.shutdown_deadline)
            web.refused.close()
            await run_in_threadpool(parts.close)

    app = create_app(web, version=version(), lifespan=lifespan)
    app.add_middleware(_Start, trouble=trouble)
    return app


def _last_words(web: Web) -> Callable[[Callable[[], None]], None]:
    """What a signal does first: the sessions end in order, in time. The server that runs us would
    close its WebSockets before it tells us that it stops, and no words could follow."""
    loop, tasks = asyncio.get_running_loop(), []

    async def finish(go_on: Callable[[], None]) -> None:
        try:
            await web.finish(web.config.shutdown_deadline)
        finally:
            go_on()

    def act(go_on: Callable[[], None]) -> None:
        start = lambda: tasks.append(loop.create_task(finish(go_on)))  # noqa: E731
        loop.call_soon_threadsafe(start)

    return act


def one_line(error: AiiError) -> str:
    """What is told of an error for which the server does not start."""
    return f"aii: error: {' '.join(str(error).split())}"


class _Start:
    """ASGI middleware: a start that fails for a reason that is known is one line, no traceback.

    Args:
        app: what is behind it.
        trouble: gets the line when the start fails.
    """

    def __init__(self, app: Any, *, trouble: list[str]) -> None:
        self._app = app
        self._trouble = trouble

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def sending(message: Any) -> None:
            if message["type"] == "lifespan.startup.failed" and self._trouble:
                message = {**message, "message": self._trouble[-1]}
            await send(message)

        await self._app(scope, receive, sending if scope["type"] == "lifespan" else send)


def _log(level: str) -> None:
    """Our lines go where nobody else has set anything up; nobody's lines have tokens in them."""
    if not logging.getLogger().handlers:
        logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("aii").setLevel(level.upper())
    logging.getLogger("uvicorn.access").addFilter(_without_token)
    for name in ("uvicorn.error", "uvicorn.asgi"):  # which tell headers at debug and trace
        logging.getLogger(name).addFilter(_without_secrets)


def _without_token(record: logging.LogRecord) -> bool:
    """The address of a request; uvicorn's formatter wants the arguments apart."""
    if isinstance(record.args, tuple):
        record.args = tuple(
            _TOKEN.sub(r"\1...", item) if isinstance(item, str) else item for item in record.args
        )
    return True


def _without_secrets(record: logging.LogRecord) -> bool:
    line = record.getMessage()
    if _TOKEN.search(line):
        record.msg, record.args = _TOKEN.sub(r"\1...", line), ()
    return True
