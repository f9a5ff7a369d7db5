"""The embedded store when its file is locked, full, read-only, damaged, gone or torn by a kill."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from aicache._errors import StoreError
from aicache._model import Search, Selection
from aicache.stores.sqlite import SqliteStore
from aicache.testing import FakeClock, make_entry, make_key, make_partition, make_vector

_EAST = make_vector(1, 0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "answers.db"


@pytest.fixture
def filled(path: Path) -> Path:
    """A file with 200 entries."""
    store = SqliteStore(path)
    for number in range(200):
        store.write(make_entry(f"q{number}", body=os.urandom(1_000), vector=make_vector(1, number)))
    store.close()
    return path


def _names(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


def _works(store: SqliteStore) -> None:
    entry = make_entry("afterwards", vector=make_vector(0, 1))
    store.write(entry)
    assert store.fetch(entry.key) == entry
    assert store.nearest(Search(entry.key.partition, "fake/2", make_vector(0, 1), 1))[0].entry == entry


# ------------------------------------------------------------------------------------ locked


def test_a_locked_file_is_read_but_not_written(filled: Path) -> None:
    store = SqliteStore(filled, busy_timeout=0.01)
    with closing(sqlite3.connect(filled, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        for _ in range(3):
            with pytest.raises(StoreError, match=r"locked by another program.*busy_timeout$"):
                store.write(make_entry())
        assert store.fetch(make_key("q7")) is not None
        assert len(store.nearest(Search(make_partition(), "fake/2", _EAST, 3))) == 3
        other.execute("ROLLBACK")
    _works(store)
    store.close()


def test_a_file_taken_over_by_another_program_is_a_store_error(filled: Path) -> None:
    store = SqliteStore(filled, busy_timeout=0.01)
    with closing(sqlite3.connect(filled, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("UPDATE state SET one = 1")
        with pytest.raises(StoreError, match="locked"):
            store.fetch(make_key("q7"))
        with pytest.raises(StoreError, match="locked"):
            store.write(make_entry())
    _works(store)
    assert store.fetch(make_key("q7")) is not None
    store.close()


# ------------------------------------------------------------------------------------ full

_FILL = """
import os, resource, sys
from pathlib import Path
from aicache._errors import StoreError
from aicache.stores.sqlite import SqliteStore
from aicache.testing import make_entry, make_key

store = SqliteStore(Path(sys.argv[1]) / "answers.db")
if sys.argv[2] == "limit":
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_000_000, resource.RLIM_INFINITY))
written, complaint = 0, ""
while not complaint and written < 3_000:
    try:
        store.write(make_entry(f"q{written}", body=os.urandom(1_000)))
        written += 1
    except StoreError as error:
        complaint = str(error)
assert sys.argv[3] in complaint, complaint
assert written > 20
for _ in range(3):
    try:
        store.write(make_entry("more", body=os.urandom(100_000)))
    except StoreError:
        continue
    raise SystemExit("a write beyond the limit was acknowledged")
for number in range(written):
    assert store.fetch(make_key(f"q{number}")) is not None, number
assert store.size().entries == written
if sys.argv[2] == "limit":
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    store.write(make_entry("afterwards"))
    assert store.fetch(make_key("afterwards")) is not None
store.close()
"""


def test_what_was_written_before_the_limit_on_file_size_stays(tmp_path: Path) -> None:
    _script(_FILL, str(tmp_path), "limit", "limit on file size")


@pytest.mark.skipif(
    subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode != 0,
    reason="this user may not mount a small disk; the test above needs none",
)
def test_what_was_written_before_the_disk_was_full_stays(tmp_path: Path) -> None:
    script = tmp_path / "fill.py"
    script.write_text(_FILL)
    disk = tmp_path / "disk"
    disk.mkdir()
    # The mount is seen by this one program and gone with it.
    mount = 'mount -t tmpfs -o size=4m tmpfs "$1" && exec "$2" "$3" "$1" disk "disk or the quota is full"'
    run = subprocess.run(
        ["unshare", "--mount", "sh", "-c", mount, "sh", disk, sys.executable, script],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr


# ------------------------------------------------------------------------------------ read-only

_DROP_RIGHTS = """
import os, tempfile
from pathlib import Path
from aicache._model import Search
from aicache.stores.sqlite import SqliteStore
from aicache.testing import make_entry, make_vector

