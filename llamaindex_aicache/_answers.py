"""LlamaIndex responses as an `Answer`, and back.

The body of an answer is JSON, positional to be read fast:

    [FORMAT, "chat", response, raw, logprobs, additional_kwargs, extra, [role, [block, ...], additional_kwargs]]
    [FORMAT, "text", response, raw, logprobs, additional_kwargs, extra, text]
    block    text   or   ["tool_call", id, name, arguments]   or   ["thinking", content, tokens, information]
             or   [block_type, {field: value, ...}]

The words choose among classes named here; no class name comes from the bytes. `response` is null, or a word for the
class that an integration has in place of the core's, whose own fields are `extra`.

What is not JSON is refused, not approximated, but for two things. An object of a provider's comes back as a `Record`,
which reads like it. And of `raw`, the provider's whole response, as much is kept as JSON holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Final, NamedTuple, cast

import orjson
from llama_index.core.base.llms.types import (
    AudioBlock,
    BaseContentBlock,
    CachePoint,
    ChatMessage,
    ChatResponse,
    CitableBlock,
    CitationBlock,
    CompletionResponse,
    DocumentBlock,
    ImageBlock,
    LogProb,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
    VideoBlock,
)

from aicache._errors import UnreadableEntryError
from aicache._learned._same import Reading
from aicache._model import Answer, Hit, NotStored, SkipReason
from llamaindex_aicache._answers_meaning import calls_of, charged, digest, text_of
from llamaindex_aicache._answers_rules import objection
from llamaindex_aicache._gathered import Gathered
from llamaindex_aicache._pieces import pieces
from llamaindex_aicache._records import UnpackableError, cast_message, pack, pack_raw, unpack
from llamaindex_aicache._values import name_of_class

__all__ = ["FORMAT", "MARK", "Gathered", "HitMark", "from_answer", "pieces", "reading", "to_answer"]

FORMAT: Final = 1
"""The version of the body this module writes, and the only one it reads."""

MARK: Final = "aicache"
"""The key of the mark in the `additional_kwargs` of a hit."""

_BLOCKS: Final[Mapping[str, type[BaseContentBlock]]] = {
    "image": ImageBlock,
    "audio": AudioBlock,
    "video": VideoBlock,
    "document": DocumentBlock,
    "cache": CachePoint,
    "citable": CitableBlock,
    "citation": CitationBlock,
}
"""Blocks that are kept by their fields."""

_RESPONSES: Final[Mapping[str, tuple[str, str]]] = {
    "anthropic-chat": ("llama_index.llms.anthropic.base", "AnthropicChatResponse"),
    "anthropic-text": ("llama_index.llms.anthropic.base", "AnthropicCompletionResponse"),
}
"""Classes of responses that integrations have made of the core's two."""
_WORDS: Final = {f"{module}.{name}": word for word, (module, name) in _RESPONSES.items()}

_CHAT_FIELDS: Final = frozenset(ChatResponse.model_fields)
_TEXT_FIELDS: Final = frozenset(CompletionResponse.model_fields)
_UNREADABLE: Final = "The stored answer is not in a format this version reads; it is ignored."
_MARKED: Final = b"\\u0000"
"""What a body holds that has something to unpack; most have not."""


class HitMark(NamedTuple):
    """What a served answer says about where it comes from, in `additional_kwargs["aicache"]`."""

    tier: str
    match: str
    score: float
    age: float
    entry_id: str

    @classmethod
    def of(cls, hit: Hit) -> HitMark:
        """The mark for this hit."""
        return cls(hit.tier, hit.match.value, hit.score, hit.age, hit.id)

    def as_metadata(self) -> dict[str, Any]:
        """A fresh dict of the five fields."""
        return self._asdict()


# --------------------------------------------------------------------------------------------- writing


