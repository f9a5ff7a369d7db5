"""A stream, gathered into the response that a call without a stream would have given.

Most of LlamaIndex's streams repeat in each chunk all that was said so far, and the last chunk is the whole. Some give
in each chunk only what is new (OpenAI's Responses, until the last), some are one step behind (MockLLM), and some say
nothing in `delta`. What is gathered must be right or nothing: where chunks contradict each other it is nothing.
"""

from __future__ import annotations

from typing import Any, Final

from llama_index.core.base.llms.types import (
    ChatResponse,
    CompletionResponse,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)

from llamaindex_aicache._answers_meaning import text_of
from llamaindex_aicache._answers_rules import ending_words, usage_of
from llamaindex_aicache._records import Record, pack_raw, unpack

__all__ = ["Gathered"]

_OF_ONE_CHUNK: Final = frozenset({"thinking_delta"})


class Gathered:
    """Collects the chunks of one stream, and changes none."""

    def __init__(self) -> None:
        self._last: ChatResponse | CompletionResponse | None = None
        self._chunks = 0
        self._deltas: list[str] = []
        self._text = ""
        self._grows = True
        """Each chunk's text began with that of the one before."""
        self._repeats = True
        """Each chunk's text was its delta."""
        self._kwargs: dict[str, Any] = {}
        self._blocks: list[Any] = []
        self._message_kwargs: dict[str, Any] = {}
        self._calls: dict[str, ToolCallBlock] = {}
        self._has_nameless_calls = False
        self._thoughts: list[str] = []
        self._role: MessageRole | None = None
        self._ending: Any = None
        self._usage: Any = None

    def add(self, chunk: ChatResponse | CompletionResponse) -> None:
        """The next chunk."""
        text = text_of(chunk)
        delta = chunk.delta or ""
        if delta:
            self._deltas.append(delta)
        self._grows = self._grows and text.startswith(self._text)
        self._repeats = self._repeats and text == delta
        self._text = text
        self._chunks += 1
        self._last = chunk
        self._kwargs.update(chunk.additional_kwargs)
        if isinstance(chunk, ChatResponse):
            self._add_message(chunk)
        if chunk.raw is not None:
            if any(ending_words(chunk.raw)):
                self._ending = chunk.raw
            if any(usage_of(chunk.raw)):
                self._usage = chunk.raw

    def _add_message(self, chunk: ChatResponse) -> None:
        message = chunk.message
        self._blocks = [_kept(block) for block in message.blocks]
        self._message_kwargs.update(message.additional_kwargs)
        if message.role is not MessageRole.USER or self._role is None:
            self._role = message.role
        if isinstance(thought := chunk.additional_kwargs.get("thinking_delta"), str):
            self._thoughts.append(thought)
        for block in self._blocks:
            if isinstance(block, ToolCallBlock):
                if block.tool_call_id:
                    self._calls[block.tool_call_id] = block
                else:
                    self._has_nameless_calls = True

    def whole(self) -> ChatResponse | CompletionResponse | None:
        """The response; None if there was no chunk, or if it is not clear what the stream said."""
        last = self._last
        text = self._whole_text()
        if last is None or text is None:
            return None
        kwargs = {name: value for name, value in self._kwargs.items() if name not in _OF_ONE_CHUNK}
        update = {"raw": self._whole_raw(last), "delta": None, "additional_kwargs": kwargs}
        if isinstance(last, CompletionResponse):
            return last.model_copy(update={**update, "text": text})
        blocks = self._whole_blocks(text)
        if blocks is None:
            return None
        message = last.message.model_copy(
            update={"role": self._role, "blocks": blocks, "additional_kwargs": dict(self._message_kwargs)}
        )
        return last.model_copy(update={**update, "message": message})

    def _whole_text(self) -> str | None:
        said, told = self._text, "".join(self._deltas)
        if said == told or not told:
            return said
        if self._repeats and self._chunks > 1:
            return None if self._grows else told  # or each delta is the whole so far
        if told.startswith(said):
            return told
        # Deltas that hold more than the text (thoughts, arguments of calls), or that some chunks left out.
        return said if self._grows and (told in said or (said and said in told)) else None

    def _whole_blocks(self, text: str) -> list[Any] | None:
        blocks = list(self._blocks)
        if text != self._text:
            at = next((at for at, block in enumerate(blocks) if isinstance(block, TextBlock)), None)
            rest = [block for block in blocks if not isinstance(block, TextBlock)]
            thoughts = sum(isinstance(block, ThinkingBlock) for block in rest)
            rest.insert(min(len(rest), thoughts if at is None else at), TextBlock(text=text))
            blocks = rest
        if self._thoughts and not any(isinstance(block, ThinkingBlock) for block in blocks):
            blocks.insert(0, ThinkingBlock(content="".join(self._thoughts)))
        held = [block for block in blocks if isinstance(block, ToolCallBlock)]
        if self._has_nameless_calls and not any(not block.tool_call_id for block in held):
            return None  # calls without an id were in a chunk before, and nothing tells whether these are they
        told = {block.tool_call_id for block in held}
        missing = [block for number, block in self._calls.items() if number not in told]
        if any(_is_the_same(one, other) for one in missing for other in held):
            return None  # a call whose id changes from chunk to chunk, or two that are alike
        return [*blocks, *missing]

    def _whole_raw(self, last: ChatResponse | CompletionResponse) -> Any:
        """The last chunk's own response, with how the answer ended and what it cost if another chunk said so."""
        others = [raw for raw in (self._ending, self._usage) if raw is not None and raw is not last.raw]
        if not others:
            return last.raw
        merged: dict[str, Any] = {}
        for raw in (*others, last.raw):
            seen = unpack(pack_raw(raw)) or {}
            merged.update({name: value for name, value in seen.items() if value not in (None, [], {}, "")})
        return Record(merged)


def _kept(block: Any) -> Any:
    """The block as it is now: a reader may change what it was given before the stream has ended."""
    if type(block) is TextBlock:
        return TextBlock(text=block.text)
    # Arguments that are text, as while they still grow, cannot be changed.
    if isinstance(block, ToolCallBlock) and not isinstance(block.tool_kwargs, str):
        return block.model_copy(deep=True)
    return block


def _is_the_same(early: ToolCallBlock, late: ToolCallBlock) -> bool:
    """Whether one may be the other before all its arguments had come."""
    return early.tool_name == late.tool_name and str(late.tool_kwargs).startswith(str(early.tool_kwargs))
