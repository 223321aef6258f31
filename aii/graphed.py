"""Passes of the decoder on an NVIDIA GPU, recorded once and replayed: CUDA graphs.

A pass over rows of one new token each is some dozens of small operations per layer, and a GPU is
done with them sooner than Python has asked for them. So passes of one shape (rows, tokens, windows
that are looked at, each rounded up) are recorded the third time that they come, on memory that
stays where it is, and from then on one call replays all operations. Whatever else a pass has in it,
such as prompts, is read beside, operation by operation, as :class:`.Ragged` does, which is the slow
twin: what is recorded is its own pass. Each recording is held against it before it is used.

Source: CUDA C++ Programming Guide, "CUDA Graphs".

Shapes: M tokens in line, N of a recording, G windows or shelves of windows, D state.
"""

from __future__ import annotations

import logging
import math
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from weakref import ReferenceType, ref

import torch
from torch import Tensor

from .heard import Heard, Layer, Shelf
from .plan import Group, Part, Plan, in_line
from .ragged import Ragged
from .rows import Rows
from .transfers import put

if TYPE_CHECKING:
    from .model import Whisper

log = logging.getLogger(__name__)

GRAPHS = 64
"""Recordings that are kept; the one that was replayed longest ago goes first."""

RECORDED_AT = 3
"""The how manyth pass of a shape is recorded: a recording takes as long as some passes."""

_MET = 1000
"""Shapes whose passes are counted."""

_END = 64
"""To multiples of this the keys are rounded up that a recording looks at."""

_NEAR = 0.1
"""How far from the slow twin's a recording's state may be, relative: half precision rounds."""


class Graphed(Ragged):
    """The decoder of a model on a GPU, its steps replayed where they come again.

    ``model.decoder.graphs`` set to False, which recordings that go wrong do, ends it.
    """

    def __init__(self, model: Whisper, places: int = 1, dtype: torch.dtype | None = None) -> None:
        super().__init__(model, places, dtype)
        self._graphs: OrderedDict[_Shape, _Recording] = OrderedDict()
        self._met: Counter[_Shape] = Counter()
        self._kv = self.rows.kv
        self._memory: Any = None  # that all recordings share: one is replayed at a time
        self._stream: Any = None

    def _read(self, parts: Sequence[Part]) -> Tensor:
        single = [part for part in parts if part.width == 1]
        if not self.decoder.graphs or not single:
            return super()._read(parts)
        if self._kv is not self.rows.kv:  # the rows stand elsewhere now
            self._graphs.clear()
            self._kv = self.rows.kv
        layout = _Layout(single, self.rows)
        recording = self._graphs.get(layout.shape)
        if recording is None:
            found = super()._read(parts)
            self._meet(layout)
            return found
        self._graphs.move_to_end(layout.shape)
        try:
            stepped = recording.replay(layout, single)
        except Exception as error:
            self._give_up(error)
            return super()._read(parts)
        wide = [part for part in parts if part.width > 1]
        return _in_order(parts, stepped, super()._read(wide)) if wide else stepped

    def _meet(self, layout: _Layout) -> None:
        """Record a pass that has just been read, if its shape has come often enough."""
        if len(self._met) >= _MET:
            self._met.clear()
        self._met[layout.shape] += 1
        if self._met[layout.shape] < RECORDED_AT:
            return
        self._met.clear()
        for shape in [shape for shape in self._graphs if shape.outlived]:
            del self._graphs[shape]
        while len(self._graphs) >= GRAPHS:
            self._graphs.popitem(last=False)
        try:
            recording = self._record(layout)
            wrong = self._apart(recording, layout)
        except Exception as error:
            self._give_up(error)
            return
        if wrong > _NEAR:
            self._give_up(f"a state is {wrong:.2g} of its length away from the right one")
        else:
            self._graphs[layout.shape] = recording

    def _record(self, layout: _Layout) -> _Recording:
        device = self.rows.kv[0].device
        with torch.cuda.device(device):
            if self._stream is None:
                self._stream = torch.cuda.Stream(device)
                self._memory = torch.cuda.graph_pool_handle()
            recording = _Recording(layout, self.rows)
            before = torch.cuda.current_stream(device)
            self._stream.wait_stream(before)
            with torch.cuda.stream(self._stream):  # also what is left if recording fails
                self._follow(recording.plan(layout))  # libraries make ready what they need
                with torch.cuda.graph(
                    recording.graph,
                    pool=self._memory,
                    stream=self._stream,
                    capture_error_mode="thread_local",
                ):
                    plan = recording.plan(layout)
                    recording.hidden = self._follow(plan)
            before.wait_stream(self._stream)
        recording.kept = [group.kept or [] for group in plan.audios]
        return recording

    def _apart(self, recording: _Recording, layout: _Layout) -> float:
        """How far a recording is from the slow twin, which reads the same once more."""
        ours, plain = ([replace(part, scores=[]) for part in layout.parts] for _ in range(2))
        found = recording.replay(layout, ours)
        right = self._follow(Plan.of(plain, found.device))
        pairs = [(found, right)]
        for one, other in zip(ours, plain, strict=True):
            pairs += zip(one.scores, other.scores, strict=True)
        return max(_distance(*(t.flatten(0, -2).float() for t in pair)) for pair in pairs)

    def _give_up(self, reason: object) -> None:
        self.decoder.graphs = False
        self._graphs.clear()
        first = str(reason).strip().splitlines()[:1]
        log.warning(
            "CUDA graphs of the decoder go wrong here (%s); its operations are asked for one by "
            "one, which is slower",
            first[0] if first else type(reason).__name__,
        )


