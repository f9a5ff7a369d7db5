"""Which LlamaIndex responses are stored, what comes back on a hit, how it streams, and how a stream is gathered."""

from __future__ import annotations

import asyncio
import copy
import itertools
import json
import pickle
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from typing import Any

import httpx
import orjson
import pytest
from llama_index.core.base.llms.types import (
    AudioBlock,
    ChatMessage,
    ChatResponse,
    CitableBlock,
    CitationBlock,
    CompletionResponse,
    ContentBlock,
    DocumentBlock,
    ImageBlock,
    LogProb,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
    VideoBlock,
)
from llama_index.core.callbacks.token_counting import get_tokens_from_response
from llama_index.core.llms.llm import ToolSelection
from llama_index.core.llms.mock import MockFunctionCallingLLM, MockLLM
from llama_index.core.program.utils import process_streaming_objects
from llama_index.core.prompts import PromptTemplate
from llama_index.llms.openai import OpenAI, OpenAIResponses
from openai.types.chat import ChatCompletion
from pydantic import BaseModel

from aicache._errors import UnreadableEntryError
from aicache._model import Answer, CacheKey, Entry, Hit, Match, NotStored, Partition, SkipReason, Usage
from llamaindex_aicache._answers import FORMAT, MARK, Gathered, HitMark, from_answer, pieces, reading, to_answer
from llamaindex_aicache._pieces import MOST_PIECES
from llamaindex_aicache._records import Record

MARKED = HitMark(tier="l1", match="exact", score=1.0, age=2.5, entry_id="0011223344556677")
PNG = b"\x89PNG\r\n\x1a\n" + bytes(30)


def chat(
    text: str | None = None, *blocks: ContentBlock, raw: Any = None, kwargs: Any = None, **own: Any
) -> ChatResponse:
    said: list[ContentBlock] = [] if text is None else [TextBlock(text=text)]
    message = ChatMessage(role="assistant", blocks=[*said, *blocks], additional_kwargs=kwargs or {})
    return ChatResponse(message=message, raw=raw, **own)


def call(number: str | None = "call_1", name: str = "weather", given: Any = '{"city": "Paris"}') -> ToolCallBlock:
    return ToolCallBlock(tool_call_id=number, tool_name=name, tool_kwargs=given)


def kept(response: Any, *, keep_truncated: bool = False) -> Answer:
    answer = to_answer(response, keep_truncated=keep_truncated)
    assert isinstance(answer, Answer), answer
    return answer


def refused(response: Any, *, keep_truncated: bool = False) -> SkipReason:
    answer = to_answer(response, keep_truncated=keep_truncated)
    assert isinstance(answer, NotStored)
    return answer.reason


def back(response: Any) -> Any:
    return from_answer(kept(response), hit=None)


# ------------------------------------------------------------------------------------------------- round trip

RESPONSES: dict[str, ChatResponse | CompletionResponse] = {
    "text": CompletionResponse(text="Paris", additional_kwargs={"prompt_tokens": 3}, raw={"usage": {"a": 1}}),
    "chat": chat("Paris", raw={"id": "1"}, additional_kwargs={"completion_tokens": 1}),
    "logprobs": chat("P", logprobs=[[LogProb(token="P", logprob=-0.1, bytes=[80])], []]),
    "call": chat("", call()),
    "calls": chat("Wait", call(None, given={"city": "Paris"}), call("2", given="")),
    "thoughts": chat("A", ThinkingBlock(content="Hm", num_tokens=3, additional_information={"signature": "s"})),
    "two texts": chat("A", TextBlock(text="B")),
    "image": chat(None, ImageBlock(image=PNG, detail="low")),
    "image by address": chat("See", ImageBlock(url="https://example.com/a.png")),
    "audio": chat(None, AudioBlock(audio=b"RIFF", format="wav")),
    "video": chat(None, VideoBlock(video=b"abc", video_mimetype="video/mp4")),
    "document": chat(None, DocumentBlock(data=b"%PDF", title="t", document_mimetype="application/pdf")),
    "citation": chat(
        "A",
        CitationBlock(cited_content=TextBlock(text="c"), source="s", title="t", additional_location_info={"page": 1}),
    ),
    "citable": chat("A", CitableBlock(title="t", source="s", content=[TextBlock(text="c")])),
    "kwargs": chat("A", kwargs={"tool_calls": [{"id": "x"}], "bytes": b"\0\xff", "deep": [[{"a": None}]]}),
    "odd characters": chat("a\0b\u2028 \U0001f600", kwargs={"\0x": "\0"}),
    "another role": ChatResponse(message=ChatMessage(role="model", content="A")),
}


