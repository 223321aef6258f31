"""What scripts written for openai-whisper import and pass is there, by the same name."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
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
OTHERS = {"warnings", "os", "io", "tqdm"}
"""What their modules import from elsewhere, by names that are no part of them."""


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
    found = []
    for module, name in [*_listed(), *_everything()]:
        theirs = getattr(_pair(module)[0], name)
        if inspect.isfunction(theirs) or inspect.isclass(theirs):
            found.append((module, name))
    return sorted(set(found))


def _everything() -> list[tuple[str, str]]:
    """Each public name that is at home in openai-whisper, in every module that has it."""
    found = []
    for module in MODULES:
        theirs = _pair(module)[0]
        for name, value in vars(theirs).items():
            home = getattr(value, "__module__", None) or theirs.__name__
            own = str(home).split(".")[0] == "whisper" and not inspect.ismodule(value)
            if own and not name.startswith("_") and name not in OTHERS and not _is_a_hint(value):
                found.append((module, name))
    return found


def _is_a_hint(value: Any) -> bool:
    return str(value).startswith("typing.")


def _members() -> list[tuple[str, str, str]]:
    """Each public method, property and attribute of their classes."""
    found = []
    for module, name in _everything():
        theirs = getattr(_pair(module)[0], name)
        if inspect.isclass(theirs):
            found += [(module, name, member) for member in vars(theirs) if member[0] != "_"]
    return found


@pytest.mark.parametrize("module, name", _everything())
def test_nothing_of_theirs_is_missing(module: str, name: str) -> None:
    expected, found = (getattr(part, name) for part in _pair(module))
    assert inspect.isclass(found) == inspect.isclass(expected)
    assert callable(found) == callable(expected)
    if not callable(expected):
        assert found == expected


@pytest.mark.parametrize("module, name, member", _members())
def test_no_member_of_theirs_is_missing(module: str, name: str, member: str) -> None:
    theirs, ours = (getattr(part, name) for part in _pair(module))
    expected = inspect.getattr_static(theirs, member)
    if not hasattr(ours, member):  # an attribute of instances
        assert member in inspect.signature(ours).parameters
        return
    found = inspect.getattr_static(ours, member)
    assert callable(found) == callable(expected)
    if inspect.isfunction(expected):
        _same_parameters(expected, found)


@pytest.mark.parametrize("module, name", _functions())
def test_the_parameters_are_theirs_and_more_only_behind_them(module: str, name: str) -> None:
    theirs, ours = (getattr(part, name) for part in _pair(module))
    _same_parameters(theirs, ours)


def _same_parameters(theirs: Any, ours: Any) -> None:
    expected, found = (list(inspect.signature(f).parameters.values()) for f in (theirs, ours))
    own = {parameter.name: parameter for parameter in found}
    for place, parameter in enumerate(expected):
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD:
            assert found[place].name == parameter.name
        assert own[parameter.name].kind is parameter.kind
        assert _default(own[parameter.name].default) == _default(parameter.default)
    more = [p for p in found if p.name not in {parameter.name for parameter in expected}]
    assert all(p.default is not inspect.Parameter.empty for p in more)


def _default(value: Any) -> Any:
    return repr(value).replace(", constraint=None", "")


def test_import_as_whisper() -> None:
    assert aii.utils.get_writer("txt", ".").extension == "txt"
    assert aii.version.__version__ == aii.__version__
    assert "utils" in dir(aii)


AS_WHISPER = """
import sys, aii
sys.modules["whisper"] = aii
import whisper, whisper.audio, whisper.normalizers.english, whisper.transcribe
from whisper.decoding import DecodingOptions
from whisper.model import Whisper
from whisper.transcribe import cli
from whisper.utils import get_writer
assert Whisper is aii.Whisper and whisper.audio is aii.audio
assert DecodingOptions is aii.DecodingOptions and whisper.transcribe is aii.transcribe
assert sys.modules["whisper.model"] is sys.modules["aii.model"]
assert aii.model.__spec__.name == aii.model.__name__ == "aii.model"
assert cli is sys.modules["aii.cli.transcribe"].cli
for missing in ("whisper.triton_ops", "whisper.normalizers.french", "whisperer"):
    try:
        __import__(missing)
    except ModuleNotFoundError:
        continue
    raise AssertionError(missing)
"""


def test_in_the_place_of_whisper() -> None:
    """Where a program cannot be changed: its imports of submodules find the same classes."""
    subprocess.run([sys.executable, "-c", AS_WHISPER], check=True)


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
