"""What holds under every policy: cuts change nothing, words come once, memory is flat."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
from fake_engine import FRAME, SMALL, answer, floats, hear, make_session, slin, speech, spoken
from hypothesis import given, settings
from hypothesis import strategies as st

from aii.audio.pcm import SlinDecoder
from aii.protocols import Audio, Flush, Hangup, make_framing
from aii.streaming.alignatt import AlignAttSettings
from aii.streaming.events import CallEnded, Final, Partial, Skipped
from aii.streaming.local_agreement import AgreementSettings
from aii.streaming.session import Session
from aii.streaming.settings import POLICIES
from aii.types import DecodeRequest, Hypothesis

S = 16_000


def call(seconds: float, seed: int = 0, pause: float = 0.0) -> np.ndarray:
    """Words that AlignAtt can hear to the end: long enough, with silence at the end."""
    samples = speech(seconds, seed, longest=0.8, shortest=0.25, pause=pause)
    return np.concatenate([samples, np.zeros(S // 2, np.int16)])


class Caller:
    """A call from the bytes of its connection to its events, as the TCP server has it."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.events = session.start()
        self._framing = make_framing("raw")
        self._decoder = SlinDecoder(S)

    def bytes(self, data: bytes) -> None:
        self._take(self._framing.receive(data, 0.0))

    def end(self, reason: str) -> None:
        self._take(self._framing.eof(), reason)
        assert self.session.done

    def _take(self, frames: list, reason: str = "") -> None:
        for frame in frames:
            if isinstance(frame, Audio):
                self.session.feed(self._decoder.feed(frame.payload))
            elif isinstance(frame, Flush):
                self.session.flush()
            elif isinstance(frame, Hangup):
                self.session.feed(self._decoder.flush())
                self.events += self.session.finish(reason)
        self.events += answer(self.session, hear=small)


def small(request: DecodeRequest) -> Hypothesis:
    """Hears windows of the small settings, which are full at 2 s."""
    return hear(request, full=2.0)


def finals(events: list) -> list[tuple]:
    return [
        (e.start, e.end, e.text, e.words, e.reason, e.language)
        for e in events
        if isinstance(e, Final)
    ]


def text(events: list) -> str:
    return "".join(event.text for event in events if isinstance(event, Final))


def played(data: bytes, cuts: list[int], policy: str, reason: str = "eof") -> list:
    caller = Caller(make_session(policy=policy, **SMALL))
    for a, b in itertools.pairwise([0, *sorted(cuts), len(data)]):
        if b > a:
            caller.bytes(data[a:b])
    caller.end(reason)
    return caller.events


@pytest.mark.parametrize("policy", POLICIES)
def test_byte_by_byte_is_the_same_as_at_once(policy):
    data = slin(call(3.0, seed=5))
    whole = played(data, [], policy)
    assert finals(played(data, list(range(1, len(data))), policy)) == finals(whole)
    assert text(whole) == spoken(call(3.0, seed=5))


@settings(max_examples=40, deadline=None)
@given(
    policy=st.sampled_from(POLICIES),
    seed=st.integers(0, 5),
    pause=st.sampled_from([0.0, 0.3]),
    cuts=st.lists(st.integers(0, 7 * 2 * S), max_size=60),
)
def test_cutting_the_stream_anywhere_changes_nothing(policy, seed, pause, cuts):
    samples = call(6.5, seed, pause)
    data = slin(samples)
    events = played(data, [cut for cut in cuts if cut <= len(data)], policy)
    assert finals(events) == finals(played(data, list(range(0, len(data), 640)), policy))
    assert text(events) == spoken(samples)


@settings(max_examples=60, deadline=None)
@given(
    policy=st.sampled_from(POLICIES),
    size=st.integers(0, 7 * 2 * S),
    cuts=st.lists(st.integers(0, 7 * 2 * S), max_size=20),
)
def test_a_connection_killed_at_any_byte_ends_as_the_same_bytes_with_a_clean_end(
    policy, size, cuts
):
    data = slin(call(6.5, seed=3))[:size]
    killed = played(data, [cut for cut in cuts if cut <= len(data)], policy, "connection reset")
    clean = played(data, list(range(0, len(data), 640)), policy)
    assert finals(killed) == finals(clean)
    assert isinstance(killed[-1], CallEnded)
    assert killed[-1].end == clean[-1].end == len(data) // 2 / S
    assert (killed[-1].reason, clean[-1].reason) == ("connection reset", "eof")


