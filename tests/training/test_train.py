from __future__ import annotations

import argparse
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import training.train as train
from aii.attention import attend
from aii.checkpoints import describe, load_model
from benchmarks.espeak import Said
from training import export, losses, synthesise
from training.dataset import Batch
from training.recordings import RATE, Job, digit_string, normal, read_wav, resample, spoken, trim
from training.scoring import QuickCheck, digit_strings
from training.vocabulary import FULL, Vocabulary
from training.windows import Recordings


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("WIDTH", 16), ("HEADS", 2), ("ENCODER_LAYERS", 1), ("DECODER_LAYERS", 1)):
        monkeypatch.setattr(train, name, value)


def arguments(run: Path, data: Path, steps: int, start: Path | None = None) -> argparse.Namespace:
    run.mkdir(exist_ok=True)
    fixed = {"lr": 1e-3, "seed": 1, "threads": 1, "save": 100, "check": 1000, "long": False}
    fixed["decoder_layers"] = None
    return argparse.Namespace(run=run, data=data, steps=steps, start=start, **fixed)


def batch(seed: int) -> Batch:
    made = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, 400, (2, 6), generator=made)
    places = torch.tensor([[[0, 0], [5, 9], [9, 20], [20, 30], [30, 31], [0, 0]]] * 2)
    mel = torch.randn(2, 80, 150, generator=made).bfloat16()
    return Batch(mel, tokens, tokens.roll(-1, 1), places)


@pytest.mark.parametrize("causal", [False, True])
def test_written_out_attention_is_the_same(causal: bool) -> None:
    made = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, 7, 8, generator=made) for _ in range(3))
    ours, _ = train.fast_attend(q, k, v, causal=causal)
    torch.testing.assert_close(ours, attend(q, k, v, causal=causal)[0], atol=1e-5, rtol=1e-4)


def test_attention_is_drawn_to_the_word_that_comes_next() -> None:
    places = torch.tensor([[[0, 0], [10, 20], [20, 60]]])
    beside = torch.tensor([[[0, 0], [2, 8], [2, 8]]])

    def loss(*layers: torch.Tensor, places: torch.Tensor = places) -> float:
        gaze = losses.Gaze(2)
        assert not gaze.wants(0)
        for number, scores in enumerate(layers):
            assert gaze.wants(1 + number)
            gaze.record(1 + number, scores)
        return float(gaze.loss(places))

    even = torch.zeros(1, 2, 3, 50)
    there = even - 30.0
    there[:, :, 1, 10:20] = there[:, :, 2, 20:50] = 0.0  # the audio ends within the second word
    assert loss(there) == pytest.approx(0.0, abs=1e-4)
    peaked = there.clone()
    peaked[:, :, 1, 12] = 8.0
    assert loss(there) < loss(peaked)
    assert loss(there) < loss(even) < loss(there, places=beside)
    around = even - 30.0  # a layer above may look somewhat before and behind
    around[:, :, 1, 8:22] = around[:, :, 2, 10:50] = 0.0
    assert loss(there, around) == pytest.approx(0.0, abs=1e-3)
    assert loss(around) > 0.2
    assert loss(even, places=torch.zeros_like(places)) == 0.0


def test_attention_learns_from_it(small: None, tmp_path: Path, data_folder: Path) -> None:
    trainer = train.Trainer(arguments(tmp_path / "a", data_folder, 100))
    gazes = [trainer.update(batch(0))[2] for _ in range(30)]
    assert gazes[-1] < gazes[0]


def test_a_resumed_run_ends_where_an_unbroken_one_does(
    small: None, tmp_path: Path, data_folder: Path
) -> None:
    whole = train.Trainer(arguments(tmp_path / "a", data_folder, 10))
    for seed in range(4):
        whole.update(batch(seed))
    first = train.Trainer(arguments(tmp_path / "b", data_folder, 10))
    for seed in range(2):
        first.update(batch(seed))
    first.save()
    second = train.Trainer(arguments(tmp_path / "b", data_folder, 10))
    assert second.step == 2
    for seed in range(2, 4):
        second.update(batch(seed))
    for name, weight in whole.average.state_dict().items():
        torch.testing.assert_close(weight, second.average.state_dict()[name])


def test_learning_rate_rises_then_falls() -> None:
    rates = [train.learning_rate(step, 1000, 1e-3, warmup=100) for step in range(1001)]
    assert rates[0] < rates[50] < rates[99] <= 1e-3
    assert rates[100] == max(rates)
    assert rates[1000] == pytest.approx(2e-5)


def test_windows_grow_longer_as_the_run_goes_on() -> None:
    plan, rng = train.Plan(1000), np.random.default_rng(0)
    assert plan(0, rng) == train.START
    assert {plan(300, rng).seconds for _ in range(50)} <= {1.6, 3.2, 5.0}
    late = {plan(900, rng) for _ in range(300)}
    assert any(stage.full for stage in late)
    assert max(stage.seconds for stage in late) > 20


