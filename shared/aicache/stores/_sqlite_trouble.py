"""What can be wrong with the file of the embedded store, and what to do about each case."""

from __future__ import annotations

import errno
import sqlite3
from enum import Enum
from pathlib import Path
from typing import Final

from aicache._errors import StoreError

__all__ = ["DamagedFileError", "SqliteTroubleError", "Trouble", "diagnose"]


class Trouble(Enum):
    """A kind of trouble; the value is the second half of a sentence: what is wrong, and what to do."""

    LOCKED = "it is locked by another program; close what holds it, or give a longer busy_timeout"
    FULL = "the disk or the quota is full; free some space, or give a smaller max_bytes"
    READ_ONLY = "it is read-only, so cached answers are served but none is added; give this user write access"
    PERMISSION = "this user may not use it; give the user access to the file and its folder, or another path"
    MISSING_FOLDER = "its folder does not exist and cannot be made; make the folder, or give another path"
    NOT_A_FILE = "there is a folder or a device of that name; give the path of a file"
    FOREIGN = "it is the file of another program and was not touched; give another path"
    NEWER = "it was written by a newer aicache and was not touched; upgrade aicache, or give another path"
    CORRUPT = "it is damaged and could not be set aside; move it away, or give another path"
    MOVED = "it was moved or replaced time and again; let one program at a time do that"
    FORKED = "it was in use while this program was forked off; make a new program instead of a fork (spawn)"
    CANNOT_OPEN = "it cannot be opened; check its folder, its rights and the limit of open files"
    BROKEN_DISK = "the disk reports an error, or a limit on file size is reached; check both"
    OTHER = "SQLite reports an error that aicache does not expect; remove the file to begin anew"


class SqliteTroubleError(StoreError):
    """An operation on the file failed, for a known kind of reason."""

    def __init__(self, trouble: Trouble, path: Path) -> None:
        # No full stop: the cache puts the text into a sentence of its own.
        super().__init__(f"The answer cache cannot use {path}: {trouble.value}")
        self.trouble = trouble


class DamagedFileError(sqlite3.DatabaseError):
    """SQLite reads the file without complaint, but what is always there is not."""


# Primary result codes of SQLite: https://sqlite.org/rescode.html
_OF_SQLITE: Final = {
    sqlite3.SQLITE_PERM: Trouble.PERMISSION,
    sqlite3.SQLITE_AUTH: Trouble.PERMISSION,
    sqlite3.SQLITE_BUSY: Trouble.LOCKED,
    sqlite3.SQLITE_LOCKED: Trouble.LOCKED,
    sqlite3.SQLITE_PROTOCOL: Trouble.LOCKED,
    sqlite3.SQLITE_READONLY: Trouble.READ_ONLY,
    sqlite3.SQLITE_IOERR: Trouble.BROKEN_DISK,
    sqlite3.SQLITE_CORRUPT: Trouble.CORRUPT,
    sqlite3.SQLITE_NOTADB: Trouble.CORRUPT,
    sqlite3.SQLITE_FULL: Trouble.FULL,
    sqlite3.SQLITE_CANTOPEN: Trouble.CANNOT_OPEN,
    # Our statements are fixed: a plain error means that a table is gone, so the file changed beneath us.
    sqlite3.SQLITE_ERROR: Trouble.MOVED,
    sqlite3.SQLITE_SCHEMA: Trouble.MOVED,
}

_OF_SYSTEM: Final = {
    errno.EACCES: Trouble.PERMISSION,
    errno.EPERM: Trouble.PERMISSION,
    errno.EROFS: Trouble.READ_ONLY,
    errno.ENOSPC: Trouble.FULL,
    errno.EDQUOT: Trouble.FULL,
    errno.ENOENT: Trouble.MISSING_FOLDER,
    errno.ENOTDIR: Trouble.MISSING_FOLDER,
    errno.EISDIR: Trouble.NOT_A_FILE,
}


def diagnose(error: sqlite3.Error | OSError) -> Trouble:
    """The kind of trouble an exception stands for."""
    if isinstance(error, OSError):
        return _OF_SYSTEM.get(error.errno or 0, Trouble.BROKEN_DISK)
    if isinstance(error, DamagedFileError):
        return Trouble.CORRUPT
    # Errors of the Python module itself (a closed connection, say) have no code.
    return _OF_SQLITE.get(getattr(error, "sqlite_errorcode", -1) & 0xFF, Trouble.OTHER)
