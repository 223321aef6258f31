"""``aii transcribe``: options, output, errors."""

from __future__ import annotations

import json
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aii.cli import build_parser, main
from aii.errors import AudioError, ServiceError

WHISPERS = """
    model model_dir device output_dir output_format verbose task language temperature best_of
    beam_size patience length_penalty suppress_tokens initial_prompt carry_initial_prompt
    condition_on_previous_text fp16 temperature_increment_on_fallback compression_ratio_threshold
    logprob_threshold no_speech_threshold word_timestamps prepend_punctuations append_punctuations
    highlight_words max_line_width max_line_count max_words_per_line threads clip_timestamps
    hallucination_silence_threshold
""".split()
SEGMENT = {
    "id": 0, "seek": 0, "start": 0.0, "end": 1.5, "text": " four five", "tokens": [1],
    "temperature": 0.0, "avg_logprob": -0.1, "compression_ratio": 1.0, "no_speech_prob": 0.0,
    "words": [
        {"word": " four", "start": 0.0, "end": 0.7, "probability": 0.9},
        {"word": " five", "start": 0.7, "end": 1.5, "probability": 0.9},
    ],
}  # fmt: skip


class _Model:
    """What the command asks of a model."""

    def __init__(self, multilingual: bool = True, **metadata: str) -> None:
        import torch

        self.is_multilingual = multilingual
        self.metadata = metadata
        self.device = torch.device("cpu")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Calls of ``transcribe``, which finds "four five" in every file but those named bad..."""
    made: list[dict[str, Any]] = []

    def transcribe(model: Any, path: str, **options: Any) -> dict[str, Any]:
        made.append({"path": path, **options})
        if Path(path).name.startswith("bad"):
            raise AudioError(f"cannot read {path}: it is\nbroken")
        if Path(path).name.startswith("late"):
            raise ServiceError("the engine is tired")
        if options["verbose"] is not None:
            print("Detected language: English")
        quiet = {**SEGMENT, "id": 1, "text": ""}
        return {"text": " four five", "segments": [SEGMENT, quiet], "language": "en"}

    import sys

    import aii.transcribe  # noqa: F401  (the attribute of that name is the function)

    monkeypatch.setattr(sys.modules["aii.transcribe"], "transcribe", transcribe)
    monkeypatch.setattr("aii.checkpoints.load_model", lambda *_, **__: _Model())
    return made


def test_has_every_option_of_whisper(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["transcribe", "--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert [name for name in WHISPERS if f"--{name} " not in shown] == []


def test_options_are_spelled_both_ways() -> None:
    line = "transcribe x.wav --output{0}format srt --word{0}timestamps True --best{0}of 3"
    parsed = [vars(build_parser().parse_args(line.format(mark).split())) for mark in "_-"]
    assert parsed[0] == parsed[1]
    assert parsed[0]["output_format"] == "srt"
    assert parsed[0]["word_timestamps"] is True
    assert parsed[0]["best_of"] == 3


def test_text_goes_to_stdout(calls, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["transcribe", "a.wav"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "four five\n"
    assert "knows digits and telephone phrases only" in captured.err
    assert "Detected language" in captured.err
    (call,) = calls
    assert call["path"] == "a.wav"
    assert call["temperature"] == pytest.approx((0.0, 0.2, 0.4, 0.6, 0.8, 1.0))
    assert call["beam_size"] is None
    assert call["best_of"] is None
    assert call["seed"] == 0
    assert (call["audio_context"], call["fp16"], call["language"]) == ("full", False, None)


def test_several_texts_have_headings(calls, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["transcribe", "a.wav", "b.wav"]) == 0
    assert capsys.readouterr().out == "==> a.wav <==\nfour five\n==> b.wav <==\nfour five\n"


def test_verbose_leaves_printing_to_transcribe(calls, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["transcribe", "a.wav", "--verbose", "True"]) == 0
    assert capsys.readouterr().out == "Detected language: English\n"
    assert calls[0]["verbose"] is True


def test_files_are_written(calls, tmp_path: Path) -> None:
    out = tmp_path / "new" / "folder"
    assert main(["transcribe", "some/a.wav", "-o", str(out)]) == 0
    names = [f"a.{extension}" for extension in ("json", "srt", "tsv", "txt", "vtt")]
    assert sorted(path.name for path in out.iterdir()) == names
    assert json.loads((out / "a.json").read_text())["segments"][0] == SEGMENT
    assert calls[0]["verbose"] is True


def test_one_format_with_layout(calls, tmp_path: Path) -> None:
    options = "-f srt --word_timestamps True --max_words_per_line 1 --verbose False".split()
    assert main(["transcribe", "a.wav", "-o", str(tmp_path), *options]) == 0
    (file,) = tmp_path.iterdir()
    assert file.read_text().count("-->") == 2 * 2
    assert calls[0]["verbose"] is False


def test_bad_file_does_not_stop_the_others(calls, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["transcribe", "bad.wav", "a.wav"]) == 2
    captured = capsys.readouterr()
    assert captured.out == "==> a.wav <==\nfour five\n"
    assert "aii: error: cannot read bad.wav: it is broken\n" in captured.err


def test_failure_of_ours_is_told_apart(calls, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["transcribe", "late.wav"]) == 1
    assert "aii: error: late.wav: the engine is tired\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options, named",
    [
        ("--highlight_words True", "--highlight_words needs --word_timestamps True"),
        ("--temperature -1", "--temperature must be 0 or more"),
        ("--temperature_increment_on_fallback 0", "0.001 to 1 or None"),
        ("--threads -2", "--threads must be"),
        ("--audio-context half", "audio context must be full, auto or seconds"),
    ],
)
def test_bad_options(calls, capsys: pytest.CaptureFixture[str], options: str, named: str) -> None:
    assert main(["transcribe", "a.wav", *options.split()]) == 2
    error = capsys.readouterr().err
    assert "aii: error: " in error
    assert named in error
    assert calls == []


@pytest.mark.parametrize(
    "options", ["--verbose perhaps", "--language martian", "--best_of x", "--output_format doc"]
)
def test_options_that_cannot_be_read(options: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["transcribe", "a.wav", *options.split()])
    assert stop.value.code == 2
    assert options.split()[0] in capsys.readouterr().err


@pytest.mark.parametrize(
    "options, expected",
    [
        ("--temperature 0.5", (0.5, 0.7, 0.9)),
        ("--temperature 0.5 --temperature_increment_on_fallback None", (0.5,)),
        ("--temperature 1.5", (1.5,)),
    ],
)
def test_temperatures(calls, options: str, expected: tuple[float, ...]) -> None:
    assert main(["transcribe", "a.wav", *options.split()]) == 0
    assert calls[0]["temperature"] == pytest.approx(expected)


@pytest.mark.parametrize(
    "options, expected",
    [
        ("", (0.0,)),
        ("--temperature 0.5", (0.5,)),
        ("--temperature_increment_on_fallback 0.5", (0.0, 0.5, 1.0)),
    ],
)
def test_a_model_may_ask_for_no_fallback(
    calls, monkeypatch: pytest.MonkeyPatch, options: str, expected: tuple[float, ...]
) -> None:
    model = _Model(fallback=False)
    monkeypatch.setattr("aii.checkpoints.load_model", lambda *_, **__: model)
    assert main(["transcribe", "a.wav", *options.split()]) == 0
    assert calls[0]["temperature"] == pytest.approx(expected)


def test_what_the_model_says_is_the_default(calls, monkeypatch: pytest.MonkeyPatch) -> None:
    model = _Model(audio_context="auto", language="en")
    monkeypatch.setattr("aii.checkpoints.load_model", lambda *_, **__: model)
    assert main(["transcribe", "a.wav", "--model", "x.pt"]) == 0
    assert (calls[0]["audio_context"], calls[0]["language"]) == ("auto", "en")
    given = ["--language", "German", "--audio-context", "7.5", "--fp16", "True"]
    assert main(["transcribe", "a.wav", *given]) == 0
    assert [calls[1][name] for name in ("audio_context", "language", "fp16")] == [7.5, "de", True]


def test_the_text_so_far_is_a_prompt_where_it_suits_the_model(
    calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    for notes in ({}, {"condition_on_previous_text": False}):
        monkeypatch.setattr("aii.checkpoints.load_model", lambda *_, n=notes, **__: _Model(**n))
        for given in ([], ["--condition_on_previous_text", "True"]):
            assert main(["transcribe", "a.wav", *given]) == 0
    assert [call["condition_on_previous_text"] for call in calls] == [True, True, False, True]


def test_english_only_model_hears_english(
    calls, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("aii.checkpoints.load_model", lambda *_, **__: _Model(multilingual=False))
    assert main(["transcribe", "a.wav", "--model", "x.en", "--language", "fr"]) == 0
    assert "x.en knows English only" in capsys.readouterr().err
    assert calls[0]["language"] == "en"


def test_options_without_effect_are_said(calls, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--word_timestamps", "True", "--max_line_count", "2", "--max_words_per_line", "3"]
    assert main(["transcribe", "a.wav", *words]) == 0
    assert "--max_line_count has no effect" in capsys.readouterr().err
    assert main(["transcribe", "a.wav", *words, "--max_line_width", "30"]) == 0
    assert "--max_words_per_line has no effect" in capsys.readouterr().err


def test_folder_that_cannot_be_made(
    calls, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert main(["transcribe", "a.wav", "-o", str(tmp_path / "file" / "x")]) == 2
    assert "cannot make the folder" in capsys.readouterr().err


def test_real_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The embedded model, a WAV file, raw SLIN, and a file that is not there."""
    tone = (3000 * np.sin(np.arange(32000) / 20)).astype("<i2")
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes(tone.tobytes())
    (tmp_path / "b.slin").write_bytes(tone.tobytes())
    files = [str(tmp_path / name) for name in ("a.wav", "b.slin", "none.wav")]
    options = ["--threads", "1", "--temperature_increment_on_fallback", "None", "-f", "json"]
    assert main(["transcribe", *files, *options, "-o", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "none.wav" in error
    assert "Traceback" not in error
    one, other = (json.loads((tmp_path / f"{n}.json").read_text()) for n in "ab")
    assert one == other
    assert set(one) == {"text", "segments", "language"}
