"""A grammar as a rule of decoding: which tokens may follow, for one vocabulary.

The grammar speaks of bytes, a model of tokens, and the same bytes can be cut into tokens in several
ways. Every token is allowed whose bytes the grammar's automaton can read next: no tokenization is
forbidden, so no answer is made less likely than the model thinks it is. Each place of the automaton
is looked up once (guided generation over a vocabulary, Willard and Louf, arXiv 2307.09702).
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from aii.grammar import Grammar
from aii.tokenizer import Tokenizer, get_tokenizer

INCOMPLETE = math.log(0.1)
"""Callers who are asked for four digits rarely pause before the fourth."""


@dataclass(frozen=True)
class GrammarConstraint:
    """Keeps a transcript to a grammar: a :class:`aii.logit_filters.Constraint`.

    A plain value, so that it can travel with a request; the tables behind it are made where they
    are first needed and shared.

    Attributes:
        grammar: what may be said.
        multilingual: False for Whisper's English-only models.
        num_languages: how many languages the model's vocabulary has tokens for.
    """

    grammar: Grammar
    multilingual: bool = True
    num_languages: int = 99

    def allowed(self, text: Sequence[int]) -> frozenset[int]:
        """The tokens that may follow the text tokens ``text``, the end among them.

        Where ``text`` has left the grammar, it may only end.
        """
        return _automaton(self.grammar, self.multilingual, self.num_languages).allowed(text)

    def ending(self, text: Sequence[int]) -> float:
        """The log of how likely it is beforehand that an answer ends behind ``text``."""
        return _automaton(self.grammar, self.multilingual, self.num_languages).ending(text)


class TokenAutomaton:
    """The automaton of a grammar over the tokens of one vocabulary.

    Args:
        grammar: what may be said.
        tokenizer: whose tokens.
    """

    def __init__(self, grammar: Grammar, tokenizer: Tokenizer) -> None:
        self._grammar = grammar
        self._machine = grammar.machine()
        self._spelling = tokenizer.encoding.decode_single_token_bytes
        self._words, self._tokens = _sorted_vocabulary(tokenizer)
        self._eot = tokenizer.eot
        self._known: dict[frozenset[int], frozenset[int]] = {}

    def place(self, text: Sequence[int]) -> frozenset[int]:
        """Where the automaton is behind these tokens; an empty set outside the grammar."""
        place = self._machine.begin
        for token in text:
            for byte in self._spelling(token):
                place = self._machine.after(place, byte)
        return place

    def allowed(self, text: Sequence[int]) -> frozenset[int]:
        """See :meth:`GrammarConstraint.allowed`."""
        place = self.place(text)
        found = self._known.get(place)
        if found is None:
            ends = {self._eot} if self._machine.ends(place) or not place else set()
            found = frozenset(self._readable(place) | ends)
            self._known[place] = found
        return found

    def ending(self, text: Sequence[int]) -> float:
        """See :meth:`GrammarConstraint.ending`."""
        if self._grammar.phrases:
            return 0.0
        said = b"".join(map(self._spelling, text)).decode("utf-8", "replace")
        digits = len(self._grammar.read(said) or "")
        return 0.0 if digits >= self._grammar.least else INCOMPLETE

    def _readable(self, place: frozenset[int]) -> set[int]:
        """The tokens that can be read from ``place``: down the sorted vocabulary, byte by byte.

        A token of no bytes (the multilingual vocabulary has one) is never among them.
        """
        words, found = self._words, set()
        ways = [(place, b"", 0, len(words))]
        while ways:
            here, read, low, high = ways.pop()
            for byte in self._machine.next_bytes(here):
                after = read + bytes((byte,))
                first = bisect_left(words, after, low, high)
                last = bisect_left(words, read + bytes((byte + 1,)), first, high) if (
                    byte < 255
                ) else high  # fmt: skip
                if first == last:
                    continue
                if words[first] == after:
                    found.add(self._tokens[first])
                ways.append((self._machine.after(here, byte), after, first, last))
        return found


@lru_cache(maxsize=64)
def _automaton(grammar: Grammar, multilingual: bool, num_languages: int) -> TokenAutomaton:
    tokenizer = get_tokenizer(multilingual, num_languages=num_languages)
    return TokenAutomaton(grammar, tokenizer)


@lru_cache(maxsize=4)
def _sorted_vocabulary(tokenizer: Tokenizer) -> tuple[list[bytes], list[int]]:
    """The bytes of all text tokens in order, and the tokens."""
    spelled = sorted(
        (tokenizer.encoding.decode_single_token_bytes(token), token)
        for token in range(tokenizer.eot)
    )
    return [word for word, _ in spelled], [token for _, token in spelled]
