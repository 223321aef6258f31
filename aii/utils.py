"""The names of OpenAI's ``whisper.utils``: the writers, and the small functions beside them.

Scripts that were written for ``openai-whisper`` import from here. The writers are those of
``aii.writers``, the compression ratio is that of ``aii.options``.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from aii.errors import InputError
from aii.options import compression_ratio
from aii.writers import (
    ResultWriter,
    SubtitlesWriter,
    WriteJSON,
    WriteSRT,
    WriteTSV,
    WriteTXT,
    WriteVTT,
    format_timestamp,
    get_writer,
)

__all__ = [
    "ResultWriter",
    "SubtitlesWriter",
    "WriteJSON",
    "WriteSRT",
    "WriteTSV",
    "WriteTXT",
    "WriteVTT",
    "compression_ratio",
    "exact_div",
    "format_timestamp",
    "get_end",
    "get_start",
    "get_writer",
    "make_safe",
    "optional_float",
    "optional_int",
    "str2bool",
    "system_encoding",
]

system_encoding = sys.getdefaultencoding()


def make_safe(string: str) -> str:
    """``string`` with a question mark for what the system's encoding cannot write."""
    return string.encode(system_encoding, errors="replace").decode(system_encoding)


def exact_div(x: int, y: int) -> int:
    """``x / y``, which must leave nothing over.

    Raises:
        AssertionError: it leaves something over.
    """
    quotient, rest = divmod(x, y)
    assert rest == 0, f"{x} is not a multiple of {y}"
    return quotient


def str2bool(string: str) -> bool:
    """The truth of the words "True" and "False".

    Raises:
        InputError: it is another word.
    """
    if string not in ("True", "False"):
        raise InputError(f"expected True or False, not {string!r}")
    return string == "True"


def optional_int(string: str) -> int | None:
    """The number, or None for the word "None"."""
    return None if string == "None" else int(string)


def optional_float(string: str) -> float | None:
    """The number, or None for the word "None"."""
    return None if string == "None" else float(string)


def get_start(segments: Sequence[Mapping[str, Any]]) -> float | None:
    """Where the first word of segments with ``words`` starts (seconds); without any word, the
    first segment; None without segments.
    """
    words = (word["start"] for segment in segments for word in segment["words"])
    return next(words, segments[0]["start"] if segments else None)


def get_end(segments: Sequence[Mapping[str, Any]]) -> float | None:
    """Where the last word of segments with ``words`` ends (seconds); without any word, the last
    segment; None without segments.
    """
    words = (word["end"] for segment in reversed(segments) for word in reversed(segment["words"]))
    return next(words, segments[-1]["end"] if segments else None)
