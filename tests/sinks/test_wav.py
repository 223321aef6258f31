from __future__ import annotations

import threading
import wave
from pathlib import Path

import numpy as np
import pytest
from sink_peers import WAIT, wait_until

from aii.sinks import wav
from aii.sinks.wav import WavSink, wav_header
from aii.streaming.events import CallEnded, CallStarted, Partial


def samples(seconds: float, seed: int = 0) -> np.ndarray:
    chance = np.random.default_rng(seed)
    return chance.integers(-32768, 32768, round(seconds * 16_000)).astype(np.float32) / 32768


def read(path: Path) -> np.ndarray:
    with wave.open(str(path)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16_000, 1, 2)
        data = file.readframes(file.getnframes())
    return np.frombuffer(data, "<i2")


def expected(audio: np.ndarray) -> np.ndarray:
    return np.rint(audio * 32768).astype(np.int16)


def record(sink: WavSink, call: str, audio: np.ndarray, piece: int = 640, leg: str = "") -> None:
    sink.emit(CallStarted(call, 1, leg=leg))
    for start in range(0, len(audio), piece):
        sink.audio(call, leg, audio[start : start + piece])
    sink.emit(CallEnded(call, 2, "eof", leg=leg))


def test_a_call_sample_by_sample_however_it_is_cut(tmp_path):
    audio = samples(2.0)
    sink = WavSink(tmp_path / "new" / "folder")
    for n, piece in enumerate((1600, 320, 777, 32_000)):
        record(sink, f"call {n}", audio, piece)
    assert sink.close(WAIT)
    for n in range(4):
        found = read(tmp_path / "new" / "folder" / f"call%20{n}.wav")
        assert np.array_equal(found, expected(audio))


def test_calls_at_once_legs_and_ids_that_come_again(tmp_path):
    one, other = samples(0.5, 1), samples(0.3, 2)
    sink = WavSink(tmp_path)
    for leg in ("caller", "callee"):
        sink.emit(CallStarted("a", 1, leg=leg))
    for start in range(0, 8000, 400):
        sink.audio("a", "caller", one[start : start + 400])
        sink.audio("a", "callee", other[start : start + 400])
    for leg in ("caller", "callee"):
        sink.emit(CallEnded("a", 2, "eof", leg=leg))
    record(sink, "b", one)
    record(sink, "b", other)
    assert sink.close(WAIT)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["a.callee.wav", "a.caller.wav", "b.wav", "b~2.wav"]
    assert np.array_equal(read(tmp_path / "a.caller.wav"), expected(one))
    assert np.array_equal(read(tmp_path / "a.callee.wav"), expected(other))
    assert np.array_equal(read(tmp_path / "b~2.wav"), expected(other))


def test_too_loud_samples_are_clipped(tmp_path):
    sink = WavSink(tmp_path)
    record(sink, "a", np.array([2.0, -2.0, 1.0, -1.0], np.float32))
    assert sink.close(WAIT)
    assert read(tmp_path / "a.wav").tolist() == [32767, -32768, 32767, -32768]


def test_a_call_without_audio_or_without_a_beginning_has_no_file(tmp_path):
    sink = WavSink(tmp_path)
    sink.emit(CallStarted("a", 1))
    sink.audio("a", "", np.zeros(0, np.float32))
    sink.audio("unknown", "", samples(0.1))
    sink.emit(Partial("a", 2))
    sink.emit(CallEnded("a", 3, "eof"))
    assert sink.close(WAIT)
    sink.audio("a", "", samples(0.1))
    assert list(tmp_path.iterdir()) == []


def test_an_open_recording_is_playable_and_is_finished_at_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(wav, "PATCH", 0.0)
    audio = samples(1.0)
    sink = WavSink(tmp_path)
    sink.emit(CallStarted("a", 1))
    sink.audio("a", "", audio[:8000])
    path = tmp_path / "a.wav"  # it is there before its header is
    wait_until(lambda: path.exists() and path.stat().st_size > 44 and len(read(path)) == 8000)
    sink.audio("a", "", audio[8000:])
    assert sink.close(WAIT)
    assert np.array_equal(read(tmp_path / "a.wav"), expected(audio))


def test_what_the_disk_is_too_slow_for_is_silence_of_the_same_length(tmp_path, monkeypatch, caplog):
    gate, busy = threading.Event(), threading.Event()
    real = wav.open_new

    def slow(*args):
        busy.set()
        gate.wait(WAIT)
        return real(*args)

    monkeypatch.setattr(wav, "open_new", slow)
    audio = samples(3.0)
    sink = WavSink(tmp_path, held=4 * 16_000)
    sink.emit(CallStarted("a", 1))
    sink.audio("a", "", audio[:1600])
    assert busy.wait(WAIT)
    for start in range(1600, len(audio), 1600):
        sink.audio("a", "", audio[start : start + 1600])
    lost = sink.lost
    gate.set()
    sink.emit(CallEnded("a", 2, "eof"))
    assert sink.close(WAIT)
    assert lost == 48_000 - 1600 - 16_000
    found = read(tmp_path / "a.wav")
    assert len(found) == len(audio)
    assert np.array_equal(found[:17_600], expected(audio[:17_600]))
    assert not found[17_600:].any()
    assert "is too slow: silence is recorded" in caplog.text


def no_room_to_open(monkeypatch):
    real = wav.open_new

    def failing(folder, stem, extension):
        if stem == "bad":
            raise OSError(28, "No space left on device")
        return real(folder, stem, extension)

    monkeypatch.setattr(wav, "open_new", failing)


def no_room_to_write(monkeypatch):
    real = wav._all

    def failing(file, data):
        if Path(file.name).stem == "bad":
            raise OSError(28, "No space left on device")
        real(file, data)

    monkeypatch.setattr(wav, "_all", failing)


@pytest.mark.parametrize("fill", [no_room_to_open, no_room_to_write])
def test_a_recording_that_fails_ends_alone_and_leaves_no_file(tmp_path, monkeypatch, caplog, fill):
    fill(monkeypatch)
    sink = WavSink(tmp_path)
    audio = samples(0.2)
    record(sink, "bad", audio)
    record(sink, "good", audio)
    assert sink.close(WAIT)
    assert [path.name for path in tmp_path.iterdir()] == ["good.wav"]
    assert caplog.text.count("the recording of bad ends here: No space left on device") == 1


def test_a_file_that_is_full_goes_on_in_another(tmp_path, monkeypatch):
    monkeypatch.setattr(wav, "LARGEST", 6400)
    sink = WavSink(tmp_path)
    audio = samples(0.5)
    record(sink, "a", audio, 1600)
    assert sink.close(WAIT)
    files = [tmp_path / name for name in ("a.wav", "a~2.wav", "a~3.wav")]
    assert np.array_equal(np.concatenate([read(path) for path in files]), expected(audio))


def test_the_header_is_that_of_the_wave_module(tmp_path):
    with wave.open(str(tmp_path / "x.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(b"\0\0" * 100)
    assert (tmp_path / "x.wav").read_bytes()[:44] == wav_header(200)


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        WavSink(tmp_path / "file" / "x")
