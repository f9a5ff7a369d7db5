"""What the Redis store does for a learned matcher, on real servers: clusters, logs of lessons, writing many at once."""

# ruff: noqa: E402 - most imports need redis, without which all of this is skipped
from __future__ import annotations

import contextlib
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

redis = pytest.importorskip("redis", reason="needs the extra redis")

from redis_servers import standalone, wait_until
from redis_store_tools import DIALECTS, EAST, FUTURE, KEYS, NORTH, SPACE, Counting, keys_of, opened

from aicache import Codec
from aicache._errors import StoreError, UnreadableEntryError
from aicache._model import Entry, Search, Selection
from aicache.stores._redis_layout import BUCKETS
from aicache.stores._redis_plan import Operation, Refusal
from aicache.stores.base import Lessons
from aicache.stores.redis import RedisStore
from aicache.testing import make_entry, make_key, make_partition, make_vector

if TYPE_CHECKING:
    from redis_servers import Cluster, Node

RED, BLUE = b"red cluster 16by", b"blue cluster 16b"
LOG = b"a log of 16 byte"
NEAR = ["vector sets", "search"]
HOME = make_partition()


@pytest.fixture
def server(redis_standalone: Node) -> Node:
    redis_standalone.flush()
    return redis_standalone


@pytest.fixture
def store(server: Node) -> Iterator[RedisStore]:
    with opened(server) as store:
        yield store


def search(k: int = 50, **options: Any) -> Search:
    return Search(HOME, SPACE, EAST, k, **options)


def sizes(store: RedisStore) -> dict[str, int]:
    """What is said of the clusters' sizes, by question."""
    return {one.entry.query: one.cluster_size for one in store.nearest(search())}


def some(count: int, cluster: bytes | None = None, **options: Any) -> list[Entry]:
    return [make_entry(f"q{n}", vector=make_vector(1, n / 9), cluster=cluster, **options) for n in range(count)]


@contextlib.contextmanager
def counting(server: Node, dialect: str, **options: Any) -> Iterator[RedisStore]:
    """A store that notes what it sends."""
    server.flush()
    pool = redis.ConnectionPool(connection_class=Counting, port=server.port, socket_timeout=10)
    with redis.Redis(connection_pool=pool) as client:
        yield RedisStore(client=client, dialect=dialect, **options)


def trips(act: Callable[[], object]) -> int:
    Counting.sent.clear()
    act()
    return len(Counting.sent)


# ------------------------------------------------------------------------------------------------ clusters


@pytest.mark.parametrize("dialect", DIALECTS)
def test_clusters_cost_no_round_trip(redis_search: Node, dialect: str) -> None:
    with counting(redis_search, dialect) as store:
        entry = make_entry("q0", vector=EAST, cluster=RED, expires=FUTURE)
        acts: list[Callable[[], object]] = [
            lambda: store.write(entry),
            lambda: store.fetch(entry.key),
            lambda: store.nearest(search()),
            lambda: store.nearest(search(asker=make_key("asker"), floor=0.9)),
            lambda: store.nearest_many([search(), search(k=2), search(asker=make_key("asker"))]),
            lambda: store.touch(entry.key, 5e9),
            lambda: store.join(entry.key, BLUE),
        ]
        for act in acts:
            act()  # Teaches the server the script; with `search` the first search sees that there are clusters.
        for act in acts:
            assert trips(act) <= 1
        assert trips(acts[0]) == 1


def test_without_clusters_the_search_dialect_searches_without_a_script(redis_search: Node) -> None:
    with counting(redis_search, "search") as store:
        store.write(make_entry("q", vector=EAST))
        store.nearest(search())
        assert trips(lambda: store.nearest(search())) == 1
        assert b"FT.SEARCH" in Counting.sent[0]
        assert b"EVAL" not in Counting.sent[0]
        store.write(make_entry("q", vector=EAST, cluster=RED))
        assert trips(lambda: store.nearest(search())) == 2, "their sizes"
        store.nearest(search())
        assert trips(lambda: store.nearest(search())) == 1
        assert b"EVALSHA" in Counting.sent[0]


