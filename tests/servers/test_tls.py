"""TLS on both listeners, with a certificate that the test makes."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import struct
import subprocess
from pathlib import Path

import pytest
from fake_engine import floats, slin, speech, spoken
from server_rig import WAIT, delivered, lines, read_all, wait_until
from web_rig import END, WebRig, messages, refused
from websockets.sync.client import connect

from aii.errors import ConfigError
from aii.servers.tls import server_context, trouble_with
from aii.servers.web.listener import PENDING


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """Paths of a certificate for 127.0.0.1 and of its key."""
    if shutil.which("openssl") is None:
        pytest.skip("the openssl program, which makes the certificate, is not installed")
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
               "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1",
               "-keyout", str(key), "-out", str(cert)]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    return str(cert), str(key)


@pytest.fixture(scope="module")
def rig(certificate):
    with WebRig(port=0, tls_cert=certificate[0], tls_key=certificate[1]) as rig:
        yield rig


@pytest.fixture(scope="module")
def trust(certificate) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=certificate[0])


def tcp(rig: WebRig) -> tuple[str, int]:
    return rig.listeners._tcp[0][1].address


class Client:
    """A TLS client that says goodbye and still listens, which Python's own sockets do not."""

    def __init__(self, address: tuple[str, int], trust: ssl.SSLContext) -> None:
        self.sock = socket.create_connection(address, timeout=WAIT)
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = trust.wrap_bio(self._in, self._out, server_hostname="127.0.0.1")
        self._do(self._tls.do_handshake)

    def _do(self, action):
        while True:
            try:
                result = action()
            except ssl.SSLWantReadError:
                self.sock.sendall(self._out.read())
                data = self.sock.recv(65536)
                self._in.write(data) if data else self._in.write_eof()
            else:
                self.sock.sendall(self._out.read())
                return result

    def send(self, data: bytes) -> None:
        self._do(lambda: self._tls.write(data))

    def goodbye(self) -> None:
        with pytest.raises(ssl.SSLWantReadError):  # the server's goodbye is not there yet
            self._tls.unwrap()
        self.sock.sendall(self._out.read())

    def rest(self) -> str:
        data = b""
        with contextlib.suppress(ssl.SSLZeroReturnError), contextlib.closing(self.sock):
            while piece := self._do(lambda: self._tls.read(65536)):
                data += piece
        return data.decode()


def test_a_call_by_tls_is_answered_after_its_goodbye(rig, trust):
    samples = speech(40, seed=4, longest=2.0)
    client = Client(tcp(rig), trust)
    client.send(b"secret\r" + slin(samples))
    client.goodbye()
    assert "".join(lines(client.rest())) == spoken(samples)
    (end,) = [e for e in rig.listener.ended() if e.call_id == "secret"]
    assert (end.end, end.reason) == (40.0, "eof")


def test_a_client_that_breaks_off_is_the_end_of_its_call(rig, trust):
    client = Client(tcp(rig), trust)
    client.send(b"broken\r" + slin(speech(2)))
    wait_until(lambda: delivered(client.sock))  # closing on unread bytes resets
    client.sock.close()
    rig.listener.wait(
        lambda events: any(e.call_id == "broken" and e.type == "ended" for e in events)
    )
    assert rig.listener.text("broken") == spoken(speech(2))


def test_what_came_before_a_reset_is_heard(rig, trust):
    client = Client(tcp(rig), trust)
    client.send(b"cut\r" + slin(speech(3)))
    wait_until(lambda: delivered(client.sock))
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.sock.close()
    rig.listener.wait(lambda events: any(e.call_id == "cut" and e.type == "ended" for e in events))
    assert rig.listener.text("cut") == spoken(speech(3))


def test_a_websocket_by_tls(rig, trust):
    samples = speech(2, seed=1)
    url = f"wss://127.0.0.1:{rig.address[1]}/ws"
    with connect(url, ssl=trust, proxy=None, open_timeout=WAIT) as ws:
        ws.send(floats(samples).astype("<f4").tobytes())
        ws.send(END)
        assert messages(ws)[-1]["text"].split() == spoken(samples).split()
    assert rig.listeners.lines()[0] == f"web on https://127.0.0.1:{rig.address[1]}/"
    assert rig.listeners.lines()[1].startswith("TLS listening on 127.0.0.1:")


def test_who_speaks_no_tls_is_no_call_and_harms_none(rig, caplog):
    caplog.set_level("INFO")
    before = len(rig.listener.events)
    with socket.create_connection(tcp(rig), timeout=WAIT) as client:
        client.sendall(b"plain\r" + slin(speech(1)))
        client.shutdown(socket.SHUT_WR)
        read_all(client)
    with socket.create_connection(rig.address, timeout=WAIT) as client:
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        read_all(client)
    assert len(rig.listener.events) == before
    wait_until(lambda: "a client of this port must speak TLS" in caplog.text)


