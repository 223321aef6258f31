"""The neural voice's recordings, with a stand-in for the voice."""

from __future__ import annotations

import random
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from training import neural
from training.grammar import Grammar
from training.recordings import RATE, Job


def test_every_job_has_a_group_and_options_within_bounds() -> None:
    made = neural.jobs(random.Random(1), Grammar(), 0.01)
    assert {job.group for job in made} == {"phrase", "jumble", "string", "word"}
    assert {job.engine for job in made} == {"piper"}
    for job in made:
        length, noise, width = map(float, job.options)
        assert 0.75 <= length <= 1.35
        assert 0.4 <= noise <= 1.0
        assert 0.5 <= width <= 1.2
    assert made == neural.jobs(random.Random(1), Grammar(), 0.01)


def test_a_recording_is_resampled_trimmed_and_loud(monkeypatch: pytest.MonkeyPatch) -> None:
    tone = np.sin(np.arange(22_050) * 2 * np.pi * 440 / 22_050).astype(np.float32) * 0.1
    silence = np.zeros(11_025, np.float32)
    chunk = SimpleNamespace(
        audio_float_array=np.concatenate([silence, tone, silence]), sample_rate=22_050
    )
    asked: list[tuple[str, dict[str, float]]] = []

    class Voice:
        def synthesize(self, text: str, config: dict[str, float]) -> list[SimpleNamespace]:
            asked.append((text, config))
            return [chunk] if text else []

    monkeypatch.setattr(neural, "_voice", Voice)
    config = SimpleNamespace(SynthesisConfig=lambda **options: options)
    monkeypatch.setitem(sys.modules, "piper", config)
    made = neural.make(Job("A one", "phrase", "piper", "joe", ("1.1", "0.5", "0.7")))
    assert made is not None
    assert asked == [("ay one", {"length_scale": 1.1, "noise_scale": 0.5, "noise_w_scale": 0.7})]
    assert abs(len(made.pcm) - RATE) < 0.1 * RATE
    assert made.pcm.max() == pytest.approx(0.7 * 32767, rel=0.02)
    assert neural.make(Job("", "phrase", "piper", "joe", ("1", "1", "1"))) is None


def test_without_the_voice_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neural.importlib.util, "find_spec", lambda name: None)
    assert list(neural.piper_voice(random.Random(1), Grammar(), 0.01, 1)) == []
