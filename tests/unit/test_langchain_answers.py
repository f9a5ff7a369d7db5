"""The rules of the round trip: which answers are stored, and what comes back on a hit."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any, Literal

import orjson
import pytest
from langchain_core.caches import BaseCache
from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, FakeListLLM, FakeMessagesListChatModel
from langchain_core.load import dumps
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    ChatMessageChunk,
    HumanMessage,
    messages_from_dict,
    messages_to_dict,
)
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult, Generation, GenerationChunk
from langchain_core.runnables import RunnableLambda
from langgraph.graph.message import add_messages
from pydantic import BaseModel, Field, RootModel, field_serializer

from aicache._errors import UnreadableEntryError
from aicache._model import Answer, CacheKey, Entry, Hit, Match, NotStored, Partition, SkipReason, Usage
from langchain_aicache._answers import FORMAT, MARK, HitMark, _extra, from_answer, to_answer
from langchain_aicache._answers_rules import FAILED, STOPPED_EARLY

MARKED = HitMark(tier="l1", match="exact", score=1.0, age=2.5, entry_id="0011223344556677")
NO_USAGE = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}
USAGE = {
    "input_tokens": 11,
    "output_tokens": 7,
    "total_tokens": 18,
    "input_token_details": {"cache_read": 4},
    "output_token_details": {"reasoning": 2},
}
CALL = {"name": "weather", "args": {"city": "Paris", "days": [1, 2]}, "id": "call_1", "type": "tool_call"}
BROKEN_CALL = {
    "name": "weather",
    "args": '{"city": "Par',
    "id": "call_2",
    "error": "not JSON",
    "type": "invalid_tool_call",
}


def chat(message: BaseMessage, **info: Any) -> ChatGeneration:
    return ChatGeneration(message=message, generation_info=info or None)


def ai(content: Any = "Paris", **fields: Any) -> ChatGeneration:
    return chat(AIMessage(content=content, **fields))


def stored(*generations: Generation, keep_truncated: bool = False) -> Answer:
    answer = to_answer(generations, keep_truncated=keep_truncated)
    assert isinstance(answer, Answer), answer
    return answer


def served(
    *generations: Generation, hit: HitMark | None = None, usage: Literal["original", "zero"] = "original"
) -> list[Generation]:
    return from_answer(stored(*generations), hit=hit, usage_on_hit=usage)


def message_of(generation: Generation) -> Any:
    assert isinstance(generation, ChatGeneration)
    return generation.message


def skipped(*generations: Generation, keep_truncated: bool = False) -> NotStored:
    answer = to_answer(generations, keep_truncated=keep_truncated)
    assert isinstance(answer, NotStored), answer
    return answer


# ------------------------------------------------------------------------------------------ what comes back


RICH = AIMessage(
    content=[
        {"type": "reasoning", "reasoning": "France ...", "id": "rs_1", "extras": {"signature": "abc"}},
        {"type": "text", "text": "Paris.", "annotations": [{"type": "citation", "url": "https://x"}]},
        "and more",
        {"type": "image", "base64": "aGk=", "mime_type": "image/png"},
    ],
    additional_kwargs={"reasoning_content": "hm", "function_call": {"name": "f", "arguments": "{}"}},
    response_metadata={"model_name": "m-1", "finish_reason": "stop", "logprobs": {"content": [{"p": -0.25}]}},
    name="geographer",
    tool_calls=[CALL],
    usage_metadata=USAGE,
    id="run-1",
)


def test_every_field_of_a_message_comes_back_but_its_id() -> None:
    [hit] = served(chat(RICH, finish_reason="stop", logprobs=None))
    assert hit == chat(RICH.model_copy(update={"id": None}), finish_reason="stop", logprobs=None)
    assert message_of(hit).id is None


def test_all_generations_come_back_in_order() -> None:
    assert [g.text for g in served(ai("one"), ai("two"), ai("three"))] == ["one", "two", "three"]


def test_plain_generations_come_back_equal_and_unmarked() -> None:
    given = [Generation(text="fizz", generation_info={"finish_reason": "stop"}), Generation(text="buzz")]
    hit = served(*given, hit=MARKED)
    assert hit == given
    assert type(hit) is list


def test_chunks_come_back_as_the_whole_answer_they_stand_for() -> None:
    chunk = AIMessageChunk(
        content="",
        tool_call_chunks=[{"name": "weather", "args": '{"city": "Paris"}', "id": "c", "index": 0}],
        usage_metadata=USAGE,  # type: ignore[arg-type]
        chunk_position="last",
        id="run-1",
    )
    [hit] = served(ChatGenerationChunk(message=chunk))
    call = {"name": "weather", "args": {"city": "Paris"}, "id": "c", "type": "tool_call"}
    assert hit == ai("", tool_calls=[call], usage_metadata=USAGE)
    assert type(message_of(hit)) is AIMessage
    assert served(GenerationChunk(text="fizz")) == [Generation(text="fizz")]
    assert served(ChatGenerationChunk(message=ChatMessageChunk(content="hi", role="bot"))) == [
        chat(ChatMessage(content="hi", role="bot"))
    ]


def test_a_message_with_a_free_role_comes_back_with_its_role_and_mark() -> None:
    message = ChatMessage(content="hi", role="critic", name="c", additional_kwargs={"k": 1})
    [hit] = served(chat(message), hit=MARKED)
    assert message_of(hit).response_metadata == {MARK: MARKED.as_metadata()}
    assert message_of(hit).model_copy(update={"response_metadata": {}}) == message


def test_fields_a_provider_added_come_back() -> None:
    [hit] = served(ai("Paris", lobbyist={"score": 1}))
    assert hit == ai("Paris", usage_metadata=NO_USAGE, lobbyist={"score": 1})
    assert message_of(hit).lobbyist == {"score": 1}


class Newer(AIMessage):
    """A message as a later version of LangChain may define it."""

    verdict: str = "none"


def test_a_field_that_a_later_version_adds_is_kept_where_it_is_set() -> None:
    known = frozenset(AIMessage.model_fields)
    assert _extra(Newer(content="Paris"), known) == {}
    assert _extra(Newer(content="Paris", verdict="good"), known) == {"verdict": "good"}


def test_raw_tool_calls_beside_an_empty_list_of_calls_are_not_parsed_again() -> None:
    message = AIMessage("Paris", additional_kwargs={"tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]})
    assert message.tool_calls
    message.tool_calls = []
    assert message_of(served(chat(message))[0]).tool_calls == []


def test_text_set_apart_from_the_message_comes_back() -> None:
    generation = ai("Paris")
    generation.text = "another text"
    [hit] = served(generation)
    assert hit.text == "another text"


def test_invalid_tool_calls_come_back_where_truncated_answers_are_kept() -> None:
    generation = ai("", tool_calls=[CALL], invalid_tool_calls=[BROKEN_CALL], usage_metadata=USAGE)
    answer = stored(generation, keep_truncated=True)
    assert from_answer(answer, hit=None, usage_on_hit="original") == [generation]


# ---------------------------------------------------------------------------------------- the mark and usage


def test_a_hit_is_marked_with_where_it_comes_from() -> None:
    [hit] = served(ai("Paris", response_metadata={"model_name": "m"}), hit=MARKED)
    assert message_of(hit).response_metadata == {
        "model_name": "m",
        "aicache": {"tier": "l1", "match": "exact", "score": 1.0, "age": 2.5, "entry_id": "0011223344556677"},
    }


def test_the_mark_of_an_earlier_hit_is_not_stored() -> None:
    [hit] = served(ai("Paris", response_metadata={MARK: {"tier": "l1"}, "model_name": "m"}))
    assert message_of(hit).response_metadata == {"model_name": "m"}


def test_the_mark_repeats_the_outcome() -> None:
    key = CacheKey(Partition(b"p", b"n", b"t", b"m"), bytes.fromhex("0011223344556677") * 4)
    entry = Entry(key, "q", Answer(b"[]", b""), created=0.0)
    hit = Hit(entry, tier="l1", match=Match.EXACT, score=1.0, age=2.5)
    assert HitMark.of(hit) == MARKED._replace(entry_id=entry.id)
    reworded = replace(hit, asker=replace(key, digest=b"a" * 32))
    assert HitMark.of(reworded).entry_id.partition(".")[0] == entry.id, "and behind it who asked, for a report"
    assert type(HitMark.of(hit).match) is str


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (None, NO_USAGE),
        (USAGE, USAGE),
        ({"input_tokens": 3, "output_tokens": 4}, {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}),
        ({"total_tokens": None, "input_tokens": 3}, {"input_tokens": 3, "output_tokens": 0, "total_tokens": 3}),
        ({}, NO_USAGE),
    ],
)
def test_usage_on_a_hit_is_always_complete(usage: Any, expected: dict[str, Any]) -> None:
    message = AIMessage("Paris").model_copy(update={"usage_metadata": usage})
    assert message_of(served(chat(message))[0]).usage_metadata == expected


def test_usage_on_a_hit_is_zero_where_asked_for() -> None:
    [hit] = served(ai("Paris", usage_metadata=USAGE), usage="zero")
    assert message_of(hit).usage_metadata == NO_USAGE


@pytest.mark.parametrize(
    ("generation", "usage"),
    [
        (ai("Paris", usage_metadata=USAGE), Usage(11, 7)),
        (ai("Paris"), None),
        (ai("P", response_metadata={"token_usage": {"prompt_tokens": 5, "completion_tokens": 6}}), Usage(5, 6)),
        (ai("P", response_metadata={"usage": {"input_tokens": 5, "output_tokens": 6}}), Usage(5, 6)),
        (ai("P", response_metadata={"usage": {"inputTokens": 5, "outputTokens": 6}}), Usage(5, 6)),
        (ai("P", response_metadata={"prompt_eval_count": 5, "eval_count": 6}), Usage(5, 6)),
        (ai("P", response_metadata={"token_usage": None, "usage": "much"}), None),
        (ai("P", response_metadata={"usage": {"input_tokens": True, "output_tokens": -3}}), None),
        (Generation(text="P", generation_info={"usage": {"prompt_tokens": 5, "completion_tokens": 0}}), Usage(5, 0)),
        (Generation(text="P"), None),
    ],
)
def test_the_tokens_charged_are_found_where_providers_put_them(generation: Generation, usage: Usage | None) -> None:
    assert stored(generation).usage == usage


def test_the_tokens_of_a_call_count_once_for_several_generations() -> None:
    assert stored(ai("one", usage_metadata=USAGE), ai("two", usage_metadata=USAGE)).usage == Usage(11, 7)


# --------------------------------------------------------------------------------------- what is not stored


@pytest.mark.parametrize(
    "generations",
    [
        [],
        [Generation(text="")],
        [Generation(text=" \n")],
        [ai("")],
        [ai([])],
        [ai(["", {"type": "text", "text": " "}])],
        [ai([{"type": "reasoning", "reasoning": "I think, and then say nothing"}])],
        [ai([{"type": "thinking", "thinking": "hm", "signature": "s"}, {}])],
        [ai("", additional_kwargs={"refusal": None, "reasoning_content": "hm"})],
        [ai("Paris"), ai("")],
    ],
)
def test_an_empty_answer_is_not_stored(generations: list[Generation]) -> None:
    assert skipped(*generations).reason is SkipReason.EMPTY


@pytest.mark.parametrize(
    "generation",
    [
        ai("", tool_calls=[CALL]),
        ai([{"type": "image", "base64": "aGk=", "mime_type": "image/png"}]),
        ai([{"text": "no type"}]),
        ai("", additional_kwargs={"function_call": {"name": "f", "arguments": "{}"}}),
        ai("", additional_kwargs={"audio": {"id": "a", "data": "aGk=", "transcript": "hi"}}),
        ai("", tool_calls=[CALL], additional_kwargs={"refusal": None}),
    ],
)
def test_an_answer_without_text_that_says_something_is_stored(generation: ChatGeneration) -> None:
    assert stored(generation)


TRUNCATED = [
    {"finish_reason": "length"},  # OpenAI
    {"finish_reason": "LENGTH"},
    {"finish_reason": "content_filter"},
    {"finish_reason": "model_length"},  # Mistral
    {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}},  # OpenAI Responses
    {"incomplete_details": {"reason": "content_filter"}},
    {"stop_reason": "max_tokens"},  # Anthropic
    {"stop_reason": "pause_turn"},
    {"stop_reason": "model_context_window_exceeded"},
    {"stopReason": "guardrail_intervened"},  # Bedrock
    {"stopReason": "content_filtered"},
    {"finish_reason": "MAX_TOKENS"},  # Gemini
    {"finish_reason": "SAFETY"},
    {"finish_reason": "RECITATION"},
    {"finish_reason": "IMAGE_SAFETY"},
    {"finish_reason": "STOPMAX_TOKENS"},  # Gemini, two chunks merged
    {"finish_reason": "ERROR_LIMIT"},  # Cohere
    {"finish_reason": "max_output_tokens"},
    {"finish_reason": "repetition"},  # vLLM
    {"stop_reason": "time_limit"},  # watsonx.ai
    {"stop_reason": "TOKEN_LIMIT"},
    {"finish_reason": "REASON_MAX_LEN"},  # xAI
    {"finish_reason": "REASON_MAX_CONTEXT"},
    {"finish_reason": "REASON_TIME_LIMIT"},
    {"stop_reason": "maxPredictedTokensReached"},  # LM Studio
    {"stop_reason": "contextLengthReached"},
    {"finish_reason": "maximum_tokens"},  # Aleph Alpha
    {"finish_reason": "sensitive"},  # Zhipu
    {"finish_reason": "blacklist"},  # GigaChat
    {"status": "ALTERNATIVE_STATUS_TRUNCATED_FINAL"},  # YandexGPT
    {"status": "ALTERNATIVE_STATUS_PARTIAL"},
    {"finishReason": {"reason": "length", "length": 16}},  # AI21
    {"finish_reason": {"type": "length", "length": 16}},  # SGLang
    {"finish_details": {"type": "max_tokens"}},  # OpenAI, GPT-4 with vision
    {"done": True, "done_reason": "length"},  # Ollama
    {"done": False},
]
BROKEN = [
    {"stop_reason": "refusal"},
    {"finish_reason": "error"},
    {"finish_reason": "ERROR_TOXIC"},
    {"finish_reason": "MALFORMED_FUNCTION_CALL"},
    {"finish_reason": "insufficient_system_resource"},
    {"done": True, "done_reason": "load"},
    {"status": "failed", "error": {"code": "server_error"}},
    {"status": "cancelled"},
    {"status": "canceled"},
    {"error": "overloaded"},
    {"finish_reason": "abort"},  # vLLM, SGLang
    {"finish_reason": {"type": "abort", "message": "the client went away"}},
    {"stop_reason": "aborted"},
    {"stop_reason": "interrupted"},
    {"stop_reason": "CANCELLED"},  # watsonx.ai
    {"stop_reason": "not_finished"},
    {"finish_reason": "timed_out"},  # TensorRT-LLM
    {"stop_reason": "userStopped"},  # LM Studio
    {"stop_reason": "modelUnloaded"},
]
COMPLETE = [
    {"finish_reason": "stop", "logprobs": None},
    {"finish_reason": "tool_calls"},
    {"finish_reason": "STOP", "safety_ratings": [{"category": "HARASSMENT", "blocked": False}]},
    {"finish_reason": "STOPSTOP"},
    {"finish_reason": "COMPLETE"},
    {"finish_reason": "eos_token"},
    {"stop_reason": "end_turn", "stop_sequence": None},
    {"stop_reason": "tool_use"},
    {"stop_reason": "stop_sequence", "stop_sequence": "length"},
    {"stopReason": "end_turn"},
    {"done": True, "done_reason": "stop"},
    {"status": "completed", "error": None, "incomplete_details": None},
    {"finish_reason": None, "status": 200},
    {"model_name": "max_tokens-length-error"},
    {"finishReason": {"reason": "endoftext", "length": None}},
    {"finish_reason": {"type": "stop", "matched": "abort"}},
    {"finish_reason": "REASON_STOP"},
    {"stop_reason": "eosFound"},
    {"status": "ALTERNATIVE_STATUS_FINAL"},
    {"finish_details": {"type": "stop", "stop_tokens": [100260]}},
]


def endings(ending: dict[str, Any]) -> list[Generation]:
    """The same ending where each kind of model reports it."""
    return [
        Generation(text="Paris", generation_info=ending),
        chat(AIMessage("Paris"), **ending),
        chat(AIMessage("Paris", response_metadata=ending)),
        chat(ChatMessage(content="Paris", role="bot", response_metadata=ending)),
    ]


@pytest.mark.parametrize("ending", TRUNCATED, ids=str)
def test_an_answer_that_stopped_early_is_stored_only_where_asked_for(ending: dict[str, Any]) -> None:
    for generation in endings(ending):
        assert skipped(generation).reason is SkipReason.TRUNCATED
        assert skipped(ai("Paris"), generation).reason is SkipReason.TRUNCATED
        assert stored(generation, keep_truncated=True)


@pytest.mark.parametrize("ending", BROKEN, ids=str)
def test_a_failed_answer_is_never_stored(ending: dict[str, Any]) -> None:
    for generation in endings(ending):
        assert skipped(generation).reason is SkipReason.FAILED_ANSWER
        assert skipped(generation, keep_truncated=True).reason is SkipReason.FAILED_ANSWER


@pytest.mark.parametrize("ending", COMPLETE, ids=str)
def test_an_answer_that_ended_normally_is_stored(ending: dict[str, Any]) -> None:
    for generation in endings(ending):
        assert stored(generation)


def test_the_tables_are_in_lower_case_and_name_no_normal_ending() -> None:
    words = [*STOPPED_EARLY, *FAILED]
    assert words == [word.casefold() for word in words]
    assert len(set(words)) == len(words)
    normal = (
        "stop end_turn stop_sequence tool_use tool_calls function_call complete completed eos eos_token finished "
        "finish endoftext end_of_text end_id stop_word stop_sequence_reached reason_stop eosfound stopstringfound "
        "toolcalls normal success alternative_status_final alternative_status_tool_calls"
    )
    assert not [word for word in words for ending in normal.split() if word in ending]


def test_a_refusal_is_not_stored() -> None:
    beside = ai("", additional_kwargs={"refusal": "I cannot help with that"})
    within = ai([{"type": "refusal", "refusal": "I cannot help with that"}])
    for generation in (beside, within):
        assert skipped(generation, keep_truncated=True).reason is SkipReason.FAILED_ANSWER


def test_a_broken_tool_call_is_a_failed_answer() -> None:
    generation = ai("", tool_calls=[CALL], invalid_tool_calls=[BROKEN_CALL])
    assert skipped(generation).reason is SkipReason.FAILED_ANSWER


class Shouted(AIMessage):
    """A message class of an application."""


class Scored(ChatGeneration):
    """A generation class of an application."""

    score: float = 0.0


@pytest.mark.parametrize(
    ("generation", "named"),
    [
        (chat(HumanMessage("hi")), "HumanMessage"),
        (chat(Shouted(content="HI")), "Shouted"),
        (Scored(message=RICH), "Scored"),
    ],
)
def test_classes_that_are_not_known_are_not_stored(generation: ChatGeneration, named: str) -> None:
    assert skipped(generation) == NotStored(
        SkipReason.UNSERIALISABLE,
        f"a {'generation' if isinstance(generation, Scored) else 'message'} of class {named}",
    )


class Colour(Enum):
    RED = "red"


class Plain(BaseModel):
    colour: Colour = Colour.RED


NOT_JSON = [
    b"bytes",
    {1, 2},
    (1, 2),
    float("nan"),
    float("-inf"),
    2**64,
    -(2**63) - 1,
    "\ud800",
    object(),
    Colour.RED,
    datetime(2024, 1, 2, tzinfo=UTC),
    date(2024, 1, 2),
    Decimal(1),
    Plain(),
    {1: "a key that is no text"},
    [[{"deep": b"inside"}]],
]


@pytest.mark.parametrize("value", NOT_JSON, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize(
    ("place", "make"),
    [
        ("generation_info", lambda value: chat(AIMessage("Paris"), odd=value)),
        ("generation_info", lambda value: Generation(text="Paris", generation_info={"odd": value})),
        ("additional_kwargs", lambda value: ai(additional_kwargs={"odd": value})),
        ("response_metadata", lambda value: ai(response_metadata={"odd": value})),
        ("content", lambda value: ai(["Paris", {"type": "odd", "odd": value}])),
        ("extra fields", lambda value: ai(odd=value)),
        ("tool calls or usage", lambda value: ai(tool_calls=[{**CALL, "args": {"odd": value}}])),
    ],
)
def test_what_json_does_not_bring_back_equal_is_not_stored_and_the_field_is_named(
    place: str, make: Callable[[Any], Generation], value: Any
) -> None:
    assert skipped(make(value)) == NotStored(SkipReason.UNSERIALISABLE, f"not JSON: {place}")


def test_a_field_assigned_with_a_wrong_type_is_not_stored() -> None:
    updates: list[dict[str, Any]] = [
        {"content": None},
        {"content": [1]},
        {"tool_calls": ["weather"]},
        {"tool_calls": [{"name": "weather"}]},
        {"tool_calls": {"name": "weather"}},
        {"usage_metadata": {"input_tokens": "many"}},
        {"usage_metadata": [1]},
        {"additional_kwargs": None},
        {"response_metadata": []},
        {"name": 7},
    ]
    for update in updates:
        generation = ai("Paris", tool_calls=[CALL])
        generation.message = generation.message.model_copy(update=update)
        assert skipped(generation).reason is SkipReason.UNSERIALISABLE
    wrong: list[dict[str, Any]] = [{"text": None}, {"generation_info": []}]
    for update in wrong:
        assert skipped(ai("Paris").model_copy(update=update)).reason is SkipReason.UNSERIALISABLE
        assert skipped(Generation(text="Paris").model_copy(update=update)).reason is SkipReason.UNSERIALISABLE


def test_a_chunk_that_makes_no_message_is_not_stored() -> None:
    chunk = AIMessageChunk(content="Paris").model_copy(update={"tool_calls": [5]})
    assert skipped(ChatGenerationChunk(message=chunk)).reason is SkipReason.UNSERIALISABLE


def test_no_detail_contains_the_answer() -> None:
    secret = "sesame"
    for generation in (
        ai(secret, response_metadata={"finish_reason": "length"}),
        ai(secret, additional_kwargs={secret: b""}),
        ai("", invalid_tool_calls=[{**BROKEN_CALL, "args": secret, "name": secret}]),
        ai("", additional_kwargs={"refusal": secret}),
    ):
        assert secret not in skipped(generation).detail


def test_storing_changes_nothing_in_the_answer_the_application_gets() -> None:
    parsed = Plain()
    generation = ai("{}", additional_kwargs={"parsed": parsed}, response_metadata={MARK: 1}, id="run-1")
    before = copy.deepcopy(generation)
    stored(generation)
    assert generation == before
    assert generation.message.additional_kwargs["parsed"] is parsed


# --------------------------------------------------------------------------------------- structured output


class Address(BaseModel):
    street: str


class Person(BaseModel):
    name: str = Field(alias="fullName")
    born: date
    colour: Colour
    homes: set[str] = set()
    address: Address | None = None


class Titled(BaseModel):
    name: str = Field(default="", alias="fullName")


class Rounded(BaseModel):
    price: float

    @field_serializer("price")
    def rounded(self, price: float) -> float:
        return round(price)


class Names(RootModel[list[str]]):
    pass


class Empty(BaseModel):
    pass


def parse(message: AIMessage, schema: type[BaseModel]) -> Any:
    """The rule of the parser in langchain_openai's `with_structured_output`."""
    parsed = message.additional_kwargs.get("parsed")
    if not parsed:
        raise ValueError("no parsed field")
    return schema(**parsed) if isinstance(parsed, dict) else parsed


