"""A decode without a KV cache is the same decode, only slower."""

from __future__ import annotations

import pytest

from aii.audio.pcm import slin_to_float
from aii.batch import run_alone
from aii.engine.hearing import hear, hearing
from aii.resources import asset
from aii.steps import Ask, Attach, run_plainly
from aii.types import AttentionStop, DecodeRequest
from aii.uncached import uncached

SAMPLES = slin_to_float(asset("sample_call.slin").read_bytes())


def request(seconds: float = 8.0, stop: AttentionStop | None = None, **options) -> DecodeRequest:
    samples = SAMPLES[: round(16_000 * seconds)]
    return DecodeRequest(1, "c", samples, language="en", stop=stop, options=options)


def same(one, other) -> None:
    assert [token.id for token in one["tokens"]] == [token.id for token in other["tokens"]]
    assert one["segments"] == other["segments"]
    assert one["passes"] == other["passes"]
    assert one["avg_logprob"] == pytest.approx(other["avg_logprob"], abs=1e-4)
    assert one["no_speech_prob"] == pytest.approx(other["no_speech_prob"], abs=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"temperatures": (0.0,)},
        {"temperatures": (0.0,), "beam_size": 3},
        {"temperatures": (0.7,), "best_of": 2},
        {"temperatures": (0.0,), "word_timestamps": True, "keep_tail": True},
    ],
    ids=str,
)
def test_the_result_is_that_of_the_cached_decode(embedded_model, options):
    cached = hear(embedded_model, request(**options), {})
    plain = hear(embedded_model, request(**options, kv_cache=False), {})
    same(plain, cached)
    assert len(cached["tokens"]) > 5


def test_attention_is_that_of_the_new_tokens(embedded_model):
    stop = AttentionStop(threshold=10, last_frame=0)
    cached = hear(embedded_model, request(5.0, stop=stop), {})
    plain = hear(embedded_model, request(5.0, stop=stop, kv_cache=False), {})
    assert plain["tokens"] == pytest.approx(cached["tokens"]) or [
        (t.id, t.frame) for t in plain["tokens"]
    ] == [(t.id, t.frame) for t in cached["tokens"]]
    assert plain["stopped"] == cached["stopped"]
    assert cached["tokens"]


def test_nothing_is_kept_from_one_step_to_the_next(embedded_model):
    """Each pass reads all tokens from the first on, over audio that is attached anew."""
    seen = []

    def watched(steps):
        answer = None
        while True:
            try:
                step = next(steps) if answer is None else steps.send(answer)
            except StopIteration as end:
                return end.value
            seen.append(step)
            answer = yield step

    found = run_alone(
        embedded_model,
        watched(uncached(hearing(embedded_model, request(temperatures=(0.0,)), {}))),
    )
    asks = [step for step in seen if isinstance(step, Ask)]
    assert len(asks) == found["passes"] > 5
    assert all(step.fresh and step.sources is None and step.keep is None for step in asks)
    lengths = [len(step.tokens[0]) for step in asks]
    assert lengths == list(range(lengths[0], lengths[0] + len(asks)))
    for place, step in enumerate(seen):
        if isinstance(step, Ask):
            assert isinstance(seen[place - 1], Attach)


def test_it_runs_plainly_too_and_can_be_left(embedded_model):
    options = {"temperatures": (0.0,)}
    plain = run_plainly(
        embedded_model, uncached(hearing(embedded_model, request(4.0, **options), {}))
    )
    same(plain, hear(embedded_model, request(4.0, **options), {}))
    left = []

    def inner():
        try:
            yield Attach(None)
        finally:
            left.append(True)

    steps = uncached(inner())
    next(steps)
    steps.close()
    assert left == [True]
