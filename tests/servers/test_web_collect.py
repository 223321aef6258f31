"""Asking callers over the web: by a running call's id, and on a client's own WebSocket."""

from __future__ import annotations

import json

import numpy as np
import pytest
from fake_engine import floats
from server_rig import WAIT
from web_rig import END, WebRig

from aii.streaming.events import Answer


@pytest.fixture(scope="module")
def rig():
    with WebRig() as rig:
        yield rig


def word(value: int, seconds: float = 1.0) -> bytes:
    """Float32 samples that the fake engine hears as one word."""
    samples = np.full(round(seconds * 16_000), value, np.int16)
    return floats(samples).astype("<f4").tobytes()


def read_answer(ws) -> dict:
    while True:
        message = json.loads(ws.recv(timeout=WAIT))
        if message.get("type") == "answer":
            return message


def answers(rig: WebRig, call_id: str) -> list[Answer]:
    events = list(rig.listener.events)
    return [e for e in events if isinstance(e, Answer) and e.call_id == call_id]


def test_a_client_asks_on_its_own_socket(rig):
    with rig.ws("/ws?call_id=own-call") as ws:
        ws.send(json.dumps({"type": "collect", "words": ["w7", "w8"], "name": "which"}))
        ws.send(word(7))
        answer = read_answer(ws)
        ws.send(END)
    assert (answer["status"], answer["value"], answer["question"]) == ("match", "w7", "which")
    assert answer["source"] == "speech"
    [event] = answers(rig, "own-call")
    assert answer == event.to_dict()


def test_a_question_that_makes_no_sense_does_not_end_the_call(rig):
    with rig.ws("/ws?call_id=odd-call") as ws:
        ws.send(json.dumps({"type": "collect", "digits": 0}))
        ws.send(word(3))
        assert json.loads(ws.recv(timeout=WAIT))["text"] == "w3"
        ws.send(END)
    assert answers(rig, "odd-call") == []


@pytest.mark.parametrize(
    "body", [b'{"words": {"w5": "1"}}', b"words=w5", b'{"words": ["w5"], "timeout": 5}']
)
def test_a_running_call_is_asked_by_its_id(rig, body):
    name = f"asked-{len(body)}"
    with rig.ws(f"/ws?call_id={name}") as ws:
        ws.send(word(2, 0.5))
        ws.recv(timeout=WAIT)  # the call runs
        asked = rig.ask("POST", f"/calls/{name}/collect", body)
        assert asked.status == 202
        assert json.loads(asked.content) == {"call_id": name, "asked": "words:w5"}
        ws.send(word(5))
        answer = read_answer(ws)
        ws.send(END)
    assert (answer["status"], answer["value"]) == ("match", "w5")


def test_a_call_that_does_not_run_cannot_be_asked(rig):
    assert rig.ask("POST", "/calls/nobody/collect", b'{"digits": 4}').status == 404


@pytest.mark.parametrize("body", [b"", b"{}", b'{"digits": "x"}', b"[1]", b'{"digits": 4, "a": 1}'])
def test_what_cannot_be_asked_is_refused_in_one_line(rig, body):
    refused = rig.ask("POST", "/calls/nobody/collect", body)
    assert refused.status == 400
    line = json.loads(refused.content)["error"]["message"]
    assert line
    assert "\n" not in line


def test_what_was_answered_is_read_after_the_call(rig):
    """As a dialplan does it, which has waited for the call to end."""
    with rig.ws("/ws?call_id=read-later") as ws:
        ws.send(json.dumps({"type": "collect", "words": ["w7", "w8"]}))
        ws.send(word(0))
        ws.recv(timeout=WAIT)
        assert rig.ask("GET", "/calls/read-later/answer").content == b""
        assert rig.get("/calls/read-later/answer?format=json") is None
        ws.send(word(7))
        given = read_answer(ws)
        ws.send(END)
    assert rig.ask("GET", "/calls/read-later/answer").content == b"w7"
    assert rig.get("/calls/read-later/answer?format=json") == given
    assert rig.ask("GET", "/calls/nobody/answer").status == 404
