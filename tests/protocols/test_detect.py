from __future__ import annotations

import uuid
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aii.protocols import Audio, AutoFraming, CallId, Flush, Format, Hangup, Notice, wrap
from aii.protocols.audiosocket import message
from aii.protocols.callid import LF
from aii.protocols.detect import Kind, sniff
from aii.protocols.wrap import wav_header

CALL = str(uuid.UUID("0f2b1c5e-8a53-4a4f-9a8e-0d8f6a3c2b10"))


def wired(framing: str, pcm: bytes, call_id: str | None = None) -> bytes:
    return b"".join(packet.data for packet in wrap([pcm], framing, call_id=call_id))


def seven(pcm: bytes) -> dict[str, tuple[bytes, list]]:
    """Every way to send ``pcm``: its bytes on the wire, and the frames besides audio."""
    end = Hangup("eof")
    named = [CallId("call-1"), end]
    return {
        "slin": (pcm, [end]),
        "callid": (b"call-1\r" + pcm, named),
        "callid with line feed": (b"call-1\r\n" + pcm, named),
        "callid padded": (b"call-1".ljust(40, b"\0") + pcm, named),
        "cr641": (wired("cr641", pcm), [end]),
        "callid, cr641": (wired("cr641", pcm, "call-1"), named),
        "callid with line feed, cr641": (b"call-1\r\n" + wired("cr641", pcm), named),
        "audiosocket": (
            wired("audiosocket", pcm, CALL),
            [CallId(CALL), Format(16000), end],
        ),
        "wav": (wired("wav", pcm), [Format(16000), end]),
    }


WAYS = list(seven(b""))


@pytest.fixture(scope="module")
def call(speech: bytes) -> bytes:
    """Audio that begins as calls do: not with a byte that could be a line feed or an id."""
    start = next(i for i in range(16_000, len(speech), 2) if speech[i] not in (LF, 0, 13))
    return speech[start : start + 12_000]


@pytest.mark.parametrize("step", [None, 1, 3, 640, 641, 5000])
@pytest.mark.parametrize("way", WAYS)
def test_finds_every_framing_and_loses_nothing(play, heard, others, call, way, step) -> None:
    wire, besides = seven(call)[way]
    frames = play(AutoFraming(), wire, step=step)
    assert heard(frames) == call
    assert others(frames) == besides


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(WAYS), st.integers(1300, 6000), st.lists(st.integers(0, 13_000), max_size=12)
)
def test_in_random_pieces(play, heard, others, call, way, samples, cuts) -> None:
    wire, besides = seven(call[: 2 * samples])[way]
    frames = play(AutoFraming(), wire, cuts)
    assert heard(frames) == call[: 2 * samples]
    assert others(frames) == besides


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=3000), st.lists(st.integers(0, 3000), max_size=6))
def test_bytes_that_are_nothing_known_come_out_as_they_are(play, heard, data, cuts) -> None:
    if sniff(data, final=True) is Kind.AUDIO:
        frames = play(AutoFraming(), data, cuts)
        assert heard(frames) == data
        assert frames[-1] == Hangup("eof")


@pytest.mark.parametrize("way", WAYS)
def test_cut_off_early_by_the_end(play, heard, call, way) -> None:
    wire, _ = seven(call)[way]
    for size in range(60):
        frames = play(AutoFraming(), wire[:size], step=1)
        assert frames[-1] == Hangup("eof")
        notices = [frame for frame in frames if isinstance(frame, Notice)]
        assert len(notices) == (way == "wav" and 12 <= size < 44)
        if way == "slin" or way == "cr641":
            assert heard(frames) == call[:size]
    kept = -1 if "cr641" in way else -2
    assert heard(play(AutoFraming(), wire[:-2], step=100)) == call[:kept]


