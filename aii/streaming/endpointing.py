"""When an utterance begins and ends: a state machine over probabilities of speech, nothing else.

Every step of 512 samples (32 ms) brings one probability. The rules are those that Silero VAD is
used with, with the values that telephone dialogues want::

    quiet     --  p >= threshold                            -->  speaking (backdated)
    speaking  --  p < release                               -->  falling silent
    falling   --  p >= threshold                            -->  speaking
    falling   --  silent for min_silence, and p < release   -->  quiet (padded)

Between release and threshold the state holds: such a step neither begins a silence nor ends one.
All positions are samples from the start of the call.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from enum import Enum

from aii.audio.vad import STEP
from aii.errors import ConfigError
from aii.types import SAMPLE_RATE


@dataclass(frozen=True)
class EndpointSettings:
    """When somebody speaks and when they have finished; times in seconds.

    Attributes:
        threshold: probability from which on somebody speaks.
        release: probability below which nobody does.
        min_silence: silence that ends an utterance: 0.5 to 0.8 for prompts and menus, 1 to 1.5 for
            dictation.
        min_speech: shorter bursts begin no utterance; 0 takes the first step at its word. It delays
            the start by as much.
        backdate: how far before its first step an utterance begins.
        padding: how far into the silence it reaches.
        keep: audio kept while nobody speaks, for an utterance to be backdated into.
        no_speech: silence after which is told that nobody says anything; 0 never.
        longest: length at which an utterance is ended although it goes on; 0 never.
        cut_back: such an utterance is cut at the quietest step within so much of its end.

    Raises:
        ConfigError: a value out of its range, or a release above the threshold.
    """

    threshold: float = 0.5
    release: float = 0.35
    min_silence: float = 0.5
    min_speech: float = 0.0
    backdate: float = 0.1
    padding: float = 0.1
    keep: float = 1.0
    no_speech: float = 5.0
    longest: float = 30.0
    cut_back: float = 2.0

    def __post_init__(self) -> None:
        for name in ("min_silence", "min_speech", "backdate", "padding", "keep", "cut_back"):
            _check(name, getattr(self, name), 0.0, 60.0)
        for name in ("no_speech", "longest"):
            _check(name, getattr(self, name), 0.0, 86_400.0)
        _check("threshold", self.threshold, 0.01, 0.99)
        if not 0.0 < self.release <= self.threshold:
            raise ConfigError(
                f"the release of speech is {self.release:g}; wanted is a number above 0 and at "
                f"most the threshold, {self.threshold:g}"
            )
        if 0 < self.longest < self.cut_back + 2 * STEP / SAMPLE_RATE:
            raise ConfigError(
                f"an utterance of at most {self.longest:g} s cannot be cut up to "
                f"{self.cut_back:g} s before its end; make it longer, or cut_back smaller"
            )


@dataclass(frozen=True)
class SpeechStart:
    """An utterance begins at ``at``; known since the sample ``decided``."""

    at: int
    decided: int


@dataclass(frozen=True)
class SpeechEnd:
    """The utterance ends at ``at``; known since the sample ``decided``.

    ``reason`` is "silence", "longest" (it goes on: the next begins at the same sample) or "end"
    (of the call).
    """

    at: int
    decided: int
    reason: str


@dataclass(frozen=True)
class NoSpeech:
    """Nobody has spoken from ``start`` to ``at``; told once per silence."""

    start: int
    at: int


Mark = SpeechStart | SpeechEnd | NoSpeech


class _State(Enum):
    QUIET = "quiet"
    RISING = "rising"  # above the threshold, not yet for min_speech
    SPEAKING = "speaking"
    FALLING = "falling"  # below the release, not yet for min_silence


class Endpointer:
    """See the module. One per call; bounded memory. ``start`` is where its first step begins."""

    def __init__(self, settings: EndpointSettings | None = None, start: int = 0) -> None:
        self._settings = settings or EndpointSettings()
        self._state = _State.QUIET
        self._position = start
        self._start = start  # of the utterance, or of the silence
        self._since = start  # where RISING or FALLING began
        self._told = False  # of this silence, that nobody speaks
        recent = math.ceil(_samples(self._settings.cut_back) / STEP)
        self._recent: deque[tuple[float, int]] = deque(maxlen=max(recent, 1))

    @property
    def position(self) -> int:
        """Samples judged so far."""
        return self._position

    @property
    def speaking(self) -> bool:
        """Whether an utterance has begun and not ended."""
        return self._state in (_State.SPEAKING, _State.FALLING)

    @property
    def keep_from(self) -> int:
        """No utterance, running or to come, begins before this sample."""
        if self.speaking:
            return self._start
        quiet = self._since if self._state is _State.RISING else self._position
        return max(self._start, quiet - _samples(self._settings.keep))

    @property
    def settled(self) -> int:
        """The utterance that runs does not end before this sample, whatever comes."""
        settings = self._settings
        certain = self._padded() if self._state is _State.FALLING else self._position
        if settings.longest:
            cut = _samples(settings.longest) - (self._recent.maxlen or 0) * STEP
            certain = min(certain, self._start + cut)
        return max(certain, self._start)

    def step(self, probability: float, samples: int = STEP) -> list[Mark]:
        """Judge the next step; the call's last one may be shorter."""
        begin = self._position
        self._position += samples
        if not self.speaking:
            return self._while_quiet(probability, begin)
        marks = self._while_speaking(probability, begin)
        return marks or self._too_long()

    def end(self) -> list[Mark]:
        """The call is over: an utterance that runs ends with it."""
        if not self.speaking:
            return []
        at = self._padded() if self._state is _State.FALLING else self._position
        return [self._finish(at, "end")]

    def _while_quiet(self, probability: float, begin: int) -> list[Mark]:
        settings = self._settings
        rising = self._state is _State.RISING
        if probability < (settings.release if rising else settings.threshold):
            self._state = _State.QUIET
            return self._nobody()
        if not rising:
            self._state, self._since = _State.RISING, begin
        if self._position - self._since < _samples(settings.min_speech):
            return self._nobody()
        back = min(_samples(settings.backdate), _samples(settings.keep))
        self._state, self._start = _State.SPEAKING, max(self._start, self._since - back)
        self._recent.clear()
        self._recent.append((probability, begin))
        return [SpeechStart(self._start, self._position)]

    def _nobody(self) -> list[Mark]:
        """Whether it is time to say that nobody speaks."""
        patience = _samples(self._settings.no_speech)
        if self._told or not patience or self._position - self._start < patience:
            return []
        self._told = True
        return [NoSpeech(self._start, self._position)]

    def _while_speaking(self, probability: float, begin: int) -> list[Mark]:
        settings = self._settings
        self._recent.append((probability, begin))
        if probability >= settings.threshold:
            self._state = _State.SPEAKING
        elif probability < settings.release:
            if self._state is _State.SPEAKING:
                self._state, self._since = _State.FALLING, begin
            if self._position - self._since >= _samples(settings.min_silence):
                return [self._finish(self._padded(), "silence")]
        return []

    def _too_long(self) -> list[Mark]:
        """Cut an utterance that has become too long, where it was quietest of late."""
        longest = _samples(self._settings.longest)
        if not longest or self._position - self._start < longest:
            return []
        if self._state is _State.FALLING:  # it hovers between silence and speech
            return [self._finish(self._padded(), "silence")]
        _, begin = min(self._recent, key=lambda step: (step[0], -step[1]))
        at = min(begin + STEP // 2, self._position)
        self._start = at
        while self._recent and self._recent[0][1] <= begin:
            self._recent.popleft()
        return [SpeechEnd(at, self._position, "longest"), SpeechStart(at, self._position)]

    def _padded(self) -> int:
        """Where an utterance ends whose silence began at ``_since``."""
        return min(max(self._since, self._start) + _samples(self._settings.padding), self._position)

    def _finish(self, at: int, reason: str) -> SpeechEnd:
        self._state, self._start, self._told = _State.QUIET, at, False
        return SpeechEnd(at, self._position, reason)


def _samples(seconds: float) -> int:
    return round(seconds * SAMPLE_RATE)


def _check(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        raise ConfigError(
            f"endpointing: {name} is {value:g}; wanted is a number from {least:g} to {most:g}"
        )
