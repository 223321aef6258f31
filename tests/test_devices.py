"""``aii mic`` and ``aii listen`` on real devices: PulseAudio's, on a server of our own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from live_rig import Endpoint

ROOT = Path(__file__).resolve().parent.parent
WAIT = 60.0
PROGRAMS = ("pulseaudio", "pactl", "paplay")

pytestmark = pytest.mark.skipif(
    any(shutil.which(program) is None for program in PROGRAMS),
    reason="needs PulseAudio: apt install pulseaudio pulseaudio-utils libportaudio2 "
    "libasound2-plugins",
)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a sound server with a speaker and a microphone into which we speak."""
    folder = tmp_path_factory.mktemp("pulse")
    address = folder / "pulse.sock"
    environment = {
        **os.environ, "XDG_RUNTIME_DIR": str(folder), "HOME": str(folder),
        "PULSE_SERVER": f"unix:{address}",
    }  # fmt: skip
    modules = (
        f"module-native-protocol-unix socket={address} auth-anonymous=1",
        "module-null-sink sink_name=speaker sink_properties=device.description=Speaker",
        "module-null-sink sink_name=mouth sink_properties=device.description=Mouth",
        "module-remap-source source_name=micro master=mouth.monitor "
        "source_properties=device.description=Micro",
    )
    command = ["pulseaudio", "-n", "--daemonize=no", "--exit-idle-time=-1", "--disable-shm=yes"]
    command += ["--use-pid-file=no", *(part for module in modules for part in ("-L", module))]
    server = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        end = time.monotonic() + WAIT
        ready = ["pactl", "set-default-source", "micro"]
        while subprocess.run(ready, env=environment, capture_output=True, check=False).returncode:
            if server.poll() is not None or time.monotonic() > end:
                pytest.skip("PulseAudio does not start here")
            time.sleep(0.05)
        subprocess.run(["pactl", "set-default-sink", "speaker"], env=environment, check=True)
        yield environment
    finally:
        server.terminate()
        server.wait(WAIT)


@pytest.fixture(scope="module")
def tone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A minute of 440 Hz."""
    path = tmp_path_factory.mktemp("tone") / "tone.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        wave_form = 8000 * np.sin(2 * np.pi * 440 / 16_000 * np.arange(60 * 16_000))
        file.writeframes(wave_form.astype("<i2").tobytes())
    return path


def record(
    sound: dict[str, str], command: str, tone: Path, sinks: tuple[str, ...], loud: set[str]
) -> dict[str, np.ndarray]:
    """Play the tone into sinks, listen with one of our commands until the clients in ``loud`` hear
    it, Ctrl-C it; what each client heard."""
    with Endpoint() as endpoint:
        players = [
            subprocess.Popen(["paplay", "--device", sink, str(tone)], env=sound) for sink in sinks
        ]
        arguments = [command, "--server", endpoint.address, "--client-id", "desk"]
        client = subprocess.Popen(
            [sys.executable, "-m", "aii", *arguments], env=sound, cwd=ROOT, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        try:
            end = time.monotonic() + WAIT
            while time.monotonic() < end and client.poll() is None:
                heard = {name: list(blocks) for name, blocks in list(endpoint.heard.items())}
                if all(len(heard.get(name, ())) >= 10 for name in loud) and all(
                    loudness(np.concatenate(heard[name][-5:])) > 0.1 for name in loud
                ):
                    break
                time.sleep(0.02)
            client.send_signal(signal.SIGINT)
            out, err = client.communicate(timeout=WAIT)
        finally:
            for process in (*players, client):
                process.kill()
                process.wait()
        assert client.returncode == 0, err
        assert "samples so far" in out
        return {client_id: endpoint.samples(client_id) for client_id in endpoint.heard}


def loudness(samples: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(samples))))


def test_a_microphone(sound: dict[str, str], tone: Path) -> None:
    if (
        not shutil.which("ldconfig")
        or "libportaudio"
        not in subprocess.run(["ldconfig", "-p"], capture_output=True, text=True, check=True).stdout
    ):
        pytest.skip("PortAudio is not installed: apt install libportaudio2 libasound2-plugins")
    heard = record(sound, "mic", tone, ("mouth",), {"desk"})
    assert loudness(heard["desk"][-8000:]) == pytest.approx(8000 / 32768 / 2**0.5, rel=0.1)


def test_both_sides(sound: dict[str, str], tone: Path) -> None:
    names = {"desk:mic", "desk:system"}
    assert set(record(sound, "listen", tone, ("mouth", "speaker"), names)) == names


def test_the_system_alone(sound: dict[str, str], tone: Path) -> None:
    """What the machine plays is not what the microphone hears."""
    heard = record(sound, "listen", tone, ("speaker",), {"desk:system"})
    assert loudness(heard["desk:mic"]) < 1e-4