def test_a_browser_is_sent_to_the_web_port() -> None:
    machine = AutoFraming(web_port=8000)
    assert machine.receive(b"GE") == []
    frames = machine.receive(b"T / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert frames[-1] == Hangup("refused")
    assert b"port 8000" in machine.send()
    assert machine.name == "http"
    assert not machine.takes_text
    assert machine.receive(b"more") == []


def test_decides_for_audio_when_nothing_more_comes() -> None:
    machine = AutoFraming()
    assert machine.tick_after is None
    assert machine.tick(9.0) == []
    assert machine.receive(b"\0\1\2\3", idle=9.0) == []
    assert machine.tick_after == 0.2
    assert machine.tick(0.2) == []
    assert machine.tick_after == 2.0
    assert machine.receive(b"\4\5", idle=1.5) == []
    assert machine.tick_after == 0.2
    assert machine.tick(1.9) == []
    assert machine.tick(2.0) == [Audio(b"\0\1\2\3"), Audio(b"\4\5")]
    assert machine.name == "raw"
    assert machine.takes_text
    assert machine.tick_after is None


def test_an_audiosocket_that_says_only_its_uuid() -> None:
    hello = message(0x01, uuid.UUID(CALL).bytes)
    machine = AutoFraming()
    assert machine.receive(hello) == []
    assert machine.name == "auto"
    assert not machine.takes_text
    machine.hang_up()
    assert machine.send() == b""
    assert machine.tick(0.2) == [CallId(CALL)]
    assert machine.name == "audiosocket"
    assert not machine.takes_text
    machine.hang_up()
    assert machine.send() == b"\0\0\0"


def test_half_an_id_is_waited_for_longer() -> None:
    machine = AutoFraming()
    machine.receive(b"call-")
    assert machine.tick(0.3) == []
    assert machine.tick_after == 2.0
    assert machine.receive(b"17\r", idle=1.0) == [CallId("call-17")]
    assert machine.name == "callid"

    machine = AutoFraming()
    machine.receive(b"call-")
    notice, audio = machine.tick(2.0)
    assert audio == Audio(b"call-")
    assert notice == Notice(
        "began like a call id or another preamble and stalled; it is taken for audio: b'call-'"
    )


def test_audio_that_pauses_at_once_is_no_stalled_preamble() -> None:
    machine = AutoFraming()
    machine.receive(bytes(320))
    assert machine.tick(2.0) == [Audio(bytes(320))]
    machine = AutoFraming()
    machine.receive(b"call-")
    assert machine.eof() == [Audio(b"call-"), Hangup("eof")]  # ended, not stalled


def test_half_of_641_byte_frames_is_waited_for_longer(speech) -> None:
    frame = speech[:640] + b"\r"
    machine = AutoFraming()
    assert machine.receive(frame) == []
    assert machine.tick(0.5) == []
    assert machine.receive(frame, idle=0.5) == []
    frames = machine.receive(frame * 2, idle=0.5)
    assert b"".join(f.payload for f in frames if isinstance(f, Audio)) == speech[:640] * 4
    assert machine.name == "cr641"

    machine = AutoFraming()
    machine.receive(frame)
    notice, audio = machine.tick(2.0)
    assert audio == Audio(frame)
    assert "began like 641-byte frames and stalled" in notice.text


def test_audio_may_come_long_after_the_id(call) -> None:
    machine = AutoFraming()
    assert machine.receive(b"call-1\r") == [CallId("call-1")]
    assert machine.tick(30.0) == []
    assert machine.tick_after is None
    wire = wired("cr641", call)
    assert machine.receive(wire[:5], idle=30.0) == []
    assert machine.receive(wire[5:], idle=0.02)
    assert machine.name == "callid+cr641"


def test_a_flush_typed_before_anything_else() -> None:
    machine = AutoFraming()
    assert machine.receive(b"\r", idle=0.5) == []
    assert machine.tick(2.0) == [Flush()]


def test_quiet_audio_is_no_audiosocket(play, heard) -> None:
    quiet = b"\x01\x00\x10" + bytes(1000)
    assert sniff(quiet, final=False) is Kind.AUDIO
    assert heard(play(AutoFraming(), quiet, step=1)) == quiet


@pytest.mark.parametrize(
    "data, kind",
    [
        (b"", None),
        (b"\x01", None),
        (b"\x01\x00\x10", None),
        (b"G", None),
        (b"GET /", Kind.HTTP),
        (b"GETS\r", Kind.CALL_ID),
        (b"RIFF", None),
        (b"RIFF\0\0\0\0WAV", None),
        (b"RIFF\0\0\0\0WAVE", Kind.WAV),
        (b"RIFF\0\0\0\0AVI ", Kind.AUDIO),
        (b"RIFF-7\r" + bytes(5), Kind.CALL_ID),
        (b"ab\r", Kind.AUDIO),
        (b"abc\r", Kind.CALL_ID),
        (b"abc\0", None),
        (b"\0", Kind.AUDIO),
        (b"\r", Kind.AUDIO),
    ],
)
def test_first_bytes(data: bytes, kind: Kind | None) -> None:
    assert sniff(data, final=False) is kind


def test_speech_is_not_taken_for_anything_else(speech) -> None:
    """Every 7th sample as the start of a call; at a loud place an id can occur, hardly ever."""
    starts = range(0, len(speech) - 200, 14)
    taken = [start for start in starts if sniff(speech[start : start + 150], True) != Kind.AUDIO]
    assert len(taken) <= max(1, len(starts) // 3000)
    assert 0 not in taken


def test_returns_at_frame_ends_of_speech_are_no_framing(speech) -> None:
    returns = np.frombuffer(speech, np.uint8) == 13
    size = len(returns) - 641 * 3
    four = np.logical_and.reduce([returns[641 * k : 641 * k + size] for k in range(4)])
    assert returns.sum() > 100
    assert four.sum() == 0


def test_recordings_of_digits_are_audio(shared_data: Path) -> None:
    import tarfile

    with tarfile.open(shared_data / "fsdd_5speakers.tar.gz") as archive:
        names = [m for m in archive if m.name.endswith(".wav")][::50]
        recordings = [archive.extractfile(m).read() for m in names]  # type: ignore[union-attr]
    assert len(recordings) >= 40
    for wav in recordings:
        assert sniff(wav[:150], final=True) is Kind.WAV
        assert sniff(wav[44:200], final=True) is Kind.AUDIO


@pytest.mark.parametrize("step", [None, 1, 7])
@pytest.mark.parametrize("end", [b"\r", b"\r\n"])
def test_a_wav_file_after_a_call_id(play, heard, others, speech, end, step) -> None:
    pcm = speech[:5_000]
    machine = AutoFraming()
    frames = play(machine, b"call-42" + end + wav_header(8_000) + pcm, step=step)
    assert heard(frames) == pcm
    assert others(frames) == [CallId("call-42"), Format(8_000), Hangup("eof")]
    assert machine.name == "callid+wav"
    assert machine.takes_text


def test_audio_that_begins_like_a_wav_file_after_a_call_id(play, heard) -> None:
    for pcm in (b"RIFF", b"RIFFabcdWAV", b"RIFF" + bytes(800)):
        machine = AutoFraming()
        assert heard(play(machine, b"call-42\r" + pcm, step=1)) == pcm
        assert machine.name == "callid"
    machine = AutoFraming()
    machine.receive(b"call-42\rRIFF")
    assert machine.tick(0.5) == []
    assert Audio(b"RIFF") in machine.tick(2.0)
