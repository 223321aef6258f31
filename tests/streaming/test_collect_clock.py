"""Questions to callers whose audio stops: the clock goes on."""

from __future__ import annotations

import numpy as np
import pytest
from question_rig import DIGITS, MENU, Caller, said, silence

from aii.grammar import Grammar
from aii.question import Question
from aii.streaming.arrivals import GRACE, LOOK
from aii.streaming.events import Answer
from aii.streaming.settings import POLICIES


def outcome(caller: Caller) -> tuple[str, str | None]:
    return caller.answer.status, caller.answer.value


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("voice", [True, False])
@pytest.mark.parametrize("before", [0.0, 1.0])
@pytest.mark.parametrize("after", [0.0, 0.7])
def test_who_sends_nothing_is_not_waited_for(policy, voice, before, after):
    """Whatever came before the question and behind it, nothing included."""
    caller = Caller(voice=voice, policy=policy)
    caller.hears(silence(before))
    caller.ask(Question(DIGITS, timeout=4.0))
    caller.hears(silence(after))
    caller.sends_nothing(3.9 - after)
    assert caller.answers == []
    caller.sends_nothing(0.1 + LOOK)
    assert outcome(caller) == ("timeout", None)
    caller.sends_nothing(60)
    caller.hears(silence(20))
    caller.hang_up()
    assert len(caller.answers) == 1
    assert caller.answer.end == pytest.approx(before + after)  # times stay those of the audio


def test_a_pause_of_the_network_is_not_counted():
    caller = Caller()
    caller.ask(Question(DIGITS, timeout=0.5))
    caller.sends_nothing(GRACE - 0.1)
    assert caller.answers == []
    caller.hears(silence(0.4), late=True)
    caller.sends_nothing(0.2)
    assert caller.answers == []
    caller.hears(silence(0.2))
    assert outcome(caller) == ("timeout", None)


def test_audio_that_comes_late_is_still_heard():
    caller = Caller()
    caller.ask(Question(DIGITS, timeout=6.0))
    caller.sends_nothing(5.0)
    caller.hears(silence(4.5), late=True)
    caller.hears(np.concatenate([silence(0.6), said(4, 2), silence(2.0)]))
    assert outcome(caller) == ("match", "42")


def test_what_got_lost_has_passed_all_the_same():
    caller = Caller()
    caller.ask(Question(DIGITS, timeout=6.0))
    for _ in range(4):  # one frame now and then
        caller.sends_nothing(1.4)
        caller.hears(silence(0.05))
    assert caller.answers == []
    caller.sends_nothing(1.4)
    assert outcome(caller) == ("timeout", None)


def test_what_the_server_does_not_read_may_be_there():
    caller = Caller()
    caller.ask(Question(DIGITS, timeout=3.0))
    caller.hears(silence(1.0))
    caller.reading = False
    caller.sends_nothing(30.0)
    assert caller.answers == []
    caller.reading = True
    caller.hears(np.concatenate([said(4), silence(2.0)]))
    assert outcome(caller) == ("match", "4")


@pytest.mark.parametrize("grammar, spoken, expected", [
    (DIGITS, said(4, 2), ("match", "42")),
    (Grammar.digits(4, 4), said(4, 2), ("short", "42")),
    (MENU, said(10), ("match", "sales")),
    (MENU, said(5), ("nomatch", None)),
])  # fmt: skip
@pytest.mark.parametrize("voice", [True, False])
def test_who_stops_sending_while_speaking_has_finished(grammar, spoken, expected, voice):
    """A gateway that sends no silence: the pause that ends an utterance never comes."""
    caller = Caller(voice=voice)
    caller.ask(Question(grammar, timeout=8.0, pause=2.0))
    caller.hears(np.concatenate([silence(0.3), spoken]))
    caller.sends_nothing(1.9)
    assert caller.answers == []
    caller.sends_nothing(8.0)
    assert outcome(caller) == expected


def test_digits_in_two_bursts_without_silence_between_are_put_together():
    caller = Caller()
    caller.ask(Question(Grammar.digits(4, 4), pause=2.0))
    caller.hears(said(4, 2))
    caller.sends_nothing(3.0)
    assert caller.answers == []
    caller.hears(said(7, 1))
    caller.sends_nothing(3.0)
    assert outcome(caller) == ("match", "4271")


def test_keys_need_no_audio():
    caller = Caller()
    caller.ask(Question(DIGITS, timeout=9.0, key_pause=3.0))
    caller.sends_nothing(8.0)
    caller.key("4")
    caller.step()
    caller.sends_nothing(2.9)
    caller.key("2")
    caller.step()
    caller.sends_nothing(2.9)
    assert caller.answers == []
    caller.sends_nothing(0.1 + LOOK)
    assert outcome(caller) == ("match", "42")


def test_an_answer_whose_decode_is_out_is_waited_for():
    caller = Caller(voice=False)
    caller.ask(Question(DIGITS, timeout=2.0))
    caller.session.feed(np.full(16_000, 4 / 32768, np.float32))
    caller.events += caller.session.check()
    for _ in range(12):
        caller.now += 0.25
        caller.events += caller.session.tick(caller.now)
    request = caller.session.next_request(caller.now)
    assert request is not None
    caller.events += caller.session.tick(caller.now + 60)
    assert caller.answers == []
    for failure in (request, None):  # a final is tried twice
        number = (failure or caller.session.next_request(caller.now + 60)).request_id
        caller.events += caller.session.fail(number, RuntimeError("broken"))
    caller.events += caller.session.tick(caller.now + 61)
    assert outcome(caller) == ("timeout", None)


def test_without_a_question_nobody_wants_to_be_woken():
    caller = Caller()
    caller.hears(silence(1.0))
    assert caller.session.wake_at is None
    caller.ask(Question(DIGITS, timeout=1.0))
    assert caller.session.wake_at == pytest.approx(caller.now + GRACE)
    caller.hang_up()
    assert caller.session.wake_at is None
    assert [event.status for event in caller.events if isinstance(event, Answer)] == ["ended"]
