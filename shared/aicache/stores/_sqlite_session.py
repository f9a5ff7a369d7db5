"""The open connections of one program to one file: many readers, one writer at a time.

A session belongs to the program that made it: a forked child must not touch its parent's connections, not even to
close them. Nor is it enough that the child opens its own: SQLite notes in memory which locks its program holds
on a file, the child inherits the notes without the locks, and would read and write unprotected. So sessions are
closed before a fork (`_sqlite_home`).

A session also belongs to one file: when another file takes the path, a new session begins.
"""

from __future__ import annotations

import random
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final, TypeVar

from aicache._clock import Clock
from aicache.stores._sqlite_file import Identity, SqliteFile
from aicache.stores._sqlite_nearest import Neighbours
from aicache.stores._sqlite_rows import GroupNames, Transaction, read_totals
from aicache.stores._sqlite_trouble import SqliteTroubleError, Trouble

__all__ = ["Session"]

R = TypeVar("R")

_IDLE_READERS: Final = 8
"""Connections kept for reuse; each takes up to 2 MiB of page cache."""

_REMEMBERED_USES: Final = 1024
"""Reads noted until a write records them; older ones are forgotten, which makes eviction a little less exact."""

_USES_PER_WRITE: Final = 32
"""Reads recorded by one write: about 3 us each."""

_REMEMBERED_GROUPS: Final = 10_000

_LOOK_AGAIN: Final = 1.0
"""Seconds between two looks, by readers, at whether the file is still the same; writers look each time."""


