"""The Redis store on real servers: round trips, expiry and eviction, several programs, faults, and what never leaks."""

# ruff: noqa: E402 - most imports need redis, without which all of this is skipped
from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

redis = pytest.importorskip("redis", reason="needs the extra redis")

import redis.asyncio  # noqa: F811 - the submodule of what is imported above
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test
from redis_servers import standalone, tls, wait_until
from redis_store_tools import (
    DIALECTS,
    EAST,
    FUTURE,
    KEYS,
    NORTH,
    PATIENT,
    SPACE,
    Counting,
    CountingAsync,
    keys_of,
    opened,
)

from aicache._errors import StoreError
from aicache._model import CacheKey, Entry, Search, Selection
from aicache.stores._redis_layout import BUCKETS, name_of
from aicache.stores._redis_plan import Refusal
from aicache.stores.redis import RedisStore
from aicache.testing import make_entry, make_key, make_partition, make_vector
from aicache.testing.machine import StoreMachine

if TYPE_CHECKING:
    from redis_servers import Cluster, Node


@pytest.fixture
def server(redis_standalone: Node) -> Node:
    redis_standalone.flush()
    return redis_standalone


@pytest.fixture
def store(server: Node) -> Iterator[RedisStore]:
    with opened(server) as store:
        yield store


# ------------------------------------------------------------------------------------------------ round trips


@pytest.mark.parametrize("dialect", DIALECTS)
def test_fetch_nearest_write_touch_and_remove_take_one_round_trip_each(redis_search: Node, dialect: str) -> None:
    redis_search.flush()
    Counting.sent = []
    pool = redis.ConnectionPool(connection_class=Counting, port=redis_search.port, socket_timeout=10)
    with redis.Redis(connection_pool=pool) as client:
        store = RedisStore(client=client, dialect=dialect)
        entry = make_entry(vector=EAST, expires=FUTURE)

        def takes(trips: int, act: Callable[[], object]) -> None:
            act()  # Asks for the dialect, opens the connection, teaches the server the script.
            Counting.sent.clear()
            act()
            assert len(Counting.sent) == trips

        takes(1, lambda: store.write(entry))
        takes(1, lambda: store.fetch(entry.key))
        takes(0 if dialect == "plain" else 1, lambda: store.nearest(Search(entry.key.partition, SPACE, EAST, 5)))
        takes(1, lambda: store.block(make_key("asker"), entry.key))
        takes(
            0 if dialect == "plain" else 1,
            lambda: store.nearest(Search(entry.key.partition, SPACE, EAST, 5, make_key("asker"))),
        )
        takes(1, lambda: store.touch(entry.key, FUTURE + 1))
        takes(1, lambda: store.remove([entry.key]))
        takes(1, store.epoch)


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_the_async_half_takes_the_same_round_trips(redis_search: Node, dialect: str) -> None:
    redis_search.flush()
    CountingAsync.sent = []
    pool = redis.asyncio.ConnectionPool(connection_class=CountingAsync, port=redis_search.port, socket_timeout=10)
    store = RedisStore(async_client=redis.asyncio.Redis.from_pool(pool), dialect=dialect)
    entry = make_entry(vector=EAST, expires=FUTURE)
    acts: list[tuple[int, Callable[[], Awaitable[object]]]] = [
        (1, lambda: store.awrite(entry)),
        (1, lambda: store.afetch(entry.key)),
        (0 if dialect == "plain" else 1, lambda: store.anearest(Search(entry.key.partition, SPACE, EAST, 5))),
        (1, lambda: store.ablock(make_key("asker"), entry.key)),
        (
            0 if dialect == "plain" else 1,
            lambda: store.anearest(Search(entry.key.partition, SPACE, EAST, 5, make_key("asker"))),
        ),
        (1, lambda: store.aremove([entry.key])),
    ]
    try:
        for trips, act in acts:
            await act()
            CountingAsync.sent.clear()
            await act()
            assert len(CountingAsync.sent) == trips
    finally:
        await pool.aclose()


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_read_writes_nothing(redis_search: Node, dialect: str) -> None:
    redis_search.flush()
    with opened(redis_search, dialect=dialect) as store:
        entry = make_entry(vector=EAST, expires=FUTURE)
        store.write(entry)
        assert store.fetch(entry.key) == entry
        before = int(redis_search.info("persistence")["rdb_changes_since_last_save"])
        assert store.fetch(entry.key) == entry
        assert store.fetch(make_key("unknown")) is None
        near = store.nearest(Search(entry.key.partition, SPACE, EAST, 5))
        assert len(near) == (dialect != "plain")
        assert int(redis_search.info("persistence")["rdb_changes_since_last_save"]) == before


