from __future__ import annotations

import json

import pytest

from aii.grammar import Grammar
from aii.protocols import AeapProtocol, CallId, Dtmf, Format, Frame, Hangup, Metadata, Notice
from aii.protocols.codecs import CODECS
from aii.protocols.frames import Ask
from aii.question import Question
from aii.streaming.events import Answer, CallEnded, CallStarted, Final, Partial
from aii.types import Segment, Word

ENDPOINTS = Metadata({"vad": "true"})
"""A call of this protocol is no use without: its results are whole utterances."""


def setup(*codecs: str, id: str = "a1", **values: object) -> str:
    """What ``SpeechCreate`` makes Asterisk send."""
    offer = [{"name": name} for name in codecs or ("ulaw",)]
    return json.dumps({"request": "setup", "id": id, "version": "0.1.0", "codecs": offer, **values})


def said(text: str, reason: str = "endpoint", *probabilities: float) -> Final:
    words = tuple(Word(" w", 0.0, 1.0, p) for p in probabilities)
    return Final(segments=(Segment(0.0, 1.0, text, (), words),), reason=reason)


def answers(machine: AeapProtocol) -> list[dict]:
    return [json.loads(message) for message in machine.send()]


@pytest.mark.parametrize("step", [0, 1, 159])
@pytest.mark.parametrize("codec", ["ulaw", "alaw", "slin", "slin16"])
def test_setup_and_audio(converse, heard, others, codec, step) -> None:
    sent = bytes(range(256)) * 4
    machine = AeapProtocol()
    first = machine.receive(setup(codec, id="7f-3"))
    assert answers(machine) == [{"response": "setup", "id": "7f-3", "codecs": [{"name": codec}]}]
    frames = [*first, *converse(machine, sent, step=step)]
    assert heard(frames) == CODECS[codec].to_slin(sent)
    wire = CODECS[codec]
    assert others(frames) == [ENDPOINTS, Format(wire.rate, wire.encoding), Hangup("eof")]


def test_the_first_codec_that_is_understood_is_chosen() -> None:
    machine = AeapProtocol()
    machine.receive(setup("opus", "g729", "alaw", "ulaw"))
    assert answers(machine)[0]["codecs"] == [{"name": "alaw"}]


@pytest.mark.parametrize(
    "offer",
    ['"codecs":[{"name":"opus"}]', '"codecs":[]', '"codecs":7', '"codecs":[7,{"name":1}]', '"x":1'],
)
def test_no_codec_that_is_understood(offer) -> None:
    machine = AeapProtocol()
    notice, hangup = machine.receive('{"request":"setup","id":"1",' + offer + "}")
    assert hangup == Hangup("refused")
    assert isinstance(notice, Notice)
    (answer,) = answers(machine)
    assert (answer["response"], answer["id"]) == ("setup", "1")
    assert "codecs=!all,slin" in answer["error_msg"]


def test_every_slin_is_called_slin() -> None:
    """Their rates differ; a setting must tell them apart."""
    assert AeapProtocol({}).receive(setup("slin"))[1:] == [Format(8000)]
    assert AeapProtocol({"rate": "16000"}).receive(setup("slin"))[1:] == [Format(16000)]
    assert AeapProtocol().receive(setup("slin", params={"rate": "16k"}))[1:] == [Format(16000)]
    assert AeapProtocol({"rate": "16000"}).receive(setup("ulaw"))[1:] == [Format(8000, "ulaw")]


def test_what_somebody_says_about_endpoints_counts() -> None:
    said = AeapProtocol().receive(setup("ulaw", params={"vad": "false", "min_silence": "0.8"}))[0]
    assert said == Metadata({"vad": "false", "min_silence": "0.8"})


