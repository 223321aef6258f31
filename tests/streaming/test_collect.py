from __future__ import annotations

import numpy as np
import pytest
from question_rig import DIGITS, MENU, Caller, said, silence

from aii.constraint import GrammarConstraint
from aii.grammar import Grammar
from aii.question import Question
from aii.streaming.events import CallEnded, Dtmf
from aii.streaming.redaction import MASK


def test_spoken_digits_are_answered_at_the_endpoint():
    caller = Caller()
    caller.hears(silence(0.5))
    caller.ask(Question(DIGITS, name="pin"))
    caller.hears(np.concatenate([silence(0.3), said(4, 2)]))
    assert caller.answers == []
    caller.hears(silence(1.4))  # two more digits might come
    assert caller.answers == []
    caller.hears(silence(0.4))
    answer = caller.answer
    assert (answer.status, answer.value, answer.source) == ("match", "42", "speech")
    assert (answer.question, answer.text) == ("pin", "four two")
    assert answer.start == pytest.approx(0.8, abs=0.2)
    assert answer.end == pytest.approx(1.7, abs=0.2)
    assert answer.confidence == 1.0
    assert caller.session.position < 3.5
    assert [event.seq for event in caller.events] == list(range(1, len(caller.events) + 1))


def test_enough_digits_need_no_endpoint():
    caller = Caller(reset=2.0, window=1.0)
    caller.ask(Question(DIGITS))
    caller.hears(said(4, 2, 7, 1, 9, 9, 9))
    assert caller.answer.value == "4271"


def test_only_what_is_said_after_the_question_is_decoded_in_its_grammar():
    caller = Caller(voice=False)
    caller.hears(said(8, 8))
    caller.ask(Question(DIGITS))
    assert [request.options.get("constraint") for request in caller.requests] == [None]
    caller.hears(said(4, 2, 7, 1, seconds=1.3))
    assert caller.answer.value == "4271"
    last = caller.requests[-1]
    assert last.options["constraint"] == GrammarConstraint(DIGITS)
    assert last.options["initial_prompt"] == ""
    assert last.options["length_penalty"] == 0.0  # a long answer is no likelier for its length
    assert last.prompt == ()
    caller.hears(said(5, 5, 5, seconds=4))
    assert "constraint" not in caller.requests[-1].options  # the question is answered


def test_too_few_digits_wait_for_more():
    caller = Caller()
    caller.ask(Question(Grammar.digits(4, 4), pause=2.0))
    caller.hears(np.concatenate([said(4, 2), silence(1.5)]))
    assert caller.answers == []
    caller.hears(np.concatenate([said(7, 1), silence(1.0)]))
    assert (caller.answer.status, caller.answer.value) == ("match", "4271")


@pytest.mark.parametrize("grammar, rest", [
    (Grammar.digits(4, 4), Grammar.digits(2, 2)),
    (Grammar.digits(3, 6), Grammar.digits(1, 4)),
    (Grammar.digits(2, 4), Grammar.digits(1, 2)),
])  # fmt: skip
def test_digits_that_were_said_need_not_come_again(grammar, rest):
    """Of a number that is said in two utterances the second has only what is missing."""
    caller = Caller()
    caller.ask(Question(grammar, pause=2.0))
    caller.hears(np.concatenate([said(4, 2), silence(1.0), said(7, 1, seconds=0.5), silence(2.0)]))
    asked = [request.options["constraint"].grammar for request in caller.requests]
    assert asked == [grammar, rest]
    assert (caller.answer.status, caller.answer.value) == ("match", "4271")


@pytest.mark.parametrize("policy", ["local-agreement", "alignatt"])
def test_digits_that_are_decoded_again_with_what_follows_are_not_taken_off(policy):
    caller = Caller(policy=policy, words="final")
    caller.ask(Question(Grammar.digits(5, 5)))
    caller.hears(np.concatenate([said(4, 2, 7, 1, 9, seconds=1.0), silence(1.0)]))
    for request in caller.requests:
        said_before = round(request.start)  # a digit a second
        assert request.options["constraint"].grammar.most >= 5 - said_before


def test_too_few_digits_are_short_after_a_pause():
    caller = Caller()
    caller.ask(Question(Grammar.digits(4, 4), pause=2.0))
    caller.hears(np.concatenate([said(4, 2), silence(3.0)]))
    assert (caller.answer.status, caller.answer.value) == ("short", "42")


def test_words_of_a_menu():
    caller = Caller()
    caller.ask(Question(MENU))
    caller.hears(np.concatenate([said(10), silence(1.0)]))
    assert (caller.answer.status, caller.answer.value) == ("match", "sales")
    caller = Caller()
    caller.ask(Question(MENU))
    caller.hears(np.concatenate([said(5), silence(1.0)]))
    assert (caller.answer.status, caller.answer.value) == ("nomatch", None)
    assert caller.answer.text == "five"


def test_keys_count_as_well_as_speech():
    caller = Caller()
    caller.ask(Question(DIGITS))
    caller.hears(silence(0.2))
    caller.key("4", "2", "7")
    assert caller.answers == []
    caller.key("1")
    answer = caller.answer
    assert (answer.status, answer.value, answer.source) == ("match", "4271", "keys")
    assert (answer.confidence, answer.start) == (1.0, 0.2)
    order = [type(event).__name__ for event in caller.events[-2:]]
    assert order == ["Dtmf", "Answer"]


