"""Faults that a hostile look at the LlamaIndex adapter found, and what it tried in vain."""

from __future__ import annotations

import copy
import functools
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from li_models import ChatModel, TextModel, calling, said, user
from li_traces import traced
from llama_index.core import MockEmbedding, Settings
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    ImageBlock,
    LLMMetadata,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)
from llama_index.core.embeddings import BaseEmbedding
from llama_index.core.llms import LLM, CustomLLM, MockLLM
from llama_index.core.llms.callbacks import llm_chat_callback
from llama_index.core.prompts import PromptTemplate
from pydantic import BaseModel, PrivateAttr

from aicache import ConfigurationError, MissReason
from aicache.testing import FakeEmbedder
from llamaindex_aicache import AICache
from llamaindex_aicache._answers_rules import objection

ASKED = "How do I reset my password?"
REWORDED = "How can I reset my password please?"


@pytest.fixture
def cache() -> Iterator[AICache]:
    with AICache("memory://", embeddings=FakeEmbedder(), threshold=0.8, margin=0.0) as opened:
        yield opened


def hits(cache: AICache) -> int:
    return sum(cache.stats().hits.values())


# ------------------------------------------------------------------------------------------------ objects handed in


class Weights:
    """What transformers' models are to us: an object with a name."""

    def __init__(self, name: str) -> None:
        self.name_or_path = name


class Adapted(Weights):
    """A model with adapters, which has the name of the one below them."""

    peft_config: dict[str, Any] = {"default": 1}  # noqa: RUF012 - as it is there


class Module:
    """Weights without a name."""


Module.__module__ = "torch.nn.modules.module"


class Local(CustomLLM):
    """A model that may be handed what computes its answers, as HuggingFaceLLM."""

    model_name: str = "default"
    _model: Any = PrivateAttr()

    def __init__(self, model: Any, **fields: Any) -> None:
        super().__init__(**fields)
        self._model = model

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(model_name=self.model_name)

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        return CompletionResponse(text=f"said by {getattr(self._model, 'name_or_path', 'nobody')}")

    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        raise NotImplementedError


def test_models_that_were_handed_other_weights_are_told_apart_by_their_names(cache: AICache) -> None:
    for name in ("one", "other"):
        model = cache.wrap(Local(Weights(name)))
        assert [model.complete(ASKED).text for _ in range(2)] == [f"said by {name}"] * 2
    assert hits(cache) == 2


def test_weights_that_were_loaded_by_the_models_own_field_change_nothing(cache: AICache) -> None:
    cache.wrap(Local(None, model_name="one")).complete(ASKED)
    cache.wrap(Local(Weights("one"), model_name="one")).complete(ASKED)
    assert hits(cache) == 1


@pytest.mark.parametrize("weights", [Adapted("one"), Module()])
def test_weights_that_do_not_say_which_they_are_have_no_key(cache: AICache, weights: Any) -> None:
    model = cache.wrap(Local(weights))
    for _ in range(2):
        model.complete(ASKED)
    assert hits(cache) == cache.stats().stored == 0
    assert "_model" in str(cache.explain(ASKED, model))


class Adapter(BaseEmbedding):
    """An embedding model around another and weights of its own, as LlamaIndex's adapters are."""

    _base: Any = PrivateAttr()
    _weights: Any = PrivateAttr()

    def __init__(self, base: Any, weights: Any) -> None:
        super().__init__()
        self._base, self._weights = base, weights

    def _get_text_embedding(self, text: str) -> list[float]:
        return [float(len(self._weights.name_or_path))] * self._base.embed_dim

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)


def test_vectors_of_embedding_models_with_other_private_models_are_kept_apart(cache: AICache) -> None:
    made = [
        cache.wrap(Adapter(MockEmbedding(embed_dim=size), Weights(name))).get_text_embedding("a text")
        for size, name in ((2, "a"), (3, "a"), (3, "bb"))
    ]
    assert made == [[1.0] * 2, [1.0] * 3, [2.0] * 3]


