"""Integer layers in one operation, held against what they stand for, written out."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from aii import compute, packed
from aii.audio.pcm import slin_to_float
from aii.batch import Batch, run_alone
from aii.compute import convert
from aii.decoding import DecodingOptions, decode, detect_language
from aii.errors import ServiceError
from aii.layers import Linear
from aii.loops import decoding_steps
from aii.mel import log_mel_spectrogram
from aii.packed import PIECE, PackedEmbedding, PackedLinear, PackedPerceptron, packs
from aii.quantized import QuantizedEmbedding, QuantizedLinear, quantize
from aii.resources import asset
from aii.steps import Attach, Encode, run_plainly

pytestmark = [
    pytest.mark.usefixtures("either_way"),
    pytest.mark.skipif(
        not packs(),
        reason="this PyTorch or this CPU has no exact integer products in one operation",
    ),
]


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


def layers(k: int, n: int, **how: bool) -> tuple[QuantizedLinear, PackedLinear]:
    whole = QuantizedLinear.of(Linear(k, n))
    return whole, PackedLinear(whole, **how)


def by_hand(x: Tensor, layer: QuantizedLinear) -> Tensor:
    """What the operation is to give for rows (M, K) that share a step."""
    least, most = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
    step = (most - least) / 255
    zero = round(-least / step)
    rounded = ((x / step).round() + zero).clamp(0, 255) - zero
    product = rounded.double() @ layer.weight.double().T
    return (product * step * layer.scale.double() + layer.bias.double()).float()


@pytest.mark.parametrize(("rows", "k", "n"), [(1, 64, 96), (7, 64, 96), (300, 192, 64), (2, 33, 5)])
def test_frames_are_rounded_as_the_formula_says(rows, k, n) -> None:
    whole, layer = layers(k, n, apart=False)
    x = torch.randn(rows, k) * 3
    error = (layer(x) - by_hand(x, whole)).abs()
    assert (error < 1e-4).float().mean() > 0.99  # half a step may go either way
    assert error.max() < 0.1
    assert layer(x[None]).shape == (1, rows, n)


def test_no_window_is_rounded_by_the_step_of_another() -> None:
    _, layer = layers(64, 96, apart=False)
    x = torch.randn(3, 50, 64)
    x[1] *= 1000.0
    together = layer(x)
    for own, found in zip(x, together, strict=True):
        assert torch.equal(layer(own[None])[0], found)


@pytest.mark.parametrize("rows", [1, 2, 5, 40])
def test_tokens_are_near_the_written_out_layer_however_unlike_they_are(rows) -> None:
    whole, layer = layers(64, 96, apart=True)
    x = torch.randn(rows, 64) * torch.logspace(-2, 3, rows)[:, None]
    expected, found = whole(x), layer(x)
    scale = expected.sub(whole.bias).abs().amax(dim=-1, keepdim=True)
    assert ((found - expected).abs() <= 0.03 * scale).all()
    assert layer(x.bfloat16()[:, None]).shape == (rows, 1, 96)
    assert layer(x[:0]).shape == (0, 96)


def test_what_is_no_number_stays_none() -> None:
    whole, layer = layers(64, 96, apart=True)
    x = torch.randn(6, 64)
    for value in (float("nan"), float("inf"), -float("inf")):
        x[1, 3], x[3] = value, value
        found = layer(x)
        assert not found[[1, 3]].isfinite().all(dim=-1).any()
    x = torch.randn(3, 64)
    x[1] = 0.0
    assert torch.allclose(layer(x)[1], whole.bias, atol=1e-6)
    assert torch.allclose(layer(torch.zeros(3, 64)), whole.bias.expand(3, -1), atol=1e-6)


def test_a_decode_of_no_numbers_does_not_harm_those_beside_it(embedded_model) -> None:
    model = convert(copy.deepcopy(embedded_model), "int8")
    samples = slin_to_float(asset("sample_call.slin").read_bytes())

    def steps(number: int):
        options = DecodingOptions(language="en", fp16=False, sample_len=12)
        own = samples[64_000 * number : 64_000 * (number + 1)]
        features = yield Encode(log_mel_spectrogram(own, padding=16_000)[None])
        (found,) = yield from decoding_steps(model, features, options, None, None)
        return found

    alone = [run_alone(model, steps(number)) for number in range(3)]
    batch = Batch(model)
    tickets = [batch.add(steps(number)) for number in range(3)]
    while batch.listening:
        batch.encode()
    for keys, _ in tickets[1]._heard.layers:
        keys[:, :, 5] = float("nan")
    while len(batch):
        batch.step()
    assert isinstance(tickets[1].error, ServiceError)
    for number in (0, 2):
        assert tickets[number].result.tokens == alone[number].tokens
        assert tickets[number].result.avg_logprob == pytest.approx(
            alone[number].avg_logprob, abs=0.05
        )


@pytest.mark.parametrize("frames", [1, PIECE, PIECE + 1, 3 * PIECE + 7])
def test_a_perceptron_in_pieces(frames) -> None:
    own = [Linear(32, 128), nn.GELU(), Linear(128, 32)]
    first, last = (
        PackedLinear(QuantizedLinear.of(layer), apart=False) for layer in (own[0], own[2])
    )
    x = torch.randn(2, frames, 32)
    found = PackedPerceptron(first, nn.GELU(), last)(x)
    expected = nn.Sequential(*own)(x)
    assert found.shape == expected.shape
    assert float((found - expected).norm() / expected.norm()) < 0.03


@pytest.mark.parametrize("rows", [1, 4])
def test_scores_of_the_table(rows) -> None:
    table = quantize(torch.randn(500, 32))
    whole, found = QuantizedEmbedding(*table), PackedEmbedding(*table)
    hidden = torch.randn(rows, 1, 32) * torch.logspace(0, 3, rows)[:, None, None]
    expected = whole.project(hidden)
    scale = expected.abs().amax(dim=-1, keepdim=True)
    assert ((found.project(hidden) - expected).abs() <= 0.02 * scale).all()
    tokens = torch.tensor([[3, 499]])
    assert torch.equal(found(tokens), whole(tokens))
    some = found.some(torch.tensor([7, 8, 300]))
    assert isinstance(some, PackedEmbedding)
    near = found.project(hidden)[..., [7, 8, 300]]
    assert torch.allclose(some.project(hidden), near, atol=1e-3 * float(scale.max()))


def test_a_model_is_near_the_written_out_one(monkeypatch, embedded_model) -> None:
    fast = convert(copy.deepcopy(embedded_model), "int8")
    monkeypatch.setattr(compute, "packs", lambda: False)
    slow = convert(copy.deepcopy(embedded_model), "int8")
    kinds = [{type(m) for m in model.modules()} for model in (fast, slow)]
    assert PackedLinear in kinds[0]
    assert kinds[1].isdisjoint({PackedLinear, PackedPerceptron, PackedEmbedding})
    mel = torch.randn(1, 80, 500)
    tokens = torch.tensor([[50258, 50259, 50359, 50364, 4321]])
    features = [model.encoder(mel) for model in (fast, slow)]
    scores = [m.decoder(tokens, own) for m, own in zip((fast, slow), features, strict=True)]
    for one, other in (features, scores):
        assert float((one - other).norm() / other.norm()) < 0.05


@pytest.mark.parametrize("way", ["encode", "attach", "plainly", "decode", "language"])
def test_audio_that_becomes_no_numbers_is_an_error(embedded_model, way) -> None:
    model = convert(copy.deepcopy(embedded_model), "int8")
    spoilt = torch.randn(1, 80, 500)
    spoilt[:, :, 100:104] = float("nan")

    def steps():
        yield Attach(model.encoder(spoilt)) if way == "attach" else Encode(spoilt)

    ways = {
        "plainly": lambda: run_plainly(model, steps()),
        "decode": lambda: decode(model, spoilt[0], DecodingOptions(language="en", fp16=False)),
        "language": lambda: detect_language(model, spoilt[0]),
    }
    with pytest.raises(ServiceError, match="not finite"):
        ways.get(way, lambda: run_alone(model, steps()))()


def test_hooks_see_a_perceptron_as_it_is_otherwise(embedded_model) -> None:
    model = convert(copy.deepcopy(embedded_model), "int8")
    mel, seen = torch.randn(2, 80, 1500), []
    expected = model.encoder(mel)
    mlp = model.encoder.blocks[0].mlp
    for layer in mlp:
        layer.register_forward_hook(lambda layer, given, found: seen.append(found.shape[-2]))
    found = model.encoder(mel)
    assert seen == [750] * 6
    assert float((found - expected).norm() / expected.norm()) < 0.08


@pytest.mark.parametrize("trouble", ["saturating", "missing"])
def test_a_processor_or_a_pytorch_without_it_is_found_out(monkeypatch, trouble) -> None:
    def product(x, weights):
        if trouble == "missing":
            raise AttributeError("no such operation")
        return torch.full((len(x), 32), 1e4)

    monkeypatch.setattr(packed, "_product", product)
    assert not packs.__wrapped__()
