"""SHA-256 of large files, remembered beside the cache so that a start does not read them whole."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from pathlib import Path

__all__ = ["file_sha256", "write_whole"]


def file_sha256(path: Path, memory: Path) -> str:
    """The SHA-256 of a file, in hex.

    It is remembered in the folder `memory` together with the file's size and time of change; while both are as they
    were, the file is not read. A memory that cannot be read or written costs time, nothing else.
    """
    path = path.resolve()
    status = path.stat()
    state = [status.st_size, status.st_mtime_ns]
    note = memory / f"{hashlib.sha256(os.fsencode(path)).hexdigest()[:24]}.json"
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        remembered = json.loads(note.read_bytes())
        if remembered["state"] == state:
            return str(remembered["sha256"])
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    with contextlib.suppress(OSError):
        write_whole(note, json.dumps({"state": state, "sha256": digest}).encode())
    return digest


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that other processes see whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
