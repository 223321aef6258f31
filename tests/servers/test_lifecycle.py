from __future__ import annotations

import contextlib
import os
import select
import signal
import threading

import pytest

from aii.servers.lifecycle import (
    Bell,
    StoppedEarly,
    before_signals,
    make_selector,
    raise_file_limit,
    signals,
)


def rung(bell: Bell) -> bool:
    return bool(select.select([bell], [], [], 0)[0])


def test_a_bell_rings_until_it_is_hushed():
    bell = Bell()
    assert not rung(bell)
    for _ in range(100_000):  # many rings never block
        bell.ring()
    assert rung(bell)
    bell.hush()
    assert not rung(bell)
    bell.hush()
    bell.ring()
    assert rung(bell)
    bell.close()
    bell.ring()


def test_a_bell_wakes_a_waiting_thread():
    bell, selector = Bell(), make_selector()
    selector.register(bell, 1)
    woken = threading.Event()

    def wait() -> None:
        selector.select(30)
        woken.set()

    thread = threading.Thread(target=wait)
    thread.start()
    bell.ring()
    assert woken.wait(100)
    thread.join(100)
    selector.close()
    bell.close()


def test_the_file_limit_is_raised_to_what_is_allowed():
    import resource

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    hard = before[1]
    low = 512 if hard == resource.RLIM_INFINITY else min(512, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (low, hard))
        assert raise_file_limit() >= low
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > low or hard == low
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_the_first_signal_stops_and_the_second_ends_the_process(monkeypatch):
    ends: list[int] = []
    stops: list[int] = []
    monkeypatch.setattr(os, "_exit", ends.append)
    before = signal.getsignal(signal.SIGTERM)
    with signals() as handling:
        handling.hand_over(lambda: stops.append(1))
        signal.raise_signal(signal.SIGTERM)
        assert (stops, ends) == ([1], [])
        signal.raise_signal(signal.SIGINT)
        assert ends == [130]
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_signal_before_there_is_anything_to_stop_is_raised():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(StoppedEarly), signals():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_signal_that_somebody_swallowed_is_not_forgotten():
    with signals() as handling:
        with contextlib.suppress(StoppedEarly):
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(StoppedEarly):
            handling.hand_over(lambda: None)


def test_something_is_done_before_a_signal_reaches_its_handler():
    reached: list[int] = []
    held: list = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: reached.append(number))
    try:
        theirs = signal.getsignal(signal.SIGTERM)
        with before_signals(held.append):
            signal.raise_signal(signal.SIGTERM)
            assert (len(held), reached) == (1, [])
            held[0]()
            assert reached == [signal.SIGTERM]
            signal.raise_signal(signal.SIGTERM)  # a second one goes through at once
            assert (len(held), reached) == (1, [signal.SIGTERM] * 2)
        assert signal.getsignal(signal.SIGTERM) is theirs
        with before_signals(held.append):
            other = signal.signal(signal.SIGTERM, signal.SIG_IGN)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN  # what was set since stays
        assert other is not theirs
    finally:
        signal.signal(signal.SIGTERM, before)


def test_outside_the_main_thread_signals_are_left_alone():
    found = []

    def inside() -> None:
        with before_signals(lambda go_on: None):
            found.append(signal.getsignal(signal.SIGINT))

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=inside)
    thread.start()
    thread.join(100)
    assert found == [before]
