"""What an answer says, as a hash and as text, and what it cost."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Final

import orjson
from llama_index.core.base.llms.types import (
    CachePoint,
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)

from aicache._model import Usage
from llamaindex_aicache._answers_rules import get, usage_of
from llamaindex_aicache._records import pack

__all__ = ["calls_of", "charged", "digest", "text_of"]

# Stripped from both ends, respectively from the end only. Nothing that changes what an answer says: ".5", "-5",
# "$5", "5%", "C++" and "(5)" stay apart from "5" and "C".
_QUOTES: Final = " \"'`“”‘’«»"
_SENTENCE_ENDS: Final = _QUOTES + ".,;:!?…。！？"

_TOKEN_KEYS: Final = (
    ("prompt_tokens", "completion_tokens"),  # OpenAI, Groq, Mistral; what LlamaIndex's own counters read
    ("input_tokens", "output_tokens"),  # Anthropic, OpenAI Responses
    ("prompt_token_count", "candidates_token_count"),  # Gemini
    ("promptTokenCount", "candidatesTokenCount"),
    ("inputTokens", "outputTokens"),  # Bedrock Converse
    ("prompt_eval_count", "eval_count"),  # Ollama, without a mapping around them
)


def text_of(response: ChatResponse | CompletionResponse) -> str:
    """The text of a response; "" if it has none."""
    return response.text if isinstance(response, CompletionResponse) else response.message.content or ""


def calls_of(message: ChatMessage) -> list[list[Any]]:
    """Its tool calls, `[name, arguments]`, in their order: from its blocks, or else from `additional_kwargs`."""
    blocks = [block for block in message.blocks if isinstance(block, ToolCallBlock)]
    if blocks:
        return [[block.tool_name, _arguments(block.tool_kwargs)] for block in blocks]
    calls = message.additional_kwargs.get("tool_calls")
    return [_read_call(call) for call in calls] if isinstance(calls, list) else []


def digest(response: ChatResponse | CompletionResponse) -> bytes:
    """16 bytes that are equal for responses that say the same in the same words, or call the same tools.

    Text is compared in folded case, with runs of white space as one space, without quotes around it and the punctuation
    that ends it. Tool calls are compared by name and arguments, in any order; text beside them does not count. Blocks
    that are not text (images, citations) are compared as they are; reasoning does not count.
    """
    message = response.message if isinstance(response, ChatResponse) else None
    if message is not None and (calls := calls_of(message)):
        return _hash(b"calls", *sorted(_canonical(call) for call in calls))
    text = _normalised(text_of(response)).encode("utf-8", "surrogatepass")
    blocks = [] if message is None else _other_blocks(message)
    if message is not None and not text and not blocks:
        return _hash(b"kwargs", _canonical(pack(message.additional_kwargs)))
    return _hash(b"text", text, *blocks)


def charged(response: ChatResponse | CompletionResponse) -> Usage | None:
    """The tokens of the model call, or None where the provider did not say."""
    raw, own = response.raw, response.additional_kwargs
    for counts in (own, *usage_of(own), *usage_of(raw), raw):
        if counts is None or isinstance(counts, str):
            continue
        for tokens_in, tokens_out in _TOKEN_KEYS:
            usage = _number(get(counts, tokens_in)), _number(get(counts, tokens_out))
            if any(usage):
                return Usage(*usage)
    return None


def _read_call(call: Any) -> list[Any]:
    """A call as providers' classes and mappings spell it."""
    function = get(call, "function")
    inner = call if function is None else function
    name = next((found for key in ("name", "tool_name") if isinstance(found := get(inner, key), str)), "")
    keys = ("arguments", "tool_kwargs", "input", "args")
    given = next((found for key in keys if (found := get(inner, key)) is not None), None)
    return [name, _arguments(given)]


def _arguments(given: Any) -> Any:
    if given is None or given == "":
        return {}  # how some providers say that there are none
    if not isinstance(given, str):
        return pack(given)
    try:
        return orjson.loads(given)
    except ValueError:
        return given


def _normalised(text: str) -> str:
    folded = " ".join(text.casefold().split())
    # An answer of punctuation only is compared as it is.
    return folded.lstrip(_QUOTES).rstrip(_SENTENCE_ENDS) or folded


def _other_blocks(message: ChatMessage) -> list[bytes]:
    return [
        _canonical(pack({name: _spelt(value) for name, value in block.model_dump().items()}))
        for block in message.blocks
        if not isinstance(block, TextBlock | ThinkingBlock | CachePoint)
    ]


def _spelt(value: Any) -> Any:
    """Addresses and paths as text."""
    if isinstance(value, Mapping):
        return {name: _spelt(item) for name, item in value.items()}
    return value if value is None or isinstance(value, str | int | float | bytes | list) else str(value)


def _canonical(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def _hash(kind: bytes, *parts: bytes) -> bytes:
    # The length before each part: ("ab", "c") and ("a", "bc") differ.
    framed = b"".join(len(part).to_bytes(8, "little") + part for part in (kind, *parts))
    return sha256(framed).digest()[:16]


def _number(value: Any) -> int:
    return value if type(value) is int and value > 0 else 0
