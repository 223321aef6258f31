"""A browser or WebSocket client on the audio port: told where the web port is."""

from __future__ import annotations

from aii.protocols.base import Framing
from aii.protocols.frames import Frame, Hangup

START = b"GET "
LONGEST_REQUEST = 8192
"""Bytes after which we answer even if the request goes on."""

SETTLE = 0.2
"""Seconds without bytes after which we answer even if the request is not finished."""


class HttpRefusal(Framing):
    """Waits for the end of a request's header, answers 400 and hangs up. Holds four bytes.

    Args:
        web_port: where HTTP and WebSocket are served, or None where they are not.
    """

    _name = "http"
    _takes_text = False

    def __init__(self, web_port: int | None = None) -> None:
        super().__init__()
        self._web_port = web_port
        self._tail = b""
        self._seen = 0

    @property
    def tick_after(self) -> float | None:
        return SETTLE

    def _feed(self, data: bytes, idle: float) -> list[Frame]:
        self._seen += len(data)
        window = self._tail + data
        self._tail = window[-3:]
        finished = b"\r\n\r\n" in window or b"\n\n" in window
        return self._refuse() if finished or self._seen >= LONGEST_REQUEST else []

    def _wait(self, idle: float) -> list[Frame]:
        return self._refuse() if idle >= SETTLE else []

    def _drain(self) -> list[Frame]:
        return self._refuse()

    def _refuse(self) -> list[Frame]:
        where = (
            f"HTTP and WebSocket are on port {self._web_port}."
            if self._web_port is not None
            else "HTTP and WebSocket are not served here."
        )
        body = f"This port takes raw audio, not HTTP. {where}\n"
        self._outbox += (
            "HTTP/1.1 400 Bad Request\r\n"
            "Content-Type: text/plain; charset=utf-8\r\n"
            f"Content-Length: {len(body)}\r\n"
            f"Connection: close\r\n\r\n{body}"
        ).encode("ascii")
        return [*self._notice("an HTTP request on the audio port; refused"), Hangup("refused")]
