"""aii.audio.files: WAV headers, raw files, ffmpeg and its absence."""

from __future__ import annotations

import io
import shutil
import struct
import subprocess
import tracemalloc
import wave
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aii.audio import files
from aii.audio.files import (
    MAX_WAV_HEADER,
    Bounds,
    WavFormat,
    load_audio,
    load_slin,
    parse_wav_header,
)
from aii.audio.pcm import PcmFormat, alaw_to_float, slin_to_float, ulaw_to_float
from aii.errors import AudioError

needs_ffmpeg = pytest.mark.skipif(not shutil.which("ffmpeg"), reason="ffmpeg is not installed")
SLIN = (np.sin(np.arange(8_000) * 0.2) * 9_000).astype("<i2").tobytes()
BITS = {"u8": 8, "s16": 16, "s24": 24, "s32": 32, "f32": 32, "ulaw": 8, "alaw": 8}
KINDS = {"f32": 3, "alaw": 6, "ulaw": 7}


def wav(
    data: bytes = SLIN,
    encoding: str = "s16",
    rate: int = 16_000,
    channels: int = 1,
    *,
    extra: bytes = b"",
    size: int | None = None,
    extensible: bool = False,
) -> bytes:
    """A WAV file written by hand."""
    kind, bits = KINDS.get(encoding, 1), BITS[encoding]
    block = channels * bits // 8
    fields = (0xFFFE if extensible else kind, channels, rate, rate * block % 2**32, block, bits)
    layout = struct.pack("<HHIIHH", *fields)
    if extensible:
        layout += (
            struct.pack("<HHIH", 22, bits, 0, kind) + b"\0\0\0\0\x10\0\x80\0\0\xaa\0\x38\x9b\x71"
        )
    body = b"fmt " + struct.pack("<I", len(layout)) + layout + extra
    body += b"data" + struct.pack("<I", len(data) if size is None else size) + data
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WAVE" + body


@pytest.fixture
def save(tmp_path: Path):
    def write(name: str, data: bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return write


@pytest.fixture
def no_ffmpeg(monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")


@pytest.mark.parametrize("encoding", BITS)
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("extensible", [False, True])
def test_headers(encoding, channels, extensible):
    data = wav(b"\0" * 24, encoding, 44_100, channels, extensible=extensible)
    found = parse_wav_header(data)
    assert found is not None
    assert (found.encoding, found.rate, found.channels) == (encoding, 44_100, channels)
    assert found.pcm == PcmFormat(encoding, 44_100, channels)
    assert (found.data_offset, found.data_size) == (len(data) - 24, 24)


def test_header_in_any_number_of_bytes():
    data = wav(extra=b"LIST\x03\0\0\0abc\0" + b"fact\x04\0\0\0\0\0\0\0")
    expected = parse_wav_header(data)
    assert expected == WavFormat(PcmFormat("s16", 16_000), 68, len(SLIN))
    for size in range(68):
        assert parse_wav_header(data[:size]) is None
    assert parse_wav_header(data[:68]) == expected


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF])
def test_streaming_sizes(size):
    found = parse_wav_header(wav(size=size))
    assert found is not None
    assert found.data_size is None


@pytest.mark.parametrize(
    "data, reason",
    [
        (b"RIFX", "no WAV file"),
        (b"OggS" + b"\0" * 40, "no WAV file"),
        (b"RIFF\0\0\0\0AVI ", "no WAV file"),
        (wav()[:12] + wav()[36:], "before their format"),
        (wav(extra=b"junk\xff\xff\xff\x7f"), "first 1048576 bytes"),
        (wav(extra=b"junk\0\0\0\0" * 200), "first 100 chunks"),
        (wav(rate=0), "at 0 Hz"),
        (wav(rate=4_000_000_000), "at 4000000000 Hz"),
        (wav(channels=0), "0 channels"),
        (wav().replace(b"\x02\0\x10\0data", b"\x09\0\x10\0data"), "9 bytes per frame, not 2"),
        (wav().replace(b"\x02\0\x10\0data", b"\x02\0\x0c\0data"), "kind 1 with 12 bits"),
        (wav()[:16] + b"\x04\0\0\0" + b"\1\0\1\0data\0\0\0\0", "4 bytes, not 16"),
    ],
)
def test_bad_headers(data, reason):
    with pytest.raises(AudioError, match=reason) as caught:
        parse_wav_header(data)
    assert "\n" not in str(caught.value)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=120), st.integers(0, 60))
