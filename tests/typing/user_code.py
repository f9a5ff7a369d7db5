"""What a user's own code looks like to a strict type checker; checked by test_typing.py, never run."""

from typing import assert_type

from langchain_core.caches import BaseCache
from langchain_core.globals import set_llm_cache
from langchain_core.language_models import BaseChatModel
from langchain_core.outputs import Generation

from aicache import Explanation, Hit, Match, Miss, MissReason, Opinion, Outcome, Stats, Store
from aicache.stores.memory import MemoryStore
from aicache.verifiers import CrossEncoderVerifier, JudgeVerifier
from langchain_aicache import AICache


def tenant() -> str | None:
    return "customer"


def listener(outcome: Outcome, seconds: float) -> None:
    match outcome:
        case Hit(entry, tier, how, score, age):
            assert_type((entry.id, tier, score + age + seconds), tuple[str, str, float])
            assert_type(how, Match)
        case Miss(reason):
            assert_type(reason, MissReason)


async def verify(asked: str, stored: str) -> Opinion:
    return Opinion(same=asked == stored, said="compared")


def verifiers(model: BaseChatModel) -> None:
    AICache("memory://", verifier=verify, verify_timeout=None)
    AICache("memory://", verifier=lambda asked, stored: asked == stored)
    AICache("memory://", verifier=JudgeVerifier(lambda prompt: model.invoke(prompt).text))
    AICache("memory://", verifier=CrossEncoderVerifier("a/model", threshold=0.5), verify_timeout=2)


def application(model: BaseChatModel) -> None:
    cache = AICache("memory://", namespace="v2", tenant=tenant, ttl=60, threshold=0.9, on_outcome=listener)
    as_langchain_sees_it: BaseCache = cache
    set_llm_cache(as_langchain_sees_it)
    with cache.tagged("a"), cache.scope(ttl=5):
        model.invoke("hello")
    assert_type(cache.stats(), Stats)
    assert_type(cache.explain("hello", model), Explanation)
    assert_type(cache.lookup("prompt", "model") is None, bool)
    cache.update("prompt", "model", [Generation(text="answer")])
    store: Store = MemoryStore()
    AICache(store)


async def asynchronous() -> None:
    async with AICache("memory://") as cache, cache.bypass():
        assert_type(cache, AICache)
        await cache.aclear()
