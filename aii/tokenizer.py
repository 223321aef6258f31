"""Whisper's vocabulary: text to tokens and back, special tokens, splitting into words.

The bytes of text are merged by tiktoken (byte-pair encoding) with one of two published tables:
``gpt2`` for the English-only models, ``multilingual`` for the others. Whisper adds, after the last
rank of the table and in this order: end of text, start of transcript, one token per language,
translate, transcribe, start of LM, start of previous text, no speech, no timestamps, and 1,501
time tokens from ``<|0.00|>`` to ``<|30.00|>`` in steps of 20 ms. The numbers are those of OpenAI's
checkpoints.
"""

from __future__ import annotations

import base64
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any

import tiktoken

from aii.errors import InputError
from aii.languages import LANGUAGES, TO_LANGUAGE_CODE, WITHOUT_SPACES, language_code
from aii.resources import asset

__all__ = ["LANGUAGES", "TO_LANGUAGE_CODE", "Tokenizer", "get_encoding", "get_tokenizer"]

TASKS = ("transcribe", "translate")

_PIECES = r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
_TIME_TOKENS = 1501
_TIME_STEP = 0.02
_BROKEN = "\ufffd"

# What transcribers write for sounds that are no speech. Suppressed whole where one token covers it.
_MARKS = (*'"#()*+/:;<=>@[\\]^_`{|}~「」『』',)
_RUNS = (
    *("<<", ">>", "<<<", ">>>", "--", "---", "-(", "-[", "('", '("'),
    *("((", "))", "(((", ")))", "[[", "]]", "{{", "}}", "♪♪", "♪♪♪"),
)
# Notes: three bytes each, of which the first two occur in miscellaneous symbols only, so that the
# first token can be suppressed even where the vocabulary has no token for the whole.
_NOTES = tuple("♩♪♫♬♭♮♯")
# Hyphen and apostrophe are kept inside words and suppressed at the beginning of one.
_INNER = (" -", " '")


