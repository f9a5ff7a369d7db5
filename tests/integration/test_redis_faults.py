"""The Redis store when something is wrong: with the server, with what is stored, with what it is told."""

# ruff: noqa: E402 - most imports need redis, without which all of this is skipped
from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

redis = pytest.importorskip("redis", reason="needs the extra redis")

from hypothesis import given, settings
from hypothesis import strategies as st
from redis_servers import standalone, wait_until
from redis_store_tools import EAST, FUTURE, KEYS, NORTH, PATIENT, SPACE, keys_of, opened

from aicache._errors import ConfigurationError, StoreError, UnreadableEntryError
from aicache._model import Search, Selection
from aicache.stores._redis_plan import Operation, Refusal
from aicache.stores.redis import RedisStore
from aicache.testing import make_entry, make_key, make_partition, make_vector

if TYPE_CHECKING:
    from redis_servers import Cluster, Node, SentinelSet


DIALECTS = ["vector sets", "search", "plain"]


@pytest.fixture
def server(redis_standalone: Node) -> Node:
    redis_standalone.flush()
    return redis_standalone


@pytest.fixture
def store(server: Node) -> Iterator[RedisStore]:
    with opened(server) as store:
        yield store


# ------------------------------------------------------------------------------------------------ faults


def test_whatever_is_damaged_in_a_value_it_is_never_served(store: RedisStore, server: Node) -> None:
    entry = make_entry("q", "the answer", vector=EAST, tags=["x"], expires=FUTURE)
    store.write(entry)
    name = KEYS.entry(entry.key)
    with server.client(decode_responses=False) as client:
        value = client.execute_command("GET", name)
        for place in range(len(value)):
            client.setrange(name, place, bytes([value[place] ^ 0x41]))
            try:
                assert store.fetch(entry.key) is None, place
                assert 1 <= place <= 8, "the generation"
            except UnreadableEntryError:
                pass
            assert list(store.nearest(Search(entry.key.partition, SPACE, EAST, 5))) == [], place
            client.setrange(name, place, value[place : place + 1])
        for length in range(0, len(value), 7):
            client.set(name, value[:length])
            with pytest.raises(UnreadableEntryError):
                store.fetch(entry.key)
        store._known._dead.clear()
        client.set(name, value)
    assert store.fetch(entry.key) == entry


@pytest.mark.parametrize(("version", "order"), [(1, "older"), (4, "newer")])
def test_another_format_is_unreadable_and_can_be_replaced_and_removed(
    store: RedisStore, server: Node, version: int, order: str
) -> None:
    entry = make_entry("q", vector=EAST)
    name = KEYS.entry(entry.key)
    for end in (store.write, lambda entry: store.remove([entry.key])):
        store.write(entry)
        server.command("SETRANGE", name, 0, bytes([version]))
        with pytest.raises(UnreadableEntryError, match=order):
            store.fetch(entry.key)
        end(entry)
        assert store.fetch(entry.key) == (entry if end == store.write else None)


def test_an_entry_moved_under_another_key_is_unreadable(store: RedisStore, server: Node) -> None:
    one, other = make_entry("one", vector=EAST), make_entry("other", vector=NORTH)
    store.write(one)
    store.write(other)
    keys = KEYS
    server.command("COPY", keys.entry(one.key), keys.entry(other.key), "REPLACE")
    with pytest.raises(UnreadableEntryError):
        store.fetch(other.key)
    assert [found.entry for found in store.nearest(Search(make_partition(), SPACE, NORTH, 5))] == [one]


def test_keys_of_another_type_are_store_errors_or_are_replaced(store: RedisStore, server: Node) -> None:
    entry = make_entry("q", vector=EAST)
    store.write(entry)
    for key in sorted(keys_of(server)):
        server.command("DEL", key)
        server.command("LPUSH", key, "something else")
        for act in (
            lambda: store.fetch(entry.key),
            lambda: store.nearest(Search(entry.key.partition, SPACE, EAST, 5)),
            lambda: store.write(entry),
            lambda: store.touch(entry.key, 5.0),
            lambda: store.remove([entry.key]),
            lambda: store.sweep(FUTURE, 5),
            store.size,
            lambda: store.clear(Selection(tags=("x",))),
        ):
            with contextlib.suppress(StoreError):
                act()
        server.command("FLUSHALL")
        store.write(entry)
        assert store.fetch(entry.key) == entry


