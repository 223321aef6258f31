"""Asterisk's side of an AudioSocket, by its rules: what it sends, what it bears, when it gives up.

After ``res_audiosocket`` and ``app_audiosocket``: the socket does not block, a write that is not
taken whole is fatal, 2 s without anything in either direction are fatal, three bytes of header are
read and then the payload, kind 0x00 or the end of the connection ends the application well, an
error of the socket ends it badly and the caller is cut off.
"""

from __future__ import annotations

import selectors
import socket
import time
import uuid
from collections.abc import Iterable

from aii.protocols.audiosocket import AUDIO_RATES, message

GIVES_UP = 2.0
"""Seconds without activity, and to connect."""


class Peer:
    """One channel that runs ``AudioSocket(uuid,host:port)``.

    Args:
        address: where the server listens.
        audio: what the channel hears, SLIN in the kind's rate.
        kind: of the audio messages.
        mute_after: frames after which the channel has no more audio and waits for the server.

    Attributes:
        end: "" while it runs, then "hangup" (the server said so), "eof" (it closed) or what failed.
        heard: audio that came back.
    """

    def __init__(
        self,
        address: tuple[str, int],
        audio: bytes,
        *,
        kind: int = 0x10,
        call: uuid.UUID | None = None,
        mute_after: int | None = None,
    ) -> None:
        self.call = call or uuid.uuid4()
        self.end = ""
        self.heard = b""
        self.sent = 0
        self.frame = AUDIO_RATES[kind] // 50 * 2
        self._kind = kind
        self._audio = audio
        self._mute_after = mute_after
        self._frames = 0
        self._header = b""
        self.sock = socket.create_connection(address, timeout=GIVES_UP)
        self.sock.setblocking(False)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._patience = GIVES_UP
        self._looked = time.monotonic()
        self._write(message(0x01, self.call.bytes))

    def fileno(self) -> int:
        return self.sock.fileno()

    def channel_frame(self) -> None:
        """20 ms have passed: the channel has a frame, once its audio is over one of silence."""
        if self.end or (self._mute_after is not None and self._frames >= self._mute_after):
            return
        payload = self._audio[self.sent : self.sent + self.frame].ljust(self.frame, b"\0")
        self._frames += 1
        self.sent += self.frame
        self._write(message(self._kind, payload))

    def key(self, digit: str) -> None:
        self._write(message(0x03, digit.encode()))

    def _write(self, data: bytes) -> None:
        try:
            count = self.sock.send(data)
        except OSError as error:
            self._close(f"write failed: {error}")
            return
        self._patience = GIVES_UP
        if count != len(data):
            self._close("a short write")

    def readable(self) -> None:
        """The socket has something, or has ended."""
        self._patience = GIVES_UP
        try:
            self._header += self.sock.recv(3 - len(self._header))
        except BlockingIOError:
            return
        except OSError as error:
            self._close(f"read failed: {error}")
            return
        if not self._header:
            self._close("eof")
        elif self._header[0] == 0x00:
            self._close("hangup")
        elif self._header[0] != self._kind:
            self._close(f"a message of kind {self._header[0]:#x}")
        elif len(self._header) == 3:
            self._payload(int.from_bytes(self._header[1:], "big"))

    def _payload(self, length: int) -> None:
        """As Asterisk does: the rest of a message that has begun is waited for."""
        self._header = b""
        self.sock.settimeout(GIVES_UP)
        data = b""
        while len(data) < length:
            piece = self.sock.recv(length - len(data))
            if not piece:
                self._close("eof within a message")
                return
            data += piece
        self.sock.setblocking(False)
        self.heard += data

    def check(self) -> None:
        """Give up after 2 s in which nothing happened.

        On a busy machine all of us may stand still for longer than that: of a time in which we did
        not look, little counts.
        """
        before, self._looked = self._looked, time.monotonic()
        self._patience -= min(self._looked - before, 0.1)
        if not self.end and self._patience < 0:
            self._close("2 s of nothing")

    def hang_up(self) -> None:
        """The caller has hung up: the socket is just closed."""
        self._close("caller")

    def _close(self, why: str) -> None:
        self.end = self.end or why
        self.sock.close()


def run(peers: Iterable[Peer], until, *, tick: float = 0.02, patience: float = 100.0) -> None:
    """Let the channels run, 20 ms every ``tick`` seconds, until ``until()`` or all have ended."""
    running = list(peers)
    start, ticks = time.monotonic(), 0
    with selectors.DefaultSelector() as selector:
        for peer in running:
            selector.register(peer, selectors.EVENT_READ, peer)
        while running and not until():
            assert time.monotonic() - start < patience, "the peers did not come to an end"
            wait = start + ticks * tick - time.monotonic()
            for key, _ in selector.select(max(wait, 0.0)):
                fd = key.fd
                key.data.readable()
                if key.data.end:
                    selector.unregister(fd)
            if time.monotonic() >= start + ticks * tick:
                ticks += 1
                for peer in running:
                    fd = -1 if peer.end else peer.fileno()
                    peer.channel_frame()
                    peer.check()
                    if peer.end and fd >= 0:
                        selector.unregister(fd)
            running = [peer for peer in running if not peer.end]
