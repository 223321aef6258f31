"""The dashboard's modules that need no document, run by node, and held to their Python twins."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from aii.audio.resampler import resample
from aii.streaming.events import Final
from aii.types import Segment
from aii.web import FOLDER
from aii.writers import WriteSRT

HERE = Path(__file__).resolve().parent / "js"
OLDEST = 18


@pytest.fixture(scope="module")
def node() -> str:
    found = shutil.which("node")
    if found is None:
        pytest.skip("node is not installed: apt install nodejs")
    version = subprocess.run([found, "--version"], capture_output=True, text=True, check=True)
    if int(version.stdout.lstrip("v").split(".")[0]) < OLDEST:
        pytest.skip(f"node {version.stdout.strip()} is too old: {OLDEST} or later is needed")
    return found


def test_the_modules_pass_their_own_tests(node: str) -> None:
    files = sorted(str(path) for path in HERE.glob("*.test.mjs"))
    done = subprocess.run(
        [node, "--test", *files], capture_output=True, text=True, check=False, timeout=200
    )
    assert done.returncode == 0, done.stdout
    counted = re.search(r"^\S+ pass (\d+)$", done.stdout, re.MULTILINE)
    assert counted is not None, done.stdout
    assert int(counted[1]) >= 40


def test_twins(node: str) -> None:
    """The resampler gives aii.audio.resampler's samples, SubRip is aii.writers' to the byte."""
    random = np.random.default_rng(3)
    sounds = {
        rate: random.uniform(-1, 1, rate // 20 + 13).astype(np.float32)
        for rate in (8000, 16000, 44100, 48000, 96000)
    }
    calls = [_finals(random, count) for count in (1, 7)]
    asked = {
        "resample": [{"rate": r, "samples": s.tolist()} for r, s in sounds.items()],
        "srt": [[final.to_dict() for final in call] for call in calls],
    }
    done = subprocess.run(
        [node, str(HERE / "twin.mjs")],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=True,
        timeout=200,
    )
    answer = json.loads(done.stdout)
    for (rate, samples), ours in zip(sounds.items(), answer["resample"], strict=True):
        np.testing.assert_array_equal(np.float32(ours), resample(samples, rate), str(rate))
    for call, ours in zip(calls, answer["srt"], strict=True):
        segments = [segment for final in call for segment in final.to_dict()["segments"]]
        file = io.StringIO()
        WriteSRT(".").write_result({"segments": segments}, file)
        assert ours == file.getvalue()


def _finals(random: np.random.Generator, count: int) -> list[Final]:
    """Finals of two segments each, one behind the other, some past the first hour."""
    finals = []
    for number in range(count):
        start = 900.0 * number + random.uniform(0, 10)
        times = np.round(start + np.cumsum(random.uniform(0.1, 9, 4)), 3)
        segments = (
            Segment(times[0], times[1], f" number {number} --> ok"),
            Segment(times[2], times[3], " Grüße, 你好"),
        )
        finals.append(
            Final(
                call_id="c", seq=number + 1, start=start, end=times[3], segments=segments,
                reason="reset",
            )
        )  # fmt: skip
    return finals


def test_the_page_loads_nothing_from_elsewhere() -> None:
    """No address in any file that a browser would fetch, and every file that is named is there."""
    allowed = {"http://www.w3.org/2000/svg", "http://localhost."}
    for path in FOLDER.rglob("*"):
        if path.suffix not in (".html", ".css", ".js", ".svg"):
            continue
        text = path.read_text("utf-8")
        assert len(text.splitlines()) < 400, path
        found = set(re.findall(r"(?:https?:)?//[\w.-]+\.[\w./-]*|https?://[\w.]+[\w./-]*", text))
        assert {address for address in found if address.startswith("http")} <= allowed, path
        named = re.findall(r'(?:src|href)="(web/[^"#]+)"', text)
        named += [
            str((path.parent / name).relative_to(FOLDER.parent))
            for name in re.findall(r'from "\./([^"]+)"', text)
        ]
        missing = [name for name in named if not (FOLDER.parent / name).is_file()]
        assert missing == [], path


def test_nothing_needs_more_than_the_content_policy_allows() -> None:
    """No scripts, handlers or styles inside the page; no HTML made out of strings."""
    page = (FOLDER / "index.html").read_text("utf-8")
    assert re.findall(r"<script(?![^>]*\bsrc=)|\son\w+=|\sstyle=|<style", page) == []
    for path in (FOLDER / "js").glob("*.js"):
        text = path.read_text("utf-8")
        assert (
            re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|\beval\(|new Function", text) == []
        )


def test_every_icon_and_element_that_is_named_is_in_the_page() -> None:
    page = (FOLDER / "index.html").read_text("utf-8")
    there = set(re.findall(r'\bid="([\w-]+)"', page))
    modules = "".join(path.read_text("utf-8") for path in (FOLDER / "js").glob("*.js"))
    named = set(re.findall(r'byId\("([\w-]+)"\)', modules))
    named |= {f"icon-{name}" for name in re.findall(r'icon\("([\w-]+)"\)', modules)}
    named |= set(re.findall(r'(?:href="#|aria-controls="|aria-labelledby=")([\w-]+)"', page))
    assert named - there - {"calls", "detail-title"} == set()
    assert len(named) > 30


def colours(start: str) -> dict[str, str]:
    """The colours by name in a rule of base.css."""
    css = (FOLDER / "base.css").read_text("utf-8")
    rule = css[css.index(start) :].partition("}")[0]
    return dict(re.findall(r"--([\w-]+):\s*(#[0-9a-f]{6})", rule))


def contrast(one: str, other: str) -> float:
    """As WCAG 2.2 defines it, of two colours as #rrggbb."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        red, green, blue = (
            part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
        )
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


TEXTS = {
    "ink": "surface ground sunken raised mark accent-soft",
    "ink-2": "surface ground sunken raised",
    "ink-3": "surface ground sunken raised accent-soft bad-soft",
    "accent": "surface ground accent-soft sunken",
    "accent-ink": "accent",
    "standard": "surface",
    "optimized": "surface",
    "leg-0": "surface",
    "leg-1": "surface",
    "live": "surface",
    "bad": "surface bad-soft",
    "warn": "surface",
    "surface": "bad",
    "ground": "ink",
}
"""Colours of text, and those that they stand on."""

SHAPES = {"line-strong": "surface ground", "accent": "ground sunken", "live": "sunken surface"}
"""The same of borders of controls and signs."""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_colours_have_contrast_enough(theme: str) -> None:
    """WCAG 2.2 AA: 4.5 for text, 3 for what else must be seen."""
    assert contrast("#000000", "#ffffff") == pytest.approx(21.0)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)
    known = colours(":root {")
    if theme == "dark":
        known |= colours(':root[data-theme="dark"]')
        assert known == colours(":root {") | colours(':root:not([data-theme="light"])')
    for wanted, pairs in ((4.5, TEXTS), (3.0, SHAPES)):
        for name, grounds in pairs.items():
            for ground in grounds.split():
                found = contrast(known[name], known[ground])
                assert found >= wanted, f"{name} on {ground}: {found:.2f}"
