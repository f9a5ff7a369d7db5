"""The rules of `FaultProxy`, seen by plain sockets in front of a server that echoes."""

from __future__ import annotations

import asyncio
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aicache.testing import FaultMode, FaultProxy

FOREVER_MS = 3_600_000.0
"""A delay that no test waits out."""
NOTHING_FOR = 0.05
"""Seconds a test listens to see that nothing comes; what is wrongly sent would be there in a millisecond."""


class Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        try:
            while chunk := self.request.recv(65536):
                self.request.sendall(chunk)
        except OSError:
            pass  # The proxy resets connections: that is its work.


class EchoServer(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True


@pytest.fixture(scope="module")
def echo() -> Iterator[int]:
    """The port of a server that sends back what it gets."""
    with EchoServer(("127.0.0.1", 0), Echo) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@pytest.fixture
def proxy(echo: int) -> Iterator[FaultProxy]:
    with FaultProxy("127.0.0.1", echo, seed=7) as proxy:
        yield proxy


def connect(proxy: FaultProxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=10)


def receive(client: socket.socket, length: int) -> bytes:
    """Bytes up to this length, fewer where the stream ends before."""
    got = b""
    while len(got) < length and (chunk := client.recv(length - len(got))):
        got += chunk
    return got


def ask(client: socket.socket, question: bytes) -> bytes:
    client.sendall(question)
    return receive(client, len(question))


def assert_silent(client: socket.socket) -> None:
    client.settimeout(NOTHING_FOR)
    with pytest.raises(TimeoutError):
        client.recv(1)
    client.settimeout(10)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline
        pause.wait(0.005)


# ------------------------------------------------------------------------------------------------- pass


def test_pass_changes_nothing_and_counts_what_passes(proxy: FaultProxy) -> None:
    question = bytes(range(256)) * 4096
    with connect(proxy) as client:
        sender = threading.Thread(target=client.sendall, args=(question,))
        sender.start()
        assert receive(client, len(question)) == question
        sender.join()
    assert (proxy.connections, proxy.bytes_to_server, proxy.bytes_to_client) == (1, len(question), len(question))


def test_a_closed_half_still_gets_its_answer(proxy: FaultProxy) -> None:
    with connect(proxy) as client:
        client.sendall(b"last words")
        client.shutdown(socket.SHUT_WR)
        assert receive(client, 100) == b"last words"
    until(lambda: proxy.open_connections == 0)


def test_a_request_after_a_reply_is_one_round_trip(proxy: FaultProxy) -> None:
    with connect(proxy) as one, connect(proxy) as other:
        for number in range(3):
            ask(one, b"%d" % number)
        ask(other, b"a batch is one question")
    assert proxy.round_trips == 4


def test_the_url_is_that_of_a_redis_server_at_the_port(proxy: FaultProxy) -> None:
    assert proxy.url == f"redis://127.0.0.1:{proxy.port}/0"


def test_it_can_lead_to_another_server_and_back(proxy: FaultProxy, echo: int) -> None:
    class Upper(Echo):
        def handle(self) -> None:
            self.request.sendall(self.request.recv(100).upper())

    with EchoServer(("127.0.0.1", 0), Upper) as other:
        thread = threading.Thread(target=other.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        with connect(proxy) as before:
            assert ask(before, b"word") == b"word"
            proxy.route("127.0.0.1", other.server_address[1])
            with pytest.raises(ConnectionResetError):
                before.recv(1)
        with connect(proxy) as meanwhile:
            assert ask(meanwhile, b"word") == b"WORD"
        proxy.route("127.0.0.1", echo)
        with connect(proxy) as afterwards:
            assert ask(afterwards, b"word") == b"word"
        other.shutdown()
        thread.join()


def test_small_pieces_pass_at_once(proxy: FaultProxy) -> None:
    with connect(proxy) as client:
        ask(client, b"x")
        (connection,) = proxy._open
        ends = [end.get_extra_info("socket") for end in connection._ends]
        assert [end.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) for end in ends] == [1, 1]


# ------------------------------------------------------------------------------------ latency, rate, blackhole


def test_latency_holds_a_reply_back_for_so_long(proxy: FaultProxy) -> None:
    proxy.set("latency", ms=30)
    with connect(proxy) as client:
        started = time.monotonic()
        assert ask(client, b"late") == b"late"
        # Only the lower bound: a busy machine may add to it.
        assert time.monotonic() - started >= 0.029


def test_latency_with_jitter_keeps_the_order(proxy: FaultProxy) -> None:
    proxy.set("latency", ms=2, jitter=2)
    with connect(proxy) as client:
        for number in range(20):
            client.sendall(b"%03d" % number)
        assert receive(client, 60) == b"".join(b"%03d" % number for number in range(20))


@pytest.mark.parametrize("held", [("latency", {"ms": FOREVER_MS}), ("blackhole", {})], ids=lambda held: held[0])
def test_what_is_held_back_comes_at_once_when_the_mode_ends(
    proxy: FaultProxy, held: tuple[FaultMode, dict[str, Any]]
) -> None:
    with connect(proxy) as client:
        assert ask(client, b"before") == b"before"
        proxy.set(held[0], ms=held[1].get("ms"))
        client.sendall(b"held")
        assert_silent(client)
        proxy.set("pass")
        assert receive(client, 4) == b"held"


def test_a_black_hole_accepts_and_asks_the_server_nothing(proxy: FaultProxy) -> None:
    proxy.set("blackhole")
    with connect(proxy) as client:
        client.sendall(b"hello?")
        assert_silent(client)
        assert proxy.bytes_to_server == 0
        proxy.set("pass")
        assert receive(client, 6) == b"hello?"


def test_a_rate_is_kept_in_each_direction(proxy: FaultProxy) -> None:
    proxy.set("rate", bytes_per_second=5_000)
    with connect(proxy) as client:
        started = time.monotonic()
        assert ask(client, b"x" * 500) == b"x" * 500
        # 500 bytes take 100 ms, less the 20 ms that pass at once. Only the lower bound: see above.
        assert time.monotonic() - started >= 0.079


def test_the_rest_of_a_slow_reply_comes_at_once_when_the_mode_ends(proxy: FaultProxy) -> None:
    proxy.set("rate", bytes_per_second=0.001)
    with connect(proxy) as client:
        client.sendall(b"slow")
        assert receive(client, 1) == b"s"
        assert_silent(client)
        proxy.set("pass")
        assert receive(client, 3) == b"low"


Mode = tuple[FaultMode, dict[str, Any]]
modes_that_lose_nothing: st.SearchStrategy[Mode] = st.one_of(
    st.just(("pass", {})),
    st.just(("blackhole", {})),
    st.builds(lambda ms: ("latency", {"ms": ms, "jitter": ms}), st.floats(0, 1)),
    st.builds(lambda rate: ("rate", {"bytes_per_second": rate}), st.floats(1e3, 1e6)),
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(modes_that_lose_nothing, st.binary(max_size=300)), max_size=8))
def test_delays_in_any_order_lose_and_reorder_nothing(proxy: FaultProxy, turns: list[tuple[Mode, bytes]]) -> None:
    with connect(proxy) as client:
        for (mode, options), question in turns:
            proxy.set(mode, **options)
            client.sendall(question)
        proxy.set("pass")
        sent = b"".join(question for _, question in turns)
        assert receive(client, len(sent)) == sent


