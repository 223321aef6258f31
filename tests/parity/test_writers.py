"""Files are openai-whisper's, byte for byte."""

from __future__ import annotations

import io
import random

import pytest
from whisper import utils as theirs

from aii import writers as ours

FORMATS = ("txt", "vtt", "srt", "tsv", "json")
WORDS = (
    *(" a", " hello", " wörld", "，你好", "", " ", "x", "\nfoo", " foo\n", " a\nb", " -->"),
    *(" supercalifragilistic", " \t", "  two  "),
)
TEXTS = (" Hi --> there\tx ", "", "日本語 ñ", "two\nlines")


def random_result(chance: random.Random) -> dict:
    """Some segments with overlaps, pauses, hours, empty words; with or without words."""
    now = chance.choice([0, 0.004, 3599, 100_000.0])
    with_words = chance.random() < 0.8
    segments = []
    for number in range(chance.choice([0, 1, 2, 4])):
        start, words = now, []
        for _ in range(chance.choice([0, 1, 2, 5, 9])):
            begin = now + chance.choice([0, 0, 0, 0.2, 5])
            now = begin + chance.choice([0, 0.1, 0.3, 0.5])
            word = {"word": chance.choice(WORDS), "start": begin, "end": now, "probability": 0.5}
            words.append(word)
        segment = {"id": number, "start": start, "end": now, "text": chance.choice(TEXTS)}
        segments.append({**segment, "words": words} if with_words else segment)
    return {"text": "日本", "segments": segments, "language": "ja"}


def random_options(chance: random.Random) -> dict:
    return {
        "max_line_width": chance.choice([None, None, 0, 5, 20, 42]),
        "max_line_count": chance.choice([None, None, 0, 1, 2]),
        "max_words_per_line": chance.choice([None, None, 0, 1, 3]),
        "highlight_words": chance.choice([None, False, True]),
    }


def written(module, name: str, result: dict, options: dict | None, **given) -> str:
    file = io.StringIO()
    module.get_writer(name, ".").write_result(result, file=file, options=options, **given)
    return file.getvalue()


@pytest.mark.parametrize("name", FORMATS)
def test_random_results(name):
    chance = random.Random(3)
    for _ in range(500):
        result, options = random_result(chance), random_options(chance)
        for given in ({}, random_options(chance)):
            expected = written(theirs, name, result, {**options, "other": 1}, **given)
            assert written(ours, name, result, {**options, "other": 1}, **given) == expected
        expected = written(theirs, name, result, None, **options)
        assert written(ours, name, result, None, **options) == expected


@pytest.mark.parametrize("name", [*FORMATS, "all"])
def test_files(name, tmp_path):
    chance = random.Random(5)
    results = {f"call {i}.x.wav": random_result(chance) for i in range(5)}
    for folder, module in (("ours", ours), ("theirs", theirs)):
        (tmp_path / folder).mkdir()
        write = module.get_writer(name, str(tmp_path / folder))
        for path, result in results.items():
            write(result, f"some/where/{path}", {"max_line_width": 10, "max_line_count": 2})
    expected = {path.name: path.read_bytes() for path in (tmp_path / "theirs").iterdir()}
    assert len(expected) == 5 * (5 if name == "all" else 1)
    assert {path.name: path.read_bytes() for path in (tmp_path / "ours").iterdir()} == expected


def test_timestamps():
    for seconds in (0, 0.0005, 0.0015, 1.0, 59.9996, 61.25, 3599.9994, 3600, 360_000.5):
        for hours in (False, True):
            for mark in ".,":
                expected = theirs.format_timestamp(seconds, hours, mark)
                assert ours.format_timestamp(seconds, hours, mark) == expected
