"""The benchmark of streaming quality in small: voices, the whole run, the report."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import streaming_quality, streaming_report
from benchmarks.espeak import Espeak
from benchmarks.spoken_calls import digit_calls


@pytest.fixture(scope="module")
def espeak() -> Espeak:
    try:
        return Espeak()
    except OSError as error:
        pytest.skip(str(error))


def test_espeak_says_where_its_words_are(espeak: Espeak) -> None:
    samples, said = espeak.say("seven,   and then eight", "en-us", speed=150)
    assert [word.text for word in said] == ["seven,", "and", "then", "eight"]
    times = [time for word in said for time in (word.start, word.end)]
    assert times == sorted(times)
    assert 0 <= times[0] < times[-1] <= len(samples) / espeak.rate
    pause = samples[int(said[0].end * espeak.rate) + 200 : int(said[1].start * espeak.rate) - 200]
    assert len(pause) > 1000
    assert np.abs(pause).max() < 0.05 * np.abs(samples).max()


def test_espeak_knows_its_voices(espeak: Espeak) -> None:
    with pytest.raises(ValueError, match="no voice"):
        espeak.say("one", "no-such-voice")


def test_calls_of_real_digits_depend_on_the_seed_alone(shared_data: Path) -> None:
    archive = shared_data / "fsdd_5speakers.tar.gz"
    if not archive.is_file():
        pytest.skip(f"{archive} is missing")
    (first,), (again,) = digit_calls(archive, 1, 4.0), digit_calls(archive, 1, 4.0)
    assert np.array_equal(first.samples, again.samples)
    assert first.words == again.words
    (stranger,) = digit_calls(archive, 1, 4.0, stranger=True)
    assert stranger.words != first.words
    for word in first.words:
        assert 0 < word.start < word.end < first.seconds


def test_the_whole_run_and_its_report(
    espeak: Espeak, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code = streaming_quality.main(
        ["--sets", "phrases", "--calls", "1", "--seconds", "3", "--no-rivals",
         "--cases", "window 5 s, vad"]
    )  # fmt: skip
    assert code == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert all({"benchmark", "case", "metric", "value", "unit"} <= set(line) for line in lines)
    told = {line["metric"] for line in lines if line.get("set") == "all"}
    assert {metric for _, metric, _ in streaming_report.COLUMNS} <= told
    page = tmp_path / "README.md"
    page.write_text(f"before\n{streaming_report.BEGIN}\nold\n{streaming_report.END}\nafter\n")
    streaming_report.write(lines, readme=page, plot=tmp_path / "plot.svg")
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "old" not in text
    assert "| window 5 s, vad |" in text
    assert "<svg" in (tmp_path / "plot.svg").read_text()


def test_a_report_needs_figures_and_a_place(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text("nothing here")
    with pytest.raises(ValueError, match="no figures"):
        streaming_report.write([], readme=page)


def test_without_data_nothing_is_played(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert streaming_quality.main(["--sets", "digits", "--data", str(tmp_path)]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert "say where it is with --data" in told.err
