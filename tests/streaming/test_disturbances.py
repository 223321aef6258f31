"""What must not touch a call's words: keys, flushes in a row, an odd length, a doubtful model."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from fake_engine import FRAME, SMALL, answer, floats, hear, make_session, slin, speech, spoken
from hypothesis import given, settings
from hypothesis import strategies as st

from aii.audio.pcm import SlinDecoder
from aii.protocols import Audio, Dtmf, make_framing
from aii.protocols.audiosocket import message
from aii.streaming import events as told
from aii.streaming.events import Final, Partial
from aii.streaming.settings import POLICIES
from aii.types import DecodeRequest, Hypothesis

S = 16_000


def call(seconds: float, seed: int = 0, pause: float = 0.0) -> np.ndarray:
    """Words that AlignAtt can hear to the end: long enough, with half a second of silence."""
    samples = speech(seconds - 0.5, seed, longest=0.8, shortest=0.25, pause=pause)
    return np.concatenate([samples, np.zeros(S // 2, np.int16)])


def small(request: DecodeRequest) -> Hypothesis:
    """Hears windows of the small settings, which are full at 2 s."""
    return hear(request, full=2.0)


def of(kind: type, events: list) -> list:
    return [event for event in events if isinstance(event, kind)]


def text(events: list) -> str:
    return "".join(final.text for final in of(Final, events))


def said(events: list) -> list[tuple]:
    """All that partials and finals say."""
    return [
        (e.type, e.start, e.end, e.text, e.words, getattr(e, "reason", ""))
        for e in events
        if isinstance(e, (Partial, Final))
    ]


# -- keys -------------------------------------------------------------------------------------


def by_audiosocket(policy: str, wire: bytes, piece: int) -> list:
    """The events of a connection whose bytes come in pieces, answered after each."""
    session, framing, decoder = (
        make_session(policy=policy, **SMALL),
        make_framing("auto"),
        SlinDecoder(S),
    )
    events = session.start()

    def take(frames: list) -> None:
        nonlocal events
        for frame in frames:
            if isinstance(frame, Audio):
                session.feed(decoder.feed(frame.payload))
                events += answer(session, hear=small)
            elif isinstance(frame, Dtmf):
                events += session.dtmf(frame.digit)

    for start in range(0, len(wire), piece):
        take(framing.receive(wire[start : start + piece], 0.0))
    take(framing.eof())
    return events + session.finish("eof") + answer(session, hear=small)


@settings(max_examples=40, deadline=None)
@given(
    policy=st.sampled_from(POLICIES),
    seed=st.integers(0, 3),
    keys=st.lists(st.tuples(st.integers(0, 249), st.sampled_from("0123456789*#ABCD")), max_size=12),
    piece=st.sampled_from([1, 641, 5_000]),
)
def test_keys_pressed_within_words_cost_no_word(policy, seed, keys, piece):
    """Asterisk sends a key between two frames of 20 ms, wherever the caller is in a word."""
    samples = call(5.0, seed)
    frames = [slin(samples[a : a + 320]) for a in range(0, len(samples), 320)]
    plain = [message(0x12, frame) for frame in frames]
    keyed = list(plain)
    for place, key in keys:
        keyed[place] = message(0x03, key.encode()) + keyed[place]
    head = message(0x01, bytes(16))
    undisturbed = by_audiosocket(policy, head + b"".join(plain), 643)
    events = by_audiosocket(policy, head + b"".join(keyed), piece)
    assert said(events) == said(undisturbed)
    assert text(events) == spoken(samples)
    keys.reverse()  # of two at one place the later is first
    pressed = sorted(keys, key=lambda pair: pair[0])
    assert [(e.digit, e.start) for e in of(told.Dtmf, events)] == [
        (key, pytest.approx(place * 0.02)) for place, key in pressed
    ]
    assert [event.seq for event in events] == list(range(1, len(events) + 1))


# -- flushes ----------------------------------------------------------------------------------


def flushed(policy: str, samples: np.ndarray, marks: set[int], times: int, late: bool) -> list:
    """The events of a call that is flushed so many times in a row at each mark; ``late``: while a
    request is with the engine."""
    session = make_session(policy=policy, **SMALL)
    events = session.start()
    for a, b in itertools.pairwise(sorted({*range(0, len(samples), 3200), *marks, len(samples)})):
        out = session.next_request(0.0) if late else None
        if a in marks:
            for _ in range(times):
                session.flush()
        if out is not None:
            events += session.accept(small(out))
        events += answer(session, hear=small)
        session.feed(floats(samples[a:b]))
    return events + session.finish("eof") + answer(session, hear=small)


@settings(max_examples=60, deadline=None)
@given(
    policy=st.sampled_from(POLICIES),
    seed=st.integers(0, 3),
    flushes=st.lists(st.integers(0, 60), max_size=6),
    times=st.integers(2, 4),
    late=st.booleans(),
)
def test_flushes_in_a_row_are_one_flush(policy, seed, flushes, times, late):
    """Also in a pause, at the start, with a request out: no second final, nothing lost."""
    samples = call(6.5, seed, pause=0.3)
    silent = np.flatnonzero(samples == 0)
    marks = {int(silent[len(silent) * n // 61]) // FRAME * FRAME for n in flushes}
    once, often = (flushed(policy, samples, marks, n, late) for n in (1, times))
    assert said(often) == said(once)
    assert text(often) == spoken(samples)
    assert all(final.end > final.start for final in of(Final, often))


@pytest.mark.parametrize("policy", POLICIES)
def test_a_flood_of_flushes_is_held_as_one(policy):
    """A client may send them as fast as it likes while the engine is busy."""
    session = make_session(policy=policy, **SMALL)
    session.feed(floats(call(1.5, seed=1)))
    out = session.next_request(0.0)
    assert out is not None
    for _ in range(1000):
        session.flush()
    assert len(session._policy._stops) == 1
    events = session.accept(small(out)) + answer(session, hear=small)
    events += session.finish("eof") + answer(session, hear=small)
    assert text(events) == spoken(call(1.5, seed=1))
    assert [e.reason for e in of(Final, events)].count("flush") == 1


# -- lengths ----------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("seconds", [29.98, 30.0, 30.02])
@pytest.mark.parametrize("piece", [320, 16_000, 10**6])
def test_a_call_about_as_long_as_a_window(policy, seconds, piece):
    """Of 30 s exactly, and a frame of 20 ms less and more."""
    samples = call(seconds, seed=4, pause=0.1)
    assert len(samples) == round(seconds * S)
    session = make_session(policy=policy)
    events = session.start()
    for a in range(0, len(samples), piece):
        session.feed(floats(samples[a : a + piece]))
        events += answer(session)
    events += session.finish("eof") + answer(session)
    assert session.done
    assert text(events) == spoken(samples)
    finals = of(Final, events)
    spans = [(0.0, 0.0), *((final.start, final.end) for final in finals)]
    assert all(a[1] == b[0] for a, b in itertools.pairwise(spans))
    assert finals[-1].end == events[-1].end == seconds
    assert all(final.end > final.start for final in finals)
    assert session.counters.lost == 0


# -- doubts -----------------------------------------------------------------------------------


def doubtful(request: DecodeRequest) -> Hypothesis:
    """What ends within the last 0.3 s is heard as something else each time."""
    heard = hear(request)
    if request.stop is not None or not heard.segments:
        return heard
    end = request.start + request.duration - 0.3
    changed = []
    for segment in heard.segments:
        if segment.end > end:
            guess = f" x{len(request.samples)}"
            word = replace(segment.words[0], text=guess) if segment.words else None
            segment = replace(segment, text=guess, words=(word,) if word else ())
        changed.append(segment)
    return replace(heard, segments=tuple(changed))


def live(policy: str, samples: np.ndarray) -> list:
    """The events of a call in real time, heard by a model in doubt."""
    session = make_session(policy=policy, words="all")
    events = session.start()
    for a in range(0, len(samples), 1600):
        session.feed(floats(samples[a : a + 1600]))
        events += answer(session, hear=doubtful)
    return events + session.finish("eof") + answer(session, hear=hear)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_partial_shows_the_rest_of_what_was_said_and_nothing_twice(policy):
    """What a screen shows, the finals and the partial behind them, is what was said so far."""
    samples = call(40.0, seed=2, pause=0.1)
    events = live(policy, samples)
    shown, partials = "", 0
    for event in events:
        if isinstance(event, Final):
            shown += event.text
            assert spoken(samples).startswith(shown)
        elif isinstance(event, Partial):
            partials += 1
            both = (shown + event.text).split()
            sure = list(itertools.takewhile(lambda word: word[0] == "w", both))
            assert len(both) - len(sure) <= 3  # those that were doubtful
            so_far = spoken(samples[: round(event.end * S)])
            assert so_far.startswith(" " + " ".join(sure) if sure else "")  # or half a last word
    assert partials > 5
    assert shown == spoken(samples)


def test_under_alignatt_only_the_last_word_is_open():
    partials = of(Partial, live("alignatt", call(40.0, seed=2, pause=0.1)))
    assert {len(partial.words) for partial in partials} <= {0, 1}
    assert any(partial.words for partial in partials)


def test_under_local_agreement_what_two_updates_agree_on_is_not_open():
    """A word that is in two partials in a row, at the same place, would be agreed on."""
    before: list[str] = []
    agreed = doubted = 0
    for event in live("local-agreement", call(40.0, seed=2, pause=0.1)):
        if isinstance(event, Final):
            count = len(event.text.split())
            agreed += count
            before = before[count:]
        elif isinstance(event, Partial):
            now = event.text.split()
            assert not (before and now and before[0] == now[0])
            doubted += bool(before and now)
            before = now
    assert agreed > 50
    assert doubted > 10
