"""Who is refused is in the log and in the metrics, and no flood fills the log."""

from __future__ import annotations

import logging
import socket

import pytest
from server_rig import WAIT, Clock, Rig, read_all, wait_until
from web_rig import WebRig, closed, refused

from aii.servers import refusals
from aii.servers.refusals import EVERY, Refusals


def lines(caplog) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name == refusals.__name__]


def test_of_a_flood_there_is_one_line_for_each_reason_and_while(caplog):
    clock, counted = Clock(), []
    refuse = Refusals(counted.append, clock)
    for _ in range(1000):
        refuse("sessions", "192.0.2.1:5", "/ws: too many sessions are open")
        refuse("token", "192.0.2.2", "/calls: a token is needed")
    assert lines(caplog) == [
        "192.0.2.1:5: refused: /ws: too many sessions are open",
        "192.0.2.2: refused: /calls: a token is needed",
    ]
    assert all(r.levelno == logging.WARNING for r in caplog.records)
    clock.now += EVERY
    refuse("sessions", "192.0.2.3:6", "/ws: too many sessions are open")
    assert lines(caplog)[2:] == [
        "192.0.2.3:6: refused: /ws: too many sessions are open (and 999 more since the last such "
        "line)"
    ]
    refuse.close()
    assert lines(caplog)[3:] == [
        "further clients were refused since the last such lines: 999 (token)"
    ]
    refuse.close()
    assert len(lines(caplog)) == 4
    assert (counted.count("sessions"), counted.count("token")) == (1001, 1000)


def test_a_line_is_one_line_whatever_a_client_says(caplog):
    Refusals()("path", "", "/a\nINFO all is well\x1b[2J\u202e" + "x" * 10_000)
    (line,) = lines(caplog)
    assert line.startswith("somebody: refused: /a?INFO all is well?[2J?xxx")
    assert len(line) < 300


def test_what_the_log_says_elsewhere_is_only_counted(caplog):
    counted = []
    Refusals(counted.append)("idle")
    assert (counted, lines(caplog)) == (["idle"], [])


def test_a_refused_session_is_in_the_log_and_the_metrics(caplog):
    with WebRig(max_sessions=1) as rig, rig.ws("/ws?call_id=first") as first:
        first.send(b"\0" * 4000)
        wait_until(lambda: rig.web.sessions == 1)
        for _ in range(20):
            with rig.ws("/ws/optimized") as more:
                assert closed(more)[0] == 1013
        assert refused(rig)["sessions"] == 20
        (line,) = lines(caplog)
        assert line.startswith("127.0.0.1:")
        assert line.endswith(
            ": refused: /ws/optimized: too many sessions are open; try again later"
        )


@pytest.mark.parametrize(
    "path, told",
    [
        ("/ws/transcription?client_id=a%0Ab", "/ws/transcription: a client id has at most 64"),
        ("/ws?policy=nonsense", "/ws: policy is 'nonsense'"),
        ("/nowhere%1b[2J", "/nowhere?[2J: no WebSocket at /nowhere?[2J;"),
    ],
)
def test_other_refusals_too(path, told, caplog):
    with WebRig() as rig, rig.ws(path) as ws:
        assert closed(ws)[0] == 1008
        (line,) = lines(caplog)
        assert f": refused: {told}" in line


def test_no_token_and_no_query_is_in_these_lines(caplog):
    with WebRig(token="correct-horse") as rig:
        rig.ask("GET", "/calls?token=wrong-horse")
    (line,) = lines(caplog)
    assert line == (
        "127.0.0.1: refused: /calls: a token is needed, as Authorization: Bearer or ?token="
    )


def test_refused_calls_by_tcp_flood_no_log(caplog):
    with Rig(max_calls=1, reply="text") as rig, rig.connect():
        wait_until(lambda: rig.server.open_calls == 1)
        for _ in range(20):
            with rig.connect() as more:
                assert "1 calls are open already" in read_all(more)
        assert rig.server.counts["refused"] == 20
    (line,) = lines(caplog)
    assert line.endswith(": refused: 1 calls are open already; try again later (--max-calls)")


def test_refused_calls_by_tcp_are_in_the_metrics():
    with WebRig(port=0, max_calls=1) as rig:
        address = rig.listeners._tcp[0][1].address
        with socket.create_connection(address, timeout=WAIT) as first:
            first.sendall(b"\0" * 640)
            wait_until(lambda: rig.listeners.open_calls() == 1)
            with socket.create_connection(address, timeout=WAIT) as second:
                read_all(second)
        assert refused(rig)["calls"] == 1
