"""Objects that compute a model's answers and were handed in by the application.

Most private objects of a model, such as clients, are made from its fields and say nothing new. Some are not:
`HuggingFaceLLM(model=..., tokenizer=...)` keeps its default `model_name`, whatever it was given.
"""

from __future__ import annotations

from typing import Any, Final

from llamaindex_aicache._values import UnseenError

__all__ = ["name_of_engine"]

_NAMES: Final = ("name_or_path", "model_path", "model_name", "model_id")
"""Where such objects (of transformers, llama.cpp, Gemini, ...) say which they are."""
_MADE_BY_NAME: Final = "sentence_transformers."
"""Where models come from that integrations load by the name in their fields, and take from nobody."""


def name_of_engine(value: object, attribute: str) -> str | None:
    """What the object says it is; None for one that says nothing, and is taken to be made from the model's fields.

    Args:
        value: what the model keeps privately.
        attribute: where, for the error's text.

    Raises:
        UnseenError: it computes by weights of its own, and does not say which.
    """
    if isinstance(getattr(value, "peft_config", None), dict):
        raise UnseenError(f"the key cannot see into {attribute:.40}, a model with adapters")
    for each in _NAMES:
        name: Any = getattr(value, each, None)
        if type(name) is str and name:
            return name
    modules = [f"{kind.__module__}." for kind in type(value).__mro__]
    if any(name.startswith("torch.nn.") for name in modules) and not modules[0].startswith(_MADE_BY_NAME):
        raise UnseenError(f"the key cannot see into {attribute:.40}, a {type(value).__qualname__}")
    return None
