"""What scripts written for openai-whisper import and pass is there, by the same name."""

from __future__ import annotations

import importlib
import inspect
from types import ModuleType
from typing import Any

import pytest

import aii

MODULES = {
    "": {"available_models", "decode", "detect_language", "load_audio", "load_model"}
    | {"log_mel_spectrogram", "pad_or_trim", "transcribe", "DecodingOptions", "DecodingResult"}
    | {"ModelDimensions", "Whisper", "audio", "decoding", "model", "timing"}
    | {"tokenizer", "utils", "version", "__version__"},
    ".audio": {"CHUNK_LENGTH", "FRAMES_PER_SECOND", "HOP_LENGTH", "N_FFT", "N_FRAMES", "N_SAMPLES"}
    | {"N_SAMPLES_PER_TOKEN", "SAMPLE_RATE", "TOKENS_PER_SECOND", "load_audio"}
    | {"log_mel_spectrogram", "mel_filters", "pad_or_trim"},
    ".decoding": {"DecodingOptions", "DecodingResult", "Tokenizer", "compression_ratio"}
    | {"decode", "detect_language", "get_tokenizer"},
    ".model": {"AudioEncoder", "Conv1d", "LayerNorm", "Linear", "ModelDimensions"}
    | {"MultiHeadAttention", "ResidualAttentionBlock", "TextDecoder", "Whisper", "sinusoids"},
    ".normalizers": {"BasicTextNormalizer", "EnglishTextNormalizer"},
    ".normalizers.basic": {"remove_symbols", "remove_symbols_and_diacritics"},
    ".normalizers.english": {"EnglishNumberNormalizer", "EnglishSpellingNormalizer"},
    ".timing": {"WordTiming", "add_word_timestamps", "dtw", "dtw_cpu", "dtw_cuda"}
    | {"find_alignment", "median_filter", "merge_punctuations"},
    ".tokenizer": {"LANGUAGES", "TO_LANGUAGE_CODE", "Tokenizer", "get_encoding", "get_tokenizer"},
    ".transcribe": {"transcribe"},
    ".utils": {"ResultWriter", "SubtitlesWriter", "WriteJSON", "WriteSRT", "WriteTSV", "WriteTXT"}
    | {"WriteVTT", "compression_ratio", "exact_div", "format_timestamp", "get_end", "get_start"}
    | {"get_writer", "make_safe", "optional_float", "optional_int", "str2bool", "system_encoding"},
    ".version": {"__version__"},
}
DEFAULTS_BY_KEYWORD = {"dtw_cuda": {"BLOCK_SIZE"}}
"""Parameters of theirs that ours does without: the size of a CUDA kernel's blocks."""


def _pair(module: str) -> tuple[ModuleType, ModuleType]:
    return importlib.import_module("whisper" + module), importlib.import_module("aii" + module)


def _listed() -> list[tuple[str, str]]:
    return [(module, name) for module, names in MODULES.items() for name in sorted(names)]


@pytest.mark.parametrize("module, name", _listed())
def test_the_name_is_there(module: str, name: str) -> None:
    theirs, ours = _pair(module)
    expected, found = getattr(theirs, name), getattr(ours, name)
    if isinstance(expected, int | float | str | dict) and name != "__version__":
        assert found == expected
    assert callable(found) == callable(expected)


def _functions() -> list[tuple[str, str]]:
    skipped = {"Tokenizer"}  # whose further fields are computed
    found = []
    for module, name in _listed():
        theirs = getattr(_pair(module)[0], name)
        if name not in skipped and (inspect.isfunction(theirs) or inspect.isclass(theirs)):
            found.append((module, name))
    return found


@pytest.mark.parametrize("module, name", _functions())
def test_the_parameters_are_theirs_and_more_only_behind_them(module: str, name: str) -> None:
    theirs, ours = (inspect.signature(getattr(part, name)) for part in _pair(module))
    found = list(ours.parameters.values())
    gone = DEFAULTS_BY_KEYWORD.get(name, set())
    for place, expected in enumerate(p for p in theirs.parameters.values() if p.name not in gone):
        own = ours.parameters[expected.name]
        if expected.kind is not inspect.Parameter.VAR_KEYWORD:
            assert found[place].name == expected.name
        assert own.kind is expected.kind
        assert _default(own.default) == _default(expected.default)
    more = [p for p in found if p.name not in theirs.parameters]
    assert all(p.default is not inspect.Parameter.empty for p in more)


def _default(value: Any) -> Any:
    """Options of a decode that are all at their defaults are as good as none."""
    return "None" if type(value).__name__ == "DecodingOptions" else repr(value)


def test_import_as_whisper() -> None:
    assert aii.utils.get_writer("txt", ".").extension == "txt"
    assert aii.version.__version__ == aii.__version__
    assert "utils" in dir(aii)


SEGMENTS = (
    [],
    [{"start": 1.0, "end": 2.0, "words": []}],
    [
        {"start": 1.0, "end": 2.0, "words": []},
        {"start": 2.0, "end": 4.0, "words": [{"start": 2.5, "end": 2.75}]},
        {
            "start": 4.0,
            "end": 5.0,
            "words": [{"start": 4.25, "end": 4.5}, {"start": 4.5, "end": 5}],
        },
        {"start": 6.0, "end": 7.0, "words": []},
    ],
)


def test_the_small_functions() -> None:
    theirs, ours = _pair(".utils")
    for segments in SEGMENTS:
        assert ours.get_start(segments) == theirs.get_start(segments)
        assert ours.get_end(segments) == theirs.get_end(segments)
    for text in ("None", "12", "-3"):
        assert ours.optional_int(text) == theirs.optional_int(text)
        assert ours.optional_float(text) == theirs.optional_float(text)
    assert [ours.str2bool(text) for text in ("True", "False")] == [True, False]
    assert ours.exact_div(480_000, 160) == theirs.exact_div(480_000, 160)
    assert ours.make_safe("Größe 日本") == theirs.make_safe("Größe 日本")
    for part in (ours, theirs):
        with pytest.raises(ValueError, match="True"):
            part.str2bool("true")
        with pytest.raises(AssertionError):
            part.exact_div(5, 2)
