"""The embedded store keeps the contract of every store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from aicache._codec import Codec
from aicache.stores.sqlite import SqliteStore
from aicache.testing import StoreContract


class TestSqliteStore(StoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[SqliteStore]:
        # Eight threads on two busy cores may queue for longer than an application would want to wait.
        store = SqliteStore(tmp_path / "answers.db", busy_timeout=10.0)
        yield store
        store.close()


class TestSqliteStoreWithoutRoomInMemory(StoreContract):
    """With no memory for vectors, and so with every larger partition loaded anew again and again."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[SqliteStore]:
        store = SqliteStore(tmp_path / "answers.db", busy_timeout=10.0, index_bytes=0)
        yield store
        store.close()


class TestEncryptedSqliteStore(StoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[SqliteStore]:
        fernet = pytest.importorskip("cryptography.fernet")
        codec = Codec([fernet.Fernet.generate_key()])
        store = SqliteStore(tmp_path / "answers.db", busy_timeout=10.0, codec=codec)
        yield store
        store.close()
