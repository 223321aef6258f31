"""How a sink is written in a configuration: ``KIND[,OPTION=VALUE...][:TARGET]``.

::

    console
    jsonl:calls.jsonl
    jsonl,rotate=100M,keep=7:calls.jsonl
    jsonl:calls/                                   a file per call
    webhook,secret=CRM_KEY:https://crm.example/aii
    webhook,per=call:http://127.0.0.1:9000/calls
    ami,user=aii,secret=AMI_SECRET:127.0.0.1:5038
    ari,user=aii,secret=/etc/aii/ari.secret:http://127.0.0.1:8088
    wav:recordings/

A secret is never written down here: ``secret=NAME`` takes it from the environment variable
``NAME``, ``secret=/path`` from the first line of a file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from urllib.parse import urlsplit

from aii.errors import ConfigError

FREE = frozenset(("per", "partials"))
"""Options that a call may choose for a sink of its own."""

_SIZE = {"": 1, "k": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def _yes(text: str) -> bool:
    if text not in ("yes", "no"):
        raise ValueError("wanted is yes or no")
    return text == "yes"


def size(text: str) -> int:
    """Bytes, as in 500k, 100M or 2G.

    Raises:
        ValueError: it is no size.
    """
    found = re.fullmatch(r"(\d{1,12})([kMG]?)", text)
    if found is None or int(found[1]) == 0:
        raise ValueError("wanted is a size such as 500k, 100M or 2G")
    return int(found[1]) * _SIZE[found[2]]


def _rotation(text: str) -> int | str:
    if text == "day":
        return text
    try:
        return size(text)
    except ValueError:
        raise ValueError("wanted is day, or a size such as 100M") from None


def _count(least: int, most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not re.fullmatch(r"\d{1,9}", text) or not least <= int(text) <= most:
            raise ValueError(f"wanted is a whole number from {least} to {most}")
        return int(text)

    return parse


def _one_of(*choices: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError(f"wanted is {' or '.join(choices)}")
        return text

    return parse


def _variable(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,30}", text):
        raise ValueError("wanted are letters, digits and underscores, beginning with a letter")
    return text


@dataclass(frozen=True)
class Kind:
    """What a kind of sink takes.

    Attributes:
        target: what stands behind the colon, for messages; "" where nothing may.
        options: parser of each option.
        needed: whether there must be a target.
    """

    target: str
    options: Mapping[str, Callable[[str], object]]
    needed: bool = True


_PBX: Mapping[str, Callable[[str], object]] = {
    "user": str,
    "secret": str,
    "variable": _variable,
    "timeout": _count(1, 300),
}

KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "none": Kind("", {}, needed=False),
        "console": Kind("stdout or stderr", {}, needed=False),
        "jsonl": Kind(
            "a file, a folder (with / at its end), or - for stdout",
            {"rotate": _rotation, "keep": _count(1, 100_000), "partials": _yes},
        ),
        "webhook": Kind(
            "an address with http:// or https://",
            {
                "per": _one_of("event", "call"),
                "secret": str,
                "partials": _yes,
                "queue": size,
                "timeout": _count(1, 300),
                "workers": _count(1, 64),
                "ca": str,
            },
        ),
        "ami": Kind("HOST or HOST:PORT of Asterisk", {**_PBX, "partials": _yes, "tls": _yes}),
        "ari": Kind("the address of Asterisk's HTTP server", {**_PBX, "ca": str}),
        "wav": Kind("a folder", {}),
    }
)


@dataclass(frozen=True)
class SinkSpec:
    """One sink as it was asked for.

    Attributes:
        kind: one of ``KINDS``.
        target: a path or address, "" where there is none.
        options: parsed values by name.
        text: as it was written.
    """

    kind: str
    target: str
    options: Mapping[str, object]
    text: str

    @classmethod
    def parse(cls, text: str, *, whole: bool = True) -> SinkSpec:
        """Read ``KIND[,OPTION=VALUE...][:TARGET]``; unless ``whole``, the target may be missing.

        Raises:
            ConfigError: an unknown kind or option, a bad value, or a target that cannot be.
        """
        head, _, target = text.strip().partition(":")
        name, *listed = head.split(",")
        kind = KINDS.get(name)
        if kind is None:
            raise ConfigError(f"sink {text!r}: wanted is one of {', '.join(KINDS)}")
        options: dict[str, object] = {}
        for item in listed:
            option, equals, value = item.partition("=")
            parse = kind.options.get(option)
            if parse is None or not equals or not value:
                known = ", ".join(kind.options) or "none"
                raise ConfigError(
                    f"sink {text!r}: {item!r} is no option of {name} (it has {known})"
                )
            try:
                options[option] = parse(value)
            except ValueError as problem:
                raise ConfigError(f"sink {text!r}: {option} is {value!r}; {problem}") from None
        spec = cls(name, target, MappingProxyType(options), text.strip())
        if target or whole:
            spec._check(kind)
        return spec

    def _check(self, kind: Kind) -> None:
        if kind.needed and not self.target:
            raise ConfigError(f"sink {self.text!r}: behind a colon comes {kind.target}")
        if self.target and not kind.target:
            raise ConfigError(f"sink {self.text!r}: {self.kind} has no target")
        if self.kind == "console" and self.target not in ("", "stdout", "stderr"):
            raise ConfigError(f"sink {self.text!r}: behind a colon comes {kind.target}")
        if self.kind in ("webhook", "ari"):
            self._check_address()
        if self.kind == "ami":
            self.address  # noqa: B018  raises
        if self.kind == "jsonl" and "keep" in self.options and "rotate" not in self.options:
            raise ConfigError(f"sink {self.text!r}: keep= goes with rotate=")
        if self.is_folder and isinstance(self.options.get("rotate"), int):
            raise ConfigError(f"sink {self.text!r}: files of single calls are rotated by day only")
        if self.is_folder and "keep" in self.options:
            raise ConfigError(f"sink {self.text!r}: keep= is for one file, not for a folder")
        if self.target == "-" and "rotate" in self.options:
            raise ConfigError(f"sink {self.text!r}: stdout is not rotated")

    def _check_address(self) -> None:
        try:
            address = urlsplit(self.target)
            good = address.scheme in ("http", "https") and bool(address.hostname)
            good = good and (address.port is None or address.port > 0)
        except ValueError:
            good = False
        if not good or not re.fullmatch(r"[!-~]+", self.target):
            raise ConfigError(
                f"sink {self.text!r}: {self.target!r} is no address with http:// or https://"
            )
        if address.username or address.password or address.fragment:
            raise ConfigError(
                f"sink {self.text!r}: name and password do not belong into the address; "
                "give secret= instead"
            )

    @property
    def is_folder(self) -> bool:
        """Whether the target of ``jsonl`` is a folder with a file per call."""
        if self.kind != "jsonl":
            return False
        return self.target.endswith("/") or (self.target != "-" and os.path.isdir(self.target))

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of ``ami``.

        Raises:
            ConfigError: they cannot be.
        """
        found = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^:\s\[\]]+)(?::(\d{1,5}))?", self.target)
        port = int(found[2] or (5039 if self.options.get("tls") else 5038)) if found else 0
        if found is None or not 0 < port < 65536:
            raise ConfigError(f"sink {self.text!r}: {self.target!r} is not HOST or HOST:PORT")
        return found[1].strip("[]"), port

    def login(self, environ: Mapping[str, str]) -> tuple[str, str]:
        """User and secret for a PBX.

        Raises:
            ConfigError: one of them is missing.
        """
        if not {"user", "secret"} <= set(self.options):
            raise ConfigError(f"sink {self.text!r}: user= and secret= are needed to log in")
        return str(self.options["user"]), self.secret(environ)

    def secret(self, environ: Mapping[str, str]) -> str:
        """The secret that ``secret=`` names, "" where there is none.

        Raises:
            ConfigError: it is not there.
        """
        name = str(self.options.get("secret", ""))
        if not name:
            return ""
        if "/" in name:
            try:
                found = Path(name).read_text("utf-8").partition("\n")[0].strip()
            except (OSError, UnicodeDecodeError) as error:
                why = getattr(error, "strerror", None) or "it is no text"
                raise ConfigError(f"sink {self.text!r}: cannot read {name}: {why}") from None
        else:
            found = environ.get(name, "").strip()
        if not found:
            raise ConfigError(
                f"sink {self.text!r}: there is no secret in {name}; secret= names an environment "
                "variable, or a file (with a / in it)"
            )
        return found

    def allowed_by(self, rule: SinkSpec) -> SinkSpec | None:
        """This sink of a call as ``rule`` lets calls have it, or None where it does not.

        The target must lie within that of the rule, if it has one: a file in its folder, an address
        below its own. Only the options of ``FREE`` are the call's; secrets and limits are the
        rule's.
        """
        if rule.kind != self.kind or set(self.options) - FREE:
            return None
        if rule.target and not self._within(rule.target):
            return None
        options = MappingProxyType({**self.options, **rule.options})
        return replace(self, options=options)

    def _within(self, target: str) -> bool:
        if self.kind in ("jsonl", "wav"):
            inside, folder = os.path.realpath(self.target), os.path.realpath(target)
            return self.target != "-" and (inside == folder or inside.startswith(folder + os.sep))
        if self.kind in ("webhook", "ari"):
            return _under(self.target, target)
        return self.target == target


def _under(address: str, allowed: str) -> bool:
    """Whether an address is ``allowed`` or below it."""
    one, other = urlsplit(address), urlsplit(allowed)
    if (one.scheme, one.hostname, one.port) != (other.scheme, other.hostname, other.port):
        return False
    folder = other.path.rstrip("/")
    climbs = any(
        part in ("..", ".") for part in re.split(r"/|%2[fF]", one.path.replace("%2e", "."))
    )
    return not climbs and (one.path == folder or one.path.startswith(folder + "/"))
