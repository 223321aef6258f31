"""benchmarks.rivals: the same weights in every format, and the server that everybody writes."""

from __future__ import annotations

import json
import socket
import threading

import numpy as np
import pytest
import torch

from aii.checkpoints import load_model
from benchmarks.calls_per_machine import servers
from benchmarks.rivals.convert import to_ctranslate2, to_ggml, to_hf
from benchmarks.rivals.engines import ENGINES, noise
from benchmarks.rivals.locked_server import RESET, WINDOW, Server
from benchmarks.rivals.weights import random_checkpoint
from benchmarks.rivals.worker import Worker

TOKENS = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Random weights of one layer, in OpenAI's format and Hugging Face's."""
    folder = tmp_path_factory.mktemp("weights")
    random_checkpoint("micro", folder / "openai.pt")
    to_hf(load_model(str(folder / "openai.pt"), device="cpu"), folder / "hf")
    return folder


@pytest.fixture(scope="module")
def ours(folder):
    return ENGINES["aii"](folder, 1).window(noise(30), TOKENS)


def test_there_and_back(folder):
    before = load_model(str(folder / "openai.pt"), device="cpu")
    after = load_model(str(folder / "hf"), device="cpu")
    assert vars(before.dims) == vars(after.dims)
    for name, tensor in before.state_dict().items():
        assert torch.equal(after.state_dict()[name], tensor)
    heads = before.alignment_heads.to_dense()
    assert torch.equal(after.alignment_heads.to_dense(), heads)


@pytest.mark.parametrize("engine", ["openai-whisper", "transformers"])
def test_engines_give_the_same_tokens(engine, folder, ours):
    found = ENGINES[engine](folder, 1).window(noise(30), TOKENS)
    assert len(ours) == TOKENS
    assert found == ours


def test_faster_whisper_gives_the_same_tokens(folder, ours):
    pytest.importorskip("faster_whisper", reason="needs benchmarks/requirements.txt")
    to_ctranslate2(folder / "hf", folder / "ctranslate2")
    assert ENGINES["faster-whisper"](folder, 1).window(noise(30), TOKENS) == ours
    quantized = ENGINES["faster-whisper"](folder, 1, "int8").window(noise(30), TOKENS)
    assert len(quantized) == TOKENS


def test_whisper_cpp_gives_the_same_tokens(folder, ours):
    """In a process of its own: a file that it does not like makes it abort."""
    pytest.importorskip("pywhispercpp", reason="needs benchmarks/requirements.txt")
    to_ggml(load_model(str(folder / "openai.pt"), device="cpu"), folder / "ggml-f16.bin")
    worker = Worker("whisper.cpp", folder, 1, (), tokens=TOKENS)
    try:
        answer = worker.window(30.0)
    finally:
        worker.close()
    assert answer["tokens"] == ours
    assert answer["seconds"] > 0


def test_the_tokenizer_comes_along(folder):
    transformers = pytest.importorskip("transformers")
    from aii.tokenizer import get_tokenizer

    theirs = transformers.AutoTokenizer.from_pretrained(folder / "hf")
    ours = get_tokenizer(True, num_languages=99)
    for text in (" hello world", "four seven one nine", " Größe: 1,50 m – ça va? 你好"):
        assert theirs.encode(text, add_special_tokens=False) == ours.encode(text)
        assert theirs.decode(ours.encode(text)) == text
    specials = ["<|endoftext|>", "<|startoftranscript|>", "<|de|>", "<|notimestamps|>"]
    wanted = [ours.eot, ours.sot, ours.to_language_token("de"), ours.no_timestamps]
    assert theirs.convert_tokens_to_ids(specials) == wanted


def test_an_engine_that_cannot_start_says_why(tmp_path):
    with pytest.raises(RuntimeError, match=r"openai\.pt"):
        Worker("aii", tmp_path / "openai.pt", 1, (), tokens=1)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU: the benchmarks may use it")
@pytest.mark.parametrize("engine", ["aii", "openai-whisper", "transformers"])
def test_engines_are_put_on_the_device_that_is_asked_for(engine, folder):
    with pytest.raises(RuntimeError, match=r"(?i)cuda|nvidia"):
        Worker(engine, folder, 1, (), tokens=1, device="cuda")


def test_servers_are_put_on_the_device_that_is_asked_for(folder):
    for server in servers(1, device="cuda"):
        arguments = server.arguments(folder, folder / "times")
        assert arguments[arguments.index("--device") + 1] == "cuda"


def test_the_locked_server_transcribes_at_its_marks():
    seen = []
    inside = threading.Semaphore(1)

    def transcribe(samples: np.ndarray) -> str:
        assert inside.acquire(blocking=False), "two at once"
        seen.append(len(samples))
        inside.release()
        return f"{samples[0]:.2f}"

    server = Server(transcribe)
    threading.Thread(target=server.serve, daemon=True).start()
    with socket.create_connection(server.address, timeout=100) as client:
        client.sendall(b"call-1\r\n")
        answers = client.makefile("rb")
        got = []
        for number in range(7):
            client.sendall(np.full(WINDOW // 2, number * 1638, "<i2").tobytes())
            got.append(json.loads(answers.readline()))
    assert [line["end"] for line in got] == [5, 10, 15, 20, 25, 30, 35]
    assert [line["type"] for line in got] == ["partial"] * 5 + ["final", "partial"]
    assert got[-1]["text"] == "0.30"
    assert seen == [80_000 * n for n in (1, 2, 3, 4, 5, 6, 1)]
    assert RESET == 6 * WINDOW
