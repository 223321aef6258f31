"""Where the tokens of a pass stand that reads one for each row, and which passes are alike.

For :mod:`aii.graphed`: what a recording of a pass reads is a table of numbers, and passes whose
tables have one shape can be replayed from one recording.

Shapes: M tokens in line, N of a recording, G windows or shelves of windows, S encoder frames.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from weakref import ReferenceType, ref

import torch
from torch import Tensor

from .heard import Heard, Layer, Shelf
from .plan import Part, in_line
from .rows import Rows

_END = 64
"""To multiples of this the keys are rounded up that a recording looks at."""


@dataclass(frozen=True)
class Shape:
    """What passes have in common that one recording can stand for.

    Attributes:
        rows: tokens in line, and rows from the first one on that are looked at.
        end: keys of each row.
        watched: whether the scores of the alignment heads are kept.
        audios: where their windows are, how many from the first one on are looked at, and how
            many rows over one window.
    """

    rows: int
    end: int
    watched: bool
    audios: tuple[tuple[ReferenceType[Shelf | Heard], int, int], ...]

    @property
    def outlived(self) -> bool:
        """Whether windows that it looks at are no more."""
        return any(holder() is None for holder, _, _ in self.audios)


@dataclass(eq=False)
class Seats:
    """Rows over the windows of one piece of memory.

    Attributes:
        layers: its keys and values in each decoder layer.
        lines: where in the line the rows stand.
        places: where their windows stand.
        nths: which one over its window each is.
        counts: how many there are over each window.
    """

    layers: list[Layer]
    lines: list[int] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    nths: list[int] = field(default_factory=list)
    counts: Counter[int] = field(default_factory=Counter)

    def take(self, line: int, place: int) -> None:
        """A seat for one more row."""
        self.lines.append(line)
        self.places.append(place)
        self.nths.append(self.counts[place])
        self.counts[place] += 1


class Layout:
    """Where the tokens of a pass stand that reads one for each row.

    Attributes:
        parts: whose tokens they are.
        shape: what a recording of it has in common with it.
        seats: of each piece of memory with windows, in the order of the shape's.
    """

    def __init__(self, parts: Sequence[Part], rows: Rows) -> None:
        self.parts = parts
        line, began = in_line(parts)
        self._line = line.tolist()
        holders: dict[Shelf | Heard, Seats] = {}
        self._first: list[tuple[Shelf | Heard, int]] = []
        for first, part in began:
            holder = part.heard.shelf or part.heard
            seats = holders.setdefault(holder, Seats(holder.layers))
            each = len(part.rows) // len(part.heard.layers[0][0])
            self._first.append((holder, seats.counts[part.heard.place]))
            for i in range(len(part.rows)):
                seats.take(first + i, part.heard.place + i // each)
        self._order = sorted(holders, key=id)
        self.seats = [holders[holder] for holder in self._order]
        audios = []
        for holder, seats in zip(self._order, self.seats, strict=True):
            reach = min(_rounded(max(seats.places) + 1), len(seats.layers[0][0]))
            audios.append((ref(holder), reach, _rounded(max(seats.counts.values()))))
        longest = max(part.end for part in parts)
        self.shape = Shape(
            rows=_rounded(max(len(self._line[0]), max(self._line[2]) + 1)),
            end=min(-(-longest // _END) * _END, rows.capacity),
            watched=any(part.attention for part in parts),
            audios=tuple(audios),
        )

    @property
    def count(self) -> int:
        """Tokens in line."""
        return len(self._line[0])

    @property
    def sparse(self) -> bool:
        """Whether a recording would mostly read what nobody asks for."""
        looked = [self.shape.rows, *(reach * each for _, reach, each in self.shape.audios)]
        return max(looked) > 4 * self.count + 8

    def table(self) -> Tensor:
        """(3 + 3G, N) all numbers that a recording reads.

        What there is too little of is filled up with the last: the last token stands in the line
        several times, and writes the same each time.
        """
        size = self.shape.rows
        lines = list(self._line)
        for seats in self.seats:
            own = seats.lines
            if own[-1] == self.count - 1:
                own = own + list(range(self.count, size))
            lines += [own, seats.places, seats.nths]
        return torch.tensor([line + line[-1:] * (size - len(line)) for line in lines])

    def scores(self, kept: Sequence[Sequence[Tensor]]) -> list[list[Tensor]]:
        """What each part gets of the scores (reach, heads, each, S) of all layers, copied."""
        found: list[list[Tensor]] = []
        for part, (holder, nth) in zip(self.parts, self._first, strict=True):
            found.append([])
            if not part.attention:
                continue
            audios = len(part.heard.layers[0][0])
            where = slice(part.heard.place, part.heard.place + audios)
            which = slice(nth, nth + len(part.rows) // audios)
            for scores in kept[self._order.index(holder)]:
                own = scores[where, :, which].transpose(1, 2).flatten(0, 1)[:, :, None]
                found[-1].append(own.clone())
        return found


def _rounded(count: int) -> int:
    """The next power of two."""
    return 1 << (count - 1).bit_length()
