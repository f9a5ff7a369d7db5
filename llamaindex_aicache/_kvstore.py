"""LlamaIndex's key-value port over the cache, for what can be made again: ingested nodes, vectors.

What goes wrong in a read is a miss, and in a write a value that is not kept: right for a cache, and loss of data for
documents, so that these are refused.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Any, Final, Protocol, Self, TypeAlias, Unpack, cast, runtime_checkable

import orjson
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.storage.kvstore.types import DEFAULT_BATCH_SIZE, DEFAULT_COLLECTION, BaseKVStore

from aicache._blobs import Blobs
from aicache._closing import Closing
from aicache._errors import ConfigurationError
from aicache._health import Health
from aicache._model import Unkeyable
from aicache._open import CacheOptions, open_cache
from aicache._policy import CachePolicy
from aicache._stats import Stats
from aicache.cache import SemanticCache
from aicache.stores.base import Store
from llamaindex_aicache._embeddings import describe

__all__ = ["AICacheKVStore"]

KIND: Final = "key-value"

DOCUMENTS: Final = ("/data", "/metadata", "/ref_doc_info")
"""How the collections of LlamaIndex's document and index stores end."""
VECTORS: Final = "embeddings"
"""The collection that a model's `embeddings_cache` uses."""

PART_BYTES: Final = 2**18
"""A longer value is kept in parts, so that a store with a deadline is never given more than four of them at once."""
_PARTS_AT_ONCE: Final = 4
MOST_BYTES: Final = 2**30
"""No value is longer, whatever stored bytes may say."""
_PARTS: Final = "\0parts"
"""Behind the name of a collection: its parts. No `get_all` shows them."""

Value: TypeAlias = dict[str, Any]
_Reads: TypeAlias = Generator[tuple[str, Sequence[str], int], list[bytes | None], Value | None]
"""Asks for blobs by collection and names, so many in a round trip."""


@runtime_checkable
class _Cache(Protocol):
    """An `AICache`, of either adapter."""

    _core: SemanticCache


