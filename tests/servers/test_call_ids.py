from __future__ import annotations

import threading

from aii.servers.call_ids import CallIds, Claim


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_ids_that_are_taken_get_a_number(caplog) -> None:
    ids = CallIds()
    assert ids.claim("a") == Claim("a")
    second = ids.claim("a")
    assert second == Claim("a~2")
    assert ids.claim("a") == Claim("a~3")
    assert "a: this id is taken by a running call; it runs as a~2" in caplog.text
    ids.release(second)
    assert ids.claim("a") == Claim("a~2")
    assert ids.claim(None).call_id != ids.claim(None).call_id


def test_legs_share_the_id_and_know_when_they_began() -> None:
    clock = Clock()
    ids = CallIds(clock)
    first = ids.claim("a", "caller")
    clock.now += 1.5
    second = ids.claim("a", "callee")
    assert (first, second) == (Claim("a", "caller"), Claim("a", "callee", 1.5))
    assert ids.claim("a", "callee") == Claim("a~2", "callee")
    assert ids.claim("a") == Claim("a~3")  # one who hears the call as one is another call
    ids.release(first)
    ids.release(first)
    clock.now += 1
    assert ids.claim("a", "caller") == Claim("a", "caller", 2.5)  # as long as one leg runs
    ids.release(second)
    ids.release(Claim("a", "caller"))
    assert ids.claim("a", "callee") == Claim("a", "callee", 0.0)


def test_a_leg_does_not_join_a_call_that_is_heard_as_one() -> None:
    ids = CallIds()
    ids.claim("a")
    assert ids.claim("a", "caller").call_id == "a~2"


def test_legs_of_one_stream_begin_together() -> None:
    clock = Clock()
    ids = CallIds(clock)
    ids.claim("a", "caller")
    clock.now += 0.1
    assert ids.claim("a", "callee", together=True).start == 0.0


def test_releasing_what_was_never_claimed() -> None:
    CallIds().release(Claim("x"))


def test_many_threads_get_ids_of_their_own() -> None:
    ids, got = CallIds(), []

    def claim() -> None:
        for _ in range(20):
            got.append(ids.claim("a").call_id)

    threads = [threading.Thread(target=claim) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
    assert len(set(got)) == len(got) == 160
