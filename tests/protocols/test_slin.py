from __future__ import annotations

from aii.protocols import Audio, Flush, Hangup
from aii.protocols.slin import RawFraming


def test_every_byte_is_audio(play, heard, speech) -> None:
    for step in (None, 1, 640, 641, 4999):
        frames = play(RawFraming(), speech, step=step)
        assert heard(frames) == speech
        assert frames[-1] == Hangup("eof")
        assert frames.count(Hangup("eof")) == 1


def test_an_empty_connection_and_an_odd_byte() -> None:
    assert RawFraming().eof() == [Hangup("eof")]
    raw = RawFraming()
    assert raw.receive(b"") == []
    assert raw.receive(b"abc") == [Audio(b"abc")]
    assert raw.eof() == [Hangup("eof")]
    assert raw.eof() == []
    assert raw.receive(b"late") == []
    assert raw.tick(1.0) == []


def test_a_lone_return_between_pauses_is_a_flush() -> None:
    raw = RawFraming()
    raw.receive(b"abcd")
    assert raw.tick_after is None
    assert raw.receive(b"\r", idle=0.1) == []
    assert raw.tick_after == 0.1
    assert raw.tick(0.09) == []
    assert raw.tick(0.1) == [Flush()]
    assert raw.tick_after is None
    assert raw.tick(5.0) == []
    assert raw.receive(b"ef", idle=5.0) == [Audio(b"ef")]


def test_a_flush_shows_also_by_the_bytes_that_follow_late() -> None:
    raw = RawFraming()
    raw.receive(b"abcd")
    raw.receive(b"\r", idle=0.3)
    assert raw.receive(b"ef", idle=0.2) == [Flush(), Audio(b"ef")]


def test_flushes_can_follow_one_another() -> None:
    raw = RawFraming()
    raw.receive(b"abcd")
    raw.receive(b"\r", idle=0.3)
    assert raw.receive(b"\r", idle=0.3) == [Flush()]
    assert raw.tick(0.3) == [Flush()]


def test_a_return_that_is_audio() -> None:
    cases = {
        "no pause before": [(b"abcd", 0.0), (b"\r", 0.09), (b"e", 0.2)],
        "no pause after": [(b"abcd", 0.0), (b"\r", 0.2), (b"e", 0.09)],
        "in the middle of a sample": [(b"abc", 0.0), (b"\r", 0.2), (b"ef", 0.2)],
        "not alone": [(b"abcd", 0.0), (b"\r\r", 0.2), (b"ef", 0.2)],
        "a client that dribbles": [(b"a", 0.2), (b"b", 0.2), (b"\r", 0.2), (b"e", 0.2)],
    }
    for name, reads in cases.items():
        raw = RawFraming()
        frames = [frame for data, idle in reads for frame in raw.receive(data, idle)]
        assert Flush() not in frames, name
        got = b"".join(frame.payload for frame in frames if isinstance(frame, Audio))
        assert got == b"".join(data for data, _ in reads), name


def test_a_return_held_at_the_end_is_audio() -> None:
    raw = RawFraming()
    raw.receive(b"\r", idle=1.0)
    assert raw.eof() == [Audio(b"\r"), Hangup("eof")]
