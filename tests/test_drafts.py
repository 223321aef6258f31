"""A draft changes how many passes a decode takes, and nothing else."""

from __future__ import annotations

import itertools
import random

import pytest
import torch

from aii.audio.pcm import slin_to_float
from aii.decoding import DecodingOptions, decode_features
from aii.drafts import Draft
from aii.errors import InputError
from aii.mel import log_mel_spectrogram
from aii.resources import asset

BEGIN = 50364  # the first timestamp of the multilingual vocabulary


@pytest.fixture(scope="module")
def windows(embedded_model):
    """Encoded audio of a call's windows: each 2.5 s the buffer, that is cleared at 10 s."""
    samples = slin_to_float(asset("sample_call.slin").read_bytes())
    found = []
    for start in range(0, 400_000, 160_000):
        for length in (40_000, 80_000, 120_000, 160_000):
            mel = log_mel_spectrogram(samples[start : start + length], padding=16_000)
            with torch.no_grad():
                found.append(embedded_model.encoder(mel[None]))
    return found


def run(model, features, draft=None, **options):
    options = DecodingOptions(language="en", fp16=False, **options)
    return decode_features(model, features, options, draft=draft)[0]


def same(one, other) -> None:
    assert one.tokens == other.tokens
    assert one.text == other.text
    assert one.stopped == other.stopped
    assert one.avg_logprob == pytest.approx(other.avg_logprob, abs=1e-5)
    assert one.no_speech_prob == pytest.approx(other.no_speech_prob, abs=1e-6)


@pytest.mark.parametrize("text_only", [False, True])
def test_the_draft_of_the_window_before_changes_nothing(embedded_model, windows, text_only) -> None:
    plain_passes = passes = 0
    before: list[int] = []
    for features in windows:
        plain = run(embedded_model, features, without_timestamps=text_only)
        drafted = run(embedded_model, features, before, without_timestamps=text_only)
        same(drafted, plain)
        plain_passes, passes = plain_passes + plain.passes, passes + drafted.passes
        before = plain.tokens
    assert plain_passes > 10 * len(windows)
    assert passes < 0.65 * plain_passes


@pytest.mark.parametrize("text_only", [False, True])
def test_without_a_draft_the_text_before_and_the_transcript_itself_foretell(
    embedded_model, windows, text_only
) -> None:
    """A prompt that says it already, as at the second time in a call, and one that does not."""
    plain_passes = passes = told_passes = 0
    for features in windows[3::4]:
        plain = run(embedded_model, features, without_timestamps=text_only)
        same(alone := run(embedded_model, features, (), without_timestamps=text_only), plain)
        prompt = [token for token in plain.tokens if token < BEGIN]
        options = dict(without_timestamps=text_only, prompt=prompt)
        told = run(embedded_model, features, (), **options)
        again = run(embedded_model, features, **options)
        same(told, again)
        assert alone.passes <= plain.passes
        plain_passes, passes = plain_passes + again.passes, passes + alone.passes
        told_passes += told.passes
    assert told_passes < 0.9 * plain_passes


@pytest.mark.parametrize("text_only", [False, True])
def test_a_right_draft_takes_one_pass_and_a_wrong_one_no_more_than_none(
    embedded_model, windows, text_only
) -> None:
    chance = random.Random(1)
    for features in windows[3::4]:
        plain = run(embedded_model, features, without_timestamps=text_only)
        right = run(embedded_model, features, plain.tokens, without_timestamps=text_only)
        same(right, plain)
        assert right.passes == 1
        for draft in (
            [chance.randrange(51865) for _ in range(40)],
            [50257] * 10,
            list(range(BEGIN, BEGIN + 100)),
            [0] * 500,
        ):
            wrong = run(embedded_model, features, draft, without_timestamps=text_only)
            same(wrong, plain)
            assert wrong.passes <= plain.passes


@pytest.mark.parametrize("text_only", [False, True])
def test_a_draft_with_mistakes_costs_passes_by_their_number(
    embedded_model, windows, text_only
) -> None:
    chance = random.Random(2)
    bounded = 0
    for features in windows[3::4]:
        plain = run(embedded_model, features, without_timestamps=text_only)
        for kind in ("other", "missing", "extra", "later"):
            draft = list(plain.tokens)
            place = chance.randrange(2, len(draft) - 2)
            if kind == "other":
                draft[place] = 1000
            elif kind == "missing":
                del draft[place]
            elif kind == "extra":
                draft.insert(place, 1000)
            else:
                draft = [t + 1 if t >= BEGIN else t for t in draft]
            drafted = run(embedded_model, features, draft, without_timestamps=text_only)
            same(drafted, plain)
            times = sum(t >= BEGIN for t in plain.tokens)
            assert drafted.passes <= plain.passes
            pairs = list(itertools.pairwise(plain.tokens))
            if len(set(pairs)) == len(pairs):  # else it may find its way back at the wrong place
                assert drafted.passes <= (5 if kind != "later" else 2 + times)
                bounded += 1
    assert bounded


@pytest.mark.parametrize("seed", range(3))
def test_random_weights_and_random_drafts(tiny_model, seed) -> None:
    torch.manual_seed(seed)
    chance = random.Random(seed)
    with torch.no_grad():
        features = tiny_model.encoder(torch.randn(1, 80, 400))
    for text_only, most in itertools.product((False, True), (3, 30)):
        options = dict(without_timestamps=text_only, sample_len=most)
        plain = run(tiny_model, features, **options)
        for _ in range(6):
            draft = list(plain.tokens)
            for _ in range(chance.randrange(6)):
                place = chance.randrange(len(draft) + 1)
                draft[place : place + chance.randrange(3)] = [chance.randrange(51865)]
            drafted = run(tiny_model, features, draft, **options)
            same(drafted, plain)
            assert drafted.passes <= plain.passes