# ------------------------------------------------------------------------------------------------ what is kept


def test_all_keys_of_a_partition_share_a_hash_tag_and_tell_nothing(store: RedisStore, server: Node) -> None:
    entry = make_entry("secret question", "secret answer", vector=EAST, tags=["secret tag"], expires=FUTURE)
    store.write(entry)
    keys = keys_of(server)
    assert len(keys) == 5
    assert {key.partition("{")[2].partition("}")[0] for key in keys} == {KEYS.bucket(entry.key.partition)}
    assert not any("secret" in key for key in keys)


def test_an_entry_lives_on_the_server_until_it_expires_and_a_little_longer(server: Node) -> None:
    with opened(server, keep_expired=100) as store:
        now = time.time()
        entry = make_entry("q", created=now, expires=now + 1000)
        name = KEYS.entry(entry.key)
        store.write(entry)
        assert 1000 < server.command("TTL", name) <= 1100
        store.touch(entry.key, now + 5000)
        assert 5000 < server.command("TTL", name) <= 5100
        store.touch(entry.key, None)
        assert server.command("TTL", name) == -1
        store.touch(entry.key, now - 5000)
        assert 0 < server.command("TTL", name) <= 100
        store.write(make_entry("q"))
        assert server.command("TTL", name) == -1


def test_clear_everything_leaves_the_keys_of_others(store: RedisStore, server: Node) -> None:
    server.command("SET", "aicache-other", "x")
    server.command("SET", "aicache:{00}x", "x")
    with opened(server, prefix="neighbour") as neighbour:
        entry = make_entry(vector=EAST)
        neighbour.write(entry)
        store.write(entry)
        assert store.clear(Selection()) == 1
        assert neighbour.fetch(entry.key) == entry
        assert server.command("EXISTS", "aicache-other", "aicache:{00}x") == 2
        assert neighbour.clear(Selection()) == 1


@pytest.mark.parametrize("dialect", DIALECTS)
def test_nothing_is_left_of_a_partition_whose_entries_are_gone(redis_search: Node, dialect: str) -> None:
    redis_search.flush()
    with opened(redis_search, dialect=dialect) as store:
        entries = [make_entry(f"q{n}", vector=make_vector(1, n), expires=5.0) for n in range(8)]
        removals: list[Callable[[], int]] = [
            lambda: store.remove([entry.key for entry in entries]),
            lambda: store.clear(Selection()),
            lambda: store.clear(Selection(tenant=entries[0].key.partition.tenant)),
            lambda: store.sweep(10.0, 100),
        ]
        for remove in removals:
            for entry in entries:
                store.write(entry)
            assert remove() == len(entries)
            assert keys_of(redis_search) == set()


def test_vectors_of_entries_that_expired_answer_nothing_and_go_with_the_next_write(server: Node) -> None:
    with opened(server) as store:
        gone = [make_entry(f"gone {n}", vector=make_vector(1, n / 100), expires=1.0) for n in range(12)]
        stays = make_entry("stays", vector=NORTH)
        for entry in (*gone, stays):
            store.write(entry)
        for entry in gone:
            server.command("PEXPIRE", KEYS.entry(entry.key), 1)  # What time does.
        wait_until(lambda: not server.command("EXISTS", *map(KEYS.entry, (e.key for e in gone))), "gone")
        (vectors,) = [key for key in keys_of(server) if ":v:" in key]
        assert server.command("VCARD", vectors) == 13
        # The dead ones are all nearer, and do not take its place.
        assert [one.entry for one in store.nearest(Search(stays.key.partition, SPACE, EAST, 1))] == [stays]
        assert server.command("VCARD", vectors) == 13, "a read wrote"
        store.write(make_entry("another", vector=NORTH))
        assert server.command("VCARD", vectors) == 2
        assert store.size().entries == 2


