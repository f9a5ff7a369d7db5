"""The swap of a model's class: what stays as it was, and what a call does on a hit and on a miss."""

from __future__ import annotations

import asyncio
import copy
import gc
import inspect
import pickle
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import pytest
from li_models import ChatModel, TextModel, said, user
from li_traces import traced
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, ChatResponseGen
from llama_index.core.llms import LLM, CustomLLM, MockLLM
from llama_index.core.llms.callbacks import llm_chat_callback
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.prompts import ChatPromptTemplate, PromptTemplate
from pydantic import BaseModel, PrivateAttr

from aicache import ConfigurationError, MissReason
from aicache.testing import FakeEmbedder
from llamaindex_aicache import AICache

ASKED = "How do I reset my password?"
REWORDED = "How can I reset my password please?"

CHATS = ("chat", "achat", "stream_chat", "astream_chat")
COMPLETES = ("complete", "acomplete", "stream_complete", "astream_complete")
ENTRIES = (*CHATS, *COMPLETES)


@pytest.fixture
def cache() -> Iterator[AICache]:
    with AICache("memory://", embeddings=FakeEmbedder(), threshold=0.8, margin=0.0) as opened:
        yield opened


async def call(model: Any, entry: str, question: str = ASKED, **kwargs: Any) -> list[Any]:
    """The responses of one call: the pieces of a stream, else one."""
    given = [user(question)] if "chat" in entry else question
    found = getattr(model, entry)(given, **kwargs)
    if inspect.isawaitable(found):
        found = await found
    if isinstance(found, AsyncIterator):
        return [piece async for piece in found]
    return list(found) if isinstance(found, Iterator) else [found]


def text_of(response: Any) -> str:
    text = response.message.content if isinstance(response, ChatResponse) else response.text
    return text or ""


def mark(response: Any) -> dict[str, Any]:
    found: dict[str, Any] = response.additional_kwargs.get("aicache", {})
    return found


# ---------------------------------------------------------------------------------------------- it stays what it is


def test_a_wrapped_model_is_the_same_object_of_the_same_classes(cache: AICache) -> None:
    model = ChatModel(model="m", temperature=0.5)
    model._calls.append([])
    before = (model.to_dict(), model.model_dump(), model.metadata, repr(model), model.class_name())
    assert cache.wrap(model) is model
    assert (model.to_dict(), model.model_dump(), model.metadata, repr(model), model.class_name()) == before
    assert isinstance(model, ChatModel | FunctionCallingLLM | LLM)
    assert model.calls == 1
    kind = type(model)
    assert issubclass(kind, ChatModel)
    for name in ("__name__", "__qualname__", "__module__", "__doc__"):
        assert getattr(kind, name) == getattr(ChatModel, name)
    assert kind.model_fields.keys() == ChatModel.model_fields.keys()


def test_a_wrapped_model_has_the_schema_it_had(cache: AICache) -> None:
    class Plain(MockLLM):
        """Has no field that a schema cannot show."""

    before = Plain.model_json_schema()
    assert type(cache.wrap(Plain(max_tokens=None))).model_json_schema() == before


def test_a_wrapped_model_equals_a_plain_one_with_equal_fields(cache: AICache) -> None:
    model = ChatModel()
    plain, other = copy.copy(model), copy.copy(model)
    other.temperature = 1.0
    cache.wrap(model)
    assert model == plain
    assert plain == model
    assert model != other


@pytest.mark.parametrize("entry", ENTRIES)
def test_methods_keep_their_signature_and_kind(cache: AICache, entry: str) -> None:
    plain, wrapped = getattr(ChatModel(), entry), getattr(cache.wrap(ChatModel()), entry)
    assert inspect.signature(wrapped) == inspect.signature(plain)
    assert inspect.iscoroutinefunction(wrapped) == inspect.iscoroutinefunction(plain)
    assert wrapped.__name__ == entry