@pytest.mark.parametrize(
    "parsed",
    [
        Plain(),
        Titled(fullName="Ada"),
        Person(fullName="Ada", born=date(1815, 12, 10), colour=Colour.RED, address=Address(street="x")),
        Person(fullName="Ada", born=date(1815, 12, 10), colour=Colour.RED, homes={"London"}),
    ],
    ids=lambda parsed: type(parsed).__name__,
)
def test_structured_output_is_the_same_object_on_a_hit(parsed: BaseModel) -> None:
    [hit] = served(ai(parsed.model_dump_json(by_alias=True), additional_kwargs={"parsed": parsed}))
    assert isinstance(message_of(hit).additional_kwargs["parsed"], dict)
    assert parse(message_of(hit), type(parsed)) == parsed


@pytest.mark.parametrize(
    "parsed", [Rounded(price=1.5), Names(["Ada"]), Empty()], ids=lambda parsed: type(parsed).__name__
)
def test_structured_output_that_a_dict_does_not_bring_back_is_not_stored(parsed: BaseModel) -> None:
    assert skipped(ai("{}", additional_kwargs={"parsed": parsed})).reason is SkipReason.UNSERIALISABLE


# ------------------------------------------------------------------------------------------------- digest


def digests(*generations: Generation) -> set[bytes]:
    found = {stored(generation).digest for generation in generations}
    assert {len(digest) for digest in found} == {16}
    return found