@dataclass(frozen=True, eq=False)
class Tokenizer:
    """A vocabulary with a language and a task; immutable, so it can be shared and hashed.

    Attributes:
        encoding: tiktoken's encoding, special tokens included.
        num_languages: how many languages have a token, 99 or (since large-v3) 100.
        language: code of the language that ``sot_sequence`` names, or None (English-only).
        task: "transcribe", "translate", or None (English-only).
        sot_sequence: what a transcript begins with: start, language, task (start alone if
            English-only). Follows from the others, whatever is given.
        special_tokens: number of each special token by its spelling, in the order of the numbers.
            Likewise.

    Raises:
        InputError: the vocabulary has no such language.
    """

    encoding: tiktoken.Encoding
    num_languages: int
    language: str | None = None
    task: str | None = None
    sot_sequence: tuple[int, ...] = ()
    special_tokens: dict[str, int] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        encode = self.encoding.encode_single_token
        numbers = {name: encode(name) for name in self.encoding.special_tokens_set}
        ordered = dict(sorted(numbers.items(), key=lambda item: item[1]))
        object.__setattr__(self, "special_tokens", ordered)
        sequence = [self.sot]
        if self.language is not None:
            sequence.append(self.language_token)
        if self.task is not None:
            sequence.append(self.transcribe if self.task == "transcribe" else self.translate)
        object.__setattr__(self, "sot_sequence", tuple(sequence))

    # -- text ---------------------------------------------------------------------------------

    def encode(self, text: str, **kwargs: Any) -> list[int]:
        """Tokens of ``text``; keyword arguments as in ``tiktoken.Encoding.encode``.

        Raises:
            InputError: the text spells out a special token such as ``<|endoftext|>`` and neither
                ``allowed_special`` nor ``disallowed_special`` says what to do with it.
        """
        try:
            return self.encoding.encode(text, **kwargs)
        except ValueError as error:
            raise InputError(
                "the text spells out a special token; take it out, or pass disallowed_special=() "
                f"to read it as plain text: {text[:60]!r}"
            ) from error

    def decode(self, token_ids: Sequence[int], **kwargs: Any) -> str:
        """Text of ``token_ids``, leaving out time tokens."""
        limit = self.timestamp_begin
        return self.encoding.decode([t for t in token_ids if t < limit], **kwargs)

    def decode_with_timestamps(self, token_ids: Sequence[int], **kwargs: Any) -> str:
        """Text of ``token_ids`` with time tokens written as ``<|1.08|>``."""
        return self.encoding.decode(list(token_ids), **kwargs)

    # -- special tokens -----------------------------------------------------------------------

    def _special(self, name: str) -> int:
        return self.special_tokens[f"<|{name}|>"]

    @cached_property
    def eot(self) -> int:
        """End of text; every number below it is text."""
        return self._special("endoftext")

    @cached_property
    def sot(self) -> int:
        """Start of transcript."""
        return self._special("startoftranscript")

    @cached_property
    def sot_lm(self) -> int:
        """Start of text for language modelling; never predicted."""
        return self._special("startoflm")

    @cached_property
    def sot_prev(self) -> int:
        """Start of the text before the audio (the prompt)."""
        return self._special("startofprev")

    @cached_property
    def transcribe(self) -> int:
        """Task: write down what is said."""
        return self._special("transcribe")

    @cached_property
    def translate(self) -> int:
        """Task: write down in English what is said."""
        return self._special("translate")

    @cached_property
    def no_speech(self) -> int:
        """Its probability after ``sot`` says that nobody speaks."""
        return self._special("nospeech")

    @cached_property
    def no_timestamps(self) -> int:
        """Asks for text without time tokens."""
        return self._special("notimestamps")

    @cached_property
    def timestamp_begin(self) -> int:
        """The time token of 0.00 s; each next one is 20 ms later."""
        return self._special("0.00")

    @cached_property
    def sot_sequence_including_notimestamps(self) -> tuple[int, ...]:
        """``sot_sequence`` and the token that asks for no time tokens."""
        return (*self.sot_sequence, self.no_timestamps)

    # -- languages ----------------------------------------------------------------------------

    @cached_property
    def language_token(self) -> int:
        """Token of ``language``.

        Raises:
            InputError: the tokenizer has no language.
        """
        if self.language is None:
            raise InputError(
                "this tokenizer has no language; get a multilingual one with language="
            )
        return self.to_language_token(self.language)

    def to_language_token(self, language: str) -> int:
        """Token of the language with this code.

        Raises:
            InputError: the vocabulary has no such language.
        """
        try:
            return self.all_language_tokens[self.all_language_codes.index(language)]
        except ValueError:
            raise InputError(
                f"language {language!r} is not among the {self.num_languages} of this vocabulary"
            ) from None

    @cached_property
    def all_language_codes(self) -> tuple[str, ...]:
        """Codes of the vocabulary's languages, in the order of their tokens."""
        return tuple(LANGUAGES)[: self.num_languages]

    @cached_property
    def all_language_tokens(self) -> tuple[int, ...]:
        """Tokens of the vocabulary's languages."""
        return tuple(range(self.sot + 1, self.sot + 1 + self.num_languages))

    # -- suppression --------------------------------------------------------------------------

    @cached_property
    def non_speech_tokens(self) -> tuple[int, ...]:
        """Tokens, sorted, of what annotates rather than transcribes: speaker tags, brackets, notes.

        Ordinary punctuation (comma, full stop, question and exclamation mark) is not among them.
        """
        suppressed = {self.encoding.encode(start)[0] for start in _INNER}
        for symbol in (*_MARKS, *_RUNS, *_NOTES):
            for spelling in (symbol, " " + symbol):
                first, *more = self.encoding.encode(spelling)
                if not more or symbol in _NOTES:
                    suppressed.add(first)
        return tuple(sorted(suppressed))

    # -- words --------------------------------------------------------------------------------

    def split_to_word_tokens(self, tokens: Sequence[int]) -> tuple[list[str], list[list[int]]]:
        """Words of ``tokens`` and the tokens of each word.

        Languages written without spaces are split at every complete character.
        """
        if self.language in WITHOUT_SPACES:
            return self.split_tokens_on_unicode(tokens)
        return self.split_tokens_on_spaces(tokens)

    def split_tokens_on_unicode(self, tokens: Sequence[int]) -> tuple[list[str], list[list[int]]]:
        """The shortest runs of ``tokens`` that end on a character's last byte, and their tokens."""
        pairs = list(self._complete_runs(tokens))
        return [text for text, _ in pairs], [run for _, run in pairs]

    def split_tokens_on_spaces(self, tokens: Sequence[int]) -> tuple[list[str], list[list[int]]]:
        """Words that begin at a space, at punctuation or at a special token, and their tokens."""
        words: list[str] = []
        word_tokens: list[list[int]] = []
        for text, run in self._complete_runs(tokens):
            # A blank run and neighbours in the list of punctuation ("()") count as punctuation.
            punctuation = text.strip() in string.punctuation
            if not words or punctuation or text.startswith(" ") or run[0] >= self.eot:
                words.append(text)
                word_tokens.append(run)
            else:
                words[-1] += text
                word_tokens[-1] += run
        return words, word_tokens

    def _complete_runs(self, tokens: Sequence[int]) -> Iterator[tuple[str, list[int]]]:
        """Runs of tokens with their text, each ending where a character is complete.

        Bytes that are broken in the whole text as well count as complete; a run at the end that
        never becomes complete is left out.
        """
        token_bytes = self.encoding.decode_single_token_bytes
        whole = self.decode_with_timestamps(tokens)
        done = 0
        run: list[int] = []
        pending = b""
        for token in tokens:
            run.append(token)
            pending += token_bytes(token)
            text = pending.decode("utf-8", errors="replace")
            broken = text.find(_BROKEN)
            if broken < 0 or whole[done + broken : done + broken + 1] == _BROKEN:
                yield text, run
                done += len(text)
                run, pending = [], b""


