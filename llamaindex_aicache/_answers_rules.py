"""Which answers are worth keeping: an answer that is empty, cut off or failed is never served again.

How an answer ended stands in the provider's own response, `raw`, under a name and in words that each provider chose for
itself. A word in neither table counts as a normal end ("stop", "end_turn", "tool_calls", "COMPLETE", ...): the list of
normal ends is open, and to refuse an unknown one would switch the cache off for that provider without a word.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import Enum
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

from aicache._model import NotStored, SkipReason

__all__ = ["ending_words", "get", "objection", "usage_of"]

_REASON_KEYS: Final = (
    "finish_reason",  # OpenAI and all that imitate it, Gemini, Cohere, Mistral, Hugging Face
    "stop_reason",  # Anthropic, Bedrock
    "stopReason",  # Bedrock Converse
    "finishReason",
    "completionReason",  # Amazon Titan on Bedrock
    "done_reason",  # Ollama
    "status",  # OpenAI Responses
    "incomplete_details",  # OpenAI Responses
)
_REASON_PARTS: Final = ("reason", "type")
"""Where a reason that is a mapping holds the word."""

_STOPPED_EARLY: Final = (
    "length", "max_tokens", "time_limit", "token_limit", "max_len", "max_context", "maxpredictedtokens",
    "maximum_tokens", "repetition", "truncated", "partial", "max_output_tokens", "max_messages", "incomplete",
    "model_context_window_exceeded", "error_limit", "pause_turn", "continuation", "too_many_tool_calls",
    # a filter
    "content_filter", "guardrail_intervened", "sensitive", "blacklist", "safety", "recitation", "language", "blocklist",
    "prohibited_content", "spii", "escalation", "model_armor",
)  # fmt: skip
"""Words for an answer that stops before its end, because of a limit or a filter; in lower case."""
_FAILED: Final = (
    "refusal", "error", "abort", "interrupted", "userstopped", "not_finished", "timed_out", "cancelled", "canceled",
    "failed", "in_progress", "queued", "timeout", "user_cancel", "insufficient_system_resource", "load",
    "malformed_model_output", "malformed_tool_use", "malformed_function_call", "malformed_response",
    "unexpected_tool_call", "missing_thought_signature", "no_image", "other", "finish_reason_unspecified",
)  # fmt: skip
"""Words for an answer that failed; in lower case. Looked for after `_STOPPED_EARLY`."""

_GEMINI_ENDS: Final = frozenset({0, 1})
"""Gemini's older interface gives a number: 0 for none yet, 1 for a normal end."""
_SPOKEN_KWARGS: Final = ("function_call", "tool_calls", "audio")
"""Entries of `additional_kwargs` that are an answer on their own."""
_PARTS: Final = ("choices", "candidates")
_INNER: Final = ("response", "delta", "message")
_USAGES: Final = ("usage", "usage_metadata", "token_usage")


def objection(response: ChatResponse | CompletionResponse, *, keep_truncated: bool) -> NotStored | None:
    """Why this response must not be stored, or None.

    A tool call that cannot be parsed counts as a failed answer: to serve it again would repeat the failure, while a new
    request may succeed. With `keep_truncated` it is kept as what it mostly is, a call cut off.
    """
    for word in (*ending_words(response.raw), *ending_words(response.additional_kwargs)):
        if found := _bad_ending(word, keep_truncated=keep_truncated):
            return found
    if get(response.raw, "error") or response.additional_kwargs.get("error"):
        return NotStored(SkipReason.FAILED_ANSWER, "error")
    if get(response.raw, "done") is False and not keep_truncated:  # Ollama: the stream broke off.
        return NotStored(SkipReason.TRUNCATED, "not done")
    if _is_torn(response.raw) and not keep_truncated:
        return NotStored(SkipReason.TRUNCATED, "no end")
    if _refuses(response):
        return NotStored(SkipReason.FAILED_ANSWER, "the model refused")
    if isinstance(response, CompletionResponse):
        return None if response.text.strip() else NotStored(SkipReason.EMPTY, "no text")
    if not keep_truncated and any(_is_broken(block) for block in response.message.blocks):
        return NotStored(SkipReason.FAILED_ANSWER, "invalid tool call")
    return NotStored(SkipReason.EMPTY, "no text, tool call or content block") if _is_empty(response.message) else None


def get(source: Any, name: str) -> Any:
    """A field of a provider's response, which may be a mapping or an object; None if it has none."""
    return source.get(name) if isinstance(source, Mapping) else getattr(source, name, None)


def ending_words(source: Any) -> Iterator[str]:
    """What a provider's response says of how it ended, in lower case."""
    if source is None or isinstance(source, str):
        return
    for part in _parts(source):
        for key in _REASON_KEYS:
            value = get(part, key)
            if value is not None:
                yield from _words(value)


def usage_of(source: Any) -> Iterator[Any]:
    """Where a provider's response may say what it cost."""
    if source is None or isinstance(source, str):
        return
    for part in (source, *(get(source, name) for name in _INNER)):
        if part is not None:
            yield from (found for name in _USAGES if (found := get(part, name)) is not None)


def _parts(source: Any) -> Iterator[Any]:
    yield source
    for name in _PARTS:
        found = get(source, name)
        if isinstance(found, list | tuple):
            yield from found
    for name in _INNER:
        inner = get(source, name)
        if inner is not None and not isinstance(inner, str | ChatMessage):
            yield inner


def _words(value: Any) -> Iterator[str]:
    if isinstance(value, Enum):
        value = value.value if isinstance(value.value, str) else value.name
    if isinstance(value, str):
        yield value.casefold()
    elif type(value) is int:
        if value not in _GEMINI_ENDS:
            yield "length"
    else:
        yield from (part.casefold() for name in _REASON_PARTS if isinstance(part := get(value, name), str))


def _bad_ending(reason: str, *, keep_truncated: bool) -> NotStored | None:
    # "in", not "==": providers qualify their words (`model_length`, `content_filtered`, `FinishReason.SAFETY`).
    word = next((word for word in _STOPPED_EARLY if word in reason), None)
    if word is not None:
        return None if keep_truncated else NotStored(SkipReason.TRUNCATED, word)
    word = next((word for word in _FAILED if word in reason), None)
    return None if word is None else NotStored(SkipReason.FAILED_ANSWER, word)


def _refuses(response: ChatResponse | CompletionResponse) -> bool:
    """OpenAI: a refusal beside the content; LlamaIndex keeps it (Responses) or leaves it in `raw`."""
    if response.additional_kwargs.get("refusal"):
        return True
    choices = get(response.raw, "choices")
    return isinstance(choices, list | tuple) and any(get(get(choice, "message"), "refusal") for choice in choices)


def _is_torn(raw: Any) -> bool:
    """OpenAI and its like: a stream of which no chunk said how it ended; a gateway on the way has closed it."""
    return get(raw, "object") == "chat.completion.chunk" and not any(ending_words(raw))


def _is_broken(block: Any) -> bool:
    if type(block) is not ToolCallBlock or not isinstance(block.tool_kwargs, str) or not block.tool_kwargs.strip():
        return False
    try:
        return not isinstance(orjson.loads(block.tool_kwargs), dict)
    except ValueError:
        return True


def _is_empty(message: ChatMessage) -> bool:
    for block in message.blocks:
        if isinstance(block, TextBlock):
            if block.text.strip():
                return False
        elif not isinstance(block, ThinkingBlock | CachePoint):
            return False
    return not any(message.additional_kwargs.get(key) for key in _SPOKEN_KWARGS)
