from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aii.protocols import Audio, Format, Hangup, Notice, wrap
from aii.protocols.wav import WavFraming
from aii.protocols.wrap import wav_header


def header(kind: int, rate: int, channels: int, bits: int, size: int, extra: bytes = b"") -> bytes:
    block = channels * bits // 8
    fmt = struct.pack("<HHIIHH", kind, channels, rate, rate * block, block, bits)
    chunks = b"fmt " + struct.pack("<I", len(fmt)) + fmt + extra
    chunks += b"data" + struct.pack("<I", size)
    return b"RIFF" + struct.pack("<I", 4 + len(chunks) + size) + b"WAVE" + chunks


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([8000, 16000, 44100]), st.lists(st.integers(0, 4100), max_size=8))
def test_plain_pcm_passes_as_it_is(play, heard, others, speech, rate, cuts) -> None:
    pcm = speech[:4001]
    wire = b"".join(packet.data for packet in wrap([pcm], "wav", rate=rate))
    frames = play(WavFraming(), wire, cuts)
    assert heard(frames) == pcm
    assert others(frames) == [Format(rate), Hangup("eof")]


@pytest.mark.parametrize("step", [None, 1, 13])
def test_what_follows_the_samples_is_no_audio(play, heard, speech, step) -> None:
    pcm = speech[:1000]
    wire = wav_header(8000, len(pcm)) + pcm + b"LIST\x04\0\0\0abcd"
    assert heard(play(WavFraming(), wire, step=step)) == pcm


@pytest.mark.parametrize("step", [None, 1, 640])
def test_chunks_before_the_samples_are_skipped(play, heard, others, speech, step) -> None:
    extra = b"LIST" + struct.pack("<I", 3001) + b"data" * 750 + b"x\0"
    wire = header(1, 16000, 1, 16, 2000, extra) + speech[:2000]
    frames = play(WavFraming(), wire, step=step)
    assert heard(frames) == speech[:2000]
    assert others(frames)[0] == Format(16000)


@pytest.mark.parametrize("step", [None, 1, 5])
def test_other_layouts_become_slin(play, heard, others, step) -> None:
    left = np.array([0, 1000, -2000, 32766, -32768], "<i2")
    stereo = np.stack([left, np.zeros_like(left)], axis=1).tobytes()
    frames = play(WavFraming(), header(1, 8000, 2, 16, len(stereo)) + stereo, step=step)
    assert np.frombuffer(heard(frames), "<i2").tolist() == [0, 500, -1000, 16383, -16384]
    assert others(frames)[0] == Format(8000, "s16", 2)

    eight = bytes([128, 0, 255, 129])
    frames = play(WavFraming(), header(1, 8000, 1, 8, 4) + eight, step=step)
    assert np.frombuffer(heard(frames), "<i2").tolist() == [0, -32768, 127 * 256, 256]

    real = np.array([0.0, 0.5, -1.0], "<f4").tobytes()
    frames = play(WavFraming(), header(3, 16000, 1, 32, 12) + real + b"junk", step=step)
    assert np.frombuffer(heard(frames), "<i2").tolist() == [0, 16384, -32768]

    mu = bytes([0xFF, 0x80, 0x00])
    frames = play(WavFraming(), header(7, 8000, 1, 8, 0) + mu, step=step)
    assert np.frombuffer(heard(frames), "<i2").tolist() == [0, 32124, -32124]
    assert others(frames)[0].encoding == "ulaw"


def test_a_kind_that_cannot_be_read_is_refused() -> None:
    machine = WavFraming()
    notice, end = machine.receive(header(2, 8000, 1, 4, 100) + bytes(100))
    assert isinstance(notice, Notice)
    assert "convert" in notice.text
    assert end == Hangup("refused")
    assert machine.receive(bytes(100)) == []


def test_a_header_without_end_is_refused_in_bounded_memory() -> None:
    machine = WavFraming()
    frames = machine.receive(b"RIFF\0\0\0\0WAVELIST" + struct.pack("<I", 1 << 30))
    for _ in range(2000):
        frames += machine.receive(bytes(1000))
        assert len(machine._held) <= 1 << 20
    assert frames[-1] == Hangup("refused")


def test_the_end_within_the_header(play) -> None:
    whole = wav_header(8000, 4) + b"abcd"
    for size in range(1, 44):
        frames = play(WavFraming(), whole[:size])
        assert frames == [Notice("the call ended within its WAV header"), Hangup("eof")]
    assert play(WavFraming(), whole[:44]) == [Format(8000), Hangup("eof")]
    assert play(WavFraming(), whole[:46]) == [Format(8000), Audio(b"ab"), Hangup("eof")]
