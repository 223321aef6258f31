"""``aii models``: list, download, verify."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from aii import hub
from aii.cli import main

HEADS = hub.MODELS["tiny"].alignment_heads


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder that holds a file which is published as "tiny"."""
    digest = hashlib.sha256(b"weights").hexdigest()
    monkeypatch.setitem(hub.MODELS, "tiny", hub.PublishedModel("tiny.pt", digest, HEADS, 39))
    (tmp_path / "tiny.pt").write_bytes(b"weights")
    return tmp_path


def test_list_tells_what_is_here(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--model_dir", str(folder)]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()[1:]}
    assert list(lines) == ["embedded", *hub.MODELS]
    assert lines["tiny"].endswith(str(folder / "tiny.pt"))
    assert lines["embedded"].endswith("embedded.pt")
    assert "1550 M" in lines["large"]
    assert lines["large"].split()[-1] == "no"


def test_download_prints_where_it_is(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--model-dir", str(folder), "download", "tiny"]) == 0
    assert capsys.readouterr().out == f"tiny: {folder / 'tiny.pt'}\n"


def test_download_of_an_unknown_name(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "download", "tiny", "teeny"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("aii: error: teeny is not a published model; choose from tiny")


def test_verify_by_checksum(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["models", "--model_dir", str(folder), "verify", "tiny"]
    assert main(arguments) == 0
    assert capsys.readouterr().out.startswith("tiny: sound, SHA-256 ")
    (folder / "tiny.pt").write_bytes(b"weightz")
    assert main(arguments) == 2
    assert "has a wrong SHA-256; run: aii models download tiny" in capsys.readouterr().err
    (folder / "tiny.pt").unlink()
    assert main(arguments) == 2
    assert f"tiny is not in {folder}" in capsys.readouterr().err


def test_verify_by_content(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "verify", "embedded"]) == 0
    assert "embedded: sound, " in capsys.readouterr().out
    (tmp_path / "page.pt").write_bytes(b"<html>")
    assert main(["models", "verify", str(tmp_path / "page.pt")]) == 2
    assert "is a web page" in capsys.readouterr().err


def test_verify_goes_on_behind_a_bad_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "page.pt").write_text("<html>")
    assert main(["models", "verify", str(tmp_path / "page.pt"), "embedded"]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("aii: error: ")
    assert said.err.count("\n") == 1
    assert said.out.startswith("embedded: sound")


@pytest.mark.parametrize("name", ["", "~nobody-of-this-name/x.pt"])
def test_impossible_names_are_one_line(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "verify", name]) == 2
    assert capsys.readouterr().err.count("\n") == 1
