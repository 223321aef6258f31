"""Every dialplan and configuration of examples/, played against the servers."""

from __future__ import annotations

import json
import re
import shutil
import xml.etree.ElementTree as ElementTree

import pytest
from tone_speech import encoded, interleaved, say

pytest.importorskip("fastapi", reason="fastapi is not installed: pip install 'aii[web]'")
pytest.importorskip("websockets", reason="websockets is not installed: pip install 'aii[web]'")

from agi_peer import EXAMPLES, UNIQUEID
from dialplan import Channel, arguments, configuration, contexts
from telephony_rig import WebRig
from websocket_peers import audio_stream

from aii.streaming.events import CallEnded, CallStarted, Final

WORDS = "yes five nine"
RUN = {
    "aii-audiosocket",
    "aii-audiosocket-wide",
    "aii-menu",
    "aii-digits",
    "aii-websocket",
    "aii-websocket-ulaw",
    "aii-both-sides",
    "aii-speech",
    "aii-speech-menu",
    "aii-vosk",
    "aii-eagi",
    "aii-eagi-wide",
    "aii-agi",
    "aii-mixmonitor",
}
PARTS = {"globals", "aii-answered", "aii-leg-caller", "aii-leg-callee"}


@pytest.fixture
def rig():
    with WebRig() as server:
        yield server


def ended(rig: WebRig, legs: int = 1) -> list[CallEnded]:
    return rig.listener.ended(legs)


def test_every_context_is_run() -> None:
    assert set(contexts(EXAMPLES / "asterisk" / "extensions.conf")) == RUN | PARTS


def test_audiosocket_goes_on_with_the_words(rig, tmp_path) -> None:
    channel = Channel(rig, WORDS, tmp_path).run("aii-audiosocket")
    assert channel.variables["end"] == "hangup"  # by the server, after what was said
    assert channel.said == [f"+49 30 1 said: {WORDS}"]
    (started,) = (e for e in rig.listener.events if isinstance(e, CallStarted))
    assert started.call_id == channel.variables["CALL"]
    assert (started.caller, started.callee) == ("+49 30 1", "100")
    assert started.details == {"channel": UNIQUEID}  # which AMI and ARI both understand
    assert ended(rig)[0].reason == "done"
    assert {request.language for request in rig.engine.requests} == {"en"}
    assert "sales, support" in str(rig.engine.requests[0].options)


def test_audiosocket_at_16_khz(rig, tmp_path) -> None:
    channel = Channel(rig, WORDS, tmp_path).run("aii-audiosocket-wide")
    assert ended(rig)[0].call_id == channel.variables["CALL"]
    assert rig.listener.text().split() == WORDS.split()


@pytest.mark.parametrize("words, keys, chosen", [("five", "", "five"), ("", "2", "nine")])
def test_a_menu(rig, tmp_path, words, keys, chosen) -> None:
    """With words that the engine of tones knows in place of the example's."""
    channel = Channel(rig, words, tmp_path, keys=keys)
    plan = channel._plan["aii-menu"]
    assert [step for step in plan if "words:sales=1|support=2|billing=3" in step]
    other = "words:five=1|nine=2"
    channel._plan["aii-menu"] = [
        step.replace("words:sales=1|support=2|billing=3", other) for step in plan
    ]
    channel.run("aii-menu")
    assert channel.variables["end"] == "hangup"
    assert channel.said == [f"+49 30 1 chose: {chosen}"]


@pytest.mark.parametrize(
    "words, keys, code", [("five nine one two", "", "5912"), ("", "4719", "4719")]
)
def test_digits(rig, tmp_path, words, keys, code) -> None:
    channel = Channel(rig, words, tmp_path, keys=keys).run("aii-digits")
    assert channel.variables["end"] == "hangup"
    assert channel.said == [f"the code is: {code}"]


def test_arguments_are_cut_as_asterisk_cuts_them() -> None:
    assert arguments("a,b,,c", 3) == ["a", "b", ",c"]
    assert arguments("Local/1@x/n,app,ChanSpy,P/1,qo,,,a", 7)[3:] == ["P/1", "qo", "", ",a"]
    assert arguments(r"a\,b,(c,d),\"e", 3) == ["a,b", "(c,d)", '"e']


@pytest.mark.parametrize("context", ["aii-websocket", "aii-websocket-ulaw"])
def test_the_websocket_channel(rig, tmp_path, context) -> None:
    Channel(rig, WORDS, tmp_path).run(context)
    assert ended(rig)[0].call_id == UNIQUEID
    assert rig.listener.text().split() == WORDS.split()
    (started,) = (e for e in rig.listener.events if isinstance(e, CallStarted))
    assert started.caller == "+49 30 1"


def test_both_sides(rig, tmp_path) -> None:
    caller = Channel(rig, "help one", tmp_path, exten="200")
    caller.callee = Channel(rig, "no two", tmp_path)
    caller.callee.variables["CHANNEL"] = "PJSIP/bob-0002"
    caller.run("aii-both-sides")
    assert {event.call_id for event in ended(rig, legs=2)} == {UNIQUEID}
    heard = {
        event.leg: event.text.split() for event in rig.listener.events if isinstance(event, Final)
    }
    assert heard == {"caller": ["help", "one"], "callee": ["no", "two"]}


