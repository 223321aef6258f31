"""Speech that a simple function can hear, and an engine that hears it; no model, no torch.

A word is a run of samples of one value; its text is " w<value>". As Whisper does, hearing a full
window leaves a word that touches the window's end to the next one.
"""

from __future__ import annotations

import itertools
import queue
import threading
from concurrent.futures import Future

import numpy as np

from aii.errors import EngineClosedError, EngineFullError
from aii.streaming.policy import CallContext
from aii.streaming.session import Session
from aii.streaming.window import WindowPolicy, WindowSettings
from aii.types import SAMPLE_RATE, DecodeRequest, Hypothesis, Segment, Timing, Token, Word

FRAME = 160


def speech(seconds: float, seed: int = 0, longest: float = 4.0) -> np.ndarray:
    """int16 samples: words of random lengths, on whole 10 ms, no two alike."""
    chance = np.random.default_rng(seed)
    total, pieces, value = round(seconds * 100), [], 0
    while total > 0:
        value += 1
        frames = min(int(chance.integers(10, round(longest * 100))), total)
        pieces.append(np.full(frames * FRAME, value, np.int16))
        total -= frames
    return np.concatenate(pieces) if pieces else np.zeros(0, np.int16)


def slin(samples: np.ndarray) -> bytes:
    return samples.astype("<i2").tobytes()


def floats(samples: np.ndarray) -> np.ndarray:
    return samples.astype(np.float32) / 32768.0


def spoken(samples: np.ndarray) -> str:
    """The transcript of ``speech``: each word once."""
    runs = np.flatnonzero(np.diff(samples, prepend=samples[:1] - 1)) if len(samples) else []
    return "".join(f" w{samples[i]}" for i in runs)


def hear(request: DecodeRequest) -> Hypothesis:
    """What a perfect model hears in a request."""
    values = np.rint(request.samples * 32768).astype(int)
    usable = len(values) // FRAME * FRAME
    edges = np.flatnonzero(np.diff(values[:usable])) + 1
    bounds = [0, *edges.tolist(), usable]
    runs = [(a, b) for a, b in itertools.pairwise(bounds) if b > a]
    advance = usable
    full = request.duration >= 30
    if full and len(runs) > 1 and not request.options.get("keep_tail"):
        advance = runs.pop()[0]
    segments = tuple(_segment(values, a, b, request) for a, b in runs)
    return Hypothesis(
        request_id=request.request_id,
        tokens=tuple(Token(t) for s in segments for t in s.tokens),
        segments=segments,
        advance=advance / SAMPLE_RATE,
        passes=len(runs),
        timing=Timing(0.0, 0.01),
    )


def _segment(values: np.ndarray, a: int, b: int, request: DecodeRequest) -> Segment:
    start, end = request.start + a / SAMPLE_RATE, request.start + b / SAMPLE_RATE
    text = f" w{values[a]}"
    words = (Word(text, start, end, 1.0),) if request.options.get("word_timestamps") else ()
    return Segment(start, end, text, (int(values[a]),), words)


class FakeEngine:
    """Hears on a thread of its own, while ``gate`` is open; ``most`` requests may wait."""

    def __init__(self, most: int = 10_000) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.requests: list[DecodeRequest] = []
        self.cancelled: list[str] = []
        self.broken: set[str] = set()
        self._most = most
        self._closed = False
        self._queue: queue.SimpleQueue[tuple[DecodeRequest, Future[Hypothesis]] | None]
        self._queue = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def submit(self, request: DecodeRequest) -> Future[Hypothesis]:
        if self._closed:
            raise EngineClosedError("closed")
        if self._queue.qsize() >= self._most:
            raise EngineFullError("full")
        self.requests.append(request)
        future: Future[Hypothesis] = Future()
        self._queue.put((request, future))
        return future

    def cancel(self, call_id: str) -> int:
        self.cancelled.append(call_id)
        return 0

    def stats(self) -> dict[str, float]:
        return {}

    def close(self, timeout: float = 0.0) -> bool:
        self._closed = True
        self.gate.set()
        self._queue.put(None)
        self._thread.join(5)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            self.gate.wait(20)
            request, future = item
            if request.call_id in self.broken:
                future.set_exception(RuntimeError("the decoder\nbroke"))
            else:
                future.set_result(hear(request))


def make_session(call_id: str = "c", caller: str = "", **settings) -> Session:
    ids = iter(range(1, 1_000_000))
    return Session(
        call_id, WindowPolicy(CallContext(call_id, ids), WindowSettings(**settings)), caller=caller
    )


def answer(session: Session, now: float = 0.0) -> list:
    """Let the session's due requests be heard until there are none; the events."""
    events = []
    while (request := session.next_request(now)) is not None:
        events += session.accept(hear(request))
    return events
