"""``aii serve`` and ``aii_server.py`` as processes and in-process."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest
from serve_rig import ROOT, WAIT, Server, free_port, in_process, send
from server_rig import polls

from aii.cli import parts
from aii.cli import serve as command
from aii.cli.calls import call_settings
from aii.config import ServerConfig
from aii.errors import ConfigError
from aii.resources import asset
from aii.servers.lifecycle import Signals
from aii.sinks.base import LineSink


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
        ([], {"AII_MODEL": ""}, "AII_MODEL is empty; give it a value or unset it"),
        (["--host="], {}, "--host is empty; give it a value or leave it out"),
        (["--device", "tpu"], {}, "--device is 'tpu'; wanted is auto, cpu, cuda, or one of"),
        (["--idle-timeout", "inf"], {}, "--idle-timeout is 'inf'; wanted is a number from 0 to"),
        (["--window", "1.02", "--reset-seconds", "1"], {}, "--window is 1.02 s, longer"),
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


def test_it_starts_and_stops_in_this_process_too(monkeypatch, tmp_path, capsys):
    path = tmp_path / "e.jsonl"
    listeners = in_process(monkeypatch, "--jsonl", str(path), "--audio-context", "auto",
                           "--max-calls", "100000")  # fmt: skip
    (line,) = listeners.lines()
    assert re.fullmatch(r"listening on 127\.0\.0\.1:[1-9]\d*", line)
    assert path.read_text() == ""
    assert f"aii: {line}\n" in capsys.readouterr().err
    in_process(monkeypatch, "--jsonl", "-")


@pytest.mark.parametrize("script", ["aii_server.py", "-m aii serve"])
def test_an_error_for_a_closed_stderr_does_not_go_to_stdout(script):
    line = f"exec {sys.executable} {script} --port x 2>&-"
    done = subprocess.run(["sh", "-c", line], cwd=ROOT, stdout=subprocess.PIPE, timeout=WAIT)
    assert (done.returncode, done.stdout) == (2, b"")


def test_a_window_as_long_as_the_reset_serves_calls(monkeypatch):
    in_process(monkeypatch, "--window", "1.004", "--reset-seconds", "1.004")


def test_an_ipv6_address_is_written_in_brackets(monkeypatch, capsys):
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            pytest.skip("this machine has no IPv6")
    listeners = in_process(monkeypatch, "--host", "::1", "--web", "--web-port", "0")
    web, tcp = listeners.lines()
    assert web.startswith("web on http://[::1]:")
    assert f"aii: {tcp}\n" in capsys.readouterr().err
    assert tcp.startswith("listening on [::1]:")


def test_an_address_that_others_can_reach_is_warned_of_in_one_line(monkeypatch, caplog):
    def said(*flags: str) -> list[str]:
        caplog.clear()
        in_process(monkeypatch, *flags)
        return [r.message for r in caplog.records if "can be reached" in r.message]

    assert said("--web", "--web-port", "0") == []
    both = said("--host", "0.0.0.0", "--web", "--web-port", "0")
    assert "there is no access control on this port" in both[0]
    assert "asks for no token; give one with --token" in both[1]
    one = said("--web", "--web-port", "0", "--web-host", "0.0.0.0", "--token", "long-enough")
    assert one == []
    assert any("is not encrypted; give it --tls-cert" in r.message for r in caplog.records)


def test_the_work_of_the_server_is_one_line_at_its_end(monkeypatch, caplog):
    in_process(monkeypatch)
    (line,) = [r.message for r in caplog.records if r.message.startswith("served")]
    assert line.startswith("served 0 calls, refused 0; decoded 0 windows (0.0 s of audio) in 0.0 s")


def test_signals_are_handled_until_the_outputs_are_closed(monkeypatch):
    found = []
    close = LineSink.close

    def closing(self, timeout):
        found.append(signal.getsignal(signal.SIGTERM))
        return close(self, timeout)

    monkeypatch.setattr(LineSink, "close", closing)
    before = signal.getsignal(signal.SIGTERM)
    in_process(monkeypatch)
    assert found
    assert all(isinstance(getattr(f, "__self__", None), Signals) for f in found)
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_the_model_loads_ends_it_well(monkeypatch, number, tmp_path):
    def load(*args, **options):
        signal.raise_signal(number)
        raise AssertionError("the signal should have ended this")

    monkeypatch.setattr("aii.checkpoints.load_model", load)
    path = tmp_path / "events.jsonl"
    assert command.main(["--port", "0", "--jsonl", str(path)]) == 0
    assert path.read_text() == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_a_process_that_starts_ends_it_well(number):
    process = subprocess.Popen(
        [sys.executable, "aii_server.py", "--port", "0", "--log-level", "debug"],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    assert "loading model embedded" in process.stderr.readline()
    process.send_signal(number)
    _, err = process.communicate(timeout=WAIT)
    assert process.returncode == 0, err
    # Python itself reports a signal that comes in a callback of its own, while it imports.
    assert "Traceback" not in err.partition("Exception ignored in")[0]
    assert "listening" not in err


def test_a_reader_of_stderr_who_never_reads_holds_up_nothing(tmp_path):
    near, far = os.pipe()
    os.set_blocking(far, False)
    with contextlib.suppress(BlockingIOError):
        while os.write(far, b"x" * 4096):  # full before the first line of the server
            pass
    os.set_blocking(far, True)
    port, events = free_port(), tmp_path / "e.jsonl"
    process = subprocess.Popen(
        [sys.executable, "aii_server.py", "--port", str(port), "--jsonl", str(events),
         "--threads", "1", "--temperature", "0"],
        cwd=ROOT, stdout=subprocess.DEVNULL, stderr=far,
    )  # fmt: skip
    killer = threading.Timer(2 * WAIT, process.kill)
    killer.start()
    try:
        audio = asset("sample_call.slin").read_bytes()[: 32000 * 3]
        for _ in polls():
            with contextlib.suppress(ConnectionRefusedError):
                assert send(("127.0.0.1", port), audio)
                break
        process.terminate()
        assert process.wait(WAIT) == 0
        assert json.loads(events.read_text().splitlines()[-1])["type"] == "ended"
    finally:
        process.kill()
        process.wait(WAIT)
        killer.cancel()
        os.close(near)
        os.close(far)


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_standard_streams_may_be_closed(closed, tmp_path):
    port, events, other = free_port(), tmp_path / "e.jsonl", tmp_path / "other"
    redirect = " ".join(
        f"{stream}{other}" for stream in (">", "2>") if f"{stream}&-" not in closed.split()
    )
    line = (
        f"exec {sys.executable} aii_server.py --port {port} --jsonl {events} --temperature 0 "
        f"--threads 1 {redirect} {closed}"
    )
    process = subprocess.Popen(["sh", "-c", line], cwd=ROOT)
    killer = threading.Timer(2 * WAIT, process.kill)
    killer.start()
    try:
        audio = asset("sample_call.slin").read_bytes()[: 32000 * 3]
        for _ in polls():
            with contextlib.suppress(ConnectionRefusedError):
                assert send(("127.0.0.1", port), b"call-1\r" + audio)
                break
        process.terminate()
        assert process.wait(WAIT) == 0
    finally:
        process.kill()
        process.wait(WAIT)
        killer.cancel()
    lines = [json.loads(line) for line in events.read_text().splitlines()]
    assert {line["call_id"] for line in lines} == {"call-1"}
    if closed == "2>&-":  # what was for stderr has not gone to stdout
        assert all(line.startswith("call-1 ") for line in other.read_text().splitlines())


def test_an_output_that_is_stuck_does_not_keep_the_process(monkeypatch):
    ends = []
    monkeypatch.setattr(os, "_exit", ends.append)
    monkeypatch.setattr("aii.sinks.base.LineSink.close", lambda self, timeout: False)
    in_process(monkeypatch)
    assert ends == [0]


def test_a_port_that_is_taken_is_told(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert command.main(["--port", str(taken.getsockname()[1])]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.count("127.0.0.1") == 1
    assert "Address already in use; choose another with --host or --port" in line


def test_an_events_file_that_cannot_be_written_is_told():
    with pytest.raises(ConfigError, match="cannot write events to /no/such/dir/x"):
        command.serve(ServerConfig(jsonl="/no/such/dir/x"))


class Model:
    """What the command asks of a model before anything is decoded."""

    device = "cpu"
    num_languages = 99
    compute_type = "float32"

    def __init__(self, *, multilingual: bool, language: str | None = None) -> None:
        self.decoder = SimpleNamespace(graphs=True)
        self.is_multilingual = multilingual
        self.metadata = {} if language is None else {"language": language}


def loaded(monkeypatch, model: Model, **options):
    """The model in service, as it would be loaded."""
    monkeypatch.setattr("aii.checkpoints.load_model", lambda *args, **kw: model)
    monkeypatch.setattr(parts, "_engine", lambda config, model: None)
    config = ServerConfig(model="m", **options)
    return parts._models(config, call_settings(config)).current


def test_an_english_model_is_not_asked_for_german(monkeypatch):
    model = Model(multilingual=False)
    with pytest.raises(ConfigError, match="^model m: the model knows English only"):
        loaded(monkeypatch, model, language="de")
    with pytest.raises(ConfigError, match="does not translate"):
        loaded(monkeypatch, model, task="translate")
    assert loaded(monkeypatch, model).language == "en"


def test_cuda_graphs_are_switched_off_where_that_is_wanted(monkeypatch):
    model = Model(multilingual=True)
    loaded(monkeypatch, model)
    assert model.decoder.graphs
    loaded(monkeypatch, model, cuda_graphs=False)
    assert not model.decoder.graphs


def test_a_model_of_one_language_is_not_asked_for_another(monkeypatch):
    model = Model(multilingual=True, language="en")
    with pytest.raises(ConfigError, match="^model m: the model knows English only; leave the lang"):
        loaded(monkeypatch, model, language="de")
    for language in (None, "en", "English"):
        assert loaded(monkeypatch, model, language=language).language == "en"
