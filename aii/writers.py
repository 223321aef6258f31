"""Transcripts into files: plain text, WebVTT, SubRip, tab-separated values, JSON.

A result is the dictionary that ``aii.transcribe`` gives: ``{"text", "segments", "language"}``; each
segment has ``start``, ``end`` (seconds), ``text`` and perhaps ``words``, each with ``word``,
``start``, ``end``. Files are byte for byte those of openai-whisper's writers.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TextIO

from aii.errors import InputError

Result = Mapping[str, Any]
Cue = tuple[str, str, str]
"""Start and end as written in the file, and the text."""

_LONG_PAUSE = 3.0
_NO_LIMIT = 1000
_UNDERLINED = re.compile(r"(\s*)(.*)(\n?)")


def format_timestamp(
    seconds: float, always_include_hours: bool = False, decimal_marker: str = "."
) -> str:
    """``seconds`` as ``MM:SS.mmm``, with ``HH:`` before it from the first hour on or always.

    Raises:
        InputError: ``seconds`` is negative.
    """
    if seconds < 0:
        raise InputError(f"{seconds} s is before the start; a timestamp cannot be negative")
    whole, milliseconds = divmod(round(seconds * 1000.0), 1000)
    minutes, whole = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    start = f"{hours:02d}:" if hours or always_include_hours else ""
    return f"{start}{minutes:02d}:{whole:02d}{decimal_marker}{milliseconds:03d}"


@dataclass(frozen=True)
class Layout:
    """How words are laid out in subtitles; None is no limit. Only results with words obey it.

    Attributes:
        max_line_width: characters in a line.
        max_line_count: lines in a subtitle; with a width as well, subtitles go on across segments.
        highlight_words: one subtitle per word, underlining it.
        max_words_per_line: words in a subtitle; without effect if both other limits are given.

    Raises:
        InputError: a limit below zero.
    """

    max_line_width: int | None = None
    max_line_count: int | None = None
    highlight_words: bool = False
    max_words_per_line: int | None = None

    def __post_init__(self) -> None:
        for name in ("max_line_width", "max_line_count", "max_words_per_line"):
            if (getattr(self, name) or 0) < 0:
                raise InputError(f"{name} is {getattr(self, name)}; give a number above zero")

    @classmethod
    def check(cls, given: Mapping[str, Any]) -> None:
        """Raise an ``InputError`` where a name is given that is none of the layout's."""
        names = [field.name for field in fields(cls)]
        if unknown := sorted(set(given) - set(names)):
            raise InputError(f"unknown option {unknown[0]!r}; choose from {', '.join(names)}")

    @classmethod
    def of(cls, options: Mapping[str, Any] | None, **given: Any) -> Layout:
        """From ``options``, overruled by what is ``given`` and neither None, zero nor False."""
        options = options or {}
        names = [field.name for field in fields(cls)]
        values: dict[str, Any] = {n: given.get(n) or options.get(n) for n in names}
        return cls(**values)


class _Typesetter:
    """Sets words into lines and lines into subtitles, one word after another."""

    def __init__(self, layout: Layout, start: float) -> None:
        self._width = layout.max_line_width or _NO_LIMIT
        self._count = layout.max_line_count
        self._by_segment = layout.max_line_width is None or layout.max_line_count is None
        self._last = start
        self._filled = 0
        self._lines = 1
        self._subtitle: list[dict[str, Any]] = []

    def add(self, word: Mapping[str, Any], opens: bool) -> list[dict[str, Any]] | None:
        """Set the next word; give the subtitle that ends before it, if one does.

        Args:
            word: with its ``word`` (spaces included), ``start`` and ``end``.
            opens: it is the first of a segment or of a group of ``max_words_per_line``.
        """
        done = None
        text = word["word"]
        pause = not self._by_segment and word["start"] - self._last > _LONG_PAUSE
        breaks = opens and self._by_segment and bool(self._subtitle)
        fits = self._filled > 0 and self._filled + len(text) <= self._width
        if fits and not pause and not breaks:
            self._filled += len(text)
        else:
            text = text.strip()
            full = self._count is not None and (pause or self._lines >= self._count)
            if breaks or (full and self._subtitle):
                done, self._subtitle, self._lines = self._subtitle, [], 1
            elif self._filled > 0:
                self._lines += 1
                text = "\n" + text
            self._filled = len(text.strip())
        self._subtitle.append({**word, "word": text})
        self._last = word["start"]
        return done

    def rest(self) -> list[dict[str, Any]]:
        """The last subtitle, perhaps empty."""
        return self._subtitle


