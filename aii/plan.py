"""Who stands where in one pass of the decoder over rows of any number of decodes.

The new tokens of all decodes stand in one line. In attention, rows that read one token go side by
side where their pasts (or their audios) stand side by side; the others go one after the other.

Shapes: M tokens in line, D = H heads x W, S encoder frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .heard import Heard, Layer, Shelf
from .transfers import put


@dataclass(frozen=True, eq=False)
class Part:
    """What one decode wants of a pass.

    Attributes:
        tokens: R rows of n new tokens.
        rows: their R places.
        start: how many tokens they hold.
        heard: the A audios; R is a multiple of A. Parts of one pass do not share it, unless they
            have several tokens or rows each.
        attention: how many of the last tokens' attention to give, 0 for none.
        scores: where to put it.
    """

    tokens: Sequence[Sequence[int]]
    rows: Sequence[int]
    start: int
    heard: Heard
    attention: int = 0
    scores: list[Tensor] = field(default_factory=list)

    @property
    def width(self) -> int:
        """New tokens of each row."""
        return len(self.tokens[0])

    @property
    def end(self) -> int:
        """Tokens that the rows hold afterwards."""
        return self.start + self.width


@dataclass(frozen=True, eq=False)
class Group:
    """Rows that read one token each and go side by side.

    Attributes:
        lines: where they stand in the line.
        places: where their keys and values stand, below ``reach``.
        reach: how many places there are up to the last of them.
        end: how many keys each place has.
        unseen: (reach, 1, 1, end), True for keys that are not the row's; None where all are.
        layers: keys and values of their audios in each decoder layer; None for text.
        each: how many of them look at one place, at most.
        nths: which of those that look at its place each one is.
        kept: takes the scores of the alignment heads, where they are wanted.
    """

    lines: Tensor
    places: Tensor
    reach: int
    end: int
    unseen: Tensor | None = None
    layers: Sequence[Layer] | None = None
    each: int = 1
    nths: Tensor | int = 0
    kept: list[Tensor] | None = None

    def attend(self, q: Tensor, keys: Tensor, values: Tensor, out: Tensor) -> Tensor:
        """Attention of the rows' queries out of q (M, H, W), written to ``out`` (M, H, W).

        Returns:
            (reach, H, each, end) the scores before the softmax.
        """
        spread = q.new_zeros(self.reach, q.shape[1], self.each, q.shape[2])
        spread[self.places, :, self.nths] = q[self.lines]
        keys, values = (t[: self.reach, :, : self.end] for t in (keys, values))
        scores = spread @ keys.transpose(-1, -2)
        if self.unseen is not None:
            scores.masked_fill_(self.unseen, -torch.inf)
        out[self.lines] = (scores.softmax(dim=-1) @ values)[self.places, :, self.nths]
        return scores


def in_line(parts: Sequence[Part]) -> tuple[Tensor, list[tuple[int, Part]]]:
    """The new tokens of all parts, part by part and row by row.

    Returns:
        (3, M) their numbers, positions in their rows, and rows; and where each part begins.
    """
    tokens: list[int] = []
    positions: list[int] = []
    places: list[int] = []
    began = []
    for part in parts:
        began.append((len(tokens), part))
        for row, new in zip(part.rows, part.tokens, strict=True):
            tokens += new
            positions += range(part.start, part.end)
            places += [row] * part.width
    return torch.tensor([tokens, positions, places]), began


@dataclass(frozen=True, eq=False)
class Plan:
    """Where the tokens of a pass stand, and who goes side by side.

    Attributes:
        tokens, positions, places: (M,) numbers, positions in their rows, and rows.
        texts, audios: groups of rows that go side by side over their pasts, and their audios.
        over_text, over_audio: the parts that go by themselves, and where in the line they begin.
        only: the row and the position of the token, where there is but one.
    """

    tokens: Tensor
    positions: Tensor
    places: Tensor
    texts: Sequence[Group]
    audios: Sequence[Group]
    over_text: Sequence[tuple[int, Part]] = ()
    over_audio: Sequence[tuple[int, Part]] = ()
    only: tuple[int, int] | None = None

    @classmethod
    def of(cls, parts: Sequence[Part], device: torch.device) -> Plan:
        """Of parts of every kind."""
        line, began = in_line(parts)
        _, position, place = line[:, 0].tolist()
        only = (place, position) if line.shape[1] == 1 else None
        texts, over_text = _side_by_side_in_text(began, device)
        audios, over_audio = _side_by_side_on_shelves(began, device)
        tokens, positions, places = put(line, device)
        return cls(tokens, positions, places, texts, audios, over_text, over_audio, only)

    def store(self, kv: Tensor, k: Tensor, v: Tensor) -> None:
        """Write keys and values (M, H, W) of the new tokens to their rows."""
        if self.only is not None:
            row, position = self.only
            kv[row, 0, :, position] = k[0]
            kv[row, 1, :, position] = v[0]
        else:
            kv[self.places, :, :, self.positions] = torch.stack([k, v], dim=1).to(kv.dtype)


def _side_by_side_in_text(
    parts: list[tuple[int, Part]], device: torch.device
) -> tuple[list[Group], list[tuple[int, Part]]]:
    single = [(first, part) for first, part in parts if part.width == 1]
    rows = [row for _, part in single for row in part.rows]
    ends = [part.end for _, part in single for _ in part.rows]
    if len(rows) < 2:
        return [], parts
    reach, longest = max(rows) + 1, max(ends)
    # All as if they were as long as the longest, or one after the other?
    if reach * longest > 2 * sum(ends) + 64 * len(ends):
        return [], parts
    limits = torch.ones(reach, dtype=torch.long)  # who is not asked looks at something, too
    limits[rows] = torch.tensor(ends)
    unseen = (torch.arange(longest) >= limits[:, None])[:, None, None]
    lines = [first + i for first, part in single for i in range(len(part.rows))]
    where, whose = put(torch.tensor([lines, rows]), device)
    group = Group(where, whose, reach, longest, put(unseen, device))
    return [group], [(first, part) for first, part in parts if part.width > 1]


def _side_by_side_on_shelves(
    parts: list[tuple[int, Part]], device: torch.device
) -> tuple[list[Group], list[tuple[int, Part]]]:
    shelves: dict[Shelf, list[tuple[int, Part]]] = {}
    alone = []
    for first, part in parts:
        shelf = part.heard.shelf
        if shelf is None or part.width > 1 or len(part.rows) > 1 or part.attention:
            alone.append((first, part))
        else:
            shelves.setdefault(shelf, []).append((first, part))
    groups = []
    for shelf, members in shelves.items():
        places = [part.heard.place for _, part in members]
        if len(members) == 1 or max(places) + 1 > 2 * len(members):
            alone += members
        else:
            where, whose = put(torch.tensor([[first for first, _ in members], places]), device)
            reach = max(places) + 1
            groups.append(Group(where, whose, reach, shelf.frames, layers=shelf.layers))
    return groups, alone
