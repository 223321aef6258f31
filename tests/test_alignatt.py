"""AlignAtt against its definition, written out without cache, search or steps."""

from __future__ import annotations

import pytest
import torch

from aii.alignatt import RESERVE, Aligned, Attended, aligned_steps
from aii.attention import AttentionRecorder
from aii.audio.pcm import slin_to_float
from aii.batch import run_alone
from aii.decoding import DecodingOptions
from aii.errors import InputError
from aii.mel import log_mel_spectrogram
from aii.resources import asset
from aii.steps import KEPT_ATTENTION, Attach
from aii.timing import median_filter
from aii.tokenizer import get_tokenizer
from aii.types import AttentionStop

TOKENIZER = get_tokenizer(True, language="en", task="transcribe")
SOT = [*TOKENIZER.sot_sequence, TOKENIZER.no_timestamps]
FOR_EVER = AttentionStop(threshold=-1, rewind=None, max_tokens=30)


def heard(model, features, stop, *, frames, static=(), context=(), **options) -> Aligned:
    options = DecodingOptions(**{"language": "en", "fp16": False, **options})

    def steps():
        yield Attach(features)
        return (
            yield from aligned_steps(
                model, options, stop, frames=frames, static=static, context=context
            )
        )

    return run_alone(model, steps())


# -- the slow twin ----------------------------------------------------------------------------


@torch.no_grad()
def look(model, features, tokens: list[int], frames: int) -> tuple[torch.Tensor, int]:
    """Log-probabilities behind ``tokens`` after the rules that always hold, and the frame."""
    recorder = AttentionRecorder()
    logits = model.decoder(torch.tensor([tokens]), features, recorder=recorder)[0, -1]
    scores = recorder.heads(model.alignment_heads)[0, :, -KEPT_ATTENTION:]
    weights = scores.softmax(dim=-1)
    std, mean = torch.std_mean(weights, dim=-2, keepdim=True, unbiased=False)
    matrix = median_filter((weights - mean) / std, 7).mean(dim=0)
    logits[[*TOKENIZER.non_speech_tokens, *range(50258, 51865)]] = -torch.inf
    return logits, int(matrix[-1, :frames].argmax())


def slowly(model, features, stop, *, frames, initial, size=1):
    """(tokens, frames, why): ``size`` beams, each read anew from its beginning at every token."""
    beams = [([], [], 0.0)]
    finished = []
    for _ in range(stop.max_tokens):
        grown = []
        for tokens, places, total in beams:
            logits, place = look(model, features, [*initial, *tokens], frames)
            if not tokens:
                logits[[*TOKENIZER.encode(" "), TOKENIZER.eot]] = -torch.inf
            best, ids = logits.log_softmax(dim=-1).topk(size + 1)
            for more, token in zip(best.tolist(), ids.tolist(), strict=True):
                grown.append(([*tokens, token], [*places, place], total + more))
        grown.sort(key=lambda beam: beam[2], reverse=True)
        beams, ended = [], []
        for beam in grown:
            if beam[0][-1] == TOKENIZER.eot:
                ended.append((beam[0][:-1], beam[1][:-1], beam[2]))
                continue
            beams.append(beam)
            if len(beams) == size:
                break
        finished += ended[: size - len(finished)]
        if len(finished) == size:
            return best_of(finished, "end", finished)
        tokens, places, total = beams[0]
        before = places[-2] if len(places) > 1 else stop.last_frame
        if stop.rewind is not None and before - places[-1] > stop.rewind:
            return [], [], {"rewind"}
        if frames - places[-1] <= stop.threshold:
            logits, _ = look(model, features, [*initial, *tokens[:-1]], frames)
            if len(tokens) == 1:
                logits[[*TOKENIZER.encode(" "), TOKENIZER.eot]] = -torch.inf
            less = total - float(logits.log_softmax(dim=-1)[tokens[-1]])
            cut = (tokens[:-1], places[:-1], less)
            return best_of([*finished, cut], "attention", finished)
    return best_of([*finished, beams[0]], "limit", finished)


def best_of(beams, why, finished):
    """The best beam; where a finished one says the same, it may as well be that one."""
    best = max(beams, key=lambda beam: beam[2] / max(len(beam[0]), 1))
    reasons = {"end" if best in finished else why}
    if any(beam[0] == best[0] for beam in finished):
        reasons.add("end")
    return best[0], best[1], reasons


def check(found: Aligned, expected) -> None:
    tokens, frames, reasons = expected
    assert [token.id for token in found.tokens] == tokens
    assert [token.frame for token in found.tokens] == frames
    assert found.stopped in reasons