@pytest.mark.parametrize("response", RESPONSES.values(), ids=RESPONSES.keys())
def test_a_response_comes_back_equal_and_fresh(response: ChatResponse | CompletionResponse) -> None:
    before = copy.deepcopy(response)
    answer = kept(response)
    first, second = (from_answer(answer, hit=None) for _ in range(2))
    assert response == before == first == second
    assert type(first) is type(response)
    assert first.model_dump() == response.model_dump()
    assert pickle.loads(pickle.dumps(first)) == copy.deepcopy(first) == first
    first.additional_kwargs["changed"] = True
    if isinstance(first, ChatResponse):
        first.message.blocks.clear()
        first.message.additional_kwargs["changed"] = True
    assert from_answer(answer, hit=None) == before == second


def test_the_delta_of_a_whole_response_is_not_kept() -> None:
    assert back(chat("A", delta="A")).delta is None


def test_a_hit_carries_a_mark_and_a_mark_is_never_stored() -> None:
    hit = from_answer(kept(chat("A", kwargs={"x": 1})), hit=MARKED)
    assert isinstance(hit, ChatResponse)
    assert hit.additional_kwargs == {MARK: MARKED.as_metadata()}
    assert hit.message.additional_kwargs == {"x": 1}
    hit.message.additional_kwargs[MARK] = hit.additional_kwargs[MARK]  # as LlamaIndex's adapters do
    assert kept(hit).body == kept(chat("A", kwargs={"x": 1})).body


def test_a_mark_says_what_the_hit_was() -> None:
    entry = Entry(CacheKey(Partition(b"p" * 16, b"", b"", b""), b"d" * 32), "q", kept(chat("A")), created=1.0)
    hit = Hit(entry, tier="redis", match=Match.SEMANTIC, score=0.9, age=3.0)
    assert HitMark.of(hit) == ("redis", "semantic", 0.9, 3.0, hit.id)


class Colour(Enum):
    RED = 1


class Own(ChatResponse):
    pass


class OwnMessage(ChatMessage):
    pass


class OwnText(TextBlock):
    pass


@pytest.mark.parametrize(
    "response",
    [
        chat("A", additional_kwargs={"x": object()}),
        chat("A", additional_kwargs={"x": (1, 2)}),
        chat("A", additional_kwargs={"x": float("nan")}),
        chat("A", additional_kwargs={"x": Colour.RED}),
        chat("A", additional_kwargs={"x": 2**70}),
        chat("A", kwargs={"x": {1: 2}}),
        chat("A", kwargs={"x": {"\0": 2}}),
        chat("A", call(given={"x": {1, 2}})),
        chat("\ud800"),
        Own(message=ChatMessage(role="assistant", content="A")),
        ChatResponse(message=OwnMessage(role=MessageRole.ASSISTANT, blocks=[TextBlock(text="A")])),
        chat(None, OwnText(text="A")),
    ],
)
def test_what_would_not_come_back_is_refused(response: ChatResponse) -> None:
    assert refused(response) is SkipReason.UNSERIALISABLE