def test_fields_can_be_set_and_are_validated_as_before(cache: AICache) -> None:
    model = cache.wrap(ChatModel())
    model.temperature = 0.7
    assert model.model_copy(update={"temperature": 0.2}).temperature == 0.2
    again = type(model)(model="other")
    assert isinstance(again, ChatModel)
    assert again.model == "other"


@pytest.mark.parametrize(
    "duplicate",
    [
        copy.copy,
        copy.deepcopy,
        lambda model: model.model_copy(),
        lambda model: model.model_copy(deep=True),
        lambda model: pickle.loads(pickle.dumps(model)),
    ],
    ids=["copy", "deepcopy", "model_copy", "deep model_copy", "pickle"],
)
def test_copies_ask_the_same_cache(cache: AICache, duplicate: Callable[[Any], Any]) -> None:
    model = cache.wrap(TextModel())
    model.complete(ASKED)
    twin = duplicate(model)
    assert twin is not model
    assert mark(twin.complete(ASKED))["match"] == "exact"


def test_a_pickle_comes_back_as_a_plain_model_where_its_cache_is_no_more(cache: AICache) -> None:
    pickled = pickle.dumps(cache.wrap(TextModel(model="m")))
    cache.close()
    model = pickle.loads(pickled)
    assert type(model) is TextModel
    assert model.model == "m"


def test_unwrap_gives_the_model_its_class_back(cache: AICache) -> None:
    model = cache.wrap(ChatModel())
    assert cache.unwrap(model) is model
    assert type(model) is ChatModel
    model.chat([user(ASKED)])
    model.chat([user(ASKED)])
    assert model.calls == 2
    assert cache.stats().lookups == 0


def test_uninstall_restores_wrapped_models_and_their_copies(cache: AICache) -> None:
    model = cache.wrap(ChatModel())
    twin = copy.copy(model)
    cache.uninstall()
    assert type(model) is ChatModel
    assert type(twin) is ChatModel


def test_a_model_wrapped_twice_is_looked_up_once(cache: AICache) -> None:
    model = cache.wrap(cache.wrap(ChatModel()))
    assert type(model).__bases__ == (ChatModel,)
    model.chat([user(ASKED)])
    assert cache.stats().lookups == 1


def test_a_model_wrapped_by_another_cache_changes_to_it(cache: AICache) -> None:
    with AICache("memory://", embeddings=False) as other:
        model = other.wrap(cache.wrap(ChatModel()))
        model.chat([user(ASKED)])
        assert cache.stats().lookups == 0
        assert other.stats().lookups == 1
        cache.unwrap(model)
        assert type(model) is not ChatModel
    assert type(model) is ChatModel


def test_a_class_whose_annotations_cannot_be_resolved_any_more_can_be_swapped(cache: AICache) -> None:
    def make() -> LLM:
        class Inner(BaseModel):
            number: int = 1

        class Local(MockLLM):
            inner: Inner = Inner()

        return Local(max_tokens=None)

    model = cache.wrap(make())
    assert model.model_dump()["inner"] == {"number": 1}
    assert mark(model.complete(ASKED)) == {}
    assert mark(model.complete(ASKED))["match"] == "exact"


def test_a_class_that_refuses_subclasses_is_named(cache: AICache) -> None:
    class Sealed(TextModel):
        def __init_subclass__(cls, **kwargs: Any) -> None:
            raise TypeError("it is sealed")

    model = Sealed()
    with pytest.raises(ConfigurationError, match=r"model: a .*Sealed cannot be cached: it is sealed"):
        cache.wrap(model)
    assert type(model) is Sealed


@pytest.mark.parametrize("thing", [None, "gpt", object(), ChatModel])
def test_what_is_no_model_is_refused(cache: AICache, thing: Any) -> None:
    with pytest.raises(ConfigurationError, match="model: give an LLM or a BaseEmbedding"):
        cache.wrap(thing)


# ------------------------------------------------------------------------------------------------ the eight methods


