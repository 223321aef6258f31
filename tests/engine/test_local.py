"""The engine in this process, with a network of random weights and with the embedded model."""

from __future__ import annotations

import itertools
import threading
import time

import numpy as np
import pytest
import torch

from aii.engine import local
from aii.engine.hearing import hear
from aii.engine.local import LocalEngine
from aii.errors import EngineClosedError, EngineFullError, InputError
from aii.fallback import TEMPERATURES
from aii.steps import Ask, Encode
from aii.types import DecodeRequest

WAIT = 300.0
SHORT = {"sample_len": 4, "temperatures": (0.0,), "audio_context": "auto"}


def request(number: int = 1, call_id: str = "c", seconds: float = 0.5, **fields) -> DecodeRequest:
    samples = np.random.default_rng(number).normal(0, 0.1, round(16000 * seconds))
    options = {**SHORT, **fields.pop("options", {})}
    return DecodeRequest(
        number, call_id, samples.astype(np.float32), language="en", options=options, **fields
    )


@pytest.fixture
def engine(tiny_model):
    engine = LocalEngine(tiny_model, queue_size=3)
    yield engine
    assert engine.close(WAIT)


class Gate:
    """Stands in for ``hearing``: waits, notes the order, and fails where told."""

    def __init__(self, monkeypatch) -> None:
        self.open = threading.Event()
        self.busy = threading.Event()
        self.order: list[int] = []
        monkeypatch.setattr(local, "hearing", self)

    def __call__(self, model, request, defaults, memory):
        yield from ()
        self.busy.set()
        assert self.open.wait(WAIT)
        self.order.append(request.request_id)
        if request.call_id == "poison":
            raise ValueError("bad window")
        return {"request_id": request.request_id, "passes": 2}


def test_an_answer_has_all_its_parts(engine):
    heard = engine.submit(request(7, start=10.0)).result(WAIT)
    assert heard.request_id == 7
    assert heard.language == "en"
    assert len(heard.tokens) == 4
    assert heard.passes >= 1
    assert heard.timing.computed > 0
    assert heard.advance > 0
    assert all(s.start >= 10.0 for s in heard.segments)
    stats = engine.stats()
    assert (stats["done"], stats["audio_seconds"], stats["waiting"]) == (1, 0.5, 0)


def test_the_same_request_gets_the_same_answer_also_when_sampled(engine):
    hot = request(options={"temperatures": (1.0,), "sample_len": 12})
    engine.submit(request(2)).result(WAIT)
    first = engine.submit(hot).result(WAIT)
    engine.submit(request(3, options={"temperatures": (0.7,)})).result(WAIT)
    assert engine.submit(hot).result(WAIT).tokens == first.tokens


def test_a_bad_request_fails_alone(engine):
    bad = engine.submit(request(options={"tempo": 3}))
    good = engine.submit(request(2))
    with pytest.raises(InputError, match="no option of a request is called 'tempo'"):
        bad.result(WAIT)
    assert good.result(WAIT).request_id == 2
    too_long = engine.submit(request(3, seconds=31))
    assert too_long.exception(WAIT) is not None
    assert engine.stats()["failed"] == 2


def test_earliest_deadline_first(engine, monkeypatch):
    gate = Gate(monkeypatch)
    futures = [engine.submit(request(1))]
    assert gate.busy.wait(WAIT)
    soon = time.monotonic() + 10
    for number, later in ((2, 9.0), (3, 1.0), (4, 5.0)):
        futures.append(engine.submit(request(number, deadline=soon + later)))
    with pytest.raises(EngineFullError):
        engine.submit(request(5))
    gate.open.set()
    for future in futures:
        future.result(WAIT)
    assert gate.order == [1, 3, 4, 2]
    assert engine.stats()["refused"] == 1


def test_cancelling_takes_all_of_one_call(engine, monkeypatch):
    gate = Gate(monkeypatch)
    running = engine.submit(request(1, "a"))
    assert gate.busy.wait(WAIT)
    waiting = engine.submit(request(2, "a"))
    other = engine.submit(request(3, "b"))
    assert engine.cancel("a") == 2
    assert running.cancelled()
    assert waiting.cancelled()
    assert engine.cancel("a") == 0
    other_cancelled = engine.submit(request(4, "b"))
    assert other_cancelled.cancel()  # by its owner, behind the engine's back
    gate.open.set()
    assert other.result(WAIT).request_id == 3
    assert engine.close(WAIT)
    assert gate.order == [1, 3]
    stats = engine.stats()
    assert (stats["cancelled"], stats["done"], stats["running"]) == (3, 1, 0)


def endless(monkeypatch, after: int = 3) -> threading.Event:
    """Let requests of the call "endless" decode for ever; set when one has made some passes."""
    busy, true_hearing = threading.Event(), local.hearing

    def hearing_for_ever(model, request, defaults, memory):
        if request.call_id != "endless":
            return (yield from true_hearing(model, request, defaults, memory))
        yield Encode(torch.randn(1, 80, 100))
        yield Ask([[50258]], fresh=True)
        for number in itertools.count(1):
            yield Ask([[7]], keep=1)
            if number == after:
                busy.set()

    monkeypatch.setattr(local, "hearing", hearing_for_ever)
    return busy


