"""Places for rows: taken, given back, grown, copied."""

from __future__ import annotations

import random

import pytest
import torch

from aii.rows import Rows


def make(places: int = 2, **options) -> Rows:
    return Rows(2, 2, 8, capacity=5, places=places, **options)


def test_the_lowest_free_places_are_taken() -> None:
    rows = make(4)
    assert rows.take(3) == [0, 1, 2]
    rows.give([1, 0])
    assert rows.take(1) == [0]
    assert rows.take(2) == [1, 3]
    assert rows.taken == 4
    assert rows.places == 4


def test_growing_keeps_what_is_there() -> None:
    rows = make(2)
    first, second = rows.take(2)
    for tensor in rows.kv:
        tensor[first], tensor[second] = 1.0, 2.0
    size = rows.nbytes
    third = rows.take(1)
    assert third == [2]
    assert rows.places == 4
    assert rows.nbytes == 2 * size == 2 * 2 * 4 * 5 * 8 * 4
    for tensor in rows.kv:
        assert tensor[first].eq(1).all()
        assert tensor[second].eq(2).all()
        assert tensor[2:].eq(0).all()
    assert len(rows.take(10)) == 10


def test_copies_go_from_one_token_to_another() -> None:
    rows = make()
    for tensor in rows.kv:
        tensor[0] = 3.0
    rows.copy(0, 1, 1, 4)
    for tensor in rows.kv:
        assert tensor[1, :, :, 1:4].eq(3).all()
        assert tensor[1, :, :, [0, 4]].eq(0).all()


def test_spoilt_places_are_wiped() -> None:
    rows = make()
    (row,) = rows.take(1)
    rows.kv[1][row] = float("nan")
    rows.give([row])
    assert rows.kv[1].isnan().any()
    assert rows.take(1) == [row]
    rows.give([row], spoilt=True)
    assert not rows.kv[1].isnan().any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_precisions(dtype) -> None:
    rows = make(dtype=dtype)
    assert all(t.dtype == dtype and t.eq(0).all() for t in rows.kv)


def test_no_place_is_ever_given_twice() -> None:
    chance, rows, held = random.Random(1), make(), []
    for _ in range(500):
        if held and chance.random() < 0.5:
            place = held.pop(chance.randrange(len(held)))
            rows.give([place])
        else:
            held += rows.take(chance.randrange(1, 3))
        assert len(set(held)) == len(held) == rows.taken
        assert max(held, default=0) < rows.places