# -- tests ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def call(embedded_model):
    """Encoded beginnings of a call, with the number of frames that are audio."""
    samples = slin_to_float(asset("sample_call.slin").read_bytes())
    found = []
    for seconds in (0.4, 1.0, 2.4, 3.1, 4.3, 6.0):
        piece = samples[: round(seconds * 16000)]
        with torch.no_grad():
            features = embedded_model.encoder(log_mel_spectrogram(piece, padding=16_000)[None])
        found.append((features, len(piece) // 320))
    return found


@pytest.mark.parametrize("size", [1, 3])
def test_as_defined_on_a_call_that_grows(embedded_model, call, size) -> None:
    options = {} if size == 1 else {"beam_size": size}
    prefix: list[int] = []
    last, reasons = 0, set()
    for features, frames in call:
        stop = AttentionStop(threshold=25, last_frame=last, max_tokens=60)
        found = heard(
            embedded_model, features, stop, frames=frames, prefix=prefix or None, **options
        )
        check(
            found,
            slowly(
                embedded_model, features, stop, frames=frames, initial=[*SOT, *prefix], size=size
            ),
        )
        reasons.add(found.stopped)
        kept = found.tokens[:-1]  # as a policy that holds the last word back
        prefix += [token.id for token in kept]
        last = kept[-1].frame if kept else last
        assert all(token.frame < frames - 25 for token in found.tokens)
    assert prefix
    assert "attention" in reasons


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("threshold", [-1, 25, 100])
def test_as_defined_on_random_weights(tiny_model, size, threshold) -> None:
    torch.manual_seed(size)
    options = {} if size == 1 else {"beam_size": size}
    with torch.no_grad():
        features = tiny_model.encoder(torch.randn(1, 80, 500))
    for frames in (40, 180, 250):
        stop = AttentionStop(threshold=threshold, last_frame=0, max_tokens=9)
        found = heard(tiny_model, features, stop, frames=frames, **options)
        check(found, slowly(tiny_model, features, stop, frames=frames, initial=SOT, size=size))


def test_log_probabilities_and_passes(tiny_model) -> None:
    with torch.no_grad():
        features = tiny_model.encoder(torch.randn(1, 80, 500))
    found = heard(tiny_model, features, FOR_EVER, frames=250)
    initial, total = list(SOT), 0.0
    for number, token in enumerate(found.tokens):
        logits, _ = look(tiny_model, features, initial, 250)
        if number == 0:
            logits[[*TOKENIZER.encode(" "), TOKENIZER.eot]] = -torch.inf
        expected = float(logits.log_softmax(dim=-1)[token.id])
        assert token.logprob == pytest.approx(expected, abs=1e-4)
        initial.append(token.id)
        total += expected
    assert (len(found.tokens), found.passes, found.stopped) == (30, 30, "limit")
    assert found.avg_logprob == pytest.approx(total / 31, abs=1e-4)
    beams = heard(tiny_model, features, FOR_EVER, frames=250, beam_size=3)
    assert sum(t.logprob for t in beams.tokens) >= total - 1e-3


class Scripted:
    """A model's stand-in for ``Attended``: the frames that tokens come from, in turn."""

    def __init__(self, monkeypatch, frames: list[int]) -> None:
        self.left = list(frames)
        monkeypatch.setattr("aii.alignatt.Attended.places", lambda _: [self._next()])

    def _next(self) -> tuple[int, tuple[int, int]]:
        frame = self.left.pop(0)
        return frame, (frame, frame)


def test_going_back_too_far_throws_the_update_away(tiny_model, monkeypatch) -> None:
    with torch.no_grad():
        features = tiny_model.encoder(torch.randn(1, 80, 3000))

    def run(frames, **fields) -> Aligned:
        Scripted(monkeypatch, frames)
        return heard(tiny_model, features, AttentionStop(**fields), frames=1500)

    back = run([900, 950, 700], last_frame=800)
    assert (back.tokens, back.stopped) == ((), "rewind")
    assert run([599], last_frame=800).stopped == "rewind"
    assert run([600, 400, 1475], last_frame=800).stopped == "attention"
    kept = run([599, 1490, 1496], last_frame=800, rewind=None, threshold=4)
    assert [token.frame for token in kept.tokens] == [599, 1490]
    assert kept.stopped == "attention"
    assert run([1475], last_frame=0).tokens == ()
    assert len(run([1474, 1474, 1475], last_frame=0).tokens) == 2


def test_text_ends_where_it_begins_to_say_something_again(tiny_model, monkeypatch) -> None:
    with torch.no_grad():
        features = tiny_model.encoder(torch.randn(1, 80, 3000))

    def run(frames, back=17, **fields) -> Aligned:
        Scripted(monkeypatch, frames)
        monkeypatch.setattr(tiny_model, "metadata", {"attention_back": back} if back else {})
        stop = AttentionStop(**{"repeats": True, "max_tokens": 4, **fields})
        return heard(tiny_model, features, stop, frames=1500)

    found = run([900, 950, 932, 980])
    assert (found.stopped, [token.frame for token in found.tokens]) == ("repeat", [900, 950])
    assert found.dropped is not None
    assert found.dropped.frame == 932
    assert run([900, 950, 933, 980]).stopped == "limit"
    assert run([900, 950, 932, 980], repeats=False).stopped == "limit"
    assert run([900, 950, 932, 980], back=None).stopped == "limit"
    assert run([780], last_frame=800).tokens == ()
    assert run([780], last_frame=800).stopped == "repeat"


def test_no_finished_hypothesis_loses_a_token(embedded_model, call) -> None:
    """Where the best beam has ended, what it says stays whole however near the end it looks."""
    features, frames = call[-1]
    for size in (None, 4):
        free = heard(embedded_model, features, FOR_EVER, frames=frames, beam_size=size)
        assert free.stopped == "end"
        assert len(free.tokens) > 3
        last = AttentionStop(threshold=0, rewind=None, max_tokens=60)
        assert heard(embedded_model, features, last, frames=frames, beam_size=size) == free


def test_the_emitted_is_forced_and_not_repeated(embedded_model, call) -> None:
    features, frames = call[-1]
    whole = heard(embedded_model, features, FOR_EVER, frames=frames)
    ids = [token.id for token in whole.tokens]
    rest = heard(embedded_model, features, FOR_EVER, frames=frames, prefix=ids[:3])
    assert [token.id for token in rest.tokens] == ids[3:]
    assert rest.passes == whole.passes - 3
    assert rest.no_speech_prob == pytest.approx(whole.no_speech_prob, abs=1e-6)


def test_context_is_cut_by_whole_words_and_the_static_prompt_never(tiny_model) -> None:
    with torch.no_grad():
        features = tiny_model.encoder(torch.randn(1, 80, 300))
    static = TOKENIZER.encode(" Names: Przybylski.")
    text = TOKENIZER.encode(" extraordinarily unbelievable Przybylski" * 80)
    stop = AttentionStop(threshold=-1, rewind=None, max_tokens=1000)
    found = heard(tiny_model, features, stop, frames=150, static=static, context=text)
    room = 448 - RESERVE - len(SOT) - 1 - len(static)
    cuts = [n for n in range(len(text)) if len(text) - n <= room]
    word = next(n for n in cuts if TOKENIZER.decode([text[n]]).startswith(" "))
    initial = [TOKENIZER.sot_prev, *static, *text[word:], *SOT]
    expected = slowly(
        tiny_model, features, AttentionStop(-1, 0, None, 3), frames=150, initial=initial
    )
    assert [token.id for token in found.tokens[:3]] == expected[0]
    assert len(found.tokens) == 448 - len(initial)
    with pytest.raises(InputError, match="drop the oldest audio"):
        heard(tiny_model, features, stop, frames=150, prefix=[1000] * 430)


def test_language_is_found_where_none_is_given(tiny_model) -> None:
    with torch.no_grad():
        features = tiny_model.encoder(torch.randn(1, 80, 300))
    found = heard(tiny_model, features, FOR_EVER, frames=150, language=None)
    named = heard(tiny_model, features, FOR_EVER, frames=150, language=found.language)
    assert found.tokens == named.tokens


def test_attention_is_kept_for_the_last_tokens_only() -> None:
    scores = torch.randn(2, 3, 50, 40)
    at_once, one_by_one = Attended(30), Attended(30)
    at_once.add(scores)
    for i in range(50):
        one_by_one.add(scores[:, :, i : i + 1])
    assert at_once.places() == one_by_one.places()
    last = Attended(30)
    last.add(scores[:, :, -KEPT_ATTENTION:])
    assert last.places() == at_once.places()
    assert last._weights.shape == one_by_one._weights.shape == (2, 3, KEPT_ATTENTION, 40)


def test_rows_take_their_attention_along() -> None:
    scores = torch.randn(1, 2, 5, 40)
    beams, alone = Attended(40), Attended(40)
    beams.add(scores, copies=3)
    alone.add(scores)
    new = torch.randn(3, 2, 1, 40)
    beams.add(new, sources=[2, 0, 0])
    assert beams._weights.shape == (3, 2, 6, 40)
    for row in range(3):
        twin = Attended(40)
        twin.add(scores)
        twin.add(new[row : row + 1])
        assert beams.places()[row] == twin.places()[0]


def test_a_token_has_a_span_that_begins_where_it_is_seen_more_than_the_one_before() -> None:
    def seen(*stretches: tuple[int, int, float]) -> torch.Tensor:
        scores = torch.full((1, 1, 1, 100), -9.0)
        for first, last, height in stretches:
            scores[..., first:last] = height
        return scores

    attended = Attended(90)
    attended.add(seen((10, 30, 0.0)))
    attended.add(seen((30, 60, 0.0)))
    (place, span), *none = attended.places()
    assert none == []
    assert 30 <= place < 60
    assert span == (30, 59)
    attended.add(seen((40, 60, 0.0), (60, 80, 1.0)))  # looks back, but less than the one before
    ((place, span),) = attended.places()
    assert 60 <= place < 80
    assert span == (60, 79)
    attended.add(seen((80, 100, 0.0)))  # what is behind the audio does not count
    assert attended.places()[0][1] == (80, 89)


def test_frames_that_every_token_sees_alike_are_never_taken() -> None:
    scores = torch.full((1, 1, 3, 20), -200.0)
    scores[0, 0, :, 4:8] = torch.tensor([[0.0], [1.0], [5.0]])
    scores[0, 0, :, 12] = 6.0
    attended = Attended(20)
    attended.add(scores)
    assert attended.places()[0][0] in range(4, 8)
    assert Attended(20).places() == []
    nothing = Attended(0)
    nothing.add(scores)
    assert nothing.places() == [(0, (0, 0))]
