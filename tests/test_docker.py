"""The container files, as far as they can be checked where no container engine runs.

What is left to an engine: that the base image has what we think it has, and the two ``docker
build`` themselves. The installation steps of the Dockerfile are run here, in an empty folder that
holds what .dockerignore lets through and nothing else.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from aii.config import ServerConfig
from aii.hub import cache_folder

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions, lines joined, comments left out."""
    text = (ROOT / "Dockerfile").read_text("utf-8")
    text = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE)
    lines = re.sub(r"\s*\\\n\s*", " ", text).splitlines()
    return [(*line.split(None, 1),) for line in lines if line.strip()]  # type: ignore[misc]


def test_the_linter_finds_nothing() -> None:
    command = [str(BIN / "hadolint"), "--failure-threshold", "info", "Dockerfile"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_linter_would_find_something(tmp_path: Path) -> None:
    bad = tmp_path / "Dockerfile"
    bad.write_text("FROM debian:latest\nRUN cd /tmp && apt-get install ffmpeg\n")
    command = [str(BIN / "hadolint"), str(bad)]
    assert subprocess.run(command, capture_output=True, check=False).returncode != 0


@pytest.mark.parametrize("change, code", [("", 0), ("    surprise: 1\n", 1)])
def test_the_compose_file_keeps_to_the_schema(change: str, code: int, tmp_path: Path) -> None:
    text = (ROOT / "docker-compose.yml").read_text("utf-8")
    path = tmp_path / "docker-compose.yml"
    path.write_text(text.replace("\nservices:\n  aii:\n", f"\nservices:\n  aii:\n{change}"))
    check = [str(BIN / "check-jsonschema"), "--builtin-schema", "vendor.compose-spec", str(path)]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout


def test_the_server_does_not_run_as_root(instructions: list[tuple[str, str]]) -> None:
    users = [value for name, value in instructions if name == "USER"]
    assert users == ["10001:10001"]
    names = [name for name, _ in instructions]
    assert names.index("USER") < names.index("ENTRYPOINT")


def test_what_the_files_set_are_options_of_ours(instructions: list[tuple[str, str]]) -> None:
    """Each AII_ variable is known, the ports agree, and models land on the volume."""
    values = " ".join(value for name, value in instructions if name == "ENV")
    settings = dict(re.findall(r"(\w+)=(\S+)", values))
    ours = {name: value for name, value in settings.items() if name.startswith("AII_")}
    config = ServerConfig.load({}, ours)  # raises on a variable that is unknown
    assert config.host == "0.0.0.0"
    (exposed,) = [value for name, value in instructions if name == "EXPOSE"]
    assert exposed.split() == [ours["AII_PORT"], ours["AII_WEB_PORT"]]
    (volume,) = [value for name, value in instructions if name == "VOLUME"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", settings["XDG_CACHE_HOME"])
        assert Path(volume) in cache_folder().parents
    compose = (ROOT / "docker-compose.yml").read_text("utf-8")
    named = dict(re.findall(r"^ +(AII_\w+): (?:\$\{AII_\w+:-)?([\w-]+)\}?$", compose, re.M))
    assert set(named) == {"AII_MODEL", "AII_LANGUAGE", "AII_TOKEN", "AII_DEVICE"}
    ServerConfig.load({}, named)
    assert re.findall(r'"127\.0\.0\.1:\$\{\w+:-(\d+)\}:(\d+)"', compose) == [
        ("8300", "8300"),
        ("8000", "8000"),
    ]
    assert compose.count(f"- models:{volume}") == 1


def test_the_gpu_is_reserved_for_the_cuda_service_alone() -> None:
    from ruamel.yaml import YAML

    compose = YAML(typ="safe").load((ROOT / "docker-compose.yml").read_text("utf-8"))
    services = compose["services"]
    assert set(services) == {"aii", "aii-cuda"}
    assert "deploy" not in services["aii"]
    assert services["aii"]["build"]["args"]["VARIANT"] == "cpu"
    cuda = services["aii-cuda"]
    (device,) = cuda["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
    assert cuda["environment"]["AII_DEVICE"] == "cuda"
    assert cuda["environment"]["AII_MODEL"] == services["aii"]["environment"]["AII_MODEL"]
    assert cuda["build"]["args"]["VARIANT"] == "cuda"
    assert cuda["profiles"] == ["cuda"]  # `docker compose up` alone does not want a GPU


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `docker build .` would send: all that .dockerignore does not keep back."""
    folder = tmp_path_factory.mktemp("context")
    lines = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    for rule in rules:
        if rule.startswith("!"):
            source = ROOT / rule[1:]
            if source.is_dir():
                ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
                shutil.copytree(source, folder / source.name, ignore=ignored)
            else:
                shutil.copy(source, folder / source.name)
    return folder


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty virtual environment that finds every package of this one, but not aii."""
    folder = tmp_path_factory.mktemp("installed")
    packages = folder / "packages"
    packages.mkdir()
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if not re.match(r"(__editable__)?[._]*aii\b|aii[-.]", path.name) and path.suffix != ".pth":
            (packages / path.name).symlink_to(path)
    venv = folder / "venv"
    # pip and setuptools come with the others.
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    (site,) = (venv / "lib").glob("python*/site-packages")
    (site / "packages.pth").write_text(f"{packages}\n")
    pip = venv / "bin" / "pip"
    pip.write_text(f'#!/bin/sh\nexec {venv}/bin/python -m pip "$@"\n')
    pip.chmod(0o755)
    return venv


def _install_steps(instructions: list[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """COPY and pip of the build stage, in order."""
    stage = 0
    for name, value in instructions:
        stage += name == "FROM"
        if stage == 1 and (name == "COPY" or (name == "RUN" and "pip install" in value)):
            yield name, value


def test_the_install_steps_in_an_empty_folder(
    instructions: list[tuple[str, str]], context: Path, environment: Path, tmp_path: Path
) -> None:
    """Run the build stage's COPY and pip lines; what is installed starts, with all its files.

    The cheap form: nothing is fetched. pip must find every requirement fulfilled by what is
    installed here, at the versions of constraints.txt, or fail.
    """
    ours = ("AII_", "PYTHON")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    clean |= {
        "PATH": f"{environment}/bin:{os.environ['PATH']}", "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "VARIANT": "cpu", "HOME": str(tmp_path), "PIP_CONFIG_FILE": os.devnull,
    }  # fmt: skip
    source = tmp_path / "source"
    source.mkdir()
    ran = []
    for name, value in _install_steps(instructions):
        if name == "COPY":
            *names, target = value.split()
            for item in names:
                if (context / item).is_dir():
                    shutil.copytree(context / item, source / target)
                else:
                    shutil.copy(context / item, source / target)
            continue
        offline = value.replace("pip install", "pip install --no-index --no-build-isolation -q")
        done = subprocess.run(
            ["bash", "-c", offline], cwd=source, env=clean, capture_output=True, text=True,
            check=False, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        ran.append(offline)
    assert len(ran) == 2
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    probe = (
        "import json, aii, aii.web; from aii.resources import asset; "
        "print(json.dumps([aii.__file__, sorted(p.name for p in aii.web.FOLDER.iterdir()), "
        "asset('embedded.pt').stat().st_size]))"
    )
    done = subprocess.run(
        [str(environment / "bin" / "python"), "-c", probe],
        cwd=elsewhere, env=clean, capture_output=True, text=True, check=True,
    )  # fmt: skip
    place, files, size = json.loads(done.stdout)
    assert Path(place).is_relative_to(environment)
    assert {"index.html", "base.css", "views.css", "icon.svg", "js"} <= set(files)
    assert size == (ROOT / "assets" / "embedded.pt").stat().st_size
    for name in ("ENTRYPOINT", "HEALTHCHECK"):
        (words,) = [json.loads(v[v.index("[") :]) for n, v in instructions if n == name]
        done = subprocess.run(
            [*words, "--help"], cwd=elsewhere, env=clean, capture_output=True, text=True, check=True
        )
        assert done.stdout.startswith("usage: aii")
