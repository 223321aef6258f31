"""Keys and values of many rows, of any number of decodes, in one piece of memory.

A row is a place for the tokens of one hypothesis. Rows are taken and given back at any time, each
has its own length, and a pass reads and writes them where they are: nothing is copied for a token.
Only where two beams part is what they have in common copied, once, from where they can differ.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


class Rows:
    """Places for rows.

    Attributes:
        kv: for each decoder layer (places, 2, heads, capacity, width), keys before values.
        capacity: most tokens of a row.

    Args:
        places: rows to begin with; more are made when they are needed.
    """

    def __init__(
        self,
        n_layer: int,
        n_head: int,
        n_state: int,
        *,
        capacity: int,
        places: int = 1,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self._shape = (n_layer, n_head, capacity, n_state // n_head)
        self._device = torch.device(device)
        self._dtype = dtype
        self._free: list[int] = []
        self._taken: set[int] = set()
        self.capacity = capacity
        self.kv: list[Tensor] = []
        self._grow(max(places, 1))

    @property
    def places(self) -> int:
        """Rows that there is memory for."""
        return self.kv[0].shape[0]

    @property
    def taken(self) -> int:
        """Rows in use."""
        return len(self._taken)

    @property
    def nbytes(self) -> int:
        """Bytes of memory set apart."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.kv)

    def take(self, count: int) -> list[int]:
        """Places for ``count`` more rows, the lowest that are free."""
        if count > len(self._free):
            self._grow(max(2 * self.places, self.places + count))
        rows = [heapq.heappop(self._free) for _ in range(count)]
        self._taken.update(rows)
        return rows

    def give(self, rows: Sequence[int], *, spoilt: bool = False) -> None:
        """Give places back; ``spoilt`` ones may hold what is no number and are wiped."""
        for row in rows:
            self._taken.remove(row)
            heapq.heappush(self._free, row)
            if spoilt:  # a masked key counts nothing, unless it is not a number
                for tensor in self.kv:
                    tensor[row].zero_()

    def copy(self, source: int, target: int, begin: int, end: int) -> None:
        """Copy tokens ``begin`` to ``end`` of one row into another."""
        for tensor in self.kv:
            tensor[target, :, :, begin:end] = tensor[source, :, :, begin:end]

    def _grow(self, places: int) -> None:
        """Make memory for ``places`` rows, and move what is in use there."""
        layers, heads, capacity, width = self._shape
        old, before = self.kv, self.places if self.kv else 0
        store = zeros((layers, places, 2, heads, capacity, width), self._device, self._dtype)
        self.kv = list(store)
        for new, held in zip(self.kv, old, strict=bool(old)):
            for row in self._taken:
                new[row] = held[row]
        for row in range(before, places):
            heapq.heappush(self._free, row)


def zeros(shape: Sequence[int], device: torch.device, dtype: torch.dtype) -> Tensor:
    """Zeros; on a CPU memory that is not there before it is used."""
    if device.type != "cpu":
        return torch.zeros(*shape, device=device, dtype=dtype)
    size = torch.empty((), dtype=dtype).element_size()
    plain = np.zeros(tuple(shape), {2: np.int16, 4: np.int32}[size])  # zero bits are zero
    return torch.from_numpy(plain).view(dtype)
