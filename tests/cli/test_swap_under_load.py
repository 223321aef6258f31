"""Another model while the machine has more to do than it can: nobody's words change."""

from __future__ import annotations

import json
import shutil
import socket
import threading
import urllib.request
from pathlib import Path

import pytest
from serve_rig import WAIT, Server, send

from aii.resources import asset

CALLS = 12
AUDIO = asset("sample_call.slin").read_bytes()[: 32_000 * 14]
SAID_BEFORE = len(AUDIO) // 2 + 1  # bytes: it goes on in the middle of a sample


def speak(address: tuple[str, int], name: str, ready: threading.Event) -> str:
    """A call that says the half of it, waits, and goes on; what it is told."""
    with socket.create_connection(address, timeout=WAIT) as client:
        client.sendall(f"{name}\r".encode() + AUDIO[:SAID_BEFORE])
        assert ready.wait(WAIT)
        client.sendall(AUDIO[SAID_BEFORE:])
        client.shutdown(socket.SHUT_WR)
        reply = b""
        while piece := client.recv(65536):
            reply += piece
    return reply.decode()


def change(web: tuple[str, int], model: str) -> dict:
    url = f"http://{web[0]}:{web[1]}/config?model={model}"
    with urllib.request.urlopen(urllib.request.Request(url, method="POST"), timeout=WAIT) as answer:
        return json.load(answer)


@pytest.fixture
def server(tmp_path: Path):
    for name in ("one.pt", "two.pt"):
        shutil.copy(asset("embedded.pt"), tmp_path / name)
    running = Server(
        "--model", str(tmp_path / "one.pt"), "--web", "--web-port", "0", "--rate-limit", "none",
        "--temperature", "0", "--compute-type", "float32",
    )  # fmt: skip
    yield running
    running.process.kill()
    running.process.communicate()


def test_models_change_under_load_and_every_call_keeps_its_words(server: Server):
    alone = send(server.address, b"alone\r" + AUDIO).split()
    assert len(alone) > 20
    said: dict[str, str] = {}
    ready = threading.Event()

    def call(name: str) -> None:
        said[name] = speak(server.address, name, ready)

    threads = [threading.Thread(target=call, args=(f"call-{i}",)) for i in range(2 * CALLS)]
    for thread in threads[:CALLS]:
        thread.start()
    assert change(server.web, "two.pt")["model"].endswith("two.pt")
    for thread in threads[CALLS:]:
        thread.start()
    ready.set()
    assert change(server.web, "one.pt")["model"].endswith("one.pt")
    last = send(server.address, b"last\r" + AUDIO).split()
    for thread in threads:
        thread.join(WAIT)
    code, _, err = server.end()
    assert code == 0, err
    assert {name: text.split() for name, text in said.items()} == {
        f"call-{i}": alone for i in range(2 * CALLS)
    }
    assert last == alone
    assert err.count("the memory of a model that was replaced is given back") == 2
    assert err.count("0 failed, 0.0 s lost") == 2 * CALLS + 2
