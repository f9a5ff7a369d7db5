"""A file of the embedded store that an older version wrote."""

from __future__ import annotations

import logging
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from aicache._codec import Codec
from aicache._errors import StoreError
from aicache._model import Entry, Search, Selection
from aicache.stores._sqlite_schema import SCHEMA_VERSION
from aicache.stores.sqlite import SqliteStore
from aicache.testing import make_entry, make_key, make_partition, make_vector

_EAST = make_vector(1, 0)
_CLUSTER = b"cluster of 16 by"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "answers.db"


@pytest.fixture(params=[2, 3], ids=["format 2", "format 3"])
def version(request: pytest.FixtureRequest) -> int:
    """The format of the file."""
    return int(request.param)


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder that every user can reach, which pytest's own are not."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def _execute(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def _entries() -> list[Entry]:
    return [
        make_entry(
            f"question {number}",
            partition=make_partition(model="m" if number % 2 else "n"),
            created=1_000.25 + number,
            expires=9e9,
            vector=make_vector(1, number),
            tags=["red"] if number < 3 else [],
        )
        for number in range(40)
    ]


_TO_FORMAT_3 = (
    *(f"DROP TRIGGER cluster_{event}" for event in ("written", "removed", "left", "joined")),
    *(f"DROP TABLE {table}" for table in ("clusters", "lessons", "summaries")),
    "ALTER TABLE entries DROP COLUMN partition",
    "ALTER TABLE entries DROP COLUMN cluster",
    "PRAGMA user_version = 3",
)
_TO_FORMAT_2 = (
    "DROP TABLE blocked",
    "ALTER TABLE entries DROP COLUMN created",
    "ALTER TABLE groups RENAME TO newer",
    "CREATE TABLE groups (id INTEGER PRIMARY KEY, namespace BLOB NOT NULL, tenant BLOB NOT NULL, "
    "model BLOB NOT NULL, UNIQUE (namespace, tenant, model))",
    "INSERT INTO groups SELECT id, namespace, tenant, model FROM newer",
    "DROP TABLE newer",
    "PRAGMA user_version = 2",
)


def _filled_in_older_format(path: Path, version: int) -> list[Entry]:
    """A file as an older version wrote it; its entries."""
    entries = _entries()
    store = SqliteStore(path, codec=Codec(compress_above=None))
    for entry in entries:
        store.write(entry)
    store.close()
    _execute(path, *_TO_FORMAT_3, *(_TO_FORMAT_2 if version == 2 else ()))
    return entries


def test_a_file_of_an_older_format_is_upgraded_with_all_it_holds(
    path: Path, version: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "aicache")
    entries = _filled_in_older_format(path, version)
    store = SqliteStore(path)
    assert [store.fetch(entry.key) for entry in entries] == entries
    assert store.nearest(Search(entries[0].key.partition, "fake/2", _EAST, 1))[0].entry == entries[0]
    assert len(store.similar(Selection(), "fake/2", _EAST, 0.5)) == 2
    assert store.size().entries == 40
    store.close()
    assert [each.name for each in path.parent.iterdir()] == ["answers.db"]
    (said,) = caplog.records
    assert (said.levelname, "upgraded" in said.getMessage()) == ("INFO", True)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)


def test_entries_of_an_upgraded_file_are_selected_like_others(path: Path, version: int) -> None:
    entries = _filled_in_older_format(path, version)
    store = SqliteStore(path)
    new = make_entry("new", created=1_010.0, partition=make_partition(model="m", model_name="large"))
    store.write(new)
    before = Selection(written_before=entries[10].created)
    assert store.clear(before, dry_run=True) == 11, "ten old ones and the new one"
    assert store.clear(Selection(model=entries[1].key.partition.model), dry_run=True) == 20
    assert store.clear(Selection(model_name=new.key.partition.model_name), dry_run=True) == 1
    assert store.clear(Selection(model_name=b""), dry_run=True) == 40, "their models' names are not known"
    assert store.clear(Selection(tags=("red",), written_before=entries[2].created)) == 2
    assert store.clear(before) == 9
    assert [entry for entry in entries if store.fetch(entry.key)] == entries[10:]
    store.block(make_key("asker"), entries[10].key)
    store.close()


