"""Health, load, metrics, the live list, events, pages."""

from __future__ import annotations

import contextlib
import http.client
import json
import time
from urllib.parse import quote

import numpy as np
import pytest
from fake_engine import floats, speech, spoken
from server_rig import WAIT, wait_until
from web_rig import END, WebRig, messages, pieces, say

from aii.servers.web.board import ENDED, Board
from aii.streaming.events import CallEnded, CallStarted


@pytest.fixture(scope="module")
def rig():
    with WebRig(port=0) as rig:
        say(rig, "/ws?call_id=first&detail=true", floats(speech(4, seed=3, longest=1.0)))
        rig.listener.ended()
        yield rig


def test_health(rig):
    assert rig.get("/health") == rig.get("/health/ready") == {"status": "ok", "ready": True}
    assert rig.get("/health/live") == {"status": "ok"}
    rig.web.stopping = True
    try:
        answer = rig.ask("GET", "/health/ready")
        assert (answer.status, json.loads(answer.content)["ready"]) == (503, False)
        assert rig.ask("GET", "/health/live").status == 200
    finally:
        rig.web.stopping = False


@pytest.mark.parametrize("path", ["/", "/health", "/health/live", "/calls", "/web/base.css"])
def test_head_is_get_without_the_body(rig, path):
    full, head = rig.ask("GET", path), rig.ask("HEAD", path)
    assert (head.status, head.content) == (200, b"")
    for name in ("content-type", "content-length"):
        assert head.headers[name] == full.headers[name]
    assert full.content


def test_head_elsewhere(rig):
    assert rig.ask("HEAD", "/nowhere").status == 404
    assert rig.ask("HEAD", "/events").status == 405  # the answer to GET does not end


def test_load(rig):
    found = rig.get("/load")
    assert (found["model"], found["device"], found["version"]) == ("fake", "none", "9")
    assert found["objective"] == 1.0
    assert found["latency"] == {"p50": 0.01, "p95": 0.01}
    assert found["within"] == 1.0
    assert found["calls"] == 0
    assert found["memory"] > 1e7
    assert 0 <= found["cpu"] <= 1
    assert found["uptime"] > 0


def test_metrics(rig):
    text = [rig.ask("GET", "/metrics").content.decode() for _ in range(2)][1]
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert float(values["aii_calls_total"]) >= 1
    assert float(values['aii_calls_ended_total{reason="hangup"}']) >= 1
    assert float(values["aii_audio_seconds_total"]) >= 4
    assert float(values["aii_latency_seconds_count"]) >= 1
    assert values['aii_latency_seconds_bucket{le="0.01"}'] == values["aii_latency_seconds_count"]
    assert float(values["aii_calls_open"]) == 0
    assert float(values["aii_queue"]) == 0
    assert float(values["process_resident_memory_bytes"]) > 1e7
    assert float(values['aii_http_requests_total{route="/metrics",status="200"}']) >= 1
    before = float(values.get('aii_http_requests_total{route="/load",status="200"}', 0))
    rig.ask("HEAD", "/load")
    text = rig.ask("GET", "/metrics").content.decode()
    assert f'aii_http_requests_total{{route="/load",status="200"}} {before + 1}' in text
    assert "first" not in text  # no call's id is a label