def test_nothing_comes_before_the_answer(rig, trust):
    """No ticket for a later session: one that reads it while it writes loses what it writes."""
    for address, said in ((rig.address, b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"),
                          (tcp(rig), b"GET / HTTP/1.1\r\n\r\n")):  # fmt: skip
        with socket.create_connection(address, timeout=WAIT) as raw:
            client = trust.wrap_socket(raw, server_hostname="127.0.0.1")
            with client:
                client.sendall(said)
                assert client.recv(65536).startswith(b"HTTP/1.1 ")
                assert client.version() == "TLSv1.3"
                assert not client.session.has_ticket


def test_connections_that_say_nothing_are_counted_before_tls_begins(certificate, trust):
    """Each would hold a socket for a minute, as many as the process may have, calls' ones too."""
    options = {"tls_cert": certificate[0], "tls_key": certificate[1], "max_per_address": 3}
    with WebRig(**options) as rig, contextlib.ExitStack() as held:
        most = 3 + PENDING
        silent = [
            held.enter_context(socket.create_connection(rig.address, timeout=WAIT))
            for _ in range(most)
        ]
        for _ in range(5):
            with socket.create_connection(rig.address, timeout=WAIT) as one_more:
                assert one_more.recv(1) == b""
        assert refused(rig) == {"address": 5.0}
        for sock in silent:
            sock.close()
        url = f"wss://127.0.0.1:{rig.address[1]}/ws/events"
        wait_until(lambda: not rig.web_listener._listener._limits.open)
        with connect(url, ssl=trust, proxy=None, open_timeout=WAIT) as ws:
            assert ws.recv(timeout=WAIT)
        wait_until(lambda: not rig.web_listener._listener._limits.open)


def test_one_listener_alone_can_be_encrypted(certificate, trust):
    options = {"tls_cert": certificate[0], "tls_key": certificate[1], "tls": "web"}
    with WebRig(port=0, **options) as rig:
        with socket.create_connection(tcp(rig), timeout=WAIT) as client:
            client.sendall(b"plain\r" + slin(speech(1)))
            client.shutdown(socket.SHUT_WR)
            assert lines(read_all(client))
        assert rig.web_listener.secure


def test_a_key_without_its_certificate_is_told(certificate):
    with pytest.raises(ConfigError, match="--tls-key is given without --tls-cert"):
        WebRig(tls_key=certificate[1])


def test_a_certificate_that_cannot_be_used_is_one_line(certificate, tmp_path):
    cert, key = certificate
    junk = tmp_path / "junk.pem"
    junk.write_text("junk")
    damaged, both = tmp_path / "damaged.pem", tmp_path / "both.pem"
    damaged.write_text(Path(cert).read_text()[:300] + Path(key).read_text())
    both.write_text(Path(cert).read_text() + Path(key).read_text())
    other = tmp_path / "other.key"
    command = ["openssl", "genrsa", "-out", str(other), "2048"]
    subprocess.run(command, check=True, capture_output=True)
    for paths, said in (
        ((str(tmp_path / "none.pem"), None), "there is no file .*none.pem; check --tls-cert"),
        ((cert, str(tmp_path / "none.key")), "there is no file .*none.key; check --tls-key"),
        ((str(junk), None), "cannot be used: there is none in it"),
        ((key, None), "cannot be used: there is none in it"),
        ((cert, str(junk)), "cannot be used: there is no key in .*junk.pem"),
        ((cert, None), "cannot be used: there is no key in it; give its key with --tls-key"),
        ((cert, str(other)), "cannot be used: the key in .*other.key is another one's"),
        ((str(damaged), None), "cannot be used: it or its key is damaged"),
        ((str(tmp_path), key), "the certificate .* cannot be read: Is a directory"),
        ((cert, str(tmp_path)), "the key .* cannot be read: Is a directory"),
    ):
        with pytest.raises(ConfigError, match=said) as info:
            server_context(*paths)
        assert "\n" not in str(info.value)
    assert trouble_with(server_context(str(both), None), str(both)) == ""


def test_a_certificate_that_has_expired_is_told_at_the_start(certificate, tmp_path):
    """It serves those who do not check it, so it does not keep the server from starting."""
    cert, key = certificate
    old = str(tmp_path / "old.pem")
    command = ["openssl", "x509", "-in", cert, "-signkey", key, "-days", "-1", "-out", old]
    subprocess.run(command, check=True, capture_output=True)
    with WebRig(tls_cert=old, tls_key=key) as rig:
        assert f"the certificate {old} has expired; renew it" in rig.listeners.warnings(rig.config)
    with WebRig(tls_cert=cert, tls_key=key) as rig:
        assert rig.listeners.warnings(rig.config) == []


def test_tls_for_one_listener_without_a_certificate_is_told():
    with pytest.raises(ConfigError, match="--tls web without --tls-cert encrypts nothing"):
        WebRig(tls="web")
