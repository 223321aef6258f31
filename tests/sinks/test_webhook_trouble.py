from __future__ import annotations

import logging
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from sink_peers import WAIT, Post, Receiver, wait_until

from aii.sinks import webhook as module
from aii.sinks.spool import Spool
from aii.sinks.webhook import WebhookSink
from aii.streaming.events import CallEnded, CallStarted, Dtmf, Event, Final, Partial
from aii.types import Segment

ROOT = Path(__file__).resolve().parent.parent.parent
VECTOR = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def final(call: str, seq: int, text: str = "hello", leg: str = "", start: float = 0.0) -> Final:
    segments = (Segment(start, start + 1, f" {text}"),)
    return Final(call, seq, start, start + 1, segments, reason="reset", leg=leg)


def call(name: str, finals: int = 3) -> list[Event]:
    body = [final(name, n + 2, f"{name} {n}") for n in range(finals)]
    return [CallStarted(name, 1, "1.2.3.4:5"), *body, CallEnded(name, finals + 2, "eof", 9.0)]


def sink(url: str, folder: Path, *, limit: int = 1 << 20, **options) -> WebhookSink:
    spool = Spool(folder, url, limit=limit)
    return WebhookSink(url, spool, **{"first": 0.01, "most": 0.05, **options})


def send(to: WebhookSink, *events: Event) -> None:
    for event in events:
        to.emit(event)


def seqs(posts: list[Post], name: str) -> list[int]:
    return [p.event["seq"] for p in posts if p.event["call_id"] == name]


def test_what_could_not_be_delivered_is_delivered_after_a_restart_with_the_same_id(tmp_path):
    lose = True

    def answer(post: Post) -> int:
        if lose and post.event["seq"] == 3:
            raise ConnectionError  # it has arrived, but we never hear of it
        return 204

    with Receiver(answer) as receiver:
        to = sink(receiver.url, tmp_path)
        send(to, *call("a"))
        wait_until(lambda: sum(p.event["seq"] == 3 for p in receiver.got) > 1)
        assert to.close(WAIT)
        lose = False
        to = sink(receiver.url, tmp_path)
        wait_until(lambda: to.pending == 0)
        assert to.close(WAIT)
    assert seqs(receiver.taken, "a") == [1, 2, 3, 4, 5]
    assert len({post.id for post in receiver.got if post.event["seq"] == 3}) == 1


def test_a_receiver_that_never_answers_delays_no_call(tmp_path):
    gate = threading.Event()

    def answer(post: Post) -> int:
        gate.wait(WAIT)
        return 200

    with Receiver(answer) as receiver:
        to = sink(receiver.url, tmp_path)
        begin = time.monotonic()
        for n in range(500):
            send(to, final(f"c{n}", 1))
        assert time.monotonic() - begin < WAIT / 2  # it has not waited for the gate
        wait_until(lambda: len(to._schedule) == 500)
        assert not to.close(0.05)  # its threads are stuck, but everything is on the disk
        gate.set()
        for thread in to._senders:
            thread.join(WAIT)
        to._spool.close()
    assert len(Spool(tmp_path, receiver.url).waiting()) >= 496


def test_a_timeout_is_a_receiver_that_cannot_be_reached(tmp_path, caplog):
    gate = threading.Event()

    def answer(post: Post) -> int:
        gate.wait(WAIT)
        return 200

    with Receiver(answer) as receiver:
        to = sink(receiver.url, tmp_path, timeout=0.3)
        send(to, final("a", 1))
        wait_until(lambda: "no answer in time; events wait" in caplog.text)
        gate.set()
        wait_until(lambda: to.pending == 0)
        assert to.close(WAIT)


