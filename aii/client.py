"""Plays audio into a server as a PBX would, and gives back the lines that it answers.

One thread writes on schedule while the caller's thread reads, so neither waits for the other: a
server that answers during the call and one that answers after it are the same.
"""

from __future__ import annotations

import io
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO

from aii.errors import ServiceError
from aii.protocols import AudioSocketFraming, Hangup, Packet, wrap

PcmSource = bytes | BinaryIO | Iterable[bytes]
"""SLIN: all of it, a file that is read as it comes, or pieces of any size."""

LONGEST_LINE = 1 << 20
"""Bytes; a longer line of the answer is given in parts."""

_READ = 65_536


def stream_call(
    address: tuple[str, int],
    pcm_source: PcmSource,
    *,
    call_id: str | None = None,
    framing: str | None = None,
    frame_bytes: int = 640,
    rate: int = 16_000,
    realtime: bool = True,
    half_close: bool = True,
    timeout: float = 60.0,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], object] | None = None,
) -> Iterator[str]:
    """Make one call; yields each line of the answer as it comes, without its line end.

    The call begins with the first ``next()``; closing the iterator hangs up.

    Args:
        address: host and port.
        pcm_source: the audio, SLIN at ``rate``.
        call_id: announced as ``framing`` has it.
        framing: one of ``aii.protocols.WRAPPINGS``; None: ``callid`` with a call id, else ``raw``.
        frame_bytes: bytes of audio per write; 640 are 20 ms at 16 kHz.
        realtime: write each frame when its time has come, counted from the start of the call so
            that no error adds up; False: as fast as the server takes it.
        half_close: at the end of the audio say so and read on until the server closes. False: hang
            up at once, as a PBX does.
        timeout: seconds to connect, for one write to be taken, and from the end of the audio to
            the end of the answer.
        clock, sleep: seconds, for the schedule; None: a sleep that hanging up interrupts.

    Raises:
        ConfigError: these options do not go together (see ``aii.protocols.wrap``).
        ServiceError: no connection, or the server was silent or gone too early.
    """
    chosen = framing or ("raw" if call_id is None else "callid")
    packets = wrap(_pieces(pcm_source), chosen, call_id=call_id, frame_bytes=frame_bytes, rate=rate)
    call = _Call(address, packets, realtime, half_close, timeout, clock, sleep)
    reader = _AudioSocketReader() if chosen == "audiosocket" else _LineReader()
    return call.lines(reader)


