"""Web clients that are slow, silent or gone, and the server's end: each is cut with a reason.

Each test has a call running on the same server, which must not notice anything.
"""

from __future__ import annotations

import contextlib
import functools
import json
import re
import socket
import threading
import time

import numpy as np
import pytest
from fake_engine import floats, speech, spoken
from raw_websocket import raw_websocket
from server_rig import WAIT, read_all, wait_until
from web_rig import END, WebRig, call_beside, closed, messages, npy, pieces, refused, say

from aii.servers.web.wire import Limits

SILENCE = np.zeros(8000, "<f4").tobytes()


def raw_ws(rig: WebRig, path: str) -> socket.socket:
    """A WebSocket by hand, which reads nothing that it is not made to; little fits on its way."""
    rig.web_listener._listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # inherited
    return raw_websocket(rig.address, path, wait=WAIT, room=4096)


def frame(payload: bytes, opcode: int = 2) -> bytes:
    """A masked frame, the mask being zeros."""
    size = len(payload)
    length = bytes([0x80 | size]) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
    return bytes([0x80 | opcode]) + length + b"\0\0\0\0" + payload


def talk(rig: WebRig, until) -> None:
    """A talkative caller, one answer after another, until something has happened."""
    with rig.ws("/ws?detail=true&call_id=talkative") as ws:
        for piece in pieces(floats(speech(900, 1, longest=0.3)), 8000):
            ws.send(piece.astype("<f4").tobytes())
            ws.recv(timeout=WAIT)
            if until():
                return
    raise AssertionError("what was waited for did not happen")


def test_a_reader_of_events_that_does_not_read_is_cut():
    with WebRig(slow_reader=0.3) as rig, call_beside(rig):
        with raw_ws(rig, "/ws/events") as sleeper:
            wait_until(lambda: rig.web.watchers == 1)
            talk(rig, lambda: refused(rig).get("slow reader", 0) == 1)
            wait_until(lambda: rig.web.watchers == 0)
            rest = b""
            with contextlib.suppress(OSError):  # if it reads in the end it finds out why
                while data := sleeper.recv(65536):
                    rest += data
        assert b"\x03\xf0what was sent was not read in time" in rest[-200:]


def test_a_reader_of_server_sent_events_that_does_not_read_is_cut():
    with WebRig(slow_reader=0.3) as rig, call_beside(rig):
        rig.web_listener._listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        with socket.socket() as sleeper:
            sleeper.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sleeper.settimeout(WAIT)
            sleeper.connect(rig.address)
            sleeper.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            wait_until(lambda: rig.web.watchers == 1)
            talk(rig, lambda: refused(rig).get("slow reader", 0) == 1)
            wait_until(lambda: rig.web.watchers == 0)


def test_a_reader_of_a_long_answer_has_time_as_long_as_it_reads():
    with WebRig(slow_reader=2.0) as rig:
        samples = speech(600, 1, longest=0.3)
        say(rig, "/ws?call_id=long", floats(samples), size=16000)
        rig.web_listener._listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        with socket.socket() as reader:
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            reader.settimeout(WAIT)
            reader.connect(rig.address)
            reader.sendall(
                b"GET /calls/long/transcript?format=json HTTP/1.1\r\nHost: localhost\r\n"
                b"Connection: close\r\n\r\n"
            )
            found = b""
            while data := reader.recv(2048):
                found += data
                time.sleep(0.02)
        assert len(found) > 300_000, "else it proves nothing"
        text = json.loads(found.split(b"\r\n\r\n", 1)[1])["text"]
        assert text.split() == spoken(samples).split()
        assert not refused(rig)


def test_a_caller_that_does_not_read_its_answers_is_cut_and_its_words_are_kept():
    samples = speech(200, seed=2, longest=0.3)
    with WebRig(slow_reader=0.3) as rig, call_beside(rig):
        with raw_ws(rig, "/ws?detail=true&call_id=mute") as sleeper:
            sent = 0
            for piece in pieces(floats(samples), 8000):
                before = len(rig.engine.requests)
                with contextlib.suppress(OSError):
                    sleeper.sendall(frame(piece.astype("<f4").tobytes()))
                    sent += len(piece)
                if rig.listener.count():
                    break
                polled = time.monotonic() + 0.2
                while len(rig.engine.requests) == before and time.monotonic() < polled:
                    time.sleep(0.002)
        (end,) = rig.listener.ended()
        assert (end.call_id, end.reason) == ("mute", "slow reader")
        heard = rig.listener.text("mute").split()
        assert len(heard) > 10
        assert spoken(samples).split()[: len(heard) - 1] == heard[:-1]  # it may end within a word
        assert refused(rig)["slow reader"] == 1


def test_a_client_that_answers_no_ping_is_dead():
    with WebRig(ping=3.0) as rig, call_beside(rig):
        with raw_ws(rig, "/ws?call_id=dead") as sock:
            sock.sendall(frame(SILENCE[:4000]))
            rest = b""
            while data := sock.recv(4096):
                rest += data
        assert b"\x03\xf3keepalive ping timeout" in rest
        assert rig.listener.ended()[0].call_id == "dead"
        assert refused(rig)["no pong"] == 1


