"""The window policy, driven through a session by a fake ear and a passed-in clock."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from fake_engine import FRAME, answer, floats, hear, make_session, speech, spoken

from aii.errors import ConfigError
from aii.streaming.events import CallEnded, Final, Partial, Skipped
from aii.streaming.policy import CallContext
from aii.streaming.window import WindowPolicy, WindowSettings

S = 16_000


def finals(events: list) -> list[tuple]:
    return [(e.start, e.end, e.text, e.reason) for e in events if isinstance(e, Final)]


def play(samples: np.ndarray, cuts: list[int], **settings) -> list:
    """Feed samples cut at ``cuts``, every request answered at once."""
    session = make_session(**settings)
    events = session.start()
    for a, b in itertools.pairwise([0, *cuts, len(samples)]):
        session.feed(floats(samples[a:b]))
        events += answer(session)
    events += session.finish("eof") + answer(session)
    assert session.done
    return events


def every(seconds: float, samples: np.ndarray) -> list[int]:
    return list(range(0, len(samples), round(seconds * S)))


def test_partials_at_exact_marks_whatever_the_reads():
    samples = speech(17.3)
    chance = np.random.default_rng(1)
    reference = play(samples, every(0.02, samples))
    marks = [(e.start, e.end) for e in reference if isinstance(e, Partial)]
    assert marks == [(0, 5), (0, 10), (0, 15)]
    assert finals(reference) == [(0, 17.3, spoken(samples), "hangup")]
    for _ in range(20):
        cuts = sorted(chance.integers(0, len(samples), 200).tolist())
        events = play(samples, cuts)
        assert finals(events) == finals(reference)
        assert [(e.start, e.end) for e in events if isinstance(e, Partial)][:1] == [(0, 5)]


def test_the_partial_holds_the_words_up_to_the_mark():
    samples = speech(6, seed=3)
    events = play(samples, [5 * S + 1])
    partial = next(e for e in events if isinstance(e, Partial))
    assert partial.text == spoken(samples[: 5 * S])
    assert partial.work.bytes == 160_000
    assert partial.words == ()


@pytest.mark.parametrize("seconds", [0.01, 3, 29.99, 30, 30.01, 61.7, 300])
@pytest.mark.parametrize("seed", [0, 1])
def test_carry_gives_each_word_once_however_it_is_cut(seconds, seed):
    samples = speech(seconds, seed)
    reference = play(samples, every(0.02, samples))
    assert "".join(e.text for e in reference if isinstance(e, Final)) == spoken(samples)
    spans = [(e.start, e.end) for e in reference if isinstance(e, Final)]
    assert spans[0][0] == 0
    assert spans[-1][1] == pytest.approx(seconds)
    assert all(a[1] == b[0] for a, b in itertools.pairwise(spans))
    for cuts in ([], [1], every(7.77, samples), every(31, samples)):
        assert finals(play(samples, cuts)) == finals(reference)


def test_finals_carry_word_times_and_partials_do_not():
    events = play(speech(8), [5 * S])
    partial, final = (e for e in events if isinstance(e, (Partial, Final)))
    assert not partial.words
    assert [w.text for w in final.words] == [s.text for s in final.segments]


@pytest.mark.parametrize("words, expected", [("none", [0, 0]), ("all", [1, 1])])
def test_word_times_can_be_chosen(words, expected):
    events = play(speech(8), [5 * S], words=words)
    assert [bool(e.words) for e in events if isinstance(e, (Partial, Final))] == expected


def test_hard_reset_cuts_at_exactly_thirty_seconds():
    samples = speech(65, seed=2)
    events = play(samples, every(1, samples), carry=False)
    assert [(e.start, e.end, e.reason) for e in events if isinstance(e, Final)] == [
        (0, 30, "reset"),
        (30, 60, "reset"),
        (60, 65, "hangup"),
    ]
    texts = [e.text for e in events if isinstance(e, Final)]
    assert texts == [spoken(samples[a * S : b * S]) for a, b in ((0, 30), (30, 60), (60, 65))]


def test_other_window_and_reset_lengths():
    samples = speech(25)
    events = play(samples, every(0.5, samples), window=2.0, reset=10.0, carry=False)
    assert [e.end for e in events if isinstance(e, Final)] == [10, 20, 25]
    marks = [e.end for e in events if isinstance(e, Partial)]
    assert marks == [2, 4, 6, 8, 12, 14, 16, 18, 22, 24]
    for window, reset in ((0, 30), (6, 5), (5, 31), (0.001, 30), (1.02, 1.004)):
        with pytest.raises(ConfigError, match="do not go together"):
            WindowSettings(window=window, reset=reset)


def test_window_and_reset_are_rounded_alike():
    samples = speech(3)
    events = play(samples, [], window=1.004, reset=1.004, carry=False)
    assert [e.end for e in events if isinstance(e, Final)] == [1, 2, 3]


def test_a_slow_engine_skips_marks_but_never_audio():
    samples = speech(75, seed=5)
    session = make_session()
    events, held = [], None
    for a in range(0, len(samples), S):  # each answer takes 12 s of audio
        session.feed(floats(samples[a : a + S]))
        if held is None:
            request = session.next_request(0.0)
            held = None if request is None else (request, a)
        if held is not None and a - held[1] >= 12 * S:
            events += session.accept(hear(held[0]))
            held = None
    if held is not None:
        events += session.accept(hear(held[0]))
    events += session.finish("eof") + answer(session)
    assert finals(events) == finals(play(samples, every(0.02, samples)))
    skipped = [e for e in events if isinstance(e, Skipped)]
    assert skipped
    assert all(e.reason == "behind" and not e.lost for e in skipped)
    assert session.counters.skipped == sum(e.windows for e in skipped)


def test_skipped_names_the_marks_that_were_left_out():
    samples = speech(22, seed=5)
    session = make_session()
    session.feed(floats(samples))
    skipped, partial = answer(session)
    assert (skipped.start, skipped.end, skipped.windows) == (0, 15, 3)
    assert (partial.start, partial.end) == (0, 20)


def test_carried_audio_is_shown_at_once_and_counts_as_no_skip():
    samples = np.full(52 * S, 9, np.int16)
    samples[: 3 * S] = 1  # 3 s, then one word of 49 s: 27 s are carried over
    events = play(samples, every(1, samples))
    assert not [e for e in events if isinstance(e, Skipped)]
    after = [e for e in events if isinstance(e, Partial) and e.start == 3]
    assert after[0].end == 28
    assert "".join(e.text for e in events if isinstance(e, Final)).startswith(" w1 w9")


def test_committed_tokens_are_the_prompt_until_a_hot_sample():
    session = make_session(prompt="names")
    session.feed(floats(speech(140, seed=4)))
    prompts = []
    for temperature in (0.0, 0.0, 0.8, 0.0):
        request = session.next_request(0.0)
        prompts.append((request.prompt, request.options["initial_prompt"]))
        heard = replace(hear(request), temperature=temperature)
        session.accept(heard)
        last = tuple(t for s in heard.segments for t in s.tokens)
    assert prompts[0] == ((), "names")
    assert prompts[1][0]
    assert prompts[1][1] == "names"
    assert prompts[2][0][: len(prompts[1][0])] == prompts[1][0]
    assert prompts[3] == ((), "")
    assert session.next_request(0.0).prompt == last


def test_silence_leaves_the_prompt_alone():
    session = make_session()
    session.feed(floats(speech(95)))
    session.accept(hear(session.next_request(0.0)))
    request = session.next_request(0.0)
    assert request.prompt
    nothing = replace(hear(request), segments=(), temperature=1.0, advance=30.0)
    *_, final = session.accept(nothing)
    assert (final.text, final.end - final.start) == ("", pytest.approx(30))
    assert session.next_request(0.0).prompt == request.prompt


@pytest.mark.parametrize("settings", [{"condition": False}, {"carry": False}])
def test_no_prompt_without_conditioning_or_with_hard_resets(settings):
    session = make_session(**settings)
    session.feed(floats(speech(95)))
    session.accept(hear(session.next_request(0.0)))
    assert session.next_request(0.0).prompt == ()


def test_the_first_final_settles_the_language():
    session = make_session()
    session.feed(floats(speech(75)))
    first = session.next_request(0.0)
    session.accept(replace(hear(first), language="de"))
    assert (first.language, session.next_request(0.0).language) == (None, "de")


def test_a_final_without_text_does_not_settle_the_language():
    session = make_session()
    session.feed(floats(speech(95)))
    silent = replace(hear(session.next_request(0.0)), segments=(), language="nn", advance=30.0)
    session.accept(silent)
    request = session.next_request(0.0)
    assert request.language is None
    session.accept(replace(hear(request), language="de"))
    assert session.next_request(0.0).language == "de"


def test_finals_are_wanted_before_partials():
    session = make_session()
    session.feed(floats(speech(33)))
    final = session.next_request(7.0)
    session.accept(hear(final))
    session.feed(floats(speech(8)))
    partial = session.next_request(7.0)
    assert (final.duration, final.deadline) == (30, 7.0)
    assert (partial.duration < 30, partial.deadline) == (True, 8.0)


@pytest.mark.parametrize("carry", [True, False])
@pytest.mark.parametrize("words", ["none", "final", "all"])
def test_times_never_go_back_from_final_to_final(carry, words):
    """Word times wander off by up to 2 s on both sides, as cross-attention may have it."""
    chance = np.random.default_rng(3)

    def wander(segment):
        def off(time):
            return time + float(chance.uniform(-2, 2))

        spoken = tuple(replace(w, start=off(w.start), end=off(w.end)) for w in segment.words)
        return replace(segment, start=off(segment.start), end=off(segment.end), words=spoken)

    samples = speech(130, seed=3)
    session = make_session(carry=carry, words=words)
    session.feed(floats(samples))
    session.finish("eof")
    found = []
    while (request := session.next_request(0.0)) is not None:
        heard = hear(request)
        heard = replace(heard, segments=tuple(wander(s) for s in heard.segments))
        found += [e for e in session.accept(heard) if isinstance(e, Final)]
    if carry:
        assert "".join(final.text for final in found) == spoken(samples)
    for before, after in itertools.pairwise(found):
        assert before.end == after.start
    for final in found:
        assert bool(final.words) == (words != "none")
        for item in (*final.segments, *final.words):
            assert final.start <= item.start
            assert item.end <= final.end


def test_a_result_that_accounts_for_nothing_ends_its_window():
    session = make_session()
    session.feed(floats(speech(31)))
    *_, final = session.accept(replace(hear(session.next_request(0.0)), advance=0.0))
    assert final.end == 30


def test_flush_makes_everything_so_far_final():
    samples = speech(50, seed=6)
    session = make_session()
    session.feed(floats(samples[: 7 * S + 50]))
    session.flush()
    session.feed(floats(samples[7 * S + 50 : 40 * S]))
    session.flush()
    session.flush()
    session.feed(floats(samples[40 * S :]))
    events = answer(session) + session.finish("eof") + answer(session)
    assert finals(events)[0][1:] == (7.0, spoken(samples[: 7 * S]), "flush")
    assert [e.reason for e in events if isinstance(e, Final)][-1] == "hangup"
    ends = [e.end for e in events if isinstance(e, Final) and e.reason == "flush"]
    assert ends[0] == pytest.approx(7, abs=0.01)
    assert ends[-1] == pytest.approx(40, abs=0.01)
    assert session.done


def test_a_flush_without_audio_does_nothing():
    session = make_session()
    session.flush()
    session.feed(np.zeros(FRAME - 1, np.float32))
    session.flush()
    assert session.next_request(0.0) is None
    assert [type(e) for e in session.finish("eof")] == [CallEnded]


def test_a_failed_partial_is_skipped_and_a_failed_final_tried_once_more():
    samples = speech(40, seed=7)
    session = make_session()
    session.feed(floats(samples[: 5 * S]))
    request = session.next_request(0.0)
    (skipped,) = session.fail(request.request_id, RuntimeError("no\nluck"))
    assert (skipped.reason, skipped.lost, skipped.end) == ("error: no luck", False, 5)
    session.feed(floats(samples[5 * S :]))
    first = session.next_request(0.0)
    assert session.fail(first.request_id, RuntimeError("x")) == []
    second = session.next_request(0.0)
    assert second.request_id != first.request_id
    assert np.array_equal(second.samples, first.samples)
    *_, final = session.accept(hear(second))
    assert (final.reason, final.error) == ("reset", None)


def test_a_final_that_fails_twice_is_empty_and_says_why():
    session = make_session()
    session.feed(floats(speech(33)))
    for _ in range(2):
        events = session.fail(session.next_request(0.0).request_id, ValueError("bad"))
    final = events[-1]
    assert (final.text, final.reason, final.error, final.end) == ("", "error", "bad", 30)
    events = session.finish("eof") + answer(session)
    assert [e.reason for e in events] == ["hangup", "eof"]


def test_the_last_final_accounts_for_all_of_the_audio():
    """Also for the last samples, which make no whole frame of 10 ms."""
    for extra in (0, 1, FRAME - 1):
        samples = np.concatenate([speech(7, seed=5), np.zeros(extra, np.int16)])
        events = play(samples, every(0.5, samples))
        assert finals(events)[-1][1] == len(samples) / S


def test_a_final_that_fails_twice_says_what_was_shown_before():
    samples = speech(33, seed=4)
    session = make_session()
    session.feed(floats(samples[: 26 * S]))
    *_, partial = session.accept(hear(session.next_request(0.0)))
    session.feed(floats(samples[26 * S :]))
    for _ in range(2):
        events = session.fail(session.next_request(0.0).request_id, ValueError("bad"))
    final = events[-1]
    assert final.text == partial.text == spoken(samples[: 25 * S])
    assert (final.reason, final.error, final.end) == ("error", "bad", 30)
    session.feed(floats(speech(4)))
    for _ in range(2):  # nothing was shown of what follows
        session.flush()
        events = session.fail(session.next_request(0.0).request_id, ValueError("bad"))
    assert events[-1].text == ""


def test_a_refused_request_is_made_again_with_what_has_come_since():
    samples = speech(12)
    session = make_session()
    session.feed(floats(samples[: 6 * S]))
    session.refuse(session.next_request(10.0).request_id, 10.0)
    assert session.next_request(10.01) is None
    assert session.wake_at == pytest.approx(10.05)
    session.feed(floats(samples[6 * S :]))
    request = session.next_request(10.06)
    assert request.duration == 10
    assert request.deadline == pytest.approx(11.06)
    skipped, partial = session.accept(hear(request))
    assert (skipped.windows, partial.end) == (1, 10)


def test_a_refused_retry_of_a_final_is_retried():
    session = make_session()
    session.feed(floats(speech(33)))
    session.fail(session.next_request(0.0).request_id, ValueError("bad"))
    session.refuse(session.next_request(0.0).request_id, 0.0)
    request = session.next_request(1.0)
    assert request.duration == 30
    assert session.fail(request.request_id, ValueError("bad"))[-1].reason == "error"


def test_the_policy_alone_refuses_answers_that_nobody_waits_for():
    policy = WindowPolicy(CallContext("c", itertools.count(1)), WindowSettings())
    with pytest.raises(RuntimeError, match="no request"):
        policy.refuse()
