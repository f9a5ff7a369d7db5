"""How a whole response streams: in words, each piece holding all that was said so far, as LlamaIndex's streams do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from copy import deepcopy
from typing import Any, Final

from llama_index.core.base.llms.types import (
    ChatResponse,
    CompletionResponse,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)

from llamaindex_aicache._records import Record, cast_message

__all__ = ["pieces"]

_WORD: Final = re.compile(r"\s*\S+\s*|\s+")
MOST_PIECES: Final = 200
"""Of one block of text. Word by word, an answer of 20,000 words took a gigabyte and some seconds."""
_CALLS: Final = frozenset({"tool_calls", "function_call"})
"""Entries of a message's `additional_kwargs` that come with the calls."""
_MARK: Final = "aicache"


def pieces(response: ChatResponse | CompletionResponse) -> Iterator[ChatResponse | CompletionResponse]:
    """The response in pieces whose deltas add up to its text.

    The last piece is the whole response with the last word as its delta. The mark of a hit is on every piece; token
    counts and the provider's response are on the last only, as with most providers.
    """
    last: ChatResponse | CompletionResponse | None = None
    for piece in _chat_pieces(response) if isinstance(response, ChatResponse) else _text_pieces(response):
        if last is not None:
            yield last
        last = piece
    delta = "" if last is None else last.delta
    whole = response.model_copy(update={"delta": delta})
    if isinstance(whole, ChatResponse):
        if last is not None and (thought := last.additional_kwargs.get("thinking_delta")) is not None:
            whole.additional_kwargs = {**whole.additional_kwargs, "thinking_delta": thought}
        _add_streamed_calls(whole)
    yield whole


def _text_pieces(response: CompletionResponse) -> Iterator[CompletionResponse]:
    said = ""
    for word in _spans(response.text):
        said += word
        yield type(response)(text=said, delta=word, additional_kwargs=_marked(response))


def _chat_pieces(response: ChatResponse) -> Iterator[ChatResponse]:
    done: list[Any] = []
    is_later = False
    for block in response.message.blocks:
        if type(block) is TextBlock:
            # `content` joins blocks of text by line breaks.
            yield from _spoken(response, done, block.text, "\n" if is_later else "")
            is_later = True
            done = [*done, block]
        else:
            done = [*done, block]
            thought = block.content if type(block) is ThinkingBlock else None
            yield _piece(response, done, "", {"thinking_delta": thought} if thought else {})


def _spoken(response: ChatResponse, done: list[Any], text: str, delta: str) -> Iterator[ChatResponse]:
    said = ""
    for word in _spans(text):
        said += word
        yield _piece(response, [*done, TextBlock(text=said)], delta + word, {})
        delta = ""
    if delta:
        yield _piece(response, [*done, TextBlock(text="")], delta, {})


def _spans(text: str) -> list[str]:
    """The text in words; a long one in spans of several, for each piece holds all that was said before it."""
    words: list[str] = _WORD.findall(text)
    size = -(-len(words) // MOST_PIECES)
    return words if size <= 1 else ["".join(words[start : start + size]) for start in range(0, len(words), size)]


def _piece(response: ChatResponse, blocks: list[Any], delta: str, kwargs: dict[str, Any]) -> ChatResponse:
    whole = response.message
    has_calls = any(type(block) is ToolCallBlock for block in blocks)
    own = {name: value for name, value in whole.additional_kwargs.items() if has_calls or name not in _CALLS}
    # Copies: what a reader does to a piece must not change the next.
    message = cast_message(whole.role, [_copied(block) for block in blocks], deepcopy(own) if own else {})
    # Of the same class: an integration's own may have fields that its readers look at in every piece.
    return type(response)(message=message, delta=delta, additional_kwargs={**_marked(response), **kwargs})


def _copied(block: Any) -> Any:
    return TextBlock(text=block.text) if type(block) is TextBlock else block.model_copy(deep=True)


def _marked(response: ChatResponse | CompletionResponse) -> dict[str, Any]:
    mark = response.additional_kwargs.get(_MARK)
    return {} if mark is None else {_MARK: dict(mark)}


def _add_streamed_calls(response: ChatResponse) -> None:
    """What OpenAI's class adds to a message only when it streams, and core's structured streams look for."""
    message = response.message
    calls = [block for block in message.blocks if type(block) is ToolCallBlock]
    raw = response.raw
    if not calls or "tool_calls" in message.additional_kwargs or not isinstance(raw, Record):
        return
    if raw.get("object") == "chat.completion":
        told = [_streamed_call(index, call) for index, call in enumerate(calls)]
        kwargs = {**message.additional_kwargs, "tool_calls": told}
        response.message = message.model_copy(update={"additional_kwargs": kwargs})


def _streamed_call(index: int, call: ToolCallBlock) -> Record:
    function = {"name": call.tool_name, "arguments": call.tool_kwargs or ""}
    return Record(index=index, id=call.tool_call_id, function=function, type="function")