@pytest.mark.parametrize(
    "texts",
    [
        ["Paris", "paris.", "  PARIS! ", '"Paris."', "“Paris”", "Paris…"],
        ["It costs 5 USD", "it  costs\n5 usd."],
        ["Straße", "STRASSE"],
    ],
)
def test_answers_in_the_same_words_have_one_digest(texts: list[str]) -> None:
    assert len(digests(*[Generation(text=text) for text in texts], *[ai(text) for text in texts])) == 1
    assert len(digests(*[ai([{"type": "text", "text": text}]) for text in texts])) == 1


@pytest.mark.parametrize(
    "texts",
    [
        ["Paris", "London"],
        ["5", "-5", ".5", "$5", "5%", "(5)", "50"],
        ["C", "C++", "C#"],
        ["yes", "no", "yes no"],
        ["!!!", "???", "..."],
    ],
)
def test_answers_that_differ_have_different_digests(texts: list[str]) -> None:
    assert len(digests(*[ai(text) for text in texts])) == len(texts)


def test_tool_calls_have_the_digest_of_names_and_arguments() -> None:
    other = {**CALL, "args": {"city": "London"}, "id": "call_3"}
    same = [
        ai("", tool_calls=[CALL, other]),
        ai("Let me see.", tool_calls=[other, {**CALL, "id": "call_9"}]),
        ai("", tool_calls=[{**CALL, "args": {"days": [1, 2], "city": "Paris"}}, other]),
    ]
    assert len(digests(*same)) == 1
    different = [
        same[0],
        ai("", tool_calls=[CALL]),
        ai("", tool_calls=[{**CALL, "name": "news"}, other]),
        ai("", tool_calls=[{**CALL, "args": {"city": "Paris", "days": [2, 1]}}, other]),
        ai("weather"),
    ]
    assert len(digests(*different)) == len(different)


