from __future__ import annotations

import pytest

from aii.errors import ConfigError
from aii.sinks.spec import KINDS, SinkSpec, size


@pytest.mark.parametrize(
    "text, kind, target, options",
    [
        ("console", "console", "", {}),
        ("console:stderr", "console", "stderr", {}),
        ("none", "none", "", {}),
        ("jsonl:calls.jsonl", "jsonl", "calls.jsonl", {}),
        ("jsonl:-", "jsonl", "-", {}),
        (
            "jsonl,rotate=100M,keep=7,partials=no:a:b.jsonl", "jsonl", "a:b.jsonl",
            {"rotate": 100 << 20, "keep": 7, "partials": False},
        ),
        ("jsonl,rotate=day:calls/", "jsonl", "calls/", {"rotate": "day"}),
        ("webhook:https://crm.example/x?a=1", "webhook", "https://crm.example/x?a=1", {}),
        (
            "webhook,per=call,secret=KEY,queue=1G,timeout=3,workers=2:http://127.0.0.1:9/",
            "webhook", "http://127.0.0.1:9/",
            {"per": "call", "secret": "KEY", "queue": 1 << 30, "timeout": 3, "workers": 2},
        ),
        ("ami,user=aii,secret=S:pbx", "ami", "pbx", {"user": "aii", "secret": "S"}),
        ("ari,user=a,secret=S:http://pbx:8088", "ari", "http://pbx:8088",
         {"user": "a", "secret": "S"}),
        ("wav:recordings", "wav", "recordings", {}),
    ],
)  # fmt: skip
def test_how_sinks_are_written(text, kind, target, options):
    spec = SinkSpec.parse(f" {text} ")
    assert (spec.kind, spec.target, dict(spec.options), spec.text) == (kind, target, options, text)


@pytest.mark.parametrize(
    "text, line",
    [
        ("", "wanted is one of none, console, jsonl, webhook, ami, ari, wav"),
        ("kafka:x", "wanted is one of"),
        ("none:x", "has no target"),
        ("jsonl", "behind a colon comes a file"),
        ("jsonl,rotate=1M", "behind a colon"),
        ("console:printer", "stdout or stderr"),
        ("jsonl,speed=3:x", "'speed=3' is no option of jsonl"),
        ("jsonl,rotate:x", "'rotate' is no option"),
        ("jsonl,rotate=:x", "'rotate=' is no option"),
        ("jsonl,rotate=big:x", "rotate is 'big'; wanted is day, or a size"),
        ("jsonl,rotate=0:x", "wanted is day, or a size"),
        ("jsonl,keep=7:x", "keep= goes with rotate="),
        ("jsonl,rotate=1M,keep=0:x", "keep is '0'; wanted is a whole number from 1"),
        ("jsonl,rotate=1M:calls/", "rotated by day only"),
        ("jsonl,rotate=day,keep=3:calls/", "keep= is for one file"),
        ("jsonl,rotate=1M:-", "stdout is not rotated"),
        ("jsonl,partials=maybe:x", "wanted is yes or no"),
        ("webhook:crm.example/x", "is no address with http"),
        ("webhook:ftp://crm.example/x", "is no address with http"),
        ("webhook:http://", "is no address with http"),
        ("webhook:http://x:99999/", "is no address with http"),
        ("webhook:http://a b/", "is no address with http"),
        ("webhook:http://me:pw@crm/", "name and password do not belong"),
        ("webhook,per=day:http://x/", "wanted is event or call"),
        ("ami,user=a,secret=b:host:port", "is not HOST or HOST:PORT"),
        ("ami,user=a,secret=b,variable=1x:host", "beginning with a letter"),
        ("ami,user=a,secret=b:host:0", "is not HOST or HOST:PORT"),
    ],
)
def test_what_cannot_be_is_one_line(text: str, line: str):
    with pytest.raises(ConfigError) as info:
        SinkSpec.parse(text)
    assert line in str(info.value)
    assert "\n" not in str(info.value)
    assert str(info.value).startswith("sink ")


def test_sizes():
    assert [size(text) for text in ("7", "2k", "3M", "1G")] == [7, 2048, 3 << 20, 1 << 30]
    for text in ("", "1T", "-1", "1.5M", "0M"):
        with pytest.raises(ValueError, match="wanted is a size"):
            size(text)