def test_damaged_headers_give_an_answer(noise, place):
    data = wav()[:place] + noise + wav()[place + len(noise) :]
    try:
        found = parse_wav_header(data)
    except AudioError:
        return
    assert found is None or 20 < found.data_offset <= MAX_WAV_HEADER


@pytest.mark.parametrize("suffix", [".slin", ".SLN", ".raw", ".pcm", ".sln16", ".slin16"])
def test_raw_files(save, no_ffmpeg, suffix):
    found = load_audio(save(f"call{suffix}", SLIN + b"\x01"))
    np.testing.assert_array_equal(found, slin_to_float(SLIN))


def test_raw_files_at_8_khz(save, no_ffmpeg):
    codes = bytes(range(256)) * 4
    for suffix, data in ((".sln8", codes), (".ulaw", codes), (".al", codes)):
        found = load_audio(save(f"call{suffix}", data), sr=16_000)
        assert len(found) == 2 * len(data) // (2 if suffix == ".sln8" else 1)
    ulaw = load_audio(save("call.ul", codes), sr=8_000)
    np.testing.assert_array_equal(ulaw, ulaw_to_float(codes))
    alaw = load_audio(save("call.alaw", codes), sr=8_000)
    np.testing.assert_array_equal(alaw, alaw_to_float(codes))


def test_wav_that_needs_no_conversion(save, no_ffmpeg):
    expected = slin_to_float(SLIN)
    files_written = {
        "plain": wav(),
        "streamed": wav(size=0xFFFFFFFF),
        "trailer": wav() + b"LIST\x04\0\0\0abcd",
        "late": wav(extra=b"junk" + struct.pack("<I", 9_000) + b"\0" * 9_000),
        "cut": wav(size=len(SLIN) + 1_000),
        "half": wav(SLIN + b"\1", size=0),
    }
    for name, data in files_written.items():
        found = load_audio(save(f"{name}.wav", data))
        np.testing.assert_array_equal(found, expected, err_msg=name)


def test_empty_wav(save, no_ffmpeg):
    assert load_audio(save("a.wav", wav(b""))).shape == (0,)


@needs_ffmpeg
@pytest.mark.parametrize("encoding", ["u8", "s24", "f32", "ulaw", "alaw"])
def test_without_ffmpeg_as_with_it(save, monkeypatch, encoding):
    samples = slin_to_float(SLIN)
    data = {
        "u8": ((samples * 127).round() + 128).astype(np.uint8).tobytes(),
        "s24": b"".join(b"\0" + SLIN[i : i + 2] for i in range(0, len(SLIN), 2)),
        "f32": samples.astype("<f4").tobytes(),
        "ulaw": bytes(range(256)) * 8,
        "alaw": bytes(range(256)) * 8,
    }[encoding]
    path = save("a.wav", wav(data, encoding))
    expected = load_audio(path)
    monkeypatch.setenv("PATH", "/nonexistent")
    np.testing.assert_array_equal(load_audio(path), expected)


@needs_ffmpeg
def test_resampled_and_mixed_down_nearly_as_by_ffmpeg(save, monkeypatch):
    times = np.arange(48_000) / 48_000
    left = np.sin(2 * np.pi * 440 * times) * 8_000
    frames = np.stack([left, 0.5 * left], axis=1).astype("<i2")
    path = save("a.wav", wav(frames.tobytes(), rate=48_000, channels=2))
    expected = load_audio(path)
    monkeypatch.setenv("PATH", "/nonexistent")
    found = load_audio(path)
    assert found.shape == expected.shape == (16_000,)
    np.testing.assert_allclose(found[500:-500], expected[500:-500], atol=3 / 32768)


@needs_ffmpeg
def test_any_format_and_names_that_look_like_something_else(save, tmp_path):
    plain = save("plain.wav", wav())
    for name in ("a.flac", "-i", "pipe:1", "concat:x|y"):
        target = tmp_path / name
        command = ["ffmpeg", "-v", "error", "-i", str(plain), "-f", "flac", f"file:{target}"]
        subprocess.run(command, check=True, timeout=200)
        np.testing.assert_array_equal(load_audio(target), slin_to_float(SLIN))


def test_python_can_read_what_the_tests_write():
    with wave.open(io.BytesIO(wav())) as source:
        assert (source.getnchannels(), source.getframerate(), source.getsampwidth()) == (
            1,
            16_000,
            2,
        )