# --------------------------------------------------------------------------------------------- what a template asks


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (f"Question: {ASKED}\nResponse: By the form there", f"Question: {REWORDED}\nResponse: By the form there"),
        ("The box is torn. The paper is wet. Who pays?", "The box is torn. The paper is wet. Who is to pay?"),
    ],
)
def test_a_variable_that_holds_more_than_a_question_is_matched_exactly(cache: AICache, one: str, other: str) -> None:
    model = cache.wrap(ChatModel())
    template = PromptTemplate("Judge with {context_str} this: {query_str} Now.")
    for query in (one, other, one):
        model.predict(template, context_str="care", query_str=query)
    assert (model.calls, hits(cache)) == (2, 1)


def test_a_question_that_the_context_repeats_is_no_reason_to_take_another_context(cache: AICache) -> None:
    model = cache.wrap(ChatModel())
    template = PromptTemplate("Context: {context_str}\nQuery: {query_str}\nAnswer:")
    model.predict(template, context_str=f"FAQ {ASKED} By mail.", query_str=ASKED)
    model.predict(template, context_str=f"FAQ {REWORDED} By mail.", query_str=REWORDED)
    assert model.calls == 2


# ------------------------------------------------------------------------------------------- what must count


def test_other_pictures_histories_and_results_of_tools_ask_again(cache: AICache) -> None:
    model = cache.wrap(ChatModel())
    png = b"\x89PNG\r\n\x1a\n" + b"0" * 30

    def shown(picture: bytes) -> ChatMessage:
        return ChatMessage(role=MessageRole.USER, blocks=[TextBlock(text=ASKED), ImageBlock(image=picture)])

    def result(text: str) -> ChatMessage:
        return ChatMessage(role=MessageRole.TOOL, content=text, additional_kwargs={"tool_call_id": "call_1"})

    call = calling("find_order", {"number": "7"})
    asked: list[list[ChatMessage]] = [
        [shown(png)],
        [shown(png + b"1")],
        [user("a"), said("b"), user(ASKED)],
        [user("a"), said("c"), user(ASKED)],
        [said("b"), user("a"), user(ASKED)],
        [ChatMessage(role=MessageRole.SYSTEM, content="Context A"), user(ASKED)],
        [ChatMessage(role=MessageRole.SYSTEM, content="Context B"), user(REWORDED)],
        [user(ASKED), call, result(ASKED)],
        [user(ASKED), call, result(REWORDED)],
        [user(REWORDED), call, result(ASKED)],
        [said(ASKED)],
        [said(REWORDED)],
    ]
    for messages in asked:
        model.chat(messages)
    assert model.calls == len(asked)
    for messages in asked:
        model.chat(messages)
    assert model.calls == len(asked)


# ------------------------------------------------------------------------------------------ parts of an answer


def test_what_a_reader_does_to_the_pieces_of_a_stream_is_not_kept(cache: AICache) -> None:
    answer = calling("find_order", {"number": "7"})
    answer.blocks = [TextBlock(text="Let me see."), *answer.blocks]
    model = cache.wrap(ChatModel(reply=lambda *_: answer.model_copy(deep=True)))
    for piece in model.stream_chat([user(ASKED)]):
        for block in piece.message.blocks:
            if isinstance(block, ToolCallBlock):
                block.tool_kwargs["number"] = "changed"  # type: ignore[index]
            elif isinstance(block, TextBlock):
                block.text = "changed"
    again = model.chat([user(ASKED)])
    assert model.calls == 1
    assert again.message.blocks == answer.blocks


def test_thoughts_calls_and_signatures_survive(cache: AICache) -> None:
    blocks = [
        ThinkingBlock(content="Hm.", additional_information={"signature": "s"}),
        TextBlock(text="Let me see."),
        ToolCallBlock(tool_call_id="1", tool_name="find", tool_kwargs={"a": [1, None]}),
    ]
    message = ChatMessage(role=MessageRole.ASSISTANT, blocks=blocks)
    model = cache.wrap(ChatModel(reply=lambda *_: message))
    first, hit = model.chat([user(ASKED)]), model.chat([user(ASKED)])
    assert (hit.message, hit.raw) == (first.message, first.raw)
    assert list(model.stream_chat([user(ASKED)]))[-1].message.blocks == blocks
    assert model.calls == 1