def test_a_body_of_another_format_or_damaged_is_unreadable() -> None:
    body = orjson.loads(kept(chat("A", call())).body)
    broken = [b"", b"{}", b"[]", orjson.dumps([FORMAT + 1, *body[1:]]), orjson.dumps(body[:-1])]
    for at, wrong in (
        (1, "other"),
        (2, "os.system"),
        (3, {"\0": ["eval", "1"]}),
        (4, [[1]]),
        (5, []),
        (6, {"message": 1}),
    ):
        broken.append(orjson.dumps([*body[:at], wrong, *body[at + 1 :]]))
    blocks: list[Any] = [7, ["tool_call", 1, 2, 3], ["image", {"path": "/nowhere/a.png"}], ["eval", {}]]
    said: list[Any] = ["A", ["boss", [], {}], *(["assistant", [block], {}] for block in blocks)]
    broken += [orjson.dumps([*body[:-1], each]) for each in said]
    for bad in broken:
        with pytest.raises(UnreadableEntryError):
            from_answer(Answer(bad, b""), hit=None)


# ---------------------------------------------------------------------------------------- providers' objects


class UsageOf(BaseModel):
    prompt_tokens: int
    completion_tokens: int


class Reply(BaseModel):
    usage: UsageOf
    choices: list[UsageOf]
    colour: Colour = Colour.RED


def test_an_object_of_a_provider_reads_like_one_and_like_a_mapping() -> None:
    reply = Reply(
        usage=UsageOf(prompt_tokens=3, completion_tokens=4), choices=[UsageOf(prompt_tokens=1, completion_tokens=2)]
    )
    raw = back(chat("A", raw=reply)).raw
    assert raw.usage.prompt_tokens == raw["usage"]["prompt_tokens"] == 3
    assert raw.choices[0].completion_tokens == 2
    assert raw.model_dump() == {**reply.model_dump(), "colour": 1}
    assert type(raw.model_dump()["usage"]) is dict
    assert not hasattr(raw, "absent")
    assert get_tokens_from_response(back(chat("A", raw=reply))) == (3, 4)
    assert get_tokens_from_response(back(chat("A", raw={"usage": {"input_tokens": 5, "output_tokens": 6}}))) == (5, 6)
    assert copy.deepcopy(raw) == pickle.loads(pickle.dumps(raw)) == raw


def test_of_the_providers_response_as_much_is_kept_as_is_json() -> None:
    raw = {"a": 1, "b": object(), "c": [1, object()], "d": {2: float("inf")}, "e": (1,), "\0": 1, "f": 2**70}
    assert back(chat("A", raw=raw)).raw == {"a": 1, "c": [1], "d": {}, "e": [1]}
    assert back(chat("A", raw=object())).raw is None


def test_calls_beside_the_blocks_can_be_read_as_objects() -> None:
    told = ToolSelection(tool_id="1", tool_name="add", tool_kwargs={"a": 1})
    response = back(chat("", kwargs={"tool_calls": [told]}))
    (found,) = MockFunctionCallingLLM().get_tool_calls_from_response(response)
    assert (found.tool_id, found.tool_name, found.tool_kwargs) == ("1", "add", {"a": 1})
    assert ToolSelection.model_validate(found) == told


# ------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    "response",
    [
        chat(""),
        chat(" \n"),
        chat(None),
        chat(None, ThinkingBlock(content="Hm")),
        CompletionResponse(text=" "),
    ],
)
def test_an_empty_answer_is_not_stored(response: Any) -> None:
    assert refused(response) is SkipReason.EMPTY


CUT_OFF: list[Any] = [
    {"choices": [{"finish_reason": "length"}]},
    {"choices": [{"finish_reason": "content_filter"}]},
    {"stop_reason": "max_tokens"},
    {"stopReason": "guardrail_intervened"},
    {"done_reason": "length", "done": True},
    {"done": False},
    {"candidates": [{"finish_reason": "MAX_TOKENS"}]},
    {"finish_reason": 2},
    {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}},
    {"response": {"status": "incomplete"}},
    {"delta": {"stop_reason": "max_tokens"}},
]


@pytest.mark.parametrize("raw", CUT_OFF)
def test_an_answer_cut_off_is_stored_only_on_demand(raw: Any) -> None:
    assert refused(chat("Par", raw=raw)) is SkipReason.TRUNCATED
    assert refused(CompletionResponse(text="Par", raw=raw)) is SkipReason.TRUNCATED
    assert kept(chat("Par", raw=raw), keep_truncated=True).body


