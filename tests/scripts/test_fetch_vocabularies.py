"""scripts/fetch_vocabularies.py: from a folder, a wheel, a source archive; damage is refused."""

from __future__ import annotations

import runpy
import tarfile
import zipfile
from pathlib import Path

import pytest

from aii.resources import asset

ROOT = Path(__file__).resolve().parent.parent.parent
SCRIPT = runpy.run_path(str(ROOT / "scripts" / "fetch_vocabularies.py"))
main, TABLES = SCRIPT["main"], SCRIPT["TABLES"]


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A folder laid out as the package is, with the right tables."""
    for name, (member, _) in TABLES.items():
        path = tmp_path / "package" / member
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(asset(name).read_bytes())
    return tmp_path / "package"


def sources(package: Path) -> list[Path]:
    """The folder, and archives of it."""
    wheel, archive = package.with_suffix(".whl"), package.with_suffix(".tar.gz")
    with zipfile.ZipFile(wheel, "w") as packed, tarfile.open(archive, "w:gz") as tar:
        for path in package.rglob("*.*"):
            packed.write(path, path.relative_to(package))
            tar.add(path, Path("openai_whisper-1") / path.relative_to(package))
    return [package, wheel, archive]


def test_shipped_tables_are_right(capsys):
    assert main(["--check"]) == 0
    assert capsys.readouterr().out.count("right") == 3


def test_every_kind_of_source(package, tmp_path, capsys):
    for number, source in enumerate(sources(package)):
        output = tmp_path / f"out{number}"
        assert main(["--from", str(source), "--output", str(output)]) == 0
        for name in TABLES:
            assert (output / name).read_bytes() == asset(name).read_bytes()
    assert "error" not in capsys.readouterr().err


def test_installed_package_is_used(tmp_path):
    assert main(["--output", str(tmp_path)]) == 0
    assert main(["--output", str(tmp_path), "--check"]) == 0


def test_damage_is_refused_and_nothing_written(package, tmp_path, capsys):
    path = package / TABLES["gpt2.tiktoken"][0]
    path.write_bytes(path.read_bytes() + b"\n")
    output = tmp_path / "out"
    assert main(["--from", str(package), "--output", str(output)]) == 1
    assert "gpt2.tiktoken has SHA-256" in capsys.readouterr().err
    assert not output.exists()


def test_missing_table(package, capsys):
    (package / TABLES["gpt2.tiktoken"][0]).unlink()
    for source in sources(package):
        assert main(["--from", str(source), "--output", str(package.parent)]) == 1
        assert "gpt2.tiktoken" in capsys.readouterr().err


def test_origin_and_licence_are_named():
    notice = asset("NOTICE").read_text(encoding="utf-8")
    assert "MIT License" in notice
    assert all(name in notice for name in TABLES)
