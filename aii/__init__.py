"""Telephone calls to text while people speak: Whisper in pure PyTorch behind a TCP server.

The names below are those of openai-whisper, so ``import aii as whisper`` works, and, for programs
that cannot be changed, ``sys.modules["whisper"] = aii``. They are loaded on first use: importing
``aii`` alone does not load torch, which the protocol and streaming parts and ``aii --help`` can do
without.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from .aliases import SameModules

if TYPE_CHECKING:
    from .audio.files import load_audio as load_audio
    from .checkpoints import available_models as available_models
    from .checkpoints import load_model as load_model
    from .decoding import DecodingOptions as DecodingOptions
    from .decoding import DecodingResult as DecodingResult
    from .decoding import decode as decode
    from .decoding import detect_language as detect_language
    from .mel import log_mel_spectrogram as log_mel_spectrogram
    from .mel import pad_or_trim as pad_or_trim
    from .model import ModelDimensions as ModelDimensions
    from .model import Whisper as Whisper
    from .transcribe import transcribe as transcribe

__version__ = "0.1.0"

_HOMES = {
    "load_audio": "audio.files",
    "available_models": "checkpoints",
    "load_model": "checkpoints",
    "DecodingOptions": "decoding",
    "DecodingResult": "decoding",
    "decode": "decoding",
    "detect_language": "decoding",
    "log_mel_spectrogram": "mel",
    "pad_or_trim": "mel",
    "ModelDimensions": "model",
    "Whisper": "model",
    "transcribe": "transcribe",
    # What programs borrow from the inside of openai-whisper:
    "_ALIGNMENT_HEADS": "hub",
    "_MODELS": "hub",
    "_download": "hub",
}
_SUBMODULES = (
    "audio",
    "decoding",
    "model",
    "normalizers",
    "timing",
    "tokenizer",
    "utils",
    "version",
)

__all__ = [
    "DecodingOptions",
    "DecodingResult",
    "ModelDimensions",
    "Whisper",
    "available_models",
    "decode",
    "detect_language",
    "load_audio",
    "load_model",
    "log_mel_spectrogram",
    "pad_or_trim",
    "transcribe",
]


class _Package(ModuleType):
    """Keeps ``aii.transcribe`` the function: importing the module of that name would cover it."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _HOMES and isinstance(value, ModuleType):
            return
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
SameModules.install()


def __getattr__(name: str) -> Any:
    if home := _HOMES.get(name):
        value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
        globals()[name] = value
        return value
    if name in _SUBMODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_SUBMODULES})
