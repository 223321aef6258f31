"""The endpointer, step by step and to the sample."""

from __future__ import annotations

import random
import subprocess
import sys
from importlib.util import find_spec

import pytest

from aii.audio.vad import STEP
from aii.errors import ConfigError
from aii.streaming.endpointing import (
    Endpointer,
    EndpointSettings,
    Mark,
    NoSpeech,
    SpeechEnd,
    SpeechStart,
)

MS = 16  # samples


def settings(**changes) -> EndpointSettings:
    return EndpointSettings(**{"no_speech": 0.0, **changes})


def run(probabilities, chosen: EndpointSettings | None = None, *, end: bool = True) -> list[Mark]:
    endpointer = Endpointer(chosen or settings())
    marks = [mark for p in probabilities for mark in endpointer.step(p)]
    return marks + (endpointer.end() if end else [])


def test_an_utterance_is_backdated_padded_and_ended_after_the_silence() -> None:
    """10 silent steps, 20 spoken, then silence: 500 ms are 16 steps."""
    marks = run([0.0] * 10 + [0.9] * 20 + [0.1] * 40)
    assert marks == [
        SpeechStart(10 * STEP - 100 * MS, 11 * STEP),
        SpeechEnd(30 * STEP + 100 * MS, 46 * STEP, "silence"),
    ]


def test_speech_at_the_start_of_the_call_begins_with_it() -> None:
    assert run([0.9] * 3)[0] == SpeechStart(0, STEP)


@pytest.mark.parametrize("p, starts", [(0.499, 0), (0.5, 1)])
def test_the_threshold_itself_is_speech(p: float, starts: int) -> None:
    assert len(run([0.0, p, 0.0], end=False)) == starts


def test_between_release_and_threshold_nothing_begins() -> None:
    assert run([0.49] * 100) == []


def test_between_release_and_threshold_no_silence_begins() -> None:
    assert run([0.9] + [0.4] * 100, end=False) == [SpeechStart(0, STEP)]


def test_between_release_and_threshold_a_silence_goes_on_but_does_not_end_the_utterance() -> None:
    silent = [0.9, 0.1] + [0.4] * 30
    assert len(run(silent, end=False)) == 1
    assert run([*silent, 0.1])[1] == SpeechEnd(STEP + 100 * MS, 33 * STEP, "silence")


def test_a_pause_shorter_than_the_silence_ends_nothing() -> None:
    pause = [0.0] * 15  # 480 ms
    assert run([0.9] * 5 + pause + [0.9] * 5 + pause + [0.9], end=False) == [SpeechStart(0, STEP)]


def test_the_silence_counts_from_its_last_beginning() -> None:
    marks = run([0.9] + [0.0] * 15 + [0.9] + [0.0] * 16)
    assert marks[1] == SpeechEnd(17 * STEP + 100 * MS, 33 * STEP, "silence")


def test_an_utterance_is_not_backdated_into_the_one_before() -> None:
    chosen = settings(min_silence=0.064, padding=0.05, backdate=1.0)
    marks = run([0.9] * 2 + [0.0] * 2 + [0.9] * 2, chosen, end=False)
    assert marks == [
        SpeechStart(0, STEP),
        SpeechEnd(2 * STEP + 50 * MS, 4 * STEP, "silence"),
        SpeechStart(2 * STEP + 50 * MS, 5 * STEP),
    ]


def test_padding_ends_where_the_judged_audio_ends() -> None:
    marks = run([0.9, 0.0], settings(min_silence=0.0, padding=1.0))
    assert marks[1] == SpeechEnd(2 * STEP, 2 * STEP, "silence")


def test_no_keeping_keeps_nothing() -> None:
    endpointer = Endpointer(settings(keep=0.0))
    for step in range(1, 9):
        endpointer.step(0.0)
        assert endpointer.keep_from == endpointer.position == step * STEP
    assert endpointer.step(0.9) == [SpeechStart(8 * STEP, 9 * STEP)]


