"""Two transcripts of the same growing audio, and what they agree on."""

from __future__ import annotations

import numpy as np
import pytest

from aii.streaming.agreement import Agreement, behind
from aii.types import Word


def said(text: str, start: float = 0.0, each: float = 0.5, shift: float = 0.0) -> list[Word]:
    return [
        Word(" " + word, start + i * each + shift, start + (i + 1) * each + shift)
        for i, word in enumerate(text.split())
    ]


def texts(words: list[Word]) -> str:
    return "".join(word.text for word in words).strip()


def test_a_word_is_final_when_it_is_heard_twice():
    agreement = Agreement()
    assert agreement.update(said("one two tree")) == []
    assert texts(agreement.update(said("one two three for"))) == "one two"
    assert texts(agreement.tail) == "three for"
    assert texts(agreement.update(said("one two three four five"))) == "three"
    assert texts(agreement.tail) == "four five"
    assert texts(agreement.commit(2)) == "four five"
    assert agreement.said == pytest.approx(2.5)


def test_the_newer_transcript_gives_text_and_times():
    agreement = Agreement()
    agreement.update(said("hello, World"))
    (first, second) = agreement.update(said("Hello world.", shift=0.1))
    assert (first.text, second.text) == (" Hello", " world.")
    assert first.start == pytest.approx(0.1)


@pytest.mark.parametrize("shift", [-0.2, -0.1, 0.0, 0.1, 0.2])
def test_a_word_said_twice_is_final_twice_however_times_move(shift):
    agreement = Agreement()
    agreement.update(said("five"))
    assert texts(agreement.update(said("five"))) == "five"
    agreement.update(said("five five", shift=shift))
    assert texts(agreement.update(said("five five seven", shift=shift))) == "five"
    assert texts(agreement.update(said("five five seven", shift=shift))) == "seven"


def test_a_committed_word_that_is_heard_otherwise_now_stays_as_it_was():
    agreement = Agreement()
    agreement.update(said("for seven"))
    agreement.update(said("for seven one"))
    agreement.update(said("four seven one two"))
    assert texts(agreement.committed) == "for seven one"
    assert texts(agreement.tail) == "two"


def test_words_that_are_missed_for_once_come_again_only_once():
    agreement = Agreement()
    for text in ("a b c d", "a b c d"):
        agreement.update(said(text))
    agreement.update(said("c d e", start=1.0))
    assert texts(agreement.tail) == "e"
    agreement.update(said("a b c d e"))
    assert texts(agreement.committed) == "a b c d e"


def test_what_left_the_buffer_is_not_looked_for():
    agreement = Agreement()
    for _ in range(2):
        agreement.update(said("a b c d"))
    assert texts(agreement.drop_to(1.0)) == "a b"
    assert texts(agreement.committed) == "c d"
    agreement.update(said("c d a b", start=1.0))
    assert texts(agreement.tail) == "a b"


def test_an_empty_transcript_forgets_the_tail():
    agreement = Agreement()
    agreement.update(said("noise"))
    assert agreement.update([]) == []
    assert agreement.update(said("word")) == []
    assert texts(agreement.tail) == "word"


def test_times_never_go_back():
    agreement = Agreement()
    wild = [Word(" a", 1.0, 2.0), Word(" b", 0.5, 0.7), Word(" c", 3.0, 2.5)]
    agreement.update(wild)
    done = agreement.update(wild)
    assert [(w.start, w.end) for w in done] == [(1.0, 2.0), (2.0, 2.0), (3.0, 3.0)]


def test_what_ends_in_time_can_be_made_final_alone():
    agreement = Agreement()
    agreement.update(said("a b c d"))
    assert texts(agreement.commit_until(1.2)) == "a b"
    assert texts(agreement.tail) == "c d"
    assert agreement.commit_until(1.2) == []


def test_a_new_utterance_knows_nothing_of_the_last():
    agreement = Agreement()
    for _ in range(2):
        agreement.update(said("a b"))
    agreement.begin(9.0)
    agreement.update(said("a b", start=9.0))
    assert texts(agreement.tail) == "a b"
    assert agreement.committed == []


def test_the_place_is_found_in_a_random_crowd():
    """Of words over a small vocabulary with moving times, exactly the new ones are new."""
    chance = np.random.default_rng(1)
    for _ in range(300):
        text = [str(chance.integers(3)) for _ in range(chance.integers(1, 30))]
        old = int(chance.integers(0, len(text) + 1))
        before = said(" ".join(text[:old]))
        now = said(" ".join(text), shift=float(chance.uniform(-0.2, 0.2)))
        end = before[-1].end if before else 0.0
        assert behind(before, now, end) == old


def test_what_repeats_the_last_words_needs_a_time_of_its_own():
    """A model that hears a long buffer says "nine one nine one", the second time in no time."""
    for own in (False, True):
        agreement = Agreement()
        for _ in range(2):
            agreement.update(said("zero nine one"))
        assert agreement.said == pytest.approx(1.5)
        again = said("nine one", start=1.5, each=0.3 if own else 0.02)
        for _ in range(2):
            agreement.update([*said("zero nine one"), *again])
        assert texts(agreement.committed) == ("zero nine one nine one" if own else "zero nine one")


def test_old_speech_that_is_heard_in_more_words_now_is_not_new():
    agreement = Agreement()
    for _ in range(2):
        agreement.update(said("press star to hear the main menu"))
    longer = said("press hash to hear the line to hear the line", each=0.3)  # ends before
    for _ in range(2):
        agreement.update(longer)
    assert texts(agreement.committed) == "press star to hear the main menu"
    for _ in range(2):
        agreement.update([*longer, *said("please", start=3.6)])
    assert texts(agreement.committed) == "press star to hear the main menu please"


def test_nothing_said_and_nothing_heard():
    assert behind([], [], 0.0) == 0
    assert behind(said("a"), [], 0.5) == 0
    assert behind([], said("a"), 0.0) == 0
