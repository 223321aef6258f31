"""Words that survive a telephone: each is two tones, heard by its frequencies; no model.

Where ``fake_engine`` wants samples bit for bit, these words are the same after mu-law, at 8 kHz and
through any resampler, so that one recording can be sent over every protocol and codec.
"""

from __future__ import annotations

import itertools
from concurrent.futures import Future

import numpy as np

from aii.audio.pcm import float_to_alaw, float_to_slin, float_to_ulaw
from aii.audio.resampler import resample
from aii.types import SAMPLE_RATE, DecodeRequest, Hypothesis, Segment, Token, Word

LOW = (500, 700, 900, 1100)
HIGH = (1500, 1900, 2300, 2700)
WORDS = "zero one two three four five six seven eight nine yes no stop help agent thanks".split()
WORD, GAP, LEAD = 0.16, 0.08, 0.1
HOP, SPAN = 160, 640
"""Samples between two looks, and of one look."""


def say(words: str, *, lead: float = LEAD) -> np.ndarray:
    """Samples of ``words``, float32 at 16 kHz; the first begins after ``lead`` seconds."""
    times = np.arange(round(WORD * SAMPLE_RATE)) / SAMPLE_RATE
    pieces = [np.zeros(round(lead * SAMPLE_RATE))]
    for word in words.split():
        number = WORDS.index(word)
        low, high = LOW[number // 4], HIGH[number % 4]
        tones = np.sin(2 * np.pi * low * times) + np.sin(2 * np.pi * high * times)
        pieces += [0.2 * tones, np.zeros(round(GAP * SAMPLE_RATE))]
    return np.concatenate(pieces).astype(np.float32)


def starts(count: int, lead: float = LEAD) -> list[float]:
    """When the words of ``say`` begin, in seconds."""
    return [lead + number * (WORD + GAP) for number in range(count)]


def encoded(samples: np.ndarray, encoding: str, rate: int) -> bytes:
    """Samples at 16 kHz as a telephone system sends them."""
    if rate != SAMPLE_RATE:
        samples = resample(samples, SAMPLE_RATE, rate)
    return {"s16": float_to_slin, "ulaw": float_to_ulaw, "alaw": float_to_alaw}[encoding](samples)


def interleaved(left: bytes, right: bytes) -> bytes:
    """SLIN of two channels as one stream, as long as the longer."""
    size = max(len(left), len(right))
    both = [np.frombuffer(side.ljust(size, b"\0"), "<i2") for side in (left, right)]
    return np.stack(both, axis=1).tobytes()


def _looks(samples: np.ndarray) -> np.ndarray:
    """The word's number in each look of 40 ms, -1 where nobody speaks; one look per 10 ms."""
    padded = np.concatenate([np.zeros(SPAN // 2), samples, np.zeros(SPAN // 2)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, SPAN)[::HOP] * np.hanning(SPAN)
    times = np.arange(SPAN) / SAMPLE_RATE
    waves = np.exp(-2j * np.pi * np.outer(times, [*LOW, *HIGH]))
    levels = np.abs(windows @ waves) / (SPAN / 4)
    low, high = levels[:, :4], levels[:, 4:]
    number = low.argmax(axis=1) * 4 + high.argmax(axis=1)
    return np.where(np.minimum(low.max(axis=1), high.max(axis=1)) > 0.07, number, -1)


def hear(request: DecodeRequest) -> Hypothesis:
    """The words in a request, with their times."""
    looks = np.concatenate([[-1], _looks(request.audio), [-1]])
    edges = np.flatnonzero(np.diff(looks))
    words = []
    for start, end in itertools.pairwise(edges):
        if looks[start + 1] >= 0 and end - start >= 5:
            span = (request.start + HOP * t / SAMPLE_RATE for t in (start, end))
            words.append(Word(" " + WORDS[looks[start + 1]], *span, 0.9))
    segments = ()
    if words:
        text = "".join(word.text for word in words)
        ids = tuple(WORDS.index(word.text.strip()) for word in words)
        segments = (Segment(words[0].start, words[-1].end, text, ids, tuple(words)),)
    return Hypothesis(
        request.request_id,
        tokens=tuple(Token(i) for segment in segments for i in segment.tokens),
        segments=segments,
        advance=request.duration,
    )


class ToneEngine:
    """Answers at once, on the thread that asks."""

    def __init__(self) -> None:
        self.requests: list[DecodeRequest] = []

    def submit(self, request: DecodeRequest) -> Future[Hypothesis]:
        self.requests.append(request)
        future: Future[Hypothesis] = Future()
        future.set_result(hear(request))
        return future

    def cancel(self, call_id: str) -> int:
        return 0

    def stats(self) -> dict[str, float]:
        return {}

    def close(self, timeout: float = 0.0) -> bool:
        return True
