"""The dashboard when things are many, long, small or wrong; with an engine that needs no model."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from browser_rig import Browser, browser, missing
from fake_engine import slin, speech
from server_rig import WAIT
from web_rig import WebRig

pytestmark = pytest.mark.skipif(missing() != "", reason=missing() or "-")

WIDE = {"width": 1360, "height": 860}
PHONE = {"width": 390, "height": 844}
SMALL = {"width": 320, "height": 640}
LIVE_REGIONS = """
window.heard = {};
for (const node of document.querySelectorAll('[aria-live], [role=status], [role=alert], output')) {
  const name = node.id || node.className;
  heard[name] = 0;
  const count = () => { if (node.getAttribute('aria-live') !== 'off') heard[name] += 1; };
  new MutationObserver(count).observe(node, {childList: true, characterData: true, subtree: true});
}"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


@pytest.fixture
def rig() -> Iterator[WebRig]:
    with WebRig(port=0, settings={"words": "all", "window": 1.0}) as running:
        yield running


@pytest.fixture
def dashboard(page: Browser, rig: WebRig) -> Iterator[Browser]:
    page.look(**WIDE)
    opened(page, rig)
    yield page
    page.errors()  # of a server that went away, where it did


def opened(page: Browser, rig: WebRig, place: str = "") -> None:
    page.open(f"http://localhost:{rig.address[1]}/{place}")
    page.wait(lambda: page.text("#link") == "Live", "a connection")


class Calls:
    """Calls by TCP that go on until the block ends."""

    def __init__(self, rig: WebRig) -> None:
        self.address = rig.listeners._tcp[0][1].address
        self.open: dict[str, socket.socket] = {}

    def __enter__(self) -> Calls:
        return self

    def __exit__(self, *error: object) -> None:
        for sock in self.open.values():
            sock.close()

    def say(self, name: str, seconds: float, seed: int = 1) -> None:
        if name not in self.open:
            self.open[name] = socket.create_connection(self.address, timeout=WAIT)
            self.open[name].sendall(name.encode() + b"\r")
        self.open[name].sendall(slin(speech(seconds, seed=seed, longest=0.5)))


def fits(page: Browser, width: int) -> bool:
    return page.run("return document.documentElement.scrollWidth") <= width


def test_of_many_calls_only_what_changes_is_drawn(dashboard: Browser, rig: WebRig) -> None:
    """All items anew and a layout of the whole page for each event once kept a core busy."""
    page = dashboard
    with Calls(rig) as calls:
        for number in range(60):
            calls.say(f"call-{number:03}", 1.2, seed=number)
        spoken = "#list .words:not(.none)"
        page.wait(lambda: len(page.all(spoken)) == 60, "all calls with words")
        page.run("location.hash = 'call=call-007'")
        page.wait(lambda: page.text("#detail-title") == "call-007", "another call")
        page.run("for (const words of document.querySelectorAll('#list .words')) words.id = 'old'")
        calls.say("call-030", 3.0)
        fresh = "return [...document.querySelectorAll('#list .words:not([id])')].map(" \
                "e => e.parentNode.dataset.name)"  # fmt: skip
        page.wait(lambda: page.run(fresh) == ["call-030"], "new words of that call alone")
        for size in (WIDE, PHONE, SMALL):
            page.look(**size)
            assert fits(page, size["width"])
        page.screenshot("many")


def test_a_long_name_leaves_room_for_the_rest(dashboard: Browser, rig: WebRig) -> None:
    page, name = dashboard, "x" * 128
    with Calls(rig) as calls:
        calls.say(name, 2.0)
        page.wait(lambda: page.text("#detail .state") == "Live", "the call")
        for size in (WIDE, PHONE, SMALL):
            page.look(**size)
            page.run(f"location.hash = 'call={name}'")
            page.wait(lambda: page.one("#detail .state").is_displayed(), "the call's head")
            assert fits(page, size["width"]), size
            cut = "const e = document.querySelector('#detail .state');" \
                  "return e.scrollWidth > e.clientWidth"  # fmt: skip
            assert not page.run(cut), size
            page.screenshot(f"long-name-{size['width']}")


@pytest.mark.parametrize("size", [WIDE, PHONE])
def test_the_last_words_stay_in_sight(size: dict, dashboard: Browser, rig: WebRig) -> None:
    page = dashboard
    page.look(**size)
    with Calls(rig) as calls:
        calls.say("long", 2.0)
        page.run("location.hash = 'call=long'")
        page.wait(lambda: page.all(".row.partial"), "words")
        calls.say("long", 25.0, seed=3)
        below = (
            "const rows = document.querySelectorAll('.row');"
            "return rows.length > 30 && rows[rows.length - 1].getBoundingClientRect().bottom"
        )
        page.wait(lambda: 0 < (page.run(below) or 0) <= size["height"], "the end of what was said")
        tags = page.all(".row.partial .tag")
        assert len(tags) == 1, "that it may change is said once"
        page.screenshot(f"follows-{size['width']}")