def test_a_call_that_is_cancelled_leaves_while_it_is_decoded(engine, monkeypatch):
    busy = endless(monkeypatch)
    running = engine.submit(request(1, "endless"))
    assert busy.wait(WAIT)
    assert engine.submit(request(2)).result(WAIT).request_id == 2  # beside it
    assert engine.cancel("endless") == 1
    assert running.cancelled()
    assert engine.submit(request(3)).result(WAIT).request_id == 3
    assert engine.close(WAIT)
    assert (len(engine._batch), engine._batch.rows) == (0, 0)


def test_a_mistake_of_ours_fails_the_batch_and_not_the_engine(engine, monkeypatch, caplog):
    def broken(batch):
        raise RuntimeError("mistake")

    with monkeypatch.context() as patch:
        patch.setattr(local.Batch, "encode", broken)
        future = engine.submit(request(1))
        with pytest.raises(RuntimeError, match="mistake"):
            future.result(WAIT)
    assert "because of a mistake of ours" in caplog.text
    assert engine.submit(request(2)).result(WAIT).request_id == 2
    assert (engine.stats()["failed"], engine.stats()["done"]) == (1, 1)


def test_closing_drops_what_does_not_end_in_time(tiny_model, monkeypatch):
    engine = LocalEngine(tiny_model)
    busy = endless(monkeypatch)
    running = engine.submit(request(1, "endless"))
    assert busy.wait(WAIT)
    engine.close(0.05)
    with pytest.raises(EngineClosedError, match="was shut down"):
        running.result(WAIT)
    assert engine.close(WAIT)


def test_every_window_of_32_calls_at_once(embedded_model):
    """All calls' windows through one engine give what each gives alone."""
    from aii.audio.pcm import slin_to_float
    from aii.resources import asset

    samples = slin_to_float(asset("sample_call.slin").read_bytes())
    options = {"audio_context": "auto", "temperatures": TEMPERATURES}
    asks = []
    for call in range(32):
        begin = 8000 * call
        for window, seconds in enumerate((2, 9, 30)):
            piece = samples[begin : begin + seconds * 16_000]
            more = {3: {"beam_size": 2}, 7: {"without_timestamps": True}}.get(call % 8, {})
            asks.append(
                DecodeRequest(3 * call + window, f"call-{call}", piece, language="en", options=more)
            )
    alone = {ask.request_id: hear(embedded_model, ask, options) for ask in asks}
    engine = LocalEngine(embedded_model, options=options)
    try:
        futures = [engine.submit(ask) for ask in asks]
        for future in futures:
            heard = future.result(WAIT)
            expected = alone[heard.request_id]
            assert heard.tokens == expected["tokens"]
            assert heard.segments == expected["segments"]
            assert heard.avg_logprob == pytest.approx(expected["avg_logprob"], abs=1e-4)
            assert heard.passes == expected["passes"]
        stats = engine.stats()
    finally:
        assert engine.close(WAIT)
    assert stats["done"] == 96
    assert stats["rows"] / stats["steps"] > 3  # they were decoded side by side
    assert stats["encoded"] / stats["encodes"] > 1
    assert stats["mel_reused"] > 0.2 * stats["mel_frames"]


def test_a_poisoned_request_does_not_stop_the_next(engine, monkeypatch):
    gate = Gate(monkeypatch)
    gate.open.set()
    poisoned, good = engine.submit(request(1, "poison")), engine.submit(request(2))
    with pytest.raises(ValueError, match="bad window"):
        poisoned.result(WAIT)
    assert good.result(WAIT).passes == 2


def test_closing_finishes_what_waits_in_time_and_fails_the_rest(tiny_model, monkeypatch):
    gate = Gate(monkeypatch)
    engine = LocalEngine(tiny_model)
    futures = [engine.submit(request(n)) for n in (1, 2)]
    assert gate.busy.wait(WAIT)
    assert not engine.close(0.05)
    with pytest.raises(EngineClosedError, match="shut down"):
        futures[1].result(WAIT)
    with pytest.raises(EngineClosedError, match="shutting down"):
        engine.submit(request(3))
    gate.open.set()
    assert futures[0].result(WAIT).request_id == 1
    assert engine.close(WAIT)

    gate.order.clear()
    engine = LocalEngine(tiny_model)
    futures = [engine.submit(request(n)) for n in (1, 2)]
    assert engine.close(WAIT)
    assert [future.result(0).request_id for future in futures] == [1, 2]


def test_a_model_says_whether_windows_are_tried_again(tiny_model, monkeypatch):
    monkeypatch.setattr(tiny_model, "metadata", {"fallback": False})
    plain = {
        "sample_len": 4,
        "audio_context": "auto",
        "logprob_threshold": 0.0,
    }  # never good enough
    tried = []
    for options in ({}, {"temperatures": (0.0, 1.0)}):
        engine = LocalEngine(tiny_model, options=options)
        samples = np.zeros(8000, np.float32)
        ask = DecodeRequest(1, "c", samples, language="en", options=plain)
        tried.append(engine.submit(ask).result(WAIT).temperature)
        assert engine.close(WAIT)
    assert tried == [0.0, 1.0]


def test_threads_are_set_by_the_engine(tiny_model):
    import torch

    engine = LocalEngine(tiny_model, threads=1)
    engine.submit(request()).result(WAIT)
    engine.close(WAIT)
    assert torch.get_num_threads() == 1