@settings(max_examples=40, deadline=None)
@given(
    policy=st.sampled_from(POLICIES),
    seed=st.integers(0, 3),
    flushes=st.lists(st.integers(0, 45), max_size=6),
    piece=st.sampled_from([0.02, 0.37, 3.0]),
)
def test_flushes_between_words_lose_and_double_nothing(policy, seed, flushes, piece):
    samples = call(6.5, seed, pause=0.3)
    silent = np.flatnonzero(samples == 0)
    marks = {int(silent[len(silent) * n // 46]) // FRAME * FRAME for n in flushes}
    session = make_session(policy=policy, **SMALL)
    events = []
    steps = {*range(0, len(samples), round(piece * S)), *marks, len(samples)}
    for a, b in itertools.pairwise(sorted(steps)):
        if a in marks:
            session.flush()
        session.feed(floats(samples[a:b]))
        events += answer(session, hear=small)
    events += session.finish("eof") + answer(session, hear=small)
    assert text(events) == spoken(samples)
    reasons = [event.reason for event in events if isinstance(event, Final)]
    finals = [event for event in events if isinstance(event, Final)]
    wanted = {mark for mark in marks if mark >= FRAME} - {len(samples)}
    # A window that is full just where the flush is has its own reason.
    assert wanted <= {round(e.end * S) for e in finals}
    assert {round(e.end * S) for e in finals if e.reason == "flush"} <= wanted
    assert reasons[-1] in ("hangup", "reset")


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("pause", [0.0, 0.4])
def test_the_order_of_things(policy, pause):
    """Finals one behind the other, words within them, partials behind them, times that rise."""
    samples = call(40.0, seed=2, pause=pause)
    events = played(slin(samples), list(range(0, 2 * len(samples), 640)), policy)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    end, time = 0.0, 0.0
    for event in events:
        if isinstance(event, Final):
            assert event.start == end
            end = event.end
            for word in event.words:
                assert max(event.start, time) <= word.start <= word.end <= event.end
                time = word.end
            assert "".join(word.text for word in event.words) == event.text
        elif isinstance(event, Partial):
            assert event.start == end
            assert event.end >= event.start
    assert end == pytest.approx(len(samples) / S)
    assert text(events) == spoken(samples)


@pytest.mark.parametrize("policy", ["local-agreement", "alignatt"])
def test_words_are_final_within_seconds(policy):
    samples = call(60.0, seed=2, pause=0.3)
    session = make_session(policy=policy)
    late = []
    for a in range(0, len(samples), 320):
        session.feed(floats(samples[a : a + 320]))
        for event in answer(session):
            if isinstance(event, Final):
                late += [(a + 320) / S - word.end for word in event.words]
    assert len(late) > 50
    assert np.mean(late) < {"local-agreement": 2.0, "alignatt": 1.0}[policy]


def weight(thing: object, seen: set[int] | None = None) -> int:
    """How many items the containers within a session hold, the buffer's samples not counted."""
    seen = set() if seen is None else seen
    if id(thing) in seen:
        return 0
    seen.add(id(thing))
    if isinstance(thing, (str, bytes)):
        return len(thing)
    inner: Iterator[object] = iter(())
    if isinstance(thing, dict):
        inner = iter(thing.values())
    elif hasattr(thing, "__len__") and hasattr(thing, "__iter__"):
        inner = iter(thing)
    elif hasattr(thing, "__dict__") and type(thing).__module__.startswith("aii."):
        inner = iter(vars(thing).values())
    count = 0
    for item in inner:
        count += 1 + weight(item, seen)
    return count


@pytest.mark.parametrize(
    "policy, own",
    [
        ("window", {"window": 10.0}),
        ("local-agreement", {"agreement": AgreementSettings(step=7.0, trim=15.0)}),
        ("alignatt", {"alignatt": AlignAttSettings(step=6.0, buffer=20.0)}),
    ],
)
def test_eight_hours_in_flat_memory_with_flat_latency(policy, own):
    """Simulated: no word is lost or doubled, and the last hour looks as the first."""
    minute = call(59.5, seed=8, pause=0.2)
    parts, expected = np.split(floats(minute), 6), spoken(minute)
    session = make_session(policy=policy, **own)
    session._policy._context.vocabulary.words(())  # the tables, read at first use, are no growth
    hours: list[tuple[float, int, float]] = []  # longest buffer, most items, latest final
    said, end = "", 0.0
    for _hour in range(8):
        backlog = late = 0.0
        items = 0
        for part in parts * 60:
            session.feed(part)
            for event in answer(session):
                if isinstance(event, Final):
                    assert event.start == end
                    end = event.end
                    said += event.text
                    late = max(late, session.position - end)
            backlog = max(backlog, session.backlog)
            items = max(items, weight(session._policy))
            while len(said) > len(expected):
                assert said.startswith(expected)
                said = said[len(expected) :]
        hours.append((backlog, items, late))
    events = session.finish("eof") + answer(session)
    assert said + text(events) == expected
    assert events[-1].end == 8 * 3600
    longest, most, latest = hours[0]
    assert longest <= 30 + 10
    for backlog, items, late in hours[1:]:
        assert backlog <= longest * 1.1 + 1
        assert items <= most * 1.1 + 50
        assert late <= latest * 1.1 + 1


@pytest.mark.parametrize("policy", POLICIES)
def test_an_engine_that_is_too_slow_for_a_live_call_costs_updates_and_never_words(policy):
    """Each answer takes three seconds of a call that comes in real time."""
    samples = call(60.0, seed=4, pause=0.2)
    session = make_session(policy=policy)
    events, out, due = [], None, 0.0
    for a in range(0, len(samples), 1600):
        now = a / S
        session.feed(floats(samples[a : a + 1600]))
        if out is not None and now >= due:
            events += session.accept(hear(out))
            out = None
        request = session.next_request(now)
        if request is not None:
            out, due = request, now + 3.0
    if out is not None:
        events += session.accept(hear(out))
    events += session.finish("eof") + answer(session, len(samples) / S)
    skipped = [event for event in events if isinstance(event, Skipped)]
    assert text(events) == spoken(samples)
    assert all(event.reason == "behind" and not event.lost for event in skipped)
    if policy != "window":  # which looks every 5 s only
        assert len(skipped) > 5
        assert session.counters.skipped == sum(event.windows for event in skipped)
