"""The Redis store on real servers: batches, pairs never to be matched, selections, foreign keys, wrong clocks."""

# ruff: noqa: E402 - most imports need redis, without which all of this is skipped
from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

redis = pytest.importorskip("redis", reason="needs the extra redis")

from redis_store_tools import DIALECTS, EAST, FUTURE, KEYS, NORTH, SPACE, Counting, CountingAsync, keys_of, opened

from aicache._codec import Codec
from aicache._errors import UnreadableEntryError, WrongKeyError
from aicache._model import CacheKey, Entry, Search, Selection
from aicache.stores._redis_known import ServerClock
from aicache.stores._redis_layout import pack
from aicache.stores.base import AsyncBatchStore, BatchStore, Nearby
from aicache.stores.redis import RedisStore
from aicache.testing import make_entry, make_key, make_partition, make_vector

if TYPE_CHECKING:
    from redis_servers import Cluster, Node

ASKER = make_key("asker")
BY_MEANING = ["vector sets", "search"]


@pytest.fixture
def server(redis_standalone: Node) -> Node:
    redis_standalone.flush()
    return redis_standalone


@pytest.fixture
def store(server: Node) -> Iterator[RedisStore]:
    with opened(server) as store:
        yield store


def many(count: int) -> list[Entry]:
    """Entries of several partitions."""
    homes = [make_partition(f"conversation {number}") for number in range(9)]
    return [
        make_entry(f"q{number}", partition=homes[number % 9], vector=make_vector(1, number), expires=FUTURE)
        for number in range(count)
    ]


def search_for(entry: Entry, k: int = 1) -> Search:
    assert entry.vector is not None
    return Search(entry.key.partition, SPACE, entry.vector, k, ASKER)


def answers(found: Sequence[Nearby]) -> list[list[Entry]]:
    return [[one.entry for one in some] for some in found if not isinstance(some, UnreadableEntryError)]


# ------------------------------------------------------------------------------------------------ batches


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_batch_of_reads_takes_one_round_trip(redis_search: Node, dialect: str) -> None:
    redis_search.flush()
    pool = redis.ConnectionPool(connection_class=Counting, port=redis_search.port, socket_timeout=10)
    with redis.Redis(connection_pool=pool) as client:
        store = RedisStore(client=client, dialect=dialect)
        assert isinstance(store, BatchStore)
        entries = many(60)
        for entry in entries:
            store.write(entry)
        searches = [search_for(entry) for entry in entries]
        store.nearest_many(searches)
        Counting.sent.clear()
        assert store.fetch_many([entry.key for entry in entries]) == entries
        assert len(Counting.sent) == 1
        found = store.nearest_many(searches)
        assert len(Counting.sent) == (1 if dialect == "plain" else 2)
        assert answers(found) == ([[]] * 60 if dialect == "plain" else [[entry] for entry in entries])
        Counting.sent.clear()
        assert store.fetch_many([]) == []
        assert store.nearest_many([]) == []
        assert store.nearest_many([replace(searches[0], k=0)]) == [[]]
        assert Counting.sent == []


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_batch_of_async_reads_takes_one_round_trip(redis_search: Node, dialect: str) -> None:
    redis_search.flush()
    pool = redis.asyncio.ConnectionPool(connection_class=CountingAsync, port=redis_search.port, socket_timeout=10)
    store = RedisStore(async_client=redis.asyncio.Redis.from_pool(pool), dialect=dialect)
    assert isinstance(store, AsyncBatchStore)
    entries = many(30)
    try:
        for entry in entries:
            await store.awrite(entry)
        searches = [search_for(entry) for entry in entries]
        await store.anearest_many(searches)
        CountingAsync.sent.clear()
        assert await store.afetch_many([entry.key for entry in entries]) == entries
        found = await store.anearest_many(searches)
        assert len(CountingAsync.sent) == (1 if dialect == "plain" else 2)
        assert len(found) == len(entries)
    finally:
        await pool.aclose()


