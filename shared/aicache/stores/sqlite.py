"""The embedded store: one SQLite file, shared by the threads of a program and by several programs.

The file holds questions and answers in clear, unless the codec encrypts them, and vectors in clear always; it is made
readable to its owner only (0600, its folder 0700).
docs/sqlite.md describes what happens when the file is locked, full, read-only, damaged or gone.
"""

from __future__ import annotations

import logging
import math
import sqlite3
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar

from aicache._clock import Clock, SystemClock
from aicache._codec import Codec
from aicache._errors import ConfigurationError, StoreError, UnreadableEntryError, UnwritableEntryError, WrongKeyError
from aicache._model import CacheKey, Candidate, Entry, Listed, Search, Selection, Space, StoreSize, Vector
from aicache.stores import _sqlite_lessons
from aicache.stores._sqlite_file import Identity, SqliteFile
from aicache.stores._sqlite_home import Home, Homes
from aicache.stores._sqlite_nearest import Neighbours
from aicache.stores._sqlite_options import absolute_path, whole_number
from aicache.stores._sqlite_rows import WHOLE_AT_ONCE, Row, Transaction, read_row, read_totals, read_whole
from aicache.stores._sqlite_select import count_keys, count_selected, select
from aicache.stores._sqlite_session import Session
from aicache.stores._sqlite_similar import COMPARED_AT_ONCE, Comparison
from aicache.stores._sqlite_trouble import SqliteTroubleError, Trouble, diagnose
from aicache.stores.base import Lessons

__all__ = ["SqliteStore", "default_path"]

R = TypeVar("R")

_CLEARED_AT_ONCE: Final = 500
"""Entries removed in one transaction: about 15 ms, so that other programs get their turn."""
_WRITTEN_AT_ONCE: Final = 100
"""Entries written in one transaction: about 10 ms, as above."""
_SHRUNK_AT_ONCE: Final = 500
_ATTEMPTS: Final = 3
"""A damaged file is set aside and a moved one opened anew, then the operation is carried out on the new one."""

_log = logging.getLogger("aicache")


def default_path() -> Path:
    """Where the answers are when no path is given: `answers.db` in the platform's folder for user caches."""
    from platformdirs import user_cache_path

    return user_cache_path("aicache", appauthor=False) / "answers.db"


