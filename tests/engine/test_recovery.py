"""What goes wrong within a step, and what comes and goes at any moment: the engine goes on."""

from __future__ import annotations

import gc
import logging
import random
import subprocess
import sys
import threading
import time
from concurrent.futures import CancelledError
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from aii import batch, fused, ragged, rows
from aii.compiled import kernels
from aii.engine import local
from aii.engine.hearing import hear
from aii.engine.local import LocalEngine
from aii.errors import EngineClosedError
from aii.heard import Shelves
from aii.model import ModelDimensions, Whisper
from aii.types import DecodeRequest

WAIT = 60.0
DEFAULTS = {"audio_context": "auto", "temperatures": (0.0,), "sample_len": 4}


@pytest.fixture(scope="module")
def model():
    """As small as a Whisper gets."""
    torch.manual_seed(1)
    return Whisper(ModelDimensions(80, 1500, 8, 1, 1, 51865, 448, 8, 1, 1)).eval()


SOUND = np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32)


def request(number: int, call_id: str, size: int = 1600, **options: Any) -> DecodeRequest:
    return DecodeRequest(number, call_id, SOUND[:size], language="en", options=options)


POOL = [
    request(0, "pool"),
    request(1, "pool", 9000, sample_len=9),
    request(2, "pool", 1600, beam_size=3, sample_len=6),
    request(3, "pool", 9000, temperatures=(0.8,)),
    request(4, "pool", 1600, word_timestamps=True),
]


@pytest.fixture(scope="module")
def alone(model):
    return [hear(model, ask, DEFAULTS) for ask in POOL]