def test_an_answer_that_holds_an_object_is_given_and_not_kept(cache: AICache) -> None:
    odd = ChatMessage(role=MessageRole.ASSISTANT, content="fine", additional_kwargs={"odd": object()})
    model = cache.wrap(ChatModel(reply=lambda *_: odd))
    assert [model.chat([user(ASKED)]).message.content for _ in range(2)] == ["fine"] * 2
    assert (model.calls, cache.stats().stored) == (2, 0)


def test_a_stream_of_openais_that_never_said_how_it_ended_is_torn() -> None:
    def gathered(reason: str | None) -> ChatResponse:
        raw = {"object": "chat.completion.chunk", "choices": [{"delta": {}, "finish_reason": reason}]}
        return ChatResponse(message=said("On the"), raw=raw)

    assert objection(gathered(None), keep_truncated=False) is not None
    assert objection(gathered(None), keep_truncated=True) is None
    assert objection(gathered("stop"), keep_truncated=False) is None


# ------------------------------------------------------------------------------------------------------- streams


class Stubborn(CustomLLM):
    """Undecorated; its generators swallow what is thrown into them."""

    _made: list[str] = PrivateAttr(default_factory=list)

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(model_name="stubborn")

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        raise NotImplementedError

    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        try:
            yield CompletionResponse(text="half", delta="half")
            yield CompletionResponse(text="half a word", delta=" a word")
        except ValueError:
            return

    async def astream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        async def pieces() -> AsyncIterator[CompletionResponse]:
            try:
                yield CompletionResponse(text="half", delta="half")
                yield CompletionResponse(text="half a word", delta=" a word")
            except ValueError:
                return

        return pieces()


async def test_a_stream_that_swallows_an_error_thrown_into_it_leaves_nothing(cache: AICache) -> None:
    model = cache.wrap(Stubborn())
    stream = model.stream_complete(ASKED)
    next(stream)
    with pytest.raises(StopIteration):
        stream.throw(ValueError())
    pieces = await model.astream_complete(ASKED)
    await anext(pieces)
    with pytest.raises(StopAsyncIteration):
        await pieces.athrow(ValueError())
    assert cache.stats().stored == 0
    assert [piece.delta for piece in model.stream_complete(ASKED)] == ["half", " a word"]
    assert cache.stats().stored == 1


async def test_streams_that_are_never_started_or_left_early_leave_no_trace(cache: AICache) -> None:
    model = cache.wrap(ChatModel())
    model.stream_chat([user(ASKED)])
    await (await model.astream_chat([user(ASKED)])).aclose()
    assert cache.stats().stored == 0
    model.chat([user(ASKED)])
    hit = model.stream_chat([user(ASKED)])
    next(hit)
    hit.close()
    pieces = await model.astream_chat([user(ASKED)])
    await anext(pieces)
    await pieces.aclose()
    assert model.calls == 1


def test_a_stream_may_be_read_in_another_thread(cache: AICache) -> None:
    model = cache.wrap(ChatModel())
    for _ in range(2):
        stream, pieces = model.stream_chat([user(ASKED)]), list[Any]()
        reader = threading.Thread(target=pieces.extend, args=(stream,))
        reader.start()
        reader.join()
        assert "".join(piece.delta for piece in pieces) == f"answer to: {ASKED}"
    assert model.calls == 1


def test_an_interrupt_passes_and_leaves_nothing(cache: AICache) -> None:
    def interrupted(*_: Any) -> ChatMessage:
        raise KeyboardInterrupt

    model = cache.wrap(ChatModel(reply=interrupted))
    with pytest.raises(KeyboardInterrupt):
        model.chat([user(ASKED)])
    with pytest.raises(KeyboardInterrupt):
        list(model.stream_chat([user(ASKED)]))
    assert cache.stats().stored == 0