def test_sweeps_find_what_is_left_of_expired_and_evicted_entries(server: Node) -> None:
    with opened(server) as store:
        entries = [make_entry(f"q{n}", partition=make_partition(f"p{n % 5}"), vector=EAST) for n in range(30)]
        for entry in entries:
            store.write(entry)
        for entry in entries:
            server.command("DEL", KEYS.entry(entry.key))  # What an eviction does.
        for _ in range(256):
            store.sweep(0.0, 1)
        assert keys_of(server) == set()


def test_after_an_eviction_every_answer_is_right_and_clear_clears() -> None:
    with standalone("--maxmemory", "4mb", "--maxmemory-policy", "allkeys-random") as server, opened(server) as store:
        chance = random.Random(3)
        written = {}
        for number in range(1500):
            vector = make_vector(*(chance.gauss(0, 1) for _ in range(32)))
            entry = make_entry(f"q{number}", f"a{number}", body=chance.randbytes(2000), vector=vector)
            store.write(entry)
            written[entry.key] = entry
        assert int(server.info("stats")["evicted_keys"]) > 100
        for entry in list(written.values())[::50]:
            assert store.fetch(entry.key) in (entry, None)
            for candidate in store.nearest(Search(entry.key.partition, "fake/32", entry.vector or b"", 10)):
                assert candidate.entry == written[candidate.entry.key]
        store.clear(Selection())
        assert all(store.fetch(key) is None for key in written)


@pytest.mark.parametrize("change", ["clear", "remove", "write"])
def test_entries_whose_index_was_evicted_are_not_served_after_the_next_change(
    store: RedisStore, server: Node, change: str
) -> None:
    home = make_partition()
    kept, other = make_entry("kept", vector=EAST), make_entry("other", vector=NORTH)
    store.write(kept)
    server.command("DEL", KEYS.index(KEYS.bucket(home)))
    assert store.fetch(kept.key) == kept, "nobody has changed anything"
    match change:
        case "clear":
            store.clear(Selection(tags=("any",)))
        case "remove":
            store.remove([other.key])
        case _:
            store.write(other)
    assert store.fetch(kept.key) is None
    assert [one.entry for one in store.nearest(Search(home, SPACE, EAST, 5))] == ([other] if change == "write" else [])


def test_an_evicted_generation_costs_answers_until_the_next_write_and_then_comes_back(
    store: RedisStore, server: Node
) -> None:
    entry, other = make_entry("q", vector=EAST), make_entry("other", vector=NORTH)
    store.write(entry)
    server.command("DEL", KEYS.generation(KEYS.bucket(entry.key.partition)))
    assert store.fetch(entry.key) is None
    store.write(other)
    assert store.fetch(entry.key) == entry
    assert len(store.nearest(Search(entry.key.partition, SPACE, EAST, 5))) == 2


def write_by_hand(store: RedisStore, server: Node, entry: Entry, between: Callable[[], object]) -> None:
    """Write the entry, and do something when its vector is there and it is not."""
    store.epoch()  # Asks for the dialect.
    operation = store._writing.write(entry)
    shelf, vector, *rest = next(operation)
    assert [shelf.words[0], vector.words[0], rest[0].words[0]] == ["SADD", "VADD", "EVALSHA"]
    with server.client(decode_responses=False) as client:
        replies = [client.execute_command(*shelf.words), client.execute_command(*vector.words)]
        between()
        for command in rest:
            try:
                sent = command.in_full() if command.script else command
                replies.append(client.execute_command(*sent.words))
            except redis.exceptions.OutOfMemoryError:
                replies.append(Refusal("OOM"))
    with contextlib.suppress(StopIteration):
        operation.send(replies)
        raise AssertionError("the write wants more")


def vectors_in(server: Node) -> list[int]:
    """How many vectors each of the vector sets has."""
    return [server.command("VCARD", key) for key in keys_of(server) if ":v:" in key]


