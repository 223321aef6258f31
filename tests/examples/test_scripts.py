"""The scripts and pipes of examples/, run as they stand, with somebody who plays Asterisk."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import struct
import subprocess
import threading

import pytest
from agi_peer import EXAMPLES, UNIQUEID, Asterisk, eagi
from server_rig import Rig
from tone_speech import ToneEngine, encoded, say

SPOKEN = "yes five nine"


@pytest.fixture(scope="module")
def rig():
    with Rig(engine=ToneEngine()) as server:
        yield server


def wav(rate: int = 8_000) -> bytes:
    data = encoded(say(SPOKEN), "s16", rate)
    head = b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, rate, 2 * rate, 2, 16)
    head += b"data" + struct.pack("<I", len(data))
    return b"RIFF" + struct.pack("<I", len(head) + len(data)) + head + data


@pytest.mark.parametrize("rate, format", [(8_000, ""), (16_000, "slin16"), (48_000, "slin48")])
@pytest.mark.parametrize("hang_up", [True, False])
def test_eagi(rig, rate, format, hang_up) -> None:
    channel = {"EAGI_AUDIO_FORMAT": format} if format else {}
    calls = rig.listener.count()
    audio = encoded(say(SPOKEN), "s16", rate)
    asterisk = eagi(rig.server.address, rate, "1.2", feed=audio, hang_up=hang_up, **channel)
    assert asterisk.variables == {"AII_TEXT": SPOKEN, "AII_STATUS": "OK"}
    ended = rig.listener.ended(calls + 1)[-1]
    assert ended.call_id == UNIQUEID
    assert ended.end == pytest.approx(len(audio) / 2 / rate if hang_up else 1.2, abs=0.01)


def test_eagi_with_nobody_speaking(rig) -> None:
    asterisk = eagi(rig.server.address, 8_000, "0.5", feed=bytes(8_000), hang_up=True)
    assert asterisk.variables == {"AII_TEXT": "", "AII_STATUS": "EMPTY"}


def test_a_hangup_while_a_recording_is_heard_leaves_the_text(tmp_path) -> None:
    """Asterisk sends SIGHUP to a script whose caller hangs up; the extension h reads AII_TEXT."""
    recording = tmp_path / "r.wav"
    recording.write_bytes(wav())
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(100)
        asterisk = Asterisk("aii-agi.py", str(recording), "127.0.0.1", str(server.getsockname()[1]))
        runner = threading.Thread(target=asterisk.run)
        runner.start()
        connection, _ = server.accept()
        with connection:
            connection.settimeout(100)
            while connection.recv(65_536):
                pass
            asterisk.process.send_signal(signal.SIGHUP)
            connection.sendall(SPOKEN.encode())
        runner.join(100)
    assert asterisk.variables == {"AII_TEXT": SPOKEN, "AII_STATUS": "OK"}


def test_eagi_without_a_server() -> None:
    near, far = os.pipe()
    asterisk = Asterisk("aii-eagi.py", "1", "127.0.0.1", "1", audio=near)
    os.close(near)
    assert asterisk.run() == 1
    os.close(far)
    assert asterisk.variables == {"AII_STATUS": "ERROR"}
    assert asterisk.commands[1].startswith('VERBOSE "aii: ')


def test_agi(rig, tmp_path) -> None:
    recording = tmp_path / "r.wav"
    recording.write_bytes(wav())
    host, port = rig.server.address
    calls = rig.listener.count()
    asterisk = Asterisk("aii-agi.py", str(recording), host, str(port))
    assert asterisk.run() == 0
    assert asterisk.variables == {"AII_TEXT": SPOKEN, "AII_STATUS": "OK"}
    assert rig.listener.ended(calls + 1)[-1].call_id == UNIQUEID


def test_agi_without_a_recording(rig) -> None:
    host, port = rig.server.address
    asterisk = Asterisk("aii-agi.py", "/nonexistent.wav", host, str(port))
    assert asterisk.run() == 1
    assert asterisk.variables == {"AII_STATUS": "ERROR"}


def test_what_a_transcript_may_hold_does_no_harm_in_a_command() -> None:
    for name in ("aii-eagi", "aii-agi"):
        source = (EXAMPLES / "asterisk" / f"{name}.py").read_text()
        names: dict = {"__name__": "script"}
        exec(compile(source, name, "exec"), names)  # noqa: S102
        said: list[str] = []
        names["command"] = said.append
        names["set_variable"]("X", 'a "b"\\\nSET VARIABLE Y 1\r')
        assert said == ['SET VARIABLE X "a \\"b\\"\\\\ SET VARIABLE Y 1"']


def test_pipes(rig, tmp_path) -> None:
    """Each line of pipes.sh gives the words, as does the whole file."""
    for program in ("nc", "sox", "ffmpeg"):
        if shutil.which(program) is None:
            pytest.skip(f"the program {program} is not installed")
    recording = tmp_path / "recording.wav"
    recording.write_bytes(wav(16_000))
    host, port = rig.server.address
    calls = rig.listener.count()
    script = EXAMPLES / "pipes.sh"
    pipes = [
        line for line in script.read_text().splitlines() if line.endswith(('recording"', 'port"'))
    ]
    done = subprocess.run(
        ["sh", str(script), str(recording), host, str(port)],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [SPOKEN] * len(pipes)
    assert len(pipes) == 5
    ids = [event.call_id for event in rig.listener.ended(calls + len(pipes))[calls:]]
    assert ids.count("call-42") == 1


def test_pipes_say_how_they_are_used() -> None:
    done = subprocess.run(
        ["sh", str(EXAMPLES / "pipes.sh")], capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "usage: pipes.sh RECORDING.wav" in done.stderr
