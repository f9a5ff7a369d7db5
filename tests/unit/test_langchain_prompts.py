"""Rules of reading LangChain's serialised prompts, with real messages."""

import json
import sys
from datetime import UTC, datetime
from typing import Any

import pytest
from langchain_core.load import dumps
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from pydantic import BaseModel

from aicache._key import identify
from aicache._model import CacheKey, ExactOnly, Prompt, Query, Turn, Unkeyable
from aicache._prompt import split
from langchain_aicache._prompts import read_prompt


class Parsed(BaseModel):
    a: int


def turns(*messages: BaseMessage) -> tuple[Turn, ...]:
    read = read_prompt(dumps(list(messages)))
    assert not isinstance(read, Unkeyable)
    assert read[0] == "chat"
    return read[1]


def query(*messages: BaseMessage) -> Query:
    return split(Prompt("chat", turns(*messages), b"m"), question=None)


def key(*messages: BaseMessage) -> CacheKey:
    return identify(query(*messages), namespace="n", tenant=None)


def step(call_id: str, **changes: Any) -> list[BaseMessage]:
    """One step of an agent: a tool call and its result."""
    call = {"name": "add", "args": {"a": 1, "b": 2}, "id": call_id, "type": "tool_call"}
    answer: dict[str, Any] = {"content": "", "tool_calls": [call]}
    result = {"content": "3", "tool_call_id": call_id, "name": "add"}
    return [AIMessage(**(answer | changes)), ToolMessage(**result)]


# ------------------------------------------------------------------------------------------------ what counts


def test_the_last_human_turn_is_the_query_and_all_the_rest_the_frame() -> None:
    one = query(SystemMessage("You sell shoes. " * 40), HumanMessage("Do you have size 38?"))
    other = query(SystemMessage("You sell shoes. " * 40), HumanMessage("Where is your shop?"))
    assert one.text == "Do you have size 38?"
    assert one.frame == other.frame
    assert query(SystemMessage("You sell hats."), HumanMessage("Where is your shop?")).frame != other.frame


TELLING: list[BaseMessage] = [
    SystemMessage("hi"),
    AIMessage("hi"),
    HumanMessage("hi", name="Ann"),
    HumanMessage("hi", additional_kwargs={"a": 1}),
    HumanMessage("hi", additional_kwargs={"a": 2}),
    HumanMessage([{"type": "text", "text": "hi"}, {"type": "image", "url": "http://a/b"}]),
    HumanMessage([{"type": "text", "text": "hi"}, {"type": "image", "url": "http://a/c"}]),
    HumanMessage(["h", "i"]),
    HumanMessage(["hi", ""]),
    AIMessage("hi", tool_calls=[{"name": "f", "args": {}, "id": "1"}]),
    AIMessage("hi", tool_calls=[{"name": "f", "args": {"a": 1}, "id": "1"}]),
    AIMessage("hi", tool_calls=[{"name": "f", "args": {"a": True}, "id": "1"}]),
    AIMessage("hi", invalid_tool_calls=[{"name": "f", "args": "{", "id": "1", "error": "bad"}]),
    AIMessage("hi", invalid_tool_calls=[{"name": "f", "args": "[", "id": "1", "error": "bad"}]),
    AIMessage("hi", response_metadata={"output_version": "v1"}),
    AIMessage("hi", response_metadata={"model_provider": "openai"}),
    AIMessage("hi", response_metadata={"model_provider": "anthropic"}),
    AIMessage("hi", response_metadata={"container": {"id": "c1"}}),
    AIMessage([{"type": "reasoning", "reasoning": "hm"}, {"type": "text", "text": "hi"}]),
    ToolMessage("hi", tool_call_id="1"),
    ToolMessage("hi", tool_call_id="1", status="error"),
    ChatMessage(content="hi", role="critic"),
    ChatMessage(content="hi", role="author"),
]


@pytest.mark.parametrize("message", TELLING, ids=lambda message: repr(message)[:70])
def test_what_can_change_the_answer_is_part_of_the_key(message: BaseMessage) -> None:
    last = HumanMessage("next")
    assert key(message, last).partition != key(HumanMessage("hi"), last).partition
    assert key(message).digest != key(HumanMessage("hi")).digest


def test_what_can_change_the_answer_is_told_apart_pairwise() -> None:
    assert len({key(message, HumanMessage("next")).partition for message in TELLING}) == len(TELLING)


def test_integers_that_no_float_can_hold_are_told_apart() -> None:
    keys = {
        key(AIMessage("", tool_calls=[{"name": "f", "args": {"n": 10**25 + i}, "id": "1"}]), HumanMessage("q")).digest
        for i in range(3)
    }
    assert len(keys) == 3


