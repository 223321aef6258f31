"""Windows side by side: put, taken away, bounded."""

from __future__ import annotations

import pytest
import torch
from pretend_gpu import pretend_gpu

from aii import heard
from aii.heard import EMPTY_SHELVES, SHELF_PLACES, Shelves
from aii.ragged import Ragged

SHAPE = (2, 3, 4)  # layers, heads, width


def make() -> Shelves:
    return Shelves(SHAPE, torch.device("cpu"), torch.float32)


def layers(frames: int, audios: int = 1, seed: int = 0):
    chance = torch.Generator().manual_seed(seed)
    shape = (audios, SHAPE[1], frames, SHAPE[2])
    return [tuple(torch.randn(shape, generator=chance) for _ in range(2)) for _ in range(SHAPE[0])]


def same(kept, given) -> bool:
    pairs = zip(kept.layers, given, strict=True)
    return all(torch.equal(a, b) for one, other in pairs for a, b in zip(one, other, strict=True))


def test_windows_of_one_length_share_a_shelf_and_keep_their_own() -> None:
    shelves = make()
    given = [layers(50, seed=n) for n in range(5)]
    kept = [shelves.put(one) for one in given]
    assert [one.place for one in kept] == list(range(5))
    assert len({id(one.shelf) for one in kept}) == 1
    assert all(same(one, other) for one, other in zip(kept, given, strict=True))
    other = shelves.put(layers(60))
    assert other.shelf is not kept[0].shelf
    shelves.take_away(kept[1])
    shelves.take_away(kept[3])
    again = shelves.put(layers(50, seed=9))
    assert again.place == 1
    assert same(again, layers(50, seed=9))
    assert same(kept[2], given[2])


def test_a_full_shelf_is_followed_by_another() -> None:
    shelves = make()
    kept = [shelves.put(layers(50, seed=n)) for n in range(SHELF_PLACES + 2)]
    assert len(shelves.shelves) == 2
    assert kept[-1].place == 1
    assert same(kept[0], layers(50, seed=0))
    assert same(kept[-1], layers(50, seed=SHELF_PLACES + 1))


def test_windows_of_a_large_model_stand_alone(monkeypatch) -> None:
    monkeypatch.setitem(heard.SHELF_BYTES, "cpu", 10)
    shelves = make()
    shelves.put(layers(50))
    assert shelves.put(layers(50)).place == 0
    assert [shelf.places for shelf in shelves.shelves] == [1, 1]


def test_on_a_gpu_memory_for_windows_grows_with_their_number(monkeypatch) -> None:
    with pretend_gpu(monkeypatch):
        shelves = Shelves(SHAPE, torch.device("cuda"), torch.float32)
        there = [[(k.to("cuda"), v.to("cuda")) for k, v in layers(50, seed=n)] for n in range(40)]
        kept = [shelves.put(one) for one in there]
        sizes = [1, 1, 2, 4, 8, SHELF_PLACES, SHELF_PLACES]
        assert [shelf.places for shelf in shelves.shelves] == sizes
        assert all(same(one, given) for one, given in zip(kept, there, strict=True))
        assert shelves.put([(k[:, :, :20], v[:, :, :20]) for k, v in there[0]]).shelf.places == 1


def test_memory_without_windows_is_bounded_the_largest_goes_first(monkeypatch) -> None:
    monkeypatch.setattr(heard, "EMPTY_BYTES", 40_000)  # a place has 9,600
    with pretend_gpu(monkeypatch):
        shelves = Shelves(SHAPE, torch.device("cuda"), torch.float32)
        there = [(k.to("cuda"), v.to("cuda")) for k, v in layers(50)]
        kept = [shelves.put(there) for _ in range(20)]
        for one in kept:
            shelves.take_away(one)
        assert [shelf.places for shelf in shelves.shelves] == [1, 1, 2]


def test_without_memory_for_many_windows_there_is_room_for_one(monkeypatch) -> None:
    make_zeros = heard.zeros

    def scarce(shape, *more):
        if shape[2] > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return make_zeros(shape, *more)

    monkeypatch.setattr(heard, "zeros", scarce)
    shelves = make()
    assert shelves.put(layers(50)).shelf.places == 1
    assert len(shelves.shelves) == 1


def test_several_audios_of_one_decode_are_on_no_shelf() -> None:
    shelves = make()
    given = layers(50, audios=3)
    kept = shelves.put(given)
    assert kept.shelf is None
    assert same(kept, given)
    shelves.take_away(kept)
    assert shelves.shelves == ()


@pytest.mark.parametrize("rounds", [3, 40])
def test_empty_shelves_are_bounded(rounds) -> None:
    shelves = make()
    for number in range(rounds):
        kept = [shelves.put(layers(20 + number)) for _ in range(2)]
        for one in kept:
            shelves.take_away(one)
    assert len(shelves.shelves) == min(rounds, EMPTY_SHELVES)
    assert all(shelf.empty for shelf in shelves.shelves)


def test_audio_that_cannot_be_read_takes_no_place(tiny_model) -> None:
    ragged = Ragged(tiny_model)
    with torch.no_grad(), pytest.raises(RuntimeError):
        ragged.hear(torch.randn(1, 20, 3))
    (shelf,) = ragged.shelves.shelves
    assert shelf.empty
