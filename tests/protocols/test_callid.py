from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aii.protocols import Audio, CallId, Hangup, Notice
from aii.protocols.callid import CallIdFraming, Found, find_call_id, lf_is_audio
from aii.protocols.cr641 import Cr641Framing

IDS = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=128)


def at_a_ten(speech: bytes, start: int = 0) -> int:
    """Where speech has a sample whose low byte is that of a line feed, and sound behind it."""
    samples = np.frombuffer(speech, "<i2")
    low = np.frombuffer(speech, np.uint8)[::2]
    tens = np.flatnonzero(low == 10)
    good = [i for i in tens if i > start and np.abs(samples[i : i + 320]).max() > 200]
    return 2 * int(good[0])


@settings(max_examples=60, deadline=None)
@given(IDS, st.sampled_from([b"\r", b"\r\n"]), st.lists(st.integers(0, 800), max_size=6))
def test_id_and_audio_however_cut(play, heard, others, speech, call_id, end, cuts) -> None:
    pcm = b"\x01\x00" + speech[8000:12_000]
    frames = play(CallIdFraming(), call_id.encode() + end + pcm, cuts)
    assert heard(frames) == pcm
    assert others(frames) == [CallId(call_id), Hangup("eof")]
    assert frames[0] == CallId(call_id)


@pytest.mark.parametrize("step", [None, 1, 2, 3, 39, 41])
def test_forty_bytes_padded_with_nuls(play, heard, others, speech, step) -> None:
    for call_id in ("abc", "0f2b1c5e-8a53-4a4f-9a8e-0d8f6a3c2b10", "x" * 39):
        wire = call_id.encode().ljust(40, b"\0") + speech[:3000]
        frames = play(CallIdFraming(), wire, step=step)
        assert heard(frames) == speech[:3000]
        assert others(frames) == [CallId(call_id), Hangup("eof")]


@pytest.mark.parametrize("step", [None, 1, 100])
def test_a_first_sample_like_a_line_feed_stays_audio(play, heard, speech, step) -> None:
    start = at_a_ten(speech)
    pcm = speech[start : start + 4000]
    assert pcm[0] == 10
    assert heard(play(CallIdFraming(), b"call\r" + pcm, step=step)) == pcm
    assert heard(play(CallIdFraming(), b"call\r\n" + pcm, step=step)) == pcm


def test_line_feed_judged_on_all_of_the_speech(speech) -> None:
    low = np.frombuffer(speech, np.uint8)[:-1400:2]
    tens = np.flatnonzero(low == 10)
    wrong = sum(not lf_is_audio(speech[2 * i : 2 * i + 641]) for i in tens)
    assert wrong <= len(tens) // 100
    starts = range(0, len(speech) - 1400, 1400)
    assert not any(lf_is_audio(b"\n" + speech[i : i + 640]) for i in starts)


def test_line_feed_before_audio_made_from_eight_bits(speech) -> None:
    coarse = (np.frombuffer(speech, "<i2") // 256 * 256).astype("<i2").tobytes()
    starts = range(0, len(coarse) - 1400, 1400)
    assert not any(lf_is_audio(b"\n" + coarse[i : i + 640]) for i in starts)


def test_quiet_audio_with_an_offset_may_begin_with_ten() -> None:
    quiet = np.random.default_rng(0).integers(7, 13, 400).astype("<i2")
    quiet[0] = 10
    assert lf_is_audio(quiet.tobytes())
    assert not lf_is_audio(b"\n" + bytes(640))
    assert not lf_is_audio(b"\n" + bytes(10))


def test_a_line_feed_is_not_waited_for_long() -> None:
    machine = CallIdFraming()
    assert machine.receive(b"call\r") == [CallId("call")]
    assert machine.tick_after is None
    assert machine.tick(9.0) == []
    assert machine.receive(b"\n", idle=9.0) == []
    assert machine.tick_after == 2.0
    assert machine.tick(1.9) == []
    assert machine.tick(2.0) == []
    assert machine.tick_after is None
    assert machine.receive(b"\nab", idle=0.1) == [Audio(b"\nab")]


def test_line_feed_then_little_audio_then_a_pause() -> None:
    machine = CallIdFraming()
    machine.receive(b"call\r\nabcd")
    assert machine.receive(b"ef", idle=0.25) == []
    assert machine.tick(2.0) == [Audio(b"abcd"), Audio(b"ef")]


def test_no_id_is_said_and_nothing_lost(play, heard, others, speech) -> None:
    pcm = b"ab\xff\xfe\x1b" + speech[:2000]
    for step in (None, 1):
        frames = play(CallIdFraming(), pcm, step=step)
        assert heard(frames) == pcm
        notice, end = others(frames)
        assert "ab\\xff" in notice.text
        assert end == Hangup("eof")


def test_an_id_that_is_too_long_is_audio(play, heard, others) -> None:
    wire = b"x" * 129 + b"\rabcd"
    frames = play(CallIdFraming(), wire, step=1)
    assert heard(frames) == wire
    assert [type(frame) for frame in others(frames)] == [Notice, Hangup]


def test_the_end_within_the_id(play, heard, others) -> None:
    for wire in (b"call-1", b"call-1\0\0\0"):
        frames = play(CallIdFraming(), wire, step=1)
        assert heard(frames) == wire
        assert "ended within its id" in others(frames)[0].text
    assert CallIdFraming().eof() == [Hangup("eof")]


def test_the_end_right_after_the_id(play) -> None:
    assert play(CallIdFraming(), b"call\r") == [CallId("call"), Hangup("eof")]
    assert play(CallIdFraming(), b"call\r\n", step=1) == [CallId("call"), Hangup("eof")]


def test_an_empty_id(play, heard, others) -> None:
    frames = play(CallIdFraming(), b"\rabcd")
    assert heard(frames) == b"abcd"
    assert others(frames)[0] == Notice("an empty call id")


def test_a_body_of_another_framing(play, heard, speech) -> None:
    wire = b"call\r" + speech[:640] + b"\r" + speech[640:1280] + b"\r"
    machine = CallIdFraming(Cr641Framing())
    assert machine.name == "callid+cr641"
    assert heard(play(machine, wire, step=7)) == speech[:1280]
    assert machine.takes_text
    machine.hang_up()
    assert machine.send() == b""
    assert CallIdFraming().name == "callid"


@pytest.mark.parametrize(
    "data, found",
    [
        (b"", Found.UNFINISHED),
        (b"abc", Found.UNFINISHED),
        (b"x" * 128, Found.UNFINISHED),
        (b"x" * 128 + b"\r", Found.ID),
        (b"x" * 129, Found.NONE),
        (b"ab\r", Found.NONE),
        (b"abc\r", Found.ID),
        (b"a c\r", Found.NONE),
        (b"abc\0", Found.UNFINISHED),
        (b"ab\0", Found.NONE),
        (b"abc" + bytes(37), Found.ID),
        (b"abc" + bytes(36) + b"x", Found.NONE),
        (b"\x7f", Found.NONE),
    ],
)
def test_what_is_an_id(data: bytes, found: Found) -> None:
    assert find_call_id(data, shortest=3)[0] is found
