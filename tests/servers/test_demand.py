"""What a call costs, and how busy one more would make the engine."""

from __future__ import annotations

import pytest

from aii.engine.api import SPAN
from aii.servers.demand import FORESEEN, KNOWN_FOR, Demand


def test_calls_count_as_far_as_they_were_at_work() -> None:
    demand = Demand()
    assert demand.at_work(100.0) == 0.0
    demand.begin("old", 0.0, 5.0)
    demand.begin("new", 99.0, 5.0)  # its first window is to come
    assert demand.at_work(100.0) == 1.0
    assert demand.at_work(100.0 + SPAN) == pytest.approx(1.6)
    demand.end("old", 110.0)
    assert demand.at_work(115.0) == pytest.approx(1.0 + 0.5 + 0.5)  # its last window among them
    assert demand.at_work(125.0) == 1.0


def test_a_short_call_has_a_window_too() -> None:
    demand = Demand()
    demand.begin("short", 0.0, 5.0)
    demand.end("short", 2.0)
    assert demand.at_work(7.0) == pytest.approx(0.5)
    assert demand.at_work(17.0) == 0.0


def test_short_calls_beside_a_long_one_keep_nobody_out() -> None:
    demand = Demand()
    demand.begin("long", 0.0, 5.0)
    for second in range(4, 60):
        if second % 4 == 0:
            for lane in range(3):
                if second > 4:
                    demand.end(f"short {lane}", float(second))
                demand.begin(f"short {lane}", float(second), 5.0)
    assert demand.at_work(59.0) > 4
    assert demand.foreseen(0.2, 59.0) < 0.5


def test_each_leg_of_a_call_counts() -> None:
    demand = Demand()
    demand.begin("call", 0.0, 1.0)
    demand.begin("call", 0.0, 1.0)
    assert demand.at_work(50.0) == 2.0
    demand.end("call", 50.0)
    assert demand.at_work(51.0 + SPAN) == 1.0
    demand.end("call", 90.0)
    assert demand.foreseen(0.0, 200.0) == 0.0


def test_the_cost_of_a_call_is_what_those_at_work_take() -> None:
    demand = Demand()
    for number in range(20):
        demand.begin(f"call {number}", 0.0, 5.0)
    assert demand.foreseen(0.3, 5.0) == 0.3  # nobody has been at work
    assert demand.foreseen(0.1, 7.0) == 0.1  # four calls' worth are too few to tell of twenty
    assert demand.foreseen(0.15, 8.0) == pytest.approx(0.15 / 6 * 21)
    assert demand.foreseen(0.5, 60.0) == pytest.approx(0.5 / 20 * 21)


def test_a_rush_is_judged_by_what_calls_cost_before() -> None:
    demand = Demand()
    for number in range(4):
        demand.begin(f"early {number}", 0.0, 5.0)
    assert demand.foreseen(0.1, 60.0) == pytest.approx(0.125)
    for number in range(36):
        demand.begin(f"rush {number}", 60.5, 5.0)
    assert demand.foreseen(0.1, 60.5) == pytest.approx(0.1 + 0.025 * 37)


def test_one_dear_call_is_no_measure_for_later_ones() -> None:
    demand = Demand()
    demand.begin("dear", 0.0, 5.0)
    assert demand.foreseen(0.5, 30.0) == pytest.approx(1.0)  # while it lasts, another is too much
    demand.end("dear", 31.0)
    demand.begin("cheap", 100.0, 5.0)
    assert demand.foreseen(0.0, 102.0) == 0.0
    assert demand.foreseen(0.02, 130.0) == pytest.approx(0.04)


def test_a_cost_is_forgotten_when_nobody_can_tell_any_more() -> None:
    demand = Demand()
    for number in range(4):
        demand.begin(f"call {number}", 0.0, 5.0)
    assert demand.foreseen(0.6, 30.0) > FORESEEN - 0.1
    for number in range(4):
        demand.end(f"call {number}", 31.0)
    demand.begin("other", 30.0 + KNOWN_FOR, 5.0)
    assert demand.foreseen(0.0, 30.0 + KNOWN_FOR) == pytest.approx(0.3)
    assert demand.foreseen(0.0, 30.1 + KNOWN_FOR) == 0.0
