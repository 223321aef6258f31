from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from fake_engine import VOCABULARY

from aii.errors import ConfigError
from aii.grammar import Grammar
from aii.question import Question
from aii.streaming.collect import Collector
from aii.streaming.events import Final, Partial, SpeechStarted
from aii.types import DecodeRequest, Hypothesis, Segment, Token

DIGITS = Grammar.digits(1, 4)
MENU = Grammar.words({"sales": "1", "support": "2"})


def final(text: str, reason: str = "endpoint") -> Final:
    one = Segment(1.0, 2.0, f" {text}")
    return Final(start=1.0, end=2.0, segments=(one,), language="en", reason=reason)


def thought(probability: float, tokens: int = 2) -> Hypothesis:
    """What the engine answers where each token, and the end, has this probability."""
    return Hypothesis(1, tokens=(Token(1),) * tokens, avg_logprob=math.log(probability))


@pytest.mark.parametrize("grammar, text, value", [
    (Grammar.digits(2, 2), "four two", "42"), (MENU, "sales", "sales"),
])  # fmt: skip
def test_speech_that_the_model_doubts_does_not_match(grammar, text, value):
    for sure, status, wanted in ((0.6, "match", value), (0.4, "nomatch", None)):
        collector = Collector(Question(grammar, confidence=0.5), 0.0, VOCABULARY, voiced=True)
        collector.weigh(thought(sure))
        answer = collector.see(final(text))
        assert answer is not None
        assert (answer.status, answer.value) == (status, wanted)
        assert answer.confidence == pytest.approx(sure)


def test_what_hardly_anybody_can_have_said_is_no_answer_unless_that_is_wanted():
    """A grammar makes one of its words of anything."""
    for question, status in ((Question(MENU), "nomatch"), (Question(MENU, confidence=0), "match")):
        collector = Collector(question, 0.0, VOCABULARY, voiced=True)
        collector.weigh(thought(0.01))
        answer = collector.see(final("sales"))
        assert answer is not None
        assert answer.status == status


def test_confidence_is_a_mean_over_the_tokens_of_all_that_was_heard():
    collector = Collector(Question(Grammar.digits(4, 4)), 0.0, VOCABULARY, voiced=True)
    collector.weigh(thought(0.5, tokens=3))
    collector.see(final("four two seven"))
    collector.weigh(thought(0.001))
    collector.see(final(""))  # a noise behind it says nothing against it
    collector.weigh(thought(0.25, tokens=1))
    answer = collector.see(final("one"))
    assert answer is not None
    assert answer.confidence == pytest.approx(0.5 ** (4 / 6) * 0.25 ** (2 / 6))


def test_where_nothing_is_known_nothing_is_doubted():
    collector = Collector(Question(MENU, confidence=0.9), 0.0, VOCABULARY, voiced=True)
    answer = collector.see(final("sales"))
    assert answer is not None
    assert (answer.status, answer.confidence) == ("match", None)


def test_audio_from_before_the_question_is_no_answer():
    collector = Collector(Question(DIGITS), 2.0, VOCABULARY, voiced=True)
    assert collector.see(final("four two")) is None
    request = DecodeRequest(1, "c", np.zeros(10, np.float32), start=1.9)
    assert collector.constrain(request) is request
    assert collector.constrain(replace(request, start=2.0)).options["temperatures"] == (0.0,)


def test_a_second_utterance_that_begins_early_keeps_the_question_open():
    collector = Collector(Question(Grammar.digits(4, 4), pause=1.0), 0.0, VOCABULARY, voiced=True)
    for event in (SpeechStarted(start=1.0), SpeechStarted(start=2.1), final("four two")):
        assert collector.see(event) is None
    assert collector.due(60.0) == (None, False)  # the second one is not decoded yet


def test_a_final_that_failed_does_not_keep_it_open_for_ever():
    collector = Collector(Question(DIGITS, timeout=1.0), 0.0, VOCABULARY, voiced=True)
    collector.see(SpeechStarted(start=0.5))
    collector.see(Final(start=0.5, end=1.0, reason="error", error="broken"))
    answer, _ = collector.due(1.0)
    assert answer is not None
    assert answer.status == "timeout"


def test_a_collector_gives_one_answer():
    collector = Collector(Question(Grammar.digits(2, 2)), 0.0, VOCABULARY, voiced=False)
    assert collector.see(final("four two")) is not None
    assert collector.see(final("four two")) is None
    assert collector.due(99.0) == (None, False)
    assert collector.replaced(99.0) is None
    assert not collector.wants_flush(Partial(segments=(Segment(0, 1, " four two seven one"),)))


@pytest.mark.parametrize(
    "value, question",
    [
        ({"digits": [1, 4]}, Question(DIGITS)),
        ("digits:1-4", Question(DIGITS)),
        ('{"digits": [1, 4], "timeout": 5}', Question(DIGITS, timeout=5.0)),
        (
            {"type": "collect", "words": {"sales": "1", "support": "2"}, "name": "menu",
             "timeout": "5", "pause": 1, "key_pause": 0, "end_key": "", "confidence": 0.3},
            Question(MENU, "menu", 5.0, 1.0, 0.0, "", 0.3),
        ),
        ({"digits": 2, "language": "de"}, Question(Grammar.digits(2, 2, language="de"))),
        ("digits,more_pause=1,timeout=8:1-4", Question(DIGITS, timeout=8.0, more_pause=1.0)),
        ("words,name=menu, end_key=:sales=1|support=2", Question(MENU, "menu", end_key="")),
        (
            {"digits": "1-4", "incompletetimeout": "1500ms", "interdigittimeout": "2s",
             "termtimeout": "0.5s", "termchar": "*", "timeout": "7s"},
            Question(DIGITS, timeout=7.0, pause=1.5, more_pause=1.5, key_pause=2.0,
                     end_pause=0.5, end_key="*"),
        ),
        (
            {"digits": "1-4", "incompletetimeout": 3, "more_pause": 1},
            Question(DIGITS, pause=3.0, more_pause=1.0),
        ),
    ],
)  # fmt: skip
def test_how_a_question_is_asked(value, question: Question):
    assert Question.parse(value) == question


@pytest.mark.parametrize(
    "value",
    [{}, [], 3, "x", "{", '{"digits": }', {"digits": 4, "speed": 1}, {"digits": 4, "timeout": -1},
     {"digits": 4, "timeout": "soon"}, {"digits": 4, "pause": True}, {"digits": 4, "end_key": "5"},
     {"digits": 4, "name": 5}, {"digits": 4, "name": "x" * 101}, {"digits": 4, "confidence": 2},
     {"digits": 4, "language": 1}, {"digits": 4, "timeout": float("nan")}, "digits,4:5",
     "digits,speed=1:4", {"digits": 4, "timeout": "5 min"}, {"digits": 4, "termtimeout": "-1s"},
     {"digits": 4, "more_pause": 61}, {"digits": 4, "termchar": 1}],
)  # fmt: skip
def test_what_cannot_be_asked_is_one_line(value):
    with pytest.raises(ConfigError) as info:
        Question.parse(value)
    assert "\n" not in str(info.value)
