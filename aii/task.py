"""What decoding options mean for one model: the first tokens, the rules, the search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import torch

from .errors import InputError
from .logit_filters import (
    Constrain,
    Constraint,
    Filter,
    SuppressBlank,
    SuppressTokens,
    TimestampRules,
)
from .mel import CHUNK_LENGTH
from .options import DecodingOptions, check
from .search import BeamSearch, RowSearch, Search
from .tokenizer import Tokenizer, get_tokenizer

if TYPE_CHECKING:
    from .model import Whisper


class Task:
    """One way to decode, for one model.

    Attributes:
        options: as they were given.
        tokenizer: for the language and the task.
        group: rows for each audio.
        n_ctx: most tokens of a row.
        sample_len: most tokens to sample.
        initial: the tokens before the sampled ones.
        sot_index: place of the start token among them.
        filters: the rules, the same objects wherever options and model say the same.
        generator: what draws at temperatures above 0; None for torch's global one.

    Raises:
        InputError: options that contradict each other or do not fit the model.
    """

    def __init__(
        self,
        model: Whisper,
        options: DecodingOptions,
        generator: torch.Generator | None = None,
    ) -> None:
        check(options)
        self.generator = generator
        self.options = options
        self.multilingual = model.is_multilingual
        self.tokenizer = get_tokenizer(
            model.is_multilingual,
            num_languages=model.num_languages,
            language=options.language or "en",
            task=options.task if options.task != "lang_id" else "transcribe",
        )
        self.n_vocab = model.dims.n_vocab
        self.n_ctx = model.dims.n_text_ctx
        self.group = options.beam_size or options.best_of or 1
        self.sample_len = options.sample_len or self.n_ctx // 2
        # The end of it, as much as half the context leaves beside the text; all of it where nothing
        # is left, and where more is asked for than there is, less by that: openai-whisper's count.
        room = self.n_ctx // 2 - self.sample_len
        self._prefix = self.encode(options.prefix or [])[-room:]
        self.initial = self._initial_tokens()
        if len(self.initial) > self.n_ctx:
            raise InputError(
                f"prompt and prefix make {len(self.initial)} tokens, but the model takes "
                f"{self.n_ctx}; shorten the prefix"
            )
        self.sot_index = self.initial.index(self.tokenizer.sot)
        self.filters = _filters(self.tokenizer, self._rules(model.dims.n_audio_ctx))

    def prepend(self, tokens: Sequence[int]) -> None:
        """Put more tokens before the initial ones, which must leave room for them."""
        self.initial = [*tokens, *self.initial]
        self.sot_index += len(tokens)

    @property
    def detects(self) -> bool:
        """Whether the language has to be found."""
        return self.options.task == "lang_id" or (
            self.options.language is None and self.multilingual
        )

    def _initial_tokens(self) -> list[int]:
        tokenizer, options = self.tokenizer, self.options
        tokens = list(
            tokenizer.sot_sequence_including_notimestamps
            if options.without_timestamps
            else tokenizer.sot_sequence
        )
        tokens += self._prefix
        if options.prompt:
            kept = self.encode(options.prompt)[-(self.n_ctx // 2 - 1) :]
            tokens = [tokenizer.sot_prev, *kept, *tokens]
        return tokens

    def encode(self, text: str | Sequence[int]) -> list[int]:
        """The tokens of a text, or tokens once they are known to be in the vocabulary.

        Raises:
            InputError: one is not.
        """
        if isinstance(text, str):
            return self.tokenizer.encode(" " + text.strip())
        if bad := [t for t in text if not hasattr(t, "__index__") or not 0 <= t < self.n_vocab]:
            raise InputError(f"token {bad[0]!r} is not in the model's vocabulary")
        return list(text)

    def _rules(self, n_audio_ctx: int) -> _Rules:
        options = self.options
        latest = options.max_initial_timestamp
        step = CHUNK_LENGTH / n_audio_ctx  # seconds, 0.02 as a rule
        return _Rules(
            n_vocab=self.n_vocab,
            blank=options.suppress_blank,
            suppressed=_numbers(options.suppress_tokens),
            timestamps=not options.without_timestamps,
            latest_first=round(latest / step) if latest else None,
            constraint=options.constraint,
            before=tuple(self._prefix) if options.constraint is not None else (),
        )

    def search(self, audios: int = 1) -> Search:
        """A fresh search for ``audios`` audios."""
        options, eot = self.options, self.tokenizer.eot
        if options.beam_size is not None:
            return BeamSearch(
                audios,
                size=self.group,
                eot=eot,
                patience=options.patience,
                weighed=options.constraint is not None,
            )
        return RowSearch(
            audios * self.group,
            group=self.group,
            eot=eot,
            temperature=options.temperature,
            generator=self.generator,
        )

    def first_tokens(self, languages: Sequence[str]) -> list[list[int]]:
        """The initial tokens of each audio, in its language where that was found out."""
        rows = [list(self.initial) for _ in languages]
        if self.options.language is None and self.multilingual:
            for row, language in zip(rows, languages, strict=True):
                row[self.sot_index + 1] = self.tokenizer.to_language_token(language)
        return rows


@dataclass(frozen=True)
class _Rules:
    """What the filters of a task depend on besides the tokenizer."""

    n_vocab: int
    blank: bool
    suppressed: tuple[int, ...]
    timestamps: bool
    latest_first: int | None
    constraint: Constraint | None
    before: tuple[int, ...] = ()  # what the constraint is to know of besides what is sampled


def _numbers(tokens: str | Sequence[int] | None) -> tuple[int, ...]:
    if not tokens:
        return ()
    try:
        return tuple(int(t) for t in (tokens.split(",") if isinstance(tokens, str) else tokens))
    except (TypeError, ValueError):
        raise InputError(f"suppress_tokens must be token numbers, not {tokens!r}") from None


def _filters(tokenizer: Tokenizer, rules: _Rules) -> tuple[Filter, ...]:
    """The rules as filters; those of different decodes with the same rules are the same objects."""
    try:
        hash(rules.constraint)
    except TypeError:
        return _new_filters(tokenizer, rules)
    return _shared_filters(tokenizer, rules)


def _new_filters(tokenizer: Tokenizer, rules: _Rules) -> tuple[Filter, ...]:
    filters: list[Filter] = []
    if rules.blank:
        filters.append(SuppressBlank(tokenizer.encode(" "), tokenizer.eot))
    if rules.suppressed:
        filters.append(SuppressTokens(_suppressed(tokenizer, rules)))
    if rules.constraint is not None:
        end = tokenizer.timestamp_begin if rules.timestamps else rules.n_vocab
        filters.append(Constrain(rules.constraint, tokenizer.eot, end, rules.before))
    if rules.timestamps:
        filters.append(
            TimestampRules(
                tokenizer.timestamp_begin,
                tokenizer.eot,
                tokenizer.no_timestamps,
                rules.latest_first,
            )
        )
    return tuple(filters)


_shared_filters = lru_cache(maxsize=256)(_new_filters)


def _suppressed(tokenizer: Tokenizer, rules: _Rules) -> list[int]:
    listed = list(rules.suppressed)
    if bad := [t for t in listed if not -1 <= t < rules.n_vocab]:
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