def drop_rights():
    if os.geteuid() == 0:
        # Everything is imported first: Python itself may lie where only root can read.
        with tempfile.TemporaryDirectory() as folder:
            store = SqliteStore(Path(folder) / "answers.db")
            entry = make_entry(vector=make_vector(1, 0))
            store.write(entry)
            (near,) = store.nearest(Search(entry.key.partition, "fake/2", entry.vector, 1))
            assert store.fetch(entry.key) == near.entry
            store.close()
        os.setgid(65534)
        os.setuid(65534)
"""

_READ_ONLY = """
import sys
from pathlib import Path
from aicache._errors import StoreError
from aicache._model import Search, Selection
from aicache.stores.sqlite import SqliteStore
from aicache.testing import make_entry, make_key, make_partition, make_vector

drop_rights()
store = SqliteStore(Path(sys.argv[1]) / "answers.db")
assert store.fetch(make_key("q7")) is not None
assert len(store.nearest(Search(make_partition(), "fake/2", make_vector(1, 0), 3))) == 3
assert store.size().entries == 200
for act in (
    lambda: store.write(make_entry()),
    lambda: store.write(make_entry()),
    lambda: store.touch(make_key("q7"), 5.0),
    lambda: store.remove([make_key("q7")]),
    lambda: store.clear(Selection()),
):
    try:
        act()
    except StoreError as error:
        assert "read-only" in str(error), error
    else:
        raise SystemExit("a change of a read-only file was acknowledged")
assert store.fetch(make_key("q8")) is not None
store.epoch()
store.close()
"""


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder that every user can reach, which pytest's own are not."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.mark.parametrize("folder_mode", [0o555, 0o777], ids=["folder read-only", "folder writable"])
def test_a_read_only_file_still_serves_reads(filled: Path, public_folder: Path, folder_mode: int) -> None:
    target = public_folder / "answers"
    target.mkdir()
    shutil.copy(filled, target / "answers.db")
    (target / "answers.db").chmod(0o444)
    before = (target / "answers.db").read_bytes()
    target.chmod(folder_mode)
    _script(_DROP_RIGHTS + _READ_ONLY, str(target))
    target.chmod(0o755)
    assert (target / "answers.db").read_bytes() == before


def test_a_file_of_another_user_is_a_store_error(filled: Path, public_folder: Path) -> None:
    if os.geteuid() == 0:
        shutil.copy(filled, public_folder / "answers.db")
    else:
        (public_folder / "answers.db").touch()
    (public_folder / "answers.db").chmod(0o000 if os.geteuid() else 0o600)
    script = """
import sys
from pathlib import Path
from aicache._errors import StoreError
from aicache.stores.sqlite import SqliteStore
from aicache.testing import make_entry, make_key
drop_rights()
store = SqliteStore(Path(sys.argv[1]) / "answers.db")
for act in (lambda: store.fetch(make_key()), lambda: store.write(make_entry()), store.size, store.epoch):
    try:
        act()
    except StoreError as error:
        assert "cannot be opened" in str(error), error
        continue
    raise SystemExit("no error")
"""
    _script(_DROP_RIGHTS + script, str(public_folder))
    assert _names(public_folder) == ["answers.db"]


def test_a_read_only_file_that_is_replaced_is_read_anew(filled: Path, public_folder: Path) -> None:
    """Where SQLite is told that nothing changes, the store itself looks."""
    script = """
