"""Counters, and when an engine has no room for more calls."""

from __future__ import annotations

import pytest

from aii.engine.record import RECENT, SPAN, Record


def busy(record: Record, begin: float, end: float, share: float = 1.0) -> None:
    """Work for ``share`` of each tenth of a second."""
    steps = round((end - begin) * 10)
    for step in range(steps):
        at = begin + step / 10
        record.worked(at, at + share / 10)


def answers(record: Record, *latencies: float) -> None:
    for latency in latencies:
        record.answered(5.0, latency, 7)


def test_nothing_has_happened() -> None:
    stats = Record().stats(100.0)
    assert (stats["done"], stats["load"], stats["within"], stats["full"]) == (0, 0.0, 1.0, 0.0)
    assert (stats["latency_p50"], stats["latency_p95"]) == (0.0, 0.0)


def test_sums_and_latencies() -> None:
    record = Record(objective=1.0)
    answers(record, *(0.1 * i for i in range(1, 21)))
    record.count("refused", 3)
    record.encoded(4, 0.5, 0.0)
    record.decoded(9, 0.25, 0.0)
    stats = record.stats(0.0)
    assert (stats["done"], stats["late"], stats["refused"]) == (20, 10, 3)
    assert (stats["audio_seconds"], stats["passes"]) == (100.0, 140.0)
    assert (stats["encodes"], stats["encoded"], stats["steps"], stats["rows"]) == (1, 4, 1, 9)
    assert (stats["encoder_time"], stats["decoder_time"]) == (0.5, 0.25)
    assert stats["within"] == pytest.approx(0.5)
    assert stats["latency_p50"] == pytest.approx(1.1)
    assert stats["latency_p95"] == pytest.approx(1.9)


def test_load_is_of_the_last_seconds() -> None:
    record = Record()
    busy(record, 0, 20)
    assert record.load(20.0) == pytest.approx(1.0)
    assert record.load(25.0) == pytest.approx(0.5)
    assert record.load(20.0 + SPAN + 1) == 0.0
    busy(record, 40, 60, share=0.3)
    assert record.load(60.0) == pytest.approx(0.3, abs=0.02)
    assert record.stats(60.0)["decode_seconds"] == pytest.approx(26.0)


def test_it_is_full_only_when_it_is_busy_and_late() -> None:
    record = Record(objective=1.0)
    busy(record, 0, 20)
    answers(record, *[0.5] * 40)
    assert not record.full(20.0)  # busy, and in time
    answers(record, *[3.0] * 3)
    assert record.full(20.0)
    idle = Record(objective=1.0)
    busy(idle, 0, 20, share=0.5)
    answers(idle, *[3.0] * 40)
    assert not idle.full(20.0)  # late, but not for want of time


def test_a_recording_that_takes_its_time_is_not_late() -> None:
    record = Record(objective=1.0)
    busy(record, 0, 20)
    for _ in range(40):
        record.answered(5.0, 20.0, 7, wanted=61.0)
        record.answered(5.0, 20.0, 7, wanted=float("inf"))
    stats = record.stats(20.0)
    assert (stats["done"], stats["late"], stats["within"], stats["full"]) == (80, 0, 1.0, 0.0)
    for _ in range(3):
        record.answered(5.0, 2.0, 7, wanted=1.0)
        record.answered(5.0, 2.0, 7, wanted=-0.1)  # an urgent one
    assert record.full(20.0)


def test_it_does_not_flutter() -> None:
    record = Record(objective=1.0)
    busy(record, 0, 20)
    answers(record, *[3.0] * 40)
    assert record.full(20.0)
    assert record.full(21.0)  # a load of 0.9, between the two marks
    assert not record.full(22.0)
    assert not record.full(21.0)  # once there was room, 0.9 is no reason


def test_there_is_room_again_when_answers_are_in_time() -> None:
    record = Record(objective=1.0)
    busy(record, 0, 20)
    answers(record, *[3.0] * 40)
    assert record.full(20.0)
    answers(record, *[0.2] * RECENT)
    assert not record.full(20.0)
    assert len(record._latencies) == RECENT


def test_what_is_held_is_bounded() -> None:
    record = Record()
    busy(record, 0, 300, share=0.5)
    answers(record, *[0.1] * 1000)
    assert len(record._work) <= SPAN * 10 + 2
    assert len(record._latencies) == RECENT


def spend(record: Record, seconds: int, encoding: float, decoding: float) -> None:
    """Both threads at work so much of each second."""
    for now in range(seconds):
        record.encoded(1, encoding, now + 0.5)
        record.decoded(3, decoding, now + 0.7)


def test_busy_is_the_busier_thread_or_both_where_one_does_all() -> None:
    for beside, expected in ((True, 0.4), (False, 0.6)):
        record = Record(beside=beside)
        spend(record, 30, 0.4, 0.2)
        answers(record, *[0.5] * 40)
        assert record.busy(30.0) == pytest.approx(expected)
        assert record.stats(30.0)["busy"] == pytest.approx(expected)
        assert record.busy(30.0 + SPAN) == 0.0


def test_recordings_make_it_busy_for_no_call() -> None:
    record = Record(objective=1.0, beside=True)
    assert record.live(1.0)
    assert not record.live(60.0)
    for now in range(10):
        record.encoded(1, 0.9, now + 0.5, live=0.0)
        record.decoded(4, 0.8, now + 0.9, live=0.25)
    assert record.busy(10.0) == pytest.approx(0.2)
