"""How much a client may send in the body of a request."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from typing import Any

SMALL = 1 << 20
"""Bytes of a body that is no recording."""

FORM = 1 << 16
"""Bytes of a form around its recording."""

DRAIN = 16 << 20
"""Bytes that are still taken of a body that is refused."""

PATIENCE = 2.0
"""Seconds for each piece of them."""

RECORDINGS = "/v1/audio/"


class _TooBig(Exception):  # noqa: N818
    """More came than is taken."""


class Bodies:
    """ASGI middleware that refuses a body as soon as it is known to be too big.

    Args:
        app: what is behind it.
        uploads: bytes of a recording.
        refused: told the word of each refusal.
    """

    def __init__(self, app: Any, *, uploads: int, refused: Callable[[str], None]) -> None:
        self._app = app
        self._uploads = uploads
        self._refused = refused

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass a request on, its body counted."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        recording = scope["path"].startswith(RECORDINGS)
        most, param = (self._uploads + FORM, "file") if recording else (SMALL, None)
        headers = dict(scope["headers"])
        announced = headers.get(b"content-length", b"0")
        if announced.isdigit() and int(announced) > most:
            await _drain(receive)
            await self._refuse(send, most, param)
            return
        came, begun, over = 0, False, False

        async def counted() -> Any:
            nonlocal came, over
            message = await receive()
            came += len(message.get("body", b""))
            if came > most:
                over = True
                if not begun:
                    await _drain(receive)
                    await self._refuse(send, most, param)
                raise _TooBig
            return message

        async def sending(message: Any) -> None:
            nonlocal begun
            if not over:  # else the answer is given
                begun = True
                await send(message)

        with contextlib.suppress(_TooBig):
            await self._app(scope, counted, sending)

    async def _refuse(self, send: Any, most: int, param: str | None) -> None:
        self._refused("body size")
        line = f"the body is larger than {most} bytes; send less at once"
        error = {"message": line, "type": "invalid_request_error", "param": param, "code": None}
        body = json.dumps({"error": error}).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        await send({"type": "http.response.start", "status": 413, "headers": headers})
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
