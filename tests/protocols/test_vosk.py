from __future__ import annotations

import json

import pytest

from aii.protocols import Audio, CallId, Format, Hangup, Metadata, Notice, VoskProtocol
from aii.streaming.events import CallEnded, CallStarted, Final, Partial
from aii.types import Segment, Word

EOF = '{"eof" : 1}'

ENDPOINTS = Metadata({"vad": "true", "window": "1"})
"""A call of this protocol is no use without: its results are whole utterances."""


def segment(text: str) -> Segment:
    words = tuple(Word(w, n, n + 1.0, 0.5) for n, w in enumerate(f" {w}" for w in text.split()))
    return Segment(0.0, 9.0, text, (), words)


def final(text: str, reason: str = "endpoint") -> Final:
    return Final(segments=(segment(text),) if text else (), reason=reason)


def replies(machine: VoskProtocol) -> list[dict]:
    return [json.loads(message) for message in machine.send()]


def word(text: str, start: float) -> dict:
    return {"conf": 0.5, "start": start, "end": start + 1.0, "word": text}


@pytest.mark.parametrize("step", [0, 1, 3200])
def test_audio_at_the_rate_that_the_client_says(converse, heard, others, speech, step) -> None:
    config = '{ "config" : { "sample_rate" : 16000.0 } }'
    frames = converse(VoskProtocol(), config, speech[:9001], EOF, step=step)
    assert heard(frames) == speech[:9001]
    assert others(frames) == [ENDPOINTS, Format(16000), Hangup("hangup")]


@pytest.mark.parametrize(
    "uri, config, rate",
    [
        ({}, None, 8000),
        ({"rate": "16000"}, None, 16000),
        ({"rate": "16000"}, {"sample_rate": 8000}, 8000),
        ({}, {"sample_rate": "48k"}, 48000),
    ],
)
def test_rates(uri, config, rate) -> None:
    machine = VoskProtocol(uri)
    if config:
        assert machine.receive(json.dumps({"config": config})) == []
    assert machine.receive(b"ab") == [ENDPOINTS, Format(rate), Audio(b"ab")]


def test_one_reply_for_each_piece_of_audio() -> None:
    machine = VoskProtocol()
    assert machine.receive('{"config":{"sample_rate":8000}}') == []
    assert replies(machine) == []
    machine.receive(b"ab")
    assert replies(machine) == [{"partial": ""}]
    machine.event(CallStarted())
    assert machine.event(Partial(segments=(segment(" one"),))) == []
    machine.receive(b"ab")
    machine.receive(b"ab")
    assert replies(machine) == [{"partial": "one"}] * 2
    assert machine.event(final(" one two")) == []
    machine.event(Partial(segments=(segment(" three"),)))
    machine.receive(b"ab")
    machine.receive(b"ab")
    assert replies(machine) == [
        {"result": [word("one", 0.0), word("two", 1.0)], "text": "one two"},
        {"partial": "three"},
    ]


def test_eof_gets_the_last_result_and_nothing_more() -> None:
    machine = VoskProtocol()
    machine.receive(b"ab")
    assert replies(machine) == [{"partial": ""}]
    assert machine.event(CallStarted()) == machine.event(final(" one", "agreement")) == []
    assert machine.receive(EOF) == [Hangup("hangup")]
    assert replies(machine) == []
    machine.event(final(" two", "hangup"))
    (text,) = machine.event(CallEnded())
    assert json.loads(text)["text"] == "one two"
    assert [w["word"] for w in json.loads(text)["result"]] == ["one", "two"]
    assert machine.receive(b"late") == []
    assert machine.send() == []


def test_silence_ends_with_an_empty_text() -> None:
    machine = VoskProtocol()
    machine.receive(b"ab")
    machine.event(CallStarted())
    machine.receive(EOF)
    machine.send()
    machine.event(final("", "hangup"))
    assert [json.loads(m) for m in machine.event(CallEnded())] == [{"text": ""}]


def test_a_client_that_just_goes_is_told_nothing() -> None:
    machine = VoskProtocol()
    machine.receive(b"ab")
    machine.event(CallStarted())
    machine.send()
    assert machine.eof() == [Hangup("eof")]
    assert machine.event(final(" x", "hangup")) + machine.event(CallEnded()) == []


def test_results_without_words_and_with_alternatives() -> None:
    machine = VoskProtocol()
    machine.receive('{"config":{"words":0}}')
    machine.event(final(" one"))
    machine.receive(b"ab")
    assert replies(machine) == [{"text": "one"}]
    machine.receive('{"config":{"max_alternatives":3}}')
    machine.event(final(" one"))
    machine.receive(b"ab")
    assert replies(machine) == [
        {"alternatives": [{"confidence": 0.5, "result": [word("one", 0.0)], "text": "one"}]}
    ]


def test_what_is_said_about_the_call() -> None:
    machine = VoskProtocol({"call_id": "c1", "caller": "100"})
    machine.receive('{"config":{"phrase_list":["yes","no","[unk]"],"caller":"200"}}')
    assert machine.receive(b"ab") == [
        Metadata({**ENDPOINTS.values, "prompt": "yes, no", "caller": "200"}),
        CallId("c1"),
        Format(8000),
        Audio(b"ab"),
    ]
    assert machine.receive('{"config":{"language":"de"}}') == [Metadata({"language": "de"})]


def test_odd_messages(converse, others) -> None:
    odd = ["x", "[1]", '{"eof":0}', '{"config":7}', '{"config":{"sample_rate":1}}']
    machine = VoskProtocol({"rate": "fast"})
    frames = converse(machine, *odd, b"ab")
    notices = [frame.text for frame in others(frames) if isinstance(frame, Notice)]
    assert len(notices) == 6
    assert all(notice.startswith("vosk: ") for notice in notices)
    assert Format(8000) in frames
    assert replies(machine) == [{"partial": ""}]
