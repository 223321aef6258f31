"""A TCP server on a free port with a fake engine, and clients that talk to it."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator

from fake_engine import VOCABULARY, FakeEngine, call_settings

from aii.protocols import make_framing
from aii.servers.call_ids import CallIds
from aii.servers.services import Services
from aii.servers.tcp import TcpServer
from aii.streaming.events import CallEnded, Event, Final
from aii.streaming.factory import Sessions
from aii.streaming.session import Session

WAIT = 100.0
"""Seconds after which a test gives up waiting for what must come; a busy machine is slow."""


class Clock:
    """Stands still until it is set."""

    now = 50.0

    def __call__(self) -> float:
        return self.now


class Listener:
    """A sink that keeps everything and lets a test wait for it."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.changed = threading.Condition()

    def emit(self, event: Event) -> None:
        with self.changed:
            self.events.append(event)
            self.changed.notify_all()

    def close(self, timeout: float = 0.0) -> bool:
        return True

    def wait(self, condition) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: condition(self.events), WAIT), self.events

    def ended(self, calls: int = 1) -> list[CallEnded]:
        """Wait for ``calls`` ended calls."""

        def ends(events: list[Event]) -> list[CallEnded]:
            return [event for event in events if isinstance(event, CallEnded)]

        self.wait(lambda events: len(ends(events)) >= calls)
        return ends(self.events)

    def wait_for_end(self, call_id: str) -> None:
        """Wait for the end of one call; whatever it said has come before."""
        self.wait(lambda events: any(_ends(event, call_id) for event in events))

    def count(self) -> int:
        """Calls that have ended."""
        return sum(isinstance(event, CallEnded) for event in list(self.events))

    def text(self, call_id: str | None = None) -> str:
        return "".join(
            event.text
            for event in list(self.events)
            if isinstance(event, Final) and call_id in (None, event.call_id)
        )


def _ends(event: Event, call_id: str) -> bool:
    return isinstance(event, CallEnded) and event.call_id == call_id


class Rig:
    """A running server; leaving the ``with`` block stops it."""

    def __init__(
        self, *, engine=None, framing="auto", max_calls=500, settings=None, language=None, **options
    ):
        self.engine = engine or FakeEngine()
        self.ids = CallIds()
        self.listener = Listener()
        self.sessions = Sessions(call_settings(language=language, **(settings or {})), VOCABULARY)

        def make_session(*args, **keywords) -> Session:
            return self.sessions.make(*args, **keywords)

        self.services = services = Services(
            engine=self.engine,
            make_session=make_session,
            make_framing=lambda: make_framing(framing),
            ids=self.ids,
            sinks=[self.listener],
            **options,
        )
        self.server = TcpServer("127.0.0.1", 0, services, max_calls=max_calls)
        self.connections = 0
        self.thread = threading.Thread(target=self.server.serve)

    def __enter__(self) -> Rig:
        self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def stop(self, timeout: float = 10.0) -> bool:
        """Stop and say whether all calls finished in time."""
        self.server.stop()
        self.thread.join(WAIT)
        assert not self.thread.is_alive()
        in_time = self.server.finish(timeout)
        self.engine.close(5)
        return in_time

    def connect(self) -> socket.socket:
        client = socket.create_connection(self.server.address, timeout=WAIT)
        self.connections += 1
        return client

    def call(self, *pieces: bytes) -> str:
        """Send pieces, half-close, and return all that comes back."""
        with self.connect() as client:
            for piece in pieces:
                client.sendall(piece)
            client.shutdown(socket.SHUT_WR)
            return read_all(client)

    def wait_for_no_calls(self) -> None:
        """Wait until all that was connected has come to its end.

        That no call is open says nothing by itself: on a busy machine the kernel holds connections
        that the server has not seen yet.
        """

        def none() -> bool:
            taken = sum(self.server.counts.values())
            return taken >= self.connections and self.server.open_calls == 0

        wait_until(none)


def read_all(client: socket.socket) -> str:
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := client.recv(65536):
            data += piece
    return data.decode()


def lines(reply: str) -> list[str]:
    """The texts of a reply's lines, with the space that each begins with in a transcript."""
    return [" " + line for line in reply.splitlines()]


def reset(client: socket.socket) -> None:
    """Close with RST instead of FIN."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def delivered(client: socket.socket) -> bool:
    """Whether the peer's kernel has all that was sent (Linux: nothing unacknowledged)."""
    import array
    import fcntl
    import termios

    waiting = array.array("i", [0])
    fcntl.ioctl(client, termios.TIOCOUTQ, waiting)
    return waiting[0] == 0


def wait_until(condition) -> None:
    for _ in polls():
        if condition():
            return
    raise AssertionError("what was waited for did not happen")


def polls() -> Iterator[None]:
    end = time.monotonic() + WAIT
    while time.monotonic() < end:
        yield
        time.sleep(0.005)