def test_a_search_that_sees_a_vector_before_its_entry_leaves_it_out_and_does_not_cost_it(
    store: RedisStore, server: Node
) -> None:
    entry, other = make_entry("q", vector=EAST), make_entry("other", vector=NORTH)
    store.write(other)

    def seen() -> list[Entry]:
        return [one.entry for one in store.nearest(Search(entry.key.partition, SPACE, EAST, 5))]

    before: list[Entry] = []
    write_by_hand(store, server, entry, lambda: before.extend(seen()))
    assert before == [other]
    store.write(other)  # Drops what was taken for dead, if it still is.
    assert seen() == [entry, other]


@pytest.mark.parametrize("change", ["remove", "clear", "sweep", "reap"])
def test_an_entry_whose_vector_was_removed_just_before_it_came_is_matched_exactly_and_removed_whole(
    store: RedisStore, server: Node, change: str
) -> None:
    entry, other = make_entry("q", vector=EAST, expires=FUTURE), make_entry("other", vector=NORTH)
    with opened(server) as second:
        second.write(other)
        if change != "reap":
            store.write(make_entry("q", vector=EAST, expires=5.0))

        def reap() -> None:
            second.nearest(Search(entry.key.partition, SPACE, EAST, 5))
            second.write(other)

        changes: dict[str, Callable[[], object]] = {
            "remove": lambda: second.remove([entry.key]),
            "clear": lambda: second.clear(Selection()),
            "sweep": lambda: second.sweep(10.0, 10),
            "reap": reap,
        }
        write_by_hand(store, server, entry, changes[change])

        def near() -> bool:
            return entry in [one.entry for one in store.nearest(Search(entry.key.partition, SPACE, EAST, 5))]

        assert store.fetch(entry.key) == entry
        assert not near()
        assert [one.key for one in store.similar(Selection(), SPACE, EAST, 0.9)] == [entry.key]
        store.write(entry)
        assert near()
        write_by_hand(store, server, entry, changes["remove"])
        assert store.remove([entry.key]) == 1
        store.remove([other.key])
        assert keys_of(server) == set()


def test_an_entry_that_moves_to_another_space_leaves_no_vector_behind(store: RedisStore, server: Node) -> None:
    old, new = (make_entry("q", vector=EAST, space=space) for space in ("old/2", "new/2"))
    store.write(old)
    found: list[Entry] = []

    def look() -> None:
        for space in ("old/2", "new/2"):
            found.extend(one.entry for one in store.nearest(Search(old.key.partition, space, EAST, 5)))

    write_by_hand(store, server, new, look)
    assert found == [old]
    assert vectors_in(server) == [1]
    look()
    assert found == [old, new]
    store.write(make_entry("another"))
    assert vectors_in(server) == [1], "what was taken for dead is alive by now"
    store.remove([new.key, make_key("another")])
    assert keys_of(server) == set()


@pytest.mark.parametrize("cleaner", ["sweep", "write"])
def test_the_vector_of_an_entry_for_which_there_was_no_memory_goes_again(
    store: RedisStore, server: Node, cleaner: str
) -> None:
    old = make_entry("old", "first", vector=EAST)
    store.write(old)

    def fill() -> None:
        server.command("CONFIG", "SET", "maxmemory", "1")

    for entry in (make_entry("old", "second", vector=NORTH), make_entry("new", vector=EAST)):
        try:
            with pytest.raises(StoreError, match="no memory"):
                write_by_hand(store, server, entry, fill)
        finally:
            server.command("CONFIG", "SET", "maxmemory", "0")
    assert vectors_in(server) == [2]
    if cleaner == "sweep":
        store.sweep(0.0, 1)
    else:
        store.write(make_entry("another"))
    assert vectors_in(server) == [1]
    assert store.fetch(old.key) == old
    assert [(one.entry, one.score) for one in store.nearest(Search(old.key.partition, SPACE, EAST, 5))] == [(old, 1.0)]


def test_the_vector_of_a_write_that_was_given_up_goes_again(store: RedisStore, server: Node) -> None:
    store.write(make_entry("other", expires=5.0))
    operation = store._writing.write(make_entry("q", vector=EAST))
    vector, *_ = next(operation)
    with server.client(decode_responses=False) as client:
        assert client.execute_command(*vector.words) == 1
    operation.close()  # What a timeout and a cancelled task come to.
    store.sweep(10.0, 10)
    assert keys_of(server) == set()


