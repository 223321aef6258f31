from __future__ import annotations

import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aii.audio.pcm import alaw_to_float, float_to_slin, ulaw_to_float
from aii.errors import ConfigError
from aii.protocols import (
    Audio,
    AudioSocketOptions,
    CallId,
    Dtmf,
    Format,
    Hangup,
    Notice,
    make_framing,
    wrap,
)
from aii.protocols.audiosocket import (
    AUDIO_RATES,
    KEEPALIVES,
    PAYLOADS,
    AudioSocketFraming,
    may_follow_uuid,
    message,
)

CALL = uuid.UUID("0f2b1c5e-8a53-4a4f-9a8e-0d8f6a3c2b10")
HELLO = message(0x01, CALL.bytes)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(sorted(AUDIO_RATES.values())),
    st.integers(1, 2000),
    st.lists(st.integers(0, 9000), max_size=8),
)
def test_uuid_and_audio_of_every_rate(play, heard, others, speech, rate, size, cuts) -> None:
    pcm = speech[:8001]
    packets = wrap([pcm], "audiosocket", call_id=str(CALL), frame_bytes=size, rate=rate)
    frames = play(AudioSocketFraming(), b"".join(p.data for p in packets), cuts)
    assert heard(frames) == pcm
    assert [f for f in others(frames) if not isinstance(f, Notice)] == [
        CallId(str(CALL)),
        Format(rate),
        Hangup("eof"),
    ]


def test_keys_and_a_change_of_rate_byte_by_byte(play) -> None:
    wire = HELLO + message(0x10, b"a" * 320) + message(0x03, b"5") + message(0x12, b"b" * 640)
    wire += message(0x12, b"") + message(0x03, b"#") + message(0x12, b"cc")
    for step in (None, 1, 2):
        assert play(AudioSocketFraming(), wire, step=step) == [
            CallId(str(CALL)),
            Format(8000),
            Audio(b"a" * 320),
            Dtmf("5"),
            Format(16000),
            Audio(b"b" * 640),
            Dtmf("#"),
            Audio(b"cc"),
            Hangup("eof"),
        ]


def test_hang_up_from_the_caller_ends_the_call() -> None:
    machine = AudioSocketFraming()
    frames = machine.receive(HELLO + message(0x00) + message(0x10, b"late"))
    assert frames == [CallId(str(CALL)), Hangup("hangup")]
    assert machine.receive(message(0x10, b"later")) == []
    assert machine.eof() == []


def test_we_hang_up_politely() -> None:
    machine = AudioSocketFraming()
    assert machine.send() == b""
    machine.hang_up()
    assert machine.send() == b"\0\0\0"
    assert machine.send() == b""
    assert not machine.takes_text


def test_odd_messages_are_said_and_skipped(play, heard, others) -> None:
    wire = message(0x01, b"short") + message(0x03, b"x") + message(0x03, b"55")
    wire += message(0x42, b"?") * 3 + message(0xFF, b"\x04") + message(0xFF)
    wire += message(0x12, b"ab")
    frames = play(AudioSocketFraming(), wire, step=5)
    assert heard(frames) == b"ab"
    texts = [frame.text for frame in others(frames) if isinstance(frame, Notice)]
    assert texts == [
        "AudioSocket: a UUID of 5 bytes instead of 16",
        "AudioSocket: no key of a telephone: b'x'",
        "AudioSocket: no key of a telephone: b'55'",
        "AudioSocket: messages of unknown kind 0x42 are skipped",
        "AudioSocket: the caller reports error 04",
        "AudioSocket: the caller reports error -",
    ]


@pytest.mark.parametrize("size, what", [(160, "G.711"), (640, "16 kHz SLIN")])
def test_lengths_that_may_hide_another_codec_are_said_once(play, others, size, what) -> None:
    frames = play(AudioSocketFraming(), HELLO + message(0x10, bytes(size)) * 3)
    notices = [frame.text for frame in others(frames) if isinstance(frame, Notice)]
    assert len(notices) == 1
    assert what in notices[0]


def test_audio_of_a_message_that_was_cut_off_counts(play) -> None:
    frames = play(AudioSocketFraming(), HELLO + message(0x12, b"abcdef")[:-2])
    assert frames[1:] == [Format(16000), Audio(b"abcd"), Hangup("eof")]
    for rest in (b"\x12", b"\x12\x00\x04", b"\x03\x00", HELLO[:9]):
        assert play(AudioSocketFraming(), HELLO + rest) == [CallId(str(CALL)), Hangup("eof")]


def test_holds_one_message_at_most() -> None:
    machine = AudioSocketFraming()
    for _ in range(300):
        machine.receive(b"\x12\xff\xff" + bytes(65_000))
        assert len(machine._held) < 65_538


