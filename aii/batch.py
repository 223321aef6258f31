"""Many decodes on one network, side by side, each as if it were alone.

A :class:`Batch` takes decodes (generators, see ``aii.steps``) at any time and moves all of them on
by one step at a time: windows that wait for the encoder go through it together where they are
equally long, and the new tokens of all the others are read in one ragged pass of the decoder. A
decode joins and leaves at any step; one that fails, fails alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch
from torch import Tensor

from .answers import answers, unsound
from .errors import ServiceError
from .heard import Heard, Layer
from .layers import hooked
from .passes import ragged
from .plan import Part
from .ragged import Ragged, audio_layers
from .rows import Rows
from .steps import KEPT_ATTENTION, Answer, Ask, Attach, Encode, Steps, run_plainly

if TYPE_CHECKING:
    from .model import Whisper

T = TypeVar("T")

ENCODED_AT_ONCE = {"cpu": 3000, "cuda": 48_000}
"""Frames of 10 ms that go through the encoder together, beyond the first window's, by device."""


class Ticket(Generic[T]):
    """One decode in a batch.

    Attributes:
        result: what it came to, once it is ``done`` without ``error``.
        error: what it failed with.
        done: whether it has left the batch.
    """

    def __init__(self, steps: Steps[T]) -> None:
        self.result: T | None = None
        self.error: Exception | None = None
        self.done = False
        self._steps = steps
        self._step: Encode | Attach | Ask | None = None
        self._heard: Heard | None = None
        self._dtype = torch.float32  # of the audio
        self._rows: list[int] = []
        self._length = 0
        self._copies = 1  # rows side by side that were one row
        self._common = 0  # tokens that they had then

    @property
    def listens(self) -> bool:
        """Whether it waits for the encoder."""
        return isinstance(self._step, Encode)


@dataclass(eq=False)
class Encoding:
    """Equally long windows that go through the encoder together.

    Attributes:
        tickets: whose windows they are.
        mels: the windows.
        found: for each, once it has been run: features, and what each decoder layer makes of them;
            or what it failed with.
    """

    model: Whisper
    tickets: list[Ticket[Any]]
    mels: list[Tensor]
    found: list[tuple[Tensor, list[Layer]] | Exception] = field(default_factory=list)

    @torch.no_grad()
    def run(self) -> None:
        """Encode all of them; each by itself if that fails."""
        try:
            features = self.model.encoder(torch.cat(self.mels))
            each = features.split(self.mels[0].shape[0])
            self.found = [self._read(own) for own in each]
        except Exception as error:
            self.found = [error] if len(self.mels) == 1 else list(map(self._alone, self.mels))

    def _alone(self, mel: Tensor) -> tuple[Tensor, list[Layer]] | Exception:
        try:
            return self._read(self.model.encoder(mel))
        except Exception as error:
            return error

    def _read(self, features: Tensor) -> tuple[Tensor, list[Layer]]:
        return features, audio_layers(self.model.decoder, features)


