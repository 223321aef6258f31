from __future__ import annotations

import json

import pytest

from aii.protocols import (
    AsteriskMediaProtocol,
    CallId,
    Dtmf,
    Format,
    Hangup,
    Metadata,
    Notice,
)
from aii.protocols.asterisk_media import QUIET, control
from aii.protocols.codecs import CODECS
from aii.streaming.events import CallEnded, CallStarted, Final

CHANNEL = "WebSocket/aii/0x7f36a4008be0"


def start(form: str, codec: str = "slin16", **values: object) -> str:
    """What Asterisk 22 sends first."""
    said = {
        "connection_id": "aii",
        "channel": CHANNEL,
        "channel_id": "1753812345.17",
        "format": codec,
        "optimal_frame_size": 640,
        "ptime": 20,
    }
    return control("MEDIA_START", form=form, **said, **values)


ABOUT = {"channel": CHANNEL}


@pytest.mark.parametrize("form", ["plain-text", "json"])
@pytest.mark.parametrize("step", [0, 1, 641])
@pytest.mark.parametrize("codec", CODECS)
def test_a_call(converse, heard, others, form, codec, step) -> None:
    sent = bytes(range(256)) * 8
    messages = [start(form, codec), sent, control("DTMF_END", form=form, digit="5"), sent]
    frames = converse(AsteriskMediaProtocol(), *messages, step=step)
    assert heard(frames) == CODECS[codec].to_slin(sent * 2)
    assert others(frames) == [
        Metadata(ABOUT),
        CallId("1753812345.17"),
        Format(CODECS[codec].rate, CODECS[codec].encoding),
        Dtmf("5"),
        Hangup("eof"),
    ]


def test_uri_parameters_say_more_than_the_event(converse, others) -> None:
    uri = {
        "call_id": "x-1",
        "from": "+49 30 1",
        "language": "de",
        "token": "t",
        "channel": "PJSIP/a",
    }
    frames = converse(AsteriskMediaProtocol(uri), start("plain-text"), b"ab")
    metadata, call_id, *_ = others(frames)
    assert call_id == CallId("x-1")
    said = metadata.values
    assert (said["caller"], said["language"], said["channel"]) == ("+49 30 1", "de", "PJSIP/a")
    assert "token" not in said


def test_channel_variables_come_last(converse, others) -> None:
    variables = {"language": "fr", "CALLERID": "100", "channel": "no"}
    message = start("json", channel_variables=variables)
    frames = converse(AsteriskMediaProtocol({"language": "de"}), message)
    said = others(frames)[0].values
    assert (said["language"], said["caller"], said["channel"]) == ("de", "100", CHANNEL)


@pytest.mark.parametrize("form", ["plain-text", "json"])
def test_a_codec_that_is_not_understood(form) -> None:
    machine = AsteriskMediaProtocol()
    notice, hangup = machine.receive(start(form, "opus"))
    assert hangup == Hangup("refused")
    assert "dial with c() of slin" in notice.text
    assert machine.send() == ['{"command":"HANGUP"}' if form == "json" else "HANGUP"]
    assert machine.receive(b"late") == machine.eof() == []


@pytest.mark.parametrize("form", ["plain-text", "json"])
@pytest.mark.parametrize("name", QUIET)
def test_events_about_our_audio_mean_nothing_to_us(form, name) -> None:
    machine = AsteriskMediaProtocol()
    machine.receive(start(form))
    assert machine.receive(control(name, form=form, channel_id="1", queue_length=3)) == []


def test_odd_messages_are_said_once(converse, others) -> None:
    odd = ["", "{", "[1]", '{"event":7}', '{"event":"NEW"}', "DTMF_END digit:x", "DTMF_END"]
    odd += ["ERROR channel_id:1 error_text:no", '{"event":"ERROR","error_text":"no, no"}']
    frames = converse(AsteriskMediaProtocol(), start("json"), *odd, *odd, start("json"))
    notices = [frame.text for frame in others(frames) if isinstance(frame, Notice)]
    assert notices == [
        "asterisk-media: a control message that is none: ''",
        "asterisk-media: a control message that is none: '{'",
        "asterisk-media: events '[1]' are not known",
        "asterisk-media: a control message that is none: '{\"event\":7}'",
        "asterisk-media: events 'NEW' are not known",
        "asterisk-media: no key of a telephone: 'X'",
        "asterisk-media: no key of a telephone: ''",
        "asterisk-media: Asterisk reports: no",
        "asterisk-media: Asterisk reports: no, no",
        "asterisk-media: a second MEDIA_START is ignored",
    ]


@pytest.mark.parametrize(
    "uri, rate", [({}, 16000), ({"codec": "ulaw"}, 8000), ({"codec": "x"}, 16000)]
)
def test_audio_without_a_start_is_still_heard(converse, uri, rate) -> None:
    machine = AsteriskMediaProtocol({**uri, "call_id": "c"})
    notice, call_id, wire, audio, end = converse(machine, b"\xff" * 4)
    assert "before MEDIA_START" in notice.text
    assert (call_id, wire.rate, end) == (CallId("c"), rate, Hangup("eof"))
    assert len(audio.payload) == (8 if rate == 8000 else 4)


@pytest.mark.parametrize("form", ["plain-text", "json"])
def test_when_we_end_the_call_the_dialplan_goes_on(form) -> None:
    machine = AsteriskMediaProtocol()
    machine.receive(start(form))
    assert machine.event(CallStarted(caller="x")) == []
    assert machine.event(Final(reason="hangup")) == []  # no transcripts: 128 bytes is the limit
    (text,) = machine.event(CallEnded(reason="done"))
    assert text in ("HANGUP", '{"command":"HANGUP"}')
    assert (text[0] == "{") is (form == "json")
    assert len(text) <= 128


def test_control_forms() -> None:
    assert control("DTMF_END", digit=5, channel_id="1.2") == "DTMF_END digit:5 channel_id:1.2"
    assert json.loads(control("DTMF_END", form="json", digit="5")) == {
        "event": "DTMF_END",
        "digit": "5",
    }
    assert control("MEDIA_XON") == "MEDIA_XON"


def test_nothing_follows_the_end() -> None:
    machine = AsteriskMediaProtocol()
    assert machine.receive(b"") == []
    assert machine.eof() == [Hangup("eof")]
    assert machine.eof() == machine.receive(start("json")) == machine.receive(b"ab") == []
