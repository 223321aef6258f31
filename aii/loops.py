"""The decoding loops: from encoded audio to tokens, one step of the network after the other.

    languages -> first tokens -> [scores -> rules -> choice] -> results

Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision" (arXiv 2212.04356),
sections 2.3 and 4.5. What a draft and the text before foretell (``aii.drafts``) is verified in one
pass and changes nothing but the number of passes (in float32; types that round, round that pass a
little differently): where it is wrong, decoding goes on as if there were none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .drafts import Draft
from .errors import InputError
from .options import DecodingOptions, DecodingResult, compression_ratio
from .search import Candidate, Search, best_candidate
from .steps import Answer, Ask, Steps
from .task import Task
from .tokenizer import Tokenizer

if TYPE_CHECKING:
    from .model import Whisper


@dataclass(frozen=True)
class _Found:
    """What a loop came to: the candidates of each audio, the no-speech odds, passes, the end."""

    candidates: list[list[Candidate]]
    no_speech: list[float]
    passes: int
    stopped: str


def decoding_steps(
    model: Whisper,
    features: Tensor,
    options: DecodingOptions,
    generator: torch.Generator | None = None,
    draft: Sequence[int] | None = None,
) -> Steps[list[DecodingResult]]:
    """Decode the audio that is attached, (A, S, D) ``features``: one result for each.

    Args:
        generator: draws at temperatures above 0; None for torch's global one.
        draft: tokens that the (only) audio's result probably has, timestamps included, () where
            only the text before can help; used where the likeliest tokens are taken, and never
            changing the result. None takes one token per pass.

    Raises:
        InputError: options that contradict each other or do not fit the model.
    """
    task = Task(model, options, generator)
    audios = features.shape[0]
    languages, probs = [options.language or "en"] * audios, None
    if task.detects:
        if not task.multilingual:
            raise InputError("this model has no language tokens, so it cannot detect the language")
        probs = yield from language_steps(task.tokenizer, audios)
        if options.language is None:
            languages = [max(row, key=row.__getitem__) for row in probs]
    if options.task == "lang_id":
        rows = zip(features, languages, probs or [], strict=True)
        return [DecodingResult(f, language, p) for f, language, p in rows]
    guess = None if draft is None or not audios == task.group == 1 else task.encode(draft)
    if guess is not None and task.search().greedy:
        found = yield from _verify(task, languages, guess)
    else:
        found = yield from _search(task, languages)
    return _results(task, features, languages, found)


def language_steps(tokenizer: Tokenizer, audios: int) -> Steps[list[dict[str, float]]]:
    """The probability of each language, for each audio that is attached."""
    answer: Answer = yield Ask([[tokenizer.sot]] * audios, fresh=True, capacity=1)
    assert answer.logits is not None
    odds = answer.logits[:, list(tokenizer.all_language_tokens)].softmax(dim=-1)
    codes = tokenizer.all_language_codes
    return [dict(zip(codes, row, strict=True)) for row in odds.tolist()]


def first_ask(task: Task, languages: Sequence[str], search: Search) -> Ask:
    """The first pass: the initial tokens of each audio."""
    no_speech = task.tokenizer.no_speech
    return Ask(
        task.first_tokens(languages),
        fresh=True,
        copies=task.group,
        capacity=min(len(task.initial) + task.sample_len, task.n_ctx),
        filters=task.filters,
        sampled=search.sampled,
        pick=search.greedy,
        probe=None if no_speech is None else (task.sot_index, (no_speech,)),
    )


def no_speech_odds(answer: Answer, audios: int) -> list[float]:
    """What the first pass says about nobody speaking; NaN where the vocabulary cannot say it."""
    return [row[0] for row in answer.probe] or [math.nan] * audios


def _search(task: Task, languages: Sequence[str]) -> Steps[_Found]:
    """One token for every row in every pass."""
    search = task.search(len(languages))
    answer: Answer = yield first_ask(task, languages, search)
    no_speech = no_speech_odds(answer, len(languages))
    for taken in range(1, task.sample_len + 1):
        if answer.logits is None:
            tokens, sources = search.take(answer.tokens, answer.logprobs)
        else:
            tokens, sources = search.choose(answer.logits)
        if search.done or taken == task.sample_len or len(task.initial) + taken > task.n_ctx:
            break
        answer = yield Ask(
            [[token] for token in tokens],
            sources=sources,
            filters=task.filters,
            sampled=search.sampled,
            pick=search.greedy,
        )
    return _Found(search.candidates(), no_speech, taken, "end" if search.done else "limit")


def _verify(task: Task, languages: Sequence[str], guess: Sequence[int]) -> Steps[_Found]:
    """The likeliest tokens of one audio, as many in a pass as were foretold."""
    search = task.search()
    before = task.initial[: task.sot_index]
    draft = Draft(guess, task.tokenizer.timestamp_begin, before)
    start, passes = len(task.initial), 0
    (sampled,) = search.sampled
    ask = first_ask(task, languages, search)
    (fed,) = ask.tokens
    no_speech: list[float] = []
    while True:
        room = min(task.n_ctx - start, task.sample_len - 1) - len(sampled)
        ahead = draft.ahead(sampled, room)
        wanted = len(ahead) + 1
        answer: Answer = yield Ask(
            [[*fed, *ahead]],
            fresh=ask.fresh and not passes,
            keep=None if not passes else start + len(sampled) - 1,
            capacity=ask.capacity,
            wanted=wanted,
            filters=task.filters,
            sampled=[[*sampled, *ahead[:i]] for i in range(wanted)],
            pick=True,
            probe=None if passes else ask.probe,
        )
        passes += 1
        no_speech = no_speech or no_speech_odds(answer, 1)
        for place, (token, logprob) in enumerate(zip(answer.tokens, answer.logprobs, strict=True)):
            search.take([token], [logprob])
            full = len(sampled) == task.sample_len or start + len(sampled) > task.n_ctx
            if search.done or full:
                ending = "end" if search.done else "limit"
                return _Found(search.candidates(), no_speech, passes, ending)
            if place == len(ahead) or token != ahead[place]:
                break
        fed = [sampled[-1]]


def _results(
    task: Task, features: Tensor, languages: Sequence[str], found: _Found
) -> list[DecodingResult]:
    results = []
    for i, candidates in enumerate(found.candidates):
        best = best_candidate(candidates, task.options.length_penalty)
        text = task.tokenizer.decode(list(best.tokens)).strip()
        results.append(
            DecodingResult(
                audio_features=features[i],
                language=languages[i],
                tokens=list(best.tokens),
                text=text,
                avg_logprob=best.logprob / (len(best.tokens) + 1),
                no_speech_prob=found.no_speech[i],
                temperature=task.options.temperature,
                compression_ratio=compression_ratio(text),
                passes=found.passes,
                stopped=found.stopped,
            )
        )
    return results
