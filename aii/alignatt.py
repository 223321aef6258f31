"""AlignAtt: decode speech that goes on, and stop where the attention reaches the end of the audio.

Papi et al., "AlignAtt" (arXiv 2305.11408), for Whisper: Simul-Whisper (arXiv 2406.10052). The
decoder is made to repeat what was emitted before, then goes on token by token; the cross-attention
of its alignment heads says which 20 ms of the audio each token comes from. One that comes from the
very end may be half a word, so it is dropped and decoding waits for more audio.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .errors import InputError
from .logit_filters import Filter, SuppressTokens
from .loops import first_ask, language_steps, no_speech_odds
from .options import DecodingOptions, compression_ratio
from .search import BeamSearch, Candidate, RowSearch, best_candidate
from .steps import KEPT_ATTENTION, Answer, Ask, Steps
from .task import Task
from .timing import median_filter
from .types import AttentionStop, Token

if TYPE_CHECKING:
    from .model import Whisper

RESERVE = 20
"""Places of the text context that prompt and prefix leave to what is new."""

_SMOOTHING = 7  # frames

_DROPPING = ("attention", "repeat")
"""Reasons to stop at a token that is not given."""

_RISEN, _FALLEN = 0.5, 0.2
"""How much of its greatest attention a token pays to the first and to the last frame of its span.

Measured on words whose places are known: ``benchmarks/streaming_quality.py``.
"""


@dataclass(frozen=True)
class Aligned:
    """What an update heard.

    Attributes:
        tokens: the new ones with log-probability and frame, without prefix and end.
        stopped: "end", "attention", "rewind", "repeat" or "limit", as in ``Hypothesis``.
        language: code of the language decoded in.
        avg_logprob: mean log-probability of the new tokens, the end included where it came.
        no_speech_prob: probability that nobody speaks.
        compression_ratio: of the new tokens' text.
        passes: forward passes of the decoder.
        dropped: the token that it ended at, if it ended at one.
    """

    tokens: tuple[Token, ...]
    stopped: str
    language: str
    avg_logprob: float
    no_speech_prob: float
    compression_ratio: float
    passes: int
    dropped: Token | None = None


class Attended:
    """Which frame each row attends to, from the scores of its last tokens.

    Per alignment head: softmax over the frames, z-score over the last tokens, median over
    neighbouring frames; then the mean over the heads, of which the greatest among the frames that
    are audio is taken.

    Args:
        frames: how many frames of the scores are audio rather than padding.
        keep: tokens whose attention is held.
    """

    def __init__(self, frames: int, keep: int = KEPT_ATTENTION) -> None:
        self._frames = frames
        self._keep = keep
        self._weights: Tensor | None = None  # (rows, heads, tokens, frames)

    def add(self, scores: Tensor, sources: Sequence[int] | None = None, copies: int = 1) -> None:
        """Take in the scores of new tokens (rows, heads, n, S) before the softmax.

        Args:
            sources: the rows that the rows go on from.
            copies: how often each row is there from now on.
        """
        held, new = self._weights, scores.float().softmax(dim=-1)
        if held is not None:
            if sources is not None:
                held = held[list(sources)]
            new = torch.cat([held, new], dim=2)
        self._weights = new[:, :, -self._keep :].repeat_interleave(copies, dim=0)

    def places(self) -> list[tuple[int, tuple[int, int]]]:
        """The frame that the newest token of each row attends to, and its span (``Token``).

        0 where there is no audio.
        """
        if self._weights is None or self._frames < 1:
            return [(0, (0, 0))] * (0 if self._weights is None else self._weights.shape[0])
        std, mean = torch.std_mean(self._weights, dim=2, unbiased=False, keepdim=True)
        # A frame that every token sees alike says nothing, so it stands at the mean.
        scores = ((self._weights[:, :, -2:] - mean) / std).nan_to_num(0.0, 0.0, 0.0)
        newest = median_filter(scores[:, :, -1], _SMOOTHING).mean(dim=1)[:, : self._frames]
        places = []
        for row, peak in enumerate(newest.argmax(dim=-1).tolist()):
            own = newest[row]
            first = _edge(own >= own[peak] * _RISEN, peak, -1)
            if scores.shape[2] > 1:
                first = max(first, self._overtakes(own, scores[row, :, 0], first, peak))
            places.append((peak, (first, _edge(own >= own[peak] * _FALLEN, peak, 1))))
        return places

    def _overtakes(self, own: Tensor, before: Tensor, first: int, peak: int) -> int:
        """From where to ``peak`` a token is seen more than the one before (heads, frames).

        That one is smoothed around ``first`` to ``peak`` only: smoothing is most of the work.
        """
        begin, end = max(0, first - _SMOOTHING // 2), peak + _SMOOTHING // 2 + 1
        smooth = median_filter(before[:, begin:end], _SMOOTHING).mean(dim=0)
        more = own[begin : peak + 1] > smooth[: peak + 1 - begin]
        return begin + _edge(more, peak - begin, -1)


def _edge(chosen: Tensor, place: int, way: int) -> int:
    """The last of the frames from ``place`` on, backwards or forwards, that are all ``chosen``."""
    gaps = (~chosen).nonzero()[:, 0]
    if way < 0:
        gaps = gaps[gaps < place]
        return int(gaps[-1]) + 1 if len(gaps) else 0
    gaps = gaps[gaps > place]
    return int(gaps[0]) - 1 if len(gaps) else len(chosen) - 1


def aligned_steps(
    model: Whisper,
    options: DecodingOptions,
    stop: AttentionStop,
    *,
    frames: int,
    static: Sequence[int] = (),
    context: Sequence[int] = (),
) -> Steps[Aligned]:
    """Decode the one audio that is attached until it ends or the attention nears its end.

    Args:
        options: language, task, beams, the prefix (tokens emitted before, forced) and which tokens
            to suppress; always without timestamps and at temperature 0.
        stop: when to stop.
        frames: how many encoder frames of 20 ms are audio.
        static: tokens that stand first whatever comes.
        context: tokens of the text before the audio; cut from the left, by whole words, to what the
            model has room for.

    Raises:
        InputError: options that do not fit, or a prefix that leaves no room.
    """
    languages = [options.language or "en"]
    options = replace(
        options,
        without_timestamps=True,
        temperature=0.0,
        best_of=None,
        prompt=None,
        sample_len=None,
    )
    task = Task(model, options)
    if task.detects:
        (odds,) = yield from language_steps(task.tokenizer, 1)
        languages = [max(odds, key=odds.__getitem__)]
    _prepend(task, static, context)
    back = model.metadata.get("attention_back") if stop.repeats else None
    run = _Run(task, stop, Attended(frames), frames, back)
    return (yield from run.steps(languages))


def _prepend(task: Task, static: Sequence[int], context: Sequence[int]) -> None:
    """Put the prompt before the task's first tokens, as far as there is room."""
    room = task.n_ctx - RESERVE - len(task.initial) - 1 - len(static)
    if room < 0:
        raise InputError(
            f"prompt and prefix make {task.n_ctx - RESERVE - room} tokens, but the model has room "
            f"for {task.n_ctx - RESERVE}; drop the oldest audio with its tokens"
        )
    prompt = [*task.encode(static), *whole_words(task, task.encode(context), room)]
    if prompt:
        task.prepend([task.tokenizer.sot_prev, *prompt])