class AICacheKVStore(Closing, BaseKVStore):
    """A key-value store with a TTL, one entry for each key: `IngestionCache(cache=AICacheKVStore("redis://..."))`.

    Reads and writes never raise: a value that cannot be read is None, one that cannot be written, or is no JSON, is
    dropped, counted and said once in the log. `delete`, `get_all` and `clear` raise `StoreError`. Values come back as
    JSON has them: tuples as lists, keys as texts. To be used for what can be made again; collections of documents
    (`docstore/data` and the like) are refused.

    Args:
        store: where values are kept: as for `AICache`, or an `AICache`, to stand beside its answers.
        model: for `embeddings_cache`: the model it is for, as it is now. LlamaIndex asks for vectors by their text
            alone; without this, models that share a store get each other's, which is said in the log.
        max_value_bytes: a larger value is not kept.
        options: see `aicache.CacheOptions`; here `ttl` is for values. Beside an `AICache`: `ttl` and `namespace` only.

    Raises:
        ConfigurationError: an argument is wrong; the text begins with its name.
    """

    # Neither __len__ nor __bool__: LlamaIndex asks `if not self.embeddings_cache`, and an empty one would be unused.
    # Nor __repr__: a pipeline hashes its transformations by their texts, and removes the default one, with its address.

    def __init__(
        self,
        store: str | Store | _Cache | None = None,
        *,
        model: BaseEmbedding | None = None,
        max_value_bytes: int = 64 * 2**20,
        **options: Unpack[CacheOptions],
    ) -> None:
        if not (type(max_value_bytes) is int and 1 <= max_value_bytes <= MOST_BYTES):
            raise ConfigurationError(
                "max_value_bytes", f"give a whole number from 1 to {MOST_BYTES}; got {max_value_bytes!r}"
            )
        self._ttl = CachePolicy(ttl=options.get("ttl")).ttl
        self._max_bytes = max_value_bytes
        self._model = _bound_to(model)
        self._opened_with = (store, model, max_value_bytes, options)
        self._is_own = not isinstance(store, _Cache)
        self._core = store._core if isinstance(store, _Cache) else _open(store, options)
        self._blobs = _beside(self._core, options, is_own=self._is_own)

    # ------------------------------------------------------------------------------------------ LlamaIndex's port

    def put(self, key: str, val: dict[str, Any], collection: str = DEFAULT_COLLECTION) -> None:
        """Keep a value in place of the key's earlier one."""
        self.put_all([(key, val)], collection)

    async def aput(self, key: str, val: dict[str, Any], collection: str = DEFAULT_COLLECTION) -> None:
        """As `put`, without blocking the event loop."""
        await self.aput_all([(key, val)], collection)

    def put_all(
        self,
        kv_pairs: list[tuple[str, dict[str, Any]]],
        collection: str = DEFAULT_COLLECTION,
        batch_size: int = DEFAULT_BATCH_SIZE,  # noqa: ARG002 - LlamaIndex's port
    ) -> None:
        """Keep values, many in a round trip, as many as suit the store: `batch_size` may be anything."""
        shelf = self._shelf(collection)
        heads, parts = self._to_blobs(kv_pairs)
        written = self._blobs.put_many(shelf + _PARTS, parts, ttl=self._ttl) if parts else 0
        self._blobs.put_many(shelf, _whole(heads, missing=len(parts) - written), ttl=self._ttl, named=True)

    async def aput_all(
        self,
        kv_pairs: list[tuple[str, dict[str, Any]]],
        collection: str = DEFAULT_COLLECTION,
        batch_size: int = DEFAULT_BATCH_SIZE,  # noqa: ARG002 - LlamaIndex's port
    ) -> None:
        """As `put_all`, without blocking the event loop."""
        shelf = self._shelf(collection)
        heads, parts = self._to_blobs(kv_pairs)
        written = await self._blobs.aput_many(shelf + _PARTS, parts, ttl=self._ttl) if parts else 0
        await self._blobs.aput_many(shelf, _whole(heads, missing=len(parts) - written), ttl=self._ttl, named=True)

    def get(self, key: str, collection: str = DEFAULT_COLLECTION) -> dict[str, Any] | None:
        """The key's value, a fresh object, or None."""
        return self._read(_find(self._shelf(collection), key))

    async def aget(self, key: str, collection: str = DEFAULT_COLLECTION) -> dict[str, Any] | None:
        """As `get`, without blocking the event loop."""
        return await self._aread(_find(self._shelf(collection), key))

    def get_all(self, collection: str = DEFAULT_COLLECTION) -> dict[str, dict[str, Any]]:
        """All values of the collection by key.

        Raises:
            StoreError: they could not be listed.
        """
        shelf = self._shelf(collection)
        found = [(key, self._read(_assemble(shelf, head))) for key, head in self._blobs.items(shelf)]
        return {key: value for key, value in found if value is not None}

    async def aget_all(self, collection: str = DEFAULT_COLLECTION) -> dict[str, dict[str, Any]]:
        """As `get_all`, without blocking the event loop."""
        shelf = self._shelf(collection)
        found = [(key, await self._aread(_assemble(shelf, head))) for key, head in await self._blobs.aitems(shelf)]
        return {key: value for key, value in found if value is not None}

    def delete(self, key: str, collection: str = DEFAULT_COLLECTION) -> bool:
        """Remove the key's value; whether there was one to get.

        Raises:
            StoreError: the store could not be reached.
        """
        shelf = self._shelf(collection)
        head = self._blobs.get_many(shelf, [key])[0]
        if names := _part_names(head):
            self._blobs.remove_many(shelf + _PARTS, names)
        self._blobs.remove_many(shelf, [key])
        return head is not None

    async def adelete(self, key: str, collection: str = DEFAULT_COLLECTION) -> bool:
        """As `delete`, without blocking the event loop."""
        shelf = self._shelf(collection)
        head = (await self._blobs.aget_many(shelf, [key]))[0]
        if names := _part_names(head):
            await self._blobs.aremove_many(shelf + _PARTS, names)
        await self._blobs.aremove_many(shelf, [key])
        return head is not None

    # ------------------------------------------------------------------------------------------------- besides

    def clear(self, collection: str = DEFAULT_COLLECTION) -> int:
        """Remove all values of the collection at once; how many there were.

        Raises:
            StoreError: the store could not be reached.
        """
        shelf = self._shelf(collection)
        self._blobs.clear(shelf + _PARTS)
        return self._blobs.clear(shelf)

    async def aclear(self, collection: str = DEFAULT_COLLECTION) -> int:
        """As `clear`, without blocking the event loop."""
        shelf = self._shelf(collection)
        await self._blobs.aclear(shelf + _PARTS)
        return await self._blobs.aclear(shelf)

    def stats(self) -> Stats:
        """Counters since construction."""
        return self._core.stats()

    def health(self) -> Health:
        """How the store is, as the last calls found it; does not ask it."""
        return self._core.health()

    def close(self) -> None:
        """Release files, connections and threads; nothing of an `AICache` that was given."""
        if self._is_own:
            self._core.close()

    async def aclose(self) -> None:
        """As `close`, without blocking the event loop."""
        if self._is_own:
            await self._core.aclose()

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: Mapping[int, object]) -> Self:
        # A copy of a pipeline or a model shares the cache with it.
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        # Worker processes of a pipeline open the same store; one that was given as an object may refuse.
        return _reopen, (type(self), *self._opened_with)

    # --------------------------------------------------------------------------------------------------- inside

    def _shelf(self, collection: str) -> str:
        if collection.endswith(DOCUMENTS):
            raise ConfigurationError(
                "collection",
                f"{collection!r} belongs to a document or index store, and a cache would lose documents by TTL, "
                "eviction and failed writes: keep them in a store made for them, such as SimpleDocumentStore",
            )
        if collection == VECTORS and self._model is None:
            self._blobs.warn(
                "embeddings_cache asks for vectors by their text alone, so that models which share it get each "
                "other's: give AICacheKVStore(model=...), or use AICache().wrap(embed_model) instead"
            )
        return collection if self._model is None else f"{collection}\0{self._model}"

    def _to_blobs(self, pairs: Iterable[tuple[str, Value]]) -> tuple[list[_Blob], list[_Blob]]:
        heads: list[_Blob] = []
        parts: list[_Blob] = []
        for key, value in pairs:
            body = _to_json(value)
            if body is None or len(body) > self._max_bytes:
                self._blobs.drop(1)
                what = "it is no JSON" if body is None else f"it has {len(body)} bytes, above max_value_bytes"
                self._blobs.warn(f"a value was not cached, for {what}")
            elif len(body) <= PART_BYTES:
                heads.append((key, _WHOLE + body))
            else:
                head = _IN_PARTS + sha256(body).digest() + len(body).to_bytes(4, "big")
                heads.append((key, head))
                pieces = (body[begin : begin + PART_BYTES] for begin in range(0, len(body), PART_BYTES))
                parts.extend(zip(_part_names(head), pieces, strict=True))
        return heads, parts

    def _read(self, reads: _Reads) -> Value | None:
        try:
            asked = next(reads)
            while True:
                collection, names, at_once = asked
                asked = reads.send(self._blobs.get_many(collection, names, at_once=at_once))
        except StopIteration as stop:
            return cast("Value | None", stop.value)

    async def _aread(self, reads: _Reads) -> Value | None:
        try:
            asked = next(reads)
            while True:
                collection, names, at_once = asked
                asked = reads.send(await self._blobs.aget_many(collection, names, at_once=at_once))
        except StopIteration as stop:
            return cast("Value | None", stop.value)