def test_exported_file_loads_and_never_prefers_an_unused_token(
    small: None, tmp_path: Path, data_folder: Path
) -> None:
    trainer = train.Trainer(arguments(tmp_path / "run", data_folder, 10))
    trainer.update(batch(0))
    trainer.save()
    state = torch.load(tmp_path / "run" / "state.pt", weights_only=True)
    path = tmp_path / "model.pt"
    torch.save(export.checkpoint(state, "test", "0"), path)
    assert describe(path).metadata["audio_context"] == "auto"
    model = load_model(str(path), device="cpu")
    vocabulary = Vocabulary.of_grammar()
    mel, tokens, *_ = batch(1)
    full = model(mel.float(), torch.tensor(vocabulary.used)[tokens])
    compact = trainer.average(mel.float(), tokens)
    assert full.shape[-1] == FULL
    torch.testing.assert_close(
        full[..., list(vocabulary.used)], compact[..., :-1], atol=2e-3, rtol=1e-2
    )


def test_a_run_can_start_from_a_checkpoint(small: None, tmp_path: Path, data_folder: Path) -> None:
    first = train.Trainer(arguments(tmp_path / "a", data_folder, 10))
    path = tmp_path / "model.pt"
    first.save()
    state = torch.load(tmp_path / "a" / "state.pt", weights_only=True)
    torch.save(export.checkpoint(state, "test", "0"), path)
    second = train.Trainer(arguments(tmp_path / "b", data_folder, 10, start=path))
    assert second.step == 0
    for name, weight in second.model.state_dict().items():
        wanted = first.average.state_dict()[name].half().float()
        torch.testing.assert_close(weight, wanted, msg=name)


def test_audio_placed_later_is_as_if_heard_there(
    small: None, tmp_path: Path, data_folder: Path
) -> None:
    trainer = train.Trainer(arguments(tmp_path / "run", data_folder, 10))
    mel = batch(0)[0][:, :, :100].float()
    with torch.no_grad():
        at_start, later = trainer.encode(mel, 0), trainer.encode(mel, 700)
        torch.testing.assert_close(at_start, trainer.model.encoder(mel))
    assert float((at_start - later).abs().max()) > 1e-3
    assert len(trainer.model.encoder.positional_embedding) == 1500


def test_a_deeper_decoder_begins_as_the_same_network(
    small: None, tmp_path: Path, data_folder: Path
) -> None:
    first = train.Trainer(arguments(tmp_path / "a", data_folder, 10))
    first.save()
    state = torch.load(tmp_path / "a" / "state.pt", weights_only=True)
    torch.save(export.checkpoint(state, "small", "1"), tmp_path / "small.pt")
    args = arguments(tmp_path / "b", data_folder, 10, start=tmp_path / "small.pt")
    shallow = train.Trainer(args)
    args.run, args.decoder_layers = tmp_path, 3
    deep = train.Trainer(args)
    assert train.decoder_depth(deep.model.state_dict()) == 3
    mel, tokens, *_ = batch(1)
    with torch.no_grad():
        made = [t.model.decoder(tokens, t.model.encoder(mel)) for t in (shallow, deep)]
    torch.testing.assert_close(made[0], made[1])
    added = deep.model.decoder.blocks[2].cross_attn.out.weight
    assert not added.any()
    deep.update(batch(1))
    assert added.any()


def test_a_timestamps_target_is_spread_over_its_neighbours() -> None:
    time, text = 100, 5
    logits = torch.zeros(1, 300)
    logits[0, time + 1] = 6.0
    near = losses.cross_entropy(logits, torch.tensor([time]), (50, 250))
    far = losses.cross_entropy(logits, torch.tensor([time - 3]), (50, 250))
    assert near < far - 1.0
    words = torch.zeros(1, 300)
    words[0, text + 1] = 6.0
    plain = torch.nn.functional.cross_entropy(words, torch.tensor([text]))
    found = losses.cross_entropy(words, torch.tensor([text]), (50, 250))
    torch.testing.assert_close(found, plain)


def test_quick_check_gives_a_rate_for_each_set(small: None, data_folder: Path) -> None:
    vocabulary = Vocabulary.of_grammar()
    model = train.Whisper(train.dimensions(vocabulary.size)).eval()
    rates = QuickCheck(data_folder, vocabulary, count=3)(model)
    assert set(rates) == {"unheard", "seen", "voice", "template", "long"}
    assert all(rate >= 0.0 for rate in rates.values())


def test_digit_strings_use_one_speaker_and_are_repeatable(data_folder: Path) -> None:
    recordings = Recordings(data_folder)
    made = digit_strings(recordings, "eval-unheard", 5, seed=1)
    again = digit_strings(recordings, "eval-unheard", 5, seed=1)
    for (samples, text), (other, same) in zip(made, again, strict=True):
        assert text == same
        assert 2 <= len(text.split()) <= 8
        np.testing.assert_array_equal(samples, other)


