"""Asterisk, Vosk and FreeSWITCH over real WebSockets, each by its own rules; the registry."""

from __future__ import annotations

import json
import threading
import time

import pytest
from server_rig import WAIT
from tone_speech import encoded, interleaved, say, starts

pytest.importorskip("fastapi", reason="fastapi is not installed: pip install 'aii[web]'")
pytest.importorskip("websockets", reason="websockets is not installed: pip install 'aii[web]'")

from telephony_rig import WebRig
from websocket_peers import (
    MediaChannel,
    SpeechObject,
    audio_stream,
    frames,
    opened,
    vosk_client,
    vosk_module,
)

from aii.protocols.codecs import CODECS
from aii.streaming.events import CallEnded, CallStarted, Dtmf, Final

SPOKEN = "one five yes nine"


@pytest.fixture(scope="module")
def rig():
    with WebRig() as server:
        yield server


def spoken(codec: str = "slin16", words: str = SPOKEN) -> bytes:
    return encoded(say(words), CODECS[codec].encoding, CODECS[codec].rate)


def events(rig: WebRig, kind: type, call_id: str) -> list:
    return [e for e in list(rig.listener.events) if isinstance(e, kind) and e.call_id == call_id]


def wait_for_end(rig: WebRig, call_id: str, legs: int = 1) -> CallEnded:
    rig.listener.wait(lambda _: len(events(rig, CallEnded, call_id)) >= legs)
    return events(rig, CallEnded, call_id)[-1]


@pytest.mark.parametrize("form", ["plain-text", "json"])
@pytest.mark.parametrize("codec", ["slin", "slin16", "ulaw", "alaw"])
def test_a_media_channel(rig, codec, form) -> None:
    call_id = f"{codec}-{form}"
    channel = MediaChannel(
        rig.ws + "/media", codec, form, call_id=call_id, caller="+49 30 1", callee="100", queue="a"
    )
    channel.play(spoken(codec))
    channel.key("5")
    channel.hang_up()
    assert wait_for_end(rig, call_id).reason == "eof"
    assert rig.listener.text(call_id).split() == SPOKEN.split()
    (started,) = events(rig, CallStarted, call_id)
    assert (started.caller, started.callee) == ("+49 30 1", "100")
    assert started.details["queue"] == "a"
    assert [e.digit for e in events(rig, Dtmf, call_id)] == ["5"]
    words = [w for e in events(rig, Final, call_id) for w in e.words]
    assert [w.start for w in words] == pytest.approx(starts(4), abs=0.021)
    assert channel.commands == []


@pytest.mark.parametrize("form", ["plain-text", "json"])
def test_we_end_a_media_channel_once_it_was_heard(rig, form) -> None:
    channel = MediaChannel(rig.ws + "/media", "ulaw", form, vad="true", end_on="final")
    channel.play(spoken("ulaw") + CODECS["ulaw"].silence(1_500))
    channel.wait()
    assert channel.commands == ["HANGUP"]
    assert channel.close_code == 1000
    assert wait_for_end(rig, channel.channel_id).reason == "done"
    assert rig.listener.text(channel.channel_id).split() == SPOKEN.split()


def test_a_codec_that_is_not_understood_ends_the_channel(rig, monkeypatch) -> None:
    monkeypatch.setitem(CODECS, "opus", CODECS["slin16"])  # for the peer
    from aii.protocols import asterisk_media

    known = {name: codec for name, codec in CODECS.items() if name != "opus"}
    monkeypatch.setattr(asterisk_media, "CODECS", known)
    channel = MediaChannel(rig.ws + "/media", "opus")
    channel.wait()
    assert channel.commands == ["HANGUP"]


def test_two_channels_with_one_id_are_the_legs_of_a_call(rig) -> None:
    channels = {
        leg: MediaChannel(rig.ws + "/media", call_id="both", leg=leg, caller="1", callee="2")
        for leg in ("caller", "callee")
    }
    channels["caller"].play(spoken(words="help one"))
    channels["callee"].play(spoken(words="yes nine"))
    for channel in channels.values():
        channel.hang_up()
    wait_for_end(rig, "both", legs=2)
    for leg, words in (("caller", "help one"), ("callee", "yes nine")):
        finals = [e for e in events(rig, Final, "both") if e.leg == leg]
        assert "".join(e.text for e in finals).split() == words.split()
    assert {e.leg for e in events(rig, CallStarted, "both")} == {"caller", "callee"}


@pytest.mark.parametrize("codec", ["ulaw", "alaw", "slin"])
def test_speech_text_just_works(rig, codec) -> None:
    """Nothing is configured but the engine's address: the text comes when the caller pauses."""
    speech = SpeechObject(rig.ws + "/aeap", codec, language="en")
    assert speech.background(spoken(codec)) == SPOKEN
    assert speech.texts == [(SPOKEN, 90)]
    speech.key("7")
    assert speech.get("language")["params"] == {"language": "en"}
    assert speech.background(spoken(codec, "no stop")) == "no stop"
    speech.destroy()
    assert [e.digit for e in rig.listener.events if isinstance(e, Dtmf)][-1] == "7"


