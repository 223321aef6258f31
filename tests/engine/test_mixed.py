"""Requests of every kind at once, on networks of odd shapes: each gets what it gets alone."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from aii.compute import convert
from aii.constraint import GrammarConstraint
from aii.engine.hearing import hear
from aii.engine.local import LocalEngine
from aii.errors import InputError
from aii.grammar import Grammar
from aii.model import ModelDimensions, Whisper
from aii.types import AttentionStop, DecodeRequest

WAIT = 120.0
DEFAULTS = {"audio_context": "auto", "temperatures": (0.0,), "sample_len": 7}

SHAPES = {
    "66 channels in 11 heads": ModelDimensions(80, 501, 66, 11, 2, 51865, 61, 66, 11, 3),
    "one head of 20": ModelDimensions(80, 333, 20, 1, 1, 51865, 48, 20, 1, 1),
    "128 bands, 51866 tokens": ModelDimensions(128, 149, 36, 3, 1, 51866, 90, 36, 3, 2),
    "English only": ModelDimensions(80, 175, 28, 2, 1, 51864, 448, 28, 2, 2),
}


def network(shape: str) -> Whisper:
    """Random weights, the tokens far enough apart that no two are nearly as likely."""
    torch.manual_seed(5)
    model = Whisper(SHAPES[shape]).eval()
    with torch.no_grad():
        model.decoder.token_embedding.weight.mul_(30)
    return model


def constrained(model: Whisper, grammar: Grammar) -> dict[str, Any]:
    constraint = GrammarConstraint(grammar, model.is_multilingual, model.num_languages)
    return {"constraint": constraint, "beam_size": 3, "without_timestamps": True}


def kinds(model: Whisper) -> list[dict[str, Any]]:
    """What a request may want, as fields and options."""
    other = {"language": "de", "task": "translate"} if model.is_multilingual else {}
    stop = AttentionStop(threshold=-1, rewind=None, max_tokens=6)
    return [
        {},
        {**other, "prompt": tuple(range(1000, 1500))},
        {"language": None, "draft": ()},
        {"prefix": (1000, 2000), "draft": (3000, 4000)},
        {"options": {"beam_size": 5}},
        {"options": {"beam_size": 2, "patience": 2.0, "length_penalty": 0.5}},
        {"options": {"temperatures": (0.0, 0.5), "best_of": 3, "logprob_threshold": 0.0}},
        {"options": {"temperatures": (0.8,), "without_timestamps": True}},
        {"options": {"word_timestamps": True, "keep_tail": True}},
        {"options": {"kv_cache": False, "beam_size": 2}},
        {"options": {"audio_context": "full", "suppress_tokens": "", "suppress_blank": False}},
        {"options": {"audio_context": 1.7, "max_initial_timestamp": None, "sample_len": 20}},
        {"options": {"initial_prompt": "for Smith", "max_initial_timestamp": 0.3}},
        {"options": constrained(model, Grammar.digits(2, 4))},
        {"options": constrained(model, Grammar.words(["yes", "no", "operator please"]))},
        {"stop": stop, "prompt": (1000, 1001)},
        {"stop": stop, "language": None, "options": {"beam_size": 2}},
    ]


def requests(model: Whisper) -> list[DecodeRequest]:
    found = []
    for number, fields in enumerate(kinds(model)):
        seconds = (1.0, 0.3, 1.0, 2.77)[number % 4]
        samples = np.random.default_rng(number).normal(0, 0.1, round(16000 * seconds))
        fields = {"language": "en", "start": 3.2 * (number % 2), **fields}
        call_id = f"call-{number % 5}"
        found.append(DecodeRequest(number, call_id, samples.astype(np.float32), **fields))
    return found


def told(heard: Any) -> tuple[Any, ...]:
    """What must be the same, of a hypothesis or of its fields."""
    fields = heard if isinstance(heard, dict) else vars(heard)
    texts = [(s.text, s.start, s.end, [w.text for w in s.words]) for s in fields["segments"]]
    tokens = [(token.id, token.frame) for token in fields["tokens"]]
    return tokens, texts, fields["language"], fields["stopped"], fields["passes"]


@pytest.mark.parametrize("shape, threads", [("English only", 1), *((shape, 2) for shape in SHAPES)])
def test_every_kind_of_request_at_once(shape, threads) -> None:
    model = network(shape)
    asks = requests(model)
    alone = [hear(model, ask, DEFAULTS) for ask in asks]
    engine = LocalEngine(model, threads=threads, options=DEFAULTS, rows=12)
    futures = []
    for number, ask in enumerate(asks):
        futures.append(engine.submit(ask))
        if number % 4 == 3:  # others join, and leave in the middle
            engine.submit(replace(ask, call_id="gone"))
            futures[number - 3].result(WAIT)
            engine.cancel("gone")
    for future, expected in zip(futures, alone, strict=True):
        heard = future.result(WAIT)
        assert told(heard) == told(expected)
        assert heard.avg_logprob == pytest.approx(expected["avg_logprob"], abs=2e-4)
    assert engine.close(WAIT)


@pytest.mark.parametrize("compute_type", ["bfloat16", "int8"])
@pytest.mark.parametrize("shape", ["66 channels in 11 heads", "128 bands, 51866 tokens"])
def test_every_compute_type_has_every_shape(shape, compute_type) -> None:
    model = network(shape)
    try:
        other = convert(copy.deepcopy(model), compute_type)
    except InputError as error:
        pytest.skip(str(error))
    engine = LocalEngine(other, threads=2, options=DEFAULTS)
    asks = requests(model)
    futures = [engine.submit(ask) for ask in asks]
    same = 0
    for ask, future in zip(asks, futures, strict=True):
        exact, heard = hear(model, ask, DEFAULTS), future.result(WAIT)
        if [t.id for t in heard.tokens] == [t.id for t in exact["tokens"]]:
            same += 1
            assert heard.avg_logprob == pytest.approx(exact["avg_logprob"], abs=0.2)
    assert same > 0.7 * len(asks)
    assert engine.close(WAIT)
