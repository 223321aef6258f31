"""Keys and values of encoded audio, for cross-attention: computed once for each window.

Windows of one length stand side by side in shared memory, so that the rows that decode over them
can look at all of them in one product; a longer or a lonely window is read by itself. Nothing is
padded and nothing is copied for a token.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .compiled import memory
from .rows import zeros

SHELF_BYTES = {"cpu": 64 << 20, "cuda": 4 << 30}
"""Memory of windows side by side, by device; on a CPU those of a large model stand alone."""

SHELF_PLACES = 16
"""Windows side by side at most."""

EMPTY_SHELVES = 4
"""Shelves without a window that are kept for later ones."""

EMPTY_BYTES = 1 << 30
"""Memory that they may hold, where more than one is kept; on a CPU they hold less."""

Layer = tuple[Tensor, Tensor]
Arrays = list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]


@dataclass(eq=False)
class Shelf:
    """Room for windows of one length.

    Attributes:
        frames: their length.
        layers: for each decoder layer keys and values, each (places, heads, frames, width).
        free: places without a window.
    """

    frames: int
    layers: list[Layer]
    free: list[int]

    @property
    def places(self) -> int:
        """Windows that there is room for."""
        return len(self.layers[0][0])

    @cached_property
    def nbytes(self) -> int:
        """Bytes of memory held."""
        return sum(part.numel() * part.element_size() for layer in self.layers for part in layer)

    @property
    def empty(self) -> bool:
        """Whether no window is there."""
        return len(self.free) == self.places

    @cached_property
    def arrays(self) -> Arrays:
        """The layers' memory as numpy sees it."""
        return [(memory(k), memory(v)) for k, v in self.layers]


@dataclass(eq=False)
class Heard:
    """What one decode listens to.

    Attributes:
        layers: for each decoder layer keys and values (A, heads, S, width) of A audios.
        shelf: where a single one stands, None for several.
        place: where on the shelf.
    """

    layers: list[Layer]
    shelf: Shelf | None = None
    place: int = 0

    @cached_property
    def arrays(self) -> Arrays:
        """The layers' memory as numpy sees it."""
        return [(memory(k), memory(v)) for k, v in self.layers]


class Shelves:
    """The windows of many decodes.

    Attributes:
        width: of a head.
        dtype: of what is kept.

    Args:
        shape: layers, heads and width of a head.
    """

    def __init__(
        self, shape: tuple[int, int, int], device: torch.device, dtype: torch.dtype
    ) -> None:
        self._shape = shape
        self._device = device
        self.width = shape[2]
        self.dtype = dtype
        self._shelves: list[Shelf] = []

    @property
    def shelves(self) -> Sequence[Shelf]:
        """All that there are."""
        return tuple(self._shelves)

    def put(self, layers: Sequence[Layer]) -> Heard:
        """Keep keys and values (A, heads, S, width) of each layer until they are taken away."""
        if len(layers[0][0]) > 1:
            return Heard([(k.contiguous(), v.contiguous()) for k, v in layers])
        heard = self.room(layers[0][0].shape[2])
        for kept, (keys, values) in zip(heard.layers, layers, strict=True):
            kept[0][:], kept[1][:] = keys, values
        return heard

    def room(self, frames: int) -> Heard:
        """Room for a window of this length, until it is taken away; to be written to."""
        shelf = self._shelf(frames)
        place = heapq.heappop(shelf.free)
        own = slice(place, place + 1)
        return Heard([(k[own], v[own]) for k, v in shelf.layers], shelf, place)

    def take_away(self, heard: Heard) -> None:
        """The decode has left."""
        shelf = heard.shelf
        if shelf is None:
            return
        heapq.heappush(shelf.free, heard.place)
        empty = [one for one in self._shelves if one.empty]
        if len(empty) > EMPTY_SHELVES:
            self._shelves.remove(empty.pop(0))
        while len(empty) > 1 and sum(one.nbytes for one in empty) > EMPTY_BYTES:
            largest = max(empty, key=lambda one: one.nbytes)
            empty.remove(largest)
            self._shelves.remove(largest)

    def _shelf(self, frames: int) -> Shelf:
        """One with room for a window of this length."""
        for shelf in self._shelves:
            if shelf.frames == frames and shelf.free:
                return shelf
        layers, heads, width = self._shape
        size = torch.empty((), dtype=self.dtype).element_size()
        bytes_each = 2 * layers * heads * frames * width * size
        most = SHELF_BYTES.get(self._device.type, SHELF_BYTES["cpu"])
        places = min(max(most // max(bytes_each, 1), 1), SHELF_PLACES)
        if self._device.type != "cpu":  # where memory is taken at once: as many as there are
            held = sum(shelf.places for shelf in self._shelves if shelf.frames == frames)
            places = min(places, max(held, 1))
        try:
            store = zeros((layers, 2, places, heads, frames, width), self._device, self.dtype)
        except torch.OutOfMemoryError:
            self._shelves = [one for one in self._shelves if not one.empty]
            places = 1
            store = zeros((layers, 2, places, heads, frames, width), self._device, self.dtype)
        shelf = Shelf(frames, [(k, v) for k, v in store], list(range(places)))
        self._shelves.append(shelf)
        return shelf