# ------------------------------------------------------------------------------------------- refuse, reset


def test_refuse_resets_open_connections_and_refuses_new_ones(proxy: FaultProxy) -> None:
    with connect(proxy) as client:
        ask(client, b"before")
        proxy.set("refuse")
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    with pytest.raises(ConnectionRefusedError):
        connect(proxy)


def test_after_refuse_the_same_port_answers_again(proxy: FaultProxy) -> None:
    port = proxy.port
    for _ in range(3):
        proxy.set("refuse")
        proxy.set("pass")
    assert proxy.port == port
    with connect(proxy) as client:
        assert ask(client, b"again") == b"again"


def test_reset_resets_open_connections_and_new_ones(proxy: FaultProxy) -> None:
    with connect(proxy) as client:
        ask(client, b"before")
        proxy.set("reset")
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    with pytest.raises(ConnectionResetError), connect(proxy) as client:
        client.recv(1)


@pytest.mark.parametrize("mode", ["pass", "blackhole"])
def test_drop_resets_open_connections_and_keeps_the_mode(proxy: FaultProxy, mode: FaultMode) -> None:
    with connect(proxy) as client, connect(proxy) as idle:
        until(lambda: proxy.open_connections == 2)
        proxy.set(mode)
        proxy.drop()
        for end in (client, idle):
            with pytest.raises(ConnectionResetError):
                end.recv(1)
    with connect(proxy) as client:
        client.sendall(b"new")
        if mode == "pass":
            assert receive(client, 3) == b"new"
        else:
            assert_silent(client)


