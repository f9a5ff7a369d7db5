"""What an answer says, as a hash, and what it cost: the two things the core knows of an answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import Any, Final

import orjson
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, Generation

from aicache._learned import Reading
from aicache._model import Usage
from langchain_aicache._answers_rules import THOUGHTS

__all__ = ["charged", "digest", "reading"]

# Stripped from both ends, respectively from the end only. Nothing that changes what an answer says: ".5", "-5",
# "$5", "5%", "C++" and "(5)" stay apart from "5" and "C".
_QUOTES: Final = " \"'`“”‘’«»"
_SENTENCE_ENDS: Final = _QUOTES + ".,;:!?…。！？"

_NAMES_OF_BLOCKS: Final = frozenset({"id", "index", "call_id"})
"""Names a provider gives to a content block; two calls give two names to the same thing."""

_USAGE_KEYS: Final = (
    "token_usage",  # OpenAI, Groq, Mistral, Hugging Face
    "usage",  # Anthropic, Bedrock
    "usage_metadata",  # Gemini
)
_TOKEN_KEYS: Final = (
    ("input_tokens", "output_tokens"),  # LangChain, Anthropic
    ("prompt_tokens", "completion_tokens"),  # OpenAI, Groq, Mistral
    ("inputTokens", "outputTokens"),  # Bedrock Converse
    ("prompt_eval_count", "eval_count"),  # Ollama, without a dict around them
)


def digest(generation: Generation) -> bytes:
    """16 bytes that are equal for generations that say the same in the same words, or call the same tools.

    Text is compared in folded case, with runs of white space as one space, without quotes around it and the
    punctuation that ends it. Tool calls are compared by name and arguments, in any order; text beside them
    does not count. Blocks that are not text (images, results of server tools) are compared as they are but
    for their ids; reasoning does not count.
    """
    message = generation.message if isinstance(generation, ChatGeneration) else None
    if calls := _calls(message):
        return _hash(b"calls", *calls)
    text = _normalised(generation.text if message is None else message.text).encode()
    blocks = _other_blocks(message) if message is not None else []
    if message is not None and not text and not blocks:
        return _hash(b"kwargs", _canonical(message.additional_kwargs))
    return _hash(b"text", text, *blocks)


def reading(generation: Generation, digest: bytes) -> Reading:
    """The generation as comparators read it."""
    message = generation.message if isinstance(generation, ChatGeneration) else None
    calls = _calls(message)
    text = generation.text if message is None else message.text
    return Reading(digest, str(text), b"[" + b",".join(calls) + b"]" if calls else b"")


def _calls(message: BaseMessage | None) -> list[bytes]:
    """Name and arguments of each tool call, as canonical JSON, in sorted order."""
    if not isinstance(message, AIMessage):
        return []
    return sorted(_canonical([call["name"], call["args"]]) for call in message.tool_calls)


def charged(generation: Generation) -> Usage | None:
    """The tokens of the model call, or None where the provider did not say.

    Of several generations the first speaks for all: providers report the total of the call with each.
    """
    sources: list[Any] = [generation.generation_info]
    if isinstance(generation, ChatGeneration):
        message = generation.message
        sources = [getattr(message, "usage_metadata", None), message.response_metadata, *sources]
    for source in sources:
        for counts in _counts(source):
            for tokens_in, tokens_out in _TOKEN_KEYS:
                usage = _number(counts.get(tokens_in)), _number(counts.get(tokens_out))
                if any(usage):
                    return Usage(*usage)
    return None


def _normalised(text: str) -> str:
    folded = " ".join(text.casefold().split())
    # An answer of punctuation only is compared as it is.
    return folded.lstrip(_QUOTES).rstrip(_SENTENCE_ENDS) or folded


def _other_blocks(message: BaseMessage) -> list[bytes]:
    if isinstance(message.content, str):
        return []
    return [
        _canonical({key: value for key, value in block.items() if key not in _NAMES_OF_BLOCKS})
        for block in message.content
        if isinstance(block, dict) and block.get("type") not in {*THOUGHTS, "text"}
    ]


def _canonical(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def _hash(kind: bytes, *parts: bytes) -> bytes:
    # The length before each part: ("ab", "c") and ("a", "bc") differ.
    framed = b"".join(len(part).to_bytes(8, "little") + part for part in (kind, *parts))
    return sha256(framed).digest()[:16]


def _counts(source: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(source, dict):
        yield from (source[key] for key in _USAGE_KEYS if isinstance(source.get(key), dict))
        yield source


def _number(value: Any) -> int:
    return value if type(value) is int and value > 0 else 0
