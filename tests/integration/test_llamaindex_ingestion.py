"""Ingestion through LlamaIndex's own pipeline, on each store: what was done once is not done again."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import Document, VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.ingestion import IngestionCache, IngestionPipeline
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.schema import BaseNode

from aicache.stores.memory import MemoryStore
from aicache.testing import FailingStore, FakeClock, FakeEmbedder
from llamaindex_aicache import AICache
from llamaindex_aicache._kvstore import PART_BYTES, AICacheKVStore

STORES = ["memory", "sqlite", "redis_standalone", "redis_7", "redis_search", "redis_cluster"]
PATIENT: dict[str, Any] = {"lookup_timeout": 10.0, "update_timeout": 10.0}
"""Deadlines are for networks; on a busy test machine they would make every pause a failure."""

COUNT = 20


def documents(count: int = COUNT, text: str = "Document {} says: " + "word " * 100) -> list[Document]:
    """Fresh ones: a pipeline writes vectors into those it is given."""
    return [Document(text=text.format(number), id_=str(number)) for number in range(count)]


class Lasting(MemoryStore):
    """Outlives the caches in front of it."""

    def close(self) -> None:
        pass


embedded: list[str] = []
"""Each text that a model was asked for."""


class Model(BaseEmbedding):
    """An embedding model that can be seen at work."""

    dimension: int = 32

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embeddings([f"query {query}"])[0]

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_query_embedding(query)

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        embedded.extend(texts)
        return FakeEmbedder(self.dimension).embed(texts)

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._get_text_embeddings(texts)


@pytest.fixture(autouse=True)
def _nothing_embedded() -> None:
    embedded.clear()


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """What two caches in a row are opened with to share what they keep."""
    match request.param:
        case "memory":
            return Lasting()
        case "sqlite":
            return f"sqlite:///{tmp_path}/cache.db"
        case server:
            found = request.getfixturevalue(server)
            found.flush()
            return found.url


@pytest.fixture(params=["sync", "async"])
def run(request: pytest.FixtureRequest) -> Callable[..., list[BaseNode]]:
    def act(pipeline: IngestionPipeline, given: list[Document]) -> list[BaseNode]:
        if request.param == "sync":
            return list(pipeline.run(documents=given))
        return list(asyncio.run(pipeline.arun(documents=given)))

    return act


Run = Callable[..., list[BaseNode]]


def pipeline(kv: AICacheKVStore, model: BaseEmbedding) -> IngestionPipeline:
    splitter = SentenceSplitter(chunk_size=64, chunk_overlap=0)
    return IngestionPipeline(transformations=[splitter, model], cache=IngestionCache(cache=kv))


def vectors_of(nodes: list[BaseNode]) -> list[list[float]]:
    return [node.get_embedding() for node in nodes]


def test_a_pipeline_run_twice_computes_nothing_the_second_time(store: Any, run: Run) -> None:
    with AICacheKVStore(store, ttl=3600.0, **PATIENT) as kv:
        first = run(pipeline(kv, Model()), documents())
    assert len(embedded) == len(first) > COUNT
    embedded.clear()
    with AICacheKVStore(store, ttl=3600.0, **PATIENT) as kv:
        again = run(pipeline(kv, Model()), documents())
    assert embedded == []
    assert again == first


def test_a_pipeline_whose_result_is_long_is_cached_as_well(store: Any, run: Run) -> None:
    text = "{} " + "long " * 5_000
    with AICacheKVStore(store, **PATIENT) as kv:
        made = IngestionPipeline(transformations=[Model(dimension=8)], cache=IngestionCache(cache=kv))
        first = run(made, documents(30, text))
        assert sum(len(node.get_content()) for node in first) > 2 * PART_BYTES
        embedded.clear()
        assert run(made, documents(30, text)) == first
        assert embedded == []


def test_another_model_in_the_same_pipeline_computes_its_own(store: Any, run: Run) -> None:
    with AICacheKVStore(store, **PATIENT) as kv:
        run(pipeline(kv, Model()), documents())
        assert {len(vector) for vector in vectors_of(run(pipeline(kv, Model(dimension=16)), documents()))} == {16}


def test_a_wrapped_model_computes_only_texts_that_are_new(store: Any, run: Run) -> None:
    def ingest(given: list[Document]) -> list[BaseNode]:
        cache = AICache(store, embeddings=False, **PATIENT)
        try:
            # No ingestion cache: one changed document changes the hash of all.
            made = IngestionPipeline(transformations=[cache.wrap(Model())], disable_cache=True)
            return run(made, given)
        finally:
            cache.close()

    first = ingest(documents())
    assert len(embedded) == COUNT
    embedded.clear()
    again = ingest([*documents()[:3], Document(text="something new", id_="new"), *documents()[3:]])
    assert embedded == ["something new"]
    assert again[0].get_embedding() == pytest.approx(first[0].get_embedding(), abs=1e-6)
    expected = FakeEmbedder(32).embed([node.get_content() for node in again])
    assert vectors_of(again) == [pytest.approx(vector, abs=1e-6) for vector in expected]


def test_values_are_gone_when_their_ttl_is_over(store: Any, run: Run) -> None:
    clock = FakeClock(wall=4e9)  # ahead of any server, which removes what has expired by its own clock
    with AICacheKVStore(store, ttl=60.0, clock=clock, **PATIENT) as kv:
        run(pipeline(kv, Model()), documents())
        clock.advance(60.0)
        embedded.clear()
        run(pipeline(kv, Model()), documents())
        assert embedded


def test_an_ingestion_cache_is_cleared(store: Any, run: Run) -> None:
    with AICacheKVStore(store, **PATIENT) as kv:
        made = pipeline(kv, Model())
        run(made, documents())
        made.cache.clear()
        embedded.clear()
        run(made, documents())
        assert embedded


def test_many_keys_are_put_and_listed(store: Any) -> None:
    pairs = [(str(number), {"number": number}) for number in range(700)]
    with AICacheKVStore(store, **PATIENT) as kv:
        kv.put_all(pairs, "c", batch_size=64)
        kv.put("other", {"a": 1}, "d")
        assert kv.get_all("c") == dict(pairs)
        assert kv.clear("c") == 700
        assert (kv.get_all("c"), kv.get("other", "d")) == ({}, {"a": 1})


async def test_many_keys_are_put_and_listed_on_a_loop(store: Any) -> None:
    pairs = [(str(number), {"number": number}) for number in range(700)]
    async with AICacheKVStore(store, **PATIENT) as kv:
        await kv.aput_all(pairs, "c", batch_size=64)
        assert await kv.aget_all("c") == dict(pairs)
        assert await kv.adelete("5", "c") is True
        assert await kv.aclear("c") == 699


def test_an_index_built_twice_embeds_once_and_answers_the_same(store: Any) -> None:
    def retrieve() -> list[tuple[str, float | None]]:
        cache = AICache(store, embeddings=False, **PATIENT)
        try:
            index = VectorStoreIndex.from_documents(documents(5), embed_model=cache.wrap(Model()))
            found = index.as_retriever(similarity_top_k=3).retrieve("Document 3")
            return [(node.get_content(), node.score) for node in found]
        finally:
            cache.close()

    first = retrieve()
    assert len(embedded) == 6
    embedded.clear()
    again = retrieve()
    assert embedded == []
    assert [text for text, _ in again] == [text for text, _ in first]
    assert [score for _, score in again] == pytest.approx([score for _, score in first], abs=1e-5)


@pytest.fixture
def down() -> Iterator[FailingStore]:
    store = FailingStore(MemoryStore())
    store.fail()
    yield store
    store.recover()


def test_with_the_store_down_an_ingestion_gives_what_it_gives_without(down: FailingStore, run: Run) -> None:
    plain = run(
        IngestionPipeline(transformations=[SentenceSplitter(chunk_size=64, chunk_overlap=0), Model()]), documents()
    )
    cache = AICache(down, embeddings=False)
    made = pipeline(AICacheKVStore(cache), cache.wrap(Model()))
    assert vectors_of(run(made, documents())) == vectors_of(plain)
    cache.close()


def test_a_pickled_model_in_a_pipeline_is_cached_in_its_process(store: Any, run: Run) -> None:
    cache = AICache(store, embeddings=False, **PATIENT)
    try:
        run(IngestionPipeline(transformations=[cache.wrap(Model())], disable_cache=True), documents())
        embedded.clear()
        model = pickle.loads(pickle.dumps(cache.wrap(Model())))
        run(IngestionPipeline(transformations=[model], disable_cache=True), documents())
        assert embedded == []
    finally:
        cache.close()
