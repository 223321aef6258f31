"""Requests that nobody should make: each fails alone, with one line, and the engine goes on."""

from __future__ import annotations

import logging
import threading
from typing import Any

import numpy as np
import pytest

from aii.engine.hearing import MOST_ROWS, hear
from aii.engine.local import LocalEngine
from aii.errors import AudioError, InputError, ServiceError
from aii.types import AttentionStop, DecodeRequest, Samples

WAIT = 60.0
DEFAULTS = {"audio_context": "auto", "temperatures": (0.0,), "sample_len": 6}


def sound(number: int = 1, count: int = 8000) -> np.ndarray:
    return np.random.default_rng(number).normal(0, 0.1, count).astype(np.float32)


def request(number: int, samples: Any = None, options: Any = None, **fields: Any) -> DecodeRequest:
    samples = sound(number) if samples is None else samples
    fields = {"language": "en", **fields}
    return DecodeRequest(number, f"call-{number}", samples, options=options or {}, **fields)


GOOD = [
    request(100),
    request(101, options={"beam_size": 2}),
    request(102, options={"temperatures": (0.9,)}),
    request(103, draft=()),
    request(104, options={"without_timestamps": True}),
]


@pytest.fixture(scope="module", params=[1, 2], ids=["one thread", "two threads"])
def engine(tiny_model, request):
    engine = LocalEngine(tiny_model, threads=request.param, options=DEFAULTS)
    yield engine
    assert engine.close(WAIT)


@pytest.fixture(scope="module")
def alone(tiny_model):
    return [hear(tiny_model, ask, DEFAULTS) for ask in GOOD]


def beside(engine, bad: DecodeRequest, alone) -> Any:
    """The future of ``bad``, once those that ran beside it are answered as if alone."""
    futures = [engine.submit(ask) for ask in GOOD[:2]]
    found = engine.submit(bad)
    futures += [engine.submit(ask) for ask in GOOD[2:]]
    for future, expected in zip(futures, alone, strict=True):
        heard = future.result(WAIT)
        assert heard.tokens == expected["tokens"]
        assert heard.avg_logprob == pytest.approx(expected["avg_logprob"], abs=1e-4)
    return found


class Fails:
    """A constraint that fails behind some tokens."""

    def __init__(self, behind: int, error: BaseException) -> None:
        self._behind, self._error = behind, error

    def allowed(self, text) -> None:
        if len(text) >= self._behind:
            raise self._error


class Allows:
    def __init__(self, *tokens: int) -> None:
        self._tokens = tokens

    def allowed(self, text):
        return self._tokens


def constrained(constraint: Any, **options: Any) -> dict[str, Any]:
    return {"constraint": constraint, **options}