@pytest.mark.parametrize("kind", [ChatModel, TextModel])
@pytest.mark.parametrize("entry", ENTRIES)
async def test_every_method_answers_repeated_and_reworded_questions_from_the_cache(
    cache: AICache, entry: str, kind: type[Any]
) -> None:
    model = cache.wrap(kind())
    first = await call(model, entry)
    again = await call(model, entry)
    reworded = await call(model, entry, REWORDED)
    assert model.calls == 1
    assert text_of(first[-1]) == text_of(again[-1]) == text_of(reworded[-1])
    assert mark(first[-1]) == {}
    assert mark(again[-1])["match"] == "exact"
    # A text model's chat is matched by its messages, not by the prompt they become.
    assert mark(reworded[-1])["match"] == "semantic"


@pytest.mark.parametrize("entry", [entry for entry in ENTRIES if "stream" in entry])
async def test_a_hit_streams_in_pieces_that_add_up_to_the_original(cache: AICache, entry: str) -> None:
    model = cache.wrap(ChatModel())
    first = await call(model, entry)
    again = await call(model, entry)
    assert len(again) > 1
    assert "".join(piece.delta or "" for piece in again) == text_of(first[-1])
    assert text_of(again[-1]) == text_of(first[-1])
    assert mark(again[-1])["match"] == "exact"


@pytest.mark.parametrize("entries", [CHATS, COMPLETES])
async def test_a_call_and_its_stream_and_its_async_forms_share_answers(
    cache: AICache, entries: tuple[str, ...]
) -> None:
    for first in entries:
        cache.clear()
        model = cache.wrap(ChatModel())
        for entry in (first, *entries):
            await call(model, entry)
        assert model.calls == 1


async def test_chat_and_complete_are_different_questions(cache: AICache) -> None:
    model = cache.wrap(ChatModel())
    await call(model, "chat")
    await call(model, "complete")
    assert model.calls == 2


@pytest.mark.parametrize("entry", ENTRIES)
async def test_methods_that_call_each_other_are_looked_up_once(cache: AICache, entry: str) -> None:
    model = cache.wrap(TextModel())  # achat calls chat, which calls complete
    await call(model, entry)
    stats = cache.stats()
    assert (stats.lookups, stats.stored, cache.size().entries) == (1, 1, 1)


async def test_arguments_may_be_named(cache: AICache) -> None:
    model = cache.wrap(ChatModel())
    model.chat([user(ASKED)])
    assert mark(model.chat(messages=[user(ASKED)]))["match"] == "exact"
    model.complete(ASKED, True)
    assert mark(await model.acomplete(prompt=ASKED, formatted=True))["match"] == "exact"


def test_wrong_arguments_fail_as_they_do_without_a_cache(cache: AICache) -> None:
    model = cache.wrap(ChatModel())
    for args, kwargs in (((), {}), (([user(ASKED)], 1), {}), (([user(ASKED)],), {"messages": []})):
        with pytest.raises(TypeError) as cached:
            model.chat(*args, **kwargs)
        with pytest.raises(TypeError) as plain:
            ChatModel().chat(*args, **kwargs)
        assert str(cached.value) == str(plain.value)
    assert cache.stats().lookups == 0


def test_call_arguments_that_change_the_answer_ask_again(cache: AICache) -> None:
    model = cache.wrap(ChatModel())
    model.chat([user(ASKED)])
    model.chat([user(ASKED)], temperature=1.0)
    model.temperature = 0.9
    model.chat([user(ASKED)])
    assert model.calls == 3


def test_a_model_that_asks_another_model_leaves_its_calls_to_the_cache(cache: AICache) -> None:
    class Router(CustomLLM):
        _inner: LLM = PrivateAttr()

        @property
        def metadata(self) -> Any:
            return self._inner.metadata

        def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
            return self._inner.complete(prompt)

        def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
            return self._inner.stream_complete(prompt)

    inner = cache.wrap(TextModel())
    router = Router()
    router._inner = inner
    cache.wrap(router)
    inner.complete(ASKED)
    assert mark(router.complete(ASKED))["match"] == "exact"
    assert inner.calls == 1


