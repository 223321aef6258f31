from __future__ import annotations

import socket

import pytest

from aii.errors import ConfigError
from aii.servers import address
from aii.servers.address import is_local, listen, shown

needs_ipv6 = pytest.mark.skipif(not socket.has_ipv6, reason="this machine has no IPv6")


def test_how_addresses_are_written():
    assert shown(("127.0.0.1", 80)) == "127.0.0.1:80"
    assert shown(("::1", 80, 0, 0)) == "[::1]:80"


def test_what_other_machines_can_reach():
    assert [is_local(host) for host in ("127.0.0.1", "127.3.4.5", "::1")] == [True] * 3
    assert [is_local(host) for host in ("0.0.0.0", "::", "10.0.0.1", "fe80::1%eth0")] == [False] * 4


def test_localhost_is_127_0_0_1():
    with listen("localhost", 0) as sock:
        assert sock.getsockname()[0] == "127.0.0.1"


@needs_ipv6
def test_a_name_of_ipv6_alone(monkeypatch):
    def lookup(host, port, **kwargs):
        assert host == "six"
        return [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", port, 0, 0))]

    monkeypatch.setattr(address.socket, "getaddrinfo", lookup)
    with listen("six", 0) as sock:
        assert shown(sock.getsockname()).startswith("[::1]:")


def test_of_several_addresses_the_first_that_can_be_had(monkeypatch):
    def lookup(host, port, **kwargs):
        hosts = ("192.0.2.1", "127.0.0.1")  # the first is for documentation: nobody has it
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port)) for host in hosts]

    monkeypatch.setattr(address.socket, "getaddrinfo", lookup)
    with listen("two", 0) as sock:
        assert sock.getsockname()[0] == "127.0.0.1"


def test_what_cannot_be_is_one_line_that_says_it_once():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError) as info:
            listen("127.0.0.1", port)
    assert str(info.value) == (
        f"cannot listen on 127.0.0.1:{port}: Address already in use; choose another with --host or "
        "--port"
    )
    for host in ("no.such.host.invalid", "x" * 300):
        with pytest.raises(ConfigError, match=f"^cannot listen on {host}:1: "):
            listen(host, 1)
