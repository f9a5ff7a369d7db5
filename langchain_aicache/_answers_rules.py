"""Which answers are worth keeping: an answer that is empty, cut off or failed is never served again.

How an answer ended stands in `generation_info` or `response_metadata`, under a name and in words that each
provider chose for itself. The tables list what the providers' own packages declare. A word in neither table
counts as a normal end ("stop", "end_turn", "tool_calls", "COMPLETE", ...): the list of normal ends is open,
and to refuse an unknown one would switch the cache off for that provider without a word.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from langchain_core.messages import AIMessage, BaseMessage

from aicache._model import NotStored, SkipReason

__all__ = ["FAILED", "STOPPED_EARLY", "THOUGHTS", "objection"]

_REASON_KEYS: Final = (
    "finish_reason",  # OpenAI and all that imitate it, Gemini, Vertex AI, Cohere, Mistral, Hugging Face
    "stop_reason",  # Anthropic, Bedrock
    "stopReason",  # Bedrock Converse
    "finishReason",  # AI21 on Bedrock
    "completionReason",  # Amazon Titan on Bedrock
    "finish_details",  # OpenAI, GPT-4 with vision
    "done_reason",  # Ollama
    "status",  # OpenAI Responses, YandexGPT
)
_REASON_PARTS: Final = ("reason", "type")
"""Where a reason that is a mapping holds the word: AI21 on Bedrock, OpenAI Responses; SGLang."""

STOPPED_EARLY: Final = (
    "length",  # OpenAI, Groq, DeepSeek, Hugging Face, Ollama; Mistral also says "model_length"
    "max_tokens",  # Anthropic, Bedrock, Cohere, Gemini
    "time_limit",  # watsonx.ai, xAI; so the next
    "token_limit",
    "max_len",  # xAI; so the next
    "max_context",
    "maxpredictedtokens",  # LM Studio; its "contextLengthReached" contains "length"
    "maximum_tokens",  # Aleph Alpha
    "repetition",  # vLLM: the model repeats itself and was stopped
    "truncated",  # YandexGPT; so the next
    "partial",
    "max_output_tokens",  # OpenAI Responses, incomplete_details.reason; so the next two
    "max_messages",
    "steered",
    "incomplete",  # OpenAI Responses, status
    "model_context_window_exceeded",  # Anthropic, Bedrock
    "error_limit",  # Cohere: the context is full
    "pause_turn",  # Anthropic: a server tool is not done; the turn continues with the next request
    "continuation",  # Gemini: the same
    "too_many_tool_calls",  # Gemini
    "content_filter",  # OpenAI, Azure; Bedrock says "content_filtered"
    "guardrail_intervened",  # Bedrock
    "sensitive",  # Zhipu
    "blacklist",  # GigaChat
    # Gemini (google.genai.types.FinishReason; the image_ variants contain these words):
    "safety",
    "recitation",
    "language",
    "blocklist",
    "prohibited_content",
    "spii",
    "escalation",
    "pup_limited_disabled",
    "model_armor",
)
"""Words for an answer that stops before its end, because of a limit or a filter; in lower case."""

FAILED: Final = (
    "refusal",  # Anthropic
    "error",  # Cohere (also "error_toxic"), Mistral, OpenAI-compatible servers
    "abort",  # vLLM, SGLang: the request was withdrawn while the answer was written; also "aborted"
    "interrupted",
    "userstopped",  # LM Studio; its "modelUnloaded" contains "load"
    "not_finished",  # watsonx.ai, TensorRT-LLM; so the next
    "timed_out",
    "cancelled",  # OpenAI Responses, watsonx.ai, TensorRT-LLM
    "canceled",
    "failed",  # OpenAI Responses, status; so the next two
    "in_progress",
    "queued",
    "timeout",  # Cohere; so the next
    "user_cancel",
    "insufficient_system_resource",  # DeepSeek
    "load",  # Ollama: the model was loaded or unloaded and nothing was said
    "malformed_model_output",  # Bedrock; so the next
    "malformed_tool_use",
    # Gemini:
    "malformed_function_call",
    "malformed_response",
    "unexpected_tool_call",
    "missing_thought_signature",
    "no_image",
    "other",
    "finish_reason_unspecified",
)
"""Words for an answer that failed; in lower case. Looked for after `STOPPED_EARLY`."""

THOUGHTS: Final = frozenset({"reasoning", "reasoning_content", "thinking", "redacted_thinking"})
"""Types of content blocks that are not said to the user: an answer of nothing else is empty."""

_SPOKEN_KWARGS: Final = ("function_call", "tool_calls", "audio")
"""Entries of `additional_kwargs` that are an answer on their own (OpenAI's older and audio interfaces)."""


def objection(
    text: str, info: Mapping[str, Any] | None, message: BaseMessage | None, *, keep_truncated: bool
) -> NotStored | None:
    """Why this generation must not be stored, or None.

    A tool call that cannot be parsed counts as a failed answer: to serve it again would repeat the failure,
    while a new request may succeed. With `keep_truncated` it is kept as what it mostly is, a call cut off.
    """
    metadata = message.response_metadata if message is not None else {}
    for ending in (info or {}, metadata):
        if found := _bad_ending(ending, keep_truncated=keep_truncated):
            return found
    if message is None:
        return None if text.strip() else NotStored(SkipReason.EMPTY, "no text")
    if _refuses(message):
        return NotStored(SkipReason.FAILED_ANSWER, "the model refused")
    if isinstance(message, AIMessage) and message.invalid_tool_calls:
        return None if keep_truncated else NotStored(SkipReason.FAILED_ANSWER, "invalid tool call")
    if _is_empty(message):
        return NotStored(SkipReason.EMPTY, "no text, tool call or content block")
    return None


def _bad_ending(ending: Mapping[str, Any], *, keep_truncated: bool) -> NotStored | None:
    for reason in _reasons(ending):
        # "in", not "==": LangChain joins the chunks of a stream by adding their strings, so that a reason sent
        # with each chunk arrives as "STOPSTOP" or "STOPMAX_TOKENS".
        for word in STOPPED_EARLY:
            if word in reason:
                if keep_truncated:
                    break
                return NotStored(SkipReason.TRUNCATED, word)
        else:
            for word in FAILED:
                if word in reason:
                    return NotStored(SkipReason.FAILED_ANSWER, word)
    if ending.get("error"):
        return NotStored(SkipReason.FAILED_ANSWER, "error")
    if ending.get("done") is False and not keep_truncated:  # Ollama: the stream broke off.
        return NotStored(SkipReason.TRUNCATED, "not done")
    return None


def _reasons(ending: Mapping[str, Any]) -> Iterator[str]:
    for key in (*_REASON_KEYS, "incomplete_details"):
        value = ending.get(key)
        if isinstance(value, Mapping):
            yield from (part.casefold() for name in _REASON_PARTS if isinstance(part := value.get(name), str))
        elif isinstance(value, str):
            yield value.casefold()


def _refuses(message: BaseMessage) -> bool:
    """OpenAI: a refusal beside the content (Chat Completions) or as a block of it (Responses)."""
    return bool(message.additional_kwargs.get("refusal")) or any(
        block.get("type") == "refusal" for block in _blocks(message.content)
    )


def _is_empty(message: BaseMessage) -> bool:
    content = message.content
    if isinstance(content, str):
        spoken = bool(content.strip())
    else:
        spoken = any(isinstance(part, str) and part.strip() for part in content) or any(
            _says_something(block) for block in _blocks(content)
        )
    called = isinstance(message, AIMessage) and bool(message.tool_calls)
    return not (spoken or called or any(message.additional_kwargs.get(key) for key in _SPOKEN_KWARGS))


def _says_something(block: Mapping[str, Any]) -> bool:
    kind = block.get("type")
    if kind in THOUGHTS or not block:
        return False
    if kind == "text" or (kind is None and "text" in block):
        text = block.get("text")
        return isinstance(text, str) and bool(text.strip())
    return True


def _blocks(content: str | Sequence[Any]) -> Iterator[Mapping[str, Any]]:
    if not isinstance(content, str):
        yield from (part for part in content if isinstance(part, dict))
