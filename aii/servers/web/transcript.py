"""From the finals of a call to a transcript as ``aii.transcribe`` gives it, and to a file of it."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from typing import Any

from aii.streaming.events import Final
from aii.types import Word
from aii.writers import get_writer

FORMATS = {
    "txt": "text/plain; charset=utf-8",
    "srt": "application/x-subrip; charset=utf-8",
    "vtt": "text/vtt; charset=utf-8",
    "tsv": "text/tab-separated-values; charset=utf-8",
    "json": "application/json",
}
"""What ``as_file`` writes, and its content type."""


def result_of(finals: Sequence[Final], *, words: bool = False) -> dict[str, Any]:
    """``{"text", "segments", "language"}``, each segment with id, start, end, text, tokens.

    Args:
        finals: in the order of speech.
        words: give each segment its words.
    """
    segments: list[dict[str, Any]] = []
    for final in finals:
        for segment in final.segments:
            item = {
                "id": len(segments),
                "start": round(segment.start, 3),
                "end": round(segment.end, 3),
                "text": segment.text,
                "tokens": list(segment.tokens),
            }
            if words:
                item["words"] = words_of(segment.words)
            segments.append(item)
    languages = (final.language for final in finals if final.language)
    text = "".join(final.text for final in finals)
    return {"text": text, "segments": segments, "language": next(languages, None)}


def words_of(words: Iterable[Word]) -> list[dict[str, Any]]:
    """Words as openai-whisper writes them."""
    return [
        {
            "word": word.text,
            "start": round(word.start, 3),
            "end": round(word.end, 3),
            "probability": word.probability,
        }
        for word in words
    ]


def as_file(result: dict[str, Any], kind: str) -> str:
    """A result as the text of a file of this kind (one of ``FORMATS``)."""
    file = io.StringIO()
    writer = get_writer(kind, ".")
    writer.write_result(result, file=file)  # type: ignore[union-attr]
    return file.getvalue()
