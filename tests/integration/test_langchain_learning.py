"""A cache that learns, behind LangChain's real code paths: audits look like misses, and answers teach."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from langchain_core.globals import get_llm_cache, set_llm_cache
from langchain_core.messages import AIMessage, BaseMessage
from lc_models import USAGE, CountingModel

from aicache import Match, MissReason, SkipReason, bypass, refresh
from aicache._learned import Equal
from aicache._study import Study
from aicache.testing import FakeEmbedder
from langchain_aicache import AICache

TOPICS = (
    "reset my password",
    "cancel the subscription",
    "change the delivery address",
    "download an invoice",
    "close this account",
    "track a parcel",
    "return damaged shoes",
    "update payment card",
)
WAYS = (
    "how do I {}",
    "how can I {} please",
    "{}",
    "I want to {}",
    "what must I do to {}",
    "please {}",
    "could you {} for me",
    "where do I {}",
    "I would like to {}",
    "is there a way to {}",
    "tell me how to {}",
    "{} please",
)
SECONDS = 20.0


def questions(seed: int = 0, rounds: int = 3) -> list[str]:
    """What customers ask; every round words it anew."""
    asked = [
        f"{way.format(topic)} {'now ' * turn}".strip() for turn in range(rounds) for topic in TOPICS for way in WAYS
    ]
    random.Random(seed).shuffle(asked)
    return asked


def about(messages: Sequence[BaseMessage]) -> AIMessage:
    """One answer for each topic."""
    text = messages[-1].text
    return AIMessage(f"To {next(topic for topic in TOPICS if topic in text)}: press here.", usage_metadata=USAGE)  # type: ignore[arg-type]


class Fixed:
    """A coin that always falls the same way, until it is turned."""

    def __init__(self, side: float) -> None:
        self.side = side

    def __call__(self) -> float:
        return self.side


@contextmanager
def opened(url: str = "memory://", **options: Any) -> Iterator[AICache]:
    given: dict[str, Any] = {"max_error_rate": 0.1, "comparator": Equal(), "coin": Fixed(0.99), **options}
    with AICache(url, embeddings=FakeEmbedder(), **given) as cache:
        before = get_llm_cache()
        set_llm_cache(cache)
        try:
            yield cache
        finally:
            set_llm_cache(before)


def study_of(cache: AICache) -> Study:
    study = cache._core._study
    assert study is not None
    return study


def settled(cache: AICache) -> None:
    """Have what was answered so far learned before it matters."""
    study_of(cache).settle(SECONDS)


def lessons(cache: AICache) -> int:
    settled(cache)
    learned = cache.stats().learned
    assert learned is not None
    return learned.lessons


def begin(cache: AICache, llm: CountingModel) -> None:
    """The first lookup has the log read; those before it is read have no lessons."""
    llm.invoke("wake up and close this account")
    settled(cache)


def ask_all(cache: AICache, llm: CountingModel, asked: Sequence[str]) -> list[AIMessage]:
    answers = []
    for number, text in enumerate(asked):
        answers.append(llm.invoke(text))
        if number % 10 == 0:
            settled(cache)
    settled(cache)
    return answers


def mark(message: AIMessage) -> dict[str, Any]:
    found: dict[str, Any] = message.response_metadata.get("aicache", {})
    return found


def model(reply: Callable[..., AIMessage] = about) -> CountingModel:
    return CountingModel(reply=reply)


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_invoke_learns_to_answer_reworded_questions_rightly(kind: str, tmp_path: Path) -> None:
    url = "memory://" if kind == "memory" else f"sqlite:///{tmp_path / 'answers.db'}"
    with opened(url) as cache:
        llm = model()
        begin(cache, llm)
        asked = questions()
        answers = ask_all(cache, llm, asked)
        hits = [(text, answer) for text, answer in zip(asked, answers, strict=True) if mark(answer)]
        assert len(hits) > len(asked) / 4
        assert {mark(answer)["match"] for _, answer in hits} == {"semantic"}
        wrong = sum(answer.text != about([AIMessage(text)]).text for text, answer in hits)
        assert wrong <= 0.1 * len(asked)
        assert llm.calls == len(asked) + 1 - len(hits)
        assert lessons(cache) > 100


def test_a_batch_teaches_a_lesson_for_each_of_its_questions() -> None:
    with opened() as cache:
        llm = model()
        begin(cache, llm)
        asked = questions(rounds=1)
        llm.batch(list(asked))
        # Whatever ran first may have found only the very first entry, but that one was there.
        assert lessons(cache) == len(asked) - sum(cache.stats().hits.values())


def test_one_question_many_times_in_a_batch_is_answered_each_time() -> None:
    with opened() as cache:
        llm = model()
        begin(cache, llm)
        ask_all(cache, llm, questions(rounds=1))
        answers = llm.batch(["how do I reset my password from here"] * 6)
        assert {answer.text for answer in answers} == {"To reset my password: press here."}
        assert not study_of(cache)._waiting._lessons


async def test_ainvoke_and_gathered_calls_teach_as_invoke_does() -> None:
    with opened() as cache:
        llm = model()
        await llm.ainvoke("wake up and close this account")
        settled(cache)
        asked = questions(rounds=1)
        for text in asked[:10]:
            await llm.ainvoke(text)
        await asyncio.gather(*(llm.ainvoke(text) for text in asked[10:]))
        assert lessons(cache) == len(asked) - cache.stats().semantic_hits
        assert not study_of(cache)._waiting._lessons


def test_an_audit_asks_the_model_and_its_answer_is_kept() -> None:
    coin = Fixed(0.0)
    with opened(coin=coin) as cache:
        llm = model()
        begin(cache, llm)
        ask_all(cache, llm, questions(rounds=2))
        stats = cache.stats()
        assert stats.semantic_hits == 0
        assert stats.misses[MissReason.AUDIT] > 0
        assert stats.learned is not None
        assert stats.learned.audits == stats.misses[MissReason.AUDIT]
        before = llm.calls
        text = questions(rounds=2)[-1]
        assert mark(llm.invoke(text))["match"] == "exact"
        assert llm.calls == before


class BrokenError(Exception):
    """Of the model's provider."""


