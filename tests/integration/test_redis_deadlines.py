"""The Redis store and time: deadlines, connections that went stale, and closing while calls are under way.

What must not hang has limits of half a minute to ignore, and is given a fraction of a second.
"""

# ruff: noqa: E402 - most imports need redis, without which all of this is skipped
from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

redis = pytest.importorskip("redis", reason="needs the extra redis")

import redis_servers
from redis_servers import wait_until
from redis_store_tools import EAST, KEYS, PATIENT, SPACE, opened

from aicache._clock import SystemClock
from aicache._deadline import Deadline
from aicache._errors import StoreError
from aicache._model import Search
from aicache.stores._redis_clients import Clients, Limits
from aicache.stores._redis_making import ASYNC, SYNC, make_client
from aicache.stores._redis_url import read_url
from aicache.stores._redis_waits import BoundedLock
from aicache.stores.redis import RedisStore
from aicache.testing import FakeClock, FaultProxy, make_entry, make_key, make_partition, make_vector

if TYPE_CHECKING:
    from redis_servers import Cluster, Node, SentinelSet

ENDLESS: dict[str, Any] = {"timeout": 30.0, "connect_timeout": 30.0}
SHORT = 0.1
"""Seconds given."""
HANGS = 15.0
"""Seconds that only a call takes that ignores its deadline."""
HALVES = pytest.mark.parametrize("half", ["sync", "async"])


class Asked:
    """A store asked through one of its halves, from a test that is not async itself."""

    def __init__(self, store: RedisStore, half: str) -> None:
        self.store = store
        self._runner = asyncio.Runner() if half == "async" else None

    def __call__(self, name: str, *arguments: Any, seconds: float | None = None) -> Any:
        deadline = Deadline(SystemClock(), seconds)
        if self._runner is None:
            return deadline.call(lambda: getattr(self.store, name)(*arguments))
        return self._runner.run(deadline.wait(getattr(self.store, f"a{name}")(*arguments)))

    def together(self, name: str, many: list[Any], *, seconds: float | None = None) -> list[Any]:
        """The result, or the error, of each, asked for at once."""
        if self._runner is None:

            def act(each: Any) -> Any:
                try:
                    return Deadline(SystemClock(), seconds).call(lambda: getattr(self.store, name)(each))
                except StoreError as error:
                    return error

            with ThreadPoolExecutor(len(many)) as executor:
                return list(executor.map(act, many))

        async def gathered() -> list[Any]:
            waits = [Deadline(SystemClock(), seconds).wait(getattr(self.store, f"a{name}")(each)) for each in many]
            return await asyncio.gather(*waits, return_exceptions=True)

        return self._runner.run(gathered())

    def close(self) -> None:
        """Close the store and the loop."""
        if self._runner is None:
            self.store.close()
        else:
            self._runner.run(self.store.aclose())
            self._runner.close()


@contextlib.contextmanager
def asked(url: str, half: str, **options: Any) -> Iterator[Asked]:
    """A store at that address, closed at the end."""
    ask = Asked(RedisStore(url, **(PATIENT | options)), half)
    try:
        yield ask
    finally:
        ask.close()


def took(act: Callable[[], object]) -> float:
    """How long it took to fail."""
    began = time.monotonic()
    with pytest.raises(StoreError):
        act()
    return time.monotonic() - began


def eventually(ask: Asked, entry: Any) -> bool:
    """Whether the store's first reply, after the servers have found each other again, is this entry."""

    def replied() -> list[Any]:
        try:
            return [ask("fetch", entry.key)]
        except StoreError:
            return []

    reply: list[Any] = wait_until(replied, "the servers answer again")
    return reply == [entry]


