"""Templates apart from their variables: one variable is the question, the others must be equal.

LlamaIndex's `predict` and its relatives are given a template and its variables, of which `query_str` is what a user
asked and `context_str` what was found for it. What is sent is still the prompt: a template only counts where the
question is found in the prompt's text, and all of the prompt but the question is part of the key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from llama_index.core.prompts.base import BasePromptTemplate

from aicache._model import Prompt, Turn
from aicache._prompt import split
from llamaindex_aicache._values import UnseenError, dump, name_of_class, plain

__all__ = ["QUERY_NAMES", "Filled", "cut_out", "filled_from", "is_question"]

QUERY_NAMES: Final = ("query_str", "query", "question")
"""Variables that hold the question in LlamaIndex's own templates; the first that is there counts."""


@dataclass(frozen=True, slots=True)
class Filled:
    """A template apart from its variables."""

    template: bytes = field(repr=False)
    """Canonical bytes of the template and of every variable but the question."""
    query: str = field(repr=False)


def filled_from(
    template: BasePromptTemplate, args: Mapping[str, Any], query_names: Sequence[str] = QUERY_NAMES
) -> Filled | None:
    """The template, if one of its variables holds a question and all others can be seen.

    Args:
        template: the template.
        args: the variables it is filled with, besides those it holds.
        query_names: which variables hold a question; the first that is there counts.
    """
    try:
        variables: dict[str, Any] = {**template.kwargs, **args}
        name = next((each for each in query_names if each in variables), None)
        query = None if name is None else variables.pop(name)
        if type(query) is not str or not query.strip():
            return None
        described = [
            name_of_class(type(template)),
            template.get_template(llm=None),
            name,
            # LlamaIndex ignores what the template does not name, and so may hand over its own objects.
            {each: plain(value, each) for each, value in sorted(variables.items()) if _is_used(template, each)},
        ]
        return Filled(dump(described), query)
    except (UnseenError, RecursionError):
        return None
    except Exception:  # noqa: BLE001 - templates of the application may raise anything; the prompt is then read alone
        return None


def _is_used(template: BasePromptTemplate, name: str) -> bool:
    mapped = (template.template_var_mappings or {}).get(name, name)
    return mapped in template.template_vars or bool(template.function_mappings)


def cut_out(filled: Filled, turns: Sequence[Turn]) -> bytes | None:
    """Canonical bytes of all but the question: the template, its other variables, and the turns with the question
    cut out wherever it stands. None if it stands nowhere, because the template shows it in another form.

    The turns with their holes and the question give back the prompt, so that nothing in it can be missed: a system
    prompt that was added, what an output parser appended, a variable computed from the question.
    """
    found = False
    rows: list[list[Any]] = []
    for turn in turns:
        parts = turn.text.split(filled.query) if turn.text else []
        found = found or len(parts) > 1
        rows.append([turn.role, parts if len(parts) > 1 else turn.text, len(turn.extra)])
    if not found:
        return None
    head = dump([len(filled.template), rows])
    return head + filled.template + b"".join([turn.extra for turn in turns])


def is_question(query: str) -> bool:
    """Whether the variable holds a question and nothing else, as the core reads a user's message.

    Evaluators put a question and the answer to be judged into one variable, and users paste letters and code: where a
    word of these changes, the vector of the whole hardly does.
    """
    read = split(Prompt("llamaindex-chat", (Turn("human", query),), b""), question=None)
    return read.exact_only is None and read.text.strip() == query.strip()