def test_the_end_key_ends_and_the_star_clears():
    caller = Caller()
    caller.ask(Question(DIGITS))
    caller.key("9", "*", "4", "2", "#")
    assert caller.answer.value == "42"
    caller.ask(Question(Grammar.digits(3, 4)))
    caller.key("#", "4", "#")
    assert (caller.answers[-1].status, caller.answers[-1].value) == ("short", "4")


def test_after_the_last_key_there_is_time_for_another():
    caller = Caller()
    caller.ask(Question(DIGITS, key_pause=1.0))
    caller.key("4")
    caller.hears(silence(0.8))
    caller.key("2")
    caller.hears(silence(0.8))
    assert caller.answers == []
    caller.hears(silence(0.3))
    assert caller.answer.value == "42"


def test_a_key_of_a_menu():
    caller = Caller()
    caller.ask(Question(MENU))
    caller.key("7", "2")
    assert (caller.answer.value, caller.answer.source, caller.answer.text) == (
        "support",
        "keys",
        "2",
    )


def test_keys_go_before_what_is_said_meanwhile():
    caller = Caller()
    caller.ask(Question(DIGITS))
    caller.key("1")
    caller.hears(np.concatenate([said(9), silence(1.0)]))
    assert caller.answers == []
    caller.key("2", "#")
    assert caller.answer.value == "12"


def test_nobody_says_anything():
    caller = Caller()
    caller.hears(silence(1))
    caller.ask(Question(DIGITS, timeout=3.0))
    caller.hears(silence(2.8))
    assert caller.answers == []
    caller.hears(silence(0.4))
    answer = caller.answer
    assert (answer.status, answer.value, answer.source, answer.text) == ("timeout", None, "", "")
    assert (answer.start, answer.end) == (1.0, pytest.approx(4.0, abs=0.1))
    assert answer.confidence is None


def test_who_speaks_when_time_is_up_is_heard_out():
    caller = Caller()
    caller.ask(Question(DIGITS, timeout=1.0))
    caller.hears(np.concatenate([silence(0.7), said(4, 2, 7), silence(2.0)]))
    assert (caller.answer.status, caller.answer.value) == ("match", "427")


def test_the_end_of_the_call():
    caller = Caller()
    caller.ask(Question(DIGITS))
    caller.hang_up()
    assert caller.answer.status == "ended"
    assert isinstance(caller.events[-1], CallEnded)
    caller = Caller()
    caller.ask(Question(DIGITS))
    caller.hears(said(4, 2))
    caller.hang_up()
    assert (caller.answer.status, caller.answer.value) == ("match", "42")
    caller = Caller()
    caller.ask(Question(Grammar.digits(4, 4)))
    caller.key("4")
    caller.events += caller.session.abort("shutdown deadline")
    assert (caller.answer.status, caller.answer.value) == ("short", "4")


def test_another_question_takes_its_place():
    caller = Caller()
    caller.ask(Question(DIGITS, name="one"))
    caller.ask(Question(MENU, name="two"))
    caller.key("1")
    assert [(a.question, a.status, a.value) for a in caller.answers] == [
        ("one", "replaced", None), ("two", "match", "sales"),
    ]  # fmt: skip


def test_nothing_is_asked_of_a_caller_who_is_gone():
    caller = Caller()
    caller.hang_up()
    assert caller.session.collect(Question(DIGITS)) == []


def test_without_voice_activity_a_look_at_the_audio_will_do():
    caller = Caller(voice=False, window=1.0)
    caller.ask(Question(DIGITS))
    caller.hears(np.concatenate([said(4, 2, 7, 1), silence(0.6)]))
    assert caller.answer.value == "4271"
    caller = Caller(voice=False, window=1.0)
    caller.ask(Question(MENU))
    caller.hears(np.concatenate([said(10), silence(0.8)]))
    assert caller.answer.value == "sales"


def test_without_voice_activity_the_rest_is_known_at_the_timeout():
    for sound, status, value in ((said(4, 2), "match", "42"), (silence(0.8), "timeout", None)):
        caller = Caller(voice=False, window=1.0)
        caller.ask(Question(DIGITS, timeout=2.5))
        caller.hears(np.concatenate([sound, silence(1.4)]))
        assert caller.answers == []
        caller.hears(silence(0.5))
        assert (caller.answer.status, caller.answer.value) == (status, value)


def test_an_answer_is_redacted_like_everything_else():
    caller = Caller(redact=4)
    caller.ask(Question(Grammar.digits(6, 6)))
    caller.hears(np.concatenate([said(4, 2, 7, 1, 9, 8), silence(1.0)]))
    assert (caller.answer.status, caller.answer.value, caller.answer.text) == ("match", MASK, MASK)
    assert not any("four" in str(event) for event in caller.events)
    caller.ask(Question(Grammar.digits(1, 1)))
    caller.key("4")
    assert caller.answers[-1].value == "4"
    keys = [event.digit for event in caller.events if isinstance(event, Dtmf)]
    assert keys == ["x"]
