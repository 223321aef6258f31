"""aii.servers.loop: one thread steps all members, and none of them harms another."""

from __future__ import annotations

import selectors
import socket
import statistics
import threading
import time

import pytest
from server_rig import wait_until

from aii.servers.loop import Loop

WAIT = 60.0


class Member:
    """Steps when it is due every ``every`` seconds; reads its socket; goes when told."""

    def __init__(self, *, every=None, broken=False):
        self.near, self.far = socket.socketpair()
        self.near.setblocking(False)
        self.steps = []
        self.in_time = []  # seconds after it was due, of each step that was
        self.data = b""
        self.gone = False
        self.left = 0
        self.wanted = selectors.EVENT_READ
        self.due = None if every is None else time.monotonic() + every
        self.changed = threading.Condition()
        self._every = every
        self._broken = broken

    def fileno(self):
        return self.near.fileno()

    def step(self, ready):
        if self._broken:
            raise RuntimeError("broken")
        now = time.monotonic()
        if ready & selectors.EVENT_READ:
            self.data += self.near.recv(100)
        if self.due is not None and now >= self.due:
            self.in_time.append(now - self.due)
            self.due = now + self._every
        with self.changed:
            self.steps.append(now)
            self.changed.notify_all()

    def leave(self):
        self.left += 1
        self.near.close()
        self.far.close()

    def wait(self, condition):
        with self.changed:
            assert self.changed.wait_for(lambda: condition(self), WAIT)


@pytest.fixture
def loop():
    loop = Loop()
    loop.start()
    yield loop
    for member in loop.members():
        member.gone = True
        loop.ring(member)
    assert loop.wait_until_empty(WAIT)
    assert loop.stop(WAIT)


def test_a_member_is_stepped_when_it_comes_when_rung_and_when_its_socket_is_ready(loop):
    member = Member()
    loop.add(member)
    member.wait(lambda m: len(m.steps) == 1)
    loop.ring(member)
    member.wait(lambda m: len(m.steps) == 2)
    member.far.send(b"hello")
    member.wait(lambda m: m.data == b"hello")
    assert len(loop) == 1


def test_nobody_watches_a_socket_that_is_not_wanted(loop):
    member = Member()
    member.wanted = 0
    loop.add(member)
    member.far.send(b"a")
    member.wait(lambda m: len(m.steps) == 1)
    time.sleep(0.05)
    assert len(member.steps) == 1
    member.wanted = selectors.EVENT_READ
    loop.ring(member)
    member.wait(lambda m: m.data == b"a")


def test_members_are_stepped_in_time(loop):
    members = [Member(every=0.02) for _ in range(20)]
    idle = Member(every=1000.0)
    for member in [*members, idle]:
        loop.add(member)
    for member in members:
        member.wait(lambda m: len(m.in_time) >= 8)
        assert statistics.median(member.in_time) < 1.0  # a loaded machine is no reason to fail
    assert len(idle.steps) < 5


def test_an_earlier_moment_overtakes_a_later_one(loop):
    member = Member(every=1000.0)
    loop.add(member)
    member.wait(lambda m: m.steps)
    member.due = soon = time.monotonic() + 0.02
    loop.ring(member)
    member.wait(lambda m: m.due != soon)  # set by the step that was due


def test_one_that_is_always_due_does_not_keep_the_others_from_their_turn(loop):
    class Greedy(Member):
        @property
        def due(self):
            return 0.0

        @due.setter
        def due(self, value):
            pass

    greedy, other = Greedy(every=0.0), Member()
    loop.add(greedy)
    greedy.wait(lambda m: len(m.steps) > 10)
    loop.add(other)
    other.far.send(b"x")
    other.wait(lambda m: m.data == b"x")


def test_a_mistake_ends_one_membership_and_no_other(loop, caplog):
    broken, sound = Member(broken=True), Member()
    loop.add(sound)
    loop.add(broken)
    sound.far.send(b"1")
    sound.wait(lambda m: m.data == b"1")
    wait_until(lambda: len(loop) == 1)
    assert loop.members() == [sound]
    assert broken.left == 1
    assert sound.left == 0
    assert "a mistake of ours" in caplog.text
    loop.ring(broken)  # nobody is there any more
    sound.far.send(b"2")
    sound.wait(lambda m: m.data == b"12")


def test_no_ring_is_lost(loop):
    """Each ring is followed by a step that begins after it."""
    member = Member()
    loop.add(member)

    def ring(number):
        for _ in range(200):
            begin = time.monotonic()
            loop.ring(member)
            member.wait(lambda m, begin=begin: m.steps and m.steps[-1] >= begin)

    threads = [threading.Thread(target=ring, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
        assert not thread.is_alive()


def test_stopping_waits_for_the_last_member():
    loop, member = Loop(), Member()
    loop.start()
    loop.add(member)
    assert not loop.stop(0.05)
    assert not loop.wait_until_empty(0.0)
    member.gone = True
    loop.ring(member)
    assert loop.wait_until_empty(WAIT)
    assert loop.stop(WAIT)
    assert member.left == 1
    assert Loop().stop()  # one that never ran
