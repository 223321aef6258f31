"""Scores of a vocabulary most of whose tokens share one vector.

A model that was trained for one domain knows some thousand of Whisper's 51,865 tokens; where all
the others were given the same row of the table, their score is computed once and written to all.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .quantized import QuantizedEmbedding


@dataclass(frozen=True, eq=False)
class SharedRow:
    """Which tokens have a row of their own.

    Attributes:
        rows: (n + 1,) the tokens with a row of their own, then one of all the others.
        size: tokens in all.
    """

    rows: Tensor
    size: int

    @classmethod
    def of(cls, table: Tensor) -> SharedRow | None:
        """What (V, D) ``table`` holds; None unless most of its rows are equal."""
        chance = torch.Generator().manual_seed(0)
        direction = torch.randn(table.shape[1], generator=chance).to(table.device)
        projected = table.float() @ direction
        marks, counts = projected.unique(return_counts=True)
        if 2 * int(counts.max()) < len(table):
            return None
        near = (projected == marks[counts.argmax()]).nonzero()
        shared = (table == table[near[0]]).all(dim=1)
        if 2 * int(shared.sum()) < len(table):
            return None
        return cls(torch.cat([(~shared).nonzero().flatten(), near[0]]), len(table))

    def spread(self, scores: Tensor) -> Tensor:
        """Scores (..., n + 1) of ``rows`` -> (..., V) of all tokens."""
        found = scores[..., -1:].expand(*scores.shape[:-1], self.size).contiguous()
        return found.index_copy_(-1, self.rows[:-1], scores[..., :-1])


def scores(hidden: Tensor, table: Tensor | QuantizedEmbedding) -> Tensor:
    """The score of each of V tokens, float32 (..., V), for states (..., D)."""
    if isinstance(table, QuantizedEmbedding):
        return table.project(hidden)
    return (hidden @ table.to(hidden.dtype).T).float()
