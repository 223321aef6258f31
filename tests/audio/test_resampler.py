"""aii.audio.resampler: what it passes, what it stops, and that cutting does not matter."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aii.audio.resampler import Resampler, resample
from aii.errors import AudioError

RATES = (8_000, 11_025, 12_000, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000, 192_000)
ODD_RATES = (15_991, 47_997, 8_001)
NOISE = np.random.default_rng(1).integers(-32768, 32768, 9_001).astype(np.int16)


def decibels(level: float) -> float:
    return 20 * math.log10(level + 1e-12)


def in_pieces(samples: np.ndarray, rate: int, sizes: list[int]) -> np.ndarray:
    """Resample ``samples`` cut into pieces of the given sizes, over and over."""
    resampler, pieces, place, turn = Resampler(rate), [], 0, 0
    while place < len(samples):
        size = sizes[turn % len(sizes)]
        pieces.append(resampler.feed(samples[place : place + size]))
        place, turn = place + size, turn + 1
    return np.concatenate([*pieces, resampler.flush()])


@pytest.mark.parametrize("rate", [*RATES, *ODD_RATES])
def test_passband_keeps_level_and_place(rate):
    low = min(rate, 16_000) / 2
    times = np.arange(rate // 2) / rate
    for hertz in (100.0, 0.3 * low, 0.7 * low, 0.9 * low):
        out = resample(np.sin(2 * np.pi * hertz * times + 0.3), rate)
        wanted = np.sin(2 * np.pi * hertz * np.arange(len(out)) / 16_000 + 0.3)
        # A wrong delay of a hundredth of a sample would already be seen here.
        error = np.abs(out - wanted)[1_500:-1_500].max()
        assert decibels(error) < -80, hertz


@pytest.mark.parametrize("rate", [rate for rate in (*RATES, 47_997) if rate > 16_000])
def test_stopband_is_gone(rate):
    times = np.arange(rate // 2) / rate
    for hertz in (8_001.0, 8_300.0, min(9_500.0, 0.49 * rate), 0.49 * rate):
        out = resample(np.sin(2 * np.pi * hertz * times), rate)
        assert decibels(np.abs(out[1_500:-1_500]).max()) < -80, hertz


@pytest.mark.parametrize("rate", [8_000, 11_025, 12_000])
def test_images_are_gone(rate):
    tone = np.sin(2 * np.pi * 0.45 * np.arange(rate))
    out = resample(tone, rate)[1_000:-1_000]
    spectrum = np.abs(np.fft.rfft(out * np.kaiser(len(out), 14)))
    above = np.fft.rfftfreq(len(out), 1 / 16_000) > rate / 2
    assert decibels(spectrum[above].max() / spectrum.max()) < -80


@pytest.mark.parametrize("rate", [*RATES, *ODD_RATES, 161, 1_600_000])
@pytest.mark.parametrize("size", [0, 1, 2, 321])
def test_length_and_level_of_a_constant(rate, size):
    out = resample(np.full(size, 0.5, np.float32), rate)
    assert out.dtype == np.float32
    assert len(out) == math.ceil(size * 16_000 / rate)
    long = resample(np.full(rate // 10, 0.5, np.float32), rate)
    middle = long[len(long) // 2 - 5 : len(long) // 2 + 5]
    if rate >= 8_000:
        np.testing.assert_allclose(middle, 0.5, atol=2e-5)


@pytest.mark.parametrize("rate", [*RATES, *ODD_RATES])
@pytest.mark.parametrize("sizes", [[1], [160], [7, 0, 1999, 3], [4096]])
def test_cutting_does_not_matter(rate, sizes):
    samples = NOISE[:1_500] if sizes == [1] else NOISE
    whole = resample(samples, rate)
    np.testing.assert_array_equal(in_pieces(samples, rate, sizes), whole)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([*RATES, *ODD_RATES]),
    st.lists(st.integers(0, 700), min_size=1, max_size=30).filter(any),
    st.integers(0, 3_000),
)
def test_any_cutting(rate, sizes, length):
    samples = NOISE[:length].astype(np.float32) / 40_000
    np.testing.assert_array_equal(in_pieces(samples, rate, sizes), resample(samples, rate))


def test_large_arrays_are_the_same_as_small_pieces():
    samples = np.random.default_rng(2).normal(0, 0.2, 150_000).astype(np.float32)
    np.testing.assert_array_equal(in_pieces(samples, 8_000, [30_000]), resample(samples, 8_000))


def test_output_comes_within_ten_milliseconds():
    resampler = Resampler(8_000)
    given, got = 0, 0
    for place in range(0, 8_000, 160):
        got += len(resampler.feed(NOISE[place : place + 160]))
        given += 160
        assert given * 2 - got <= 160


def test_flush_begins_anew():
    resampler = Resampler(8_000)
    runs = []
    for _ in range(2):
        runs.append(np.concatenate([resampler.feed(NOISE), resampler.flush()]))
    np.testing.assert_array_equal(runs[0], runs[1])
    np.testing.assert_array_equal(resampler.flush(), np.zeros(0, np.float32))


def test_same_rate_passes_through():
    samples = NOISE.astype(np.float32) / 32_768
    np.testing.assert_array_equal(resample(samples, 16_000), samples)
    np.testing.assert_array_equal(resample(NOISE, 16_000), samples)


@pytest.mark.parametrize("rates", [(0, 16_000), (-8_000, 16_000), (8_000, 0), (100, 16_000)])
def test_rates_out_of_range(rates):
    with pytest.raises(AudioError, match="cannot resample"):
        Resampler(*rates)


def test_more_than_one_channel():
    with pytest.raises(AudioError, match="2 axes"):
        resample(np.zeros((2, 100), np.float32), 8_000)