@pytest.mark.parametrize(
    "raw",
    [
        {"choices": [{"finish_reason": "stop"}]},
        {"choices": [{"finish_reason": "tool_calls"}]},
        {"stop_reason": "end_turn"},
        {"finish_reason": 1},
        {"done": True, "done_reason": "stop"},
        {"status": "completed"},
        {"finish_reason": None},
    ],
)
def test_a_normal_end_is_stored(raw: Any) -> None:
    assert kept(chat("Paris", raw=raw)).body


@pytest.mark.parametrize(
    "response",
    [
        chat("A", raw={"error": "overloaded"}),
        chat("A", raw={"choices": [{"finish_reason": "error"}]}),
        chat("A", additional_kwargs={"refusal": "No."}),
        chat("A", raw={"choices": [{"message": {"refusal": "No."}}]}),
        chat("A", additional_kwargs={"stop_reason": "refusal"}),
    ],
)
def test_a_failed_answer_is_never_stored(response: Any) -> None:
    assert refused(response) is SkipReason.FAILED_ANSWER
    assert refused(response, keep_truncated=True) is SkipReason.FAILED_ANSWER


def test_a_call_that_cannot_be_parsed_is_not_stored() -> None:
    assert refused(chat("", call(given='{"city": "Pa'))) is SkipReason.FAILED_ANSWER
    assert refused(chat("", call(given="[1]"))) is SkipReason.FAILED_ANSWER


# ---------------------------------------------------------------------------------------- meaning and tokens


def test_answers_that_say_the_same_in_the_same_words_have_one_digest() -> None:
    same = [
        chat("Paris."),
        chat(" paris "),
        chat('"Paris"', ThinkingBlock(content="x")),
        CompletionResponse(text="PARIS!"),
    ]
    assert len({kept(each).digest for each in same}) == 1
    others = [chat("Rome"), chat("5"), chat("-5"), chat("5", ImageBlock(image=PNG)), chat("", call())]
    assert len({kept(each).digest for each in (same[0], *others)}) == 6


def test_calls_are_the_same_by_name_and_arguments_in_any_order() -> None:
    one = chat("Wait", call("1", given='{"a": 1, "b": 2}'), call("2", "other", {}))
    other = chat("", call("3", "other", ""), call("4", given={"b": 2, "a": 1}))
    told = chat(
        None,
        kwargs={
            "tool_calls": [
                {"function": {"name": "weather", "arguments": '{"b":2,"a":1}'}},
                {"name": "other", "input": {}},
            ]
        },
    )
    assert len({kept(each).digest for each in (one, other, told)}) == 1
    assert kept(one).digest != kept(chat("", call(given={"a": 2}))).digest
    assert reading(kept(one)).calls == b'[["other",{}],["weather",{"a":1,"b":2}]]' == reading(kept(told)).calls


def test_a_reading_has_text_calls_and_digest() -> None:
    answer = kept(CompletionResponse(text="Paris"))
    assert (reading(answer).text, reading(answer).calls, reading(answer).digest) == ("Paris", b"", answer.digest)
    with pytest.raises(UnreadableEntryError):
        reading(Answer(b"?", b""))


@pytest.mark.parametrize(
    ("raw", "kwargs"),
    [
        (None, {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}),
        ({"usage": {"prompt_tokens": 3, "completion_tokens": 4}}, {}),
        ({"usage": {"input_tokens": 3, "output_tokens": 4}}, {}),
        ({"usage_metadata": {"prompt_token_count": 3, "candidates_token_count": 4}}, {}),
        ({"prompt_eval_count": 3, "eval_count": 4}, {}),
        ({"usage": {"inputTokens": 3, "outputTokens": 4}}, {}),
        ({"response": {"usage": {"input_tokens": 3, "output_tokens": 4}}}, {}),
        (None, {"usage": UsageOf(prompt_tokens=3, completion_tokens=4)}),
        (Reply(usage=UsageOf(prompt_tokens=3, completion_tokens=4), choices=[]), {}),
    ],
)
def test_the_tokens_are_read_as_each_provider_spells_them(raw: Any, kwargs: Any) -> None:
    assert kept(chat("A", raw=raw, additional_kwargs=kwargs)).usage == Usage(3, 4)


