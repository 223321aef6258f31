from __future__ import annotations

import builtins
import sys
import time
import types
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aii import capture
from aii.capture import FileSource, Microphone, SoundcardSource, Sources
from aii.errors import AudioError, InputError, MissingExtraError, ServiceError


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "call.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(np.arange(-2000, 2000, dtype="<i2").tobytes())
    return path


def test_a_file_comes_at_the_speed_of_a_device(recording: Path) -> None:
    clock = Clock()
    times = []
    blocks = []
    for block in FileSource(str(recording), clock=clock, sleep=clock.sleep):
        times.append(clock.now - 100)
        blocks.append(block)
    np.testing.assert_allclose(times, [0.1, 0.2, 0.25])
    np.testing.assert_array_equal(np.concatenate(blocks) * 32768, np.arange(-2000, 2000))


def test_a_slow_reader_does_not_make_the_file_longer(recording: Path) -> None:
    clock = Clock()
    for _ in FileSource(str(recording), clock=clock, sleep=clock.sleep):
        clock.now += 0.07  # decoding, say
    # The last block was due at 0.25 s, while the one before it was still being decoded.
    assert clock.now == pytest.approx(100 + 0.2 + 0.07 + 0.07)


def test_a_file_at_once_and_stopped(recording: Path) -> None:
    clock = Clock()
    source = FileSource(str(recording), realtime=False, clock=clock, sleep=clock.sleep)
    blocks = []
    with Sources(source) as (same,):
        for block in same:
            blocks.append(block)
            if len(blocks) == 2:
                source.stop()
    assert [len(block) for block in blocks] == [1600, 1600]
    assert clock.slept == []


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="there is no file"):
        FileSource(str(tmp_path / "none.wav"))


class PortAudioError(Exception):
    pass


class Status:
    input_overflow = False