class Batch:
    """Decodes on one model; nothing else may move them, and one thread at a time may use it.

    Args:
        places: rows to have memory for from the start.
    """

    def __init__(self, model: Whisper, places: int = 1) -> None:
        self._model = model
        self._places = places
        self._decoders: dict[torch.dtype, Ragged] = {}
        self._tickets: list[Ticket[Any]] = []

    def __len__(self) -> int:
        return len(self._tickets)

    @property
    def listening(self) -> int:
        """Decodes that wait for the encoder."""
        return sum(ticket.listens for ticket in self._tickets)

    @property
    def asking(self) -> int:
        """Decodes that wait for the decoder."""
        return sum(isinstance(ticket._step, Ask) for ticket in self._tickets)

    @property
    def rows(self) -> int:
        """Rows of tokens in use."""
        return sum(len(ticket._rows) for ticket in self._tickets)

    def add(self, steps: Steps[T]) -> Ticket[T]:
        """Let a decode join; it may be done at once."""
        ticket = Ticket(steps)
        self._tickets.append(ticket)
        self._move(ticket, None)
        return ticket

    def drop(self, ticket: Ticket[Any]) -> None:
        """Let a decode leave unfinished."""
        if not ticket.done:
            ticket._steps.close()
            self._leave(ticket)

    def encode(self) -> int:
        """Encode what waits for it, as many equally long windows as go together; how many."""
        if (encoding := self.listen()) is None:
            return 0
        encoding.run()
        self.heard(encoding)
        return len(encoding.tickets)

    def listen(self) -> Encoding | None:
        """What :meth:`encode` would encode, for :meth:`heard` once it has been run; or nothing.

        It may be run on another thread while decodes go on here; one such at a time.
        """
        waiting = [ticket for ticket in self._tickets if ticket.listens]
        if not waiting:
            return None
        shape, dtype = _mel(waiting[0]).shape, _mel(waiting[0]).dtype
        alike = [t for t in waiting if _mel(t).shape == shape and _mel(t).dtype == dtype]
        most = ENCODED_AT_ONCE.get(self._model.device.type, ENCODED_AT_ONCE["cpu"])
        if self._model.compute_type == "int8":  # each is rounded by itself: together nothing is won
            most = 0
        alike = alike[: max(1, most // max(shape[0] * shape[-1], 1))]
        return Encoding(self._model, alike, [_mel(ticket) for ticket in alike])

    @torch.no_grad()
    def heard(self, encoding: Encoding) -> None:
        """Give decodes the audio that has been encoded for them."""
        for ticket, found in zip(encoding.tickets, encoding.found, strict=True):
            if ticket.done:
                continue
            if isinstance(found, Exception):
                self._fail(ticket, found)
            else:
                self._listen(ticket, *found)

    @torch.no_grad()
    def decode(self) -> int:
        """Move on all that wait for the decoder, in one pass for each precision; how many."""
        waiting = [ticket for ticket in self._tickets if isinstance(ticket._step, Ask)]
        for dtype in {ticket._dtype for ticket in waiting}:
            self._ask([ticket for ticket in waiting if ticket._dtype == dtype], dtype)
        return len(waiting)

    def step(self) -> None:
        """Move every decode on."""
        self.encode()
        self.decode()

    # -- audio --------------------------------------------------------------------------------

    def _listen(self, ticket: Ticket[Any], features: Tensor, layers: list[Layer]) -> None:
        """Give a decode its audio."""
        try:
            self._forget(ticket)
            ticket._dtype = features.dtype
            ticket._heard = self._decoder(features.dtype).shelves.put(layers)
        except Exception as error:
            self._fail(ticket, error)
        else:
            self._move(ticket, features)

    def _decoder(self, dtype: torch.dtype) -> Ragged:
        if dtype not in self._decoders:
            self._decoders[dtype] = ragged(self._model, self._places, dtype)
        return self._decoders[dtype]

    # -- tokens -------------------------------------------------------------------------------

    def _ask(self, tickets: list[Ticket[Any]], dtype: torch.dtype) -> None:
        decoder = self._decoder(dtype)
        ready: list[Ticket[Any]] = []
        for ticket in tickets:
            try:
                self._prepare(ticket, decoder)
                ready.append(ticket)
            except Exception as error:
                self._fail(ticket, error)
        # Those with the same rules side by side, so that they are ruled together.
        ready.sort(key=lambda ticket: id(_asked(ticket).filters))
        if not ready:
            return
        try:
            found = self._pass(ready, decoder)
        except Exception as error:
            if len(ready) == 1:
                self._fail(ready[0], error)
                return
            found = [self._pass_alone(ticket, decoder) for ticket in ready]
        for ticket, answer in zip(ready, found, strict=True):
            if isinstance(answer, Exception):
                self._fail(ticket, answer)
            else:
                self._move(ticket, answer)

    def _pass_alone(self, ticket: Ticket[Any], decoder: Ragged) -> Answer | Exception:
        try:
            return self._pass([ticket], decoder)[0]
        except Exception as error:
            return error

    def _prepare(self, ticket: Ticket[Any], decoder: Ragged) -> None:
        """The rows of a decode, as its step wants them."""
        ask, rows = _asked(ticket), decoder.rows
        if ticket._heard is None:
            raise ValueError("a decode asked for tokens before it had audio")
        if ask.fresh:
            rows.give(ticket._rows)
            ticket._rows, ticket._length = [], 0
            ticket._copies, ticket._common = 1, 0
            ticket._rows = rows.take(len(ask.tokens))
        if ask.sources is not None:
            ticket._rows = _reordered(ticket, ask.sources, rows)
        if ask.keep is not None:
            ticket._length = ask.keep
            ticket._common = min(ticket._common, ask.keep)

    def _pass(self, tickets: Sequence[Ticket[Any]], decoder: Ragged) -> list[Answer | Exception]:
        """One pass of the decoder, and what it says to each."""
        parts = [_part(ticket) for ticket in tickets]
        hidden = decoder.run(parts)
        wrong = unsound(hidden, parts)
        if any(wrong) and len(parts) > 1 and self._model.compute_type == "int8":
            raise ServiceError("of rows rounded together one is not finite")  # so each by itself
        places, probes, first = [], [], 0
        for ticket, part in zip(tickets, parts, strict=True):
            ask = _asked(ticket)
            ends = range(first + part.width, first + len(part.rows) * part.width + 1, part.width)
            places += [end - i for end in ends for i in range(ask.wanted, 0, -1)]
            if ask.probe is not None:
                probes += [end - part.width + ask.probe[0] for end in ends]
            first = ends[-1]
        scores = self._model.decoder.project(hidden[places + probes])
        asks = [_asked(ticket) for ticket in tickets]
        found = answers(asks, parts, scores[: len(places)], scores[len(places) :])
        for number, (ticket, ask, trouble) in enumerate(zip(tickets, asks, wrong, strict=True)):
            ticket._length += len(ask.tokens[0])
            if trouble is not None:
                found[number] = trouble
            elif ask.copies > 1:
                try:
                    _spread(ticket, ask.copies, decoder)
                except Exception as error:  # the others have been read, and are not read again
                    found[number] = error
        return found

    # -- coming and going ---------------------------------------------------------------------

    def _move(self, ticket: Ticket[Any], answer: Any) -> None:
        """Let a decode go on to its next step, or to its end."""
        try:
            while True:
                step = next(ticket._steps) if answer is None else ticket._steps.send(answer)
                ticket._step = step
                if not isinstance(step, Attach):
                    return
                self._forget(ticket)
                ticket._dtype = step.features.dtype
                ticket._heard = self._decoder(ticket._dtype).hear(step.features)
                answer = step.features
        except StopIteration as end:
            ticket.result = end.value
            self._leave(ticket)
        except Exception as error:
            self._fail(ticket, error)

    def _fail(self, ticket: Ticket[Any], error: Exception) -> None:
        ticket.error = error
        ticket._steps.close()
        self._leave(ticket, spoilt=True)

    def _leave(self, ticket: Ticket[Any], *, spoilt: bool = False) -> None:
        self._forget(ticket, spoilt=spoilt)
        ticket._step = None
        ticket.done = True
        self._tickets.remove(ticket)

    def _forget(self, ticket: Ticket[Any], *, spoilt: bool = False) -> None:
        """Give back the rows and the audio."""
        if ticket._heard is not None:
            decoder = self._decoder(ticket._dtype)
            decoder.rows.give(ticket._rows, spoilt=spoilt)
            decoder.shelves.take_away(ticket._heard)
        ticket._rows, ticket._length, ticket._heard = [], 0, None


@torch.no_grad()
def run_alone(model: Whisper, steps: Steps[T]) -> T:
    """Run one decode to its end on the calling thread.

    Where hooks hang on the decoder, its modules are called one by one, so that they see what they
    would see of openai-whisper's.

    Raises:
        Exception: what the decode failed with.
    """
    if hooked(model.decoder.modules()):
        return run_plainly(model, steps)
    batch = Batch(model)
    ticket = batch.add(steps)
    while not ticket.done:
        batch.step()
    if ticket.error is not None:
        raise ticket.error
    return ticket.result  # type: ignore[return-value]


def _mel(ticket: Ticket[Any]) -> Tensor:
    assert isinstance(ticket._step, Encode)
    return ticket._step.mel


def _asked(ticket: Ticket[Any]) -> Ask:
    assert isinstance(ticket._step, Ask)
    return ticket._step


def _part(ticket: Ticket[Any]) -> Part:
    ask = _asked(ticket)
    assert ticket._heard is not None
    attention = KEPT_ATTENTION if ask.attention else 0
    return Part(ask.tokens, ticket._rows, ticket._length, ticket._heard, attention)


def _reordered(ticket: Ticket[Any], sources: Sequence[int], rows: Rows) -> list[int]:
    """Rows that go on as the source rows stand: only one that goes on twice is copied.

    It is copied into the place of one of its own copies that does not go on, so that only what
    came after they parted has to be.
    """
    found: list[int] = []
    for first in range(0, len(sources), ticket._copies):
        own = range(first, first + ticket._copies)
        wanted = [sources[i] for i in own]
        unused = [ticket._rows[i] for i in own if i not in wanted]
        for source in wanted:
            row = ticket._rows[source]
            if row in found:
                row, copied = unused.pop(), row
                rows.copy(copied, row, ticket._common, ticket._length)
            found.append(row)
    return found


def _spread(ticket: Ticket[Any], copies: int, decoder: Ragged) -> None:
    """Put copies of each row side by side."""
    taken = iter(decoder.rows.take(len(ticket._rows) * (copies - 1)))
    spread = []
    for row in ticket._rows:
        spread.append(row)
        for copy in itertools.islice(taken, copies - 1):
            decoder.rows.copy(row, copy, 0, ticket._length)
            spread.append(copy)
    ticket._rows, ticket._copies, ticket._common = spread, copies, ticket._length
