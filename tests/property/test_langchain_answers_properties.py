"""For every answer: it comes back equal, as an object like any other. For other bytes: a refusal."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.load import dumps
from langchain_core.messages import AIMessage, ChatMessage, messages_to_dict
from langchain_core.outputs import ChatGeneration, Generation

from aicache._errors import UnreadableEntryError
from aicache._model import Answer, NotStored, SkipReason
from langchain_aicache._answers import MARK, HitMark, from_answer, to_answer

settings.register_profile("answers", deadline=None, max_examples=100)
PROFILE = settings.get_profile("answers")

texts = st.text(max_size=20)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
)
jsons = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
# The prefix keeps the keys apart from those that say how an answer ended.
objects = st.dictionaries(texts.map("x-".__add__), jsons, max_size=3)

tool_calls = st.fixed_dictionaries(
    {
        "name": texts,
        "args": st.dictionaries(texts, jsons, max_size=3),
        "id": st.none() | texts,
        "type": st.just("tool_call"),
    }
)
invalid_tool_calls = st.fixed_dictionaries(
    {
        "name": st.none() | texts,
        "args": st.none() | texts,
        "id": st.none() | texts,
        "error": st.none() | texts,
        "type": st.just("invalid_tool_call"),
    }
)
counts = st.integers(0, 10**9)
usages = st.fixed_dictionaries(
    {"input_tokens": counts, "output_tokens": counts, "total_tokens": counts},
    optional={
        "input_token_details": st.fixed_dictionaries({}, optional={"cache_read": counts, "audio": counts}),
        "output_token_details": st.fixed_dictionaries({}, optional={"reasoning": counts}),
    },
)
blocks = st.one_of(
    texts,
    st.fixed_dictionaries({"type": st.just("text"), "text": texts}, optional={"annotations": st.lists(objects)}),
    st.fixed_dictionaries({"type": st.just("reasoning"), "reasoning": texts}, optional={"extras": objects}),
    st.fixed_dictionaries({"type": st.just("image"), "base64": texts, "mime_type": texts}),
    st.fixed_dictionaries({"type": st.just("tool_use"), "id": texts, "name": texts, "input": objects}),
    objects,
)
# What begins with "said" is never empty: these answers are all stored.
contents = texts.map("said".__add__) | st.lists(blocks, max_size=4).map(lambda found: ["said", *found])
ai_messages = st.builds(
    AIMessage,
    content=contents,
    additional_kwargs=objects,
    response_metadata=objects,
    name=st.none() | texts,
    id=st.none() | texts,
    tool_calls=st.lists(tool_calls, max_size=2),
    invalid_tool_calls=st.lists(invalid_tool_calls, max_size=1),
    usage_metadata=st.none() | usages,
) | st.builds(lambda content, extra: AIMessage(content=content, **extra), contents, objects)
chat_messages = st.builds(
    ChatMessage,
    content=contents,
    role=texts,
    additional_kwargs=objects,
    response_metadata=objects,
    name=st.none() | texts,
    id=st.none() | texts,
)
infos = st.none() | objects
chats = st.builds(ChatGeneration, message=ai_messages | chat_messages, generation_info=infos)
plains = st.builds(Generation, text=texts.map("said".__add__), generation_info=infos)
calls = st.lists(chats | plains, min_size=1, max_size=3)

MARKED = HitMark("sqlite", "semantic", 0.98, 12.5, "0011223344556677")
NO_USAGE = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}


def stored(generations: list[Generation]) -> Answer:
    answer = to_answer(generations, keep_truncated=True)  # with calls that could not be parsed
    assert isinstance(answer, Answer), answer
    return answer


def expected(generation: Generation) -> Generation:
    """The generation without id and with complete usage: all that a hit may change, but for its mark."""
    if not isinstance(generation, ChatGeneration):
        return generation
    update: dict[str, Any] = {"id": None}
    if isinstance(generation.message, AIMessage) and generation.message.usage_metadata is None:
        update["usage_metadata"] = dict(NO_USAGE)
    return generation.model_copy(update={"message": generation.message.model_copy(update=update)})


@given(calls)
@settings(PROFILE)
def test_every_answer_comes_back_equal(generations: list[Generation]) -> None:
    before = copy.deepcopy(generations)
    answer = stored(generations)
    assert generations == before
    hits = from_answer(answer, hit=None, usage_on_hit="original")
    assert hits == [expected(generation) for generation in generations]
    assert [type(hit) for hit in hits] == [type(generation) for generation in generations]
    assert stored(hits).digest == answer.digest


@given(calls)
@settings(PROFILE)
def test_only_the_mark_and_the_usage_tell_a_hit_from_the_answer(generations: list[Generation]) -> None:
    answer = stored(generations)
    hits = from_answer(answer, hit=MARKED, usage_on_hit="zero")
    for hit, generation in zip(hits, from_answer(answer, hit=None, usage_on_hit="original"), strict=True):
        if isinstance(hit, ChatGeneration):
            assert hit.message.response_metadata.pop(MARK) == MARKED.as_metadata()
            if isinstance(hit.message, AIMessage):
                assert hit.message.usage_metadata == NO_USAGE
                hit.message = hit.message.model_copy(
                    update={"usage_metadata": generation.message.usage_metadata}  # type: ignore[attr-defined]
                )
        assert hit == generation


@given(chats)
@settings(PROFILE)
def test_a_hit_behaves_like_a_message_made_by_the_constructor(generation: ChatGeneration) -> None:
    [hit] = from_answer(stored([generation]), hit=None, usage_on_hit="original")
    built = expected(generation)
    assert isinstance(hit, ChatGeneration)
    assert isinstance(built, ChatGeneration)
    assert pickle.loads(pickle.dumps(hit)) == copy.deepcopy(hit) == copy.copy(hit) == built
    assert hit.model_dump() == built.model_dump()
    assert list(hit.__dict__) == list(built.__dict__)
    assert list(hit.message.__dict__) == list(built.message.__dict__)
    assert hit.message.model_fields_set >= built.message.model_fields_set
    assert (repr(hit), dumps(hit)) == (repr(built), dumps(built))
    assert messages_to_dict([hit.message]) == messages_to_dict([built.message])
    assert (hit.message.text, hit.message.content_blocks) == (built.message.text, built.message.content_blocks)


NOT_JSON = st.one_of(
    st.binary(max_size=3),
    st.sampled_from([float("nan"), float("inf"), float("-inf"), "\ud800", 1j, object(), len]),
    st.integers(min_value=2**64),
    st.integers(max_value=-(2**63) - 1),
    st.sets(st.integers(), max_size=2),
    st.tuples(jsons),
    st.dictionaries(st.integers(), jsons, min_size=1, max_size=2),
    st.datetimes(),
    st.uuids(),
)


@given(
    NOT_JSON,
    st.lists(st.sampled_from(["list", "dict"]), max_size=3),
    st.sampled_from(["generation_info", "additional_kwargs", "response_metadata", "args", "content", "field"]),
)
@settings(PROFILE)
def test_a_value_that_is_not_json_is_refused_wherever_it_stands(value: Any, depth: list[str], place: str) -> None:
    for level in depth:
        value = ["beside", value] if level == "list" else {"beside": 1, "odd": value}
    generation = ChatGeneration(
        message=AIMessage(
            content=["said", {"type": "odd", "odd": value if place == "content" else 1}],
            additional_kwargs={"odd": value if place == "additional_kwargs" else 1},
            response_metadata={"odd": value if place == "response_metadata" else 1},
            tool_calls=[{"name": "f", "args": {"odd": value if place == "args" else 1}, "id": "c"}],
            **({"odd": value} if place == "field" else {}),
        ),
        generation_info={"odd": value if place == "generation_info" else 1},
    )
    answer = to_answer([generation])
    assert isinstance(answer, NotStored)
    assert answer.reason is SkipReason.UNSERIALISABLE


def read_or_refused(body: bytes) -> None:
    try:
        hits = from_answer(Answer(body, b""), hit=MARKED, usage_on_hit="original")
    except UnreadableEntryError:
        return
    assert hits
    for hit in hits:
        assert type(hit) in {Generation, ChatGeneration}
        if isinstance(hit, ChatGeneration):
            assert type(hit.message) in {AIMessage, ChatMessage}
            assert hit.message.id is None
            assert hit.message.response_metadata[MARK] == MARKED.as_metadata()
    # A body that was accepted is one that could have been written.
    assert isinstance(to_answer(hits, keep_truncated=True), (Answer, NotStored))


@given(st.binary(max_size=60))
@settings(PROFILE)
def test_random_bytes_are_refused(body: bytes) -> None:
    with pytest.raises(UnreadableEntryError):
        from_answer(Answer(body, b""), hit=MARKED, usage_on_hit="original")


@given(jsons)
@settings(PROFILE)
def test_any_other_json_is_refused(value: Any) -> None:
    for content in (value, [1, value], [1, [value]]):
        with pytest.raises(UnreadableEntryError):
            from_answer(Answer(orjson.dumps(content), b""), hit=MARKED, usage_on_hit="original")


@given(calls, st.data())
@settings(PROFILE)
def test_a_body_with_any_part_replaced_is_read_as_an_answer_or_refused(
    generations: list[Generation], data: st.DataObject
) -> None:
    content = orjson.loads(stored(generations).body)
    place: Any = content
    while True:  # go down to a random container, and replace one of its parts
        slots = list(place) if isinstance(place, dict) else list(range(len(place)))
        deeper = [slot for slot in slots if isinstance(place[slot], (dict, list)) and place[slot]]
        if not deeper or (place is not content and data.draw(st.booleans())):
            break
        place = place[data.draw(st.sampled_from(deeper))]
    place[data.draw(st.sampled_from(slots))] = data.draw(jsons | st.sampled_from(["ai", "chat", "text"]))
    read_or_refused(orjson.dumps(content))


@given(calls, st.data())
@settings(PROFILE)
def test_a_body_with_any_byte_changed_is_read_as_an_answer_or_refused(
    generations: list[Generation], data: st.DataObject
) -> None:
    body = bytearray(stored(generations).body)
    body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    read_or_refused(bytes(body))
