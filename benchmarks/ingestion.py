"""An ingestion run again: what is computed, and how long it takes, with and without a cache.

    python benchmarks/ingestion.py [--texts 1000] [--dimension 1536] [--latency 0.05] [--rounds 5]

The embedding model waits `latency` seconds for each request of ten texts, LlamaIndex's default, as a service over a
network does, and returns vectors made before. The peer is a key-value store as LlamaIndex's own for Redis: JSON in one
hash, one command for each text. All share one server, which the script starts and ends; rounds take turns, figures are
medians, ratios are of this run. "0 s" shows the same without the model's waiting: what the cache itself takes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import redis
from llama_index.core import Document
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.ingestion import IngestionCache, IngestionPipeline
from llama_index.core.storage.kvstore.types import BaseKVStore

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "integration"))

from redis_servers import Node, ServerMissingError, standalone

from llamaindex_aicache import AICache
from llamaindex_aicache._kvstore import AICacheKVStore

PATIENT: dict[str, Any] = {"lookup_timeout": 10.0, "update_timeout": 10.0}
"""So that a pause of a busy machine does not look like a fast answer."""


class Service(BaseEmbedding):
    """A model behind a network, with its answers ready."""

    latency: float = 0.0

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_query_embedding(query)

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        REQUESTS.append(len(texts))
        time.sleep(self.latency)
        return [VECTORS[text] for text in texts]


REQUESTS: list[int] = []
VECTORS: dict[str, list[float]] = {}


class OneByOne(BaseKVStore):
    """What LlamaIndex's store for Redis does: a hash for each collection, JSON, one command for each key."""

    def __init__(self, url: str) -> None:
        self._redis: Any = redis.Redis.from_url(url)

    def put(self, key: str, val: dict[str, Any], collection: str = "data") -> None:
        self._redis.hset(collection, key, json.dumps(val))

    def get(self, key: str, collection: str = "data") -> dict[str, Any] | None:
        found = self._redis.hget(collection, key)
        return None if found is None else json.loads(found)

    def get_all(self, collection: str = "data") -> dict[str, dict[str, Any]]:
        return {key.decode(): json.loads(value) for key, value in self._redis.hgetall(collection).items()}

    def delete(self, key: str, collection: str = "data") -> bool:
        return bool(self._redis.hdel(collection, key))

    async def aput(self, key: str, val: dict[str, Any], collection: str = "data") -> None:
        self.put(key, val, collection)

    async def aget(self, key: str, collection: str = "data") -> dict[str, Any] | None:
        return self.get(key, collection)

    async def aget_all(self, collection: str = "data") -> dict[str, dict[str, Any]]:
        return self.get_all(collection)

    async def adelete(self, key: str, collection: str = "data") -> bool:
        return self.delete(key, collection)


Entrant = tuple[str, Callable[[], Callable[[Sequence[str]], Any]]]
"""A name, and what opens it: a function that embeds, or ingests, the texts."""

PEER = "embeddings_cache, one GET a text"


def wrapped(store: str, latency: float) -> Callable[[Sequence[str]], Any]:
    model = AICache(store, embeddings=False, **PATIENT).wrap(Service(latency=latency))
    return lambda texts: model.get_text_embedding_batch(list(texts))


def with_field(cache: BaseKVStore, latency: float) -> Callable[[Sequence[str]], Any]:
    model = Service(latency=latency, embeddings_cache=cache)
    return lambda texts: model.get_text_embedding_batch(list(texts))


def pipeline(cache: BaseKVStore | None, latency: float) -> Callable[[Sequence[str]], Any]:
    made = IngestionPipeline(
        transformations=[Service(latency=latency)],
        cache=None if cache is None else IngestionCache(cache=cache),
        disable_cache=cache is None,
    )
    return lambda texts: made.run(documents=[Document(text=text, id_=text) for text in texts])


