"""The web listener of ``aii serve``, and the application under another server."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request

import numpy as np
import pytest
from serve_rig import ROOT, WAIT, Server, free_port, in_process, send
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from aii.cli import serve as command
from aii.config import ServerConfig
from aii.resources import asset
from aii.servers import listeners as listeners_module


def test_both_listeners_serve_one_engine():
    server = Server("--web", "--web-port", "0", "--temperature", "0")
    audio = asset("sample_call.slin").read_bytes()[: 32000 * 6]
    reply = send(server.address, b"by-tcp\r" + audio)
    with connect(
        f"ws://127.0.0.1:{server.web[1]}/ws?call_id=by-web", proxy=None, open_timeout=WAIT
    ) as ws:
        ws.send((np.frombuffer(audio, "<i2") / 32768).astype("<f4").tobytes())
        ws.send(json.dumps({"type": "end"}))
        heard = [json.loads(message) for message in ws]
    with urllib.request.urlopen(f"http://127.0.0.1:{server.web[1]}/calls", timeout=WAIT) as answer:
        calls = json.load(answer)["calls"]
    code, out, err = server.end()
    assert code == 0, err
    assert {call["call_id"] for call in calls} == {"by-tcp", "by-web"}
    assert heard[-1]["text"].split() == reply.split() != []
    assert "by-tcp final" in out
    assert "by-web final" in out
    assert "served 1 calls" in err


def test_the_web_listener_alone(monkeypatch):
    listeners = in_process(monkeypatch, "--port", "none", "--web-port", "0")
    (line,) = listeners.lines()
    assert line.startswith("web on http://127.0.0.1:")


def test_nothing_to_listen_on_is_told(capsys):
    assert command.main(["--port", "none"]) == 2
    assert "nothing would listen" in capsys.readouterr().err


def test_without_the_extra_the_web_is_left_out_or_told(monkeypatch, capsys, caplog):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "fastapi" else find(name)
    )
    assert listeners_module.make_web(ServerConfig(), by_default=True) is None
    for by_default in (True, False):  # who did not ask for it is told how to have it
        caplog.clear()
        monkeypatch.setattr(command, "_announce", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
        config = ServerConfig(port=0, threads=1)
        assert command.serve(config, web_by_default=by_default) == 0
        told = "no dashboard, for the extra web is not installed: pip install 'aii[web]'"
        assert (told in caplog.messages) == by_default
    capsys.readouterr()
    assert command.main(["--port", "0", "--web"]) == 2
    assert "pip install 'aii[web]'" in capsys.readouterr().err.splitlines()[-1]


def test_a_web_port_that_is_taken_is_told(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        flags = ["--port", "0", "--web-port", str(taken.getsockname()[1])]
        assert command.main(flags) == 2
    assert "choose another with --web-host or --web-port" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_uvicorn_serves_the_application_by_itself(number):
    """``uvicorn aii.servers.web:app``, set up by the environment, to the last words."""
    port = free_port()
    environ = {**os.environ, "AII_TEMPERATURE": "0", "AII_THREADS": "1", "WHISPER_LAN": "en",
               "AII_TOKEN": "a-token-of-ours"}  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", "aii.servers.web:app", "--port", str(port)],
        cwd=ROOT, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    killer = threading.Timer(4 * WAIT, process.kill)
    killer.start()
    try:
        address = f"127.0.0.1:{port}"
        until = time.monotonic() + 2 * WAIT
        while process.poll() is None and time.monotonic() < until:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://{address}/health", timeout=WAIT).close()
                break
            time.sleep(0.05)
        audio = asset("sample_call.slin").read_bytes()[: 32000 * 3]
        floats = (np.frombuffer(audio, "<i2") / 32768).astype("<f4").tobytes()
        url = f"ws://{address}/ws?token=a-token-of-ours"
        with connect(url, proxy=None, open_timeout=WAIT) as ws:
            ws.send(floats)
            ws.send(json.dumps({"type": "end"}))
            assert [json.loads(message) for message in ws][-1]["text"]
        with connect(url, proxy=None, open_timeout=WAIT, ping_interval=None) as ws:
            ws.send(floats)
            ws.recv(timeout=WAIT)  # the call is there
            process.send_signal(number)
            told = []
            with contextlib.suppress(ConnectionClosed):
                while True:
                    told.append(json.loads(ws.recv(timeout=WAIT)))
            assert (ws.close_code, ws.close_reason) == (1001, "the server is stopping")
            assert told[-1]["text"], "the last words come after the signal"
        out, _ = process.communicate(timeout=WAIT)
    finally:
        process.kill()
        process.wait(WAIT)
        killer.cancel()
    assert "/ws?token=..." in out  # uvicorn's own line, without the secret
    assert "a-token-of-ours" not in out
    assert re.search(r"ended after 3\.00 s: shutdown\n", out)