# -------------------------------------------------------------------------------------------------------- events


def telling(method: Any) -> Any:
    @functools.wraps(method)
    def told(self: Any, *args: Any, **kwargs: Any) -> Any:
        return method(self, *args, **kwargs)

    return told


def hiding(method: Any) -> Any:
    def hidden(self: Any, messages: Any, **kwargs: Any) -> Any:
        return method(self, messages, **kwargs)

    return hidden


class Told(ChatModel):
    @telling
    @llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        return self._respond(messages, kwargs)


class Hidden(ChatModel):
    @hiding
    @llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        return self._respond(messages, kwargs)


class Beneath(ChatModel):
    """LlamaIndex's decorator takes this for a method that it has decorated already."""

    @llm_chat_callback()
    @telling
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        return self._respond(messages, kwargs)


class Passing(ChatModel):
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        answer: ChatResponse = super().chat(messages, **kwargs)
        return answer


class Bare(ChatModel):
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        return self._respond(messages, kwargs)


@pytest.mark.parametrize("kind", [Told, Hidden, Beneath, Passing, Bare])
def test_a_hit_of_a_model_with_decorators_of_its_own_shows_the_events_of_its_calls(
    cache: AICache, kind: type[ChatModel]
) -> None:
    model, plain = cache.wrap(kind()), kind()
    model.chat([user(ASKED)])
    with traced(model, plain) as traces:
        plain.chat([user(ASKED)])
        expected = list(traces.events), list(traces.callbacks)
        traces.clear()
        model.chat([user(ASKED)])
        assert (traces.events, traces.callbacks) == expected
    assert model.calls == 1


# ----------------------------------------------------------------------------------------------- kinds of classes


class Slotted(TextModel):
    __slots__ = ("note",)


class Strict(TextModel):
    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("__"):
            raise AttributeError(name)
        super().__setattr__(name, value)


@pytest.mark.parametrize("kind", [Slotted, Strict])
def test_classes_with_slots_or_their_own_way_to_set_fields_are_swapped_and_restored(
    cache: AICache, kind: type[TextModel]
) -> None:
    model = cache.wrap(kind())
    model.complete(ASKED)
    model.complete(ASKED)
    assert model.calls == 1
    assert type(cache.unwrap(model)) is kind


def test_a_class_that_fails_when_it_is_extended_is_named(cache: AICache) -> None:
    class Picky(TextModel):
        def __init_subclass__(cls, **kwargs: Any) -> None:
            raise KeyError("mine")

    with pytest.raises(ConfigurationError, match="Picky"):
        cache.wrap(Picky())


def test_other_pydantic_objects_may_hold_a_wrapped_model(cache: AICache) -> None:
    class Holder(BaseModel):
        llm: MockLLM
        other: LLM

    model = cache.wrap(MockLLM())
    holder, plain = Holder(llm=model, other=model), Holder(llm=MockLLM(), other=MockLLM())
    assert holder.llm is model
    assert holder.model_dump().keys() == plain.model_dump().keys()
    assert copy.deepcopy(holder).llm.complete(ASKED).text == ASKED


def test_caches_may_be_uninstalled_in_any_order() -> None:
    before, llm = dict(vars(Settings)), type(Settings).__dict__["llm"]
    with AICache("memory://", embeddings=False) as one, AICache("memory://", embeddings=False) as other:
        try:
            one.install("all")
            other.install()
            Settings.llm = MockLLM()
            explicit = MockLLM()
            one.uninstall()
            Settings.llm.complete(ASKED)
            assert (one.stats().lookups, other.stats().lookups) == (0, 1)
            other.uninstall()
            assert type(Settings.llm) is type(explicit) is MockLLM
            assert type(Settings).__dict__["llm"] is llm
        finally:
            vars(Settings).clear()
            vars(Settings).update(before)


