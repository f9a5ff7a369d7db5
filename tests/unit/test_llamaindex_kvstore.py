"""Rules of `AICacheKVStore`: LlamaIndex's key-value port, for what can be made again."""

from __future__ import annotations

import asyncio
import copy
import logging
import math
import pickle
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.ingestion import IngestionCache
from llama_index.core.schema import NodeRelationship, TextNode
from llama_index.core.storage.docstore.keyval_docstore import KVDocumentStore
from llama_index.core.storage.index_store.keyval_index_store import KVIndexStore
from llama_index.core.storage.kvstore.types import BaseKVStore

from aicache import ConfigurationError
from aicache._errors import StoreError
from aicache._model import Entry
from aicache._open import open_cache
from aicache._stats import BlobCounts
from aicache.stores.memory import MemoryStore
from aicache.testing import FailingStore, FakeClock, FakeEmbedder
from llamaindex_aicache._kvstore import PART_BYTES, AICacheKVStore

LONG = {"text": "x" * (3 * PART_BYTES)}


class World:
    """A store on a still clock."""

    def __init__(self, **options: Any) -> None:
        self.clock = FakeClock()
        self.store = FailingStore(MemoryStore())
        self.kv = AICacheKVStore(self.store, clock=self.clock, **options)

    @property
    def counts(self) -> BlobCounts:
        return self.kv._blobs.counts


@pytest.fixture
def world() -> Iterator[World]:
    made = World(ttl=60.0)
    yield made
    made.kv.close()


@pytest.fixture(params=["sync", "async"])
def call(request: pytest.FixtureRequest) -> Callable[..., Any]:
    def act(kv: BaseKVStore, name: str, *args: Any, **kwargs: Any) -> Any:
        if request.param == "sync":
            return getattr(kv, name)(*args, **kwargs)
        return asyncio.run(getattr(kv, f"a{name}")(*args, **kwargs))

    return act


Call = Callable[..., Any]

# ---------------------------------------------------------------------------------------------------- the port


def test_a_value_comes_back_as_it_was(world: World, call: Call) -> None:
    value = {"text": "a", "numbers": [1, 2.5, None, True], "inner": {"x": "y"}}
    call(world.kv, "put", "k", value)
    assert call(world.kv, "get", "k") == value
    assert call(world.kv, "get", "other") is None


def test_each_get_is_a_fresh_object(world: World, call: Call) -> None:
    call(world.kv, "put", "k", {"list": [1]})
    call(world.kv, "get", "k")["list"].append(2)
    assert call(world.kv, "get", "k") == {"list": [1]}


@pytest.mark.parametrize("batch_size", [1, 2, 1000])
def test_many_are_put_with_any_batch_size(world: World, call: Call, batch_size: int) -> None:
    pairs = [(str(number), {"n": number}) for number in range(5)]
    call(world.kv, "put_all", pairs, collection="c", batch_size=batch_size)
    assert call(world.kv, "get_all", "c") == dict(pairs)


def test_collections_do_not_meet(world: World, call: Call) -> None:
    call(world.kv, "put", "k", {"a": 1}, "c")
    assert call(world.kv, "get", "k", "d") is None
    assert call(world.kv, "get", "k") is None
    assert call(world.kv, "get_all", "d") == {}


def test_delete_says_whether_there_was_one(world: World, call: Call) -> None:
    call(world.kv, "put", "k", {"a": 1})
    assert call(world.kv, "delete", "k") is True
    assert call(world.kv, "delete", "k") is False
    assert call(world.kv, "get", "k") is None


def test_a_value_expires(world: World, call: Call) -> None:
    call(world.kv, "put", "k", {"a": 1})
    call(world.kv, "put", "long", LONG)
    world.clock.advance(60.0)
    assert (call(world.kv, "get", "k"), call(world.kv, "get", "long")) == (None, None)
    assert call(world.kv, "get_all") == {}
    assert call(world.kv, "delete", "k") is False


def test_without_a_ttl_a_value_stays(call: Call) -> None:
    made = World()
    call(made.kv, "put", "k", {"a": 1})
    made.clock.advance(1e9)
    assert call(made.kv, "get", "k") == {"a": 1}