def _words(segment: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """A segment's words; one without that list counts as a single word."""
    if "words" in segment:
        return segment["words"]
    return [{"word": segment["text"], "start": segment["start"], "end": segment["end"]}]


def _subtitles(
    segments: Sequence[Mapping[str, Any]], layout: Layout
) -> Iterator[list[dict[str, Any]]]:
    """The words of all segments as subtitles."""
    first = next((word["start"] for segment in segments for word in _words(segment)), 0.0)
    setter = _Typesetter(layout, first)
    group = layout.max_words_per_line or _NO_LIMIT
    for segment in segments:
        for place, word in enumerate(_words(segment)):
            if done := setter.add(word, opens=place % group == 0):
                yield done
    if rest := setter.rest():
        yield rest


def _underline(word: str) -> str:
    """``word`` in HTML's underlining, white space before it left out."""
    found = _UNDERLINED.fullmatch(word)
    return f"{found[1]}<u>{found[2]}</u>{found[3]}" if found else word


class ResultWriter:
    """Writes results to files in ``output_dir``.

    Args:
        output_dir: an existing folder.
    """

    extension: str

    def __init__(self, output_dir: str | os.PathLike[str]) -> None:
        self.output_dir = output_dir

    def __call__(
        self,
        result: Result,
        audio_path: str | os.PathLike[str],
        options: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Write ``result`` to the file named as the recording, with this format's extension.

        Args:
            result: as ``transcribe`` gives it.
            audio_path: the recording; only its name is used.
            options: the fields of ``Layout``; others are ignored.
            kwargs: fields of ``Layout``, which overrule ``options``.
        """
        stem = os.path.splitext(os.path.basename(audio_path))[0]
        path = Path(self.output_dir) / f"{stem}.{self.extension}"
        with path.open("w", encoding="utf-8") as file:
            self.write_result(result, file=file, options=options, **kwargs)

    def write_result(
        self,
        result: Result,
        file: TextIO,
        options: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Write ``result`` to an open text file."""
        raise NotImplementedError


class WriteTXT(ResultWriter):
    """One line per segment."""

    extension = "txt"

    def write_result(
        self,
        result: Result,
        file: TextIO,
        options: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Write ``result`` to an open text file."""
        file.writelines(f"{segment['text'].strip()}\n" for segment in result["segments"])


class SubtitlesWriter(ResultWriter):
    """What WebVTT and SubRip have in common."""

    always_include_hours: bool
    decimal_marker: str

    def iterate_result(
        self,
        result: Result,
        options: Mapping[str, Any] | None = None,
        *,
        max_line_width: int | None = None,
        max_line_count: int | None = None,
        highlight_words: bool = False,
        max_words_per_line: int | None = None,
    ) -> Iterator[Cue]:
        """The subtitles of ``result``: of its words if it has some, else of segments.

        See :class:`Layout`; what is given overrules ``options``.
        """
        layout = Layout.of(
            options,
            max_line_width=max_line_width,
            max_line_count=max_line_count,
            highlight_words=highlight_words,
            max_words_per_line=max_words_per_line,
        )
        segments = result["segments"]
        if not segments or "words" not in segments[0]:
            for segment in segments:
                text = segment["text"].strip().replace("-->", "->")
                yield *self._span(segment, segment), text
            return
        for words in _subtitles(segments, layout):
            if layout.highlight_words:
                yield from self._highlighted(words)
            else:
                yield *self._span(words[0], words[-1]), "".join(word["word"] for word in words)

    def _cues(
        self, result: Result, options: Mapping[str, Any] | None, given: Mapping[str, Any]
    ) -> Iterator[Cue]:
        """:meth:`iterate_result` with what a caller gave, once its names are known."""
        Layout.check(given)
        return self.iterate_result(result, options, **given)

    def _highlighted(self, words: Sequence[Mapping[str, Any]]) -> Iterator[Cue]:
        """One cue per word with that word underlined, and plain ones for the pauses between."""
        texts = [word["word"] for word in words]
        shown_to = self.format_timestamp(words[0]["start"])
        for place, word in enumerate(words):
            start, end = self._span(word, word)
            if shown_to != start:
                yield shown_to, start, "".join(texts)
            marked = (*texts[:place], _underline(texts[place]), *texts[place + 1 :])
            yield start, end, "".join(marked)
            shown_to = end

    def _span(self, first: Mapping[str, Any], last: Mapping[str, Any]) -> tuple[str, str]:
        return self.format_timestamp(first["start"]), self.format_timestamp(last["end"])

    def format_timestamp(self, seconds: float) -> str:
        """``seconds`` as this format writes it."""
        return format_timestamp(seconds, self.always_include_hours, self.decimal_marker)


class WriteVTT(SubtitlesWriter):
    """WebVTT subtitles."""

    extension = "vtt"
    always_include_hours = False
    decimal_marker = "."

    def write_result(
        self,
        result: Result,
        file: TextIO,
        options: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Write ``result`` to an open text file."""
        file.write("WEBVTT\n\n")
        for start, end, text in self._cues(result, options, kwargs):
            file.write(f"{start} --> {end}\n{text}\n\n")


class WriteSRT(SubtitlesWriter):
    """SubRip subtitles."""

    extension = "srt"
    always_include_hours = True
    decimal_marker = ","

    def write_result(
        self,
        result: Result,
        file: TextIO,
        options: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Write ``result`` to an open text file."""
        cues = self._cues(result, options, kwargs)
        for number, (start, end, text) in enumerate(cues, start=1):
            file.write(f"{number}\n{start} --> {end}\n{text}\n\n")


class WriteTSV(ResultWriter):
    """Tab-separated values: start and end in whole milliseconds, text."""

    extension = "tsv"

    def write_result(
        self,
        result: Result,
        file: TextIO,
        options: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Write ``result`` to an open text file."""
        file.write("start\tend\ttext\n")
        for segment in result["segments"]:
            start, end = (round(1000 * segment[name]) for name in ("start", "end"))
            text = segment["text"].strip().replace("\t", " ")
            file.write(f"{start}\t{end}\t{text}\n")


class WriteJSON(ResultWriter):
    """The whole result as JSON."""

    extension = "json"

    def write_result(
        self,
        result: Result,
        file: TextIO,
        options: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Write ``result`` to an open text file."""
        json.dump(result, file)


class WriteAll:
    """Writes a result in every format.

    Args:
        output_dir: an existing folder.
    """

    def __init__(self, output_dir: str | os.PathLike[str]) -> None:
        self._writers = [writer(output_dir) for writer in WRITERS.values()]

    def __call__(
        self,
        result: Result,
        audio_path: str | os.PathLike[str],
        options: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Write ``result`` as each of the writers does."""
        for writer in self._writers:
            writer(result, audio_path, options, **kwargs)


WRITERS: dict[str, type[ResultWriter]] = {
    writer.extension: writer for writer in (WriteTXT, WriteVTT, WriteSRT, WriteTSV, WriteJSON)
}
"""The writer of each format by its name."""


def get_writer(output_format: str, output_dir: str | os.PathLike[str]) -> ResultWriter | WriteAll:
    """The writer of a format ("txt", "vtt", "srt", "tsv", "json", "all") into a folder.

    Raises:
        InputError: there is no such format.
    """
    if output_format == "all":
        return WriteAll(output_dir)
    if output_format not in WRITERS:
        raise InputError(
            f"output format {output_format!r} is unknown; choose {', '.join(WRITERS)} or all"
        )
    return WRITERS[output_format](output_dir)
