from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aii.protocols import Audio, Hangup, Notice, wrap
from aii.protocols.base import MOST_NOTICES
from aii.protocols.cr641 import REACH, Cr641Framing


def framed(pcm: bytes) -> bytes:
    return b"".join(packet.data for packet in wrap([pcm], "cr641"))


def test_strips_the_returns_however_it_is_cut(play, heard, others, speech) -> None:
    pcm = speech[:50_000]
    for step in (None, 1, 640, 641, 642, 1000):
        frames = play(Cr641Framing(), framed(pcm), step=step)
        assert heard(frames) == pcm
        assert others(frames) == [Hangup("eof")]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 3000), st.lists(st.integers(0, 3100), max_size=8))
def test_any_length_with_or_without_the_last_return(play, heard, speech, samples, cuts) -> None:
    pcm = speech[32_000 : 32_000 + 2 * samples]
    wire = framed(pcm)
    assert heard(play(Cr641Framing(), wire, cuts)) == pcm
    if len(pcm) % 640:
        assert heard(play(Cr641Framing(), wire[:-1], cuts)) == pcm


def test_a_frame_without_its_return_costs_nothing(play, heard, others, speech) -> None:
    pcm = speech[: 640 * 20]
    wire = framed(pcm)
    at = 641 * 5 + 640
    for step in (None, 1, 777):
        frames = play(Cr641Framing(), wire[:at] + wire[at + 1 :], step=step)
        assert heard(frames) == pcm
        notices = [frame.text for frame in others(frames)[:-1]]
        assert len(notices) == 2
        assert f"at byte {at}" in notices[0]
        assert notices[1].startswith("641-byte frames: locked again")


@pytest.mark.parametrize("lost", [1, 2, 7, 100, 639])
def test_after_lost_bytes_the_samples_are_whole_again(play, heard, speech, lost) -> None:
    pcm = speech[: 640 * 20]
    wire = framed(pcm)
    at = 641 * 5 + 1  # within frame 5
    for step in (None, 1, 500):
        got = heard(play(Cr641Framing(), wire[:at] + wire[at + lost :], step=step))
        assert got[: 640 * 5] == pcm[: 640 * 5]
        assert got[-640 * 14 :] == pcm[-640 * 14 :]
        assert len(got) == (len(pcm) - lost) // 2 * 2


def test_bytes_too_many_are_passed_on_and_the_lock_found_again(play, heard, speech) -> None:
    pcm = speech[: 640 * 20]
    wire = framed(pcm)
    at = 641 * 3
    for extra in (b"12", b"123", bytes(2000), bytes(5001)):
        for step in (None, 1, 500):
            got = heard(play(Cr641Framing(), wire[:at] + extra + wire[at:], step=step))
            whole = extra[: len(extra) // 2 * 2]
            assert got[: 640 * 3 + len(whole)] == pcm[: 640 * 3] + whole
            assert len(got) == len(pcm) + len(whole)
            assert got[-640 * 16 :] == pcm[-640 * 16 :]


def test_a_short_frame_in_between(play, heard, speech) -> None:
    pcm = speech[: 640 * 12 + 320]
    wire = framed(pcm[: 640 * 4]) + pcm[640 * 4 : 640 * 4 + 320] + b"\r"
    wire += framed(pcm[640 * 4 + 320 :])
    assert heard(play(Cr641Framing(), wire, step=100)) == pcm


def test_plain_audio_passes_whole(play, heard, others, speech) -> None:
    pcm = speech[16_000:60_000]
    frames = play(Cr641Framing(), pcm, step=999)
    assert heard(frames) == pcm
    assert [type(frame) for frame in others(frames)] == [Notice, Hangup]


def test_holds_little_and_says_little_whatever_comes() -> None:
    machine = Cr641Framing()
    lock = framed(bytes(640 * 5))
    notices = 0
    for _ in range(100):
        frames = machine.receive(lock + b"x" * 640)
        notices += sum(isinstance(frame, Notice) for frame in frames)
        assert len(machine._held) <= REACH + 641
    assert notices == MOST_NOTICES


def test_audio_goes_out_frame_by_frame(speech) -> None:
    machine = Cr641Framing()
    wire = framed(speech[:1280])
    assert machine.receive(wire[:640]) == []
    assert machine.receive(wire[640:700]) == [Audio(speech[:640])]
    assert machine.receive(wire[700:]) == [Audio(speech[640:1280])]
