"""Rules of cached embedding models: what identifies a vector, what is computed, and that nobody else notices."""

from __future__ import annotations

import asyncio
import copy
import logging
import math
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.callbacks import CallbackManager, LlamaDebugHandler
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events.embedding import EmbeddingEndEvent, EmbeddingStartEvent
from llama_index.core.instrumentation.span_handlers import SimpleSpanHandler
from llama_index.core.rate_limiter import BaseRateLimiter
from llama_index.core.schema import TextNode
from llama_index.core.storage.kvstore import SimpleKVStore
from llama_index_instrumentation import get_dispatcher
from pydantic import Field, PrivateAttr, SecretStr

from aicache import ConfigurationError
from aicache._model import Selection
from aicache._open import open_cache
from aicache.cache import SemanticCache
from aicache.stores.memory import MemoryStore
from aicache.testing import FailingStore, FakeEmbedder
from llamaindex_aicache._embedding_swap import attach_vectors
from llamaindex_aicache._embeddings import VectorCache, describe, from_bytes, to_bytes
from llamaindex_aicache._swap import Swapper

asked: list[tuple[str, list[str]]] = []
"""Each call of a model: how, and what it was asked."""


class Model(BaseEmbedding):
    """Embeds a batch at once; queries and texts differently."""

    api_key: str = "sk-secret"
    dimensions: int = 8
    instruction: str | None = None
    _mode: str = PrivateAttr(default="similarity")
    _client: Any = PrivateAttr(default=None)

    def _embed(self, how: str, texts: list[str]) -> list[list[float]]:
        asked.append((how, texts))
        self._client = object()
        return FakeEmbedder(self.dimensions).embed([how[0] + text for text in texts])

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._embed("query", [query])[0]

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_query_embedding(query)

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._embed("text", [text])[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._embed("texts", texts)

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._get_text_embeddings(texts)


class OneByOne(Model):
    """Embeds one text at a time, as LlamaIndex's default does."""

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return BaseEmbedding._get_text_embeddings(self, texts)

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return await BaseEmbedding._aget_text_embeddings(self, texts)


class Limiter(BaseRateLimiter):
    """Counts how often it is asked."""

    count = 0

    def acquire(self, num_tokens: int = 0) -> None:
        self.count += 1

    async def async_acquire(self, num_tokens: int = 0) -> None:
        self.count += 1


def waits(model: BaseEmbedding) -> int:
    """How often its limiter was asked."""
    limiter = model.rate_limiter
    assert isinstance(limiter, Limiter)
    return limiter.count


class World:
    """A cache, and a way to swap models for it."""

    def __init__(self, **options: Any) -> None:
        self.inside = MemoryStore()
        self.store = FailingStore(self.inside)
        self.core = SemanticCache(self.store, **options)
        self.vectors = VectorCache(self.core.blobs("vector"))
        self.swapper: Swapper[BaseEmbedding] = Swapper(self._attach)

    def _attach(self, swapped: type, swapper: Swapper[Any]) -> None:
        attach_vectors(swapped, swapper, self.vectors)

    def swap(self, model: Model) -> Model:
        self.swapper.swap(model)
        return model


@pytest.fixture
def world() -> Iterator[World]:
    asked.clear()
    made = World()
    yield made
    made.core.close()


@pytest.fixture(params=["sync", "async"])
def call(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """A public method of a model, or its async twin."""

    def act(model: BaseEmbedding, name: str, *args: Any, **kwargs: Any) -> Any:
        if request.param == "sync":
            return getattr(model, name)(*args, **kwargs)
        if name == "__call__":
            return asyncio.run(model.acall(*args, **kwargs))
        return asyncio.run(getattr(model, f"a{name}")(*args, **kwargs))

    return act


Call = Callable[..., Any]

# ------------------------------------------------------------------------------------------------ computing


def test_what_was_embedded_is_not_embedded_again(world: World, call: Call) -> None:
    model, plain = world.swap(Model()), Model()
    for name, arg in (
        ("get_query_embedding", "q"),
        ("get_text_embedding", "t"),
        ("get_text_embedding_batch", ["a", "b"]),
        ("get_agg_embedding_from_queries", ["x", "y"]),
    ):
        first = call(model, name, arg)
        asked.clear()
        again = call(model, name, arg)
        assert asked == []
        assert first == call(plain, name, arg)
        assert again == pytest.approx(first) if name != "get_text_embedding_batch" else len(again) == 2


def test_a_batch_computes_only_what_is_missing_and_keeps_the_order(world: World, call: Call) -> None:
    model = world.swap(Model())
    call(model, "get_text_embedding_batch", ["b", "d"])
    asked.clear()
    texts = ["a", "b", "c", "d", "a"]
    found = call(model, "get_text_embedding_batch", texts)
    assert [texts for _, texts in asked] == [["a", "c"]]
    expected = Model()._get_text_embeddings(texts)
    assert [one == pytest.approx(other, abs=1e-6) for one, other in zip(found, expected, strict=True)] == [True] * 5


@pytest.mark.parametrize("size", [1, 2, 3])
def test_the_batch_size_of_the_model_stays_and_the_cache_is_asked_once(world: World, call: Call, size: int) -> None:
    model = world.swap(Model(embed_batch_size=size))
    texts = ["a", "b", "c", "a", "d", "e"]
    found = call(model, "get_text_embedding_batch", texts)
    assert sorted(text for _, some in asked for text in some) in (sorted("abcde"), sorted("aabcde"))
    assert max(len(some) for _, some in asked) <= size
    assert [len(vector) for vector in found] == [8] * 6
    asked.clear()
    before = world.store.calls["fetch"]
    call(model, "get_text_embedding_batch", texts)
    assert asked == []
    assert world.store.calls["fetch"] - before == 5


def test_a_model_that_embeds_one_by_one_is_not_looked_up_again_for_each(world: World, call: Call) -> None:
    model = world.swap(OneByOne())
    call(model, "get_text_embedding_batch", ["a", "b"])
    assert sorted(texts for _, texts in asked) == [["a"], ["b"]]
    assert world.vectors._blobs.counts.missing == 2


def test_changed_texts_here_and_there_are_computed_in_full_requests(world: World) -> None:
    model = world.swap(Model(embed_batch_size=3, rate_limiter=Limiter()))
    old = [str(number) for number in range(20)]
    model.get_text_embedding_batch(old)
    asked.clear()
    before = waits(model)
    new = [f"new {text}" if number % 4 == 0 else text for number, text in enumerate(old)]
    found = model.get_text_embedding_batch(new)
    assert [len(texts) for _, texts in asked] == [3, 2]
    assert waits(model) - before == 2
    expected = [pytest.approx(vector, abs=1e-6) for vector in FakeEmbedder(8).embed([f"t{text}" for text in new])]
    assert found == expected


def test_nodes_of_an_ingestion_get_their_vectors(world: World, call: Call) -> None:
    model = world.swap(Model())
    nodes = [TextNode(text=text) for text in ("a", "b")]
    first = [node.embedding for node in call(model, "__call__", nodes)]
    asked.clear()
    again = [node.embedding for node in call(model, "__call__", [TextNode(text=text) for text in ("b", "a")])]
    assert asked == []
    assert again == [pytest.approx(vector) for vector in reversed(first)]


def test_two_equal_texts_share_no_vector_in_memory(world: World, call: Call) -> None:
    for size in (1, 3):
        model = world.swap(Model(embed_batch_size=size, instruction=str(size)))
        for _ in range(2):
            one, other, third = call(model, "get_text_embedding_batch", ["a", "a", "a"])
            assert one == other == third
            assert len({id(one), id(other), id(third)}) == 3


def test_a_vector_that_is_changed_by_its_user_stays_as_it_was_in_the_cache(world: World, call: Call) -> None:
    model = world.swap(Model())
    expected = call(model, "get_query_embedding", "q").copy()
    for _ in range(2):
        call(model, "get_query_embedding", "q").clear()
    assert call(model, "get_query_embedding", "q") == pytest.approx(expected)


def test_a_private_method_called_from_outside_is_cached_too(world: World) -> None:
    model = world.swap(Model())
    first = model._get_text_embeddings(["a", "b"])
    asked.clear()
    assert model._get_text_embeddings(["a", "b"]) == [pytest.approx(vector) for vector in first]
    assert asked == []


def test_an_error_of_the_model_is_the_applications_and_stores_nothing(world: World, call: Call) -> None:
    class Broken(Model):
        def _embed(self, how: str, texts: list[str]) -> list[list[float]]:
            raise RuntimeError("quota")

    with pytest.raises(RuntimeError, match="quota"):
        call(world.swap(Broken()), "get_text_embedding_batch", ["a"])
    assert world.store.size().entries == 0


def test_a_model_that_returns_too_few_vectors_is_left_as_it_is(world: World, call: Call) -> None:
    class Short(Model):
        def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
            return super()._get_text_embeddings(texts)[:1]

    assert len(call(world.swap(Short()), "get_text_embedding_batch", ["a", "b"])) == 1
    assert world.store.size().entries == 0


# ------------------------------------------------------------------------------------------------- identity


def test_a_query_and_a_text_of_the_same_words_have_their_own_vectors(world: World, call: Call) -> None:
    model, plain = world.swap(Model()), Model()
    for _ in range(2):
        assert call(model, "get_query_embedding", "w") == pytest.approx(plain._get_query_embedding("w"), abs=1e-6)
        assert call(model, "get_text_embedding", "w") == pytest.approx(plain._get_text_embedding("w"), abs=1e-6)


@pytest.mark.parametrize(
    "other",
    [
        lambda: Model(model_name="other"),
        lambda: Model(dimensions=16),
        lambda: Model(instruction="Represent this:"),
        OneByOne,
    ],
)
def test_models_that_differ_share_nothing(world: World, other: Callable[[], Model]) -> None:
    world.swap(Model()).get_text_embedding("a")
    asked.clear()
    world.swap(other()).get_text_embedding("a")
    assert len(asked) == 1


def test_a_private_mode_tells_models_apart_and_a_client_does_not(world: World) -> None:
    model, other = Model(), Model()
    before = describe(model)
    model.get_text_embedding("a")
    assert describe(model) == before
    other._mode = "search"
    assert describe(other) != before


@pytest.mark.parametrize(
    "change",
    [
        {"api_key": "sk-other"},
        {"embed_batch_size": 3},
        {"num_workers": 2},
        {"callback_manager": CallbackManager([])},
        {"rate_limiter": Limiter()},
        {"embeddings_cache": SimpleKVStore()},
    ],
)
def test_what_changes_no_vector_is_no_part_of_the_key(change: dict[str, Any]) -> None:
    assert describe(Model(**change)) == describe(Model())


def test_a_field_set_later_counts_from_then_on(world: World) -> None:
    model = world.swap(Model())
    assert len(model.get_text_embedding("a")) == 8
    model.dimensions = 16
    assert len(model.get_text_embedding("a")) == 16


def test_a_private_count_of_calls_makes_no_other_model() -> None:
    class Counting(Model):
        _calls: int = PrivateAttr(default=0)

    model, fresh = Counting(), Counting()
    model._calls = 7
    assert describe(model) == describe(fresh)


def test_a_secret_appears_nowhere(world: World, caplog: pytest.LogCaptureFixture) -> None:
    class Secretive(Model):
        token: SecretStr = SecretStr("sk-hidden")
        default_headers: dict[str, str] = Field(default={"Authorization": "sk-secret"})

    caplog.set_level(logging.DEBUG)
    model = world.swap(Secretive())
    model.get_text_embedding_batch(["a"])
    described = describe(model)
    assert isinstance(described, bytes)
    assert described == describe(Secretive(api_key="sk-else", default_headers={"Authorization": "x"}))
    stored = repr([(entry.query, entry.answer.body, entry.key) for entry in world.inside.entries(Selection())])
    assert stored != "[]"
    assert "sk-" not in stored + caplog.text


def test_a_model_that_holds_an_object_is_computed_and_said_so_once(
    world: World, call: Call, caplog: pytest.LogCaptureFixture
) -> None:
    class Opaque(Model):
        tokenizer: Any = None

    model = world.swap(Opaque(tokenizer=object()))
    for _ in range(2):
        call(model, "get_text_embedding_batch", ["a"])
        call(model, "get_query_embedding", "a")
    assert len(asked) == 4
    assert [record.message for record in caplog.records if "are not cached" in record.message] == [
        "vectors of test_a_model_that_holds_an_object_is_computed_and_said_so_once.<locals>.Opaque are not cached: "
        "the key cannot see into the parameter tokenizer, a object (said once)"
    ]


# ---------------------------------------------------------------------------------------------------- faults


def test_with_the_store_down_the_vectors_are_right_all_the_same(world: World, call: Call) -> None:
    model = world.swap(Model())
    world.store.fail()
    texts = ["a", "b", "a"]
    assert call(model, "get_text_embedding_batch", texts) == Model()._get_text_embeddings(texts)
    assert call(model, "get_query_embedding", "q") == Model()._get_query_embedding("q")


@pytest.mark.parametrize("damage", [b"", b"\x01", b"\x01\x08\0\0\0\0\0\x80?" + b"\0" * 31, b"\x07" * 41])
def test_damaged_bytes_are_computed_again(world: World, call: Call, damage: bytes) -> None:
    model = world.swap(Model())
    described = describe(model)
    assert isinstance(described, bytes)
    world.core.blobs("vector").put_many(f"{described.hex()} text float32", [("a", damage)])
    assert call(model, "get_text_embedding", "a") == Model()._get_text_embedding("a")


def test_vectors_of_another_size_are_computed_again(world: World, call: Call) -> None:
    model = world.swap(Model())
    described = describe(model)
    assert isinstance(described, bytes)
    foreign = to_bytes([0.5] * 4, "float32")
    assert foreign is not None
    call(model, "get_text_embedding_batch", ["a", "b"])
    world.core.blobs("vector").put_many(f"{described.hex()} text float32", [("a", foreign)])
    asked.clear()
    assert [len(vector) for vector in call(model, "get_text_embedding_batch", ["a", "b"])] == [8, 8]
    assert [texts for _, texts in asked] == [["a"]]


def test_where_stored_sizes_differ_and_none_is_known_all_are_computed(world: World, call: Call) -> None:
    described = describe(Model())
    assert isinstance(described, bytes)
    pairs = [("a", to_bytes([0.5] * 4, "float32") or b""), ("b", to_bytes([0.5] * 8, "float32") or b"")]
    world.core.blobs("vector").put_many(f"{described.hex()} text float32", pairs)
    assert [len(one) for one in call(world.swap(Model()), "get_text_embedding_batch", ["a", "b"])] == [8, 8]


@pytest.mark.parametrize("bad", [[math.nan, 1.0], [math.inf, 1.0], [], [[1.0]], [None, 1.0], "no vector"])
def test_what_is_no_vector_is_not_kept(bad: Any) -> None:
    assert [to_bytes(bad, form) for form in ("float32", "float16", "int8")] == [None] * 3


def test_numbers_too_large_for_the_format_are_not_kept() -> None:
    assert to_bytes([1e300], "float32") is None
    assert to_bytes([1e5], "float16") is None
    assert to_bytes([1e5], "int8") is not None


@given(st.lists(st.floats(-1, 1, allow_subnormal=False), min_size=1, max_size=50))
@settings(max_examples=200, deadline=None)
def test_a_vector_comes_back_within_the_error_of_its_format(vector: list[float]) -> None:
    largest = max(map(abs, vector))
    for form, error in (("float32", 6e-8), ("float16", 5e-4), ("int8", 0.51 / 127)):
        packed = to_bytes(vector, form)  # type: ignore[arg-type]
        assert packed is not None
        assert from_bytes(packed, form) == pytest.approx(vector, abs=error * largest + 1e-7)  # type: ignore[arg-type]


def test_float32_vectors_come_back_exactly() -> None:
    vector = [0.5, -0.25, 0.100000001490116119384765625]
    assert from_bytes(to_bytes(vector, "float32") or b"", "float32") == vector


def test_a_format_takes_four_two_or_one_byte_a_number() -> None:
    sizes = [len(to_bytes([0.5] * 1000, form) or b"") for form in ("float32", "float16", "int8")]
    assert sizes == [4009, 2009, 1009]


def test_a_rounded_vector_does_not_stand_in_for_a_whole_one(world: World) -> None:
    rounded = VectorCache(world.core.blobs("vector"), "int8")
    rounded.put_many(b"m", "text", ["a"], [[0.1, 0.2]])
    assert rounded.get_many(b"m", "text", ["a"]) == [pytest.approx([0.1, 0.2], abs=1e-3)]
    assert world.vectors.get_many(b"m", "text", ["a"]) == [None]


def test_an_unknown_format_is_refused(world: World) -> None:
    with pytest.raises(ConfigurationError, match="vector_format"):
        VectorCache(world.core.blobs("vector"), "float64")  # type: ignore[arg-type]


# -------------------------------------------------------------------------------------------------- presence


def test_the_model_stays_what_it_is(world: World) -> None:
    shared = CallbackManager([])
    model, plain = Model(callback_manager=shared), Model(callback_manager=shared)
    swapped = world.swap(model)
    assert swapped is model
    assert isinstance(swapped, Model)
    assert swapped.to_dict() == plain.to_dict()
    assert swapped.class_name() == plain.class_name()
    assert swapped._mode == "similarity"
    assert swapped == plain
    assert type(swapped).__qualname__ == Model.__qualname__


@pytest.mark.parametrize(
    "copied",
    [copy.copy, copy.deepcopy, lambda model: model.model_copy(), lambda model: pickle.loads(pickle.dumps(model))],
    ids=["copy", "deepcopy", "model_copy", "pickle"],
)
def test_copies_are_cached_too(world: World, call: Call, copied: Callable[[Model], Model]) -> None:
    model = world.swap(Model(model_name="m"))
    call(model, "get_text_embedding", "a")
    other = copied(model)
    asked.clear()
    call(other, "get_text_embedding", "a")
    assert asked == []
    assert other.model_name == "m"


def test_a_restored_model_computes_again(world: World, call: Call) -> None:
    model = world.swap(Model())
    call(model, "get_text_embedding", "a")
    world.swapper.restore(model)
    asked.clear()
    call(model, "get_text_embedding", "a")
    assert len(asked) == 1
    assert type(model) is Model


def test_a_class_in_use_when_all_are_restored_adds_nothing(world: World, call: Call) -> None:
    model = world.swap(Model(rate_limiter=Limiter()))
    cached = type(model)
    world.swapper.restore_all()
    object.__setattr__(model, "__class__", cached)
    for _ in range(2):
        call(model, "get_text_embedding_batch", ["a"])
    assert len(asked) == 2
    assert waits(model) == 2
    assert world.store.calls.total() == 0


@pytest.mark.parametrize("name", ["get_query_embedding", "get_text_embedding", "get_text_embedding_batch"])
def test_the_rate_limiter_is_asked_on_a_miss_and_not_on_a_hit(world: World, call: Call, name: str) -> None:
    model = world.swap(Model(rate_limiter=Limiter()))
    arg = ["a", "b"] if name.endswith("batch") else "a"
    call(model, name, arg)
    assert waits(model) == 1
    call(model, name, arg)
    assert waits(model) == 1


def test_the_rate_limiter_is_asked_as_often_as_without_a_cache(world: World, call: Call) -> None:
    texts = [str(number) for number in range(7)]
    counts = []
    for model in (
        Model(rate_limiter=Limiter(), embed_batch_size=2),
        world.swap(Model(rate_limiter=Limiter(), embed_batch_size=2)),
    ):
        call(model, "get_text_embedding_batch", texts)
        counts.append(waits(model))
    assert counts == [4, 4]


def test_the_rate_limiter_is_asked_also_where_the_model_cannot_be_cached(world: World, call: Call) -> None:
    class Opaque(Model):
        tokenizer: Any = None

    model = world.swap(Opaque(tokenizer=object(), rate_limiter=Limiter()))
    call(model, "get_text_embedding_batch", ["a"])
    call(model, "get_query_embedding", "a")
    assert waits(model) == 2


def test_a_private_method_asks_no_rate_limiter_as_without_a_cache(world: World) -> None:
    model = world.swap(Model(rate_limiter=Limiter()))
    model._get_text_embeddings(["a"])
    assert waits(model) == 0


def test_the_rate_limiter_can_be_read_and_set(world: World) -> None:
    model = world.swap(Model())
    assert model.rate_limiter is None
    model.rate_limiter = limiter = Limiter()
    assert model.rate_limiter is limiter
    world.swapper.restore(model)
    assert model.rate_limiter is limiter


def test_a_class_with_a_public_method_of_its_own_keeps_its_rate_limiter(world: World) -> None:
    class Own(Model):
        def get_query_embedding(self, query: str) -> list[float]:
            assert self.rate_limiter is not None
            self.rate_limiter.acquire()
            return self._get_query_embedding(query)

    model = world.swap(Own(rate_limiter=Limiter()))
    for _ in range(2):
        model.get_query_embedding("a")
    assert len(asked) == 1
    assert waits(model) == 2


class Events(BaseEventHandler):
    """Notes the kinds and vectors of events."""

    seen: list[Any] = Field(default_factory=list)

    def handle(self, event: Any, **kwargs: Any) -> None:
        if isinstance(event, EmbeddingStartEvent):
            self.seen.append(("start", event.model_dict))
        elif isinstance(event, EmbeddingEndEvent):
            self.seen.append(("end", event.chunks))


@pytest.mark.parametrize(
    ("name", "arg"),
    [("get_query_embedding", "q"), ("get_text_embedding", "t"), ("get_text_embedding_batch", ["a", "b", "c"])],
)
def test_a_hit_makes_the_events_of_an_uncached_call_and_one_span(world: World, call: Call, name: str, arg: Any) -> None:
    root, events, spans = get_dispatcher(), Events(), SimpleSpanHandler()
    debug = LlamaDebugHandler(print_trace_on_end=False)
    plain = Model(embed_batch_size=2, callback_manager=CallbackManager([debug]))
    cached = world.swap(Model(embed_batch_size=2, callback_manager=CallbackManager([debug])))
    root.add_event_handler(events)
    root.add_span_handler(spans)
    try:
        notes = []
        for model in (plain, cached, cached):
            events.seen.clear()
            spans.completed_spans.clear()
            debug.flush_event_logs()
            call(model, name, arg)
            pairs = debug.get_event_pairs()
            outer = [span.id_.partition("-")[0] for span in spans.completed_spans if "._" not in span.id_]
            notes.append((list(events.seen), outer, [[event.event_type for event in pair] for pair in pairs]))
            inner = [span.id_ for span in spans.completed_spans if "._" in span.id_]
    finally:
        root.event_handlers.remove(events)
        root.span_handlers.remove(spans)
    assert notes[0] == notes[1] == notes[2]
    assert len(notes[0][1]) == 1
    assert inner == []  # of the last call, a hit: nothing was computed


def test_a_models_own_embeddings_cache_goes_on_working(world: World, call: Call) -> None:
    own = SimpleKVStore()
    model = world.swap(Model(embeddings_cache=own))
    call(model, "get_text_embedding_batch", ["a", "b"])
    assert sorted(own.get_all("embeddings")) == ["a", "b"]
    asked.clear()
    call(model, "get_text_embedding_batch", ["a", "b"])
    assert asked == []


async def test_many_batches_at_once_find_their_own_vectors(world: World) -> None:
    model = world.swap(Model(embed_batch_size=2))
    batches = [[f"{one}{other}" for other in range(5)] for one in range(8)]
    for _ in range(2):
        found = await asyncio.gather(*(model.aget_text_embedding_batch(batch) for batch in batches))
        for batch, vectors in zip(batches, found, strict=True):
            assert vectors == [pytest.approx(Model()._get_text_embedding(text), abs=1e-6) for text in batch]


def test_a_model_inside_a_model_is_looked_up_for_itself(world: World, call: Call) -> None:
    class Outer(Model):
        inner: Model = Field(default_factory=Model)

        def _embed(self, how: str, texts: list[str]) -> list[list[float]]:
            return self.inner.get_text_embedding_batch(texts)

    inner = world.swap(Model(rate_limiter=Limiter()))
    outer = world.swap(Outer(inner=inner, rate_limiter=Limiter()))
    call(outer, "get_text_embedding_batch", ["a"])
    assert (waits(inner), waits(outer)) == (1, 1)
    call(outer, "get_text_embedding_batch", ["a"])
    assert (waits(inner), waits(outer)) == (1, 1)


def test_another_cache_on_the_same_store_finds_the_vectors(world: World, call: Call) -> None:
    call(world.swap(Model()), "get_text_embedding_batch", ["a"])
    core = open_cache(world.store, None, {})
    vectors = VectorCache(core.blobs("vector"))
    described = describe(Model())
    assert isinstance(described, bytes)
    assert vectors.get_many(described, "text", ["a"]) != [None]
    core.close()
