from __future__ import annotations

import argparse
import io
import socket
import sys
import threading
import wave
from pathlib import Path

import numpy as np
import pytest

from aii.cli import stream
from aii.errors import AudioError, ServiceError

PCM = np.arange(-2000, 2000, 3, dtype="<i2").tobytes()


@pytest.fixture
def server():
    """Answers one call with one line; gives its port and, after the call, what was sent."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(60)
    got: list[bytes] = []

    def take() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(60)
            while data := connection.recv(65_536):
                got.append(data)
            connection.sendall(b"seven one nine\nend\n")

    thread = threading.Thread(target=take)
    thread.start()
    yield listener.getsockname()[1], lambda: (thread.join(60), b"".join(got))[1]
    try:  # a call that never came
        socket.create_connection(listener.getsockname(), timeout=1).close()
    except OSError:
        pass
    thread.join(60)
    listener.close()


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    stream.add_parser(parser.add_subparsers())
    return stream.run(parser.parse_args(["stream", *arguments]))


def test_raw_files_go_byte_for_byte(server, tmp_path: Path, capsys) -> None:
    port, sent = server
    path = tmp_path / "call.slin"
    path.write_bytes(PCM + b"x")
    assert run(str(path), "--port", str(port), "--fast") == 0
    assert sent() == PCM + b"x"
    assert capsys.readouterr().out == "seven one nine\nend\n"


def test_wav_files_are_decoded(server, tmp_path: Path) -> None:
    port, sent = server
    path = tmp_path / "call.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(PCM)
    options = ["--fast", "--call-id", "call-3", "--framing", "cr641", "--frame-bytes", "1000"]
    assert run(str(path), "--port", str(port), *options) == 0
    assert sent() == b"call-3\r" + PCM[:1000] + b"\r" + PCM[1000:2000] + b"\r" + PCM[2000:] + b"\r"


def test_standard_input_in_real_time(server, monkeypatch) -> None:
    port, sent = server
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(PCM)))
    assert run("-", "--port", str(port), "--rate", "192000", "--timeout", "10") == 0
    assert sent() == PCM


def test_errors_are_of_one_line(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=r"^cannot read .*none\.slin: No such file.*path$"):
        run(str(tmp_path / "none.slin"))
    with pytest.raises(AudioError, match=r"^there is no file .*none\.wav"):
        run(str(tmp_path / "none.wav"))
    (tmp_path / "a.raw").write_bytes(PCM)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(ServiceError, match="cannot connect"):
        run(str(tmp_path / "a.raw"), "--port", str(port))


@pytest.mark.parametrize("port", ["0", "65536", "x", "²"])
def test_a_port_that_is_none(port: str, capsys) -> None:
    with pytest.raises(SystemExit, match="2"):
        run("x.slin", "--port", port)
    assert "is not a port; give 1 to 65535" in capsys.readouterr().err