def test_clear_removes_a_collection_at_once(world: World, call: Call) -> None:
    call(world.kv, "put_all", [("a", {"n": 1}), ("b", LONG)], collection="c")
    call(world.kv, "put", "a", {"n": 2})
    assert call(world.kv, "clear", "c") == 2
    assert call(world.kv, "get_all", "c") == {}
    assert world.store.size().entries == 1


def test_an_empty_store_is_true() -> None:
    kv = World().kv
    assert bool(kv)
    assert not hasattr(kv, "__len__")


# ------------------------------------------------------------------------------------------------- long values


def test_a_long_value_is_kept_in_parts(world: World, call: Call) -> None:
    call(world.kv, "put", "k", LONG)
    assert world.store.size().entries == 5
    assert call(world.kv, "get", "k") == LONG
    assert call(world.kv, "get_all") == {"k": LONG}


def test_deleting_a_long_value_leaves_nothing(world: World, call: Call) -> None:
    call(world.kv, "put", "k", LONG)
    assert call(world.kv, "delete", "k") is True
    assert world.store.size().entries == 0


def test_a_long_value_that_lost_a_part_is_not_there(world: World, call: Call) -> None:
    call(world.kv, "put", "k", LONG)
    blobs = world.kv._blobs
    head = blobs.get_many("data", ["k"])[0]
    assert head is not None
    assert blobs.remove_many("data\0parts", [f"{head[1:33].hex()} 1"]) == 1
    assert call(world.kv, "get", "k") is None
    assert call(world.kv, "get_all") == {}


def test_parts_of_two_values_are_never_put_together(world: World, call: Call) -> None:
    other = {"text": "y" * (3 * PART_BYTES)}
    call(world.kv, "put", "k", LONG)
    head = world.kv._blobs.get_many("data", ["k"])[0]
    assert head is not None
    call(world.kv, "put", "k", other)
    assert call(world.kv, "get", "k") == other
    world.kv._blobs.put_many("data\0parts", [(f"{head[1:33].hex()} 0", b"z" * PART_BYTES)])
    world.kv._blobs.put_many("data", [("k", head)])
    assert call(world.kv, "get", "k") is None


def test_a_value_above_the_bound_is_dropped_and_said_so(call: Call, caplog: pytest.LogCaptureFixture) -> None:
    made = World(max_value_bytes=20)
    call(made.kv, "put", "k", {"text": "x" * 20})
    call(made.kv, "put", "l", {"text": "x"})
    assert (call(made.kv, "get", "k"), call(made.kv, "get", "l")) == (None, {"text": "x"})
    assert made.counts.dropped == 1
    assert "above max_value_bytes" in caplog.text


# --------------------------------------------------------------------------------------------------------- JSON


@pytest.mark.parametrize(
    ("value", "read"),
    [
        ({"big": 2**70}, {"big": 2**70}),
        ({"lone": "\ud800"}, {"lone": "\ud800"}),
        ({"infinite": math.inf}, {"infinite": math.inf}),
        ({1: "int"}, {"1": "int"}),
        ({"pair": (1, 2)}, {"pair": [1, 2]}),
        ({NodeRelationship.SOURCE: "x"}, {"1": "x"}),
    ],
)
def test_what_json_holds_in_some_way_comes_back_in_it(
    world: World, call: Call, value: dict[str, Any], read: dict[str, Any]
) -> None:
    call(world.kv, "put", "k", value)
    assert call(world.kv, "get", "k") == read


def test_nan_stays_nan(world: World, call: Call) -> None:
    call(world.kv, "put", "k", {"number": math.nan})
    assert math.isnan(call(world.kv, "get", "k")["number"])


@pytest.mark.parametrize("value", [{"object": object()}, {"bytes": b"x"}, "text", None, [("a", 1)]])
def test_what_is_no_json_is_dropped_and_said_once(
    world: World, call: Call, value: Any, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        call(world.kv, "put_all", [("k", value), ("fine", {"a": 1})])
    assert (call(world.kv, "get", "k"), call(world.kv, "get", "fine")) == (None, {"a": 1})
    assert world.counts.dropped == 2
    assert [record.message for record in caplog.records] == ["a value was not cached, for it is no JSON (said once)"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), JSON, max_size=4))
