"""What is in a file of the embedded store, and how a file of an older format becomes one of ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

__all__ = ["APPLICATION_ID", "AS_IF_UPGRADED", "SCHEMA", "SCHEMA_VERSION", "TABLES", "UPGRADES"]

APPLICATION_ID: Final = 0x41494341
"""Marks the file as ours: `AICA`."""

SCHEMA_VERSION: Final = 4

# What changes on a read, a touch or a join (`entries`) is narrow and apart from what is large: a statement that
# changes one small column must not rewrite an answer. `entries.id` is a counter that never goes back, so "what
# is new since" is a range of ids. `entries.partition` is only there where no row of `vectors` has it.
_GROUPS: Final = """
CREATE TABLE groups (
    id INTEGER PRIMARY KEY, namespace BLOB NOT NULL, tenant BLOB NOT NULL, model BLOB NOT NULL,
    model_name BLOB NOT NULL DEFAULT x'', UNIQUE (namespace, tenant, model, model_name))
"""
_BLOCKED: Final = """
CREATE TABLE blocked (asker BLOB NOT NULL, entry BLOB NOT NULL, PRIMARY KEY (asker, entry)) WITHOUT ROWID
"""
_CLUSTERS: Final = "CREATE TABLE clusters (name BLOB NOT NULL PRIMARY KEY, size INTEGER NOT NULL) WITHOUT ROWID"
_LESSONS: Final = """
CREATE TABLE lessons (
    log BLOB NOT NULL, position INTEGER NOT NULL, lesson BLOB NOT NULL, PRIMARY KEY (log, position)) WITHOUT ROWID
"""
_SUMMARIES: Final = """
CREATE TABLE summaries (
    log BLOB NOT NULL PRIMARY KEY, position INTEGER NOT NULL, summary BLOB NOT NULL) WITHOUT ROWID
"""

# Counted by the file itself, so that programs of the version before count too, which know nothing of clusters and
# remove entries all the same. Counting when somebody asks takes as long as a cluster is large.
_COUNT_IN: Final = (
    "INSERT INTO clusters (name, size) VALUES (new.cluster, 1) ON CONFLICT (name) DO UPDATE SET size = size + 1;"
)
_COUNT_OUT: Final = (
    "UPDATE clusters SET size = size - 1 WHERE name = old.cluster; "
    "DELETE FROM clusters WHERE name = old.cluster AND size <= 0;"
)
_COUNTING: Final = (
    f"CREATE TRIGGER cluster_written AFTER INSERT ON entries WHEN new.cluster IS NOT NULL BEGIN {_COUNT_IN} END",
    f"CREATE TRIGGER cluster_removed AFTER DELETE ON entries WHEN old.cluster IS NOT NULL BEGIN {_COUNT_OUT} END",
    "CREATE TRIGGER cluster_left AFTER UPDATE OF cluster ON entries WHEN old.cluster IS NOT NULL "
    f"BEGIN {_COUNT_OUT} END",
    "CREATE TRIGGER cluster_joined AFTER UPDATE OF cluster ON entries WHEN new.cluster IS NOT NULL "
    f"BEGIN {_COUNT_IN} END",
)

SCHEMA: Final = (
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
    expires REAL, used INTEGER NOT NULL, bytes INTEGER NOT NULL, created REAL, cluster BLOB, partition BLOB)
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
    _CLUSTERS,
    _LESSONS,
    _SUMMARIES,
    *_COUNTING,
)

# Each takes the same time for any file. Columns stay empty for the entries that are there: `created` is read from
# their bodies when somebody asks (`_sqlite_select.written_at`), clusters they have none, and those without a vector
# are not listed. A program of the older version that has the file open may go on: it names the columns it writes, and
# those it does not know have defaults.
UPGRADES: Final[Mapping[int, tuple[str, ...]]] = {
    2: (
        "ALTER TABLE entries ADD COLUMN created REAL",
        "ALTER TABLE groups RENAME TO groups_before",
        _GROUPS,
        "INSERT INTO groups (id, namespace, tenant, model) SELECT id, namespace, tenant, model FROM groups_before",
        "DROP TABLE groups_before",
        _BLOCKED,
    ),
    3: (
        "ALTER TABLE entries ADD COLUMN cluster BLOB",
        "ALTER TABLE entries ADD COLUMN partition BLOB",
        _CLUSTERS,
        _LESSONS,
        _SUMMARIES,
        *_COUNTING,
    ),
}
"""By the format that a statement finds, what makes the next one of it."""

_TEMPORARY: Final = tuple(table.replace("TABLE", "TEMP TABLE") for table in (_CLUSTERS, _LESSONS, _SUMMARIES))

AS_IF_UPGRADED: Final[Mapping[int, tuple[str, ...]]] = {
    2: (
        "CREATE TEMP VIEW entries AS SELECT *, NULL AS created, NULL AS cluster, NULL AS partition FROM main.entries",
        "CREATE TEMP VIEW groups AS SELECT *, x'' AS model_name FROM main.groups",
        _BLOCKED.replace("TABLE", "TEMP TABLE"),
        *_TEMPORARY,
    ),
    3: (
        "CREATE TEMP VIEW entries AS SELECT *, NULL AS cluster, NULL AS partition FROM main.entries",
        *_TEMPORARY,
    ),
}
"""What a file of an older format that may not be written is read through: names in TEMP come before those in it."""

_OLDEST_TABLES: Final = frozenset({"state", "groups", "spaces", "entries", "bodies", "vectors", "tags"})
TABLES: Final[Mapping[int, frozenset[str]]] = {
    2: _OLDEST_TABLES,
    3: _OLDEST_TABLES | {"blocked"},
    SCHEMA_VERSION: _OLDEST_TABLES | {"blocked", "clusters", "lessons", "summaries"},
}
"""By format, what a file must have."""
