"""Rules of AICache's constructor and of the parts of it that no chain reaches."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import HumanMessage
from langchain_core.outputs import Generation

from aicache import ConfigurationError, MissReason, SkipReason
from aicache.stores.memory import MemoryStore
from aicache.testing import FailingStore, FakeEmbedder
from langchain_aicache import AICache


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("namespace", 3),
        ("tenant", 3),
        ("ttl", 0),
        ("ttl_jitter", 1),
        ("threshold", 1.5),
        ("margin", -1),
        ("embeddings", 3),
        ("embed_timeout", 0),
        ("eviction", "random"),
        ("l1_entries", -1),
        ("l1_bytes", 0),
        ("max_entries", 0),
        ("max_bytes", 0),
        ("max_entry_bytes", 0),
        ("prices", (1,)),
        ("prices", (1, -1)),
        ("usage_on_hit", "none"),
        ("on_outcome", 3),
        ("encryption_keys", ["no key"]),
        ("encryption_keys", []),
        ("encryption_keys", None),
        ("compress_above", -1),
        ("no_such_option", 3),
    ],
)
def test_a_wrong_argument_is_refused_by_name(tmp_path: Path, option: str, value: object) -> None:
    arguments: dict[str, Any] = {"embeddings": FakeEmbedder(), option: value}
    with pytest.raises(ConfigurationError, match=rf"^{option}: "):
        AICache(f"sqlite:///{tmp_path}/a.db", **arguments)


@pytest.mark.parametrize(
    "store",
    [
        "redis",
        "",
        "sqlite://",
        "sqlite:///",
        "postgres://user:secret@host/db",
        7,
        object(),
    ],
)
def test_a_store_that_is_none_is_refused_without_quoting_a_password(store: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^store: ") as refusal:
        AICache(store, embeddings=False)
    assert "secret" not in str(refusal.value)


def test_bounds_of_a_ready_store_are_not_set_here() -> None:
    with pytest.raises(ConfigurationError, match=r"^max_entries: "):
        AICache(MemoryStore(), embeddings=False, max_entries=5)


def test_keys_for_a_store_without_bytes_or_one_that_is_ready_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"^store: memory:// keeps objects"):
        AICache("memory://", embeddings=False, encryption_keys=[Fernet.generate_key()])
    with pytest.raises(ConfigurationError, match=r"^compress_above: "):
        AICache(MemoryStore(), embeddings=False, compress_above=5)


def test_with_a_key_the_file_shows_neither_question_nor_answer(tmp_path: Path) -> None:
    key = Fernet.generate_key()
    url = f"sqlite:///{tmp_path}/a.db"
    with AICache(url, embeddings=False, encryption_keys=[key]) as cache:
        cache.update("Whom does the merger concern?", "model", [Generation(text="Initech")])
    with AICache(url, embeddings=False, encryption_keys=[Fernet.generate_key(), key]) as cache:
        assert cache.lookup("Whom does the merger concern?", "model") is not None
    with AICache(url, embeddings=False, encryption_keys=[Fernet.generate_key()]) as cache:
        assert cache.lookup("Whom does the merger concern?", "model") is None
        assert cache.stats().misses == {MissReason.WRONG_KEY: 1}
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"merger" not in stored
    assert b"Initech" not in stored


def model(reply: str = "a", **fields: Any) -> FakeListChatModel:
    return FakeListChatModel(responses=[reply], **fields)


def remember(cache: AICache, prompt: str, llm: FakeListChatModel) -> None:
    llm.model_copy(update={"cache": cache}).invoke(prompt)


def held(cache: AICache, prompt: str, llm: FakeListChatModel) -> bool:
    return str(cache.explain(prompt, llm)).startswith("hit")


def test_invalidate_takes_back_one_prompt_or_all_of_a_model() -> None:
    cache = AICache("memory://", embeddings=False)
    cold, warm = model("cold"), model("warm")
    for llm in (cold, warm):
        for prompt in ("one", "two"):
            remember(cache, prompt, llm)
    assert cache.invalidate("one", llm=cold, dry_run=True).count == 1
    assert cache.invalidate("one", llm=cold).count == 1
    assert [held(cache, "one", llm) for llm in (cold, warm)] == [False, True]
    assert cache.invalidate(llm=warm).count == 2
    assert held(cache, "two", cold)


async def test_invalidate_and_report_have_async_twins() -> None:
    cache = AICache("memory://", embeddings=FakeEmbedder(), threshold=0.8, margin=0.0)
    remember(cache, "How do I reset my password?", model())
    assert (await cache.ainvalidate(like="password reset", min_score=0.3, dry_run=True)).count == 1
    hit = model(cache=cache).invoke("How can I reset my password please?")
    mark = hit.response_metadata["aicache"]
    assert mark["match"] == "semantic"
    assert await cache.areport(mark["entry_id"], wrong=True)
    assert not held(cache, "How do I reset my password?", model())


def test_a_prompt_alone_does_not_say_which_entry_is_meant() -> None:
    with pytest.raises(ConfigurationError, match=r"^llm: "):
        AICache("memory://", embeddings=False).invalidate("one")


async def test_many_prompts_are_answered_in_their_order() -> None:
    cache = AICache("memory://", embeddings=False)
    for text in ("a", "b"):
        cache.update(text, "model", [Generation(text=text.upper())])
    for found in (cache.lookup_many(["b", "x", "a"], "model"), await cache.alookup_many(["b", "x", "a"], "model")):
        assert [None if each is None else each[0].text for each in found] == ["B", None, "A"]


def test_clear_refuses_an_argument_it_does_not_know() -> None:
    with pytest.raises(ConfigurationError, match=r"^colour: "):
        AICache("memory://", embeddings=False).clear(colour="x")
    with pytest.raises(ConfigurationError, match=r"^llm_string: "):
        AICache("memory://", embeddings=False).clear(llm_string=None)
    with pytest.raises(ConfigurationError, match=r"^tag: "):
        AICache("memory://", embeddings=False).clear(tag=7)


def test_a_ready_store_may_be_given() -> None:
    store = FailingStore(MemoryStore())
    cache = AICache(store, embeddings=False)
    cache.update("p", "m", [Generation(text="t")])
    assert store.calls["write"] == 1


def test_without_an_embedder_reworded_questions_miss_and_the_reason_says_so() -> None:
    cache = AICache("memory://", embeddings=False)
    cache.update("How do I pay?", "m", [Generation(text="t")])
    assert cache.lookup("How can I pay?", "m") is None
    assert cache.stats().misses == {MissReason.NO_EMBEDDER: 1}


def test_prompts_that_are_no_text_and_no_conversation_are_contained(caplog: pytest.LogCaptureFixture) -> None:
    cache = AICache("memory://", embeddings=FakeEmbedder())
    for prompt in ("", "\x00", "\ud800", "[", "[]", '[{"lc": 1}]', '{"a": NaN}', "[" * 100_000):
        cache.update(prompt, "m", [Generation(text="t")])
        cache.lookup(prompt, "m")
    for llm_string in ("", "\ud800", "---", "{}---[]", "[('a', <x at 0x7f>)]", "(" * 10_000):
        cache.update("p", llm_string, [Generation(text="t")])
        cache.lookup("p", llm_string)
    assert cache.stats().misses.get(MissReason.INTERNAL, 0) == 0
    assert cache.stats().not_stored.get(SkipReason.INTERNAL, 0) == 0


def test_secrets_of_the_model_and_prompts_reach_no_log_and_no_key(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from langchain_core.load import dumps

    secret, question = "sk-very-secret", "Is my balance of 77 fine?"
    llm_string = f"[('default_headers', {{'Authorization': '{secret}'}}), ('model', 'm'), ('extra_body', '{secret}')]"
    file = tmp_path / "answers.db"
    with caplog.at_level(logging.DEBUG), AICache(f"sqlite:///{file}", embeddings=FakeEmbedder()) as cache:
        cache.update(dumps([HumanMessage(question)]), llm_string, [Generation(text="yes")])
        assert cache.lookup(dumps([HumanMessage(question)]), llm_string) == [Generation(text="yes")]
        shown = str(cache.stats())
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert secret.encode() not in stored
    assert question not in caplog.text + shown
    assert secret not in caplog.text + shown


def test_two_caches_on_one_file_share_answers(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/answers.db"
    with AICache(url, embeddings=FakeEmbedder()) as one, AICache(url, embeddings=FakeEmbedder(), threshold=0.8) as two:
        one.update("How do I reset my password?", "m", [Generation(text="t")])
        assert two.lookup("How do I reset my password?", "m") == [Generation(text="t")]
        assert two.lookup("How can I reset my password please?", "m") == [Generation(text="t")]


def test_answers_survive_a_restart(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/answers.db"
    with AICache(url, embeddings=False) as cache:
        cache.update("p", "m", [Generation(text="t")])
    with AICache(url, embeddings=False) as cache:
        assert cache.lookup("p", "m") == [Generation(text="t")]


def test_the_file_of_the_default_store_is_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with AICache(embeddings=False) as cache:
        cache.update("p", "m", [Generation(text="t")])
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
