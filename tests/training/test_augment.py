from __future__ import annotations

import numpy as np
import pytest
import torch

from aii.mel import log_mel_spectrogram, mel_filters
from training.augment import (
    WARPS,
    Augmenter,
    a_law,
    log_mel,
    mu_law,
    telephone_band,
    through_telephone,
    warp_frequencies,
    warped_filters,
)


def tone(hz: float, seconds: float = 0.5, size: float = 0.5) -> torch.Tensor:
    return size * torch.sin(2 * torch.pi * hz * torch.arange(int(seconds * 16_000)) / 16_000)[None]


def level(samples: torch.Tensor) -> float:
    return float(samples[:, 1000:-1000].square().mean().sqrt())


def test_an_unwarped_filter_is_the_product_s() -> None:
    middle = int(np.abs(WARPS - 1.0).argmin())
    torch.testing.assert_close(warped_filters()[middle], mel_filters("cpu", 80), atol=1e-6, rtol=0)


def test_every_warped_band_hears_something() -> None:
    assert float(warped_filters().sum(-1).min()) > 0.0


def test_log_mel_is_the_product_s() -> None:
    samples = torch.randn(2, 16_000, generator=torch.Generator().manual_seed(0)) * 0.1
    expected = log_mel_spectrogram(samples, rows_alone=True)
    torch.testing.assert_close(log_mel(samples), expected, atol=1e-5, rtol=0)


def test_warping_moves_formants_and_leaves_the_edge_of_the_band() -> None:
    hz = np.array([500.0, 1500.0, 4000.0, 7000.0])
    for alpha in (0.8, 1.25):
        warped = warp_frequencies(hz, alpha)
        np.testing.assert_allclose(warped[:2], hz[:2] * alpha)
        np.testing.assert_allclose(warped[2:], hz[2:])


@pytest.mark.parametrize("codec", [mu_law, a_law])
def test_codecs_keep_the_signal_within_their_steps(codec: object) -> None:
    assert callable(codec)
    samples = torch.linspace(-1.0, 1.0, 2001)
    coded = codec(samples)
    assert float((coded - samples).abs().max()) < 0.04
    assert len(coded.unique()) <= 255
    np.testing.assert_allclose(coded.numpy(), -codec(-samples).numpy(), atol=1e-6)


def test_the_telephone_band_lets_the_middle_pass_only() -> None:
    assert level(telephone_band(tone(1000))) == pytest.approx(level(tone(1000)), rel=0.05)
    assert level(telephone_band(tone(60))) < 0.02
    assert level(telephone_band(tone(6000))) < 0.02


@pytest.mark.parametrize("codec", ["mu-law", "a-law", "gsm"])
def test_through_the_telephone_a_tone_comes_back(codec: str) -> None:
    sent = tone(1000)
    heard = through_telephone(sent, codec)
    assert heard.shape == sent.shape
    error = level(heard - sent) / level(sent)
    assert error < (0.25 if codec == "gsm" else 0.05)


def test_augmented_batches_are_finite_repeatable_and_silent_behind_their_length() -> None:
    noise = np.random.default_rng(0).standard_normal((2, 64_000)).astype(np.float32)
    augmenter = Augmenter(noise)
    lengths = np.array([16_000, 8_000, 20_000])

    def run() -> torch.Tensor:
        torch.manual_seed(0)
        samples = np.random.default_rng(1).standard_normal((3, 32_000)).astype(np.float32) * 0.1
        samples *= np.arange(32_000)[None] < lengths[:, None]
        return augmenter(np.random.default_rng(2), samples, lengths, 160)

    mel = run()
    assert mel.shape == (3, 80, 200)
    assert bool(torch.isfinite(mel).all())
    torch.testing.assert_close(mel, run())
    for row, length in enumerate(lengths):
        after = mel[row, :, length // 160 + 4 :]
        assert float((after - after[:, :1]).abs().max()) < 1e-4  # bands may be masked throughout