@pytest.mark.parametrize("dialect", ["vector sets", "search"])
@pytest.mark.parametrize("count", [20, 400])
def test_what_is_below_the_floor_stays_on_the_server(redis_search: Node, dialect: str, count: int) -> None:
    redis_search.flush()
    with opened(redis_search, dialect=dialect) as store:
        entries = [make_entry(f"q{n}", vector=make_vector(1, n / 10)) for n in range(count)]
        for entry in entries:
            store.write(entry)

        def found(floor: float, vector: bytes = EAST, asker: CacheKey | None = None) -> list[Entry]:
            near = store.nearest(Search(make_partition(), SPACE, vector, 10, asker, floor))
            return [one.entry for one in near]

        assert found(0.91) == entries[:5]
        assert found(0.75) == entries[:9]
        assert found(0.3)[:10] == entries[:10]
        store.block(make_key("asker"), entries[1].key)
        assert found(0.91, asker=make_key("asker")) == [entries[0], *entries[2:5]]
        # The nearest of all says how near anything is; RediSearch would have to look for it apart.
        assert found(0.91, make_vector(1, -1)) == (entries[:1] if dialect == "vector sets" else [])


def test_zero_and_nan_vectors_are_matched_exactly_only(store: RedisStore) -> None:
    for number, vector in enumerate((bytes(8), b"\x00\x00\xc0\x7f" * 2)):
        entry = make_entry(f"q{number}", vector=vector, space=SPACE)
        store.write(entry)
        assert store.fetch(entry.key) == entry
    assert list(store.nearest(Search(make_partition(), SPACE, EAST, 5))) == []


def test_a_large_shelf_is_searched_by_its_graph(store: RedisStore, server: Node) -> None:
    chance = random.Random(7)
    entries = [make_entry(f"q{n}", vector=make_vector(*(chance.gauss(0, 1) for _ in range(16)))) for n in range(1200)]
    for entry in entries:
        store.write(entry)
    found = [
        store.nearest(Search(entry.key.partition, "fake/16", entry.vector or b"", 3))[0].entry
        for entry in entries[::40]
    ]
    right = sum(one == other for one, other in zip(found, entries[::40], strict=True))
    assert right >= 29, "of 30"


class RedisMachine(StoreMachine):
    url = ""

    def make_store(self) -> RedisStore:
        store = RedisStore(self.url, **PATIENT)
        store.clear(Selection())
        return store


@pytest.mark.parametrize("kind", ["redis_standalone", "redis_search"])
def test_random_operations_agree_with_a_dict(kind: str, request: pytest.FixtureRequest) -> None:
    server: Node = request.getfixturevalue(kind)
    server.flush()

    class Machine(RedisMachine):
        url = server.url

        def make_store(self) -> RedisStore:
            store = RedisStore(self.url, **PATIENT, dialect="search" if kind == "redis_search" else None)
            store.clear(Selection())
            return store

    run_state_machine_as_test(Machine, settings=settings(max_examples=12, stateful_step_count=30, deadline=None))


# ------------------------------------------------------------------------------------------------ several programs

CHILD = """
import sys
from aicache._model import Selection
from aicache.stores.redis import RedisStore
from aicache.testing import make_entry, make_key, make_vector
store = RedisStore(sys.argv[1], timeout=10, connect_timeout=10)
assert store.fetch(make_key("theirs")) is not None
store.write(make_entry("mine", "from the child", vector=make_vector(1, 0)))
print(store.epoch(), flush=True)
sys.stdin.readline()
assert store.remove([make_key("theirs")]) == 1
print(store.epoch(), flush=True)
store.close()
"""


def test_two_processes_see_each_others_writes_and_removals(store: RedisStore, server: Node) -> None:
    store.write(make_entry("theirs", vector=NORTH))
    epoch = store.epoch()
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, server.url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        childs_epoch = child.stdout.readline()
        assert store.fetch(make_key("mine")) is not None
        assert [one.entry.query for one in store.nearest(Search(make_partition(), SPACE, EAST, 5))] == [
            "mine",
            "theirs",
        ]
        assert store.epoch() == epoch, "nothing was removed so far"
        child.stdin.write("go\n")
        child.stdin.flush()
        assert child.stdout.readline() == childs_epoch, "its own removal"
        assert store.fetch(make_key("theirs")) is None
        assert store.seen_epoch != epoch, "the change came along with the fetch"
        assert store.epoch() != epoch
    assert child.returncode == 0