@needs_ffmpeg
def test_undecodable_file(save):
    path = save("notes.txt", b"no sound in here\n" * 10)
    with pytest.raises(AudioError, match=r"cannot decode .*notes.txt: Invalid data") as caught:
        load_audio(path)
    assert "\n" not in str(caught.value)


@needs_ffmpeg
def test_address_that_answers_nothing():
    with pytest.raises(AudioError, match="cannot decode http://127.0.0.1:9/call.mp3"):
        load_audio("http://127.0.0.1:9/call.mp3")


def test_missing_file_folder_and_address(tmp_path, no_ffmpeg):
    with pytest.raises(AudioError, match="there is no file nowhere.wav"):
        load_audio("nowhere.wav")
    with pytest.raises(AudioError, match="there is no file nowhere.slin"):
        load_audio("nowhere.slin")
    with pytest.raises(AudioError, match="cannot read"):
        load_audio(tmp_path)
    with pytest.raises(AudioError, match="without ffmpeg"):
        load_audio("https://127.0.0.1:9/call.mp3")


def test_without_ffmpeg_the_message_says_so(save, no_ffmpeg):
    with pytest.raises(AudioError, match="without ffmpeg; install it"):
        load_audio(save("a.mp3", b"ID3" + b"\0" * 100))
    with pytest.raises(AudioError, match="without ffmpeg: WAV samples of kind 17"):
        load_audio(save("b.wav", wav().replace(b"\x10\0\0\0\1\0", b"\x10\0\0\0\x11\0")))
    with pytest.raises(AudioError, match="ends before its samples"):
        load_audio(save("c.wav", wav()[:30]))


def test_every_suffix_is_lower_case():
    assert all(suffix == suffix.lower() and suffix[0] == "." for suffix in files.RAW_FORMATS)


@pytest.mark.parametrize("encoding, rate, channels", [("s16", 16_000, 1), ("ulaw", 8_000, 1),
                                                      ("s24", 44_100, 2)])  # fmt: skip
@pytest.mark.parametrize("bounds", [None, Bounds(60.0)])
def test_as_integers_and_within_bounds_it_is_the_same(
    save, monkeypatch, encoding, rate, channels, bounds
):
    frame = channels * BITS[encoding] // 8
    data = np.random.default_rng(4).bytes(3 * rate * frame)
    path = save("a.wav", wav(data, encoding, rate, channels))
    for tools in (None, "/nonexistent"):  # with ffmpeg, where it is, and without
        if tools is not None:
            monkeypatch.setenv("PATH", tools)
        found = load_slin(path, bounds=bounds)
        assert found.dtype == np.int16
        assert len(found) == 3 * 16_000
        np.testing.assert_array_equal(found / np.float32(32768.0), load_audio(path))


def traced(path):
    """The samples of a file, and the most memory that reading them took."""
    tracemalloc.start()
    try:
        found = load_slin(path, bounds=Bounds(7200.0))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    return found, peak


@pytest.mark.parametrize("name, rate", [("a.wav", 16_000), ("a.ulaw", 8_000)])
def test_a_long_recording_of_a_stranger_takes_no_memory(save, no_ffmpeg, name, rate):
    """Two hours once took 2.8 GB while they were read."""
    minutes = 4
    wide = name == "a.wav"
    data = np.random.default_rng(5).bytes(minutes * 60 * rate * (2 if wide else 1))
    path = save(name, wav(data) if wide else data)
    found, peak = traced(path)
    assert len(found) == minutes * 60 * 16_000
    assert peak < found.nbytes
    assert peak < 6_000_000


@needs_ffmpeg
def test_what_ffmpeg_gives_takes_no_memory_either(save):
    data = np.random.default_rng(6).bytes(240 * 48_000 * 2)
    path = save("a.wav", wav(data, rate=48_000))
    found, peak = traced(path)
    assert len(found) == 240 * 16_000
    assert peak < 2_000_000


def test_a_recording_beyond_the_bounds_is_refused(save, no_ffmpeg):
    with pytest.raises(AudioError, match="longer than 2 s; send it in parts"):
        load_slin(save("a.wav", wav(bytes(2 * 16_000 * 3))), bounds=Bounds(2.0))
    assert len(load_slin(save("b.wav", wav(b"")), bounds=Bounds(2.0))) == 0
