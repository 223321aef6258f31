"""The thread that judges the voices of all calls."""

from __future__ import annotations

import logging
import threading

import numpy as np
import pytest

from aii.audio.vad import CONTEXT, STEP, EnergyDetector, VadBatcher, VoiceAnswer, VoiceRequest
from aii.engine.voice import VoiceThread

PATIENCE = 20.0


def asked(number: int, level: float = 0.1, steps: int = 1) -> VoiceRequest:
    chance = np.random.default_rng(number)
    samples = chance.standard_normal(CONTEXT + steps * STEP) * level
    return VoiceRequest(number, f"call {number}", samples.astype(np.float32))


class Inbox:
    """Answers as they come, each on the voice thread."""

    def __init__(self, wanted: int) -> None:
        self.answers: dict[int, VoiceAnswer | None] = {}
        self._wanted, self._all = wanted, threading.Event()

    def take(self, number: int):
        def done(answer: VoiceAnswer | None) -> None:
            assert number not in self.answers
            self.answers[number] = answer
            if len(self.answers) == self._wanted:
                self._all.set()

        return done

    def wait(self) -> dict[int, VoiceAnswer | None]:
        assert self._all.wait(PATIENCE)
        return self.answers


class Picky(EnergyDetector):
    """Fails over any batch that holds a step louder than 0.5."""

    def features(self, samples: np.ndarray) -> np.ndarray:
        if (np.abs(samples) > 0.5).any():
            raise RuntimeError("too loud")
        return super().features(samples)


class Gated(EnergyDetector):
    """Waits until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.busy, self.gate = threading.Event(), threading.Event()

    def features(self, samples: np.ndarray) -> np.ndarray:
        self.busy.set()
        assert self.gate.wait(PATIENCE)
        return super().features(samples)


def test_each_call_gets_its_own_answer_as_if_alone() -> None:
    voice, inbox = VoiceThread(EnergyDetector()), Inbox(600)
    requests = [asked(n, 0.001 * (n % 9), 1 + n % 4) for n in range(600)]
    for request in requests:
        voice.submit(request, inbox.take(request.request_id))
    answers = inbox.wait()
    alone = VadBatcher(EnergyDetector())
    for request in requests:
        answer = answers[request.request_id]
        assert answer is not None
        assert answer.request_id == request.request_id
        np.testing.assert_allclose(
            answer.probabilities, alone.one(request).probabilities, atol=1e-5
        )
    stats = voice.stats()
    assert stats["steps"] == sum(request.steps for request in requests)
    assert 3 <= stats["batches"] < 600
    assert stats["waiting"] == stats["failed"] == 0
    assert voice.close(PATIENCE)


def test_what_waits_goes_together() -> None:
    detector = Gated()
    voice, inbox = VoiceThread(detector, gather=0.0), Inbox(101)
    voice.submit(asked(0), inbox.take(0))
    assert detector.busy.wait(PATIENCE)
    for n in range(1, 101):
        voice.submit(asked(n), inbox.take(n))
    assert voice.stats()["waiting"] == 100
    detector.gate.set()
    inbox.wait()
    assert voice.close(PATIENCE)
    assert voice.stats()["batches"] == 2


def test_one_that_breaks_the_detector_fails_alone(caplog: pytest.LogCaptureFixture) -> None:
    voice, inbox = VoiceThread(Picky()), Inbox(5)
    with caplog.at_level(logging.ERROR):
        for n in range(5):
            voice.submit(asked(n, 0.9 if n == 2 else 0.01), inbox.take(n))
        answers = inbox.wait()
    assert voice.close(PATIENCE)
    assert [n for n, answer in answers.items() if answer is None] == [2]
    assert voice.stats()["failed"] == 1
    assert "call 2: voice activity failed (too loud): taken for speech" in caplog.messages


def test_a_detector_that_fails_all_the_time_does_not_fill_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    voice, inbox = VoiceThread(Picky(), gather=0.0), Inbox(300)
    with caplog.at_level(logging.ERROR):
        for n in range(300):
            voice.submit(asked(n, 0.9), inbox.take(n))
        assert list(inbox.wait().values()) == [None] * 300
    assert voice.close(PATIENCE)
    assert voice.stats()["failed"] == 300
    of_calls = [m for m in caplog.messages if "taken for speech" in m]
    assert len(of_calls) == 9  # the 1st, 2nd, 4th to 256th


def test_an_answer_that_is_not_taken_hurts_no_other_call(caplog: pytest.LogCaptureFixture) -> None:
    def broken(answer: VoiceAnswer | None) -> None:
        raise RuntimeError("mine")

    voice, inbox = VoiceThread(EnergyDetector()), Inbox(1)
    with caplog.at_level(logging.ERROR):
        voice.submit(asked(1), broken)
        voice.submit(asked(2), inbox.take(2))
        assert inbox.wait()[2] is not None
    assert voice.close(PATIENCE)
    assert any("call 1" in message for message in caplog.messages)


def test_a_full_queue_refuses_at_once() -> None:
    detector = Gated()
    voice, inbox = VoiceThread(detector, gather=0.0, queue_size=2), Inbox(3)
    voice.submit(asked(0), inbox.take(0))
    assert detector.busy.wait(PATIENCE)
    refused = Inbox(1)
    for n in (1, 2):
        voice.submit(asked(n), inbox.take(n))
    voice.submit(asked(3), refused.take(3))
    assert refused.answers == {3: None}
    detector.gate.set()
    assert None not in inbox.wait().values()
    assert voice.close(PATIENCE)


def test_closing_answers_what_waits_with_nothing() -> None:
    detector = Gated()
    voice, inbox = VoiceThread(detector, gather=0.0), Inbox(3)
    voice.submit(asked(0), inbox.take(0))
    assert detector.busy.wait(PATIENCE)
    for n in (1, 2):
        voice.submit(asked(n), inbox.take(n))
    assert not voice.close(0.0)
    detector.gate.set()
    answers = inbox.wait()
    assert answers[0] is not None
    assert answers[1] is answers[2] is None
    assert voice.close(PATIENCE)
    after = Inbox(1)
    voice.submit(asked(4), after.take(4))
    assert after.answers == {4: None}
