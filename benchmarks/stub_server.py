"""The product's TCP server with an engine that costs nothing: what remains is the server itself.

Run by ``server_overhead`` and ``growth`` as a process of its own. It prints its address, then takes
one command per line on standard input and answers each with a JSON line: ``begin`` starts a
measurement, ``end`` ends it and gives its figures, ``total`` waits for all calls to end and counts
what has arrived. At the end of its input it stops.
"""

from __future__ import annotations

import argparse
import gc
import json
import queue
import sys
import threading
import time
from concurrent.futures import Future
from functools import partial
from typing import Any

import numpy as np

from aii.protocols import make_framing
from aii.servers.lifecycle import raise_file_limit
from aii.servers.services import Services
from aii.servers.tcp import TcpServer
from aii.streaming.events import CallEnded, Event
from aii.streaming.factory import Sessions
from aii.streaming.session import Session
from aii.streaming.settings import CallSettings
from aii.types import SAMPLE_RATE, DecodeRequest, Hypothesis, Segment
from benchmarks.load import STAMP

FRAME = 320
"""Samples from one stamp to the next."""


class StubEngine:
    """Hears one word in each window, at once, on a thread of its own as an engine does."""

    def __init__(self) -> None:
        self.windows = 0
        self._queue: queue.SimpleQueue[tuple[DecodeRequest, Future[Hypothesis]] | None]
        self._queue = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def submit(self, request: DecodeRequest) -> Future[Hypothesis]:
        """Queue a request."""
        future: Future[Hypothesis] = Future()
        self._queue.put((request, future))
        return future

    def cancel(self, call_id: str) -> int:
        """Nothing waits here."""
        return 0

    def stats(self) -> dict[str, float]:
        """How many windows were answered."""
        return {"done": self.windows}

    def close(self, timeout: float = 0.0) -> bool:
        """Stop the thread."""
        self._queue.put(None)
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            request, future = item
            self.windows += 1
            end = request.start + request.duration
            future.set_result(
                Hypothesis(
                    request_id=request.request_id,
                    segments=(Segment(request.start, end, " word", (1,)),),
                    advance=request.duration,
                )
            )


class Counts:
    """What came in, and how late, while a measurement runs.

    A sink as well: a call's last event tells how much of it has arrived.
    """

    def __init__(self) -> None:
        self.delays: list[float] = []
        self.measuring = False
        self.samples = 0
        self.ended = 0

    def emit(self, event: Event) -> None:
        """Take an event."""
        if isinstance(event, CallEnded):
            self.samples += round(event.end * SAMPLE_RATE)
            self.ended += 1

    def close(self, timeout: float = 0.0) -> bool:
        """Nothing is held."""
        return True


class MeasuredSession(Session):
    """A session that reads the stamps of its call's frames when they are fed."""

    counts: Counts

    def feed(self, samples: np.ndarray) -> None:
        """As ``Session.feed``."""
        first = -self.counters.samples % FRAME
        super().feed(samples)
        if not self.counts.measuring:
            return
        now = time.monotonic_ns() // 1000
        for start in range(first, len(samples) - STAMP.size // 2 + 1, FRAME):
            stamp = (samples[start : start + STAMP.size // 2] * 32768).astype("<i2").tobytes()
            self.counts.delays.append((now - STAMP.unpack(stamp)[0]) / 1e6)


def make_services(engine: StubEngine, counts: Counts, framing: str) -> Services:
    """What ``aii serve`` gives its connections; calls whose id begins with "stamped" are measured.

    All calls are heard by the default policy, in English.
    """
    sessions = Sessions(CallSettings(language="en"))

    def make_session(call_id: str, caller: str = "", *settings: Any, **more: Any) -> Session:
        session = sessions.make(call_id, caller, *settings, **more)
        if call_id.startswith("stamped"):
            session.__class__ = MeasuredSession
            session.counts = counts  # type: ignore[attr-defined]
        return session

    return Services(
        engine=engine,
        make_session=make_session,
        make_framing=partial(make_framing, framing),
        sinks=[counts],
    )


def memory() -> dict[str, float]:
    """Bytes of memory that this process holds and has held at most."""
    found = {}
    with open("/proc/self/status", encoding="ascii") as file:
        for line in file:
            name, _, rest = line.partition(":")
            if name in ("VmRSS", "VmHWM"):
                found[name] = int(rest.split()[0]) * 1024.0
    return {"rss": found["VmRSS"], "peak": found["VmHWM"]}


def main() -> None:
    """Serve until told to quit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--framing", default="auto")
    args = parser.parse_args()
    raise_file_limit()
    engine, counts = StubEngine(), Counts()
    services = make_services(engine, counts, args.framing)
    server = TcpServer("127.0.0.1", 0, services, max_calls=100_000)
    thread = threading.Thread(target=server.serve)
    thread.start()
    _say({"address": server.address, **memory()})
    began = cpu = 0.0
    for line in sys.stdin:
        command = line.strip()
        if command == "begin":
            gc.collect()
            counts.delays.clear()
            counts.measuring = True
            began, cpu = time.monotonic(), time.process_time()
            _say({"calls": server.open_calls, **memory()})
        elif command == "end":
            counts.measuring = False
            seconds, used = time.monotonic() - began, time.process_time() - cpu
            delays, counts.delays = counts.delays, []
            _say(
                {
                    "seconds": seconds,
                    "cpu": used,
                    "delays": delays,
                    "windows": engine.windows,
                    "calls": server.open_calls,
                    **memory(),
                }
            )
        elif command == "total":
            until = time.monotonic() + 30
            while server.open_calls and time.monotonic() < until:
                time.sleep(0.02)
            _say({"samples": counts.samples, "ended": counts.ended, **memory()})
        else:
            break
    server.stop()
    thread.join(30)
    server.finish(10)
    engine.close(5)


def _say(line: dict[str, object]) -> None:
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
