"""aii.hf_checkpoints: folders in Hugging Face's layout load; wrong ones give one clear line."""

from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from aii.checkpoints import describe, load_model, resolve
from aii.cli import main
from aii.errors import CheckpointError, MissingExtraError
from aii.hf_checkpoints import hf_config, hf_name, openai_name
from aii.model import ModelDimensions, Whisper

DIMS = dict(
    n_mels=80,
    n_audio_ctx=30,
    n_audio_state=16,
    n_audio_head=2,
    n_audio_layer=3,
    n_vocab=51864,
    n_text_ctx=20,
    n_text_state=16,
    n_text_head=4,
    n_text_layer=2,
)


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    state = Whisper(ModelDimensions(**DIMS)).state_dict()
    return {name: torch.randn_like(tensor).half() for name, tensor in state.items()}


def write(folder: Path, weights: dict[str, torch.Tensor], **files: Any) -> Path:
    """A folder as ``save_pretrained`` makes it; ``files`` are further ones, by their stems."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(hf_config(DIMS)))
    tensors = {hf_name(name): tensor for name, tensor in weights.items()}
    save_file(tensors, folder / "model.safetensors")
    for stem, content in files.items():
        (folder / f"{stem}.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def folder(weights: dict[str, torch.Tensor], tmp_path: Path) -> Path:
    return write(tmp_path / "model", weights)


def message_of(path: Path) -> str:
    """The one line that all ways of opening a bad folder give."""
    lines = []
    for open_it in (load_model, lambda p: load_model(p, in_memory=True), describe):
        with pytest.raises(CheckpointError) as caught:
            open_it(str(path))
        lines.append(str(caught.value))
    assert lines[0] == lines[1] == lines[2]
    assert "\n" not in lines[0]
    return lines[0]


def change(path: Path, **values: Any) -> None:
    """Change a JSON file; None takes a key out."""
    content = json.loads(path.read_text()) | values
    path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))


def same_weights(model: Whisper, weights: dict[str, torch.Tensor]) -> bool:
    state = model.state_dict()
    return list(state) == list(weights) and all(
        torch.equal(state[name], tensor.float()) for name, tensor in weights.items()
    )


@pytest.mark.parametrize("in_memory", [False, True])
def test_a_folder_loads(folder: Path, weights: dict[str, torch.Tensor], in_memory: bool) -> None:
    model = load_model(str(folder), device="cpu", in_memory=in_memory)
    assert vars(model.dims) == DIMS
    assert same_weights(model, weights)
    assert all(tensor.dtype == torch.float32 for tensor in model.state_dict().values())
    assert not model.training
    assert model.metadata == {}
    default = Whisper(ModelDimensions(**DIMS)).alignment_heads
    assert torch.equal(model.alignment_heads.to_dense(), default.to_dense())


def test_names_there_and_back(weights: dict[str, torch.Tensor]) -> None:
    names = [hf_name(name) for name in weights]
    assert len(set(names)) == len(names)
    assert [openai_name(name) for name in names] == list(weights)
    assert [openai_name(name.removeprefix("model.")) for name in names] == list(weights)
    assert openai_name("model.decoder.layers.0.lora.weight") == "model.decoder.layers.0.lora.weight"
    assert openai_name("classifier.weight") == "classifier.weight"


def test_several_files(folder: Path, weights: dict[str, torch.Tensor]) -> None:
    (folder / "model.safetensors").unlink()
    where: dict[str, str] = {}
    for number in range(3):
        file = f"model-{number + 1:05}-of-00003.safetensors"
        part = {hf_name(name): weights[name] for name in list(weights)[number::3]}
        save_file(part, folder / file)
        where |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": 1}, "weight_map": where})
    )
    assert same_weights(load_model(str(folder)), weights)
    assert describe(folder).size == sum(f.stat().st_size for f in folder.glob("*.safetensors"))
    moved = next(iter(where))
    change(folder / "model.safetensors.index.json", weight_map=where | {"more": where[moved]})
    assert "weight more is missing, model.safetensors.index.json has it" in message_of(folder)
    for wrong in ("../model-00001-of-00003.safetensors", "/etc/passwd", 7, "a/b.safetensors"):
        change(folder / "model.safetensors.index.json", weight_map={moved: wrong})
        assert "is no .safetensors file of this folder" in message_of(folder)
    change(folder / "model.safetensors.index.json", weight_map={moved: "gone.safetensors"})
    assert "gone.safetensors is missing" in message_of(folder)
    change(folder / "model.safetensors.index.json", weight_map=[])
    assert "lacks weight_map" in message_of(folder)


def test_a_weight_in_two_files(folder: Path, weights: dict[str, torch.Tensor]) -> None:
    """An old file among new ones: which of the two is meant, nobody knows."""
    name, *rest = (hf_name(name) for name in weights)
    tensors = {hf_name(name): tensor for name, tensor in weights.items()}
    (folder / "model.safetensors").unlink()
    save_file({name: tensors[name] * 0, rest[0]: tensors[rest[0]]}, folder / "a.safetensors")
    save_file({key: tensors[key] for key in (name, *rest[1:])}, folder / "b.safetensors")
    where = {key: "a.safetensors" if key == rest[0] else "b.safetensors" for key in tensors}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    assert f"weight {name} is there twice" in message_of(folder)


def test_weights_do_not_hang_on_the_file(folder: Path) -> None:
    model = load_model(str(folder))
    before = model.decoder.ln.weight.clone()
    with (folder / "model.safetensors").open("r+b") as file:
        file.write(b"\xff" * (folder / "model.safetensors").stat().st_size)
    assert torch.equal(model.decoder.ln.weight, before)


def test_the_model_without_a_head_and_the_tied_projection(
    tmp_path: Path, weights: dict[str, torch.Tensor]
) -> None:
    """``WhisperModel`` saves without ``model.``; some save the projection as well, or alone."""
    folder = write(tmp_path / "m", weights)
    tensors = {hf_name(name): tensor for name, tensor in weights.items()}
    table = "model.decoder.embed_tokens.weight"
    bare = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
    both = {**tensors, "proj_out.weight": tensors[table].clone()}
    alone = {("proj_out.weight" if k == table else k): v for k, v in tensors.items()}
    for variant in (bare, both, alone):
        save_file(variant, folder / "model.safetensors")
        assert same_weights(load_model(str(folder)), weights)
    save_file({**tensors, "proj_out.weight": tensors[table] + 1}, folder / "model.safetensors")
    assert "proj_out.weight is not the token table" in message_of(folder)
    save_file({**tensors, "encoder.conv1.bias": tensors["model.encoder.conv1.bias"] + 1},
              folder / "model.safetensors")  # fmt: skip
    assert "is there twice" in message_of(folder)


def test_heads_and_suppressed_tokens(tmp_path: Path, weights: dict[str, torch.Tensor]) -> None:
    generation = {"alignment_heads": [[0, 3], [1, 0]], "suppress_tokens": [1, 2, 50256]}
    folder = write(tmp_path / "m", weights, generation_config=generation)
    model = load_model(str(folder))
    assert model.alignment_heads.to_dense().nonzero().tolist() == [[0, 3], [1, 0]]
    assert model.metadata == {"suppress_tokens": "1,2,50256"} == describe(folder).metadata
    write(folder, weights, generation_config={})
    change(folder / "config.json", suppress_tokens=[])
    assert load_model(str(folder)).metadata == {"suppress_tokens": ""}


@pytest.mark.parametrize(
    "generation, expected",
    [
        ({"alignment_heads": [[2, 0]]}, "head 0 of layer 2; the model has 4 heads in 2 layers"),
        ({"alignment_heads": [[0, 4]]}, "head 4 of layer 0"),
        ({"alignment_heads": [[0]]}, "must be pairs of numbers"),
        ({"alignment_heads": [[0, -1]]}, "must be pairs of numbers"),
        ({"alignment_heads": []}, "must be pairs of numbers"),
        ({"alignment_heads": 3}, "must be pairs of numbers"),
        ({"suppress_tokens": "1"}, "must be a list of at most 512 token numbers"),
        ({"suppress_tokens": [1.5]}, "must be a list of at most 512 token numbers"),
        ({"suppress_tokens": [1] * 513}, "must be a list of at most 512 token numbers"),
        ({"suppress_tokens": [5, 51864]}, "has 51864, but the model has 51864 tokens"),
        ({"suppress_tokens": [-2]}, "has -2, but the model has 51864 tokens"),
        ([], "holds a list, wanted is an object"),
    ],
)
def test_wrong_generation_settings(folder: Path, generation: Any, expected: str) -> None:
    (folder / "generation_config.json").write_text(json.dumps(generation))
    assert expected in message_of(folder)


@pytest.mark.parametrize(
    "values, expected",
    [
        ({"model_type": "wav2vec2"}, "is a model of type 'wav2vec2', not whisper"),
        ({"model_type": None}, "is a model of type 'None'"),
        ({"vocab_size": 30000}, "vocab_size is 30000"),
        ({"num_mel_bins": 81}, "num_mel_bins is 81"),
        ({"encoder_layers": 0}, "encoder_layers is 0; it must be a positive integer"),
        ({"encoder_layers": 100}, "too small for the dimensions"),
        ({"encoder_layers": 10**9}, "encoder_layers is 1000000000; at most 128"),
        ({"decoder_layers": "2"}, "decoder_layers is '2'"),
        ({"decoder_layers": None}, "lacks decoder_layers"),
        (
            {"decoder_layers": 1},
            "weight 'model.decoder.layers.1.encoder_attn.k_proj.weight' is unknown",
        ),
        ({"encoder_layers": 4}, "weight model.encoder.layers.3.self_attn.q_proj.weight is missing"),
        ({"decoder_attention_heads": 3}, "3 text heads do not divide 16 channels"),
        ({"encoder_ffn_dim": 63}, "encoder_ffn_dim must be 4 x d_model (64)"),
        ({"activation_function": "relu"}, "activation_function is 'relu'; known is 'gelu'"),
        ({"scale_embedding": True}, "scale_embedding is 'True'"),
        ({"max_source_positions": 31}, "weight model.encoder.embed_positions.weight is (30, 16)"),
        ({"quantization_config": {"bits": 4}}, "quantized"),
    ],
)
def test_wrong_configurations(folder: Path, values: dict[str, Any], expected: str) -> None:
    change(folder / "config.json", **values)
    assert expected in message_of(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000])
def test_a_configuration_that_is_no_json(folder: Path, content: bytes) -> None:
    (folder / "config.json").write_bytes(content)
    assert "config.json is not JSON" in message_of(folder)


def test_a_configuration_without_end(folder: Path) -> None:
    (folder / "config.json").write_bytes(b" " * (9 << 20))
    assert "too large to be true" in message_of(folder)


NAME = "decoder.blocks.1.mlp.0.weight"


@pytest.mark.parametrize(
    "value, expected",
    [
        (None, "weight model.decoder.layers.1.fc1.weight is missing"),
        (torch.zeros(16, 64).half(), "is (16, 64), wanted by dims is (64, 16)"),
        (torch.zeros(64, 16, dtype=torch.int8), "fc1.weight is torch.int8 on cpu"),
    ],
)
def test_wrong_weights(
    tmp_path: Path, weights: dict[str, torch.Tensor], value: Any, expected: str
) -> None:
    changed = {k: v for k, v in (weights | {NAME: value}).items() if v is not None}
    assert expected in message_of(write(tmp_path / "m", changed))


def test_weights_that_are_no_numbers(tmp_path: Path, weights: dict[str, torch.Tensor]) -> None:
    folder = write(tmp_path / "m", weights | {NAME: torch.full((64, 16), float("nan")).half()})
    with pytest.raises(CheckpointError, match=r"layers\.1\.fc1\.weight has values"):
        load_model(str(folder))


def test_damaged_weights(folder: Path) -> None:
    file = folder / "model.safetensors"
    whole = file.read_bytes()
    for damaged in (b"", whole[:5], whole[:100], whole[:-1], b"\xff" * 100, b"<html>" * 20):
        file.write_bytes(damaged)
        for in_memory in (False, True):
            with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged \(.+\)"):
                load_model(str(folder), in_memory=in_memory)


def test_folders_that_are_something_else(folder: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    for open_it in (load_model, describe, resolve):
        with pytest.raises(CheckpointError, match=r"is a folder without a config\.json"):
            open_it(str(empty))
    (folder / "model.safetensors").rename(folder / "x")
    assert "has neither model.safetensors nor" in message_of(folder)
    (folder / "pytorch_model.bin").write_bytes(b"PK")
    assert "safe_serialization=True" in message_of(folder)
    (folder / "adapter_config.json").write_text("{}")
    assert "is an adapter (PEFT)" in message_of(folder)
    (folder / "config.json").unlink()
    assert "is an adapter (PEFT)" in message_of(folder)


def test_the_file_in_the_folder(folder: Path) -> None:
    with pytest.raises(CheckpointError, match="give the folder that it is in"):
        load_model(str(folder / "model.safetensors"))


def test_without_the_extra(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def fake(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("safetensors"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", fake)
    with pytest.raises(MissingExtraError, match=r"pip install 'aii\[hf\]'"):
        load_model(str(folder))


def test_the_command_line_takes_a_folder(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "verify", str(folder)]) == 0
    assert "sound" in capsys.readouterr().out
    change(folder / "config.json", model_type="bert")
    assert main(["models", "verify", str(folder)]) == 2
    assert "is a model of type 'bert', not whisper" in capsys.readouterr().err
