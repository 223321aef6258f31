"""/config: another model or language while calls go on."""

from __future__ import annotations

import gc
import json
import threading
import weakref

import numpy as np
import pytest
from fake_engine import VOCABULARY, FakeEngine, call_settings, floats, speech, spoken
from server_rig import WAIT, wait_until
from web_rig import END, WebRig, messages, pieces, say

from aii.errors import CheckpointError
from aii.servers.models import ChangeUnderWayError, Loaded, Models
from aii.servers.web import settings
from aii.streaming.factory import Sessions
from aii.types import DecodeRequest


def loaded(name: str, language: str | None = None, engine: FakeEngine | None = None) -> Loaded:
    sessions = Sessions(call_settings(language=language), VOCABULARY)
    return Loaded(name, engine or FakeEngine(), sessions, {"device": "none"})


def load(name: str, language: str | None, kept: Loaded | None) -> Loaded:
    return loaded(name, language, None if kept is None else kept.engine)  # type: ignore[arg-type]


@pytest.fixture
def all_offered(monkeypatch):
    monkeypatch.setattr(settings, "offered", lambda model: {n: n for n in ("fake", "other", model)})


def post(rig: WebRig, query: str) -> tuple[int, dict]:
    answer = rig.ask("POST", f"/config?{query}")
    return answer.status, json.loads(answer.content)


def test_the_language_changes_for_calls_that_begin_then():
    with WebRig() as rig:
        assert rig.get("/config")["language"] == "auto"
        with rig.ws("/ws?call_id=before") as ws:
            ws.send(np.zeros(8000, "<f4").tobytes())
            ws.recv(timeout=WAIT)
            assert post(rig, "lan=german")[1]["language"] == "de"
            say(rig, "/ws?call_id=after", np.zeros(16_000, np.float32))
            ws.send(np.zeros(8000, "<f4").tobytes())
            ws.send(END)
            messages(ws)
        asked = {(r.call_id, r.language) for r in rig.engine.requests}
        assert ("after", "de") in asked
        assert {language for call_id, language in asked if call_id == "before"} == {None}
        assert post(rig, "language=auto")[1]["language"] == "auto"
        assert rig.models.engines == 1


def test_a_running_call_ends_on_the_old_model_and_its_memory_is_given_back(all_offered):
    samples = speech(6, seed=3, longest=1.0)
    parts = list(pieces(floats(samples), 8000))
    with WebRig(load=load) as rig:
        old = rig.engine
        with rig.ws("/ws?call_id=before") as ws:
            for piece in parts[:4]:
                ws.send(piece.astype("<f4").tobytes())
                ws.recv(timeout=WAIT)
            status, said = post(rig, "model=other")
            assert (status, said["model"], said["models_in_memory"]) == (200, "other", 2)
            say(rig, "/ws?call_id=after", floats(speech(1)))
            for piece in parts[4:]:
                ws.send(piece.astype("<f4").tobytes())
                ws.recv(timeout=WAIT)
            ws.send(END)
            assert messages(ws)[-1]["text"].split() == spoken(samples).split()
        assert {request.call_id for request in old.requests} == {"before"}
        wait_until(lambda: rig.get("/config")["models_in_memory"] == 1)
        wait_until(lambda: old._closed)


@pytest.mark.parametrize(
    "query, said",
    [
        ("model=large-v3", "on the server's machine: aii models download large-v3"),
        ("model=/etc/passwd", "model '/etc/passwd' is not on this machine"),
        ("lan=klingon", "klingon"),
        ("lang=de", "no parameter is called 'lang'; there are lan, language and model"),
    ],
)
def test_what_cannot_be_had_changes_nothing(monkeypatch, tmp_path, query, said):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with WebRig() as rig:
        status, answer = post(rig, query)
        assert status == 400
        assert said in answer["error"]
        assert rig.get("/config")["model"] == "fake"


