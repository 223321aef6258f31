"""The metadata in setup.cfg fits the code, and what is installed is complete."""

from __future__ import annotations

import ast
import configparser
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def config() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def _lines(text: str) -> list[str]:
    return [line for line in text.split("\n") if line.strip() and not line.startswith("#")]


def _name(requirement: str) -> str:
    match = re.match(r"[\w.-]+", requirement)
    assert match is not None
    return match[0].lower()


def test_every_package_is_listed(config: configparser.ConfigParser) -> None:
    found = {".".join(p.parent.relative_to(ROOT).parts) for p in ROOT.glob("aii/**/__init__.py")}
    assert set(_lines(config["options"]["packages"])) == found | {"aii.assets"}


def test_every_folder_with_code_is_a_package() -> None:
    folders = {path.parent for path in ROOT.glob("aii/**/*.py")}
    assert [str(f) for f in folders if not (f / "__init__.py").is_file()] == []


def test_core_needs_what_is_promised_and_nothing_else(config: configparser.ConfigParser) -> None:
    required = {_name(line) for line in _lines(config["options"]["install_requires"])}
    assert required == {"numpy", "tiktoken", "torch"}


def test_nothing_else_is_imported(config: configparser.ConfigParser) -> None:
    declared = _lines(config["options"]["install_requires"])
    for name, extra in config["options.extras_require"].items():
        if name not in ("test", "dev"):
            declared += _lines(extra)
    allowed = {"aii"} | {_name(line).replace("-", "_") for line in declared}
    allowed |= sys.stdlib_module_names
    # tiktoken, fastapi, uvicorn and numba are built on them.
    allowed |= {"regex", "starlette", "h11", "llvmlite"}
    for path in ROOT.glob("aii/**/*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names.append(node.module)
            foreign = {name.split(".")[0] for name in names} - allowed
            assert not foreign, f"{path} imports {foreign}"


def test_everything_required_is_pinned(config: configparser.ConfigParser) -> None:
    pins = {_name(line) for line in _lines((ROOT / "constraints.txt").read_text("utf-8"))}
    wanted = _lines(config["options"]["install_requires"])
    for extra in config["options.extras_require"].values():
        wanted += _lines(extra)
    assert [line for line in wanted if "==" not in line and _name(line) not in pins] == []


def test_what_pytorch_for_cuda_pins_by_itself_is_left_to_it() -> None:
    """It asks for one release of triton and of NVIDIA's libraries. The build for the processor, by
    which the versions were written down, asks for none: pip would find a contradiction."""
    pins = {_name(line) for line in _lines((ROOT / "constraints.txt").read_text("utf-8"))}
    assert "torch" in pins
    assert [name for name in pins if name.startswith(("triton", "nvidia", "cuda"))] == []


def test_the_wheel_holds_code_and_assets(tmp_path: Path) -> None:
    """Build a wheel without isolation or network and look into it."""
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index"]
    build += ["--no-build-isolation", "--wheel-dir", str(tmp_path), str(tmp_path / "source")]
    source = tmp_path / "source"
    source.mkdir()
    for name in ("aii", "assets", "setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        (source / name).symlink_to(ROOT / name)
    subprocess.run(build, check=True, timeout=240, capture_output=True)
    (wheel,) = tmp_path.glob("aii-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    for asset in (ROOT / "assets").iterdir():
        if asset.is_file():
            assert f"aii/assets/{asset.name}" in names
    for path in ROOT.glob("aii/**/*"):
        if path.suffix in (".py", ".typed"):
            assert str(path.relative_to(ROOT)) in names
    assert not any(name.startswith(("tests/", "scripts/", "training/")) for name in names)
    assert any(name.endswith("dist-info/entry_points.txt") for name in names)