# ------------------------------------------------------------------------------------------------ construction


def _open(store: str | Store | None, options: CacheOptions) -> SemanticCache:
    # Values are never kept in front of the store, so that no memory is set aside for them.
    return open_cache(store, None, cast("CacheOptions", {"l1_entries": 0, **options}))


def _beside(core: SemanticCache, options: CacheOptions, *, is_own: bool) -> Blobs:
    if is_own:
        return core.blobs(KIND)
    for name in options:
        if name not in {"ttl", "namespace"}:
            raise ConfigurationError(name, "beside an AICache that is given, its own counts; leave this out")
    return core.blobs(KIND, namespace=options.get("namespace"))


def _bound_to(model: BaseEmbedding | None) -> str | None:
    if model is None:
        return None
    if not isinstance(model, BaseEmbedding):
        raise ConfigurationError("model", f"give an embedding model; got {type(model).__name__}")
    described = describe(model)
    if isinstance(described, Unkeyable):
        raise ConfigurationError("model", f"its vectors cannot be told from another model's: {described.why}")
    return described.hex()


def _reopen(
    kind: type[AICacheKVStore], store: Any, model: BaseEmbedding | None, max_value_bytes: int, options: CacheOptions
) -> AICacheKVStore:
    return kind(store, model=model, max_value_bytes=max_value_bytes, **options)