def test_a_batch_takes_one_round_trip_to_each_node_of_a_cluster(redis_cluster: Cluster) -> None:
    redis_cluster.flush()
    with redis.RedisCluster(host="127.0.0.1", port=redis_cluster.ports[0]) as client:
        for node in client.get_nodes():
            pool = client.get_redis_connection(node).connection_pool
            pool.disconnect()
            pool.reset()
            pool.connection_class = Counting
        store = RedisStore(client=client)
        entries = many(90)
        for entry in entries:
            store.write(entry)
        searches = [search_for(entry) for entry in entries[:60]]
        assert len(store.nearest_many(searches)) == 60
        Counting.sent.clear()
        assert store.fetch_many([entry.key for entry in entries]) == entries
        assert len(Counting.sent) <= 3
        Counting.sent.clear()
        assert answers(store.nearest_many(searches)) == [[entry] for entry in entries[:60]]
        assert len(Counting.sent) <= 3


def test_a_large_batch_is_split_and_comes_back_in_order(store: RedisStore) -> None:
    entries = many(300)
    for entry in entries[::2]:
        store.write(entry)
    fetched = store.fetch_many([entry.key for entry in entries])
    assert list(fetched) == [entry if number % 2 == 0 else None for number, entry in enumerate(entries)]
    found = store.nearest_many([search_for(entry) for entry in entries[:140:2]])
    assert answers(found) == [[entry] for entry in entries[:140:2]]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_an_entry_that_cannot_be_read_does_not_cost_the_others_of_a_batch(redis_search: Node, dialect: str) -> None:
    redis_search.flush()
    with opened(redis_search, dialect=dialect) as store:
        right, damaged, foreign = (make_entry(name, vector=EAST) for name in ("right", "damaged", "foreign"))
        for entry in (right, damaged, foreign):
            store.write(entry)
        if dialect == "search":
            redis_search.command("HSET", KEYS.entry(damaged.key), "b", "garbage")
        else:
            redis_search.command("SETRANGE", KEYS.entry(damaged.key), 250, "garbage")
        redis_search.command("DEL", KEYS.entry(foreign.key))
        redis_search.command("SADD", KEYS.entry(foreign.key), "x")
        fetched = store.fetch_many([damaged.key, right.key, foreign.key, make_key("absent")])
        assert isinstance(fetched[0], UnreadableEntryError)
        assert fetched[1] == right
        assert fetched[2] is None or isinstance(fetched[2], UnreadableEntryError)
        assert fetched[3] is None


@pytest.mark.parametrize("dialect", BY_MEANING)
def test_a_batch_of_searches_makes_the_index_it_misses(redis_search: Node, dialect: str) -> None:
    redis_search.flush()
    with opened(redis_search, dialect=dialect) as store:
        searches = [Search(make_partition(), f"fake/{n}", make_vector(*range(1, n + 1)), 3) for n in (2, 3, 2)]
        assert store.nearest_many(searches) == [[], [], []]


def test_the_epoch_of_a_batch_is_not_younger_than_what_was_read(store: RedisStore, server: Node) -> None:
    entries = many(3)
    for entry in entries:
        store.write(entry)
    before = store.epoch()
    with opened(server) as other:
        other.remove([entries[0].key])
        after = store.epoch()
        assert after != before
        operation = store._operations.fetch_many([entry.key for entry in entries])
        commands = next(operation)
        with server.client(decode_responses=False) as client:
            replies = [client.execute_command(*commands[0].words)]
            other.remove([entries[1].key])
            replies += [client.execute_command(*command.words) for command in commands[1:]]
        with pytest.raises(StopIteration):
            operation.send(replies)
        assert store.seen_epoch == after, "so that the next reply shows the second removal"
        store.fetch(entries[2].key)
        assert store.seen_epoch != after


# ------------------------------------------------------------------------------------------------ never again


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_blocked_pair_is_kept_in_every_dialect_without_an_end(redis_search: Node, dialect: str) -> None:
    redis_search.flush()
    with opened(redis_search, dialect=dialect) as store:
        entry = make_entry("wrong", vector=EAST)
        store.block(CacheKey.of_id(ASKER.id), CacheKey.of_id(entry.id))
        name = KEYS.blocked(KEYS.bucket(entry.key.partition), ASKER)
        assert redis_search.command("TTL", name) == -1
        assert keys_of(redis_search) == {name}
        store.write(entry)
        store.clear(Selection())
        store.remove([entry.key])
        for _ in range(256):
            store.sweep(FUTURE, 10)
        assert keys_of(redis_search) == {name}
        assert store.size().entries == 0