WRONG: dict[str, tuple[type[Exception], str, dict[str, Any]]] = {
    "not a number": (AudioError, "not all finite", {"samples": sound() * np.float32(np.nan)}),
    "infinite": (AudioError, "not all finite", {"samples": np.full(9, np.inf, np.float32)}),
    "too loud": (AudioError, "wanted are -1 to 1", {"samples": sound() * np.float32(1e30)}),
    "float64 too loud": (AudioError, "wanted are -1 to 1", {"samples": np.full(9, 1e300)}),
    "whole numbers": (AudioError, "int16, not float", {"samples": np.ones(900, np.int16)}),
    "complex": (AudioError, "not float", {"samples": np.ones(900, np.complex64)}),
    "two rows": (AudioError, "one row of", {"samples": sound().reshape(2, -1)}),
    "text": (AudioError, "one row of", {"samples": "hello"}),
    "too long": (AudioError, "at most 30 s", {"samples": sound(1, 16000 * 31)}),
    "unknown token": (InputError, "51865 is not in", {"prompt": (51865,)}),
    "negative token": (InputError, "-1 is not in", {"prefix": (-1,)}),
    "half a token": (InputError, "1.5 is not in", {"prompt": (1.5,)}),
    "unknown draft": (InputError, "is not in the", {"draft": (10**9,)}),
    "prefix without end": (
        InputError,
        "shorten the prefix",
        {"prefix": tuple(range(1000, 1460)), "stop": AttentionStop()},
    ),
    "no length": (InputError, "sample_len must be", {"options": {"sample_len": -5}}),
    "no length with draft": (
        InputError,
        "sample_len must be",
        {"options": {"sample_len": -5}, "draft": ()},
    ),
    "half a length": (InputError, "sample_len must be", {"options": {"sample_len": 2.5}}),
    "cold": (InputError, "temperature must be", {"options": {"temperatures": (-1.0,)}}),
    "no temperature": (InputError, "temperature must be", {"options": {"temperatures": (np.nan,)}}),
    "no beams": (InputError, "beam_size must be", {"options": {"beam_size": -1}}),
    "too many beams": (InputError, "at most 64", {"options": {"beam_size": MOST_ROWS + 1}}),
    "too many draws": (
        InputError,
        "at most 64",
        {"options": {"best_of": 10**9, "temperatures": (1.0,)}},
    ),
    "negative rule": (InputError, "-7 is not in", {"options": {"suppress_tokens": [-7]}}),
    "nothing is allowed": (
        ServiceError,
        "leave no token",
        {"options": {"suppress_tokens": list(range(51865))}},
    ),
    "nothing is allowed to beams": (
        ServiceError,
        "leave no token",
        {"options": {"suppress_tokens": list(range(51865)), "beam_size": 2}},
    ),
    "nothing is allowed to draws": (
        ServiceError,
        "leave no token",
        {"options": {"suppress_tokens": list(range(51865)), "temperatures": (1.0,)}},
    ),
    "another model's constraint": (
        InputError,
        "made for another model",
        {"options": constrained(Allows(10**7))},
    ),
    "no way through a constraint": (
        ServiceError,
        "leave no token",
        {"options": constrained(Allows(), beam_size=3)},
    ),
    "constraint fails": (
        ValueError,
        "poison",
        {"options": constrained(Fails(2, ValueError("poison")))},
    ),
    "constraint fails beams": (
        ValueError,
        "poison",
        {"options": constrained(Fails(2, ValueError("poison")), beam_size=2)},
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_it_fails_alone_with_one_line(engine, alone, case) -> None:
    kind, expected, fields = WRONG[case]
    error = beside(engine, request(1, **fields), alone).exception(WAIT)
    assert isinstance(error, kind)
    assert expected in str(error)
    assert "\n" not in str(error)


ODD: dict[str, dict[str, Any]] = {
    "no samples": {"samples": np.zeros(0, np.float32)},
    "no blocks": {"samples": Samples([])},
    "one sample": {"samples": np.ones(1, np.float32)},
    "no samples, no language": {"samples": np.zeros(0, np.float32), "language": None},
    "no samples by attention": {"samples": np.zeros(0, np.float32), "stop": AttentionStop()},
    "backwards": {"samples": sound()[::-1]},
    "half precision": {"samples": sound().astype(np.float16)},
    "double precision": {"samples": sound().astype(np.float64)},
    "the other end first": {"samples": sound().astype(">f4")},
    "a prompt without end": {"prompt": tuple(range(1000, 6000))},
    "a prompt of specials": {"prompt": (50258, 50257, 50258)},
    "a long draft": {"draft": tuple(range(1000, 3000))},
    "as many tokens as there is room for": {"options": {"sample_len": 10**9}},
    "and their times": {
        "options": {"sample_len": 10**9, "without_timestamps": True, "word_timestamps": True}
    },
    "17.3 s": {"options": {"audio_context": 17.3}},
    "no deadline": {"deadline": float("nan")},
    "before the call": {"start": -100.0},
}


@pytest.mark.parametrize("case", ODD)
def test_it_is_odd_and_answered(engine, alone, tiny_model, case) -> None:
    ask = request(1, **ODD[case])
    heard = beside(engine, ask, alone).result(WAIT)
    assert heard.tokens == hear(tiny_model, ask, DEFAULTS)["tokens"]


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_what_would_end_a_thread_does_not_end_the_engine(tiny_model, alone, error, caplog) -> None:
    """Those in the batch are told, with an error that does not end their threads either."""
    engine = LocalEngine(tiny_model, options=DEFAULTS)
    with caplog.at_level(logging.CRITICAL, "aii.engine.local"):
        bad = engine.submit(request(1, options=constrained(Fails(2, error))))
        assert isinstance(bad.exception(WAIT), ServiceError)
    beside(engine, request(2), alone).result(WAIT)
    assert engine.close(WAIT)


@pytest.mark.parametrize("error", [SystemExit(3), ValueError("callback")])
def test_a_callback_that_fails_is_its_owners_trouble(tiny_model, alone, error, caplog) -> None:
    engine = LocalEngine(tiny_model, options=DEFAULTS)
    called = threading.Event()

    def fails(future) -> None:
        called.set()
        raise error

    with caplog.at_level(logging.CRITICAL):
        future = engine.submit(request(1))
        future.add_done_callback(fails)
        assert future.result(WAIT).request_id == 1
        assert called.wait(WAIT)
        beside(engine, request(2), alone).result(WAIT)
    assert engine.close(WAIT)