def test_a_server_that_lost_its_scripts_is_taught_them_again(store: RedisStore, server: Node) -> None:
    entry = make_entry(vector=EAST)
    store.write(entry)
    server.command("SCRIPT", "FLUSH")
    store.write(entry)
    server.command("SCRIPT", "FLUSH")
    assert len(store.nearest(Search(entry.key.partition, SPACE, EAST, 5))) == 1


def test_a_full_server_refuses_writes_and_answers_reads() -> None:
    with standalone("--maxmemory-policy", "noeviction") as server, opened(server) as store:
        entry = make_entry(vector=EAST)
        store.write(entry)
        server.command("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(StoreError, match="memory"):
            store.write(make_entry("more", vector=NORTH))
        assert store.fetch(entry.key) == entry
        assert len(store.nearest(Search(entry.key.partition, SPACE, EAST, 5))) == 1
        assert store.remove([entry.key]) == 1


def test_a_full_server_can_be_cleared_and_told_of_wrong_pairs() -> None:
    with standalone("--maxmemory-policy", "noeviction") as server, opened(server) as store, opened(server) as other:
        entry, more = make_entry(vector=EAST), make_entry("more", vector=NORTH)
        store.write(entry)
        store.write(more)
        before = other.epoch()
        server.command("CONFIG", "SET", "maxmemory", "1")
        store.block(make_key("asker"), entry.key)
        search = Search(entry.key.partition, SPACE, EAST, 5, make_key("asker"))
        assert [one.entry for one in store.nearest(search)] == [more]
        assert store.clear(Selection()) == 2
        assert other.epoch() != before, "others hear of it"


def test_a_server_that_is_gone_silent_or_new_is_a_store_error_at_most() -> None:
    with standalone() as server, opened(server, timeout=0.05) as store:
        entry = make_entry(vector=EAST)
        operations: list[Callable[[], object]] = [
            lambda: store.fetch(entry.key),
            lambda: store.nearest(Search(entry.key.partition, SPACE, EAST, 5)),
            lambda: store.write(entry),
            lambda: store.remove([entry.key]),
            lambda: store.clear(Selection()),
            lambda: store.sweep(0.0, 5),
            store.size,
            store.epoch,
        ]
        store.write(entry)
        server.pause()
        for act in operations:
            with pytest.raises(StoreError, match="in time"):
                act()
        server.resume()
        wait_until(lambda: _tried(lambda: store.fetch(entry.key)) == entry, "it answers again")
        server.kill()
        for act in operations:
            with pytest.raises(StoreError, match="reached"):
                act()
        server.restart()
        assert store.fetch(entry.key) is None
        store.write(entry)
        assert store.fetch(entry.key) == entry


def _tried(act: Callable[[], Any]) -> Any:
    try:
        return act()
    except StoreError:
        return None


@pytest.mark.parametrize("half", ["sync", "async"])
def test_a_cluster_that_loses_a_primary_recovers(redis_cluster: Cluster, half: str) -> None:
    redis_cluster.reset()
    entries = [make_entry(f"q{n}", partition=make_partition(f"p{n}"), vector=EAST) for n in range(40)]

    async def scenario() -> None:
        store = RedisStore(redis_cluster.url, timeout=0.5, connect_timeout=0.5)

        async def fetch(entry: Any) -> Any:
            try:
                return await store.afetch(entry.key) if half == "async" else store.fetch(entry.key)
            except StoreError:
                return StoreError

        for entry in entries:
            await store.awrite(entry)
        for primary in redis_cluster.primaries():
            primary.command("WAIT", 1, 2000)
        lost = KEYS.entry(entries[0].key)
        redis_cluster.kill_primary(lost)
        seen = [await fetch(entry) for entry in entries]
        assert all(one in (entry, StoreError) for one, entry in zip(seen, entries, strict=True))
        deadline = time.monotonic() + 30
        while StoreError in [await fetch(entry) for entry in entries]:
            assert time.monotonic() < deadline, "the cluster did not recover"
        assert [await fetch(entry) for entry in entries] == entries
        await store.aclose()

    asyncio.run(scenario())
    redis_cluster.reset()


@pytest.mark.parametrize("half", ["sync", "async"])
@pytest.mark.parametrize("act", ["clear", "remove", "sweep"])
def test_what_spans_a_cluster_goes_on_with_the_nodes_that_are_left(redis_cluster: Cluster, half: str, act: str) -> None:
    redis_cluster.reset()
    entries = [
        make_entry(f"q{n}", partition=make_partition(f"p{n}"), vector=EAST, expires=FUTURE, cluster=bytes(16))
        for n in range(60)
    ]
    homes = {name: redis_cluster.owner(name) for name in (KEYS.entry(entry.key) for entry in entries)}
    dead = homes[KEYS.entry(entries[0].key)]
    assert len(set(homes.values())) == 3

    async def scenario() -> None:
        store = RedisStore(redis_cluster.url, timeout=2, connect_timeout=2)

        keys = [entry.key for entry in entries]

        async def removed() -> int:
            match act, half:
                case "clear", "sync":
                    return store.clear(Selection())
                case "clear", _:
                    return await store.aclear(Selection())
                case "remove", "sync":
                    return store.remove(keys)
                case "remove", _:
                    return await store.aremove(keys)
                case _, "sync":
                    return store.sweep(FUTURE, 100)
                case _:
                    return await store.asweep(FUTURE, 100)

        await store.awrite_many(entries)
        for primary in redis_cluster.primaries():
            primary.command("WAIT", 1, 2000)
        assert store.fetch(entries[0].key) == entries[0], "the sync client knows the nodes"
        dead.kill()
        with pytest.raises(StoreError, match="1 of the cluster's nodes could not be reached"):
            await removed()
        assert [name for name, node in homes.items() if node is not dead and node.command("EXISTS", name)] == []
        deadline = time.monotonic() + 30
        while True:
            try:
                await removed()
                break
            except StoreError:
                assert time.monotonic() < deadline, "the cluster did not recover"
        assert (await store.afetch_many(keys) if half == "async" else store.fetch_many(keys)) == [None] * 60
        await store.aclose()

    asyncio.run(scenario())
    redis_cluster.reset()


@pytest.mark.parametrize("half", ["sync", "async"])
def test_a_slot_that_moves_costs_no_answer_for_good_and_never_gives_a_wrong_one(
    redis_cluster: Cluster, half: str
) -> None:
    redis_cluster.flush()
    home = make_partition()
    entries = [make_entry(f"q{n}", vector=make_vector(1, n)) for n in range(20)]
    slot = KEYS.entry(entries[0].key)

    async def scenario() -> None:
        store = RedisStore(redis_cluster.url, **PATIENT)

        async def fetched() -> list[object]:
            return [
                await (store.afetch(e.key) if half == "async" else asyncio.to_thread(store.fetch, e.key))
                for e in entries
            ]

        for entry in entries:
            await store.awrite(entry)
        assert await fetched() == entries
        with redis_cluster.moving(slot):
            for entry in entries:
                with contextlib.suppress(StoreError):
                    assert await store.afetch(entry.key) in (entry, None)
                with contextlib.suppress(StoreError):
                    assert store.fetch(entry.key) in (entry, None)
            with contextlib.suppress(StoreError):
                assert {one.entry.query for one in store.nearest(Search(home, SPACE, EAST, 50))} <= {
                    e.query for e in entries
                }
        assert await fetched() == entries
        assert (
            len(await store.anearest(Search(home, SPACE, EAST, 50)))
            == len(store.nearest(Search(home, SPACE, EAST, 50)))
            == 20
        )
        await store.aclose()

    asyncio.run(scenario())


def test_sentinels_lead_to_the_new_primary(redis_sentinel: SentinelSet) -> None:
    redis_sentinel.reset()
    with opened(redis_sentinel, timeout=0.5, connect_timeout=0.5) as store:
        entry = make_entry(vector=EAST)
        store.write(entry)
        redis_sentinel.primary().command("WAIT", 2, 2000)
        redis_sentinel.kill_primary()
        with pytest.raises(StoreError):
            store.fetch(entry.key)
        wait_until(lambda: _tried(lambda: store.fetch(entry.key)) == entry, "the new primary answers")
        store.write(entry)
    redis_sentinel.reset()


@pytest.mark.parametrize("kind", ["redis_standalone", "redis_cluster"])
def test_a_cancelled_call_leaves_no_reply_for_the_next_one(kind: str, request: pytest.FixtureRequest) -> None:
    server = request.getfixturevalue(kind)
    server.flush()
    entries = [make_entry(f"q{n}", vector=make_vector(1, n)) for n in range(8)]

    async def scenario() -> None:
        store = RedisStore(server.url, **(PATIENT | {"max_connections": 2}))
        for entry in entries:
            await store.awrite(entry)
        for steps in range(40):
            cancelled = [asyncio.create_task(store.afetch(entry.key)) for entry in entries[:4]]
            cancelled.append(asyncio.create_task(store.awrite(entries[0])))
            for _ in range(steps % 10):
                await asyncio.sleep(0)
            for task in cancelled:
                task.cancel()
            await asyncio.gather(*cancelled, return_exceptions=True)
            assert await asyncio.gather(*(store.afetch(entry.key) for entry in entries)) == entries
        await store.aclose()

    asyncio.run(scenario())


async def test_more_callers_than_connections_wait_for_their_turn_and_not_for_ever(server: Node) -> None:
    store = RedisStore(server.url, timeout=10, connect_timeout=10, max_connections=3)
    entry = make_entry(vector=EAST)
    await store.awrite(entry)
    assert await asyncio.gather(*(store.afetch(entry.key) for _ in range(60))) == [entry] * 60
    assert sum(each["name"] == "aicache" for each in server.command("CLIENT LIST")) <= 3
    await store.aclose()
    impatient = RedisStore(server.url, timeout=0.05, max_connections=1)
    await impatient.aepoch()
    with server.client(socket_timeout=10) as other:
        other.execute_command("CLIENT", "PAUSE", 400)
        caught = await asyncio.gather(*(impatient.afetch(entry.key) for _ in range(3)), return_exceptions=True)
    assert all(isinstance(one, StoreError) for one in caught)
    assert any("max_connections" in str(one) for one in caught)
    server.command("CLIENT", "UNPAUSE")
    await impatient.aclose()


_atoms = st.none() | st.integers() | st.binary(max_size=8) | st.booleans() | st.floats() | st.text(max_size=3)
_garbage = st.recursive(
    _atoms | st.builds(Refusal, st.sampled_from(["ERR", "OOM", "NOSCRIPT", "WRONGTYPE", "MOVED"])),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.binary(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(chosen=st.sampled_from(DIALECTS), number=st.integers(0, 18), data=st.data())
@settings(max_examples=500, deadline=None)
def test_replies_that_make_no_sense_are_store_errors(chosen: str, number: int, data: st.DataObject) -> None:
    store = RedisStore("redis://127.0.0.1:1", dialect=chosen)
    entry = make_entry(vector=EAST)
    does, search = store._operations, Search(entry.key.partition, SPACE, EAST, 5, entry.key)
    operations: list[Callable[[], Operation[Any]]] = [
        lambda: does.fetch(entry.key),
        lambda: does.fetch_many([entry.key, make_key("other")]),
        lambda: does.nearest(search),
        lambda: does.nearest_many([search, search]),
        lambda: store._writing.write(entry),
        lambda: store._writing.write_many([entry, replace(entry, cluster=bytes(16))]),
        lambda: does.join(entry.key, bytes(16)),
        lambda: store._logs.append(bytes(16), [b"lesson"]),
        lambda: store._logs.lessons(bytes(16), 0),
        lambda: store._logs.summary(bytes(16)),
        lambda: store._selecting.entries(Selection()),
        lambda: does.touch(entry.key, 5.0),
        lambda: does.remove([entry.key], dry_run=False),
        lambda: does.block(entry.key, entry.key),
        lambda: does.sweep(5.0, 5),
        lambda: store._selecting.clear(Selection(), dry_run=False),
        lambda: store._selecting.similar(Selection(), SPACE, EAST, 0.5),
        does.size,
        does.epoch,
    ]
    operation = operations[number]()
    try:
        commands = next(operation)
        for _ in range(6):
            commands = operation.send([data.draw(_garbage) for _ in commands])
    except (StoreError, StopIteration):
        pass
    finally:
        operation.close()


# ------------------------------------------------------------------------------------------------ credentials

SECRETS = ("hunter2", "us3r")


def leaks(text: str) -> bool:
    return any(secret in text for secret in SECRETS)


@pytest.mark.parametrize(
    "url",
    [
        "us3r:hunter2@localhost",
        "redis:/us3r:hunter2@localhost",
        "http://us3r:hunter2@localhost",
        "redis://us3r:hunter2@localhost:port",
        "redis://us3r:hunter2@localhost:99999",
        "redis://us3r:hunter2@[::1",
        "redis://us3r:hunter2@localhost?socket_timeout=hunter2",
        "redis://us3r:hunter2@localhost?hunter2=us3r",
        "rediss+cluster://us3r:hunter2@localhost?hunter2=us3r",
        "unix://us3r:hunter2@",
        "redis+cluster://us3r:hunter2@",
        "redis+cluster://us3r:hunter2@localhost/3",
        "redis+cluster://us3r:hunter2@localhost?retry_on_timeout=True",
        "redis+cluster://us3r:hunter2@a:x,b",
        "redis+sentinel://us3r:hunter2@localhost",
        "redis+sentinel://us3r:hunter2@localhost/a/b",
        "redis+other://us3r:hunter2@localhost",
        "hunter2+redis://us3r@localhost",
        "",
    ],
)
def test_a_url_that_makes_no_sense_is_refused_without_being_quoted(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        RedisStore(url)
    assert str(caught.value).startswith("store: ")
    assert not leaks("".join(traceback.format_exception(caught.value)).replace(repr(url), ""))
    assert not leaks(str(caught.value))
    assert caught.value.__context__ is None


@pytest.mark.parametrize("scheme", ["redis", "redis+cluster", "redis+sentinel"])
@pytest.mark.parametrize("half", ["sync", "async"])
def test_no_credential_is_in_any_log_error_or_repr(
    server: Node, scheme: str, half: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    end = "/service" if scheme.endswith("sentinel") else ""
    store = RedisStore(f"{scheme}://us3r:hunter2@127.0.0.1:{server.port}{end}", **PATIENT)

    async def afetch() -> None:
        with pytest.raises(StoreError) as caught:
            await store.afetch(make_key("a question")) if half == "async" else store.fetch(make_key("a question"))
        texts.append("".join(traceback.format_exception(caught.value)))
        assert caught.value.__cause__ is None
        assert caught.value.__context__ is None
        await store.aclose()

    texts = [repr(store), str(store), repr(vars(store))]
    asyncio.run(afetch())
    texts += [record.getMessage() for record in caplog.records]
    assert not any(map(leaks, texts))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("timeout", 0),
        ("timeout", float("nan")),
        ("connect_timeout", -1),
        ("keep_expired", "x"),
        ("max_connections", 0),
        ("max_connections", True),
        ("quantisation", "BIN"),
        ("dialect", "cobol"),
        ("prefix", "{x}"),
        ("prefix", ""),
    ],
)
def test_an_option_that_makes_no_sense_is_named(option: str, value: object) -> None:
    options: dict[str, Any] = {option: value}
    with pytest.raises(ConfigurationError, match=f"^{option}: "):
        RedisStore("redis://localhost", **options)


def test_a_url_or_clients_and_not_both() -> None:
    wrong: list[dict[str, Any]] = [{}, {"url": "redis://localhost", "client": object()}]
    for options in wrong:
        with pytest.raises(ConfigurationError, match="either a URL"):
            RedisStore(**options)


def test_construction_connects_to_nothing() -> None:
    for url in ("redis://192.0.2.1", "redis+cluster://192.0.2.1:1", "redis+sentinel://192.0.2.1:1/x"):
        RedisStore(url).close()