def test_blocks_that_are_not_text_count_but_not_their_ids_nor_reasoning() -> None:
    def picture(base64: str, name: str) -> ChatGeneration:
        image = {"type": "image", "base64": base64, "mime_type": "image/png", "id": name}
        return ai([{"type": "reasoning", "reasoning": name}, {"type": "text", "text": "See"}, image])

    assert len(digests(picture("aGk=", "a"), picture("aGk=", "b"))) == 1
    assert len(digests(picture("aGk=", "a"), picture("eW8=", "a"), ai("See"))) == 3
    assert len(digests(ai('See{"type":"x"}'), ai(["See", {"type": "x"}]))) == 2


def test_the_digest_is_that_of_the_first_generation() -> None:
    assert stored(ai("Paris"), ai("London")).digest == stored(ai("Paris"), ai("Rome")).digest


def test_answers_in_additional_kwargs_only_have_different_digests() -> None:
    calls = [{"function_call": {"name": name, "arguments": "{}"}} for name in ("f", "g")]
    assert len(digests(*[ai("", additional_kwargs=call) for call in calls])) == 2


# ------------------------------------------------------------------------------------------- damaged bodies


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not JSON",
        b"\xff\xfe",
        b"null",
        b"5",
        b'"ab"',
        b"[]",
        b"{}",
        b'{"a": 1, "b": 2}',
        b"[1]",
        b"[1, []]",
        b"[1, {}]",
        b'[2, [["text", "hi", null]]]',
        b'[true, [["text", "hi", null]]]',
        b'[1.0, [["text", "hi", null]]]',
        b'[1, [["text", 5, null]]]',
        b'[1, [["text", "hi", []]]]',
        b'[1, [["text", "hi"]]]',
        b'[1, [["text", "hi", null, null]]]',
        b'[1, [["os.system", "hi", null, ["ai"]]]]',
        b'[1, ["text"]]',
        b"[1, [[]]]",
        b"[1, [null]]",
        b'[1, [["chat", null, null, null]]]',
        b'[1, [["chat", null, null, ["ai", "hi", {}, {}, null, {}]]]]',
        b'[1, [["chat", null, null, ["system", "hi", {}, {}, null, {}, "role"]]]]',
        b'[1, [["chat", null, null, ["chat", "hi", {}, {}, null, {}, 5]]]]',
        b'[1, [["chat", null, null, ["chat", "hi", {}, {}, null, {"id": "x"}, "role"]]]]',
        b'[1, [["chat", null, null, ["chat", "hi", {}, {}, null, {"content_blocks": []}, "role"]]]]',
        b'[1, [["chat", null, null, ["ai", 5, {}, {}, null, {}, [], [], null]]]]',
        b'[1, [["chat", null, null, ["ai", [5], {}, {}, null, {}, [], [], null]]]]',
        b'[1, [["chat", null, null, ["ai", "hi", [], {}, null, {}, [], [], null]]]]',
        b'[1, [["chat", null, null, ["ai", "hi", {}, 5, null, {}, [], [], null]]]]',
        b'[1, [["chat", null, null, ["ai", "hi", {}, {}, 5, {}, [], [], null]]]]',
        b'[1, [["chat", null, null, ["ai", "hi", {}, {}, null, [], [], [], null]]]]',
        b'[1, [["chat", null, null, ["ai", "hi", {}, {}, null, {}, ["f"], [], null]]]]',
        b'[1, [["chat", null, null, ["ai", "hi", {}, {}, null, {}, [{"name": "f"}], [], null]]]]',
        b'[1, [["chat", null, null, ["ai", "hi", {}, {}, null, {}, [], [5], null]]]]',
        b'[1, [["chat", null, null, ["ai", "hi", {}, {}, null, {}, [], [], {"input_tokens": 1}]]]]',
        b'[1, [["chat", null, null, ["ai", "hi", {}, {}, null, {"id": "x"}, [], [], null]]]]',
        b'[1, [["chat", null, null, ["ai", "hi", {}, {}, null, {"content_blocks": []}, [], [], null]]]]',
        b'[1, [["chat", null, null, ["ai", "hi", {}, {}, null, {"self": 1}, [], [], null]]]]',
    ],
)
def test_a_body_that_is_not_ours_is_unreadable(body: bytes) -> None:
    with pytest.raises(UnreadableEntryError):
        from_answer(Answer(body, b""), hit=MARKED, usage_on_hit="original")


