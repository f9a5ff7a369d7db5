"""LangChain's own cache suites, for every store this project has."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_tests.integration_tests.cache import AsyncCacheTestSuite, SyncCacheTestSuite

from aicache.testing import FakeEmbedder
from langchain_aicache import AICache

STORES: dict[str, dict[str, Any]] = {
    "memory": {"store": "memory://"},
    "sqlite": {"store": "sqlite:///{folder}/answers.db", "l1_entries": 0},
    "l1+sqlite": {"store": "sqlite:///{folder}/answers.db"},
    "memory, exact only": {"store": "memory://", "embeddings": False},
}


def open_cache(name: str, folder: Path) -> AICache:
    options = {"embeddings": FakeEmbedder(), **STORES[name]}
    return AICache(options.pop("store").format(folder=folder), **options)


class TestSync(SyncCacheTestSuite):
    @pytest.fixture(params=STORES)
    def cache(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[AICache]:  # type: ignore[override]
        with open_cache(request.param, tmp_path) as cache:
            yield cache


class TestAsync(AsyncCacheTestSuite):
    @pytest.fixture(params=STORES)
    async def cache(self, request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[AICache]:  # type: ignore[override]
        async with open_cache(request.param, tmp_path) as cache:
            yield cache