def test_addresses_of_managers():
    def address(text: str) -> tuple[str, int]:
        return SinkSpec.parse(f"ami,user=a,secret=b{text}").address

    assert address(":pbx") == ("pbx", 5038)
    assert address(",tls=yes:pbx") == ("pbx", 5039)
    assert address(":127.0.0.1:1234") == ("127.0.0.1", 1234)
    assert address(":[::1]:1234") == ("::1", 1234)


def test_a_folder_is_told_by_its_slash_or_by_being_there(tmp_path):
    assert SinkSpec.parse(f"jsonl:{tmp_path}/new/").is_folder
    assert SinkSpec.parse(f"jsonl:{tmp_path}").is_folder
    assert not SinkSpec.parse(f"jsonl:{tmp_path}/new").is_folder
    assert not SinkSpec.parse("jsonl:-").is_folder


def test_secrets_come_from_the_environment_or_a_file(tmp_path):
    spec = SinkSpec.parse("webhook,secret=KEY:http://x/")
    assert spec.secret({"KEY": " abc \n"}) == "abc"
    with pytest.raises(ConfigError, match="there is no secret in KEY"):
        spec.secret({})
    path = tmp_path / "secret"
    path.write_text("from a file\nnot this\n")
    assert SinkSpec.parse(f"webhook,secret={path}:http://x/").secret({}) == "from a file"
    with pytest.raises(ConfigError, match="No such file"):
        SinkSpec.parse(f"webhook,secret={path}x:http://x/").secret({})
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="it is no text"):
        SinkSpec.parse(f"webhook,secret={path}:http://x/").secret({})
    assert SinkSpec.parse("webhook:http://x/").secret({}) == ""


def test_a_login_needs_both():
    assert SinkSpec.parse("ami,user=a,secret=S:pbx").login({"S": "x"}) == ("a", "x")
    for text in ("ami:pbx", "ami,user=a:pbx", "ari,secret=S:http://pbx"):
        with pytest.raises(ConfigError, match="are needed to log in"):
            SinkSpec.parse(text).login({"S": "x"})


def allowed(text: str, rule: str) -> SinkSpec | None:
    return SinkSpec.parse(text).allowed_by(SinkSpec.parse(rule, whole=False))


def test_what_calls_may_bring_lies_within_a_rule(tmp_path):
    folder = tmp_path / "calls"
    folder.mkdir()
    (tmp_path / "link").symlink_to("/")
    assert allowed(f"jsonl:{folder}/x.jsonl", f"jsonl:{folder}")
    assert allowed(f"wav:{folder}", f"wav:{folder}/")
    for path in (f"{folder}/../x", f"{folder}x", "/etc/passwd", f"{tmp_path}/link/etc/x", "-"):
        assert allowed(f"jsonl:{path}", f"jsonl:{folder}") is None, path
    assert allowed(f"jsonl:{folder}/x", f"wav:{folder}") is None


def test_addresses_within_a_rule():
    rule = "webhook:https://crm.example/aii"
    for good in ("/aii", "/aii/", "/aii/x?y=1"):
        assert allowed(f"webhook:https://crm.example{good}", rule), good
    for bad in (
        "https://crm.example/aiii", "http://crm.example/aii", "https://crm.example:8443/aii",
        "https://crm.example.evil/aii", "https://crm.example/aii/../x", "https://crm.example/",
        "https://crm.example/aii/%2e%2e/x",
    ):  # fmt: skip
        assert allowed(f"webhook:{bad}", rule) is None, bad
    assert allowed("webhook:http://anything/", "webhook")
    assert allowed("ami:pbx", "ami,user=a,secret=S:pbx")
    assert allowed("ami:pbx2", "ami,user=a,secret=S:pbx") is None


def test_secrets_and_limits_are_the_rules_not_the_calls():
    rule = "webhook,secret=KEY,queue=1M:http://crm/"
    spec = allowed("webhook,per=call:http://crm/x", rule)
    assert spec is not None
    assert dict(spec.options) == {"per": "call", "secret": "KEY", "queue": 1 << 20}
    assert allowed("webhook,secret=PATH:http://crm/x", rule) is None
    assert allowed("webhook,ca=/etc/x:http://crm/x", rule) is None
    assert allowed("webhook,queue=9G:http://crm/x", rule) is None


def test_each_kind_says_what_its_target_is():
    assert all(kind.target or not kind.needed for kind in KINDS.values())
