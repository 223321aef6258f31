"""From encoded audio to tokens: one window, decoded as openai-whisper's ``decode`` does.

    mel -> encode -> prompt + <|startoftranscript|> ... -> [filter logits, choose tokens] -> text

The algorithm is that of Radford et al., "Robust Speech Recognition via Large-Scale Weak
Supervision" (arXiv 2212.04356), sections 2.3 and 4.5.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .errors import InputError
from .logit_filters import Filter, SuppressBlank, SuppressTokens, TimestampRules
from .mel import CHUNK_LENGTH
from .search import BeamSearch, RowSearch, Search, best_candidate
from .tokenizer import Tokenizer, get_tokenizer

if TYPE_CHECKING:
    from .kv_cache import KVCache
    from .model import Whisper


@dataclass(frozen=True)
class DecodingOptions:
    """How to decode one window; the fields and defaults of openai-whisper's class.

    Attributes:
        task: "transcribe", "translate" (into English) or "lang_id" (detect the language only).
        language: code or name of the language spoken; None detects it.
        temperature: 0 takes the likeliest tokens, above that they are drawn at random.
        sample_len: most tokens to decode; None for half of the text context.
        best_of: transcripts to draw at a temperature above 0, the best of which is kept.
        beam_size: beams at temperature 0.
        patience: finished beams to wait for, times ``beam_size`` (arXiv 2204.05424).
        length_penalty: 0 to 1, see :func:`aii.search.best_candidate`; None divides by the length.
        prompt: text or tokens that came before the window.
        prefix: text or tokens with which the transcript begins.
        suppress_tokens: token numbers, or a comma-separated string of them; -1 stands for the
            tokens that are not speech; None or "" for no suppression.
        suppress_blank: keep the transcript from beginning blank.
        without_timestamps: text only.
        max_initial_timestamp: latest first timestamp in seconds; None or 0 for any.
        fp16: compute in float16.
    """

    task: str = "transcribe"
    language: str | None = None
    temperature: float = 0.0
    sample_len: int | None = None
    best_of: int | None = None
    beam_size: int | None = None
    patience: float | None = None
    length_penalty: float | None = None
    prompt: str | list[int] | None = None
    prefix: str | list[int] | None = None
    suppress_tokens: str | Sequence[int] | None = "-1"
    suppress_blank: bool = True
    without_timestamps: bool = False
    max_initial_timestamp: float | None = 1.0
    fp16: bool = True


@dataclass(frozen=True)
class DecodingResult:
    """What one window says.

    Attributes:
        audio_features: (S, D) the encoded audio.
        language: code of the language decoded in.
        language_probs: probability of each language, where "lang_id" asked for it.
        tokens: the transcript's tokens, timestamps included, without the end.
        text: the same as text.
        avg_logprob: mean log-probability per token, the end included.
        no_speech_prob: probability of the no-speech token behind the start token.
        temperature: the one it was decoded at.
        compression_ratio: see :func:`compression_ratio`.
        passes: forward passes of the decoder.
    """

    audio_features: Tensor
    language: str
    language_probs: dict[str, float] | None = None
    tokens: list[int] = field(default_factory=list)
    text: str = ""
    avg_logprob: float = math.nan
    no_speech_prob: float = math.nan
    temperature: float = math.nan
    compression_ratio: float = math.nan
    passes: int = 0


def compression_ratio(text: str) -> float:
    """Bytes of the text over its bytes after zlib; repetition makes it high (2.4 is suspect)."""
    data = text.encode("utf-8")
    return len(data) / len(zlib.compress(data))


@torch.no_grad()
def detect_language(
    model: Whisper, mel: Tensor, tokenizer: Tokenizer | None = None
) -> tuple[Tensor, Any]:
    """Find the language spoken.

    Args:
        mel: log-mel of one audio (mels, frames) or several (B, mels, frames), or encoded audio.
        tokenizer: one for the model; made where it is None.

    Returns:
        The likeliest language tokens, () or (B,), and a dict from language code to probability, or
        a list of B of them.

    Raises:
        InputError: the model knows no languages.
    """
    tokenizer = tokenizer or get_tokenizer(model.is_multilingual, num_languages=model.num_languages)
    if tokenizer.language is None or tokenizer.language_token not in tokenizer.sot_sequence:
        raise InputError("this model has no language tokens, so it cannot detect the language")
    single = mel.ndim == 2
    batch = mel[None] if single else mel
    features = batch if is_encoded(model, batch) else model.encoder(batch)
    tokens, probs = _language_of(model, features, tokenizer)
    return (tokens[0], probs[0]) if single else (tokens, probs)


def _language_of(
    model: Whisper, features: Tensor, tokenizer: Tokenizer
) -> tuple[Tensor, list[dict[str, float]]]:
    start = torch.full((features.shape[0], 1), tokenizer.sot, device=features.device)
    ids = list(tokenizer.all_language_tokens)
    logits = model.logits(start, features)[:, 0, ids]  # (B, languages)
    tokens = torch.tensor(ids, device=logits.device)[logits.argmax(dim=-1)]
    codes = tokenizer.all_language_codes
    rows = logits.softmax(dim=-1).tolist()
    return tokens, [dict(zip(codes, row, strict=True)) for row in rows]


def is_encoded(model: Whisper, mel: Tensor) -> bool:
    """Whether (B, ...) holds encoded audio of the full context rather than log-mel."""
    return tuple(mel.shape[-2:]) == (model.dims.n_audio_ctx, model.dims.n_audio_state)


@torch.no_grad()
def encode(model: Whisper, mel: Tensor, *, fp16: bool = False) -> Tensor:
    """Encode log-mel (B, mels, frames) to (B, S, D); encoded audio stays as it is."""
    mel = mel.to(torch.float16 if fp16 else torch.float32)
    return mel if is_encoded(model, mel) else model.encoder(mel)


@torch.no_grad()
def decode(
    model: Whisper, mel: Tensor, options: DecodingOptions | None = None, **kwargs: Any
) -> DecodingResult | list[DecodingResult]:
    """Decode windows of up to 30 s.

    Args:
        mel: log-mel of one window (mels, frames) or several (B, mels, frames), or encoded audio of
            the full context, (S, D) or (B, S, D).
        options: how; further keywords replace its fields.

    Returns:
        One result, or a list of them where ``mel`` has a batch dimension.

    Raises:
        InputError: options that contradict each other or do not fit the model.
    """
    options = replace(options or DecodingOptions(), **kwargs)
    single = mel.ndim == 2
    features = encode(model, mel[None] if single else mel, fp16=options.fp16)
    results = decode_features(model, features, options)
    return results[0] if single else results


@torch.no_grad()
def decode_features(
    model: Whisper,
    features: Tensor,
    options: DecodingOptions,
    generator: torch.Generator | None = None,
) -> list[DecodingResult]:
    """Decode encoded audio (B, S, D), which may have a shortened context; see :func:`decode`.

    ``generator`` draws at temperatures above 0, torch's global one where it is None.
    """
    task = _Task(model, options, generator)
    languages, probs = task.languages(features)
    if options.task == "lang_id":
        rows = zip(features, languages, probs or [], strict=True)
        return [DecodingResult(f, language, p) for f, language, p in rows]
    return task.run(features, languages)


class _Task:
    """What the options mean for one model: the first tokens, the filters, the search."""

    def __init__(
        self, model: Whisper, options: DecodingOptions, generator: torch.Generator | None
    ) -> None:
        _check(options)
        self.generator = generator
        self.model = model
        self.options = options
        self.tokenizer = get_tokenizer(
            model.is_multilingual,
            num_languages=model.num_languages,
            language=options.language or "en",
            task=options.task if options.task != "lang_id" else "transcribe",
        )
        self.group = options.beam_size or options.best_of or 1
        self.n_ctx = model.dims.n_text_ctx
        self.sample_len = options.sample_len or self.n_ctx // 2
        self.initial = self._initial_tokens()
        if len(self.initial) > self.n_ctx:
            raise InputError(
                f"prompt and prefix make {len(self.initial)} tokens, but the model takes "
                f"{self.n_ctx}; shorten the prefix"
            )
        self.sot_index = self.initial.index(self.tokenizer.sot)
        self.filters = self._filters()

    def _initial_tokens(self) -> list[int]:
        tokenizer, options = self.tokenizer, self.options
        tokens = list(
            tokenizer.sot_sequence_including_notimestamps
            if options.without_timestamps
            else tokenizer.sot_sequence
        )
        if options.prefix:
            room = max(self.n_ctx // 2 - self.sample_len, 0)
            tokens += self._encode(options.prefix)[-room:]  # no room known: all of it
        if options.prompt:
            kept = self._encode(options.prompt)[-(self.n_ctx // 2 - 1) :]
            tokens = [tokenizer.sot_prev, *kept, *tokens]
        return tokens

    def _encode(self, text: str | list[int]) -> list[int]:
        if isinstance(text, str):
            return self.tokenizer.encode(" " + text.strip())
        if bad := [t for t in text if not 0 <= t < self.model.dims.n_vocab]:
            raise InputError(f"token {bad[0]} is not in the model's vocabulary")
        return list(text)

    def _filters(self) -> list[Filter]:
        tokenizer, options = self.tokenizer, self.options
        filters: list[Filter] = []
        if options.suppress_blank:
            filters.append(SuppressBlank(tokenizer.encode(" "), tokenizer.eot))
        if options.suppress_tokens:
            filters.append(SuppressTokens(self._suppressed(options.suppress_tokens)))
        if not options.without_timestamps:
            step = CHUNK_LENGTH / self.model.dims.n_audio_ctx  # seconds, 0.02 as a rule
            latest = options.max_initial_timestamp
            first = round(latest / step) if latest else None
            filters.append(
                TimestampRules(
                    tokenizer.timestamp_begin, tokenizer.eot, tokenizer.no_timestamps, first
                )
            )
        return filters

    def _suppressed(self, tokens: str | Sequence[int]) -> list[int]:
        tokenizer = self.tokenizer
        try:
            listed = [int(t) for t in (tokens.split(",") if isinstance(tokens, str) else tokens)]
        except (TypeError, ValueError):
            raise InputError(f"suppress_tokens must be token numbers, not {tokens!r}") from None
        if bad := [t for t in listed if t >= self.model.dims.n_vocab]:
            raise InputError(f"suppress_tokens: token {bad[0]} is not in the model's vocabulary")
        if -1 in listed:
            listed = [t for t in listed if t >= 0] + list(tokenizer.non_speech_tokens)
        never = (
            tokenizer.transcribe,
            tokenizer.translate,
            tokenizer.sot,
            tokenizer.sot_prev,
            tokenizer.sot_lm,
            tokenizer.no_speech,  # its probability is read off behind the start token
        )
        return listed + [token for token in never if token is not None]

    def languages(self, features: Tensor) -> tuple[list[str], list[dict[str, float]] | None]:
        """The language of each audio, and the probabilities where they had to be found."""
        detect = self.options.task == "lang_id" or (
            self.options.language is None and self.model.is_multilingual
        )
        if not detect:
            return [self.options.language or "en"] * features.shape[0], None
        if not self.model.is_multilingual:
            raise InputError("this model has no language tokens, so it cannot detect the language")
        _, probs = _language_of(self.model, features, self.tokenizer)
        if self.options.language is not None:
            return [self.options.language] * features.shape[0], probs
        return [max(row, key=row.__getitem__) for row in probs], probs

    def search(self, audios: int) -> Search:
        """A fresh search for ``audios`` audios."""
        options, eot = self.options, self.tokenizer.eot
        if options.beam_size is not None:
            return BeamSearch(audios, size=self.group, eot=eot, patience=options.patience)
        return RowSearch(
            audios * self.group,
            group=self.group,
            eot=eot,
            temperature=options.temperature,
            generator=self.generator,
        )

    def run(self, features: Tensor, languages: list[str]) -> list[DecodingResult]:
        """Decode all audios of (B, S, D) side by side."""
        search = self.search(features.shape[0])
        no_speech, passes = self._loop(features, languages, search)
        results = []
        for i, candidates in enumerate(search.candidates()):
            best = best_candidate(candidates, self.options.length_penalty)
            text = self.tokenizer.decode(list(best.tokens)).strip()
            results.append(
                DecodingResult(
                    audio_features=features[i],
                    language=languages[i],
                    tokens=list(best.tokens),
                    text=text,
                    avg_logprob=best.logprob / (len(best.tokens) + 1),
                    no_speech_prob=no_speech[i],
                    temperature=self.options.temperature,
                    compression_ratio=compression_ratio(text),
                    passes=passes,
                )
            )
        return results

    def _loop(
        self, features: Tensor, languages: list[str], search: Search
    ) -> tuple[list[float], int]:
        """Run the decoder until the search is done; return no-speech odds and the passes made."""
        decoder = self.model.decoder
        cache, logits, no_speech = self._first_pass(features, languages)
        for taken in range(1, self.sample_len + 1):
            for forbid in self.filters:
                forbid(logits, search.sampled)
            tokens, sources = search.choose(logits)
            if search.done or taken == self.sample_len or max(cache.lengths) == self.n_ctx:
                break
            if sources is not None:
                cache.reorder(sources)
            column = torch.tensor(tokens, device=features.device)[:, None]
            logits = decoder(column, None, cache)[:, -1]
        return no_speech, taken

    def _first_pass(
        self, features: Tensor, languages: list[str]
    ) -> tuple[KVCache, Tensor, list[float]]:
        """Read the initial tokens: the cache, the logits behind them, the no-speech odds."""
        decoder, tokenizer = self.model.decoder, self.tokenizer
        tokens = torch.tensor([self.initial] * features.shape[0], device=features.device)
        if self.options.language is None and self.model.is_multilingual:
            ids = [tokenizer.to_language_token(language) for language in languages]
            tokens[:, self.sot_index + 1] = torch.tensor(ids, device=features.device)
        capacity = min(len(self.initial) + self.sample_len, self.n_ctx)
        cache = decoder.new_cache(
            features.shape[0], capacity=capacity, device=features.device, dtype=features.dtype
        )
        hidden = decoder.hidden(tokens, features, cache)
        at_start, at_end = decoder.project(hidden[:, [self.sot_index, -1]]).unbind(dim=1)
        no_speech = [math.nan] * features.shape[0]
        if tokenizer.no_speech is not None:
            no_speech = at_start.softmax(dim=-1)[:, tokenizer.no_speech].tolist()
        cache.repeat(self.group)
        return cache, at_end.repeat_interleave(self.group, dim=0), no_speech


def _check(options: DecodingOptions) -> None:
    if options.task not in ("transcribe", "translate", "lang_id"):
        raise InputError(f"task must be transcribe, translate or lang_id, not {options.task!r}")
    if options.beam_size is not None and options.best_of is not None:
        raise InputError("beam_size and best_of exclude each other; give one")
    if options.temperature == 0 and options.best_of is not None:
        raise InputError("best_of draws at random; give a temperature above 0, or no best_of")
    if options.patience is not None and options.beam_size is None:
        raise InputError("patience belongs to beam search; give beam_size too")
    if options.length_penalty is not None and not 0 <= options.length_penalty <= 1:
        raise InputError(f"length_penalty must be from 0 to 1, not {options.length_penalty}")