def test_one_model_with_a_name_and_without_is_two_groups(path: Path, version: int) -> None:
    """As for entries from before and after an upgrade."""
    _filled_in_older_format(path, version)
    store = SqliteStore(path)
    nameless = make_partition(model="m")
    named = replace(nameless, model_name=b"name")
    store.write(make_entry("named", partition=named))
    store.write(make_entry("nameless", partition=nameless))
    assert store.clear(Selection(model_name=b"name")) == 1
    assert store.clear(Selection(model=nameless.model)) == 21
    store.close()


def test_an_upgraded_file_learns(path: Path, version: int) -> None:
    entries = _filled_in_older_format(path, version)
    home = entries[0].key.partition
    mine = [entry for entry in entries if entry.key.partition == home]
    store = SqliteStore(path)
    assert {one.cluster_size for one in store.nearest(Search(home, "fake/2", _EAST, 50))} == {1}
    for entry in mine[:3]:
        store.join(entry.key, _CLUSTER)
    store.write(replace(mine[3], cluster=_CLUSTER))
    assert [one.cluster_size for one in store.nearest(Search(home, "fake/2", _EAST, 5))] == [4, 4, 4, 4, 1]
    assert store.fetch(mine[0].key) == replace(mine[0], cluster=_CLUSTER)
    assert store.append_lessons(b"log", [b"one"]) == 1
    store.keep_summary(b"log", 1, b"summary")
    assert (store.lessons(b"log", 0).items, store.summary(b"log")) == ((b"one",), (1, b"summary"))
    store.close()


def test_of_an_upgraded_file_the_entries_with_vectors_are_listed(path: Path, version: int) -> None:
    store = SqliteStore(path, codec=Codec(compress_above=None))
    store.write(make_entry("old without a vector"))
    store.close()
    entries = _filled_in_older_format(path, version)
    store = SqliteStore(path)
    new = make_entry("new without a vector")
    store.write(new)
    listed = {entry.key.id: entry for entry in store.entries(Selection())}
    assert listed == {entry.key.id: entry for entry in [*entries, new]}
    assert store.fetch(make_key("old without a vector")) == make_entry("old without a vector")
    store.close()


def test_a_damaged_body_in_an_upgraded_file_has_no_age(path: Path) -> None:
    _filled_in_older_format(path, 2)
    _execute(
        path,
        "UPDATE bodies SET body = X'01' WHERE id = 1",
        "UPDATE bodies SET body = 'text' WHERE id = 2",
        "UPDATE bodies SET body = X'0100000000000000000000F87F' WHERE id = 3",
    )
    store = SqliteStore(path)
    assert store.clear(Selection(written_before=1e12)) == 37
    assert store.clear(Selection()) == 3
    store.close()


def test_a_file_of_an_older_format_that_is_damaged_is_set_aside(path: Path, version: int) -> None:
    _filled_in_older_format(path, version)
    _execute(path, "DROP TABLE bodies")
    store = SqliteStore(path)
    assert store.size().entries == 0
    store.close()
    assert sorted(each.name for each in path.parent.iterdir()) == ["answers.db", "answers.db.corrupt-1"]


def _use(path: Path, number: int) -> int:
    """Open the file, add an entry; how many old ones are there."""
    store = SqliteStore(path, busy_timeout=10.0)
    store.write(make_entry(f"new {number}"))
    found = sum(store.fetch(entry.key) == entry for entry in _entries())
    store.close()
    return found


def test_threads_and_programs_that_upgrade_a_file_at_once_lose_nothing(path: Path, version: int) -> None:
    entries = _filled_in_older_format(path, version)
    programs = [
        subprocess.Popen([sys.executable, __file__, str(path), f"{number}"], stdout=subprocess.PIPE, text=True)
        for number in range(4)
    ]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda number: _use(path, number), range(4, 8)))
    outputs = [program.communicate(timeout=60)[0] for program in programs]
    assert found == [len(entries)] * 4
    assert outputs == [f"{len(entries)}\n"] * 4
    store = SqliteStore(path)
    assert store.size().entries == len(entries) + 8
    assert all(store.fetch(make_key(f"new {number}")) is not None for number in range(8))
    store.close()
    assert [each.name for each in path.parent.iterdir()] == ["answers.db"]


