"""The encoder beside the decoder: the same answers, and nothing held up or lost."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from aii.batch import Encoding
from aii.engine.beside import Beside
from aii.engine.local import LocalEngine
from aii.errors import EngineClosedError
from aii.types import DecodeRequest

WAIT = 60.0
SHORT = {"sample_len": 12, "temperatures": (0.0,), "audio_context": "auto"}


def request(number: int, call_id: str = "c", seconds: float = 1.0) -> DecodeRequest:
    samples = np.random.default_rng(number).normal(0, 0.1, round(16000 * seconds))
    return DecodeRequest(number, call_id, samples.astype(np.float32), language="en", options=SHORT)


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def answers(model, threads: int) -> list[tuple[list[int], float]]:
    engine = LocalEngine(model, threads=threads)
    try:
        futures = [engine.submit(request(n, f"{n}", 0.5 + n % 4)) for n in range(12)]
        heard = [future.result(WAIT) for future in futures]
        assert engine.stats()["encoded"] == 12
    finally:
        assert engine.close(WAIT)
    return [(list(one.tokens), one.avg_logprob) for one in heard]


def test_the_answers_are_those_of_one_thread(tiny_model) -> None:
    one, two = answers(tiny_model, 1), answers(tiny_model, 2)
    assert [tokens for tokens, _ in one] == [tokens for tokens, _ in two]
    assert [p for _, p in one] == pytest.approx([p for _, p in two], abs=1e-4)


class Slow:
    """Holds up every encoding until told."""

    def __init__(self, monkeypatch) -> None:
        self.begun, self.go = threading.Semaphore(0), threading.Semaphore(0)
        self.threads: list[str] = []
        run = Encoding.run

        def wait(encoding: Encoding) -> None:
            self.threads.append(threading.current_thread().name)
            self.begun.release()
            assert self.go.acquire(timeout=WAIT)
            run(encoding)

        monkeypatch.setattr(Encoding, "run", wait)


def test_words_come_while_another_window_is_encoded(tiny_model, monkeypatch) -> None:
    slow = Slow(monkeypatch)
    engine = LocalEngine(tiny_model, threads=2)
    first = engine.submit(request(1, "a"))
    assert slow.begun.acquire(timeout=WAIT)
    slow.go.release()
    second = engine.submit(request(2, "b", seconds=2.0))
    assert slow.begun.acquire(timeout=WAIT)  # and is not let go
    assert first.result(WAIT).request_id == 1
    assert not second.done()
    slow.go.release()
    assert second.result(WAIT).request_id == 2
    assert engine.close(WAIT)
    assert all(name.startswith("aii-encoder") for name in slow.threads)


def test_a_call_can_leave_while_it_is_encoded(tiny_model, monkeypatch) -> None:
    slow = Slow(monkeypatch)
    engine = LocalEngine(tiny_model, threads=2)
    gone = engine.submit(request(1, "gone"))
    assert slow.begun.acquire(timeout=WAIT)
    assert engine.cancel("gone") == 1
    stays = engine.submit(request(2, "stays"))
    slow.go.release()
    slow.go.release()
    assert stays.result(WAIT).request_id == 2
    assert gone.cancelled()
    assert engine.close(WAIT)


def test_an_encoding_that_fails_fails_alone(tiny_model, monkeypatch) -> None:
    encoder = tiny_model.encoder.forward

    def spoilt(mel):
        if mel.shape[-1] > 500:
            raise RuntimeError("no memory")
        return encoder(mel)

    monkeypatch.setattr(tiny_model.encoder, "forward", spoilt)
    engine = LocalEngine(tiny_model, threads=2)
    bad, good = engine.submit(request(1, "bad", seconds=6.0)), engine.submit(request(2, "good"))
    with pytest.raises(RuntimeError, match="no memory"):
        bad.result(WAIT)
    assert good.result(WAIT).request_id == 2
    assert engine.close(WAIT)


def test_closing_does_not_wait_for_a_long_encoding_but_says_so(tiny_model, monkeypatch) -> None:
    slow = Slow(monkeypatch)
    engine = LocalEngine(tiny_model, threads=2)
    future = engine.submit(request(1))
    assert slow.begun.acquire(timeout=WAIT)
    assert not engine.close(0.05)
    with pytest.raises(EngineClosedError):
        future.result(WAIT)
    slow.go.release()
    assert engine.close(WAIT)


def test_the_decoder_gets_few_threads_while_the_encoder_works(tiny_model, monkeypatch) -> None:
    given: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", given.append)
    done = threading.Event()
    beside = Beside(tiny_model, 8, done.set)
    release = threading.Event()

    class Windows:
        tickets: tuple[()] = ()

        def run(self) -> None:
            assert release.wait(WAIT)

    beside.start(Windows(), reading=True)  # type: ignore[arg-type]
    beside.before_reading()
    beside.before_reading()
    assert beside.busy
    assert not beside.done
    assert beside.take() is None
    release.set()
    assert done.wait(WAIT)
    assert beside.take() is not None
    assert not beside.busy
    beside.close()
    assert sorted(given) == [2, 6]