def test_the_body_is_the_one_that_earlier_runs_wrote() -> None:
    # When this fails, the format of the body has changed: raise FORMAT.
    generation = chat(AIMessage("Paris", tool_calls=[CALL], name="g", usage_metadata=USAGE), finish_reason="stop")
    message = ["ai", "Paris", {}, {}, "g", {}, [CALL], [], USAGE]
    assert orjson.loads(stored(generation, Generation(text="Rome")).body) == [
        FORMAT,
        [["chat", None, {"finish_reason": "stop"}, message], ["text", "Rome", None]],
    ]


# ------------------------------------------------------------------------------- a hit is a normal message


def deep_spoil(value: Any) -> None:
    """Changes every container inside the value."""
    if isinstance(value, dict):
        for item in value.values():
            deep_spoil(item)
        value["spoiled"] = True
    elif isinstance(value, list):
        for item in value:
            deep_spoil(item)
        value.append("spoiled")


def test_a_hit_that_the_caller_changes_does_not_change_the_next_hit() -> None:
    answer = stored(
        chat(RICH, finish_reason="stop"), ai("two", odd={"a": [1]}), chat(ChatMessage(content="x", role="r"))
    )
    pristine = from_answer(answer, hit=MARKED, usage_on_hit="original")
    spoiled = from_answer(answer, hit=MARKED, usage_on_hit="original")
    for generation in spoiled:
        deep_spoil(generation.generation_info)
        for value in {**message_of(generation).__dict__, **message_of(generation).model_extra}.values():
            deep_spoil(value)
        message_of(generation).model_extra["late"] = 1
        message_of(generation).content = "changed"
        message_of(generation).id = "taken"
    spoiled.clear()
    assert from_answer(answer, hit=MARKED, usage_on_hit="original") == pristine
    blank = served(ai("Paris"))
    deep_spoil(message_of(blank[0]).__dict__["usage_metadata"])
    assert message_of(served(ai("Paris"))[0]).usage_metadata == NO_USAGE


