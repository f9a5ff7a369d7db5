"""Installation: what `Settings` hands out is cached, and afterwards everything is as it was."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from li_models import ChatModel, TextModel, user
from llama_index.core import MockEmbedding, Settings
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.base.llms.base import BaseLLM
from llama_index.core.callbacks import CallbackManager
from llama_index.core.indices.prompt_helper import PromptHelper
from llama_index.core.llms import MockLLM
from llama_index.core.llms.structured_llm import StructuredLLM
from llama_index.core.response_synthesizers import BaseSynthesizer
from pydantic import BaseModel, PrivateAttr

from aicache import ConfigurationError
from aicache.testing import FakeEmbedder
from llamaindex_aicache import AICache

ASKED = "How do I reset my password?"


@pytest.fixture(autouse=True)
def settings() -> Iterator[None]:
    before = dict(vars(Settings))
    yield
    vars(Settings).clear()
    vars(Settings).update(before)


def open_one(**options: Any) -> AICache:
    return AICache("memory://", embeddings=FakeEmbedder(), **options)


@pytest.fixture
def cache() -> Iterator[AICache]:
    with open_one() as opened:
        yield opened


class Counter:
    """No plain value: those of a model are part of its identity."""

    calls = 0


class CountingEmbedding(MockEmbedding):
    _counter: Counter = PrivateAttr(default_factory=Counter)

    @property
    def calls(self) -> int:
        return self._counter.calls

    def __init__(self, embed_dim: int = 3, **more: Any) -> None:
        super().__init__(embed_dim=embed_dim, **more)

    def _get_query_embedding(self, query: str) -> list[float]:
        self._counter.calls += 1
        return [float(len(query)), 1.0, 2.0]

    def _get_text_embedding(self, text: str) -> list[float]:
        self._counter.calls += 1
        return [float(len(text)), 1.0, 2.0]


def is_cached(model: Any) -> bool:
    """Whether a second question of its own is answered without the model."""
    question = f"What is {object()}?"
    if isinstance(model, BaseEmbedding):
        model.get_query_embedding(question)
        before = model.calls  # type: ignore[attr-defined]
        model.get_query_embedding(question)
        return model.calls == before  # type: ignore[attr-defined, no-any-return]
    model.complete(question)
    return "aicache" in model.complete(question).additional_kwargs


CHANGED = [
    *((type(Settings), name) for name in ("llm", "embed_model")),
    *((BaseSynthesizer, name) for name in ("synthesize", "asynthesize")),
    *((kind, "__init__") for kind in (BaseLLM, BaseEmbedding)),
]


def state() -> list[Any]:
    """All that an installation may change in LlamaIndex."""
    return [owner.__dict__.get(name) for owner, name in CHANGED]


@pytest.mark.parametrize("make", [TextModel, CountingEmbedding])
def test_models_set_before_and_after_are_cached(cache: AICache, make: Any) -> None:
    name = "llm" if make is TextModel else "embed_model"
    before, after = make(), make()
    setattr(Settings, name, before)
    assert cache.install() is cache
    assert is_cached(before)
    assert getattr(Settings, name) is before
    setattr(Settings, name, after)
    assert is_cached(after)
    assert getattr(Settings, name) is after


@pytest.mark.parametrize("scope", ["settings", "all"])
def test_uninstall_leaves_everything_as_it_was(cache: AICache, scope: Any) -> None:
    before = state()
    llm, embedding, explicit = TextModel(), CountingEmbedding(), cache.wrap(TextModel())
    Settings.llm, Settings.embed_model = llm, embedding
    cache.install(scope)
    assert state() != before
    made = TextModel()
    assert Settings.llm is llm
    cache.uninstall()
    assert state() == before
    assert Settings.llm is llm
    assert Settings.embed_model is embedding
    assert [type(each) for each in (llm, made, explicit)] == [TextModel] * 3
    assert type(embedding) is CountingEmbedding
    assert not is_cached(llm)
    assert not is_cached(embedding)


def test_uninstalling_what_is_not_installed_changes_nothing(cache: AICache) -> None:
    before = state()
    cache.uninstall()
    assert state() == before


def test_closing_uninstalls() -> None:
    before = state()
    with open_one() as cache:
        cache.install("all")
    assert state() == before


async def test_closing_asynchronously_uninstalls() -> None:
    before = state()
    async with open_one() as cache:
        cache.install()
    assert state() == before


def test_a_block_installs_for_its_duration_and_leaves_wrapped_models_alone(cache: AICache) -> None:
    before = state()
    mine = cache.wrap(TextModel())
    Settings.llm = TextModel()
    with cache.installed() as inside:
        assert inside is cache
        assert is_cached(Settings.llm)
    assert state() == before
    assert not is_cached(Settings.llm)
    assert is_cached(mine)


def test_a_block_ends_after_an_error_too(cache: AICache) -> None:
    before = state()
    with pytest.raises(ZeroDivisionError), cache.installed("all"):
        raise ZeroDivisionError
    assert state() == before


def test_an_unknown_scope_is_named(cache: AICache) -> None:
    before = state()
    with pytest.raises(ConfigurationError, match='scope: give "settings" or "all"'):
        cache.install("everything")  # type: ignore[arg-type]
    assert state() == before


def test_settings_resolve_what_they_resolved(cache: AICache, capsys: pytest.CaptureFixture[str]) -> None:
    cache.install()
    Settings.llm = None  # type: ignore[assignment]
    assert isinstance(Settings.llm, MockLLM)
    assert is_cached(Settings.llm)
    with pytest.raises(ValueError, match="llm must start with str 'local'"):
        Settings.llm = "gpt-4"
    Settings.embed_model = None  # type: ignore[assignment]
    assert isinstance(Settings.embed_model, MockEmbedding)
    assert "MockLLM" in capsys.readouterr().out


def test_installing_makes_no_default_model(cache: AICache) -> None:
    Settings._llm = Settings._embed_model = None
    cache.install()
    assert Settings._llm is None
    assert Settings._embed_model is None


def test_settings_still_set_the_callback_manager(cache: AICache) -> None:
    cache.install()
    Settings.llm = TextModel()
    Settings.callback_manager = shown = CallbackManager()
    assert Settings.llm.callback_manager is shown
    Settings.pydantic_program_mode = "llm"  # type: ignore[assignment]
    assert Settings.llm.pydantic_program_mode == "llm"
    assert isinstance(Settings.prompt_helper, PromptHelper)


def test_installing_twice_is_installing_once(cache: AICache) -> None:
    before = state()
    Settings.llm = TextModel()
    cache.install()
    cache.install()
    Settings.llm.complete(ASKED)
    assert cache.stats().lookups == 1
    cache.uninstall()
    assert state() == before


def test_installing_again_changes_the_scope(cache: AICache) -> None:
    cache.install("all")
    cache.install()
    assert not is_cached(TextModel())
    cache.install("all")
    assert is_cached(TextModel())


def test_the_last_cache_installed_acts_and_then_the_one_before_again() -> None:
    before = state()
    Settings.llm = TextModel()
    with open_one() as first, open_one() as second:
        first.install()
        with second.installed():
            Settings.llm.complete(ASKED)
            assert (first.stats().lookups, second.stats().lookups) == (0, 1)
        Settings.llm.complete(ASKED)
        assert (first.stats().lookups, second.stats().lookups) == (1, 1)
        second.install()
        first.uninstall()
        Settings.llm.complete(ASKED)
        assert (first.stats().lookups, second.stats().lookups) == (1, 2)
    assert state() == before


def test_a_model_that_one_cache_wraps_stays_its_own_in_another_installation() -> None:
    with open_one() as mine, open_one() as installed:
        installed.install("all")
        Settings.llm = mine.wrap(TextModel())
        Settings.llm.complete(ASKED)
        assert (mine.stats().lookups, installed.stats().lookups) == (1, 0)


def test_a_model_can_be_taken_out_of_what_is_installed_and_wrapped_apart(cache: AICache) -> None:
    cache.install("all")
    model = TextModel()
    cache.unwrap(model)
    assert type(model) is TextModel
    with open_one() as other:
        other.wrap(model)
        model.complete(ASKED)
        assert (cache.stats().lookups, other.stats().lookups) == (0, 1)


def test_scope_all_covers_models_that_are_passed_explicitly(cache: AICache) -> None:
    earlier = TextModel()
    cache.install("all")
    assert is_cached(TextModel())
    assert is_cached(ChatModel(model="m"))
    assert is_cached(CountingEmbedding())
    assert not is_cached(earlier)
    assert TextModel(model="m").model == "m"


def test_scope_settings_covers_no_others(cache: AICache) -> None:
    cache.install()
    assert not is_cached(TextModel())
    assert not is_cached(CountingEmbedding())


def test_a_replacement_made_on_top_survives_and_does_nothing_after_uninstall(cache: AICache) -> None:
    kind: Any = type(Settings)
    original = kind.__dict__["llm"]
    cache.install()
    ours = kind.__dict__["llm"]
    theirs = property(ours.fget, ours.fset)
    kind.llm = theirs
    try:
        cache.uninstall()
        assert kind.__dict__["llm"] is theirs
        Settings.llm = TextModel()
        assert not is_cached(Settings.llm)
    finally:
        kind.llm = original


def test_a_model_that_cannot_be_swapped_is_handed_out_as_it_is(
    cache: AICache, caplog: pytest.LogCaptureFixture
) -> None:
    class Sealed(TextModel):
        def __init_subclass__(cls, **kwargs: Any) -> None:
            raise TypeError("it is sealed")

    cache.install()
    Settings.llm = sealed = Sealed()
    assert Settings.llm is sealed
    assert type(sealed) is Sealed
    assert "is not cached" in caplog.text


class Out(BaseModel):
    number: int


def test_the_model_inside_a_structured_one_is_cached(cache: AICache) -> None:
    inner = TextModel(reply=lambda prompt: '{"number": 7}')
    structured = cache.wrap(inner.as_structured_llm(Out))
    assert isinstance(structured, StructuredLLM)
    first, second = structured.chat([user(ASKED)]), structured.chat([user(ASKED)])
    assert first.raw == second.raw == Out(number=7)
    assert inner.calls == 1
    assert cache.stats().lookups == 2
    cache.unwrap(structured)
    assert type(inner) is TextModel
    assert type(structured) is StructuredLLM


@pytest.mark.parametrize("name", ["predict", "apredict"])
async def test_a_structured_model_made_of_a_cached_one_matches_the_templates_question(
    cache: AICache, name: str
) -> None:
    from llama_index.core.prompts import PromptTemplate

    template = PromptTemplate("Use this.\n{context_str}\nNow tell the number of {query_str} at once.")
    inner = cache.wrap(ChatModel(is_function_calling=False, reply=number))
    structured = inner.as_structured_llm(Out)
    for question in (ASKED, "How can I reset my password please?"):
        found = getattr(structured, name)(template, context_str="Numbers. " * 40, query_str=question)
        assert "7" in (await found if asyncio.iscoroutine(found) else found)
    assert cache.stats().lookups == 2


def number(messages: Any, kwargs: Any) -> Any:
    from li_models import said

    return said('{"number": 7}')


def test_the_cache_serves_as_embeddings_cache(cache: AICache) -> None:
    model = CountingEmbedding(embeddings_cache=cache)
    first = model.get_text_embedding(ASKED)
    assert model.get_text_embedding(ASKED) == first
    assert model.calls == 1


def test_a_model_whose_vectors_match_questions_may_be_cached_itself() -> None:
    embedding = CountingEmbedding()
    with AICache("memory://", embeddings=embedding) as cache:
        Settings.embed_model = embedding
        Settings.llm = TextModel()
        cache.install()
        assert is_cached(Settings.llm)
        assert is_cached(Settings.embed_model)


def test_questions_are_matched_by_a_llamaindex_embedding_model() -> None:
    with AICache("memory://", embeddings=CountingEmbedding(), threshold=0.5, margin=0.0) as cache:
        model = cache.wrap(TextModel())
        model.complete(ASKED)
        hit = model.complete("How can I reset my password?")
        assert hit.additional_kwargs["aicache"]["match"] == "semantic"


def test_an_embedding_model_that_cannot_be_told_from_others_is_refused_as_matcher() -> None:
    class Opaque(CountingEmbedding):
        engine: Any = None

    with pytest.raises(ConfigurationError, match=r"embeddings: .*CallableEmbedder"):
        AICache("memory://", embeddings=Opaque(embed_dim=3, engine=object()))


def test_an_unknown_vector_format_is_named() -> None:
    with pytest.raises(ConfigurationError, match="vector_format"):
        open_one(vector_format="float8")
