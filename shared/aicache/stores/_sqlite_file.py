"""The file of the embedded store as a thing in a folder: made, checked, set aside, never opened but by SQLite.

Nothing here calls `open()` on an existing file of the store: POSIX drops all locks a program holds on a file when
it closes ANY descriptor of it, and SQLite's connections would lose theirs (sqlite.org/howtocorrupt.html, 2.2).
"""

from __future__ import annotations

import logging
import os
import sqlite3
import stat
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from enum import Enum, auto
from pathlib import Path
from typing import Final, TypeAlias

from aicache.stores._sqlite_select import written_at
from aicache.stores._sqlite_trouble import SqliteTroubleError, Trouble, diagnose

__all__ = ["APPLICATION_ID", "SCHEMA_VERSION", "Identity", "SqliteFile"]

APPLICATION_ID: Final = 0x41494341
"""Marks the file as ours: `AICA`."""

SCHEMA_VERSION: Final = 3
_UPGRADED_VERSION: Final = 2
"""The format that is made into ours in place: it lacks when entries were written, names of models and blocked pairs."""

Identity: TypeAlias = tuple[int, ...]
"""Differs when another file has taken the path."""

# 8 KiB pages hold five vectors of 384 float32 or six answers of 1 KB; 4 KiB pages hold two and three, and the
# file is 13 % larger (measured, 20,000 entries); 16 KiB saves nothing more and writes 15 % slower.
_PAGE_BYTES: Final = 8192
_SMALLEST_PAGE: Final = 512
_WAL_KEPT_BYTES: Final = 16 * 2**20

# What changes on a read or a touch (`entries`) is narrow and apart from what is large: a statement that
# changes one small column must not rewrite an answer. `entries.id` is a counter that never goes back, so "what
# is new since" is a range of ids.
_GROUPS: Final = """
CREATE TABLE groups (
    id INTEGER PRIMARY KEY, namespace BLOB NOT NULL, tenant BLOB NOT NULL, model BLOB NOT NULL,
    model_name BLOB NOT NULL DEFAULT x'', UNIQUE (namespace, tenant, model, model_name))
"""
_BLOCKED: Final = """
CREATE TABLE blocked (asker BLOB NOT NULL, entry BLOB NOT NULL, PRIMARY KEY (asker, entry)) WITHOUT ROWID
"""
_SCHEMA: Final = (
    """
CREATE TABLE state (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    seq INTEGER NOT NULL, entries INTEGER NOT NULL, bytes INTEGER NOT NULL,
    gone INTEGER NOT NULL, epoch INTEGER NOT NULL)
""",
    "INSERT INTO state VALUES (1, 0, 0, 0, 0, 0)",
    _GROUPS,
    "CREATE TABLE spaces (id INTEGER PRIMARY KEY, name BLOB NOT NULL UNIQUE)",
    """
CREATE TABLE entries (
    id INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE, grp INTEGER NOT NULL,
    expires REAL, used INTEGER NOT NULL, bytes INTEGER NOT NULL, created REAL)
""",
    "CREATE INDEX entries_used ON entries (used)",
    "CREATE INDEX entries_expires ON entries (expires) WHERE expires IS NOT NULL",
    "CREATE TABLE bodies (id INTEGER PRIMARY KEY, body BLOB NOT NULL)",
    """
CREATE TABLE vectors (
    id INTEGER PRIMARY KEY, partition BLOB NOT NULL, space INTEGER NOT NULL, vector BLOB NOT NULL,
    checksum INTEGER NOT NULL)
""",
    "CREATE INDEX vectors_partition ON vectors (partition, space)",
    "CREATE TABLE tags (tag BLOB NOT NULL, entry INTEGER NOT NULL, PRIMARY KEY (tag, entry)) WITHOUT ROWID",
    "CREATE INDEX tags_entry ON tags (entry)",
    _BLOCKED,
)
# Takes the same time for any file: `created` stays empty for the entries that are there and is read from their bodies
# when somebody asks (`_sqlite_select.written_at`). A program of the older version that has the file open may go on: it
# names the columns it writes, and those it does not know have defaults.
_UPGRADE: Final = (
    "ALTER TABLE entries ADD COLUMN created REAL",
    "ALTER TABLE groups RENAME TO groups_before",
    _GROUPS,
    "INSERT INTO groups (id, namespace, tenant, model) SELECT id, namespace, tenant, model FROM groups_before",
    "DROP TABLE groups_before",
    _BLOCKED,
)
# What a file of the older format that may not be written is read through: names in TEMP come before those in the file.
_AS_IF_UPGRADED: Final = (
    "CREATE TEMP VIEW entries AS SELECT *, NULL AS created FROM main.entries",
    "CREATE TEMP VIEW groups AS SELECT *, x'' AS model_name FROM main.groups",
    _BLOCKED.replace("TABLE", "TEMP TABLE"),
)
_UPGRADED_TABLES: Final = frozenset({"state", "groups", "spaces", "entries", "bodies", "vectors", "tags"})
_TABLES: Final = _UPGRADED_TABLES | {"blocked"}

