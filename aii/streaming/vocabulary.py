"""What a policy knows of its model's tokens: text to tokens, tokens to words.

A plain value, so that it can be made on one machine for an engine on another. The tables behind it
are those of ``aii.tokenizer``; they are read at first use.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from aii.errors import ConfigError
from aii.languages import LANGUAGES, WITHOUT_SPACES, language_code
from aii.tokenizer import Tokenizer, get_tokenizer

STEP = 320
"""Samples per step of a timestamp token, and per encoder frame (20 ms)."""


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of one model.

    Attributes:
        multilingual: False for Whisper's English-only models.
        num_languages: how many languages have tokens, 99 or 100.
        only_language: code of the one language that the model was trained for, or None.
        previous_text: whether it does better with the text before a window than without.
    """

    multilingual: bool = True
    num_languages: int = 99
    only_language: str | None = None
    previous_text: bool = True

    def tokenizer(self, language: str | None = None) -> Tokenizer:
        """The tokenizer behind it, for a language (English where it is None)."""
        return get_tokenizer(
            self.multilingual, num_languages=self.num_languages, language=language or "en"
        )

    def language(self, wanted: str | None, task: str = "transcribe") -> str | None:
        """The code to decode in when ``wanted`` is asked: a code, a name, or None for any.

        Returns:
            The code, or None where the language is to be detected.

        Raises:
            InputError: there is no such language.
            ConfigError: the model does not know the language or the task.
        """
        code = None if wanted is None else language_code(wanted)
        only = self.only_language if self.multilingual else "en"
        if only is not None and code not in (None, only):
            raise ConfigError(
                f"the model knows {LANGUAGES[only].title()} only; leave the language as it is or "
                "choose another model"
            )
        if task == "translate" and not self.multilingual:
            raise ConfigError(
                "an English-only model does not translate; leave the task as it is or choose "
                "another model"
            )
        return only or code

    @property
    def timestamp_begin(self) -> int:
        """The timestamp token of 0.00 s; each next one is a step later."""
        return self.tokenizer().timestamp_begin

    def encode(self, text: str) -> tuple[int, ...]:
        """Tokens of ``text`` as words in mid-sentence; () where there are none.

        What spells out a special token is read as plain text.
        """
        text = text.strip()
        if not text:
            return ()
        return tuple(self.tokenizer().encode(" " + text, disallowed_special=()))

    def text(self, tokens: Iterable[int]) -> str:
        """The text of ``tokens``; timestamps and other special tokens have none."""
        tokenizer = self.tokenizer()
        return tokenizer.decode([token for token in tokens if token < tokenizer.eot])

    def begins_word(self, token: int, language: str | None = None) -> bool:
        """Whether the word before ``token`` is complete.

        So it is before the end of the text and before a space; in languages without spaces every
        character is a word, so there a token must show that it does not go on with the bytes of
        the one before.
        """
        tokenizer = self.tokenizer(language)
        if token >= tokenizer.eot:
            return True
        spelled = tokenizer.encoding.decode_single_token_bytes(token)
        if tokenizer.language in WITHOUT_SPACES:
            return not 0x80 <= spelled[0] < 0xC0
        return spelled.startswith(b" ")

    def words(
        self, tokens: Sequence[int], language: str | None = None
    ) -> list[tuple[str, tuple[int, ...]]]:
        """The words of text tokens, each with its tokens; punctuation belongs to its word.

        Tokens at the end that do not yet make whole characters (UTF-8) are left out.
        """
        tokenizer = self.tokenizer(language)
        kept = [token for token in tokens if token < tokenizer.eot]
        while kept and _is_cut(tokenizer.encoding.decode_bytes(kept)):
            kept.pop()
        spaced = tokenizer.language not in WITHOUT_SPACES
        words: list[tuple[str, tuple[int, ...]]] = []
        for text, run in zip(*tokenizer.split_to_word_tokens(kept), strict=True):
            goes_on = not text.startswith(" ") if spaced else not any(c.isalnum() for c in text)
            if words and goes_on:
                words[-1] = (words[-1][0] + text, (*words[-1][1], *run))
            else:
                words.append((text, tuple(run)))
        return words


def _is_cut(data: bytes) -> bool:
    """Whether UTF-8 ends within a character."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    decoder.decode(data)
    return decoder.getstate()[0] != b""
