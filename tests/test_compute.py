"""Compute types: what they are called, where they go, and how near they are to float32."""

from __future__ import annotations

import copy

import pytest
import torch

from aii import compute, quantized
from aii.audio.pcm import slin_to_float
from aii.batch import run_alone
from aii.compute import (
    COMPUTE_TYPES,
    PREPARED_SHAPES,
    convert,
    limit_prepared_shapes,
    resolve,
)
from aii.decoding import DecodingOptions, decode, detect_language
from aii.engine.hearing import hear, hearing
from aii.errors import ConfigError
from aii.layers import Linear
from aii.mel import log_mel_spectrogram
from aii.quantized import CHUNK, QuantizedEmbedding, QuantizedLinear, quantize
from aii.resources import asset
from aii.steps import run_plainly
from aii.types import AttentionStop, DecodeRequest

CPU, GPU = torch.device("cpu"), torch.device("cuda")
CONVERTED = [
    "bfloat16",
    pytest.param(
        "int8",
        marks=pytest.mark.skipif(
            not quantized.exact(CPU), reason="this CPU has no exact products of 8-bit integers"
        ),
    ),
]


# -- integers ---------------------------------------------------------------------------------


def test_quantized_weights_are_within_half_a_step() -> None:
    weight = torch.randn(7, 40) * torch.logspace(-3, 3, 7)[:, None]
    integers, scale = quantize(weight)
    assert integers.dtype == torch.int8
    error = (integers * scale[:, None] - weight).abs()
    assert (error <= scale[:, None] * 0.501).all()
    assert integers.abs().amax(dim=1).eq(127).all()
    zeros, scale = quantize(torch.zeros(2, 3))
    assert zeros.eq(0).all()
    assert scale.gt(0).all()


@pytest.mark.parametrize("rows", [1, 5, CHUNK, CHUNK + 1, 3 * CHUNK])
def test_a_quantized_layer_is_near_the_layer(rows) -> None:
    layer = Linear(64, 96)
    x = torch.randn(rows, 64) * torch.logspace(-2, 2, rows)[:, None]
    expected = layer(x)
    found = QuantizedLinear.of(layer)(x)
    assert found.dtype == torch.float32
    scale = expected.sub(layer.bias).abs().amax(dim=-1, keepdim=True)
    assert ((found - expected).abs() <= 0.03 * scale).all()
    assert QuantizedLinear.of(layer, torch.bfloat16)(x[None]).shape == (1, rows, 96)
    assert QuantizedLinear.of(layer, torch.bfloat16)(x).dtype == torch.bfloat16


def test_a_row_does_not_depend_on_the_others() -> None:
    layer = QuantizedLinear.of(Linear(64, 96))
    x = torch.randn(300, 64)
    x[7] *= 1e4
    x[9] = float("nan")
    x[11] = 0.0
    together = layer(x)
    for row in (0, 7, 8, 200):
        assert torch.equal(layer(x[row : row + 1])[0], together[row])
    assert together[9].isnan().all()
    assert not together[:9].isnan().any()
    assert torch.equal(together[11], layer.bias)


def test_joined_layers_give_what_each_gives() -> None:
    layers = [QuantizedLinear.of(Linear(32, n, bias=b)) for n, b in ((8, True), (16, False))]
    x = torch.randn(3, 32)
    expected = torch.cat([layer(x) for layer in layers], dim=-1)
    whole = QuantizedLinear.joined(layers)
    assert torch.equal(whole(x), expected)
    assert torch.equal(torch.cat([layer(x) for layer in layers], dim=-1), expected)
    assert layers[1].weight.data_ptr() == whole.weight[8:].data_ptr()  # no second copy


def test_the_table_of_tokens() -> None:
    table = torch.randn(50, 32)
    embedding = QuantizedEmbedding(*quantize(table))
    tokens = torch.tensor([[3, 4], [49, 0]])
    assert torch.allclose(embedding(tokens), table[tokens], atol=0.02)
    hidden = torch.randn(2, 1, 32)
    scores = embedding.project(hidden)
    assert scores.shape == (2, 1, 50)
    assert torch.allclose(scores, hidden @ table.T, atol=0.4)


# -- names ------------------------------------------------------------------------------------


def test_what_auto_means(monkeypatch) -> None:
    def auto(native: bool, exact: bool) -> str:
        monkeypatch.setattr(compute, "native_bfloat16", lambda: native)
        monkeypatch.setattr(compute, "exact", lambda device: exact)
        return resolve("auto", CPU)

    assert auto(True, True) == auto(True, False) == "bfloat16"
    assert auto(False, True) == "int8"
    assert auto(False, False) == "float32"
    assert resolve("auto", GPU) == "float16"


@pytest.mark.parametrize(
    ("name", "device", "message"),
    [
        ("int4", CPU, "must be one of auto, float32"),
        ("float16", CPU, "is for GPUs"),
        ("int8", GPU, "is for CPUs"),
    ],
)
def test_refusals(name, device, message) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve(name, device)