@cache
def get_encoding(name: str = "gpt2", num_languages: int = 99) -> tiktoken.Encoding:
    """tiktoken's encoding of the vocabulary ``gpt2`` or ``multilingual`` with special tokens.

    Raises:
        InputError: there is no such vocabulary, or ``num_languages`` is not 1 to 100.
    """
    if name not in ("gpt2", "multilingual"):
        raise InputError(f"vocabulary {name!r} is unknown; choose gpt2 or multilingual")
    if not 1 <= num_languages <= len(LANGUAGES):
        raise InputError(
            f"{num_languages} languages are not supported; Whisper models have 99 or 100"
        )
    lines = asset(f"{name}.tiktoken").read_bytes().splitlines()
    entries = (line.split() for line in lines if line)
    ranks = {base64.b64decode(token): int(rank) for token, rank in entries}
    specials = [
        "endoftext",
        "startoftranscript",
        *tuple(LANGUAGES)[:num_languages],
        *("translate", "transcribe", "startoflm", "startofprev", "nospeech", "notimestamps"),
        *(f"{step * _TIME_STEP:.2f}" for step in range(_TIME_TOKENS)),
    ]
    return tiktoken.Encoding(
        name=f"{name}.tiktoken",
        explicit_n_vocab=len(ranks) + len(specials),
        pat_str=_PIECES,
        mergeable_ranks=ranks,
        special_tokens={f"<|{text}|>": i for i, text in enumerate(specials, start=len(ranks))},
    )


def get_tokenizer(
    multilingual: bool,
    *,
    num_languages: int = 99,
    language: str | None = None,
    task: str | None = None,
) -> Tokenizer:
    """The tokenizer of a kind of model; the same object for the same meaning of the arguments.

    Args:
        multilingual: False for the English-only models (``tiny.en``...), which know neither
            language nor task.
        num_languages: 99, or 100 for large-v3 and turbo.
        language: code ("es"), English name ("spanish") or alias ("castilian"), in any case;
            "en" if not given.
        task: "transcribe" (default) or "translate".

    Raises:
        InputError: an unknown language or task, or a language that the model has no token for.
    """
    code = None if language is None else language_code(language)
    if task is not None and task not in TASKS:
        raise InputError(f"task {task!r} is unknown; choose {' or '.join(TASKS)}")
    if not multilingual:
        return _tokenizer("gpt2", num_languages, None, None)
    return _tokenizer("multilingual", num_languages, code or "en", task or "transcribe")


@cache
def _tokenizer(name: str, num_languages: int, language: str | None, task: str | None) -> Tokenizer:
    encoding = get_encoding(name, num_languages)
    return Tokenizer(encoding, num_languages, language, task)
