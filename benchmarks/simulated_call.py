"""A call played into a session by a clock that is only a number.

Two clocks. With ``computing`` off, every answer is there at the moment it is asked for, so what is
left of the latency is the policy's own and exact. With it on, an answer comes as many seconds after
its request as it took to compute, while the call goes on: one call alone on this machine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from aii.audio.vad import VadBatcher
from aii.streaming.events import Event, Final, Heard, Partial
from aii.streaming.session import Session
from aii.types import SAMPLE_RATE, DecodeRequest, Hypothesis, Word

FRAME = 320
"""Samples that come at once: 20 ms, as telephones send them."""


@dataclass(frozen=True)
class Shown:
    """What stands on the screen from ``time`` on: text that is final, and text that is not."""

    time: float
    final: str
    partial: str


@dataclass
class Played:
    """What came of a call.

    Attributes:
        shown: the text each time it changed, in order; the last has no partial.
        events: every event with its time.
        requests: windows decoded.
        passes: forward passes of the decoder.
        decode: seconds of computing.
        heard: seconds of audio decoded, windows that overlap counted each time.
    """

    shown: list[Shown] = field(default_factory=list)
    events: list[tuple[float, Event]] = field(default_factory=list)
    requests: int = 0
    passes: int = 0
    decode: float = 0.0
    heard: float = 0.0

    @property
    def text(self) -> str:
        """The transcript."""
        return self.shown[-1].final if self.shown else ""

    @property
    def words(self) -> list[Word]:
        """Its words with their times."""
        finals = (event for _, event in self.events if isinstance(event, Final))
        return [word for final in finals for word in final.words]


class _Player:
    def __init__(
        self,
        session: Session,
        hear: Callable[[DecodeRequest], Hypothesis],
        voice: VadBatcher | None,
        computing: bool,
    ) -> None:
        self.session = session
        self.played = Played()
        self._hear = hear
        self._voice = voice
        self._computing = computing
        self._due: tuple[float, Hypothesis] | None = None
        self._final = ""

    def ask(self, now: float) -> None:
        """Hand out what is due at ``now``, and take what is answered at once."""
        self._listen(now)
        while (request := self.session.next_request(now)) is not None:
            hypothesis = self._hear(request)
            cost = hypothesis.timing.computed
            self.played.requests += 1
            self.played.passes += hypothesis.passes
            self.played.decode += cost
            self.played.heard += request.duration
            if self._computing:
                self._due = (now + cost, hypothesis)
                return
            self._emit(self.session.accept(hypothesis), now)
            self._listen(now)

    def pass_time(self, until: float) -> None:
        """Deliver the answers that come before ``until``."""
        while self._due is not None and self._due[0] <= until:
            (now, hypothesis), self._due = self._due, None
            self._emit(self.session.accept(hypothesis), now)
            self.ask(now)

    def _listen(self, now: float) -> None:
        self._emit(self.session.check(), now)
        while self._voice is not None and (request := self.session.next_voice()) is not None:
            self._emit(self.session.heard(self._voice.run([request])[0]), now)

    def emit(self, events: list[Event], now: float) -> None:
        """Take events as they come at ``now``."""
        self._emit(events, now)

    def _emit(self, events: list[Event], now: float) -> None:
        for event in events:
            self.played.events.append((now, event))
            if not isinstance(event, Heard):
                continue
            if isinstance(event, Final):
                self._final += event.text
            partial = event.text if isinstance(event, Partial) else ""
            self.played.shown.append(Shown(now, self._final, partial))


def play(
    samples: np.ndarray,
    session: Session,
    hear: Callable[[DecodeRequest], Hypothesis],
    *,
    voice: VadBatcher | None = None,
    computing: bool = False,
) -> Played:
    """Play (N,) float32 samples at 16 kHz in frames of 20 ms, each when its last sample is there.

    Args:
        session: a fresh one.
        hear: the engine, asked and answered at once; ``timing.computed`` is what it cost.
        voice: judges voice activity, in no time, for sessions that ask.
        computing: whether answers take as long as they did.
    """
    player = _Player(session, hear, voice, computing)
    player.emit(session.start(), 0.0)
    now = 0.0
    for begin in range(0, len(samples), FRAME):
        frame = samples[begin : begin + FRAME]
        now = (begin + len(frame)) / SAMPLE_RATE
        player.pass_time(now)
        session.feed(frame)
        player.ask(now)
    player.emit(session.finish("eof"), now)
    player.ask(now)
    player.pass_time(float("inf"))
    if not session.done:
        raise RuntimeError("the call does not end although all is answered")
    return player.played
