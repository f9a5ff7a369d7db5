"""Which rows of the embedded store a selection is about."""

from __future__ import annotations

import sqlite3
import struct
from array import array
from collections.abc import Iterable
from hashlib import sha256
from math import isfinite
from typing import Final

from aicache._model import CacheKey, Selection

__all__ = ["TAG_BYTES", "count_keys", "count_selected", "select", "tag_id", "written_at"]

TAG_BYTES: Final = 16

_CHUNK: Final = 250
"""Digests in one statement."""

_CREATED: Final = struct.Struct("<d")
_CREATED_AT: Final = 5
"""Where the time stands in a body of the codec's format 1, after the format and the checksum."""


def tag_id(tag: str) -> bytes:
    """A tag as it stands in a row: a file that is encrypted shows none of its words."""
    return sha256(tag.encode("utf-8", "surrogatepass")).digest()[:TAG_BYTES]


def select(connection: sqlite3.Connection, selection: Selection) -> array[int]:
    """The ids of the entries of the selection, in order: 8 MB for a million.

    Whoever goes through them in steps does not ask for each step anew which they are, which a common tag makes
    expensive. Ids are not used again, so that those of entries that are gone by then do no harm.
    """
    where, values = _condition(selection)
    query = f"SELECT id FROM entries WHERE 1{where} ORDER BY id"  # noqa: S608 - our columns
    return array("q", (number for (number,) in connection.execute(query, values)))


def count_selected(connection: sqlite3.Connection, selection: Selection) -> int:
    """How many entries of the selection there are."""
    where, values = _condition(selection)
    query = f"SELECT count(*) FROM entries WHERE 1{where}"  # noqa: S608 - our columns
    return int(connection.execute(query, values).fetchone()[0])


def count_keys(connection: sqlite3.Connection, keys: Iterable[CacheKey]) -> int:
    """How many entries of these keys there are."""
    digests = list({key.digest for key in keys})
    found = 0
    for start in range(0, len(digests), _CHUNK):
        chunk = digests[start : start + _CHUNK]
        query = f"SELECT count(*) FROM entries WHERE digest IN ({','.join('?' * len(chunk))})"  # noqa: S608 - placeholders only
        found += connection.execute(query, chunk).fetchone()[0]
    return found


def written_at(body: object) -> float | None:
    """When the entry of a body was written; a function for statements about rows that have no time of their own.

    Such rows are of the file format before this one, and their bodies of the codec's format 1, as they are.
    """
    if not isinstance(body, bytes) or len(body) < _CREATED_AT + _CREATED.size or body[0] != 1:
        return None
    created: float = _CREATED.unpack_from(body, _CREATED_AT)[0]
    return created if isfinite(created) else None


def _condition(selection: Selection) -> tuple[str, list[bytes | float]]:
    """The selection as the end of a WHERE clause over `entries`, and the values for its placeholders."""
    columns = (
        ("namespace", selection.namespace),
        ("tenant", selection.tenant),
        ("model", selection.model),
        ("model_name", selection.model_name),
    )
    chosen = [(column, value) for column, value in columns if value is not None]
    where = ""
    values: list[bytes | float] = [value for _, value in chosen]
    if chosen:
        terms = " AND ".join(f"{column} = ?" for column, _ in chosen)
        where += f" AND entries.grp IN (SELECT id FROM groups WHERE {terms})"  # noqa: S608 - our columns
    for tag in dict.fromkeys(selection.tags):
        # Entries of an older version have their tags in clear.
        where += " AND entries.id IN (SELECT entry FROM tags WHERE tag IN (?, ?))"
        values += (tag_id(tag), tag.encode("utf-8", "surrogatepass"))
    if selection.written_before is not None:
        body = "SELECT body FROM bodies WHERE bodies.id = entries.id"  # only looked up for rows without a time
        where += f" AND coalesce(entries.created, written_at(({body}))) < ?"
        values.append(float(selection.written_before))
    return where, values