@pytest.mark.parametrize(
    "header, fits",
    [
        (b"", True),
        (b"\x10", True),
        (b"\x10\x01", True),
        (b"\x10\x01\x40", True),
        (b"\x18\x1e\x00", True),
        (b"\x10\x00\x00", False),
        (b"\x03\x00\x01", True),
        (b"\x03\x00\x02", False),
        (b"\xff\x00\x01", True),
        (b"\xff\xff\xff", False),
        (b"\x00\x00\x00", False),
        (b"\x19", False),
    ],
)
def test_what_can_be_a_second_message(header: bytes, fits: bool) -> None:
    assert may_follow_uuid(header) is fits


@pytest.mark.parametrize("framing", ["audiosocket", "auto"])
@pytest.mark.parametrize(
    "payload, rate, size", [("ulaw", 8000, 160), ("alaw", 8000, 160), ("slin16", 16000, 640)]
)
def test_what_kind_0x10_really_carries_can_be_said(
    play, heard, others, framing, payload, rate, size
) -> None:
    sent = bytes(range(256)) * 10
    whole = len(sent) // size * size
    messages = [message(0x10, sent[i : i + size]) for i in range(0, whole, size)]
    machine = make_framing(framing, audiosocket=AudioSocketOptions(payload=payload))
    frames = play(machine, HELLO + b"".join(messages), step=7)
    as_slin = {"ulaw": ulaw_to_float, "alaw": alaw_to_float}.get(payload)
    expected = sent[:whole] if as_slin is None else float_to_slin(as_slin(sent[:whole]))
    assert heard(frames) == expected
    encoding = payload if as_slin else "s16"
    assert others(frames) == [CallId(str(CALL)), Format(rate, encoding), Hangup("eof")]


def test_the_override_is_for_kind_0x10_alone(play) -> None:
    wire = HELLO + message(0x12, b"abcd") + message(0x10, b"\xff") + message(0x12, b"ef")
    assert play(AudioSocketFraming(AudioSocketOptions(payload="ulaw")), wire) == [
        CallId(str(CALL)),
        Format(16000),
        Audio(b"abcd"),
        Format(8000, "ulaw"),
        Audio(b"\0\0"),
        Format(16000),
        Audio(b"ef"),
        Hangup("eof"),
    ]


@pytest.mark.parametrize("kind", sorted(AUDIO_RATES))
def test_silence_keeps_a_quiet_call_alive(kind: int) -> None:
    machine = AudioSocketFraming(AudioSocketOptions(keepalive=1.0))
    assert machine.tick_after is None
    machine.receive(HELLO, 0.0)
    assert machine.tick_after == 1.0
    machine.receive(message(kind, b"ab"), 0.02)
    silence = message(kind, bytes(AUDIO_RATES[kind] // 50 * 2))
    assert machine.tick_after == 1.0
    assert (machine.tick(0.9), machine.send()) == ([], b"")
    assert (machine.tick(1.01), machine.send()) == ([], silence)
    assert machine.tick_after == 2.0
    assert (machine.tick(1.5), machine.send()) == ([], b"")
    assert (machine.tick(4.2), machine.send()) == ([], silence)  # a late tick does not catch up
    assert machine.tick_after == 5.0
    machine.receive(message(kind, b"cd"), 4.3)
    assert machine.tick_after == 1.0
    machine.eof()
    assert machine.tick(9.0) == []
    assert machine.send() == b""


def test_a_call_whose_caller_sends_nothing_at_all_is_kept_alive() -> None:
    """A muted telephone may send no packet, and Asterisk cuts off such a call after 2 s."""
    machine = AudioSocketFraming(AudioSocketOptions(keepalive=1.0))
    machine.receive(HELLO + message(0x03, b"4"), 0.0)
    assert (machine.tick(1.01), machine.send()) == ([], message(0x10, bytes(320)))


def test_keep_alive_ends_with_a_client_that_is_gone() -> None:
    machine = AudioSocketFraming(AudioSocketOptions(payload="alaw", keepalive=2.0))
    machine.receive(HELLO + message(0x10, b"ab"))
    sent = 0
    while (due := machine.tick_after) is not None:
        machine.tick(due)
        assert machine.send() == message(0x10, b"\xd5" * 160)
        sent += 1
    assert sent == KEEPALIVES
    assert AudioSocketFraming().tick_after is None  # off unless it is asked for


@pytest.mark.parametrize("options", [{"payload": "opus"}, {"keepalive": -1.0}])
def test_options_that_make_no_sense(options) -> None:
    with pytest.raises(ConfigError):
        AudioSocketOptions(**options)


def test_the_configuration_knows_the_payloads() -> None:
    from aii.config import ServerConfig
    from aii.config.telephony import AUDIOSOCKET_PAYLOADS

    assert AUDIOSOCKET_PAYLOADS == PAYLOADS
    flags = {"audiosocket_payload": "alaw", "audiosocket_keepalive": "1.5"}
    config = ServerConfig.load(flags, {"AII_AUDIOSOCKET_PORT": "9092"})
    assert (config.audiosocket_port, config.audiosocket_payload) == (9092, "alaw")
    assert ServerConfig().audiosocket_port is None
    with pytest.raises(ConfigError, match="--audiosocket-payload is 'opus'"):
        ServerConfig.load({"audiosocket_payload": "opus"}, {})