def test_a_speech_object_at_16_khz(rig) -> None:
    speech = SpeechObject(rig.ws + "/aeap?rate=16000", "slin16")
    assert speech.background(spoken("slin16")) == SPOKEN
    speech.destroy()


@pytest.mark.parametrize("path", ["/", "/vosk"])
@pytest.mark.parametrize("rate", [8_000, 16_000])
def test_a_vosk_client(rig, path, rate) -> None:
    answers = vosk_client(rig.ws + path, encoded(say(SPOKEN), "s16", rate), rate)
    text = " ".join(answer["text"] for answer in answers if answer.get("text"))
    assert text == SPOKEN
    words = [word for answer in answers for word in answer.get("result", ())]
    assert [word["word"] for word in words] == SPOKEN.split()
    assert [word["start"] for word in words] == pytest.approx(starts(4), abs=0.021)
    assert all(set(answer) in ({"partial"}, {"text"}, {"result", "text"}) for answer in answers)


def test_a_vosk_client_sees_the_text_grow(rig) -> None:
    """Long before the server's own window of 5 s."""
    audio = encoded(say("one five yes nine one five"), "s16", 8_000)[: 8_000 * 2 * 2]
    with opened(rig.ws + "/vosk") as socket:
        for piece in frames(audio, 3_200):
            socket.send(piece)
            answer = json.loads(socket.recv(timeout=WAIT))
        until = time.monotonic() + WAIT
        while not answer.get("partial"):
            assert time.monotonic() < until, "no partial text came"
            time.sleep(0.01)
            socket.send(bytes(2))
            answer = json.loads(socket.recv(timeout=WAIT))
        assert answer["partial"].split()[0] == "one"


def test_the_vosk_module_of_asterisk(rig) -> None:
    assert vosk_module(rig.ws + "/vosk", spoken("slin")) == SPOKEN