def _pieces(source: PcmSource) -> Iterator[bytes]:
    """The audio in pieces, as soon as they are there."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        source = io.BytesIO(source)
    if not hasattr(source, "read"):
        yield from source
        return
    read = getattr(source, "read1", source.read)
    while piece := read(_READ):
        yield piece


class _LineReader:
    """Bytes of the answer into lines."""

    over = False

    def __init__(self) -> None:
        self._held = b""

    def feed(self, data: bytes) -> list[str]:
        *lines, self._held = (self._held + data).split(b"\n")
        if len(self._held) > LONGEST_LINE:
            lines.append(self._held)
            self._held = b""
        return [self._text(line) for line in lines]

    def end(self) -> list[str]:
        rest, self._held = self._held, b""
        return [self._text(rest)] if rest else []

    @staticmethod
    def _text(line: bytes) -> str:
        return line.rstrip(b"\r").decode("utf-8", "replace")


class _AudioSocketReader:
    """An AudioSocket server sends messages, not text; what matters here is its hang-up."""

    def __init__(self) -> None:
        self._framing = AudioSocketFraming()
        self.over = False

    def feed(self, data: bytes) -> list[str]:
        self.over |= any(isinstance(frame, Hangup) for frame in self._framing.receive(data))
        return []

    def end(self) -> list[str]:
        return []


class _Call:
    """One connection: a thread that writes, and ``lines`` that reads."""

    def __init__(
        self,
        address: tuple[str, int],
        packets: Iterator[Packet],
        realtime: bool,
        half_close: bool,
        timeout: float,
        clock: Callable[[], float],
        sleep: Callable[[float], object] | None,
    ) -> None:
        self._address = address
        self._packets = packets
        self._realtime = realtime
        self._half_close = half_close
        self._timeout = timeout
        self._clock = clock
        self._stop = threading.Event()
        self._sleep = sleep or self._stop.wait
        self._sent = 0.0  # seconds of audio
        self._error: BaseException | None = None  # why the writer ended early
        self._finished = False  # the writer has sent all

    def lines(self, reader: _LineReader | _AudioSocketReader) -> Iterator[str]:
        sock = self._connect()
        woken, waker = socket.socketpair()
        writer = threading.Thread(target=self._write, args=(sock, waker), daemon=True)
        try:
            writer.start()
            yield from self._read(sock, woken, reader)
        finally:
            self._stop.set()
            _shut(sock, socket.SHUT_RDWR)
            writer.join(timeout=1.0)  # it may be waiting for its audio source; then it is left
            sock.close()
            woken.close()

    def _connect(self) -> socket.socket:
        try:
            sock = socket.create_connection(self._address, timeout=self._timeout)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # each frame at its time
        except OSError as error:
            reason = error.strerror or str(error)
            raise ServiceError(
                f"cannot connect to {self._where}: {reason}; start a server with: aii serve"
            ) from None
        return sock

    @property
    def _where(self) -> str:
        return f"{self._address[0]}:{self._address[1]}"

    def _write(self, sock: socket.socket, waker: socket.socket) -> None:
        """Send every packet at its time; closing ``waker`` tells the reader that we are done."""
        try:
            start = self._clock()
            for packet in self._packets:
                early = start + self._sent - self._clock()
                if self._realtime and early > 0:
                    self._sleep(early)
                if self._stop.is_set():
                    return
                sock.sendall(packet.data)
                self._sent += packet.seconds
            early = start + self._sent - self._clock()
            if self._realtime and early > 0:
                self._sleep(early)  # the last frame lasts as long as the others
            self._finished = True
            if self._half_close:
                _shut(sock, socket.SHUT_WR)
        except Exception as error:
            self._error = error
        finally:
            waker.close()

    def _read(
        self, sock: socket.socket, woken: socket.socket, reader: _LineReader | _AudioSocketReader
    ) -> Iterator[str]:
        """Yield lines until the server closes, or the time after the end of the audio is up."""
        deadline: float | None = None
        with selectors.DefaultSelector() as selector:
            selector.register(sock, selectors.EVENT_READ)
            selector.register(woken, selectors.EVENT_READ)
            while True:
                left = None if deadline is None else max(deadline - time.monotonic(), 0.0)
                ready = [key.fileobj for key, _ in selector.select(left)]
                if not ready:
                    raise ServiceError(
                        f"{self._where} did not finish its answer within {self._timeout:g} s"
                    )
                if woken in ready:
                    selector.unregister(woken)
                    deadline = time.monotonic() + self._timeout
                    if self._written():
                        return
                if sock in ready:
                    data = _recv(sock)
                    yield from reader.feed(data) if data else reader.end()
                    if reader.over:
                        return
                    if not data:
                        break
        if not self._finished:
            raise ServiceError(f"{self._where} hung up after {self._sent:.1f} s of audio")

    def _written(self) -> bool:
        """The writer has ended; whether the call is over with that."""
        if isinstance(self._error, TimeoutError):
            raise ServiceError(
                f"{self._where} took no audio for {self._timeout:g} s; is it an aii server?"
            )
        if self._error is not None and not isinstance(self._error, OSError):
            raise self._error
        return self._finished and not self._half_close


def _recv(sock: socket.socket) -> bytes:
    """What has come; nothing at the end, be it polite or not."""
    try:
        return sock.recv(_READ)
    except OSError:
        return b""


def _shut(sock: socket.socket, how: int) -> None:
    try:
        sock.shutdown(how)
    except OSError:
        pass  # the other side was faster
