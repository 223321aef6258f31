"""aii.audio.pcm: bytes to samples and back."""

from __future__ import annotations

import shutil
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aii.audio.pcm import (
    PcmDecoder,
    PcmFormat,
    SlinDecoder,
    alaw_to_float,
    float_to_alaw,
    float_to_slin,
    float_to_ulaw,
    slin_to_float,
    ulaw_to_float,
)
from aii.errors import AudioError

EVERY_SAMPLE = np.arange(-32768, 32768).astype("<i2").tobytes()
SPEECHLIKE = np.random.default_rng(3).normal(0, 3000, 4_001).astype("<i2").tobytes()


def in_pieces(decoder: PcmDecoder, data: bytes, sizes: list[int]) -> np.ndarray:
    pieces, place, turn = [], 0, 0
    while place < len(data):
        size = sizes[turn % len(sizes)]
        pieces.append(decoder.feed(data[place : place + size]))
        place, turn = place + size, turn + 1
    return np.concatenate([*pieces, decoder.flush()])


def test_slin_there_and_back():
    samples = slin_to_float(EVERY_SAMPLE)
    assert samples.dtype == np.float32
    assert (samples.min(), samples.max()) == (-1.0, 32767 / 32768)
    assert float_to_slin(samples) == EVERY_SAMPLE
    assert slin_to_float(b"\x01\x80\x02\x00").tolist() == [-32767 / 32768, 2 / 32768]
    assert len(slin_to_float(b"")) == 0


def test_half_a_sample():
    with pytest.raises(AudioError, match="got 3"):
        slin_to_float(b"abc")


def test_out_of_range_is_cut_off():
    samples = np.array([1.0, 2.0, -2.0, np.inf, -np.inf, np.nan, 0.49 / 32768], np.float32)
    values = np.frombuffer(float_to_slin(samples), "<i2").tolist()
    assert values == [32767, 32767, -32768, 32767, -32768, 0, 0]


def test_g711_against_its_tables():
    # ITU-T G.711, tables 1a and 2a: decision values at the ends of the segments.
    ulaw = {0xFF: 0, 0x7F: 0, 0x80: 32124, 0x00: -32124, 0xFE: 8, 0xF0: 120, 0xEF: 132, 0x8F: 16764}
    for code, value in ulaw.items():
        assert ulaw_to_float(bytes([code]))[0] * 32768 == value, hex(code)
    alaw = {0xD5: 8, 0x55: -8, 0xAA: 32256, 0x2A: -32256, 0xC5: 264, 0x80: 5504}
    for code, value in alaw.items():
        assert alaw_to_float(bytes([code]))[0] * 32768 == value, hex(code)
    everything = bytes(range(256))
    assert len(set(ulaw_to_float(everything).tolist())) == 255  # two zeros
    assert len(set(alaw_to_float(everything).tolist())) == 256
    np.testing.assert_array_equal(ulaw_to_float(everything[:128]), -ulaw_to_float(everything[128:]))
    np.testing.assert_array_equal(alaw_to_float(everything[:128]), -alaw_to_float(everything[128:]))


@pytest.mark.parametrize(
    "encode, decode, silence",
    [(float_to_ulaw, ulaw_to_float, 0xFF), (float_to_alaw, alaw_to_float, 0xD5)],
)
def test_g711_there_and_back(encode, decode, silence):
    codes = bytes(range(256))
    again = encode(decode(codes))
    differing = [code for code in codes if again[code] != code]
    assert differing in ([], [0x7F])  # mu-law has two zeros; the positive one is sent
    assert encode(np.zeros(3, np.float32)) == bytes([silence]) * 3
    samples = slin_to_float(EVERY_SAMPLE)
    values = np.sort(decode(codes))
    nearest = values[np.abs(values[None, :] - samples[::37, None]).argmin(axis=1)]
    error = np.abs(decode(encode(samples[::37])) - samples[::37])
    np.testing.assert_array_equal(error, np.abs(nearest - samples[::37]))
    wild = np.array([2.0, -2.0, np.inf, -np.inf, np.nan], np.float32)
    loudest = values.max()
    assert decode(encode(wild)).tolist()[:4] == [loudest, -loudest, loudest, -loudest]
    assert abs(decode(encode(wild))[4]) <= 8 / 32768


