"""A pass by compiled loops, held against the same pass by PyTorch's operations."""

from __future__ import annotations

import importlib.abc
import logging
import random
import sys
from typing import Any

import pytest
import torch
from loops_rig import loops, needs_loops, network
from torch import nn

import aii
from aii import compiled, fused
from aii.audio.pcm import slin_to_float
from aii.batch import Batch, run_alone
from aii.compute import convert
from aii.decoding import DecodingOptions, decode
from aii.fused import Fused, fuses
from aii.loops import decoding_steps
from aii.mel import log_mel_spectrogram
from aii.model import Whisper
from aii.packed import packs
from aii.passes import ragged
from aii.plan import Part
from aii.ragged import Ragged
from aii.resources import asset
from aii.steps import Encode

pytestmark = pytest.mark.usefixtures("no_gradients")


# -- the pass ---------------------------------------------------------------------------------


def wishes(chance: random.Random, decoder: Ragged, audios: list[Any], size: int) -> list[Part]:
    """Parts of every kind, over rows that hold something already."""
    parts = []
    for _ in range(size):
        heard = decoder.hear(chance.choice(audios))
        number = len(heard.layers[0][0])
        rows = decoder.rows.take(number * chance.choice((1, 1, 3)))
        before = chance.choice((0, 2, 11))
        if before:
            past = [[chance.randrange(51865) for _ in range(before)]] * len(rows)
            decoder.run([Part(past, rows, 0, heard)])
        width = chance.choice((1, 1, 1, 2, 5, 20))
        tokens = [[chance.randrange(51865) for _ in range(width)] for _ in rows]
        parts.append(Part(tokens, rows, before, heard, attention=chance.choice((0, 0, 4))))
    return parts


KINDS = [
    "float32",
    "bfloat16",
    pytest.param(
        "int8",
        marks=pytest.mark.skipif(
            not packs(), reason="no exact integer products in one operation here"
        ),
    ),
]


@needs_loops
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(64, 2), (16, 3)])
@pytest.mark.parametrize("seed", range(3))
def test_a_pass_is_that_of_the_operations(kind, shape, seed) -> None:
    model = convert(network(*shape), kind)
    found = []
    for make in (Ragged, Fused):
        chance = random.Random(seed)
        torch.manual_seed(seed)
        decoder = make(model, 2, model.dtype)
        windows = [
            torch.randn(n, 80, frames) for n, frames in ((1, 40), (1, 40), (1, 300), (2, 60))
        ]
        audios = [model.encoder(mel.to(model.dtype)) for mel in windows]
        parts = wishes(chance, decoder, audios, 1 + 4 * seed)
        hidden = decoder.run(parts)
        assert hidden.dtype == model.dtype
        found.append((hidden.float(), [torch.cat(p.scores, 1) for p in parts if p.scores], parts))
    (expected, scores, parts), (hidden, own, _) = found
    limit = {"float32": 1e-4, "bfloat16": 0.1, "int8": 0.12}[kind]
    error = (hidden - expected).norm(dim=1) / expected.norm(dim=1)
    assert error.max() < limit
    assert len(own) == sum(bool(part.attention) for part in parts)
    for one, other in zip(own, scores, strict=True):
        assert one.shape == other.shape
        assert ((one - other).norm() / other.norm()) < limit


@needs_loops
@pytest.mark.parametrize("kind", KINDS)
def test_a_row_does_not_depend_on_those_beside_it_but_for_rounding(kind) -> None:
    model = convert(network(64, 2), kind)
    decoder = ragged(model, 1, model.dtype)
    assert isinstance(decoder, Fused)
    heard = decoder.hear(model.encoder(torch.randn(1, 80, 200).to(model.dtype)))
    prompts = [[5 * n + i for i in range(1 + n)] for n in range(6)]
    alone = [decoder.run([Part([p], decoder.rows.take(1), 0, heard)])[-1] for p in prompts]
    parts = [Part([p], decoder.rows.take(1), 0, heard) for p in prompts]
    ends = torch.tensor([len(p) for p in prompts]).cumsum(0) - 1
    together = decoder.run(parts)[ends].float()
    error = (together - torch.stack(alone).float()).norm(dim=1) / together.norm(dim=1)
    assert error.max() < {"float32": 1e-5, "bfloat16": 0.05, "int8": 0.12}[kind]


def windows(model: Whisper) -> list[torch.Tensor]:
    audio = slin_to_float(asset("sample_call.wav").read_bytes()[44:])
    pieces = [audio[16000 * n : 16000 * (n + 5)] for n in range(0, 25, 5)]
    return [log_mel_spectrogram(piece, model.dims.n_mels)[None].to(model.dtype) for piece in pieces]


