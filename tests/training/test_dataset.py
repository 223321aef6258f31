from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from aii.tokenizer import get_tokenizer
from training.dataset import IGNORED, Batches, Labels, Stage
from training.sounds import KINDS, no_speech
from training.vocabulary import FULL, Vocabulary
from training.windows import (
    Composer,
    Recordings,
    Utterance,
    Window,
    change_speed,
    cut_off,
    join,
    join_words,
)


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return Vocabulary.of_grammar()


def full_numbers(vocabulary: Vocabulary, row: list[int]) -> list[int]:
    return [x if x == IGNORED else vocabulary.used[x] for x in row]


def sequence(
    vocabulary: Vocabulary, window: Window, stamps: bool, scale: float = 1.0
) -> tuple[list[int], list[int]]:
    """The first sequence without a prompt and with, or without, timestamps."""
    tokenizer, labels = get_tokenizer(True, language="en", task="transcribe"), Labels(vocabulary)
    for seed in range(100):
        made = labels.sequence(np.random.default_rng(seed), window, scale, [], 10)
        inputs = full_numbers(vocabulary, made[0])
        if (tokenizer.no_timestamps in inputs) != stamps:
            return inputs, full_numbers(vocabulary, made[1])
    raise AssertionError("no such sequence in 100")


def test_speech_is_labelled_with_times_scaled_by_the_hop(vocabulary: Vocabulary) -> None:
    t = get_tokenizer(True, language="en", task="transcribe")
    window = Window(np.zeros(100, np.float32), [(0.5, 1.5, "yes please"), (2.0, 3.0, "no")])
    inputs, targets = sequence(vocabulary, window, stamps=True, scale=2.0)
    stamp = [t.timestamp_begin + n for n in (50, 150, 200, 300)]
    words = [t.encode(" yes please"), t.encode(" no")]
    body = [stamp[0], *words[0], stamp[1], stamp[2], *words[1], stamp[3]]
    assert inputs == [t.sot, t.to_language_token("en"), t.transcribe, *body]
    assert targets == [*inputs[1:], t.eot]


def test_silence_is_labelled_no_speech_and_empty(vocabulary: Vocabulary) -> None:
    t = get_tokenizer(True, language="en", task="transcribe")
    window = Window(np.zeros(100, np.float32), [])
    inputs, targets = sequence(vocabulary, window, stamps=True)
    assert targets[:2] == [t.no_speech, IGNORED]
    assert targets[-1] == t.eot
    assert inputs[-1] == t.timestamp_begin
    inputs, targets = sequence(vocabulary, window, stamps=False)
    assert targets == [t.no_speech, IGNORED, IGNORED, t.eot]


def test_each_target_has_the_place_of_its_word(vocabulary: Vocabulary) -> None:
    window = Window(np.zeros(100, np.float32), [])
    marks = [(0, 8_000, "yes"), (8_000, 16_000, "xray"), (16_000, 24_000, "double two")]
    window.add(Utterance(np.zeros(24_000, np.float32), "yes xray double two", marks), 16_000)
    window.add(Utterance(np.zeros(8_000, np.float32), "no"), 48_000)
    tokens = get_tokenizer(True, language="en", task="transcribe").encode
    labels = Labels(vocabulary)
    kinds = set()
    for seed in range(40):
        rng = np.random.default_rng(seed)
        made = labels.sequence(rng, window, 0.5, ["my code is seven"], 12)
        assert len(made.inputs) == len(made.targets) == len(made.places)
        known = [(t, p) for t, p in zip(made.targets, made.places, strict=True) if p != (0, 0)]
        expected = [(25, 38)] * len(tokens(" yes")) + [(38, 50)] * len(tokens(" xray"))
        expected += [(50, 62)] * len(tokens(" double two"))
        assert [p for _, p in known] == expected
        spoken = [vocabulary.used[t] for t, _ in known]
        assert spoken == tokens(" yes xray double two")
        kinds.add(len(made.targets))
    assert len(kinds) > 2  # with and without times and prompts