def test_where_no_script_may_search_the_sizes_are_asked_for_after_the_search(redis_search: Node) -> None:
    with counting(redis_search, "search") as store:
        store.write_many(some(3, RED))
        assert sizes(store) == {"q0": 3, "q1": 3, "q2": 3}
        operation = store._operations.nearest(search())
        (scripted,) = next(operation)
        assert scripted.words[0] == "EVALSHA"
        plain = operation.send([Refusal("ERR")])
        assert plain[0].words[0] == "FT.SEARCH"
        operation.close()
        assert trips(lambda: store.nearest(search())) == 2
        assert sizes(store) == {"q0": 3, "q1": 3, "q2": 3}


@pytest.mark.parametrize("dialect", NEAR)
def test_in_a_script_the_search_finds_what_it_finds_without(redis_search: Node, dialect: str) -> None:
    redis_search.flush()
    asker = make_key("asker")
    with opened(redis_search, dialect=dialect) as store, opened(redis_search, dialect=dialect) as other:
        entries = [make_entry(f"q{n}", vector=make_vector(1, n / 9), tags=["x"] * (n % 2)) for n in range(12)]
        clustered = make_entry("q12", vector=make_vector(1, 2), cluster=RED)
        store.write_many([*entries, clustered])
        assert store.nearest(search())[-1].entry == clustered
        for blocked in (0, 1, 4, 9):
            for entry in entries[:blocked]:
                store.block(asker, entry.key)
            for floor in (-1.0, 0.9):
                found = store.nearest(search(4, asker=asker, floor=floor))
                assert found == other.nearest(search(4, asker=asker, floor=floor))
                there = [one for one in (*entries, clustered)[blocked : blocked + 4] if floor < 0 or one in entries[:5]]
                assert [one.entry for one in found if one.score >= floor] == there
        assert list(store.nearest(Search(HOME, "fake/3", make_vector(1, 0, 0), 5))) == []


@pytest.mark.parametrize("dialect", NEAR)
def test_an_entry_that_expired_on_the_server_counts_no_longer(redis_search: Node, dialect: str) -> None:
    redis_search.flush()
    with opened(redis_search, dialect=dialect, keep_expired=0.2) as store:
        store.write_many([*some(2, RED), make_entry("soon gone", vector=NORTH, cluster=RED, expires=1.0)])
        touched = make_entry("touched", vector=NORTH, cluster=RED)
        store.write(touched)
        assert sizes(store)["q0"] == 4
        store.touch(touched.key, 2.0)
        both = [KEYS.entry(make_key("soon gone")), KEYS.entry(touched.key)]
        wait_until(lambda: not redis_search.command("EXISTS", *both), "gone")
        assert sizes(store) == {"q0": 2, "q1": 2}


def test_a_cluster_whose_entries_all_expire_leaves_nothing_behind(server: Node) -> None:
    with opened(server, keep_expired=0.1) as store:
        store.write_many(some(3, RED, expires=1.0))
        assert [key for key in keys_of(server) if ":c:" in key]
        wait_until(lambda: not [key for key in keys_of(server) if ":c:" in key or ":e:" in key], "gone")
        store.write_many(some(3, RED, expires=1.0))
        store.touch(make_key("q1"), None)
        (cluster,) = [key for key in keys_of(server) if ":c:" in key]
        assert server.command("PTTL", cluster) == -1, "one of them stays"


@pytest.mark.parametrize("dialect", NEAR)
def test_sweeps_set_right_what_evictions_did_to_the_counts(redis_search: Node, dialect: str) -> None:
    redis_search.flush()
    with opened(redis_search, dialect=dialect) as store:
        store.write_many(some(6, RED))
        store.write(make_entry("blue", vector=EAST, cluster=BLUE))
        redis_search.command("DEL", *(KEYS.entry(make_key(f"q{n}")) for n in range(3)))  # What an eviction does.
        for _ in BUCKETS:  # Each sweep looks at one.
            store.sweep(0.0, 1)
        assert sizes(store) == {"blue": 1, "q3": 3, "q4": 3, "q5": 3}
        redis_search.command("DEL", *(key for key in keys_of(redis_search) if ":c:" in key))
        assert sizes(store) == {"blue": 1, "q3": 1, "q4": 1, "q5": 1}
        for _ in BUCKETS:
            store.sweep(0.0, 1)
        assert sizes(store) == {"blue": 1, "q3": 3, "q4": 3, "q5": 3}