# ------------------------------------------------------------------------------------------------ events and limits


@pytest.mark.parametrize("kind", [ChatModel, TextModel])
@pytest.mark.parametrize("entry", ENTRIES)
async def test_a_miss_shows_what_an_uncached_call_shows(cache: AICache, entry: str, kind: type[Any]) -> None:
    plain, model = kind(), cache.wrap(kind())
    with traced(plain, model) as traces:
        await call(plain, entry)
        expected = copy.deepcopy(traces.kinds())
        traces.clear()
        await call(model, entry)
        assert traces.kinds() == expected


@pytest.mark.parametrize("entry", ENTRIES)
async def test_a_hit_shows_one_pair_of_events_and_one_span_as_an_uncached_call(cache: AICache, entry: str) -> None:
    plain, model = ChatModel(), cache.wrap(ChatModel())
    await call(model, entry)
    with traced(plain, model) as traces:
        await call(plain, entry)
        expected = copy.deepcopy(traces.kinds())
        traces.clear()
        assert mark((await call(model, entry))[-1])["match"] == "exact"
        assert traces.kinds() == expected
        assert len(traces.spans) == 1
        assert [name.endswith(("StartEvent", "EndEvent")) for name in traces.events].count(True) == 2
        assert [shown.split()[:2] for shown in traces.callbacks].count(["start", "llm"]) == 1


async def test_a_hit_of_a_model_that_shows_no_events_shows_none(cache: AICache) -> None:
    class Quiet(MockLLM):
        def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
            from llama_index.core.base.llms.types import CompletionResponse

            return CompletionResponse(text="quiet")

    model = cache.wrap(Quiet(max_tokens=None))
    model.complete(ASKED)
    with traced(model) as traces:
        assert mark(model.complete(ASKED))["match"] == "exact"
    assert traces.events == []
    assert traces.callbacks == []
    assert len(traces.spans) == 1


class Limiter:
    def __init__(self) -> None:
        self.acquired = 0

    def acquire(self) -> None:
        self.acquired += 1

    async def async_acquire(self) -> None:
        self.acquired += 1


@pytest.mark.parametrize("entry", ENTRIES)
async def test_the_rate_limiter_is_asked_on_a_miss_and_not_on_a_hit(cache: AICache, entry: str) -> None:
    model = cache.wrap(ChatModel())
    model.rate_limiter = limiter = Limiter()
    await call(model, entry)
    assert limiter.acquired == 1
    await call(model, entry)
    assert limiter.acquired == 1
    assert model.rate_limiter is limiter


# ------------------------------------------------------------------------------------------------------- what fails


class DownError(Exception):
    pass


def down(messages: Sequence[ChatMessage], kwargs: dict[str, Any]) -> ChatMessage:
    raise DownError("no answer")


@pytest.mark.parametrize("entry", ENTRIES)
async def test_the_models_own_error_passes_as_it_is_and_leaves_nothing(cache: AICache, entry: str) -> None:
    plain, model = ChatModel(reply=down), cache.wrap(ChatModel(reply=down))
    with traced(plain, model) as traces:
        with pytest.raises(DownError):
            await call(plain, entry)
        expected = copy.deepcopy(traces.kinds())
        traces.clear()
        with pytest.raises(DownError) as raised:
            await call(model, entry)
        assert traces.kinds() == expected
    assert raised.value.__cause__ is None
    assert model.calls == 1
    assert cache.size().entries == 0


class Broken(ChatModel):
    """Streams two words and fails."""

    def _pieces(self, messages: Sequence[ChatMessage], kwargs: dict[str, Any]) -> ChatResponseGen:
        pieces = super()._pieces(messages, kwargs)
        yield next(pieces)
        yield next(pieces)
        raise DownError


