"""Answers that may go on: how long a caller who pauses is waited for, and what ends it at once."""

from __future__ import annotations

import numpy as np
import pytest
from question_rig import MENU, Caller, said, silence

from aii.constraint import GrammarConstraint
from aii.grammar import Grammar
from aii.question import Question

RANGE = Grammar.digits(4, 8)


def outcome(caller: Caller) -> tuple[str, str | None]:
    return caller.answer.status, caller.answer.value


def answered_after(caller: Caller, sound: np.ndarray, most: float = 6.0) -> float:
    """Seconds of silence after ``sound`` until the answer comes, to 0.1 s."""
    caller.hears(sound)
    waited = 0.0
    while not caller.answers and waited < most:
        caller.hears(silence(0.1))
        waited += 0.1
    return waited


@pytest.mark.parametrize("pauses", [(0.7,), (1.2,), (0.7, 1.2)])
def test_digits_in_groups_are_one_answer(pauses):
    """Who reads a number out pauses between its groups, behind the fourth digit too."""
    caller = Caller()
    caller.ask(Question(RANGE))
    groups = [(4, 2, 7, 1), (9, 8), (3, 5)]
    for group, pause in zip(groups, (*pauses, 0.0), strict=False):
        caller.hears(np.concatenate([said(*group), silence(pause)]))
    assert caller.answers == []
    caller.hears(silence(2.0))
    everything = "".join(str(d) for group in groups[: len(pauses) + 1] for d in group)
    assert outcome(caller) == ("match", everything)


def test_the_longest_answer_comes_at_once():
    """At the endpoint of voice activity, half a second after the last digit."""
    caller = Caller()
    caller.ask(Question(RANGE, more_pause=5.0))
    caller.hears(np.concatenate([said(4, 2, 7, 1), silence(1.0)]))
    assert answered_after(caller, said(9, 8, 3, 5)) <= 0.8
    assert outcome(caller) == ("match", "42719835")


@pytest.mark.parametrize("more", [0.0, 1.0, 1.5, 3.0])
def test_the_pause_behind_enough_digits_can_be_set(more):
    caller = Caller()
    caller.ask(Question(RANGE, more_pause=more, pause=5.0))
    waited = answered_after(caller, said(4, 2, 7, 1))
    assert outcome(caller) == ("match", "4271")
    assert waited == pytest.approx(max(more, 0.5), abs=0.3)


@pytest.mark.parametrize("pause", [1.0, 3.0])
def test_where_digits_are_missing_the_longer_pause_counts(pause):
    caller = Caller()
    caller.ask(Question(RANGE, more_pause=0.0, pause=pause))
    waited = answered_after(caller, said(4, 2))
    assert outcome(caller) == ("short", "42")
    assert waited == pytest.approx(pause, abs=0.3)


def test_a_noise_does_not_begin_the_pause_anew():
    """0 is silence to the rig's ears and speech to none; 11 is a voice that says nothing."""
    caller = Caller()
    caller.ask(Question(RANGE, more_pause=2.0))
    caller.hears(np.concatenate([said(4, 2, 7, 1), silence(0.8)]))
    caller.hears(np.concatenate([said(11), silence(0.7)]))
    assert caller.answers == []
    caller.hears(silence(0.4))
    assert outcome(caller) == ("match", "4271")
    assert caller.session.position < 4.2


def test_the_end_key_ends_what_was_said():
    caller = Caller()
    caller.ask(Question(RANGE))
    caller.hears(np.concatenate([said(4, 2, 7, 1), silence(0.8)]))
    assert caller.answers == []
    caller.key("#")
    caller.hears(silence(0.1))
    assert outcome(caller) == ("match", "4271")
    assert caller.answer.source == "speech"


@pytest.mark.parametrize("grammar, values, expected", [
    (RANGE, (4, 2, 7, 1, 9), ("match", "42719")),
    (RANGE, (4, 2), ("short", "42")),
    (MENU, (10,), ("match", "sales")),
    (MENU, (5,), ("nomatch", None)),
    (RANGE, (11,), ("nomatch", None)),
])  # fmt: skip
def test_the_end_key_ends_what_is_being_said(grammar, values, expected):
    caller = Caller()
    caller.ask(Question(grammar))
    caller.hears(said(*values))
    caller.key("#")
    caller.hears(silence(0.1))
    assert outcome(caller) == expected


def test_the_end_key_alone_ends_nothing():
    caller = Caller()
    caller.ask(Question(RANGE))
    caller.hears(silence(1.0))
    caller.key("#")
    caller.hears(np.concatenate([said(4, 2, 7, 1), silence(2.0)]))
    assert outcome(caller) == ("match", "4271")