@pytest.mark.parametrize(
    "place",
    [
        "encoder",
        (ragged.Ragged, "run"),
        (fused.Fused, "_over_audio") if kernels() else (ragged, "_over_audio"),
        (batch, "audio_layers"),
        (batch, "answers"),
        (Shelves, "put"),
        (Shelves, "take_away"),
        (rows.Rows, "take"),
        (rows.Rows, "give"),
        (rows, "zeros"),
        (local.Batch, "listen"),
        (local.Batch, "heard"),
        (local.MelMemory, "window"),
    ],
    ids=lambda place: place if isinstance(place, str) else getattr(place, "__name__", place[1]),
)
def test_memory_that_runs_out_anywhere_spoils_no_answer(
    model, alone, monkeypatch, caplog, place
) -> None:
    """Some requests fail; the others are answered as if alone, and so are all that come after."""
    owner, name = (model.encoder, "forward") if place == "encoder" else place
    right, calls = getattr(owner, name), 0

    def scarce(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls % 4 == 2:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return right(*args, **kwargs)

    engine = LocalEngine(model, threads=2, options=DEFAULTS)
    with monkeypatch.context() as patch, caplog.at_level(logging.CRITICAL, "aii.engine.local"):
        patch.setattr(owner, name, scarce)
        futures = [engine.submit(replace(POOL[n % 5], call_id=f"c{n}")) for n in range(15)]
        for number, future in enumerate(futures):
            error = future.exception(WAIT)
            assert error is None or "can't allocate" in str(error)
            if error is None:
                assert future.result().tokens == alone[number % 5]["tokens"]
    assert calls > 1
    for ask, expected in zip(POOL, alone, strict=True):
        assert engine.submit(ask).result(WAIT).tokens == expected["tokens"]
    assert engine.close(WAIT)
    assert [decoder.rows.taken for decoder in engine._batch._decoders.values()] in ([], [0])


@pytest.mark.parametrize("threads", [1, 2])
def test_calls_leave_at_any_moment(model, alone, threads) -> None:
    """Waiting, being encoded, being decoded, just answered; the others do not notice."""
    engine = LocalEngine(model, threads=threads, options=DEFAULTS)
    wrong: list[str] = []
    counts = {"left": 0, "answered": 0}

    def one(seed: int) -> None:
        chance = random.Random(seed)
        for number in range(15):
            which, call_id, told = chance.randrange(5), f"{seed}-{number}", []
            future = engine.submit(replace(POOL[which], call_id=call_id))
            future.add_done_callback(told.append)
            if chance.random() < 0.6:
                time.sleep(chance.choice((0.0, 0.001, 0.01, 0.05)) * chance.random())
                gone = engine.cancel(call_id) if chance.random() < 0.5 else future.cancel()
                if gone:
                    counts["left"] += 1
                    if not future.cancelled() or len(told) != 1:
                        wrong.append(f"{call_id} has not left")
                    continue
            counts["answered"] += 1
            if future.result(WAIT).tokens != alone[which]["tokens"]:
                wrong.append(f"{call_id} was answered something else")

    threads_ = [threading.Thread(target=one, args=(seed,)) for seed in range(4)]
    for thread in threads_:
        thread.start()
    for thread in threads_:
        thread.join(WAIT)
        assert not thread.is_alive()
    assert wrong == []
    assert engine.close(WAIT)
    stats = engine.stats()
    assert (stats["waiting"], stats["running"], stats["failed"]) == (0, 0, 0)
    assert stats["done"] == counts["answered"]
    assert stats["cancelled"] == counts["left"] > 0
    assert len(engine._batch) == 0


def jobs() -> dict[int, object]:
    """The jobs that anything still holds, those of other tests' engines as well."""
    gc.collect()
    return {id(o): o for o in gc.get_objects() if type(o) is local._Job}


def test_nothing_is_left_of_calls_that_are_over(model) -> None:
    before = jobs()
    engine = LocalEngine(model, threads=2, options=DEFAULTS, queue_size=2000)
    engine.submit(request(0, "first")).result(WAIT)
    threads, open_futures = threading.active_count(), []
    for number in range(600):
        open_futures.append(engine.submit(request(number, f"call-{number}")))
        if number % 3 == 0:
            engine.cancel(f"call-{number}")
        if len(open_futures) > 40:
            for future in open_futures:
                future.exception(WAIT) if not future.cancelled() else None
            open_futures.clear()
    for future in open_futures:
        future.exception(WAIT) if not future.cancelled() else None
    assert threading.active_count() == threads
    assert engine.close(WAIT)
    assert threading.active_count() < threads
    batcher = engine._batcher
    assert (len(batcher), batcher.running) == (0, 0)
    assert not batcher._waiting
    assert not batcher._running_of
    assert engine._running == []
    assert jobs().keys() <= before.keys()


def test_engines_come_and_go(model) -> None:
    """Closed when idle, busy, or after all was withdrawn; twice; and never used after."""
    before = threading.active_count()
    for number in range(12):
        engine = LocalEngine(model, threads=1 + number % 2, options=DEFAULTS)
        futures = [engine.submit(request(n, "a", 9000, sample_len=40)) for n in range(3)]
        if number % 4 == 0:
            futures[0].result(WAIT)
        elif number % 4 == 1:
            engine.cancel("a")
        engine.close(0.0 if number % 4 == 2 else WAIT)
        for future in futures:
            try:
                future.result(WAIT)
            except (CancelledError, EngineClosedError):
                pass
        assert engine.close(WAIT)
        assert engine.close(WAIT)
        with pytest.raises(EngineClosedError):
            engine.submit(request(9, "b"))
        assert engine.cancel("a") == 0
    assert threading.active_count() == before


def test_two_engines_on_one_model(model, alone) -> None:
    """A network holds weights and nothing else, so that none of the two sees the other."""
    engines = [LocalEngine(model, threads=2, options=DEFAULTS) for _ in range(2)]
    futures = [
        (n % 5, engines[n % 2].submit(replace(POOL[n % 5], call_id=f"c{n}"))) for n in range(20)
    ]
    for which, future in futures:
        assert future.result(WAIT).tokens == alone[which]["tokens"]
    assert all(engine.close(WAIT) for engine in engines)


def test_a_callback_may_close_the_engine(model) -> None:
    engine = LocalEngine(model, threads=2, options=DEFAULTS)
    rest, told = [], threading.Event()

    def close(future) -> None:
        rest.append(engine.close(WAIT))
        told.set()

    first = engine.submit(request(0, "first"))
    first.add_done_callback(close)
    others = [engine.submit(request(n, "others", sample_len=400)) for n in range(1, 4)]
    assert told.wait(WAIT)
    assert engine.close(WAIT)
    assert rest in ([False], [True])  # True: it was answered before the callback was there
    assert first.done()
    assert all(future.done() for future in others)


LEAVES = """
import numpy as np
import torch
from aii.engine.local import LocalEngine
from aii.model import ModelDimensions, Whisper
from aii.types import DecodeRequest

torch.set_num_threads(1)
model = Whisper(ModelDimensions(80, 1500, 8, 1, 1, 51865, 448, 8, 1, 1)).eval()
options = {"sample_len": 400, "temperatures": (0.0,), "audio_context": "auto"}
engine = LocalEngine(model, threads=2, options=options)
sound = np.random.default_rng(0).normal(0, 0.1, 8000).astype(np.float32)
first = DecodeRequest(0, "other", sound, language="en", options={"sample_len": 1})
futures = [engine.submit(DecodeRequest(n, "c", sound, language="en")) for n in range(1, 20)]
engine.submit(first).result(60)
print("left in the middle of", sum(not future.done() for future in futures))
"""


@pytest.mark.parametrize("closing", ["", "engine.close()"])
def test_a_process_that_ends_in_the_middle_of_a_step_ends_well(closing: str) -> None:
    """The engine's thread would be ended within PyTorch, which aborts the process."""
    found = subprocess.run(
        [sys.executable, "-c", LEAVES + closing],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (found.returncode, found.stderr) == (0, "")
    assert found.stdout.startswith("left in the middle of")
