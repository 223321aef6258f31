"""Whether anything grows: latency and memory against a call's length and the number of calls.

    python -m benchmarks.growth                 # 2 to 3 h of a call, up to 1,000 calls; 6 minutes
    python -m benchmarks.growth --minutes 16    # the whole 8 h
    python -m benchmarks.growth --quick         # a call of 12 s, up to 10 calls

A call's length: the sample call again and again, through a session and the engine with the embedded
model, as fast as they go; the clock that the session sees is the call's own. At each length the
median time of the last 40 windows, of 15 and of 30 s in turns, and the process's memory. After
``--minutes`` it stops at the length that it has come to.

The number of calls: ``benchmarks/server_overhead.py`` with 1, 10, 100 and 1,000 calls.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from aii.audio.pcm import SlinDecoder
from aii.engine.api import Engine
from aii.resources import asset
from aii.servers.lifecycle import raise_file_limit
from aii.streaming.factory import Sessions
from aii.streaming.session import Session
from aii.streaming.settings import CallSettings
from aii.streaming.window import WindowSettings
from aii.types import SAMPLE_RATE
from benchmarks import server_overhead
from benchmarks.common import machine, median, note, percentile, result
from benchmarks.stub_server import memory

NAME = "growth"
LENGTHS = (60, 600, 3600, 4 * 3600, 8 * 3600)
"""Seconds of call at which we look."""

CALLS = (1, 10, 100, 1000)
RECENT = 40
"""Windows that a median is taken over: twenty cycles of 30 s."""

WINDOW = 15.0
"""Seconds between windows."""

STEP = 1.0
"""Seconds of audio fed at once."""


@dataclass
class LongCall:
    """One call that goes on and on.

    Attributes:
        taken: seconds that the last windows took.
        windows: how many there were.
        text: characters of the finals.
    """

    engine: Engine
    session: Session
    audio: np.ndarray
    taken: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT))
    windows: int = 0
    text: int = 0
    _at: int = 0

    @property
    def seconds(self) -> float:
        """How long it is so far."""
        return self._at / SAMPLE_RATE

    def play(self, until: float, end: float = float("inf")) -> None:
        """Go on up to a second of the call, or to a reading of the monotonic clock."""
        size = round(STEP * SAMPLE_RATE)
        while self.seconds < until and time.monotonic() < end:
            place = self._at % (len(self.audio) - size)
            self.session.feed(self.audio[place : place + size])
            self._at += size
            self._answer()

    def _answer(self) -> None:
        now = self._at / SAMPLE_RATE
        while (request := self.session.next_request(now)) is not None:
            begin = time.perf_counter()
            hypothesis = self.engine.submit(request).result(120)
            self.taken.append(time.perf_counter() - begin)
            self.windows += 1
            for event in self.session.accept(hypothesis):
                if event.type == "final":
                    self.text += len(getattr(event, "text", ""))


def by_length(lengths: Sequence[int], threads: int, *, window: float, minutes: float) -> None:
    """One call, looked at at each of ``lengths`` that it reaches within the minutes."""
    from aii.checkpoints import load_model
    from aii.cli.calls import vocabulary_of
    from aii.engine.local import LocalEngine

    model = load_model("embedded", device="cpu")
    engine = LocalEngine(model, threads=threads)
    # Without fallback: how often a model tries again is its affair, and would hide the rest.
    options = {"temperatures": (0.0,)}
    settings = CallSettings(
        language="en", words="none", window=WindowSettings(window=window), options=options
    )
    sessions = Sessions(settings, vocabulary_of(model))
    session = sessions.make("long")
    samples = SlinDecoder().feed(asset("sample_call.slin").read_bytes())
    call = LongCall(engine, session, samples)
    first: dict[str, float] = {}
    try:
        warm = LongCall(engine, sessions.make("warm-up"), samples)
        warm.session.start()
        warm.play(lengths[0])
        session.start()
        end = time.monotonic() + 60 * minutes
        for length in lengths:
            call.play(length, end)
            if call.seconds < length:
                note(f"after {minutes:g} minutes the call is {call.seconds:.0f} s long")
            length = round(call.seconds)
            gc.collect()
            figures = {
                "latency_p50": (median(list(call.taken)) * 1e3, "ms"),
                "latency_p95": (percentile(list(call.taken), 0.95) * 1e3, "ms"),
                "memory": (memory()["rss"] / 1e6, "MB"),
            }
            for metric, (value, unit) in figures.items():
                first.setdefault(metric, value)
                result(
                    NAME, f"call of {length} s", metric, value, unit, windows=call.windows,
                    characters=call.text, growth=value / first[metric],
                )  # fmt: skip
            if time.monotonic() >= end:
                break
    finally:
        engine.close(10)


def by_calls(counts: Sequence[int], seconds: float) -> None:
    """The stubbed server with more and more calls."""
    first: dict[str, float] = {}
    for count in counts:
        found = server_overhead.measure(count, seconds, warmup=1.0)
        end = found["end"]
        figures = {
            "ingest_delay_p99": (percentile(end["delays"], 0.99) * 1e3, "ms"),
            "cpu_per_frame": (end["cpu"] / found["sent"] * 1e6, "us"),
            "memory_per_call": ((end["peak"] - found["hello"]["rss"]) / count / 1e6, "MB"),
        }
        for metric, (value, unit) in figures.items():
            first.setdefault(metric, value)
            growth = value / first[metric]
            result(NAME, f"{count} calls", metric, value, unit, seconds=seconds, growth=growth)


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a small run that takes seconds")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--minutes", type=float, default=3.5, help="for the long call")
    args = parser.parse_args(argv)
    raise_file_limit()
    note(f"{machine()}")
    by_length(
        (6, 12) if args.quick else LENGTHS,
        args.threads or (1 if args.quick else 0),
        window=5.0 if args.quick else WINDOW,
        minutes=args.minutes,
    )
    by_calls(CALLS[:2] if args.quick else CALLS, 1.0 if args.quick else 15.0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