def test_without_a_word_on_tokens_there_is_no_usage() -> None:
    assert kept(chat("A", raw={"usage": None})).usage is None


# -------------------------------------------------------------------------------------------------- streams

STREAMED = {**RESPONSES, "long": chat("One  two\n\nthree. ", ThinkingBlock(content="Hm"), call(), call("2"))}


def streamed(response: Any) -> list[Any]:
    return list(pieces(response))


@pytest.mark.parametrize("response", STREAMED.values(), ids=STREAMED.keys())
def test_a_hit_streams_in_pieces_that_add_up(response: Any) -> None:
    hit = from_answer(kept(response), hit=MARKED)
    found = streamed(hit)
    text = hit.text if isinstance(hit, CompletionResponse) else hit.message.content or ""
    assert "".join(piece.delta for piece in found) == text
    assert {type(piece) for piece in found} == {type(hit)}
    assert all(piece.additional_kwargs[MARK] == MARKED.as_metadata() for piece in found)
    last = found[-1].model_copy(update={"delta": None})
    last.additional_kwargs.pop("thinking_delta", None)
    assert last == hit
    said = [each.text if isinstance(each, CompletionResponse) else each.message.content or "" for each in found]
    assert all(late.startswith(early) for early, late in itertools.pairwise(said))


def test_words_come_one_by_one_and_calls_last() -> None:
    found = streamed(chat("One two", call(), kwargs={"tool_calls": [{"id": "call_1"}], "x": 1}))
    assert [piece.delta for piece in found] == ["One ", "two", ""]
    assert [len(piece.message.blocks) for piece in found] == [1, 1, 2]
    assert ["tool_calls" in piece.message.additional_kwargs for piece in found] == [False, False, True]
    assert found[0].message.additional_kwargs == {"x": 1}


def test_what_is_done_to_a_piece_does_not_reach_the_next() -> None:
    found = pieces(chat("", call(given={"a": [1]}), call("2")))
    first = next(found)
    assert isinstance(first, ChatResponse)
    block = first.message.blocks[-1]
    assert isinstance(block, ToolCallBlock)
    assert isinstance(block.tool_kwargs, dict)
    block.tool_kwargs["a"].append(2)
    last = list(found)[-1]
    assert isinstance(last, ChatResponse)
    assert last.message.blocks[1] == call(given={"a": [1]})


def gathered(chunks: Sequence[Any]) -> Any:
    collected = Gathered()
    for chunk in chunks:
        collected.add(chunk)
    return collected.whole()


@pytest.mark.parametrize("response", STREAMED.values(), ids=STREAMED.keys())
def test_pieces_gather_to_what_they_came_from(response: Any) -> None:
    assert gathered(streamed(response)) == back(response).model_copy(update={"raw": response.raw})


def texts(*chunks: tuple[str, str | None]) -> list[CompletionResponse]:
    return [CompletionResponse(text=text, delta=delta) for text, delta in chunks]


@pytest.mark.parametrize(
    ("chunks", "text"),
    [
        (texts(("a", "a"), ("ab", "b")), "ab"),  # the whole so far
        (texts(("a", "a"), ("b", "b")), "ab"),  # only what is new
        (texts(("", "a"), ("a", "b")), "ab"),  # one step behind
        (texts(("ab", "a"), ("ab", "b")), "ab"),  # the whole from the start
        (texts(("a", None), ("ab", None)), "ab"),  # no deltas
        (texts(("a", "a"), ("ab", "b"), ("", "")), "ab"),  # an empty chunk at the end
        (texts(("a", "a"), ("b", "b"), ("ab", "")), "ab"),  # only what is new, and the whole at the end
        (texts(("a", ""), ("ab", "b")), "ab"),  # a delta left out
        (texts(("", "hm "), ("a", "a"), ("ab", "b")), "ab"),  # thoughts among the deltas
        (texts(("ab", "ab")), "ab"),
    ],
)
def test_a_stream_of_any_kind_is_gathered(chunks: list[CompletionResponse], text: str) -> None:
    assert gathered(chunks).text == text
    assert gathered([chat(each.text, delta=each.delta) for each in chunks]).message.content == text