@settings(max_examples=150, deadline=None)
def test_any_json_comes_back_equal(value: dict[str, Any]) -> None:
    kv = AICacheKVStore(MemoryStore())
    kv.put("k", value)
    assert kv.get("k") == value
    kv.close()


# -------------------------------------------------------------------------------------------------------- faults


def test_with_the_store_down_a_value_is_not_there_and_nothing_raises(world: World, call: Call) -> None:
    world.store.fail()
    call(world.kv, "put", "k", {"a": 1})
    call(world.kv, "put_all", [("k", LONG)])
    assert call(world.kv, "get", "k") is None


def test_removing_and_listing_say_when_they_cannot(world: World, call: Call) -> None:
    world.store.fail()
    for name, args in (("delete", ("k",)), ("get_all", ()), ("clear", ())):
        with pytest.raises(StoreError):
            call(world.kv, name, *args)


class NoParts(MemoryStore):
    """Refuses what is as long as a part."""

    def write_many(self, entries: Sequence[Entry]) -> None:
        if any(len(entry.answer.body) >= PART_BYTES for entry in entries):
            raise StoreError("full")
        super().write_many(entries)


def test_a_long_value_whose_parts_failed_leaves_no_head_and_others_stay(call: Call) -> None:
    kv = AICacheKVStore(NoParts())
    call(kv, "put_all", [("k", LONG), ("l", {"a": 1})])
    assert [name for name, _ in kv._blobs.items("data")] == ["l"]


@pytest.mark.parametrize(
    "damage", [b"", b"\x01{", b"\x01[]", b"\x02", b"\x02" + b"x" * 40, b"\x02" + b"\xff" * 36, b"\x07"]
)
def test_damaged_bytes_are_no_value(world: World, call: Call, damage: bytes) -> None:
    world.kv._blobs.put_many("data", [("k", damage)], named=True)
    assert call(world.kv, "get", "k") is None
    assert call(world.kv, "get_all") == {}


# ----------------------------------------------------------------------------------------------------- documents


@pytest.mark.parametrize("collection", ["docstore/data", "docstore/metadata", "docstore/ref_doc_info", "x/data"])
def test_collections_of_documents_are_refused(world: World, call: Call, collection: str) -> None:
    for name, args in (("get", ("k",)), ("put", ("k", {})), ("delete", ("k",)), ("get_all", ()), ("clear", ())):
        with pytest.raises(ConfigurationError, match=r"^collection: .* a cache would lose documents"):
            call(world.kv, name, *args, collection=collection)


def test_a_document_store_and_an_index_store_are_refused(world: World) -> None:
    with pytest.raises(ConfigurationError, match="SimpleDocumentStore"):
        KVDocumentStore(world.kv).add_documents([TextNode(text="a")])
    with pytest.raises(ConfigurationError):
        KVIndexStore(world.kv).index_structs()
    assert world.store.calls.total() == 0


# -------------------------------------------------------------------------------------------- embeddings_cache


class Model(BaseEmbedding):
    """Counts what it embeds."""

    factor: float = 1.0

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_query_embedding(query)

    def _get_text_embedding(self, text: str) -> list[float]:
        COMPUTED.append(text)
        return [self.factor * number for number in FakeEmbedder(4).embed([text])[0]]


COMPUTED: list[str] = []


@pytest.fixture(autouse=True)
def _nothing_computed() -> None:
    COMPUTED.clear()


def test_as_embeddings_cache_vectors_are_computed_once(world: World, call: Call) -> None:
    for _ in range(2):
        model = Model(embeddings_cache=world.kv)
        vectors = call(model, "get_text_embedding_batch", ["a", "b"])
        assert vectors == FakeEmbedder(4).embed(["a", "b"])
    assert sorted(COMPUTED) == ["a", "b"]


def test_unbound_it_says_what_the_field_mixes_up(world: World, caplog: pytest.LogCaptureFixture) -> None:
    Model(embeddings_cache=world.kv).get_text_embedding("a")
    assert "AICacheKVStore(model=...)" in caplog.text


def test_bound_to_a_model_it_keeps_another_models_vectors_away(caplog: pytest.LogCaptureFixture) -> None:
    store = MemoryStore()
    for factor in (1.0, 2.0):
        model = Model(factor=factor)
        model.embeddings_cache = AICacheKVStore(store, model=model)
        expected = [factor * number for number in FakeEmbedder(4).embed(["a"])[0]]
        assert [model.get_text_embedding("a"), model.get_text_embedding("a")] == [expected, expected]
    assert COMPUTED == ["a", "a"]
    assert caplog.text == ""