def test_what_is_kept_ends_with_the_utterance_before_and_lasts_for_the_backdating() -> None:
    endpointer = Endpointer(settings(keep=0.25, backdate=1.0))
    for _ in range(20):
        endpointer.step(0.0)
    assert endpointer.keep_from == 20 * STEP - 250 * MS
    assert endpointer.step(1.0) == [SpeechStart(20 * STEP - 250 * MS, 21 * STEP)]
    assert endpointer.keep_from == 20 * STEP - 250 * MS
    while not (marks := endpointer.step(0.0)):
        pass
    assert endpointer.keep_from >= marks[0].at


@pytest.mark.parametrize("least, bursts", [(0.032, 1), (0.033, 2), (0.064, 2), (0.1, 4)])
def test_shorter_bursts_begin_nothing(least: float, bursts: int) -> None:
    chosen = settings(min_speech=least)
    assert run([0.0] * 9 + [0.9] * (bursts - 1) + [0.0] * 40, chosen) == []
    marks = run([0.0] * 9 + [0.9] * bursts, chosen, end=False)
    assert marks == [SpeechStart(9 * STEP - 100 * MS, (9 + bursts) * STEP)]


def test_a_burst_may_waver_above_the_release() -> None:
    chosen = settings(min_speech=0.096)
    assert run([0.0, 0.9, 0.4, 0.4], chosen, end=False) == [SpeechStart(0, 4 * STEP)]
    assert run([0.0, 0.9, 0.3, 0.9, 0.9], chosen, end=False) == []


def test_nobody_speaks_is_told_once_per_silence() -> None:
    chosen = settings(no_speech=1.0)
    marks = run([0.0] * 100 + [0.9] + [0.0] * 100, chosen)
    assert marks == [
        NoSpeech(0, 32 * STEP),
        SpeechStart(100 * STEP - 100 * MS, 101 * STEP),
        SpeechEnd(101 * STEP + 100 * MS, 117 * STEP, "silence"),
        NoSpeech(101 * STEP + 100 * MS, 136 * STEP),
    ]
    assert marks[3].at - marks[3].start >= 16_000 > marks[3].at - STEP - marks[3].start


def test_an_utterance_too_long_is_cut_where_it_is_quietest_and_goes_on() -> None:
    chosen = settings(longest=2.0, cut_back=0.5)
    levels = [0.9] * 55 + [0.6] + [0.9] * 40
    marks = run(levels, chosen)
    cut = 55 * STEP + STEP // 2
    assert marks[:3] == [
        SpeechStart(0, STEP),
        SpeechEnd(cut, 63 * STEP, "longest"),
        SpeechStart(cut, 63 * STEP),
    ]
    assert marks[3:] == [SpeechEnd(96 * STEP, 96 * STEP, "end")]


def test_a_quiet_step_longer_ago_is_no_place_to_cut() -> None:
    marks = run([0.9] * 20 + [0.5] + [0.9] * 50, settings(longest=2.0, cut_back=0.5), end=False)
    assert marks[1].at >= 63 * STEP - 500 * MS - STEP


def test_an_utterance_that_hovers_is_ended_as_silence() -> None:
    """One step below the release, then for ever between it and the threshold."""
    marks = run([0.9, 0.1] + [0.4] * 100, settings(longest=2.0, cut_back=0.5))
    assert marks == [
        SpeechStart(0, STEP),
        SpeechEnd(STEP + 100 * MS, 63 * STEP, "silence"),
    ]


def test_the_end_of_the_call_ends_the_utterance_at_its_last_sample() -> None:
    endpointer = Endpointer(settings())
    endpointer.step(0.9)
    endpointer.step(0.9, 100)
    assert endpointer.end() == [SpeechEnd(STEP + 100, STEP + 100, "end")]
    assert endpointer.end() == []


def test_the_end_of_the_call_in_a_pause_keeps_the_padding_only() -> None:
    assert run([0.9] + [0.0] * 10)[1] == SpeechEnd(STEP + 100 * MS, 11 * STEP, "end")


