"""LlamaIndex's chat messages as the core's turns."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, TypeAlias

from llama_index.core.base.llms.types import (
    BaseContentBlock,
    CachePoint,
    ChatMessage,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)
from pydantic import BaseModel

from aicache._model import Turn
from aicache._prompt import is_labelled
from llamaindex_aicache._values import UnseenError, dump, plain

__all__ = ["MUTE_KWARGS", "read_turns"]

_ROLES: Final[Mapping[str, str]] = {"user": "human", "assistant": "ai"}
"""Two of LlamaIndex's roles by the core's names; the others are kept as they are."""

MUTE_KWARGS: Final = frozenset(
    {
        "aicache",  # our own mark
        "prompt_tokens",  # LlamaIndex moves what a response says of itself into its message
        "completion_tokens",
        "total_tokens",
        "usage",
        "thinking_delta",
        "logprobs",
    }
)
"""Entries of a message's `additional_kwargs` that no provider is sent."""
_CALLS: Final = frozenset({"tool_calls", "function_call"})
_ID_FIELDS: Final = ("id", "call_id", "tool_use_id", "tool_call_id", "tool_id")
_KNOWN_FIELDS: Final = frozenset({"role", "blocks", "additional_kwargs"})
_BINARY: Final = frozenset({"image", "audio", "video", "data"})
_GUESSED: Final = frozenset({"image_mimetype", "video_mimetype", "document_mimetype"})

_Ids: TypeAlias = dict[str, int]


def read_turns(messages: Sequence[ChatMessage]) -> tuple[Turn, ...]:
    """The turns of a conversation.

    Raises:
        UnseenError: a message holds something that cannot be seen.
        OSError: a file that a message names cannot be read.
    """
    ids: _Ids = {}
    return tuple([_read(message, ids) for message in messages])


def _read(message: ChatMessage, ids: _Ids) -> Turn:
    if not isinstance(message, ChatMessage):
        raise UnseenError("a message is no ChatMessage")
    fields = message.__dict__
    role = getattr(fields["role"], "value", fields["role"])
    role = _ROLES.get(role, role)
    blocks, kwargs = fields["blocks"], fields["additional_kwargs"]
    if len(fields) == len(_KNOWN_FIELDS) and not kwargs and len(blocks) == 1 and type(blocks[0]) is TextBlock:
        return Turn(role, blocks[0].text)
    extra: dict[str, Any] = {}
    text = _read_blocks(blocks, ids, extra)
    if kwargs and (kept := _read_kwargs(kwargs, ids)):
        extra["additional_kwargs"] = kept
    for name in fields.keys() - _KNOWN_FIELDS:  # of a subclass
        extra[name] = plain(fields[name], name)
    return Turn(role, text, dump(dict(sorted(extra.items()))) if extra else b"")


# ------------------------------------------------------------------------------------------------------ blocks


def _read_blocks(blocks: Sequence[Any], ids: _Ids, extra: dict[str, Any]) -> str | None:
    """The text of the blocks, if it is text only; what else they hold goes into `extra`.

    Several blocks with text may be context and question in either order, so there is no one text then; only a last
    block that is a labelled question by itself (`Question: ...`) is taken, for its label tells.
    """
    # A mark for the provider's own prompt cache changes the price, not the answer.
    blocks = [block for block in blocks if type(block) is not CachePoint]
    texts = [block.text if type(block) is TextBlock else None for block in blocks]
    if not texts:
        extra["blocks"] = []
        return ""
    if len(texts) == 1 and texts[0] is not None:
        return texts[0]
    told = [at for at, text in enumerate(texts) if text != ""] or [len(texts) - 1]
    text = texts[told[-1]]
    read = [_read_block(block, ids) for block in blocks]
    extra["blocks"] = read
    if None in texts or text is None or (len(told) > 1 and not is_labelled(text)):
        return None
    read[told[-1]] = "text"  # its place shows where the text stood
    return text


def _read_block(block: Any, ids: _Ids) -> Any:
    if type(block) is TextBlock:
        return ["text", block.text]
    if not isinstance(block, BaseContentBlock):
        raise UnseenError(f"the key cannot see into a block of class {type(block).__qualname__}")
    if type(block) is ToolCallBlock:
        return ["tool_call", _number(block.tool_call_id, ids), block.tool_name, plain(block.tool_kwargs, "tool_kwargs")]
    if type(block) is ThinkingBlock:
        # Some providers are sent it again, signed; how many tokens it took none of them.
        return ["thinking", block.content, plain(block.additional_information, "thinking")]
    return [type(block).__qualname__, _read_fields(block, ids)]


def _read_fields(block: BaseModel, ids: _Ids) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for name, value in block.__dict__.items():
        if value is None:
            continue
        if isinstance(value, io.IOBase):
            kept[name] = _read_stream(value)
        elif name in _BINARY and isinstance(value, bytes):
            kept[name] = _content(value)
        elif name == "path":
            kept[name] = [Path(str(value)).suffix, _content(Path(str(value)).read_bytes())]
        elif isinstance(value, BaseContentBlock):
            kept[name] = _read_block(value, ids)
        elif isinstance(value, list) and value and all(isinstance(item, BaseContentBlock) for item in value):
            kept[name] = [_read_block(item, ids) for item in value]
        else:
            kept[name] = str(value) if name == "url" else plain(value, name)
    return kept


def _content(content: bytes) -> str:
    return sha256(content).hexdigest()


def _read_stream(stream: io.IOBase) -> str:
    """The content of an open file, which is left at the place where it was."""
    if not stream.seekable():
        raise UnseenError("a message holds a stream that can be read only once")
    place = stream.tell()
    stream.seek(0)
    try:
        content = stream.read()
    finally:
        stream.seek(place)
    return _content(content if isinstance(content, bytes) else str(content).encode())


# ---------------------------------------------------------------------------------------------- additional kwargs


def _read_kwargs(kwargs: Mapping[str, Any], ids: _Ids) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for name, value in sorted(kwargs.items()):
        if value is None or name in MUTE_KWARGS:
            continue
        if name == "tool_call_id":
            kept[name] = _number(value, ids)
        elif name in _CALLS:
            kept[name] = _renumber_all(plain(value, name), ids)
        elif name == "images":
            continue  # LlamaIndex turns these into blocks
        else:
            kept[name] = plain(value, name)
    return kept


def _renumber_all(calls: Any, ids: _Ids) -> Any:
    if isinstance(calls, dict):
        return _renumber(calls, ids)
    return [_renumber(call, ids) for call in calls] if isinstance(calls, Iterable) else calls


def _renumber(call: Any, ids: _Ids) -> Any:
    """The call with its random ids replaced by numbers, in order of first appearance in the conversation."""
    if type(call) is not dict:
        return call
    return {name: _number(value, ids) if name in _ID_FIELDS else value for name, value in call.items()}


def _number(value: Any, ids: _Ids) -> Any:
    if type(value) is str:
        return ids.setdefault(value, len(ids))
    return None if value is None else [plain(value)]  # wrapped, for an integer could pass for a number of ours
