from __future__ import annotations

import json
import random

import pytest

from aii.streaming.events import (
    Answer,
    CallEnded,
    CallStarted,
    Dtmf,
    Event,
    Final,
    Partial,
    Skipped,
)
from aii.streaming.redaction import HOLD, KEY, MASK, Redactor
from aii.types import Segment, Word

UNITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def segment(text: str, start: float, seconds: float = 0.5) -> Segment:
    """A segment whose words are ``seconds`` long each."""
    words, at = [], start
    for word in text.split():
        words.append(Word(" " + word, at, at + seconds, 0.9))
        at += seconds
    return Segment(start, at, "".join(word.text for word in words), (1, 2, 3), tuple(words))


def final(text: str, start: float = 0.0, *, reason: str = "reset", seconds: float = 0.5) -> Final:
    one = segment(text, start, seconds)
    return Final(start=start, end=one.end, segments=(one,), language="en", reason=reason)


def partial(text: str, start: float = 0.0) -> Partial:
    one = segment(text, start)
    return Partial(start=start, end=one.end, segments=(one,), language="en")


def texts(events: list[Event]) -> list[str]:
    return [event.text.strip() for event in events if isinstance(event, Final)]


END = CallEnded(reason="eof", end=99.0)


def call(redactor: Redactor, *finals: Final) -> list[Event]:
    """What comes out of finals that come one by one, and of the end."""
    out = []
    for event in finals:
        out += redactor([event])
    return out + redactor([END])


def test_a_long_string_is_masked_and_a_short_one_is_not():
    out = call(Redactor(5), final("card four two seven one nine thanks"), final("press two now", 9))
    assert texts(out) == [f"card {MASK} thanks", "press two now"]


@pytest.mark.parametrize(
    "text",
    ["card 4271 9988 1234 5678 ok", "card 4271-9988, ok", "card four two 71 nine ok",
     "card four two and seven uh one nine ok", "card double four double five six ok"],
)  # fmt: skip
def test_figures_words_and_both(text: str):
    [out] = texts(call(Redactor(5), final(text)))
    assert out.replace(",", "") == f"card {MASK} ok"


def test_the_length_is_what_was_set():
    text = "pin four two seven one"
    assert texts(call(Redactor(4), final(text))) == [f"pin {MASK}"]
    assert texts(call(Redactor(5), final(text)))[-1].endswith("four two seven one")


def test_segments_words_and_tokens_hold_none_of_it():
    event = Final(
        end=9.0,
        segments=(segment("card four two", 0), segment("seven one nine thanks", 2)),
        language="en",
    )
    [out, _] = Redactor(5)([event, END])
    assert [s.text for s in out.segments] == [f" card {MASK}", f" {MASK} thanks"]
    assert [[w.text for w in s.words] for s in out.segments] == [
        [" card", f" {MASK}"], [f" {MASK}", " thanks"],
    ]  # fmt: skip
    first, second = out.segments
    assert (first.words[1].start, first.words[1].end) == (0.5, 1.5)
    assert (second.words[0].start, second.words[0].end) == (2.0, 3.5)
    assert first.tokens == second.tokens == ()
    assert first.words[1].probability is None
    clear = Redactor(5)([final("no number here"), END])[0]
    assert clear.segments[0].tokens == (1, 2, 3)


def test_words_that_do_not_spell_the_text_are_left_out_where_it_is_masked():
    odd = Segment(0, 2, " 42719 x", (), (Word(" 4", 0, 1), Word(" 2719x", 1, 2)))
    [out, _] = Redactor(5)([Final(end=2.0, segments=(odd,)), END])
    assert out.text == f" {MASK} x"
    assert out.segments[0].words == ()


def test_a_string_across_finals_is_masked_whole_and_nothing_is_shown_before():
    redactor = Redactor(5)
    [first] = redactor([final("my card is four two", 0)])
    assert first.text == " my card is"
    assert (first.start, first.end) == (0.0, 1.5)  # where "four" begins
    [second] = redactor([final("seven one nine please", 2.5)])
    assert second.text == f" {MASK} {MASK} please"
    assert second.start == 1.5
    assert redactor([END]) == [END]


