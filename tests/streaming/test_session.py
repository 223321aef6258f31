from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from fake_engine import answer, floats, hear, make_session, speech, spoken

from aii.streaming.events import CallEnded, CallStarted, Dtmf, Final, Heard, Partial, Skipped
from aii.types import Hypothesis

S = 16_000


def test_events_are_numbered_without_gaps_and_carry_the_call_id():
    session = make_session("a7", "10.0.0.1:5")
    events = session.start()
    session.feed(floats(speech(37)))
    events += session.dtmf("5") + answer(session) + session.finish("eof") + answer(session)
    assert [e.seq for e in events] == list(range(1, len(events) + 1))
    assert {e.call_id for e in events} == {"a7"}
    assert isinstance(events[0], CallStarted)
    assert events[0].caller == "10.0.0.1:5"
    assert events[1] == Dtmf(call_id="a7", seq=2, digit="5", start=37.0)
    assert events[-1] == CallEnded(call_id="a7", seq=len(events), reason="eof", end=37.0)


def test_a_call_cut_off_at_any_sample_ends_as_the_same_samples_with_a_clean_end():
    samples = speech(12, seed=1, longest=1.0)
    for count in range(0, len(samples), 3777):
        texts = []
        for reason in ("eof", "connection reset"):
            session = make_session()
            session.feed(floats(samples[:count]))
            events = session.finish(reason) + answer(session)
            texts.append("".join(e.text for e in events if isinstance(e, Final)))
            assert events[-1].reason == reason
        assert texts[0] == texts[1] == spoken(samples[: count // 160 * 160])


def test_an_empty_call_starts_and_ends():
    session = make_session()
    assert [type(e) for e in session.start() + session.finish("eof")] == [CallStarted, CallEnded]
    assert session.done
    assert session.finish("eof") == []
    assert session.next_request(0.0) is None


def test_nothing_can_be_fed_after_the_end():
    session = make_session()
    session.finish("eof")
    with pytest.raises(RuntimeError, match="over"):
        session.feed(np.zeros(10, np.float32))


def test_one_request_at_a_time_and_stale_answers_are_ignored():
    session = make_session()
    session.feed(floats(speech(12)))
    request = session.next_request(0.0)
    assert session.waiting
    assert session.next_request(0.0) is None
    assert session.wake_at is None
    assert session.accept(Hypothesis(request_id=999)) == []
    assert session.fail(999, ValueError("x")) == []
    session.refuse(999, 0.0)
    assert session.waiting
    assert session.accept(hear(request))
    assert session.accept(hear(request)) == []


def test_counters_add_up():
    session = make_session()
    samples = speech(37)
    session.feed(floats(samples))
    events = answer(session) + session.finish("eof") + answer(session)
    counters = session.counters
    assert counters.samples == len(samples)
    assert (counters.finals, counters.partials, counters.lost) == (2, 1, 0)
    skipped = sum(event.windows for event in events if isinstance(event, Skipped))
    assert counters.skipped == skipped >= 5  # the first five were late


def test_abort_says_what_was_not_decoded():
    session = make_session()
    session.feed(floats(speech(42)))
    session.accept(hear(session.next_request(0.0)))
    left = session.backlog
    request = session.next_request(0.0)
    final, skipped, ended = session.abort("shutdown deadline")
    assert (final.text, final.reason, final.error) == ("", "error", "shutdown deadline")
    assert isinstance(skipped, Skipped)
    assert skipped.lost
    assert skipped.end - skipped.start == pytest.approx(left)
    assert (ended.reason, ended.end) == ("shutdown deadline", 42.0)
    assert session.counters.lost == round(left * S)
    assert session.done
    assert session.abort("again") == []
    assert session.accept(hear(request)) == []


def test_an_abort_makes_final_what_is_shown():
    """And calls lost only what is behind it."""
    samples = speech(13, seed=3)
    session = make_session()
    session.feed(floats(samples))
    *_, partial = session.accept(hear(session.next_request(0.0)))
    assert isinstance(partial, Partial)
    request = session.next_request(0.0)
    assert request is None
    final, skipped, ended = session.abort("shutdown deadline")
    assert isinstance(final, Final)
    assert final.segments == partial.segments
    assert final.text == spoken(samples[: 10 * S])
    assert (final.start, final.end) == (partial.start, partial.end) == (0, 10)
    assert (final.reason, final.error) == ("error", "shutdown deadline")
    assert (skipped.start, skipped.end, skipped.lost) == (10, 13, True)
    assert session.counters.lost == 3 * S
    assert isinstance(ended, CallEnded)


@pytest.mark.parametrize("policy", ["local-agreement", "alignatt"])
def test_an_abort_says_no_word_twice_and_loses_none_that_was_heard(policy):
    """Under policies that commit words whose audio is still in the buffer."""
    samples = speech(9, seed=3, longest=0.8)
    session = make_session(policy=policy)
    events = []
    for begin in range(0, len(samples), 4000):
        session.feed(floats(samples[begin : begin + 4000]))
        events += answer(session)
    assert any(isinstance(event, Final) for event in events)
    shown = "".join(event.text for event in events if isinstance(event, Final))
    last = next(event for event in reversed(events) if isinstance(event, Heard))
    if isinstance(last, Partial):
        shown += last.text
    events = session.abort("shutdown deadline")
    finals = [event for event in events if isinstance(event, Final)]
    before = shown.removesuffix("".join(final.text for final in finals))
    assert before + "".join(final.text for final in finals) == shown
    assert spoken(samples).startswith(shown)
    lost = [event for event in events if isinstance(event, Skipped)]
    assert all(event.start >= last.end for event in lost)
    assert session.counters.lost < 1.5 * S


def test_an_abort_with_nothing_left_loses_nothing():
    session = make_session()
    assert [type(e) for e in session.abort("x")] == [CallEnded]


def test_two_hours_in_flat_memory():
    session = make_session()
    minute = floats(speech(60, seed=8))
    most, end = 0.0, 0.0
    for _ in range(2 * 60):
        for part in np.split(minute, 12):
            session.feed(part)
            for event in answer(session):
                if isinstance(event, Final):
                    assert event.start == end
                    end = event.end
            most = max(most, session.backlog)
    assert most <= 35
    session.finish("eof")
    events = answer(session)
    assert events[-1].end == 2 * 3600


def test_streaming_imports_no_torch():
    code = (
        "import sys; import aii.streaming.window, aii.streaming.session, aii.sinks.console, "
        "aii.sinks.jsonl, aii.sinks.socket, aii.config, aii.servers.tcp, aii.engine.api, "
        "aii.engine.batcher; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=200).returncode == 0
