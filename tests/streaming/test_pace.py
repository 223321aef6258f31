from __future__ import annotations

from aii.streaming.pace import Pace

S = 16_000


def test_a_live_call_is_behind_when_its_audio_has_waited():
    pace = Pace(slack=2.0)
    for second in range(1, 11):
        pace.note(second * S, 100.0 + second)
    assert not pace.behind(5 * S, 106.9)
    assert pace.behind(5 * S, 107.2)
    assert not pace.behind(9 * S, 110.0)


def test_a_recording_sent_at_once_is_never_behind():
    pace = Pace()
    pace.note(0, 100.0)
    pace.note(3600 * S, 100.1)
    assert not pace.behind(60 * S, 140.0)  # slower than real time would be 160
    assert not pace.behind(3000 * S, 3000.0)


def test_a_burst_after_a_stall_is_not_the_engines_fault():
    pace = Pace()
    pace.note(S, 101.0)
    pace.note(5 * S, 160.0)
    assert not pace.behind(3 * S, 161.0)
    assert pace.behind(3 * S, 162.5)


def test_little_is_remembered():
    pace = Pace()
    for i in range(100_000):
        pace.note(i, i / S)  # 6 s, a sample at a time
    assert len(pace._came) <= 65
    pace.behind(90_000, 7.0)
    assert len(pace._came) <= 10


def test_before_any_audio_nothing_is_late():
    assert not Pace().behind(S, 99.0)