def test_a_model_that_fails_to_load_leaves_the_old_one(all_offered):
    with WebRig() as rig:
        assert post(rig, "model=other") == (
            400, {"status": "error", "error": "there is no model other"}
        )  # fmt: skip
        assert say(rig, "/ws", floats(speech(1)))


def test_only_one_change_at_a_time(all_offered):
    begun, go_on = threading.Event(), threading.Event()

    def slow(name: str, language: str | None, kept: Loaded | None) -> Loaded:
        begun.set()
        assert go_on.wait(WAIT)
        return load(name, language, kept)

    with WebRig(load=slow) as rig:
        first: list = []
        thread = threading.Thread(target=lambda: first.append(post(rig, "model=other")))
        thread.start()
        assert begun.wait(WAIT)
        assert post(rig, "lan=en")[0] == 409
        assert say(rig, "/ws", floats(speech(1)))  # calls go on while it loads
        go_on.set()
        thread.join(WAIT)
        assert first[0][0] == 200


def test_models_beside_the_configured_one_are_offered_by_name(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "none"))
    for name in ("a.pt", "b.pt", "c.txt"):
        (tmp_path / name).touch()
    path = str(tmp_path / "a.pt")
    assert settings.offered(path) == {
        "embedded": "embedded", "a.pt": path, "b.pt": str(tmp_path / "b.pt"), path: path,
    }  # fmt: skip


# -- Models ---------------------------------------------------------------------------------------


def request(call_id: str) -> DecodeRequest:
    return DecodeRequest(1, call_id, floats(speech(1)))


def test_a_replaced_engine_is_closed_and_forgotten_with_its_last_call():
    freed = threading.Event()
    models = Models(loaded("one"), load, freed=freed.set)
    old = weakref.ref(models.current.engine)
    models.bind("call")
    models.bind("call")  # its second leg
    models.change("two")
    assert models.submit(request("call")).result(WAIT).text == spoken(speech(1))
    models.release("call")
    assert models.of("call").name == "one"
    assert models.engines == 2
    models.release("call")
    assert models.of("call").name == "two"
    assert freed.wait(WAIT)
    gc.collect()
    wait_until(lambda: gc.collect() is not None and old() is None)
    assert models.engines == 1
    assert models.close(1)


def test_memory_is_given_back_again_once_its_last_holder_has_let_go():
    """As a call's thread that is just about to drop its session."""
    held: list[object] = []
    found: list[bool] = []

    def freed() -> None:
        gc.collect()
        found.append(old() is None)
        held.clear()

    models = Models(loaded("one"), load, freed=freed)
    held.append(models.current)
    old = weakref.ref(models.current.engine)
    models.change("two")
    wait_until(lambda: len(found) == 2)
    assert found == [False, True]
    assert models.close(1)


def test_a_change_of_language_keeps_the_engine():
    models = Models(loaded("one"), load)
    engine = models.current.engine
    models.change(language="en")
    assert models.current.language == "en"
    assert models.current.engine is engine
    models.change("two")  # what the old one spoke need not be what the new one speaks
    assert models.current.language is None
    models.change(language=None)
    models.release("nobody")
    assert models.close(1)


class Counting(FakeEngine):
    """An engine with counts of its own."""

    def __init__(self, **stats: float) -> None:
        super().__init__()
        self.told = stats

    def stats(self) -> dict[str, float]:
        return self.told


def test_counters_of_all_models_add_up_and_gauges_do_not():
    old = Counting(done=3, waiting=1, load=0.9, within=0.8, full=1.0, latency_p95=2.0)
    new = Counting(done=4, waiting=2, load=0.2, within=1.0, full=0.0, latency_p95=0.5)

    def load(name: str, language: str | None, kept: Loaded | None) -> Loaded:
        return Loaded(name, new, Sessions(call_settings(), VOCABULARY))

    models = Models(Loaded("one", old, Sessions(call_settings(), VOCABULARY)), load)
    assert models.no_room() == ""  # nobody is there
    models.bind("call")
    assert "full" in models.no_room()
    models.change("two")
    assert models.stats() == {
        "done": 7, "waiting": 3, "load": 0.9, "within": 0.8, "full": 1.0, "latency_p95": 2.0,
    }  # fmt: skip
    models.release("call")
    wait_until(lambda: models._retired)
    assert models.stats() == {**new.told, "done": 7}
    models.bind("another")
    assert models.no_room() == ""
    assert models.close(1)


