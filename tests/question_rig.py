"""A caller who is asked something: a session, what it hears, and what comes out of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from fake_engine import VOCABULARY, call_settings, floats, hear

from aii.audio.vad import CONTEXT, VadBatcher
from aii.grammar import Grammar
from aii.question import Question
from aii.streaming.endpointing import EndpointSettings
from aii.streaming.events import Answer, Event
from aii.streaming.factory import Sessions
from aii.streaming.session import Session
from aii.types import DecodeRequest, Hypothesis

S = 16_000
UNITS = ("oh", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
DIGITS = Grammar.digits(1, 4)
MENU = Grammar.words({"sales": "1", "support": "2"})


class Anything:
    """Whatever is not silent is speech."""

    name = "anything"
    state_size = 1
    rest = np.zeros(1, np.float32)

    def features(self, samples: np.ndarray) -> np.ndarray:
        return np.abs(samples[:, CONTEXT:]).max(axis=1)[:, None]

    def recur(self, features: np.ndarray, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return (features[:, 0] > 0).astype(np.float32), states


DETECTOR = VadBatcher(Anything())


def said(*values: int, seconds: float = 0.4) -> np.ndarray:
    """Samples that say the digits; 0 is silence."""
    return np.concatenate([np.full(round(seconds * S), v, np.int16) for v in values])


def as_digits(request: DecodeRequest) -> Hypothesis:
    """What is heard: the values of the samples as words for digits; 10 is "sales", 11 nothing."""
    heard = hear(request)

    def spell(text: str) -> str:
        return " " + (*UNITS, "sales", "")[int(text.strip()[1:])]

    segments = tuple(
        replace(
            segment,
            text=spell(segment.text),
            words=tuple(replace(word, text=spell(word.text)) for word in segment.words),
        )
        for segment in heard.segments
    )
    return replace(heard, segments=segments)


class Caller:
    """A session and everything that comes out of it.

    Attributes:
        now: the clock, in seconds.
        reading: whether the server reads what the caller sends.
    """

    def __init__(self, *, voice: bool = True, redact: int = 0, **own) -> None:
        settings = replace(call_settings(**own), redact=redact)
        if voice:
            endpointing = EndpointSettings(min_silence=0.5)
            settings = replace(settings, endpointing=endpointing, vad_gate=None)
        self.now, self.reading = 1000.0, True
        self.session: Session = Sessions(settings, VOCABULARY, voice=True).make("c", "")
        self.requests: list[DecodeRequest] = []
        self.events: list[Event] = self.session.start()

    def step(self) -> None:
        session = self.session
        self.events += session.tick(self.now, reading=self.reading)
        while True:
            if (voice := session.next_voice()) is not None:
                self.events += session.heard(DETECTOR.run([voice])[0])
            elif (request := session.next_request(self.now)) is not None:
                self.requests.append(request)
                self.events += session.accept(as_digits(request))
            else:
                break

    def hears(self, samples: np.ndarray, piece: int = 800, *, late: bool = False) -> None:
        """Audio in pieces of 50 ms, each decoded as it comes; ``late``: all at once."""
        data = floats(samples)
        for start in range(0, len(data), piece):
            self.now += 0.0 if late else piece / S
            self.session.feed(data[start : start + piece])
            self.events += self.session.check()
            self.step()

    def sends_nothing(self, seconds: float) -> None:
        """No audio for so long; the session is asked when it wants to be."""
        end = self.now + seconds
        for _ in range(1000):
            due = self.session.wake_at
            if due is None or due > end:
                break
            assert due > self.now
            self.now = due
            self.step()
        else:
            raise AssertionError("it wants to be asked all the time")
        self.now = end

    def ask(self, question: Question) -> None:
        self.events += self.session.collect(question)
        self.step()

    def key(self, *keys: str) -> None:
        for key in keys:
            self.events += self.session.dtmf(key)

    def hang_up(self) -> None:
        self.events += self.session.finish("eof")
        self.step()

    @property
    def answers(self) -> list[Answer]:
        return [event for event in self.events if isinstance(event, Answer)]

    @property
    def answer(self) -> Answer:
        [only] = self.answers
        return only


def silence(seconds: float) -> np.ndarray:
    return np.zeros(round(seconds * S), np.int16)