def to_answer(response: ChatResponse | CompletionResponse, *, keep_truncated: bool = False) -> Answer | NotStored:
    """A response as an answer, or why it is not stored. Nothing is changed in what is passed in.

    Args:
        response: what the model returned, or what was gathered from its stream.
        keep_truncated: store answers that stopped early (a limit, a filter, a tool call cut off) too.
    """
    refused = _unknown(response) or objection(response, keep_truncated=keep_truncated)
    if refused is not None:
        return refused
    try:
        content = _pack_response(response)
        # Copied to its size: orjson's own bytes keep the buffer they grew in.
        body = bytes(memoryview(orjson.dumps(content)))
        back = _read(body)
        if not _is_faithful(response, back):
            return NotStored(SkipReason.UNSERIALISABLE, "a block that JSON does not bring back")
        return Answer(body, digest(back), charged(response))
    except UnpackableError as error:
        return NotStored(SkipReason.UNSERIALISABLE, f"not JSON: {error}")
    except (TypeError, ValueError, RecursionError, UnreadableEntryError):
        return NotStored(SkipReason.UNSERIALISABLE, "a field of the answer has a type it cannot have")


def _unknown(response: ChatResponse | CompletionResponse) -> NotStored | None:
    """Exact classes only: a subclass may mean more than its fields, and would come back as its parent."""
    kind = type(response)
    if kind not in {ChatResponse, CompletionResponse} and name_of_class(kind) not in _WORDS:
        return NotStored(SkipReason.UNSERIALISABLE, f"a response of class {kind.__qualname__}")
    if isinstance(response, ChatResponse) and type(response.message) is not ChatMessage:
        return NotStored(SkipReason.UNSERIALISABLE, f"a message of class {type(response.message).__qualname__}")
    if isinstance(response, ChatResponse) and "images" in response.message.additional_kwargs:
        return NotStored(SkipReason.UNSERIALISABLE, "images outside of blocks")
    return None


def _pack_response(response: ChatResponse | CompletionResponse) -> list[Any]:
    is_chat = isinstance(response, ChatResponse)
    known = _CHAT_FIELDS if is_chat else _TEXT_FIELDS
    extra = {name: pack(value) for name, value in response.__dict__.items() if name not in known}
    shared = [
        _WORDS.get(name_of_class(type(response))),
        pack_raw(response.raw),
        _pack_logprobs(response.logprobs),
        pack({name: value for name, value in response.additional_kwargs.items() if name != MARK}),
        extra,
    ]
    if not isinstance(response, ChatResponse):
        return [FORMAT, "text", *shared, response.text]
    message = response.message
    kwargs = {name: value for name, value in message.additional_kwargs.items() if name != MARK}
    return [FORMAT, "chat", *shared, [message.role.value, list(map(_pack_block, message.blocks)), pack(kwargs)]]


def _pack_block(block: Any) -> Any:
    kind = type(block)
    if kind is TextBlock:
        return block.text
    if kind is ToolCallBlock:
        return ["tool_call", block.tool_call_id, block.tool_name, pack(block.tool_kwargs)]
    if kind is ThinkingBlock:
        return ["thinking", block.content, block.num_tokens, pack(block.additional_information)]
    if _BLOCKS.get(getattr(block, "block_type", "")) is not kind:
        raise UnpackableError(f"a block of class {kind.__qualname__}")
    fields = block.model_dump(exclude={"block_type"}, exclude_none=True)
    fields = {name: str(value) if name in {"url", "path"} else value for name, value in fields.items()}
    return [block.block_type, pack(fields)]


def _pack_logprobs(logprobs: list[list[LogProb]] | None) -> Any:
    if logprobs is None:
        return None
    return [[[one.token, pack(one.logprob), one.bytes] for one in token] for token in logprobs]


def _is_faithful(response: ChatResponse | CompletionResponse, back: ChatResponse | CompletionResponse) -> bool:
    """Whether the words come back as they were. Other fields cannot come back otherwise."""
    if isinstance(response, ChatResponse) and isinstance(back, ChatResponse):
        return response.message.blocks == back.message.blocks
    return text_of(response) == text_of(back)