def test_parameters_of_aeap_conf_and_of_the_uri() -> None:
    machine = AeapProtocol({"call_id": "c7", "language": "en"})
    frames = machine.receive(
        setup("ulaw", params={"language": "de-DE", "prompt": "Meier", "token": "t"})
    )
    assert frames[:2] == [
        Metadata({"vad": "true", "language": "de-DE", "prompt": "Meier"}),
        CallId("c7"),
    ]


def test_a_result_is_a_request_that_ends_speech_background() -> None:
    machine = AeapProtocol()
    machine.receive(setup())
    machine.send()
    assert machine.event(CallStarted()) == []
    assert machine.event(Partial(segments=(Segment(0, 1, " yes"),))) == []
    (text,) = machine.event(said(" Yes,\n please. ", "endpoint", 0.5, 0.9))
    assert json.loads(text) == {
        "request": "set",
        "id": "aii-1",
        "params": {"results": [{"text": "Yes, please.", "score": 70}]},
    }
    assert machine.receive('{"response":"set","id":"aii-1"}') == []
    (text,) = machine.event(said(" no"))
    assert json.loads(text)["id"] == "aii-2"
    assert json.loads(text)["params"]["results"] == [{"text": "no", "score": 100}]
    assert machine.event(said("", "endpoint")) == []  # nobody spoke: Asterisk goes on listening
    assert machine.event(CallEnded()) == []


def test_a_sentence_that_becomes_final_in_pieces_is_one_result() -> None:
    machine = AeapProtocol()
    machine.receive(setup())
    machine.send()
    assert machine.event(said(" one", "agreement", 1.0)) == []
    assert machine.event(said(" two", "agreement", 0.5)) == []
    (text,) = machine.event(said("", "endpoint"))
    assert json.loads(text)["params"]["results"] == [{"text": "one two", "score": 75}]


def test_dtmf_and_settings() -> None:
    machine = AeapProtocol()
    machine.receive(setup())
    machine.send()
    frames = machine.receive('{"request":"set","id":"2","params":{"dtmf":"4"}}')
    frames += machine.receive('{"request":"set","id":"3","params":{"dtmf":"1x#"}}')
    assert frames == [Dtmf("4"), Dtmf("1"), Dtmf("#")]
    frames = machine.receive('{"request":"set","id":"4","params":{"prompt":"yes, no"}}')
    assert frames == [Metadata({"prompt": "yes, no"})]
    assert answers(machine) == [{"response": "set", "id": number} for number in "234"]
    machine.receive('{"request":"get","id":"5","params":["prompt"]}')
    machine.receive('{"request":"get","id":"6","params":["prompt","colour"]}')
    assert answers(machine) == [
        {"response": "get", "id": "5", "params": {"prompt": "yes, no"}},
        {"response": "get", "id": "6", "error_msg": "no such setting"},
    ]


def test_results_can_be_asked_for() -> None:
    machine = AeapProtocol()
    machine.receive(setup())
    ask = '{"request":"get","id":"9","params":["results"]}'
    machine.send()

    def results() -> list[dict]:
        machine.receive(ask)
        (answer,) = answers(machine)
        assert (answer["response"], answer["id"]) == ("get", "9")
        return answer["params"]["results"]

    assert results() == []
    machine.event(Partial(segments=(Segment(0, 1, " ye"),)))
    assert results() == [{"text": "ye", "score": 100}]
    machine.event(said(" yes", "flush", 0.8))
    assert results() == [{"text": "yes", "score": 80}]
    assert results() == []


