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

from aicache.stores._sqlite_schema import APPLICATION_ID, AS_IF_UPGRADED, SCHEMA, SCHEMA_VERSION, TABLES, UPGRADES
from aicache.stores._sqlite_select import written_at
from aicache.stores._sqlite_trouble import SqliteTroubleError, Trouble, diagnose

__all__ = ["Identity", "SqliteFile"]

Identity: TypeAlias = tuple[int, ...]
"""Differs when another file has taken the path."""

# 8 KiB pages hold five vectors of 384 float32 or six answers of 1 KB; 4 KiB pages hold two and three, and the
# file is 13 % larger (measured, 20,000 entries); 16 KiB saves nothing more and writes 15 % slower.
_PAGE_BYTES: Final = 8192
_SMALLEST_PAGE: Final = 512
_WAL_KEPT_BYTES: Final = 16 * 2**20

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
        """Whether the file is of an older format and may not be written: then it is read as it is."""

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
                # Asked each time: somebody who may write the file may have upgraded it meanwhile.
                for statement in AS_IF_UPGRADED.get(_version(connection), ()) if self._behind else ():
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
            version = _version(connection)
            names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        tables = {name for (name,) in names}
        if not application and not version and not tables:
            return _State.EMPTY
        if application != APPLICATION_ID:
            raise SqliteTroubleError(Trouble.FOREIGN, self.path)
        if version > SCHEMA_VERSION:
            raise SqliteTroubleError(Trouble.NEWER, self.path)
        if version not in TABLES:
            return _State.OLDER
        if not tables >= TABLES[version]:
            return _State.DAMAGED
        return _State.READY if version == SCHEMA_VERSION else _State.PREVIOUS

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
            for statement in SCHEMA:
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            connection.execute("COMMIT")

    def _upgrade(self) -> bool:
        """Make a file of an older format into one of ours, with all its entries; False if it turns out damaged.

        A file that may not be written is left as it is, and read so.
        """
        try:
            with closing(self.connect(writer=True)) as connection:
                # Programs of an older version may be writing, and know nothing of the lock on the folder.
                connection.execute(f"PRAGMA busy_timeout = {int(1000 * max(_PATIENCE, self._busy_timeout))}")
                connection.execute("BEGIN IMMEDIATE")
                # Where folders cannot be locked, another program may have been faster.
                while (version := _version(connection)) in UPGRADES:
                    for statement in UPGRADES[version]:
                        connection.execute(statement)
                    connection.execute(f"PRAGMA user_version = {version + 1}")
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


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])