def test_g711_is_no_worse_than_sox():
    """sox cuts a sample to 14 or 13 bits before it looks for the code, so ours may be nearer."""
    if shutil.which("sox") is None:
        pytest.skip("the program sox is not installed")
    samples = slin_to_float(EVERY_SAMPLE)
    laws = {"mu-law": (float_to_ulaw, ulaw_to_float), "a-law": (float_to_alaw, alaw_to_float)}
    for law, (encode, decode) in laws.items():
        raw = "-D -t raw -r 8000 -e signed -b 16 -c 1 - -t raw -e".split()
        done = subprocess.run(
            ["sox", *raw, law, "-"], input=EVERY_SAMPLE, capture_output=True, check=True
        )
        theirs, ours = (
            np.abs(decode(done.stdout) - samples),
            np.abs(decode(encode(samples)) - samples),
        )
        assert (ours <= theirs).all()
        assert (
            np.frombuffer(done.stdout, np.uint8) == np.frombuffer(encode(samples), np.uint8)
        ).mean() > 0.97


@pytest.mark.parametrize("rate", [8_000, 16_000, 48_000])
@pytest.mark.parametrize("sizes", [[1], [3, 640], [641], [5_000, 0, 1]])
def test_cutting_does_not_matter(rate, sizes):
    whole = SlinDecoder(rate)
    expected = np.concatenate([whole.feed(SPEECHLIKE), whole.flush()])
    assert len(expected) == -(-4_001 * 16_000 // rate)
    np.testing.assert_array_equal(in_pieces(SlinDecoder(rate), SPEECHLIKE, sizes), expected)


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(["u8", "s16", "s24", "s32", "f32", "ulaw", "alaw"]),
    st.integers(1, 3),
    st.sampled_from([8_000, 16_000, 44_100]),
    st.binary(max_size=600),
    st.lists(st.integers(0, 50), min_size=1, max_size=10).filter(any),
)
def test_any_bytes_in_any_layout(encoding, channels, rate, data, sizes):
    layout = PcmFormat(encoding, rate, channels)
    whole = PcmDecoder(layout)
    expected = np.concatenate([whole.feed(data), whole.flush()])
    assert np.isfinite(expected).all()
    assert len(expected) == -(-(len(data) // layout.frame_bytes) * 16_000 // rate)
    np.testing.assert_array_equal(in_pieces(PcmDecoder(layout), data, sizes), expected)


def test_layouts():
    values = [-1.0, -0.5, 0.0, 0.25]
    written = {
        "u8": bytes([0, 64, 128, 160]),
        "s16": np.array([-32768, -16384, 0, 8192], "<i2").tobytes(),
        "s24": b"\x00\x00\x80" + b"\x00\x00\xc0" + b"\x00\x00\x00" + b"\x00\x00\x20",
        "s32": (np.array(values) * 2**31).astype("<i4").tobytes(),
        "f32": np.array(values, "<f4").tobytes(),
    }
    for encoding, data in written.items():
        assert PcmFormat(encoding, 16_000).decode(data).tolist() == values, encoding
        stereo = PcmFormat(encoding, 16_000, 2).decode(data)
        assert stereo.tolist() == [-0.75, 0.125], encoding


def test_bad_layouts():
    with pytest.raises(AudioError, match="mp3"):
        PcmFormat("mp3", 8_000)
    with pytest.raises(AudioError, match="must be above 0"):
        PcmFormat("s16", 0)
    with pytest.raises(AudioError, match="4-byte frames"):
        PcmFormat("s16", 8_000, 2).decode(b"123456")


def test_flush_drops_half_a_sample_and_begins_anew():
    decoder = SlinDecoder(8_000)
    first = np.concatenate([decoder.feed(SPEECHLIKE + b"\x7f"), decoder.flush()])
    second = np.concatenate([decoder.feed(SPEECHLIKE), decoder.flush()])
    np.testing.assert_array_equal(first, second)


def test_imports_no_torch():
    code = (
        "import sys, aii.audio, aii.audio.pcm, aii.audio.files; "
        "sys.exit('torch' in sys.modules or 'log_mel_spectrogram' not in dir(aii.audio))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=200).returncode == 0


def test_names_of_whisper_audio():
    import aii.audio
    from aii.audio import N_FRAMES, SAMPLE_RATE, load_audio, log_mel_spectrogram, pad_or_trim

    assert (N_FRAMES, SAMPLE_RATE) == (3000, 16_000)
    assert all(callable(f) for f in (load_audio, log_mel_spectrogram, pad_or_trim))
    with pytest.raises(AttributeError, match="nothing_here"):
        _ = aii.audio.nothing_here
