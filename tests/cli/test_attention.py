"""``aii attention``: the picture and what is in it."""

from __future__ import annotations

import builtins
import wave
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from aii.attention_plot import DPI, WordAttention, draw, word_attention
from aii.cli import main
from aii.decoding import DecodingOptions
from aii.errors import InputError, MissingExtraError
from aii.resources import asset
from aii.timing import WordTiming
from aii.windows import WindowOptions

OPTIONS = WindowOptions(
    decoding=DecodingOptions(language="en", sample_len=60),
    temperatures=(0.0,),
    no_speech_threshold=None,
)


@pytest.fixture(scope="module")
def sample_call() -> np.ndarray:
    """The call that aii ships, float samples at 16 kHz."""
    with wave.open(str(asset("sample_call.wav"))) as file:
        assert file.getframerate() == 16000
        return np.frombuffer(file.readframes(file.getnframes()), "<i2") / np.float32(32768)


def _png_size(path: Path) -> tuple[int, int]:
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")


def test_attention_peaks_where_the_words_are(embedded_model, sample_call) -> None:
    """4 s: "press two for sales", a pause, "press five for billing"."""
    samples = sample_call[16000 * 4 : 16000 * 8]
    found = word_attention(embedded_model, samples, replace(OPTIONS, audio_context="auto"))
    assert len(found.words) > 5
    assert found.matrix.shape == (len(found.words), 200)
    assert found.duration == 4.0
    peaks = found.matrix.argmax(axis=1)
    starts, ends = ([getattr(w, name) for w in found.words] for name in ("start", "end"))
    outside = np.maximum(np.subtract(starts, peaks * 0.02), peaks * 0.02 - ends).clip(0)
    assert np.median(outside) <= 0.1
    assert starts == sorted(starts)
    loudness = np.abs(samples.reshape(200, 320)).max(axis=1)
    near = [loudness[max(0, peak - 10) : peak + 11].max() for peak in peaks]
    assert np.mean(np.array(near) > 0.02) >= 0.75  # the model looks where somebody speaks


def test_window_begins_where_it_is_told(embedded_model, sample_call) -> None:
    later = word_attention(embedded_model, sample_call[: 16000 * 9], OPTIONS, start=4)
    direct = word_attention(embedded_model, sample_call[16000 * 4 : 16000 * 9], OPTIONS)
    assert later.start == 4
    assert [w.word for w in later.words] == [w.word for w in direct.words]
    np.testing.assert_array_equal(later.matrix, direct.matrix)


@pytest.mark.parametrize("start", [-1.0, 10.0, 99.0, float("nan"), float("inf")])
def test_no_audio_there(embedded_model, start: float) -> None:
    with pytest.raises(InputError, match="no audio at"):
        word_attention(embedded_model, np.zeros(160000, np.float32), OPTIONS, start=start)


def test_nothing_said(tiny_model) -> None:
    options = WindowOptions(
        decoding=DecodingOptions(language="en", sample_len=1),
        temperatures=(0.0,),
        no_speech_threshold=0.0,
        logprob_threshold=None,
    )
    with pytest.raises(InputError, match="hears no words"):
        word_attention(tiny_model, np.zeros(160000, np.float32), options)


def _attention(count: int) -> WordAttention:
    words = [WordTiming(f" $w_{i}$", [i], i * 0.1, i * 0.1 + 0.1, 0.5) for i in range(count)]
    return WordAttention(words, np.eye(count, 5 * count), 2.0)


@pytest.mark.parametrize("count, height", [(2, 300), (20, 590)])
def test_picture_has_the_size_it_says(tmp_path: Path, count: int, height: int) -> None:
    size = draw(_attention(count), tmp_path / "x.png")
    assert size == (12 * DPI, height)
    assert _png_size(tmp_path / "x.png") == size


def test_picture_shows_the_attention(tmp_path: Path) -> None:
    from matplotlib.image import imread

    draw(_attention(4), tmp_path / "x.png")
    pixels = imread(str(tmp_path / "x.png"))
    assert len(np.unique(pixels.reshape(-1, pixels.shape[-1]), axis=0)) > 50


def test_picture_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot write"):
        draw(_attention(2), tmp_path / "none" / "x.png")


def test_missing_matplotlib_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *arguments, **keywords):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"aii\[plot\]"):
        draw(_attention(2), tmp_path / "x.png")


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "attention.png"
    arguments = ["attention", str(asset("sample_call.wav")), "--output", str(picture)]
    assert main([*arguments, "--device", "cpu", "--language", "en"]) == 0
    captured = capsys.readouterr()
    width, height = _png_size(picture)
    assert captured.out.startswith(f"{picture}: ")
    assert captured.out.endswith(f" words, {width} x {height} pixels\n")
    assert "digits and telephone phrases" in captured.err


def test_command_without_a_recording(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "x.png"
    assert main(["attention", str(tmp_path / "none.wav"), "-o", str(picture)]) == 2
    assert "none.wav" in capsys.readouterr().err
    assert not picture.exists()
