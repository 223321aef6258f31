from __future__ import annotations

import queue
import socket
import threading

import numpy as np
import pytest
from live_rig import Endpoint
from server_rig import wait_until

from aii.errors import AiiError, InputError, ServiceError
from aii.live import LiveCall, Over, Said, Server, Transcript, npy

WAIT = 60.0


class Blocks:
    """A source of ready blocks, which may wait or fail before its end."""

    name = "blocks"

    def __init__(self, *blocks: np.ndarray, endless: bool = False, error: Exception | None = None):
        self.blocks = blocks
        self.endless = endless
        self.error = error
        self.stopped = threading.Event()

    def __iter__(self):
        yield from self.blocks
        if self.error:
            raise self.error
        if self.endless:
            assert self.stopped.wait(WAIT)

    def stop(self) -> None:
        self.stopped.set()


def ramp(count: int) -> np.ndarray:
    return np.linspace(-1, 1, count, dtype=np.float32)


def all_of(said: queue.Queue[Said], calls: int = 1) -> tuple[list[Transcript], list[Over]]:
    transcripts: list[Transcript] = []
    overs: list[Over] = []
    while len(overs) < calls:
        item = said.get(timeout=WAIT)
        if isinstance(item, Over):
            overs.append(item)
        else:
            transcripts.append(item)
    return transcripts, overs


def talk(server: Server, source: Blocks, client_id: str = "desk") -> tuple[list[str], Over]:
    said: queue.Queue[Said] = queue.Queue()
    call = LiveCall(server, client_id, source, said)
    try:
        call.start()
        transcripts, (over,) = all_of(said)
    finally:
        call.close()
    return [transcript.text for transcript in transcripts], over


def test_everything_arrives_and_the_last_words_come_back() -> None:
    samples = ramp(20_000)
    with Endpoint() as endpoint:
        texts, over = talk(Server(endpoint.address), Blocks(samples[:17_000], samples[17_000:]))
        np.testing.assert_array_equal(endpoint.samples("desk"), samples)
    assert over == Over("desk")
    assert texts == [" 17000 samples\nso far", " 20000 samples\nso far"]


def test_stopping_ends_the_audio_and_not_the_words() -> None:
    source = Blocks(ramp(1600), endless=True)
    said: queue.Queue[Said] = queue.Queue()
    with Endpoint() as endpoint:
        call = LiveCall(Server(endpoint.address), "desk", source, said)
        call.start()
        assert endpoint.first.wait(WAIT)
        assert endpoint.ended == []
        call.stop()
        transcripts, (over,) = all_of(said)
        call.close()
        assert endpoint.ended == ["desk"]
    assert over.error is None
    assert [transcript.text for transcript in transcripts] == [" 1600 samples\nso far"]


def test_two_clients_share_a_queue_and_keep_their_names() -> None:
    said: queue.Queue[Said] = queue.Queue()
    with Endpoint() as endpoint:
        server = Server(endpoint.address)
        calls = [
            LiveCall(server, name, Blocks(ramp(length)), said)
            for name, length in (("desk:mic", 1000), ("desk:system", 2000))
        ]
        for call in calls:
            call.start()
        transcripts, overs = all_of(said, 2)
        for call in calls:
            call.close()
    assert {over.client_id: over.error for over in overs} == {"desk:mic": None, "desk:system": None}
    assert {t.client_id: t.text for t in transcripts} == {
        "desk:mic": " 1000 samples\nso far",
        "desk:system": " 2000 samples\nso far",
    }


def test_a_client_id_in_use() -> None:
    with Endpoint() as endpoint:
        endpoint.heard["desk"] = []
        source = Blocks(endless=True)
        _, over = talk(Server(endpoint.address), source)
    assert isinstance(over.error, InputError)
    assert "client id desk is in use" in str(over.error)
    assert source.stopped.is_set()


def test_a_server_that_hangs_up_says_why() -> None:
    with Endpoint(hang_up=(1013, "too many sessions")) as endpoint:
        _, over = talk(Server(endpoint.address), Blocks(ramp(10), endless=True))
    assert isinstance(over.error, ServiceError)
    assert str(over.error).endswith("ended the connection: too many sessions")