def test_a_change_of_dialect_keeps_what_is_blocked(redis_search: Node) -> None:
    redis_search.flush()
    entry = make_entry("wrong", vector=EAST)
    with opened(redis_search, dialect="plain") as store:
        store.block(ASKER, entry.key)
    for dialect in BY_MEANING:
        with opened(redis_search, dialect=dialect) as store:
            store.clear(Selection())
            store.write(entry)
            assert list(store.nearest(Search(entry.key.partition, SPACE, EAST, 5, ASKER))) == []
            assert len(store.nearest(Search(entry.key.partition, SPACE, EAST, 5))) == 1


@pytest.mark.parametrize("floor", [-1.0, 0.55])
def test_the_search_dialect_asks_again_only_where_many_of_the_nearest_are_blocked(
    redis_search: Node, floor: float
) -> None:
    redis_search.flush()
    pool = redis.ConnectionPool(connection_class=Counting, port=redis_search.port, socket_timeout=10)
    with redis.Redis(connection_pool=pool) as client:
        store = RedisStore(client=client, dialect="search")
        home = make_partition()
        entries = [make_entry(f"q{number}", vector=make_vector(1, number / 10)) for number in range(20)]
        for entry in entries:
            store.write(entry)
        for blocked, trips in ((2, 1), (3, 2), (12, 2)):
            for entry in entries[:blocked]:
                store.block(ASKER, entry.key)
            Counting.sent.clear()
            found = store.nearest(Search(home, SPACE, EAST, 4, ASKER, floor))
            assert [one.entry for one in found] == entries[blocked : blocked + 4]
            assert len(Counting.sent) == trips


# ------------------------------------------------------------------------------------------------ selections


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_dry_run_writes_nothing_and_tells_nobody(redis_search: Node, dialect: str) -> None:
    redis_search.flush()
    with opened(redis_search, dialect=dialect) as store, opened(redis_search, dialect=dialect) as other:
        entries = [make_entry(f"q{n}", vector=make_vector(1, n), tags=["x"], expires=FUTURE) for n in range(5)]
        for entry in entries:
            store.write(entry)
        redis_search.command("DEL", KEYS.entry(entries[4].key))  # What an eviction does.
        redis_search.command("DEL", KEYS.generation(KEYS.bucket(make_partition())))
        epoch = other.epoch()
        before = int(redis_search.info("persistence")["rdb_changes_since_last_save"])
        keys = [entry.key for entry in entries]
        assert store.remove(keys, dry_run=True) == 4
        assert store.clear(Selection(), dry_run=True) == 4
        assert store.clear(Selection(tags=("x",), written_before=FUTURE), dry_run=True) == 4
        assert store.clear(Selection(tags=("y",)), dry_run=True) == 0
        assert int(redis_search.info("persistence")["rdb_changes_since_last_save"]) == before
        assert other.epoch() == epoch
        assert store.clear(Selection(tags=("x",))) == 4


def test_many_entries_are_removed_a_part_at_a_time(store: RedisStore) -> None:
    entries = many(230)
    for entry in entries:
        store.write(entry)
    keys = [CacheKey.of_id(entry.id) for entry in entries]
    assert store.remove(keys + keys, dry_run=True) == 230
    assert store.remove(keys + keys) == 230
    assert store.size().entries == 0


def test_in_a_cluster_a_removal_is_announced_with_the_removal_and_after_it(redis_cluster: Cluster) -> None:
    redis_cluster.flush()
    with opened(redis_cluster) as store, opened(redis_cluster) as other:
        entry = make_entry()
        store.write(entry)
        before = other.epoch()
        operation = store._operations.remove([entry.key], dry_run=False)
        first, *removals = next(operation)
        assert KEYS.epochs("")[0] in first.words
        assert len(removals) == 1
        assert len(operation.send([b"1", 1])) == 1, "announced once more"
        operation.close()
        store.remove([entry.key])
        assert other.epoch() != before