# ------------------------------------------------------------------------------------------------------- parts
#
# A long value is kept under the hash of its bytes, so that no reader puts parts of two values together.

_Blob: TypeAlias = tuple[str, bytes]

_WHOLE: Final = b"\1"
"""The rest is the value."""
_IN_PARTS: Final = b"\2"
"""SHA-256 of the value and its length follow."""
_HEAD_BYTES: Final = 1 + 32 + 4


def _part_names(head: bytes | None) -> list[str]:
    if head is None or head[:1] != _IN_PARTS or len(head) != _HEAD_BYTES:
        return []
    name, length = head[1:33].hex(), int.from_bytes(head[33:], "big")
    if length > MOST_BYTES:
        return []
    return [f"{name} {number}" for number in range(-(-length // PART_BYTES))]


def _whole(heads: list[_Blob], *, missing: int) -> list[_Blob]:
    """Those whose value is there: if a part could not be written, none of those in parts counts."""
    return heads if not missing else [head for head in heads if head[1][:1] == _WHOLE]


def _find(shelf: str, key: str) -> _Reads:
    (head,) = yield shelf, [key], 1
    return None if head is None else (yield from _assemble(shelf, head))


def _assemble(shelf: str, head: bytes) -> _Reads:
    if head[:1] == _WHOLE:
        return _from_json(head[1:])
    parts = yield shelf + _PARTS, _part_names(head), _PARTS_AT_ONCE
    body = b"".join(part for part in parts if part is not None)
    return _from_json(body) if sha256(body).digest() == head[1:33] else None


# -------------------------------------------------------------------------------------------------------- JSON

_STANDARD: Final = b" "
"""White space before what the standard library wrote, which it must read as well."""
_STRICT: Final = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME


def _to_json(value: object) -> bytes | None:
    """The value as JSON; None if it has none.

    orjson is ten times as fast as the standard library, and differs: it writes NaN as null, and knows neither lone
    surrogates nor numbers above 64 bits. So it must give back what it was given; else the standard library decides.
    """
    if not isinstance(value, dict):
        return None
    try:
        body = orjson.dumps(value, option=_STRICT)
        if orjson.loads(body) == value:
            return body
    except (TypeError, RecursionError):
        pass
    try:
        return _STANDARD + json.dumps(value).encode()
    except (TypeError, ValueError, RecursionError):
        return None


def _from_json(body: bytes) -> Value | None:
    try:
        value = json.loads(body) if body[:1] == _STANDARD else orjson.loads(body)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