@pytest.mark.parametrize("entry", ["stream_chat", "astream_chat", "stream_complete", "astream_complete"])
async def test_a_stream_that_fails_midway_leaves_nothing(cache: AICache, entry: str) -> None:
    model = cache.wrap(Broken())
    for _ in range(2):
        with pytest.raises(DownError):
            await call(model, entry)
    assert cache.size().entries == 0
    assert cache.stats().not_stored == {}


class Closing(ChatModel):
    """Knows whether its streams were closed."""

    _closed: list[bool] = PrivateAttr(default_factory=list)

    def _pieces(self, messages: Sequence[ChatMessage], kwargs: dict[str, Any]) -> ChatResponseGen:
        try:
            yield from super()._pieces(messages, kwargs)
        finally:
            self._closed.append(True)


def test_an_abandoned_stream_is_closed_and_leaves_nothing(cache: AICache) -> None:
    model = cache.wrap(Closing())
    stream = model.stream_chat([user(ASKED)])
    next(stream)
    stream.close()
    assert model._closed == [True]
    stream = model.stream_chat([user(ASKED)])
    next(stream)
    del stream
    gc.collect()
    assert model._closed == [True, True]
    assert cache.size().entries == 0


async def test_an_abandoned_async_stream_is_closed_and_leaves_nothing(cache: AICache) -> None:
    model = cache.wrap(Closing())
    stream = await model.astream_chat([user(ASKED)])
    await anext(stream)
    await stream.aclose()
    gc.collect()
    assert cache.size().entries == 0


async def test_an_error_thrown_into_a_stream_reaches_the_model(cache: AICache) -> None:
    model = cache.wrap(ChatModel())
    stream: Any = model.stream_chat([user(ASKED)])
    next(stream)
    with pytest.raises(DownError):
        stream.throw(DownError())
    assert list(stream) == []
    astream: Any = await model.astream_chat([user(ASKED)])
    await anext(astream)
    with pytest.raises(DownError):
        await astream.athrow(DownError())
    assert [piece async for piece in astream] == []
    assert cache.size().entries == 0


def test_a_stream_that_has_failed_is_not_whole_when_it_is_asked_again(cache: AICache) -> None:
    stream = cache.wrap(Broken()).stream_chat([user(ASKED)])
    with pytest.raises(DownError):
        list(stream)
    assert list(stream) == []
    assert cache.size().entries == 0


async def test_a_cancelled_stream_leaves_nothing(cache: AICache) -> None:
    never = asyncio.Event()

    class Hanging(ChatModel):
        @llm_chat_callback()
        async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> Any:
            async def gen() -> Any:
                yield ChatResponse(message=said("half"), delta="half")
                await never.wait()

            return gen()

    model = cache.wrap(Hanging())
    stream = await model.astream_chat([user(ASKED)])
    await anext(stream)
    waiting = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert cache.size().entries == 0


@pytest.mark.parametrize("entry", CHATS)
async def test_an_empty_answer_is_not_kept(cache: AICache, entry: str) -> None:
    model = cache.wrap(ChatModel(reply=lambda messages, kwargs: said("")))
    await call(model, entry)
    await call(model, entry)
    assert model.calls == 2
    assert cache.size().entries == 0


class BrokenEmbedder:
    fingerprint = "broken"

    def embed(self, texts: Sequence[str]) -> Any:
        raise RuntimeError("it is broken")


@pytest.mark.parametrize("entry", ENTRIES)
async def test_a_fault_of_the_cache_never_reaches_the_application(entry: str) -> None:
    with AICache("memory://", embeddings=BrokenEmbedder()) as cache:
        model = cache.wrap(ChatModel())
        assert text_of((await call(model, entry))[-1]) == f"answer to: {ASKED}"
        assert text_of((await call(model, entry))[-1]) == f"answer to: {ASKED}"
        assert cache.stats().misses[MissReason.EMBEDDER_FAILED] == 1


@pytest.mark.parametrize("entry", ENTRIES)
async def test_a_closed_cache_leaves_models_working(cache: AICache, entry: str) -> None:
    model = cache.wrap(ChatModel())
    cache.close()
    cache.wrap(model)  # a mistake that must not hurt
    assert text_of((await call(model, entry))[-1]) == f"answer to: {ASKED}"