FORKED = """
import asyncio, os, sys
from aicache.stores.redis import RedisStore
from aicache.testing import make_entry, make_key
store = RedisStore(sys.argv[1], timeout=10, connect_timeout=10)
store.write(make_entry("before"))
asyncio.run(store.afetch(make_key("before")))
epoch = store.epoch()
child = os.fork()
if child == 0:
    for number in range(50):
        assert store.fetch(make_key("before")) is not None
        assert asyncio.run(store.afetch(make_key("before"))) is not None
    store.write(make_entry("from the child"))
    store.remove([make_key("before")])
    store.close()
    os._exit(0)
for number in range(50):
    assert store.fetch(make_key("parent only")) is None
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert store.fetch(make_key("from the child")) is not None
assert store.fetch(make_key("before")) is None
assert store.epoch() != epoch, "the child's removal is another program's"
store.close()
"""


def test_parent_and_child_use_the_store_after_a_fork(server: Node) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", FORKED, server.url],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


@pytest.mark.parametrize("kind", ["redis_standalone", "redis_cluster", "redis_search"])
def test_the_epoch_moves_when_others_remove_or_replace_and_not_otherwise(
    kind: str, request: pytest.FixtureRequest
) -> None:
    server = request.getfixturevalue(kind)
    server.flush()
    dialect = "search" if kind == "redis_search" else None
    with opened(server, dialect=dialect) as mine, opened(server, dialect=dialect) as other:
        entry = make_entry("q", vector=EAST, tags=["x"], expires=FUTURE)
        mine.write(entry)

        def moves(act: Callable[[], object]) -> bool:
            before, others = mine.epoch(), other.epoch()
            act()
            assert other.epoch() == others, "its own change"
            return before != mine.epoch()

        assert not moves(lambda: other.write(make_entry("another")))
        assert moves(lambda: other.write(entry))
        assert not moves(lambda: other.touch(entry.key, FUTURE))
        assert moves(lambda: other.remove([entry.key]))
        # Told whatever is found: what the server evicted may be in another program's L1 still.
        assert moves(lambda: other.remove([entry.key]))
        assert not moves(lambda: other.remove([entry.key], dry_run=True))
        other.write(make_entry("expired", expires=5.0))
        assert not moves(lambda: other.write(make_entry("expired")))
        assert moves(lambda: other.clear(Selection(tags=("x",))))
        assert moves(lambda: other.clear(Selection()))
        assert not moves(lambda: other.clear(Selection(), dry_run=True))
        assert not moves(lambda: other.block(entry.key, entry.key))


def test_every_flushall_moves_the_epoch(store: RedisStore, server: Node) -> None:
    for _ in range(3):
        before = store.epoch()
        server.command("FLUSHALL")
        assert store.epoch() != before


# ------------------------------------------------------------------------------------------------ clients


@pytest.mark.parametrize("kind", ["redis_standalone", "redis_cluster", "redis_sentinel"])
@pytest.mark.filterwarnings("error")
def test_loops_that_end_leave_no_connection(kind: str, request: pytest.FixtureRequest) -> None:
    server = request.getfixturevalue(kind)
    nodes = [server] if kind == "redis_standalone" else server.all_nodes()

    def held() -> int:
        return sum(each["name"] == "aicache" for node in nodes for each in node.command("CLIENT LIST"))

    before = held()
    store = RedisStore(server.url, **PATIENT)
    entry = make_entry(vector=EAST)

    async def use() -> None:
        await store.awrite(entry)
        assert await asyncio.gather(*(store.afetch(entry.key) for _ in range(4))) == [entry] * 4
        assert held() > before

    for _ in range(3):
        asyncio.run(use())
        wait_until(lambda: held() == before, "the connections of the loop are closed")
    store.close()


async def test_aclose_closes_and_says_so(server: Node) -> None:
    store = RedisStore(server.url, **PATIENT)
    await store.aepoch()
    store.epoch()
    await store.aclose()
    await store.aclose()
    with pytest.raises(StoreError, match="closed"):
        await store.aepoch()
    with pytest.raises(StoreError, match="closed"):
        store.epoch()


