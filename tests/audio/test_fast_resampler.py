"""aii.audio.fast_resampler: libsoxr gives what our own filter gives, however the input is cut."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aii.audio.fast_resampler import SoxrResampler, make_resampler, resample
from aii.audio.pcm import PcmDecoder, PcmFormat
from aii.audio.resampler import Resampler
from aii.errors import AudioError

pytest.importorskip("soxr", reason="soxr is not installed: pip install 'aii[telephony]'")

RATES = (8_000, 12_000, 24_000, 32_000, 44_100, 48_000, 96_000, 192_000, 11_025, 8_001)
NOISE = np.random.default_rng(1).integers(-32768, 32768, 9_001).astype(np.int16)


def whole(resampler, samples: np.ndarray) -> np.ndarray:
    return np.concatenate((resampler.feed(samples), resampler.flush()))


def in_pieces(resampler, samples: np.ndarray, sizes: list[int]) -> np.ndarray:
    pieces, place, turn = [], 0, 0
    while place < len(samples):
        size = sizes[turn % len(sizes)]
        pieces.append(resampler.feed(samples[place : place + size]))
        place, turn = place + size, turn + 1
    return np.concatenate([*pieces, resampler.flush()])


@pytest.mark.parametrize("rate", RATES)
def test_the_same_as_our_own_filter_in_the_band_of_speech(rate) -> None:
    times = np.arange(rate) / rate
    low = min(rate, 16_000) / 2
    tones = sum(np.sin(2 * np.pi * share * low * times + share) for share in (0.02, 0.3, 0.6, 0.88))
    samples = (tones * 0.2).astype(np.float32)
    ours, theirs = whole(Resampler(rate), samples), whole(SoxrResampler(rate), samples)
    assert len(ours) == len(theirs) == math.ceil(len(samples) * 16_000 / rate)
    assert np.abs(ours - theirs)[1_500:-1_500].max() < 2e-4  # of four tones, each 80 dB below


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("sizes", [[1], [160], [7, 0, 1999, 3], [4096]])
def test_cutting_does_not_matter(rate, sizes) -> None:
    samples = NOISE[:1_500] if sizes == [1] else NOISE
    expected = whole(SoxrResampler(rate), samples)
    np.testing.assert_array_equal(in_pieces(SoxrResampler(rate), samples, sizes), expected)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(RATES),
    st.lists(st.integers(0, 700), min_size=1, max_size=30).filter(any),
    st.integers(0, 3_000),
)
def test_any_cutting(rate, sizes, length) -> None:
    samples = NOISE[:length].astype(np.float32) / 40_000
    expected = whole(SoxrResampler(rate), samples)
    assert len(expected) == math.ceil(length * 16_000 / rate)
    np.testing.assert_array_equal(in_pieces(SoxrResampler(rate), samples, sizes), expected)


def test_output_comes_within_an_eighth_of_a_second() -> None:
    resampler = SoxrResampler(8_000)
    got = 0
    for place in range(0, 8_000, 160):
        got += len(resampler.feed(NOISE[place : place + 160]))
        assert (place + 160) * 2 - got <= 2_000


def test_flush_begins_anew() -> None:
    resampler = SoxrResampler(8_000)
    first, second = whole(resampler, NOISE), whole(resampler, NOISE)
    np.testing.assert_array_equal(first, second)
    assert len(resampler.flush()) == 0


def test_int16_is_float_divided() -> None:
    as_float = NOISE.astype(np.float32) / 32_768
    np.testing.assert_array_equal(
        whole(SoxrResampler(8_000), NOISE), whole(SoxrResampler(8_000), as_float)
    )


def test_streams_use_it_where_it_is_installed(monkeypatch) -> None:
    assert isinstance(make_resampler(8_000), SoxrResampler)
    assert isinstance(make_resampler(16_000), Resampler)  # nothing to compute
    layout = PcmFormat("s16", 8_000)
    decoder = PcmDecoder(layout)
    got = np.concatenate((decoder.feed(NOISE.tobytes()), decoder.flush()))
    np.testing.assert_array_equal(got, whole(SoxrResampler(8_000), NOISE))
    np.testing.assert_array_equal(resample(NOISE, 8_000), got)

    monkeypatch.setitem(sys.modules, "soxr", None)  # as where it is not installed
    assert isinstance(make_resampler(8_000), Resampler)
    decoder = PcmDecoder(layout)
    got = np.concatenate((decoder.feed(NOISE.tobytes()), decoder.flush()))
    np.testing.assert_array_equal(got, whole(Resampler(8_000), NOISE))
    np.testing.assert_array_equal(resample(NOISE, 8_000), got)


@pytest.mark.parametrize("rates", [(0, 16_000), (-8_000, 16_000), (100, 16_000)])
def test_rates_out_of_range(rates) -> None:
    with pytest.raises(AudioError, match="cannot resample"):
        make_resampler(*rates)


def test_more_than_one_channel() -> None:
    with pytest.raises(AudioError, match="2 axes"):
        resample(np.zeros((2, 100), np.float32), 8_000)
