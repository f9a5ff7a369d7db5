"""Both frameworks in one process, on one store: a LangChain model inside LlamaIndex is cached once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.globals import get_llm_cache, set_llm_cache
from lc_models import CountingModel, echo
from li_models import ChatModel, user
from llama_index.core import Settings
from llama_index.core.base.llms.types import CompletionResponse, LLMMetadata
from llama_index.core.llms import CustomLLM
from llama_index.core.llms.callbacks import llm_completion_callback
from pydantic import PrivateAttr

from aicache.testing import FakeEmbedder
from langchain_aicache import AICache as LangChainCache
from llamaindex_aicache import AICache

ASKED = "How do I reset my password?"
REWORDED = "How can I reset my password please?"


@pytest.fixture
def caches(tmp_path: Path) -> Iterator[tuple[AICache, LangChainCache]]:
    """One of each framework, on the same file."""
    url = f"sqlite:///{tmp_path / 'answers.db'}"
    given: dict[str, Any] = {"embeddings": FakeEmbedder(), "threshold": 0.8, "margin": 0.0}
    before, settings = get_llm_cache(), dict(vars(Settings))
    with AICache(url, **given) as ours, LangChainCache(url, **given) as theirs:
        set_llm_cache(theirs)
        yield ours, theirs
    set_llm_cache(before)
    vars(Settings).clear()
    vars(Settings).update(settings)


def test_the_two_frameworks_entries_never_meet(caches: tuple[AICache, LangChainCache]) -> None:
    ours, theirs = caches
    inner, outer = CountingModel(reply=echo), ours.wrap(ChatModel())
    for _ in range(2):
        assert inner.invoke(ASKED).text == outer.chat([user(ASKED)]).message.content
    assert (inner.calls, outer.calls) == (1, 1)
    assert ours.size().entries == theirs.size().entries == 2


class StandIn(CustomLLM):
    """As LlamaIndex's own, which needs packages that rarely fit together."""

    __module__ = "llama_index.llms.langchain.base"
    _llm: CountingModel = PrivateAttr()

    def __init__(self, llm: CountingModel) -> None:
        super().__init__()
        self._llm = llm

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(is_chat_model=True)

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        return CompletionResponse(text=self._llm.invoke(prompt).text)

    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        raise NotImplementedError


@pytest.fixture(params=["stand-in", "real"])
def make(request: pytest.FixtureRequest) -> Callable[[CountingModel], Any]:
    """Makes a LlamaIndex model of a LangChain model."""
    if request.param == "stand-in":
        return StandIn
    found = pytest.importorskip("llama_index.llms.langchain", reason="needs llama-index-llms-langchain")
    kind: Callable[[CountingModel], Any] = found.LangChainLLM
    return kind


def test_a_langchain_model_inside_llamaindex_is_looked_up_and_kept_once(
    caches: tuple[AICache, LangChainCache], make: Callable[[CountingModel], Any]
) -> None:
    ours, theirs = caches
    inner = CountingModel(reply=echo)
    llm = ours.wrap(make(inner))
    first = llm.chat([user(ASKED)])
    assert llm.chat([user(REWORDED)]).message.content == first.message.content
    assert llm.chat([user(REWORDED)]).additional_kwargs["aicache"]["match"] == "semantic"
    assert inner.calls == 1
    assert ours.size().entries == 1
    assert theirs.stats().stored == 0


def test_settings_take_a_langchain_model_itself(caches: tuple[AICache, LangChainCache]) -> None:
    pytest.importorskip("llama_index.llms.langchain", reason="needs llama-index-llms-langchain")
    ours, _ = caches
    inner = CountingModel(reply=echo)
    with ours.installed():
        Settings.llm = inner
        for question in (ASKED, REWORDED):
            Settings.llm.chat([user(question)])
    assert inner.calls == 1


def test_another_langchain_model_inside_asks_again(
    caches: tuple[AICache, LangChainCache], make: Callable[[CountingModel], Any]
) -> None:
    ours, _ = caches
    for model in (CountingModel(reply=echo), CountingModel(reply=echo, temperature=0.9)):
        ours.wrap(make(model)).chat([user(ASKED)])
        assert model.calls == 1
