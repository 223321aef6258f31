"""A folder that ``transformers`` saves is heard by us as ``transformers`` hears it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import transformers

from aii.checkpoints import load_model
from aii.decoding import DecodingOptions, decode
from aii.hf_checkpoints import hf_config
from aii.mel import log_mel_spectrogram, pad_or_trim
from aii.tokenizer import get_tokenizer

NEW_TOKENS = 40
SHAPES = {
    "multilingual": dict(
        n_mels=80, n_vocab=51865, state=64, heads=2, audio_layers=2, text_layers=2
    ),
    "english": dict(n_mels=80, n_vocab=51864, state=64, heads=4, audio_layers=1, text_layers=3),
    "turbo": dict(n_mels=128, n_vocab=51866, state=64, heads=1, audio_layers=3, text_layers=1),
}


def save(folder, name: str):
    """A random network, saved by ``transformers``; in several files for one of the shapes."""
    shape = SHAPES[name]
    dims = dict(
        n_mels=shape["n_mels"],
        n_audio_ctx=1500,
        n_audio_state=shape["state"],
        n_audio_head=shape["heads"],
        n_audio_layer=shape["audio_layers"],
        n_vocab=shape["n_vocab"],
        n_text_ctx=448,
        n_text_state=shape["state"],
        n_text_head=shape["heads"],
        n_text_layer=shape["text_layers"],
    )
    (folder / "config.json").write_text(json.dumps(hf_config(dims)))
    config = transformers.WhisperConfig.from_pretrained(folder)
    torch.manual_seed(0)
    model = transformers.WhisperForConditionalGeneration(config).eval()
    for weight in model.parameters():
        noise = torch.randn_like(weight) * (0.08 if weight.ndim > 1 else 0.1)
        weight.data = noise if weight.ndim > 1 else weight.data + noise
    model.generation_config = generation(name, dims)
    shard = {"max_shard_size": "2MB"} if name == "turbo" else {}
    model.save_pretrained(folder, **shard)
    return model


def generation(name: str, dims) -> transformers.GenerationConfig:
    """What ``transformers`` needs to know to decode; heads and suppressed tokens of our choice."""
    tokenizer = get_tokenizer(
        dims["n_vocab"] > 51864,
        num_languages=dims["n_vocab"] - 51765 - int(dims["n_vocab"] > 51864),
    )
    never = [tokenizer.sot, tokenizer.sot_prev, tokenizer.sot_lm, tokenizer.no_speech]
    never += [tokenizer.transcribe, tokenizer.translate]
    multilingual = dims["n_vocab"] > 51864
    more = {}
    if multilingual:
        more = {
            "lang_to_id": {
                f"<|{code}|>": token
                for code, token in zip(
                    tokenizer.all_language_codes, tokenizer.all_language_tokens, strict=True
                )
            },
            "task_to_id": {"transcribe": tokenizer.transcribe, "translate": tokenizer.translate},
        }
    return transformers.GenerationConfig(
        bos_token_id=tokenizer.eot,
        eos_token_id=tokenizer.eot,
        pad_token_id=tokenizer.eot,
        decoder_start_token_id=tokenizer.sot,
        max_length=448,
        suppress_tokens=sorted({*never, 5, 7, 11, *range(1000, 1400)}),
        begin_suppress_tokens=[*tokenizer.encode(" "), tokenizer.eot],
        no_timestamps_token_id=tokenizer.no_timestamps,
        max_initial_timestamp_index=50,
        alignment_heads=[[0, 0]],
        is_multilingual=multilingual,
        return_timestamps=False,
        **more,
    )


@pytest.fixture(scope="module", params=SHAPES)
def both(request, tmp_path_factory):
    """(transformers' model, ours) from one folder."""
    folder = tmp_path_factory.mktemp(request.param)
    theirs = save(folder, request.param)
    sharded = (folder / "model.safetensors.index.json").is_file()
    assert sharded == (request.param == "turbo")
    return theirs, load_model(str(folder), device="cpu")


@pytest.fixture(scope="module")
def mel(both):
    """Two windows of noise under a tone."""
    chance = np.random.default_rng(0)
    audio = chance.normal(0, 0.1, (2, 80_000)) + np.sin(np.arange(80_000) * 0.1)
    n_mels = both[1].dims.n_mels
    rows = [log_mel_spectrogram(row.astype(np.float32), n_mels, padding=480_000) for row in audio]
    return torch.stack([pad_or_trim(row, 3000) for row in rows])


@torch.no_grad()
def test_the_encoder_gives_the_same(both, mel) -> None:
    theirs, ours = both
    expected = theirs.model.encoder(mel).last_hidden_state
    torch.testing.assert_close(ours.encoder(mel), expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_the_logits_are_the_same(both, mel) -> None:
    theirs, ours = both
    tokens = torch.randint(0, 50_000, (2, 17))
    expected = theirs(input_features=mel, decoder_input_ids=tokens).logits
    assert expected.std() > 0.1
    torch.testing.assert_close(ours(mel, tokens), expected, rtol=1e-4, atol=1e-3)


def test_the_notes_come_along(both) -> None:
    theirs, ours = both
    assert ours.alignment_heads.to_dense().nonzero().tolist() == [[0, 0]]
    listed = [int(token) for token in ours.metadata["suppress_tokens"].split(",")]
    assert listed == theirs.generation_config.suppress_tokens


def test_the_same_tokens_are_generated(both, mel) -> None:
    """Without timestamps: with them ``transformers`` edits what it has decoded."""
    theirs, ours = both
    say = {"language": "de", "task": "translate"} if ours.is_multilingual else {}
    with torch.no_grad():
        rows = theirs.generate(
            mel, max_new_tokens=NEW_TOKENS, do_sample=False, return_timestamps=False, **say
        )
    results = decode(
        ours,
        mel,
        DecodingOptions(
            language=say.get("language", "en"),
            task=say.get("task", "transcribe"),
            without_timestamps=True,
            suppress_tokens=ours.metadata["suppress_tokens"],
            sample_len=NEW_TOKENS,
            fp16=False,
        ),
    )
    eot = theirs.generation_config.eos_token_id
    for row, result in zip(rows.tolist(), results, strict=True):
        expected = [token for token in row if token != eot]
        assert len(result.tokens) == NEW_TOKENS
        assert result.tokens == expected[-NEW_TOKENS:]
