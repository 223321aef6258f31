"""The parts of the menu benchmark; its figures are the model's and are not tested."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from aii.grammar import Grammar
from benchmarks import word_menus
from benchmarks.word_menus import MENUS, Clip, asked_for, noises, others, share
from training.grammar import Grammar as Domain
from training.sounds import KINDS

SPEAKERS = pytest.mark.skipif(
    shutil.which("espeak-ng") is None or shutil.which("flite") is None,
    reason="espeak-ng and flite are not installed",
)


def test_the_menus_are_of_the_model_s_words_and_can_be_asked():
    known = set(Domain().words())
    assert sorted(len(words) for words in MENUS.values()) == [3, 3, 6, 6, 12, 12]
    for words in MENUS.values():
        assert {part for word in words for part in word.split()} <= known
        assert all(Grammar.words(words).read(word) == word for word in words)


@SPEAKERS
def test_clips_say_a_word_of_the_menu_or_none_and_are_alike_each_time():
    """To the sample they are not: espeak-ng's breath comes by chance."""
    menus = {"weekdays": MENUS["weekdays"]}
    clips, again = (asked_for(menus, 1, 3) for _ in "ab")
    assert [clip.said for clip in clips] == list(MENUS["weekdays"])
    lengths = [[len(clip.samples) for clip in made] for made in (clips, again)]
    assert lengths[0] == pytest.approx(lengths[1], abs=1_600)
    assert len(set(lengths[0])) > 3  # and yet each voice has its own pace
    assert all(clip.samples.dtype == np.float32 for clip in clips)
    assert all(0.5 < len(clip.samples) / 16_000 < 4 for clip in clips)
    assert {clip.said for clip in others(menus, 4, 3)} == {None}


def test_what_is_no_speech_is_of_every_kind():
    clips = noises({"weekdays": MENUS["weekdays"]}, 2, 3)
    assert len(clips) == 2 * len(KINDS)
    assert len({clip.samples.tobytes() for clip in clips}) >= len(KINDS)


def test_shares():
    clip, none = Clip(np.zeros(1), "weekdays", "monday"), Clip(np.zeros(1), "weekdays", None)
    asked = [(clip, "monday"), (clip, "friday"), (clip, None), (clip, "monday")]
    assert (share(asked, "right"), share(asked, "wrong")) == (50.0, 25.0)
    assert share([(none, None), (none, "monday")], "false") == 50.0


@SPEAKERS
def test_it_runs(capsys):
    assert word_menus.main(["--quick"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {line["benchmark"] for line in lines} == {"word_menus"}
    assert {line["metric"] for line in lines} == {"right", "wrong", "false answers"}
    assert all(0 <= line["value"] <= 100 and line["clips"] > 0 for line in lines)
    assert {line["rival"] for line in lines if "ratio" in line} <= {"open"}