def test_what_only_pythons_json_can_read_is_told_apart() -> None:
    values: list[object] = [float("nan"), float("inf"), None, "\ud800", "\ud801", 1e300]
    keys = {key(AIMessage("", additional_kwargs={"n": {"m": value}}), HumanMessage("q")).digest for value in values}
    assert len(keys) == len(values)


# -------------------------------------------------------------------------------------------- what does not


@pytest.mark.parametrize(
    "message",
    [
        AIMessage("hi", id="run-1"),
        AIMessage("hi", usage_metadata={"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}),
        AIMessage("hi", response_metadata={"model_name": "m", "finish_reason": "stop", "token_usage": {"a": 1}}),
        AIMessage("hi", response_metadata={"aicache": {"tier": "l1"}}),
        AIMessage("hi", additional_kwargs={"refusal": None}),
        AIMessage("hi", additional_kwargs={"parsed": Parsed(a=1)}),
        AIMessage("hi", additional_kwargs={"parsed": {"a": 1}}),
        AIMessage([{"type": "text", "text": "hi"}]),
        AIMessage([{"type": "text", "text": "hi", "id": "lc_0815"}]),
        AIMessage([{"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}]),
        AIMessage(["hi"]),
        AIMessageChunk(content="hi", id="run-2"),
    ],
    ids=lambda message: repr(message)[:70],
)
def test_what_cannot_change_the_answer_is_no_part_of_the_key(message: AIMessage) -> None:
    assert key(HumanMessage("a"), message, HumanMessage("b")) == key(
        HumanMessage("a"), AIMessage("hi"), HumanMessage("b")
    )


def test_a_conversation_goes_on_the_same_after_a_hit_as_after_the_model() -> None:
    asked = HumanMessage("Is it free?", id="1")
    from_model = AIMessage(
        "Yes.",
        id="run-0",
        additional_kwargs={"refusal": None, "parsed": Parsed(a=1)},
        response_metadata={"model_provider": "openai", "model_name": "gpt", "id": "chatcmpl-1"},
        usage_metadata={"input_tokens": 1, "output_tokens": 2, "total_tokens": 3},
    )
    from_cache = from_model.model_copy(
        update={
            "id": None,
            "additional_kwargs": {"refusal": None, "parsed": {"a": 1}},
            "response_metadata": {**from_model.response_metadata, "aicache": {"tier": "l1", "age": 3.0}},
            "usage_metadata": {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0, "total_cost": 0},
        }
    )
    last = HumanMessage("Since when?")
    assert key(asked, from_model, last) == key(asked, from_cache, last)


def test_the_artifact_of_a_tool_does_not_count_whatever_it_is() -> None:
    plain = ToolMessage("3", tool_call_id="1")
    assert key(plain) == key(ToolMessage("3", tool_call_id="1", artifact=object()))


# ------------------------------------------------------------------------------------------------- tool ids


def test_random_tool_call_ids_do_not_count() -> None:
    assert key(HumanMessage("1+2?"), *step("call_a")) == key(HumanMessage("1+2?"), *step("call_b"))


def test_tool_call_ids_are_renumbered_wherever_they_stand() -> None:
    def conversation(first: str, second: str) -> list[BaseMessage]:
        blocks: list[str | dict[Any, Any]] = [
            {"type": "tool_use", "id": first, "name": "f", "input": {}},
            {"type": "function_call", "id": "fc_" + second, "call_id": second, "name": "f", "arguments": "{}"},
            {"type": "tool_call", "id": second, "name": "f", "args": {}},
        ]
        return [
            AIMessage(blocks, tool_calls=[{"name": "f", "args": {}, "id": first}]),
            AIMessage(
                "",
                additional_kwargs={"tool_calls": [{"id": second, "type": "function", "function": {"name": "f"}}]},
                invalid_tool_calls=[{"name": "f", "args": "{", "id": first + second, "error": None}],
            ),
            ToolMessage("1", tool_call_id=second),
            HumanMessage([{"type": "tool_result", "tool_use_id": first, "content": "2"}]),
        ]

    assert key(*conversation("a", "b")) == key(*conversation("x", "y"))


def test_which_result_belongs_to_which_call_counts() -> None:
    calls = [{"name": "f", "args": {"n": n}, "id": f"call_{n}"} for n in (1, 2)]

    def results(*order: int) -> CacheKey:
        return key(
            AIMessage("", tool_calls=calls),
            *(ToolMessage(text, tool_call_id=f"call_{n}") for text, n in zip("ab", order, strict=True)),
        )

    assert results(1, 2) != results(2, 1)


# ---------------------------------------------------------------------------------------------- exact only


def test_a_turn_of_a_tool_is_matched_exactly() -> None:
    assert query(HumanMessage("1+2?"), *step("call_a")).exact_only is ExactOnly.NOT_HUMAN


def test_a_multimodal_turn_is_matched_exactly() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    assert query(HumanMessage([{"type": "text", "text": "What is it?"}, image])).exact_only is ExactOnly.NOT_TEXT


def blocks(*texts: str) -> HumanMessage:
    return HumanMessage([{"type": "text", "text": text} for text in texts])


def test_several_blocks_with_text_are_matched_exactly_for_either_may_be_the_context() -> None:
    for texts in [("Is labour covered?", "Conditions: labour is covered."), ("Some context", "Is it?"), ("a ", "b")]:
        assert query(blocks(*texts)).exact_only is ExactOnly.NOT_TEXT
    keys = [key(blocks(*texts)) for texts in [("a ", "b"), ("a", " b"), ("a b",), ("a b", ""), ("", "a b")]]
    assert len(set(keys)) == len(keys)


def test_of_several_text_blocks_a_last_one_that_is_a_labelled_question_is_the_query() -> None:
    one, other = (query(blocks("Some context", f"Question: {asked}")) for asked in ("Is it?", "Was it?"))
    third = query(blocks("Other context", "Question: Is it?"))
    assert (one.text, other.text, third.text) == ("Is it?", "Was it?", "Is it?")
    assert one.frame == other.frame != third.frame


def test_empty_blocks_beside_one_text_do_not_hide_it() -> None:
    assert [query(blocks(*texts)).text for texts in [("", "Is it?"), ("Is it?", "")]] == ["Is it?", "Is it?"]


# ----------------------------------------------------------------------------------------------- odd prompts


def test_a_message_with_an_object_that_cannot_be_serialised_has_no_key() -> None:
    for value in (object(), datetime(2024, 1, 1, tzinfo=UTC), {"a": [Parsed(a=1)]}):
        read = read_prompt(dumps([HumanMessage("hi", additional_kwargs={"x": value})]))
        assert isinstance(read, Unkeyable)
        assert "Parsed" not in read.why


def test_dicts_of_the_application_that_look_like_langchains_are_plain() -> None:
    tricky = {"lc": 1, "type": "not_implemented", "id": ["a"], "repr": "<a at 0x1>"}
    one = key(HumanMessage("hi", additional_kwargs={"x": tricky}))
    other = key(HumanMessage("hi", additional_kwargs={"x": {**tricky, "repr": "<b at 0x1>"}}))
    assert one != other


def test_a_text_about_unserialisable_objects_is_an_ordinary_text() -> None:
    assert query(HumanMessage('What does "not_implemented" mean?')).text == 'What does "not_implemented" mean?'


@pytest.mark.parametrize(
    "text",
    [
        "Tell me a joke",
        "",
        "[]",
        "[1, 2]",
        "[",
        '{"lc": 1}',
        '[{"lc": 1, "type": "constructor", "id": [], "kwargs": {}}]',
        '[{"lc": 1, "type": "constructor", "id": ["HumanMessage"], "kwargs": []}]',
        '[{"lc": 1, "type": "secret", "id": ["X"]}]',
        "[" * 100_000,
        "[\ud800",
    ],
)
def test_what_is_not_a_list_of_messages_is_a_text(text: str) -> None:
    assert read_prompt(text) == ("text", (Turn("human", text),))


def test_deep_nesting_is_no_error() -> None:
    def nested(depth: int) -> str:
        message = json.loads(dumps([HumanMessage("hi", additional_kwargs={"x": "@"})]))
        return json.dumps(message).replace('"@"', "[" * depth + "]" * depth)

    assert read_prompt(nested(400)) != read_prompt(nested(401))
    limit = sys.getrecursionlimit()
    assert isinstance(read_prompt(nested(limit * 200)), tuple | Unkeyable)


def test_messages_of_unknown_shape_are_read_whole() -> None:
    def read(kwargs: dict[str, object], name: str = "HumanMessage") -> object:
        return read_prompt(json.dumps([{"lc": 1, "type": "constructor", "id": ["x", name], "kwargs": kwargs}]))

    shapes: list[dict[str, object]] = [{}, {"content": None}, {"content": 7}, {"content": [7]}, {"content": {"a": 1}}]
    shapes += [{"content": "a", "tool_calls": 7}, {"content": "a", "tool_calls": [7]}, {"content": "a", "x": 0}]
    shapes += [{"content": "a", "tool_call_id": 0}, {"content": "a", "tool_call_id": "0"}]
    shapes += [{"content": [{"type": "text", "text": 7}]}, {"content": [{"type": "text"}]}, {"content": "a", "type": 7}]
    results = [read(shape) for shape in shapes]
    distinct = [result for index, result in enumerate(results) if result not in results[:index]]
    assert len(distinct) == len(shapes) - 1  # no content is the content None
    assert read({"content": "a"}, "AIMessage") == read({"content": "a", "type": "ai"})