def whole_words(task: Task, tokens: list[int], room: int) -> list[int]:
    """The last ``room`` tokens, less those of a word that would be cut."""
    if len(tokens) <= room:
        return tokens
    _, words = task.tokenizer.split_to_word_tokens([t for t in tokens if t < task.tokenizer.eot])
    kept: list[int] = []
    for word in reversed(words):
        if len(kept) + len(word) > room:
            break
        kept = [*word, *kept]
    return kept


class _Run:
    """One update: the search, and for each row the frames and log-probabilities of its tokens."""

    def __init__(
        self,
        task: Task,
        stop: AttentionStop,
        attended: Attended,
        frames: int,
        back: int | None,
    ) -> None:
        self._task = task
        self._stop = stop
        self._attended = attended
        self._frames = frames
        self._back = back
        self._most = min(stop.max_tokens, task.n_ctx - len(task.initial))
        search = task.search()
        assert isinstance(search, RowSearch | BeamSearch)
        self._search = search
        self._trails: list[tuple[Token, ...]] = [()] * task.group
        self._ended: dict[tuple[int, ...], tuple[Token, ...]] = {}
        self._filters = [*task.filters, _never(task)]

    def steps(self, languages: Sequence[str]) -> Steps[Aligned]:
        task, passes = self._task, 1
        ask = replace(
            first_ask(task, languages, self._search),
            capacity=len(task.initial) + self._most,
            filters=self._filters,
            attention=True,
        )
        answer: Answer = yield ask
        no_speech = no_speech_odds(answer, 1)[0]
        self._see(answer, None, task.group)
        while True:
            tokens, sources = self._grow(answer)
            if (stopped := self._verdict()) is not None:
                return self._result(stopped, languages[0], no_speech, passes)
            answer = yield Ask(
                [[token] for token in tokens],
                sources=sources,
                filters=self._filters,
                sampled=self._search.sampled,
                pick=self._search.greedy,
                attention=True,
            )
            passes += 1
            self._see(answer, sources, 1)

    def _see(self, answer: Answer, sources: Sequence[int] | None, copies: int) -> None:
        assert answer.attention is not None
        self._attended.add(answer.attention, sources, copies)

    def _grow(self, answer: Answer) -> tuple[list[int], list[int] | None]:
        """Choose the next tokens; each one comes from where the row before it looks."""
        search, places = self._search, self._attended.places()
        before = [tuple(tokens) for tokens in search.sampled]
        if isinstance(search, RowSearch):
            tokens, _ = search.take(answer.tokens, answer.logprobs)
            if not search.done:
                self._trails = [
                    (*self._trails[0], Token(tokens[0], answer.logprobs[0], *places[0]))
                ]
            return tokens, None
        assert answer.logits is not None
        sums, finished = search.sums, set(search.finished)
        tokens, sources = search.choose(answer.logits)
        assert sources is not None
        for sequence in search.finished.keys() - finished:
            self._ended[sequence] = self._trails[before.index(sequence)]
        if not search.done:
            self._trails = [
                (*self._trails[source], Token(token, total - sums[source], *places[source]))
                for token, source, total in zip(tokens, sources, search.sums, strict=True)
            ]
        return tokens, sources

    def _best(self) -> tuple[Token, ...]:
        """The best row that goes on."""
        search = self._search
        if isinstance(search, RowSearch):
            return self._trails[0]
        sums = search.sums
        return self._trails[max(range(len(sums)), key=sums.__getitem__)]

    def _verdict(self) -> str | None:
        """Why decoding ends here, None when it goes on."""
        if self._search.done:
            return "end"
        best, stop = self._best(), self._stop
        newest = best[-1].frame or 0
        before = (best[-2].frame or 0) if len(best) > 1 else stop.last_frame
        if stop.rewind is not None and before - newest > stop.rewind:
            return "rewind"
        if self._back is not None and before - newest > self._back:
            return "repeat"
        if self._frames - newest <= stop.threshold:
            return "attention"
        return "limit" if len(best) >= self._most else None

    def _result(self, stopped: str, language: str, no_speech: float, passes: int) -> Aligned:
        dropped = self._best()[-1] if stopped in _DROPPING else None
        tokens, logprob, stopped = self._choose(stopped)
        if stopped == "end":
            dropped = Token(self._task.tokenizer.eot)
        text = self._task.tokenizer.decode([token.id for token in tokens])
        return Aligned(
            tokens=tokens,
            stopped=stopped,
            language=language,
            avg_logprob=logprob / (len(tokens) + 1),
            no_speech_prob=no_speech,
            compression_ratio=compression_ratio(text),
            passes=passes,
            dropped=dropped,
        )

    def _choose(self, stopped: str) -> tuple[tuple[Token, ...], float, str]:
        """The tokens to give, the sum of their log-probabilities, and why they end there."""
        if stopped == "rewind":
            return (), 0.0, stopped
        if isinstance(self._search, RowSearch):
            ((found,),) = self._search.candidates()
            tokens = self._trails[0]
            if stopped not in _DROPPING:
                return tokens, found.logprob, stopped
            return tokens[:-1], found.logprob - (tokens[-1].logprob or 0.0), stopped
        trails = {Candidate(t, self._search.finished[t]): self._ended[t] for t in self._ended}
        if stopped != "end" or not trails:
            best = self._best()
            best = best[:-1] if stopped in _DROPPING else best
            total = sum(token.logprob or 0.0 for token in best)
            trails[Candidate(tuple(token.id for token in best), total)] = best
        chosen = best_candidate(list(trails), self._task.options.length_penalty)
        ended = chosen.tokens in self._ended
        return trails[chosen], chosen.logprob, "end" if ended else stopped


def _never(task: Task) -> Filter:
    """What an update never says: other special tokens than the end, and times."""
    tokenizer = task.tokenizer
    return SuppressTokens(range(tokenizer.eot + 1, task.n_vocab))
