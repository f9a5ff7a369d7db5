"""What the embedded store keeps for learning: clusters and their counts, logs of lessons, many entries at once."""

from __future__ import annotations

import random
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from aicache._codec import Codec
from aicache._errors import UnwritableEntryError
from aicache._model import Entry, Search, Selection
from aicache.stores.base import LESSONS_KEPT, Lessons
from aicache.stores.sqlite import SqliteStore
from aicache.testing import make_entry, make_key, make_partition, make_vector

_EAST = make_vector(1, 0)
_RED, _BLUE = b"red cluster 16by", b"blue cluster 16b"
_LOG = b"a log of 16 byte"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "answers.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(path)
    yield store
    store.close()


def _rows(path: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


def _execute(path: Path, *statements: str) -> None:
    """Change the file behind the store's back, as another program could."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def _sizes(store: SqliteStore, k: int = 500) -> dict[str, int]:
    found = store.nearest(Search(make_partition(), "fake/2", _EAST, k))
    return {one.entry.query: one.cluster_size for one in found}


def _clustered(number: int, cluster: bytes | None = _RED) -> Entry:
    return make_entry(f"q{number}", vector=make_vector(1, number / 10), cluster=cluster)


# ------------------------------------------------------------------------------------ clusters


def test_counts_are_those_of_the_rows_whatever_takes_entries_away(path: Path) -> None:
    store = SqliteStore(path, max_entries=30)
    chance = random.Random(3)
    for step in range(600):
        number, cluster = chance.randrange(60), chance.choice([None, _RED, _BLUE, bytes([step % 5]) * 16])
        entry = replace(_clustered(number, cluster), expires=float(step + 40), created=float(step))
        match chance.randrange(8):
            case 0:
                store.join(entry.key, cluster or _RED)
            case 1:
                store.remove([entry.key])
            case 2:
                store.write_many([entry, replace(entry, cluster=_BLUE), _clustered(number + 1, cluster)])
            case 3 if step % 5 == 0:
                store.sweep(float(step), 5)
            case 4 if step % 50 == 0:
                store.clear(Selection(written_before=float(step - 20)))
            case _:
                store.write(entry)
    store.close()
    counted = dict(_rows(path, "SELECT name, size FROM clusters"))
    held = Counter(cluster for (cluster,) in _rows(path, "SELECT cluster FROM entries WHERE cluster IS NOT NULL"))
    assert counted == held
    assert sum(held.values()) > 10


@pytest.mark.parametrize("number", [20, 200], ids=["scanned", "indexed"])
def test_a_join_by_another_program_is_seen_at_once_and_moves_no_epoch(path: Path, number: int) -> None:
    store, other = SqliteStore(path), SqliteStore(path)
    store.write_many([_clustered(n) for n in range(number)])
    assert set(_sizes(store).values()) == {number}
    before = store.epoch()
    other.join(make_key("q1"), _BLUE)
    assert _sizes(store)["q0"] == number - 1
    assert _sizes(store)["q1"] == 1
    assert store.epoch() == before
    other.remove([make_key("q0")])
    assert _sizes(store)["q2"] == number - 2
    for each in (store, other):
        each.close()


def test_a_join_writes_neither_a_body_nor_a_new_row(path: Path, store: SqliteStore) -> None:
    store.write_many([_clustered(n) for n in range(3)])
    query = "SELECT e.id, e.used, b.id, b.body FROM entries e JOIN bodies b ON b.id = e.id"
    before = _rows(path, query)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("CREATE TRIGGER forbidden BEFORE UPDATE ON bodies BEGIN SELECT RAISE(ABORT, 'written'); END")
    store.join(make_key("q1"), _BLUE)
    assert _rows(path, query) == before
    assert _sizes(store) == {"q0": 2, "q1": 1, "q2": 2}


@pytest.mark.parametrize("damage", ["'text'", "7", "1.5", "x'00'"])
def test_a_damaged_cluster_costs_no_answer(path: Path, store: SqliteStore, damage: str) -> None:
    entry = _clustered(0)
    store.write_many([entry, _clustered(1), _clustered(2)])
    store.close()
    _execute(path, f"UPDATE entries SET cluster = {damage} WHERE id = 1")
    again = SqliteStore(path)
    found = again.fetch(entry.key)
    assert found is not None
    assert replace(found, cluster=_RED) == entry
    assert _sizes(again) == {"q0": 1, "q1": 2, "q2": 2}
    again.write(entry)
    assert _sizes(again) == {"q0": 3, "q1": 3, "q2": 3}
    again.close()


@pytest.mark.parametrize("damage", ["'text'", "-5", "x'00'", "1.5"])
def test_a_damaged_count_is_one_until_the_cluster_is_empty(path: Path, store: SqliteStore, damage: str) -> None:
    store.write_many([_clustered(0), _clustered(1)])
    _execute(path, f"UPDATE clusters SET size = {damage}")
    assert _sizes(store) == {"q0": 1, "q1": 1}
    store.write(_clustered(2))
    store.join(make_key("q0"), _BLUE)
    store.remove([make_key("q1"), make_key("q2")])
    assert _sizes(store) == {"q0": 1}


def test_an_encrypted_entry_joins_a_cluster(path: Path) -> None:
    fernet = pytest.importorskip("cryptography.fernet")
    store = SqliteStore(path, codec=Codec([fernet.Fernet.generate_key()]))
    store.write_many([_clustered(0), _clustered(1)])
    store.join(make_key("q1"), _BLUE)
    assert store.fetch(make_key("q1")) == _clustered(1, _BLUE)
    assert _sizes(store) == {"q0": 1, "q1": 1}
    store.close()


# ------------------------------------------------------------------------------------ lessons


def test_logs_outlive_the_program_and_every_removal_of_entries(path: Path) -> None:
    store = SqliteStore(path, max_entries=3, max_bytes=3_000)
    store.append_lessons(_LOG, [b"one", b"two"])
    store.keep_summary(_LOG, 2, b"summary")
    for number in range(20):
        store.write(_clustered(number))
    assert store.size().entries <= 3
    store.clear(Selection())
    assert store.size().bytes == 0
    store.close()
    again = SqliteStore(path)
    assert again.lessons(_LOG, 0) == Lessons(1, (b"one", b"two"))
    assert again.summary(_LOG) == (2, b"summary")
    assert again.append_lessons(_LOG, [b"three"]) == 3
    again.close()


def test_lessons_beyond_those_kept_leave_the_file(path: Path, store: SqliteStore) -> None:
    total = 0
    while total < 3 * LESSONS_KEPT:
        total = store.append_lessons(_LOG, [b"lesson"] * 300)
        ((rows,),) = _rows(path, "SELECT count(*) FROM lessons")
        assert min(total, LESSONS_KEPT) <= rows <= LESSONS_KEPT + 1_000


def test_a_log_of_one_lesson_a_time_is_trimmed_in_steps(path: Path, store: SqliteStore) -> None:
    store.append_lessons(_LOG, [b"old"] * LESSONS_KEPT)
    sizes = []
    for number in range(1_100):
        store.append_lessons(_LOG, [b"%d" % number])
        sizes.append(len(store.lessons(_LOG, 0).items) if number % 100 == 99 else 0)
    kept = store.lessons(_LOG, 0)
    assert kept.first + len(kept.items) == LESSONS_KEPT + 1_101
    assert kept.items[-1] == b"1099"
    assert LESSONS_KEPT <= max(sizes) < LESSONS_KEPT + 513


@pytest.mark.parametrize(
    ("damage", "left"),
    [
        ("UPDATE lessons SET lesson = 'text' WHERE position = 2", Lessons(1, (b"1", b"text", b"3", b"4"))),
        ("UPDATE lessons SET lesson = 5 WHERE position = 2", Lessons(1, (b"1", b"", b"3", b"4"))),
        ("UPDATE lessons SET lesson = x'ff00' WHERE position = 2", Lessons(1, (b"1", b"\xff\x00", b"3", b"4"))),
        ("DELETE FROM lessons WHERE position = 2", Lessons(3, (b"3", b"4"))),
        ("DELETE FROM lessons WHERE position = 1", Lessons(2, (b"2", b"3", b"4"))),
        ("UPDATE lessons SET position = 'x' WHERE position = 1", Lessons(2, (b"2", b"3", b"4"))),
        ("UPDATE lessons SET position = x'00' WHERE position = 1", Lessons(2, (b"2", b"3", b"4"))),
        ("UPDATE lessons SET position = 9223372036854775807 WHERE position = 1", Lessons(2, (b"2", b"3", b"4"))),
        ("UPDATE lessons SET position = -3 WHERE position = 1", Lessons(2, (b"2", b"3", b"4"))),
        ("UPDATE lessons SET position = 2.5 WHERE position = 1", Lessons(2, (b"2", b"3", b"4"))),
    ],
)
def test_a_damaged_lesson_costs_nothing_but_itself_and_those_before_a_gap(
    path: Path, store: SqliteStore, damage: str, left: Lessons
) -> None:
    store.append_lessons(_LOG, [b"1", b"2", b"3", b"4"])
    _execute(path, damage)
    assert store.lessons(_LOG, 0) == left
    assert store.append_lessons(_LOG, [b"5"]) == 5
    assert store.lessons(_LOG, 4) == Lessons(5, (b"5",))


@pytest.mark.parametrize(
    ("damage", "given"),
    [
        ("summary = 'text'", (7, b"text")),
        ("summary = 1.5", (7, b"")),
        ("position = 'x'", None),
        ("position = 2.5", None),
    ],
)
def test_a_damaged_summary_is_given_as_it_is_and_can_be_replaced(
    path: Path, store: SqliteStore, damage: str, given: tuple[int, bytes] | None
) -> None:
    store.keep_summary(_LOG, 7, b"summary")
    _execute(path, f"UPDATE summaries SET {damage}")
    assert store.summary(_LOG) == given
    store.keep_summary(_LOG, 8, b"another")
    assert store.summary(_LOG) == (8, b"another")


def test_a_summary_of_lessons_that_were_lost_keeps_none_away(path: Path, store: SqliteStore) -> None:
    store.append_lessons(_LOG, [b"lesson"] * 9)
    store.keep_summary(_LOG, 9, b"of the first")
    _execute(path, "DELETE FROM lessons")
    store.append_lessons(_LOG, [b"one", b"two"])
    store.keep_summary(_LOG, 2, b"of the second")
    assert store.summary(_LOG) == (2, b"of the second")


# ------------------------------------------------------------------------------------ many at once


def test_hundreds_written_at_once_are_all_there(path: Path, store: SqliteStore) -> None:
    entries = [_clustered(number) for number in range(450)]
    store.write_many(entries)
    assert store.size().entries == 450
    assert sorted(store.entries(Selection()), key=lambda entry: entry.key.digest) == sorted(
        entries, key=lambda entry: entry.key.digest
    )
    assert set(_sizes(store).values()) == {450}


def test_entries_that_cannot_be_written_do_not_cost_the_others(path: Path) -> None:
    store = SqliteStore(path, max_bytes=20_000)
    too_large = make_entry("large", body=random.Random(1).randbytes(30_000))
    impossible = make_entry("impossible", created=float("nan"))
    good = [make_entry(f"good {number}") for number in range(2)]
    for refused in (too_large, impossible):
        with pytest.raises(UnwritableEntryError):
            store.write_many([good[0], refused, good[1]])
        assert [store.fetch(entry.key) for entry in good] == good
        assert store.size().entries == 2
        store.clear(Selection())
    store.close()


def test_bounds_are_kept_when_many_are_written_at_once(path: Path) -> None:
    store = SqliteStore(path, max_entries=50)
    store.write_many([_clustered(number) for number in range(230)])
    assert store.size().entries == 50
    assert store.fetch(make_key("q229")) is not None
    assert set(_sizes(store).values()) == {50}
    store.close()


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE bodies SET body = x'01' WHERE id = 1",
        "UPDATE vectors SET vector = zeroblob(8) WHERE id = 1",
        "UPDATE vectors SET partition = 'text' WHERE id = 1",
        "UPDATE entries SET digest = 'text' WHERE id = 1",
        "DELETE FROM vectors WHERE id = 1",
        "DELETE FROM bodies WHERE id = 1",
    ],
)
def test_a_damaged_entry_is_not_listed(path: Path, store: SqliteStore, damage: str) -> None:
    entries = [_clustered(0), _clustered(1), make_entry("no vector", partition=make_partition("other"))]
    store.write_many(entries)
    _execute(path, damage)
    assert list(store.entries(Selection())) == entries[1:]


def test_an_entry_of_a_foreign_key_is_not_listed(path: Path) -> None:
    fernet = pytest.importorskip("cryptography.fernet")
    foreign = SqliteStore(path, codec=Codec([fernet.Fernet.generate_key()]))
    foreign.write_many([_clustered(0), _clustered(1)])
    foreign.close()
    own = SqliteStore(path, codec=Codec([fernet.Fernet.generate_key()]))
    own.write(_clustered(2))
    assert list(own.entries(Selection())) == [_clustered(2)]
    own.close()
