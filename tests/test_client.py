"""The client against small servers on loopback; every wait is bounded."""

from __future__ import annotations

import io
import socket
import struct
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from aii.client import LONGEST_LINE, stream_call
from aii.errors import ConfigError, ServiceError
from aii.protocols.audiosocket import message

PCM = bytes(range(256)) * 20
WAIT = 60.0


class Server:
    """Takes one call on a thread of its own; ``handle`` gets the connection."""

    def __init__(self, handle: Callable[[socket.socket], None]) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(WAIT)
        self.address = self._listener.getsockname()[:2]
        self._handle = handle
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        connection, _ = self._listener.accept()
        with connection:
            connection.settimeout(WAIT)
            self._handle(connection)

    def close(self) -> None:
        self._thread.join(WAIT)
        self._listener.close()
        assert not self._thread.is_alive()


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def serve(handle: Callable[[socket.socket], None]) -> Server:
        servers.append(Server(handle))
        return servers[-1]

    yield serve
    for server in servers:
        server.close()


def read_all(connection: socket.socket) -> bytes:
    data = b""
    while piece := connection.recv(65_536):
        data += piece
    return data


class Recorder:
    """Keeps what a call sent, then answers."""

    def __init__(self, answer: bytes = b"") -> None:
        self.got = b""
        self._answer = answer

    def __call__(self, connection: socket.socket) -> None:
        self.got = read_all(connection)
        connection.sendall(self._answer)


def test_sends_everything_and_yields_the_lines(serve) -> None:
    recorder = Recorder("eins\r\nzwei ü\n\nno line end".encode())
    server = serve(recorder)
    lines = list(stream_call(server.address, PCM, realtime=False, timeout=WAIT))
    assert lines == ["eins", "zwei ü", "", "no line end"]
    assert recorder.got == PCM


@pytest.mark.parametrize(
    "source", [PCM, io.BytesIO(PCM), [PCM[:5], PCM[5:3000], PCM[3000:]], memoryview(PCM)]
)
def test_sources_of_every_kind(serve, source) -> None:
    recorder = Recorder()
    server = serve(recorder)
    options = {"call_id": "call-9", "realtime": False, "timeout": WAIT}
    assert list(stream_call(server.address, source, **options)) == []
    assert recorder.got == b"call-9\r" + PCM


def test_frames_go_out_on_an_absolute_schedule(serve) -> None:
    """Sleeps that last too long are made up for: the times to wake at are 20 ms apart."""
    now = 100.0
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        nonlocal now
        waits.append(now + seconds)
        now += seconds + 0.003

    recorder = Recorder(b"ok\n")
    server = serve(recorder)
    lines = stream_call(
        server.address, bytes(6400), clock=lambda: now, sleep=sleep, timeout=WAIT, rate=16_000
    )
    assert list(lines) == ["ok"]
    assert waits == [pytest.approx(100 + 0.02 * k) for k in range(1, 11)]


def test_a_late_source_is_caught_up_with(serve) -> None:
    now = 0.0
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        nonlocal now
        waits.append(now + seconds)
        now += seconds

    def source() -> Iterator[bytes]:
        nonlocal now
        yield bytes(640)
        now += 0.05
        yield bytes(640 * 4)

    server = serve(Recorder())
    list(stream_call(server.address, source(), clock=lambda: now, sleep=sleep, timeout=WAIT))
    assert waits == [pytest.approx(t) for t in (0.06, 0.08, 0.1)]


def test_reads_while_it_writes(serve) -> None:
    """The server takes no more audio than it has answered to: a client that only writes hangs."""
    size = 4_000_000
    line = b"x" * 999 + b"\n"

    def handle(connection: socket.socket) -> None:
        left = size
        while left:
            left -= len(connection.recv(min(left, 1000)))
            connection.sendall(line)

    server = serve(handle)
    call = stream_call(server.address, bytes(size), realtime=False, frame_bytes=4000, timeout=WAIT)
    assert sum(len(text) + 1 for text in call) >= size


def test_hanging_up_at_once_reads_nothing(serve) -> None:
    recorder = Recorder()
    server = serve(recorder)
    options = {"realtime": False, "half_close": False, "timeout": WAIT}
    assert list(stream_call(server.address, PCM, **options)) == []
    server.close()
    assert recorder.got == PCM