def test_the_words_of_recordings_are_where_they_were_found(data_folder: Path) -> None:
    recordings = Recordings(data_folder)
    index = recordings.by_group["string"][0]
    assert recordings.utterance(index).marks == []
    recordings.entries[index]["ends"] = [3000, 6000, 11_200]
    speech = recordings.utterance(index)
    assert speech.marks == [(0, 3000, "one"), (3000, 6000, "two"), (6000, 11_200, "three")]
    fast = speech.faster(2.0)
    assert fast.marks[1] == (1500, 3000, "two")
    assert len(fast.samples) == len(speech.samples) // 2
    late = speech.without_start(100)
    assert late.marks[0] == (0, 2900, "one")
    assert len(late.samples) == len(speech.samples) - 100
    both = join(np.random.default_rng(0), [speech, fast], 0.2)
    assert both.text == "one two three one two three"
    assert both.marks[:3] == speech.marks
    apart = len(both.samples) - len(fast.samples)
    assert both.marks[3:] == [(apart + a, apart + b, text) for a, b, text in fast.marks]
    cuts = {cut_off(np.random.default_rng(seed), speech, end=True).text for seed in range(20)}
    assert cuts == {"one", "one two", "one two three"}


def test_windows_know_the_places_of_their_words(data_folder: Path) -> None:
    recordings = Recordings(data_folder)
    for entry in recordings.entries:
        words = entry["text"].split()
        ends = [entry["samples"] * (i + 1) // len(words) for i in range(len(words))]
        entry["ends"] = ends
    composer, placed = Composer(recordings), 0
    for seed in range(40):
        window = composer.window(np.random.default_rng(seed), 12.0)
        assert len(window.words) == len(window.segments)
        for (begin, end, text), words in zip(window.segments, window.words, strict=True):
            assert " ".join(word for _, _, word in words) == text
            assert begin <= words[0][0] < words[-1][1] <= end + 1e-6
            placed += 1
    assert placed > 60


def test_nothing_is_learned_on_prompts(vocabulary: Vocabulary) -> None:
    t = get_tokenizer(True, language="en", task="transcribe")
    window = Window(np.zeros(100, np.float32), [(0.0, 1.0, "yes")])
    labels, prompted = Labels(vocabulary), 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        inputs, targets, _ = labels.sequence(rng, window, 1.0, ["my code is seven"], 12)
        start = inputs.index(vocabulary.compact(t.sot))
        prompted += start > 0
        assert targets[:start] == [IGNORED] * start
        assert IGNORED not in targets[start:]
        if start:
            assert inputs[0] == vocabulary.compact(t.sot_prev)
    assert 5 < prompted < 30


def test_playing_faster_shortens() -> None:
    assert len(change_speed(np.zeros(1200, np.float32), 1.2)) == 1000


@pytest.mark.parametrize("stage", [Stage(1.6, 4), Stage(5.0, 3), Stage(28.0, 2, full=True)])
def test_a_batch_depends_on_its_number_alone(data_folder: Path, stage: Stage) -> None:
    batches = Batches(data_folder, lambda number, rng: stage, seed=3)
    threads = torch.get_num_threads()
    try:
        batches._prepare()
        batches.batch(0)
        mel, tokens, targets, places, _ = batches.batch(1)
        again = batches.batch(1)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(mel, again[0])
    assert torch.equal(tokens, again[1])
    assert torch.equal(targets, again[2])
    assert torch.equal(places, again[3])
    assert places.shape == (*targets.shape, 2)
    assert mel.shape[:2] == (stage.rows, 80)
    assert mel.shape[2] == 3000 if stage.full else 150 <= mel.shape[2] < 1500
    assert mel.shape[2] % 50 == 0
    assert tokens.shape == targets.shape
    assert int(tokens.max()) < Vocabulary.of_grammar().size


def test_the_compact_vocabulary_keeps_the_loss_of_the_full_one(vocabulary: Vocabulary) -> None:
    assert vocabulary.size < 2500
    embedding = torch.randn(vocabulary.size, 8, generator=torch.Generator().manual_seed(0))
    hidden = torch.randn(3, 8, generator=torch.Generator().manual_seed(1))
    full = (hidden @ vocabulary.expand(embedding).T).log_softmax(-1)
    compact = (hidden @ embedding.T + vocabulary.logit_bias()).log_softmax(-1)
    assert full.shape[1] == FULL
    for i in (0, 5, len(vocabulary.used) - 1):
        torch.testing.assert_close(full[:, vocabulary.used[i]], compact[:, i], atol=1e-3, rtol=0)


def test_unknown_tokens_share_a_row(vocabulary: Vocabulary) -> None:
    spare = next(n for n in range(FULL) if n not in set(vocabulary.used))
    assert vocabulary.compact(spare) == vocabulary.compact(-1) == vocabulary.size - 1


@pytest.mark.parametrize("kind", KINDS)
def test_sounds_without_speech(kind: str) -> None:
    sound = no_speech(np.random.default_rng(0), 8_000, kind)
    assert sound.shape == (8_000,)
    assert sound.dtype == np.float32
    peak = float(np.abs(sound).max())
    assert peak < 0.01 if kind == "silence" else peak == pytest.approx(0.7, abs=0.01)


def test_a_window_placed_later_has_later_times(data_folder: Path) -> None:
    stage = Stage(3.0, 4, far=1.0)
    batches = Batches(data_folder, lambda number, rng: stage, seed=3)
    batches._prepare()
    made = [batches.batch(i) for i in range(8)]
    vocabulary = Vocabulary.of_grammar()
    first = vocabulary.compact(50_364)
    offsets = [b.offset for b in made]
    assert max(offsets) > 300
    for b in made:
        times = b.targets[(b.targets > first) & (b.targets < len(vocabulary.used))] - first
        assert all(b.offset <= int(t) <= b.offset + b.mel.shape[2] // 2 + 1 for t in times)


@pytest.mark.parametrize("end", [True, False])
def test_a_cut_leaves_the_words_that_can_still_be_heard(end: bool) -> None:
    rng = np.random.default_rng(3)
    pieces = [np.full(1000, level, np.float32) for level in (0.1, 0.2, 0.3, 0.4)]
    speech = join_words(rng, pieces, ["a", "b", "c", "d"], 0.1)
    assert [text for _, _, text in speech.marks] == ["a", "b", "c", "d"]
    seen = set()
    for _ in range(200):
        cut = cut_off(rng, speech, end=end)
        assert cut.text == " ".join(text for _, _, text in cut.marks)
        words = "abcd" if end else "dcba"
        written = cut.text.replace(" ", "")
        assert words.startswith(written if end else written[::-1])
        assert 1 <= len(written) <= 4
        seen.add(len(written))
        for first, last, _ in cut.marks:
            assert 0 <= first < last <= len(cut.samples)
            assert last - first >= 850
        heard = 4 - len(written)
        missing = len(speech.samples) - len(cut.samples)
        assert missing >= 600 * (heard > 0)
    assert seen == {1, 2, 3, 4}


def test_what_has_no_known_words_is_not_cut() -> None:
    speech = Utterance(np.ones(500, np.float32), "hello there")
    assert cut_off(np.random.default_rng(0), speech, end=True) is speech


def test_windows_say_things_again(data_folder: Path) -> None:
    composer = Composer(Recordings(data_folder))
    repeated = 0
    for seed in range(60):
        window = composer.window(np.random.default_rng(seed), 20.0)
        texts = [text for _, _, text in window.segments if len(text.split()) > 1]
        repeated += len(set(texts)) < len(texts)
        for begin, end, _ in window.segments:
            assert 0.0 <= begin < end <= len(window.samples) / 16_000 + 1e-6
    assert repeated > 10