_SIDE_FILES: Final = ("-wal", "-shm", "-journal")
_PATIENCE: Final = 1.0
"""Seconds to wait for another program that is making the file: it takes about 20 ms."""

_log = logging.getLogger("aicache")


class _State(Enum):
    READY = auto()
    MISSING = auto()
    EMPTY = auto()
    PREVIOUS = auto()
    OLDER = auto()
    DAMAGED = auto()


class SqliteFile:
    """One path, and what becomes of the file there."""

    __slots__ = ("_behind", "_busy_timeout", "path")

    def __init__(self, path: Path, busy_timeout: float) -> None:
        self.path = path
        self._busy_timeout = busy_timeout
        self._behind = False
        """Whether the file is of the previous format and may not be written: then it is read as it is."""

    def connect(self, *, immutable: bool = False, writer: bool = False) -> sqlite3.Connection:
        """A new connection; it never creates the file.

        A writer's connection does not wait for locks (its user does); a reader's is refused every write.
        `immutable` reads a file whose folder cannot be written and that therefore has no log beside it.
        """
        target = self.path.as_uri() + ("?mode=ro&immutable=1" if immutable else "?mode=rw")
        connection = sqlite3.connect(
            target,
            timeout=0.0 if writer else self._busy_timeout,
            isolation_level=None,
            check_same_thread=False,
            uri=True,
        )
        try:
            # NORMAL: a power cut may lose the last answers, never the file; a killed program loses nothing.
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA trusted_schema = OFF")
            connection.create_function("written_at", 1, written_at, deterministic=True)
            if writer:
                connection.execute("PRAGMA secure_delete = FAST")
                connection.execute(f"PRAGMA journal_size_limit = {_WAL_KEPT_BYTES}")
            else:
                for statement in _AS_IF_UPGRADED if self._behind else ():
                    connection.execute(statement)
                connection.execute("PRAGMA query_only = ON")
        except BaseException:
            connection.close()
            raise
        return connection

    def identity(self, *, immutable: bool = False) -> Identity | None:
        """What tells this file from another one at the same path; None when there is none."""
        try:
            found = self.path.stat()
        except OSError:
            return None
        # Where SQLite is told that nothing changes, we look ourselves.
        changes = (found.st_mtime_ns, found.st_size) if immutable else ()
        return (found.st_dev, found.st_ino, *changes)

    def make_ready(self, damaged: Identity | None = None) -> bool:
        """See to it that a usable file is there; whether it can be read only as an immutable one.

        Args:
            damaged: the file a read or write has found damaged; it is set aside if it is still there.

        Raises:
            SqliteTroubleError: it cannot be done, or the file is not ours to touch.
            OSError, sqlite3.Error: the same, for `diagnose`.
        """
        self._behind = False
        state, immutable = self._inspect()
        if state is _State.PREVIOUS and immutable:
            self._behind = True
            return immutable
        if state is _State.READY and (damaged is None or self.identity() != damaged):
            return immutable
        self._make_folder()
        with self._alone_in_folder():
            state, immutable = self._inspect()
            if state in (_State.READY, _State.PREVIOUS) and damaged is not None and self.identity() == damaged:
                state = _State.DAMAGED
            self._mend(state)
        return immutable

    def _mend(self, state: _State) -> None:
        match state:
            case _State.READY:
                return
            case _State.PREVIOUS:
                if self._upgrade():
                    return
                self._set_aside("corrupt", "is damaged")
                self._create()
            case _State.EMPTY:
                self.path.chmod(0o600)
            case _State.MISSING:
                self._create()
            case _State.OLDER:
                self._set_aside("old", "is of an older format")
                self._create()
            case _State.DAMAGED:
                self._set_aside("corrupt", "is damaged")
                self._create()
        self._initialise()

    # ------------------------------------------------------------------------------------ looking

    def _inspect(self) -> tuple[_State, bool]:
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return _State.MISSING, False
        if not stat.S_ISREG(found.st_mode):
            raise SqliteTroubleError(Trouble.NOT_A_FILE, self.path)
        if found.st_size == 0:
            # With a log beside it, it was emptied while in use: starting it anew in place would mix the two.
            return (_State.DAMAGED if self._log_bytes() else _State.EMPTY), False
        if found.st_size < _SMALLEST_PAGE:
            # SQLite takes a file without a whole page for an empty one, and would overwrite it.
            return _State.DAMAGED, False
        try:
            return self._classify(immutable=False), False
        except sqlite3.Error as error:
            trouble = diagnose(error)
            if trouble is Trouble.CORRUPT:
                return _State.DAMAGED, False
            # A folder without write access: no log can be made beside the file, and none is needed.
            if trouble not in (Trouble.CANNOT_OPEN, Trouble.READ_ONLY) or self._log_bytes():
                raise
        return self._classify(immutable=True), True

    def _classify(self, *, immutable: bool) -> _State:
        with closing(self.connect(immutable=immutable)) as connection:
            (application,) = connection.execute("PRAGMA application_id").fetchone()
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        tables = {name for (name,) in names}
        if not application and not version and not tables:
            return _State.EMPTY
        if application != APPLICATION_ID:
            raise SqliteTroubleError(Trouble.FOREIGN, self.path)
        if version > SCHEMA_VERSION:
            raise SqliteTroubleError(Trouble.NEWER, self.path)
        if version == _UPGRADED_VERSION and tables >= _UPGRADED_TABLES:
            return _State.PREVIOUS
        if version < _UPGRADED_VERSION:
            return _State.OLDER
        return _State.READY if tables >= _TABLES else _State.DAMAGED

    def _log_bytes(self) -> int:
        try:
            return self._beside("-wal").stat().st_size
        except OSError:
            return 0

    def _beside(self, suffix: str) -> Path:
        return self.path.with_name(self.path.name + suffix)

    # ------------------------------------------------------------------------------------ making

    def _make_folder(self) -> None:
        missing = []
        folder = self.path.parent
        while not folder.exists():
            missing.append(folder)
            folder = folder.parent
        for each in reversed(missing):
            each.mkdir(0o700, exist_ok=True)

    def _create(self) -> None:
        """An empty file that was never open to others. A log without its file is worthless and harmful."""
        for suffix in _SIDE_FILES:
            self._beside(suffix).unlink(missing_ok=True)
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))

    def _initialise(self) -> None:
        # SQLite gives the log and its index the rights of the file itself.
        with closing(self.connect(writer=True)) as connection:
            connection.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
            # A file system without shared memory keeps the old journal: slower, and right all the same.
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("BEGIN IMMEDIATE")
            for statement in _SCHEMA:
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            connection.execute("COMMIT")

    def _upgrade(self) -> bool:
        """Make a file of the previous format into one of ours, with all its entries; False if it turns out damaged.

        A file that may not be written is left as it is, and read so.
        """
        try:
            with closing(self.connect(writer=True)) as connection:
                # Programs of the previous version may be writing, and know nothing of the lock on the folder.
                connection.execute(f"PRAGMA busy_timeout = {int(1000 * max(_PATIENCE, self._busy_timeout))}")
                connection.execute("BEGIN IMMEDIATE")
                # Where folders cannot be locked, another program may have been faster.
                if connection.execute("PRAGMA user_version").fetchone() == (_UPGRADED_VERSION,):
                    for statement in _UPGRADE:
                        connection.execute(statement)
                    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
                connection.execute("COMMIT")
        except sqlite3.Error as error:
            trouble = diagnose(error)
            if trouble is Trouble.CORRUPT:
                return False
            if trouble is not Trouble.READ_ONLY:
                raise
            self._behind = True
            return True
        _log.info("The answer cache %s was of an older format; it was upgraded with all its answers.", self.path)
        return True

    def _set_aside(self, label: str, why: str) -> None:
        """Rename the file with its log, so that SQLite still finds them as one; the file first."""
        number = 1
        while (aside := self._beside(f".{label}-{number}")).exists():
            number += 1
        self.path.rename(aside)
        for suffix in _SIDE_FILES:
            beside = self._beside(suffix)
            if beside.exists():
                beside.rename(aside.with_name(aside.name + suffix))
        _log.warning(
            "The answer cache %s %s: it was set aside as %s and a new one begun. Delete the old one when you "
            "do not need it.",
            self.path,
            why,
            aside.name,
        )

    @contextmanager
    def _alone_in_folder(self) -> Iterator[None]:
        """Only one program at a time makes or renames the file. A lock on the folder leaves no lock file."""
        try:
            import fcntl
        except ImportError:  # Windows: an open file cannot be renamed there, so there is nothing to race for.
            yield
            return
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            deadline = time.monotonic() + max(_PATIENCE, self._busy_timeout)
            while True:
                try:
                    fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= deadline:
                        raise SqliteTroubleError(Trouble.LOCKED, self.path) from None
                    time.sleep(0.005)
            try:
                yield
            finally:
                # Said explicitly: a child forked meanwhile holds the same descriptor, and with it the lock.
                fcntl.flock(folder, fcntl.LOCK_UN)
        finally:
            os.close(folder)
