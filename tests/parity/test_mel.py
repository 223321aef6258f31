"""Spectrograms are openai-whisper's."""

from __future__ import annotations

from importlib import resources

import numpy as np
import pytest
import torch
from whisper import audio as theirs

from aii import mel as ours
from aii.audio.files import load_audio
from aii.audio.pcm import float_to_slin, slin_to_float


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.1, shape).astype(np.float32)


def test_filter_tables():
    with np.load(str(resources.files("whisper") / "assets" / "mel_filters.npz")) as table:
        for bands in (80, 128):
            found = ours.mel_filters("cpu", bands).numpy()
            assert found.dtype == np.float32
            np.testing.assert_allclose(found, table[f"mel_{bands}"], rtol=0, atol=1e-7)


def test_constants():
    names = (
        "SAMPLE_RATE N_FFT HOP_LENGTH CHUNK_LENGTH N_SAMPLES N_FRAMES N_SAMPLES_PER_TOKEN "
        "FRAMES_PER_SECOND TOKENS_PER_SECOND"
    )
    for name in names.split():
        assert getattr(ours, name) == getattr(theirs, name), name


@pytest.mark.parametrize("bands", [80, 128])
@pytest.mark.parametrize("shape", [(48_000,), (201,), (481,), (3, 16_000), (1, 320)])
@pytest.mark.parametrize("padding", [0, 480])
def test_arrays_and_tensors(bands, shape, padding):
    samples = noise(*shape)
    expected = theirs.log_mel_spectrogram(samples, bands, padding)
    for given in (samples, torch.from_numpy(samples)):
        found = ours.log_mel_spectrogram(given, bands, padding, device="cpu")
        assert found.shape == expected.shape
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("samples", [np.zeros(16_000, np.float32), np.full(800, 1e-7, np.float32)])
def test_silence(samples):
    expected = theirs.log_mel_spectrogram(samples)
    torch.testing.assert_close(ours.log_mel_spectrogram(samples), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("bands", [80, 128])
def test_speech_as_path_samples_and_bytes(jfk, bands):
    expected = theirs.log_mel_spectrogram(str(jfk), bands, padding=480_000)
    data = float_to_slin(load_audio(jfk))
    for given in (str(jfk), jfk, data, slin_to_float(data)):
        found = ours.log_mel_spectrogram(given, bands, padding=480_000)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [0, 1, 99, 100, 250])
@pytest.mark.parametrize("axis", [-1, 0, 1])
def test_pad_or_trim(size, axis):
    shape = [2, 3, 4]
    shape[axis] = size
    array = noise(*shape)
    for given in (array, torch.from_numpy(array)):
        found = ours.pad_or_trim(given, 100, axis=axis)
        expected = theirs.pad_or_trim(given, 100, axis=axis)
        assert type(found) is type(expected)
        np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))


@pytest.mark.parametrize("length", [3, 4, 5])
def test_what_was_cut_is_a_copy(length):
    """Changing it leaves the recording alone, which is not held in memory for its sake."""
    for module in (theirs, ours):
        array = noise(4)
        for given in (array, torch.from_numpy(array)):
            found = module.pad_or_trim(given, length)
            assert (found is given) == (length == 4)
            found *= 2
            expected = noise(4) * (2 if length == 4 else 1)
            np.testing.assert_array_equal(np.asarray(given), expected)
            found /= 2


@pytest.mark.parametrize("size", [0, 1, 200, 201, 399, 400, 401, 479_999, 480_000, 480_001])
@pytest.mark.parametrize("padding", [0, 201, 480_000])
def test_every_length(size, padding):
    samples = noise(size)
    try:
        expected = theirs.log_mel_spectrogram(samples, 80, padding)
    except RuntimeError:
        with pytest.raises(RuntimeError):
            ours.log_mel_spectrogram(samples, 80, padding)
        assert size + padding <= 200
        return
    found = ours.log_mel_spectrogram(samples, 80, padding)
    assert found.dtype is expected.dtype
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_what_cannot_be_loaded(tmp_path):
    (tmp_path / "text.wav").write_text("no sound")
    for path in (str(tmp_path / "missing.wav"), str(tmp_path), str(tmp_path / "text.wav")):
        for load in (theirs.load_audio, ours.log_mel_spectrogram, load_audio):
            with pytest.raises(RuntimeError):
                load(path)


def test_recordings_are_the_same_samples(jfk):
    for rate in (16_000, 8_000):
        np.testing.assert_array_equal(load_audio(jfk, rate), theirs.load_audio(str(jfk), rate))
