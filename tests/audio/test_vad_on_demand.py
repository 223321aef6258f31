"""A detector that is loaded when a call first asks to be watched."""

from __future__ import annotations

import numpy as np

from aii.audio import vad
from aii.audio.vad import DetectorOnDemand, EnergyDetector, VadBatcher, VoiceRequest
from aii.errors import CheckpointError

SAMPLES = np.random.default_rng(0).normal(0, 0.1, vad.CONTEXT + 4 * vad.STEP).astype(np.float32)


def test_nothing_is_loaded_before_it_is_asked(monkeypatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(vad, "load_detector", lambda kind: asked.append(kind) or EnergyDetector())
    detector = DetectorOnDemand("auto")
    assert (detector.name, asked) == ("auto", [])
    batcher = VadBatcher(detector)
    for _ in range(2):
        answer = batcher.run([VoiceRequest(1, "c", SAMPLES, None)])[0]
        expected = VadBatcher(EnergyDetector()).run([VoiceRequest(1, "c", SAMPLES, None)])[0]
        np.testing.assert_array_equal(answer.probabilities, expected.probabilities)
    assert (detector.name, asked) == ("energy", ["auto"])


def test_one_that_cannot_be_loaded_is_replaced(monkeypatch, caplog) -> None:
    def broken(kind: str) -> None:
        raise CheckpointError("the network is another one; install silero-vad anew")

    monkeypatch.setattr(vad, "load_detector", broken)
    detector = DetectorOnDemand()
    assert len(detector.rest) == len(EnergyDetector().rest)
    assert detector.name == "energy"
    assert len(caplog.records) == 1
    assert "judged by loudness alone" in caplog.text


def test_it_is_silero_where_that_is_installed() -> None:
    detector = DetectorOnDemand()
    assert detector.rest is not None
    installed = vad.find_spec("silero_vad") is not None
    assert detector.name == ("silero" if installed else "energy")