@needs_loops
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("beam_size", [None, 3])
def test_the_sample_call_has_the_same_words(kind, beam_size, monkeypatch) -> None:
    from aii import load_model

    said = []
    for there in (True, False):
        with monkeypatch.context() as patch:
            if not there:
                patch.setattr(fused, "kernels", lambda: None)
            model = load_model("embedded", device="cpu", compute_type=kind)
            assert fuses(model) == there
            options = DecodingOptions(language="en", fp16=False, beam_size=beam_size, sample_len=12)
            batch = Batch(model)

            def one(mel, options=options, model=model):
                features = yield Encode(mel)
                return (yield from decoding_steps(model, features, options))

            tickets = [batch.add(one(mel)) for mel in windows(model)]
            while not all(ticket.done for ticket in tickets):
                batch.step()
            said.append([[own.text for own in ticket.result] for ticket in tickets])
    assert said[0] == said[1]
    assert any(text for (text,) in said[0])


@needs_loops
def test_nothing_is_compiled_for_a_call(monkeypatch) -> None:
    """All that a pass needs is compiled when a model is loaded."""
    names = "norm level unlevel gelu over_audio over_text stand soften likeliest".split()
    compiled.kernels.__wrapped__()
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)  # the encoder uses a loop, too
    before = {name: len(getattr(loops, name).signatures) for name in names}
    for kind in ("float32", "bfloat16", "int8" if packs() else "float32"):
        model = convert(network(64, 1, layers=1), kind)
        decode(
            model, torch.randn(2, 80, 3000), DecodingOptions(fp16=False, sample_len=4, beam_size=2)
        )
        decode(model, torch.randn(80, 3000), DecodingOptions(fp16=False, sample_len=4))
    assert {name: len(getattr(loops, name).signatures) for name in names} == before


# -- where there are none ---------------------------------------------------------------------


def test_without_numba_there_are_no_loops(monkeypatch, caplog) -> None:
    monkeypatch.delattr(aii, "kernels", raising=False)
    monkeypatch.setitem(sys.modules, "aii.kernels", None)
    assert compiled.kernels.__wrapped__() is None
    assert caplog.records == []


class Damaged(importlib.abc.MetaPathFinder):
    """A library that is there and cannot be loaded."""

    def find_spec(self, name: str, *_: object) -> None:
        if name == "aii.kernels":
            raise OSError("libllvmlite.so: cannot open shared object file")


def test_a_numba_that_cannot_be_loaded_is_left_out_with_a_line(monkeypatch, caplog) -> None:
    monkeypatch.delattr(aii, "kernels", raising=False)
    monkeypatch.delitem(sys.modules, "aii.kernels", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Damaged(), *sys.meta_path])
    assert compiled.kernels.__wrapped__() is None
    (record,) = caplog.records
    assert "(OSError: libllvmlite.so: cannot open" in record.getMessage()


@needs_loops
@pytest.mark.parametrize("trouble", ["wrong", "error"])
def test_loops_that_go_wrong_are_left_out_with_a_line(trouble, monkeypatch, caplog) -> None:
    def broken(*args: object) -> None:
        if trouble == "error":
            raise TypeError("numba needs another numpy\nand a second line")

    monkeypatch.setattr(loops, "over_text", broken)
    with caplog.at_level(logging.WARNING, "aii.compiled"):
        assert compiled.kernels.__wrapped__() is None
    (record,) = caplog.records
    reason = "TypeError: numba needs another numpy" if trouble == "error" else "over_text"
    assert f"({reason})" in record.getMessage()


@needs_loops
def test_networks_that_are_not_quite_whispers_go_by_operations(monkeypatch) -> None:
    assert isinstance(ragged(network(64, 1)), Fused)
    approximate = network(64, 1)
    approximate.decoder.blocks[0].mlp[1] = nn.GELU(approximate="tanh")
    other = network(64, 1)
    other.decoder.ln = nn.LayerNorm(64)
    active, plain_norm, longer, watched = (network(64, 1) for _ in range(4))
    active.decoder.blocks[0].mlp[1] = nn.ReLU()
    plain_norm.decoder.blocks[0].mlp_ln.bias = None
    longer.decoder.blocks[0].mlp.append(nn.Dropout(0.0))
    watched.decoder.ln.register_forward_hook(lambda *_: None)
    for model in (approximate, other, active, plain_norm, longer, watched):
        assert type(ragged(model)) is Ragged
    assert not fuses(network(64, 1), torch.float16)
    with monkeypatch.context() as patch:
        patch.setattr(fused, "kernels", lambda: None)
        assert type(ragged(network(64, 1))) is Ragged


@needs_loops
def test_weights_that_change_are_seen_by_the_next_decode() -> None:
    model = network(64, 1)

    def steps():
        options = DecodingOptions(language="en", fp16=False, sample_len=3)
        heard = yield Encode(mel)
        return (yield from decoding_steps(model, heard, options))

    mel = torch.randn(1, 80, 100)
    before = run_alone(model, steps())[0]
    for weight in (model.decoder.ln.weight, model.decoder.blocks[0].mlp[0].weight):
        weight.copy_(torch.randn_like(weight))
    after = run_alone(model, steps())[0]
    assert before.avg_logprob != after.avg_logprob
