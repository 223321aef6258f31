"""Nothing is left on the CPU where the network is on a GPU: shown on a GPU that is not there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from pretend_gpu import GPU, Graph, OnGpu, PretendGpu, pinned, pretend_gpu

from aii import load_model
from aii.audio.pcm import slin_to_float
from aii.batch import Batch
from aii.decoding import DecodingOptions, decode, detect_language
from aii.engine.local import LocalEngine
from aii.fallback import encoding
from aii.loops import decoding_steps
from aii.mel import log_mel_spectrogram, pad_or_trim
from aii.model import Whisper
from aii.resources import asset
from aii.transcribe import transcribe
from aii.types import AttentionStop, DecodeRequest

WAIT = 120.0
AUDIO = slin_to_float(asset("sample_call.wav").read_bytes()[44:])[: 16000 * 9]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with pretend_gpu(monkeypatch), torch.no_grad():
        yield


@pytest.fixture
def model(gpu: None) -> Whisper:
    return load_model("embedded", device="cuda")


def test_the_pretence_is_strict(gpu: None) -> None:
    here, there = torch.ones(3), torch.ones(3, device="cuda")
    assert there.device == GPU
    assert isinstance(there + 1, OnGpu)
    assert isinstance(there[torch.tensor([0, 2])], OnGpu)
    assert isinstance(here.to("cuda"), OnGpu)
    assert not isinstance(there.cpu(), OnGpu)
    assert (there + torch.tensor(2.0)).tolist() == [3.0] * 3
    for mixed in (
        lambda: here + there,
        lambda: torch.cat([here, there]),
        lambda: here[torch.tensor([1], device="cuda")],
        lambda: torch.nn.functional.linear(there, torch.ones(2, 3)),
    ):
        with pytest.raises(RuntimeError, match="on the CPU and on the GPU"):
            mixed()
    with pytest.raises(TypeError, match="numpy"):
        there.numpy()


def test_a_recording_takes_nothing_from_the_processor(gpu: None) -> None:
    there = torch.arange(4.0, device="cuda")
    stream = torch.cuda.Stream()
    refused = {
        "a number": lambda: there.sum().item(),
        "a decision": lambda: bool((there > 1).any()),
        "a whole number": lambda: int(there[1]),
        "a copy": lambda: there.cpu(),
        "a copy by name": lambda: there.to("cpu"),
        "a list as index": lambda: there[[0, 2]],
        "a mask as index": lambda: there[there > 1],
        "places": lambda: torch.where(there > 1),
        "a tensor of numbers": lambda: torch.tensor([1, 2], device="cuda"),
        "what is on the processor": lambda: there + torch.ones(4),
    }
    for ask in refused.values():
        graph = torch.cuda.CUDAGraph()
        stream.wait_stream(torch.cuda.current_stream(GPU))
        capture = torch.cuda.graph(
            graph, pool=None, stream=stream, capture_error_mode="thread_local"
        )
        refusal = pytest.raises(RuntimeError, match="capturing|on the CPU and on the GPU")
        with torch.cuda.stream(stream), capture, refusal:
            ask()


def test_all_weights_are_there(model: Whisper) -> None:
    assert model.device == GPU
    weights = model.state_dict().values()
    assert len(weights) > 100
    assert all(isinstance(weight, OnGpu) for weight in weights)


OPTIONS: list[dict[str, Any]] = [
    {},
    {"beam_size": 3},
    {"temperature": 0.5, "best_of": 2},
    {"language": None},
    {"prompt": [1000, 1001], "without_timestamps": True},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_decoding(model: Whisper, options: dict[str, Any]) -> None:
    mel = pad_or_trim(log_mel_spectrogram(AUDIO[:48000], device="cuda"), 300)
    wanted = DecodingOptions(**{"language": "en", "fp16": False, "sample_len": 20, **options})
    found = decode(model, torch.stack([mel, mel]), wanted)
    plain = load_model("embedded", device="cpu")
    expected = decode(plain, torch.stack([mel, mel]).cpu(), wanted)
    if not options.get("temperature"):
        assert [one.tokens for one in found] == [one.tokens for one in expected]
    assert isinstance(found[0].audio_features, OnGpu)
    language, _ = detect_language(model, mel)
    assert isinstance(language, OnGpu)


@pytest.mark.parametrize("fp16", [False, True])
def test_a_recording_with_the_times_of_words(model: Whisper, fp16: bool) -> None:
    options: dict[str, Any] = {"word_timestamps": True, "temperature": 0.0}
    found = transcribe(model, AUDIO, fp16=fp16, **options)
    plain = load_model("embedded", device="cpu")
    expected = transcribe(plain, AUDIO, fp16=False, **options)
    assert found["text"] == expected["text"]
    if not fp16:
        for one, other in zip(found["segments"], expected["segments"], strict=True):
            assert one["tokens"] == other["tokens"]
            assert [word["start"] for word in one["words"]] == [w["start"] for w in other["words"]]


REQUESTS: list[dict[str, Any]] = [
    {},
    {"options": {"word_timestamps": True}},
    {"options": {"beam_size": 2}},
    {"options": {"temperatures": (0.7,)}},
    {"language": None},
    {"draft": (50364, 1000, 1001)},
    {"stop": AttentionStop(threshold=10, rewind=None, max_tokens=20)},
    {"options": {"kv_cache": False, "sample_len": 4}},
]


@pytest.mark.parametrize("kind", ["float32", "float16", "bfloat16"])
def test_calls(kind: str, gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows of every kind side by side, as a server decodes them."""
    run = LocalEngine._run

    def on_gpu(engine: LocalEngine) -> None:
        with PretendGpu():  # of each thread
            run(engine)

    monkeypatch.setattr(LocalEngine, "_run", on_gpu)
    model = load_model("embedded", device="cuda", compute_type=kind)
    engine = LocalEngine(model, options={"temperatures": (0.0,), "sample_len": 30})
    plain = LocalEngine(
        load_model("embedded", device="cpu"), options={"temperatures": (0.0,), "sample_len": 30}
    )

    def ask(of: LocalEngine) -> list[Any]:
        futures = []
        for number, fields in enumerate(REQUESTS):
            audio = np.ascontiguousarray(AUDIO[16000 * (number % 3) : 16000 * (4 + number % 4)])
            wanted = {"language": "en", **fields}
            futures.append(of.submit(DecodeRequest(number, f"call {number}", audio, **wanted)))
        return [future.result(WAIT) for future in futures]

    found, expected = ask(engine), ask(plain)
    assert sum(graph.replays for graph in Graph.made) > len(Graph.made) > 2
    assert model.decoder.graphs  # nothing went wrong with one
    assert engine.close(WAIT)
    assert plain.close(WAIT)
    for one, other, fields in zip(found, expected, REQUESTS, strict=True):
        if kind == "float32" and "temperatures" not in fields.get("options", {}):
            assert [(t.id, t.frame, t.span) for t in one.tokens] == [
                (t.id, t.frame, t.span) for t in other.tokens
            ]
            assert [t.logprob for t in one.tokens] == pytest.approx(
                [t.logprob for t in other.tokens], abs=2e-5
            )
        assert one.tokens


def test_windows_are_encoded_side_by_side_and_copied_from_pinned_memory(
    model: Whisper, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes = []
    encoder = model.encoder.forward

    def spy(x: torch.Tensor) -> torch.Tensor:
        shapes.append(tuple(x.shape))
        return encoder(x)

    def window(number: int) -> Any:
        mel = pad_or_trim(log_mel_spectrogram(AUDIO[16000 * number :]), 300)
        options = DecodingOptions(language="en", fp16=False, sample_len=3)
        step = encoding(model, mel, options)
        features = yield step
        return (yield from decoding_steps(model, features, options))

    monkeypatch.setattr(model.encoder, "forward", spy)
    pinned.clear()
    batch = Batch(model)
    tickets = [batch.add(window(number)) for number in range(5)]
    assert pinned == [24000] * 5
    while not all(ticket.done for ticket in tickets):
        batch.step()
    assert [ticket.error for ticket in tickets] == [None] * 5
    assert shapes == [(5, 80, 300)]