def test_entries_whose_index_was_evicted_do_not_count(store: RedisStore, server: Node) -> None:
    store.write_many(some(3, RED))
    server.command("DEL", KEYS.index(KEYS.bucket(HOME)))
    store.write(make_entry("new", vector=NORTH, cluster=RED))
    assert sizes(store) == {"new": 1}
    store.write(make_entry("q0", vector=EAST, cluster=RED))
    assert sizes(store) == {"new": 2, "q0": 2}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_nothing_is_left_of_clusters_whose_entries_are_gone(redis_search: Node, dialect: str) -> None:
    redis_search.flush()
    with opened(redis_search, dialect=dialect) as store:
        entries = [replace(entry, cluster=(RED, BLUE)[n % 2]) for n, entry in enumerate(some(8, expires=5.0))]
        removals: list[Callable[[], int]] = [
            lambda: store.remove([entry.key for entry in entries]),
            lambda: store.clear(Selection()),
            lambda: store.clear(Selection(tenant=HOME.tenant)),
            lambda: store.sweep(10.0, 100),
        ]
        for remove in removals:
            store.write_many(entries)
            for entry in entries[:4]:
                store.join(entry.key, b"another of these")
            assert remove() == len(entries)
            assert keys_of(redis_search) == set()


def test_the_clusters_of_two_partitions_are_counted_apart(store: RedisStore) -> None:
    # One bucket, for their ids begin with the same byte.
    other = replace(HOME, id=HOME.id[:1] + bytes(15))
    store.write_many([*some(2, RED), make_entry("theirs", partition=other, vector=EAST, cluster=RED)])
    assert sizes(store) == {"q0": 2, "q1": 2}
    assert [one.cluster_size for one in store.nearest(Search(other, SPACE, EAST, 5))] == [1]


@pytest.mark.parametrize("dialect", NEAR)
def test_whatever_becomes_of_a_count_costs_no_answer(redis_search: Node, dialect: str) -> None:
    redis_search.flush()
    with opened(redis_search, dialect=dialect) as store:
        store.write_many(some(2, RED))
        (cluster,) = [key for key in keys_of(redis_search) if ":c:" in key]
        redis_search.command("DEL", cluster)
        redis_search.command("LPUSH", cluster, "something else")
        store.write(make_entry("q2", vector=NORTH, cluster=RED))
        store.join(make_key("q1"), RED)
        store.touch(make_key("q0"), FUTURE)
        assert sizes(store) == {"q0": 1, "q1": 1, "q2": 1}
        assert store.sweep(FUTURE, 10) == 1
        assert store.clear(Selection()) == 2


def test_entries_of_the_last_release_are_read_and_can_join(server: Node) -> None:
    value = bytes.fromhex(
        "0200000000000000000000000065cded4171fbec2f0000000000408f40db7196eec64c4f84c9228d1975e12c989d5632883cdf2a81cc2692e4"
        "c2ff28bf223d367cb22060b5512b02c906b744f800000000000000000000000000000000061e571b698be036d8e7f60f89312dc33332656637"
        "3331343833373137353434346636323837346339303462383735620100080000004332f67d2d711642b726b0440000803f0000000001f928ce"
        "8d0000000000408f40000000000000f07f07000000000000000300000000000000031006000300000003000000160000000f6cdda59c087d6c"
        "8398337cb75481d066616b652f320100786f6c647b2274657874223a202274686520616e73776572227d"
    )
    entry = make_entry("old", "the answer", vector=EAST, tags=["x"], expires=FUTURE)
    with opened(server) as store:
        store.write(entry)
        name = KEYS.entry(entry.key)
        with server.client(decode_responses=False) as client:
            written = client.get(name)
            assert written[:1] + bytes(8) + written[9:] == value, "without a cluster nothing has changed"
            client.execute_command("SET", name, value[:1] + written[1:9] + value[9:], "KEEPTTL")
        assert store.fetch(entry.key) == entry
        life = server.command("PTTL", name)
        store.join(entry.key, RED)
        assert life - 60_000 < server.command("PTTL", name) <= life
        assert store.fetch(entry.key) == replace(entry, cluster=RED)
        store.write(make_entry("new", vector=NORTH, cluster=RED))
        assert sizes(store) == {"old": 2, "new": 2}
        assert store.clear(Selection(tags=("x",))) == 1