@pytest.mark.parametrize("message", [RICH, AIMessage("Paris"), AIMessage("Paris", tool_calls=[CALL], odd=1)])
def test_a_hit_copies_pickles_and_prints_like_a_constructed_message(message: AIMessage) -> None:
    built = message.model_copy(update={"id": None, "usage_metadata": message.usage_metadata or NO_USAGE})
    hit = message_of(served(chat(message))[0])
    assert hit == built
    assert list(hit.__dict__) == list(built.__dict__)
    for same in (
        copy.copy(hit),
        copy.deepcopy(hit),
        hit.model_copy(deep=True),
        pickle.loads(pickle.dumps(hit)),
        type(hit).model_validate(hit.model_dump()),
    ):
        assert same == built
    assert repr(hit) == repr(built)
    assert hit.model_dump() == built.model_dump()
    assert hit.model_dump_json() == built.model_dump_json()
    assert dumps(hit) == dumps(built)
    assert (hit.text, hit.content_blocks) == (built.text, built.content_blocks)
    assert hit.pretty_repr() == built.pretty_repr()
    assert messages_to_dict([hit]) == messages_to_dict([built])


def test_langgraph_keeps_both_of_two_hits() -> None:
    answer = stored(ai("Paris", id="run-1"))
    first, second = (message_of(from_answer(answer, hit=MARKED, usage_on_hit="original")[0]) for _ in range(2))
    history = add_messages([HumanMessage("q"), first], [HumanMessage("q"), second])
    assert isinstance(history, list)
    assert len(history) == 4


