from __future__ import annotations

from dataclasses import replace

import pytest

from aii.streaming.guards import (
    LIMIT,
    GuardSettings,
    bare,
    find_loop,
    guard,
    periodic_tail,
    word_ends,
)
from aii.types import Hypothesis, Segment, Word

ON = GuardSettings()
OFF = GuardSettings(no_speech=None, compression=None, rate=None, loop=False)


def heard(*texts: str, **fields) -> Hypothesis:
    """A hypothesis of segments of one second per word, with word times."""
    segments, time = [], 0.0
    for text in texts:
        words = []
        for word in text.split():
            words.append(Word(" " + word, time, time + 1.0))
            time += 1.0
        start = words[0].start if words else time
        segments.append(Segment(start, time, text, (1, 2, 3), tuple(words)))
    return Hypothesis(1, segments=tuple(segments), **fields)


def test_a_word_eight_times_is_a_loop_and_seven_times_is_not():
    assert find_loop(["no"] * 7, ON) is None
    assert find_loop(["oh", *["no"] * 8], ON) == 2
    assert find_loop(["oh", *["no"] * 30, "well"], ON) == 2


@pytest.mark.parametrize("size, times", [(2, 6), (3, 4), (4, 3), (5, 3), (8, 3)])
def test_runs_of_words_are_loops_from_twelve_words_on(size, times):
    run = [f"a{i}" for i in range(size)]
    assert find_loop(["so", *run * times], ON) == 1 + size
    assert find_loop(["so", *run * (times - 1), *run[:-1]], ON) is None


def test_nine_words_over_and_over_are_no_loop_that_is_looked_for():
    assert find_loop([f"a{i}" for i in range(9)] * 4, ON) is None


def test_the_earliest_loop_counts():
    words = [*["a", "b", "c", "d"] * 3, *["no"] * 8]
    assert find_loop(words, ON) == 4


def test_case_and_punctuation_make_no_difference():
    assert find_loop(["No,", "no", "NO!", "no.", "no", "no", "no", "no"], ON) == 1
    assert bare(" It's") == "its"
    assert bare(" ...") == "..."


def test_real_repetitions_pass():
    said = "four four seven one four four seven one nine nine nine".split()
    assert find_loop(said, ON) is None


def test_a_loop_ends_the_answer_after_its_first_occurrence():
    result = guard(heard(" so we", " go go go go go", " go go go go now"), ON)
    assert "".join(s.text for s in result.segments) == " so we go"
    assert result.segments[-1].words == (Word(" go", 2.0, 3.0),)
    assert result.segments[-1].tokens == ()  # a loop is no prompt
    assert (result.looped, result.end) == (True, 3.0)
    assert result.removed == ("loop: go go go go go go go go now",)


def test_a_loop_at_a_segments_end_keeps_the_segment_as_it_is():
    result = guard(heard(" so go", " go go go go go go go"), ON)
    assert result.segments == heard(" so go").segments
    assert result.end == 2.0


def test_a_cut_without_word_times_is_in_proportion():
    hypothesis = heard(" go go go go go go go go go go")
    bare_segment = replace(hypothesis.segments[0], words=())
    result = guard(replace(hypothesis, segments=(bare_segment,)), ON)
    assert result.segments[0].text == " go"
    assert result.end == pytest.approx(1.0)


def test_unconvincing_text_in_silence_goes_and_is_named():
    silent = heard(" thank you", no_speech_prob=0.7, avg_logprob=-1.1)
    result = guard(silent, ON)
    assert (result.segments, result.removed) == ((), ("no-speech: thank you",))
    assert guard(silent, replace(ON, no_speech=None)).segments == silent.segments
    for fields in ({"no_speech_prob": 0.5}, {"avg_logprob": -0.9}):
        assert guard(replace(silent, **fields), ON).segments == silent.segments


def test_text_that_the_engine_dropped_as_silence_is_named_too():
    assert guard(Hypothesis(1), ON, text=" you ").removed == ("no-speech: you",)
    assert guard(Hypothesis(1), ON, text="  ").removed == ()


def test_what_the_engine_removed_is_passed_on():
    assert guard(heard(" a", removed=("x: y",)), ON).removed == ("x: y",)


def test_a_noise_without_words_is_cut_where_it_repeats():
    noise = heard(" well hahahahahahahahahahahahahaha", compression_ratio=2.5)
    result = guard(noise, ON)
    assert result.segments[0].text == " well ha"
    assert result.looped
    assert result.removed == ("compression: hahahahahahahahahahahahaha",)
    assert not guard(replace(noise, compression_ratio=2.3), ON).removed
    assert not guard(noise, replace(ON, compression=None)).removed


def test_text_that_compresses_well_but_does_not_repeat_itself_stays():
    digits = heard(" one two one three two one two three three one", compression_ratio=9.0)
    assert guard(digits, ON).segments == digits.segments


def test_a_full_cap_of_tokens_is_told():
    assert guard(heard(" a", stopped="limit"), ON).removed == (LIMIT,)
    assert guard(heard(" a", stopped="limit"), replace(ON, rate=None)).removed == ()


def test_all_guards_can_be_switched_off():
    loop = heard(" go" * 20, no_speech_prob=1.0, avg_logprob=-9.0, compression_ratio=9.0)
    assert guard(loop, OFF).segments == loop.segments
    assert OFF.options(1.0) == {
        "no_speech_threshold": None,
        "logprob_threshold": -1.0,
        "compression_ratio_threshold": None,
    }


def test_the_cap_of_tokens_grows_with_the_audio():
    assert [ON.cap(seconds) for seconds in (0.1, 2.0, 4.0, 9.0, 30.0)] == [50, 50, 90, 203, 224]
    assert ON.options(4.0)["sample_len"] == 90
    assert "sample_len" not in ON.options(30.0)
    assert OFF.cap(0.1) == 224


def test_a_report_is_one_line_and_not_endless():
    long = heard(" a\nb" * 300, no_speech_prob=1.0, avg_logprob=-9.0)
    (line,) = guard(long, ON).removed
    assert "\n" not in line
    assert len(line) < 250


@pytest.mark.parametrize(
    "text, kept",
    [
        ("hahaha", "ha"),
        ("so hahahaha", "so ha"),
        ("你好你好你好你好", "你好"),
        ("abcabcabcab", "abc"),
        ("haha", None),
        ("a long beginning before aaa", None),
        ("abcdef", None),
        ("", None),
    ],
)
def test_periodic_tails(text, kept):
    found = periodic_tail(text)
    assert (None if found is None else text[:found]) == kept


def test_words_end_before_the_space_of_the_next():
    assert word_ends(" a bc  d ") == [2, 5, 8, 9]
    assert word_ends("   ") == []