def fake_sounddevice(rates: tuple[int, ...], overflow: bool = False) -> Any:
    """A module with one device that knows these rates and gives 0.25 s of a ramp."""
    sd: Any = types.ModuleType("sounddevice")
    sd.PortAudioError = PortAudioError
    sd.CallbackAbort = type("CallbackAbort", (Exception,), {})
    device = {
        "index": 3, "name": "Headset", "max_input_channels": 1,
        "default_samplerate": float(rates[0]),
    }  # fmt: skip

    def query_devices(wanted: object = None, kind: str | None = None) -> Any:
        if kind is None:
            return [device, {**device, "name": "Speaker", "max_input_channels": 0}]
        if wanted not in (None, 3, "head"):
            raise ValueError(f"No input device matching {wanted!r}")
        return device

    def check_input_settings(**settings: Any) -> None:
        if settings["samplerate"] not in rates:
            raise PortAudioError("Invalid sample rate")

    class InputStream:
        def __init__(self, **settings: Any) -> None:
            self.settings = settings

        def start(self) -> None:
            rate, size = self.settings["samplerate"], self.settings["blocksize"]
            sound = np.linspace(-1, 1, rate // 4, dtype=np.float32)[:, None]
            status = Status()
            status.input_overflow = overflow
            for place in range(0, len(sound), size):
                block = sound[place : place + size]
                self.settings["callback"](block, len(block), None, status)

        def stop(self) -> None:
            self.settings["finished_callback"]()

        def close(self) -> None:
            pass

    sd.query_devices, sd.check_input_settings = query_devices, check_input_settings
    sd.InputStream = InputStream
    sd.default = types.SimpleNamespace(device=(0, 1))
    return sd


@pytest.mark.parametrize("rates", [(16_000,), (48_000, 16_000), (44_100,)])
@pytest.mark.parametrize("device", [None, "head", "3"])
def test_a_microphone_of_any_rate(
    rates: tuple[int, ...], device: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", fake_sounddevice(rates))
    microphone = Microphone(device)
    assert microphone.name == "Headset"
    microphone.stop()
    heard = np.concatenate(list(microphone))
    assert len(heard) == -(-(rates[0] // 4) * 16_000 // rates[0])
    # A ramp stays a ramp; its ends, where it begins and stops at once, ring.
    middle = slice(400, -400)
    expected = np.linspace(-1, 1, len(heard))
    np.testing.assert_allclose(heard[middle], expected[middle], atol=1e-2)


def test_audio_that_the_system_lost_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", fake_sounddevice((16_000,), overflow=True))
    microphone = Microphone()
    microphone.stop()
    with pytest.warns(UserWarning, match="Headset: the system lost audio"):
        list(microphone)


def test_a_reader_that_takes_nothing_is_an_error_and_no_silent_loss(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", fake_sounddevice((16_000,)))
    monkeypatch.setattr(capture, "MOST_WAITING", 0.2)
    handover = capture._Handover("Headset")
    blocks = [np.full(1600, value, np.float32) for value in (1, 2, 3, 4)]
    assert [handover.put(block) for block in blocks] == [True, True, False, False]
    heard = iter(handover)
    assert [next(heard)[0], next(heard)[0]] == [1, 2]
    with pytest.raises(ServiceError, match=r"the server took no audio for 0\.2 s"):
        next(heard)
    abort = sys.modules["sounddevice"].CallbackAbort
    with pytest.raises(abort):  # which ends the stream
        Microphone()


def test_devices_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", fake_sounddevice((48_000,)))
    assert capture.microphones() == ["*   0  Headset, 48000 Hz"]


def test_a_microphone_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", fake_sounddevice((16_000,)))
    with pytest.raises(InputError, match=r"'xyz' names no microphone, or several .*see --list"):
        Microphone("xyz")


class FakeSoundcard(types.ModuleType):
    """One microphone and one speaker; what they give is their own number."""

    def __init__(self, broken: bool = False) -> None:
        super().__init__("soundcard")
        self.broken = broken

    def device(self, name: str, value: float) -> Any:
        broken = self.broken

        class Recorder:
            def __enter__(self) -> Recorder:
                if broken:
                    raise RuntimeError("device is busy")
                return self

            def __exit__(self, *error: object) -> None:
                pass

            def record(self, numframes: int) -> np.ndarray:
                time.sleep(0.001)  # a device takes its time
                return np.full((numframes, 1), value, np.float32)

        def recorder(samplerate: int, channels: int) -> Recorder:
            assert (samplerate, channels) == (16_000, 1)
            return Recorder()

        return types.SimpleNamespace(
            id=name.lower(), name=name, recorder=recorder, isloopback=name.startswith("Monitor")
        )

    def default_microphone(self) -> Any:
        return self.device("Headset", 0.25)

    def default_speaker(self) -> Any:
        return self.device("Speaker", 9.0)

    def get_speaker(self, wanted: str) -> Any:
        if wanted == "Deaf":
            return self.device("Deaf", 0.0)
        raise IndexError(f"no soundcard with id {wanted}")

    def all_microphones(self, include_loopback: bool = False) -> Any:
        found = [self.default_microphone(), self.device("Speaker's own microphone", 7.0)]
        return found + [self.device("Monitor of Speaker", 0.5)] * include_loopback

    def all_speakers(self) -> Any:
        return [self.default_speaker()]


@pytest.mark.parametrize(
    "kind, name, value", [("microphone", "Headset", 0.25), ("speaker", "Monitor of Speaker", 0.5)]
)
def test_a_sound_card(kind: str, name: str, value: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "soundcard", FakeSoundcard())
    source = SoundcardSource(kind)
    assert source.name == name
    blocks = iter(source)
    assert next(blocks).tolist() == [value] * 1600
    source.stop()
    list(blocks)
    source._thread.join(60)
    assert not source._thread.is_alive()


def test_a_sound_card_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "soundcard", FakeSoundcard(broken=True))
    source = SoundcardSource("microphone")
    with pytest.raises(ServiceError, match="cannot record from Headset: device is busy"):
        list(source)
    with pytest.raises(InputError, match=r"'xyz' names no speaker"):
        SoundcardSource("speaker", "xyz")
    with pytest.raises(InputError, match="what Deaf plays cannot be recorded on this system"):
        SoundcardSource("speaker", "Deaf")


def test_sound_cards_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "soundcard", FakeSoundcard())
    assert capture.soundcards() == [
        "microphone  Headset",
        "microphone  Speaker's own microphone",
        "speaker     Speaker",
    ]


@pytest.mark.parametrize("name", ["sounddevice", "soundcard"])
def test_what_is_missing_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    errors: dict[str, Exception] = {}
    real = builtins.__import__

    def importing(module: str, *args: Any, **kwargs: Any) -> Any:
        if module == name:
            raise errors[name]
        return real(module, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", importing)
    ask = capture.microphones if name == "sounddevice" else capture.soundcards
    errors[name] = ImportError()
    with pytest.raises(MissingExtraError, match=rf"{name} .*pip install 'aii\[mic\]'"):
        ask()
    errors[name] = OSError("library not found")
    with pytest.raises(ServiceError, match=r"apt install libportaudio2|start PulseAudio"):
        ask()
