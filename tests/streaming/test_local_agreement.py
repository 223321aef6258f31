"""The local-agreement policy with ears that err as a model does."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from fake_engine import VOCABULARY, answer, floats, hear, make_session, speech, spoken

from aii.errors import ConfigError
from aii.streaming.events import Final, Partial, Skipped
from aii.streaming.guards import GuardSettings
from aii.streaming.local_agreement import AgreementSettings
from aii.types import DecodeRequest, Hypothesis, Segment, Token, Word

S = 16_000


def session(**settings):
    return make_session(policy="local-agreement", **settings)


def finals(events: list) -> list[str]:
    return [event.text for event in events if isinstance(event, Final)]


def text(events: list) -> str:
    return "".join(finals(events))


def nervous(request: DecodeRequest) -> Hypothesis:
    """A word that is cut off by the end of the audio is heard as something else each time."""
    heard = hear(request)
    if not heard.segments or heard.segments[-1].end < request.start + request.duration - 0.02:
        return heard
    last = heard.segments[-1]
    guess = f" x{len(request.samples)}"
    word = replace(last.words[0], text=guess)
    return replace(heard, segments=(*heard.segments[:-1], replace(last, text=guess, words=(word,))))


def scripted(request: DecodeRequest, *texts: str, each: float = 0.5, **fields) -> Hypothesis:
    """An answer that says ``texts``, a segment each, ``each`` seconds a word."""
    segments, time = [], request.start
    for part in texts:
        words = []
        for word in part.split():
            words.append(Word(" " + word, time, time + each, 0.9))
            time += each
        segments.append(Segment(words[0].start, time, part, (), tuple(words)))
    tokens = tuple(Token(token) for part in texts for token in VOCABULARY.encode(part))
    return Hypothesis(request.request_id, tokens, tuple(segments), **fields)


def test_what_the_model_changes_its_mind_about_is_never_final():
    samples = np.concatenate([speech(40.0, 3, longest=0.9, shortest=0.2), np.zeros(S, np.int16)])
    call = session()
    events = []
    for a in range(0, len(samples), 4000):
        call.feed(floats(samples[a : a + 4000]))
        events += answer(call, hear=nervous)
    assert "x" in "".join(event.text for event in events if isinstance(event, Partial))
    events += call.finish("eof") + answer(call, hear=nervous)
    assert text(events) == spoken(samples)


def test_a_word_is_final_at_the_second_hearing_and_partial_at_the_first():
    call = session()
    samples = np.concatenate([np.full(S // 2, 1, np.int16), np.zeros(4 * S, np.int16)])
    call.feed(floats(samples[:S]))
    (partial,) = answer(call)
    assert (partial.type, partial.text, partial.start, partial.end) == ("partial", " w1", 0, 1)
    call.feed(floats(samples[S : 2 * S]))
    (final,) = answer(call)
    assert (final.reason, final.text, final.start, final.end) == ("agreement", " w1", 0, 0.5)
    assert [word.text for word in final.words] == [" w1"]
    assert final.work.passes > 0


def test_the_end_decodes_once_more_and_gives_the_tail():
    call = session()
    samples = speech(3.4, 1, longest=0.5, shortest=0.3)
    call.feed(floats(samples))
    before = answer(call)
    assert text(before) != spoken(samples)
    asked = call.finish("eof")
    assert asked == []
    request = call.next_request(0.0)
    assert request.duration == pytest.approx(3.4)
    after = call.accept(hear(request))
    assert [event.type for event in after] == ["final", "ended"]
    assert after[0].reason == "hangup"
    assert text(before + after) == spoken(samples)


def test_words_in_the_buffer_are_heard_and_those_before_it_are_prompted():
    call = session(prompt="Meier")
    samples = np.concatenate([speech(60.0, 2, longest=0.9, shortest=0.3), np.zeros(S, np.int16)])
    fixed, heard = VOCABULARY.encode("Meier"), ""
    lengths = []
    for a in range(0, len(samples), S):
        call.feed(floats(samples[a : a + S]))
        while (request := call.next_request(0.0)) is not None:
            assert request.options["word_timestamps"] is True
            assert request.options["keep_tail"] is True
            assert request.prompt[: len(fixed)] == fixed
            before = VOCABULARY.text(request.prompt[len(fixed) :])
            assert len(before) <= 200
            if before:
                inside = spoken(np.rint(request.audio * 32768).astype(int))
                assert spoken(samples).find(before + inside[:4]) >= 0  # one follows the other
                assert heard.endswith(before[-20:]) or before in heard
            lengths.append(request.duration)
            events = call.accept(hear(request))
            heard += text(events)
    assert max(lengths) <= 16.0
    assert lengths[-1] > 5


def test_no_prompt_without_conditioning_but_the_calls_own():
    call = session(prompt="Meier", condition=False)
    for _ in range(30):
        call.feed(floats(speech(1.0, 1)))
        while (request := call.next_request(0.0)) is not None:
            assert request.prompt == VOCABULARY.encode("Meier")
            call.accept(hear(request))


def test_the_call_prompt_survives_a_long_text():
    call = session(prompt="Meier " * 60)
    call._policy._text = " word" * 60
    prompt = call._policy._prompt()
    assert len(prompt) <= 223
    assert prompt[:60] == VOCABULARY.encode("Meier " * 60)[:60]


def test_drafts_come_from_the_answer_before():
    call = session()
    call.feed(floats(speech(2.0, 1, longest=0.5, shortest=0.3)))
    first = call.next_request(0.0)
    heard = hear(first)
    call.accept(heard)
    assert first.draft == ()
    assert call.next_request(0.0).draft == tuple(token.id for token in heard.tokens)
    off = session(drafts=False)
    off.feed(floats(speech(2.0, 1)))
    off.accept(hear(off.next_request(0.0)))
    assert off.next_request(0.0).draft is None


def test_a_buffer_without_agreement_is_cut_at_its_middle_and_loses_nothing():
    """Every update hears other words; each stretch of audio is still in exactly one final."""
    call = session()
    events, count = [], 0

    def ear(request: DecodeRequest) -> Hypothesis:
        nonlocal count
        count += 1
        words = [f"n{count}-{i}" for i in range(int(request.duration * 2))]
        return scripted(request, " ".join(words))

    for _ in range(60):
        call.feed(np.ones(S, np.float32))
        events += answer(call, hear=ear)
        assert call.backlog <= 16
    events += call.finish("eof") + answer(call, hear=ear)
    spans = [(event.start, event.end) for event in events if isinstance(event, Final)]
    assert spans[0][0] == 0
    assert spans[-1][1] == 60
    assert all(a[1] == b[0] for a, b in itertools.pairwise(spans))
    assert {event.reason for event in events if isinstance(event, Final)} == {"reset", "hangup"}
    words = [word for event in events if isinstance(event, Final) for word in event.words]
    assert len(words) == pytest.approx(120, abs=8)
    assert all(word.end - word.start == pytest.approx(0.5) for word in words)


def test_silence_is_forgotten_without_a_word():
    call = session()
    events = []
    for _ in range(90):
        call.feed(np.zeros(S, np.float32))
        events += answer(call)
        assert call.backlog <= 16
    assert not text(events)


def test_one_word_that_never_ends_becomes_final_when_the_buffer_is_full():
    call = session()
    events = []
    samples = np.full(65 * S, 7, np.int16)
    for a in range(0, len(samples), S):
        call.feed(floats(samples[a : a + S]))
        while (request := call.next_request(0.0)) is not None:
            assert request.duration <= 30
            events += call.accept(hear(request))
    events += call.finish("eof") + answer(call)
    assert call.done
    said = [words for words in finals(events) if words]
    assert set(said) == {" w7"}
    assert len(said) <= 8  # one per buffer or two


def test_a_loop_is_cut_reported_and_kept_out_of_the_prompt():
    call = session()
    for _ in range(2):  # agreed on
        call.feed(np.ones(S, np.float32))
        call.accept(scripted(call.next_request(0.0), " well hello", each=0.2))
    call._policy._text = " spoken long ago"
    loop = " well hello" + " no" * 12
    found = []
    for _ in range(2):
        call.feed(np.ones(S, np.float32))
        found += call.accept(scripted(call.next_request(0.0), loop, each=0.1))
    assert all(event.removed for event in found if isinstance(event, Final) or event.text)
    assert "loop: no no" in found[0].removed[0]
    assert text(found).split().count("no") <= 1
    call.feed(np.ones(S, np.float32))
    assert call.next_request(0.0).prompt == ()
    off = session(guards=GuardSettings(loop=False))
    for _ in range(2):
        off.feed(np.ones(S, np.float32))
        last = off.accept(scripted(off.next_request(0.0), loop, each=0.1))
    assert text(last).split().count("no") == 12


def test_a_loop_in_the_last_words_is_decoded_again_without_the_text_before():
    call = session()
    call._policy._text = " no no"
    call.feed(np.ones(S // 2, np.float32))
    call.finish("eof")
    request = call.next_request(0.0)
    assert request.prompt
    assert call.accept(scripted(request, " no" * 9, each=0.05)) == []
    again = call.next_request(0.0)
    assert again.prompt == ()
    final, ended = call.accept(scripted(again, " goodbye"))
    assert (final.text, final.reason, final.removed, ended.type) == (
        " goodbye",
        "hangup",
        (),
        "ended",
    )


def test_a_language_is_kept_once_enough_was_heard():
    call = session()
    for _ in range(2):
        call.feed(np.ones(S, np.float32))
        request = call.next_request(0.0)
        assert request.language is None
        call.accept(scripted(request, " guten", language="de"))
    call.feed(np.ones(S, np.float32))
    call.accept(scripted(call.next_request(0.0), " guten tag", language="de"))
    call.feed(np.ones(S, np.float32))
    assert call.next_request(0.0).language == "de"


def test_a_failed_update_is_skipped_and_a_failed_stop_keeps_what_is_known():
    call = session()
    call.feed(floats(speech(1.0, 1, longest=0.5, shortest=0.3)))
    partial = call.accept(hear(call.next_request(0.0)))[0]
    call.feed(floats(speech(1.4, 2)))
    (skipped,) = call.fail(call.next_request(0.0).request_id, RuntimeError("no\nluck"))
    assert isinstance(skipped, Skipped)
    assert (skipped.reason, skipped.lost) == ("error: no luck", False)
    call.finish("eof")
    assert call.fail(call.next_request(0.0).request_id, RuntimeError("x")) == []
    final, ended = call.fail(call.next_request(0.0).request_id, RuntimeError("x"))
    assert (final.reason, final.error, final.text) == ("error", "x", partial.text)
    assert (final.start, final.end, ended.type) == (0, 2.4, "ended")


def test_an_engine_that_always_fails_never_gets_more_than_thirty_seconds():
    call = session()
    events = []
    for _ in range(70):
        call.feed(np.ones(S, np.float32))
        while (request := call.next_request(0.0)) is not None:
            assert request.duration <= 30
            events += call.fail(request.request_id, RuntimeError("x"))
    assert call.backlog <= 30
    errors = [event for event in events if isinstance(event, Final)]
    assert [event.reason for event in errors] == ["error"] * len(errors)
    assert len(errors) == 2


def test_a_refused_update_is_made_again():
    call = session()
    call.feed(floats(speech(2.0, 1)))
    first = call.next_request(0.0)
    call.refuse(first.request_id, 0.0)
    again = call.next_request(1.0)
    assert (again.start, again.duration) == (first.start, first.duration)
    call.finish("eof")
    call.accept(hear(again))
    call.accept(hear(call.next_request(1.0)))
    stop = call.next_request(1.0)
    assert stop is None or stop.duration == 2.0


@pytest.mark.parametrize("bad", [{"step": 0.0}, {"trim": 0.0}, {"step": 15.0}, {"trim": 29.5}])
def test_settings_that_make_no_sense(bad):
    with pytest.raises(ConfigError, match="do not go together"):
        AgreementSettings(**bad)