def test_a_model_that_fails_leaves_no_lesson_and_no_answer() -> None:
    fails = threading.Event()

    def sometimes(messages: Sequence[BaseMessage]) -> AIMessage:
        if fails.is_set():
            raise BrokenError
        return about(messages)

    with opened() as cache:
        llm = model(sometimes)
        begin(cache, llm)
        ask_all(cache, llm, questions(rounds=1))
        known, size = lessons(cache), cache.size()
        fails.set()
        for topic in TOPICS:
            with pytest.raises(BrokenError):
                llm.invoke(f"zebras and how they {topic}")
        assert (lessons(cache), cache.size()) == (known, size)
        fails.clear()
        # The same questions again: a lesson each, and not two.
        again = [llm.invoke(f"zebras and how they {topic}") for topic in TOPICS]
        assert lessons(cache) == known + sum(not mark(answer) for answer in again)


def test_a_truncated_answer_is_neither_kept_nor_learned_from() -> None:
    short = threading.Event()

    def cut(messages: Sequence[BaseMessage]) -> AIMessage:
        whole = about(messages)
        if short.is_set():
            whole.response_metadata["finish_reason"] = "length"
        return whole

    with opened() as cache:
        llm = model(cut)
        begin(cache, llm)
        ask_all(cache, llm, questions(rounds=1))
        known = lessons(cache)
        short.set()
        answers = [llm.invoke(f"zebras and how they {topic}") for topic in TOPICS]
        assert not all(mark(answer) for answer in answers)
        assert cache.stats().not_stored[SkipReason.TRUNCATED] == sum(not mark(answer) for answer in answers)
        assert lessons(cache) == known
        assert not study_of(cache)._waiting._lessons