def test_a_client_that_we_do_not_read_is_not_dead_for_not_answering(monkeypatch):
    """While too much waits for the engine its pongs are among what we do not read."""
    monkeypatch.setattr("aii.servers.call.BUDGET_POLL", 0.02)
    with WebRig(ping=0.5, max_backlog=3.0) as rig:
        rig.engine.gate.clear()
        samples = speech(30, seed=3, longest=1.0)
        with rig.ws("/ws?reset_seconds=2&call_id=patient") as ws:
            sender = threading.Thread(
                target=lambda: [ws.send(p.astype("<f4").tobytes()) for p in pieces(floats(samples))]
            )
            sender.start()
            wait_until(lambda: rig.services.budget.total > 3.0)
            held = rig.services.budget.total
            time.sleep(2.5)  # pings and their patience
            assert rig.services.budget.total <= held + 1
            assert rig.web.sessions == 1
            rig.engine.gate.set()
            sender.join(WAIT)
            ws.send(END)
            messages(ws)
            assert (ws.close_code, ws.close_reason) == (1000, "")
        heard = list(dict.fromkeys(rig.listener.text("patient").split()))  # cut words come twice
        assert heard == spoken(samples).split()  # nothing was lost


def test_a_session_that_sends_nothing_is_closed():
    with WebRig(first_byte_timeout=5.0, idle_timeout=5.0) as rig:
        with rig.ws("/ws") as ws:
            code, reason = closed(ws)
            assert code == 1008
            assert re.fullmatch(r"nothing came for \d+ s; connect anew to go on", reason)
        with rig.ws("/ws?call_id=idle") as ws:
            ws.send(SILENCE)
            code, reason = closed(ws)
            assert code == 1008
            assert "nothing came" in reason
        assert [end.reason for end in rig.listener.ended()] == ["idle"]  # the first was no call


@pytest.mark.parametrize("said", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: localhost\r\n"])
def test_a_connection_that_makes_no_whole_request_is_closed(monkeypatch, said):
    monkeypatch.setattr("aii.servers.web.listener.Limits", functools.partial(Limits, header=1.0))
    with WebRig() as rig, call_beside(rig), socket.create_connection(rig.address, WAIT) as client:
        client.sendall(said)
        assert read_all(client).startswith("HTTP/1.1 408 ")
        assert refused(rig)["slow request"] == 1


def test_garbage_is_answered_and_closed():
    with WebRig() as rig, call_beside(rig):
        for said in (b"\x16\x03\x01\x02\x00\x01", b"\0" * 3000 + b"\r\n\r\n", b"GET\r\n\r\n"):
            with socket.create_connection(rig.address, timeout=WAIT) as client:
                client.sendall(said)
                assert read_all(client).startswith("HTTP/1.1 400 ")


def test_a_mistake_of_ours_ends_one_call_and_no_other(monkeypatch, caplog):
    from aii.protocols.floats import FloatProtocol

    def broken(self, event):
        if event["call_id"] == "unlucky":
            raise ZeroDivisionError("a mistake")
        return original(self, event)

    original = FloatProtocol._event
    monkeypatch.setattr(FloatProtocol, "_event", broken)
    with WebRig() as rig, call_beside(rig):
        with rig.ws("/ws?call_id=unlucky") as ws:
            ws.send(SILENCE)
            assert closed(ws) == (1011, "internal error")
        rig.listener.ended()
    assert "a mistake of ours" in caplog.text


def test_a_decode_that_takes_too_long_does_not_hold_the_server():
    rig = WebRig()
    with rig, rig.ws("/ws?call_id=stuck") as ws:
        rig.engine.gate.clear()
        ws.send(SILENCE)
        rig.listener.wait(lambda found: bool(found))
        assert not rig.stop(timeout=0.2)
        assert closed(ws)[0] == 1001
    assert rig.listener.ended()[0].reason == "shutdown deadline"


def test_a_client_that_has_gone_may_come_back_before_its_last_words_are_decoded():
    """Whoever reloads a page is not told that it is there already."""
    path = "/ws/transcription?client_id=bob"
    with WebRig() as rig:
        rig.engine.gate.clear()
        for seed in (1, 2):
            with rig.ws(path) as ws:
                ws.send(npy(floats(speech(2, seed))))
                wait_until(lambda: rig.engine.requests)
            wait_until(lambda: "bob" not in rig.web.client_ids)
        with rig.ws(path) as ws:
            with rig.ws(path) as fourth:
                assert closed(fourth)[0] == 1008
            rig.engine.gate.set()
            wait_until(lambda: len(rig.listener.ended()) == 2)
            assert "bob" in rig.web.client_ids, "it is the third one's"
            ws.send(npy(floats(speech(2, 3))))
            ws.send(END)
            found = messages(ws)
        assert "".join(item["text"] for item in found).split() == spoken(speech(2, 3)).split()