# --------------------------------------------------------------------------------------------- reading


def from_answer(answer: Answer, *, hit: HitMark | None) -> ChatResponse | CompletionResponse:
    """The response of an answer, made of fresh objects: LlamaIndex and applications change what they get.

    Args:
        answer: what `to_answer` made.
        hit: where it comes from; None leaves no mark.

    Raises:
        UnreadableEntryError: the body is damaged or of another format.
    """
    response = _read(answer.body)
    if hit is not None:
        response.additional_kwargs[MARK] = hit.as_metadata()
    return response


def reading(answer: Answer) -> Reading:
    """The answer as comparators read it.

    Raises:
        UnreadableEntryError: the body is damaged or of another format.
    """
    response = _read(answer.body)
    calls = calls_of(response.message) if isinstance(response, ChatResponse) else []
    written = orjson.dumps(sorted(calls, key=_canonical), option=orjson.OPT_SORT_KEYS) if calls else b""
    return Reading(answer.digest, text_of(response), written)


def _canonical(call: list[Any]) -> bytes:
    return orjson.dumps(call, option=orjson.OPT_SORT_KEYS)


def _read(body: bytes) -> ChatResponse | CompletionResponse:
    try:
        content = orjson.loads(body)
        if _MARKED in body:
            content = [unpack(part) for part in content]
        version, kind, word, raw, logprobs, kwargs, extra, said = content
        _expect(version == FORMAT and type(kwargs) is dict and type(extra) is dict)
        fields = {"raw": raw, "delta": None, "logprobs": _read_logprobs(logprobs), "additional_kwargs": kwargs, **extra}
        if kind == "chat":
            role, blocks, message_kwargs = said
            _expect(type(blocks) is list and type(message_kwargs) is dict and extra.keys().isdisjoint(_CHAT_FIELDS))
            message = cast_message(MessageRole(role), [_read_block(block) for block in blocks], message_kwargs)
            return cast("ChatResponse", _class(word, ChatResponse)(message=message, **fields))
        _expect(kind == "text" and type(said) is str and extra.keys().isdisjoint(_TEXT_FIELDS))
        return cast("CompletionResponse", _class(word, CompletionResponse)(text=said, **fields))
    except (TypeError, ValueError, KeyError, IndexError, AttributeError, ImportError, RecursionError) as error:
        raise UnreadableEntryError(_UNREADABLE) from error


def _class(word: str | None, core: type[Any]) -> type[Any]:
    if word is None:
        return core
    module, name = _RESPONSES[word]
    found = getattr(import_module(module), name)
    _expect(isinstance(found, type) and issubclass(found, core))
    return cast("type[Any]", found)


def _read_block(block: Any) -> BaseContentBlock:
    if type(block) is str:
        return TextBlock(text=block)
    kind, *fields = block
    if kind == "tool_call":
        number, name, given = fields
        _expect(type(name) is str and type(given) in {str, dict} and (number is None or type(number) is str))
        return ToolCallBlock(tool_call_id=number, tool_name=name, tool_kwargs=given)
    if kind == "thinking":
        content, tokens, information = fields
        _expect(content is None or type(content) is str)
        _expect((tokens is None or type(tokens) is int) and type(information) is dict)
        return ThinkingBlock(content=content, num_tokens=tokens, additional_information=information)
    (given,) = fields
    return _BLOCKS[kind](**given)


def _read_logprobs(logprobs: Any) -> list[list[LogProb]] | None:
    if logprobs is None:
        return None
    return [[LogProb(token=token, logprob=number, bytes=given) for token, number, given in one] for one in logprobs]


def _expect(fact: bool) -> None:  # noqa: FBT001 - reads like an assertion
    if not fact:
        raise ValueError
