"""Detectors, the gate, and the batch that equals one by one."""

from __future__ import annotations

import logging
import sys
from importlib.util import find_spec

import numpy as np
import pytest

from aii.audio import vad, vad_silero
from aii.audio.vad import (
    CONTEXT,
    STEP,
    Detector,
    EnergyDetector,
    EnergyGate,
    VadBatcher,
    VoiceRequest,
    load_detector,
)
from aii.errors import CheckpointError, ConfigError, MissingExtraError
from aii.resources import asset

needs_silero = pytest.mark.skipif(
    find_spec("silero_vad") is None or find_spec("threadpoolctl") is None,
    reason="the extra vad is not installed",
)


def sample_call(seconds: float = 12.0) -> np.ndarray:
    samples = np.frombuffer(asset("sample_call.slin").read_bytes(), "<i2")
    return samples[: int(seconds * 16_000) // STEP * STEP].astype(np.float32) / 32768


def noise(seconds: float, decibels: float, seed: int = 0) -> np.ndarray:
    chance = np.random.default_rng(seed)
    samples = chance.standard_normal(int(seconds * 16_000) // STEP * STEP)
    return (samples * 10 ** (decibels / 20)).astype(np.float32)


def request(samples: np.ndarray, number: int = 1, **more) -> VoiceRequest:
    return VoiceRequest(
        number, "c", np.concatenate([np.zeros(CONTEXT, np.float32), samples]), **more
    )


@pytest.fixture(scope="module", params=["energy", pytest.param("silero", marks=needs_silero)])
def detector(request: pytest.FixtureRequest) -> Detector:
    found = load_detector(request.param)
    assert found is not None
    assert found.name == request.param
    return found


def test_every_batch_equals_one_by_one(detector: Detector) -> None:
    """Calls of many lengths, with and without state and lead, in pieces larger than a batch."""
    chance, call = np.random.default_rng(1), sample_call(20)
    batcher, small = VadBatcher(detector), VadBatcher(detector, largest=3)
    requests = []
    for number in range(90):
        steps = int(chance.integers(1, 9))
        begin = int(chance.integers(CONTEXT, len(call) - steps * STEP))
        state = detector.rest + chance.random(len(detector.rest)).astype(np.float32)
        requests.append(
            VoiceRequest(
                number, str(number), call[begin - CONTEXT : begin + steps * STEP],
                state if number % 3 else None, int(chance.integers(0, steps)),
            )
        )  # fmt: skip
    alone = [batcher.one(request) for request in requests]
    for together in (batcher.run(requests), small.run(requests)):
        assert [a.request_id for a in together] == list(range(90))
        for ours, theirs, asked in zip(together, alone, requests, strict=True):
            assert len(ours.probabilities) == asked.steps - asked.lead
            np.testing.assert_allclose(ours.probabilities, theirs.probabilities, atol=1e-5)
            np.testing.assert_allclose(ours.state, theirs.state, atol=1e-4)
    told = np.concatenate([a.probabilities for a in alone])
    assert told.min() < 0.2
    assert told.max() > 0.8


def test_a_call_in_pieces_is_the_call_in_one(detector: Detector) -> None:
    call = sample_call()
    batcher = VadBatcher(detector)
    whole = batcher.run([request(call)])[0].probabilities
    told, state, done = [], None, 0
    chance = np.random.default_rng(2)
    padded = np.concatenate([np.zeros(CONTEXT, np.float32), call])
    while done < len(call):
        some = min(int(chance.integers(1, 12)) * STEP, len(call) - done)
        piece = padded[done : done + CONTEXT + some]
        answer = batcher.run([VoiceRequest(1, "c", piece, state)])[0]
        told.append(answer.probabilities)
        state, done = answer.state, done + some
    np.testing.assert_allclose(np.concatenate(told), whole, atol=1e-4)


def test_answers_own_their_memory(detector: Detector) -> None:
    """A state kept for an hour must not keep a batch of a thousand calls alive."""
    answers = VadBatcher(detector).run([request(sample_call(1), n) for n in range(4)])
    assert all(a.state.base is None and a.probabilities.base is None for a in answers)


def test_speech_and_silence(detector: Detector) -> None:
    batcher = VadBatcher(detector)
    for silence in (np.zeros(32_000 // STEP * STEP, np.float32), noise(4, -65)):
        assert batcher.run([request(silence)])[0].probabilities.max() < 0.5
    told = batcher.run([request(sample_call())])[0].probabilities
    assert 0.3 < (told >= 0.5).mean() < 0.9


def test_what_is_no_sample_harms_nobody(detector: Detector) -> None:
    bad = sample_call(1)
    bad[100:200], bad[300], bad[301] = np.nan, np.inf, -1e30
    asked = [request(sample_call(1)), request(bad), request(sample_call(1))]
    first, broken, last = VadBatcher(detector).run(asked)
    assert np.isfinite(broken.probabilities).all()
    assert np.isfinite(broken.state).all()
    alone = VadBatcher(detector).one(asked[0])
    for answer in (first, last):
        np.testing.assert_allclose(answer.probabilities, alone.probabilities, atol=1e-5)


@pytest.mark.parametrize(
    "length, lead",
    [(0, 0), (CONTEXT, 0), (STEP, 0), (CONTEXT + STEP + 1, 0), (CONTEXT + STEP, 1)],
)
def test_requests_are_whole_steps(length: int, lead: int) -> None:
    with pytest.raises(ValueError, match="steps"):
        VoiceRequest(1, "c", np.zeros(length, np.float32), lead=lead)
    assert VadBatcher(EnergyDetector()).run([]) == []


@pytest.mark.parametrize("level", [-70.0, -50.0])
def test_the_energy_detector_learns_the_noise_of_a_line(level: float) -> None:
    """Noise for 5 s, then a voice 25 dB above it, then noise again."""
    hum = noise(5, level)
    voice = noise(1, level + 25, seed=1)
    told = VadBatcher(EnergyDetector()).run([request(np.concatenate([hum, voice, hum]))])
    steps = told[0].probabilities
    spoken = len(hum) // STEP
    assert steps[spoken - 60 : spoken].max() < 0.5
    assert steps[spoken : spoken + len(voice) // STEP].min() > 0.5
    assert steps[spoken + len(voice) // STEP :].max() < 0.5


def test_hum_below_a_telephones_band_is_silence() -> None:
    t = np.arange(16_000 // STEP * STEP * 3) / 16_000
    hum = (0.02 * np.sin(2 * np.pi * 50 * t)).astype(np.float32)
    assert VadBatcher(EnergyDetector()).run([request(hum)])[0].probabilities.max() < 0.5


def test_the_gate_closes_with_the_fourth_silent_step_and_opens_at_once() -> None:
    gate = EnergyGate(-60)
    loud, quiet = np.full((1, STEP), 0.01, np.float32), np.full((1, STEP), 0.0005, np.float32)
    pattern = [quiet] * 6 + [loud] + [quiet] * 3 + [loud] + [quiet] * 5
    told = [opened for step in pattern for opened in gate.judge(step)]
    assert told == [True] * 3 + [False] * 3 + [True] * 8 + [False] * 2
    assert EnergyGate(-60).judge(np.concatenate(pattern)) == told


def test_no_gate_never_closes() -> None:
    assert EnergyGate(None).judge(np.zeros((50, STEP), np.float32)) == [True] * 50


def test_kinds() -> None:
    assert load_detector("none") is None
    with pytest.raises(ConfigError, match="none, auto, silero, energy"):
        load_detector("webrtc")


def test_without_the_extra_energy_stands_in_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(vad, "find_spec", lambda name: None)
    monkeypatch.setattr(vad_silero, "find_spec", lambda name: None)
    with caplog.at_level(logging.WARNING):
        found = load_detector("auto")
    assert isinstance(found, EnergyDetector)
    assert [record.getMessage() for record in caplog.records] == [
        "voice activity is judged by loudness alone; for Silero's network: pip install 'aii[vad]'"
    ]
    with pytest.raises(MissingExtraError, match=r"pip install 'aii\[vad\]'"):
        load_detector("silero")


def test_without_threadpoolctl_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    with pytest.raises(MissingExtraError, match=r"threadpoolctl.*aii\[vad\]"):
        vad_silero.calm_numpy()


@needs_silero
def test_auto_is_silero_where_it_is_installed() -> None:
    found = load_detector("auto")
    assert found is not None
    assert found.name == "silero"


def test_a_damaged_package_is_said(tmp_path) -> None:
    broken = tmp_path / "silero_vad.jit"
    broken.write_bytes(b"nothing of the kind")
    for path in (broken, tmp_path / "missing.jit"):
        with pytest.raises(CheckpointError, match="force-reinstall") as caught:
            vad_silero.read_weights(path)
        assert len(str(caught.value).splitlines()) == 1


@needs_silero
def test_another_network_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(vad_silero.SHAPES, "decoder.rnn.weight_ih", (512, 64))
    with pytest.raises(CheckpointError, match=r"decoder\.rnn\.weight_ih"):
        load_detector("silero")


@needs_silero
def test_silero_in_numpy_is_silero() -> None:
    """The package's own TorchScript network, step by step from zeros, over the sample call."""
    import warnings

    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    detector = vad_silero.SileroDetector.load()
    assert torch.get_num_threads() == 2
    torch.set_num_threads(threads)
    assert "silero_vad" not in sys.modules, "its import would set torch to one thread"
    spec = find_spec("silero_vad")
    assert spec is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        theirs = torch.jit.load(f"{spec.submodule_search_locations[0]}/data/silero_vad.jit")
    call = sample_call()
    with torch.no_grad():
        wanted = [
            theirs(torch.from_numpy(call[a : a + STEP]), 16_000).item()
            for a in range(0, len(call), STEP)
        ]
    zeros = np.zeros_like(detector.rest)
    ours = VadBatcher(detector).run([request(call, state=zeros)])[0].probabilities
    np.testing.assert_allclose(ours, wanted, atol=2e-5)
    assert 0.3 < np.mean(np.array(wanted) >= 0.5) < 0.9


@needs_silero
def test_numpy_computes_with_one_thread() -> None:
    from threadpoolctl import threadpool_info

    vad_silero.SileroDetector.load()
    found = [i["num_threads"] for i in threadpool_info() if i["internal_api"] == "openblas"]
    assert set(found) <= {1}


def test_a_spectrum_that_is_none_is_refused() -> None:
    basis = np.random.default_rng(0).random((258, 256)).astype(np.float32)
    with pytest.raises(CheckpointError, match="spectrum"):
        vad_silero._window(basis)
