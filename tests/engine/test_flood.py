"""More than the engine can do, from many threads: all is settled, and nothing is left behind."""

from __future__ import annotations

import math
import random
import threading
from collections import Counter
from concurrent.futures import CancelledError, Future

import numpy as np
import pytest

from aii.engine.hearing import hear
from aii.engine.local import LocalEngine
from aii.errors import AiiError, EngineFullError
from aii.types import DecodeRequest

WAIT = 240.0
DEFAULTS = {"audio_context": "auto", "temperatures": (0.0,), "sample_len": 4}
THREADS, EACH = 16, 150
SOUNDS = [
    np.random.default_rng(number).normal(0, 0.1, 4000 + 2000 * number).astype(np.float32)
    for number in range(8)
]


def asked(number: int, chance: random.Random) -> DecodeRequest:
    """A request that may be good, impossible, or of a kind that takes its time."""
    kind = chance.random()
    samples, options = SOUNDS[number % len(SOUNDS)], {}
    if kind < 0.05:
        samples = np.full(8000, np.nan, np.float32)
    elif kind < 0.1:
        options = {"beam_size": chance.choice([0, 3, 90_000])}
    elif kind < 0.13:
        options = {"no such option": 1}
    elif kind < 0.2:
        options = {"sample_len": 40}
    call = f"call-{chance.randrange(400)}"
    deadline = chance.choice([0.0, math.inf, float(number)])
    return DecodeRequest(number, call, samples, deadline=deadline, language="en", options=options)


def is_good(request: DecodeRequest) -> bool:
    return not request.options and bool(np.isfinite(request.samples).all())


@pytest.fixture(autouse=True)
def quiet(caplog):
    """What fails is logged, thousands of lines of it."""
    caplog.set_level("CRITICAL")


def test_a_flood_of_good_bad_and_withdrawn_requests_settles(tiny_model):
    alone = [
        hear(tiny_model, DecodeRequest(0, "alone", sound, language="en"), DEFAULTS)["tokens"]
        for sound in SOUNDS
    ]
    engine = LocalEngine(tiny_model, queue_size=64, threads=2, options=DEFAULTS)
    made: list[list[tuple[DecodeRequest, Future]]] = [[] for _ in range(THREADS)]
    refused: Counter[str] = Counter()
    withdrawn: set[str] = set()

    def flood(place: int) -> None:
        chance = random.Random(place)
        for number in range(place * EACH, (place + 1) * EACH):
            request = asked(number, chance)
            try:
                made[place].append((request, engine.submit(request)))
            except EngineFullError:
                refused["full"] += 1
                threading.Event().wait(0.02)
            except AiiError:
                refused["bad"] += 1
            if chance.random() < 0.05:
                withdrawn.add(request.call_id)
                engine.cancel(request.call_id)

    threads = [threading.Thread(target=flood, args=(place,)) for place in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    outcome: Counter[str] = Counter()
    for request, future in (pair for one in made for pair in one):
        try:
            heard = future.result(WAIT)
        except CancelledError:
            outcome["withdrawn"] += 1
            assert request.call_id in withdrawn
        except AiiError:
            outcome["failed"] += 1
            assert not is_good(request)
        else:
            outcome["heard"] += 1
            if is_good(request):
                assert heard.tokens == alone[request.request_id % len(SOUNDS)]
    assert min(outcome[kind] for kind in ("heard", "failed", "withdrawn")) > 10, outcome
    assert refused["full"] > 10
    again = engine.submit(DecodeRequest(1, "after", SOUNDS[1], language="en"))
    assert again.result(WAIT).tokens == alone[1]
    stats = engine.stats()
    assert (stats["waiting"], stats["running"]) == (0, 0)
    assert len(engine._batch) == engine._batch.rows == 0
    assert engine.close(WAIT)