@pytest.mark.parametrize("seed", range(40))
def test_marks_are_in_order_and_fit_each_other(seed: int) -> None:
    """Whatever comes: start, end, start, end; nothing overlaps; nothing precedes what is kept."""
    chance = random.Random(seed)
    chosen = settings(
        min_silence=chance.choice([0.0, 0.05, 0.5]),
        min_speech=chance.choice([0.0, 0.1]),
        backdate=chance.choice([0.0, 0.1, 3.0]),
        padding=chance.choice([0.0, 0.1, 3.0]),
        keep=chance.choice([0.0, 0.2, 1.0]),
        no_speech=chance.choice([0.0, 0.5]),
        longest=chance.choice([0.0, 2.0]),
        cut_back=chance.choice([0.0, 0.5]),
    )
    endpointer, open_since, last, level = Endpointer(chosen), None, 0, 0.0
    for _ in range(1500):
        level = min(max(level + chance.uniform(-0.3, 0.3), 0.0), 1.0)
        kept = endpointer.keep_from
        for mark in endpointer.step(level):
            assert kept <= mark.at <= endpointer.position
            if isinstance(mark, SpeechStart):
                assert open_since is None
                assert mark.at >= last
                open_since = last = mark.at
            elif isinstance(mark, SpeechEnd):
                assert open_since is not None
                assert mark.at >= last
                open_since, last = None, mark.at
            else:
                assert open_since is None
        assert endpointer.speaking == (open_since is not None)
        assert kept <= endpointer.keep_from <= endpointer.position
        if chosen.longest and endpointer.speaking:
            assert endpointer.position - endpointer.keep_from < 32_000 + STEP


@pytest.mark.parametrize(
    "bad",
    [
        {"threshold": 0.0},
        {"threshold": 1.0},
        {"release": 0.6},
        {"release": 0.0},
        {"min_silence": -0.1},
        {"padding": float("nan")},
        {"keep": 61.0},
        {"no_speech": -1.0},
        {"longest": 1.0},
    ],
    ids=str,
)
def test_settings_that_cannot_be(bad: dict[str, float]) -> None:
    with pytest.raises(ConfigError) as caught:
        EndpointSettings(**bad)
    assert len(str(caught.value).splitlines()) == 1


REFERENCE = """
import json, sys, torch
from silero_vad.utils_vad import VADIterator
class Told:
    def __init__(self, levels): self.levels = iter(levels)
    def reset_states(self): pass
    def __call__(self, x, rate): return torch.tensor(next(self.levels))
for levels in json.load(sys.stdin):
    it = VADIterator(Told(levels), min_silence_duration_ms=468, speech_pad_ms=100)
    print(json.dumps([found for _ in levels if (found := it(torch.zeros(512)))]))
"""


@pytest.mark.skipif(find_spec("silero_vad") is None, reason="the extra vad is not installed")
def test_the_rules_are_those_of_silero() -> None:
    """Its own iterator, in a process of its own, over random probabilities. It counts the silence
    from the end of the first silent step: 500 ms here are 468 ms there."""
    import json

    chance, calls = random.Random(5), []
    for _ in range(30):
        level, levels = 0.5, []
        for _ in range(400):
            level = min(max(level + chance.uniform(-0.25, 0.25), 0.0), 1.0)
            levels.append(level)
        calls.append(levels)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", REFERENCE],
        input=json.dumps(calls), capture_output=True, text=True, check=True,
    )  # fmt: skip
    theirs = [json.loads(line) for line in done.stdout.splitlines()]
    # Theirs may begin before the end of the utterance before; ours never does.
    chosen = settings(backdate=0.1, padding=0.1, longest=0.0, keep=60.0)
    assert sum(map(len, theirs)) > 100
    for levels, wanted in zip(calls, theirs, strict=True):
        ours, last = [], 0
        for mark in run(levels, chosen, end=False):
            ours.append({("start" if isinstance(mark, SpeechStart) else "end"): mark.at})
        for mark in wanted:
            key = next(iter(mark))
            mark[key] = last = max(mark[key], last)
        assert ours == wanted