def test_a_call_that_would_be_too_many_is_foreseen():
    now = 0.0
    engine = Counting(busy=0.0)
    only = Loaded("one", engine, Sessions(call_settings(), VOCABULARY))
    models = Models(only, lambda name, language, kept: only, clock=lambda: now)
    for number in range(10):
        models.bind(f"call-{number}")
        assert models.no_room() == ""  # nothing is known yet
    now = 100.0
    engine.told = {"busy": 0.7}
    assert models.no_room() == ""  # 11 calls: 0.77
    models.bind("leg")
    assert "with one call more" in models.no_room()  # 12: 0.84
    models.release("leg")
    assert models.no_room() == ""
    assert models.close(1)


def test_no_counter_falls_while_a_replaced_model_comes_to_rest():
    """Who watches counters takes one that falls for a server that was started anew."""
    go_on = threading.Event()

    class Slow(Counting):
        def close(self, timeout: float = 0.0) -> bool:
            assert go_on.wait(WAIT)
            return super().close(timeout)

    old, sessions = Slow(done=3, load=0.9), Sessions(call_settings(), VOCABULARY)
    models = Models(Loaded("one", old, sessions), load)
    models.change("two")
    assert models.engines == 1
    assert models.stats()["done"] == 3
    go_on.set()
    wait_until(lambda: models._retired)
    assert models.stats()["done"] == 3
    assert models.close(1)


def test_a_call_that_ends_while_the_server_stops_leaves_its_engine_to_be_closed():
    old, sessions = Counting(), Sessions(call_settings(), VOCABULARY)
    models = Models(Loaded("one", old, sessions), load)
    models.bind("call")
    models.change("two")
    models._closed = True  # close() has begun
    models.release("call")
    assert models.close(1)
    assert old._closed


def test_a_failed_change_changes_nothing():
    def fail(name: str, language: str | None, kept: Loaded | None) -> Loaded:
        raise CheckpointError("no")

    models = Models(loaded("one"), fail)
    with pytest.raises(CheckpointError):
        models.change("two")
    assert models.current.name == "one"
    models._changing.acquire()
    with pytest.raises(ChangeUnderWayError):
        models.change("two")
    assert models.close(1)


def test_the_embedded_models_memory_is_free_after_it_was_replaced(embedded_model):
    """With the real engine: nothing holds the network once its last call is over."""
    import copy

    from aii.engine.local import LocalEngine

    first = copy.deepcopy(embedded_model)
    network = weakref.ref(first)
    freed = threading.Event()
    sessions = Sessions(call_settings(language="en"), VOCABULARY)
    models = Models(Loaded("one", LocalEngine(first), sessions), load, freed=freed.set)
    del first
    models.bind("call")
    future = models.submit(DecodeRequest(1, "call", np.zeros(16_000, np.float32), language="en"))
    future.result(WAIT)
    models.change("two")
    assert network() is not None
    models.release("call")
    assert freed.wait(WAIT)
    wait_until(lambda: gc.collect() is not None and network() is None)
    assert models.close(1)


def test_a_body_is_refused_and_not_passed_over():
    with WebRig() as rig:
        answer = rig.ask("POST", "/config", b'{"lan": "de"}', content_type="application/json")
        assert answer.status == 400
        assert "as /config?lan=de; send no body" in json.loads(answer.content)["error"]
        assert rig.get("/config")["language"] == "auto"
