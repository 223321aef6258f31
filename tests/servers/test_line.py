"""aii.servers.line: what is live gathers, and nobody takes a pause for shorter than it was."""

from __future__ import annotations

import itertools
import select
import selectors
import socket
import threading
from concurrent.futures import Future
from types import SimpleNamespace

import pytest
from fake_engine import hear, make_session
from server_rig import WAIT

from aii.protocols import make_framing
from aii.servers.connection import Connection
from aii.servers.line import GATHER, Line
from aii.servers.services import Services
from aii.sinks.socket import Outbox
from aii.streaming.events import Final

FRAME = bytes(range(256)) * 2 + bytes(128)


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def ends(clock):
    near, far = socket.socketpair()
    line = Line(near, Outbox("none"), clock)
    yield line, far
    line.close()
    far.close()


def play(line, far, clock, frames, *, period=0.02, frame=FRAME):
    """Send frames and read as a loop would; (time, bytes, pause) of each read."""
    reads = []
    for _ in range(frames):
        far.send(frame)
        read = line.gathered is None or line.ready(0, clock.now)
        if read and (data := line.read()):
            reads.append((clock.now, len(data), line.pause))
        clock.now += period
    return reads


def test_a_live_stream_gathers_and_loses_nothing(ends, clock):
    line, far = ends
    first = play(line, far, clock, 10)
    assert [size for _, size, _ in first] == [640] * 10  # nothing is known about it yet
    line.read()
    reads = play(line, far, clock, 60)
    assert line.gathered is not None
    assert max(size for _, size, _ in reads[12:]) == 3 * 640
    times = [time for time, _, _ in reads]
    assert all(b - a <= GATHER + 0.001 for a, b in itertools.pairwise(times))
    clock.now += GATHER
    line.read()
    assert line.received == 70 * 640


def test_a_pause_ends_the_gathering(ends, clock):
    line, far = ends
    play(line, far, clock, 30)
    assert line.gathered is not None
    looks = 0
    while line.gathered is not None:
        clock.now += GATHER
        assert line.ready(0, clock.now)
        data, looks = line.read(), looks + 1
    assert data is None
    assert looks <= 2
    assert line.wanted(reading=True) == selectors.EVENT_READ


@pytest.mark.parametrize("frame, period", [(bytes(60_000), 0.02), (FRAME, 0.0005), (FRAME, 0.06)])
def test_what_is_not_live_is_read_as_it_comes(ends, clock, frame, period):
    """A file, a flood of small frames, frames that are far apart."""
    line, far = ends
    play(line, far, clock, 300, period=period, frame=frame)
    assert line.gathered is None


def test_a_flood_behind_a_live_stream_ends_the_gathering(ends, clock):
    line, far = ends
    play(line, far, clock, 30)
    assert line.gathered is not None
    far.send(bytes(60_000))
    clock.now += GATHER
    assert len(line.read()) >= 60_000
    assert line.gathered is None


def test_the_end_of_a_live_stream_is_read(ends, clock):
    line, far = ends
    play(line, far, clock, 30)
    far.close()
    clock.now += GATHER
    while line.read():
        pass
    assert line.end == "eof"
    assert line.gathered is None
    assert line.wanted(reading=True) == 0


def test_a_pause_is_never_measured_shorter_than_it_was(ends, clock):
    line, far = ends
    play(line, far, clock, 30)
    for quiet in (0.03, 0.07, 0.1, 0.15, 0.4):
        far.send(FRAME)
        last = clock.now
        for _ in range(round(quiet / 0.01)):  # as the loop does while nothing comes
            if line.gathered is None or line.ready(0, clock.now):
                line.read()
            clock.now += 0.01
        far.send(b"\r")
        quiet = clock.now - last
        while line.gathered is not None and not line.ready(0, clock.now):
            clock.now += 0.01
        assert line.read().endswith(b"\r")
        assert line.pause >= quiet - 1e-9
        play(line, far, clock, 30)


def test_a_return_in_the_pause_of_a_live_call_is_still_a_flush(clock):
    """Byte 13 with 100 ms of silence around it, behind a stream whose frames gather."""
    near, far = socket.socketpair()
    events = []

    def answer(request):
        future = Future()
        future.set_result(hear(request))
        return future

    services = Services(
        engine=SimpleNamespace(submit=answer),
        make_session=lambda call_id, caller: make_session(call_id, caller),
        make_framing=lambda: make_framing("raw"),
        sinks=[SimpleNamespace(emit=events.append)],
        clock=clock,
    )
    connection = Connection(near, "here", services, SimpleNamespace(ring=lambda member: None))

    def let_pass(seconds):
        for _ in range(round(seconds / 0.01)):
            clock.now += 0.01
            ready = bool(connection.wanted and select.select([near], [], [], 0)[0])
            connection.step(selectors.EVENT_READ if ready else 0)

    for _ in range(50):
        far.send(bytes(640))
        let_pass(0.02)
    assert connection._line.gathered is not None
    let_pass(0.11)
    far.send(b"\r")
    let_pass(0.25)
    finals = [event for event in events if isinstance(event, Final)]
    assert [(final.reason, final.error) for final in finals] == [("flush", None)]
    far.close()
    let_pass(0.1)
    connection.leave()


def test_calls_of_two_listeners_never_see_each_others_bytes():
    """Each listener has a thread of its own, and both read at once."""
    both = threading.Barrier(2, timeout=WAIT)
    heard: dict[bytes, bytes | None] = {}

    class Socket:
        def __init__(self, data: bytes) -> None:
            self.data = data

        def setblocking(self, flag: bool) -> None: ...

        def recv_into(self, buffer: bytearray) -> int:
            both.wait()
            buffer[: len(self.data)] = self.data
            both.wait()  # the other one has written too by now
            return len(self.data)

    def call(data: bytes) -> None:
        heard[data] = Line(Socket(data), Outbox("none"), lambda: 0.0).read()  # type: ignore[arg-type]

    threads = [threading.Thread(target=call, args=(data,)) for data in (b"one call", b"the other")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    assert heard == {b"one call": b"one call", b"the other": b"the other"}