def test_closing_the_iterator_ends_the_call(serve) -> None:
    ended = threading.Event()

    def handle(connection: socket.socket) -> None:
        connection.sendall(b"hello\n")
        try:
            read_all(connection)
        except ConnectionError:
            pass
        ended.set()

    server = serve(handle)
    with closing(stream_call(server.address, bytes(16_000 * 2 * 60), timeout=WAIT)) as lines:
        assert next(lines) == "hello"
    assert ended.wait(WAIT)


def test_an_audiosocket_call(serve) -> None:
    call_id = str(uuid.uuid4())
    recorder = Recorder(message(0x12, b"text?\n") + message(0x00))
    server = serve(recorder)
    options = {"call_id": call_id, "framing": "audiosocket", "realtime": False, "timeout": WAIT}
    assert list(stream_call(server.address, PCM, **options)) == []
    start = message(0x01, uuid.UUID(call_id).bytes) + message(0x12, PCM[:640])
    assert recorder.got.startswith(start)


def test_an_audiosocket_server_that_hangs_up_first(serve) -> None:
    def handle(connection: socket.socket) -> None:
        connection.sendall(message(0x00))
        connection.shutdown(socket.SHUT_WR)
        try:
            read_all(connection)
        except ConnectionError:
            pass

    server = serve(handle)
    long = bytes(16_000 * 2 * 60)
    assert list(stream_call(server.address, long, framing="audiosocket", timeout=WAIT)) == []


def test_a_server_that_never_finishes(serve) -> None:
    done = threading.Event()

    def handle(connection: socket.socket) -> None:
        read_all(connection)
        connection.sendall(b"half\n")
        done.wait(WAIT)

    server = serve(handle)
    lines = stream_call(server.address, PCM, realtime=False, timeout=5.0)
    assert next(lines) == "half"
    with pytest.raises(ServiceError, match="did not finish its answer within 5 s"):
        next(lines)
    done.set()


def test_a_server_that_takes_no_audio(serve) -> None:
    done = threading.Event()
    server = serve(lambda connection: done.wait(WAIT) and None)
    lines = stream_call(
        server.address, bytes(50_000_000), realtime=False, frame_bytes=60_000, timeout=0.3
    )
    with pytest.raises(ServiceError, match="took no audio for 0.3 s"):
        next(lines)
    done.set()


def test_a_server_that_hangs_up_early(serve) -> None:
    def handle(connection: socket.socket) -> None:
        connection.sendall(b"no\n")
        connection.shutdown(socket.SHUT_WR)
        try:
            read_all(connection)
        except ConnectionError:
            pass

    server = serve(handle)
    lines = stream_call(server.address, bytes(16_000 * 2 * 60), timeout=WAIT)
    assert next(lines) == "no"
    with pytest.raises(ServiceError, match=r"hung up after \d+\.\d s of audio"):
        next(lines)


def test_a_server_that_resets_the_call(serve) -> None:
    def handle(connection: socket.socket) -> None:
        connection.recv(1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    server = serve(handle)
    with pytest.raises(ServiceError, match="hung up after"):
        list(stream_call(server.address, bytes(16_000 * 2 * 60), timeout=WAIT))


def test_no_server() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()[:2]
    with pytest.raises(ServiceError, match="cannot connect to 127.0.0.1:.*aii serve"):
        next(stream_call(address, PCM))


def test_options_that_do_not_go_together_are_said_before_the_call() -> None:
    with pytest.raises(ConfigError, match="carries no call id"):
        stream_call(("127.0.0.1", 1), PCM, call_id="abc", framing="raw")


def test_a_source_that_breaks_is_not_the_server_s_fault(serve) -> None:
    def source() -> Iterator[bytes]:
        yield PCM
        raise ValueError("broken source")

    server = serve(Recorder())
    with pytest.raises(ValueError, match="broken source"):
        list(stream_call(server.address, source(), realtime=False, timeout=WAIT))


def test_a_line_without_end_comes_in_parts(serve) -> None:
    server = serve(Recorder(b"x" * (2 * LONGEST_LINE + 5)))
    lines = list(stream_call(server.address, PCM, realtime=False, timeout=WAIT))
    assert "".join(lines) == "x" * (2 * LONGEST_LINE + 5)
    assert max(map(len, lines)) < LONGEST_LINE + 65_537
