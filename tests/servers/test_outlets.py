"""Sinks, recordings and questions through the real TCP server."""

from __future__ import annotations

import io
import json
import uuid
import wave

import numpy as np
import pytest
from fake_engine import slin, speech, spoken
from server_rig import Rig, wait_until
from sink_peers import Receiver

from aii.errors import ConfigError
from aii.grammar import Grammar
from aii.question import Question
from aii.servers.registry import CallRegistry
from aii.sinks.build import Maker, build_outlets, parse_sinks
from aii.sinks.outlets import Outlets
from aii.sinks.spec import SinkSpec
from aii.streaming.events import Answer


def outlets_of(tmp_path, *texts: str, rules: tuple[str, ...] = ()) -> Outlets:
    maker = Maker(io.StringIO(), tmp_path / "spool", {})
    specs = parse_sinks(texts or ("none",), None, redact=False)
    return build_outlets(specs, [SinkSpec.parse(r, whole=False) for r in rules], maker)


class Served(Rig):
    """A rig with outlets besides its listener."""

    def __init__(self, outlets: Outlets, **options) -> None:
        super().__init__(outlets=outlets, **options)
        self.outlets = outlets

        def emit(event, listen=self.listener.emit) -> None:
            outlets.emit(event)
            listen(event)

        self.listener.emit = emit  # type: ignore[method-assign]

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        assert self.outlets.close(30)


def audiosocket(identity: uuid.UUID, samples: np.ndarray, keys: str = "") -> bytes:
    """What Asterisk sends: the UUID, keys, then 16 kHz audio in frames of 20 ms."""
    data = b"\x01\x00\x10" + identity.bytes
    data += b"".join(b"\x03\x00\x01" + key.encode() for key in keys)
    audio = slin(samples)
    for start in range(0, len(audio), 640):
        piece = audio[start : start + 640]
        data += b"\x12" + len(piece).to_bytes(2, "big") + piece
    return data


def test_transcript_and_recording_of_a_call_lie_beside_each_other(tmp_path):
    folder = tmp_path / "calls"
    samples = speech(7, seed=3)
    with Served(outlets_of(tmp_path, f"jsonl:{folder}/", f"wav:{folder}")) as rig:
        for name in ("one", "two"):
            rig.call(f"{name}\r".encode(), slin(samples))
        rig.listener.ended(2)
    for name in ("one", "two"):
        events = [json.loads(x) for x in (folder / f"{name}.jsonl").read_text().splitlines()]
        text = "".join(event["text"] for event in events if event["type"] == "final")
        assert text == spoken(samples)
        assert events[-1]["type"] == "ended"
        with wave.open(str(folder / f"{name}.wav")) as file:
            assert file.readframes(file.getnframes()) == slin(samples)


def test_a_redacted_call_is_not_recorded(tmp_path):
    with Served(outlets_of(tmp_path, f"wav:{tmp_path}/wav"), settings={"redact": 5}) as rig:
        rig.call(b"call-a\r", slin(speech(2)))
        rig.listener.ended()
    assert list((tmp_path / "wav").iterdir()) == []


def test_a_call_brings_its_own_webhook(tmp_path):
    registry = CallRegistry()
    with Receiver() as receiver:
        registry.put("mine", {"sinks": [f"webhook,per=call:{receiver.url}/mine"], "caller": "4711"})
        registry.put("bad", {"sinks": ["jsonl:/etc/passwd"]})
        outlets = outlets_of(tmp_path, rules=(f"webhook:{receiver.url}",))
        with Served(outlets, registry=registry) as rig:
            for name in ("mine", "other", "bad"):
                rig.call(f"{name}\r".encode(), slin(speech(2)))
            rig.listener.ended(3)
            wait_until(lambda: receiver.taken)
    [post] = receiver.taken
    assert post.path == "/mine"
    assert post.event["text"] == spoken(speech(2))
    assert post.event["events"][0]["caller"] == "4711"


def test_what_a_call_may_not_bring_is_said_and_the_call_goes_on(tmp_path, caplog):
    registry = CallRegistry()
    registry.put("bad", {"sinks": ["jsonl:/etc/passwd"]})
    with Served(outlets_of(tmp_path), registry=registry) as rig:
        rig.call(b"bad\r", slin(speech(2)))
        rig.listener.ended()
        assert rig.listener.text("bad") == spoken(speech(2))
    assert "bad: sink 'jsonl:/etc/passwd': calls may bring no sinks" in caplog.text


def answers(rig: Rig) -> list[Answer]:
    return [event for event in list(rig.listener.events) if isinstance(event, Answer)]


def test_a_question_from_the_registry_is_answered_by_keys(tmp_path):
    registry, identity = CallRegistry(), uuid.uuid4()
    registry.put(str(identity), {"collect": {"digits": 4, "name": "pin"}})
    with Rig(registry=registry) as rig:
        rig.call(audiosocket(identity, speech(1), keys="4271"))
        rig.listener.ended()
        [answer] = answers(rig)
    assert (answer.question, answer.status, answer.value) == ("pin", "match", "4271")
    assert answer.source == "keys"


def test_a_running_call_is_asked_and_only_that_one():
    with Rig(settings={"window": 1.0}) as rig:
        running = rig.server._services.running
        question = Question(Grammar.words(["w1"]))
        assert not running.ask("call-a", question)
        with rig.connect() as one, rig.connect() as other:
            for name, client in (("call-a", one), ("call-b", other)):
                client.sendall(f"{name}\r".encode() + bytes(64_000))
            wait_until(
                lambda: {e.call_id for e in list(rig.listener.events)} == {"call-a", "call-b"}
            )
            wait_until(lambda: running.ask("call-a", question))

            def say() -> list[Answer]:
                """A quarter of a second more of the word, until it is looked at."""
                one.sendall(slin(np.full(4000, 1, np.int16)))
                return answers(rig)

            wait_until(say)
        rig.listener.ended(2)
        [answer] = answers(rig)
        assert (answer.call_id, answer.status, answer.value) == ("call-a", "match", "w1")
        wait_until(lambda: not running.ask("call-a", question))
    assert {r.call_id for r in rig.engine.requests if "constraint" in r.options} == {"call-a"}


@pytest.mark.parametrize("collect", ["digits:0", {"digits": 4, "speed": 1}, 7])
def test_a_question_that_makes_no_sense_is_not_registered(collect):
    registry = CallRegistry()
    with pytest.raises(ConfigError):
        registry.put("call-a", {"collect": collect})
    assert registry.get("call-a") is None


def test_a_sink_that_is_dead_delays_no_call_and_no_other_sink(tmp_path):
    with Receiver() as receiver:
        receiver.down()
        texts = (f"webhook:{receiver.url}", f"jsonl:{tmp_path}/a.jsonl")
        with Served(outlets_of(tmp_path, *texts)) as rig:
            for n in range(10):
                rig.call(f"c{n}\r".encode(), slin(speech(2)))
            rig.listener.ended(10)
            path = tmp_path / "a.jsonl"
            wait_until(lambda: path.read_text().count('"ended"') == 10)
        receiver.up()
        outlets = outlets_of(tmp_path, f"webhook:{receiver.url}")
        wait_until(lambda: sum(p.event["type"] == "final" for p in receiver.taken) == 10)
        assert outlets.close(30)