def test_resampling_keeps_a_tone() -> None:
    time = np.arange(22_050) / 22_050
    made = resample(np.sin(2 * np.pi * 440 * time).astype(np.float32), 22_050)
    assert len(made) == 16_000
    expected = np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)
    assert float(np.abs(made - expected)[500:-500].max()) < 0.02


def test_silence_is_cut_off_both_ends() -> None:
    speech = np.concatenate([np.zeros(4000), np.ones(3200) * 0.5, np.zeros(6000)])
    cut = trim(speech.astype(np.float32))
    assert 3200 <= len(cut) <= 3200 + 2 * 480


def test_wav_with_a_wrong_length_is_read_to_its_end() -> None:
    import io
    import wave

    file = io.BytesIO()
    with wave.open(file, "wb") as wav:
        wav.setnchannels(1)
        wav.setsampwidth(2)
        wav.setframerate(22_050)
        wav.writeframes(np.full(100, 16_384, "<i2").tobytes())
    data = bytearray(file.getvalue())
    data[40:44] = (0x7FFFF000).to_bytes(4, "little")  # as espeak-ng writes to a pipe
    samples, rate = read_wav(bytes(data))
    assert rate == 22_050
    np.testing.assert_allclose(samples, 0.5)
    assert len(samples) == 100


def test_what_is_spoken_and_what_is_written() -> None:
    assert spoken("my code is A xray") == "my code is ay x-ray"
    rng = random.Random(0)
    for _ in range(50):
        words = digit_string(rng).replace(",", "").split()
        assert 1 <= len(words) <= 9
    assert Job("a", "word", "espeak", "en-us").options == ()


def test_unused_tokens_are_made_quieter_on_every_state() -> None:
    made = torch.Generator().manual_seed(0)
    states = torch.randn(500, 8, generator=made) * 0.2 + torch.arange(1.0, 9.0) / 4
    row = torch.randn(8, generator=made)
    lower = states @ row - states @ export.quieter(row, states, by=15.0)
    assert float(lower.min()) > 8.0
    assert float(lower.mean()) == pytest.approx(15.0, abs=1.0)


def test_a_blend_lies_between_two_checkpoints() -> None:
    made = {"model_state_dict": {"a": torch.tensor([1.0, 2.0]).half()}}
    export.blend(made, {"model_state_dict": {"a": torch.tensor([3.0, 0.0])}}, 0.25)
    assert made["model_state_dict"]["a"].tolist() == [1.5, 1.5]
    assert made["model_state_dict"]["a"].dtype == torch.float16


def test_the_places_of_words_move_with_the_silence_that_is_cut() -> None:
    speech = np.concatenate([np.zeros(4000), np.tile([0.5, -0.5], 4000), np.zeros(6000)])
    made = normal(speech.astype(np.float32), [0.35, 0.9])
    assert made.ends == (round(0.35 * 16_000) - 4000 + 320, len(made.pcm))
    assert int(np.abs(made.pcm).max()) == pytest.approx(0.7 * 32_767, abs=2)
    assert normal(speech.astype(np.float32)).ends == ()


@pytest.mark.parametrize(
    ("program", "voice", "options"),
    [("espeak", "en-us+f3", ("-s", "140", "-p", "40")), ("flite", "kal", ())],
)
def test_synthesisers_tell_where_their_words_are(
    program: str, voice: str, options: tuple[str, ...]
) -> None:
    if shutil.which({"espeak": "espeak-ng"}.get(program, program)) is None:
        pytest.skip(f"{program} is not installed; run: apt install {program}")
    text = "cancel my appointment"
    made = synthesise.make(Job(text, "phrase", program, voice, options))
    assert made is not None
    first, second, third = made.ends
    assert third == len(made.pcm)
    lengths = np.array([first, second - first, third - second]) / RATE
    assert lengths[2] > lengths[0] > lengths[1] > 0.05
    cut = made.pcm[second:].astype(np.float32)
    alone = synthesise.make(Job("appointment", "word", program, voice, options))
    assert alone is not None
    assert len(cut) == pytest.approx(len(alone.pcm), rel=0.2)


def test_words_that_a_synthesiser_joins_have_no_places(monkeypatch: pytest.MonkeyPatch) -> None:
    class Joining:
        rate = 16_000

        def say(self, *_: object, **__: object) -> tuple[np.ndarray, list[Said]]:
            words = [Said("of", 0.0, 0.5), Said("the", float("nan"), float("nan"))]
            return np.tile(np.float32([0.5, -0.5]), 8_000), words

    monkeypatch.setattr(synthesise, "espeak_library", Joining)
    made = synthesise.make(Job("of the", "phrase", "espeak", "en", ("-s", "160", "-p", "50")))
    assert made is not None
    assert made.ends == ()