def test_whatever_is_damaged_in_a_value_with_a_cluster_it_is_never_served(store: RedisStore, server: Node) -> None:
    for entry in (make_entry("q", cluster=RED), make_entry("q", vector=EAST, tags=["x"], cluster=RED)):
        store.write(entry)
        name = KEYS.entry(entry.key)
        with server.client(decode_responses=False) as client:
            value = client.execute_command("GET", name)
            for place in (0, *range(9, len(value))):
                for change in (0x41, 1):
                    client.setrange(name, place, bytes([value[place] ^ change]))
                    with pytest.raises(UnreadableEntryError):
                        store.fetch(entry.key)
                    client.setrange(name, place, value[place : place + 1])
        assert store.fetch(entry.key) == entry


@pytest.mark.parametrize("dialect", NEAR)
def test_an_encrypted_entry_joins_without_its_key(redis_search: Node, dialect: str) -> None:
    pytest.importorskip("cryptography", reason="needs the extra encryption")
    from cryptography.fernet import Fernet

    redis_search.flush()
    codec = Codec([Fernet.generate_key()])
    with opened(redis_search, dialect=dialect, codec=codec) as store, opened(redis_search, dialect=dialect) as other:
        store.write_many(some(3, tags=("x",), expires=FUTURE))
        for n, cluster in enumerate((RED, BLUE, RED)):
            other.join(make_key(f"q{n}"), cluster)
        assert sizes(store) == {"q0": 2, "q1": 1, "q2": 2}
        assert store.fetch(make_key("q1")) == replace(some(2, tags=("x",), expires=FUTURE)[1], cluster=BLUE)


def test_a_cluster_of_another_length_is_refused(store: RedisStore) -> None:
    with pytest.raises(StoreError, match="16 bytes"):
        store.write(make_entry(cluster=b"short"))
    store.write(make_entry())
    with pytest.raises(StoreError, match="16 bytes"):
        store.join(make_entry().key, b"short")
    assert store.fetch(make_entry().key) == make_entry()


# ------------------------------------------------------------------------------------------------ lessons

APPENDING = """
import sys
from aicache.stores.redis import RedisStore
store = RedisStore(sys.argv[1], timeout=20, connect_timeout=20)
sys.stdin.readline()
for step in range(60):
    lessons = [b"%s %d %d" % (sys.argv[2].encode(), step, part) for part in range(step % 3 + 1)]
    position = store.append_lessons(b"a log of 16 byte", lessons)
    print(position, len(lessons))
    store.keep_summary(b"a log of 16 byte", position, b"summary %d" % position)
store.close()
"""