def test_a_full_queue_loses_what_is_new_and_says_so(tmp_path, caplog):
    with Receiver() as receiver:
        receiver.down()
        to = sink(receiver.url, tmp_path, limit=20_000, partials=True)
        for n in range(100):
            send(to, final("a", n))
        wait_until(lambda: to.counts["lost"] > 0 and to.pending == len(to._schedule))
        held = to._spool.held
        kept = len(to._schedule)
        send(to, Partial("b", 1))
        wait_until(lambda: to.counts["dropped"] == 1)
        receiver.up()
        wait_until(lambda: to.pending == 0)
        assert to.close(WAIT)
    assert held <= 20_000
    assert seqs(receiver.taken, "a") == list(range(kept))
    assert kept + to.counts["lost"] == 100
    assert "the queue on disk is full" in caplog.text


def test_a_disk_that_takes_nothing_for_a_while_costs_nothing(tmp_path, caplog, monkeypatch):
    broken = [True]
    put = Spool.put

    def failing(self, entries):
        if broken[0]:
            raise OSError("disk full")
        return put(self, entries)

    monkeypatch.setattr(Spool, "put", failing)
    with Receiver() as receiver:
        to = sink(receiver.url, tmp_path)
        send(to, *call("a"))
        wait_until(lambda: "cannot be queued on disk: disk full" in caplog.text)
        broken[0] = False
        wait_until(lambda: to.pending == 0)
        assert to.close(WAIT)
    assert seqs(receiver.taken, "a") == [1, 2, 3, 4, 5]


def test_a_disk_too_full_to_forget_what_is_delivered_holds_up_nothing(
    tmp_path, caplog, monkeypatch
):
    """Striking a row takes room. Said once; everything arrives once; nothing is left at the end."""
    broken = [True]
    done = Spool.done

    def failing(self, rows):
        if broken[0]:
            raise OSError("disk full")
        return done(self, rows)

    monkeypatch.setattr(Spool, "done", failing)
    with Receiver() as receiver:
        to = sink(receiver.url, tmp_path)
        for name in "abc":
            send(to, *call(name))
        wait_until(lambda: to.pending == 0)
        assert caplog.text.count("cannot be struck off the queue on disk: disk full") == 1
        broken[0] = False
        assert to.close(WAIT)
        assert all(seqs(receiver.got, name) == [1, 2, 3, 4, 5] for name in "abc")
        to = sink(receiver.url, tmp_path)
        assert to.pending == 0
        assert to.close(WAIT)


def test_partials_that_a_full_disk_keeps_send_no_final_twice(tmp_path, caplog, monkeypatch):
    """What makes them needless is on the disk by then, and must not be put there again."""
    done, tries = Spool.done, []

    def failing(self, rows):
        tries.append(rows)
        raise OSError("disk full")

    with Receiver() as receiver:
        receiver.down()
        to = sink(receiver.url, tmp_path, partials=True)
        send(to, CallStarted("a", 1, "1.2.3.4:5"), Partial("a", 2))
        wait_until(lambda: len(to._schedule) == 2)
        monkeypatch.setattr(Spool, "done", failing)
        send(to, *(final("a", n) for n in range(3, 6)))
        wait_until(lambda: tries and to.pending == len(to._schedule) >= 4)
        monkeypatch.setattr(Spool, "done", done)
        receiver.up()
        wait_until(lambda: to.pending == 0)
        assert to.close(WAIT)
    assert seqs(receiver.taken, "a") == [1, 3, 4, 5]