@dataclass(frozen=True)
class Place:
    """Servers behind a URL, all of which can be paused."""

    url: str
    nodes: tuple[Any, ...]

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        for node in self.nodes:
            node.pause()
        try:
            yield
        finally:
            for node in self.nodes:
                node.resume()

    def disconnect(self) -> None:
        """Close all connections, as after a time in which they were idle."""
        for node in self.nodes:
            node.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    def connections(self) -> int:
        """Those that the stores of this program have open."""
        return sum(each["name"] == "aicache" for node in self.nodes for each in node.command("CLIENT LIST"))


@pytest.fixture
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    if request.param == "tls":
        with redis_servers.tls() as server:
            yield Place(f"{server.url}?ssl_ca_certs={server.certificate}", (server.node,))
        return
    name = {"unix": "redis_standalone", "sentinel": "redis_sentinel", "cluster": "redis_cluster"}
    group = request.getfixturevalue(name.get(request.param, "redis_standalone"))
    group.reset()
    match request.param:
        case "unix":
            yield Place(group.unix_url, (group,))
        case "sentinel":
            yield Place(group.url, (group.primary(),))
        case "cluster":
            yield Place(group.url, tuple(group.all_nodes()))
        case _:
            yield Place(group.url, (group,))


def places(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("place", names, indirect=True)


@pytest.fixture
def proxy(redis_standalone: Node) -> Iterator[FaultProxy]:
    redis_standalone.flush()
    with FaultProxy("127.0.0.1", redis_standalone.port) as proxy:
        yield proxy


# ------------------------------------------------------------------------------------------------ stale connections

ENTRIES = [make_entry(f"q{n}", partition=make_partition(f"p{n % 6}"), vector=make_vector(1, n)) for n in range(16)]


@HALVES
@places("single", "unix", "tls", "cluster", "sentinel")
def test_connections_closed_while_they_were_idle_cost_no_call(place: Place, half: str) -> None:
    with asked(place.url, half, max_connections=16) as ask:
        for entry in ENTRIES:
            ask("write", entry)
        keys = [entry.key for entry in ENTRIES]
        calls: list[Callable[[], object]] = [
            lambda: ask.together("fetch", keys) == ENTRIES,
            lambda: ask("size").entries == len(ENTRIES),
            lambda: [one.entry for one in ask("nearest", Search(make_partition("p0"), SPACE, EAST, 1))] == [ENTRIES[0]],
            lambda: ask("touch", ENTRIES[1].key, 4e9) is None,
            lambda: ask("write", ENTRIES[2]) is None,
            lambda: ask("remove", [ENTRIES[3].key]) == 1,
        ]
        for call in calls:
            assert ask.together("fetch", keys)  # Opens many.
            place.disconnect()
            assert call()


@HALVES
def test_connections_that_were_reset_cost_no_call(proxy: FaultProxy, half: str) -> None:
    with asked(proxy.url, half, max_connections=16) as ask:
        ask.together("write", ENTRIES)
        for _ in range(3):
            assert ask.together("fetch", [entry.key for entry in ENTRIES]) == ENTRIES
            proxy.drop()
            assert ask("fetch", ENTRIES[0].key) == ENTRIES[0]


@HALVES
def test_a_server_that_was_restarted_costs_no_call(half: str) -> None:
    with redis_servers.standalone() as server, asked(server.url, half) as ask:
        for _ in range(2):
            ask("write", ENTRIES[0])
            server.restart()
            assert ask("fetch", ENTRIES[0].key) is None


@HALVES
def test_what_got_no_reply_in_time_is_sent_once(proxy: FaultProxy, half: str) -> None:
    with asked(proxy.url, half, timeout=0.1) as ask:
        ask("fetch", ENTRIES[0].key)
        proxy.set("blackhole")
        before = proxy.connections
        took(lambda: ask("fetch", ENTRIES[0].key))
        assert proxy.connections == before
        took(lambda: ask("fetch", ENTRIES[0].key))
        assert proxy.connections == before + 1
        proxy.set("pass")


# ------------------------------------------------------------------------------------------------ deadlines


@HALVES
@places("single", "unix", "tls", "cluster", "sentinel")
def test_no_call_waits_longer_than_its_deadline(place: Place, half: str) -> None:
    with asked(place.url, half, **ENDLESS) as warm, asked(place.url, half, **ENDLESS) as cold:
        warm("write", ENTRIES[0])
        with place.paused():
            for ask in (warm, cold):
                assert took(partial(ask, "fetch", ENTRIES[0].key, seconds=SHORT)) < HANGS
                assert took(partial(ask, "size", seconds=SHORT)) < HANGS
        for ask in (warm, cold):
            assert eventually(ask, ENTRIES[0])


@HALVES
@pytest.mark.parametrize("scheme", ["redis", "rediss", "redis+cluster", "redis+sentinel"])
def test_a_server_that_is_connected_to_and_says_nothing_costs_a_deadline(
    proxy: FaultProxy, scheme: str, half: str
) -> None:
    proxy.set("blackhole")
    end = "/service" if scheme.endswith("sentinel") else ""
    with asked(f"{scheme}://127.0.0.1:{proxy.port}{end}", half, **ENDLESS) as ask:
        assert took(lambda: ask("fetch", ENTRIES[0].key, seconds=SHORT)) < HANGS


@HALVES
def test_a_reply_that_comes_in_pieces_has_one_deadline(proxy: FaultProxy, half: str) -> None:
    long = make_entry("long", answer="x" * 20_000)
    with asked(proxy.url, half, **ENDLESS) as ask:
        ask("write", long)
        proxy.set("rate", bytes_per_second=500)
        assert took(lambda: ask("fetch", long.key, seconds=SHORT)) < HANGS
        proxy.set("pass")
        assert ask("fetch", long.key) == long


@HALVES
def test_connecting_and_all_that_follows_have_one_deadline(proxy: FaultProxy, half: str) -> None:
    proxy.set("latency", ms=100)
    with asked(proxy.url, half, **ENDLESS) as ask:
        took(lambda: ask("fetch", ENTRIES[0].key, seconds=0.25))
        assert 1 <= proxy.round_trips <= 3  # At most two replies have come, and one more was waited for.


def test_a_host_name_whose_address_does_not_come_costs_a_deadline(
    redis_standalone: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = threading.Event()
    resolve = socket.getaddrinfo

    def slow(host: Any, *arguments: Any, **options: Any) -> Any:
        if host == "redis.internal":
            found.wait()
            host = "127.0.0.1"
        return resolve(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    port = redis_standalone.port
    with contextlib.closing(RedisStore(f"redis://redis.internal:{port}", timeout=5.0, connect_timeout=5.0)) as store:
        with pytest.raises(StoreError):
            Deadline(SystemClock(), 0.05).call(lambda: store.fetch(make_key("q")))
        assert not found.is_set(), "it was not waited for"
        found.set()
        assert Deadline(SystemClock(), 30.0).call(lambda: store.fetch(make_key("q"))) is None


def test_what_has_no_time_left_sends_nothing(proxy: FaultProxy) -> None:
    clock = FakeClock()
    with opened(proxy) as store:
        store.fetch(ENTRIES[0].key)
        sent = proxy.bytes_to_server
        deadline = Deadline(clock, 1.0)
        clock.advance(1.0)
        with pytest.raises(StoreError):
            deadline.call(lambda: store.fetch(ENTRIES[0].key))
        assert proxy.bytes_to_server == sent


@HALVES
def test_the_wait_for_a_free_connection_ends_with_the_deadline(redis_standalone: Node, half: str) -> None:
    with asked(redis_standalone.url, half, **(ENDLESS | {"max_connections": 1})) as ask:
        ask("fetch", make_key("q"))
        redis_standalone.pause()
        try:
            began = time.monotonic()
            failed = ask.together("fetch", [make_key("q")] * 3, seconds=SHORT)
            assert time.monotonic() - began < HANGS
        finally:
            redis_standalone.resume()
        assert all(isinstance(one, StoreError) for one in failed)


@HALVES
@places("single", "tls", "cluster", "sentinel")
def test_after_a_reply_that_came_too_late_each_command_gets_its_own(place: Place, half: str) -> None:
    with asked(place.url, half, max_connections=1) as ask:
        for entry in ENTRIES:
            ask("write", entry)
        for late, entry in zip(ENTRIES[:4], ENTRIES[4:8], strict=True):
            with place.paused():
                took(partial(ask, "fetch", late.key, seconds=0.03))
                took(lambda: ask("size", seconds=0.03))
            assert eventually(ask, entry)
            assert ask("size").entries == len(ENTRIES)
            assert ask("fetch", late.key) == late


@HALVES
def test_lookups_alone_find_the_server_that_took_over_from_one_that_hangs(redis_cluster: Cluster, half: str) -> None:
    redis_cluster.reset()
    entry = ENTRIES[0]
    with asked(redis_cluster.url, half, timeout=0.1, connect_timeout=0.1) as ask:

        def found() -> bool:
            with contextlib.suppress(StoreError):
                return bool(ask("fetch", entry.key, seconds=0.1) == entry)
            return False

        def written() -> bool:
            with contextlib.suppress(StoreError):
                ask("write", entry)
            return found()

        wait_until(written, "the entry is there")
        redis_cluster.owner(KEYS.entry(entry.key)).command("WAIT", 1, 2000)
        hanging = redis_cluster.pause_primary(KEYS.entry(entry.key))
        try:
            wait_until(found, "a lookup reaches the new primary")
        finally:
            hanging.resume()
    redis_cluster.reset()


@HALVES
def test_writes_alone_find_the_server_that_took_over_from_one_that_died(redis_cluster: Cluster, half: str) -> None:
    redis_cluster.reset()
    entry = ENTRIES[0]
    with asked(redis_cluster.url, half, timeout=0.1, connect_timeout=0.1) as ask:

        def written() -> bool:
            with contextlib.suppress(StoreError):
                ask("write", entry, seconds=0.25)
                return True
            return False

        wait_until(written, "the entry is there")
        redis_cluster.kill_primary(KEYS.entry(entry.key))
        wait_until(written, "a write reaches the new primary")
        assert ask("fetch", entry.key) == entry
    redis_cluster.reset()


@HALVES
def test_the_new_primary_that_the_sentinels_name_is_found_at_once(redis_sentinel: SentinelSet, half: str) -> None:
    redis_sentinel.reset()
    entry = ENTRIES[0]
    with asked(redis_sentinel.url, half, timeout=0.1, connect_timeout=0.1) as ask:
        ask("write", entry)
        old = redis_sentinel.kill_primary()
        with pytest.raises(StoreError):
            ask("write", entry, seconds=0.25)
        redis_sentinel.wait_primary(lambda primary: primary is not old)
        ask("write", entry, seconds=0.25)
        assert ask("fetch", entry.key, seconds=0.25) == entry
    redis_sentinel.reset()


@places("cluster")
def test_no_thread_waits_beyond_its_deadline_for_another_that_looks_for_the_slots(place: Place) -> None:
    with asked(place.url, "sync", **ENDLESS) as ask, ThreadPoolExecutor(1) as executor:
        ask("write", ENTRIES[0])
        with place.paused():
            took(partial(ask, "fetch", ENTRIES[0].key, seconds=SHORT))
            patient = executor.submit(ask, "fetch", ENTRIES[0].key)  # Looks for them first, after that.
            for _ in range(5):
                assert took(partial(ask, "fetch", ENTRIES[0].key, seconds=SHORT)) < HANGS
            assert not patient.done()
        assert patient.result() == ENTRIES[0]


LIBRARIES = pytest.mark.parametrize("library", [SYNC, ASYNC], ids=["sync", "async"])


@LIBRARIES
def test_the_private_names_by_which_clients_of_clusters_are_changed_are_there(
    redis_cluster: Cluster, library: Any
) -> None:
    redis_cluster.reset()
    client = make_client(library, read_url(redis_cluster.url), Limits(1.0, 1.0, 4))
    if library is ASYNC:
        assert type(client.commands_parser).__module__ == make_client.__module__
        return
    with contextlib.closing(client):
        lock = getattr(client.nodes_manager, "_initialization_lock", None)
        assert isinstance(lock, BoundedLock) or (lock is None and redis.__version__.startswith("6."))


@LIBRARIES
def test_clients_of_a_redis_py_without_these_names_are_left_as_they_are(library: Any) -> None:
    client = SimpleNamespace(nodes_manager=SimpleNamespace())
    library.mend(client, Limits(1.0, 1.0, 4))
    assert client == SimpleNamespace(nodes_manager=SimpleNamespace())


@HALVES
def test_slots_that_have_moved_cost_no_connection_and_no_list_of_commands(redis_cluster: Cluster, half: str) -> None:
    """The latter is asked for by a client of redis-py as it begins, and by async ones again and again."""
    redis_cluster.reset()
    nodes = redis_cluster.all_nodes()

    def connected() -> set[str]:
        return {
            f"{node.port} {each['id']}"
            for node in nodes
            for each in node.command("CLIENT LIST")
            if each["name"] == "aicache"
        }

    def listed() -> int:
        told = [node.info("commandstats").get("cmdstat_command", {}) for node in nodes]
        return sum(each.get("calls", 0) for each in told)

    before = listed()
    with asked(redis_cluster.url, half) as ask:
        for entry in ENTRIES:
            ask("write", entry)
        open_before = connected()
        moved = [KEYS.entry(entry.key) for entry in ENTRIES[:6]]
        for _ in range(2):
            to = redis_cluster.owner(moved[0])
            redis_cluster.reshard([slot for slot in moved if redis_cluster.owner(slot) is not to], to)
            for entry in ENTRIES[6:12]:
                assert ask("fetch", entry.key) == entry
            redis_cluster.reshard(moved)
            for entry in ENTRIES[:6]:
                ask("write", entry)
            assert [one.entry for one in ask("nearest", Search(make_partition("p0"), SPACE, EAST, 1))] == [ENTRIES[0]]
            assert ask("remove", [ENTRIES[5].key]) == 1
        assert open_before <= connected()
        assert listed() - before == (1 if half == "sync" else 0)


@HALVES
@places("single", "unix", "tls")
def test_a_long_write_has_one_deadline_and_arrives_whole(place: Place, half: str) -> None:
    long = make_entry("long", answer=random.Random(0).randbytes(8_000_000).hex())
    with asked(place.url, half, **ENDLESS) as ask:
        ask("write", long)
        assert ask("fetch", long.key) == long
        with place.paused():
            assert took(partial(ask, "write", long, seconds=SHORT)) < HANGS
        assert eventually(ask, long)


# ------------------------------------------------------------------------------------------------ closing


@HALVES
@places("single", "tls", "cluster", "sentinel")
def test_closing_lets_what_is_under_way_end_and_leaves_no_connection(place: Place, half: str) -> None:
    before = place.connections()
    store = RedisStore(place.url, **(PATIENT | {"max_connections": 8}))

    async def in_a_loop() -> list[Any]:
        for entry in ENTRIES:
            await store.awrite(entry)
        lookups = [asyncio.create_task(store.afetch(entry.key)) for entry in ENTRIES * 4]
        await asyncio.sleep(0)
        await store.aclose()
        assert all(lookup.done() for lookup in lookups)
        return await asyncio.gather(*lookups, return_exceptions=True)

    def in_threads() -> list[Any]:
        for entry in ENTRIES:
            store.write(entry)
        with ThreadPoolExecutor(16) as executor:
            lookups = [executor.submit(store.fetch, entry.key) for entry in ENTRIES * 4]
            store.close()
            return [lookup.exception() or lookup.result() for lookup in lookups]

    replies = asyncio.run(in_a_loop()) if half == "async" else in_threads()
    for reply, entry in zip(replies, ENTRIES * 4, strict=True):
        assert reply == entry or "closed" in str(reply)
    assert ENTRIES[0] in replies
    wait_until(lambda: place.connections() == before, "all connections are closed")
    gc.collect()  # A connection that nobody closed would warn now.


@HALVES
def test_closing_does_not_wait_for_a_server_that_hangs(proxy: FaultProxy, half: str) -> None:
    for warm in (True, False):
        store = RedisStore(proxy.url, **ENDLESS)
        if half == "async":
            asyncio.run(_closed_in_a_loop(store, proxy, warm=warm))
        else:
            _closed_from_another_thread(store, proxy, warm=warm)
        wait_until(lambda: proxy.open_connections == 0, "all connections are closed")
        gc.collect()


def test_a_loop_runs_on_while_threads_end_what_they_have_under_way(redis_standalone: Node) -> None:
    clients = Clients(read_url(redis_standalone.url), Limits(1.0, 1.0, 4), None)
    entered, loop_ran = threading.Event(), threading.Event()
    order: list[str] = []

    def act() -> None:
        with clients.use():
            entered.set()
            loop_ran.wait(HANGS)

    def another_task() -> None:
        order.append("another task")
        loop_ran.set()

    async def scenario() -> None:
        asyncio.get_running_loop().call_soon(another_task)
        await clients.aclose()
        order.append("closed")

    with ThreadPoolExecutor(1) as executor:
        acting = executor.submit(act)
        entered.wait(HANGS)
        asyncio.run(scenario())
        acting.result()
    assert order == ["another task", "closed"]


async def _closed_in_a_loop(store: RedisStore, proxy: FaultProxy, *, warm: bool) -> None:
    if warm:
        await store.afetch(make_key("q"))
    before = proxy.connections
    proxy.set("blackhole")
    lookups = [asyncio.create_task(store.afetch(make_key("q"))) for _ in range(4)]
    await asyncio.to_thread(wait_until, lambda: proxy.connections > before, "one more has connected")
    began = time.monotonic()
    await store.aclose()
    assert time.monotonic() - began < HANGS
    proxy.set("pass")
    assert all(isinstance(one, StoreError) for one in await asyncio.gather(*lookups, return_exceptions=True))


def _closed_from_another_thread(store: RedisStore, proxy: FaultProxy, *, warm: bool) -> None:
    if warm:
        store.fetch(make_key("q"))
    before = proxy.connections
    proxy.set("blackhole")
    with ThreadPoolExecutor(4) as executor:
        lookups = [executor.submit(store.fetch, make_key("q")) for _ in range(4)]
        wait_until(lambda: proxy.connections > before, "one more has connected")
        began = time.monotonic()
        store.close()
        assert all(isinstance(lookup.exception(HANGS), StoreError) for lookup in lookups)
        assert time.monotonic() - began < HANGS
    proxy.set("pass")


def test_closing_from_another_thread_ends_what_a_loop_has_under_way(proxy: FaultProxy) -> None:
    store = RedisStore(proxy.url, **ENDLESS)

    async def scenario() -> None:
        await store.afetch(make_key("q"))
        before = proxy.connections
        proxy.set("blackhole")
        lookups = [asyncio.create_task(store.afetch(make_key("q"))) for _ in range(4)]
        await asyncio.to_thread(wait_until, lambda: proxy.connections > before, "one more has connected")
        threading.Thread(target=store.close).start()
        done, waiting = await asyncio.wait(lookups, timeout=HANGS)
        assert not waiting
        assert all(isinstance(lookup.exception(), StoreError) for lookup in done)
        proxy.set("pass")

    asyncio.run(scenario())
    wait_until(lambda: proxy.open_connections == 0, "all connections are closed")
    gc.collect()