def test_the_speech_api(rig, tmp_path) -> None:
    channel = Channel(rig, WORDS, tmp_path).run("aii-speech")
    assert channel.said == [f"heard: {WORDS} (90 of 100)"]
    assert {request.language for request in rig.engine.requests} == {"en"}


@pytest.mark.parametrize(
    "words, heard", [("five", "five (match,"), ("yes", " (nomatch,"), ("", " (timeout,")]
)
def test_the_speech_api_asks(rig, tmp_path, words, heard) -> None:
    """With words that the engine of tones knows in place of the example's."""
    channel = Channel(rig, words, tmp_path)
    asked = "words,timeout=8:sales=1|support=2|billing=3"
    plan = channel._plan["aii-speech-menu"]
    assert [step for step in plan if f"SPEECH_ENGINE(collect)={asked}" in step]
    other = f"words,timeout={8 if words == 'five' else 2}:five=1|nine=2"
    channel._plan["aii-speech-menu"] = [step.replace(asked, other) for step in plan]
    channel.run("aii-speech-menu")
    assert channel.said[0].startswith(f"chose: {heard}")


def test_the_speech_api_at_16_khz(rig, tmp_path) -> None:
    assert set(configuration("aeap.conf").sections()) == {"aii", "aii-wide"}
    channel = Channel(rig, WORDS, tmp_path)
    channel._speechcreate("aii-wide")
    channel._speechbackground("beep,10")
    channel._speechdestroy("")
    assert channel.variables["speech"] == WORDS


def test_the_vosk_module(rig, tmp_path) -> None:
    assert Channel(rig, WORDS, tmp_path).run("aii-vosk").said == [f"heard: {WORDS}"]


@pytest.mark.parametrize("context", ["aii-eagi", "aii-eagi-wide", "aii-agi"])
def test_agi(rig, tmp_path, context) -> None:
    assert Channel(rig, WORDS, tmp_path).run(context).said == [f"heard: {WORDS}"]
    assert ended(rig)[0].call_id == UNIQUEID


def test_mixmonitor(rig, tmp_path) -> None:
    if shutil.which("nc") is None:
        pytest.skip("the program nc is not installed")
    Channel(rig, WORDS, tmp_path).run("aii-mixmonitor")
    assert (tmp_path / f"{UNIQUEID}.txt").read_text() == WORDS + "\n"


# -- FreeSWITCH -------------------------------------------------------------------------------


def actions() -> dict[str, list[str]]:
    """The data of each extension's actions, with a call's variables put in."""
    tree = ElementTree.parse(EXAMPLES / "freeswitch" / "aii.xml")
    variables = {"${uuid}": "0f2b-1", "${caller_id_number}": "1001", "$1": "1002"}
    found: dict[str, list[str]] = {}
    for extension in tree.iter("extension"):
        data = []
        for action in extension.iter("action"):
            text = action.get("data", "")
            for name, value in variables.items():
                text = text.replace(name, value)
            data.append(text)
        found[extension.attrib["name"]] = data
    return found


@pytest.mark.parametrize("name", ["aii-mono", "aii-stereo", "aii-mixed"])
def test_freeswitch_streams(rig, name) -> None:
    (command,) = (data for data in actions()[name] if data.startswith("api_on_answer="))
    found = re.fullmatch(
        r"api_on_answer=uuid_audio_stream (\S+) start ws://127\.0\.0\.1:8000(\S+) "
        r"(mono|mixed|stereo) (8k|16k) (\{\S+\})",
        command,
    )
    assert found is not None
    uuid, path, mix, sampling, metadata = found.groups()
    assert json.loads(metadata)["uuid"] == uuid == "0f2b-1"
    rate = 1000 * int(sampling[:-1])
    audio = encoded(say(WORDS), "s16", rate)
    if mix == "stereo":
        audio = interleaved(audio, encoded(say("no"), "s16", rate))
    audio_stream(rig.ws + path, audio, metadata, rate // 25)
    assert {event.call_id for event in ended(rig, 1 + (mix == "stereo"))} == {"0f2b-1"}
    heard = {e.leg: e.text.split() for e in rig.listener.events if isinstance(e, Final)}
    expected = {"caller": WORDS.split(), "callee": ["no"]}
    assert heard == (expected if mix == "stereo" else {"": WORDS.split()})
    started = [e for e in rig.listener.events if isinstance(e, CallStarted)]
    assert {e.caller for e in started} == {"1001"}


def test_freeswitch_recording(rig, tmp_path) -> None:
    if shutil.which("nc") is None:
        pytest.skip("the program nc is not installed")
    data = actions()["aii-recording"]
    (hook,) = (text for text in data if text.startswith("api_hangup_hook=bg_system "))
    assert "/tmp/0f2b-1.wav" in data
    channel = Channel(rig, WORDS, tmp_path)
    channel._record("/tmp/0f2b-1.wav")
    channel._mixmonitor(f"/tmp/0f2b-1.wav,,{hook.partition('bg_system ')[2]}")
    channel.finish()
    assert (tmp_path / "0f2b-1.txt").read_text() == WORDS + "\n"
