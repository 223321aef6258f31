"""aii.mel on its own, and the script that computes its table."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch

from aii.audio.pcm import float_to_slin
from aii.errors import AudioError, InputError
from aii.mel import N_SAMPLES, log_mel_spectrogram, mel_filters, pad_or_trim
from aii.resources import asset

ROOT = Path(__file__).resolve().parent.parent
TONE = (0.3 * np.sin(np.arange(16_000) * 0.3)).astype(np.float32)


def test_the_script_computes_the_shipped_table(tmp_path, capsys):
    script = runpy.run_path(str(ROOT / "scripts" / "make_mel_filters.py"))
    paths = [tmp_path / "a.npz", tmp_path / "b.npz"]
    for path in paths:
        assert script["main"]([str(path)]) == 0
    assert str(paths[0]) in capsys.readouterr().out
    assert paths[0].read_bytes() == paths[1].read_bytes() == asset("mel_filters.npz").read_bytes()


def test_each_band_has_an_area_of_one():
    filters = mel_filters("cpu", 128)
    # Bins are 40 Hz apart; narrow bands at low frequencies fall between bins.
    assert torch.allclose(filters[90:].sum(dim=1) * 40, torch.ones(38), atol=0.05)


def test_a_tone_is_loudest_in_its_band():
    mel = log_mel_spectrogram(TONE)
    assert mel.shape == (80, 100)
    hertz = 0.3 * 16_000 / (2 * np.pi)
    band = int(mel.mean(dim=1).argmax())
    weights = mel_filters("cpu", 80)[band]
    assert abs(int(weights.argmax()) * 40 - hertz) < 80


@pytest.mark.parametrize("size", [0, 1, 160, 200])
def test_too_short(size):
    for given in (TONE[:size], torch.from_numpy(TONE[:size]), float_to_slin(TONE[:size])):
        with pytest.raises(AudioError, match=f"{size} samples is too short"):
            log_mel_spectrogram(given)
        assert log_mel_spectrogram(given, padding=16_000).shape == (80, (16_000 + size) // 160)


@pytest.mark.parametrize(
    "given, reason",
    [
        (np.zeros(1000, np.int16), "int16, not float"),
        (torch.zeros(1000, dtype=torch.int16), "not float"),
        (np.ones((), np.float32), "0 axes"),
        (np.zeros((2, 2, 1000), np.float32), "3 axes"),
        ([0.0] * 1000, "is a list"),
        (b"\0" * 801, "two bytes per sample"),
    ],
)
def test_what_is_no_audio(given, reason):
    with pytest.raises(AudioError, match=reason):
        log_mel_spectrogram(given)


def test_unsupported_bands():
    with pytest.raises(InputError, match="81 mel bands"):
        log_mel_spectrogram(TONE, 81)


def test_kinds_of_arrays_that_torch_dislikes():
    expected = log_mel_spectrogram(TONE)
    frozen = TONE.copy()
    frozen.flags.writeable = False
    big_endian = TONE.astype(">f4")
    reversed_twice = TONE[::-1].copy()[::-1]
    for given in (frozen, big_endian, reversed_twice, TONE.astype(np.float64)):
        assert torch.equal(log_mel_spectrogram(given), expected)


def test_rows_alone():
    batch = np.stack([TONE, TONE * 1e-3])
    together = log_mel_spectrogram(batch)
    alone = log_mel_spectrogram(batch, rows_alone=True)
    singles = torch.stack([log_mel_spectrogram(row) for row in batch])
    assert torch.allclose(alone, singles, atol=1e-6)
    assert not torch.allclose(together[1], singles[1], atol=1e-2)


def test_pad_or_trim_leaves_its_input_alone():
    samples = torch.ones(10)
    assert pad_or_trim(samples).shape == (N_SAMPLES,)
    assert torch.equal(samples, torch.ones(10))
    assert pad_or_trim(np.ones(N_SAMPLES + 5)).shape == (N_SAMPLES,)
