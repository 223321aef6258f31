"""One signed HTTP POST: what is sent, and what its answer means.

Signed as the Standard Webhooks specification says (https://www.standardwebhooks.com): the headers
``webhook-id``, ``webhook-timestamp`` (Unix seconds) and ``webhook-signature``, which is ``v1,`` and
the base64 of HMAC-SHA256 over ``id.timestamp.body``. The id is the same whenever the same thing is
sent again.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import http.client
import socket
import ssl
from dataclasses import dataclass
from urllib.parse import urlsplit

from aii.errors import ConfigError

NEVER = frozenset((400, 405, 406, 410, 411, 413, 414, 415, 422, 431))
"""Answers that say: this will not be taken, however often it comes."""

LONGEST_WAIT = 300.0
"""Seconds that a receiver's ``Retry-After`` may ask for."""

_ANSWER = 65_536


@dataclass(frozen=True)
class Outcome:
    """What came of a POST.

    Attributes:
        taken: the receiver has it.
        reached: somebody answered; else the receiver is down or cannot be reached.
        never: it is no use to send this again.
        why: what happened, for the log.
        after: seconds that the receiver wants us to wait, or None.
    """

    taken: bool
    reached: bool = True
    never: bool = False
    why: str = ""
    after: float | None = None


def key_of(secret: str) -> bytes:
    """The bytes of a secret: base64 behind ``whsec_``, else its UTF-8.

    Raises:
        ConfigError: it begins with ``whsec_`` and is no base64.
    """
    if not secret.startswith("whsec_"):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except binascii.Error:
        raise ConfigError("a secret that begins with whsec_ must go on in base64") from None


def signature(key: bytes, id: str, timestamp: int, body: bytes) -> str:
    """The value of ``webhook-signature``."""
    content = f"{id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()


def client_tls(ca: str | None = None) -> ssl.SSLContext:
    """Certificates and host names are checked, against ``ca`` (a PEM file) where one is given.

    Raises:
        ConfigError: that file cannot be read.
    """
    try:
        return ssl.create_default_context(cafile=ca)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"cannot read certificates from {ca}: {error}") from None


class Http:
    """A connection to one server that is kept open; for one thread.

    Args:
        address: http:// or https://, with path and query.
        timeout: seconds for each step of a request.
        tls: for https.
    """

    def __init__(self, address: str, *, timeout: float, tls: ssl.SSLContext | None = None) -> None:
        parts = urlsplit(address)
        self._path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._host, self._port = parts.hostname or "", parts.port
        self._tls = (tls or client_tls()) if parts.scheme == "https" else None
        self._timeout = timeout
        self._connection: http.client.HTTPConnection | None = None

    def post(self, body: bytes, headers: dict[str, str], path: str | None = None) -> Outcome:
        """Send ``body`` to the address, or to another ``path`` of the same server.

        A kept connection that the server has closed in the meantime is opened anew, once.
        """
        for kept in (True, False):
            reused = self._connection is not None
            try:
                return self._once(path or self._path, body, headers)
            except (http.client.RemoteDisconnected, ConnectionError) as error:
                self.close()
                if not (kept and reused):
                    return Outcome(False, reached=False, why=_why(error))
            except (OSError, http.client.HTTPException) as error:
                self.close()
                return Outcome(False, reached=False, why=_why(error))
        raise AssertionError("unreachable")

    def _once(self, path: str, body: bytes, headers: dict[str, str]) -> Outcome:
        connection = self._connection or self._connect()
        connection.request("POST", path, body, headers)
        answer = connection.getresponse()
        rest = answer.read(_ANSWER)
        if answer.will_close or len(rest) == _ANSWER:
            self.close()
        status = answer.status
        why = f"{status} {answer.reason}"
        if 200 <= status < 300:
            return Outcome(True, why=why)
        if 300 <= status < 400:
            why += ", which is not followed; give the new address"
        return Outcome(False, never=status in NEVER, why=why, after=_after(answer))

    def _connect(self) -> http.client.HTTPConnection:
        if self._tls is None:
            made = http.client.HTTPConnection(self._host, self._port, timeout=self._timeout)
        else:
            made = http.client.HTTPSConnection(
                self._host, self._port, timeout=self._timeout, context=self._tls
            )
        made.connect()
        made.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection = made
        return made

    def close(self) -> None:
        """Close the connection; the next request opens one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _after(answer: http.client.HTTPResponse) -> float | None:
    """``Retry-After`` in seconds (the form with a date is not read)."""
    text = answer.headers.get("Retry-After", "").strip()
    return min(float(text), LONGEST_WAIT) if text.isascii() and text.isdigit() else None


def _why(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
