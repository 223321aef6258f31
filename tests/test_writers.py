"""aii.writers on their own."""

from __future__ import annotations

import io
import json

import pytest

from aii.errors import InputError
from aii.writers import ResultWriter, format_timestamp, get_writer

RESULT = {
    "text": " One two. Three",
    "language": "en",
    "segments": [
        {
            "start": 0.0,
            "end": 1.5,
            "text": " One two.",
            "words": [
                {"word": " One", "start": 0.0, "end": 0.5},
                {"word": " two.", "start": 1.0, "end": 1.5},
            ],
        },
        {
            "start": 9.0,
            "end": 9.5,
            "text": " Three",
            "words": [{"word": " Three", "start": 9.0, "end": 9.5}],
        },
    ],
}


def written(name: str, result: dict = RESULT, **options: object) -> str:
    file = io.StringIO()
    get_writer(name, ".").write_result(result, file, **options)
    return file.getvalue()


def test_text_and_tables():
    assert written("txt") == "One two.\nThree\n"
    assert written("tsv") == "start\tend\ttext\n0\t1500\tOne two.\n9000\t9500\tThree\n"
    assert json.loads(written("json")) == RESULT


def test_subtitles():
    assert written("vtt") == (
        "WEBVTT\n\n00:00.000 --> 00:01.500\nOne two.\n\n00:09.000 --> 00:09.500\nThree\n\n"
    )
    assert written("srt").startswith("1\n00:00:00,000 --> 00:00:01,500\nOne two.\n\n2\n")


def test_highlighting_shows_pauses_plain():
    lines = written("vtt", highlight_words=True).split("\n\n")
    assert lines[1:4] == [
        "00:00.000 --> 00:00.500\n<u>One</u> two.",
        "00:00.500 --> 00:01.000\nOne two.",
        "00:01.000 --> 00:01.500\nOne <u>two.</u>",
    ]


def test_widths_break_lines():
    assert "One\ntwo.\n" in written("srt", max_line_width=5)
    both = written("srt", max_line_width=40, max_line_count=1)
    assert both.count("-->") == 2  # a pause of more than 3 s ends a subtitle
    assert written("srt", max_words_per_line=1).count("-->") == 3


def test_a_segment_without_words_among_others_counts_as_one_word():
    segments = [*RESULT["segments"], {"start": 10.0, "end": 11.0, "text": " Four five"}]
    text = written("vtt", {**RESULT, "segments": segments})
    assert "00:10.000 --> 00:11.000\nFour five\n" in text


def test_nothing_said():
    nothing = {"text": "", "segments": [], "language": "en"}
    assert [written(name, nothing) for name in ("txt", "srt", "vtt")] == ["", "", "WEBVTT\n\n"]


def test_bad_options():
    with pytest.raises(InputError, match="'docx' is unknown"):
        get_writer("docx", ".")
    with pytest.raises(InputError, match="max_line_width is -1"):
        written("srt", max_line_width=-1)
    with pytest.raises(InputError, match="'max_line_with'"):
        written("srt", max_line_with=3)
    with pytest.raises(InputError, match="cannot be negative"):
        format_timestamp(-0.1)
    with pytest.raises(NotImplementedError):
        ResultWriter(".").write_result(RESULT, io.StringIO())