def test_a_string_across_finals_that_stays_short_comes_out_with_the_next_one():
    redactor = Redactor(5)
    assert texts(redactor([final("room four two", 0)])) == ["room"]
    [second] = redactor([final("on the left", 1.5)])
    assert second.text == " four two on the left"
    assert second.start == 0.5
    assert [w.text for w in second.words] == [" four", " two", " on", " the", " left"]


def test_a_masked_string_goes_on_in_the_next_finals():
    out = call(
        Redactor(5),
        final("four two seven one nine", 0),
        final("and eight", 2.5),
        final("eight and that is all", 3.5),
        final("room five", 10),
    )
    assert texts(out) == [MASK, f"and {MASK}", f"{MASK} and that is all", "room", "five"]


def test_held_words_come_out_at_the_end():
    redactor = Redactor(5)
    assert redactor([final("press two", 0)])[0].text == " press"
    held, end = redactor([END])
    assert isinstance(held, Final)
    assert (held.text, held.reason, held.start, held.end) == (" two", "held", 0.5, 1.0)
    assert end is END
    assert held.segments[0].words[0].text == " two"


def test_nothing_is_held_when_the_call_ends_with_the_final():
    out = Redactor(5)([final("press two", reason="hangup"), END])
    assert texts(out) == ["press two"]


def test_two_last_finals_belong_together():
    out = Redactor(5)([final("four two", 0), final("seven one nine", 1), END])
    assert texts(out) == ["", f"{MASK} {MASK}"]


def test_after_a_long_pause_a_string_is_another_one():
    redactor = Redactor(5)
    redactor([final("four two", 0)])
    out = redactor([final("seven one nine", 1 + HOLD), END])
    assert texts(out) == ["four two seven one nine"]
    redactor = Redactor(5)
    redactor([final("four two", 0)])
    assert texts(redactor([final("seven one nine", HOLD), END])) == [f"{MASK} {MASK}"]


def test_a_masked_string_does_not_go_on_after_a_long_pause():
    redactor = Redactor(5)
    redactor([final("four two seven one nine", 0)])
    assert texts(redactor([final("two", 3 + HOLD), END])) == ["two"]


def test_held_words_come_out_once_a_pause_is_certain():
    redactor = Redactor(5)
    redactor([final("press two", 0)])
    assert redactor.due(0.9 + HOLD) == []
    [held] = redactor.due(1.0 + HOLD)
    assert held.text == " two"
    assert redactor.due(99.0) == []
    assert redactor([END]) == [END]


def test_an_empty_final_neither_ends_a_string_nor_shows_it():
    silence = Final(start=1.0, end=3.0, reason="reset")
    redactor = Redactor(5)
    redactor([final("four two", 0)])
    assert texts(redactor([silence])) == [""]
    assert texts(redactor([final("seven one nine", 3), END])) == [f"{MASK} {MASK}"]
    redactor = Redactor(5)
    redactor([final("four two seven one nine", 0)])
    redactor([silence])
    assert texts(redactor([final("eight it is", 3), END])) == [f"{MASK} it is"]
    redactor = Redactor(5)
    redactor([final("four two", 0)])
    out = redactor([Final(start=1.0, end=1.0 + HOLD, reason="reset")])
    assert texts(out) == ["four two"]


def test_held_words_without_word_times_get_theirs_by_their_place():
    plain = Segment(0.0, 10.0, " room 42")
    redactor = Redactor(5)
    [first] = redactor([Final(end=10.0, segments=(plain,))])
    held, _ = redactor([END])
    assert first.text == " room"
    assert held.text == " 42"
    assert 5.0 < held.start < 10.0
    assert first.end == held.start


def test_partials_mask_what_may_become_a_string():
    redactor = Redactor(5)
    assert redactor([partial("my card is four")])[0].text == f" my card is {MASK}"
    assert redactor([partial("press two please")])[0].text == " press two please"
    both = redactor([partial("four two seven is it and one nine for me")])[0]
    assert both.text == f" {MASK} is it and {MASK} for me"