def test_memory_is_bounded_while_the_disk_takes_nothing(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(module, "MEMORY", 30)
    monkeypatch.setattr(Spool, "put", lambda self, entries: (_ for _ in ()).throw(OSError("full")))
    with Receiver() as receiver:
        to = sink(receiver.url, tmp_path, size=5)
        for n in range(100):
            send(to, final("a", n), Dtmf("a", n, "5", 0.0))
        assert to.pending <= 90
        assert to.counts["lost"] >= 10
        assert to.counts["dropped"] >= 60
        assert not to.close(0.05)
    assert "events are lost: the disk did not take them" in caplog.text


def test_a_mistake_of_ours_does_not_end_the_queue(tmp_path, caplog, monkeypatch):
    calls = []
    get = Spool.get

    def odd(self, row):
        calls.append(row)
        if len(calls) == 1:
            raise TypeError("no such thing")
        return get(self, row)

    monkeypatch.setattr(Spool, "get", odd)
    with Receiver() as receiver:
        to = sink(receiver.url, tmp_path)
        send(to, *call("a"))
        wait_until(lambda: to.pending == 0)
        assert to.close(WAIT)
    assert seqs(receiver.taken, "a") == [1, 2, 3, 4, 5]
    assert "no such thing; it is tried again" in caplog.text


@pytest.mark.parametrize("seed", range(6))
def test_a_receiver_that_does_everything_wrong_gets_everything_in_order(tmp_path, seed: int):
    chance = random.Random(seed)
    lock = threading.Lock()

    def answer(post: Post) -> int:
        with lock:
            what = chance.random()
        if what < 0.15:
            raise ConnectionError
        return 500 if what < 0.3 else 429 if what < 0.4 else 200

    with Receiver(answer) as receiver:
        to = sink(receiver.url, tmp_path, first=0.001, most=0.005)
        for round_ in range(3):  # and restarts in between
            for n in range(8):
                name = f"c{n}"
                send(to, *(final(name, round_ * 10 + k) for k in range(5)))
            wait_until(lambda old=to: old.close(0.3))  # a new process would find it unlocked
            to = sink(receiver.url, tmp_path, first=0.001, most=0.005)
        wait_until(lambda: to.pending == 0)
        assert to.close(WAIT)
    ids: dict[tuple[str, int], set[str]] = {}
    for post in receiver.got:
        ids.setdefault((post.event["call_id"], post.event["seq"]), set()).add(post.id)
    assert all(len(found) == 1 for found in ids.values())
    for n in range(8):
        arrived = list(dict.fromkeys(seqs(receiver.taken, f"c{n}")))
        assert arrived == [r * 10 + k for r in range(3) for k in range(5)]


KILLED = """
import sys, time
from aii.sinks.spool import Spool
from aii.sinks.webhook import WebhookSink
from aii.streaming.events import CallStarted, Final
from aii.types import Segment

spool = Spool(sys.argv[2], "r")
sink = WebhookSink(sys.argv[1], spool, first=0.01, most=0.05)
sink.emit(CallStarted("a", 1))
for n in range(2, 40):
    sink.emit(Final("a", n, 0.0, 1.0, (Segment(0, 1, f" {n}"),)))
while len(spool.waiting()) < 39:
    time.sleep(0.01)
print("stored", flush=True)
time.sleep(60)
"""


def test_a_server_that_is_killed_delivers_at_its_next_start(tmp_path):
    with Receiver() as receiver:
        receiver.down()
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, receiver.url, str(tmp_path)], cwd=ROOT,
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "stored\n"
        process.kill()
        process.communicate()
        receiver.up()
        to = WebhookSink(receiver.url, Spool(tmp_path, "r"), first=0.01, most=0.05)
        wait_until(lambda: to.pending == 0)
        assert to.close(WAIT)
    assert seqs(receiver.taken, "a") == list(range(1, 40))


def outage(receiver: Receiver, seconds: float) -> None:
    receiver.down()
    time.sleep(seconds)
    receiver.up()


def test_an_outage_that_lasts_while_calls_go_on(tmp_path, caplog):
    """A minute in small: the back-off has reached its most when the receiver is back."""
    caplog.set_level(logging.ERROR)
    with Receiver() as receiver:
        to = sink(receiver.url, tmp_path, first=0.01, most=0.1)
        thread = threading.Thread(target=outage, args=(receiver, 0.6))
        thread.start()
        for n in range(60):
            send(to, *call(f"c{n}", 2))
            time.sleep(0.01)
        thread.join()
        wait_until(lambda: to.pending == 0)
        assert to.close(WAIT)
    for n in range(60):
        assert seqs(receiver.taken, f"c{n}") == [1, 2, 3, 4]
    assert to.counts["lost"] == to.counts["dropped"] == 0
    assert caplog.records == []