@pytest.mark.parametrize("dialect", DIALECTS)
def test_similar_reads_large_entries_a_megabyte_at_a_time(redis_search: Node, dialect: str) -> None:
    redis_search.flush()
    pool = redis.ConnectionPool(connection_class=Counting, port=redis_search.port, socket_timeout=10)
    with redis.Redis(connection_pool=pool) as client:
        store = RedisStore(client=client, dialect=dialect)
        chance = random.Random(5)
        entries = [
            make_entry(
                f"q{number}",
                partition=make_partition(f"p{number % 3}"),
                body=chance.randbytes(100_000),
                vector=make_vector(1, number / 100),
            )
            for number in range(40)
        ]
        for entry in entries:
            store.write(entry)
        store.similar(Selection(), SPACE, EAST, 0.99)
        Counting.sent.clear()
        listed = store.similar(Selection(), SPACE, EAST, 0.5)
        assert [one.query for one in listed] == [f"q{number}" for number in range(40)]
        assert [one.key for one in listed] == [entry.key for entry in entries]
        # Sixteen for the indexes, and what is near in pieces.
        assert 18 <= len(Counting.sent) <= 28
        Counting.sent.clear()
        assert list(store.similar(Selection(), SPACE, make_vector(0, -1), 0.5)) == []
        assert len(Counting.sent) == 16, "no value was read"


@pytest.mark.parametrize("dialect", DIALECTS)
def test_similar_leaves_out_what_is_damaged_and_what_is_gone(redis_search: Node, dialect: str) -> None:
    redis_search.flush()
    with opened(redis_search, dialect=dialect) as store:
        right, damaged, gone = (make_entry(name, vector=EAST) for name in ("right", "damaged", "gone"))
        for entry in (right, damaged, gone):
            store.write(entry)
        if dialect == "search":
            redis_search.command("HSET", KEYS.entry(damaged.key), "b", "garbage")
        else:
            redis_search.command("SETRANGE", KEYS.entry(damaged.key), 250, "garbage")
        redis_search.command("DEL", KEYS.entry(gone.key))
        assert [one.key for one in store.similar(Selection(), SPACE, EAST, 0.5)] == [right.key]
        assert list(store.similar(Selection(), SPACE, bytes(8), -1.0)) == [], "no vector"


# ------------------------------------------------------------------------------------------------ foreign keys


def encrypted(*keys: bytes) -> Codec:
    return Codec(encryption_keys=keys)


@pytest.mark.parametrize("dialect", BY_MEANING)
def test_entries_of_another_encryption_key_are_named_and_left_out(redis_search: Node, dialect: str) -> None:
    fernet = pytest.importorskip("cryptography.fernet", reason="needs the extra encryption").Fernet
    redis_search.flush()
    one, another = fernet.generate_key(), fernet.generate_key()
    theirs = make_entry("their secret question", "their secret answer", vector=EAST)
    mine = make_entry("mine", vector=NORTH)
    home = theirs.key.partition
    search = Search(home, SPACE, EAST, 5)
    with (
        opened(redis_search, dialect=dialect, codec=encrypted(one)) as writer,
        opened(redis_search, dialect=dialect, codec=encrypted(another)) as store,
    ):
        writer.write(theirs)
        assert writer.fetch(theirs.key) == theirs
        with pytest.raises(WrongKeyError):
            store.fetch(theirs.key)
        with pytest.raises(WrongKeyError):
            store.nearest(Search(home, SPACE, EAST, 5))
        (found,) = store.nearest_many([search])
        assert isinstance(found, WrongKeyError)
        assert isinstance(store.fetch_many([theirs.key])[0], WrongKeyError)
        assert list(store.similar(Selection(), SPACE, EAST, 0.5)) == []
        store.write(mine)
        assert [candidate.entry for candidate in store.nearest(Search(home, SPACE, EAST, 5))] == [mine]
        # Selections and removals need no key.
        assert store.clear(Selection(namespace=home.namespace), dry_run=True) == 2
        assert store.remove([theirs.key]) == 1
    with opened(redis_search, dialect=dialect, codec=encrypted(one, another)) as both:
        both.write(theirs)
        assert {candidate.entry.query for candidate in both.nearest(Search(home, SPACE, EAST, 5))} == {
            mine.query,
            theirs.query,
        }
        with redis_search.client(decode_responses=False) as client:
            name = KEYS.entry(theirs.key)
            held = b"".join(client.hgetall(name).values()) if dialect == "search" else client.get(name)
    assert b"secret" not in held


