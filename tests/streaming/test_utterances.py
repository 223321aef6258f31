"""Sessions that hear what a voice detector judges to be speech, under every policy."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from fake_engine import VOCABULARY, answer, call_settings, floats, hear, speech, spoken
from hypothesis import given, settings
from hypothesis import strategies as st
from question_rig import DETECTOR

from aii.audio.vad import STEP
from aii.streaming.endpointing import EndpointSettings
from aii.streaming.events import CallEnded, Final, NoSpeech, Skipped, SpeechEnded, SpeechStarted
from aii.streaming.factory import Sessions
from aii.streaming.session import Session
from aii.streaming.settings import POLICIES

S = 16_000


def session(policy: str = "window", *, longest: float = 30.0, **own) -> Session:
    wanted = call_settings(policy=policy, **own)
    sessions = Sessions(wanted, VOCABULARY, voice=True)
    endpointing = EndpointSettings(longest=longest, cut_back=min(2.0, longest / 2))
    from dataclasses import replace

    return sessions.make("c", settings=replace(wanted, endpointing=endpointing, vad_gate=None))


def phrases(*parts: float, seed: int = 0) -> np.ndarray:
    """Seconds of speech and, as negative numbers, of silence; no word twice."""
    pieces, said = [], 0
    for i, seconds in enumerate(parts):
        if seconds < 0:
            pieces.append(np.zeros(round(-seconds * S), np.int16))
            continue
        piece = speech(seconds, seed + i, longest=0.8, shortest=0.3, pause=0.1)
        piece[piece > 0] += said
        said = int(piece.max())
        pieces.append(piece)
    return np.concatenate(pieces)


def judge(call: Session) -> list:
    """Let the detector and the engine answer all that is due."""
    events = call.check()
    while True:
        voice = call.next_voice()
        request = call.next_request(0.0)
        if voice is None and request is None:
            return events
        if voice is not None:
            events += call.heard(DETECTOR.run([voice])[0])
        if request is not None:
            events += call.accept(hear(request))


def play(samples: np.ndarray, cuts: list[int], policy: str, **own) -> list:
    call = session(policy, **own)
    events = call.start()
    for a, b in itertools.pairwise([0, *cuts, len(samples)]):
        call.feed(floats(samples[a:b]))
        events += judge(call)
    events += call.finish("eof") + judge(call)
    assert call.done
    return events


def text(events: list) -> str:
    return "".join(event.text for event in events if isinstance(event, Final))


def of(kind: type, events: list) -> list:
    return [event for event in events if isinstance(event, kind)]


@pytest.mark.parametrize("policy", POLICIES)
def test_each_utterance_ends_with_a_final_and_silence_is_accounted_for(policy):
    samples = phrases(-2.0, 3.0, -1.5, 2.0, -3.0)
    events = play(samples, list(range(0, len(samples), 320)), policy)
    assert text(events) == spoken(samples)
    ends = [event for event in of(Final, events) if event.reason == "endpoint"]
    assert len(ends) == 2
    started, ended = of(SpeechStarted, events), of(SpeechEnded, events)
    loud = np.flatnonzero(samples) / S
    last = [loud[loud < 5.5].max(), loud.max()]
    assert [event.start for event in started] == pytest.approx([1.9, 6.4], abs=0.04)
    assert [event.end for event in ended] == pytest.approx([t + 0.1 for t in last], abs=0.04)
    assert [event.start for event in started] == [event.start for event in ended]
    assert all(event.decided - 2.0 < 0.3 for event in started[:1])
    silence = of(Skipped, events)
    assert {event.reason for event in silence} == {"silence"}
    assert not any(event.lost for event in silence)
    spans = sorted((event.start, event.end) for event in [*silence, *of(Final, events)])
    assert spans[0][0] == 0
    assert spans[-1][1] == len(samples) / S
    for (_, end), (start, _) in itertools.pairwise(spans):
        assert end == pytest.approx(start, abs=0.01)  # a rest without a whole frame


def test_starts_are_told_at_once_even_while_the_last_words_are_decoded():
    call = session()
    samples = phrases(2.0, -1.0, 2.0)
    call.feed(floats(samples[: 3 * S]))
    events = []
    while (voice := call.next_voice()) is not None:
        events += call.heard(DETECTOR.run([voice])[0])
    out = call.next_request(0.0)  # the final of the first utterance is with the engine
    assert out is not None
    call.feed(floats(samples[3 * S :]))
    while (voice := call.next_voice()) is not None:
        events += call.heard(DETECTOR.run([voice])[0])
    assert len(of(SpeechStarted, events)) == 2
    assert call.next_request(0.0) is None
    events += call.accept(hear(out)) + judge(call) + call.finish("eof") + judge(call)
    assert text(events) == spoken(samples)


@pytest.mark.parametrize("policy", POLICIES)
def test_nothing_is_decoded_while_nobody_speaks_and_a_second_is_kept(policy):
    call = session(policy)
    events = []
    for _ in range(60):
        call.feed(np.zeros(S, np.float32))
        events += judge(call)
        assert call.next_request(0.0) is None
        assert call.backlog <= 1.1
    (silent,) = of(NoSpeech, events)
    assert silent.end - silent.start == pytest.approx(5.0, abs=0.1)
    *_, skipped, ended = events + call.finish("eof") + judge(call)
    assert (skipped.start, skipped.end, skipped.reason) == (0, 60, "silence")
    assert isinstance(ended, CallEnded)
    assert call.counters.skipped == 0
    assert call.counters.lost == 0


@pytest.mark.parametrize("policy", POLICIES)
def test_an_utterance_without_end_is_cut_and_goes_on_without_a_word_lost(policy):
    samples = phrases(14.0, -1.0)
    events = play(samples, list(range(0, len(samples), 1600)), policy, longest=4.0)
    said = text(events).split()
    # The cut falls where the speaker is least likely to speak, into a pause between two words.
    assert said == spoken(samples).split()
    assert len(of(SpeechStarted, events)) == len(of(SpeechEnded, events)) == 1
    assert [event.reason for event in of(Final, events)].count("reset") >= 2


@settings(max_examples=25, deadline=None)
@given(
    policy=st.sampled_from(POLICIES),
    cuts=st.lists(st.integers(0, 9 * S), max_size=40),
    size=st.integers(0, 9 * S),
)
def test_cuts_and_hangups_anywhere_change_nothing(policy, cuts, size):
    samples = phrases(-0.7, 2.5, -0.9, 2.0, -1.2, 1.5)[:size]
    chosen = sorted(cut for cut in cuts if cut < len(samples))
    found = [
        [(e.start, e.end, e.text, e.reason) for e in of(Final, events)]
        for events in (
            play(samples, chosen, policy),
            play(samples, list(range(0, len(samples), 320)), policy),
        )
    ]
    assert found[0] == found[1]


def test_a_flush_ends_what_is_being_said():
    samples = phrases(3.0, -1.0)
    call = session()
    call.feed(floats(samples[: 2 * S]))
    events = judge(call)
    call.flush()
    events += judge(call)
    assert [event.reason for event in of(Final, events)] == ["flush"]
    assert of(Final, events)[0].end == 2.0
    call.feed(floats(samples[2 * S :]))
    events += judge(call)
    call.flush()  # nobody speaks: nothing to be said
    assert judge(call) == []
    events += call.finish("eof") + judge(call)
    assert [event.reason for event in of(Final, events)] == ["flush", "endpoint"]


def test_a_flush_of_an_utterance_that_still_waits_is_not_forgotten():
    samples = phrases(2.0, -1.0, 2.0)
    call = session()
    call.feed(floats(samples))
    events = []
    while (voice := call.next_voice()) is not None:
        events += call.heard(DETECTOR.run([voice])[0])
    out = call.next_request(0.0)
    for _ in range(100):  # in a row they are one
        call.flush()
    assert [len(utterance.flushes) for utterance in call._utterances._next] == [1]
    events += call.accept(hear(out)) + judge(call)
    assert [event.reason for event in of(Final, events)] == ["endpoint", "flush"]
    assert of(Final, events)[-1].end == pytest.approx(5.0, abs=0.01)


def test_a_broken_detector_costs_no_words():
    samples = phrases(-1.0, 2.0, -2.0, 1.0)
    call = session()
    events = []
    for part in np.array_split(floats(samples), 20):
        call.feed(part)
        while (voice := call.next_voice()) is not None:
            events += call.voice_failed(voice.request_id)
        events += answer(call)
    events += call.finish("eof")
    while (voice := call.next_voice()) is not None:
        events += call.voice_failed(voice.request_id)
    events += answer(call)
    assert call.done
    assert text(events) == spoken(samples)


def test_an_aborted_call_asks_the_detector_nothing_more():
    call = session()
    call.feed(floats(phrases(2.0)))
    voice = call.next_voice()
    assert [type(event) for event in call.abort("shutdown")] == [Skipped, CallEnded]
    assert call.next_voice() is None
    assert call.heard(DETECTOR.run([voice])[0]) == []
    assert call.voice_failed(voice.request_id) == []
    assert call.check() == []


def test_a_session_without_a_detector_has_no_voice_requests():
    call = Sessions(call_settings(), VOCABULARY).make("c")
    call.feed(np.zeros(STEP * 4, np.float32))
    assert call.next_voice() is None
    assert call.check() == []
