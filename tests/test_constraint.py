from __future__ import annotations

import pickle
import random

import pytest

from aii.constraint import GrammarConstraint, TokenAutomaton
from aii.grammar import Grammar
from aii.tokenizer import get_tokenizer

TOKENIZER = get_tokenizer(True, language="en")
GRAMMARS = [
    Grammar.digits(1, 1), Grammar.digits(2, 5), Grammar.words(["yes", "no", "new york"]),
    Grammar.words(["grüße", "日本"]),
]  # fmt: skip


def slow(grammar: Grammar, text: list[int]) -> set[int]:
    """The same by trying every token of the vocabulary."""
    machine = grammar.machine()

    def read(place: frozenset[int], token: int) -> frozenset[int]:
        for byte in TOKENIZER.encoding.decode_single_token_bytes(token):
            place = machine.after(place, byte)
        return place

    place = machine.begin
    for token in text:
        place = read(place, token)
    spelled = TOKENIZER.encoding.decode_single_token_bytes
    texts = [token for token in range(TOKENIZER.eot) if spelled(token)]  # one has no bytes at all
    found = {token for token in texts if place and read(place, token)}
    return found | ({TOKENIZER.eot} if not place or machine.ends(place) else set())


@pytest.mark.parametrize("grammar", GRAMMARS, ids=str)
def test_the_same_as_trying_every_token(grammar: Grammar):
    constraint, chance = GrammarConstraint(grammar), random.Random(1)
    text: list[int] = []
    for _ in range(5):
        allowed = constraint.allowed(text)
        assert allowed == slow(grammar, text)
        more = sorted(allowed - {TOKENIZER.eot})
        if not more:
            break
        text.append(chance.choice(more))


@pytest.mark.parametrize("grammar", GRAMMARS, ids=str)
@pytest.mark.parametrize("seed", range(20))
def test_whatever_is_chosen_ends_in_the_grammar(grammar: Grammar, seed: int):
    constraint, chance, text = GrammarConstraint(grammar), random.Random(seed), []
    for _ in range(60):
        allowed = sorted(constraint.allowed(text))
        assert allowed  # there is always a way on
        token = chance.choice(allowed)
        if token == TOKENIZER.eot:
            break
        text.append(token)
    assert grammar.read(TOKENIZER.decode(text)) is not None or TOKENIZER.decode(text) == ""


def test_the_usual_tokens_of_an_answer_are_allowed():
    constraint = GrammarConstraint(Grammar.digits(1, 4))
    for text in (" four two seven one", " 4271", " 4, 2, 7, 1.", " double oh seven"):
        tokens = TOKENIZER.encode(text)
        for place, token in enumerate([*tokens, TOKENIZER.eot]):
            assert token in constraint.allowed(tokens[:place]), (text, place)


@pytest.mark.parametrize("text", ["", " four", " 42", " double oh", " four, two."])
def test_an_end_before_there_are_enough_digits_is_doubted(text: str):
    tokens = TOKENIZER.encode(text)
    assert GrammarConstraint(Grammar.digits(3, 4)).ending(tokens) < -1
    assert GrammarConstraint(Grammar.words(["no"])).ending(tokens) == 0
    if text:
        said = len(Grammar.digits(1, 4).read(text) or "")
        assert GrammarConstraint(Grammar.digits(said, 4)).ending(tokens) == 0


def test_behind_what_is_no_answer_only_the_end_comes():
    constraint = GrammarConstraint(Grammar.digits(1, 4))
    assert constraint.allowed(TOKENIZER.encode(" hello")) == {TOKENIZER.eot}
    assert constraint.allowed(TOKENIZER.encode(" four two seven one.")) == {TOKENIZER.eot}


def test_an_unfinished_word_must_go_on():
    constraint = GrammarConstraint(Grammar.words(["no", "nothing at all"]))
    assert TOKENIZER.eot in constraint.allowed(TOKENIZER.encode(" no"))
    assert TOKENIZER.eot not in constraint.allowed(TOKENIZER.encode(" nothing"))


def test_english_only_vocabulary_has_its_own_numbers():
    english = get_tokenizer(False)
    constraint = GrammarConstraint(Grammar.digits(1, 4), multilingual=False)
    assert english.eot in constraint.allowed([])
    tokens = english.encode(" four two")
    assert tokens[1] in constraint.allowed(tokens[:1])


def test_a_constraint_is_a_value_that_travels():
    constraint = GrammarConstraint(Grammar.digits(1, 4))
    assert pickle.loads(pickle.dumps(constraint)) == constraint  # noqa: S301
    assert hash(constraint) == hash(GrammarConstraint(Grammar.digits(1, 4)))


def test_places_are_looked_up_once():
    automaton = TokenAutomaton(Grammar.digits(1, 4), TOKENIZER)
    four, two = TOKENIZER.encode(" four"), TOKENIZER.encode(" two")
    assert automaton.allowed(four) is automaton.allowed(two)


@pytest.mark.parametrize("beams", [None, 3])
@pytest.mark.parametrize("timestamps", [True, False])
def test_a_network_of_random_weights_says_what_it_may(tiny_model, beams, timestamps):
    """Through the product's own decoding: any audio gives an answer of the grammar."""
    import torch

    from aii.decoding import DecodingOptions, decode

    mel = torch.randn(80, 3000, generator=torch.Generator().manual_seed(5))
    for grammar in (Grammar.digits(1, 4), Grammar.words(["yes", "no", "new york"])):
        options = DecodingOptions(
            language="en", fp16=False, beam_size=beams, without_timestamps=not timestamps,
            constraint=GrammarConstraint(grammar), sample_len=40,
        )  # fmt: skip
        result = decode(tiny_model, mel, options)
        assert result.text == "" or grammar.read(result.text) is not None, result.text


@pytest.mark.parametrize("beams", [None, 3])
def test_the_grammar_counts_what_a_transcript_begins_with(tiny_model, beams):
    """What an update of a call has said already stands before what the next one may say."""
    import torch

    from aii.decoding import DecodingOptions, decode

    mel = torch.randn(80, 3000, generator=torch.Generator().manual_seed(5))
    cases = [(Grammar.digits(1, 2), " four two"), (Grammar.words(["new york", "yes"]), " new york")]
    for grammar, begun in cases:
        tokens = TOKENIZER.encode(begun)
        for count in range(1, len(tokens) + 1):
            options = DecodingOptions(
                language="en", fp16=False, beam_size=beams, without_timestamps=True,
                constraint=GrammarConstraint(grammar), prefix=tokens[:count], sample_len=20,
            )  # fmt: skip
            whole = TOKENIZER.decode([*tokens[:count], *decode(tiny_model, mel, options).tokens])
            heard = grammar.read(whole)
            assert heard is not None, whole
            assert grammar.phrases == () or whole.strip(" .,!?").lower() in grammar.phrases, whole
