"""The alignatt policy: what is forced, what is held back, what a full buffer costs."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from fake_engine import STEP, VOCABULARY, answer, floats, hear, make_session, speech, spoken

from aii.streaming.alignatt import CONTEXT, FORCED, PATIENCE, AlignAttSettings
from aii.streaming.events import Final, Partial, Skipped
from aii.streaming.guards import LIMIT, GuardSettings
from aii.types import DecodeRequest, Hypothesis, Token

S = 16_000
EOT = VOCABULARY.tokenizer().eot


def session(**settings):
    return make_session(policy="alignatt", **settings)


def text(events: list) -> str:
    return "".join(event.text for event in events if isinstance(event, Final))


def tokens(said: str, frame: int = 0, step: int = 5) -> tuple[Token, ...]:
    """``said`` as tokens, each attending ``step`` frames behind the one before."""
    ids = VOCABULARY.tokenizer().encode(said)
    return tuple(Token(token, math.log(0.5), frame + step * i) for i, token in enumerate(ids))


def dropped(said: str, frame: int) -> Token:
    return Token(VOCABULARY.tokenizer().encode(said)[0], -1.0, frame)


def update(call, seconds: float = 0.5) -> DecodeRequest:
    """Half a second more, and the request for it."""
    call.feed(np.ones(round(seconds * S), np.float32))
    return call.next_request(0.0)


def reply(request: DecodeRequest, **fields) -> Hypothesis:
    return Hypothesis(request.request_id, **fields)


def test_a_word_behind_which_another_begins_is_final_at_once():
    call = session()
    request = update(call, 2.0)
    for _ in range(3):
        call.accept(reply(request))
        request = call.next_request(0.0)
    said = tokens(" hello there", 10)
    (final,) = call.accept(
        reply(request, tokens=said, stopped="attention", dropped=dropped(" you", 80))
    )
    assert (final.text, final.reason) == (" hello there", "agreement")
    assert [word.start for word in final.words] == [0.2, 0.3]
    assert final.words[0].end == 0.3
    assert final.words[0].probability == pytest.approx(0.5)
    assert update(call).prefix == tuple(token.id for token in said)


def test_words_reach_from_where_their_attention_rises_to_where_it_falls():
    call = session()
    first, second, third = tokens(" one two three", 10, step=20)
    said = (
        replace(first, span=(5, 19)),
        replace(second, span=(24, 44)),
        replace(third, span=(40, 54)),
    )
    request = update(call, 2.0)
    for _ in range(3):
        call.accept(reply(request))
        request = call.next_request(0.0)
    (final,) = call.accept(
        reply(request, tokens=said, stopped="attention", dropped=dropped(" you", 80))
    )
    places = [(word.start, word.end) for word in final.words]
    assert [time for pair in places for time in pair] == pytest.approx(
        [0.1, 0.4, 0.48, 0.8, 0.8, 1.1]  # the next word ends the one before it
    )


@pytest.mark.parametrize("behind", [dropped("ing", 80), None])
def test_a_word_that_may_go_on_is_held_back(behind):
    call = session()
    said = tokens(" I am go", 10)
    final, partial = call.accept(
        reply(update(call), tokens=said, stopped="attention", dropped=behind)
    )
    assert (final.text, partial.text) == (" I am", " go")
    assert isinstance(partial, Partial)
    assert partial.start == final.end
    request = update(call)
    assert VOCABULARY.text(request.prefix) == " I am"
    assert request.stop.last_frame == said[1].frame


def test_a_word_before_the_end_of_the_text_is_final():
    call = session()
    end = Token(EOT)
    (final,) = call.accept(reply(update(call), tokens=tokens(" bye"), stopped="end", dropped=end))
    assert final.text == " bye"


def test_without_holding_back_everything_is_final():
    call = session(alignatt=AlignAttSettings(hold=False))
    said = tokens(" I am go")
    (final,) = call.accept(reply(update(call), tokens=said, stopped="attention"))
    assert final.text == " I am go"


def test_half_a_character_is_never_shown():
    call = session()
    whole = tokens(" hi ☎")
    assert len(whole) >= 3
    events = call.accept(
        reply(update(call), tokens=whole[:-1], stopped="attention", dropped=whole[-1])
    )
    assert [(event.type, event.text) for event in events] == [("partial", " hi")]
    call.finish("eof")
    final, _ended = call.accept(reply(call.next_request(0.0), tokens=whole[:-1]))
    assert final.text == " hi"
    whole_call = session()
    (final,) = whole_call.accept(reply(update(whole_call), tokens=whole, stopped="end"))
    assert final.text == " hi ☎"


def test_what_a_request_says():
    call = session(prompt="Meier", language="en")
    request = update(call)
    stop = request.stop
    assert (stop.threshold, stop.rewind, stop.last_frame, stop.max_tokens) == (25, 200, 0, 50)
    assert request.options["initial_prompt"] == "Meier"
    assert request.options["suppress_blank"] is False
    assert (request.prompt, request.prefix, request.language) == ((), (), "en")
    call.accept(reply(request))
    call.feed(np.ones(4 * S, np.float32))
    call.finish("eof")
    while (request := call.next_request(0.0)).stop.rewind is not None:
        call.accept(reply(request))
    assert request.stop.threshold == 4
    assert request.duration == 4.5
    assert request.stop.max_tokens == math.ceil(22.5 * 4.5)
    beams = session(alignatt=AlignAttSettings(beams=5))
    assert update(beams).options["beam_size"] == 5
    assert "beam_size" not in request.options


def test_a_rewind_throws_away_the_update_and_nothing_else():
    call = session()
    call.accept(
        reply(update(call), tokens=tokens(" one"), stopped="attention", dropped=dropped(" two", 20))
    )
    (partial,) = call.accept(reply(update(call), stopped="rewind"))
    assert (partial.type, partial.text) == ("partial", "")
    assert VOCABULARY.text(update(call).prefix) == " one"


def test_text_that_says_something_again_is_cut_and_that_is_said():
    call = session()
    request = update(call)
    assert request.stop.repeats
    said = tokens(" four five", 10)
    final, partial = call.accept(
        reply(request, tokens=said, stopped="repeat", dropped=dropped(" four", 10))
    )
    assert (final.text, partial.text) == (" four", " five")  # the last word may be half of one
    assert final.removed == ("repeat: four, heard before",)
    call.finish("eof")
    request = call.next_request(0.0)
    assert request.stop.repeats
    final, _ended = call.accept(
        reply(request, tokens=said[1:], stopped="repeat", dropped=dropped(" four", 10))
    )
    assert final.text == " five"


def test_a_model_that_only_repeats_itself_is_let_go_on_in_the_end():
    call = session()
    watched = []
    for _ in range(7):
        request = update(call)
        watched.append(request.stop.repeats)
        if request.stop.repeats:
            call.accept(reply(request, stopped="repeat", dropped=dropped(" four", 10)))
        else:
            said = tokens(" four five", 10)
            call.accept(reply(request, tokens=said, stopped="end", dropped=Token(EOT)))
    assert watched == [True] * PATIENCE + [False] + [True] * (6 - PATIENCE)


def test_the_guard_against_repetition_can_be_switched_off():
    call = session(guards=GuardSettings(repeat=False))
    assert not update(call).stop.repeats


def test_times_never_go_back_however_the_model_attends():
    call = session()
    times = []
    for place in (40, 10, 70, 5):
        said = tokens(" word", place)
        events = call.accept(
            reply(update(call, 1.0), tokens=said, stopped="attention", dropped=dropped(" a", 90))
        )
        times += [(word.start, word.end) for event in events for word in event.words]
        while (request := call.next_request(0.0)) is not None:
            call.accept(reply(request))
    flat = [time for pair in times for time in pair]
    assert flat == sorted(flat)
    assert len(times) == 4


def test_a_full_buffer_lets_its_beginning_go_into_the_context():
    """In a long call of perfect hearing the forced tokens are always what the audio says."""
    call = session(prompt="Meier", alignatt=AlignAttSettings(buffer=10.0))
    samples = np.concatenate(
        [speech(90.0, 4, longest=0.8, shortest=0.3, pause=0.1), np.zeros(S, np.int16)]
    )
    events, contexts = [], []
    for a in range(0, len(samples), 3200):
        call.feed(floats(samples[a : a + 3200]))
        while (request := call.next_request(0.0)) is not None:
            assert request.duration <= 10.6 or request.stop.threshold == 4
            assert len(request.prefix) <= FORCED + 50
            assert len(request.prompt) <= CONTEXT
            contexts.append((VOCABULARY.text(request.prompt), VOCABULARY.text(request.prefix)))
            events += call.accept(hear(request))
            before, forced = contexts[-1]
            assert spoken(samples).find(before + forced) >= 0
    events += call.finish("eof") + answer(call)
    assert text(events) == spoken(samples)
    assert len(contexts[-1][0]) > 100
    assert not [event for event in events if isinstance(event, Final) and event.reason == "reset"]


def test_no_context_without_conditioning():
    call = session(condition=False, alignatt=AlignAttSettings(buffer=6.0))
    samples = speech(30.0, 4, longest=0.8, shortest=0.3)
    for a in range(0, len(samples), 3200):
        call.feed(floats(samples[a : a + 3200]))
        while (request := call.next_request(0.0)) is not None:
            assert request.prompt == ()
            call.accept(hear(request))


def test_many_tokens_let_words_go_before_the_buffer_is_full():
    call = session()
    place = 0
    for _ in range(40):
        request = update(call)
        assert len(request.prefix) <= FORCED + 20
        place = len(request.samples) // STEP - 26
        said = tokens(" a b c d e f g h", place - 24, 3)
        call.accept(reply(request, tokens=said, stopped="attention", dropped=dropped(" i", place)))
        while (more := call.next_request(0.0)) is not None:
            call.accept(reply(more))
    assert call.backlog < 20


def test_a_buffer_in_which_nothing_is_said_is_made_final_and_dropped():
    call = session(alignatt=AlignAttSettings(buffer=6.0))
    events = []
    for _ in range(40):
        request = update(call)
        while request is not None:
            last = request.stop.threshold == 4
            said = tokens(" mumble", 20) if last else ()
            stopped = "end" if last else "rewind"
            events += call.accept(reply(request, tokens=said, stopped=stopped))
            request = call.next_request(0.0)
    found = [(e.text, e.reason, e.start, e.end) for e in events if isinstance(e, Final)]
    assert [item[:2] for item in found] == [(" mumble", "reset")] * 3
    assert found[0][3] == found[1][2]
    assert call.backlog <= 6.5


def test_a_pause_lets_the_words_before_it_go():
    call = session()
    samples = np.concatenate(
        [speech(4.0, 1, longest=0.8, shortest=0.3), np.zeros(20 * S, np.int16)]
    )
    for a in range(0, len(samples), S // 2):
        call.feed(floats(samples[a : a + S // 2]))
        answer(call)
        if a > 10 * S:
            break
    call.feed(np.zeros(S // 2, np.float32))
    request = call.next_request(0.0)
    assert request.prefix == ()
    assert VOCABULARY.text(request.prompt) == spoken(samples)


def test_a_loop_ends_and_is_neither_forced_nor_prompted():
    call = session()
    call._policy._before = [VOCABULARY.encode("long ago")]
    events = []
    for i in range(10):
        request = update(call)
        if request.prefix == () and i > 3:
            break
        events += call.accept(
            reply(
                request,
                tokens=tokens(" no", 25 * i),
                stopped="attention",
                dropped=dropped(" no", 25 * i + 5),
            )
        )
    assert text(events).split() == ["no"] * 7
    removed = [line for event in events for line in event.removed]
    assert removed == ["loop: no"]
    assert (request.prompt, request.prefix) == ((), ())
    off = session(guards=GuardSettings(loop=False))
    said = tokens(" no" * 12)
    (final,) = off.accept(reply(update(off), tokens=said, stopped="end"))
    assert final.text.split() == ["no"] * 12


def test_unconvincing_words_in_silence_are_removed_and_named():
    call = session()
    silent = {"no_speech_prob": 0.9, "avg_logprob": -1.5}
    (partial,) = call.accept(reply(update(call), tokens=tokens(" thank you"), **silent))
    assert (partial.text, partial.removed) == ("", ("no-speech: thank you",))
    assert update(call).prefix == ()
    off = session(guards=GuardSettings(no_speech=None))
    (final,) = off.accept(reply(update(off), tokens=tokens(" thank you"), **silent))
    assert final.text == " thank you"


def test_a_flood_of_tokens_is_told():
    call = session()
    final, partial = call.accept(
        reply(update(call), tokens=tokens(" so much text"), stopped="limit")
    )
    assert (final.text, partial.text, final.removed) == (" so much", " text", (LIMIT,))


def test_the_language_is_kept_once_enough_was_heard():
    call = session()
    request = update(call)
    seen = []
    while len(seen) < 8:
        seen.append(request.language)
        call.accept(reply(request, tokens=tokens(" tag"), stopped="end", language="de"))
        request = update(call)
    assert seen[:6] == [None] * 6
    assert seen[6:] == ["de", "de"]


def test_a_stop_gives_all_and_forgets_the_buffer():
    call = session()
    samples = speech(3.0, 5, longest=0.7, shortest=0.4, pause=0.2)
    call.feed(floats(samples))
    call.flush()
    events = answer(call)
    assert text(events) == spoken(samples)
    assert events[-1].reason == "flush"
    request = update(call)
    assert (request.start, request.duration, request.prefix) == (3.0, 0.5, ())
    assert VOCABULARY.text(request.prompt) == spoken(samples)


def test_failures():
    call = session()
    call.accept(reply(update(call), tokens=tokens(" I am go"), stopped="attention", dropped=None))
    (skipped,) = call.fail(update(call).request_id, RuntimeError("x"))
    assert isinstance(skipped, Skipped)
    call.finish("eof")
    for _ in range(2):
        events = call.fail(call.next_request(0.0).request_id, RuntimeError("gone"))
    final, _ended = events
    assert (final.text, final.reason, final.error) == (" go", "error", "gone")


def test_beams_and_greedy_hear_the_same_where_they_agree():
    samples = speech(10.0, 2, longest=0.8, shortest=0.4)
    texts = []
    for beams in (None, 4):
        call = session(alignatt=AlignAttSettings(beams=beams))
        call.feed(floats(np.concatenate([samples, np.zeros(S, np.int16)])))
        events = answer(call) + call.finish("eof") + answer(call)
        texts.append(text(events))
    assert texts == [spoken(samples)] * 2


def test_a_single_very_late_word_does_not_keep_the_silence_before_it():
    call = session(alignatt=AlignAttSettings(buffer=6.0, pause=30.0))
    for _ in range(12):
        call.accept(reply(update(call), stopped="rewind"))
    request = update(call)
    said = tokens(" late", 300)
    call.accept(reply(replace(request), tokens=said, stopped="end"))
    assert call.backlog < 2
    assert update(call).prefix == tuple(token.id for token in said)
