"""LangChain's serialised prompt, read into neutral turns.

A chat prompt arrives as `dumps(messages)`. It is read with a JSON parser and nothing else: LangChain's own `load`
builds objects by names found in the text, which is unsafe and ten times slower. What cannot change the model's answer
is left out, so that a conversation has one key whether its earlier answers came from the model or from a cache.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

import orjson

from aicache._model import Turn, Unkeyable
from aicache._prompt import is_labelled

__all__ = ["read_prompt"]

Reading: TypeAlias = tuple[str, tuple[Turn, ...]]
"""`chat` or `text`, and the turns."""

_ROLES: Final = {
    "human": "human",
    "HumanMessage": "human",
    "HumanMessageChunk": "human",
    "ai": "ai",
    "AIMessage": "ai",
    "AIMessageChunk": "ai",
    "system": "system",
    "SystemMessage": "system",
    "SystemMessageChunk": "system",
    "tool": "tool",
    "ToolMessage": "tool",
    "ToolMessageChunk": "tool",
}

_DROPPED: Final = frozenset(
    {
        "content",  # read apart
        "type",  # the role
        "id",  # random
        "response_metadata",  # read apart
        "usage_metadata",  # what the answer cost; core adds `total_cost` to a cached one
        "artifact",  # a tool's result for the application, never sent to the model
        "tool_call_chunks",  # streamed form of `tool_calls`
        "chunk_position",
        "example",
    }
)
_KEPT_METADATA: Final = ("output_version", "model_provider", "container")
"""The response metadata from which integrations build the next request."""
_DERIVED: Final = frozenset({"parsed"})
"""Additional kwargs made from the content; a structured answer is an object there at first and a dict after a cache."""
_NOTHING: Final[tuple[object, ...]] = (None, [], {})
_CALLS: Final = frozenset({"tool_calls", "invalid_tool_calls"})
_ID_FIELDS: Final = ("id", "call_id", "tool_use_id", "tool_call_id")

_FOREIGN: Final = '"not_implemented"'
_ESCAPED: Final = "__lc_escaped__"
_BIG_NUMBER: Final = re.compile(rb"[:,\[]-?[0-9](?:\.[0-9]+)?e\+?[0-9]")
"""A float of 1e16 or more as orjson writes it (`1e16`, `1e+16`): perhaps an integer that it could not hold."""

_Dump: TypeAlias = Callable[[Mapping[str, Any]], bytes]
_Ids: TypeAlias = dict[str, int]


class _ForeignObjectError(Exception):
    """A message holds an object that LangChain could not serialise."""


def read_prompt(prompt: str) -> Reading | Unkeyable:
    """The conversation in LangChain's `prompt`, or why it cannot be told from another one.

    `("chat", turns)` for a non-empty JSON list of serialised messages; anything else is `("text", one human turn)`.
    """
    try:
        return _read_fast(prompt) or _read_exactly(prompt)
    except _ForeignObjectError:
        return Unkeyable("a message holds an object that cannot be serialised")
    except RecursionError:
        return Unkeyable("a message is nested too deeply")


def _read_fast(prompt: str) -> Reading | None:
    """The reading by orjson; None where only Python's own parser would be exact."""
    messages = _messages(prompt, orjson.loads)
    if messages is None:
        return None
    try:
        turns = _turns(messages, prompt, _dump)
    except TypeError:  # deeper than orjson writes
        return None
    return None if _BIG_NUMBER.search(b"".join([turn.extra for turn in turns])) else ("chat", turns)


def _read_exactly(prompt: str) -> Reading:
    # Python's parser takes what orjson does not, NaN and lone surrogates, and keeps integers beyond 64 bits.
    messages = _messages(prompt, json.loads)
    if messages is None:
        return "text", (Turn("human", prompt),)
    return "chat", _turns(messages, prompt, _dump_all)


def _messages(prompt: str, parse: Callable[[str], Any]) -> list[dict[str, Any]] | None:
    """The serialised messages, or None when the text is not exactly a list of them."""
    if not prompt.startswith("["):
        return None
    try:
        parsed = parse(prompt)
    except (ValueError, RecursionError):
        return None
    if not isinstance(parsed, list) or not parsed or not all(map(_is_message, parsed)):
        return None
    return parsed


def _is_message(value: Any) -> bool:
    try:
        return (
            value["lc"] == 1
            and value["type"] == "constructor"
            and type(value["kwargs"]) is dict
            and type(value["id"]) is list
            and type(value["id"][-1]) is str
        )
    except (KeyError, IndexError, TypeError):
        return False


def _turns(messages: list[dict[str, Any]], prompt: str, dump: _Dump) -> tuple[Turn, ...]:
    ids: _Ids = {}
    if _FOREIGN in prompt or _ESCAPED in prompt:
        return tuple(_turn(message["id"][-1], _plain_kwargs(message["kwargs"]), ids, dump) for message in messages)
    return tuple([_turn(message["id"][-1], message["kwargs"], ids, dump) for message in messages])


def _turn(class_name: str, kwargs: dict[str, Any], ids: _Ids, dump: _Dump) -> Turn:
    role = kwargs.get("type")
    role = _ROLES.get(role) or role if type(role) is str else _ROLES.get(class_name, class_name)
    content = kwargs.get("content")
    extra: dict[str, Any] = {}
    text: str | None
    if type(content) is str:
        text = content
        if len(kwargs) == 2 and "type" in kwargs:
            return Turn(role, text)
    else:
        text = _read_content(content, ids, extra)
    _read_rest(kwargs, ids, extra)
    return Turn(role, text, dump(extra) if extra else b"")


