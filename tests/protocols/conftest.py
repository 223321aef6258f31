"""Speech to wrap, and ways to feed a framing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest

from aii.protocols import Audio, Frame, Framing, MessageProtocol

SAMPLE_CALL = Path(__file__).resolve().parents[2] / "assets" / "sample_call.slin"


def made_speech(seconds: float = 6.0, rate: int = 16_000) -> bytes:
    """Vowels of a changing pitch with pauses and a little noise: SLIN, the same every time."""
    rng = np.random.default_rng(1)
    time = np.arange(int(seconds * rate)) / rate
    phase = np.cumsum(2 * np.pi * (120 + 40 * np.sin(2 * np.pi * 0.7 * time)) / rate)
    voice = sum(np.sin(k * phase) * np.exp(-((k * 130 - 600) ** 2) / 2e5) for k in range(1, 20))
    loud = np.clip(np.sin(2 * np.pi * 1.3 * time), 0, 1)
    samples = voice * loud * 4000 + rng.normal(0, 12, len(time))
    return np.clip(samples, -32768, 32767).astype("<i2").tobytes()


@pytest.fixture(scope="session")
def speech() -> bytes:
    """A few seconds of 16 kHz SLIN: the sample call that is shipped, where there is one."""
    return SAMPLE_CALL.read_bytes() if SAMPLE_CALL.is_file() else made_speech()


@pytest.fixture(scope="session")
def play() -> Callable[..., list[Frame]]:
    """Feed a framing ``data`` cut at ``cuts`` (or after every ``step`` bytes), then end it."""

    def play(
        machine: Framing, data: bytes, cuts: Iterable[int] = (), step: int | None = None
    ) -> list[Frame]:
        places = range(step, len(data), step) if step else sorted(set(cuts))
        frames: list[Frame] = []
        start = 0
        for place in (*(p for p in places if p < len(data)), len(data)):
            frames += machine.receive(data[start:place], 0.001)
            start = place
        return frames + machine.eof()

    return play


@pytest.fixture(scope="session")
def heard() -> Callable[[Iterable[Frame]], bytes]:
    """All audio of some frames, joined."""
    return lambda frames: b"".join(f.payload for f in frames if isinstance(f, Audio))


@pytest.fixture(scope="session")
def others() -> Callable[[Iterable[Frame]], list[Frame]]:
    """What is not audio among some frames."""
    return lambda frames: [f for f in frames if not isinstance(f, Audio)]


@pytest.fixture(scope="session")
def converse() -> Callable[..., list[Frame]]:
    """Hand messages to a protocol, then end it; audio may be cut into pieces of ``step`` bytes."""

    def converse(machine: MessageProtocol, *messages: str | bytes, step: int = 0) -> list[Frame]:
        frames: list[Frame] = []
        for message in messages:
            pieces = [message]
            if step and isinstance(message, bytes):
                pieces = [message[i : i + step] for i in range(0, len(message), step)]
            for piece in pieces:
                frames += machine.receive(piece)
        return frames + machine.eof()

    return converse