def test_the_head_of_an_encrypted_entry_cannot_be_forged(store: RedisStore, server: Node) -> None:
    fernet = pytest.importorskip("cryptography.fernet", reason="needs the extra encryption").Fernet
    entry = make_entry(vector=EAST, tags=["x"])
    forged = replace(entry, created=entry.created + 1e6)
    shelf = KEYS.shelf(entry.key.partition, SPACE, 2)
    with (
        opened(server, codec=encrypted(fernet.generate_key())) as safe,
        server.client(decode_responses=False) as client,
    ):
        for given in (safe, store):
            given.write(entry)
            # What somebody without the key can do: all but the encrypted part made anew, the checksum with it.
            value = client.get(KEYS.entry(entry.key))
            made = pack(forged, shelf, Codec(), 0.0)
            start = len(made.head) + len(made.vector)
            client.setrange(KEYS.entry(entry.key), 21, (made.head + made.vector)[21:start])
            assert client.strlen(KEYS.entry(entry.key)) == len(value)
            if given is safe:
                with pytest.raises(UnreadableEntryError):
                    safe.fetch(entry.key)
            else:
                assert store.fetch(entry.key) == forged, "without encryption anybody may write what he likes"


# ------------------------------------------------------------------------------------------------ clocks

HOUR = 3600.0
ABOUT = 60.0
"""Seconds that a slow machine may take between two lines."""


class Host:
    """A program on a host whose clock is wrong."""

    def __init__(self, server: Any, wrong_by: float, dialect: str | None = None) -> None:
        self.wrong_by = wrong_by
        self.store = RedisStore(server.url, timeout=10, connect_timeout=10, wall=self.now, dialect=dialect)

    def now(self) -> float:
        return time.time() + self.wrong_by


@pytest.fixture(params=["vector sets", "search", "cluster"])
def hosts(request: pytest.FixtureRequest) -> Iterator[tuple[Host, Host]]:
    """One behind by an hour, one ahead by an hour."""
    server = request.getfixturevalue("redis_cluster" if request.param == "cluster" else "redis_search")
    server.flush()
    dialect = "search" if request.param == "search" else "vector sets"
    behind, ahead = Host(server, -HOUR, dialect), Host(server, HOUR, dialect)
    yield behind, ahead
    behind.store.close()
    ahead.store.close()


def test_hosts_whose_clocks_disagree_agree_about_age_and_expiry(hosts: tuple[Host, Host]) -> None:
    behind, ahead = hosts
    entry = make_entry(created=behind.now(), expires=behind.now() + 600, vector=EAST)
    behind.store.write(entry)
    readers: list[Callable[[], Entry | None]] = [
        lambda: ahead.store.fetch(entry.key),
        lambda: ahead.store.nearest(Search(entry.key.partition, SPACE, EAST, 1))[0].entry,
    ]
    for read in readers:
        seen = read()
        assert seen is not None
        assert seen.expires is not None
        assert abs(ahead.now() - seen.created) < ABOUT
        assert abs(ahead.now() + 600 - seen.expires) < ABOUT
        assert replace(seen, created=entry.created, expires=entry.expires) == entry
    (listed,) = ahead.store.similar(Selection(), SPACE, EAST, 0.9)
    assert abs(ahead.now() - listed.created) < ABOUT


def test_a_writer_reads_its_own_times_as_it_wrote_them(hosts: tuple[Host, Host]) -> None:
    behind, _ = hosts
    entry = make_entry(created=behind.now(), expires=behind.now() + 600)
    behind.store.write(entry)
    seen = behind.store.fetch(entry.key)
    assert seen is not None
    assert seen.expires is not None
    assert abs(seen.created - entry.created) < 0.001
    assert abs(seen.expires - (entry.expires or 0)) < 0.001


def test_a_touch_from_a_host_with_a_wrong_clock_means_the_same_moment(hosts: tuple[Host, Host]) -> None:
    behind, ahead = hosts
    entry = make_entry(created=behind.now(), expires=behind.now() + 600)
    behind.store.write(entry)
    ahead.store.touch(entry.key, ahead.now() + 5000)
    seen = behind.store.fetch(entry.key)
    assert seen is not None
    assert seen.expires is not None
    assert abs(behind.now() + 5000 - seen.expires) < ABOUT


def test_a_sweep_by_a_host_with_a_wrong_clock_removes_what_has_expired_and_nothing_alive(
    hosts: tuple[Host, Host],
) -> None:
    behind, ahead = hosts
    alive, expired = make_entry("alive", expires=behind.now() + 600), make_entry("expired", expires=behind.now() - 30)
    behind.store.write(alive)
    behind.store.write(expired)
    assert ahead.store.sweep(ahead.now(), 10) == 1
    assert behind.store.fetch(alive.key) is not None
    assert ahead.store.sweep(ahead.now() + 660, 10) == 1