def _read_rest(kwargs: dict[str, Any], ids: _Ids, extra: dict[str, Any]) -> None:
    """What counts besides role and content goes into `extra`."""
    for name, value in kwargs.items():
        if name in _DROPPED or (not value and value in _NOTHING):
            continue
        if name in _CALLS:
            extra[name] = _renumber_all(value, ids)
        elif name == "tool_call_id":
            extra[name] = _number(value, ids)
        elif name == "additional_kwargs" and type(value) is dict:
            if kept := _read_additional(value, ids):
                extra[name] = kept
        else:
            extra[name] = value
    metadata = kwargs.get("response_metadata")
    if type(metadata) is dict:
        for name in _KEPT_METADATA:
            if (value := metadata.get(name)) is not None:
                extra["response_metadata." + name] = value


def _read_additional(additional: dict[str, Any], ids: _Ids) -> dict[str, Any]:
    # A provider writes None where a streamed answer has nothing.
    kept = {name: value for name, value in additional.items() if value is not None and name not in _DERIVED}
    if "tool_calls" in kept:
        kept["tool_calls"] = _renumber_all(kept["tool_calls"], ids)
    return kept


# --------------------------------------------------------------------------------------------------- content


def _read_content(content: object, ids: _Ids, extra: dict[str, Any]) -> str | None:
    """The text of a content that is not a str, if it is text only; what else it holds goes into `extra`.

    Several blocks with text may be context and question in either order, so there is no one text then; only a last
    block that is a labelled question by itself (`Question: ...`) is taken, for its label tells.
    """
    if type(content) is not list:
        extra["content"] = content
        return None
    if not content:
        return ""
    blocks = [_read_block(block, ids) for block in content]
    texts = [block.get("text") if type(block) is dict and block.get("type") == "text" else None for block in blocks]
    told = [at for at, text in enumerate(texts) if text != ""] or [len(texts) - 1]
    text = texts[told[-1]]
    if not all(type(one) is str for one in texts) or type(text) is not str or (len(told) > 1 and not is_labelled(text)):
        extra["content"] = blocks
        return None
    taken = blocks[told[-1]]
    del taken["text"]  # Its place in the list shows where the text stood.
    if len(blocks) > 1 or len(taken) > 1:
        extra["content"] = blocks
    return text


def _read_block(block: Any, ids: _Ids) -> Any:
    if type(block) is str:
        return {"type": "text", "text": block}
    if type(block) is not dict:
        return block
    # A mark for the provider's own prompt cache changes the price, not the answer.
    kept = {name: value for name, value in block.items() if name != "cache_control"}
    made = kept.get("id")
    if type(made) is str and made.startswith("lc_"):
        del kept["id"]
    kind = kept.get("type")
    return _renumber(kept, ids) if type(kind) is str and ("tool" in kind or "_call" in kind) else kept


def _renumber_all(calls: Any, ids: _Ids) -> Any:
    return [_renumber(call, ids) for call in calls] if type(calls) is list else calls


def _renumber(call: Any, ids: _Ids) -> Any:
    """The call with its random ids replaced by numbers, in order of first appearance in the conversation."""
    if type(call) is not dict:
        return call
    numbered = dict(call)
    for name in _ID_FIELDS:
        if name in numbered:
            numbered[name] = _number(numbered[name], ids)
    return numbered


def _number(value: Any, ids: _Ids) -> Any:
    if type(value) is str:
        return ids.setdefault(value, len(ids))
    return None if value is None else [value]  # wrapped, for an integer could pass for a number of ours


# ------------------------------------------------------------------------------------------------------- JSON


def _plain_kwargs(kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments without LangChain's escapes around dicts of the application.

    Raises:
        _ForeignObjectError: what remains holds an object known by its `repr` only.
    """
    kept = {name: value for name, value in kwargs.items() if name == "content" or name not in _DROPPED}
    additional = kept.get("additional_kwargs")
    if type(additional) is dict:
        kept["additional_kwargs"] = {name: value for name, value in additional.items() if name not in _DERIVED}
    plain = {name: _plain(value) for name, value in kept.items()}
    metadata = kwargs.get("response_metadata")
    if type(metadata) is dict:
        plain["response_metadata"] = {name: _plain(metadata[name]) for name in _KEPT_METADATA if name in metadata}
    return plain | {"type": kwargs.get("type")}


def _plain(value: Any) -> Any:
    if type(value) is list:
        return [_plain(item) for item in value]
    if type(value) is not dict:
        return value
    if len(value) == 1 and _ESCAPED in value:
        return value[_ESCAPED]  # the application's own: what it looks like means nothing
    if value.get("lc") == 1 and value.get("type") == "not_implemented":
        raise _ForeignObjectError
    return {name: _plain(item) for name, item in value.items()}


def _dump(extra: Mapping[str, Any]) -> bytes:
    return orjson.dumps(extra, option=orjson.OPT_SORT_KEYS)


def _dump_all(extra: Mapping[str, Any]) -> bytes:
    return json.dumps(extra, sort_keys=True, separators=(",", ":")).encode()
