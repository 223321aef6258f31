"""How much a client may send in the body of a request."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aii.servers.web.room import Place, Room

SMALL = 1 << 20
"""Bytes of a body that is no recording."""

FORM = 1 << 16
"""Bytes of a form around its recording."""

DRAIN = 16 << 20
"""Bytes that are still taken of a body that is refused."""

PATIENCE = 2.0
"""Seconds for each piece of them."""

RECORDINGS = "/v1/audio/"


@dataclass(frozen=True)
class Refusal:
    """Why a body is not taken: HTTP status, a word for the metrics, a line, the parameter."""

    status: int
    why: str
    line: str
    param: str | None = None


CROWDED = Refusal(503, "recordings", "too many recordings are in work; try again later")


def _too_big(most: int, param: str | None) -> Refusal:
    line = f"the body is larger than {most} bytes; send less at once"
    return Refusal(413, "body size", line, param)


class _TooBig(Exception):  # noqa: N818
    """More came than is taken."""


class Bodies:
    """ASGI middleware that refuses a body as soon as it is known to be too big.

    Args:
        app: what is behind it.
        uploads: bytes of a recording.
        refused: told of each refusal: a word, the client, a line.
        places: for requests with a recording; each has one until it is answered.
    """

    def __init__(
        self,
        app: Any,
        *,
        uploads: int,
        refused: Callable[[str, str, str], None],
        places: Room,
    ) -> None:
        self._app = app
        self._uploads = uploads
        self._refused = refused
        self._places = places

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass a request on, its body counted."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["method"] != "POST" or not scope["path"].startswith(RECORDINGS):
            await self._bounded(scope, receive, send, recording=False)
        elif self._places.full:
            await self._refuse(scope, receive, send, CROWDED)
        else:
            with self._places.with_guest(Place()):
                await self._bounded(scope, receive, send, recording=True)

    async def _bounded(self, scope: Any, receive: Any, send: Any, *, recording: bool) -> None:
        most, param = (self._uploads + FORM, "file") if recording else (SMALL, None)
        headers = dict(scope["headers"])
        announced = headers.get(b"content-length", b"0")
        if announced.isdigit() and int(announced) > most:
            await self._refuse(scope, receive, send, _too_big(most, param))
            return
        came, begun, over = 0, False, False

        async def counted() -> Any:
            nonlocal came, over
            message = await receive()
            came += len(message.get("body", b""))
            if came > most:
                over = True
                if not begun:
                    await self._refuse(scope, receive, send, _too_big(most, param))
                raise _TooBig
            return message

        async def sending(message: Any) -> None:
            nonlocal begun
            if not over:  # else the answer is given
                begun = True
                await send(message)

        with contextlib.suppress(_TooBig):
            await self._app(scope, counted, sending)

    async def _refuse(self, scope: Any, receive: Any, send: Any, refusal: Refusal) -> None:
        who = str((scope.get("client") or ("unknown", 0))[0])
        self._refused(refusal.why, who, f"{scope['path']}: {refusal.line}")
        await _drain(receive)
        error = {
            "message": refusal.line,
            "type": "server_error" if refusal.status >= 500 else "invalid_request_error",
            "param": refusal.param,
            "code": None,
        }
        body = json.dumps({"error": error}).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        if refusal.status == 503:
            headers.append((b"retry-after", b"10"))
        await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


async def _drain(receive: Any) -> None:
    """Take a little more: a client that is still sending when we close may not see our answer."""
    came = 0
    with contextlib.suppress(asyncio.TimeoutError):
        while came < DRAIN:
            message = await asyncio.wait_for(receive(), PATIENCE)
            came += len(message.get("body", b""))
            if not message.get("more_body", False):
                return
