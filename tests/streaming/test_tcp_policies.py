"""Clients of the TCP server under every policy: replies as text and as JSON lines."""

from __future__ import annotations

import json

import numpy as np
import pytest
from fake_engine import FakeEngine, slin, speech, spoken
from server_rig import Rig, lines, read_all, reset

from aii.streaming.settings import POLICIES


def call(seconds: float = 12.0) -> np.ndarray:
    samples = speech(seconds, 3, longest=0.8, shortest=0.3, pause=0.1)
    return np.concatenate([samples, np.zeros(8000, np.int16)])


@pytest.mark.parametrize("policy", POLICIES)
def test_text_replies_joined_are_the_transcript(policy):
    with Rig(settings={"policy": policy}, reply="text") as rig:
        reply = rig.call(slin(call()))
        assert "".join(lines(reply)) == spoken(call())
        rig.listener.ended()
        assert rig.listener.text() == spoken(call())


@pytest.mark.parametrize("policy", POLICIES)
def test_json_lines_hold_every_event_in_order(policy):
    with Rig(settings={"policy": policy}, reply="jsonl") as rig:
        events = [json.loads(line) for line in rig.call(slin(call())).splitlines()]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert (events[0]["type"], events[-1]["type"]) == ("started", "ended")
    finals = [event for event in events if event["type"] == "final"]
    assert "".join(event["text"] for event in finals) == spoken(call())
    assert all(event["words"] for event in finals if event["text"])
    assert finals[-1]["reason"] == "hangup"
    if policy != "window":
        assert "agreement" in {event["reason"] for event in finals}
        assert "partial" in {event["type"] for event in events}


@pytest.mark.parametrize("policy", POLICIES)
def test_a_connection_that_is_reset_gives_the_words_of_a_clean_end(policy):
    with Rig(settings={"policy": policy}, engine=FakeEngine()) as rig:
        data = slin(call(5.0))
        with rig.connect() as client:
            client.sendall(data)
            rig.listener.wait(
                lambda events: sum(len(e.text) for e in events if e.type in ("partial", "final"))
            )
            client.shutdown(1)
            read_all(client)
        clean = rig.listener.text()
        client = rig.connect()
        client.sendall(data)
        reset(client)
        rig.listener.ended(2)
        both = rig.listener.text()
    assert clean == spoken(call(5.0))
    assert clean.startswith(both[len(clean) :])  # what the kernel had not delivered is not there