# ---------------------------------------------------------------------------------------- streams, scopes, threads


def test_what_the_application_adds_to_its_messages_while_streaming_changes_no_key(cache: AICache) -> None:
    model = cache.wrap(ChatModel())
    history = [user(ASKED)]
    for piece in model.stream_chat(history):
        if len(history) == 1:
            history.append(piece.message)
    assert mark(model.chat([user(ASKED)]))["match"] == "exact"
    assert mark(model.chat(history)) == {}


def test_a_refreshing_stream_keeps_the_answer_of_the_question_it_was_asked(cache: AICache) -> None:
    model = cache.wrap(ChatModel())
    history = [user(ASKED)]
    with cache.refresh():
        stream = model.stream_chat(history)
    next(iter(stream))
    history.append(user("something else"))
    list(stream)
    assert mark(model.chat([user(ASKED)]))["match"] == "exact"


def test_a_stream_belongs_to_the_scope_it_was_opened_in(cache: AICache) -> None:
    model = cache.wrap(ChatModel())
    with cache.bypass():
        stream = model.stream_chat([user(ASKED)])
    list(stream)
    assert cache.size().entries == 0
    with cache.tagged("prices"):
        stream = model.stream_chat([user(ASKED)])
    consumer = threading.Thread(target=list, args=(stream,))  # as LlamaIndex's chat engines do
    consumer.start()
    consumer.join()
    assert cache.size().entries == 1
    assert cache.invalidate(tag="prices").count == 1


async def test_an_async_stream_belongs_to_the_scope_it_was_opened_in(cache: AICache) -> None:
    model = cache.wrap(ChatModel())
    with cache.tagged("prices"):
        stream = await model.astream_chat([user(ASKED)])
    assert [piece async for piece in stream]
    assert cache.invalidate(tag="prices").count == 1


def test_between_two_pieces_the_application_may_ask_the_same_model(cache: AICache) -> None:
    model = cache.wrap(ChatModel())
    for _ in model.stream_chat([user(ASKED)]):
        model.chat([user("And what else?")])
    assert model.calls == 2
    assert mark(model.chat([user("And what else?")]))["match"] == "exact"


async def test_many_tasks_at_once_each_get_their_own_answer(cache: AICache) -> None:
    model = cache.wrap(ChatModel())
    questions = [f"What is the price of article {number}?" for number in range(20)]
    for _ in range(2):
        found = await asyncio.gather(*(model.achat([user(question)]) for question in questions))
        assert [text_of(each) for each in found] == [f"answer to: {question}" for question in questions]
    assert model.calls == 20


def test_many_threads_at_once_each_get_their_own_answer(cache: AICache) -> None:
    model = cache.wrap(ChatModel())
    answers: dict[int, list[str]] = {}

    def ask(number: int) -> None:
        question = user(f"What is the price of article {number}?")
        answers[number] = [text_of(model.chat([question])) for _ in range(3)]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {number: [f"answer to: What is the price of article {number}?"] * 3 for number in range(8)}
    assert model.calls == 8


def test_changing_a_hit_does_not_change_the_next(cache: AICache) -> None:
    model = cache.wrap(ChatModel())
    model.chat([user(ASKED)])
    spoilt = model.chat([user(ASKED)])
    spoilt.message.content = "spoilt"
    spoilt.additional_kwargs["aicache"]["match"] = "spoilt"
    clean = model.chat([user(ASKED)])
    assert text_of(clean) == f"answer to: {ASKED}"
    assert mark(clean)["match"] == "exact"


# -------------------------------------------------------------------------------------------------------- templates

TEMPLATE = PromptTemplate("The shop's handbook says:\n{context_str}\n\nAnswer the {mood} customer: {query_str} Thanks!")
CHAT_TEMPLATE = ChatPromptTemplate(
    [ChatMessage.from_str("Handbook: {context_str}", "system"), ChatMessage.from_str("To a {mood} one: {query_str}!")]
)
CONTEXT = "Passwords are reset on the sign-in page. " * 20