@pytest.mark.parametrize(
    "chunks",
    [
        [],
        texts(("a", "a"), ("ab", "ab")),  # does the second follow the first, or repeat it?
        texts(("x", "a"), ("y", "b")),
        [chat("", call(None)), chat("")],  # a call without an id, gone
        [chat("", call("1", given="{")), chat("", call("2", given="{}"))],  # an id that changes
    ],
)
def test_a_stream_that_is_not_clear_gives_nothing(chunks: Any) -> None:
    assert gathered(chunks) is None


def test_calls_and_thoughts_that_the_last_chunk_does_not_repeat_are_gathered() -> None:
    chunks = [
        chat(None, additional_kwargs={"thinking_delta": "H"}),
        chat(None, additional_kwargs={"thinking_delta": "m"}),
        chat(None, call("1"), additional_kwargs={"prompt_tokens": 3}),
        chat(None, call("2", "other")),
        chat(None),
    ]
    whole = gathered(chunks)
    assert whole.message.blocks == [ThinkingBlock(content="Hm"), call("1"), call("2", "other")]
    assert whole.additional_kwargs == {"prompt_tokens": 3}


def test_what_a_reader_does_to_a_chunk_does_not_reach_the_answer() -> None:
    collected = Gathered()
    for chunk in (chat("a", delta="a"), chat("ab", call(), delta="b", kwargs={"x": 1})):
        collected.add(chunk)
        chunk.message.blocks.clear()
        chunk.message.additional_kwargs["y"] = 2
    whole = collected.whole()
    assert isinstance(whole, ChatResponse)
    assert whole.message == chat("ab", call(), kwargs={"x": 1}).message