def test_without_a_server_a_connection_is_reset() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # Bound and not listening.
        server_less = FaultProxy("127.0.0.1", unused.getsockname()[1])
        with server_less, pytest.raises(ConnectionResetError), connect(server_less) as client:
            client.recv(1)


# --------------------------------------------------------------------------------------- truncate, corrupt


@pytest.mark.parametrize(("keep", "left"), [(None, b"01234"), (0, b""), (7, b"0123456"), (99, b"0123456789")])
def test_truncate_cuts_a_reply_and_closes(proxy: FaultProxy, keep: int | None, left: bytes) -> None:
    with connect(proxy) as client:
        assert ask(client, b"whole") == b"whole"
        proxy.set("truncate", keep=keep)
        assert ask(client, b"0123456789") == left
        assert client.recv(1) == b""
    until(lambda: proxy.open_connections == 0)


def corrupted(echo: int, *, seed: int, share: float | None = None) -> list[bytes]:
    with FaultProxy("127.0.0.1", echo, seed=seed) as proxy:
        proxy.set("corrupt", share=share)
        with connect(proxy) as client:
            return [ask(client, b"the very same reply") for _ in range(5)]


def test_corrupt_flips_at_least_a_byte_of_each_reply_and_keeps_its_length(echo: int) -> None:
    for reply in corrupted(echo, seed=1, share=0.0):
        assert len(reply) == len(b"the very same reply")
        assert sum(a != b for a, b in zip(reply, b"the very same reply", strict=True)) == 1
    assert all(
        a != b
        for reply in corrupted(echo, seed=1, share=1.0)
        for a, b in zip(reply, b"the very same reply", strict=True)
    )


def test_corruption_depends_on_the_seed_only(echo: int) -> None:
    assert corrupted(echo, seed=1) == corrupted(echo, seed=1)
    assert corrupted(echo, seed=1) != corrupted(echo, seed=2)


# ------------------------------------------------------------------------------------------- life and errors


@pytest.mark.parametrize("mode", ["pass", "blackhole", "refuse"])
def test_close_ends_connections_thread_and_port_in_every_mode(echo: int, mode: FaultMode) -> None:
    before = threading.active_count()
    proxy = FaultProxy("127.0.0.1", echo)
    with connect(proxy) as client:
        until(lambda: proxy.open_connections == 1)
        proxy.set(mode)
        proxy.close()
        proxy.close()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    with pytest.raises(ConnectionRefusedError):
        connect(proxy)
    # The echo server's own thread for the connection ends a moment later.
    until(lambda: threading.active_count() <= before)
    assert not [thread for thread in threading.enumerate() if thread.name.endswith(f"-{proxy.port}")]
    with pytest.raises(RuntimeError, match="closed"):
        proxy.set("pass")


@pytest.mark.parametrize(
    ("mode", "options", "named"),
    [
        ("slow", {}, "mode"),
        ("pass", {"ms": 5}, "ms"),
        ("latency", {}, "ms"),
        ("latency", {"ms": -1}, "ms"),
        ("latency", {"ms": float("nan")}, "ms"),
        ("rate", {"bytes_per_second": 0}, "bytes_per_second"),
        ("corrupt", {"share": 1.5}, "share"),
        ("truncate", {"share": 0.5}, "share"),
    ],
)
def test_a_wrong_mode_or_option_is_named_and_changes_nothing(
    proxy: FaultProxy, mode: FaultMode, options: dict[str, Any], named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        proxy.set(mode, **options)
    with connect(proxy) as client:
        assert ask(client, b"still passes") == b"still passes"


async def test_it_serves_and_switches_under_a_running_event_loop(proxy: FaultProxy) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    proxy.set("latency", ms=1)
    writer.write(b"async")
    assert await reader.readexactly(5) == b"async"
    writer.close()
    await writer.wait_closed()