def test_an_inexact_processor_is_found_out(monkeypatch) -> None:
    def saturating(a, b):
        return (a.long() @ b.long()).clamp(-(2**15), 2**15 - 1).int()

    monkeypatch.setattr(torch, "_int_mm", saturating)
    assert not quantized.exact(CPU)
    with pytest.raises(ConfigError, match="no exact products"):
        resolve("int8", CPU)


# -- models -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def converted(embedded_model):
    """The embedded model in another compute type."""
    made: dict = {}

    def of(compute_type: str):
        if compute_type not in made:
            made[compute_type] = convert(copy.deepcopy(embedded_model), compute_type)
        return made[compute_type]

    return of


@pytest.fixture(scope="module")
def windows():
    samples = slin_to_float(asset("sample_call.slin").read_bytes())
    return [samples[begin : begin + 64_000] for begin in range(0, 512_000, 64_000)]


@pytest.mark.parametrize("compute_type", CONVERTED)
@torch.no_grad()
def test_encoded_audio_and_scores_are_near(
    embedded_model, converted, windows, compute_type
) -> None:
    model = converted(compute_type)
    assert model.compute_type == compute_type
    tokens = torch.tensor([[50258, 50259, 50359, 50364, 4321]])
    for samples in windows[:3]:
        mel = log_mel_spectrogram(samples, padding=16_000)[None]
        expected, found = embedded_model.encoder(mel), model.encoder(mel.to(model.dtype))
        assert found.dtype == model.dtype
        assert _distance(found, expected) < 0.05
        scores = model.decoder(tokens, found)
        assert scores.dtype == torch.float32
        assert _distance(scores, embedded_model.decoder(tokens, expected)) < 0.05


def _distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.float() - expected).norm() / expected.norm())


@pytest.mark.parametrize("compute_type", CONVERTED)
def test_the_text_is_nearly_the_same(embedded_model, converted, windows, compute_type) -> None:
    options = {"audio_context": "auto", "temperatures": (0.0,), "without_timestamps": True}
    model, wrong, total = converted(compute_type), 0, 0
    for number, samples in enumerate(windows):
        ask = DecodeRequest(number, "c", samples, language="en", options=options)
        expected, found = (hear(m, ask, {}) for m in (embedded_model, model))
        assert found["avg_logprob"] == pytest.approx(expected["avg_logprob"], abs=0.25)
        assert found["no_speech_prob"] == pytest.approx(expected["no_speech_prob"], abs=0.1)
        words, heard = ([t.id for t in told["tokens"]] for told in (expected, found))
        total += len(words)
        wrong += sum(a != b for a, b in zip(words, heard, strict=False))
        wrong += abs(len(words) - len(heard))
    assert total > 20
    assert wrong <= 0.1 * total


@pytest.mark.parametrize("compute_type", CONVERTED)
def test_every_way_of_decoding(converted, windows, compute_type) -> None:
    model = converted(compute_type)
    for more in (
        {},
        {"options": {"beam_size": 2}},
        {"options": {"word_timestamps": True}},
        {"language": None},
        {"draft": (50364, 440, 11, 50464)},
        {"stop": AttentionStop(threshold=4), "prefix": (7751,)},
    ):
        ask = DecodeRequest(1, "c", windows[1], **{"language": "en", **more})
        defaults = {"audio_context": "auto", "temperatures": (0.0,)}
        found = run_alone(model, hearing(model, ask, defaults))
        plain = run_plainly(model, hearing(model, ask, defaults))
        assert found["avg_logprob"] == pytest.approx(plain["avg_logprob"], abs=0.2)
        assert found["language"] == plain["language"]
    mel = log_mel_spectrogram(windows[1], padding=16_000)
    assert decode(model, mel, DecodingOptions(language="en", fp16=False)).text
    assert decode(model, mel, DecodingOptions(language="en")).text
    _, odds = detect_language(model, mel)
    assert sum(odds.values()) == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("compute_type", CONVERTED)
def test_it_takes_less_memory(embedded_model, converted, compute_type) -> None:
    def size(model) -> int:
        tensors = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes()
                   for t in (*model.parameters(), *model.buffers())
                   if t.layout == torch.strided}  # fmt: skip
        return sum(tensors.values())

    share = {"bfloat16": 0.52, "int8": 0.32}[compute_type]
    assert size(converted(compute_type)) < share * size(embedded_model)


def test_a_model_is_converted_once(converted) -> None:
    model = converted("bfloat16")
    assert convert(model, "bfloat16") is model
    with pytest.raises(ConfigError, match="computes in bfloat16 already"):
        convert(model, "float32")


def test_float32_changes_nothing(tiny_model) -> None:
    model = copy.deepcopy(tiny_model)
    assert convert(model, "float32") is model
    assert model.compute_type == "float32"
    for one, other in zip(model.parameters(), tiny_model.parameters(), strict=True):
        assert torch.equal(one, other)
    assert "auto" in COMPUTE_TYPES


def test_a_server_keeps_few_prepared_shapes_unless_told() -> None:
    environment = {"LRU_CACHE_CAPACITY": "7"}
    limit_prepared_shapes(environment)
    assert environment["LRU_CACHE_CAPACITY"] == "7"
    assert environment["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == str(PREPARED_SHAPES)
