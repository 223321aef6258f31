"""The options of ``whisper`` are those of ``aii transcribe``; where defaults differ is listed."""

from __future__ import annotations

import argparse
from typing import Any

import pytest
import whisper.transcribe

from aii.cli import build_parser
from aii.cli import transcribe as command

LINES = (
    "--temperature 0.4 --best_of None --beam_size None --patience 1.5 --length_penalty 0.5",
    "--word_timestamps True --highlight_words True --max_line_width 40 --max_line_count 2",
    "--language en --task translate --initial_prompt hello --carry_initial_prompt True",
    "--clip_timestamps 0,5 --hallucination_silence_threshold 2 --no_speech_threshold None",
    "--compression_ratio_threshold None --logprob_threshold -3 --suppress_tokens 1,2 --threads 2",
    "--temperature_increment_on_fallback None --condition_on_previous_text False --fp16 False",
    "--model tiny --model_dir there --device cpu -o here -f srt --verbose False",
    "--prepend_punctuations x --append_punctuations y --max_words_per_line 3",
)
ON_PURPOSE = {"model", "output_dir", "output_format", "verbose", "device", "fp16", "best_of"}
ON_PURPOSE |= {"beam_size", "temperature_increment_on_fallback", "condition_on_previous_text"}
"""Defaults of ours that differ; ``aii transcribe --help`` says why."""
OF_THE_DEVICE = {"device", "fp16"}
"""Defaults that follow from the device, which theirs looks at before the command is read."""


class _ReadError(Exception):
    """Their command stops here."""


@pytest.fixture
def theirs(monkeypatch: pytest.MonkeyPatch) -> argparse.ArgumentParser:
    """The parser that openai-whisper's command makes."""
    found: list[argparse.ArgumentParser] = []

    def stop(parser: argparse.ArgumentParser, *_: Any) -> None:
        found.append(parser)
        raise _ReadError

    with monkeypatch.context() as patched:
        patched.setattr(argparse.ArgumentParser, "parse_args", stop)
        with pytest.raises(_ReadError):
            whisper.transcribe.__globals__["cli"]()
    return found[0]


def _options(parser: argparse.ArgumentParser, words: list[str]) -> dict[str, Any]:
    found = vars(parser.parse_args(words))
    return {name: value for name, value in found.items() if name not in ("audio", "files")}


def test_every_option_is_there(theirs) -> None:
    ours = build_parser()
    own = _options(ours, ["transcribe", "a.wav"])
    expected = _options(theirs, ["a.wav"])
    assert set(expected) <= set(own)
    differing = {name for name, value in expected.items() if own[name] != value}
    assert differing == ON_PURPOSE


@pytest.mark.parametrize("line", LINES)
def test_every_value_is_read_alike(theirs, line: str) -> None:
    words = ["a.wav", *line.split()]
    expected, found = _options(theirs, words), _options(build_parser(), ["transcribe", *words])
    for name in (word.removeprefix("--") for word in words if word.startswith("--")):
        assert found[name] == expected[name], name
    if "-o" in words:
        assert (found["output_dir"], found["output_format"]) == ("here", "srt")


def test_their_command_has_their_defaults(theirs, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[argparse.Namespace] = []

    def run(args: argparse.Namespace) -> int:
        seen.append(args)
        return 3

    monkeypatch.setattr(command, "run", run)
    with pytest.raises(SystemExit) as end:
        command.cli(["a.wav", "b.wav", "--beam_size", "2"])
    assert end.value.code == 3
    (args,) = seen
    assert args.files == ["a.wav", "b.wav"]
    expected = _options(theirs, ["a.wav", "--beam_size", "2"])
    found = {name: getattr(args, name) for name in expected}
    found["output_dir"] = found["output_dir"] or "."  # which is what files without a folder mean
    differing = {name for name, value in expected.items() if found[name] != value}
    assert differing == OF_THE_DEVICE
    assert (args.audio_context, args.seed) == ("full", None)
