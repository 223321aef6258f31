"""The web application for another server to run: ``uvicorn aii.servers.web:app --port 9000``.

Everything is set by the environment (``AII_MODEL``, ``WHISPER_LAN``, ``AII_TOKEN``...); address,
port and certificates are the server's that runs it. The model is loaded when it starts.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
from collections.abc import AsyncIterator, Mapping
from typing import Any

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool

# What goes up here: who points uvicorn at us wants the same parts that `aii serve` makes.
from aii.cli import version
from aii.cli.parts import OTHER_VARIABLES, Parts, build
from aii.config import ServerConfig
from aii.servers.web.application import create_app
from aii.servers.web.state import Web

log = logging.getLogger(__name__)

_TOKEN = re.compile(r"([?&]token=)[^&\s\"]+")


def make_app(environ: Mapping[str, str] | None = None) -> FastAPI:
    """The application; its parts are made at its start and closed at its end.

    Raises:
        ConfigError: a variable that has no meaning.
    """
    config = ServerConfig.load(
        {}, os.environ if environ is None else environ, other_variables=OTHER_VARIABLES
    )
    _log(config.log_level)
    web = Web(config)

    @contextlib.asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        parts: Parts = await run_in_threadpool(build, config, sys.stderr, *web.sinks)
        try:
            web.attach(parts.services, parts.models)
            yield
        finally:
            await web.finish(config.shutdown_deadline)
            await run_in_threadpool(parts.close)

    return create_app(web, version=version(), lifespan=lifespan)


def _log(level: str) -> None:
    """Our lines go where nobody else has set anything up; nobody's lines have tokens in them."""
    if not logging.getLogger().handlers:
        logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("aii").setLevel(level.upper())
    for name in ("uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).addFilter(_without_token)


def _without_token(record: logging.LogRecord) -> bool:
    if isinstance(record.args, tuple):
        record.args = tuple(
            _TOKEN.sub(r"\1...", item) if isinstance(item, str) else item for item in record.args
        )
    return True