def test_how_a_stream_ended_is_not_lost_when_the_last_chunk_speaks_of_tokens() -> None:
    chunks = [
        chat("Pa", delta="Pa", raw={"choices": [{"finish_reason": None}], "usage": None}),
        chat("Par", delta="r", raw={"choices": [{"finish_reason": "length"}], "usage": None}),
        chat("Par", delta="", raw={"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}),
    ]
    whole = gathered(chunks)
    assert refused(whole) is SkipReason.TRUNCATED
    assert kept(whole, keep_truncated=True).usage == Usage(3, 2)


@pytest.mark.parametrize(
    "llm", [MockLLM(), MockLLM(max_tokens=5), MockFunctionCallingLLM()], ids=["echo", "tokens", "calling"]
)
def test_mock_models_stream_what_they_say(llm: Any) -> None:
    messages = [ChatMessage(role="user", content="One two")]
    assert gathered(list(llm.stream_complete("One two"))).text == llm.complete("One two").text
    assert gathered(list(llm.stream_chat(messages))).message.content == llm.chat(messages).message.content


# --------------------------------------------------------------------------------- OpenAI's class on fake HTTP

MESSAGES = [ChatMessage(role="user", content="Weather in Paris?")]
USAGE = {"prompt_tokens": 12, "completion_tokens": 5, "total_tokens": 17}
HEAD = {"id": "chatcmpl-1", "created": 1, "model": "gpt-4o-mini"}
TOOL_CALL = {"id": "call_1", "type": "function", "function": {"name": "City", "arguments": '{"name": "Paris"}'}}


def openai(answer: Callable[[dict[str, Any]], httpx.Response]) -> OpenAI:
    transport = httpx.MockTransport(lambda request: answer(json.loads(request.content)))
    return OpenAI(
        model="gpt-4o-mini",
        api_key="sk-x",
        http_client=httpx.Client(transport=transport),
        async_http_client=httpx.AsyncClient(transport=transport),
        max_retries=0,
    )


def completion(message: dict[str, Any], reason: str = "stop") -> Callable[[dict[str, Any]], httpx.Response]:
    choice = {"index": 0, "finish_reason": reason, "message": {"role": "assistant", **message}}
    return lambda _: httpx.Response(
        200, json={**HEAD, "object": "chat.completion", "choices": [choice], "usage": USAGE}
    )


def events(*deltas: dict[str, Any], reason: str = "stop") -> Callable[[dict[str, Any]], httpx.Response]:
    def lines() -> Iterator[str]:
        for at, delta in enumerate(deltas):
            end = reason if at == len(deltas) - 1 else None
            yield chunk([{"index": 0, "delta": delta, "finish_reason": end}])
        yield chunk([], usage=USAGE)
        yield "data: [DONE]\n\n"

    def chunk(choices: list[Any], **more: Any) -> str:
        return f"data: {json.dumps({**HEAD, 'object': 'chat.completion.chunk', 'choices': choices, **more})}\n\n"

    return lambda _: httpx.Response(200, headers={"content-type": "text/event-stream"}, text="".join(lines()))


def test_an_answer_of_openai_comes_back_with_its_tokens() -> None:
    fresh = openai(completion({"content": "It is sunny."})).chat(MESSAGES)
    answer = kept(fresh)
    hit: Any = from_answer(answer, hit=MARKED)
    assert isinstance(fresh.raw, ChatCompletion)
    assert hit.message == fresh.message
    assert hit.raw.model_dump() == fresh.raw.model_dump()
    assert hit.raw.choices[0].message.content == "It is sunny."
    assert ChatCompletion.model_validate(hit.raw) == fresh.raw
    assert get_tokens_from_response(hit) == get_tokens_from_response(fresh) == (12, 5)
    assert answer.usage == Usage(12, 5)


def test_a_stream_of_openai_is_gathered_to_what_a_call_gives() -> None:
    deltas = [{"role": "assistant", "content": ""}, {"content": "It is "}, {"content": "sunny."}, {}]
    chunks = list(openai(events(*deltas)).stream_chat(MESSAGES))
    whole = gathered(chunks)
    assert whole.message == openai(completion({"content": "It is sunny."})).chat(MESSAGES).message
    assert kept(whole).usage == Usage(12, 5)
    assert back(whole).raw.choices[0].finish_reason == "stop"
    replayed = streamed(back(whole))
    assert [piece.delta for piece in replayed] == ["It ", "is ", "sunny."]


def test_an_asynchronous_stream_is_gathered_too() -> None:
    async def chunks() -> list[Any]:
        stream = await openai(events({"content": "Sun"}, {"content": "ny"})).astream_chat(MESSAGES)
        return [chunk async for chunk in stream]

    assert gathered(asyncio.run(chunks())).message.content == "Sunny"


def test_a_stream_of_openai_that_was_cut_off_is_not_stored() -> None:
    chunks = list(openai(events({"content": "It is"}, {}, reason="length")).stream_chat(MESSAGES))
    assert refused(gathered(chunks)) is SkipReason.TRUNCATED


def test_calls_of_openai_work_on_a_hit_whether_called_or_streamed() -> None:
    head, tail = '{"name": ', '"Paris"}'
    parts = [
        {
            "tool_calls": [
                {"index": 0, "id": "call_1", "type": "function", "function": {"name": "City", "arguments": ""}}
            ]
        },
        {"tool_calls": [{"index": 0, "function": {"arguments": head}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": tail}}]},
    ]
    llm = openai(completion({"content": None, "tool_calls": [TOOL_CALL]}, "tool_calls"))
    called = llm.chat(MESSAGES)
    whole = gathered(list(openai(events(*parts, reason="tool_calls")).stream_chat(MESSAGES)))
    expected = llm.get_tool_calls_from_response(called)
    assert [selection.tool_kwargs for selection in expected] == [{"name": "Paris"}]
    for fresh in (called, whole):
        hit = from_answer(kept(fresh), hit=MARKED)
        assert llm.get_tool_calls_from_response(hit) == expected  # type: ignore[arg-type]
        last = streamed(hit)[-1]
        assert llm.get_tool_calls_from_response(last) == expected
        # What core's structured streams make of the last piece, also of an answer that was not streamed.
        assert process_streaming_objects(last, City, llm=llm) == City(name="Paris")
    assert kept(called).digest == kept(whole).digest


class City(BaseModel):
    name: str


def test_a_refusal_of_openai_is_not_stored() -> None:
    assert refused(openai(completion({"content": "No", "refusal": "No"})).chat(MESSAGES)) is SkipReason.FAILED_ANSWER


def test_a_completion_through_a_chat_model_is_kept_as_text() -> None:
    fresh = openai(completion({"content": "It is sunny."})).complete("Weather?")
    assert back(fresh).text == "It is sunny."
    prompt = PromptTemplate("{query_str}")
    assert openai(completion({"content": "Sun"})).predict(prompt, query_str="Weather?") == "Sun"


def responses(*happened: dict[str, Any]) -> OpenAIResponses:
    lines = "".join(f"event: {each['type']}\ndata: {json.dumps(each)}\n\n" for each in happened)
    transport = httpx.MockTransport(
        lambda _: httpx.Response(200, headers={"content-type": "text/event-stream"}, text=lines)
    )
    return OpenAIResponses(model="gpt-4o-mini", api_key="sk-x", http_client=httpx.Client(transport=transport))


def test_a_stream_of_openais_responses_is_gathered_although_its_chunks_hold_only_what_is_new() -> None:
    text = {"type": "output_text", "text": "It is sunny.", "annotations": []}
    output = [{"type": "message", "id": "m", "role": "assistant", "status": "completed", "content": [text]}]
    usage = {
        "input_tokens": 12,
        "output_tokens": 5,
        "total_tokens": 17,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 0},
    }
    shared = {"item_id": "m", "output_index": 0, "content_index": 0, "logprobs": []}
    done = {
        "id": "r",
        "object": "response",
        "created_at": 1,
        "model": "gpt-4o-mini",
        "status": "completed",
        "output": output,
        "usage": usage,
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
    }
    llm = responses(
        {"type": "response.output_text.delta", "delta": "It is ", "sequence_number": 1, **shared},
        {"type": "response.output_text.delta", "delta": "sunny.", "sequence_number": 2, **shared},
        {"type": "response.completed", "response": done, "sequence_number": 3},
    )
    whole = gathered(list(llm.stream_chat(MESSAGES)))
    assert whole.message.content == "It is sunny."
    assert kept(whole).usage == Usage(12, 5)
    cut = {**done, "status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
    llm = responses(
        {"type": "response.output_text.delta", "delta": "It is ", "sequence_number": 1, **shared},
        {"type": "response.incomplete", "response": cut, "sequence_number": 2},
    )
    assert refused(gathered(list(llm.stream_chat(MESSAGES)))) is SkipReason.TRUNCATED


def test_a_record_is_a_mapping_that_remembers_what_is_changed_through_it() -> None:
    record = Record({"a": {"b": [{"c": 1}]}})
    record.a.b[0]["c"] = 2
    assert record == {"a": {"b": [{"c": 2}]}}
    with pytest.raises(AttributeError):
        _ = record.missing


def test_roles_come_back() -> None:
    for role in MessageRole:
        assert back(ChatResponse(message=ChatMessage(role=role, content="A"))).message.role is role


def test_a_long_answer_streams_in_few_pieces_that_add_up_to_it() -> None:
    text = " ".join(f"word{number}" for number in range(5_000))
    streamed = list(pieces(ChatResponse(message=ChatMessage(role="assistant", content=text))))
    assert 100 < len(streamed) <= MOST_PIECES + 1
    assert "".join(piece.delta or "" for piece in streamed) == text