# ---------------------------------------------------------------------------------- through LangChain's core


class DictCache(BaseCache):
    """The two functions under test, and a dict between them."""

    def __init__(self, usage_on_hit: Literal["original", "zero"] = "original") -> None:
        self.answers: dict[tuple[str, str], Answer] = {}
        self.usage_on_hit = usage_on_hit

    def lookup(self, prompt: str, llm_string: str) -> list[Generation] | None:
        answer = self.answers.get((prompt, llm_string))
        if answer is None:
            return None
        return from_answer(answer, hit=MARKED, usage_on_hit=self.usage_on_hit)

    def update(self, prompt: str, llm_string: str, return_val: Sequence[Generation]) -> None:
        answer = to_answer(return_val)
        if isinstance(answer, Answer):
            self.answers[prompt, llm_string] = answer

    def clear(self, **kwargs: Any) -> None:
        self.answers.clear()


class TwoAnswers(BaseChatModel):
    """Gives two generations, other ones with each call."""

    calls: int = 0

    @property
    def _llm_type(self) -> str:
        return "two-answers"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        self.calls += 1
        generations = [ai(f"{word} {self.calls}", usage_metadata=USAGE) for word in ("one", "two")]
        return ChatResult(generations=generations, llm_output={"model_name": "m"})


def without_mark(message: Any) -> AIMessage:
    assert isinstance(message, AIMessage)
    metadata = {key: value for key, value in message.response_metadata.items() if key != MARK}
    usage = {key: value for key, value in (message.usage_metadata or NO_USAGE).items() if key != "total_cost"}
    return message.model_copy(update={"id": None, "response_metadata": metadata, "usage_metadata": usage})


