"""Passes of the decoder on an NVIDIA GPU, recorded once and replayed: CUDA graphs.

A pass over rows of one new token each is some dozens of small operations per layer, and a GPU is
done with them sooner than Python has asked for them. So passes of one shape (rows, tokens, windows
that are looked at, each rounded up) are recorded the third time that they come, on memory that
stays where it is, and from then on one call replays all operations. Whatever else a pass has in it,
such as prompts, is read beside, operation by operation, as :class:`.Ragged` does, which is the slow
twin: what is recorded is its own pass. Each recording is held against it before it is used.

Source: CUDA C++ Programming Guide, "CUDA Graphs".

Shapes: M tokens in line, N of a recording, D state.
"""

from __future__ import annotations

import logging
import math
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .layout import Layout, Shape
from .plan import Group, Part, Plan
from .ragged import Ragged
from .rows import Rows
from .transfers import put

if TYPE_CHECKING:
    from .model import Whisper

log = logging.getLogger(__name__)

GRAPHS = 64
"""Recordings that are kept; the one that was replayed longest ago goes first."""

RECORDED_AT = 3
"""A shape is recorded when it comes for this time."""

PRICE = 20
"""Replays that pay for a recording, during which all wait."""

CREDIT = 8
"""Recordings that a decoder may make before any is paid for, and as many may be paid in advance."""

_MET = 1000
"""Shapes whose passes are counted."""

_NEAR = 0.1
"""How far from the slow twin's a recording's state may be, relative: half precision rounds."""

_TURN = [None]  # held by who records: a process can record one graph at a time


class Graphed(Ragged):
    """The decoder of a model on a GPU, its steps replayed where they come again.

    Only as long as ``model.decoder.graphs`` is True. A recording that goes wrong sets it to False.
    """

    def __init__(self, model: Whisper, places: int = 1, dtype: torch.dtype | None = None) -> None:
        super().__init__(model, places, dtype)
        self._graphs: OrderedDict[Shape, _Recording] = OrderedDict()
        self._met: Counter[Shape] = Counter()
        self._paid = CREDIT * PRICE  # replays
        self._kv = self.rows.kv
        self._weights: list[int] = []  # where they stand
        self._memory: Any = None  # that all recordings share: one is replayed at a time
        self._stream: Any = None

    def _read(self, parts: Sequence[Part]) -> Tensor:
        single = [part for part in parts if part.width == 1]
        self._forget_what_moved(new=len(single) < len(parts))
        if not self.decoder.graphs or not single:
            return super()._read(parts)
        layout = Layout(single, self.rows)
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
        self._paid = min(self._paid + 1, CREDIT * PRICE)
        wide = [part for part in parts if part.width > 1]
        return _in_order(parts, stepped, super()._read(wide)) if wide else stepped

    def _forget_what_moved(self, *, new: bool) -> None:
        """Forget all recordings if the rows, or before ``new`` decodes the weights, have moved."""
        weights = self._weights
        if new or not weights:
            weights = [weight.data_ptr() for weight in self.decoder.parameters()]
        moved = self._kv is not self.rows.kv or self._weights != weights
        if moved or not self.decoder.graphs:
            self._graphs.clear()
        self._kv, self._weights = self.rows.kv, weights

    def _meet(self, layout: Layout) -> None:
        """Record a pass that has just been read, if its shape has come often enough."""
        if len(self._met) >= _MET:
            self._met.clear()
        self._met[layout.shape] += 1
        if self._met[layout.shape] < RECORDED_AT or layout.sparse or self._paid < PRICE:
            return
        try:
            turn = _TURN.pop()
        except IndexError:  # another thread records; next time
            return
        try:
            self._keep(layout)
        except torch.OutOfMemoryError:
            self._graphs.clear()
            log.info("no memory for CUDA graphs of the decoder; another time")
        except Exception as error:
            self._give_up(error)
        finally:
            _TURN.append(turn)

    def _keep(self, layout: Layout) -> None:
        """Record a pass, and keep the recording if it is right."""
        self._met.clear()
        self._paid -= PRICE
        for shape in [shape for shape in self._graphs if shape.outlived]:
            del self._graphs[shape]
        while len(self._graphs) >= GRAPHS:
            self._graphs.popitem(last=False)
        recording = self._record(layout)
        wrong = self._apart(recording, layout)
        if wrong is None:  # nothing to compare with
            return
        if wrong > _NEAR:
            self._give_up(f"a state is {wrong:.2g} of its length away from the right one")
        else:
            self._graphs[layout.shape] = recording

    def _record(self, layout: Layout) -> _Recording:
        device = self.rows.kv[0].device
        with torch.cuda.device(device):
            if self._stream is None:
                self._stream = torch.cuda.Stream(device)
                self._memory = torch.cuda.graph_pool_handle()
            recording = _Recording(layout, self.rows)
            before = torch.cuda.current_stream(device)
            self._stream.wait_stream(before)
            try:
                with torch.cuda.stream(self._stream):  # which is left also if recording fails
                    self._follow(recording.plan(layout))  # libraries make ready what they need
                    with torch.cuda.graph(
                        recording.graph,
                        pool=self._memory,
                        stream=self._stream,
                        capture_error_mode="thread_local",
                    ):
                        plan = recording.plan(layout)
                        recording.hidden = self._follow(plan)
            finally:
                before.wait_stream(self._stream)
        recording.kept = [group.kept or [] for group in plan.audios]
        return recording

    def _apart(self, recording: _Recording, layout: Layout) -> float | None:
        """How far a recording is from the slow twin, which reads the same once more.

        None where nothing can be told, as all that is read is of poisoned decodes.
        """
        ours, plain = ([replace(part, scores=[]) for part in layout.parts] for _ in range(2))
        found = recording.replay(layout, ours)
        right = self._follow(Plan.of(plain, found.device))
        pairs = [(found, right)]
        for one, other in zip(ours, plain, strict=True):
            pairs += zip(one.scores, other.scores, strict=True)
        apart = [_distance(*(t.flatten(0, -2).float() for t in pair)) for pair in pairs]
        known = [distance for distance in apart if distance is not None]
        return max(known) if apart[0] is not None else None

    def _give_up(self, reason: object) -> None:
        self.decoder.graphs = False
        self._graphs.clear()
        first = str(reason).strip().splitlines()[:1]
        log.warning(
            "CUDA graphs of the decoder go wrong here (%s); its operations are asked for one by "
            "one, which is slower",
            first[0] if first else type(reason).__name__,
        )


