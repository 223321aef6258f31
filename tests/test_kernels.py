"""The compiled loops, each held against PyTorch's operations."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from loops_rig import loops, needs_loops
from torch import nn

from aii import attention, search
from aii.compiled import memory
from aii.search import likeliest

pytestmark = pytest.mark.usefixtures("no_gradients")


@needs_loops
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("frames", "width"), [(1, 64), (7, 64), (1500, 64), (33, 16), (250, 80)])
def test_attention_over_audio(frames, width, dtype) -> None:
    q = torch.randn(5, 3 * width)
    keys, values = (torch.randn(4, 3, frames, width).to(dtype) for _ in range(2))
    lines, places = np.array([3, 0, 4]), np.array([2, 2, 0])
    out = torch.full((5, 3 * width), 7.0)
    kept = np.zeros((3, 2, frames), np.float32)
    scale = np.float32(width**-0.5)
    where = (lines, places, memory(keys), memory(values), out.numpy())
    loops.over_audio(q.numpy(), scale, *where, np.array([2, 0]), kept)
    here = q[lines].view(3, 3, 1, width)
    scores = here @ keys[places].float().transpose(-1, -2) * scale
    expected = (scores.softmax(-1) @ values[places].float()).flatten(1)
    assert torch.allclose(out[lines], expected, atol=2e-6)
    assert torch.equal(out[[1, 2]], torch.full((2, 3 * width), 7.0))
    assert np.allclose(kept, scores[:, [2, 0], 0], atol=2e-5)


@needs_loops
def test_scores_far_apart_and_far_from_nought() -> None:
    q = torch.full((1, 64), 40.0)
    keys = torch.zeros(1, 1, 4, 64)
    keys[0, 0, :, 0] = torch.tensor([-1e4, 99.0, 100.0, -3e3])
    values = torch.eye(4, 64)[None, None]
    out = np.empty((1, 64), np.float32)
    none, kept = np.empty(0, np.int64), np.empty((1, 0, 4), np.float32)
    first = np.zeros(1, np.int64)
    where = (first, first, keys.numpy(), values.numpy(), out)
    loops.over_audio(q.numpy(), np.float32(0.1), *where, none, kept)
    weights = torch.tensor([-4e4, 396.0, 400.0, -1.2e4]).softmax(0)
    assert np.allclose(out[0, :4], weights, atol=1e-6)


@needs_loops
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_stays_with_its_row(poison) -> None:
    x = np.random.default_rng(1).standard_normal((3, 64), np.float32)
    x[1, 5] = poison
    weight, own, out = np.ones(64, np.float32), np.empty(3, np.float32), np.empty_like(x)
    for levelling in (False, True):
        loops.norm(x.copy(), x[:0], weight, weight, np.float32(1e-5), out, own, levelling)
        assert not np.isfinite(out[1]).all()
        assert np.isfinite(out[[0, 2]]).all()
    loops.level(x, out, own)
    with np.errstate(invalid="ignore"):
        assert not np.isfinite(out[1] * own[1]).any()
    assert np.isfinite(out[[0, 2]]).all()
    keys = values = np.ones((3, 1, 9, 64), np.float32)
    line, none = np.arange(3), np.empty(0, np.int64)
    where = (line, line, keys, values, out, none, np.empty((3, 0, 9), np.float32))
    loops.over_audio(x, np.float32(1), *where)
    assert np.isnan(out[1]).all()
    assert np.isfinite(out[[0, 2]]).all()


@needs_loops
def test_normalisation_activation_and_levels() -> None:
    h, more = torch.randn(4, 48) * 30 + 5, torch.randn(4, 48)
    norm = nn.LayerNorm(48)
    norm.weight.normal_()
    norm.bias.normal_()
    numbers = (norm.weight.numpy(), norm.bias.numpy(), np.float32(norm.eps))
    expected, found, own = norm(h + more), torch.empty_like(h), np.empty(4, np.float32)
    stream = h.clone()
    loops.norm(stream.numpy(), more.numpy(), *numbers, found.numpy(), own, False)
    assert torch.equal(stream, h + more)
    assert torch.allclose(found, expected, atol=2e-6)
    loops.norm(h.clone().numpy(), more.numpy(), *numbers, found.numpy(), own, True)
    assert torch.allclose(found.abs().amax(1), torch.ones(4))
    assert torch.allclose(found * torch.from_numpy(own)[:, None], expected, atol=2e-5)

    x = torch.linspace(-12, 12, 4096).view(2, -1)
    found = x.clone()
    loops.gelu(found.numpy(), own, False)
    assert torch.allclose(found.double(), F.gelu(x.double()), atol=5e-7)

    rows = torch.randn(3, 40) * torch.tensor([1e-8, 1.0, 1e8])[:, None]
    rows[0] = 0.0
    level, own = torch.empty_like(rows), np.empty(3, np.float32)
    loops.level(rows.numpy(), level.numpy(), own)
    product, bias = level @ torch.eye(40) + 2.0, np.full(40, 2.0, np.float32)
    loops.unlevel(product.numpy(), own, bias)
    assert torch.allclose(product, rows + 2.0, rtol=1e-5)


@needs_loops
def test_audio_stands_as_the_nearest_bfloat16() -> None:
    x = torch.randn(70, 96) * torch.logspace(-30, 30, 70)[:, None]
    x[3, 5], x[4, 6], x[5, 7] = torch.nan, torch.inf, -torch.inf
    out = torch.empty(3, 70, 32, dtype=torch.bfloat16)
    loops.stand(x.numpy(), memory(out))
    expected = x.view(70, 3, 32).transpose(0, 1).bfloat16()
    assert torch.equal(out.isnan(), expected.isnan())
    assert torch.equal(out.nan_to_num(), expected.nan_to_num())


@needs_loops
@pytest.mark.parametrize("spread", [0.1, 3.0, 60.0])
def test_softmax_in_bfloat16_is_that_of_the_operation(spread) -> None:
    scores = (torch.randn(7, 333) * spread).bfloat16()
    expected = scores.float().softmax(-1)
    loops.soften(memory(scores))
    assert ((scores.float() - expected).abs() <= expected / 256 + 1e-30).all()


@needs_loops
def test_softmax_of_what_is_no_number_stays_with_its_row() -> None:
    scores = torch.randn(5, 40).bfloat16()
    expected = scores.float().softmax(-1)
    scores[1, 3], scores[2, 0], scores[3] = torch.nan, torch.inf, -torch.inf
    scores[1, 3] = -scores[1, 3]  # of the other sign
    loops.soften(memory(scores))
    assert scores[1:4].isnan().all()
    assert torch.allclose(scores[::4].float(), expected[::4], rtol=1 / 256)


@needs_loops
def test_one_thread_attends_by_loops_as_by_operations(monkeypatch) -> None:
    q, k, v = (torch.randn(1, 2, 700, 64).bfloat16() for _ in range(3))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        monkeypatch.setattr(torch, "softmax", None)  # which so is not asked
        found = attention.attend_by_heads(q, k, v)
        monkeypatch.undo()
        monkeypatch.setattr(attention, "kernels", lambda: None)
        expected = attention.attend_by_heads(q, k, v)
        monkeypatch.undo()
        with warnings.catch_warnings():  # of lengths that a trace keeps
            warnings.simplefilter("ignore")
            traced = torch.jit.trace(attention.attend_by_heads, (q, k, v))
        assert torch.equal(traced(q, k, v), expected)
    finally:
        torch.set_num_threads(before)
    assert (found - expected).abs().max() < 0.004 * v.abs().max()


@needs_loops
def test_the_likeliest_token_is_that_of_the_operations(monkeypatch) -> None:
    scores = torch.randn(7, 5000) * 4
    scores[1, 100:200] = scores[1].max() + 1  # of equal ones the first
    scores[2, :4000] = -torch.inf
    scores[3] = -torch.inf
    scores[4, 17] = torch.nan
    scores[5] = 0.0
    scores[6, 9] = torch.inf
    found, own = likeliest(scores)
    with monkeypatch.context() as patch:
        patch.setattr(search, "kernels", lambda: None)
        expected, logprobs = likeliest(scores)
    sound = [0, 1, 2, 5]
    assert [found[i] for i in sound] == [expected[i] for i in sound]
    assert np.allclose([own[i] for i in sound], [logprobs[i] for i in sound], atol=2e-6)
    assert not np.isfinite([own[i] for i in (3, 4, 6)]).any()
    assert not np.isfinite([logprobs[i] for i in (3, 4, 6)]).any()


@needs_loops
def test_loops_are_asked_for_only_where_they_can_choose(monkeypatch) -> None:
    def never() -> None:
        raise AssertionError("compiled for nothing")

    monkeypatch.setattr(search, "kernels", never)
    assert likeliest(torch.ones(1, 40).half())[0] == [0]  # nor for what loops do not take
