"""The cache as LlamaIndex's key-value store, for those who set it as a model's `embeddings_cache`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from llama_index.core.storage.kvstore.types import DEFAULT_BATCH_SIZE, DEFAULT_COLLECTION, BaseKVStore

from llamaindex_aicache._kvstore import AICacheKVStore

__all__ = ["KeyValues"]


class KeyValues(BaseKVStore):
    """The methods of an `AICacheKVStore` beside the answers of a cache; see there for what they promise."""

    # Neither __len__ nor __bool__: LlamaIndex asks `if not self.embeddings_cache`, and an empty one would be unused.

    _key_values: AICacheKVStore

    def put(self, key: str, val: dict[str, Any], collection: str = DEFAULT_COLLECTION) -> None:
        """Keep a value in place of the key's earlier one."""
        self._key_values.put(key, val, collection)

    async def aput(self, key: str, val: dict[str, Any], collection: str = DEFAULT_COLLECTION) -> None:
        """As `put`, without blocking the event loop."""
        await self._key_values.aput(key, val, collection)

    def put_all(
        self,
        kv_pairs: list[tuple[str, dict[str, Any]]],
        collection: str = DEFAULT_COLLECTION,
        batch_size: int = DEFAULT_BATCH_SIZE,
    ) -> None:
        """Keep values, many in a round trip."""
        self._key_values.put_all(kv_pairs, collection, batch_size)

    async def aput_all(
        self,
        kv_pairs: list[tuple[str, dict[str, Any]]],
        collection: str = DEFAULT_COLLECTION,
        batch_size: int = DEFAULT_BATCH_SIZE,
    ) -> None:
        """As `put_all`, without blocking the event loop."""
        await self._key_values.aput_all(kv_pairs, collection, batch_size)

    def get(self, key: str, collection: str = DEFAULT_COLLECTION) -> dict[str, Any] | None:
        """The key's value, a fresh object, or None."""
        return self._key_values.get(key, collection)

    async def aget(self, key: str, collection: str = DEFAULT_COLLECTION) -> dict[str, Any] | None:
        """As `get`, without blocking the event loop."""
        return await self._key_values.aget(key, collection)

    def get_all(self, collection: str = DEFAULT_COLLECTION) -> dict[str, dict[str, Any]]:
        """All values of the collection by key.

        Raises:
            StoreError: they could not be listed.
        """
        return self._key_values.get_all(collection)

    async def aget_all(self, collection: str = DEFAULT_COLLECTION) -> dict[str, dict[str, Any]]:
        """As `get_all`, without blocking the event loop."""
        return await self._key_values.aget_all(collection)

    def delete(self, key: str, collection: str = DEFAULT_COLLECTION) -> bool:
        """Remove the key's value; whether there was one to get.

        Raises:
            StoreError: the store could not be reached.
        """
        return self._key_values.delete(key, collection)

    async def adelete(self, key: str, collection: str = DEFAULT_COLLECTION) -> bool:
        """As `delete`, without blocking the event loop."""
        return await self._key_values.adelete(key, collection)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: Mapping[int, object]) -> Self:
        return self  # a copy of a model shares the cache with it
