"""What can be asked: a function, a chat model of a framework; and what it replies with, as text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["is_model", "text_of", "to_ask"]


def is_model(given: object) -> bool:
    """Whether it is a chat model: an instance with `invoke` (LangChain) or `complete` (LlamaIndex)."""
    return not isinstance(given, type) and (
        callable(getattr(given, "invoke", None)) or callable(getattr(given, "complete", None))
    )


def to_ask(given: object) -> Callable[[str], Any] | None:
    """A function from a prompt to a reply, which may have to be awaited; None where there is nothing to ask."""
    if isinstance(given, type):
        return None
    for name in ("invoke", "complete"):
        method = getattr(given, name, None)
        if callable(method):
            return method  # type: ignore[no-any-return]
    return given if callable(given) else None


def text_of(reply: Any) -> str | None:
    """The text of a reply: itself, a completion's `text`, a message's `content`; None where it has none."""
    if isinstance(reply, str):
        return str(reply)
    reply = getattr(reply, "message", None) or reply
    for name in ("text", "content"):
        found = getattr(reply, name, None)
        if isinstance(found, str):
            return str(found)
        if isinstance(found, list):
            return _of_blocks(found)
    return None


def _of_blocks(blocks: list[Any]) -> str:
    texts = (
        block if isinstance(block, str) else block.get("text") if isinstance(block, dict) else "" for block in blocks
    )
    return "".join(text for text in texts if isinstance(text, str))