def test_a_server_that_stops_is_told_and_its_calls_are_in_doubt(page: Browser) -> None:
    page.look(**WIDE)
    with WebRig(port=0, settings={"words": "all", "window": 1.0}) as rig, Calls(rig) as calls:
        opened(page, rig)
        calls.say("going-on", 2.0)
        page.wait(lambda: page.text("#detail .state") == "Live", "the call")
        page.run(LIVE_REGIONS)
        rig.web.board.emit = lambda event: None  # the page does not hear how the call ends
        rig.stop()
    page.wait(lambda: page.text("#link") == "Offline", "the loss to be noticed")
    page.wait(lambda: page.text("#detail .state") == "Not connected", "the call's state")
    page.wait(lambda: "Trying again in" in page.text("#banner-time"), "the countdown")
    assert page.run("return document.getElementById('machine').hasAttribute('data-stale')")
    before = page.text("#banner-time")
    page.wait(lambda: page.text("#banner-time") != before, "the countdown to go on")
    assert page.run("return heard['banner-text']") <= 2, "what counts down is not read out"
    page.screenshot("lost")
    page.errors()


def test_what_the_server_says_when_it_refuses_is_shown(page: Browser) -> None:
    page.look(**WIDE)
    with WebRig(max_watchers=1) as rig, rig.ws("/ws/events") as other:
        other.recv(timeout=WAIT)
        page.open(f"http://localhost:{rig.address[1]}/")
        page.wait(lambda: page.text("#link") == "Offline", "the refusal")
        page.wait(lambda: "Too many follow the events." in page.text("#banner"), "the reason")
        assert "Trying again" in page.text("#banner-time")
        page.screenshot("refused")
    page.errors()


def test_a_token_is_asked_for_in_plain_words(page: Browser) -> None:
    page.look(**WIDE)
    with WebRig(token="correct-horse") as rig:
        page.open(f"http://localhost:{rig.address[1]}/")
        page.wait(lambda: page.one("#token-dialog").is_displayed(), "the dialog")
        page.wait(lambda: page.text("#banner-text") != "", "the banner")
        assert page.text("#banner") == "This server wants an access token. Enter it"
        assert page.run("return document.activeElement.id") == "token"
    page.errors()


def test_an_address_of_a_call_that_is_not_there_shows_no_other(
    dashboard: Browser, rig: WebRig
) -> None:
    page = dashboard
    with Calls(rig) as calls:
        calls.say("another", 1.0)
        page.wait(lambda: "another" in page.text("#list"), "a call")
        for size in (WIDE, PHONE):
            page.look(**size)
            opened(page, rig, "#call=long-ago")
            page.wait(lambda: "This call is not here" in page.text("#detail"), "that it is not")
            assert "long-ago" in page.text("#detail")
            page.screenshot(f"no-such-call-{size['width']}")
            page.click("#detail a")
            page.wait(lambda: page.one("#list").is_displayed(), "the list")


def test_a_call_that_the_list_has_no_more_is_asked_for(
    dashboard: Browser, rig: WebRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = dashboard
    with Calls(rig) as calls:
        calls.say("earlier", 1.0)
    rig.listener.ended()
    monkeypatch.setattr("aii.servers.web.board.ENDED", 0)  # the server's list is empty
    opened(page, rig, "#call=earlier")
    page.wait(lambda: page.text("#detail-title") == "earlier", "the call")
    page.wait(lambda: page.all(".row.final"), "its words")


def test_without_a_port_for_calls_none_is_suggested(page: Browser) -> None:
    page.look(**WIDE)
    for port in (0, None):
        with WebRig(port=port) as rig:
            opened(page, rig)
            page.wait(lambda: "No calls yet" in page.text("#detail"), "the empty list")
            if port is None:
                assert page.text("#detail code") == ""
            else:
                number = rig.listeners._tcp[0][1].address[1]
                page.wait(lambda n=number: f"--port {n}" in page.text("#detail code"), "the port")
            page.screenshot(f"empty-{port}")
            page.click("#detail a")
            page.wait(lambda: page.one("#view-microphone").is_displayed(), "the microphone")
    page.errors()


def test_a_screen_reader_is_not_flooded(dashboard: Browser, rig: WebRig) -> None:
    """Clocks, latencies and counts change all the time; what is said to stay is read out once."""
    page = dashboard
    page.allow_microphone("granted")
    page.click("#tab-microphone")
    page.click("#record")
    page.wait(lambda: page.text("#recorder-time") >= "0:01", "the recording")
    page.run(LIVE_REGIONS)
    with Calls(rig) as calls:
        for number in range(5):
            calls.say(f"call-{number}", 1.0)
        page.wait(lambda: page.text("#recorder-time") >= "0:04", "some seconds")
        heard = page.run("return heard")
    assert sum(heard.values()) <= 2, heard
    page.click("#record")
    page.wait(lambda: page.text("#record") == "Start microphone", "the end")


def test_motion_is_for_those_who_want_it(dashboard: Browser, rig: WebRig) -> None:
    page = dashboard
    with Calls(rig) as calls:
        calls.say("moving", 2.0)
        page.wait(lambda: page.all(".row.partial .tag"), "words that may change")
        moves = "return getComputedStyle(document.querySelector('.row.partial .tag'), '::before')" \
                ".animationName"  # fmt: skip
        for still, name in ((True, "none"), (False, "pulse")):
            page.look(**WIDE, still=still)
            assert page.run(moves) == name


def test_a_refused_microphone_fits_every_screen(dashboard: Browser) -> None:
    page = dashboard
    page.allow_microphone("denied")
    page.click("#tab-microphone")
    page.click("#record")
    page.wait(lambda: page.text("#recorder-problem") != "", "a message")
    for size in (WIDE, PHONE):
        page.look(**size)
        assert fits(page, size["width"])
        page.screenshot(f"refused-microphone-{size['width']}")
    page.allow_microphone("granted")