def test_written_before_means_the_same_moment_on_every_host(hosts: tuple[Host, Host]) -> None:
    behind, ahead = hosts
    behind.store.write(make_entry("old", created=behind.now() - 1000))
    ahead.store.write(make_entry("new", created=ahead.now()))
    for host in hosts:
        assert host.store.clear(Selection(written_before=host.now() - 2000), dry_run=True) == 0
        assert host.store.clear(Selection(written_before=host.now() - 500), dry_run=True) == 1
        assert host.store.clear(Selection(written_before=host.now() + ABOUT), dry_run=True) == 2


def test_a_clock_that_is_set_right_is_noticed_with_the_epoch(server: Node) -> None:
    host = Host(server, HOUR)
    entry = make_entry(created=host.now())
    host.store.write(entry)
    host.wrong_by = 0.0
    host.store.epoch()
    seen = host.store.fetch(entry.key)
    assert seen is not None
    assert abs(host.now() - seen.created) < ABOUT
    host.store.close()


class Ticking:
    """A host's clock that a test sets."""

    def __init__(self) -> None:
        self.time = 1_000_000.0

    def __call__(self) -> float:
        return self.time


def measured(clock: ServerClock, host: Ticking, *, ahead: float, trip: float = 0.002) -> float:
    """Ask a server that is ahead of the host, and wait for the reply."""
    asked = host.time
    told = asked + trip / 2 + ahead
    host.time += trip
    clock.note([int(told), int(told % 1 * 1_000_000)], asked)
    return clock.shift


def test_clocks_that_differ_by_less_than_a_second_count_as_equal() -> None:
    host = Ticking()
    clock = ServerClock(host)
    for ahead in (0.0, 0.9, -0.9):
        assert measured(clock, host, ahead=ahead) == 0.0
    assert measured(clock, host, ahead=1.5) == pytest.approx(1.5, abs=0.001)
    assert measured(clock, host, ahead=-HOUR) == pytest.approx(-HOUR, abs=0.001)


def test_a_slow_reply_says_no_more_than_its_round_trip_allows() -> None:
    host = Ticking()
    clock = ServerClock(host)
    assert measured(clock, host, ahead=4.0, trip=5.0) == 0.0
    assert measured(clock, host, ahead=HOUR, trip=5.0) == pytest.approx(HOUR, abs=0.001)


def test_a_shift_stays_as_it_is_while_measurements_waver_and_goes_when_the_clock_is_right() -> None:
    host = Ticking()
    clock = ServerClock(host)
    first = measured(clock, host, ahead=HOUR)
    for ahead in (HOUR + 0.4, HOUR - 0.3, HOUR):
        assert measured(clock, host, ahead=ahead) == first
    assert measured(clock, host, ahead=0.2) == 0.0


def test_a_user_who_may_not_ask_for_the_time_is_taken_to_have_the_right_time(server: Node) -> None:
    rights = ("~aicache:*", "+mget", "+vcard", "+client|setname")
    server.command("ACL", "SETUSER", "timeless", "reset", "on", ">secret", *rights)
    store = RedisStore(f"redis://timeless:secret@127.0.0.1:{server.port}", timeout=10, connect_timeout=10)
    assert store.fetch(make_key("unknown")) is None
    store.close()


# ------------------------------------------------------------------------------------------------ facts


def test_facts_say_the_dialect_and_why_it_is_plain_after_the_first_use(server: Node, redis_7: Node) -> None:
    with opened(server) as store:
        assert store.facts == {}
        store.epoch()
        assert store.facts == {"dialect": "vector sets"}
    redis_7.flush()
    with opened(redis_7) as store:
        store.epoch()
        assert store.facts["dialect"] == "plain"
        assert "Redis 8" in store.facts["reason"]


def test_a_value_of_the_first_format_is_unreadable_and_makes_room_for_a_new_one(
    store: RedisStore, server: Node
) -> None:
    entry = make_entry(vector=EAST)
    store.write(entry)
    server.command("SETRANGE", KEYS.entry(entry.key), 0, "\x01")
    with pytest.raises(UnreadableEntryError, match="older"):
        store.fetch(entry.key)
    assert list(store.nearest(Search(entry.key.partition, SPACE, EAST, 5))) == []
    store.write(entry)
    assert store.fetch(entry.key) == entry
