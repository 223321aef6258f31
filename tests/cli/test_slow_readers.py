"""Web clients of a real server that leave what it tells them unread, with the system's buffers."""

from __future__ import annotations

import contextlib
import itertools
import re
import socket
import threading
import time
import urllib.request

import numpy as np
from raw_websocket import raw_websocket
from serve_rig import WAIT, Server, send
from websockets.sync.client import connect

from aii.resources import asset

SMALL = 536
"""Segment and receive buffer that a sleeper offers, in bytes: what is unread piles up early."""


def sleeper(address: tuple[str, int], path: str) -> socket.socket:
    """A WebSocket that reads the answer to its greeting and nothing more."""
    return raw_websocket(address, path, wait=WAIT, room=SMALL, segment=SMALL)


def floats() -> bytes:
    audio = np.frombuffer(asset("sample_call.slin").read_bytes(), "<i2")
    return (audio / 32768).astype("<f4").tobytes()


def cut(web: tuple[str, int]) -> float:
    """How many the server says it has cut for reading too slowly."""
    address = f"http://{web[0]}:{web[1]}/metrics"
    with urllib.request.urlopen(address, timeout=WAIT) as answer:
        lines = answer.read().decode().splitlines()
    found = [line for line in lines if line.startswith('aii_refused_total{why="slow reader"}')]
    return sum(float(line.rsplit(maxsplit=1)[1]) for line in found)


def talk(web: tuple[str, int], until) -> None:
    """A call with many answers: every watcher is told each of its words again and again."""
    audio = floats()
    size = 4 * 8000
    pieces = [audio[place : place + size] for place in range(0, len(audio) - size, size)]
    end = time.monotonic() + WAIT
    url = f"ws://{web[0]}:{web[1]}/ws?detail=true&reset_seconds=1&call_id=talker"
    with connect(url, proxy=None, open_timeout=WAIT) as ws:
        for piece in itertools.cycle(pieces):
            ws.send(piece)
            ws.recv(timeout=WAIT)
            if until():
                return
            assert time.monotonic() < end, "nobody was cut"


def rest(sock: socket.socket) -> bytes:
    """What a sleeper finds when it wakes up."""
    found = b""
    with contextlib.suppress(OSError):
        while data := sock.recv(65536):
            found += data
    return found


def test_who_does_not_read_is_cut_with_the_reason_and_the_call_beside_keeps_its_words():
    server = Server("--web", "--web-port", "0", "--slow-reader", "1", "--temperature", "0")
    audio = asset("sample_call.slin").read_bytes()[: 32000 * 6]
    alone = send(server.address, b"alone\r" + audio)
    beside: list[str] = []
    call = threading.Thread(target=lambda: beside.append(send(server.address, b"beside\r" + audio)))
    with sleeper(server.web, "/ws/events") as watcher:
        call.start()
        talk(server.web, lambda: cut(server.web) >= 1)
        told = rest(watcher)  # at once: what is cut is dropped some seconds later
        call.join(WAIT)
    code, _, err = server.end()
    assert code == 0, err
    assert b"\x03\xf0what was sent was not read in time" in told[-200:]
    assert "it follows events and does not read" in err
    assert [text.split() for text in beside] == [alone.split()] != [[]]


def test_a_caller_that_does_not_read_is_cut_and_its_words_reach_the_transcript():
    server = Server("--web", "--web-port", "0", "--slow-reader", "1", "--temperature", "0")
    audio = floats()[: 4 * 16_000 * 20]
    with sleeper(server.web, "/ws?detail=true&reset_seconds=1&call_id=mute") as mute:
        end = time.monotonic() + WAIT
        for place in itertools.cycle(range(0, len(audio), 4 * 8000)):
            with contextlib.suppress(OSError):  # it may be cut in the middle of it
                piece = audio[place : place + 4 * 8000]
                mute.sendall(b"\x82\xff" + len(piece).to_bytes(8, "big") + bytes(4) + piece)
            if cut(server.web):
                break
            assert time.monotonic() < end, "it was not cut"
            time.sleep(0.02)
    code, out, err = server.end()
    assert code == 0, err
    finals = [line for line in out.splitlines() if line.startswith("mute final")]
    words = [line.rpartition("]")[2] for line in finals]  # some are of silence
    heard = float(re.search(r"^mute ended after ([\d.]+) s: slow reader$", out, re.M)[1])
    assert len(" ".join(words).split()) > heard / 4, "its words so far are kept"
    assert "WARNING mute: the client is cut: it does not read" in err
    assert re.search(r"mute: over: slow reader; .*, 0 failed, 0\.0 s lost", err)