@pytest.mark.parametrize("mix", ["mono", "mixed", "stereo"])
@pytest.mark.parametrize("rate", [8_000, 16_000])
def test_a_freeswitch_stream(rig, mix, rate) -> None:
    call_id = f"fs-{mix}-{rate}"
    audio = encoded(say(SPOKEN), "s16", rate)
    if mix == "stereo":
        audio = interleaved(audio, encoded(say("no"), "s16", rate))
    metadata = json.dumps({"uuid": call_id, "from": "1001", "channels": mix})
    audio_stream(rig.ws + "/audio-stream", audio, metadata, rate // 25, rate=str(rate))
    wait_for_end(rig, call_id, legs=1 + (mix == "stereo"))
    expected = {"caller": SPOKEN, "callee": "no"} if mix == "stereo" else {"": SPOKEN}
    for leg, words in expected.items():
        finals = [e for e in events(rig, Final, call_id) if e.leg == leg]
        assert "".join(e.text for e in finals).split() == words.split()
    assert {e.caller for e in events(rig, CallStarted, call_id)} == {"1001"}


def test_transcripts_become_freeswitch_events(rig) -> None:
    got: list[dict] = []
    with opened(rig.ws + "/audio-stream", "audio.drachtio.org", {"rate": "16000"}) as socket:
        socket.send('{"uuid":"fs-events","vad":"true"}')
        socket.send(spoken() + bytes(48_000))
        while not any(event["type"] == "final" for event in got):
            got.append(json.loads(socket.recv(timeout=WAIT)))
    kinds = [event["type"] for event in got]
    assert kinds[0] == "started"
    assert got[-1]["text"].split() == SPOKEN.split()
    assert {event["call_id"] for event in got} == {"fs-events"}


@pytest.mark.parametrize("as_form", [True, False])
def test_a_dialplan_says_ahead_what_it_knows(rig, as_form) -> None:
    call_id = f"ahead-{as_form}"
    if as_form:  # as Asterisk's CURL sends it
        body = (
            b"caller=%2B49+30+1&callee=100&language=en&prompt=yes%2C+no&channel=PJSIP%2Fa&n=1&n=2"
        )
        kind = "application/x-www-form-urlencoded"
    else:
        said = {"caller": "+49 30 1", "to": 100, "language": "en", "prompt": ["yes", "no"]}
        body = json.dumps({**said, "channel": "PJSIP/a", "n": [1, 2]}).encode()
        kind = "application/json"
    status, answer = rig.request("POST", f"/calls/{call_id}", body, **{"Content-Type": kind})
    assert status == 201
    assert answer == {
        "call_id": call_id,
        "caller": "+49 30 1",
        "callee": "100",
        "settings": {"language": "en", "prompt": "yes, no"},
        "sinks": 0,
        "end_on": [],
        "details": {"channel": "PJSIP/a", "n": "1, 2"},
    }
    channel = MediaChannel(rig.ws + "/media", call_id=call_id, caller="anonymous")
    channel.play(spoken())
    channel.hang_up()
    wait_for_end(rig, call_id)
    (started,) = events(rig, CallStarted, call_id)
    assert (started.caller, started.callee) == ("+49 30 1", "100")
    assert started.details["channel"] == "PJSIP/a"
    assert {e.language for e in events(rig, Final, call_id)} == {"en"}
    asked = [r for r in rig.engine.requests if r.call_id == call_id]
    assert {request.language for request in asked} == {"en"}
    assert any("yes, no" in str(r.options.get("initial_prompt")) for r in asked)


def test_what_cannot_be_registered(rig) -> None:
    for path, body in (
        ("/calls/a%20b", b""),
        ("/calls/c", b"{broken"),
        ("/calls/c", b"[" * 10),
        ("/calls/c", b'{"note":{"a":1}}'),
        ("/calls/c", b"expires=never"),
        ("/calls/c", b"x" * 20_000),
        ("/calls/c", b"\xff\xfe{"),
        ("/calls/c", b"&".join(b"n%d=1" % n for n in range(200))),
    ):
        status, answer = rig.request("POST", path, body)
        if body == b"[" * 10:  # a form without a field is nothing to say
            assert status == 201
            continue
        assert (status, answer["error"]["type"]) == (400, "invalid_request_error"), path
        assert "\n" not in answer["error"]["message"]
    rig.registry.remove("c")


def test_sinks_that_calls_may_not_bring_are_refused_at_once(rig) -> None:
    status, answer = rig.request("POST", "/calls/sunk", b"sinks=jsonl:elsewhere/")
    assert status == 400
    assert answer["error"]["message"].endswith("is not one that calls may bring; see --allow-sink")
    assert rig.registry.get("sunk") is None
    assert rig.request("POST", "/calls/sunk", b"sinks=jsonl:calls/")[0] == 201
    rig.registry.remove("sunk")


def test_a_plan_can_be_forgotten(rig) -> None:
    assert rig.request("POST", "/calls/gone?language=de&token=secret")[0] == 201
    plan = rig.registry.get("gone")
    assert dict(plan.wishes) == {"language": "de"}
    assert dict(plan.details) == {}
    assert rig.request("DELETE", "/calls/gone") == (204, None)
    assert rig.request("DELETE", "/calls/gone")[0] == 404
    assert rig.request("DELETE", "/calls/a%20b")[0] == 400


def test_a_full_registry(rig, monkeypatch) -> None:
    monkeypatch.setattr(rig.registry, "_most", len(rig.registry))
    status, answer = rig.request("POST", "/calls/one-too-many", b"caller=1")
    assert (status, answer["error"]["type"]) == (503, "server_error")


def test_many_systems_at_once(rig) -> None:
    """Ten of each kind; every call has its own words."""
    failed: list[BaseException] = []

    def media(number: int) -> None:
        words = f"{SPOKEN.split()[number % 4]} stop"
        channel = MediaChannel(rig.ws + "/media", "ulaw", call_id=f"many-{number}")
        channel.play(spoken("ulaw", words))
        channel.hang_up()
        wait_for_end(rig, f"many-{number}")
        assert rig.listener.text(f"many-{number}").split() == words.split()

    def vosk(number: int) -> None:
        words = f"{SPOKEN.split()[number % 4]} help"
        answers = vosk_client(rig.ws + "/", encoded(say(words), "s16", 8_000), 8_000)
        assert " ".join(a["text"] for a in answers if a.get("text")) == words

    def stream(number: int) -> None:
        audio_stream(rig.ws + "/audio-stream", spoken("slin"), f"stream-{number}", 320)
        wait_for_end(rig, f"stream-{number}")
        assert rig.listener.text(f"stream-{number}").split() == SPOKEN.split()

    def run(work, number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            failed.append(error)

    threads = [
        threading.Thread(target=run, args=(work, number))
        for work in (media, vosk, stream)
        for number in range(10)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    assert failed == []


def test_hostile_messages_beside_a_call(rig) -> None:
    import random

    chance = random.Random(3)
    channel = MediaChannel(rig.ws + "/media", call_id="beside")
    audio = spoken()
    for number, place in enumerate(range(0, len(audio), 6_400)):
        channel.play(audio[place : place + 6_400])
        path = ("/media", "/aeap", "/vosk", "/audio-stream")[number % 4]
        with opened(rig.ws + path) as hostile:
            for _ in range(5):
                hostile.send(chance.randbytes(chance.randint(1, 3_000)))
                hostile.send(chance.randbytes(chance.randint(1, 300)).decode("latin-1"))
    channel.hang_up()
    wait_for_end(rig, "beside")
    assert rig.listener.text("beside").split() == SPOKEN.split()
