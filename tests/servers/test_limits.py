"""When too much comes, something breaks, or the server stops."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import socket
import threading
import time

import pytest
from fake_engine import VOCABULARY, FakeEngine, call_settings, slin, speech, spoken
from server_rig import WAIT, Rig, delivered, lines, read_all, reset, wait_until

from aii.servers.budget import Budget
from aii.servers.models import Loaded, Models
from aii.servers.tcp import TcpServer
from aii.streaming.events import Final, Partial, Skipped
from aii.streaming.factory import Sessions


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


def test_past_the_budget_of_all_calls_reading_pauses_and_nothing_is_lost(caplog):
    engine = FakeEngine()
    engine.gate.clear()
    budget = Budget(100.0)
    calls = [speech(200, seed=seed) for seed in (11, 12, 13)]
    with Rig(engine=engine, framing="raw", budget=budget, reply="text") as rig:
        replies = [""] * len(calls)

        def play(n: int) -> None:
            replies[n] = rig.call(slin(calls[n]))

        threads = [threading.Thread(target=play, args=(n,)) for n in range(len(calls))]
        for thread in threads:
            thread.start()
        wait_until(lambda: budget.over)
        time.sleep(0.05)
        assert budget.total < 100 + len(calls) * (35 + 2 * 2.05)  # a window and a read each
        engine.gate.set()
        for thread in threads:
            thread.join(WAIT)
        rig.wait_for_no_calls()
    assert ["".join(lines(reply)) for reply in replies] == [spoken(call) for call in calls]
    assert budget.total == pytest.approx(0, abs=1e-6)
    messages = [record.message for record in caplog.records if "in all calls" in record.message]
    assert [": all are read" in message for message in messages] == [
        number % 2 == 1 for number in range(len(messages))
    ]


def test_a_call_that_needs_no_more_than_a_window_is_read_whatever_the_others_hold():
    budget = Budget(100.0)
    budget.change(1e6)
    samples = speech(30, seed=11)
    with Rig(framing="raw", budget=budget) as rig:
        assert "".join(lines(rig.call(slin(samples)))) == spoken(samples)


def test_a_silent_connection_is_closed_and_is_no_call(caplog):
    caplog.set_level(logging.INFO)
    samples = slin(speech(1))
    with Rig(first_byte_timeout=3.0, max_calls=1) as rig:
        with rig.connect() as client:
            assert read_all(client) == ""
        rig.wait_for_no_calls()
        assert rig.listener.events == []
        assert re.search(r"nothing came for \d s; the connection is ended", caplog.text)
        with rig.connect() as client:  # one that has begun may pause
            client.sendall(samples)
            rig.listener.wait(lambda events: bool(events))
            time.sleep(3.5)
            client.shutdown(socket.SHUT_WR)
            assert read_all(client) == "w1\n"


def test_a_wait_of_a_year_is_no_overflow():
    with Rig(idle_timeout=3.2e7, framing="raw") as rig:
        assert rig.call(slin(speech(1))) == "w1\n"
        assert [event.reason for event in rig.listener.ended()] == ["eof"]


@pytest.mark.parametrize("how", ["idle", "stop"])
def test_auto_writes_nothing_to_a_client_that_has_not_half_closed(how):
    data = slin(speech(2))
    with Rig(idle_timeout=3.0 if how == "idle" else 0, framing="raw") as rig:
        with rig.connect() as client:
            client.sendall(data)
            rig.listener.wait(lambda events: bool(events))
            if how == "stop":
                assert rig.stop()
            assert read_all(client) == ""
        assert rig.listener.ended()[0].reason == ("shutdown" if how == "stop" else "idle")
        assert rig.listener.text() == spoken(speech(2))


def test_an_id_is_free_again_when_its_call_has_ended(monkeypatch):
    """Not only when the connection is gone, which a slow reader may delay."""
    monkeypatch.setattr("aii.servers.line.Line.part", lambda self, events: gone.is_set())
    monkeypatch.setattr("aii.servers.line.Line.gone_by", property(lambda self: self.last_byte))
    gone = threading.Event()
    with Rig() as rig:
        for number in (1, 2):
            with rig.connect() as client:
                client.sendall(b"same\r" + slin(speech(1)))
            assert rig.listener.ended(number)[-1].call_id == "same"
            wait_until(lambda: "same" not in rig.ids._calls)
        assert rig.server.open_calls == 2
        assert rig.ids.claim("same").call_id == "same"  # a third one now ...
        gone.set()
        rig.wait_for_no_calls()
        assert rig.ids.claim("same").call_id == "same~2"  # ... does not lose it when the others go


def test_a_session_that_cannot_be_made_gives_the_id_back(monkeypatch, caplog):
    monkeypatch.setattr("aii.streaming.factory.make_policy", lambda *args: 1 / 0)
    with Rig() as rig:
        assert rig.call(b"call-1\r", slin(speech(1))) == ""
        rig.wait_for_no_calls()
        assert not rig.ids._calls
    assert "a mistake of ours" in caplog.text


def test_one_client_cannot_flood_the_log(caplog):
    caplog.set_level(logging.INFO)
    uuids = [b"\x01\0\x10" + bytes([n % 256]) * 16 for n in range(500)]
    rates = [bytes([0x10 + n % 3]) + b"\0\x02ab" for n in range(500)]
    wire = b"".join(uuid + audio for uuid, audio in zip(uuids, rates, strict=True))
    with Rig(framing="audiosocket") as rig:
        rig.call(wire)
        rig.wait_for_no_calls()
    messages = [record.message for record in caplog.records]
    assert len(messages) < 10
    # The first id counts as the call's own; it comes a second time with every 256th message.
    assert messages[-1].endswith("; 499 more changes of format, 497 more second call ids")


def test_each_call_is_summed_up_in_one_line_and_a_reset_said_once(caplog):
    caplog.set_level(logging.INFO)
    with Rig(framing="callid", reply="jsonl") as rig:
        client = rig.connect()
        client.sendall(b"call-9\r" + slin(speech(7, seed=2)))
        rig.listener.wait(lambda events: any(isinstance(e, Partial) for e in events))
        wait_until(lambda: delivered(client))
        reset(client)
        rig.listener.ended()
        rig.wait_for_no_calls()
    (line,) = [record.message for record in caplog.records if "call-9" in record.message]
    assert line == (
        "call-9: over: connection reset (Connection reset by peer); 7.0 s of audio, 1 finals, "
        "1 partials, 0 windows skipped, 0 failed, 0.0 s lost"
    )
    assert caplog.text.count("reset by peer") == 1


def test_calls_that_wait_with_the_kernel_at_the_end_are_heard():
    rig = Rig(framing="callid")
    calls = {f"call-{n}": speech(2, seed=n) for n in range(5)}
    clients = []
    for name, samples in calls.items():  # nobody accepts yet
        clients.append(rig.connect())
        clients[-1].sendall(name.encode() + b"\r" + slin(samples))
    rig.server.stop()
    with rig:
        rig.thread.join(WAIT)
        assert rig.stop()
    for client in clients:
        client.close()
    assert {name: rig.listener.text(name) for name in calls} == {
        name: spoken(samples) for name, samples in calls.items()
    }


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
            with contextlib.suppress(OSError):  # it may be closed before all is sent
                second.sendall(b"x" * 100_000)
            reply = read_all(second)
        assert reply == "aii: refused: 1 calls are open already; try again later\n"
        first.shutdown(socket.SHUT_WR)
        assert "w1" in read_all(first)
        rig.wait_for_no_calls()
        assert "w1" in rig.call(slin(speech(1)))
        rig.wait_for_no_calls()
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
    with Rig(idle_timeout=3.0, framing="raw", reply="text") as rig, rig.connect() as client:
        client.sendall(slin(samples))
        assert "".join(lines(read_all(client))) == spoken(samples)
        assert rig.listener.ended()[0].reason == "idle"


def test_stopping_finishes_the_last_words_of_open_calls():
    samples = [speech(7, seed=n) for n in range(3)]
    rig = Rig(framing="raw", reply="text")
    with rig:
        clients = [rig.connect() for _ in samples]
        for client, call in zip(clients, samples, strict=True):
            client.sendall(slin(call))
        rig.listener.wait(lambda events: sum(isinstance(e, Partial) for e in events) == 3)
        wait_until(lambda: all(map(delivered, clients)))
        assert rig.stop()
        heard = [e.text for e in rig.listener.events if isinstance(e, Final)]
        assert sorted(heard) == sorted(spoken(call) for call in samples)
        assert {e.reason for e in rig.listener.ended(3)} == {"shutdown"}
        for client in clients:
            assert read_all(client)
            client.close()


def test_past_the_deadline_what_was_not_decoded_is_named(caplog):
    engine = FakeEngine()
    engine.gate.clear()
    rig = Rig(engine=engine, framing="raw")
    with rig, rig.connect() as client:
        client.sendall(slin(speech(7)))
        wait_until(lambda: bool(engine.requests) and delivered(client))
        assert not rig.stop(0.1)
        (lost,) = [e for e in rig.listener.events if isinstance(e, Skipped)]
        assert (lost.start, lost.end, lost.lost) == (0.0, 7.0, True)
        assert rig.listener.ended()[0].reason == "shutdown deadline"
        assert engine.cancelled
    assert "7.0 s of audio are not decoded" in caplog.text


def test_past_the_deadline_what_was_shown_is_final(caplog):
    samples, engine = speech(7), FakeEngine()
    rig = Rig(engine=engine, framing="raw")
    with rig, rig.connect() as client:
        client.sendall(slin(samples[:80_000]))
        rig.listener.wait(lambda events: any(isinstance(e, Partial) for e in events))
        engine.gate.clear()
        client.sendall(slin(samples[80_000:]))
        client.shutdown(socket.SHUT_WR)
        wait_until(lambda: len(engine.requests) == 2)
        assert not rig.stop(0.1)
        (final,) = [e for e in rig.listener.events if isinstance(e, Final)]
        assert (final.text, final.end) == (spoken(samples[:80_000]), 5.0)
        assert (final.reason, final.error) == ("error", "shutdown deadline")
        (lost,) = [e for e in rig.listener.events if isinstance(e, Skipped)]
        assert (lost.start, lost.end, lost.lost) == (5.0, 7.0, True)
    assert "2.0 s of audio are not decoded" in caplog.text


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
        monkeypatch.setattr("aii.streaming.session.Session.dtmf", lambda self, digit: 1 / 0)
        wire = b"\x01\0\x10" + bytes(16) + b"\x03\0\x017"
        with rig.connect() as client:
            client.sendall(wire)
            read_all(client)
        assert rig.listener.ended()[0].reason == "internal error"
        assert "".join(lines(rig.call(slin(samples)))) == spoken(samples)
    assert "a mistake of ours" in caplog.text


class Crowded(FakeEngine):
    """An engine that says whether it is full."""

    full = 0.0

    def stats(self) -> dict[str, float]:
        return {**super().stats(), "full": self.full}


def test_calls_are_refused_while_the_engine_is_full_and_those_there_are_go_on(caplog):
    engine = Crowded()
    sessions = Sessions(call_settings(), VOCABULARY)
    models = Models(Loaded("one", engine, sessions), lambda *_: pytest.fail("nothing is loaded"))
    bound = {"bind": models.bind, "unbind": models.release, "no_room": models.no_room}
    samples = speech(7, seed=4)
    with Rig(engine=engine, reply="text", framing="raw", **bound) as rig:
        engine.full = 1.0
        with rig.connect() as first:  # nobody else is there: it is taken
            first.sendall(slin(samples[: len(samples) // 2]))
            wait_until(lambda: len(models._bound) == 1)
            with rig.connect() as second:
                second.sendall(b"x" * 1000)
                reply = read_all(second)
            assert reply == (
                "aii: refused: this machine is full: its answers come too late already; "
                "try again later\n"
            )
            engine.full = 0.0
            assert "w1" in rig.call(slin(speech(1)))
            engine.full = 1.0
            first.sendall(slin(samples[len(samples) // 2 :]))
            first.shutdown(socket.SHUT_WR)
            assert "".join(lines(read_all(first))) == spoken(samples)  # late or not, none is lost
        wait_until(lambda: not models._bound)
        rig.wait_for_no_calls()
        assert rig.server.counts == {"accepted": 2, "refused": 1}
    assert "--when-full" in caplog.text


def test_all_ports_share_the_limit():
    with Rig(reply="text") as rig:
        server = TcpServer("127.0.0.1", 0, rig.services, max_calls=1, count=lambda: 1)
        thread = threading.Thread(target=server.serve)
        thread.start()
        try:
            with socket.create_connection(server.address, timeout=WAIT) as client:
                client.sendall(b"x")
                assert "refused: 1 calls are open already" in read_all(client)
        finally:
            server.stop()
            thread.join(WAIT)
            assert server.finish(1.0)
