"""Decodes side by side give what each gives alone, and alone what the plain network gives."""

from __future__ import annotations

import itertools
import random

import pytest
import torch

from aii.alignatt import aligned_steps
from aii.batch import Batch, run_alone
from aii.compute import convert
from aii.decoding import DecodingOptions
from aii.errors import InputError, ServiceError
from aii.loops import decoding_steps
from aii.model import ModelDimensions, Whisper
from aii.packed import packs
from aii.plan import Part
from aii.ragged import Ragged
from aii.rows import Rows
from aii.steps import Ask, Attach, Encode, run_plainly
from aii.types import AttentionStop

pytestmark = pytest.mark.usefixtures("either_way")

CASES = {
    "greedy": dict(),
    "text only": dict(without_timestamps=True),
    "language": dict(language=None),
    "beams": dict(beam_size=3),
    "patience": dict(beam_size=2, patience=2.0),
    "draws": dict(temperature=0.7),
    "best of": dict(temperature=1.0, best_of=3),
    "prompt": dict(prompt=list(range(1000, 1040))),
    "long prompt": dict(prompt=list(range(2000, 2300)), beam_size=2),
    "prefix": dict(prefix=[1000, 1001]),
    "unlike": dict(suppress_tokens="", suppress_blank=False, max_initial_timestamp=None),
}


def mel(number: int, frames: int = 300) -> torch.Tensor:
    """(1, 80, frames) of noise, the same for the same number."""
    return torch.randn(1, 80, frames, generator=torch.Generator().manual_seed(number))


def window(model, number: int, frames: int = 300, draft=(), **options):
    """A decode of noise."""
    options = DecodingOptions(**{"language": "en", "fp16": False, "sample_len": 12, **options})
    features = yield Encode(mel(number, frames))
    generator = torch.Generator().manual_seed(number)
    (result,) = yield from decoding_steps(model, features, options, generator, draft)
    return result


