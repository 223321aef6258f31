"""G.711 under SLIN's name, told by its sound; and nothing that is SLIN taken for it."""

from __future__ import annotations

import uuid

import numpy as np
import pytest

from aii.audio.pcm import float_to_alaw, float_to_slin, float_to_ulaw, resample, slin_to_float
from aii.protocols import AudioSocketOptions, Notice
from aii.protocols.audiosocket import AudioSocketFraming, message
from aii.protocols.mislabelled import GATHERED, TRIES, Doubt, law_of

WRITE = {"": float_to_slin, "ulaw": float_to_ulaw, "alaw": float_to_alaw}
HELLO = message(0x01, uuid.UUID(int=7).bytes)
TIME = np.arange(4 * 8000) / 8000
CHANCE = np.random.default_rng(3)

SLIN_ONLY = {
    "tone": 0.3 * np.sin(2 * np.pi * 1004 * TIME),
    "loudest tone": 0.999 * np.sin(2 * np.pi * 1004 * TIME),
    "shrill": 0.3 * np.sin(2 * np.pi * 3001 * TIME),
    "keys": 0.3 * (np.sin(2 * np.pi * 941 * TIME) + np.sin(2 * np.pi * 1477 * TIME)) / 2,
    "hiss": CHANCE.normal(0, 0.1, len(TIME)),
    "loudest hiss": CHANCE.uniform(-1, 1, len(TIME)),
    "rounding": CHANCE.normal(0, 2 / 32768, len(TIME)),
    "silence": np.zeros(len(TIME)),
}


@pytest.fixture(scope="module")
def voice(speech) -> np.ndarray:
    return resample(slin_to_float(speech), 16_000, 8_000)[: 8 * 8000]


def told(data: bytes, size: int = 320, **options) -> list[str]:
    framing = AudioSocketFraming(AudioSocketOptions(**options))
    frames = framing.receive(HELLO, 0.0)
    for start in range(0, len(data), size):
        frames += framing.receive(message(0x10, data[start : start + size]), 0.02)
    return [frame.text for frame in frames if isinstance(frame, Notice)]


@pytest.mark.parametrize("law, name", [("ulaw", "G.711 mu-law"), ("alaw", "G.711 A-law")])
@pytest.mark.parametrize("gain", [0.05, 1.0, 5.0])
@pytest.mark.parametrize("size", [80, 240, 320, 1600])
def test_a_law_under_slins_name_is_said_once_and_how_to_mend_it(voice, law, name, gain, size):
    [line] = told(WRITE[law](np.clip(gain * voice, -1, 1)) * 3, size)
    assert f"sound like {name}" in line
    assert line.endswith(f"--audiosocket-payload {law}")


@pytest.mark.parametrize("gain", [0.003, 0.05, 1.0, 5.0, 50.0])
def test_speech_that_is_slin_is_not_doubted(voice, gain):
    assert told(float_to_slin(np.clip(gain * voice, -1, 1))) == []


@pytest.mark.parametrize("sound", SLIN_ONLY)
def test_other_sound_that_is_slin_is_not_doubted(sound):
    assert told(float_to_slin(SLIN_ONLY[sound])) == []


def test_noise_on_the_line_hides_neither(voice):
    noisy = voice + CHANCE.normal(0, 0.5 * voice.std(), len(voice))
    for law, write in WRITE.items():
        assert law_of(write(noisy)[:16_000]) == law


def test_who_was_told_what_it_is_is_not_warned(voice):
    assert told(float_to_ulaw(voice), payload="ulaw") == []


def test_silence_first_is_waited_for_but_not_for_ever(voice):
    quiet = float_to_ulaw(np.zeros(GATHERED))
    assert len(told(quiet * 3 + float_to_ulaw(voice))) == 1
    doubt = Doubt()
    for _ in range(TRIES):
        assert not doubt.over
        assert doubt.hear(quiet) == ""
        assert len(doubt._held) < GATHERED
    assert doubt.over
    assert doubt.hear(float_to_ulaw(voice)) == ""
