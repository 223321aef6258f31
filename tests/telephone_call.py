"""A telephone call on the TCP port, for tests that give its audio bit by bit."""

from __future__ import annotations

import threading
import wave
from collections.abc import Iterator

from browser_rig import SAMPLE, LiveServer

from aii.client import stream_call


def slin() -> bytes:
    with wave.open(str(SAMPLE)) as file:
        return file.readframes(file.getnframes())


class Call:
    """A telephone call on the TCP port, audio when the test gives it."""

    def __init__(self, server: LiveServer, call_id: str) -> None:
        self._more = threading.Condition()
        self._pieces: list[bytes | None] = []
        self._server = server
        self._id = call_id
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        address = ("127.0.0.1", self._server.tcp)
        for _ in stream_call(address, self._audio(), call_id=self._id, realtime=False, timeout=140):
            pass

    def _audio(self) -> Iterator[bytes]:
        while True:
            with self._more:
                assert self._more.wait_for(lambda: self._pieces, 120)
                piece = self._pieces.pop(0)
            if piece is None:
                return
            yield piece

    def send(self, seconds: tuple[float, float]) -> None:
        start, end = (2 * round(16_000 * second) for second in seconds)
        self._give(slin()[start:end])

    def end(self) -> None:
        self._give(None)
        self._thread.join(150)
        assert not self._thread.is_alive()

    def _give(self, piece: bytes | None) -> None:
        with self._more:
            self._pieces.append(piece)
            self._more.notify()
