from __future__ import annotations

import random

import pytest

from aii.engine.batcher import DeadlineQueue
from aii.errors import EngineFullError


def test_earliest_deadline_first_then_first_come():
    queue: DeadlineQueue[str] = DeadlineQueue(10)
    for item, deadline in (("late", 9.0), ("a", 5.0), ("b", 5.0), ("first", 1.0)):
        queue.push(item, call_id="x", deadline=deadline)
    assert len(queue) == 4
    assert [queue.pop() for _ in range(5)] == ["first", "a", "b", "late", None]


def test_a_full_queue_says_so_and_keeps_what_it_has():
    queue: DeadlineQueue[int] = DeadlineQueue(2)
    queue.push(1, call_id="a", deadline=1)
    queue.push(2, call_id="b", deadline=2)
    with pytest.raises(EngineFullError, match="2 windows wait"):
        queue.push(3, call_id="c", deadline=0)
    assert queue.clear() == [1, 2]
    queue.push(3, call_id="c", deadline=0)
    assert queue.pop() == 3


def test_cancelling_a_call_takes_its_items_only_and_makes_room():
    queue: DeadlineQueue[int] = DeadlineQueue(3)
    for number, call in enumerate("aba"):
        queue.push(number, call_id=call, deadline=number)
    assert queue.cancel("a") == [0, 2]
    assert queue.cancel("a") == []
    assert len(queue) == 1
    queue.push(7, call_id="a", deadline=0.5)
    queue.push(8, call_id="a", deadline=9)
    assert queue.clear() == [7, 1, 8]
    assert queue.pop() is None


def test_it_never_grows_however_often_calls_are_cancelled():
    queue: DeadlineQueue[int] = DeadlineQueue(4)
    queue.push(-1, call_id="stays", deadline=0)
    for number in range(10_000):
        queue.push(number, call_id="goes", deadline=number)
        queue.cancel("goes")
        assert len(queue._heap) <= 20
    assert queue.clear() == [-1]
    assert not queue._by_call


def test_against_a_plain_list():
    chance = random.Random(3)
    queue: DeadlineQueue[tuple] = DeadlineQueue(20)
    model: list[tuple] = []
    for number in range(5000):
        action = chance.random()
        if action < 0.5 and len(model) < 20:
            item = (chance.randrange(9), number, chance.choice("abcd"))
            queue.push(item, call_id=item[2], deadline=item[0])
            model.append(item)
        elif action < 0.9:
            expected = min(model, default=None)
            assert queue.pop() == expected
            if expected:
                model.remove(expected)
        else:
            call = chance.choice("abcd")
            assert sorted(queue.cancel(call)) == sorted(i for i in model if i[2] == call)
            model = [item for item in model if item[2] != call]
        assert len(queue) == len(model)