def test_partials_show_what_is_held_masked():
    redactor = Redactor(5)
    redactor([final("card four two", 0)])
    [out] = redactor([partial("seven", 1.5)])
    assert out.text == f" {MASK} {MASK}"
    assert out.start == 0.5
    [out] = redactor([partial("is my room", 1.5)])
    assert out.text == " four two is my room"
    redactor([final("seven one nine", 1.5)])
    assert redactor([partial("eight of them", 3.0)])[0].text == f" {MASK} of them"


def test_keys_are_masked_and_marks_are_not():
    out = Redactor(5)([Dtmf(digit="4", start=1.0), Dtmf(digit="#", start=2.0)])
    assert [event.digit for event in out] == [KEY, "#"]


def test_answers_are_masked_like_finals():
    def answer(value: str | None, text: str) -> Answer:
        event = Answer(status="match", value=value, source="speech", text=text, language="en")
        [out] = Redactor(5)([event])
        return out

    long = answer("42719", "four two seven one nine")
    assert (long.value, long.text, long.status) == (MASK, MASK, "match")
    assert answer("4271", "four two seven one").value == "4271"
    assert answer("sales", "sales").text == "sales"
    assert answer(None, "call four two seven one nine").text == MASK


def test_what_guards_removed_shows_no_digits():
    event = Final(end=1.0, removed=("loop: four two seven four two seven",), language="en")
    [out, _] = Redactor(5)([event, END])
    assert out.removed == (f"loop: {MASK}",)


def test_other_events_pass_as_they_are():
    events = [CallStarted(caller="12345678"), Skipped(start=0, end=5, reason="silence")]
    assert Redactor(5)(events) == events


def random_call(chance: random.Random) -> tuple[list[str], list[int]]:
    """Words, and for each the length of the string of digits that it is in (0: none)."""
    words, lengths = [], []
    while len(words) < 60:
        size = chance.choice((0, 0, 1, 2, 3, 4, 5, 6, 9, 16))
        digits = [
            chance.choice((chance.choice(UNITS), str(chance.randrange(10)))) for _ in range(size)
        ]
        words += digits
        lengths += [size] * size
        fill = [chance.choice(("please", "call", "it's", "thanks", "the"))] * chance.randint(1, 3)
        words += fill
        lengths += [0] * len(fill)
    return words, lengths


@pytest.mark.parametrize("seed", range(40))
def test_however_a_call_is_cut_the_same_words_are_masked(seed: int):
    """Long strings never show, all else does, in order; at any cut into finals and segments."""
    chance = random.Random(seed)
    words, lengths = random_call(chance)
    wanted = [None if size >= 5 else word for word, size in zip(words, lengths, strict=True)]
    redactor, out, place, seen = Redactor(5), [], 0, []
    while place < len(words):
        pieces = []
        begin = place
        for _ in range(chance.randint(1, 3)):
            size = chance.randint(1, 7)
            if words[place : place + size]:
                pieces.append(segment(" ".join(words[place : place + size]), place * 0.5))
            place += size
        event = Final(start=begin * 0.5, end=min(place, len(words)) * 0.5, segments=tuple(pieces),
                      language="en", reason="reset")  # fmt: skip
        last = [END] if place >= len(words) else []
        if chance.random() < 0.7:
            seen += redactor([Partial(start=event.start, end=event.end, segments=event.segments,
                                      language="en")])  # fmt: skip
        out += redactor([event, *last])
    shown = " ".join(texts(out)).split()
    visible = [word for word in shown if word != MASK]
    assert visible == [word for word in wanted if word is not None]
    starts = [event.start for event in out if isinstance(event, Final)]
    assert starts == sorted(starts)
    secret = [w for w, size in zip(words, lengths, strict=True) if size >= 5]
    for event in seen:
        spoken = event.text.split()
        assert all(word.text in event.text for word in event.words)
        run = 0
        for word in spoken:  # no long string of digits shows in a partial either
            run = run + 1 if word in UNITS or word.isdigit() else 0
            assert run < 5
    assert secret or MASK not in shown
    for event in out:
        line = json.dumps(event.to_dict())
        if isinstance(event, Final):
            spelled = [word["text"].strip() for word in event.to_dict()["words"]]
            assert spelled == event.text.split(), line