def test_the_end_of_the_text_context(tiny_model) -> None:
    """A draft that reaches beyond the last place is cut there."""
    with torch.no_grad():
        features = tiny_model.encoder(torch.randn(1, 80, 400))
    options = dict(prompt=list(range(1000, 1300)), without_timestamps=True, sample_len=400)
    plain = run(tiny_model, features, **options)
    assert plain.stopped == "limit"
    for draft in (plain.tokens, [*plain.tokens, 7, 8, 9], plain.tokens[:-1]):
        same(run(tiny_model, features, draft, **options), plain)


def test_beams_draws_and_batches_take_no_notice(tiny_model) -> None:
    with torch.no_grad():
        features = tiny_model.encoder(torch.randn(2, 80, 300))
    for options in (dict(beam_size=2), dict(temperature=0.5)):
        torch.manual_seed(3)
        plain = run(tiny_model, features[:1], sample_len=8, **options)
        torch.manual_seed(3)
        same(run(tiny_model, features[:1], [1, 2, 3], sample_len=8, **options), plain)
    options = DecodingOptions(language="en", fp16=False, sample_len=8)
    both = decode_features(tiny_model, features, options, draft=[1, 2])
    for one, other in zip(both, decode_features(tiny_model, features, options), strict=True):
        same(one, other)


def test_a_draft_of_foreign_tokens_is_refused(tiny_model) -> None:
    with torch.no_grad():
        features = tiny_model.encoder(torch.randn(1, 80, 300))
    with pytest.raises(InputError, match="token 51865 is not in the model's vocabulary"):
        run(tiny_model, features, [1, 51865])


# -- what is looked up where -------------------------------------------------------------------


def guesses(
    draft: list[int], transcript: list[int], room: int = 100, context: tuple[int, ...] = ()
) -> list[list[int]]:
    """What is guessed behind each beginning of a transcript, token by token."""
    follower = Draft(draft, BEGIN, context)
    return [follower.ahead(transcript[:i], room) for i in range(len(transcript) + 1)]


def test_all_of_it_while_it_is_right() -> None:
    assert guesses([1, 2, 3, 4], [1, 2, 3]) == [[1, 2, 3, 4], [2, 3], [3, 4], [4]]
    assert guesses([1, 2, 3], [1, 2, 3])[3] == []
    assert guesses([1, 2, 3], [], room=2) == [[1, 2]]
    assert guesses([1, 2, 3], [], room=-1) == [[]]
    assert guesses([], [5, 6]) == [[], [], []]


def test_a_word_in_place_of_another() -> None:
    draft = list(range(1, 20))
    found = guesses(draft, [1, 2, 99, 4, 5, 6])
    assert found[2] == [3, 4, 5, 6]  # the less fits, the less is guessed
    assert found[3] == [4, 5]  # found nowhere: one word took the place of another
    assert found[4] == [5, 6]
    assert found[5] == [6, 7, 8, 9]
    assert found[6] == draft[6:]  # three in a row: sure again


def test_a_missing_word_and_an_extra_one() -> None:
    draft = list(range(1, 20))
    assert guesses(draft, [1, 2, 4])[3] == [5, 6]
    assert guesses(draft, [1, 2, 4, 5, 6])[5] == draft[6:]
    assert guesses(draft, [1, 2, 88, 3])[4] == [4, 5]
    assert guesses(draft, [1, 2, 88, 3, 4, 5])[6] == draft[5:]


def test_the_longest_fit_wins_and_then_the_nearest() -> None:
    draft = [1, 2, 7, 8, 9, 3, 4, 5, 4, 6]
    assert guesses(draft, [1, 5, 4])[3] == [6]
    assert guesses(draft, [1, 2, 4])[3] == [5, 4]
    assert guesses([7, 1, 7, 2, 7, 3], [9, 9, 7])[3] == [2, 7]


def test_far_away_is_as_good_as_near() -> None:
    draft = list(range(1, 200))
    stray = [900, 901, 902, 903, 904]
    assert guesses(draft, [1, *stray, 150, 151, 152])[-1] == draft[152:]


def test_the_text_before_and_the_transcript_itself_are_looked_up() -> None:
    assert guesses([], [5, 6], context=(4, 5, 6, 7))[1:] == [[6, 7], [7]]
    assert guesses([5, 6, 9], [5, 6], context=(4, 5, 6, 7))[2] == [9]  # the draft before
    loop = guesses([], [5, 6, 5, 6, 5])
    assert loop[3] == [6, 5]
    assert loop[5] == [6, 5]
    assert guesses([], [5, 5])[2] == [5]


def test_times_that_moved_are_passed_over() -> None:
    a, b, c = BEGIN, BEGIN + 60, BEGIN + 100
    draft = [a, 1, 2, b, b, 3, c]
    found = guesses(draft, [a, 1, 2, b + 2, b + 2, 3])
    assert found[4] == [b + 2, 3, c]  # the next segment begins where this one ends
    assert found[5] == [3, c]
    assert found[6] == [c]
    assert guesses([a, 1, 2, b, b + 9, 3], [a, 1, 2, b + 2])[4] == [b + 9, 3]
