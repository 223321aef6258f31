"""Programs that hang hooks on openai-whisper's network, or run its decoder themselves."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
import whisper

import aii
from aii.decoding import DecodingTask, decode
from aii.model import MultiHeadAttention, Whisper, disable_sdpa

pytestmark = pytest.mark.parametrize("pair", ["multilingual", "english", "turbo"], indirect=True)

SPLIT = (5, 1, 3, 1)
CASES = {
    "greedy": dict(),
    "text only": dict(without_timestamps=True, suppress_blank=False, suppress_tokens=""),
    "beams": dict(beam_size=3, patience=2.0),
    "best of": dict(temperature=0.8, best_of=3, length_penalty=0.5),
    "draws": dict(temperature=0.5),
    "both": dict(prompt="four five six", prefix=[1000, 1001, 1002]),
}


def _options(model, **more: Any) -> dict[str, Any]:
    known = {} if model.is_multilingual else {"language": "en"}
    return {"fp16": False, "sample_len": 12, **known, **more}


@torch.no_grad()
@pytest.mark.parametrize("rows", [1, 2])
def test_the_decoder_run_with_the_hooks_cache(pair, rows: int) -> None:
    """Piece by piece, as for whole sequences, and row by row as openai-whisper does."""
    theirs, ours = pair
    features = ours.encoder(torch.randn(rows, ours.dims.n_mels, 3000))
    tokens = torch.randint(0, 50_000, (rows, sum(SPLIT)))
    found = []
    for model in (theirs, ours):
        cache, hooks = model.install_kv_cache_hooks()
        assert len(hooks) == 4 * model.dims.n_text_layer
        pieces = [model.decoder(tokens[:, :5], features, kv_cache=cache)]
        pieces += [model.decoder(tokens[:, [i]], features, kv_cache=cache) for i in range(5, 10)]
        key = model.decoder.blocks[0].attn.key
        assert cache[key].shape == (rows, 10, model.dims.n_text_state)
        assert cache[model.decoder.blocks[0].cross_attn.value].shape[1] == 1500
        for hook in hooks:
            hook.remove()
        found.append(torch.cat(pieces, dim=1))
        assert not key._forward_hooks
    assert torch.allclose(found[0], found[1], atol=1e-4)
    whole = ours.decoder(tokens, features)
    assert torch.allclose(whole[:, :10], found[1], atol=1e-4)
    # Several tokens behind others, which openai-whisper gets wrong.
    cache, hooks = ours.install_kv_cache_hooks()
    pieces = [ours.decoder(part, features, kv_cache=cache) for part in tokens.split(SPLIT, dim=1)]
    for hook in hooks:
        hook.remove()
    assert torch.allclose(whole, torch.cat(pieces, dim=1), atol=1e-4)


@torch.no_grad()
def test_beams_move_rows_of_the_hooks_cache(pair) -> None:
    theirs, ours = pair
    features = ours.encoder(torch.randn(1, ours.dims.n_mels, 3000))
    tokens = torch.randint(0, 50_000, (3, 6))
    found = []
    for model in (theirs, ours):
        cache, hooks = model.install_kv_cache_hooks()
        model.decoder(tokens, features, kv_cache=cache)
        for block in model.decoder.blocks:
            for module in (block.attn.key, block.attn.value):
                cache[module] = cache[module][[2, 0, 0]].detach()
        found.append(model.decoder(tokens[:, :1], features, kv_cache=cache))
        for hook in hooks:
            hook.remove()
    assert torch.allclose(*found, atol=1e-4)


def _attention_of(model, run: Callable[[], Any]) -> list[list[torch.Tensor]]:
    """Scores (rows, heads, tokens, frames) of each pass, for each layer, while ``run`` runs."""
    seen: list[list[torch.Tensor]] = [[] for _ in model.decoder.blocks]
    hooks = [
        block.cross_attn.register_forward_hook(
            lambda _, inputs, outputs, layer=i: seen[layer].append(outputs[-1])
        )
        for i, block in enumerate(model.decoder.blocks)
    ]
    run()
    for hook in hooks:
        hook.remove()
    return seen


@torch.no_grad()
def test_cross_attention_is_seen_and_changes_nothing(pair) -> None:
    theirs, ours = pair
    mel = torch.randn(1, ours.dims.n_mels, 3000)
    tokens = torch.randint(0, 50_000, (1, 7))
    with whisper.model.disable_sdpa():
        expected = _attention_of(theirs, lambda: theirs(mel, tokens))
    found = _attention_of(ours, lambda: ours(mel, tokens))
    with disable_sdpa():
        assert not MultiHeadAttention.use_sdpa
        assert torch.allclose(ours(mel, tokens), theirs(mel, tokens), atol=1e-4)
    assert MultiHeadAttention.use_sdpa
    for one, other in zip(expected, found, strict=True):
        assert torch.allclose(one[0], other[0], atol=1e-4)


@pytest.mark.parametrize("case", CASES)
def test_hooks_see_every_pass_of_a_decode(pair, case: str) -> None:
    """The same passes, with the same tokens, as openai-whisper makes, and the same result."""
    theirs, ours = pair
    mel = torch.randn(1, ours.dims.n_mels, 3000)
    options = _options(ours, **CASES[case])
    group = options.get("beam_size") or options.get("best_of") or 1
    runs = []
    for package, model in ((whisper, theirs), (aii, ours)):
        read: list[list[int]] = []
        states: list[torch.Tensor] = []
        encoded: list[tuple[int, ...]] = []
        hooks = [
            model.decoder.token_embedding.register_forward_hook(
                lambda _, inputs, out, read=read: read.append(inputs[0][0].tolist())
            ),
            model.decoder.ln.register_forward_hook(
                lambda _, inputs, out, states=states: states.append(out[:1, -1].clone())
            ),
            model.encoder.register_forward_hook(
                lambda _, inputs, out, encoded=encoded: encoded.append(tuple(out.shape))
            ),
        ]
        torch.manual_seed(3)
        results: list[Any] = []
        with whisper.model.disable_sdpa():
            attention = _attention_of(
                model,
                lambda package=package, model=model, results=results: results.append(
                    package.decode(model, mel, package.DecodingOptions(**options))[0]
                ),
            )
        for hook in hooks:
            hook.remove()
        runs.append((read, encoded, results[0].tokens, states, attention))
    (read, encoded, tokens, states, attention), own = runs
    assert (own[0], own[1], own[2]) == (read, encoded, tokens)
    for one, other in zip(states, own[3], strict=True):
        assert torch.allclose(one, other, atol=1e-3)
    for theirs_layer, ours_layer in zip(attention, own[4], strict=True):
        assert len(theirs_layer) == len(ours_layer)
        assert theirs_layer[-1].shape[0] == ours_layer[-1].shape[0] == group
        for one, other in zip(theirs_layer, ours_layer, strict=True):
            assert torch.allclose(one[:1], other[:1], atol=1e-3)
    torch.manual_seed(3)
    assert decode(ours, mel, aii.DecodingOptions(**options))[0].tokens == tokens  # and without


def test_hooks_see_a_recording(pair) -> None:
    """Whole recordings go by the modules too, with and without word times, to the same result."""
    _, ours = pair
    audio = torch.randn(20 * 16_000, generator=torch.Generator().manual_seed(4)) * 0.1
    options = _options(ours, temperature=0.0, word_timestamps=True)
    expected = ours.transcribe(audio, **options)
    found: list[Any] = []
    attention = _attention_of(ours, lambda: found.append(ours.transcribe(audio, **options)))
    assert [s["tokens"] for s in found[0]["segments"]] == [
        s["tokens"] for s in expected["segments"]
    ]
    assert found[0]["text"] == expected["text"]
    assert all(len(layer) > 1 and layer[0] is not None for layer in attention)


@pytest.mark.parametrize("case", CASES)
def test_a_task_of_parts_decodes_the_same(pair, case: str) -> None:
    theirs, ours = pair
    options = _options(ours, **CASES[case])
    mel = torch.randn(1, ours.dims.n_mels, 3000)
    torch.manual_seed(9)
    expected = whisper.decoding.DecodingTask(theirs, whisper.DecodingOptions(**options))
    (result,) = expected.run(mel)
    torch.manual_seed(9)
    task = DecodingTask(ours, aii.DecodingOptions(**options))
    for (
        name
    ) in "initial_tokens sample_begin sot_index n_group n_ctx sample_len sot_sequence".split():
        assert getattr(task, name) == getattr(expected, name), name
    names = [type(part).__name__ for part in expected.logit_filters]
    assert [type(part).__name__ for part in task.logit_filters] == names
    assert type(task.decoder).__name__ == type(expected.decoder).__name__
    (found,) = task.run(mel)
    assert (found.tokens, found.text) == (result.tokens, result.text)
    assert found.avg_logprob == pytest.approx(result.avg_logprob, abs=1e-4)
    assert found.no_speech_prob == pytest.approx(result.no_speech_prob, abs=1e-5)


def test_a_filter_of_ones_own_in_a_task(pair) -> None:
    _, ours = pair

    class OnlyEnd(aii.decoding.LogitFilter):
        def apply(self, logits: torch.Tensor, tokens: torch.Tensor) -> None:
            assert tokens.shape[1] >= task.sample_begin
            logits[:] = -torch.inf
            logits[:, task.tokenizer.eot] = 0.0

    task = DecodingTask(ours, aii.DecodingOptions(**_options(ours)))
    task.logit_filters.append(OnlyEnd())
    assert [result.tokens for result in task.run(torch.randn(2, ours.dims.n_mels, 3000))] == [
        []
    ] * 2


def test_languages_of_a_task(pair) -> None:
    theirs, ours = pair
    mel = torch.randn(2, ours.dims.n_mels, 3000)
    if not ours.is_multilingual:
        with pytest.raises(ValueError, match="language"):
            DecodingTask(ours, aii.DecodingOptions(task="lang_id", fp16=False)).run(mel)
        return
    expected = theirs.decode(mel, whisper.DecodingOptions(task="lang_id", fp16=False))
    found = DecodingTask(ours, aii.DecodingOptions(task="lang_id", fp16=False)).run(mel)
    assert [one.language for one in found] == [one.language for one in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.language_probs == pytest.approx(other.language_probs, abs=1e-4)


@torch.no_grad()
def test_weights_go_both_ways_and_copies_are_equal(pair) -> None:
    theirs, ours = pair
    mel, tokens = torch.randn(1, ours.dims.n_mels, 3000), torch.randint(0, 50_000, (1, 6))
    expected = ours(mel, tokens)
    back = whisper.model.Whisper(whisper.model.ModelDimensions(**vars(ours.dims)))
    back.load_state_dict(ours.state_dict())
    assert torch.allclose(back.eval()(mel, tokens), expected, atol=1e-4)
    mine = Whisper(aii.ModelDimensions(**vars(theirs.dims)))
    mine.load_state_dict(theirs.state_dict())
    ours_again = copy.deepcopy(mine.eval()), pickle.loads(pickle.dumps(mine))  # noqa: S301
    for copied in ours_again:
        assert torch.equal(copied(mel, tokens), mine(mel, tokens))
        assert torch.equal(copied.alignment_heads.to_dense(), mine.alignment_heads.to_dense())
        assert copied.dims == mine.dims
        assert copied.decode(mel[0], **_options(mine)).tokens == (
            mine.decode(mel[0], **_options(mine)).tokens
        )
    assert torch.equal(theirs.decoder.mask, mine.decoder.mask)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_network_that_was_made_half(pair, dtype: torch.dtype) -> None:
    """openai-whisper's own fails then: its normalisation wants float32 weights."""
    _, ours = pair
    half = copy.deepcopy(ours)
    half = half.half() if dtype is torch.float16 else half.to(dtype)
    assert next(half.parameters()).dtype is dtype
    mel = torch.randn(ours.dims.n_mels, 3000)
    with torch.no_grad():
        tokens = torch.randint(0, 50_000, (1, 6))
        expected, found = ours(mel[None], tokens), half(mel[None].to(dtype), tokens)
    assert found.dtype is torch.float32
    assert float((found - expected).norm() / expected.norm()) < 0.1
    for fp16 in (False, True):
        result = half.decode(mel, **_options(ours, fp16=fp16))
        assert len(result.tokens) > 0
    audio = torch.randn(16_000) * 0.1
    assert (
        half.transcribe(audio, **_options(ours, temperature=0.0))["language"]
        == (ours.transcribe(audio, **_options(ours, temperature=0.0))["language"])
    )
