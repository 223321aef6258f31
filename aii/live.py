"""A client of ``/ws/transcription``: live audio goes in, transcripts come out.

One message is one ``.npy`` file, as the endpoint takes it. A thread reads the source and sends, a
thread receives; both end by themselves, and ``stop`` ends the audio but not the words.
"""

from __future__ import annotations

import io
import json
import math
import queue
import ssl
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit, urlunsplit

import numpy as np

from aii.errors import AiiError, InputError, MissingExtraError, ServiceError

if TYPE_CHECKING:
    from aii.capture import Source

LONGEST_MESSAGE = 1 << 20
"""Bytes of one transcript; a longer one ends the connection."""


@dataclass(frozen=True)
class Transcript:
    """What was heard of one client.

    Attributes:
        client_id: whose words.
        text: the words, as the server gave them.
        timestamp: unix seconds at which it did.
    """

    client_id: str
    text: str
    timestamp: float


@dataclass(frozen=True)
class Over:
    """A client's connection has ended; ``error`` says why, if not because the audio did."""

    client_id: str
    error: AiiError | None = None


Said = Transcript | Over


@dataclass(frozen=True)
class Server:
    """Where to connect.

    Attributes:
        address: ``http://host:port`` (or https, ws, wss), perhaps with a path before ours.
        token: the server's, or None.
        ca: path of the certificates that a server's own one is checked against; None: the system's.
        timeout: seconds to connect, and for the last words after the audio.

    Raises:
        InputError: the address is none, or the time.
    """

    address: str = "http://127.0.0.1:8000"
    token: str | None = None
    ca: str | None = None
    timeout: float = 60.0

    def __post_init__(self) -> None:
        parts = urlsplit(self.address)
        if parts.scheme not in ("http", "https", "ws", "wss") or not parts.hostname:
            raise InputError(
                f"{self.address!r} is no address of a server; give one as http://127.0.0.1:8000"
            )
        if not 0 < self.timeout < math.inf:
            raise InputError(f"--timeout is {self.timeout:g}; wanted are seconds above 0")

    def url(self, client_id: str) -> str:
        """The endpoint's address for this client; the token is not in it."""
        parts = urlsplit(self.address)
        scheme = "wss" if parts.scheme in ("https", "wss") else "ws"
        path = f"{parts.path.rstrip('/')}/ws/transcription"
        return urlunsplit((scheme, parts.netloc, path, urlencode({"client_id": client_id}), ""))

    def connect(self, client_id: str) -> Any:
        """An open connection (``websockets.sync.client.ClientConnection``).

        Raises:
            MissingExtraError: websockets is not installed.
            InputError: the server does not let us in, or the certificates cannot be read.
            ServiceError: there is no connection.
        """
        try:
            from websockets.exceptions import InvalidHandshake, InvalidStatus
            from websockets.sync.client import connect
        except ImportError:
            raise MissingExtraError("websockets", "mic") from None
        url = self.url(client_id)
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        try:
            opening = connect(
                url,
                ssl=self._tls() if url.startswith("wss:") else None,
                additional_headers=headers,
                open_timeout=self.timeout,
                max_size=LONGEST_MESSAGE,
                proxy=None,
            )
            # Since 17.1 a connection is for a ``with`` block only; ours ends in other threads.
            return opening.__enter__()
        except InvalidStatus as error:
            raise _refused(self.address, error.response, bool(self.token)) from None
        except ssl.SSLError as error:
            raise ServiceError(f"{self.address}: {_no_tls(error)}") from None
        except (OSError, InvalidHandshake, TimeoutError) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise ServiceError(
                f"cannot connect to {self.address}: {reason}; start a server with: aii serve"
            ) from None

    def _tls(self) -> ssl.SSLContext:
        try:
            return ssl.create_default_context(cafile=self.ca)
        except (OSError, ssl.SSLError) as error:
            raise InputError(f"cannot read certificates from {self.ca}: {error}") from None


def _no_tls(error: ssl.SSLError) -> str:
    """Why there is no TLS connection, and what to do."""
    if error.reason == "WRONG_VERSION_NUMBER":
        return "it does not speak TLS; give its address with http://"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}; see --ca"
    return f"no TLS connection: {error.reason or error}; see --ca"