def test_an_upgrade_waits_for_a_program_that_is_writing(path: Path, version: int) -> None:
    entries = _filled_in_older_format(path, version)
    store = SqliteStore(path, busy_timeout=0.01)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="locked by another program"):
            store.fetch(entries[0].key)
        other.execute("ROLLBACK")
    assert store.fetch(entries[0].key) == entries[0]
    store.close()


def test_a_connection_of_the_version_before_goes_on_in_an_upgraded_file(path: Path, version: int) -> None:
    """It prepares its statements anew, and names the columns it knows."""
    entries = _filled_in_older_format(path, version)
    with closing(sqlite3.connect(path, isolation_level=None)) as old:
        insert = "INSERT INTO groups (namespace, tenant, model) VALUES (?, ?, ?)"
        old.execute("BEGIN")
        old.execute(insert, (b"1", b"2", b"3"))
        old.execute("COMMIT")
        store = SqliteStore(path)
        store.write(make_entry("new"))
        old.execute(insert, (b"4", b"5", b"6"))
        old.execute("UPDATE entries SET digest = zeroblob(32), grp = last_insert_rowid() WHERE id = 1")
        moved = Selection(tenant=b"5", model_name=b"", written_before=entries[1].created)
        assert store.clear(moved, dry_run=True) == 1
        store.close()


def test_what_a_program_of_the_version_before_removes_counts_no_longer(path: Path, version: int) -> None:
    entries = _filled_in_older_format(path, version)
    home = entries[0].key.partition
    with closing(sqlite3.connect(path, isolation_level=None)) as old:
        old.execute("SELECT count(*) FROM entries").fetchall()
        store = SqliteStore(path)
        for entry in entries[:6]:
            store.join(entry.key, _CLUSTER)
        old.execute("DELETE FROM entries WHERE id IN (?, ?)", (1, 2))
        old.execute("DELETE FROM entries WHERE digest = ?", (entries[2].key.digest,))
        old.execute(
            "INSERT INTO entries (id, digest, grp, expires, used, bytes) VALUES (99, zeroblob(32), 1, NULL, 99, 1)"
        )
        found = store.nearest(Search(home, "fake/2", _EAST, 1))
        assert [(one.entry.key, one.cluster_size) for one in found] == [(entries[4].key, 3)]
        store.close()


_READ_ONLY = """
import os, sys
from pathlib import Path
from aicache._errors import StoreError
from aicache._model import Selection
from aicache._model import Search
from aicache.stores.sqlite import SqliteStore
from aicache.testing import make_entry, make_key, make_partition, make_vector
import numpy
import aicache.stores._vectors

if os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
store = SqliteStore(Path(sys.argv[1]))
home = make_partition(model="m")
for _ in range(2):
    assert store.fetch(make_key("question 7", partition=home)) is not None
    assert len(store.nearest(Search(home, "fake/2", make_vector(1, 0), 3, make_key("asker")))) == 3
    assert len(store.similar(Selection(model_name=b""), "fake/2", make_vector(1, 0), -1.0)) == 40
    assert {one.cluster_size for one in store.nearest(Search(home, "fake/2", make_vector(1, 0), 3))} == {1}
    assert len(store.entries(Selection())) == 40
    assert store.lessons(b"log", 0).items == ()
    assert store.summary(b"log") is None
    assert store.clear(Selection(written_before=1005.0), dry_run=True) == 5
    try:
        store.write(make_entry())
    except StoreError as error:
        assert "read-only" in str(error), error
    else:
        raise SystemExit("a change of a read-only file was acknowledged")
store.close()
print("good")
"""


@pytest.mark.parametrize("folder_mode", [0o555, 0o777], ids=["folder read-only", "folder writable"])
def test_a_read_only_file_of_an_older_format_still_serves_reads(
    path: Path, version: int, public_folder: Path, folder_mode: int
) -> None:
    _filled_in_older_format(path, version)
    target = public_folder / "answers"
    target.mkdir()
    shutil.copy(path, target / "answers.db")
    (target / "answers.db").chmod(0o444)
    before = (target / "answers.db").read_bytes()
    target.chmod(folder_mode)
    run = subprocess.run(
        [sys.executable, "-c", _READ_ONLY, str(target / "answers.db")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.stdout == "good\n", run.stderr
    target.chmod(0o755)
    assert (target / "answers.db").read_bytes() == before


if __name__ == "__main__":
    sys.stdout.write(f"{_use(Path(sys.argv[1]), int(sys.argv[2]))}\n")
