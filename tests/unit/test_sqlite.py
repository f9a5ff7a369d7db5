"""The embedded store: its own rules, beyond the contract of every store."""

from __future__ import annotations

import logging
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

from aicache import ConfigurationError
from aicache._codec import Codec
from aicache._errors import StoreError, UnreadableEntryError, WrongKeyError
from aicache._model import Entry, Search, Selection, Vector
from aicache.stores._sqlite_rows import Transaction, checksum
from aicache.stores._sqlite_schema import APPLICATION_ID, SCHEMA_VERSION
from aicache.stores._sqlite_trouble import SqliteTroubleError, Trouble, diagnose
from aicache.stores.base import Store
from aicache.stores.sqlite import SqliteStore, default_path
from aicache.testing import FakeClock, make_entry, make_key, make_partition, make_vector
from aicache.testing.machine import StoreMachine

_EAST = make_vector(1, 0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "answers.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(path)
    yield store
    store.close()


def _mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def _queries(store: SqliteStore, queries: list[str]) -> list[str]:
    return [query for query in queries if store.fetch(make_key(query)) is not None]


def _noise(size: int) -> bytes:
    """Bytes that do not shrink when they are compressed."""
    return random.Random(size).randbytes(size)


def _execute(path: Path, *statements: str) -> None:
    """Change the file behind the store's back, as another program could."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


# ------------------------------------------------------------------------------------ construction


def test_the_constructor_makes_no_file(path: Path) -> None:
    SqliteStore(path / "deeper" / "answers.db").close()
    assert list(path.parent.iterdir()) == []


def test_the_default_is_a_file_in_the_user_cache_folder() -> None:
    assert default_path().name == "answers.db"
    assert default_path().parent.name == "aicache"


@pytest.mark.parametrize(
    ("parameter", "arguments"),
    [
        ("path", {"path": tempfile.gettempdir()}),
        ("path", {"path": ":memory:"}),
        ("path", {"path": ""}),
        ("path", {"path": "a\0b"}),
        ("max_entries", {"max_entries": 0}),
        ("max_entries", {"max_entries": True}),
        ("max_bytes", {"max_bytes": 1.5}),
        ("busy_timeout", {"busy_timeout": -1}),
        ("busy_timeout", {"busy_timeout": float("nan")}),
        ("index_bytes", {"index_bytes": -1}),
    ],
)
def test_nonsense_is_refused_by_name(path: Path, parameter: str, arguments: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match=f"^{parameter}: ") as caught:
        SqliteStore(**{"path": path, **arguments})  # type: ignore[arg-type]
    assert caught.value.parameter == parameter


def test_a_path_may_hold_any_character(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "a b" / "50% #1?mode=ro&x=ü.db")
    store.write(make_entry())
    assert store.fetch(make_key()) == make_entry()
    assert store.path.exists()
    store.close()


def test_a_relative_path_stays_where_it_was_when_the_program_changes_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)
    store = SqliteStore("answers.db")
    monkeypatch.chdir(tmp_path / "other")
    store.write(make_entry())
    store.close()
    assert (tmp_path / "answers.db").exists()


# ------------------------------------------------------------------------------------ the file


def test_only_the_owner_may_read_the_file_its_log_and_a_folder_made_for_it(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "one" / "two" / "answers.db")
    before = os.umask(0)  # The widest rights a program can hand out by accident.
    try:
        store.write(make_entry())
    finally:
        os.umask(before)
    folder = tmp_path / "one" / "two"
    assert {each.name: _mode(each) for each in folder.iterdir()} == {
        "answers.db": 0o600,
        "answers.db-wal": 0o600,
        "answers.db-shm": 0o600,
    }
    assert _mode(folder) == _mode(tmp_path / "one") == 0o700
    store.close()


def test_an_empty_file_of_that_name_is_taken_and_its_rights_narrowed(path: Path) -> None:
    path.touch(0o644)
    store = SqliteStore(path)
    store.write(make_entry())
    store.close()
    assert _mode(path) == 0o600


def test_everything_is_still_there_after_reopening(path: Path) -> None:
    entries = [make_entry(f"question {n}", vector=make_vector(1, n), tags=["x"], expires=n or None) for n in range(50)]
    store = SqliteStore(path)
    for entry in entries:
        store.write(entry)
    size = store.size()
    store.close()
    store = SqliteStore(path)
    assert [store.fetch(entry.key) for entry in entries] == entries
    assert store.size() == size
    assert store.nearest(Search(make_partition(), "fake/2", _EAST, 1))[0].entry == entries[0]
    assert store.clear(Selection(tags=("x",))) == 50
    store.close()


def test_closing_leaves_one_file(path: Path) -> None:
    store = SqliteStore(path)
    store.write(make_entry())
    store.close()
    assert [each.name for each in path.parent.iterdir()] == ["answers.db"]


def test_a_closed_store_says_so(store: SqliteStore) -> None:
    store.write(make_entry())
    store.close()
    with pytest.raises(StoreError, match="closed"):
        store.fetch(make_key())


def test_a_store_that_is_dropped_closes_its_file(path: Path) -> None:
    store = SqliteStore(path)
    store.write(make_entry())
    del store
    assert [each.name for each in path.parent.iterdir()] == ["answers.db"]


def test_the_file_names_its_program_and_format(path: Path, store: SqliteStore) -> None:
    store.write(make_entry())
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
        assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_file_of_another_program_is_not_touched(path: Path) -> None:
    _execute(path, "CREATE TABLE recipes (name TEXT)", "INSERT INTO recipes VALUES ('soup')")
    before = path.read_bytes()
    store = SqliteStore(path)
    for _ in range(3):
        with pytest.raises(StoreError, match="another program"):
            store.write(make_entry())
        with pytest.raises(StoreError, match="another program"):
            store.fetch(make_key())
    store.close()
    assert path.read_bytes() == before


def test_a_file_with_another_application_id_is_not_touched(path: Path) -> None:
    _execute(path, "PRAGMA application_id = 7", "CREATE TABLE entries (x)")
    store = SqliteStore(path)
    with pytest.raises(StoreError, match="another program"):
        store.size()
    store.close()


def test_a_newer_format_is_not_touched(path: Path) -> None:
    store = SqliteStore(path)
    store.write(make_entry())
    store.close()
    _execute(path, f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    before = path.read_bytes()
    store = SqliteStore(path)
    with pytest.raises(StoreError, match="newer aicache"):
        store.write(make_entry("other"))
    with pytest.raises(StoreError, match=r"newer aicache.*upgrade"):
        store.clear(Selection())
    store.close()
    assert path.read_bytes() == before
    assert [each.name for each in path.parent.iterdir()] == ["answers.db"]


def test_an_older_format_is_set_aside_and_said(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _execute(path, f"PRAGMA application_id = {APPLICATION_ID}", "CREATE TABLE entries (old)")
    store = SqliteStore(path)
    store.write(make_entry())
    store.close()
    assert sorted(each.name for each in path.parent.iterdir()) == ["answers.db", "answers.db.old-1"]
    assert "answers.db.old-1" in caplog.text


def test_a_file_that_lacks_a_table_is_damaged(path: Path, store: SqliteStore) -> None:
    store.write(make_entry())
    store.close()
    _execute(path, "DROP TABLE bodies")
    store = SqliteStore(path)
    assert store.fetch(make_key()) is None
    store.close()
    assert path.with_name("answers.db.corrupt-1").exists()


def test_a_file_without_its_totals_is_damaged(path: Path, store: SqliteStore) -> None:
    store.write(make_entry())
    _execute(path, "DELETE FROM state")
    assert store.size().entries == 0
    assert path.with_name("answers.db.corrupt-1").exists()


@pytest.mark.parametrize("trouble", list(Trouble))
def test_every_trouble_is_one_sentence_without_its_full_stop_and_says_what_to_do(trouble: Trouble) -> None:
    """The cache puts it into a sentence of its own when it logs it."""
    text = str(SqliteTroubleError(trouble, Path("answers")))
    assert text.startswith("The answer cache cannot use answers: ")
    assert "; " in text
    assert "." not in text


def test_what_is_raised_is_not_logged(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The cache logs every failed step; a store that did so too would say everything twice."""
    path.mkdir(parents=True, exist_ok=True)
    store = SqliteStore(path / "answers.db")
    (path / "answers.db").mkdir()
    with pytest.raises(StoreError):
        store.fetch(make_key())
    store.close()
    for act in (store.size, lambda: store.write(make_entry()), lambda: store.fetch(make_key())):
        with pytest.raises(StoreError, match=r"[^.]$"):
            act()
    store = SqliteStore(path / "small.db", max_bytes=1)
    with pytest.raises(StoreError, match=r"[^.]$"):
        store.write(make_entry())
    store.close()
    assert caplog.records == []


def test_a_full_disk_as_sqlite_reports_it_is_known(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA max_page_count = 2")
        with pytest.raises(sqlite3.Error) as caught:
            connection.executescript("CREATE TABLE a (x); CREATE TABLE b (x); CREATE TABLE c (x)")
    assert diagnose(caught.value) is Trouble.FULL


def test_a_fault_of_the_module_itself_is_known(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.close()
    with pytest.raises(sqlite3.Error) as caught:
        connection.execute("SELECT 1")
    assert diagnose(caught.value) is Trouble.OTHER


# ------------------------------------------------------------------------------------ bounds


def test_what_was_used_longest_ago_goes_first(path: Path) -> None:
    store = SqliteStore(path, max_entries=3)
    for query in ("a", "b", "c"):
        store.write(make_entry(query))
    store.fetch(make_key("a"))
    store.write(make_entry("d"))
    assert _queries(store, ["a", "b", "c", "d"]) == ["a", "c", "d"]
    store.close()


def test_the_nearest_entry_counts_as_used(path: Path) -> None:
    store = SqliteStore(path, max_entries=3)
    for number, query in enumerate(("a", "b", "c")):
        store.write(make_entry(query, vector=make_vector(1, number)))
    store.nearest(Search(make_partition(), "fake/2", _EAST, 3))
    store.write(make_entry("d"))
    assert _queries(store, ["a", "b", "c", "d"]) == ["a", "c", "d"]
    store.close()


def test_the_last_of_several_reads_decides(path: Path) -> None:
    store = SqliteStore(path, max_entries=3)
    for query in ("a", "b", "c"):
        store.write(make_entry(query))
    for query in ("a", "b", "c", "a"):
        store.fetch(make_key(query))
    store.write(make_entry("d"))
    assert _queries(store, ["a", "b", "c", "d"]) == ["a", "c", "d"]
    store.close()


def test_expired_entries_go_before_used_ones(path: Path) -> None:
    store = SqliteStore(path, max_entries=3)
    for query, expires in (("a", None), ("b", 50.0), ("c", None)):
        store.write(make_entry(query, created=10.0, expires=expires))
    store.fetch(make_key("b"))
    store.write(make_entry("d", created=60.0))
    assert _queries(store, ["a", "b", "c", "d"]) == ["a", "c", "d"]
    store.close()


def test_an_entry_that_expires_at_once_is_still_readable_when_it_is_written(path: Path) -> None:
    store = SqliteStore(path, max_entries=1)
    store.write(make_entry("a"))
    store.write(make_entry("b", created=10.0, expires=10.0))
    assert _queries(store, ["a", "b"]) == ["b"]
    store.close()


def test_bytes_are_bounded(path: Path) -> None:
    store = SqliteStore(path, max_bytes=20_000)
    for number in range(40):
        store.write(make_entry(f"q{number}", body=_noise(2_000)))
        assert store.size().bytes <= 20_000
    assert 6 <= store.size().entries <= 9
    assert store.fetch(make_key("q39")) is not None
    store.close()


def test_one_large_entry_displaces_many(path: Path) -> None:
    store = SqliteStore(path, max_bytes=400_000)
    for number in range(300):
        store.write(make_entry(f"q{number}", body=_noise(500)))
    store.write(make_entry("large", body=_noise(398_000)))
    assert store.size().entries <= 2
    assert store.fetch(make_key("large")) is not None
    store.close()


def test_an_entry_larger_than_the_store_displaces_nothing(path: Path) -> None:
    store = SqliteStore(path, max_bytes=20_000)
    store.write(make_entry("a"))
    with pytest.raises(StoreError, match="max_bytes"):
        store.write(make_entry("b", body=_noise(30_000)))
    assert _queries(store, ["a", "b"]) == ["a"]
    store.close()


def test_large_bounds_are_kept_too(path: Path) -> None:
    store = SqliteStore(path, max_entries=200)
    for number in range(450):
        store.write(make_entry(f"q{number}", vector=make_vector(1, number)))
        assert store.size().entries <= 200
    assert store.size().entries > 190
    assert _queries(store, [f"q{n}" for n in range(450)])[-1] == "q449"
    store.close()


def test_a_read_never_writes(path: Path, store: SqliteStore) -> None:
    store.write(make_entry(vector=_EAST, expires=1.0))
    with closing(sqlite3.connect(path)) as watcher:
        (before,) = watcher.execute("PRAGMA data_version").fetchone()
        for _ in range(5):
            store.fetch(make_key())
            store.nearest(Search(make_partition(), "fake/2", _EAST, 3))
            store.size()
            store.epoch()
            store.sweep(0.5, 10)
        assert watcher.execute("PRAGMA data_version").fetchone() == (before,)


def test_totals_are_those_of_the_rows(path: Path, store: SqliteStore) -> None:
    chance = random.Random(3)
    for step in range(300):
        entry = make_entry(f"q{chance.randrange(60)}", body=b"x" * chance.randrange(3_000), expires=float(step))
        match chance.randrange(5):
            case 0:
                store.remove([entry.key, entry.key, make_key("q1")])
            case 1:
                store.sweep(step - 100.0, 2)
            case _:
                store.write(entry)
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT count(*), coalesce(sum(bytes), 0) FROM entries").fetchone()
        bodies = connection.execute("SELECT count(*) FROM bodies").fetchone()
    assert rows == (store.size().entries, store.size().bytes)
    assert bodies == rows[:1]


def test_the_file_gives_its_space_back_after_clear(path: Path, store: SqliteStore) -> None:
    for number in range(300):
        store.write(make_entry(f"q{number}", body=os.urandom(4_000)))
    assert store.clear(Selection()) == 300
    assert path.stat().st_size < 200_000
    assert path.with_name("answers.db-wal").stat().st_size == 0


def test_cleared_answers_leave_the_disk(path: Path) -> None:
    store = SqliteStore(path, codec=Codec(compress_above=None))
    for number in range(30):
        store.write(make_entry(f"q{number}", body=b"a very private answer" * 50))
    assert any(b"private" in each.read_bytes() for each in path.parent.iterdir())
    store.clear(Selection())
    assert all(b"private" not in each.read_bytes() for each in path.parent.iterdir())
    store.close()


def test_freed_pages_are_used_again(path: Path) -> None:
    store = SqliteStore(path, max_entries=50)
    sizes = []
    for number in range(400):
        store.write(make_entry(f"q{number}", body=os.urandom(2_000)))
        sizes.append(path.stat().st_size)
    store.close()
    assert path.stat().st_size < 3 * 50 * 2_400


# ------------------------------------------------------------------------------------ nearest


def _unit(rows: np.ndarray) -> list[Vector]:
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return [row.astype("<f4").tobytes() for row in rows]


def _exact(query: Vector, entries: list[Entry], k: int) -> list[tuple[float, str]]:
    target = np.frombuffer(query, dtype="<f4")
    scores = [(float(np.frombuffer(e.vector or b"", dtype="<f4") @ target), e.query) for e in entries]
    return sorted(scores, reverse=True)[:k]


@pytest.mark.parametrize("number", [1, 31, 32, 33, 34, 400])
def test_scan_and_index_find_the_same(store: SqliteStore, number: int) -> None:
    rows = np.random.default_rng(number).standard_normal((number, 16))
    entries = [make_entry(f"q{n}", vector=vector) for n, vector in enumerate(_unit(rows))]
    for entry in entries:
        store.write(entry)
    for query in _unit(np.random.default_rng(7).standard_normal((5, 16))):
        found = store.nearest(Search(make_partition(), "fake/16", query, 10))
        true = _exact(query, entries, 10)
        assert [one.entry.query for one in found] == [query for _, query in true]
        assert all(abs(one.score - score) < 1e-6 for one, (score, _) in zip(found, true, strict=True))


def test_an_index_follows_every_change(path: Path) -> None:
    """A loaded index against brute force, with writes and removals here and by another store."""
    chance = random.Random(11)
    stores = [SqliteStore(path, busy_timeout=5.0), SqliteStore(path, busy_timeout=5.0)]
    alive: dict[str, Entry] = {}
    vectors = _unit(np.random.default_rng(1).standard_normal((900, 8)))
    for step, vector in enumerate(vectors):
        store, query = stores[chance.randrange(2)], f"q{chance.randrange(250)}"
        if chance.random() < 0.25 and alive:
            gone = alive.pop(chance.choice(sorted(alive)))
            assert store.remove([gone.key]) == 1
        else:
            alive[query] = make_entry(query, f"{step}", vector=vector)
            store.write(alive[query])
        if step % 5 == 0:
            found = stores[chance.randrange(2)].nearest(Search(make_partition(), "fake/8", vectors[-1], 7))
            true = _exact(vectors[-1], list(alive.values()), 7)
            assert [one.entry.query for one in found] == [query for _, query in true]
            assert all(one.entry == alive[one.entry.query] for one in found)
    for store in stores:
        store.close()


def test_an_index_notices_that_nearly_all_is_gone(path: Path) -> None:
    one, two = SqliteStore(path), SqliteStore(path)
    vectors = _unit(np.random.default_rng(2).standard_normal((300, 8)))
    for number, vector in enumerate(vectors):
        one.write(make_entry(f"q{number}", vector=vector, tags=["most"] if number else []))
    assert len(two.nearest(Search(make_partition(), "fake/8", vectors[5], 10))) == 10
    assert one.clear(Selection(tags=("most",))) == 299
    assert [found.entry.query for found in two.nearest(Search(make_partition(), "fake/8", vectors[5], 10))] == ["q0"]
    one.write(make_entry("new", vector=vectors[5]))
    assert [found.entry.query for found in two.nearest(Search(make_partition(), "fake/8", vectors[5], 1))] == ["new"]
    one.close()
    two.close()


@pytest.mark.parametrize("number", [5, 60])
def test_damaged_neighbours_are_left_out_and_others_take_their_place(path: Path, number: int) -> None:
    store = SqliteStore(path)
    for each in range(number):
        store.write(make_entry(f"q{each}", vector=make_vector(1, each / 100)))
    not_a_number = np.array([np.nan, 0], dtype="<f4").tobytes().hex()
    _execute(
        path,
        "UPDATE bodies SET body = zeroblob(100) WHERE id = 1",
        "UPDATE bodies SET body = 'text' WHERE id = 2",
        f"UPDATE vectors SET vector = X'{not_a_number}' WHERE id = 3",
    )
    found = store.nearest(Search(make_partition(), "fake/2", _EAST, 2))
    assert [one.entry.query for one in found] == ["q3", "q4"]
    store.close()


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE bodies SET body = substr(body, 1, length(body) - 1)",
        "UPDATE bodies SET body = X''",
        "UPDATE bodies SET body = 5",
        "UPDATE entries SET expires = 'soon'",
        "UPDATE vectors SET vector = 'text'",
        "UPDATE vectors SET vector = X'0000803F00000080'",
        "UPDATE vectors SET checksum = 'text'",
    ],
)
def test_a_damaged_entry_is_unreadable_and_can_be_written_again(path: Path, damage: str) -> None:
    store = SqliteStore(path)
    entry = make_entry(vector=_EAST)
    store.write(entry)
    _execute(path, damage)
    with pytest.raises(UnreadableEntryError):
        store.fetch(entry.key)
    store.write(entry)
    assert store.fetch(entry.key) == entry
    store.close()


def _damaged(vector: Vector, how: str) -> Vector:
    numbers = np.frombuffer(vector, dtype="<f4").copy()
    match how:
        case "exponent bit":  # The highest one: the number becomes enormous, and so does every product with it.
            numbers.view("<u4")[0] ^= 1 << 30
        case "small exponent bit":  # The length stays 1 within what rounding allows.
            numbers.view("<u4")[-1] ^= 1 << 23
        case "sign bit":  # The length stays 1 exactly.
            numbers.view("<u4")[0] ^= 1 << 31
        case "not a number":
            numbers[0] = np.nan
    return numbers.tobytes()


@pytest.mark.parametrize("number", [1, 41, 5_000])
@pytest.mark.parametrize("how", ["exponent bit", "small exponent bit", "sign bit", "not a number"])
@pytest.mark.parametrize("loaded", [False, True], ids=["before it is read", "after it was read"])
def test_a_damaged_vector_is_never_a_neighbour_and_disturbs_none(
    path: Path, number: int, how: str, *, loaded: bool
) -> None:
    store = SqliteStore(path, busy_timeout=5.0)
    rows = np.random.default_rng(number).standard_normal((number + 2, 16))
    rows[:, 0] += 3.0
    rows[:, -1] = 0.01
    *vectors, late, query = _unit(rows)
    _write_all(store, path, vectors)
    if loaded:
        store.nearest(Search(make_partition(), "fake/16", query, 1))
    _execute(path, f"UPDATE vectors SET vector = X'{_damaged(vectors[0], how).hex()}' WHERE id = 1")
    found = store.nearest(Search(make_partition(), "fake/16", query, min(number, 50)))
    assert "q0" not in [one.entry.query for one in found]
    assert "q0" not in [one.entry.query for one in store.nearest(Search(make_partition(), "fake/16", vectors[0], 3))]
    store.write(make_entry("late", vector=late))
    found = store.nearest(Search(make_partition(), "fake/16", query, 5))
    assert len(found) == min(number, 5)
    if number < 5_000:  # A graph may miss one now and then.
        alive = [make_entry(f"q{n}", vector=vector) for n, vector in enumerate(vectors) if n]
        true = _exact(query, [*alive, make_entry("late", vector=late)], 5)
        assert [one.entry.query for one in found] == [name for _, name in true]
    assert store.nearest(Search(make_partition(), "fake/16", late, 1))[0].entry.query == "late"
    store.close()


@pytest.mark.parametrize("number", [5, 41])
@pytest.mark.parametrize("new", [1, 40])
def test_new_rows_with_damaged_vectors_do_not_end_the_search_of_their_partition(
    path: Path, number: int, new: int
) -> None:
    store = SqliteStore(path)
    for each in range(number):
        store.write(make_entry(f"q{each}", vector=make_vector(1, each)))
    assert store.nearest(Search(make_partition(), "fake/2", _EAST, 1))[0].entry.query == "q0"
    for each in range(new):
        store.write(make_entry(f"new {each}", vector=_EAST))
    first = make_key("new 0").digest.hex()
    _execute(
        path,
        "UPDATE vectors SET vector = X'0000C07F00000000' "
        f"WHERE id = (SELECT id FROM entries WHERE digest = X'{first}')",
    )
    expected = {"q0", *(f"new {each}" for each in range(1, new))}
    for _ in range(2):
        found = store.nearest(Search(make_partition(), "fake/2", _EAST, new))
        assert {one.entry.query for one in found} == expected
    store.write(make_entry("new 0", vector=_EAST))
    found = store.nearest(Search(make_partition(), "fake/2", _EAST, new + 1))
    assert {one.entry.query for one in found} == {*expected, "new 0"}
    store.close()


def _write_all(store: SqliteStore, path: Path, vectors: list[Vector], codec: Codec | None = None) -> None:
    """Entries q0, q1, ... in rows 1, 2, ...; a commit each would take seconds for thousands."""
    for number, vector in enumerate(vectors[:60]):
        store.write(make_entry(f"q{number}", vector=vector))
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        transaction = Transaction(connection, {})
        for number, vector in enumerate(vectors[60:], start=60):
            entry = make_entry(f"q{number}", vector=vector)
            transaction.put(entry, (codec or Codec()).encode(entry), 10**6, 10**9)
        transaction.finish()
        connection.execute("COMMIT")


@pytest.mark.parametrize("number", [2, 60])
def test_a_partition_with_many_damaged_vectors_is_still_searched(path: Path, number: int) -> None:
    store = SqliteStore(path)
    for each in range(number):
        store.write(make_entry(f"q{each}", vector=make_vector(1, each / 100)))
    _execute(path, "UPDATE vectors SET vector = X'0000C07F00000000' WHERE id > 1")
    for _ in range(2):
        assert [one.entry.query for one in store.nearest(Search(make_partition(), "fake/2", _EAST, 9))] == ["q0"]
    store.write(make_entry("new", vector=_EAST))
    assert {one.entry.query for one in store.nearest(Search(make_partition(), "fake/2", _EAST, 9))} == {"q0", "new"}
    store.close()


@pytest.mark.parametrize("number", [3, 60])
def test_a_vector_that_got_into_another_row_or_space_is_no_neighbour(path: Path, number: int) -> None:
    store = SqliteStore(path)
    for each in range(number):
        store.write(make_entry(f"q{each}", vector=make_vector(1, each)))
    store.write(make_entry("elsewhere", vector=_EAST, space="other"))
    _execute(
        path,
        "UPDATE vectors SET (vector, checksum) = (SELECT vector, checksum FROM vectors WHERE id = 1) WHERE id = 2",
        "UPDATE vectors SET space = (SELECT id FROM spaces WHERE name = CAST('fake/2' AS BLOB))",
    )
    found = store.nearest(Search(make_partition(), "fake/2", _EAST, number + 1))
    assert [one.entry.query for one in found] == ["q0", *(f"q{each}" for each in range(2, number))]
    store.close()


@pytest.mark.parametrize("number", [1, 40])
def test_an_entry_written_without_a_usable_vector_is_matched_exactly_only(path: Path, number: int) -> None:
    store = SqliteStore(path)
    for each in range(number):
        store.write(make_entry(f"q{each}", vector=make_vector(1, each + 1)))
    long = np.array([5, 0], dtype="<f4").tobytes()
    for name, vector in (("long", long), ("zero", b"\0" * 8), ("nan", b"\0\0\xc0\x7f" * 2)):
        entry = make_entry(name, vector=vector)
        store.write(entry)
        assert store.fetch(entry.key) == entry
    found = store.nearest(Search(make_partition(), "fake/2", _EAST, number + 3))
    assert [one.entry.query for one in found] == [f"q{each}" for each in range(number)]
    store.close()


@pytest.mark.parametrize("number", [3, 60])
def test_a_question_without_a_usable_vector_has_no_neighbours_and_harms_none(path: Path, number: int) -> None:
    store = SqliteStore(path)
    for each in range(number):
        store.write(make_entry(f"q{each}", vector=make_vector(1, each)))
    for query in (b"\0\0\xc0\x7f" * 2, b"\0" * 8, b"\0" * 7):
        assert store.nearest(Search(make_partition(), "fake/2", query, 2)) == []
    assert [one.entry.query for one in store.nearest(Search(make_partition(), "fake/2", _EAST, 2))] == ["q0", "q1"]
    store.close()


def test_memory_for_indexes_is_bounded(path: Path) -> None:
    store = SqliteStore(path, index_bytes=100_000)
    homes = [make_partition(f"p{n}") for n in range(8)]
    for home in homes:
        for number, vector in enumerate(_unit(np.random.default_rng(3).standard_normal((60, 64)))):
            store.write(make_entry(f"q{number}", partition=home, vector=vector))
    for _ in range(2):
        for home in homes:
            assert len(store.nearest(Search(home, "fake/64", vector, 3))) == 3
    session = store._homes.own().session
    assert session is not None
    loaded = session.neighbours._loaded
    assert 1 <= len(loaded) < 8
    assert sum(each.nbytes for each in loaded.values()) <= 100_000
    store.close()


@pytest.mark.slow
def test_a_large_partition_is_searched_while_its_graph_is_built(path: Path) -> None:
    rng = np.random.default_rng(5)
    vectors = _unit(rng.standard_normal((40, 32))[rng.integers(0, 40, 4_600)] + 0.3 * rng.standard_normal((4_600, 32)))
    store = SqliteStore(path, busy_timeout=5.0)
    for number, vector in enumerate(vectors):
        store.write(make_entry(f"q{number}", vector=vector))
    for number in range(0, 4_600, 50):
        best = store.nearest(Search(make_partition(), "fake/32", vectors[number], 5))[0]
        assert best.score == pytest.approx(1.0, abs=1e-6)
        assert best.entry.query == f"q{number}"
    store.close()


def test_reading_and_writing_need_no_numpy(tmp_path: Path) -> None:
    script = f"""
import sys
from aicache._model import Search
from aicache.stores.sqlite import SqliteStore
from aicache.testing import make_entry, make_vector
store = SqliteStore({str(tmp_path / "answers.db")!r})
entry = make_entry(vector=make_vector(1, 2, 3))
store.write(entry)
assert store.fetch(entry.key) == entry
assert list(store.nearest(Search(entry.key.partition, "other", entry.vector, 3))) == []
assert "numpy" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


# ------------------------------------------------------------------------------------ epoch, groups


def test_the_epoch_moves_when_another_store_takes_something_away(path: Path) -> None:
    here, there = SqliteStore(path), SqliteStore(path)
    entry = make_entry()
    acts: list[tuple[Callable[[], object], bool]] = [
        (lambda: there.write(entry), False),
        (lambda: there.write(replace(entry, created=5.0)), True),
        (lambda: there.remove([make_key("never")]), True),  # what was evicted here may be in this L1 still
        (lambda: there.remove([entry.key]), True),
        (lambda: there.write(replace(entry, expires=1.0)), False),
        (lambda: there.touch(entry.key, 0.5), False),
        (lambda: there.clear(Selection(tags=("none",))), True),
        (lambda: there.clear(Selection()), True),
    ]
    for number, (act, moves) in enumerate(acts):
        before = here.epoch()
        act()
        here.write(make_entry("own", f"{number}"))  # Own replacements in between do not cancel it out.
        assert (here.epoch() != before) == moves, number
        assert here.epoch() == here.epoch()
    here.close()
    there.close()


def test_eviction_and_expiry_elsewhere_leave_the_epoch(path: Path) -> None:
    here, there = SqliteStore(path), SqliteStore(path, max_entries=2)
    before = here.epoch()
    for number in range(5):
        there.write(make_entry(f"q{number}", expires=9e9))
    assert there.sweep(1e10, 10) == 2
    assert here.epoch() == before
    here.close()
    there.close()


def test_many_groups_are_told_apart(store: SqliteStore) -> None:
    homes = [make_partition(tenant=f"t{n}", model=f"m{n % 3}") for n in range(30)]
    for home in homes:
        store.write(make_entry(partition=home))
    assert store.clear(Selection(tenant=homes[4].tenant)) == 1
    assert store.clear(Selection(model=homes[1].model)) == 9
    assert store.size().entries == 20


def test_a_group_from_a_failed_write_is_not_believed(path: Path) -> None:
    store = SqliteStore(path, max_bytes=50_000)
    store.write(make_entry("first"))
    home = make_partition(tenant="new")
    _execute(path, "CREATE TRIGGER refuse BEFORE INSERT ON bodies BEGIN SELECT RAISE (ABORT, 'no'); END")
    with pytest.raises(StoreError):
        store.write(make_entry(partition=home))
    _execute(path, "DROP TRIGGER refuse")
    store.write(make_entry("second", partition=home))
    assert store.clear(Selection(tenant=home.tenant)) == 1
    assert store.size().entries == 1
    store.close()


def test_clear_removes_more_than_one_batch(store: SqliteStore) -> None:
    for number in range(1_200):
        store.write(make_entry(f"q{number}", tags=["odd"] if number % 2 else ["even"]))
    assert store.clear(Selection(tags=("odd",))) == 600
    assert store.clear(Selection()) == 600


def test_a_dry_run_says_nothing_to_other_programs(path: Path) -> None:
    here, there = SqliteStore(path), SqliteStore(path)
    entry = make_entry(tags=["x"])
    here.write(entry)
    before = here.epoch()
    assert there.clear(Selection(), dry_run=True) == there.remove([entry.key], dry_run=True) == 1
    there.block(make_key("asker"), entry.key)
    assert here.epoch() == before
    here.close()
    there.close()


# ------------------------------------------------------------------------------------ blocked, similar


def test_a_block_is_for_all_programs_and_for_good(path: Path) -> None:
    here, there = SqliteStore(path), SqliteStore(path)
    wrong, asker = make_entry("wrong", vector=_EAST), make_key("asker")
    here.write(wrong)
    there.block(asker, wrong.key)
    assert here.nearest(Search(make_partition(), "fake/2", _EAST, 3, asker)) == []
    here.close()
    there.close()
    store = SqliteStore(path)
    assert store.nearest(Search(make_partition(), "fake/2", _EAST, 3, asker)) == []
    assert len(store.nearest(Search(make_partition(), "fake/2", _EAST, 3))) == 1
    store.close()


def test_a_blocked_entry_that_is_written_again_stays_blocked_in_a_loaded_partition(store: SqliteStore) -> None:
    entries = [make_entry(f"q{number}", vector=make_vector(1, number)) for number in range(60)]
    for entry in entries:
        store.write(entry)
    asker = make_key("asker")
    store.block(asker, entries[0].key)
    for _ in range(3):
        assert store.nearest(Search(make_partition(), "fake/2", _EAST, 1, asker))[0].entry == entries[1]
        store.write(entries[0])
        assert store.nearest(Search(make_partition(), "fake/2", _EAST, 1))[0].entry == entries[0]


def test_similar_leaves_out_what_is_damaged(path: Path, store: SqliteStore) -> None:
    for number in range(6):
        store.write(make_entry(f"q{number}", vector=_EAST))
    store.write(make_entry("elsewhere", vector=_EAST, space="other"))
    _execute(
        path,
        "UPDATE bodies SET body = zeroblob(100) WHERE id = 1",
        "UPDATE vectors SET vector = X'0000C07F00000000' WHERE id = 2",
        "UPDATE vectors SET vector = X'000000000000803F' WHERE id = 3",
        "UPDATE vectors SET partition = X'00' WHERE id = 4",
        "UPDATE vectors SET vector = 'text' WHERE id = 5",
        "UPDATE vectors SET space = (SELECT id FROM spaces WHERE name = CAST('fake/2' AS BLOB))",
    )
    assert [one.query for one in store.similar(Selection(), "fake/2", _EAST, -1.0)] == ["q5"]


def test_similar_of_no_usable_vector_is_nothing(store: SqliteStore) -> None:
    store.write(make_entry(vector=_EAST))
    for vector in (b"", b"\0" * 7, b"\0" * 8, b"\0\0\xc0\x7f" * 2):
        assert list(store.similar(Selection(), "fake/2", vector, -1.0)) == []


def test_similar_is_exact_over_many_steps(path: Path) -> None:
    store = SqliteStore(path, busy_timeout=5.0)
    vectors = _unit(np.random.default_rng(4).standard_normal((1_300, 16)))
    _write_all(store, path, vectors)
    found = store.similar(Selection(), "fake/16", vectors[7], 0.3)
    entries = [make_entry(f"q{n}", vector=vector) for n, vector in enumerate(vectors)]
    true = [(score, name) for score, name in _exact(vectors[7], entries, 1_300) if score >= 0.3]
    assert len(found) == len(true) > 50
    assert [one.query for one in found] == [name for _, name in true]
    assert all(abs(one.score - score) < 1e-6 for one, (score, _) in zip(found, true, strict=True))
    assert [one.query for one in store.similar(Selection(), "fake/16", vectors[7], 1.0)] == ["q7"]
    store.close()


# ------------------------------------------------------------------------------------ the codec


def _keys(number: int) -> list[str]:
    fernet = pytest.importorskip("cryptography.fernet")
    return [fernet.Fernet.generate_key().decode() for _ in range(number)]


def test_encrypted_entries_are_not_in_the_file_in_clear_and_come_back_whole(path: Path) -> None:
    store = SqliteStore(path, codec=Codec(_keys(1)))
    entries = [
        make_entry(f"a secret question {number}", "a secret answer", vector=make_vector(1, number), tags=["x"])
        for number in range(40)
    ]
    for entry in entries:
        store.write(entry)
    assert all(b"secret" not in each.read_bytes() for each in path.parent.iterdir())
    assert [store.fetch(entry.key) for entry in entries] == entries
    assert [one.entry for one in store.nearest(Search(make_partition(), "fake/2", _EAST, 40))] == entries
    assert [one.query for one in store.similar(Selection(), "fake/2", _EAST, -1.0)] == [e.query for e in entries]
    assert store.clear(Selection(tags=("x",), written_before=1e9)) == 40
    store.close()


@pytest.mark.parametrize("number", [1, 20, 300])
def test_entries_of_a_foreign_key_are_a_wrong_key_and_are_replaced(path: Path, number: int) -> None:
    entries = [make_entry(f"q{each}", vector=make_vector(1, each)) for each in range(number)]
    before = SqliteStore(path, codec=Codec(_keys(1)))
    for entry in entries:
        before.write(entry)
    before.close()
    store = SqliteStore(path, codec=Codec(_keys(1)))
    for _ in range(2):
        with pytest.raises(WrongKeyError):
            store.fetch(entries[0].key)
        with pytest.raises(WrongKeyError):
            store.nearest(Search(make_partition(), "fake/2", _EAST, 5))
        with pytest.raises(WrongKeyError):
            store.similar(Selection(), "fake/2", _EAST, 0.5)
    assert store.similar(Selection(), "fake/2", make_vector(-1, 0), 0.5) == []
    assert store.nearest(Search(make_partition("other"), "fake/2", _EAST, 5)) == []
    store.write(entries[0])
    for _ in range(2):
        assert [one.entry for one in store.nearest(Search(make_partition(), "fake/2", _EAST, 5))] == entries[:1]
    store.remove([entries[0].key])
    if number > 1:
        with pytest.raises(WrongKeyError):
            store.nearest(Search(make_partition(), "fake/2", _EAST, 5))
    assert store.remove([entry.key for entry in entries]) == number - 1
    assert store.nearest(Search(make_partition(), "fake/2", _EAST, 5)) == []
    store.close()


@pytest.mark.parametrize("number", [20, 300])
def test_entries_of_a_foreign_key_do_not_hide_those_behind_them(path: Path, number: int) -> None:
    old, new = _keys(2)
    before, store = SqliteStore(path, codec=Codec([old])), SqliteStore(path, codec=Codec([new]))
    mine = [make_entry(f"mine {each}", vector=make_vector(1, 1_000 + each)) for each in range(3)]
    for each in range(number):
        before.write(make_entry(f"q{each}", vector=make_vector(1, each)))
    for entry in mine:
        store.write(entry)
    for _ in range(2):
        assert [one.entry for one in store.nearest(Search(make_partition(), "fake/2", _EAST, 2))] == mine[:2]
    asker = make_key("asker")
    for entry in mine:
        store.block(asker, entry.key)
    both = SqliteStore(path, codec=Codec([new, old]))
    assert len(both.nearest(Search(make_partition(), "fake/2", _EAST, number + 3))) == number + 3
    assert len(both.nearest(Search(make_partition(), "fake/2", _EAST, number + 3, asker))) == number
    for opened in (before, store, both):
        opened.close()


def test_an_entry_behind_thousands_of_a_foreign_key_is_found_after_a_few_lookups(path: Path) -> None:
    """One lookup does not read them all, but each reads others."""
    old, new = _keys(2)
    before = SqliteStore(path, codec=Codec([old]))
    _write_all(before, path, [make_vector(1, number / 10_000) for number in range(3_000)], Codec([old]))
    before.close()
    store = SqliteStore(path, codec=Codec([new]), busy_timeout=5.0)
    mine = make_entry("mine", vector=make_vector(0, 1))
    store.write(mine)
    with pytest.raises(WrongKeyError):
        store.nearest(Search(make_partition(), "fake/2", _EAST, 1))
    for _ in range(20):
        with suppress(WrongKeyError):
            found = store.nearest(Search(make_partition(), "fake/2", _EAST, 1))
    assert [one.entry for one in found] == [mine]
    store.close()


def test_a_vector_put_beside_another_encrypted_entry_is_found_out(path: Path) -> None:
    store = SqliteStore(path, codec=Codec(_keys(1)))
    for number in range(2):
        store.write(make_entry(f"q{number}", vector=make_vector(1, number)))
    forged = checksum(2, _EAST)  # Whoever may write the file can make a checksum.
    _execute(path, f"UPDATE vectors SET vector = X'{_EAST.hex()}', checksum = {forged} WHERE id = 2")
    assert [one.entry.query for one in store.nearest(Search(make_partition(), "fake/2", _EAST, 2))] == ["q0"]
    with pytest.raises(UnreadableEntryError):
        store.fetch(make_key("q1"))
    store.close()


def test_large_answers_take_less_room(path: Path) -> None:
    store = SqliteStore(path)
    store.write(make_entry(body=b"the same words again and again " * 1_000))
    assert store.size().bytes < 5_000
    assert store.fetch(make_key()) is not None
    store.close()


def test_log_and_errors_hold_no_question_and_no_answer(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    store = SqliteStore(path)
    entry = make_entry("a secret question", "a secret answer", tags=["secret tag"])
    store.write(entry)
    _execute(path, "UPDATE bodies SET body = zeroblob(90)")
    with pytest.raises(StoreError) as caught:
        store.fetch(entry.key)
    assert "secret" not in str(caught.value) + repr(caught.value) + caplog.text
    store.close()


def test_a_reader_looks_once_a_second_whether_the_file_is_still_there(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = FakeClock()
    store = SqliteStore(path, clock=clock)
    store.write(make_entry())
    path.unlink()
    assert store.fetch(make_key()) == make_entry()
    clock.advance(1.0)
    assert store.fetch(make_key()) is None
    assert path.exists()
    assert ["was deleted while in use" in record.getMessage() for record in caplog.records] == [True]
    store.close()


class SqliteStoreMachine(StoreMachine):
    """The store against a dict; each example has a folder of its own."""

    def make_store(self) -> Store:
        self._folder = tempfile.TemporaryDirectory()
        self._opened = SqliteStore(Path(self._folder.name) / "answers.db", busy_timeout=5.0)
        return self._opened

    def teardown(self) -> None:
        super().teardown()
        self._opened.close()
        self._folder.cleanup()


class TestSqliteStoreStateful(SqliteStoreMachine.TestCase):  # type: ignore[misc, valid-type]
    settings = settings(max_examples=25, stateful_step_count=40, deadline=None)
