"""When too much comes, something breaks, or the server stops."""

from __future__ import annotations

import json
import logging
import socket
import threading
import time

from fake_engine import FakeEngine, slin, speech, spoken
from server_rig import WAIT, Rig, lines, read_all, wait_until

from aii.streaming.events import Final, Partial, Skipped


def test_a_stuck_engine_never_stops_the_reading():
    engine = FakeEngine()
    engine.gate.clear()
    samples = speech(200, seed=9)
    with Rig(engine=engine, framing="raw") as rig, rig.connect() as client:
        client.sendall(slin(samples))  # would block if the server did not read
        client.shutdown(socket.SHUT_WR)
        wait_until(lambda: bool(engine.requests))
        engine.gate.set()
        assert "".join(lines(read_all(client))) == spoken(samples)
        assert any(isinstance(e, Skipped) for e in rig.listener.events)


def test_past_the_backlog_limit_reading_pauses_and_nothing_is_lost(caplog):
    engine = FakeEngine()
    engine.gate.clear()
    samples = speech(400, seed=10)
    with Rig(engine=engine, framing="raw", max_backlog=60.0) as rig, rig.connect() as client:
        sender = threading.Thread(target=client.sendall, args=(slin(samples),))
        sender.start()
        wait_until(lambda: "stops reading" in caplog.text)
        time.sleep(0.05)
        assert sender.is_alive()
        engine.gate.set()
        sender.join(WAIT)
        client.shutdown(socket.SHUT_WR)
        assert "".join(lines(read_all(client))) == spoken(samples)
    assert caplog.text.count("stops reading") >= 1
    assert "reading goes on" in caplog.text


def test_a_full_engine_costs_intermediate_windows_only():
    engine = FakeEngine(most=1)
    with Rig(engine=engine) as rig:
        calls = [speech(15, seed=n) for n in range(8)]
        replies: list[str] = [""] * len(calls)

        def play(n: int) -> None:
            replies[n] = rig.call(slin(calls[n]))

        threads = [threading.Thread(target=play, args=(n,)) for n in range(len(calls))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT)
    assert ["".join(lines(reply)) for reply in replies] == [spoken(call) for call in calls]


def test_a_call_that_breaks_the_engine_fails_alone():
    engine = FakeEngine()
    engine.broken.add("poison")
    samples = speech(8, seed=2)
    with Rig(engine=engine, reply="jsonl") as rig:
        poisoned = [json.loads(line) for line in rig.call(b"poison\r", slin(samples)).splitlines()]
        assert rig.call(b"healthy\r", slin(samples))
        assert rig.listener.text("healthy") == spoken(samples)
    final = next(event for event in poisoned if event["type"] == "final")
    assert (final["reason"], final["error"], final["text"]) == ("error", "the decoder broke", "")


def test_calls_above_the_limit_are_refused_with_a_line(caplog):
    with Rig(max_calls=1, reply="text") as rig, rig.connect() as first:
        first.sendall(slin(speech(1)))
        wait_until(lambda: rig.server.open_calls == 1)
        with rig.connect() as second:
            second.sendall(b"x" * 100_000)
            reply = read_all(second)
        assert reply == "aii: refused: 1 calls are open already; try again later\n"
        first.shutdown(socket.SHUT_WR)
        assert "w1" in read_all(first)
        rig.wait_for_no_calls()
        assert "w1" in rig.call(slin(speech(1)))
        assert rig.server.counts == {"accepted": 2, "refused": 1}
    assert "--max-calls" in caplog.text


def test_many_refused_clients_are_let_go(monkeypatch):
    monkeypatch.setattr("aii.servers.tcp.REFUSED_AT_ONCE", 2)
    with Rig(max_calls=1, reply="text") as rig, rig.connect():
        wait_until(lambda: rig.server.open_calls == 1)
        clients = [rig.connect() for _ in range(4)]
        for client in clients:
            read_all(client)  # comes to an end: every one is closed
            client.close()
        wait_until(lambda: not rig.server._refused)


def test_an_idle_call_is_ended_when_asked_for():
    samples = speech(2)
    with Rig(idle_timeout=0.2, framing="raw") as rig, rig.connect() as client:
        client.sendall(slin(samples))
        assert "".join(lines(read_all(client))) == spoken(samples)
        assert rig.listener.ended()[0].reason == "idle"


def test_stopping_finishes_the_last_words_of_open_calls():
    samples = [speech(7, seed=n) for n in range(3)]
    rig = Rig(framing="raw")
    with rig:
        clients = [rig.connect() for _ in samples]
        for client, call in zip(clients, samples, strict=True):
            client.sendall(slin(call))
        rig.listener.wait(lambda events: sum(isinstance(e, Partial) for e in events) == 3)
        assert rig.stop()
        heard = [e.text for e in rig.listener.events if isinstance(e, Final)]
        assert sorted(heard) == sorted(spoken(call) for call in samples)
        assert {e.reason for e in rig.listener.ended(3)} == {"shutdown"}
        for client in clients:
            assert read_all(client)  # they half-close no more: the text comes at the end
            client.close()


def test_past_the_deadline_what_was_not_decoded_is_named(caplog):
    engine = FakeEngine()
    engine.gate.clear()
    rig = Rig(engine=engine, framing="raw")
    with rig, rig.connect() as client:
        client.sendall(slin(speech(7)))
        wait_until(lambda: bool(engine.requests))
        assert not rig.stop(0.1)
        (lost,) = [e for e in rig.listener.events if isinstance(e, Skipped)]
        assert (lost.start, lost.end, lost.lost) == (0.0, 7.0, True)
        assert rig.listener.ended()[0].reason == "shutdown deadline"
        assert engine.cancelled
    assert "7.0 s of audio are not decoded" in caplog.text


def test_a_closed_engine_ends_calls_with_an_error_in_their_finals():
    engine = FakeEngine()
    with Rig(engine=engine) as rig:
        engine.close()
        rig.call(slin(speech(3)))
        rig.listener.ended()
    (final,) = [e for e in rig.listener.events if isinstance(e, Final)]
    assert (final.reason, final.error) == ("error", "closed")


def test_a_mistake_of_ours_ends_one_call(caplog, monkeypatch):
    caplog.set_level(logging.ERROR)
    samples = speech(2)
    with Rig() as rig:
        monkeypatch.setattr(
            "aii.streaming.session.Session.dtmf", lambda self, digit: 1 / 0, raising=True
        )
        wire = b"\x01\0\x10" + bytes(16) + b"\x03\0\x017"
        with rig.connect() as client:
            client.sendall(wire)
            read_all(client)
        assert rig.listener.ended()[0].reason == "internal error"
        assert "".join(lines(rig.call(slin(samples)))) == spoken(samples)
    assert "a mistake of ours" in caplog.text