import sys
from pathlib import Path
from aicache.stores.sqlite import SqliteStore
from aicache.testing import FakeClock, make_key
drop_rights()
clock = FakeClock()
store = SqliteStore(Path(sys.argv[1]) / "answers.db", clock=clock)
assert store.fetch(make_key("q7")) is not None
print("ready", flush=True)
sys.stdin.readline()
clock.advance(1.0)
assert store.fetch(make_key("q7")) is None
assert store.fetch(make_key("new")) is not None
store.close()
"""
    other = SqliteStore(public_folder.parent / f"{public_folder.name}.other.db")
    other.write(make_entry("new"))
    other.close()
    target = public_folder / "answers"
    target.mkdir()
    shutil.copy(filled, target / "answers.db")
    (target / "answers.db").chmod(0o444)
    target.chmod(0o555)
    with subprocess.Popen(
        [sys.executable, "-c", _DROP_RIGHTS + script, str(target)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "ready\n"
        target.chmod(0o755)
        (target / "answers.db").unlink()
        other.path.rename(target / "answers.db")
        (target / "answers.db").chmod(0o444)
        target.chmod(0o555)
        _, complaints = reader.communicate("go\n", timeout=60)
    target.chmod(0o755)
    assert reader.returncode == 0, complaints


# ------------------------------------------------------------------------------------ damaged


def _overwrite(path: Path, start: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(start)
        file.write(content)


def _set_aside(path: Path) -> Path:
    return path.with_name(path.name + ".corrupt-1")


@pytest.mark.parametrize(
    "content",
    [b"not a database at all, but a note\n" * 500, os.urandom(100_000), b"SQLite format 3\0" + b"\xff" * 50_000, b"x"],
    ids=["text", "noise", "broken header", "one byte"],
)
def test_what_is_no_database_is_set_aside_and_never_deleted(
    path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path.write_bytes(content)
    store = SqliteStore(path)
    assert store.fetch(make_key()) is None
    _works(store)
    store.close()
    assert _set_aside(path).read_bytes() == content
    assert len(caplog.records) == 1
    assert "set aside as answers.db.corrupt-1" in caplog.records[0].getMessage()


def test_a_damaged_page_found_while_reading_begins_a_new_file(filled: Path, caplog: pytest.LogCaptureFixture) -> None:
    # All pages but the first: the file opens, and the first look into a table fails.
    _overwrite(filled, 8192, b"\xa5" * (filled.stat().st_size - 8192))
    store = SqliteStore(filled)
    assert store.fetch(make_key("q7")) is None
    _works(store)
    store.close()
    assert _names(filled.parent) == ["answers.db", "answers.db.corrupt-1"]
    assert len(caplog.records) == 1


@pytest.mark.parametrize("first", ["write", "nearest", "size", "epoch", "sweep", "clear", "remove", "touch"])
def test_every_operation_survives_a_damaged_file(filled: Path, first: str) -> None:
    _overwrite(filled, 8192, b"\xa5" * (filled.stat().st_size - 8192))
    store = SqliteStore(filled)
    acts: dict[str, Callable[[], object]] = {
        "write": lambda: store.write(make_entry()),
        "nearest": lambda: store.nearest(Search(make_partition(), "fake/2", _EAST, 5)),
        "size": store.size,
        "epoch": store.epoch,
        "sweep": lambda: store.sweep(1e12, 5),
        "clear": lambda: store.clear(Selection()),
        "remove": lambda: store.remove([make_key("q7")]),
        "touch": lambda: store.touch(make_key("q7"), 5.0),
    }
    acts[first]()
    _works(store)
    store.close()
    assert _set_aside(filled).exists()


def test_damage_while_the_file_is_open_is_survived(filled: Path) -> None:
    store = SqliteStore(filled)
    before = store.epoch()
    assert store.fetch(make_key("q7")) is not None
    _overwrite(filled, 0, os.urandom(filled.stat().st_size))
    _damage_is_noticed(store)
    assert store.epoch() != before, "the tiers above must forget"
    store.close()
    assert _set_aside(filled).exists()


@pytest.mark.parametrize("length", [0, 100, 8192, 12_000, 40_960])
def test_a_truncated_file_is_survived(filled: Path, length: int) -> None:
    os.truncate(filled, length)
    store = SqliteStore(filled)
    _damage_is_noticed(store)
    store.close()


@pytest.mark.parametrize("length", [0, 100, 8192, 12_000, 40_960])
def test_a_file_truncated_while_open_is_survived(filled: Path, length: int) -> None:
    store = SqliteStore(filled)
    assert store.fetch(make_key("q7")) is not None
    os.truncate(filled, length)
    _damage_is_noticed(store)
    store.close()


def test_a_second_damage_is_set_aside_under_another_name(path: Path) -> None:
    for number in range(1, 4):
        path.write_bytes(b"no database" * 1_000)
        store = SqliteStore(path)
        _works(store)
        store.close()
        assert path.with_name(f"answers.db.corrupt-{number}").exists()


def test_two_stores_that_find_the_same_damage_set_it_aside_once(filled: Path) -> None:
    one, two = SqliteStore(filled), SqliteStore(filled)
    assert one.fetch(make_key("q7")) == two.fetch(make_key("q7"))
    _overwrite(filled, 0, b"\xa5" * filled.stat().st_size)
    one.write(make_entry("one"))
    two.write(make_entry("two"))
    one.write(make_entry("three"))
    for store in (one, two):
        assert [store.fetch(make_key(query)) is not None for query in ("one", "two", "three")] == [True] * 3
        store.close()
    # The log is renamed with its file, so that what is in it can still be read.
    assert {name.removesuffix("-wal").removesuffix("-shm") for name in _names(filled.parent)} == {
        "answers.db",
        "answers.db.corrupt-1",
    }


def _damage_is_noticed(store: SqliteStore) -> None:
    """No call raises but for single damaged entries, and in the end all works."""
    for number in range(200):
        entry = make_entry(f"q{number}", body=os.urandom(1_000), vector=make_vector(1, number))
        store.write(entry)
        assert store.fetch(entry.key) == entry
    _works(store)


# ------------------------------------------------------------------------------------ gone


def test_a_missing_folder_is_made(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "a" / "b" / "answers.db")
    _works(store)
    store.close()


def test_a_folder_that_cannot_be_made_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    store = SqliteStore(tmp_path / "file" / "deeper" / "answers.db")
    for _ in range(3):
        with pytest.raises(StoreError, match="folder"):
            store.fetch(make_key())
        with pytest.raises(StoreError, match="folder"):
            store.write(make_entry())
    store.close()


def test_a_file_deleted_while_open_is_made_anew_by_the_next_write(
    filled: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = SqliteStore(filled)
    before = store.epoch()
    filled.unlink()
    store.write(make_entry("new"))
    assert store.fetch(make_key("q7")) is None
    assert store.fetch(make_key("new")) is not None
    assert store.epoch() != before, "the tiers above must forget"
    assert ["was deleted while in use" in record.getMessage() for record in caplog.records] == [True]
    assert filled.exists()
    assert (filled.stat().st_mode & 0o777) == 0o600
    store.close()
    store = SqliteStore(filled)
    assert store.fetch(make_key("new")) is not None
    assert store.size().entries == 1
    store.close()


def test_a_folder_deleted_while_open_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "answers.db"
    store = SqliteStore(path)
    _works(store)
    shutil.rmtree(path.parent)
    _works(store)
    store.close()


def test_two_stores_agree_on_the_new_file(filled: Path, caplog: pytest.LogCaptureFixture) -> None:
    one, two = SqliteStore(filled), SqliteStore(filled)
    one.fetch(make_key("q7"))
    two.fetch(make_key("q7"))
    filled.unlink()
    for number in range(20):
        (one, two)[number % 2].write(make_entry(f"new {number}"))
    for number in range(20):
        assert one.fetch(make_key(f"new {number}")) == two.fetch(make_key(f"new {number}")) is not None
    first, second = (record.getMessage() for record in caplog.records)
    assert "was deleted while in use" in first
    assert "was replaced by another file while in use" in second
    one.close()
    two.close()


def test_a_file_replaced_by_a_folder_is_a_store_error_until_it_is_gone(filled: Path) -> None:
    clock = FakeClock()
    store = SqliteStore(filled, clock=clock)
    store.fetch(make_key("q7"))
    filled.unlink()
    filled.mkdir()
    clock.advance(1.0)
    for act in (lambda: store.fetch(make_key()), lambda: store.write(make_entry()), store.size):
        with pytest.raises(StoreError, match="folder or a device"):
            act()
    filled.rmdir()
    _works(store)
    store.close()


def test_a_pipe_of_that_name_does_not_hang(path: Path) -> None:
    os.mkfifo(path)
    store = SqliteStore(path)
    with pytest.raises(StoreError, match="folder or a device"):
        store.fetch(make_key())
    store.close()


# ------------------------------------------------------------------------------------ kill and fork

_WRITE_FOR_EVER = """
import os, sys, threading
from aicache.stores.sqlite import SqliteStore
from aicache.testing import make_entry, make_vector