def test_without_the_extra_the_metrics_say_what_to_install(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with WebRig() as rig:
        answer = rig.ask("GET", "/metrics")
        assert answer.status == 501
        assert b"pip install 'aii[metrics]'" in answer.content
        assert rig.get("/health")["ready"]


def test_calls_by_list_and_by_id(rig):
    listed = rig.get("/calls")["calls"]
    (call,) = [call for call in listed if call["call_id"] == "first"]
    assert call["finals"] == []
    assert call["earlier"] > 0
    whole = rig.get("/calls/first")
    assert "".join(final["text"] for final in whole["finals"]) == spoken(
        speech(4, seed=3, longest=1.0)
    )
    assert whole["reason"] == "hangup"
    assert whole["ended"] >= whole["started"]
    assert whole["duration"] == 4.0
    answer = rig.ask("GET", "/calls/nobody")
    assert answer.status == 404
    assert "no call 'nobody'" in json.loads(answer.content)["error"]["message"]


@pytest.mark.parametrize("kind", ["txt", "srt", "vtt", "tsv", "json"])
def test_transcripts_as_files(rig, kind):
    answer = rig.ask("GET", f"/calls/first/transcript?format={kind}")
    assert answer.status == 200
    assert answer.headers["Content-Disposition"] == f'attachment; filename="first.{kind}"'
    text = answer.content.decode()
    for word in spoken(speech(4, seed=3, longest=1.0)).split():
        assert word in text
    if kind == "json":
        assert json.loads(text)["segments"][0]["words"][0]["word"] == " w1"
    assert rig.ask("GET", "/calls/first/transcript?format=exe").status == 400


@pytest.mark.parametrize("call_id", ["PJSIP/100-0001", "a/answer/b"])
def test_a_call_id_may_have_slashes(rig, call_id):
    """As the names of Asterisk's channels do."""
    samples = speech(2, seed=4)
    say(rig, f"/ws?call_id={quote(call_id, safe='')}", floats(samples))
    path = f"/calls/{quote(call_id, safe='')}"
    assert rig.get(path)["call_id"] == call_id
    assert rig.get(f"{path}/transcript?format=json")["text"].split() == spoken(samples).split()
    assert rig.ask("GET", f"{path}/answer").status == 200


def test_events_by_websocket_are_a_snapshot_and_then_everything():
    with WebRig() as rig:
        say(rig, "/ws?call_id=before", floats(speech(1)))
        with rig.ws("/ws/events") as events:
            snapshot = json.loads(events.recv(timeout=WAIT))
            assert snapshot["type"] == "snapshot"
            assert [call["call_id"] for call in snapshot["calls"]] == ["before"]
            before = time.time()
            say(rig, "/ws?call_id=now", floats(speech(2, seed=1)))
            found = []
            while not found or found[-1]["type"] != "ended":
                found.append(json.loads(events.recv(timeout=WAIT)))
        assert {event["call_id"] for event in found} == {"now"}
        assert [event["seq"] for event in found] == list(range(1, len(found) + 1))
        assert all(before - 1 <= event.pop("time") <= time.time() for event in found)
        said = [event.to_dict() for event in rig.listener.events if event.call_id == "now"]
        assert found == json.loads(json.dumps(said))


def test_what_a_watcher_sends_is_for_nobody():
    with WebRig() as rig:
        with rig.ws("/ws/events") as events:
            json.loads(events.recv(timeout=WAIT))
            for message in (b"bytes", "text"):
                events.send(message)
                say(rig, f"/ws?call_id={len(message)}", floats(speech(1)))
                while json.loads(events.recv(timeout=WAIT))["type"] != "ended":
                    pass
        wait_until(lambda: rig.web.watchers == 0)


def test_a_watcher_in_mid_call_gets_what_was_said_so_far():
    with WebRig() as rig, rig.ws("/ws?call_id=open") as ws:
        for piece in pieces(floats(speech(2, seed=1)), 8000):
            ws.send(piece.astype("<f4").tobytes())
            ws.recv(timeout=WAIT)
        with rig.ws("/ws/events") as events:
            (call,) = json.loads(events.recv(timeout=WAIT))["calls"]
            assert call["ended"] is None
            assert call["partial"]["text"].split()[0] == "w1"
            ws.send(END)
            messages(ws)
            assert json.loads(events.recv(timeout=WAIT))["type"] in ("final", "partial")


def test_events_as_server_sent_events():
    with WebRig() as rig:
        client = http.client.HTTPConnection(*rig.address, timeout=WAIT)
        with contextlib.closing(client):
            client.request("GET", "/events")
            answer = client.getresponse()
            assert answer.headers["Content-Type"].startswith("text/event-stream")
            lines = iter(answer.readline, b"")
            assert json.loads(next(lines).removeprefix(b"data: "))["type"] == "snapshot"
            say(rig, "/ws?call_id=sse", np.zeros(16_000, np.float32))
            kinds = []
            while "ended" not in kinds:
                line = next(lines)
                if line.startswith(b"data: "):
                    kinds.append(json.loads(line.removeprefix(b"data: "))["type"])
        assert kinds[0] == "started"
        wait_until(lambda: rig.web.watchers == 0)


def test_calls_by_tcp_are_on_the_list_too(rig):
    import socket

    from fake_engine import slin

    address = rig.listeners._tcp[0][1].address
    with socket.create_connection(address, timeout=WAIT) as client:
        client.sendall(b"by-tcp\r" + slin(speech(2, seed=7)))
    wait_until(lambda: any(c["call_id"] == "by-tcp" for c in rig.get("/calls")["calls"]))
    wait_until(lambda: rig.get("/calls/by-tcp")["ended"] is not None)
    assert rig.get("/calls/by-tcp")["finals"][-1]["text"].split()[-1] in spoken(speech(2, seed=7))


def test_pages_and_their_headers(rig):
    answer = rig.ask("GET", "/")
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    for path in ("/web/../config.py", "/web/__init__.py", "/web/nothing.js", "/web/%2e%2e/cli.py"):
        assert rig.ask("GET", path).status == 404, path


def test_the_documentation_names_every_route_and_loads_nothing(rig):
    page = rig.ask("GET", "/docs").content.decode()
    for path in rig.get("/openapi.json")["paths"]:
        assert path in page
    for path in ("/ws/standard", "/ws/transcription", "/ws/events"):
        assert path in page
    assert "http://" not in page
    assert "https://" not in page
    assert "<script" not in page


def test_of_hundreds_of_calls_that_end_at_once_each_can_be_asked_for():
    board = Board()
    for number in range(500):
        board.emit(CallStarted(call_id=f"call-{number}", seq=1))
    for number in range(500):
        board.emit(CallEnded(call_id=f"call-{number}", seq=2, reason="done"))
    assert all(board.find(f"call-{number}") for number in range(500))
    assert len(board.calls()) == ENDED  # a snapshot stays small
