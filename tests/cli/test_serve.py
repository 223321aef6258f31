"""``aii serve`` and ``aii_server.py`` as processes and in-process."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from aii.cli import serve as command
from aii.config import ServerConfig
from aii.errors import ConfigError
from aii.resources import asset

ROOT = Path(__file__).resolve().parent.parent.parent
WAIT = 60
ANNOUNCE = command._announce


class Server:
    """A server process on a free port."""

    def __init__(self, *flags: str, script: tuple[str, ...] = ("aii_server.py",)) -> None:
        self.process = subprocess.Popen(
            [sys.executable, *script, "--port", "0", "--threads", "1", *flags],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.said: list[str] = []
        assert self.process.stderr is not None
        self._killer = threading.Timer(2 * WAIT, self.process.kill)
        self._killer.start()
        for line in self.process.stderr:
            self.said.append(line)
            if found := re.search(r"listening on (127\.0\.0\.1):(\d+)$", line):
                self.address = (found[1], int(found[2]))
                return
        raise AssertionError("".join(self.said))

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str, str]:
        """Send a signal; exit code, stdout and the rest of stderr."""
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=WAIT)
        self._killer.cancel()
        return self.process.returncode, out, err


def send(address: tuple[str, int], data: bytes) -> str:
    with socket.create_connection(address, timeout=WAIT) as client:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        reply = b""
        while piece := client.recv(65536):
            reply += piece
    return reply.decode()


def test_the_script_serves_a_call_and_stops_on_sigterm(tmp_path):
    events = tmp_path / "events.jsonl"
    server = Server("--jsonl", str(events), "--temperature", "0")
    assert any("digits and telephone phrases" in line for line in server.said)
    assert any("aii models download small" in line for line in server.said)
    audio = asset("sample_call.slin").read_bytes()[: 32000 * 6]
    reply = send(server.address, b"call-5\r" + audio)
    code, out, _ = server.end()
    assert code == 0
    lines = [json.loads(line) for line in events.read_text().splitlines()]
    assert [line["seq"] for line in lines] == list(range(1, len(lines) + 1))
    assert lines[-1]["type"] == "ended"
    text = "".join(line["text"] for line in lines if line["type"] == "final")
    assert reply.split() == text.split() != []
    assert all(line.startswith("call-5 ") for line in out.splitlines())
    assert re.search(r"call-5 final \d\.\d\d s decode, 6\.00 s buffered, 192000 bytes: \[", out)


def test_aii_serve_finishes_an_open_call_on_ctrl_c():
    server = Server("--jsonl", "-", "--temperature", "0", script=("-m", "aii", "serve"))
    with socket.create_connection(server.address, timeout=WAIT) as client:
        client.sendall(asset("sample_call.slin").read_bytes()[: 32000 * 3])
        assert server.process.stdout is not None
        first = json.loads(server.process.stdout.readline())
        assert first["type"] == "started"
        code, out, err = server.end(signal.SIGINT)
    events = [json.loads(line) for line in out.splitlines()]
    assert code == 0, err
    assert [event["type"] for event in events] == ["final", "ended"]
    assert events[0]["reason"] == "hangup"
    assert events[1]["reason"] == "shutdown"
    assert " final " in err  # the console moved out of the way of the JSON lines


@pytest.mark.parametrize(
    "flags, environ, line",
    [
        (["--port", "x"], {}, "--port is 'x'; wanted is a whole number from 0 to 65535"),
        ([], {"AII_PROT": "1"}, "environment variable AII_PROT is unknown"),
        (["--language", "klingon"], {}, "klingon"),
        (["--model", "/no/such.pt"], {}, "/no/such.pt"),
    ],
)
def test_what_is_wrong_is_one_line(flags, environ, line, monkeypatch, capsys):
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert command.main(flags) == 2
    err = capsys.readouterr().err
    assert line in err
    assert len(err.splitlines()) == 1


def test_help_is_help(capsys):
    with pytest.raises(SystemExit) as info:
        command.main(["--help"])
    assert info.value.code == 0
    assert "--reply" in capsys.readouterr().out


def in_process(monkeypatch, *flags: str):
    """Run ``serve`` here, stopped as soon as it listens; the server that ran."""
    ran = []

    def announce(config, model, server):
        ANNOUNCE(config, model, server)
        ran.append(server)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(command, "_announce", announce)
    assert command.main(["--port", "0", *flags]) == 0
    return ran[0]


def test_it_starts_and_stops_in_this_process_too(monkeypatch, tmp_path, capsys):
    path = tmp_path / "e.jsonl"
    server = in_process(monkeypatch, "--jsonl", str(path), "--audio-context", "auto",
                        "--max-calls", "100000")  # fmt: skip
    assert server.address[1] > 0
    assert path.read_text() == ""
    assert f"listening on 127.0.0.1:{server.address[1]}\n" in capsys.readouterr().err
    in_process(monkeypatch, "--jsonl", "-")


def test_an_output_that_is_stuck_does_not_keep_the_process(monkeypatch):
    ends = []
    monkeypatch.setattr(os, "_exit", ends.append)
    monkeypatch.setattr("aii.sinks.base.LineSink.close", lambda self, timeout: False)
    in_process(monkeypatch)
    assert ends == [0]


def test_a_port_that_is_taken_is_told(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert command.main(["--port", str(taken.getsockname()[1])]) == 2
    assert "cannot listen on" in capsys.readouterr().err


def test_an_events_file_that_cannot_be_written_is_told():
    with pytest.raises(ConfigError, match="cannot write events to /no/such/dir/x"):
        command.serve(ServerConfig(jsonl="/no/such/dir/x"))


def test_an_english_model_is_not_asked_for_german(monkeypatch, tiny_model):
    class English:
        is_multilingual = False

    monkeypatch.setattr("aii.checkpoints.load_model", lambda *args, **kw: English())
    with pytest.raises(ConfigError, match="English only"):
        command._model(ServerConfig(language="de"))
    assert command._model(ServerConfig())[0] == "en"