@pytest.mark.parametrize(
    "options", [{}, {"decode_responses": True}, {"protocol": 3}, {"protocol": 3, "decode_responses": True}]
)
@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_given_client_is_used_as_it_is_and_not_closed(
    redis_search: Node, dialect: str, options: dict[str, Any]
) -> None:
    redis_search.flush()
    with redis.Redis.from_url(redis_search.url, socket_timeout=10, **options) as client:
        store = RedisStore(client=client, dialect=dialect)
        entry = make_entry(body=bytes(range(256)), vector=EAST, tags=["x"])
        store.write(entry)
        assert store.fetch(entry.key) == entry
        asker, another = make_key("asker"), make_key("another")
        store.block(another, entry.key)
        for who, count in ((None, 1), (asker, 1), (another, 0)):
            near = store.nearest(Search(entry.key.partition, SPACE, EAST, 5, who))
            assert [one.entry for one in near] == [entry] * (0 if dialect == "plain" else count)
        assert [one.key for one in store.similar(Selection(), SPACE, EAST, 0.9)] == [entry.key]
        assert store.size().entries == 1
        assert store.clear(Selection(tags=("x",))) == 1
        store.close()
        assert client.ping()
    with pytest.raises(StoreError, match="other kind"):
        asyncio.run(RedisStore(client=client).aepoch())


async def test_given_cluster_clients_are_used_as_they_are(redis_cluster: Cluster) -> None:
    redis_cluster.flush()
    port = redis_cluster.ports[0]
    async_client = redis.asyncio.RedisCluster(host="127.0.0.1", port=port)
    with redis.RedisCluster(host="127.0.0.1", port=port, decode_responses=True) as client:
        store = RedisStore(client=client, async_client=async_client)
        entry = make_entry(vector=EAST)
        store.write(entry)
        assert await store.afetch(entry.key) == entry
        assert len(await store.anearest(Search(entry.key.partition, SPACE, EAST, 5))) == 1
    await async_client.aclose()


def test_unix_sockets_and_tls(server: Node) -> None:
    entry = make_entry(vector=EAST)
    store = RedisStore(server.unix_url, **PATIENT)
    store.write(entry)
    store.close()
    with tls() as secure:
        store = RedisStore(f"{secure.url}?ssl_ca_certs={secure.certificate}", **PATIENT)
        store.write(entry)

        async def fetch() -> None:
            assert await store.afetch(entry.key) == entry

        asyncio.run(fetch())
        store.close()


def test_the_dialect_and_the_reason_are_said_in_the_log_once(redis_7: Node, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "aicache")
    redis_7.flush()
    with opened(redis_7) as store:
        for _ in range(3):
            assert list(store.nearest(Search(make_partition(), SPACE, EAST, 5))) == []
        assert store.dialect == "plain"
        assert store.reason is not None
    assert [record.getMessage() for record in caplog.records] == [
        "Redis store: dialect plain; nothing is matched by meaning, because the server has neither vector sets "
        "(Redis 8 or newer) nor RediSearch."
    ]


def test_a_user_without_the_vector_commands_gets_exact_matching(server: Node) -> None:
    server.command("ACL", "SETUSER", "plain", "on", ">secret", "~aicache:*", "+@all", "-vcard", "-vadd", "-vsim")
    store = RedisStore(f"redis://plain:secret@127.0.0.1:{server.port}", **PATIENT)
    entry = make_entry(vector=EAST)
    store.write(entry)
    assert store.fetch(entry.key) == entry
    assert store.dialect == "plain"
    assert "may not use" in (store.reason or "")
    store.close()