def test_odd_messages_are_answered_and_said(converse, others) -> None:
    machine = AeapProtocol()
    early = machine.receive(b"audio") + machine.receive('{"request":"set","id":"0","params":{}}')
    assert [frame.text for frame in early] == [
        "aeap: audio before the setup is dropped: its codec is not known",
        "aeap: request 'set' before the setup",
    ]
    assert answers(machine)[0]["error_msg"] == "the first request must be 'setup'"
    machine.receive(setup())
    machine.send()
    odd = ["", "[]", "{}", '{"request":7}', '{"request":"go","id":"1"}', setup(id="2")]
    odd += ['{"request":"set","id":"3","params":[]}', '{"request":"get","id":"4","params":[]}']
    odd += ['{"response":"set","id":"5","error_msg":"no"}']
    frames = converse(machine, *odd)
    assert [type(frame) for frame in frames] == [Notice] * 8 + [Hangup]
    assert [(a["response"], a["id"], "error_msg" in a) for a in answers(machine)] == [
        ("go", "1", True),
        ("setup", "2", True),
        ("set", "3", True),
        ("get", "4", True),
    ]
    assert "Asterisk refuses a result: no" in frames[-2].text


def test_settings_are_bounded() -> None:
    machine = AeapProtocol()
    machine.receive(setup())
    for number in range(500):
        machine.receive(json.dumps({"request": "set", "id": "x", "params": {f"n{number}": "1"}}))
        machine.send()
    assert len(machine._settings) <= 100


def answer(status: str, value: str | None = None, source: str = "speech") -> Answer:
    return Answer(status=status, value=value, source=source, confidence=0.913)


def ask(machine: AeapProtocol, question: object) -> list[Frame]:
    params = {"collect": question}
    return machine.receive(json.dumps({"request": "set", "id": "q", "params": params}))


@pytest.mark.parametrize(
    "question", ["digits,more_pause=1:4-8", {"digits": "4-8", "more_pause": 1}]
)
def test_a_question_is_asked_and_its_answer_is_the_result(question) -> None:
    machine = AeapProtocol()
    machine.receive(setup())
    assert ask(machine, question) == [Ask(Question(Grammar.digits(4, 8), more_pause=1.0))]
    assert answers(machine)[-1] == {"response": "set", "id": "q"}
    assert machine.event(said(" four two")) == []  # is only a part of it
    (message,) = machine.event(answer("match", "4271"))
    assert json.loads(message)["params"]["results"][0]["text"] == "4271"


def test_answers_of_each_kind() -> None:
    for status, value in (("match", "42"), ("short", "4"), ("nomatch", None), ("timeout", None)):
        machine = AeapProtocol()
        machine.receive(setup())
        ask(machine, "digits:2")
        answers(machine)
        (message,) = machine.event(answer(status, value))
        (result,) = json.loads(message)["params"]["results"]
        assert result == {"text": value or "", "score": 91, "grammar": status}
        (message,) = machine.event(said(" hello"))  # nothing is asked any more
        assert json.loads(message)["params"]["results"][0]["text"] == "hello"


def test_answers_that_asterisk_knows_or_nobody_waits_for_are_no_results() -> None:
    machine = AeapProtocol()
    machine.receive(setup())
    ask(machine, "digits:2")
    answers(machine)
    assert machine.event(answer("replaced")) == []
    assert machine.event(said(" hello")) == []
    assert machine.event(answer("match", "42", "keys")) == []
    assert machine.event(said(" hello")) != []


def test_a_question_of_the_setup() -> None:
    machine = AeapProtocol()
    frames = machine.receive(setup("ulaw", params={"collect": "words:yes|no", "language": "en"}))
    assert frames == [
        Metadata({"vad": "true", "language": "en"}),
        Format(8000, "ulaw"),
        Ask(Question(Grammar.words(["yes", "no"]))),
    ]


def test_a_question_that_makes_no_sense_is_refused() -> None:
    machine = AeapProtocol()
    machine.receive(setup())
    answers(machine)
    (notice,) = ask(machine, "digits:0")
    assert isinstance(notice, Notice)
    assert "cannot be asked for" in answers(machine)[0]["error_msg"]
    assert machine.event(said(" hello")) != []
    machine = AeapProtocol()
    notice, hangup = machine.receive(setup("ulaw", params={"collect": "letters:4"}))
    assert hangup == Hangup("refused")
    assert "error_msg" in answers(machine)[0]
