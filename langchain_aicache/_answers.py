"""LangChain generations as an `Answer`, and back, without loss.

The body of an answer is JSON, positional to be read fast:

    [FORMAT, [generation, ...]]
    generation   ["chat", text | null, info | null, message]   or   ["text", text, info | null]
    message      ["ai", content, additional_kwargs, response_metadata, name, extra,
                  tool_calls, invalid_tool_calls, usage | null]
                 ["chat", content, additional_kwargs, response_metadata, name, extra, role]

The words "ai", "chat" and "text" choose among four classes named here; no class name comes from the bytes.
`text` of a chat generation is null where it is the message's own text. `extra` holds the fields that this
version of LangChain has beyond those, or that the provider added.

What is not JSON is refused, not approximated: the body is read back and compared when it is written. Two
things are lost on purpose. The `id` of a message, because LangGraph replaces a message by a later one with the
same id. And the class of `additional_kwargs["parsed"]`, see `_parsed`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType, NoneType
from typing import Any, Final, Generic, Literal, NamedTuple, TypeVar

import orjson
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    ChatMessageChunk,
    message_chunk_to_message,
)
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, Generation, GenerationChunk
from pydantic import BaseModel

from aicache._errors import UnreadableEntryError
from aicache._learned import Reading
from aicache._model import Answer, Hit, NotStored, SkipReason
from langchain_aicache._answers_meaning import charged, digest, reading
from langchain_aicache._answers_rules import objection

__all__ = ["FORMAT", "MARK", "HitMark", "from_answer", "read_answer", "to_answer"]

M = TypeVar("M", bound=BaseModel)

FORMAT: Final = 1
"""The version of the body this module writes, and the only one it reads."""

MARK: Final = "aicache"
"""The key of the mark in the `response_metadata` of a hit."""

_PARTS_OF_USAGE: Final = ("input_tokens", "output_tokens")
_NO_USAGE: Final[Mapping[str, int]] = MappingProxyType({"input_tokens": 0, "output_tokens": 0, "total_tokens": 0})

# The fields of a message that have a place of their own in the body; `id` and `type` have none on purpose.
_SHARED_FIELDS: Final = frozenset(
    {"content", "additional_kwargs", "response_metadata", "name", "id", "type", "content_blocks"}
)
_AI_FIELDS: Final = _SHARED_FIELDS | {"tool_calls", "invalid_tool_calls", "usage_metadata"}
_CHAT_FIELDS: Final = _SHARED_FIELDS | {"role"}
_GENERATION_FIELDS: Final = frozenset({"text", "generation_info", "type", "message"})


def _blank_message(**extra: Any) -> AIMessage:
    return AIMessage(
        content="",
        additional_kwargs={},
        response_metadata={},
        name=None,
        id=None,
        tool_calls=[],
        invalid_tool_calls=[],
        usage_metadata=None,
        **extra,
    )


class _Mould(Generic[M]):
    """A prototype that new objects are cast from: half the time of the validating constructors.

    What was in a message comes back as it was, untouched by validators that fill fields from other fields. Made with
    the methods pickle uses. The fields given must cover every mutable one, so that nothing is shared.
    """

    def __init__(self, prototype: M) -> None:
        state = prototype.__getstate__()
        self._cls = type(prototype)
        self._fields: dict[str, Any] = state["__dict__"]
        self._fields_set: set[str] = state["__pydantic_fields_set__"]
        self._has_extra = state["__pydantic_extra__"] is not None

    def cast(self, fields: dict[str, Any]) -> M:
        made = self._cls.__new__(self._cls)
        made.__setstate__(
            {
                "__dict__": {**self._fields, **fields},
                "__pydantic_fields_set__": self._fields_set.copy(),
                "__pydantic_extra__": {} if self._has_extra else None,
                "__pydantic_private__": None,
            }
        )
        return made


_AI_MESSAGE: Final = _Mould(_blank_message())
_CHAT_GENERATION: Final = _Mould(ChatGeneration(message=_blank_message(), generation_info=None))

_CONTENT_PARTS: Final = frozenset({str, dict})
_MALFORMED: Final = "a field of the answer has a type it cannot have"
_UNREADABLE: Final = "The stored answer is not in a format this version reads; it is ignored."


class HitMark(NamedTuple):
    """What a served answer says about where it comes from, in `response_metadata["aicache"]`."""

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
        return {
            "tier": self.tier,
            "match": self.match,
            "score": self.score,
            "age": self.age,
            "entry_id": self.entry_id,
        }


# --------------------------------------------------------------------------------------------- writing


def to_answer(generations: Sequence[Generation], *, keep_truncated: bool = False) -> Answer | NotStored:
    """All generations of one model call as an answer, or why they are not stored.

    One generation that is empty, cut off or failed spoils the call: a hit returns all of them. A chunk is
    stored as the whole message it stands for. Nothing is changed in what is passed in.

    Args:
        generations: what the model returned.
        keep_truncated: store answers that stopped early (a limit, a filter, a tool call cut off) too.
    """
    if not generations:
        return NotStored(SkipReason.EMPTY, "no generations")
    stored: list[list[Any]] = []
    for generation in generations:
        packed = _pack_generation(generation, keep_truncated=keep_truncated)
        if isinstance(packed, NotStored):
            return packed
        stored.append(packed)
    content = [FORMAT, stored]
    try:
        # Copied to its size: orjson's own bytes keep the buffer they grew in, 16 KB for an answer of 1 KB.
        body = bytes(memoryview(orjson.dumps(content)))
        # NaN becomes null, a tuple a list, a dataclass a dict; only what comes back equal is kept.
        faithful = orjson.loads(body) == content
    except (TypeError, ValueError, RecursionError):
        faithful = False
    if not faithful:
        return NotStored(SkipReason.UNSERIALISABLE, f"not JSON: {_not_json(stored)}")
    try:
        first = from_answer(Answer(body, b""), hit=None, usage_on_hit="original")[0]
    except UnreadableEntryError:
        return NotStored(SkipReason.UNSERIALISABLE, _MALFORMED)
    return Answer(body, digest(first), charged(first))


def _pack_generation(generation: Generation, *, keep_truncated: bool) -> list[Any] | NotStored:
    # Exact classes, here and for messages: a subclass may mean more than its fields, and would come back as
    # its parent.
    known = type(generation) in {Generation, GenerationChunk, ChatGeneration, ChatGenerationChunk}
    if not known or _extra(generation, _GENERATION_FIELDS):
        return NotStored(SkipReason.UNSERIALISABLE, f"a generation of class {type(generation).__name__}")
    text: Any = generation.text
    info: Any = generation.generation_info
    if not isinstance(text, str) or not isinstance(info, (dict, NoneType)):
        return NotStored(SkipReason.UNSERIALISABLE, _MALFORMED)
    if not isinstance(generation, ChatGeneration):
        return objection(text, info, None, keep_truncated=keep_truncated) or ["text", text, info]
    message = _whole(generation.message)
    fields = _pack_message(message)
    if isinstance(fields, NotStored):
        return fields
    packed = ["chat", None if text == message.text else text, info, fields]
    return objection(text, info, message, keep_truncated=keep_truncated) or packed


def _whole(message: BaseMessage) -> BaseMessage:
    """The message itself, or what LangChain makes of a chunk when it merges a stream."""
    if type(message) not in {AIMessageChunk, ChatMessageChunk}:
        return message
    try:
        return message_chunk_to_message(message)
    except (AttributeError, KeyError, TypeError, ValueError):  # The validators trip over a malformed chunk.
        return message  # It is refused like any class that is not known.


def _is_list_of_parts(content: object) -> bool:
    return isinstance(content, list) and all(isinstance(part, (str, dict)) for part in content)


def _pack_message(message: BaseMessage) -> list[Any] | NotStored:
    content, kwargs, metadata = message.content, message.additional_kwargs, message.response_metadata
    if not (
        (isinstance(content, str) or _is_list_of_parts(content))
        and isinstance(kwargs, dict)
        and isinstance(metadata, dict)
    ):
        return NotStored(SkipReason.UNSERIALISABLE, _MALFORMED)
    if isinstance(parsed := kwargs.get("parsed"), BaseModel):
        plain = _parsed(parsed)
        if plain is None:
            return NotStored(SkipReason.UNSERIALISABLE, "structured output that JSON does not bring back")
        kwargs = {**kwargs, "parsed": plain}
    metadata = {key: value for key, value in metadata.items() if key != MARK}
    shared = [content, kwargs, metadata, message.name]
    if type(message) is AIMessage:
        calls = [message.tool_calls, message.invalid_tool_calls, _complete(message.usage_metadata)]
        return ["ai", *shared, _extra(message, _AI_FIELDS), *calls]
    if type(message) is ChatMessage:
        return ["chat", *shared, _extra(message, _CHAT_FIELDS), message.role]
    return NotStored(SkipReason.UNSERIALISABLE, f"a message of class {type(message).__name__}")


def _parsed(parsed: BaseModel) -> dict[str, Any] | None:
    """The structured output as a dict from which its class makes an equal object, or None.

    `langchain_openai` puts the object of `with_structured_output` into `additional_kwargs["parsed"]`, and its
    parser accepts a dict in that place: it calls `schema(**parsed)`. The chain's result is then the same on a
    hit, whatever aliases or serialisers the class has, for that very call is tried here. Left out, the
    parser would raise; a dict that fails would raise in the application.
    """
    for by_alias in (False, True):
        try:
            plain = parsed.model_dump(mode="json", by_alias=by_alias, warnings=False)
            if isinstance(plain, dict) and plain and type(parsed)(**plain) == parsed:
                return plain
        except Exception:  # noqa: BLE001, S112 - the application's validators may raise anything
            continue
    return None


def _complete(usage: Any) -> Any:
    """The usage with all three totals: LangChain adds to it on a hit, and an incomplete one fails later."""
    if not isinstance(usage, dict):  # A wrong type is refused with the rest of the body.
        return usage
    known = {key: value for key, value in usage.items() if value is not None}
    total = sum(count for key in _PARTS_OF_USAGE if isinstance(count := known.get(key), int))
    return {**_NO_USAGE, "total_tokens": total, **known}


def _extra(model: Generation | BaseMessage, known: frozenset[str]) -> dict[str, Any]:
    """Values beyond the known fields: of newer versions of LangChain, or added by a provider."""
    extra = dict(model.model_extra or {})
    for name, field in type(model).model_fields.items():
        if name not in known:
            value = getattr(model, name)
            if value != field.get_default(call_default_factory=True):
                extra[name] = value
    return extra


def _not_json(stored: Sequence[Sequence[Any]]) -> str:
    """The names of the fields to blame; never their values."""
    names = ("content", "additional_kwargs", "response_metadata", "name", "extra fields")
    blamed: set[str] = set()
    for _, text, info, *message in stored:
        fields = message[0][1:] if message else ()
        for value, name in ((text, "text"), (info, "generation_info"), *zip(fields, names, strict=False)):
            try:
                if orjson.loads(orjson.dumps(value)) == value:
                    continue
            except (TypeError, ValueError, RecursionError):
                pass
            blamed.add(name)
    return ", ".join(sorted(blamed)) or "tool calls or usage"


# --------------------------------------------------------------------------------------------- reading


def from_answer(answer: Answer, *, hit: HitMark | None, usage_on_hit: Literal["original", "zero"]) -> list[Generation]:
    """The generations of the answer: new objects each time, which share nothing with any other call.

    Messages have no `id`, a complete `usage_metadata` (zeros where it is not known), and the mark.

    Args:
        answer: as `to_answer` made it.
        hit: what to mark chat messages with; None for no mark. A plain generation is never marked.
        usage_on_hit: "original": the tokens of the first call; "zero": none, for a hit costs none. The raw
            figures of a provider in `response_metadata` stay as they were.

    Raises:
        UnreadableEntryError: the body is not one that `to_answer` writes.
    """
    try:
        version, stored = orjson.loads(answer.body)
        if type(version) is not int or version != FORMAT or type(stored) is not list or not stored:
            raise UnreadableEntryError(_UNREADABLE)
        zero = usage_on_hit == "zero"
        return [_unpack_generation(packed, hit, zero=zero) for packed in stored]
    except (ValueError, TypeError, KeyError, IndexError, AttributeError):
        raise UnreadableEntryError(_UNREADABLE) from None


def read_answer(answer: Answer) -> Reading:
    """The answer as comparators read it: the first generation speaks for all.

    Raises:
        UnreadableEntryError: as `from_answer`.
    """
    return reading(from_answer(answer, hit=None, usage_on_hit="original")[0], answer.digest)


def _unpack_generation(packed: list[Any], hit: HitMark | None, *, zero: bool) -> Generation:
    if packed[0] == "text":
        _, text, info = packed
        _expect(type(text) is str and (info is None or type(info) is dict))
        return Generation(text=text, generation_info=info)
    kind, text, info, fields = packed
    _expect(kind == "chat" and (text is None or type(text) is str) and (info is None or type(info) is dict))
    message = _unpack_message(fields, hit, zero=zero)
    if text is None:
        text = _text(message)
    return _CHAT_GENERATION.cast({"text": text, "generation_info": info, "message": message})


def _unpack_message(fields: list[Any], hit: HitMark | None, *, zero: bool) -> BaseMessage:
    kind, content, kwargs, metadata, name, extra, *own = fields
    _expect(
        (type(content) is str or (type(content) is list and _CONTENT_PARTS.issuperset(map(type, content))))
        and type(kwargs) is dict
        and type(metadata) is dict
        and (name is None or type(name) is str)
        and type(extra) is dict
    )
    if hit is not None:
        metadata[MARK] = hit.as_metadata()
    shared = {"content": content, "additional_kwargs": kwargs, "response_metadata": metadata, "name": name}
    if kind == "ai":
        return _ai_message(shared, extra, *own, zero=zero)
    (role,) = own
    _expect(kind == "chat" and type(role) is str and extra.keys().isdisjoint(_CHAT_FIELDS))
    message = ChatMessage(
        content="", additional_kwargs={}, response_metadata={}, name=None, id=None, role=role, **extra
    )
    message.__dict__.update(shared)
    return message


def _ai_message(
    shared: dict[str, Any], extra: dict[str, Any], calls: Any, invalid: Any, usage: Any, *, zero: bool
) -> AIMessage:
    _expect(type(calls) is list and type(invalid) is list)
    if calls:
        _expect(all(type(call["name"]) is str and type(call["args"]) is dict for call in calls))
    if invalid:
        _expect(all(type(call) is dict for call in invalid))
    if usage is None or zero:
        usage = {**_NO_USAGE}
    else:
        _expect(type(usage["input_tokens"]) is type(usage["output_tokens"]) is type(usage["total_tokens"]) is int)
    fields = {**shared, "tool_calls": calls, "invalid_tool_calls": invalid, "usage_metadata": usage}
    if not extra:
        return _AI_MESSAGE.cast(fields)
    _expect(extra.keys().isdisjoint(_AI_FIELDS))
    message = _blank_message(**extra)
    message.__dict__.update(fields)
    return message


def _text(message: BaseMessage) -> str:
    # `message.text` gives the same and takes half a microsecond.
    return message.content if isinstance(message.content, str) else message.text


def _expect(fact: bool) -> None:  # noqa: FBT001 - reads like an assertion
    if not fact:
        raise ValueError
