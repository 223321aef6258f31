from __future__ import annotations

import random
from collections import Counter

import pytest

from aii.engine.batcher import PATIENCE, Batcher, Turns
from aii.errors import EngineFullError


def make(size: int = 10, rows: int = 100) -> Batcher[object]:
    return Batcher(size, rows)


def push(batcher, item, *, call_id=None, deadline=5.0, now=0.0, rows=1) -> None:
    batcher.push(item, call_id=call_id or str(item), deadline=deadline, now=now, rows=rows)


def started(batcher) -> list:
    """Everything that may join now."""
    items = []
    while (entry := batcher.start()) is not None:
        items.append(entry.item)
    return items


def test_earliest_deadline_first_then_first_come():
    batcher = make()
    for item, deadline in (("late", 9.0), ("a", 5.0), ("b", 5.0), ("first", 1.0)):
        push(batcher, item, deadline=deadline)
    assert len(batcher) == 4
    assert started(batcher) == ["first", "a", "b", "late"]
    assert (len(batcher), batcher.running) == (0, 4)


def test_a_full_queue_says_so_and_keeps_what_it_has():
    batcher = make(size=2)
    push(batcher, 1)
    push(batcher, 2)
    with pytest.raises(EngineFullError, match="2 windows wait"):
        push(batcher, 3, deadline=0)
    assert batcher.clear() == [1, 2]
    push(batcher, 3)
    assert started(batcher) == [3]


def test_rows_are_for_those_who_are_first():
    batcher = make(rows=4)
    for item, rows in ((1, 3), (2, 2), (3, 1)):
        push(batcher, item, rows=rows)
    one = batcher.start()
    assert one.item == 1
    assert batcher.start() is None  # 3 would fit, but is not next
    assert batcher.finish(one)
    assert started(batcher) == [2, 3]
    push(batcher, "huge", rows=50)
    assert batcher.start() is None


def test_a_request_larger_than_all_rows_runs_alone():
    batcher = make(rows=2)
    push(batcher, "huge", rows=5, deadline=1.0)
    push(batcher, "small", deadline=2.0)
    assert started(batcher) == ["huge"]


def test_calls_take_turns():
    """One call with many requests, all due earlier, does not keep the others waiting."""
    batcher = make(size=200, rows=4)
    for number in range(100):
        push(batcher, ("greedy", number), call_id="greedy", deadline=1.0)
    for call in "abc":
        push(batcher, (call, 0), call_id=call, deadline=4.0)
    assert started(batcher) == [("greedy", 0), ("a", 0), ("b", 0), ("c", 0)]


def test_a_deadline_in_the_past_gains_nothing():
    batcher = make()
    push(batcher, "honest", deadline=100.0, now=100.0)
    push(batcher, "pushy", deadline=-1e9, now=101.0)
    assert started(batcher) == ["honest", "pushy"]


def test_one_without_deadline_is_not_overtaken_for_ever():
    batcher = make()
    push(batcher, "whenever", deadline=float("inf"), now=0.0)
    push(batcher, "soon", deadline=PATIENCE - 1, now=PATIENCE - 2)
    push(batcher, "later", deadline=PATIENCE + 2, now=PATIENCE + 1)
    assert started(batcher) == ["soon", "whenever", "later"]


def test_cancelling_a_call_takes_its_items_only_and_makes_room():
    batcher = make(size=3)
    for number, call in enumerate("aba"):
        push(batcher, number, call_id=call, deadline=number)
    first = batcher.start()
    assert first.item == 0
    assert batcher.cancel("a") == ([2], [0])
    assert batcher.cancel("a") == ([], [])
    assert not batcher.finish(first)
    assert (len(batcher), batcher.running) == (1, 0)
    push(batcher, 7, call_id="a", deadline=0.5)
    push(batcher, 8, call_id="a", deadline=9)
    assert batcher.clear() == [7, 1, 8]
    assert batcher.start() is None


def test_it_holds_nothing_of_those_who_left():
    batcher = make(size=4)
    push(batcher, "stays", deadline=0)
    for number in range(2000):
        push(batcher, number, call_id=f"call-{number}")
        if number % 2:
            batcher.cancel(f"call-{number}")
        else:
            assert batcher.start() is not None
            batcher.cancel(f"call-{number}")
        batcher.cancel("stays")
        push(batcher, "stays", deadline=0)
    assert len(batcher._waiting) == 1
    assert not batcher._running_of
    assert batcher.running == 0


def test_against_plain_lists():
    chance = random.Random(3)
    batcher: Batcher[tuple] = Batcher(20, 6)
    waiting: list[tuple] = []
    running: list = []
    for number in range(4000):
        action, now = chance.random(), float(number)
        if action < 0.5 and len(waiting) < 20:
            call, rows = chance.choice("abcd"), chance.randrange(1, 4)
            deadline = now + chance.randrange(-5, 60)
            due = min(max(deadline, now), now + PATIENCE)
            item = (due, number, call, rows)
            batcher.push(item, call_id=call, deadline=deadline, now=now, rows=rows)
            waiting.append(item)
        elif action < 0.75:
            busy = Counter(entry.call_id for entry in running)
            expected = min(waiting, key=lambda i: (busy[i[2]], i[0], i[1]), default=None)
            used = sum(entry.rows for entry in running)
            if expected and running and used + expected[3] > 6:
                expected = None
            entry = batcher.start()
            assert (entry and entry.item) == expected
            if entry:
                waiting.remove(entry.item)
                running.append(entry)
        elif action < 0.95:
            if running:
                entry = running.pop(chance.randrange(len(running)))
                assert batcher.finish(entry)
        else:
            call = chance.choice("abcd")
            waited, ran = batcher.cancel(call)
            assert sorted(waited) == sorted(i for i in waiting if i[2] == call)
            assert sorted(ran) == sorted(e.item for e in running if e.call_id == call)
            waiting = [item for item in waiting if item[2] != call]
            running = [entry for entry in running if entry.call_id != call]
        assert (len(batcher), batcher.running) == (len(waiting), len(running))


# -- turns ------------------------------------------------------------------------------------


def test_encoder_and_decoder_share_the_time_while_both_have_work():
    turns, spent = Turns(), {"encode": 0.0, "decode": 0.0}
    for _ in range(1000):
        if turns.encode_next(listening=5, asking=5):
            turns.encoded(0.1)
            spent["encode"] += 0.1
        else:
            turns.decoded(0.007)
            spent["decode"] += 0.007
    assert spent["decode"] == pytest.approx(spent["encode"], rel=0.1)


def test_nobody_waits_for_a_turn_that_nobody_wants():
    turns = Turns()
    turns.encoded(100.0)
    assert turns.encode_next(listening=1, asking=0)
    assert not turns.encode_next(listening=1, asking=1)
    assert not turns.encode_next(listening=0, asking=0)
    turns.decoded(1000.0)
    turns.encoded(1.0)
    assert not turns.encode_next(listening=1, asking=1)  # what was spent before is not saved up


def test_a_deadline_that_is_no_number_puts_nothing_out_of_order():
    batcher = make()
    for item, deadline in (("late", 9.0), ("nan", float("nan")), ("soon", 2.0)):
        push(batcher, item, call_id="one", deadline=deadline, now=1.0)
    push(batcher, "other", deadline=1.5, now=1.0)
    assert started(batcher) == ["nan", "other", "soon", "late"]
