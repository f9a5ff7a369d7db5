"""Several programs on one file: nothing lost, nothing mixed, and each sees what the others do."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

import pytest

from aicache._model import Entry, Search, Selection
from aicache.stores.sqlite import SqliteStore
from aicache.testing import make_entry, make_key, make_partition, make_vector

_THREADS = 8
_OPERATIONS = 10_000
"""Of each program."""
_SHARED = make_partition("shared")


# ------------------------------------------------------------------------------------ the other program


def _entry(owner: str, number: int, version: int) -> Entry:
    """An entry whose question, answer, vector and tags all say whose it is."""
    return make_entry(
        f"{owner} question {number}",
        f"{owner} answer {number} version {version}",
        partition=make_partition(owner),
        vector=make_vector(1, number, version % 7),
        tags=[owner],
        expires=1e9 + version,
    )


def _work(store: SqliteStore, seat: str, operations: int) -> dict[int, int]:
    """Mixed operations of one thread, each checked against a dict; what must be there in the end.

    Its own entries are nobody else's, so every answer is known. The shared ones change all the time, but each
    must be whole and stand under its own key.
    """
    chance = random.Random(seat)
    own: dict[int, int] = {}
    for step in range(operations):
        number = chance.randrange(40)
        key = _entry(seat, number, 0).key
        match chance.randrange(10):
            case 0 | 1 | 2:
                own[number] = step
                store.write(_entry(seat, number, step))
            case 3:
                assert store.remove([key]) == (own.pop(number, None) is not None)
            case 4 | 5 | 6:
                expected = _entry(seat, number, own[number]) if number in own else None
                assert store.fetch(key) == expected
            case 7:
                found = store.nearest(Search(key.partition, "fake/3", make_vector(1, number, 0), 5))
                assert len(found) == min(5, len(own))
                for one in found:
                    known = int(one.entry.query.rsplit(" ", 1)[1])
                    assert one.entry == _entry(seat, known, own[known])
            case 8:
                body = f"{number}".encode() * 50
                store.write(make_entry(f"{number}", body=body, partition=_SHARED, vector=make_vector(1, number)))
            case _:
                shared = store.fetch(make_key(f"{number}", partition=_SHARED))
                assert shared is None or shared.answer.body == f"{number}".encode() * 50
                for one in store.nearest(Search(_SHARED, "fake/2", make_vector(1, number), 3)):
                    assert one.entry.answer.body == one.entry.query.encode() * 50
    return own


def _run_threads(path: str, name: str) -> None:
    store = SqliteStore(path, busy_timeout=60.0)
    seats = [f"{name}{number}" for number in range(_THREADS)]
    with ThreadPoolExecutor(_THREADS) as pool:
        owned = list(pool.map(lambda seat: _work(store, seat, _OPERATIONS // _THREADS), seats))
    sys.stdout.write(json.dumps(dict(zip(seats, owned, strict=True))))
    store.close()


_LOG = b"a log of 16 byte"
_CLUSTERS = [bytes([number]) * 16 for number in range(3)]
_ROUNDS = 40
"""Of each program that learns."""


def _learn(path: str, seat: int) -> None:
    """Append to the log, keep summaries and move entries of all programs from cluster to cluster."""
    store = SqliteStore(path, busy_timeout=60.0)
    chance = random.Random(seat)
    positions = []
    for step in range(_ROUNDS):
        total = store.append_lessons(_LOG, [f"{seat} {step} {part}".encode() for part in range(3)])
        store.keep_summary(_LOG, total, str(total).encode())
        entry = make_entry(f"{chance.randrange(20)}", vector=make_vector(1, seat), cluster=chance.choice(_CLUSTERS))
        match chance.randrange(6):
            case 0 | 1 | 2:
                store.write(entry)
            case 3:
                store.remove([entry.key])
            case _:
                store.join(entry.key, chance.choice(_CLUSTERS))
        positions.append(total)
    sys.stdout.write(json.dumps(positions))
    store.close()


def _obey(path: str) -> None:
    """Carry out one command a line; answer when it is done."""
    store = SqliteStore(path, busy_timeout=10.0)
    for line in sys.stdin:
        command, *names = line.split()
        match command:
            case "write":
                for name in names:
                    store.write(make_entry(name, vector=make_vector(1, int(name))))
            case "remove":
                store.remove([make_key(name) for name in names])
            case "clear":
                store.clear(Selection())
        sys.stdout.write("done\n")
        sys.stdout.flush()
    store.close()


class _Other:
    """Another program with a store on the same file."""

    def __init__(self, path: Path) -> None:
        self._program = subprocess.Popen(
            [sys.executable, __file__, "obey", str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._program.communicate(timeout=60)
        assert self._program.returncode == 0

    def tell(self, command: str) -> None:
        assert self._program.stdin is not None
        assert self._program.stdout is not None
        self._program.stdin.write(command + "\n")
        self._program.stdin.flush()
        assert self._program.stdout.readline() == "done\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "answers.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(path, busy_timeout=10.0)
    yield store
    store.close()


@pytest.fixture
def other(path: Path) -> Iterator[_Other]:
    with _Other(path) as other:
        yield other


# ------------------------------------------------------------------------------------ the rules


@pytest.mark.slow
def test_two_programs_of_eight_threads_lose_nothing_and_mix_nothing(path: Path) -> None:
    programs = [
        subprocess.Popen([sys.executable, __file__, "threads", str(path), name], stdout=subprocess.PIPE, text=True)
        for name in ("left", "right")
    ]
    outputs = [program.communicate(timeout=300)[0] for program in programs]
    assert [program.returncode for program in programs] == [0, 0]
    store = SqliteStore(path)
    shared = sum(store.fetch(make_key(f"{n}", partition=_SHARED)) is not None for n in range(40))
    expected = 0
    for output in outputs:
        for seat, owned in json.loads(output).items():
            expected += len(owned)
            for number in range(40):
                version = owned.get(str(number))
                entry = _entry(seat, number, version or 0)
                assert store.fetch(entry.key) == (None if version is None else entry)
            assert store.clear(Selection(tags=(seat,))) == len(owned)
    assert expected > 100
    assert store.size().entries == shared
    store.close()


def test_threads_opening_one_new_file_at_once_share_it(path: Path) -> None:
    stores = [SqliteStore(path, busy_timeout=10.0) for _ in range(8)]
    start = threading.Barrier(8)

    def write(number: int) -> None:
        start.wait()
        stores[number].write(make_entry(f"q{number}"))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    for store in stores:
        assert all(store.fetch(make_key(f"q{number}")) is not None for number in range(8))
        store.close()
    assert [each.name for each in path.parent.iterdir()] == ["answers.db"]


def test_programs_opening_one_new_file_at_once_share_it(path: Path) -> None:
    others = [_Other(path) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: others[number].tell(f"write {number}"), range(4)))
    for other in others:
        other.__exit__()
    store = SqliteStore(path)
    assert store.size().entries == 4
    store.close()
    assert [each.name for each in path.parent.iterdir()] == ["answers.db"]


def test_eight_programs_that_learn_lose_no_lesson_and_miscount_no_cluster(path: Path) -> None:
    programs = [
        subprocess.Popen([sys.executable, __file__, "learn", str(path), f"{seat}"], stdout=subprocess.PIPE, text=True)
        for seat in range(8)
    ]
    outputs = [program.communicate(timeout=300)[0] for program in programs]
    assert [program.returncode for program in programs] == [0] * 8
    lessons = 8 * _ROUNDS * 3
    positions = [json.loads(output) for output in outputs]
    assert sorted(position for own in positions for position in own) == list(range(3, lessons + 1, 3))
    store = SqliteStore(path)
    kept = store.lessons(_LOG, 0)
    assert (kept.first, len(kept.items)) == (1, lessons)
    for seat, own in enumerate(positions):
        for step, position in enumerate(own):
            assert kept.items[position - 3 : position] == tuple(f"{seat} {step} {part}".encode() for part in range(3))
    assert store.summary(_LOG) == (lessons, str(lessons).encode())
    found = store.nearest(Search(make_partition(), "fake/2", make_vector(1, 0), 50))
    clusters = [entry.cluster for entry in store.entries(Selection())]
    assert len(found) == len(clusters) == store.size().entries > 5
    assert all(one.cluster_size == clusters.count(one.entry.cluster) for one in found)
    store.close()


def test_a_write_elsewhere_is_fetched_here(store: SqliteStore, other: _Other) -> None:
    assert store.fetch(make_key("7")) is None
    other.tell("write 7")
    entry = store.fetch(make_key("7"))
    assert entry is not None
    assert entry.query == "7"


@pytest.mark.parametrize("already", [3, 100], ids=["scanned", "indexed"])
def test_writes_and_removals_elsewhere_are_seen_by_nearest(store: SqliteStore, other: _Other, already: int) -> None:
    for number in range(already):
        store.write(make_entry(f"{number}", vector=make_vector(1, number)))

    def nearest(number: int) -> str:
        return store.nearest(Search(make_partition(), "fake/2", make_vector(1, number), 1))[0].entry.query

    assert nearest(1_000) == f"{already - 1}"
    other.tell("write 1000")
    assert nearest(1_000) == "1000"
    other.tell("remove 1000")
    assert nearest(1_000) == f"{already - 1}"
    other.tell("remove " + " ".join(f"{number}" for number in range(1, already)))
    assert nearest(1_000) == "0"


def test_a_clear_elsewhere_moves_the_epoch_and_a_write_does_not(store: SqliteStore, other: _Other) -> None:
    store.write(make_entry("1"))
    before = store.epoch()
    other.tell("write 2 3")
    assert store.epoch() == before
    other.tell("write 1")
    replaced = store.epoch()
    assert replaced != before
    other.tell("clear")
    assert store.epoch() != replaced
    assert store.size().entries == 0


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["threads", file, name]:
            _run_threads(file, name)
        case ["learn", file, number]:
            _learn(file, int(number))
        case [_, file]:
            _obey(file)
