"""Scores of a vocabulary most of whose tokens share one vector.

A model that was trained for one domain knows some thousand of Whisper's 51,865 tokens; where all
the others were given the same row of the table, their score is computed once and written to all.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

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


@dataclass(frozen=True, eq=False)
class FewRows:
    """The rows of a table that differ, and of which table they are.

    Attributes:
        shared: which they are.
        rows: what they hold.
        mark: of the table as it was then.
    """

    shared: SharedRow
    rows: Tensor | QuantizedEmbedding
    mark: tuple[int, int]

    @classmethod
    def of(
        cls, shared: SharedRow | None, table: nn.Embedding | QuantizedEmbedding
    ) -> FewRows | None:
        """Those of a table; None where they are not known, or it could change unnoticed."""
        weight = table.weight.detach()
        if shared is None or weight.is_inference():
            return None
        rows: Tensor | QuantizedEmbedding = weight[shared.rows]
        if isinstance(table, QuantizedEmbedding):
            rows = table.some(shared.rows)
        return cls(shared, rows, _mark(weight))

    def serve(self, table: nn.Embedding | QuantizedEmbedding) -> bool:
        """Whether they stand for ``table`` now: it has not changed, and nobody wants gradients."""
        weight = table.weight
        if torch.is_grad_enabled() or weight.is_inference():
            return False
        return self.mark == _mark(weight)

    def scores(self, hidden: Tensor) -> Tensor:
        """What :func:`scores` gives for the whole table."""
        return self.shared.spread(scores(hidden, self.rows))


def _mark(weight: Tensor) -> tuple[int, int]:
    """Another one as soon as the weights move or are written to, but by way of ``.data``."""
    return weight.data_ptr(), weight._version


def scores(hidden: Tensor, table: Tensor | QuantizedEmbedding) -> Tensor:
    """The score of each of V tokens, float32 (..., V), for states (..., D)."""
    if isinstance(table, QuantizedEmbedding):
        return table.project(hidden)
    rows = hidden.reshape(-1, hidden.shape[-1])
    if len(rows) <= _FEW_ROWS and hidden.device.type == "cpu" and hidden.dtype == torch.float32:
        return _of_few_rows(rows, table.to(hidden.dtype)).view(*hidden.shape[:-1], len(table))
    return (hidden @ table.to(hidden.dtype).T).float()


_FEW_ROWS = 8


def _of_few_rows(rows: Tensor, table: Tensor) -> Tensor:
    """``rows @ table.T`` for (M, D), M small, and (V, D), the other way about.

    In float32 on a CPU this is two to seven times as fast: with so few rows PyTorch's product goes
    through a big table badly, on one thread for a single row (``benchmarks/LOG.md``).
    """
    pair = rows if len(rows) > 1 else rows.repeat(2, 1)  # a product with one row has one thread
    return (table @ pair.T).T[: len(rows)].contiguous()