async def predict(model: Any, name: str, template: Any, **variables: Any) -> str:
    found = getattr(model, name)(template, **variables)
    if inspect.isawaitable(found):
        found = await found
    if isinstance(found, AsyncIterator):
        return "".join([token async for token in found])
    return found if isinstance(found, str) else "".join(found)


@pytest.mark.parametrize("template", [TEMPLATE, CHAT_TEMPLATE], ids=["text", "messages"])
@pytest.mark.parametrize("kind", [ChatModel, TextModel])
@pytest.mark.parametrize("name", ["predict", "apredict", "stream", "astream"])
async def test_a_templates_question_is_matched_and_its_other_variables_must_be_equal(
    cache: AICache, name: str, kind: type[Any], template: Any
) -> None:
    model = cache.wrap(kind())
    first = await predict(model, name, template, query_str=ASKED, context_str=CONTEXT, mood="kind")
    assert await predict(model, name, template, query_str=REWORDED, context_str=CONTEXT, mood="kind") == first
    assert model.calls == 1
    await predict(model, name, template, query_str=ASKED, context_str=CONTEXT + "!", mood="kind")
    await predict(model, name, template, query_str=ASKED, context_str=CONTEXT, mood="cross")
    assert model.calls == 3


def test_variables_given_to_the_template_itself_count_too(cache: AICache) -> None:
    model = cache.wrap(ChatModel())
    model.predict(TEMPLATE.partial_format(query_str=ASKED), context_str=CONTEXT, mood="kind")
    model.predict(TEMPLATE.partial_format(query_str=REWORDED), context_str=CONTEXT, mood="kind")
    assert model.calls == 1


async def test_templates_of_tasks_that_run_at_once_do_not_meet(cache: AICache) -> None:
    model = cache.wrap(ChatModel())
    contexts = [f"{CONTEXT} Version {number}." for number in range(10)]
    for _ in range(2):
        found = await asyncio.gather(
            *(model.apredict(TEMPLATE, query_str=ASKED, context_str=each, mood="kind") for each in contexts)
        )
        assert [each in answer for each, answer in zip(contexts, found, strict=True)] == [True] * 10
    assert model.calls == 10


def test_explain_says_what_a_call_would_do(cache: AICache) -> None:
    model = cache.wrap(ChatModel())
    model.chat([user(ASKED)])
    assert "exact" in str(cache.explain([user(ASKED)], model))
    assert str(cache.explain(ASKED, model)) == str(cache.explain([user(ASKED)], ChatModel()))
    model.predict(TEMPLATE, query_str=ASKED, context_str=CONTEXT, mood="kind")
    said_of = str(cache.explain(TEMPLATE, model, query_str=REWORDED, context_str=CONTEXT, mood="kind"))
    assert "semantic" in said_of
    assert model.calls == 2
    with pytest.raises(ConfigurationError, match="llm: give the model"):
        cache.explain(ASKED, "chat-1")  # type: ignore[arg-type]


def test_a_prompt_or_a_model_can_be_invalidated(cache: AICache) -> None:
    model, other = cache.wrap(ChatModel()), cache.wrap(ChatModel(model="chat-2"))
    for each in (model, other):
        each.chat([user(ASKED)])
        each.chat([user("Where is my parcel?")])
    assert cache.invalidate([user(ASKED)], llm=model).count == 1
    assert cache.invalidate(llm=model, dry_run=True).count == 1
    cache.clear(llm=model)
    assert cache.size().entries == 2
    cache.clear()
    assert cache.size().entries == 0


def test_a_wrong_hit_can_be_reported(cache: AICache) -> None:
    model = cache.wrap(ChatModel())
    model.chat([user(ASKED)])
    assert cache.report(mark(model.chat([user(REWORDED)]))["entry_id"], wrong=True)
    assert mark(model.chat([user(REWORDED)])) == {}