class _Recording:
    """A pass of one shape, on memory that stays where it is.

    Attributes:
        graph: its operations.
        hidden: (N, D) where they leave the states.
        kept: where they leave the scores, for each piece of memory with windows, layer by layer.
    """

    def __init__(self, layout: Layout, rows: Rows) -> None:
        self._reach = min(layout.shape.rows, rows.places)
        self._table = put(layout.table(), rows.kv[0].device)
        self.graph = torch.cuda.CUDAGraph()
        self.hidden: Tensor | None = None
        self.kept: list[list[Tensor]] = []

    def plan(self, layout: Layout) -> Plan:
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

    def replay(self, layout: Layout, parts: Sequence[Part]) -> Tensor:
        """Read the tokens of a pass of this shape; their states (M, D).

        The scores go to ``parts``, which are those of ``layout`` or stand for them.
        """
        assert self.hidden is not None
        self._table.copy_(put(layout.table(), self._table.device))
        self.graph.replay()
        hidden = self.hidden[: layout.count].clone()  # the next one overwrites it
        for part, scores in zip(parts, layout.scores(self.kept), strict=True):
            part.scores.extend(scores)
        return hidden


def _distance(found: Tensor, right: Tensor) -> float | None:
    """How far rows (R, D) are from what they should be, relative, at most.

    Rows that should be no numbers, of a decode that has been poisoned, do not count; None if that
    is all of them.
    """
    sound = right.isfinite().all(dim=-1)
    found, right = found[sound], right[sound]
    apart = (found - right).norm(dim=-1) / right.norm(dim=-1).clamp(min=1e-6)
    return max(apart.nan_to_num(nan=math.inf).tolist(), default=None)


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