def _refused(address: str, response: Any, token: bool) -> AiiError:
    """Why a handshake was refused, as far as its status says; whether it had a ``token``."""
    if response.status_code == 401:
        wants = "does not take this token" if token else "wants its token"
        return InputError(f"{address} {wants}: give --token or set AII_TOKEN")
    body = (response.body or b"").decode("utf-8", "replace").strip()
    try:
        body = str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        pass
    said = " ".join(body.split())[:200]
    return ServiceError(
        f"{address} refused the connection with status {response.status_code}"
        f"{said and ': '}{said}; is it an aii server?"
    )


def npy(samples: np.ndarray) -> bytes:
    """Samples (N,) as the ``.npy`` file that the endpoint takes."""
    file = io.BytesIO()
    np.save(file, np.ascontiguousarray(samples, np.float32), allow_pickle=False)
    return file.getvalue()


class LiveCall:
    """One client id: its audio goes to the server, what was said comes into ``said``.

    ``said`` gets any number of ``Transcript`` and at the end exactly one ``Over``. Several calls
    may share it.
    """

    def __init__(
        self, server: Server, client_id: str, source: Source, said: queue.Queue[Said]
    ) -> None:
        self.client_id = client_id
        self._server = server
        self._source = source
        self._said = said
        self._error: AiiError | None = None
        self._all_sent = False
        self._socket = server.connect(client_id)
        self._sender = threading.Thread(target=self._send, name=f"send {client_id}", daemon=True)
        self._receiver = threading.Thread(
            target=self._receive, name=f"receive {client_id}", daemon=True
        )

    def start(self) -> None:
        """Begin to send and to receive."""
        self._receiver.start()
        self._sender.start()  # it waits for the receiver at its end

    def stop(self) -> None:
        """The audio ends here; the last words still come."""
        self._source.stop()

    def close(self) -> None:
        """Hang up at once."""
        self._source.stop()
        self._socket.close()

    def _send(self) -> None:
        from websockets.exceptions import ConnectionClosed

        try:
            try:
                for block in self._source:
                    if len(block):
                        self._socket.send(npy(block))
            except AiiError as error:  # what was heard before is still worth its words
                self._error = error
            self._all_sent = True
            self._socket.send(json.dumps({"type": "end"}))
        except ConnectionClosed:
            return  # the receiver says why
        except Exception as error:
            self._error = ServiceError(f"{self._source.name}: {error}")
        # A server that does not answer any more must not keep us.
        self._receiver.join(self._server.timeout)
        if self._receiver.is_alive() and self._error is None:
            self._error = ServiceError(
                f"{self._server.address} did not give the last words within "
                f"{self._server.timeout:g} s"
            )
        self._socket.close()

    def _receive(self) -> None:
        from websockets.exceptions import ConnectionClosed

        try:
            for message in self._socket:
                transcript = _transcript(self.client_id, message)
                if transcript is not None:
                    self._said.put(transcript)
            if not self._all_sent:  # a good end, but the server's: it stops, for one
                self._error = self._error or _ended(self._server.address, self._socket)
        except ConnectionClosed as closed:
            self._error = self._error or _why(self._server.address, closed)
        finally:
            self._source.stop()
            self._said.put(Over(self.client_id, self._error))


def _transcript(client_id: str, message: str | bytes) -> Transcript | None:
    """A message of the server; None for one that is no transcript."""
    try:
        values = json.loads(message)
        if values["type"] != "transcript":
            return None
        return Transcript(client_id, str(values["text"]), float(values["timestamp"]))
    except (ValueError, KeyError, TypeError):
        return None


def _why(address: str, closed: Any) -> AiiError:
    """Why the server closed other than in good order."""
    received = closed.rcvd
    if received is None:
        return ServiceError(f"the connection to {address} broke off")
    said = f"{address} ended the connection: {received.reason or f'code {received.code}'}"
    return InputError(said) if received.code == 1008 else ServiceError(said)


def _ended(address: str, connection: Any) -> ServiceError:
    """The server closed in good order, but before the audio was over."""
    why = connection.close_reason or f"code {connection.close_code}"
    return ServiceError(f"{address} ended the connection before the audio was over: {why}")
