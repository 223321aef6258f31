"""The web application: routes over one :class:`aii.servers.web.state.Web`, behind the gate."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from aii.config import ServerConfig
from aii.servers.web.bodies import Bodies
from aii.servers.web.gate import Gate
from aii.servers.web.rates import Rates
from aii.servers.web.routers import ROUTERS
from aii.servers.web.state import Web

log = logging.getLogger(__name__)

ENDLESS = ("/events",)
"""Answers that go on until the client leaves."""

Lifespan = Callable[[Any], AbstractAsyncContextManager[None]]


def create_app(web: Web, *, version: str = "0", lifespan: Lifespan | None = None) -> FastAPI:
    """The application.

    Args:
        web: state and limits; its parts may be attached later, but before the first request.
        version: told by /load and the OpenAPI description.
        lifespan: what is to be done before the first request and after the last.
    """
    config: ServerConfig = web.config
    app = FastAPI(
        title="aii",
        version=version,
        description="Telephone calls to text, live.",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.web = web
    for router in ROUTERS:
        app.include_router(router)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(Exception, _mistake)
    app.add_middleware(_Head)
    app.add_middleware(_Counted, web=web)
    app.add_middleware(
        Bodies, uploads=config.max_upload_bytes, refused=web.refused, places=web.sending
    )
    app.add_middleware(
        Gate,
        token=config.token,
        origins=config.origins,
        names=(config.host, config.web_host or config.host),
        hosts=config.hosts,
        rates=Rates(config.rate_limit),
        refused=web.refused,
    )
    return app


class _Head:
    """Answers HEAD as GET, without the body: who watches over a server often asks so.

    Not where the answer never ends.
    """

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD" or scope["path"] in ENDLESS:
            await self._app(scope, receive, send)
            return

        inner = {**scope, "method": "GET"}

        async def bare(message: Any) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": b""}
            elif "route" in inner:
                scope["route"] = inner["route"]  # for those who count outside
            await send(message)

        await self._app(inner, receive, bare)


class _Counted:
    """Counts answers by route and status."""

    def __init__(self, app: Any, web: Web) -> None:
        self._app = app
        self._web = web

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or self._web.metrics is None:
            await self._app(scope, receive, send)
            return
        metrics = self._web.metrics

        async def counting(message: Any) -> None:
            if message["type"] == "http.response.start":
                route = getattr(scope.get("route"), "path", "other")
                metrics.request(route.replace(":path", ""), message["status"])
            await send(message)

        await self._app(scope, receive, counting)


def _error(status: int, line: str, headers: Any = None, param: str | None = None) -> Response:
    kind = "invalid_request_error" if status < 500 else "server_error"
    body = {"error": {"message": line, "type": kind, "param": param, "code": None}}
    return JSONResponse(body, status, headers)


async def _http_error(request: Request, error: Any) -> Response:
    return _error(error.status_code, str(error.detail), error.headers)


async def _invalid(request: Request, error: Any) -> Response:
    """What a parameter lacks, on one line."""
    lines = [
        f"{'.'.join(str(part) for part in item['loc'][1:]) or 'the request'}: {item['msg']}"
        for item in error.errors()[:5]
    ]
    where = [str(part) for item in error.errors()[:1] for part in item["loc"][1:]]
    return _error(400, "; ".join(lines), param=".".join(where) or None)


async def _mistake(request: Request, error: Exception) -> Response:
    return _error(500, "a mistake of the server's; its log has more")