def test_without_an_end_key_there_is_none():
    caller = Caller()
    caller.ask(Question(RANGE, end_key=""))
    caller.hears(np.concatenate([said(4, 2, 7, 1), silence(0.8)]))
    caller.key("#")
    caller.hears(silence(0.2))
    assert caller.answers == []


def test_the_end_key_is_waited_for_where_that_is_wanted():
    """So that it is not taken for the beginning of the next answer."""
    caller = Caller()
    caller.ask(Question(Grammar.digits(1, 4), end_pause=1.0))
    caller.key("4", "2", "7", "1")
    caller.hears(silence(0.5))
    caller.key("9")  # one too many
    assert caller.answers == []
    caller.key("#")
    assert outcome(caller) == ("match", "4271")
    caller.ask(Question(Grammar.digits(1, 4), end_pause=1.0))
    caller.key("4", "2", "7", "1")
    caller.hears(silence(0.9))
    assert len(caller.answers) == 1
    caller.hears(silence(0.2))
    assert caller.answers[-1].value == "4271"


def test_a_phrase_that_may_go_on_is_waited_for():
    phrases = Grammar.words(["five", "five six", "seven"])
    caller = Caller()
    caller.ask(Question(phrases, more_pause=1.5))
    assert answered_after(caller, said(7)) <= 0.8
    assert outcome(caller) == ("match", "seven")
    caller = Caller()
    caller.ask(Question(phrases, more_pause=1.5))
    assert answered_after(caller, said(5)) == pytest.approx(1.5, abs=0.3)
    assert outcome(caller) == ("match", "five")
    caller = Caller()
    caller.ask(Question(phrases, more_pause=1.5))
    caller.hears(np.concatenate([said(5), silence(1.0)]))
    assert answered_after(caller, said(6)) <= 0.8
    assert outcome(caller) == ("match", "five six")
    asked = [request.options["constraint"] for request in caller.requests]
    assert asked[0] == GrammarConstraint(phrases)
    assert asked[-1].grammar.phrases == ("five", "five six", "seven", "six")


def test_the_beginning_of_a_phrase_is_no_other_word():
    caller = Caller()
    caller.ask(Question(Grammar.words(["five six", "seven"]), pause=2.0))
    caller.hears(np.concatenate([said(5), silence(1.5)]))
    assert caller.answers == []
    caller.hears(np.concatenate([said(6), silence(0.8)]))
    assert outcome(caller) == ("match", "five six")
    caller = Caller()
    caller.ask(Question(Grammar.words(["five six", "seven"]), pause=2.0))
    assert answered_after(caller, said(5)) == pytest.approx(2.0, abs=0.3)
    assert outcome(caller) == ("nomatch", None)


def test_who_stops_sending_has_said_enough():
    """By the clock, where the audio stops behind a whole answer that may go on."""
    caller = Caller()
    caller.ask(Question(RANGE, more_pause=1.5, pause=2.0))
    caller.hears(np.concatenate([said(4, 2, 7, 1), silence(0.8)]))
    caller.sends_nothing(0.5)
    assert caller.answers == []
    caller.sends_nothing(1.5)
    assert outcome(caller) == ("match", "4271")


def test_a_call_that_ends_has_answered():
    caller = Caller()
    caller.ask(Question(RANGE, more_pause=5.0))
    caller.hears(np.concatenate([said(4, 2, 7, 1), silence(0.8)]))
    caller.hang_up()
    assert outcome(caller) == ("match", "4271")


@pytest.mark.parametrize("more", [0.5, 1.5, 3.0])
def test_without_voice_activity_a_look_at_the_audio_tells_of_the_pause(more):
    caller = Caller(voice=False, window=1.0)
    caller.ask(Question(Grammar.digits(2, 4), more_pause=more, timeout=30.0))
    waited = answered_after(caller, said(4, 2, 7))
    assert outcome(caller) == ("match", "427")
    assert more <= waited <= more + 1.2  # looks are a second apart


def test_without_voice_activity_enough_is_known_at_the_timeout_and_all_at_once():
    caller = Caller(voice=False, window=1.0)
    caller.ask(Question(Grammar.digits(2, 4), timeout=4.0))
    caller.hears(np.concatenate([said(4, 2, 7), silence(1.0)]))
    assert caller.answers == []
    caller.hears(np.concatenate([said(1), silence(0.8)]))
    assert outcome(caller) == ("match", "4271")
