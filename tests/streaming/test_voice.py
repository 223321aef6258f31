"""One call's samples to marks, however they are cut and whenever the answers come."""

from __future__ import annotations

import random
from importlib.util import find_spec

import numpy as np
import pytest

from aii.audio.vad import (
    CONTEXT,
    STEP,
    EnergyDetector,
    VadBatcher,
    VoiceAnswer,
    VoiceRequest,
    load_detector,
)
from aii.resources import asset
from aii.streaming.endpointing import EndpointSettings, Mark, NoSpeech, SpeechEnd, SpeechStart
from aii.streaming.voice import MOST_STEPS, VoiceTrack

QUIET = EndpointSettings(no_speech=0.0)


class Loud:
    """Somebody speaks where the step's first sample says so; counts the steps it has heard."""

    name = "loud"
    rest = np.zeros(1, np.float32)

    def __init__(self) -> None:
        self.heard = 0

    def features(self, samples: np.ndarray) -> np.ndarray:
        self.heard += len(samples)
        return samples[:, CONTEXT : CONTEXT + 1]

    def recur(self, features: np.ndarray, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.abs(features[:, 0]), states + 1


def call(levels: list[float], tail: int = 0) -> np.ndarray:
    """A step per level, and ``tail`` samples of a last, incomplete one."""
    samples = np.repeat(np.array(levels, np.float32), STEP)
    return np.concatenate([samples, np.full(tail, 0.9, np.float32)])


def answered(track: VoiceTrack, batcher: VadBatcher) -> list[Mark]:
    marks = track.drain()
    while (request := track.next_request()) is not None:
        marks += track.accept(batcher.run([request])[0])
    return marks


def told(samples: np.ndarray, **settings) -> list[Mark]:
    """The marks of a call that is fed in one piece."""
    track, batcher = VoiceTrack("c", QUIET, **settings), VadBatcher(Loud())
    track.feed(samples)
    marks = answered(track, batcher)
    track.finish()
    return marks + answered(track, batcher)


LEVELS = [0.0] * 40 + [0.9] * 30 + [0.0] * 60 + [0.4] * 9 + [0.8] * 5 + [0.0] * 3 + [0.7] * 20
WANTED = [
    SpeechStart(40 * STEP - 1600, 41 * STEP),
    SpeechEnd(70 * STEP + 1600, 86 * STEP, "silence"),
    SpeechStart(139 * STEP - 1600, 140 * STEP),
    SpeechEnd(167 * STEP + 300, 167 * STEP + 300, "end"),
]


def test_a_call() -> None:
    assert told(call(LEVELS, 300)) == WANTED


@pytest.mark.parametrize("seed", range(12))
def test_pieces_and_late_answers_change_nothing(seed: int) -> None:
    """Random cuts; answers at random moments; marks tell the same, to the sample."""
    chance, samples = random.Random(seed), call(LEVELS, 300)
    track = VoiceTrack("c", QUIET, pace=chance.choice([1, 2, 5]))
    batcher, marks, out, done = VadBatcher(Loud()), [], None, 0
    most = chance.choice([7, 40, 320, 5000])
    while done < len(samples):
        size = chance.randint(1, most)
        track.feed(samples[done : done + size])
        marks += track.drain()
        done += size
        if out is None:
            out = track.next_request()
        elif chance.random() < 0.3:
            marks += track.accept(batcher.run([out])[0])
            out = None
        assert track.waiting == (out is not None)
        assert track.position <= done
    track.finish()
    marks += track.drain()
    assert not track.caught_up
    while out is not None or not track.caught_up:
        if out is not None:
            marks += track.accept(batcher.run([out])[0])
        out = track.next_request()
    assert marks == WANTED
    assert track.position == len(samples)


def test_silence_is_not_computed() -> None:
    """Without the gate every step is heard; with it, the sound, three steps behind it (where the
    gate still waits) and four before it, which lead up to it."""
    samples = call([0.0] * 100 + [0.9] * 10 + [0.0] * 100)
    heard = []
    for gate in (None, -60.0):
        detector = Loud()
        track = VoiceTrack("c", QUIET, gate=gate)
        track.feed(samples)
        marks = answered(track, VadBatcher(detector))
        track.finish()
        marks += answered(track, VadBatcher(detector))
        assert [type(mark) for mark in marks] == [SpeechStart, SpeechEnd]
        heard.append(detector.heard)
    assert heard == [210, 3 + 4 + 10 + 3]


def test_after_silence_the_detector_starts_from_rest_with_what_led_up_to_the_sound() -> None:
    levels = [0.0] * 3 + [0.9] * 2 + [0.0] * 20 + [0.8] * 2
    samples = call([level + i / 10_000 for i, level in enumerate(levels)])
    track, requests = VoiceTrack("c", QUIET, pace=1, gate=-50.0), []
    for step in samples.reshape(-1, STEP):
        track.feed(step)
        while (request := track.next_request()) is not None:
            requests.append(request)
            answer = VadBatcher(Loud()).run([request])[0]
            track.accept(answer)
    first, again = requests[0], next(r for r in requests if r.lead)
    assert first.state is None
    assert (first.samples[:CONTEXT] == 0).all()
    assert again.state is None
    assert again.lead == 4
    assert len(again.samples) == CONTEXT + 5 * STEP
    np.testing.assert_array_equal(
        again.samples, samples[25 * STEP - 4 * STEP - CONTEXT : 26 * STEP]
    )
    after = requests[requests.index(again) + 1]
    assert after.lead == 0
    assert after.state is not None
    assert after.state[0] == 5
    np.testing.assert_array_equal(after.samples, samples[26 * STEP - CONTEXT : 27 * STEP])


def test_steps_gather_while_a_request_is_out_and_up_to_a_limit() -> None:
    track = VoiceTrack("c", QUIET)
    track.feed(call([0.9]))
    assert track.next_request() is None, "one step is below the pace"
    track.feed(call([0.9]))
    request = track.next_request()
    assert request is not None
    assert request.steps == 2
    track.feed(call([0.9] * 100))
    assert track.next_request() is None
    track.accept(VadBatcher(Loud()).run([request])[0])
    following = track.next_request()
    assert following is not None
    assert following.steps == MOST_STEPS


def test_what_cannot_be_judged_is_speech() -> None:
    track = VoiceTrack("c", QUIET)
    track.feed(call([0.01] * 4))
    request = track.next_request()
    assert request is not None
    assert track.fail(request.request_id) == [SpeechStart(0, STEP)]
    assert track.speaking
    track.feed(call([0.01] * 20))
    marks = answered(track, VadBatcher(Loud()))
    assert marks == [SpeechEnd(4 * STEP + 1600, 20 * STEP, "silence")]


def test_answers_that_nobody_waits_for_are_ignored() -> None:
    track = VoiceTrack("c", QUIET)
    track.feed(call([0.9] * 4))
    stray = VoiceAnswer(7, np.ones(4, np.float32), np.zeros(1, np.float32))
    assert track.accept(stray) == track.fail(7) == []
    request = track.next_request()
    assert request is not None
    assert track.accept(stray) == track.fail(7) == []
    assert len(track.accept(VadBatcher(Loud()).run([request])[0])) == 1
    assert track.fail(request.request_id) == []


def test_nobody_speaks() -> None:
    track, batcher = VoiceTrack("c", EndpointSettings(no_speech=1.0)), VadBatcher(Loud())
    marks: list[Mark] = []
    for _ in range(100):
        track.feed(np.zeros(320, np.float32))
        marks += answered(track, batcher)
    assert marks == [NoSpeech(0, 32 * STEP)]
    assert track.keep_from == track.position - 16_000
    track.finish()
    assert track.drain() == []
    assert track.caught_up


def test_a_call_without_a_sample() -> None:
    track = VoiceTrack("c")
    track.finish()
    track.finish()
    assert track.drain() == []
    assert track.caught_up
    with pytest.raises(RuntimeError, match="over"):
        track.feed(np.zeros(1, np.float32))


def test_a_leg_that_begins_later() -> None:
    track, batcher = VoiceTrack("c", QUIET, start=4000), VadBatcher(Loud())
    assert track.position == track.keep_from == 4000
    track.feed(call([0.9] * 4))
    assert answered(track, batcher) == [SpeechStart(4000, 4000 + STEP)]


def test_the_callers_array_may_be_used_again() -> None:
    track, block = VoiceTrack("c", QUIET), np.full(STEP * 2, 0.9, np.float32)
    track.feed(block)
    block[:] = 0.0
    request = track.next_request()
    assert request is not None
    assert (request.samples[CONTEXT:] == np.float32(0.9)).all()


def test_the_start_of_speech_is_told_within_300_ms() -> None:
    """A voice over the noise of a line, in frames of 20 ms, each answer one frame late."""
    chance = np.random.default_rng(3)
    line = (chance.standard_normal(48_000) * 0.001).astype(np.float32)
    begin = 20_000
    line[begin:40_000] += (chance.standard_normal(20_000) * 0.05).astype(np.float32)
    track, batcher = VoiceTrack("c", QUIET), VadBatcher(EnergyDetector())
    out: VoiceRequest | None = None
    for now in range(0, len(line), 320):
        track.feed(line[now : now + 320])
        marks = track.drain()
        if out is not None:
            marks += track.accept(batcher.run([out])[0])
        out = track.next_request()
        if marks:
            break
    assert isinstance(marks[0], SpeechStart)
    assert 0 <= begin - marks[0].at <= 1600 + STEP
    assert now + 320 - begin <= 0.3 * 16_000


@pytest.mark.parametrize("kind", ["silero", "energy"])
def test_the_sample_call_has_as_many_utterances_as_lines(kind: str) -> None:
    """With real detectors; the gate changes no utterance, and speech is heard to its end."""
    if kind == "silero" and find_spec("silero_vad") is None:
        pytest.skip("the extra vad is not installed")
    detector = load_detector(kind)
    assert detector is not None
    samples = np.frombuffer(asset("sample_call.slin").read_bytes(), "<i2") / np.float32(32768)
    lines = asset("sample_call.txt").read_text("utf-8").splitlines()
    spans = []
    for gate in (None, -60.0):
        track, batcher = VoiceTrack("c", QUIET, gate=gate), VadBatcher(detector)
        track.feed(samples)
        track.finish()
        marks = answered(track, batcher)
        starts = [mark.at for mark in marks if isinstance(mark, SpeechStart)]
        ends = [mark.at for mark in marks if isinstance(mark, SpeechEnd)]
        assert len(starts) == len(ends) == len(lines)
        spans.append(np.stack([starts, ends]))
        inside = np.zeros(len(samples), bool)
        for start, end in zip(starts, ends, strict=True):
            inside[start:end] = True
        power = np.square(samples)
        assert power[inside].sum() > 0.999 * power.sum()
    assert np.abs(spans[0] - spans[1]).max() <= 3 * STEP
