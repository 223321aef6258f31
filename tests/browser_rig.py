"""Chromium with a microphone that plays a file, and a server of our own for it to look at."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "assets" / "sample_call.wav"
WAIT = 120.0
"""Seconds after which a test gives up waiting; a loaded machine is slow."""

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",
    "--lang=en",
)


class LiveServer:
    """``aii serve`` in a process of its own, with its two ports."""

    def __init__(self, *options: str, port: int = 0) -> None:
        command = [sys.executable, "-m", "aii", "serve", "--port", "0", "--language", "en"]
        command += ["--web-port", str(port), *options]
        clean = {name: value for name, value in os.environ.items() if not name.startswith("AII_")}
        self._process = subprocess.Popen(
            command, cwd=ROOT, env={**clean, "OMP_NUM_THREADS": "1"}, text=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, errors="replace",
        )  # fmt: skip
        assert self._process.stderr is not None
        self.log: list[str] = []
        self.tcp = self.web = 0
        for line in self._process.stderr:
            self.log.append(line.rstrip())
            if found := re.search(r"web on https?://\S*:(\d+)/", line):
                self.web = int(found[1])
            if found := re.search(r"listening on \S*:(\d+)$", line):
                self.tcp = int(found[1])
            if self.tcp and self.web:
                break
        assert self.tcp, self.log
        assert self.web, self.log
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stderr is not None
        self.log.extend(line.rstrip() for line in self._process.stderr)

    @property
    def page(self) -> str:
        """The dashboard; by this name browsers hold the page to be secure."""
        return f"http://localhost:{self.web}/"

    def stop(self) -> None:
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(100)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(60)
        assert self._process.stderr is not None
        self._process.stderr.close()


@contextlib.contextmanager
def live_server(*options: str, port: int = 0) -> Iterator[LiveServer]:
    server = LiveServer(*options, port=port)
    try:
        yield server
    finally:
        server.stop()


class Browser:
    """A page in Chromium, and what tests ask of it."""

    def __init__(self, driver: Any, downloads: Path) -> None:
        self.driver = driver
        self.downloads = downloads

    def open(self, address: str) -> None:
        self.driver.get("about:blank")  # a change behind # alone would not load it again
        self.driver.get(address)

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def all(self, selector: str) -> list[Any]:
        return self.driver.find_elements("css selector", selector)

    def one(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def text(self, selector: str) -> str:
        """What is shown there, white space joined; "" where there is nothing."""
        return " ".join(" ".join(self.texts(selector)).split())

    def texts(self, selector: str) -> list[str]:
        """What each of them shows, all read at one moment: the page may draw them anew at any."""
        script = "return [...document.querySelectorAll(arguments[0])].map(e => e.innerText)"
        return self.run(script, selector)

    def click(self, selector: str) -> None:
        def clicked() -> bool:
            self.one(selector).click()
            return True

        self.wait(clicked, f"a click on {selector}")

    def hover(self, selector: str, index: int = 0) -> None:
        """Put the mouse on one of the elements there."""
        from selenium.webdriver.common.action_chains import ActionChains

        def hovered() -> bool:
            ActionChains(self.driver).move_to_element(self.all(selector)[index]).perform()
            return True

        self.wait(hovered, f"the mouse on {selector}")

    def keys(self, *keys: str) -> None:
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def wait(self, condition: Callable[[], Any], what: str = "", seconds: float = WAIT) -> Any:
        """What ``condition`` gives, once it is true."""
        from selenium.common.exceptions import StaleElementReferenceException

        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with contextlib.suppress(StaleElementReferenceException):
                if found := condition():
                    return found
            time.sleep(0.05)
        pytest.fail(f"waited {seconds:g} s for {what or condition}; the page: {self.text('body')}")

    def look(self, *, width: int, height: int, theme: str = "light", still: bool = True) -> None:
        """Set the size of the page and what the system prefers."""
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600},
        )
        preferences = {"prefers-color-scheme": theme}
        preferences["prefers-reduced-motion"] = "reduce" if still else "no-preference"
        features = [{"name": name, "value": value} for name, value in preferences.items()]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def allow_microphone(self, setting: str) -> None:
        """ "granted" or "denied"."""
        self.driver.execute_cdp_cmd(
            "Browser.setPermission",
            {"permission": {"name": "microphone"}, "setting": setting},
        )

    def screenshot(self, name: str) -> Path:
        """The page as PNG: in the folder TEST_SCREENSHOTS, or with the downloads."""
        folder = Path(os.environ.get("TEST_SCREENSHOTS", self.downloads))
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name}.png"
        assert self.driver.save_screenshot(str(path))
        return path

    def errors(self) -> list[str]:
        """What went wrong in the page since this was last asked."""
        found = self.driver.get_log("browser")
        return [entry["message"] for entry in found if entry["level"] == "SEVERE"]


def missing() -> str:
    """Why there can be no browser here, or ""."""
    for program, package in (("chromium", "chromium"), ("chromedriver", "chromium-driver")):
        if shutil.which(program) is None:
            return f"{program} is not installed: apt install {package}"
    return ""


@contextlib.contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """A new Chromium; its profile and its downloads lie in ``folder``."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for flag in FLAGS:
        options.add_argument(flag)
    options.add_argument(f"--use-file-for-fake-audio-capture={SAMPLE}")
    options.add_argument(f"--user-data-dir={folder / 'profile'}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    downloads = folder / "downloads"
    downloads.mkdir()
    preferences = {"download.default_directory": str(downloads)}
    options.add_experimental_option("prefs", preferences)
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        driver.set_page_load_timeout(2 * WAIT)
        driver.set_script_timeout(WAIT)
        yield Browser(driver, downloads)
    finally:
        driver.quit()
