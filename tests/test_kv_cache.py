"""The cache gives what decoding without it gives, at every split, in rows of any length."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from aii.kv_cache import KVCache


@pytest.fixture(scope="module")
def heard(tiny_model):
    """(encoded audio of three rows, their tokens, the logits without a cache)."""
    torch.manual_seed(3)
    with torch.no_grad():
        features = tiny_model.encoder(torch.randn(3, 80, 600))
        tokens = torch.randint(0, 51865, (3, 24))
        return features, tokens, tiny_model.decoder(tokens, features)


@torch.no_grad()
def test_every_split(tiny_model, heard) -> None:
    features, tokens, whole = heard
    for split in range(1, tokens.shape[1]):
        cache = tiny_model.decoder.new_cache(3)
        first = tiny_model.decoder(tokens[:, :split], features, cache)
        rest = tiny_model.decoder(tokens[:, split:], None, cache)
        assert torch.allclose(torch.cat([first, rest], dim=1), whole, atol=1e-5), split
        assert cache.lengths == [24, 24, 24]


@torch.no_grad()
def test_token_by_token(tiny_model, heard) -> None:
    features, tokens, whole = heard
    cache = tiny_model.decoder.new_cache(3)
    columns = [tiny_model.decoder(tokens[:, [i]], features, cache) for i in range(24)]
    assert torch.allclose(torch.cat(columns, dim=1), whole, atol=1e-5)


@torch.no_grad()
def test_rows_of_their_own_lengths(tiny_model, heard) -> None:
    features, tokens, whole = heard
    cache = tiny_model.decoder.new_cache(3)
    tiny_model.decoder(tokens[:, :15], features, cache)
    starts = [4, 15, 9]
    cache.truncate(starts)
    for width in (5, 1, 3):
        ends = [start + width for start in starts]
        spans = [slice(start, end) for start, end in zip(starts, ends, strict=True)]
        block = torch.stack([tokens[i, span] for i, span in enumerate(spans)])
        expected = torch.stack([whole[i, span] for i, span in enumerate(spans)])
        assert torch.allclose(tiny_model.decoder(block, None, cache), expected, atol=1e-5)
        starts = ends
        assert cache.lengths == ends


@torch.no_grad()
def test_reorder_and_repeat(tiny_model, heard) -> None:
    features, tokens, whole = heard
    cache = tiny_model.decoder.new_cache(3)
    tiny_model.decoder(tokens[:, :10], features, cache)
    cache.repeat(2)
    assert cache.lengths == [10] * 6
    doubled = tokens[:, 10:12].repeat_interleave(2, dim=0)
    expected = whole[:, 10:12].repeat_interleave(2, dim=0)
    assert torch.allclose(tiny_model.decoder(doubled, None, cache), expected, atol=1e-5)
    # Beams of one audio that part and meet again: row 0 goes on as row 1 did.
    cache = tiny_model.decoder.new_cache(2)
    pair = torch.stack([tokens[0, :6], tokens[1, :6]])
    tiny_model.decoder(pair, features[:1], cache)
    cache.reorder([1, 1])
    next_two = tokens[[1, 1], 6:8]
    alone = tiny_model.decoder(tokens[[1, 1], :8], features[:1])[:, 6:]
    assert torch.allclose(tiny_model.decoder(next_two, None, cache), alone, atol=1e-5)


@torch.no_grad()
def test_two_decodes_at_once(tiny_model, heard) -> None:
    """Threads that share the model never see each other's cache."""
    features, tokens, whole = heard

    def decode(row: int) -> torch.Tensor:
        with torch.no_grad():
            cache = tiny_model.decoder.new_cache(1)
            audio = features[row : row + 1]
            parts = [tiny_model.decoder(tokens[[row], [i]][None], audio, cache) for i in range(24)]
            return torch.cat(parts, dim=1)[0]

    with ThreadPoolExecutor(3) as pool:
        for row, logits in enumerate(pool.map(decode, [0, 1, 2] * 4)):
            assert torch.allclose(logits, whole[row % 3], atol=1e-5)


def test_limits() -> None:
    cache = KVCache(2, 2, 8, rows=2, capacity=4)
    assert cache.nbytes == 2 * 2 * 2 * 4 * 8 * 4
    assert not cache.has_audio
    with pytest.raises(ValueError, match="5 tokens do not fit a cache of 4"):
        cache.begin(5)
    cache.advance(3)
    with pytest.raises(ValueError, match="cannot truncate"):
        cache.truncate(4)
    with pytest.raises(ValueError, match="cannot truncate"):
        cache.truncate([-1, 0])
    with pytest.raises(ValueError, match="3 lengths for 2 rows"):
        cache.truncate([1, 1, 1])
    cache.truncate(2)
    assert cache.lengths == [2, 2]
    cache.reorder([0, 1])
    cache.repeat(1)
    assert cache.lengths == [2, 2]
