"""What a decode wants of the network, one step after the other.

A decode is a generator. It yields what it needs next (:class:`Encode`, :class:`Attach` or
:class:`Ask`), is sent what came of it, and returns its result; it never touches the network. So
the same decode runs alone or among those of many calls (``aii.batch``), and what it does with the
answers is written once. :func:`run_plainly` is the slow twin of those.

A decode has one audio at a time, or several side by side, and rows of tokens over it.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from .attention import AttentionRecorder
from .logit_filters import Filter
from .packed import check_audio
from .search import likeliest

if TYPE_CHECKING:
    from .kv_cache import KVCache
    from .model import Whisper

T = TypeVar("T")

KEPT_ATTENTION = 16
"""Tokens whose attention one answer holds at most: enough for a rule on the newest of them."""


@dataclass(frozen=True, eq=False)
class Encode:
    """Encode log-mel (A, mels, frames) and decode over it from now on; answered by (A, S, D)."""

    mel: Tensor


@dataclass(frozen=True, eq=False)
class Attach:
    """Decode over encoded audio (A, S, D) from now on; answered by the same."""

    features: Tensor


@dataclass(frozen=True, eq=False)
class Ask:
    """Read tokens, and say what may come behind them.

    Attributes:
        tokens: R rows of n new tokens each, n at least 1; R is a multiple of the audios.
        fresh: begin with R empty rows, whatever was read before.
        sources: let row i first go on as row ``sources[i]`` (of the same audio) stands.
        keep: cut all rows back to this many tokens first.
        copies: when the tokens are read, put this many copies of each row side by side.
        capacity: most tokens that a row will ever have; for ``fresh``.
        wanted: scores are wanted behind the last ``wanted`` tokens of each row.
        filters: rules that forbid tokens there.
        sampled: for each row, and in it for each place wanted, what was sampled up to there.
        pick: the likeliest token is wanted, not the scores.
        probe: (i, ids): the probabilities of ``ids`` behind the i-th new token, before any rule.
        attention: wanted is, too, where the alignment heads look for the last tokens.
    """

    tokens: Sequence[Sequence[int]]
    fresh: bool = False
    sources: Sequence[int] | None = None
    keep: int | None = None
    copies: int = 1
    capacity: int | None = None
    wanted: int = 1
    filters: Sequence[Filter] = ()
    sampled: Sequence[Sequence[int]] = ()
    pick: bool = False
    probe: tuple[int, Sequence[int]] | None = None
    attention: bool = False


@dataclass(frozen=True, eq=False)
class Answer:
    """What came of an :class:`Ask`.

    Attributes:
        tokens, logprobs: the likeliest token of each place and its log-probability, row by row;
            empty unless picked.
        logits: (R * copies * wanted, vocabulary) float32, filtered; None if picked.
        probe: for each row, the probabilities asked for.
        attention: (R, heads, n, S) float32 scores of the alignment heads before the softmax, of
            the last tokens (at most ``KEPT_ATTENTION`` of them).
    """

    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    logits: Tensor | None = None
    probe: list[list[float]] = field(default_factory=list)
    attention: Tensor | None = None


Steps = Generator[Encode | Attach | Ask, Any, T]
"""A decode whose result is a ``T``."""


@torch.no_grad()
def run_plainly(model: Whisper, steps: Steps[T]) -> T:
    """Run one decode to its end with the network's plain forward passes and a dense cache."""
    alone = _Alone(model)
    try:
        step = next(steps)
        while True:
            if isinstance(step, Ask):
                step = steps.send(alone.ask(step))
            else:
                step = steps.send(alone.listen(step))
    except StopIteration as end:
        result: T = end.value
        return result


class _Alone:
    """The network's side of one decode: its audio and its cache."""

    def __init__(self, model: Whisper) -> None:
        self._model = model
        self._features: Tensor | None = None
        self._cache: KVCache | None = None

    def listen(self, step: Encode | Attach) -> Tensor:
        mel = step.mel if isinstance(step, Encode) else None
        features = self._model.encoder(mel) if mel is not None else step.features  # type: ignore[union-attr]
        check_audio(features, self._model.decoder.token_embedding)
        self._features, self._cache = features, None
        return features

    def ask(self, step: Ask) -> Answer:
        features = self._features
        if features is None:
            raise ValueError("a decode asked for tokens before it had audio")
        decoder = self._model.decoder
        cache = self._prepared(step, features)
        recorder = None
        if step.attention:
            recorder = AttentionRecorder(KEPT_ATTENTION, self._model.alignment_heads)
        tokens = torch.tensor(step.tokens, device=features.device)
        every = decoder(tokens, features, cache, recorder)  # called whole: hooks may look on
        probe = []
        if step.probe is not None:
            place, ids = step.probe
            probe = every[:, place].softmax(dim=-1)[:, list(ids)].tolist()
        cache.repeat(step.copies)
        wanted = every[:, -step.wanted :]  # (R, wanted, vocabulary)
        logits = wanted.repeat_interleave(step.copies, dim=0).flatten(0, 1)
        for forbid in step.filters:
            forbid(logits, step.sampled)
        attention = None if recorder is None else recorder.chosen
        if step.pick:
            return Answer(*likeliest(logits), probe=probe, attention=attention)
        return Answer(logits=logits, probe=probe, attention=attention)

    def _prepared(self, step: Ask, features: Tensor) -> KVCache:
        """The cache, its rows as the step wants them."""
        cache = self._cache
        if cache is None or step.fresh:
            audio = None if cache is None else [layer.audio for layer in cache.layers]
            cache = self._model.decoder.new_cache(
                len(step.tokens),
                capacity=step.capacity,
                device=features.device,
                dtype=features.dtype,
            )
            for layer, held in zip(cache.layers, audio or [], strict=False):
                layer.audio = held  # computed once, however often the audio is read
            self._cache = cache
        if step.sources is not None:
            cache.reorder(step.sources)
        if step.keep is not None:
            cache.truncate(step.keep)
        return cache