store = SqliteStore(sys.argv[1], busy_timeout=30.0)
def write(seat):
    number = 0
    while True:
        store.write(make_entry(f"{seat}/{number}", body=os.urandom(2_000), vector=make_vector(1, number)))
        os.write(1, f"{seat}/{number}\\n".encode())
        number += 1
for seat in range(3):
    threading.Thread(target=write, args=(seat,)).start()
"""


@pytest.mark.parametrize("acknowledged", [1, 40, 300, 1_000])
def test_a_kill_in_the_middle_of_writes_loses_no_acknowledged_one(path: Path, acknowledged: int) -> None:
    with subprocess.Popen([sys.executable, "-c", _WRITE_FOR_EVER, str(path)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        lines = [writer.stdout.readline() for _ in range(acknowledged)]
        writer.send_signal(signal.SIGKILL)
        lines += writer.stdout.readlines()
    queries = [line.decode().strip() for line in lines if line.endswith(b"\n")]
    store = SqliteStore(path)
    assert [query for query in queries if store.fetch(make_key(query)) is None] == []
    # At most the write in flight of each thread was committed and not yet acknowledged.
    assert len(queries) <= store.size().entries <= len(queries) + 3
    assert len(store.nearest(Search(make_partition(), "fake/2", _EAST, 50))) == min(50, store.size().entries)
    _works(store)
    store.close()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert _names(path.parent) == ["answers.db"]


def test_a_forked_child_opens_its_own_file_and_disturbs_nobody(path: Path) -> None:
    script = """