def test_answers_served_report_the_usage_and_are_counted_as_saved() -> None:
    with opened(prices=(1.0, 2.0)) as cache:
        llm = model()
        begin(cache, llm)
        answers = ask_all(cache, llm, questions())
        hits = [answer for answer in answers if mark(answer)]
        assert all(answer.usage_metadata is not None and answer.usage_metadata["input_tokens"] == 11 for answer in hits)
        stats = cache.stats()
        assert stats.tokens_saved.input_tokens == 11 * len(hits)
        assert stats.money_saved == pytest.approx((11 + 14) * len(hits) / 1_000_000)


@pytest.mark.parametrize("wrong", [True, False])
def test_a_report_by_the_id_in_the_response_metadata_is_a_lesson(wrong: bool) -> None:
    with opened() as cache:
        llm = model()
        begin(cache, llm)
        answers = ask_all(cache, llm, questions())
        hit = next(answer for answer in reversed(answers) if mark(answer))
        known = lessons(cache)
        assert cache.report(mark(hit)["entry_id"], wrong=wrong) is wrong
        assert lessons(cache) == known + 1
        stats = cache.stats()
        assert (stats.reported_wrong, stats.reported_right) == (int(wrong), int(not wrong))


def test_what_was_reported_wrong_is_not_served_to_the_same_question_again() -> None:
    with opened() as cache:
        llm = model()
        begin(cache, llm)
        asked = questions()
        answers = ask_all(cache, llm, asked)
        text, hit = next((text, hit) for text, hit in zip(asked[::-1], answers[::-1], strict=True) if mark(hit))
        cache.report(mark(hit)["entry_id"], wrong=True)
        after = mark(llm.invoke(text))
        assert after.get("entry_id") != mark(hit)["entry_id"]


def test_a_block_that_bypasses_or_refreshes_teaches_nothing() -> None:
    with opened() as cache:
        llm = model()
        begin(cache, llm)
        ask_all(cache, llm, questions(rounds=1))
        known = lessons(cache)
        with bypass():
            llm.invoke("zebras and how they track a parcel")
        with refresh():
            llm.invoke("how do I track a parcel")
            llm.invoke("zebras and how they close this account")
        assert lessons(cache) == known


def test_another_programs_lessons_are_known_from_the_start(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'answers.db'}"
    with opened(url) as cache:
        llm = model()
        begin(cache, llm)
        ask_all(cache, llm, questions(rounds=2))
        known = lessons(cache)
    with opened(url) as again:
        llm = model()
        llm.invoke("wake up again and close this account")
        assert lessons(again) >= known
        answers = [llm.invoke(text) for text in questions(seed=9)]
        assert sum(mark(answer).get("match") == Match.SEMANTIC for answer in answers) > 0


def test_shadow_mode_asks_the_model_every_time_and_says_what_it_would_have_served() -> None:
    with opened(shadow=True) as cache:
        llm = model()
        begin(cache, llm)
        asked = questions()
        answers = ask_all(cache, llm, asked)
        assert llm.calls == len(asked) + 1
        assert not any(mark(answer) for answer in answers)
        shadow = cache.stats().shadow
        assert shadow is not None
        assert shadow.hits[Match.SEMANTIC] > len(asked) / 4
        assert shadow.wrong.get(Match.SEMANTIC, 0) <= 0.1 * len(asked)
        assert shadow.unknown == 0


def test_explain_prints_the_risk_of_the_nearest_entry_and_changes_nothing() -> None:
    with opened() as cache:
        llm = model()
        begin(cache, llm)
        ask_all(cache, llm, questions())
        before = cache.stats()
        printed = str(cache.explain("how do I track a parcel this minute", llm))
        assert "risk 0." in printed
        assert "limit 0." in printed
        assert cache.stats() == before


def test_a_cache_that_matches_only_exactly_says_why_it_learns_nothing() -> None:
    with AICache("memory://", embeddings=False, max_error_rate=0.1, comparator=Equal()) as cache:
        set_llm_cache(cache)
        llm = model()
        llm.invoke("how do I track a parcel")
        assert mark(llm.invoke("how do I track a parcel"))["match"] == "exact"
        set_llm_cache(None)
        assert cache.stats().static is not None
        assert "there is no embedder" in str(cache.stats())
