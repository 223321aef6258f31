"""A stand-in for /ws/transcription, made from its description and the public websockets package."""

from __future__ import annotations

import io
import json
import threading
import time
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
from websockets.datastructures import Headers
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve


class Endpoint:
    """Keeps what each client sent; says how many samples it has after each second and at the end.

    Args:
        token: what it wants in the header, or None.
        hang_up: (code, reason) with which it closes on the first audio.
        mute: never answer the end.
    """

    def __init__(
        self,
        *,
        token: str | None = None,
        hang_up: tuple[int, str] | None = None,
        mute: bool = False,
    ) -> None:
        self.token = token
        self.hang_up = hang_up
        self.mute = mute
        self.heard: dict[str, list[np.ndarray]] = {}
        self.ended: list[str] = []
        self.first = threading.Event()  # audio has come
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._server = serve(self._call, "127.0.0.1", 0, process_request=self._request)
        self._thread = threading.Thread(target=self._server.serve_forever)

    def __enter__(self) -> Endpoint:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._server.shutdown()
        self._thread.join(60)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._server.socket.getsockname()[1]}"

    def samples(self, client_id: str) -> np.ndarray:
        return np.concatenate(self.heard[client_id])

    def _request(self, connection: ServerConnection, request: Request) -> Response | None:
        if urlsplit(request.path).path != "/ws/transcription":
            return Response(404, "Not Found", Headers(), b'{"error": {"message": "no such path"}}')
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            return connection.respond(HTTPStatus.UNAUTHORIZED, "a token is wanted")
        return None

    def _call(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        (client_id,) = parse_qs(urlsplit(connection.request.path).query)["client_id"]
        with self._lock:
            taken = client_id in self.heard
            if not taken:
                self.heard[client_id] = []
        if taken:
            connection.close(1008, f"client id {client_id} is in use")
            return
        told = 0
        for message in connection:
            if isinstance(message, str):
                assert json.loads(message) == {"type": "end"}
                self.ended.append(client_id)
                if self.mute:
                    self._stop.wait(100)
                    return
                self._say(connection, client_id)
                return  # closes with 1000
            samples = np.load(io.BytesIO(message), allow_pickle=False)
            assert samples.dtype == np.float32
            assert samples.ndim == 1
            self.heard[client_id].append(samples)
            self.first.set()
            if self.hang_up is not None:
                connection.close(*self.hang_up)
                return
            if sum(map(len, self.heard[client_id])) // 16_000 > told:
                told += 1
                self._say(connection, client_id)

    def _say(self, connection: ServerConnection, client_id: str) -> None:
        transcript: dict[str, Any] = {
            "type": "transcript",
            "client_id": client_id,
            "text": f" {sum(map(len, self.heard[client_id]))} samples\nso far",
            "timestamp": time.time(),
        }
        connection.send(json.dumps(transcript))
