"""Speech that a simple function can hear, and an engine that hears it; no model, no torch.

A word is a run of samples of one value; its text is " w<value>", spelled in Whisper's real tokens.
The value 0 is silence. As Whisper does, hearing a full window leaves a word that touches the
window's end to the next one. A request that stops by attention is heard as AlignAtt has it: each
token attends to a frame of its own within its word.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future

import numpy as np

from aii.errors import EngineClosedError, EngineFullError
from aii.streaming.alignatt import AlignAttSettings
from aii.streaming.factory import Sessions
from aii.streaming.local_agreement import AgreementSettings
from aii.streaming.session import Session
from aii.streaming.settings import CallSettings
from aii.streaming.vocabulary import Vocabulary
from aii.streaming.window import WindowSettings
from aii.types import SAMPLE_RATE, DecodeRequest, Hypothesis, Segment, Timing, Token, Word

FRAME = 160
STEP = 320
REMNANT = SAMPLE_RATE // 8
VOCABULARY = Vocabulary()

SMALL = {
    "window": 0.4,
    "reset": 2.0,
    "agreement": AgreementSettings(step=0.2, trim=1.5),
    "alignatt": AlignAttSettings(step=0.2, buffer=4.0),
}
"""All in small, so that a call of some seconds goes through resets, trims and full buffers."""

Hear = Callable[[DecodeRequest], Hypothesis]


def speech(
    seconds: float, seed: int = 0, longest: float = 4.0, shortest: float = 0.1, pause: float = 0.0
) -> np.ndarray:
    """int16 samples: words of random lengths, on whole 10 ms, no two alike.

    ``pause`` seconds of silence follow each word.
    """
    chance = np.random.default_rng(seed)
    total, pieces, value = round(seconds * 100), [], 0
    while total > 0:
        value += 1
        frames = int(chance.integers(round(shortest * 100), round(longest * 100)))
        for content, size in ((value, frames), (0, round(pause * 100))):
            size = min(size, total)
            if size < round(shortest * 100):  # the end cuts the word off
                content = 0
            pieces.append(np.full(size * FRAME, content, np.int16))
            total -= size
    return np.concatenate(pieces) if pieces else np.zeros(0, np.int16)


def slin(samples: np.ndarray) -> bytes:
    return samples.astype("<i2").tobytes()


def floats(samples: np.ndarray) -> np.ndarray:
    return samples.astype(np.float32) / 32768.0


def spoken(samples: np.ndarray) -> str:
    """The transcript of ``speech``: each word once."""
    runs = np.flatnonzero(np.diff(samples, prepend=samples[:1] - 1)) if len(samples) else []
    return "".join(f" w{samples[i]}" for i in runs if samples[i])


@functools.cache
def spelled(value: int) -> tuple[int, ...]:
    """The tokens of a word."""
    return VOCABULARY.encode(f"w{value}")


@dataclasses.dataclass(frozen=True)
class Run:
    """A word in a request: samples ``a`` to ``b``."""

    value: int
    a: int
    b: int


def runs_of(samples: np.ndarray) -> tuple[list[Run], int]:
    """The words in samples that begin on whole 10 ms, and the samples that make whole frames."""
    values = np.rint(samples[::FRAME][: len(samples) // FRAME] * 32768).astype(int)
    edges = np.flatnonzero(np.diff(values)) + 1
    bounds = [0, *edges.tolist(), len(values)]
    runs = [
        Run(int(values[a]), a * FRAME, b * FRAME) for a, b in itertools.pairwise(bounds) if b > a
    ]
    return [run for run in runs if run.value], len(values) * FRAME


def hear(request: DecodeRequest, full: float = 30.0) -> Hypothesis:
    """What a perfect model hears in a request; a window is full from ``full`` seconds on."""
    if request.stop is not None:
        return attend(request)
    runs, usable = runs_of(request.audio)
    advance = usable
    is_full = request.duration >= full and not request.options.get("keep_tail")
    if is_full and len(runs) > 1 and runs[-1].b == usable:
        advance = runs.pop().a
    segments = tuple(_segment(run, request) for run in runs)
    tokens = tuple(Token(t) for s in segments for t in s.tokens)
    return Hypothesis(
        request_id=request.request_id,
        tokens=tokens,
        segments=segments,
        advance=advance / SAMPLE_RATE,
        passes=_passes([token.id for token in tokens], request.draft),
        timing=Timing(0.0, 0.01),
    )


def _passes(tokens: list[int], draft: tuple[int, ...] | None) -> int:
    """Passes that it takes with a draft that is right as far as it is a beginning."""
    pairs = zip(tokens, draft or (), strict=False)
    same = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
    return len(tokens) - same + 1


def _segment(run: Run, request: DecodeRequest) -> Segment:
    start, end = request.start + run.a / SAMPLE_RATE, request.start + run.b / SAMPLE_RATE
    text = f" w{run.value}"
    words = (Word(text, start, end, 1.0),) if request.options.get("word_timestamps") else ()
    begin = VOCABULARY.timestamp_begin
    tokens = (begin + run.a // STEP, *spelled(run.value), begin + run.b // STEP)
    return Segment(start, end, text, tokens, words)


def attend(request: DecodeRequest) -> Hypothesis:
    """What a perfect model hears behind the forced tokens, up to where it may attend.

    The forced tokens must be the beginning of what the audio says.
    """
    runs, _ = runs_of(request.audio)
    if runs and runs[0].a == 0 and runs[0].b <= REMNANT and request.start:
        del runs[0]  # the remnant of a word that was cut off is no word
    forced = [token for run in runs for token in spelled(run.value)][: len(request.prefix)]
    assert tuple(forced) == request.prefix, "forced tokens that the audio does not say"
    stop = request.stop
    assert stop is not None
    frames = len(request.samples) // STEP
    found: list[Token] = []
    stopped, dropped, skip = "end", None, len(request.prefix)
    for run in runs:
        for i, token in enumerate(spelled(run.value)):
            if skip:
                skip -= 1
                continue
            frame = run.a // STEP + 3 * i
            if stopped != "end" or frame * STEP >= run.b:
                continue  # not spoken yet
            if len(found) == stop.max_tokens:
                stopped = "limit"
            elif frames - frame <= stop.threshold:
                stopped, dropped = "attention", Token(token, -0.1, frame)
            else:
                found.append(Token(token, -0.1, frame))
    return Hypothesis(
        request_id=request.request_id,
        tokens=tuple(found),
        stopped=stopped,
        passes=len(found) + 1,
        timing=Timing(0.0, 0.01),
        dropped=dropped,
    )


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
            self.gate.wait(100)
            request, future = item
            if request.call_id in self.broken:
                future.set_exception(RuntimeError("the decoder\nbroke"))
            else:
                future.set_result(hear(request))


def call_settings(**settings) -> CallSettings:
    """Settings from fields of ``CallSettings`` and, by their names, of the window policy."""
    inner = {field.name for field in dataclasses.fields(WindowSettings)}
    window = {name: settings.pop(name) for name in inner & set(settings)}
    if window.keys() - {"window"} or not isinstance(window.get("window"), WindowSettings):
        settings["window"] = WindowSettings(**window)
    else:
        settings |= window
    return CallSettings(**settings)


def make_session(call_id: str = "c", caller: str = "", **settings) -> Session:
    """A session with the settings that :func:`call_settings` takes."""
    return Sessions(call_settings(**settings), VOCABULARY).make(call_id, caller)


def answer(session: Session, now: float = 0.0, hear: Hear = hear) -> list:
    """Let the session's due requests be heard until there are none; the events."""
    events = session.check()
    while (request := session.next_request(now)) is not None:
        events += session.accept(hear(request))
    return events