@pytest.mark.parametrize(
    "code, reason, said",
    [(1001, "the server is stopping", "the server is stopping"), (1000, "", "code 1000")],
)
def test_a_server_that_ends_in_good_order_before_the_audio_is_over(code, reason, said) -> None:
    """What was said after that is lost, which nobody would notice otherwise."""
    with Endpoint(hang_up=(code, reason)) as endpoint:
        _, over = talk(Server(endpoint.address), Blocks(ramp(10), endless=True))
    assert isinstance(over.error, ServiceError)
    assert str(over.error).endswith(f"ended the connection before the audio was over: {said}")


def test_a_token() -> None:
    with Endpoint(token="secret") as endpoint:
        with pytest.raises(InputError, match=r"wants its token: give --token or set AII_TOKEN"):
            talk(Server(endpoint.address), Blocks())
        with pytest.raises(InputError, match=r"does not take this token: give --token"):
            talk(Server(endpoint.address, token="wrong"), Blocks())
        _, over = talk(Server(endpoint.address, token="secret"), Blocks(ramp(100)))
    assert over.error is None


def test_a_source_that_fails() -> None:
    with Endpoint() as endpoint:
        source = Blocks(ramp(100), error=ServiceError("the device is gone"))
        texts, over = talk(Server(endpoint.address), source)
    assert str(over.error) == "the device is gone"
    assert texts == [" 100 samples\nso far"]


def test_a_source_with_a_fault_of_its_own() -> None:
    with Endpoint() as endpoint:
        source = Blocks(error=KeyError("surprise"))
        _, over = talk(Server(endpoint.address, timeout=2.0), source)
    assert str(over.error) == "blocks: 'surprise'"


def test_a_server_that_never_answers_is_left() -> None:
    with Endpoint(mute=True) as endpoint:
        _, over = talk(Server(endpoint.address, timeout=5.0), Blocks(ramp(100)))
        wait_until(lambda: endpoint.ended == ["desk"])
    assert str(over.error).endswith("did not give the last words within 5 s")


def test_no_server() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    server = Server(f"http://127.0.0.1:{port}")
    with pytest.raises(ServiceError, match=r"cannot connect .*refused; start a server with"):
        server.connect("desk")


def test_a_server_of_another_kind() -> None:
    with Endpoint() as endpoint:
        server = Server(f"{endpoint.address}/elsewhere")
        with pytest.raises(ServiceError, match=r"status 404: no such path; is it an aii server"):
            server.connect("desk")


def test_tls_that_is_none() -> None:
    """A server of HTTP answers in plain text, or hangs up."""
    for answer, said in (
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", r"speak TLS; .* http://"),
        (b"", "TLS"),
    ):
        with socket.create_server(("127.0.0.1", 0)) as listener:

            def refuse(listener=listener, answer=answer) -> None:
                with listener.accept()[0] as client:
                    client.recv(1000)
                    client.sendall(answer)

            thread = threading.Thread(target=refuse)
            thread.start()
            server = Server(f"https://127.0.0.1:{listener.getsockname()[1]}", timeout=WAIT)
            with pytest.raises(AiiError, match=said):
                server.connect("desk")
            thread.join(WAIT)


def test_certificates_that_are_not_there() -> None:
    with pytest.raises(InputError, match=r"cannot read certificates from /none"):
        Server("https://127.0.0.1:1", ca="/none.pem").connect("desk")


@pytest.mark.parametrize(
    "address, url",
    [
        ("http://host:8000", "ws://host:8000/ws/transcription?client_id=a+b%3Amic"),
        ("https://host/aii/", "wss://host/aii/ws/transcription?client_id=a+b%3Amic"),
        ("wss://host", "wss://host/ws/transcription?client_id=a+b%3Amic"),
    ],
)
def test_addresses(address: str, url: str) -> None:
    assert Server(address).url("a b:mic") == url


@pytest.mark.parametrize("timeout", [0.0, -3.0, float("inf"), float("nan")])
def test_what_is_no_time(timeout: float) -> None:
    with pytest.raises(InputError, match="wanted are seconds above 0"):
        Server(timeout=timeout)


@pytest.mark.parametrize("address", ["localhost:8000", "ftp://host", "http://", ""])
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(InputError, match="no address of a server"):
        Server(address)


def test_npy_is_what_numpy_writes() -> None:
    assert npy(np.arange(3, dtype=np.float64))[:6] == b"\x93NUMPY"
    assert len(npy(ramp(1600))) == 128 + 6400