def embedders(server: Node, folder: Path, latency: float) -> list[Entrant]:
    """Who embeds the texts."""
    plain = Service(latency=latency)
    return [
        ("no cache", lambda: lambda texts: plain.get_text_embedding_batch(list(texts))),
        (PEER, lambda: with_field(OneByOne(server.url), latency)),
        (
            "embeddings_cache=AICacheKVStore",
            lambda: with_field(AICacheKVStore(server.url, model=plain, **PATIENT), latency),
        ),
        ("AICache().wrap, Redis", lambda: wrapped(server.url, latency)),
        ("AICache().wrap, SQLite", lambda: wrapped(f"sqlite:///{folder}/{latency}.db", latency)),
    ]


def pipelines(server: Node, folder: Path, latency: float) -> list[Entrant]:
    """Who runs a pipeline."""
    file = f"sqlite:///{folder}/{latency}-pipeline.db"
    return [
        ("no cache", lambda: pipeline(None, latency)),
        ("IngestionCache, one key a hash", lambda: pipeline(OneByOne(server.url), latency)),
        ("IngestionCache, AICacheKVStore, Redis", lambda: pipeline(AICacheKVStore(server.url, **PATIENT), latency)),
        ("IngestionCache, AICacheKVStore, SQLite", lambda: pipeline(AICacheKVStore(file, **PATIENT), latency)),
    ]


def compare(title: str, entrants: list[Entrant], texts: Sequence[str], changed: Sequence[str], rounds: int) -> None:
    """The first run, the same again, and again with a tenth of the texts changed."""
    print(
        f"\n{title}\n{'':40}{'first, s':>10}{'again, s':>10}{'x peer':>9}{'requests':>10}{'changed, s':>12}"
        f"{'requests':>10}"
    )
    first: dict[str, float] = {}
    again: dict[str, list[float]] = {name: [] for name, _ in entrants}
    requests: dict[str, int] = {}
    runs = {}
    for name, begin in entrants:
        runs[name] = begin()
        first[name], _ = timed(runs[name], texts)
    for _ in range(rounds):
        for name, run in runs.items():
            seconds, requests[name] = timed(run, texts)
            again[name].append(seconds)
    medians = {name: statistics.median(values) for name, values in again.items()}
    peer = medians[entrants[1][0]]
    for name, run in runs.items():
        seconds, asked = timed(run, changed)
        print(
            f"{name:40}{first[name]:>10.3f}{medians[name]:>10.3f}{medians[name] / peer:>9.2f}{requests[name]:>10}"
            f"{seconds:>12.3f}{asked:>10}"
        )


def timed(run: Callable[[Sequence[str]], Any], texts: Sequence[str]) -> tuple[float, int]:
    REQUESTS.clear()
    started = time.perf_counter()
    run(texts)
    return time.perf_counter() - started, len(REQUESTS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=1000)
    parser.add_argument("--dimension", type=int, default=1536)
    parser.add_argument("--latency", type=float, default=0.05)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    texts = [f"passage {number} " + "of some length " * 60 for number in range(options.texts)]
    changed = [f"new {text}" if number % 10 == 0 else text for number, text in enumerate(texts)]
    random = np.random.default_rng(0)
    for text in {*texts, *changed}:
        vector = random.standard_normal(options.dimension).astype(np.float32)
        VECTORS[text] = (vector / np.linalg.norm(vector)).tolist()
    print(f"{options.texts} texts, {options.dimension} numbers a vector")
    try:
        for latency in (options.latency, 0.0):
            with standalone() as server, tempfile.TemporaryDirectory() as folder:
                where = Path(folder)
                compare(
                    f"embedding, {latency} s a request",
                    embedders(server, where, latency),
                    texts,
                    changed,
                    options.rounds,
                )
                compare(
                    f"a pipeline, {latency} s a request",
                    pipelines(server, where, latency),
                    texts,
                    changed,
                    options.rounds,
                )
    except ServerMissingError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
