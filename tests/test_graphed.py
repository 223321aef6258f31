"""Passes that are recorded and replayed on a GPU, held against those that are not.

On a GPU that is not there: what a graph does with memory is what is shown here, not its speed.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from loops_rig import network
from pretend_gpu import Graph, OnGpu, pretend_gpu

from aii import graphed
from aii.batch import Batch
from aii.compute import convert
from aii.graphed import Graphed
from aii.layout import Layout
from aii.model import Whisper
from aii.passes import ragged
from aii.plan import Part
from aii.ragged import Ragged


@pytest.fixture(autouse=True)
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    torch.manual_seed(5)
    with pretend_gpu(monkeypatch), torch.no_grad():
        yield


def on_gpu(kind: str = "float32") -> Whisper:
    model = network(64, 2, 3)
    there = {name: weight.to("cuda") for name, weight in model.state_dict().items()}
    model.load_state_dict(there, assign=True)
    return convert(model, kind)


class Side:
    """Decodes on one decoder: rows of texts over audios, some tokens read of each."""

    def __init__(self, decoder: Ragged, audios: list[torch.Tensor], groups: list[Any]) -> None:
        self.decoder = decoder
        self.heard = [decoder.hear(audio) for audio in audios]
        self.rows = [decoder.rows.take(len(texts)) for texts in groups]
        self.groups = groups

    def part(self, who: int, start: int, width: int, attention: int) -> Part:
        tokens = [text[start : start + width] for text in self.groups[who]]
        return Part(tokens, self.rows[who], start, self.heard[who], attention)


def sides(model: Whisper, chance: random.Random, sizes: list[tuple[int, int, int]]) -> list[Side]:
    """The same decodes twice, replayed and not; ``sizes`` are audios, rows each, and frames."""
    audios = [
        model.encoder(torch.randn(n, 80, frames).to("cuda", model.dtype)) for n, _, frames in sizes
    ]
    groups = [
        [[chance.randrange(51865) for _ in range(200)] for _ in range(n * each)]
        for n, each, _ in sizes
    ]
    decoders = (Graphed(model, 1, model.dtype), Ragged(model, 1, model.dtype))
    return [Side(decoder, audios, groups) for decoder in decoders]


def same(found: torch.Tensor, expected: torch.Tensor, kind: str) -> bool:
    found, expected = found.cpu().float(), expected.cpu().float()
    error = (found - expected).norm(dim=-1) / expected.norm(dim=-1)
    return found.shape == expected.shape and bool(error.max() < LIMITS[kind])


LIMITS = {"float32": 1e-4, "float16": 0.02, "bfloat16": 0.1}

SIZES = [(1, 1, 40), (1, 1, 40), (1, 3, 40), (1, 1, 90), (2, 2, 60), (1, 1, 40), (1, 5, 90)]


@pytest.mark.parametrize("kind", LIMITS)
@pytest.mark.parametrize("seed", range(3))
def test_a_pass_is_that_of_the_operations(kind: str, seed: int) -> None:
    """Beams, several audios, attention wanted or not, with prompts between and without."""
    chance = random.Random(seed)
    model = on_gpu(kind)
    assert isinstance(ragged(model, 1, model.dtype), Graphed)
    ours, plain = sides(model, chance, SIZES)
    read = [0] * len(SIZES)
    crowd: list[int] = []
    watched: dict[int, int] = {}
    replayed = 0
    for step in range(60):
        if step % 6 == 0:
            crowd = chance.sample(range(len(SIZES)), chance.randrange(1, len(SIZES) + 1))
            watched = {who: chance.choice((0, 0, 4)) for who in crowd}
        widths = {who: chance.choice((2, 5)) if chance.random() < 0.08 else 1 for who in crowd}
        parts = [
            [side.part(who, read[who], widths[who], watched[who]) for who in crowd]
            for side in (ours, plain)
        ]
        before = sum(graph.replays for graph in Graph.made)
        graphs = len(Graph.made)
        found, expected = ours.decoder.run(parts[0]), plain.decoder.run(parts[1])
        replayed += len(Graph.made) == graphs and sum(g.replays for g in Graph.made) > before
        assert isinstance(found, OnGpu)
        assert same(found, expected, kind)
        for one, other in zip(*parts, strict=True):
            assert len(one.scores) == len(other.scores)
            assert bool(one.scores) == bool(one.attention)
            for a, b in zip(one.scores, other.scores, strict=True):
                assert same(a, b, kind)
        for who in crowd:
            read[who] += widths[who]
    assert replayed > 15
    assert model.decoder.graphs


def test_a_shape_is_recorded_when_it_has_come_three_times() -> None:
    ours, plain = sides(on_gpu(), random.Random(0), [(1, 1, 40)])
    for step in range(7):
        for side in (ours, plain):
            side.decoder.run([side.part(0, step, 1, 0)])
        assert len(Graph.made) == (step >= 2)
    assert Graph.made[0].replays == 5  # one to see that it is right, four in earnest


def test_more_rows_more_tokens_and_other_windows_are_recorded_anew() -> None:
    model = on_gpu()
    ours, plain = sides(model, random.Random(0), [(1, 1, 40)] * 5)

    def steps(who: list[int], start: int, count: int) -> None:
        for n in range(start, start + count):
            found, expected = (
                side.decoder.run([side.part(i, n, 1, 0) for i in who]) for side in (ours, plain)
            )
            assert same(found, expected, "float32")

    steps([0, 1, 2, 3, 4], 0, 6)
    assert len(Graph.made) == 1
    steps([0, 1, 2, 3, 4], 6, 62)  # past 64 tokens
    assert len(Graph.made) == 2
    steps([1], 68, 5)  # alone: within the first two rows
    assert len(Graph.made) == 3
    taken = ours.decoder.rows.take(40)  # the rows' memory grows, and moves
    assert plain.decoder.rows.take(40) == taken
    steps([0, 1, 2, 3, 4], 73, 6)
    assert len(Graph.made) == 4
    assert sum(graph.replays for graph in Graph.made) > 60


def test_recordings_are_bounded_and_leave_with_their_windows(monkeypatch) -> None:
    monkeypatch.setattr(graphed, "GRAPHS", 2)
    model = on_gpu()
    decoder = Graphed(model)
    audios = [model.encoder(torch.randn(2, 80, frames).to("cuda")) for frames in (20, 30, 40, 50)]
    rows = decoder.rows.take(2)
    heard = [decoder.hear(audio) for audio in audios]  # of two each: in memory of their own
    for n in range(16):
        decoder.run([Part([[n], [n]], rows, 0, heard[n // 4])])
        assert len(decoder._graphs) <= 2
    assert len(Graph.made) == 4
    del heard
    audio = decoder.hear(audios[0])
    for n in range(3):
        decoder.run([Part([[n], [n]], rows, 0, audio)])
    assert len(decoder._graphs) == 1  # those before looked at memory that is no more


TROUBLES: dict[str, Any] = {
    "raises": lambda graph: 1 / 0,
    "leaves no numbers": Graph.spoil,
    "leaves zeros": lambda graph: [own.zero_() for own in graph._own.values()],
}


@pytest.mark.parametrize("name", TROUBLES)
def test_a_recording_that_goes_wrong_is_left_out_with_a_line(name, monkeypatch, caplog) -> None:
    monkeypatch.setattr(Graph, "replay", TROUBLES[name])
    run_with_trouble(caplog)


def run_with_trouble(caplog: pytest.LogCaptureFixture) -> None:
    model = on_gpu()
    ours, plain = sides(model, random.Random(0), [(1, 1, 40), (1, 2, 40)])
    with caplog.at_level(logging.WARNING, "aii.graphed"):
        for step in range(8):
            found, expected = (
                side.decoder.run([side.part(who, step, 1, 4) for who in (0, 1)])
                for side in (ours, plain)
            )
            assert same(found, expected, "float32")
    assert len(caplog.messages) == 1
    assert "CUDA graphs of the decoder go wrong here" in caplog.messages[0]
    assert not model.decoder.graphs


def test_what_cannot_be_recorded_is_left_out_with_a_line(monkeypatch, caplog) -> None:
    def refuses(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("CUDA error: operation not permitted\nCompile with TORCH_USE_CUDA_DSA")

    monkeypatch.setattr(torch.cuda, "graph", refuses)
    run_with_trouble(caplog)
    assert "(CUDA error: operation not permitted)" in caplog.messages[0]


def test_a_recording_that_breaks_later_is_left_out_within_the_pass(monkeypatch, caplog) -> None:
    replay = Graph.replay

    def breaks(self: Graph) -> None:
        if self.replays == 3:
            raise RuntimeError("CUDA error: an illegal memory access")
        replay(self)

    monkeypatch.setattr(Graph, "replay", breaks)
    run_with_trouble(caplog)


def test_an_error_after_the_replay_leaves_no_scores_twice(monkeypatch, caplog) -> None:
    given = Layout.scores

    def breaks(self: Any, kept: Any) -> Any:
        found = given(self, kept)
        if Graph.made[0].replays > 3:
            raise RuntimeError("CUDA error: out of luck")
        return found

    monkeypatch.setattr(Layout, "scores", breaks)
    ours, _ = sides(on_gpu(), random.Random(0), [(1, 1, 40)])
    for step in range(8):
        part = ours.part(0, step, 1, 4)
        ours.decoder.run([part])
        assert len(part.scores) == 2  # layers with heads that tell the time
    assert len(caplog.messages) == 1


def test_no_memory_for_a_recording_is_no_reason_to_end_them(monkeypatch) -> None:
    record = Graphed._record
    tries = []

    def first_full(self: Graphed, layout: Any) -> Any:
        tries.append(1)
        if len(tries) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return record(self, layout)

    monkeypatch.setattr(Graphed, "_record", first_full)
    model = on_gpu()
    ours, _ = sides(model, random.Random(0), [(1, 1, 40)])
    for step in range(8):
        ours.decoder.run([ours.part(0, step, 1, 0)])
    assert model.decoder.graphs
    assert len(tries) == 2
    assert Graph.made[-1].replays == 3


def test_what_only_poisoned_decodes_have_shown_is_not_kept() -> None:
    model = on_gpu()
    ours, plain = sides(model, random.Random(0), [(1, 1, 40)])
    values = [side.heard[0].layers[0][1] for side in (ours, plain)]
    sound = values[0].clone()
    for step in range(12):
        for own in values:
            own[:] = sound if step > 4 else torch.nan
        if step == 5:
            assert len(Graph.made) == 1
            assert not ours.decoder._graphs
        found, expected = (side.decoder.run([side.part(0, 0, 1, 0)]) for side in (ours, plain))
        assert step <= 4 or same(found, expected, "float32")
    assert len(ours.decoder._graphs) == 1


def test_other_weights_are_read_by_the_next_decode() -> None:
    model = on_gpu()
    ours, plain = sides(model, random.Random(0), [(1, 1, 40)])
    for step in range(6):
        ours.decoder.run([ours.part(0, step, 1, 0)])
    assert Graph.made[0].replays > 1
    out = model.decoder.blocks[1].mlp[2]
    out.weight = torch.nn.Parameter(out.weight * 2)
    for start, width in ((0, 3), (3, 1), (4, 1)):
        found, expected = (
            side.decoder.run([side.part(0, start, width, 0)]) for side in (ours, plain)
        )
        assert same(found, expected, "float32")
    assert not ours.decoder._graphs


def test_shapes_that_never_come_again_are_recorded_as_often_as_replays_have_paid_for() -> None:
    model = on_gpu()
    decoder = Graphed(model)
    rows = decoder.rows.take(2)
    audio = model.encoder(torch.randn(2, 80, 20).to("cuda"))
    for n in range(60):
        heard = decoder.hear(audio) if n % 5 == 0 else heard  # noqa: F821 (the one before)
        decoder.run([Part([[n], [n]], rows, 0, heard)])
    assert len(Graph.made) == graphed.CREDIT + (12 - graphed.CREDIT) * 2 // graphed.PRICE
    assert model.decoder.graphs


def test_who_comes_while_another_records_goes_on_without() -> None:
    ours, plain = sides(on_gpu(), random.Random(0), [(1, 1, 40)])
    turn = graphed._TURN.pop()
    try:
        for step in range(5):
            found, expected = (
                side.decoder.run([side.part(0, step, 1, 0)]) for side in (ours, plain)
            )
            assert same(found, expected, "float32")
    finally:
        graphed._TURN.append(turn)
    assert not Graph.made
    ours.decoder.run([ours.part(0, 5, 1, 0)])
    assert len(Graph.made) == 1


def test_a_lonely_row_far_out_is_not_recorded() -> None:
    ours, _ = sides(on_gpu(), random.Random(0), [(1, 1, 40)] * 16)
    for step in range(8):
        ours.decoder.run([ours.part(15, step, 1, 0)])
    assert not Graph.made


def test_it_can_be_switched_off() -> None:
    model = on_gpu()
    model.decoder.graphs = False
    ours, _ = sides(model, random.Random(0), [(1, 1, 40)])
    for step in range(6):
        ours.decoder.run([ours.part(0, step, 1, 0)])
    assert not Graph.made


def test_who_hangs_hooks_on_the_decoder_sees_every_pass() -> None:
    model = on_gpu()
    model.decoder.ln.register_forward_hook(lambda *_: None)
    assert type(ragged(model)) is Ragged


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_poisoned_row_spoils_no_recording_and_no_other_row(poison: float) -> None:
    model = on_gpu()
    ours, plain = sides(model, random.Random(0), [(1, 1, 40)] * 3)
    for side in (ours, plain):
        side.heard[1].layers[0][1][:] = poison
    for step in range(8):
        found, expected = (
            side.decoder.run([side.part(who, step, 1, 0) for who in range(3)])
            for side in (ours, plain)
        )
        assert found.isfinite().all(1).tolist() == [True, False, True]
        assert same(found[[0, 2]], expected[[0, 2]], "float32")
    assert model.decoder.graphs
    assert Graph.made[0].replays > 3


def test_a_batch_uses_it() -> None:
    assert isinstance(Batch(on_gpu())._decoder(torch.float32), Graphed)
