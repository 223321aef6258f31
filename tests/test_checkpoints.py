"""aii.checkpoints: good files load as openai-whisper loads them; bad ones give one clear line."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import whisper

from aii import checkpoints, hub
from aii.checkpoints import available_models, describe, load_model, resolve
from aii.download import Fetch
from aii.errors import CheckpointError, DownloadError
from aii.model import ModelDimensions, Whisper

DIMS = ModelDimensions(
    n_mels=80,
    n_audio_ctx=30,
    n_audio_state=16,
    n_audio_head=2,
    n_audio_layer=1,
    n_vocab=51864,
    n_text_ctx=20,
    n_text_state=16,
    n_text_head=4,
    n_text_layer=2,
)


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    state = Whisper(DIMS).state_dict()
    return {name: torch.randn_like(tensor).half() for name, tensor in state.items()}


@pytest.fixture
def checkpoint(weights: dict[str, torch.Tensor]) -> dict[str, Any]:
    return {"dims": dict(vars(DIMS)), "model_state_dict": dict(weights)}


@pytest.fixture
def saved(checkpoint: dict[str, Any], tmp_path: Path) -> Path:
    torch.save(checkpoint, tmp_path / "good.pt")
    return tmp_path / "good.pt"


def message_of(path: Path | str) -> str:
    """The one line that both ways of opening a bad file give."""
    lines = []
    for in_memory in (False, True):
        with pytest.raises(CheckpointError) as caught:
            load_model(str(path), in_memory=in_memory)
        lines.append(str(caught.value))
    assert lines[0] == lines[1]
    assert "\n" not in lines[0]
    return lines[0]


@pytest.mark.parametrize("in_memory", [False, True])
def test_weights_equal_those_of_openai(saved: Path, in_memory: bool) -> None:
    ours = load_model(str(saved), device="cpu", in_memory=in_memory)
    theirs = whisper.load_model(str(saved), device="cpu")
    assert vars(ours.dims) == vars(theirs.dims)
    state = ours.state_dict()
    assert list(state) == list(theirs.state_dict())
    for name, tensor in theirs.state_dict().items():
        assert state[name].dtype == tensor.dtype == torch.float32
        assert torch.equal(state[name], tensor)
    assert torch.equal(ours.alignment_heads.to_dense(), theirs.alignment_heads.to_dense())
    assert not ours.training
    assert ours.metadata == {}


def test_weights_do_not_hang_on_the_file(saved: Path) -> None:
    model = load_model(str(saved), device="cpu")
    before = model.decoder.ln.weight.clone()
    with saved.open("r+b") as file:
        file.write(b"\xff" * (saved.stat().st_size))
    assert torch.equal(model.decoder.ln.weight, before)


def test_embedded_model_by_name() -> None:
    model = load_model("embedded", device="cpu")
    assert model.is_multilingual
    assert resolve("embedded").name == "embedded.pt"


def test_notes_come_along(checkpoint: dict[str, Any], tmp_path: Path) -> None:
    notes = {"name": "test", "language": "en", "version": 3, "audio_context": "auto"}
    path = tmp_path / "n.pt"
    torch.save(checkpoint | {"aii": notes}, path)
    assert load_model(str(path)).metadata == notes
    found = describe(path)
    assert found.metadata == notes
    assert found.dims == DIMS
    assert found.dtype == "float16"
    assert found.size == path.stat().st_size
    assert found.parameters == sum(t.numel() for t in checkpoint["model_state_dict"].values())


@pytest.mark.parametrize("notes", [["a"], {"a": [1]}, {1: "a"}, {"a": "x" * 5000}])
def test_strange_notes(checkpoint: dict[str, Any], tmp_path: Path, notes: Any) -> None:
    torch.save(checkpoint | {"aii": notes}, tmp_path / "n.pt")
    assert "'aii'" in message_of(tmp_path / "n.pt")


class Hostile:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch executed",)


def test_nothing_in_a_file_is_executed(
    checkpoint: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(checkpoint | {"aii": Hostile()}, tmp_path / "h.pt")
    assert "it was not executed" in message_of(tmp_path / "h.pt")
    (tmp_path / "p.pt").write_bytes(pickle.dumps(Hostile()))
    assert "is not a PyTorch checkpoint" in message_of(tmp_path / "p.pt")
    assert not (tmp_path / "executed").exists()


def _safetensors() -> bytes:
    header = json.dumps({"w": {"dtype": "F16", "shape": [0], "data_offsets": [0, 0]}}).encode()
    return struct.pack("<Q", len(header)) + header


@pytest.mark.parametrize(
    "contents, expected",
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html>Service unavailable</html>", "is a web page"),
        (b"\n <html>", "is a web page"),
        (b"lmgg" + bytes(100), "whisper.cpp"),
        (b"GGUF" + bytes(100), "whisper.cpp"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "git lfs pull"),
        (b"RIFF\x00\x00\x00\x00WAVE", "sound file"),
        (_safetensors(), "safetensors"),
        (b"hello, I am no model", "is not a PyTorch checkpoint"),
        (b"PK\x03\x04" + bytes(1000), "truncated or damaged"),
    ],
)
def test_other_kinds_of_files(tmp_path: Path, contents: bytes, expected: str) -> None:
    (tmp_path / "x.pt").write_bytes(contents)
    assert expected in message_of(tmp_path / "x.pt")


def test_format_before_torch_1_6(checkpoint: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "old.pt"
    torch.save(checkpoint, path, _use_new_zipfile_serialization=False)
    assert "save it again" in message_of(path)


def test_truncated_at_many_places(saved: Path, tmp_path: Path) -> None:
    whole = saved.read_bytes()
    for share in (0.0001, 0.01, 0.5, 0.9, 0.9999):
        (tmp_path / "t.pt").write_bytes(whole[: max(1, int(len(whole) * share))])
        assert "t.pt is " in message_of(tmp_path / "t.pt")


def test_damaged_inside(saved: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(saved) as archive:
        info = next(i for i in archive.infolist() if i.filename.endswith("data.pkl"))
    whole = bytearray(saved.read_bytes())
    begin = info.header_offset + 200
    for damage in (b"\xff" * 50, b"." * 50, bytes(50)):
        whole[begin : begin + 50] = damage
        (tmp_path / "d.pt").write_bytes(whole)
        message_of(tmp_path / "d.pt")


def _archive(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def test_archives_that_are_something_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "z.pt"
    _archive(path, {"a/data.pkl": bytes(50_000_000)}, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 100_000
    assert "compressed archive" in message_of(path)
    _archive(path, {"readme.txt": b"hello"})
    assert "without weights" in message_of(path)
    monkeypatch.setattr(checkpoints, "_MAX_PICKLE", 100)
    _archive(path, {"a/data.pkl": bytes(101)})
    assert "too large to be true" in message_of(path)


def test_archive_that_announces_more_than_it_has(tmp_path: Path) -> None:
    path = tmp_path / "z.pt"
    _archive(path, {"a/data.pkl": b"x" * 100})
    whole = path.read_bytes().replace(struct.pack("<I", 100), struct.pack("<I", 1 << 30))
    path.write_bytes(whole)
    assert "announces more data" in message_of(path)


@pytest.mark.parametrize("thing", [[1, 2], torch.zeros(3), {}, {"dims": {}}, "text"])
def test_no_checkpoint_inside(tmp_path: Path, thing: Any) -> None:
    torch.save(thing, tmp_path / "x.pt")
    assert "wanted is a .pt file in OpenAI's format" in message_of(tmp_path / "x.pt")


def test_hugging_face_layout(tmp_path: Path) -> None:
    torch.save({"model.encoder.conv1.weight": torch.zeros(3)}, tmp_path / "x.bin")
    assert "Hugging Face" in message_of(tmp_path / "x.bin")


@pytest.mark.parametrize(
    "change, expected",
    [
        ({"n_mels": 81}, "n_mels is 81"),
        ({"n_vocab": 50257}, "n_vocab is 50257"),
        ({"n_text_layer": 0}, "n_text_layer is 0"),
        ({"n_text_layer": True}, "n_text_layer is True"),
        ({"n_text_layer": 2.0}, "n_text_layer is 2.0"),
        ({"n_text_layer": "2"}, "n_text_layer is '2'"),
        ({"n_text_layer": 10**12}, "at most 128"),
        ({"n_audio_ctx": 1501}, "at most 1500"),
        ({"n_text_head": 3}, "3 text heads do not divide 16 channels"),
        ({"n_audio_head": 5}, "5 audio heads do not divide 16 channels"),
        ({"n_text_state": 32}, "must be equal"),
        ({"extra": 1}, "dims must hold exactly n_mels"),
        ({"n_audio_layer": 100}, "too small for the dimensions"),
    ],
)
def test_wrong_dimensions(
    checkpoint: dict[str, Any], tmp_path: Path, change: dict[str, Any], expected: str
) -> None:
    checkpoint["dims"].update(change)
    torch.save(checkpoint, tmp_path / "x.pt")
    assert expected in message_of(tmp_path / "x.pt")


def test_dims_of_another_kind(checkpoint: dict[str, Any], tmp_path: Path) -> None:
    checkpoint["dims"] = [1, 2]
    torch.save(checkpoint, tmp_path / "x.pt")
    assert "dims must hold exactly" in message_of(tmp_path / "x.pt")


NAME = "decoder.blocks.1.mlp.0.weight"


@pytest.mark.parametrize(
    "value, expected",
    [
        (None, f"weight {NAME} is missing"),
        (torch.zeros(16, 64).half(), f"weight {NAME} is (16, 64), wanted by dims is (64, 16)"),
        (torch.zeros(64, 16, dtype=torch.int8), f"weight {NAME} is torch.int8 on cpu"),
        (torch.zeros(64, 16).half().to_sparse(), f"weight {NAME} is no plain tensor"),
        (torch.empty(64, 16, device="meta"), f"weight {NAME} is torch.float32 on meta"),
        (3.0, f"weight {NAME} is no plain tensor"),
        (torch.full((64, 16), float("nan")), f"weight {NAME} has values that are no finite"),
        (torch.full((64, 16), float("inf")), f"weight {NAME} has values that are no finite"),
    ],
)
def test_wrong_weights(
    checkpoint: dict[str, Any], tmp_path: Path, value: Any, expected: str
) -> None:
    if value is None:
        del checkpoint["model_state_dict"][NAME]
    else:
        checkpoint["model_state_dict"][NAME] = value
    torch.save(checkpoint, tmp_path / "x.pt")
    assert expected in message_of(tmp_path / "x.pt")


def test_unknown_weights_and_no_weights(checkpoint: dict[str, Any], tmp_path: Path) -> None:
    checkpoint["model_state_dict"]["decoder.lora.a"] = torch.zeros(1)
    torch.save(checkpoint, tmp_path / "x.pt")
    assert "'decoder.lora.a' is unknown" in message_of(tmp_path / "x.pt")
    checkpoint["model_state_dict"] = [1]
    torch.save(checkpoint, tmp_path / "x.pt")
    assert "model_state_dict is a list" in message_of(tmp_path / "x.pt")


def test_folder_missing_file_and_device(saved: Path, tmp_path: Path) -> None:
    assert "is a folder" in message_of(tmp_path)
    assert "no model and no file is called medium-large; known are embedded" in message_of(
        "medium-large"
    )
    with pytest.raises(CheckpointError, match="is a folder"):
        describe(tmp_path)
    with pytest.raises(CheckpointError, match="cannot read"):
        describe(tmp_path / "nothing.pt")
    with pytest.raises(CheckpointError, match="cannot put the model on device toaster"):
        load_model(str(saved), device="toaster")


def test_published_names_are_openais() -> None:
    assert available_models() == whisper.available_models()
    for name, model in hub.MODELS.items():
        assert model.url == whisper._MODELS[name]
        assert model.alignment_heads == whisper._ALIGNMENT_HEADS[name]
        assert model.sha256 == model.url.split("/")[-2]


def test_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert hub.cache_folder() == tmp_path / "whisper"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert hub.cache_folder() == Path("/home/somebody/.cache/whisper")
    assert hub.cache_folder("~/m") == Path("/home/somebody/m")
    assert hub.local_file("turbo", "/m") == Path("/m/large-v3-turbo.pt")
    with pytest.raises(CheckpointError, match="known are"):
        hub.local_file("embedded")


@pytest.fixture
def published(saved: Path, monkeypatch: pytest.MonkeyPatch) -> hub.PublishedModel:
    """The small test model, published under the name "tiny"."""
    digest = hashlib.sha256(saved.read_bytes()).hexdigest()
    heads = b"ABzY8j^C+e0{>%RARaKHP%t(lGR*)0g!tONPyhe`"
    model = hub.PublishedModel("tiny.pt", digest, heads, 1, "http://models.invalid")
    monkeypatch.setitem(hub.MODELS, "tiny", model)
    return model


def test_published_model_from_the_cache(
    published: hub.PublishedModel, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tiny.pt").write_bytes(saved.read_bytes())
    heads = []
    monkeypatch.setattr(Whisper, "set_alignment_heads", lambda self, dump: heads.append(dump))
    model = load_model("tiny", download_root=str(tmp_path))
    assert vars(model.dims) == vars(DIMS)
    assert heads == [published.alignment_heads]


def test_published_model_that_is_wrong_in_the_cache_is_fetched_again(
    published: hub.PublishedModel, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[Fetch] = []

    def fake(fetch: Fetch, target: Path) -> Path:
        fetched.append(fetch)
        target.write_bytes(saved.read_bytes())
        return target

    monkeypatch.setattr(hub, "download", fake)
    (tmp_path / "tiny.pt").write_bytes(b"damaged")
    with pytest.warns(UserWarning, match=r"tiny\.pt has a wrong SHA-256"):
        assert resolve("tiny", tmp_path) == tmp_path / "tiny.pt"
    assert [f.url for f in fetched] == [f"http://models.invalid/{published.sha256}/tiny.pt"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        resolve("tiny", tmp_path)
    assert len(fetched) == 1


@pytest.mark.usefixtures("published")
def test_published_model_that_cannot_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fake(fetch: Fetch, target: Path) -> Path:
        raise DownloadError("the network is down")

    monkeypatch.setattr(hub, "download", fake)
    with pytest.raises(DownloadError, match=r"or copy tiny\.pt into .* yourself"):
        resolve("tiny", tmp_path)
    (tmp_path / "tiny.pt").mkdir()
    with pytest.raises(CheckpointError, match="not a regular file"):
        resolve("tiny", tmp_path)


def test_a_missing_asset_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(name: str) -> Path:
        raise FileNotFoundError(f"asset {name} is missing; reinstall aii")

    monkeypatch.setattr(hub, "asset", nowhere)
    with pytest.raises(CheckpointError, match="reinstall aii"):
        load_model("embedded")