def test_a_model_that_cannot_be_told_from_others_is_refused() -> None:
    class Opaque(Model):
        tokenizer: Any = None

    with pytest.raises(ConfigurationError, match=r"^model: .*tokenizer"):
        AICacheKVStore(MemoryStore(), model=Opaque(tokenizer=object()))


# ------------------------------------------------------------------------------------------------- construction


class Cache:
    """What `AICache` is to it."""

    def __init__(self, **options: Any) -> None:
        self._core = open_cache(MemoryStore(), None, options)  # type: ignore[arg-type]


def test_beside_an_aicache_it_shares_the_store_and_leaves_it_open(call: Call) -> None:
    cache = Cache()
    kv = AICacheKVStore(cache, ttl=5.0)
    call(kv, "put", "k", {"a": 1})
    assert cache._core.size().entries == 1
    call(kv, "close")
    assert call(AICacheKVStore(cache), "get", "k") == {"a": 1}


def test_beside_an_aicache_its_namespace_counts_unless_another_is_given() -> None:
    cache = Cache(namespace="one")
    AICacheKVStore(cache).put("k", {"a": 1})
    assert AICacheKVStore(cache, namespace="two").get("k") is None
    assert AICacheKVStore(cache, namespace="one").get("k") == {"a": 1}


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"ttl": 0}, "ttl"),
        ({"ttl": "1"}, "ttl"),
        ({"max_value_bytes": 0}, "max_value_bytes"),
        ({"max_value_bytes": True}, "max_value_bytes"),
        ({"max_value_bytes": 2**31}, "max_value_bytes"),
        ({"model": "text-embedding-3-small"}, "model"),
        ({"store": 5}, "store"),
        ({"no_such": 5}, "no_such"),
        ({"store": Cache(), "max_entries": 5}, "max_entries"),
    ],
)
def test_a_wrong_argument_is_refused_by_name(options: dict[str, Any], name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{name}: "):
        AICacheKVStore(**({"store": MemoryStore()} | options))


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_a_copy_shares_the_store(world: World, copied: Callable[[Any], Any]) -> None:
    assert copied(world.kv) is world.kv


def test_it_can_be_pickled_when_its_store_was_given_by_url(tmp_path: Path) -> None:
    with AICacheKVStore(f"sqlite:///{tmp_path}/c.db", ttl=60.0, namespace="n") as kv:
        kv.put("k", {"a": 1})
        with pickle.loads(pickle.dumps(kv)) as other:
            assert other.get("k") == {"a": 1}


def test_its_text_changes_no_hash_of_a_transformation() -> None:
    from llama_index.core.ingestion.pipeline import get_transformation_hash

    hashes = {
        get_transformation_hash([], Model(embeddings_cache=AICacheKVStore(MemoryStore()))),
        get_transformation_hash([], Model(embeddings_cache=AICacheKVStore(MemoryStore()))),
    }
    assert len(hashes) == 1


async def test_async_callers_are_never_blocked_by_a_file(tmp_path: Path) -> None:
    async with AICacheKVStore(f"sqlite:///{tmp_path}/c.db") as kv:
        await asyncio.gather(*(kv.aput(str(number), {"n": number}) for number in range(20)))
        found = await asyncio.gather(*(kv.aget(str(number)) for number in range(20)))
    assert found == [{"n": number} for number in range(20)]


def test_an_ingestion_cache_keeps_nodes_and_clears(world: World) -> None:
    cache = IngestionCache(cache=world.kv)
    nodes = [TextNode(text="a", metadata={"page": 1}, embedding=[0.5])]
    cache.put("hash", nodes)
    found = cache.get("hash")
    assert found == nodes
    cache.clear()
    assert cache.get("hash") is None


def test_keys_and_values_appear_in_no_log(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    world.store.fail(error=RuntimeError("secret-value"))
    world.kv.put("secret-key", {"a": "secret-value"})
    world.kv.put("secret-key", {"a": object()})
    world.kv.get("secret-key")
    assert caplog.records
    assert "secret" not in caplog.text