class SqliteStore:
    """A `Store` in one SQLite file.

    Nothing is opened before the first use, and no trouble with the file leaves as anything but `StoreError`, whose
    text says what to do; the cache logs it. The store itself logs only what it does not raise: that a file was set
    aside, or that it was deleted or replaced while in use.

    Args:
        path: the file; made with its folder at the first use. Defaults to `default_path()`.
        max_entries, max_bytes: bounds; beyond them expired entries go first, then those used longest ago. The
            file may be a little larger than `max_bytes`: freed pages are reused, not always given back.
        busy_timeout: seconds a write waits for its turn among the writes of this program, and once more for those
            of others, before it is given up. A read waits as long for a program that has the whole file for itself.
        index_bytes: memory for the vectors of large partitions.
        clock: decides when a reader looks again whether the file was deleted or replaced: once a second.
        codec: compresses and encrypts what is stored. Defaults to `Codec()`, which encrypts nothing.

    Raises:
        ConfigurationError: an argument makes no sense; `path` is a folder, say.
    """

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        max_entries: int = 1_000_000,
        max_bytes: int = 2**30,
        busy_timeout: float = 0.1,
        index_bytes: int = 512 * 2**20,
        clock: Clock | None = None,
        codec: Codec | None = None,
    ) -> None:
        self._path = absolute_path(default_path() if path is None else path)
        self._max_entries = whole_number("max_entries", max_entries, least=1)
        self._max_bytes = whole_number("max_bytes", max_bytes, least=1)
        self._index_bytes = whole_number("index_bytes", index_bytes, least=0)
        if not (isinstance(busy_timeout, (int, float)) and math.isfinite(busy_timeout) and busy_timeout >= 0):
            raise ConfigurationError("busy_timeout", f"give seconds of at least 0; got {busy_timeout!r}")
        self._busy_timeout = float(busy_timeout)
        self._file = SqliteFile(self._path, self._busy_timeout)
        self._clock = SystemClock() if clock is None else clock
        self._codec = Codec() if codec is None else codec
        self._closed = False
        self._homes = Homes()
        weakref.finalize(self, self._homes.close)

    @property
    def name(self) -> str:
        """`sqlite`."""
        return "sqlite"

    @property
    def blocking(self) -> bool:
        """True: calls wait for the disk."""
        return True

    @property
    def path(self) -> Path:
        """The file, as an absolute path."""
        return self._path

    def fetch(self, key: CacheKey) -> Entry | None:
        """The entry of exactly this key, or None.

        Raises:
            WrongKeyError: it is encrypted with a key that the codec does not have.
            UnreadableEntryError: it is damaged.
        """

        def act(session: Session) -> Row | None:
            row = session.read(lambda connection: read_row(connection, key))
            if row is not None:
                session.note_use(row.id)
            return row

        row = self._carry_out(act)
        return None if row is None else row.entry(key.partition, self._codec)

    def nearest(self, search: Search) -> Sequence[Candidate]:
        """At most `k` entries of the partition and space that are not blocked, nearest first, with true cosines.

        The nearest one counts as used; the store does not know which of them is served.

        Raises:
            WrongKeyError: there are entries, and all of them are encrypted with keys that the codec does not have.
            MissingExtraError: numpy is not installed.
        """

        def act(session: Session) -> list[tuple[int, Candidate]] | WrongKeyError:
            def look(connection: sqlite3.Connection) -> list[tuple[int, Candidate]] | WrongKeyError:
                try:
                    return session.neighbours.find(connection, search)
                except WrongKeyError as error:
                    return error  # Nothing is wrong with the connection.

            found = session.read(look)
            if found and not isinstance(found, WrongKeyError):
                session.note_use(found[0][0])
            return found

        found = self._carry_out(act) if search.k > 0 and search.vector else []
        if isinstance(found, WrongKeyError):
            raise found
        return [candidate for _, candidate in found]

    def write(self, entry: Entry) -> None:
        """Store the entry in place of any earlier one with its key; committed when this returns."""
        body = self._codec.encode(entry)
        self._change(lambda transaction: transaction.put(entry, body, self._max_entries, self._max_bytes))

    def write_many(self, entries: Sequence[Entry]) -> None:
        """As `write` of each, a hundred in one transaction. One that cannot be written does not cost the others.

        Raises:
            UnwritableEntryError: one or more could not be written, ever; the others are.
        """
        refused: UnwritableEntryError | None = None
        for start in range(0, len(entries), _WRITTEN_AT_ONCE):
            refused = self._write_some(entries[start : start + _WRITTEN_AT_ONCE]) or refused
        if refused is not None:
            raise refused

    def entries(self, selection: Selection) -> Sequence[Entry]:
        """Every entry of the selection that can be read. Those without a vector that an older version wrote are not."""
        ids = self._look(lambda connection: select(connection, selection))
        found: list[Entry] = []
        for start in range(0, len(ids), WHOLE_AT_ONCE):
            found += self._read_some(ids[start : start + WHOLE_AT_ONCE])
        return found

    def join(self, key: CacheKey, cluster: bytes) -> None:
        """Make the entry one of the cluster; nothing happens if it is gone."""
        self._change(lambda transaction: transaction.join(key, cluster))

    def append_lessons(self, log: bytes, lessons: Sequence[bytes]) -> int:
        """Append lessons to a log; how many it has ever had. Committed when this returns."""
        return self._change(lambda transaction: _sqlite_lessons.append(transaction.connection, log, lessons))

    def lessons(self, log: bytes, after: int) -> Lessons:
        """The lessons of a log behind this position that are still there. A damaged one is given as it is."""
        return self._look(lambda connection: _sqlite_lessons.read(connection, log, after))

    def keep_summary(self, log: bytes, position: int, summary: bytes) -> None:
        """Keep a summary of a log up to this position, unless there is one of a higher position it has reached."""
        self._change(lambda transaction: _sqlite_lessons.keep_summary(transaction.connection, log, position, summary))

    def summary(self, log: bytes) -> tuple[int, bytes] | None:
        """The position and the summary of a log that was kept last, or None. A damaged one is given as it is."""
        return self._look(lambda connection: _sqlite_lessons.read_summary(connection, log))

    def forget_lessons(self, log: bytes) -> None:
        """Remove the log and its summary."""
        self._change(lambda transaction: _sqlite_lessons.forget(transaction.connection, log))

    def touch(self, key: CacheKey, expires: float | None) -> None:
        """Set when the entry expires; nothing happens if it is gone."""
        self._change(lambda transaction: transaction.touch(key, expires))

    def remove(self, keys: Sequence[CacheKey], *, dry_run: bool = False) -> int:
        """Remove these entries with their vectors, or with `dry_run` none; how many there were."""
        if not keys:
            return 0
        if dry_run:
            return self._look(lambda connection: count_keys(connection, keys))
        return self._change(lambda transaction: transaction.remove(keys))

    def clear(self, selection: Selection, *, dry_run: bool = False) -> int:
        """Remove what is there of the selection when this is called, some hundred entries at a time; how many.

        Afterwards the file gives its free pages back and the log is emptied, so that the answers leave the
        disk as well. With `dry_run` the entries are only counted.
        """
        if dry_run:
            return self._carry_out(
                lambda session: session.read(lambda connection: count_selected(connection, selection))
            )
        ids = self._look(lambda connection: select(connection, selection))
        # One step even for none: other programs shall forget what they hold of it.
        steps = [ids[start : start + _CLEARED_AT_ONCE] for start in range(0, max(1, len(ids)), _CLEARED_AT_ONCE)]
        removed = sum(self._clear(step) for step in steps)
        if removed:
            self._shrink(limit=None)
        return removed

    def similar(self, selection: Selection, space: Space, vector: Vector, min_score: float) -> Sequence[Listed]:
        """Every entry of the selection and space whose cosine is at least `min_score`, nearest first.

        Compares all vectors of the selection, some hundred at a time.

        Raises:
            WrongKeyError: all that are near enough are encrypted with keys that the codec does not have.
            MissingExtraError: numpy is not installed.
        """
        if not vector:
            return []
        comparison = Comparison(space, vector, min_score, self._codec)
        ids = self._look(lambda connection: select(connection, selection))
        for start in range(0, len(ids), COMPARED_AT_ONCE):
            self._compare(comparison, ids[start : start + COMPARED_AT_ONCE])
        return comparison.listed()

    def block(self, asker: CacheKey, entry: CacheKey) -> None:
        """Never again return this entry, nor another one written under its key, from `nearest` for this asker."""
        self._change(lambda transaction: transaction.block(asker, entry))

    def sweep(self, now: float, limit: int) -> int:
        """Remove at most `limit` entries with `expires <= now`; how many were removed."""
        if limit <= 0 or not self._any_expired(now):
            return 0
        removed = self._change(lambda transaction: transaction.sweep(now, limit))
        self._shrink(limit=1)
        return removed

    def size(self) -> StoreSize:
        """Entries, and their bytes in the file: bodies, vectors, and what their rows cost."""
        totals = self._look(read_totals)
        return StoreSize(totals.entries, totals.bytes)

    def epoch(self) -> int:
        """Differs when another program has removed or replaced entries, or when the file became another one.

        Eviction and expiry do not count: they make no answer wrong that a tier above still holds.
        """
        return self._carry_out(lambda session: session.epoch())

    def close(self) -> None:
        """Close the file; a second call does nothing, any other call afterwards raises `StoreError`."""
        self._closed = True
        self._homes.close()

    # ------------------------------------------------------------------------------------ inside

    def _look(self, act: Callable[[sqlite3.Connection], R]) -> R:
        return self._carry_out(lambda session: session.read(act))

    def _change(self, act: Callable[[Transaction], R]) -> R:
        return self._carry_out(lambda session: session.write(act))

    def _write_some(self, entries: Sequence[Entry]) -> UnwritableEntryError | None:
        """Write these in one transaction; the error of one that was refused."""
        pairs: list[tuple[Entry, bytes]] = []
        refused: UnwritableEntryError | None = None
        for entry in entries:
            try:
                pairs.append((entry, self._codec.encode(entry)))
            except UnwritableEntryError as error:
                refused = error

        def put(transaction: Transaction) -> UnwritableEntryError | None:
            too_large: UnwritableEntryError | None = None
            for entry, body in pairs:
                try:
                    transaction.put(entry, body, self._max_entries, self._max_bytes)
                except UnwritableEntryError as error:  # Raised before anything was changed.
                    too_large = error
            return too_large

        return self._change(put) or refused

    def _read_some(self, ids: Sequence[int]) -> list[Entry]:
        """The entries of these ids that can be read."""
        entries = []
        for whole in self._look(lambda connection: read_whole(connection, ids)):
            with suppress(UnreadableEntryError):
                entries.append(whole.entry(self._codec))
        return entries

    def _clear(self, ids: Sequence[int]) -> int:
        return self._change(lambda transaction: transaction.clear(ids))

    def _compare(self, comparison: Comparison, ids: Sequence[int]) -> None:
        self._look(lambda connection: comparison.go_on(connection, ids))

    def _any_expired(self, now: float) -> bool:
        query = "SELECT 1 FROM entries WHERE expires <= ? LIMIT 1"
        return self._look(lambda connection: connection.execute(query, (now,)).fetchone()) is not None

    def _shrink(self, limit: int | None) -> None:
        """Give free pages back, in `limit` steps or until done. The entries are gone already: no error matters."""
        try:
            steps = 0
            while self._carry_out(lambda session: session.shrink(_SHRUNK_AT_ONCE)):
                steps += 1
                if steps == limit:
                    return
            if limit is None:
                self._carry_out(lambda session: session.empty_log())
        except StoreError:
            return

    def _carry_out(self, act: Callable[[Session], R]) -> R:
        """The result of `act` on an open session; on a new one when the file was damaged, moved or deleted.

        Raises:
            StoreError: whatever went wrong.
        """
        if self._closed:
            raise StoreError("The store is closed; make a new one")
        damaged: Identity | None = None
        for attempt in range(_ATTEMPTS):
            session: Session | None = None
            cause: Exception
            try:
                session = self._session(damaged)
                return act(session)
            except SqliteTroubleError as error:
                trouble, cause = error.trouble, error
            except (sqlite3.Error, OSError) as error:
                trouble, cause = diagnose(error), error
            if session is None or trouble not in (Trouble.CORRUPT, Trouble.MOVED) or attempt + 1 == _ATTEMPTS:
                raise SqliteTroubleError(trouble, self._path) from cause
            damaged = session.identity if trouble is Trouble.CORRUPT else None
            self._homes.own().retire(session)
        raise AssertionError("unreachable")

    def _session(self, damaged: Identity | None) -> Session:
        home = self._homes.own()
        session = home.session
        if session is not None and not session.retired and not session.looks_moved():
            return session
        if home.torn:
            raise SqliteTroubleError(Trouble.FORKED, self._path)
        with home.opening:
            if home.session is not None and (home.session.retired or home.session.moved()):
                home.retire(home.session)
            if home.session is None:
                self._say_what_became_of(home)
                if damaged is not None:
                    self._file.make_ready(damaged)
                home.sessions += 1
                neighbours = Neighbours(self._index_bytes, self._codec)
                home.session = Session(self._file, home.sessions, self._busy_timeout, neighbours, self._clock)
                home.identity = home.session.identity
            return home.session

    def _say_what_became_of(self, home: Home) -> None:
        """Log that the file of the last session is gone: no error tells of it, for the store goes on with another."""
        last, home.identity = home.identity, self._file.identity()
        if last is None or last == home.identity:
            return
        if home.identity is None:
            _log.warning(
                "The answer cache %s was deleted while in use: its answers are gone and a new file is begun. Delete it "
                "only while no program uses it.",
                self._path,
            )
        else:
            _log.warning(
                "The answer cache %s was replaced by another file while in use: answers come from that one now. "
                "Replace it only while no program uses it.",
                self._path,
            )
