"""Who may come in: the checks before every request and every WebSocket.

In this order: how often an address asks; the ``Host``, where there is no token and we are asked
under an address of this machine alone (a page elsewhere may have a name that leads there); the
``Origin`` (what a browser says of the page that asks); the token. What is refused is told why.
Answers get headers that keep a browser from doing more with them than shown.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ipaddress
import json
import math
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qs, urlsplit

from aii.servers.web.rates import Rates

Scope = dict[str, Any]
Receive = Callable[[], Any]
Send = Callable[[Any], Any]

OPEN = ("/", "/web", "/health")
"""Paths of HTTP that need no token: the dashboard's files hold no data, health says only that we
live. A WebSocket always needs it: one at ``/`` is a call."""

PORTS = {"http": ":80", "https": ":443"}
"""What browsers leave out of an origin."""

CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; worker-src 'self'; manifest-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)

HEADERS = (
    (b"content-security-policy", CONTENT_POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)

CORS_METHODS = b"GET, POST, DELETE, OPTIONS"
CORS_HEADERS = b"Authorization, Content-Type"


OPENAI = {
    401: ("invalid_request_error", "invalid_api_key"),
    429: ("requests", "rate_limit_exceeded"),
}
"""Type and code that OpenAI's interface has for an error, by status."""


class Denied(Exception):  # noqa: N818
    """Why somebody may not come in: HTTP status, a word for the metric, a line, a wait."""

    def __init__(self, status: int, why: str, line: str, wait: float = 0.0) -> None:
        super().__init__(line)
        self.status = status
        self.why = why
        self.line = line
        self.wait = wait


class Gate:
    """ASGI middleware; see the module.

    Args:
        app: what is behind it.
        token: the secret, or None where there is none.
        origins: further origins that are welcome; "*" is any.
        names: further names of ours, for ``Host``.
        hosts: the only names that ``Host`` may have, wherever the client has come to; empty: any,
            but on this machine's own addresses.
        rates: who may ask how often.
        refused: told of each refusal: a word, the client, a line.
    """

    def __init__(
        self,
        app: Callable[[Scope, Receive, Send], Any],
        *,
        token: str | None = None,
        origins: Iterable[str] = (),
        names: Iterable[str] = (),
        hosts: Iterable[str] = (),
        rates: Rates | None = None,
        refused: Callable[[str, str, str], None] = lambda why, who, line: None,
    ) -> None:
        self._app = app
        self._token = None if token is None else _digest(token.encode())
        self._origins = frozenset(_as_sent(origin.rstrip("/").lower()) for origin in origins)
        self._names = frozenset(name.lower() for name in names)
        self._names |= {urlsplit(origin).hostname or "" for origin in self._origins}
        self._hosts = frozenset(name.lower() for name in hosts)
        self._names |= self._hosts
        self._rates = rates or Rates(None)
        self._refused = refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer why not."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers: dict[bytes, bytes] = dict(reversed(scope["headers"]))  # the first of a name counts
        origin = headers.get(b"origin", b"").decode("latin-1").lower()
        try:
            self._check(scope, headers, origin)
        except Denied as denied:
            client = (scope.get("client") or ("unknown", 0))[0]
            self._refused(denied.why, client, f"{scope['path']}: {denied.line}")
            await _refuse(scope, send, denied)
            return
        extra = list(HEADERS)
        if origin and self._is_foreign(origin, scope, headers):  # and it is welcome
            extra = [item for item in extra if item[0] != b"cross-origin-resource-policy"]
            extra += [(b"access-control-allow-origin", origin.encode("latin-1"))]
        if self._origins:
            extra.append((b"vary", b"Origin"))
        if scope["type"] == "http" and origin and _is_preflight(scope, headers):
            await _preflight(send, extra)
            return
        await self._app(scope, receive, _with_headers(send, extra))

    def _check(self, scope: Scope, headers: dict[bytes, bytes], origin: str) -> None:
        client = (scope.get("client") or ("unknown", 0))[0]
        if scope["path"] != "/health/live" and (wait := self._rates.allow(client)):
            raise Denied(429, "rate", "too many requests from this address; wait a little", wait)
        host = headers.get(b"host", b"").decode("latin-1").lower()
        if not self._may_be_called(scope, host):
            line = f"{host[:80]!a} is no name of this server; see --hosts, --origins and --token"
            raise Denied(403, "host", line)
        if origin and self._is_foreign(origin, scope, headers) and not self._is_welcome(origin):
            raise Denied(
                403, "origin", f"pages of {origin[:80]} may not use this server; see --origins"
            )
        if self._token is None or (scope["type"] == "http" and _is_open(scope["path"])):
            return
        if scope["type"] == "http" and origin and _is_preflight(scope, headers):
            return  # a browser's question before the request, which brings the token
        if not self._is_known(_credentials(scope, headers)):
            raise Denied(401, "token", "a token is needed, as Authorization: Bearer or ?token=")

    def _is_known(self, given: Iterable[bytes]) -> bool:
        """Compare in constant time, all that was given."""
        assert self._token is not None
        found = False
        for credential in given:
            found |= hmac.compare_digest(_digest(credential), self._token)
        return found

    def _may_be_called(self, scope: Scope, host: str) -> bool:
        """Whether a ``Host`` is a name of ours.

        A page elsewhere can have its own name lead here, and is of our origin then. Where there is
        a token, it does not know it.
        """
        if self._token is not None:
            return True
        if self._hosts:
            return self._is_ours(host) or _is_address(host)
        return not _came_from_within(scope) or self._is_ours(host)

    def _is_ours(self, host: str) -> bool:
        """Whether a ``Host`` names this machine from within."""
        name = urlsplit(f"//{host}").hostname if _plain(host) else None
        if name is None:
            return False
        if name == "localhost" or name.endswith(".localhost"):
            return True
        if name in self._names:
            return True
        try:
            return ipaddress.ip_address(name).is_loopback
        except ValueError:
            return False

    def _is_foreign(self, origin: str, scope: Scope, headers: dict[bytes, bytes]) -> bool:
        """Whether the page that asks is not ours."""
        host = headers.get(b"host", b"").decode("latin-1").lower()
        scheme = "https" if scope.get("scheme") in ("https", "wss") else "http"
        return _as_sent(origin) != _as_sent(f"{scheme}://{host}")

    def _is_welcome(self, origin: str) -> bool:
        return "*" in self._origins or _as_sent(origin) in self._origins