@pytest.mark.parametrize("answer", [RICH, AIMessage("Paris"), AIMessage("", tool_calls=[CALL])])
async def test_a_model_asked_twice_gives_the_same_message_again(answer: AIMessage) -> None:
    model = FakeMessagesListChatModel(responses=[answer, AIMessage("another")], cache=DictCache())
    fresh = model.invoke("capital of France?")
    hits = [model.invoke("capital of France?"), await model.ainvoke("capital of France?")]
    for hit in hits:
        assert without_mark(hit) == without_mark(fresh)
        assert hit.response_metadata[MARK]["tier"] == "l1"


def test_all_generations_of_a_call_are_served_through_a_model() -> None:
    model = TwoAnswers(cache=DictCache())
    fresh, hit = (model.generate([[HumanMessage("q")]]) for _ in range(2))
    assert [generation.text for generation in hit.generations[0]] == ["one 1", "two 1"]
    assert [generation.text for generation in fresh.generations[0]] == ["one 1", "two 1"]
    assert model.calls == 1


def test_a_text_model_asked_twice_gives_the_same_text_again() -> None:
    model = FakeListLLM(responses=["Paris", "another"], cache=DictCache())
    assert [model.invoke("capital?"), model.invoke("capital?")] == ["Paris", "Paris"]


@pytest.mark.parametrize("usage_on_hit", ["original", "zero"])
def test_a_served_message_without_usage_survives_a_history_of_dicts(
    usage_on_hit: Literal["original", "zero"],
) -> None:
    cache = DictCache(usage_on_hit)
    model = FakeMessagesListChatModel(responses=[AIMessage("Paris"), AIMessage("another")], cache=cache)
    model.invoke("capital?")
    hit = model.invoke("capital?")
    [read] = messages_from_dict(messages_to_dict([hit]))
    assert read.content == "Paris"
    assert without_mark(read).usage_metadata == NO_USAGE


def test_what_a_model_does_to_a_hit_does_not_reach_the_next() -> None:
    model = FakeMessagesListChatModel(responses=[RICH, AIMessage("another")], cache=DictCache())
    model.invoke("q")
    first = model.invoke("q")
    second = model.invoke("q")
    deep_spoil(first.__dict__)
    assert model.invoke("q") == second


def test_a_chain_with_structured_output_gives_an_equal_object_on_a_hit() -> None:
    parsed = Person(fullName="Ada", born=date(1815, 12, 10), colour=Colour.RED, homes={"London"})
    answer = AIMessage(parsed.model_dump_json(by_alias=True), additional_kwargs={"parsed": parsed, "refusal": None})
    model = FakeMessagesListChatModel(responses=[answer, AIMessage("another")], cache=DictCache())
    chain = model | RunnableLambda(lambda message: parse(message, Person))
    assert [chain.invoke("who?"), chain.invoke("who?")] == [parsed, parsed]


def test_an_answer_that_is_not_stored_is_asked_for_again() -> None:
    cut_off = AIMessage("Par", response_metadata={"finish_reason": "length"})
    model = FakeMessagesListChatModel(responses=[cut_off, AIMessage("Paris")], cache=DictCache())
    assert [model.invoke("q").content for _ in range(3)] == ["Par", "Paris", "Paris"]