import os, sys, threading
from aicache.stores.sqlite import SqliteStore
from aicache.testing import make_entry, make_key

store = SqliteStore(sys.argv[1], busy_timeout=30.0)
store.write(make_entry("before"))
stop = threading.Event()
written = []
def write():  # A lock of the store may be held at the very moment of the fork.
    while not stop.is_set():
        store.write(make_entry(f"parent {len(written)}"))
        written.append(1)
thread = threading.Thread(target=write)
thread.start()
children = []
for number in range(5):
    child = os.fork()
    if not child:
        try:
            assert store.fetch(make_key("before")) is not None
            store.write(make_entry(f"child {number}"))
            assert store.fetch(make_key(f"child {number}")) is not None
            store.close()
            os._exit(0)
        finally:
            os._exit(1)
    children.append(child)
codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
stop.set()
thread.join()
assert codes == [0] * 5, codes
for number in range(5):
    assert store.fetch(make_key(f"child {number}")) is not None
for number in range(len(written)):
    assert store.fetch(make_key(f"parent {number}")) is not None
assert store.size().entries == 6 + len(written)
store.close()
"""
    # Python 3.12 warns of a fork beside threads, which is what this test is about.
    _script(script, str(path), warnings="ignore")
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_a_child_forked_behind_our_back_leaves_the_file_alone(path: Path) -> None:
    """Some servers fork in C, where Python's hooks do not run; the child then knows that it must not."""
    script = """
import ctypes, os, sys
from aicache._errors import StoreError
from aicache.stores.sqlite import SqliteStore
from aicache.testing import make_entry, make_key

store = SqliteStore(sys.argv[1])
store.write(make_entry("before"))
child = ctypes.PyDLL(None).fork()
if not child:
    try:
        store.fetch(make_key("before"))
    except StoreError as error:
        os._exit(0 if "forked" in str(error) else 1)
    os._exit(2)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert store.fetch(make_key("before")) is not None
store.close()
"""
    _script(script, str(path))


def test_a_child_that_ends_the_ordinary_way_leaves_the_parent_its_file(path: Path) -> None:
    script = """
import os, sys
from aicache.stores.sqlite import SqliteStore
from aicache.testing import make_entry, make_key

store = SqliteStore(sys.argv[1])
store.write(make_entry("before"))
child = os.fork()
if not child:
    sys.exit(0)  # Runs the exit functions, with the parent's connections in memory.
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
store.write(make_entry("after"))
assert store.fetch(make_key("before")) is not None
store.close()
store = SqliteStore(sys.argv[1])
assert store.size().entries == 2
store.close()
"""
    _script(script, str(path))


def _script(source: str, *arguments: str, warnings: str = "error") -> subprocess.CompletedProcess[str]:
    run = subprocess.run(
        [sys.executable, "-W", warnings, "-c", source, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run