def _as_sent(origin: str) -> str:
    """An origin as browsers write it: without the port that its scheme has anyway."""
    return origin.removesuffix(PORTS.get(origin.partition(":")[0], ""))


def _came_from_within(scope: Scope) -> bool:
    """Whether a client has come to an address that only this machine has."""
    try:
        return ipaddress.ip_address((scope.get("server") or ("",))[0]).is_loopback
    except ValueError:
        return False


def _is_address(host: str) -> bool:
    """Whether a ``Host`` is an address, which no page can have as its name."""
    try:
        ipaddress.ip_address(urlsplit(f"//{host}").hostname or "" if _plain(host) else "")
    except ValueError:
        return False
    return True


def _plain(host: str) -> bool:
    return bool(host) and all(c.isalnum() or c in ".-_:[]" for c in host) and host.isascii()


def _digest(secret: bytes) -> bytes:
    """Of one length, so that comparing tells nothing of the secret's."""
    return hashlib.sha256(secret).digest()


def _is_open(path: str) -> bool:
    return any(path == item or (item != "/" and path.startswith(item + "/")) for item in OPEN)


def _is_preflight(scope: Scope, headers: dict[bytes, bytes]) -> bool:
    return scope.get("method") == "OPTIONS" and b"access-control-request-method" in headers


def _credentials(scope: Scope, headers: dict[bytes, bytes]) -> list[bytes]:
    """What was given as token: by header (bearer, or the password of basic), and by the address."""
    given = []
    kind, _, value = headers.get(b"authorization", b"").partition(b" ")
    if kind.lower() == b"bearer":
        given.append(value.strip())
    elif kind.lower() == b"basic":
        try:
            given.append(base64.b64decode(value, validate=True).partition(b":")[2])
        except (binascii.Error, ValueError):
            pass
    try:
        query = parse_qs(scope["query_string"].decode("latin-1"), max_num_fields=100)
    except ValueError:
        return given
    # An address has a plus for a space. A token may have a plus, and never a space.
    found = [item.replace(" ", "+") for item in query.get("token", [])[:1]]
    return given + [item.encode("utf-8", "replace") for item in found]


async def _refuse(scope: Scope, send: Send, denied: Denied) -> None:
    """Answer an HTTP request or a handshake with the reason, in the words of OpenAI's interface."""
    kind, code = OPENAI.get(denied.status, ("invalid_request_error", denied.why))
    body = json.dumps(
        {"error": {"message": denied.line, "type": kind, "param": None, "code": code}}
    ).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        *HEADERS,
    ]
    if denied.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if denied.wait:
        headers.append((b"retry-after", str(math.ceil(denied.wait)).encode()))
    kind = "http.response"
    if scope["type"] == "websocket":
        if "websocket.http.response" not in scope.get("extensions", {}):
            await send({"type": "websocket.close", "code": 1008, "reason": denied.line[:120]})
            return
        kind = "websocket.http.response"
    await send({"type": f"{kind}.start", "status": denied.status, "headers": headers})
    await send({"type": f"{kind}.body", "body": body})


async def _preflight(send: Send, extra: list[tuple[bytes, bytes]]) -> None:
    headers = [
        *extra,
        (b"access-control-allow-methods", CORS_METHODS),
        (b"access-control-allow-headers", CORS_HEADERS),
        (b"access-control-max-age", b"600"),
        (b"content-length", b"0"),
    ]
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


def _with_headers(send: Send, extra: list[tuple[bytes, bytes]]) -> Send:
    """``send`` that adds headers to what has none of the same name."""

    async def sending(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            given = list(message.get("headers", []))
            names = {name.lower() for name, _ in given}
            message = {
                **message,
                "headers": given + [item for item in extra if item[0] not in names],
            }
        await send(message)

    return sending