def update(model, number: int, frames: int = 300, **options):
    """An AlignAtt decode of noise."""
    options = DecodingOptions(language="en", fp16=False, **options)
    yield Encode(mel(number, frames))
    stop = AttentionStop(threshold=-1, rewind=None, max_tokens=9)
    return (yield from aligned_steps(model, options, stop, frames=frames // 2, context=[1, 2]))


def same(one, other) -> None:
    assert one.tokens == other.tokens
    assert one.passes == other.passes
    assert one.stopped == other.stopped
    assert one.language == other.language
    assert one.avg_logprob == pytest.approx(other.avg_logprob, abs=1e-4)
    assert one.no_speech_prob == pytest.approx(other.no_speech_prob, abs=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_alone_it_gives_what_the_plain_network_gives(tiny_model, case) -> None:
    found = run_alone(tiny_model, window(tiny_model, 1, **CASES[case]))
    same(found, run_plainly(tiny_model, window(tiny_model, 1, **CASES[case])))
    assert found.tokens


@pytest.mark.parametrize("beam_size", [None, 3])
def test_attention_is_that_of_the_plain_network(tiny_model, beam_size) -> None:
    found = run_alone(tiny_model, update(tiny_model, 2, beam_size=beam_size))
    plain = run_plainly(tiny_model, update(tiny_model, 2, beam_size=beam_size))
    assert [(t.id, t.frame) for t in found.tokens] == [(t.id, t.frame) for t in plain.tokens]
    assert found.avg_logprob == pytest.approx(plain.avg_logprob, abs=1e-4)


def test_a_draft_is_verified_as_by_the_plain_network(tiny_model) -> None:
    plain = run_plainly(tiny_model, window(tiny_model, 3))
    for draft in (plain.tokens, [*plain.tokens[:5], 7, *plain.tokens[6:]]):
        found = run_alone(tiny_model, window(tiny_model, 3, draft=draft))
        same(found, run_plainly(tiny_model, window(tiny_model, 3, draft=draft)))
        assert found.tokens == plain.tokens
        assert found.passes < plain.passes


@pytest.fixture(scope="module")
def crowd(tiny_model):
    """32 decodes of every kind and length, as functions, with what each gives alone."""
    makers = []
    for number, options in zip(range(28), itertools.cycle(CASES.values()), strict=False):
        frames = (200, 200, 350, 1000)[number % 4]
        makers.append(lambda n=number, f=frames, o=options: window(tiny_model, n, f, **o))
    for number, beams in enumerate((None, 2, None, 3)):
        makers.append(lambda n=number, b=beams: update(tiny_model, 50 + n, beam_size=b))
    return [(make, run_alone(tiny_model, make())) for make in makers]


def agree(found, alone) -> None:
    if hasattr(alone, "temperature"):
        same(found, alone)
    else:
        told = [[(t.id, t.frame) for t in one.tokens] for one in (found, alone)]
        assert told[0] == told[1]


def test_all_at_once(tiny_model, crowd) -> None:
    batch = Batch(tiny_model)
    tickets = [batch.add(make()) for make, _ in crowd]
    assert batch.listening == 32
    while len(batch):
        batch.step()
    for ticket, (_, alone) in zip(tickets, crowd, strict=True):
        agree(ticket.result, alone)
    assert batch.rows == 0


@pytest.mark.parametrize("seed", range(2))
def test_joining_and_leaving_at_any_step(tiny_model, crowd, seed) -> None:
    chance = random.Random(seed)
    batch, tickets, coming = Batch(tiny_model), [], list(crowd)
    chance.shuffle(coming)
    dropped = set()
    while coming or len(batch):
        for _ in range(chance.randrange(3)):
            if coming:
                make, alone = coming.pop()
                tickets.append((batch.add(make()), alone))
        if chance.random() < 0.1 and tickets:
            ticket, _ = chance.choice(tickets)
            if not ticket.done:
                dropped.add(ticket)
            batch.drop(ticket)
        chance.choice((batch.encode, batch.decode, batch.step))()
    assert len(tickets) == 32
    for ticket, alone in tickets:
        if ticket in dropped:
            assert ticket.done
            assert ticket.result is None
        else:
            agree(ticket.result, alone)
    assert batch.rows == 0
    (decoder,) = batch._decoders.values()
    assert decoder.rows.taken == 0


# -- poison -----------------------------------------------------------------------------------


def poisoned(model, kind: str):
    """A decode that goes wrong."""
    if kind == "at once":
        raise InputError("poison")
    sound = mel(9)
    if kind == "no numbers":
        yield Encode(sound * float("nan"))
        return (yield Ask([[50258]], fresh=True, pick=True))
    yield Encode(sound[:, :, :0] if kind == "mel" else sound)
    if kind == "token":
        yield Ask([[10**9]], fresh=True)
    if kind == "too long":
        yield Ask([[1] * 449], fresh=True)
    if kind == "rule":

        def forbid(logits, sampled):
            raise InputError("poison")

        yield Ask([[50258]], fresh=True, filters=(forbid,), sampled=[[]], pick=True)
    if kind == "shared rule":
        (shared,) = Shared.filters
        yield Ask([[50258]], fresh=True, filters=Shared.filters, sampled=[[shared.bad]], pick=True)
    raise InputError("poison")


class Shared:
    """A rule that dislikes one decode's past."""

    bad = -5
    filters: tuple = ()

    def __call__(self, logits, sampled) -> None:
        if [self.bad] in sampled:
            raise InputError("poison")
        logits[:, 0] = -torch.inf


Shared.filters = (Shared(),)


def ruled(model):
    """A sound decode under the same rule."""
    yield Encode(mel(4))
    answer = yield Ask([[50258]], fresh=True, filters=Shared.filters, sampled=[[]], pick=True)
    return answer.tokens


@pytest.mark.parametrize(
    "kind", ["at once", "mel", "no numbers", "token", "too long", "rule", "shared rule", "later"]
)
def test_a_poisoned_decode_fails_alone(tiny_model, kind) -> None:
    alone = [run_alone(tiny_model, window(tiny_model, n)) for n in range(3)]
    rule = run_alone(tiny_model, ruled(tiny_model))
    batch = Batch(tiny_model)
    bad = batch.add(poisoned(tiny_model, kind))
    good = [batch.add(window(tiny_model, n)) for n in range(3)]
    under_rule = batch.add(ruled(tiny_model))
    while len(batch):
        batch.step()
    assert bad.done
    assert isinstance(bad.error, Exception)
    if kind == "no numbers":
        assert isinstance(bad.error, ServiceError)
    for ticket, expected in zip(good, alone, strict=True):
        same(ticket.result, expected)
    assert under_rule.result == rule
    again = batch.add(window(tiny_model, 1))  # in the places that the poisoned one had
    while len(batch):
        batch.step()
    same(again.result, alone[1])


def no_numbers(model, **options):
    """A decode of what the encoder makes no numbers of."""
    options = DecodingOptions(**{"language": "en", "fp16": False, "sample_len": 12, **options})
    features = yield Encode(mel(9) * float("nan"))
    generator = torch.Generator().manual_seed(9)
    return (yield from decoding_steps(model, features, options, generator, None))


def no_numbers_by_attention(model, **options):
    yield Encode(mel(9) * float("nan"))
    options = DecodingOptions(language="en", fp16=False, **options)
    return (yield from aligned_steps(model, options, AttentionStop(max_tokens=9), frames=150))


@pytest.mark.parametrize(
    "make",
    [
        lambda model: no_numbers(model),
        lambda model: no_numbers(model, beam_size=3),
        lambda model: no_numbers(model, temperature=0.7, best_of=3),
        lambda model: no_numbers(model, language=None, beam_size=2),
        lambda model: no_numbers_by_attention(model),
        lambda model: no_numbers_by_attention(model, beam_size=2),
    ],
)
def test_scores_that_are_no_numbers_end_every_kind_of_decode(tiny_model, make) -> None:
    """Beams and draws would go on with them, and leave them in rows that others take over."""
    alone = [run_alone(tiny_model, window(tiny_model, n)) for n in range(4)]
    batch = Batch(tiny_model)
    bad, beside = batch.add(make(tiny_model)), batch.add(window(tiny_model, 0))
    while not bad.done:
        batch.step()
    assert isinstance(bad.error, ServiceError)
    later = [batch.add(window(tiny_model, n)) for n in (1, 2, 3)]
    while len(batch):
        batch.step()
    for ticket, expected in zip([beside, *later], alone, strict=True):
        same(ticket.result, expected)


def test_no_memory_for_the_rows_of_one_decode_is_its_own_trouble(tiny_model, monkeypatch) -> None:
    """The others of the pass have been read then, and must not be read once more."""
    alone = [run_alone(tiny_model, window(tiny_model, n)) for n in range(3)]
    batch = Batch(tiny_model)
    good = [batch.add(window(tiny_model, n)) for n in range(3)]
    greedy = batch.add(window(tiny_model, 7, beam_size=5))
    while batch.listening:
        batch.encode()
    take = Rows.take

    def scarce(rows, count):
        if count == 4:
            raise MemoryError("no memory for so many rows")
        return take(rows, count)

    monkeypatch.setattr(Rows, "take", scarce)
    while len(batch):
        batch.step()
    assert isinstance(greedy.error, MemoryError)
    for ticket, expected in zip(good, alone, strict=True):
        same(ticket.result, expected)
    assert [decoder.rows.taken for decoder in batch._decoders.values()] == [0]


def test_alone_it_raises_what_it_failed_with(tiny_model) -> None:
    with pytest.raises(InputError, match="poison"):
        run_alone(tiny_model, poisoned(tiny_model, "later"))
    with pytest.raises(ValueError, match="before it had audio"):
        run_alone(tiny_model, (step for step in [Ask([[1]], fresh=True)]))


def test_windows_of_one_length_are_encoded_together(tiny_model, monkeypatch) -> None:
    shapes = []
    encoder = tiny_model.encoder.forward

    def spy(x):
        shapes.append(tuple(x.shape))
        return encoder(x)

    monkeypatch.setattr(tiny_model.encoder, "forward", spy)
    batch = Batch(tiny_model)
    for number, frames in enumerate((1200, 400, 1200, 1200, 400)):
        batch.add(window(tiny_model, number, frames))
    while batch.listening:
        batch.encode()
    assert shapes == [(2, 80, 1200), (2, 80, 400), (1, 80, 1200)]


@pytest.mark.skipif(not packs(), reason="no exact integer products in one operation here")
def test_in_integers_windows_are_encoded_one_by_one(monkeypatch) -> None:
    """Each is rounded by itself, so nothing would be won."""
    torch.manual_seed(0)
    model = convert(
        Whisper(ModelDimensions(80, 1500, 64, 1, 1, 51865, 448, 64, 1, 1)).eval(), "int8"
    )
    batch = Batch(model)
    for number in range(3):
        batch.add(window(model, number, 400))
    assert [batch.encode() for _ in range(4)] == [1, 1, 1, 0]


# -- the pass itself --------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("seed", range(3))
def test_a_ragged_pass_is_the_plain_decoders(tiny_model, seed) -> None:
    """Rows of any lengths, over audios of any lengths, with any number of new tokens."""
    chance = random.Random(seed)
    torch.manual_seed(seed)
    decoder, ragged = tiny_model.decoder, Ragged(tiny_model)
    texts, audios, rows = [], [], []
    for _ in range(9):
        audios.append(tiny_model.encoder(torch.randn(1, 80, chance.choice((40, 300)))))
        texts.append([chance.randrange(51865) for _ in range(60)])
        rows += ragged.rows.take(1)
    chance.shuffle(rows)
    heard = [ragged.hear(audio) for audio in audios]
    read = [0] * 9
    while min(read) < 60:
        parts, who = [], []
        for i in chance.sample(range(9), chance.randrange(1, 10)):
            new = texts[i][read[i] : read[i] + chance.choice((1, 1, 1, 4, 30))]
            if new:
                who.append(i)
                parts.append(
                    Part([new], [rows[i]], read[i], heard[i], attention=chance.choice((0, 3)))
                )
                read[i] += len(new)
        if not parts:
            continue
        found = decoder.project(ragged.run(parts)).split([part.width for part in parts])
        for i, part, logits in zip(who, parts, found, strict=True):
            whole = decoder(torch.tensor([texts[i][: read[i]]]), audios[i])
            assert torch.allclose(logits, whole[0, part.start : part.end], atol=1e-5)
            seen = sum(scores.shape[1] for scores in part.scores)
            assert seen == (2 if part.attention else 0)


def test_a_row_that_would_grow_too_long_is_refused(tiny_model) -> None:
    ragged = Ragged(tiny_model)
    with torch.no_grad():
        heard = ragged.hear(tiny_model.encoder(mel(0)))
    with pytest.raises(ValueError, match="449 tokens do not fit a row of 448"):
        ragged.run([Part([[1]], ragged.rows.take(1), 448, heard)])


def test_attached_audio_of_several_windows(tiny_model) -> None:
    with torch.no_grad():
        features = tiny_model.encoder(torch.cat([mel(1), mel(2)]))

    def both():
        yield Attach(features)
        options = DecodingOptions(language="en", fp16=False, sample_len=10, beam_size=3)
        return (yield from decoding_steps(tiny_model, features, options))

    together = run_alone(tiny_model, both())
    for one, other in zip(together, run_plainly(tiny_model, both()), strict=True):
        same(one, other)
    for number, one in enumerate(together, 1):
        alone = run_alone(tiny_model, window(tiny_model, number, sample_len=10, beam_size=3))
        assert one.tokens == alone.tokens