def test_the_permissions_of_the_documentation_are_enough(server: Node) -> None:
    rights = (
        "~aicache:* +mget +get +set +setrange +getrange +strlen +del +unlink +exists +incr +expire +pexpire +persist "
        "+time +zadd +zrem +zcard +zcount +zscan +zscore +zrangebyscore +zrandmember +eval +evalsha "
        "+sadd +smembers +srem +srandmember +vadd +vrem +vsim +vcard +vrandmember +client|setname "
        "+pttl +pexpireat +zrevrange +zremrangebyscore +xadd +xrange +xrevrange"
    )
    server.command("ACL", "SETUSER", "least", "reset", "on", ">secret", *rights.split())
    server.command("ACL", "LOG", "RESET")
    store = RedisStore(f"redis://least:secret@127.0.0.1:{server.port}", **PATIENT)
    entry = make_entry(vector=EAST, tags=["x"], expires=5.0, cluster=b"c" * 16)
    removals: list[Callable[[], int]] = [
        lambda: store.remove([entry.key]),
        lambda: store.clear(Selection(tags=("x",))),
        lambda: store.sweep(10.0, 10),
    ]
    for remove in removals:
        store.write(entry)
        store.write_many([entry, make_entry("other", cluster=b"c" * 16)])
        assert len(store.entries(Selection())) == 2
        store.join(make_key("other"), b"d" * 16)
        assert store.remove([make_key("other")]) == 1
        assert store.append_lessons(b"l" * 16, [b"lesson"]) == len(store.lessons(b"l" * 16, 0).items)
        store.keep_summary(b"l" * 16, 1, b"summary")
        assert store.summary(b"l" * 16) == (1, b"summary")
        store.touch(entry.key, None)
        store.touch(entry.key, 6.0)
        assert store.fetch(entry.key) is not None
        assert len(store.nearest(Search(entry.key.partition, SPACE, EAST, 5, make_key("asker")))) == 1
        assert len(store.similar(Selection(), SPACE, EAST, 0.9)) == 1
        store.block(make_key("another"), entry.key)
        assert store.size().entries == 1
        assert store.epoch() >= 0
        assert remove() == 1
    store.forget_lessons(b"l" * 16)
    assert {one["object"] for one in server.command("ACL", "LOG")} <= {"client|setinfo"}, "redis-py may do without"
    store.close()


def test_the_search_dialect_is_chosen_where_there_are_no_vector_sets(redis_search: Node) -> None:
    # The only server with RediSearch here has vector sets too: a user who may not use them takes their place.
    redis_search.flush()
    redis_search.command("ACL", "SETUSER", "searcher", "on", ">secret", "~*", "+@all", "-vcard")
    store = RedisStore(f"redis://searcher:secret@127.0.0.1:{redis_search.port}", **PATIENT)
    store.write(make_entry(vector=EAST))
    assert store.dialect == "search"
    assert len(store.nearest(Search(make_partition(), SPACE, EAST, 5))) == 1
    store.close()


def test_a_vector_whose_entry_never_came_is_swept_by_any_program(redis_standalone: Node) -> None:
    redis_standalone.flush()
    with opened(redis_standalone) as store, opened(redis_standalone) as other:
        entry, alone = make_entry("whole", vector=EAST), make_entry("alone", vector=NORTH)
        store.write(entry)
        bucket = KEYS.bucket(entry.key.partition)
        vectors = KEYS.vectors(bucket, KEYS.shelf(entry.key.partition, SPACE, 2))
        redis_standalone.command("VADD", vectors, "FP32", alone.vector or b"", name_of(alone.key))
        assert redis_standalone.command("VCARD", vectors) == 2
        for _ in BUCKETS:  # Each sweep looks at one.
            other.sweep(0.0, 1)
        assert redis_standalone.command("VCARD", vectors) == 1
        assert store.fetch(entry.key) == entry


@pytest.mark.parametrize("last", ["remove", "clear"])
def test_with_the_last_entry_of_a_bucket_goes_whatever_vectors_are_left(redis_standalone: Node, last: str) -> None:
    redis_standalone.flush()
    with opened(redis_standalone) as store:
        entry, alone = make_entry("whole", vector=EAST), make_entry("alone", vector=NORTH)
        store.write(entry)
        bucket = KEYS.bucket(entry.key.partition)
        vectors = KEYS.vectors(bucket, KEYS.shelf(entry.key.partition, SPACE, 2))
        redis_standalone.command("VADD", vectors, "FP32", alone.vector or b"", name_of(alone.key))
        assert (store.remove([entry.key]) if last == "remove" else store.clear(Selection())) == 1
        assert redis_standalone.command("KEYS", f"{KEYS.base(bucket)}*") == []
