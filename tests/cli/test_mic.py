from __future__ import annotations

import argparse
import io
import queue
import sys
import threading
import wave
from pathlib import Path

import numpy as np
import pytest
from live_rig import Endpoint

from aii.capture import FileSource
from aii.cli import listen, main, mic
from aii.errors import ConfigError, InputError, ServiceError
from aii.live import LiveCall, Server, Transcript


@pytest.fixture
def recording(tmp_path: Path) -> str:
    path = tmp_path / "call.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(np.arange(-8000, 8000, dtype="<i2").tobytes())
    return str(path)


def run(module, *arguments: str) -> int:
    parser = argparse.ArgumentParser()
    module.add_parser(parser.add_subparsers())
    return module.run(parser.parse_args([module.__name__.rpartition(".")[2], *arguments]))


def test_a_file_in_place_of_the_microphone(recording: str, capsys) -> None:
    with Endpoint() as endpoint:
        code = run(
            mic, "--server", endpoint.address, "--file", recording, "--fast", "--client-id", "me"
        )
        assert code == 0
        expected = np.arange(-8000, 8000) / 32768
        np.testing.assert_array_equal(endpoint.samples("me"), np.float32(expected))
    out, err = capsys.readouterr()
    assert out == "16000 samples so far 16000 samples so far\n"
    assert err == f"aii: listening to {recording}; Ctrl-C ends it\n"


def test_two_files_are_two_legs(recording: str, capsys) -> None:
    with Endpoint() as endpoint:
        options = ["--server", endpoint.address, "--fast", "--client-id", "desk"]
        assert run(listen, *options, "--file", recording, "--file", recording) == 0
        assert set(endpoint.heard) == {"desk:mic", "desk:system"}
        assert len(endpoint.samples("desk:system")) == 16_000
    lines = capsys.readouterr().out.splitlines()
    assert {line[:8] for line in lines} == {"mic     ", "system  "}
    for leg in ("mic", "system"):
        said = " ".join(line[8:] for line in lines if line.startswith(leg))
        assert said == "16000 samples so far 16000 samples so far"


def test_both_legs_need_a_file(recording: str) -> None:
    with pytest.raises(ConfigError, match="--file was given 1 times; give it twice"):
        run(listen, "--file", recording)


def test_the_name_and_the_token_from_around(
    recording: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AII_TOKEN", "secret")
    monkeypatch.setattr("socket.gethostname", lambda: "desk-9")
    with Endpoint(token="secret") as endpoint:
        assert run(mic, "--server", endpoint.address, "--file", recording, "--fast") == 0
        assert set(endpoint.heard) == {"desk-9"}


def test_a_name_in_use_ends_both(recording: str, capsys) -> None:
    with Endpoint() as endpoint:
        endpoint.heard["desk:system"] = []
        options = ["--server", endpoint.address, "--client-id", "desk"]
        with pytest.raises(InputError, match="client id desk:system is in use"):
            run(listen, *options, "--file", recording, "--file", recording)


def test_errors_are_one_line(recording: str, capsys) -> None:
    assert main(["mic", "--server", "localhost", "--file", recording]) == 2
    _, err = capsys.readouterr()
    assert err.startswith("aii: error: 'localhost' is no address of a server")
    assert err.count("\n") == 1


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_colours_are_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    names = {"a:mic": "mic", "a:system": "system"}
    pieces = [
        Transcript("a:mic", " hello\n there", 1.0),
        Transcript("a:system", "hi", 1.1),
        Transcript("a:system", "  ", 1.2),
    ]

    def shown(names: dict[str, str]) -> str:
        out = Terminal()
        printer = mic.Printer(out, names)
        for piece in pieces:
            printer.show(piece)
        printer.close()
        printer.close()
        return out.getvalue()

    assert shown(names) == "\x1b[36mmic     hello there\x1b[0m\n\x1b[35msystem  hi\x1b[0m\n"
    assert shown({}) == "hello there\nhi\n"
    monkeypatch.setenv("NO_COLOR", "1")
    assert shown(names) == "mic     hello there\nsystem  hi\n"


def test_words_run_on_until_a_pause_or_a_full_line() -> None:
    out = io.StringIO()
    printer = mic.Printer(out)
    for time, text in ((0, "my number"), (1, "is"), (3, "four"), (4, "你好"), (5, "世界")):
        printer.show(Transcript("me", text, time))
    for _ in range(30):
        printer.show(Transcript("me", "seven", 5))
    printer.close()
    lines = out.getvalue().splitlines()
    assert lines[0] == "my number is"
    assert lines[1].startswith("four 你好世界 seven seven")
    assert max(map(len, lines)) <= 80
    assert " ".join(lines).split().count("seven") == 30


class Interrupting(queue.Queue):
    """Ctrl-C arrives while the first items are waited for."""

    left = 0

    def get(self, *args, **kwargs):
        if self.left:
            self.left -= 1
            assert self.first.wait(60)
            raise KeyboardInterrupt
        return super().get(*args, **kwargs)


@pytest.mark.parametrize("presses", [1, 2])
def test_ctrl_c(presses: int, recording: str, tmp_path: Path, capsys) -> None:
    """The first one ends the audio and waits for the words, the second one ends it all."""
    with wave.open(recording) as short, wave.open(str(tmp_path / "long.wav"), "wb") as file:
        file.setparams(short.getparams())
        file.writeframes(short.readframes(16_000) * 30)
    long = str(tmp_path / "long.wav")
    with Endpoint() as endpoint:
        said = Interrupting()
        said.left = presses
        said.first = endpoint.first
        source = FileSource(long)  # in real time: it would last half a minute
        call = LiveCall(Server(endpoint.address), "me", source, said)
        call.start()
        if presses == 2:
            with pytest.raises(KeyboardInterrupt):
                mic._print_all([call], said, mic.Printer(sys.stdout))
        else:
            assert mic._print_all([call], said, mic.Printer(sys.stdout)) == []
            assert len(endpoint.samples("me")) < 30 * 16_000
        call.close()
    out, err = capsys.readouterr()
    assert err == "aii: waiting for the last words\n"
    assert out.endswith("samples so far") is (presses == 1)


def test_devices_are_listed(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr("aii.capture.microphones", lambda: ["*   0  Headset, 48000 Hz"])
    monkeypatch.setattr("aii.capture.soundcards", lambda: ["microphone  Headset"])
    assert run(mic, "--list") == 0
    assert run(listen, "--list") == 0
    assert capsys.readouterr().out == "*   0  Headset, 48000 Hz\nmicrophone  Headset\n"


def test_a_speaker_that_cannot_be_recorded_lets_go_of_the_microphone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stopped = threading.Event()

    class Card:
        name = "card"

        def __init__(self, kind: str, device: str | None) -> None:
            if kind == "speaker":
                raise ServiceError("no loopback")

        def stop(self) -> None:
            stopped.set()

    monkeypatch.setattr("aii.capture.SoundcardSource", Card)
    with pytest.raises(ServiceError, match="no loopback"):
        run(listen)
    assert stopped.is_set()