@dataclass(frozen=True)
class _Shape:
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
class _Seats:
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


class _Layout:
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
        holders: dict[Shelf | Heard, _Seats] = {}
        self._first: list[tuple[Shelf | Heard, int]] = []
        for first, part in began:
            holder = part.heard.shelf or part.heard
            seats = holders.setdefault(holder, _Seats(holder.layers))
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
        self.shape = _Shape(
            rows=_rounded(max(len(self._line[0]), max(self._line[2]) + 1)),
            end=min(-(-longest // _END) * _END, rows.capacity),
            watched=any(part.attention for part in parts),
            audios=tuple(audios),
        )

    @property
    def count(self) -> int:
        """Tokens in line."""
        return len(self._line[0])

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

    def give_scores(self, kept: Sequence[Sequence[Tensor]], parts: Sequence[Part]) -> None:
        """Hand the parts that asked for them the scores (reach, heads, each, S) of all layers."""
        for part, (holder, nth) in zip(parts, self._first, strict=True):
            if not part.attention:
                continue
            audios = len(part.heard.layers[0][0])
            where = slice(part.heard.place, part.heard.place + audios)
            which = slice(nth, nth + len(part.rows) // audios)
            for scores in kept[self._order.index(holder)]:
                own = scores[where, :, which].transpose(1, 2).flatten(0, 1)[:, :, None]
                part.scores.append(own.clone())


class _Recording:
    """A pass of one shape, on memory that stays where it is.

    Attributes:
        graph: its operations.
        hidden: (N, D) where they leave the states.
        kept: where they leave the scores, for each piece of memory with windows, layer by layer.
    """

    def __init__(self, layout: _Layout, rows: Rows) -> None:
        self._reach = min(layout.shape.rows, rows.places)
        self._table = put(layout.table(), rows.kv[0].device)
        self.graph = torch.cuda.CUDAGraph()
        self.hidden: Tensor | None = None
        self.kept: list[list[Tensor]] = []

    def plan(self, layout: _Layout) -> Plan:
        """Who stands where, by the numbers that are in the table when its operations are done."""
        shape, table = layout.shape, self._table
        tokens, positions, places = table[:3]
        limits = torch.ones(self._reach, dtype=torch.long, device=table.device)
        limits[places] = positions + 1  # who is not asked looks at something, too
        unseen = torch.arange(shape.end, device=table.device) >= limits[:, None]
        every = torch.arange(shape.rows, device=table.device)
        text = Group(every, places, self._reach, shape.end, unseen[:, None, None])
        audios = []
        for n, (seats, (_, reach, each)) in enumerate(zip(layout.seats, shape.audios, strict=True)):
            lines, where, nths = table[3 * n + 3 : 3 * n + 6]
            end = seats.layers[0][0].shape[2]
            kept: list[Tensor] | None = [] if shape.watched else None
            audios.append(
                Group(
                    lines, where, reach, end, layers=seats.layers, each=each, nths=nths, kept=kept
                )
            )
        return Plan(tokens, positions, places, [text], audios)

    def replay(self, layout: _Layout, parts: Sequence[Part]) -> Tensor:
        """Read the tokens of a pass of this shape; their states (M, D).

        The scores go to ``parts``, which are those of ``layout`` or stand for them.
        """
        assert self.hidden is not None
        self._table.copy_(put(layout.table(), self._table.device))
        self.graph.replay()
        layout.give_scores(self.kept, parts)
        return self.hidden[: layout.count].clone()  # the next one overwrites it


def _rounded(count: int) -> int:
    """The next power of two."""
    return 1 << (count - 1).bit_length()


def _distance(found: Tensor, right: Tensor) -> float:
    """How far rows (R, D) are from what they should be, relative, at most.

    Rows that should be no numbers, of a decode that has been poisoned, do not count.
    """
    sound = right.isfinite().all(dim=-1)
    found, right = found[sound], right[sound]
    apart = (found - right).norm(dim=-1) / right.norm(dim=-1).clamp(min=1e-6)
    return max(apart.nan_to_num(nan=math.inf).tolist(), default=0.0)


def _in_order(parts: Sequence[Part], stepped: Tensor, read: Tensor) -> Tensor:
    """States part by part, of those of one new token each and those of all others."""
    single, wide = 0, 0
    pieces = []
    for part in parts:
        count = len(part.rows) * part.width
        if part.width == 1:
            pieces.append(stepped[single : single + count])
            single += count
        else:
            pieces.append(read[wide : wide + count])
            wide += count
    return torch.cat(pieces)