class Session:
    """Connections, and what is remembered of the file they lead to. Safe from any thread."""

    def __init__(
        self, file: SqliteFile, number: int, busy_timeout: float, neighbours: Neighbours, clock: Clock
    ) -> None:
        """Open the file, making or mending it first.

        Raises:
            SqliteTroubleError, OSError, sqlite3.Error: it cannot be opened.
        """
        self.number = number
        self.retired = False
        self.neighbours = neighbours
        self._file = file
        self._busy_timeout = busy_timeout
        self._immutable = file.make_ready()
        self.identity: Identity | None = file.identity()
        self._seen = file.identity(immutable=self._immutable)
        self._clock = clock
        self._look_at = clock.monotonic() + _LOOK_AGAIN
        self._idle: list[sqlite3.Connection] = []
        self._reading: set[int] = set()
        self._writer: sqlite3.Connection | None = None
        self._writing = threading.Lock()
        self._uses: deque[int] = deque(maxlen=_REMEMBERED_USES)
        self._groups: GroupNames = {}
        self._own_epoch = 0
        self._epoch_moving = False
        self._last_epoch = 0
        self._give_back(file.connect(immutable=self._immutable))

    # ------------------------------------------------------------------------------------ reading

    def read(self, act: Callable[[sqlite3.Connection], R]) -> R:
        """The result of `act` on a connection of its own.

        Raises:
            SqliteTroubleError: MOVED, when the session was closed meanwhile.
        """
        me = threading.get_ident()
        self._reading.add(me)
        try:
            # Looked at after the `add`: who retires the session sees us, or we see that it is retired.
            if self.retired:
                raise SqliteTroubleError(Trouble.MOVED, self._file.path)
            try:
                connection = self._idle.pop()
            except IndexError:
                connection = self._file.connect(immutable=self._immutable)
            try:
                result = act(connection)
            except BaseException:
                connection.close()
                raise
            self._give_back(connection)
            return result
        finally:
            self._reading.discard(me)

    def _give_back(self, connection: sqlite3.Connection) -> None:
        """Keep the connection for the next read, or close it."""
        if len(self._idle) >= _IDLE_READERS:
            connection.close()
            return
        self._idle.append(connection)
        # Looked at after the append: a `close` from now on finds the connection, an earlier one is seen here.
        if self.retired:
            self._close_idle()

    def note_use(self, number: int) -> None:
        """Remember that the entry was read; the next write records it, for a read never writes."""
        self._uses.append(number)

    def epoch(self) -> int:
        """Moves when another program removed or replaced entries, or when the file became another one."""
        for _ in range(3):
            own, moving = self._own_epoch, self._epoch_moving
            total = self.read(read_totals).epoch
            # Between our commit and our count of it the difference would be off by our own change.
            if not moving and not self._epoch_moving and own == self._own_epoch:
                self._last_epoch = (self.number << 40) + total - own
                break
        return self._last_epoch

    # ------------------------------------------------------------------------------------ writing

    def write(self, act: Callable[[Transaction], R]) -> R:
        """The result of `act` in a transaction of its own, committed when this returns.

        Raises:
            SqliteTroubleError: LOCKED; or MOVED, when the file is not the one this session opened.
        """
        with self._alone() as connection:
            self._begin(connection)
            transaction = Transaction(connection, self._groups)
            transaction.record_uses(self._take_uses())
            result = act(transaction)
            transaction.finish()
            steps = transaction.epoch_steps
            self._epoch_moving = steps > 0
            try:
                connection.execute("COMMIT")
                self._own_epoch += steps
            finally:
                self._epoch_moving = False
            if len(self._groups) > _REMEMBERED_GROUPS:
                self._groups.clear()
            self._groups.update(transaction.new_groups)
        return result

    def shrink(self, pages: int) -> bool:
        """Give up to `pages` free pages back to the file system if there are many; whether more are left."""
        with self._alone() as connection:
            (free,) = connection.execute("PRAGMA freelist_count").fetchone()
            (total,) = connection.execute("PRAGMA page_count").fetchone()
            # The next writes fill free pages: a few of them are no loss, and moving pages costs.
            if free * 8 <= total:
                return False
            self._begin(connection)
            # One page a statement: the module steps a statement without columns once, and one step frees one.
            for _ in range(min(pages, free)):
                connection.execute("PRAGMA incremental_vacuum(1)")
            connection.execute("COMMIT")
            return bool(free > pages)

    def empty_log(self) -> None:
        """Move what is in the write-ahead log into the file, unless somebody reads just now."""
        with self._alone() as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    @contextmanager
    def _alone(self) -> Iterator[sqlite3.Connection]:
        """The writer's connection. Threads of one program queue here, not at the file: that wakes them at once."""
        if not self._writing.acquire(timeout=self._busy_timeout):
            raise SqliteTroubleError(Trouble.LOCKED, self._file.path)
        try:
            if self.retired or self.moved():
                raise SqliteTroubleError(Trouble.MOVED, self._file.path)
            if self._writer is None:
                self._writer = self._file.connect(immutable=self._immutable, writer=True)
            try:
                yield self._writer
            except BaseException:
                # Closing rolls back; a connection that met an error is not trusted with the next write.
                self._writer.close()
                self._writer = None
                raise
        finally:
            self._writing.release()

    def _begin(self, connection: sqlite3.Connection) -> None:
        """Take the write lock. SQLite's own waiting sleeps up to 100 ms at a time, which starves many writers."""
        deadline = time.monotonic() + self._busy_timeout
        while True:
            try:
                connection.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError as error:
                busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
                if not busy or time.monotonic() >= deadline:
                    raise
            time.sleep(random.uniform(0.0002, 0.002))  # noqa: S311 - spreads retries, no secret

    def _take_uses(self) -> list[int]:
        count = min(len(self._uses), _USES_PER_WRITE)
        # Writers take turns, and a full deque drops at this end only to append at the other: never empty here.
        taken = [self._uses.popleft() for _ in range(count)]
        return list(dict.fromkeys(reversed(taken)))[::-1]

    # ------------------------------------------------------------------------------------ the file

    def moved(self) -> bool:
        """Whether another file, or none, is at the path now."""
        return self._file.identity(immutable=self._immutable) != self._seen

    def looks_moved(self) -> bool:
        """The same, looked up at most once a second."""
        now = self._clock.monotonic()
        if now < self._look_at:
            return False
        self._look_at = now + _LOOK_AGAIN
        return self.moved()

    def close(self) -> None:
        """Close the connections; those in use are closed when they are given back."""
        self.retired = True
        self._close_idle()
        self.neighbours.close()
        # A write under way ends first; one that hangs longer than any write may is left to its own end.
        if self._writing.acquire(timeout=self._busy_timeout + 1.0):
            try:
                writer, self._writer = self._writer, None
                if writer is not None:
                    writer.close()
            finally:
                self._writing.release()

    def unused(self, patience: float) -> bool:
        """Whether a closed session has no connection left; waits up to `patience` seconds for those in use."""
        deadline = time.monotonic() + patience
        while self._reading and time.monotonic() < deadline:
            time.sleep(0.001)
        return not (self._reading or self._idle or self._writer)

    def _close_idle(self) -> None:
        with suppress(IndexError):
            while True:
                self._idle.pop().close()
