"""Rows of the embedded store: reading entries, and what one write transaction does."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple
from zlib import crc32

from aicache._codec import Codec
from aicache._errors import UnreadableEntryError, UnwritableEntryError, WrongKeyError
from aicache._model import CacheKey, Entry, Partition, Vector
from aicache.stores._sqlite_select import TAG_BYTES, tag_id
from aicache.stores._sqlite_trouble import DamagedFileError

__all__ = [
    "WHOLE_AT_ONCE",
    "GroupNames",
    "Read",
    "Row",
    "Totals",
    "Transaction",
    "Whole",
    "checksum",
    "read_blocked",
    "read_entries",
    "read_row",
    "read_totals",
    "read_whole",
    "space_bytes",
]

GroupNames = dict[tuple[bytes, bytes, bytes, bytes], int]
"""Ids of the rows of `groups`: namespace, tenant, model, model name."""

_ROW_BYTES: Final = 340
"""Bytes of the file an entry takes besides its body and vector: narrow row, four indexes, page headers
(measured: 100,000 entries of 1 KB and 384 dimensions; since then a checksum, a time and a cluster with its count of
52 bytes were added)."""

_CHUNK: Final = 250
"""Ids in one statement."""
WHOLE_AT_ONCE: Final = _CHUNK

_SURPLUS: Final = 15
"""Entries removed beyond need when the bound is reached, so that not every write must evict."""

_COLUMNS: Final = "SELECT e.id, e.digest, e.expires, b.body, v.vector, v.checksum, e.cluster"
_SIZE: Final = "(SELECT size FROM clusters WHERE name = e.cluster)"
_TABLES: Final = "FROM entries e JOIN bodies b ON b.id = e.id LEFT JOIN vectors v ON v.id = e.id"
_READ_KEY: Final = f"{_COLUMNS} {_TABLES} WHERE e.digest = ?"
_READ: Final = f"{_COLUMNS}, {_SIZE} {_TABLES}"
_WHOLE: Final = (
    f"{_COLUMNS}, coalesce(v.partition, e.partition), g.namespace, g.tenant, g.model, g.model_name "
    f"{_TABLES} JOIN groups g ON g.id = e.grp"
)
_ROW_COLUMNS: Final = 7


class Totals(NamedTuple):
    """The single row that counts everything."""

    seq: int
    """The last number given out; orders writes and uses."""
    entries: int
    bytes: int
    gone: int
    """Entries that ever left, for whatever reason."""
    epoch: int
    """Transactions that took away what others may still hold."""


class Row(NamedTuple):
    """An entry as it stands in the file. A damaged file may hold any type in any column."""

    id: int
    digest: bytes
    expires: float | None
    body: bytes
    vector: Vector | None
    checksum: int | None
    """Of the vector; the body has its own."""
    cluster: bytes | None
    """Outside the body, and so outside its checksum and its encryption, for it may change."""
    cluster_size: int | None = None
    """Entries of its cluster, where they were counted."""

    def entry(self, partition: Partition, codec: Codec) -> Entry:
        """The entry.

        Raises:
            WrongKeyError: it is encrypted with a key that the codec does not have.
            UnreadableEntryError: something in the row is not what was written.
        """
        if not (
            isinstance(self.digest, bytes)
            and isinstance(self.expires, float | None)
            and isinstance(self.vector, bytes | None)
        ):
            raise UnreadableEntryError("The stored row holds values of other types; the entry is ignored")
        if self.vector is not None and self.checksum != checksum(self.id, self.vector):
            raise UnreadableEntryError("The stored vector is damaged; the entry is ignored")
        key = CacheKey(partition, self.digest)
        # A damaged one is the cluster of no other entry; the answer is as good as before.
        cluster = self.cluster if isinstance(self.cluster, bytes) else None
        return codec.decode(key, self.body, expires=self.expires, vector=self.vector, cluster=cluster)


class Whole(NamedTuple):
    """An entry that was found otherwise than by its key, with all that its key says."""

    row: Row
    partition: Partition

    def entry(self, codec: Codec) -> Entry:
        """As `Row.entry`."""
        if not isinstance(self.partition.id, bytes):
            raise UnreadableEntryError("The stored row does not say what its entry belongs to; the entry is ignored")
        return self.row.entry(self.partition, codec)


class Read(NamedTuple):
    """Entries by id, without those that are gone or damaged."""

    entries: dict[int, Entry]
    cluster_sizes: dict[int, int]
    foreign: set[int]
    """Those that are there, but encrypted with a key that is not ours."""


def checksum(number: int, vector: Vector) -> int:
    """The CRC-32 of a vector in the row of this id: a vector that got into another row is found out too.

    A bit that turned over may leave a vector finite and of length 1, and its cosines wrong.
    """
    return crc32(vector, number & 0xFFFFFFFF)


def space_bytes(space: str | None) -> bytes:
    """The name of a space as it stands in a row; an entry without one has the empty name."""
    return b"" if space is None else space.encode("utf-8", "surrogatepass")


def read_totals(connection: sqlite3.Connection) -> Totals:
    """The totals as last committed."""
    row = connection.execute("SELECT seq, entries, bytes, gone, epoch FROM state").fetchone()
    if row is None:
        raise DamagedFileError("the row of totals is gone")
    return Totals(*row)


def read_row(connection: sqlite3.Connection, key: CacheKey) -> Row | None:
    """The row of a key, or None."""
    row = connection.execute(_READ_KEY, (key.digest,)).fetchone()
    return None if row is None else Row(*row)


def read_entries(connection: sqlite3.Connection, partition: Partition, ids: Sequence[int], codec: Codec) -> Read:
    """The entries with these ids."""
    read = Read({}, {}, set())
    for start in range(0, len(ids), _CHUNK):
        chunk = ids[start : start + _CHUNK]
        rows = connection.execute(f"{_READ} WHERE e.id IN ({_places(len(chunk))})", chunk).fetchall()
        for row in map(Row._make, rows):
            try:
                read.entries[row.id] = row.entry(partition, codec)
                size = row.cluster_size
                read.cluster_sizes[row.id] = size if isinstance(size, int) and size > 1 else 1
            except WrongKeyError:
                read.foreign.add(row.id)
            except UnreadableEntryError:
                continue
    return read


def read_whole(connection: sqlite3.Connection, ids: Sequence[int]) -> list[Whole]:
    """The rows with these ids, at most `WHOLE_AT_ONCE`, without those that are gone."""
    rows = connection.execute(f"{_WHOLE} WHERE e.id IN ({_places(len(ids))})", ids).fetchall()
    return [Whole(Row(*row[:_ROW_COLUMNS]), Partition(*row[_ROW_COLUMNS:])) for row in rows]


def read_blocked(connection: sqlite3.Connection, asker: CacheKey | None) -> frozenset[bytes]:
    """The digests of the entries that this asker must not get."""
    if asker is None:
        return frozenset()
    found = connection.execute("SELECT entry FROM blocked WHERE asker = ?", (asker.digest,)).fetchall()
    return frozenset(digest for (digest,) in found)


class Transaction:
    """What happens between BEGIN and COMMIT. Keeps the totals, and writes them once at the end."""

    __slots__ = (
        "_before",
        "_bytes",
        "_entries",
        "_epoch",
        "_gone",
        "_groups",
        "_seq",
        "connection",
        "new_groups",
    )

    def __init__(self, connection: sqlite3.Connection, groups: GroupNames) -> None:
        self._before = read_totals(connection)
        self.connection = connection
        self._groups = groups
        self.new_groups: GroupNames = {}
        """Rows of `groups` this transaction has learned of; true for good once it is committed."""
        self._seq, self._entries, self._bytes, self._gone, self._epoch = self._before

    @property
    def epoch_steps(self) -> int:
        """By how much this transaction moves the epoch."""
        return self._epoch - self._before.epoch

    def finish(self) -> None:
        """Write the totals if they changed."""
        totals = Totals(self._seq, self._entries, self._bytes, self._gone, self._epoch)
        if totals != self._before:
            self.connection.execute("UPDATE state SET seq = ?, entries = ?, bytes = ?, gone = ?, epoch = ?", totals)

    def put(self, entry: Entry, body: bytes, max_entries: int, max_bytes: int) -> None:
        """Write the entry in place of its predecessor, then keep the bounds."""
        size = len(body) + len(entry.vector or b"") + TAG_BYTES * len(entry.tags) + _ROW_BYTES
        if size > max_bytes:
            # Without its own size: the text would be another each time, and be logged each time.
            raise UnwritableEntryError(
                f"An entry takes more than max_bytes, which is {max_bytes}, and was not written; give a larger one"
            )
        execute = self.connection.execute
        old = execute("SELECT id FROM entries WHERE digest = ?", (entry.key.digest,)).fetchone()
        if old is not None:
            self.delete(old)
            self._epoch += 1
        number = self._tick()
        execute(
            "INSERT INTO entries (id, digest, grp, expires, used, bytes, created, cluster, partition) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                number,
                entry.key.digest,
                self._group(entry.key.partition),
                _real(entry.expires),
                number,
                size,
                _real(entry.created),
                entry.cluster,
                entry.key.partition.id if entry.vector is None else None,
            ),
        )
        execute("INSERT INTO bodies (id, body) VALUES (?, ?)", (number, body))
        if entry.vector is not None:
            execute(
                "INSERT INTO vectors (id, partition, space, vector, checksum) VALUES (?, ?, ?, ?, ?)",
                (
                    number,
                    entry.key.partition.id,
                    self._space(entry.space),
                    entry.vector,
                    checksum(number, entry.vector),
                ),
            )
        for tag in set(entry.tags):
            execute("INSERT INTO tags (tag, entry) VALUES (?, ?)", (tag_id(tag), number))
        self._entries += 1
        self._bytes += size
        self._evict(number, entry.created, max_entries, max_bytes)

    def record_uses(self, recent: Iterable[int]) -> None:
        """Note that these entries were read, the last one last; the dead among them do not matter."""
        for number in recent:
            self.connection.execute("UPDATE entries SET used = ? WHERE id = ?", (self._tick(), number))

    def touch(self, key: CacheKey, expires: float | None) -> None:
        """Set when the entry expires."""
        self.connection.execute("UPDATE entries SET expires = ? WHERE digest = ?", (_real(expires), key.digest))

    def join(self, key: CacheKey, cluster: bytes) -> None:
        """Make the entry one of the cluster. Moves no epoch: the answer is the same."""
        statement = "UPDATE entries SET cluster = ? WHERE digest = ? AND cluster IS NOT ?"
        self.connection.execute(statement, (cluster, key.digest, cluster))

    def remove(self, keys: Iterable[CacheKey]) -> int:
        """Delete the entries of these keys; how many there were."""
        execute = self.connection.execute
        found = (execute("SELECT id FROM entries WHERE digest = ?", (key.digest,)).fetchone() for key in keys)
        removed = self.delete([row[0] for row in found if row is not None])
        self._epoch += 1  # Also where nothing was left here: another program's L1 may still hold it.
        return removed

    def clear(self, ids: Sequence[int]) -> int:
        """Delete the entries with these ids; how many there were."""
        removed = self.delete(ids)
        self._epoch += 1  # As in `remove`.
        return removed

    def block(self, asker: CacheKey, entry: CacheKey) -> None:
        """Note that the asker must never get this entry. Moves no epoch: the entry itself is not wrong."""
        pair = (asker.digest, entry.digest)
        self.connection.execute("INSERT OR IGNORE INTO blocked (asker, entry) VALUES (?, ?)", pair)

    def sweep(self, now: float, limit: int) -> int:
        """Delete at most `limit` expired entries, the longest expired first. Moves no epoch: nobody serves them."""
        return self.delete([number for number, _ in self._expired(now, limit)])

    def delete(self, ids: Sequence[int]) -> int:
        """Delete rows of all tables; how many entries there were. An id given twice counts once."""
        removed = 0
        for start in range(0, len(ids), _CHUNK):
            chunk = ids[start : start + _CHUNK]
            among = f"IN ({_places(len(chunk))})"
            count, size = self.connection.execute(
                f"SELECT count(*), coalesce(sum(bytes), 0) FROM entries WHERE id {among}",  # noqa: S608 - placeholders only
                chunk,
            ).fetchone()
            for table, column in (("entries", "id"), ("bodies", "id"), ("vectors", "id"), ("tags", "entry")):
                self.connection.execute(f"DELETE FROM {table} WHERE {column} {among}", chunk)  # noqa: S608 - ours
            self._entries -= count
            self._bytes -= size
            self._gone += count
            removed += count
        return removed

    def _evict(self, newest: int, now: float, max_entries: int, max_bytes: int) -> None:
        """Keep the bounds: what has expired goes first, then what was used longest ago; never the newest."""
        if self._entries <= max_entries and self._bytes <= max_bytes:
            return
        surplus = min(_SURPLUS, max_entries // 64)
        while True:
            excess = self._entries - max_entries
            excess_bytes = self._bytes - max_bytes
            if excess <= 0 and excess_bytes <= 0:
                return
            rows = [row for row in self._expired(now, _CHUNK) if row[0] != newest]
            rows = (
                rows
                or self.connection.execute(
                    "SELECT id, bytes FROM entries WHERE id <> ? ORDER BY used LIMIT ?", (newest, _CHUNK)
                ).fetchall()
            )
            victims = []
            for number, size in rows:
                if excess + surplus <= 0 and excess_bytes <= 0:
                    break
                victims.append(number)
                excess -= 1
                excess_bytes -= size
            if not self.delete(victims):
                return

    def _expired(self, now: float, limit: int) -> list[tuple[int, int]]:
        return self.connection.execute(
            "SELECT id, bytes FROM entries WHERE expires <= ? ORDER BY expires LIMIT ?", (now, limit)
        ).fetchall()

    def _tick(self) -> int:
        """The next number of the counter that orders writes and uses."""
        self._seq += 1
        return self._seq

    def _group(self, partition: Partition) -> int:
        names = (partition.namespace, partition.tenant, partition.model, partition.model_name)
        known = self._groups.get(names)
        if known is None:
            execute = self.connection.execute
            execute("INSERT OR IGNORE INTO groups (namespace, tenant, model, model_name) VALUES (?, ?, ?, ?)", names)
            query = "SELECT id FROM groups WHERE namespace = ? AND tenant = ? AND model = ? AND model_name = ?"
            known = self.new_groups[names] = int(execute(query, names).fetchone()[0])
        return known

    def _space(self, space: str | None) -> int:
        name = (space_bytes(space),)
        found = self.connection.execute("SELECT id FROM spaces WHERE name = ?", name).fetchone()
        if found is None:
            return int(self.connection.execute("INSERT INTO spaces (name) VALUES (?)", name).lastrowid or 0)
        return int(found[0])


def _real(moment: float | None) -> float | None:
    """A whole number may be larger than those of SQLite."""
    return None if moment is None else float(moment)


def _places(number: int) -> str:
    return ",".join("?" * number)