# ------------------------------------------------------------------------------------------------------ processes


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_a_forked_child_goes_on_with_the_cache_and_unpickles_cached_models(cache: AICache) -> None:
    model = cache.wrap(TextModel(reply=str.upper))
    model.complete(ASKED)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            model.complete("Where is it?")
            again = [model.complete(ASKED), model.complete("Where is it?"), copy.copy(model).complete(ASKED)]
            told = [each.additional_kwargs.get("aicache", {}).get("match") for each in again]
            os.write(write, repr(told).encode())
        except BaseException as error:  # noqa: BLE001 - to be seen by the parent
            os.write(write, repr(error).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as answer:
        assert answer.read() == b"['exact', 'exact', 'exact']"
    os.waitpid(child, 0)


def test_a_pickle_is_a_plain_model_in_a_process_without_the_cache(cache: AICache, tmp_path: Path) -> None:
    pickled = tmp_path / "model"
    pickled.write_bytes(pickle.dumps(cache.wrap(MockLLM())))
    code = (
        f"import pickle, pathlib; model = pickle.loads(pathlib.Path({str(pickled)!r}).read_bytes());"
        "from llama_index.core.llms import MockLLM; print(type(model) is MockLLM, model.complete('fine').text)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split() == ["True", "fine"]


# ------------------------------------------------------------------------------------------------ learning, shadow


def ask_all(model: ChatModel, entry: str, *questions: str) -> None:
    for question in questions:
        found = getattr(model, entry)([user(question)])
        if entry == "stream_chat":
            list(found)


def ask_until(event: threading.Event, model: ChatModel, entry: str) -> list[str]:
    """What was asked: calls before the log of lessons was read for the first time teach nothing."""
    asked: list[str] = []
    for number in range(400):
        asked.append(f"How do I reset {'my ' * (number % 20)}password {'please ' * (number // 20)}now?")
        ask_all(model, entry, asked[-1])
        if event.wait(0.05):
            return asked
    raise AssertionError


@pytest.mark.parametrize("entry", ["chat", "stream_chat"])
def test_answers_of_calls_and_streams_are_compared_as_their_texts(entry: str) -> None:
    seen: list[tuple[str, str]] = []
    compared = threading.Event()

    def same(a: str, b: str) -> bool:
        seen.append((a, b))
        compared.set()
        return True

    with AICache("memory://", embeddings=FakeEmbedder(), max_error_rate=0.05, comparator=same) as cache:
        asked = ask_until(compared, cache.wrap(ChatModel()), entry)
    assert set(seen[0]) <= {f"answer to: {question}" for question in asked}


@pytest.mark.parametrize("entry", ["chat", "stream_chat"])
def test_in_shadow_mode_every_call_reaches_the_model_and_is_compared(entry: str) -> None:
    compared = threading.Event()

    def same(a: str, b: str) -> bool:
        compared.set()
        return True

    options: dict[str, Any] = {"threshold": 0.8, "margin": 0.0, "comparator": same}
    with AICache("memory://", embeddings=FakeEmbedder(), shadow=True, **options) as cache:
        model = cache.wrap(ChatModel())
        ask_all(model, entry, ASKED, ASKED, REWORDED)
        assert model.calls == 3
        shadow = cache.stats().shadow
        assert shadow is not None
        assert sum(shadow.hits.values()) == 2
        assert cache.stats().misses[MissReason.SHADOW] == 2
        assert compared.wait(20)


def test_the_judge_may_be_a_cached_model_and_is_asked_outside_the_cache() -> None:
    judged = threading.Event()

    def judge_reply(prompt: str) -> str:
        judged.set()
        return "yes"

    def found(place: str) -> Callable[..., ChatMessage]:
        return lambda messages, _: said(f"It is in the {place} next to {messages[-1].content}")

    judge = TextModel(reply=judge_reply)
    with AICache("memory://", embeddings=FakeEmbedder(), max_error_rate=0.05, comparator=judge) as cache:
        cache.wrap(judge)
        asked = ask_until(judged, cache.wrap(ChatModel(reply=found("drawer"))), "chat")
        assert cache.stats().stored == len(asked)