@pytest.mark.parametrize("kind", ["redis_standalone", "redis_cluster"])
def test_lessons_of_eight_processes_are_all_there_once(kind: str, request: pytest.FixtureRequest) -> None:
    server = request.getfixturevalue(kind)
    server.flush()
    children = [
        subprocess.Popen(
            [sys.executable, "-c", APPENDING, server.url, str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(8)
    ]
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    said = [child.communicate(timeout=60)[0] for child in children]
    assert [child.returncode for child in children] == [0] * 8
    with opened(server) as store:
        kept = store.lessons(LOG, 0)
        assert kept.first == 1
        assert len(kept.items) == len(set(kept.items)) == 8 * 120
        for number, text in enumerate(said):
            for step, line in enumerate(text.splitlines()):
                position, count = map(int, line.split())
                # What a process was told of the position is where its lessons are.
                expected = tuple(b"%d %d %d" % (number, step, part) for part in range(count))
                assert kept.items[position - count : position] == expected
        assert store.summary(LOG) == (8 * 120, b"summary 960")


def drive(operation: Operation[Any], server: Node, times: int) -> Any:
    """Carry out an operation of one command, and send that so many times."""
    (command,) = next(operation)
    with server.client(decode_responses=False) as client:
        replies = [client.execute_command(*command.in_full().words) for _ in range(times)]
    assert len(set(replies)) == 1
    with pytest.raises(StopIteration) as stop:
        operation.send(replies[:1])
    return stop.value.value


def test_what_is_sent_again_because_the_reply_was_lost_is_appended_once(store: RedisStore, server: Node) -> None:
    store.append_lessons(LOG, [b"one"])
    operation = store._logs.append(LOG, [b"two", b"three"])
    assert drive(operation, server, 2) == 3
    assert store.append_lessons(LOG, [b"two", b"three"]) == 5, "said again by the caller: again"
    assert store.lessons(LOG, 0) == Lessons(1, (b"one", b"two", b"three", b"two", b"three"))


def test_logs_have_no_time_to_live_and_no_entry_keeps_them(store: RedisStore, server: Node) -> None:
    store.append_lessons(LOG, [b"one"])
    store.keep_summary(LOG, 1, b"summary")
    lasting = {KEYS.log(LOG), KEYS.summary(LOG)}
    assert [server.command("TTL", key) for key in lasting] == [-1, -1]
    store.write(make_entry(vector=EAST, cluster=RED))
    store.clear(Selection())
    others = keys_of(server) - lasting
    assert all(0 < server.command("TTL", key) <= 60 for key in others), "of one call, in case it is sent again"
    assert len(others) == 1
    store.forget_lessons(LOG)
    assert not keys_of(server) & lasting


def test_a_log_that_the_server_lost_begins_anew(store: RedisStore, server: Node) -> None:
    assert store.append_lessons(LOG, [b"one", b"two", b"three"]) == 3
    server.command("DEL", KEYS.log(LOG))  # What an eviction does.
    assert store.append_lessons(LOG, [b"four"]) == 1, "less than was known"
    assert store.lessons(LOG, 3) == Lessons(4, ())
    assert store.lessons(LOG, 0) == Lessons(1, (b"four",))
    server.flush()
    assert store.append_lessons(LOG, [b"five"]) == 1


def test_a_summary_of_a_log_that_the_server_lost_keeps_none_away(store: RedisStore, server: Node) -> None:
    store.append_lessons(LOG, [b"lesson"] * 9)
    store.keep_summary(LOG, 9, b"of the first")
    server.command("DEL", KEYS.log(LOG))
    store.append_lessons(LOG, [b"one", b"two"])
    store.keep_summary(LOG, 2, b"of the second")
    assert store.summary(LOG) == (2, b"of the second")
    store.keep_summary(LOG, 1, b"late")
    assert store.summary(LOG) == (2, b"of the second")


@pytest.mark.parametrize("damaged", ["", "no colon", ":no position", "x:text", "-3:text", "9" * 30 + ":text"])
def test_a_damaged_summary_is_none_and_can_be_replaced(store: RedisStore, server: Node, damaged: str) -> None:
    server.command("SET", KEYS.summary(LOG), damaged)
    assert store.summary(LOG) is None
    store.append_lessons(LOG, [b"one"])
    store.keep_summary(LOG, 1, b"summary")
    assert store.summary(LOG) == (1, b"summary")


def test_a_log_that_is_cut_while_it_is_read_comes_whole_from_where_it_begins(store: RedisStore, server: Node) -> None:
    store.append_lessons(LOG, [b"%d" % n for n in range(1, 2_001)])
    operation = store._logs.lessons(LOG, 0)
    with server.client(decode_responses=False) as client:
        (command,) = next(operation)
        first = client.execute_command(*command.in_full().words)
        assert len(first[1]) < 2_000
        client.execute_command("XTRIM", KEYS.log(LOG), "MINID", "1501-0")
        (command,) = operation.send([first])
        with pytest.raises(StopIteration) as stop:
            operation.send([client.execute_command(*command.in_full().words)])
    assert stop.value.value == Lessons(1_501, tuple(b"%d" % n for n in range(1_501, 2_001)))


# ------------------------------------------------------------------------------------------------ many at once


@pytest.mark.parametrize("dialect", DIALECTS)
def test_hundreds_are_written_in_few_round_trips(redis_search: Node, dialect: str) -> None:
    with counting(redis_search, dialect) as store:
        store.write_many(some(2))
        entries = some(500, RED, expires=FUTURE)
        assert trips(lambda: store.write_many(entries)) == 4
        assert store.fetch_many([entry.key for entry in entries]) == entries
        assert sorted(store.entries(Selection()), key=lambda one: one.query) == sorted(entries, key=lambda o: o.query)
        assert trips(lambda: store.write_many([])) == 0


@pytest.mark.parametrize("dialect", DIALECTS)
def test_no_round_trip_takes_more_than_a_megabyte(redis_search: Node, dialect: str) -> None:
    with counting(redis_search, dialect, codec=Codec(compress_above=None)) as store:
        store.write(make_entry(vector=EAST))
        entries = [make_entry(f"q{n}", body=b"%d" % n * 150_000, vector=EAST) for n in range(10)]
        entries += [make_entry(f"q{n}", body=b"n" * 150_000) for n in range(10, 14)]
        assert trips(lambda: store.write_many(entries)) == 3
        assert max(map(len, Counting.sent)) < 1_000_000
        assert store.fetch_many([entry.key for entry in entries]) == entries
        assert len(store.entries(Selection())) == 15


def test_in_a_cluster_many_are_written_in_one_round_trip_to_each_node(redis_cluster: Cluster) -> None:
    redis_cluster.flush()
    with redis.RedisCluster(host="127.0.0.1", port=redis_cluster.ports[0]) as client:
        for node in client.get_nodes():
            pool = client.get_redis_connection(node).connection_pool
            pool.disconnect()
            pool.reset()
            pool.connection_class = Counting
        store = RedisStore(client=client)
        entries = [
            make_entry(f"q{n}", partition=make_partition(f"p{n}"), vector=EAST, cluster=RED, expires=FUTURE)
            for n in range(120)
        ]
        for _ in range(2):  # Teaches the nodes the scripts.
            store.write_many(entries)
        assert trips(lambda: store.write_many(entries)) <= 4, "one to each node, and an announcement"
        assert store.fetch_many([entry.key for entry in entries]) == entries
        assert {one.key for one in store.entries(Selection())} == {one.key for one in entries}


def test_a_server_is_taught_a_script_once_for_many(server: Node) -> None:
    with counting(server, "vector sets") as store:
        store.epoch()
        server.command("SCRIPT", "FLUSH")
        assert trips(lambda: store.write_many(some(100))) == 2
        assert Counting.sent[1].count(b"local function") < 100, "in full once"
        assert store.size().entries == 100


def test_many_that_replace_are_one_change_for_others(redis_cluster: Cluster) -> None:
    redis_cluster.flush()
    with opened(redis_cluster) as store, opened(redis_cluster) as other:
        store.write_many(some(3))
        epoch = other.epoch()
        store.write_many(some(1))
        assert other.epoch() != epoch
        epoch = other.epoch()
        store.write_many([make_entry("new")])
        assert other.epoch() == epoch


@pytest.mark.parametrize("dialect", DIALECTS)
def test_an_entry_that_cannot_be_written_does_not_cost_the_others(redis_search: Node, dialect: str) -> None:
    redis_search.flush()
    with opened(redis_search, dialect=dialect) as store:
        good = some(4)
        bad = [make_entry("short", cluster=b"short"), make_entry("never", expires=float("nan"))]
        with pytest.raises(StoreError, match="not 16 bytes"):
            store.write_many([*good[:2], bad[0], *good[2:], bad[1]])
        assert {one.key for one in store.entries(Selection())} == {one.key for one in good}


def test_many_of_which_one_is_refused_are_a_change_for_others_all_the_same(redis_cluster: Cluster) -> None:
    redis_cluster.flush()
    old, new = (make_entry("q", answer, vector=EAST, expires=FUTURE) for answer in ("old", "new"))
    homes = (make_partition(f"p{number}") for number in range(100))
    refused = next(
        make_entry("refused", partition=home)
        for home in homes
        if redis_cluster.owner(KEYS.index(KEYS.bucket(home))) is not redis_cluster.owner(KEYS.entry(old.key))
    )
    index = KEYS.index(KEYS.bucket(refused.key.partition))
    with opened(redis_cluster) as store, opened(redis_cluster) as other:
        store.write(old)
        epoch = other.epoch()
        redis_cluster.owner(index).command("SET", index, "no index")
        with pytest.raises(StoreError):
            store.write_many([new, refused])
        assert store.fetch(old.key) == new
        assert other.epoch() != epoch


def test_the_vectors_of_many_for_which_there_was_no_memory_go_again(server: Node) -> None:
    with opened(server) as store:
        store.write(make_entry("there", vector=NORTH))
        server.command("CONFIG", "SET", "maxmemory", "1")
        try:
            with pytest.raises(StoreError, match="no memory"):
                store.write_many(some(5))
        finally:
            server.command("CONFIG", "SET", "maxmemory", "0")
        assert len(store._known.take_dead(KEYS.bucket(HOME))) == 5
        assert [one.entry.query for one in store.nearest(search())] == ["there"]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_server_without_memory_takes_no_entry_and_gives_what_it_has(redis_search: Node, dialect: str) -> None:
    redis_search.flush()
    with opened(redis_search, dialect=dialect) as store:
        there = make_entry("there", vector=EAST, cluster=RED)
        store.write(there)
        redis_search.command("CONFIG", "SET", "maxmemory", "1")
        try:
            for entry in (
                make_entry("new", vector=EAST, cluster=RED),
                make_entry("there", "elsewhere", vector=make_vector(1, 0, 0), cluster=BLUE),
            ):
                with pytest.raises(StoreError, match="no memory"):
                    store.write(entry)
            assert store.fetch(there.key) == there
            assert store.entries(Selection()) == [there]
            assert store.remove([there.key]) == 1
        finally:
            redis_search.command("CONFIG", "SET", "maxmemory", "0")
        assert not [key for key in keys_of(redis_search) if ":e:" in key or ":c:" in key]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_what_cannot_be_read_is_not_listed(redis_search: Node, dialect: str) -> None:
    redis_search.flush()
    with opened(redis_search, dialect=dialect) as store:
        store.write_many(some(4))
        damaged, gone, kind = (KEYS.entry(make_key(f"q{n}")) for n in range(3))
        if dialect == "search":
            redis_search.command("HSET", damaged, "b", "nonsense")
        else:
            redis_search.command("SETRANGE", damaged, 200, "nonsense")
        redis_search.command("DEL", gone, kind)
        redis_search.command("LPUSH", kind, "something else")
        assert [one.query for one in store.entries(Selection())] == ["q3"]


def test_what_is_evicted_under_an_allkeys_policy_leaves_counts_that_sweeps_set_right() -> None:
    with standalone("--maxmemory", "4mb", "--maxmemory-policy", "allkeys-random") as server, opened(server) as store:
        chance = random.Random(3)
        for number in range(1_500):
            vector = make_vector(*(chance.gauss(0, 1) for _ in range(32)))
            store.write(make_entry(f"q{number}", vector=vector, body=chance.randbytes(2_000), cluster=RED))
        assert int(server.info("stats")["evicted_keys"]) > 100
        server.command("CONFIG", "SET", "maxmemory", "0")
        store.write(make_entry("last", vector=make_vector(1, *[0] * 31), cluster=RED))
        for _ in range(len(BUCKETS) * 4):
            store.sweep(0.0, 1)
        held = [one for one in store.entries(Selection()) if one.cluster]
        found = store.nearest(Search(HOME, "fake/32", make_vector(1, *[0] * 31), 5))
        assert {one.cluster_size for one in found} == {len(held)}
