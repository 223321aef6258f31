"""The server stops: every session gets its last words and a clean close, in bounded time."""

from __future__ import annotations

import contextlib
import json
import socket
import time

import numpy as np
import pytest
from fake_engine import floats, slin, speech, spoken
from server_rig import WAIT, read_all
from web_rig import WebRig, closed, messages, npy

SAMPLES = speech(3, seed=2, longest=1.0)
SILENCE = np.zeros(8000, "<f4").tobytes()


def said(kind: str, told: list[dict]) -> list[str]:
    """The words that a client has, from what it was told."""
    if kind == "/ws":
        return told[-1]["text"].split()
    if kind == "/audio-stream":
        return "".join(event["text"] for event in told if event["type"] == "final").split()
    return " ".join(message.get("text", "") for message in told).split()


@pytest.mark.parametrize("kind", ["/ws", "/ws/transcription", "/vosk", "/audio-stream"])
def test_the_last_words_come_and_then_a_clean_close(kind):
    rate = "?rate=16000" if kind in ("/vosk", "/audio-stream") else ""
    audio = {"/ws": floats(SAMPLES).astype("<f4").tobytes(),
             "/ws/transcription": npy(floats(SAMPLES))}.get(kind, slin(SAMPLES))  # fmt: skip
    rig = WebRig()
    with rig, rig.ws(kind + rate) as ws:
        ws.send(audio)
        rig.listener.wait(lambda found: bool(found))
        assert rig.stop()
        told = messages(ws)
        assert (ws.close_code, ws.close_reason) == (1001, "the server is stopping")
    assert said(kind, told) == spoken(SAMPLES).split()
    assert rig.listener.ended()[0].reason == "shutdown"


def test_who_follows_events_has_the_last_words_of_all_calls():
    rig = WebRig(port=0)
    address = rig.listeners._tcp[0][1].address
    with (
        rig, rig.ws("/ws?call_id=by-web") as ws, rig.ws("/ws/events") as events,
        socket.create_connection(address, timeout=WAIT) as call,
    ):  # fmt: skip
        rig.engine.gate.clear()
        ws.send(floats(SAMPLES).astype("<f4").tobytes())
        call.sendall(b"by-tcp\r" + slin(SAMPLES))
        rig.listener.wait(lambda found: len({event.call_id for event in found}) == 2)
        rig.listeners.stop()
        rig.thread.join(WAIT)
        rig.engine.gate.set()
        assert rig.stop()
        read_all(call)
        messages(ws)
        told = messages(events)
        assert (events.close_code, events.close_reason) == (1001, "the server is stopping")
    assert told[0]["type"] == "snapshot"
    for name in ("by-web", "by-tcp"):
        theirs = [event for event in told[1:] if event["call_id"] == name]
        words = "".join(event["text"] for event in theirs if event["type"] == "final")
        assert words.split() == spoken(SAMPLES).split()
        assert theirs[-1]["type"] == "ended"


def test_a_decode_that_takes_too_long_does_not_hold_the_server():
    rig = WebRig()
    with rig, rig.ws("/ws?call_id=stuck") as ws, rig.ws("/ws/events") as events:
        rig.engine.gate.clear()
        ws.send(SILENCE)
        rig.listener.wait(lambda found: bool(found))
        began = time.monotonic()
        assert not rig.stop(timeout=0.2)
        assert time.monotonic() < began + WAIT / 2
        assert closed(ws)[0] == 1001
        told = messages(events)
    assert rig.listener.ended()[0].reason == "shutdown deadline"
    assert told[-1]["reason"] == "shutdown deadline"


def test_who_comes_while_the_server_stops_is_told():
    rig = WebRig()
    with rig, rig.ws("/ws?call_id=open") as first:
        rig.engine.gate.clear()
        first.send(SILENCE)
        rig.listener.wait(lambda found: bool(found))
        rig.web.stopping = True
        for path in ("/ws", "/ws/transcription", "/ws/events"):
            with rig.ws(path) as late:
                assert closed(late) == (1013, "the server is stopping; try again later")
        answer = rig.ask("GET", "/events")
        assert answer.status == 503
        assert "stopping" in json.loads(answer.content)["error"]["message"]
        rig.engine.gate.set()
        with contextlib.suppress(OSError):
            rig.stop()
