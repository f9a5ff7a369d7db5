"""For every response: it comes back equal, and its pieces add up to it. For other bytes: a refusal."""

from __future__ import annotations

from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    LogProb,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)

from aicache._errors import UnreadableEntryError
from aicache._model import Answer, NotStored
from llamaindex_aicache._answers import MARK, Gathered, HitMark, from_answer, pieces, reading, to_answer

settings.register_profile("responses", deadline=None, max_examples=80)
PROFILE = settings.get_profile("responses")

texts = st.text(max_size=20)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
    | st.binary(max_size=5)
)
jsons = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts.map("x-".__add__), inner, max_size=3),
    max_leaves=6,
)
# The prefix keeps the keys apart from those that say how an answer ended.
objects = st.dictionaries(texts.map("x-".__add__), jsons, max_size=3)
raws = st.none() | st.dictionaries(texts.map("x-".__add__), st.integers(-9, 9) | texts, max_size=3)
logprobs = st.none() | st.lists(
    st.lists(st.builds(LogProb, token=texts, logprob=st.floats(-9, 0), bytes=st.lists(st.integers(0, 255), max_size=3)))
)
calls = st.builds(ToolCallBlock, tool_call_id=st.none() | texts, tool_name=texts, tool_kwargs=objects | st.just("{}"))
thoughts = st.builds(
    ThinkingBlock,
    content=st.none() | texts,
    num_tokens=st.none() | st.integers(0, 99),
    additional_information=objects,
)
blocks = st.lists(st.builds(TextBlock, text=texts) | calls | thoughts, max_size=4)
messages = st.builds(
    lambda role, blocks, kwargs: ChatMessage(role=role, blocks=blocks, additional_kwargs=kwargs),
    st.sampled_from(MessageRole),
    blocks,
    objects,
)
chats = st.builds(ChatResponse, message=messages, raw=raws, logprobs=logprobs, additional_kwargs=objects)
completions = st.builds(CompletionResponse, text=texts, raw=raws, logprobs=logprobs, additional_kwargs=objects)
responses = chats | completions
marks = st.builds(HitMark, texts, texts, st.floats(0, 1), st.floats(0, 1e9), texts)


def said(response: Any) -> str:
    return response.text if isinstance(response, CompletionResponse) else response.message.content or ""


@settings(PROFILE)
@given(responses)
def test_a_response_comes_back_equal_or_is_refused_for_saying_nothing(response: Any) -> None:
    answer = to_answer(response, keep_truncated=True)
    if isinstance(answer, NotStored):
        assert not said(response).strip()
    else:
        back = from_answer(answer, hit=None)
        assert back == response
        assert to_answer(back, keep_truncated=True) == answer
        assert reading(answer).text == said(response)
        assert reading(answer).digest == answer.digest


@settings(PROFILE)
@given(responses, marks)
def test_the_pieces_of_a_hit_add_up_to_it(response: Any, mark: HitMark) -> None:
    answer = to_answer(response, keep_truncated=True)
    if isinstance(answer, Answer):
        hit = from_answer(answer, hit=mark)
        found = list(pieces(hit))
        assert "".join(piece.delta or "" for piece in found) == said(hit)
        last = found[-1].model_copy(update={"delta": None})
        last.additional_kwargs.pop("thinking_delta", None)
        assert last == hit
        assert all(piece.additional_kwargs[MARK] == mark.as_metadata() for piece in found)


@settings(PROFILE)
@given(responses)
def test_what_is_gathered_from_pieces_says_what_the_response_said(response: Any) -> None:
    answer = to_answer(response, keep_truncated=True)
    if isinstance(answer, Answer):
        collected = Gathered()
        for piece in pieces(from_answer(answer, hit=None)):
            collected.add(piece)
        whole = collected.whole()
        assert whole is None or whole == response


@settings(PROFILE)
@given(st.lists(texts, max_size=6), st.sampled_from(["so far", "new", "behind"]))
def test_a_stream_is_gathered_right_or_not_at_all(words: list[str], kind: str) -> None:
    collected, before = Gathered(), ""
    for word in words:
        text = {"so far": before + word, "new": word, "behind": before}[kind]
        collected.add(CompletionResponse(text=text, delta=word))
        before += word
    whole = collected.whole()
    assert whole is None or said(whole) == before
    assert whole is not None or kind == "new" or not words or all(words[0].startswith(word) for word in words)


@settings(PROFILE)
@given(st.binary(max_size=40) | jsons.map(lambda value: orjson.dumps(value, default=repr)))
def test_other_bytes_are_unreadable(body: bytes) -> None:
    try:
        from_answer(Answer(body, b""), hit=None)
    except UnreadableEntryError:
        return
    raise AssertionError(body)
