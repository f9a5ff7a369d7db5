"""Rules of taking answers back: what a call means, what it removes, and what nobody is served again."""

import asyncio
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import pytest

from aicache import ConfigurationError, EmbedderError, Invalidation, StoreError, scope
from aicache._invalidation import read_report
from aicache._model import L1, Answer, Hit, Match, Miss, MissReason, Outcome, Prompt, Turn
from aicache._policy import CachePolicy
from aicache.cache import Question, SemanticCache
from aicache.embedders._embedding import Embedding
from aicache.stores.l1 import L1Cache
from aicache.stores.memory import MemoryStore
from aicache.testing import FailingStore, FakeClock, FakeEmbedder

ASKED = "How do I reset my password?"
REWORDED = "How can I reset my password please?"
UNRELATED = "Which planets have rings?"

Call = Callable[..., Any]


@pytest.fixture(params=["sync", "async"])
def call(request: pytest.FixtureRequest) -> Call:
    """Calls a method of a cache by its name, or its async twin."""

    def act(cache: SemanticCache, method: str, *args: Any, **kwargs: Any) -> Any:
        if request.param == "sync":
            return getattr(cache, method)(*args, **kwargs)
        return asyncio.run(getattr(cache, f"a{method}")(*args, **kwargs))

    return act


def make_cache(
    store: Any = None, *, embedder: FakeEmbedder | None = None, l1: bool = True, **options: Any
) -> SemanticCache:
    return SemanticCache(
        MemoryStore() if store is None else store,
        l1=L1Cache() if l1 else None,
        embedding=Embedding(embedder or FakeEmbedder()),
        policy=CachePolicy(threshold=0.8, margin=0.0),
        **{"clock": FakeClock(), **options},
    )


def question(text: str = ASKED, *, system: str = "s", model: str = "m", name: str | None = None) -> Question:
    turns = (Turn("system", system), Turn("human", text))
    raw = sha256(f"{text}|{system}|{model}|{name}".encode()).digest()
    return Question(raw, lambda: Prompt("chat", turns, f"{model} {name}".encode(), model_name=name))


def keep(cache: SemanticCache, asked: Question) -> None:
    cache.update(lambda: asked, lambda: Answer(b"answer", b"digest"))


def ask(cache: SemanticCache, asked: Question) -> Outcome:
    return cache.lookup(lambda: asked, lambda hit: hit)


def holds(cache: SemanticCache, asked: Question) -> bool:
    return isinstance(ask(cache, asked), Hit)


# ------------------------------------------------------------------------------------------ which entries


def test_by_tag_only_entries_with_all_of_the_tags_go(call: Call) -> None:
    cache = make_cache()
    with scope(tags=("a", "b")):
        keep(cache, question())
    with scope(tags=("a",)):
        keep(cache, question(UNRELATED))
    assert call(cache, "invalidate", tag=("a", "b")) == Invalidation(1)
    assert not holds(cache, question())
    assert call(cache, "invalidate", tag="a") == Invalidation(1)
    assert not holds(cache, question(UNRELATED))


def test_by_source_the_answers_drawn_from_a_document_go(call: Call) -> None:
    cache = make_cache()
    with scope(sources=("handbook.pdf", "faq.md")):
        keep(cache, question())
    with scope(sources=("faq.md",)):
        keep(cache, question(UNRELATED))
    assert call(cache, "invalidate", source="handbook.pdf").count == 1
    assert holds(cache, question(UNRELATED))
    assert not holds(cache, question())


def test_by_model_every_version_of_its_parameters_goes_and_no_other_model(call: Call) -> None:
    cache = make_cache()
    old = [question(model="cold", name="gpt-old"), question(model="warm", name="gpt-old")]
    new = question(model="cold", name="gpt-new")
    for each in (*old, new):
        keep(cache, each)
    assert call(cache, "invalidate", model="gpt-old").count == 2
    assert not any(holds(cache, each) for each in old)
    assert holds(cache, new)
    assert call(cache, "invalidate", model="gpt-new").count == 1


def test_by_description_only_that_very_model_goes(call: Call) -> None:
    cache = make_cache()
    keep(cache, question(model="cold"))
    keep(cache, question(model="warm"))
    assert call(cache, "invalidate", described=b"cold None").count == 1
    assert holds(cache, question(model="warm"))


def test_by_age_what_is_older_goes_and_what_is_as_old_stays(call: Call) -> None:
    clock = FakeClock()
    cache = make_cache(clock=clock)
    keep(cache, question())
    clock.advance(10)
    keep(cache, question(UNRELATED))
    clock.advance(5)
    assert call(cache, "invalidate", older_than=15).count == 0
    assert call(cache, "invalidate", older_than=14.5).count == 1
    assert not holds(cache, question())
    assert holds(cache, question(UNRELATED))


def test_by_prompt_only_that_answer_goes(call: Call) -> None:
    cache = make_cache()
    keep(cache, question())
    keep(cache, question(system="t"))
    assert call(cache, "invalidate", question).count == 1
    assert not holds(cache, question())
    assert holds(cache, question(system="t"))


def test_by_id_only_that_entry_goes(call: Call) -> None:
    cache = make_cache()
    keep(cache, question())
    keep(cache, question(UNRELATED))
    found = ask(cache, question())
    assert isinstance(found, Hit)
    assert call(cache, "invalidate", entry_id=found.id).count == 1
    assert not holds(cache, question())
    assert holds(cache, question(UNRELATED))
    assert call(cache, "invalidate", entry_id=found.id).count == 0


def test_of_another_namespace_only_when_it_is_named(call: Call) -> None:
    store = MemoryStore()
    old, new = make_cache(store, namespace="v1"), make_cache(store, namespace="v2")
    keep(old, question())
    keep(new, question())
    assert call(new, "invalidate", older_than=0, namespace="v1").count == 0
    new._clock.advance(1)  # type: ignore[attr-defined]
    assert call(new, "invalidate", older_than=0, namespace="v1").count == 1
    assert holds(new, question())


def test_of_another_tenant_only_when_it_is_named_or_all_are(call: Call) -> None:
    store = MemoryStore()
    mine, theirs = make_cache(store, tenant="a", l1=False), make_cache(store, tenant="b", l1=False)
    for cache in (mine, theirs):
        with scope(tags=("x",)):
            keep(cache, question())
    assert call(mine, "invalidate", tag="x", tenant="b", dry_run=True).count == 1
    assert call(mine, "invalidate", tag="x").count == 1
    assert holds(theirs, question())
    assert call(mine, "invalidate", tag="x", all_tenants=True).count == 1
    assert not holds(theirs, question())


# --------------------------------------------------------------------------------------------- by meaning


def test_by_meaning_near_questions_of_every_conversation_go(call: Call) -> None:
    cache = make_cache()
    near = [question(), question(REWORDED, system="t")]
    for each in (*near, question(UNRELATED)):
        keep(cache, each)
    removed = call(cache, "invalidate", like="reset my password", min_score=0.5)
    assert removed.count == 2
    assert {entry.query for entry in removed.entries} == {ASKED, REWORDED}
    assert not any(holds(cache, each) for each in near)
    assert holds(cache, question(UNRELATED))


def test_by_meaning_a_dry_run_lists_what_would_go_nearest_first(call: Call) -> None:
    cache = make_cache()
    for text in (REWORDED, UNRELATED, ASKED):
        keep(cache, question(text))
    listed = call(cache, "invalidate", like=ASKED, min_score=0.5, dry_run=True)
    assert [entry.query for entry in listed.entries] == [ASKED, REWORDED]
    assert listed.entries[0].score > listed.entries[1].score >= 0.5
    assert (listed.count, listed.dry_run) == (2, True)
    assert str(listed).startswith("2 entries would be removed\n  1.0000  ")
    assert all(holds(cache, question(text)) for text in (REWORDED, UNRELATED, ASKED))


def test_by_meaning_what_waits_to_be_written_goes_too(call: Call) -> None:
    store = FailingStore(MemoryStore())
    cache = make_cache(store)
    store.fail("write")
    keep(cache, question())
    store.recover()
    removed = call(cache, "invalidate", like=ASKED, min_score=0.9)
    assert [entry.query for entry in removed.entries] == [ASKED]
    assert cache.stats().pending == 0
    assert not holds(cache, question())


def test_by_meaning_a_dry_run_counts_what_then_goes(call: Call) -> None:
    store = FailingStore(MemoryStore())
    cache = make_cache(store)
    keep(cache, question())
    store.fail("write")
    keep(cache, question(REWORDED))
    store.recover()
    near = {"like": ASKED, "min_score": 0.5}
    assert call(cache, "invalidate", dry_run=True, **near).count == call(cache, "invalidate", **near).count == 2


def test_by_meaning_what_only_this_process_remembers_goes_too(call: Call) -> None:
    store = MemoryStore()
    cache = make_cache(store)
    keep(cache, question())
    store.clear(cache._read_what(None, {}).selection)  # As if the store had evicted it.
    assert ask(cache, question()).tier == L1  # type: ignore[union-attr]
    call(cache, "invalidate", like=UNRELATED, min_score=0.9)
    assert not holds(cache, question())


def test_by_meaning_more_than_one_removal_takes_goes_whole(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aicache._invalidation.REMOVED_AT_ONCE", 2)
    cache = make_cache()
    for number in range(5):
        keep(cache, question(f"{ASKED} {number}"))
    assert call(cache, "invalidate", like=ASKED, min_score=0.2).count == 5


def test_by_meaning_without_a_vector_is_an_error(call: Call) -> None:
    embedder = FakeEmbedder()
    cache = make_cache(embedder=embedder)
    embedder.fail_with = RuntimeError("no")
    with pytest.raises(EmbedderError, match="no vector"):
        call(cache, "invalidate", like=ASKED, min_score=0.9)


# ------------------------------------------------------------------------------------------------ dry runs


@pytest.mark.parametrize("how", ["tag", "prompt", "id"])
def test_a_dry_run_counts_and_changes_nothing(call: Call, how: str) -> None:
    cache = make_cache()
    with scope(tags=("x",)):
        keep(cache, question())
    found = ask(cache, question())
    assert isinstance(found, Hit)
    arguments: dict[str, Any] = {"tag": {"tag": "x"}, "prompt": {"ask": question}, "id": {"entry_id": found.id}}[how]
    assert call(cache, "invalidate", dry_run=True, **arguments) == Invalidation(1, dry_run=True)
    assert ask(cache, question()).tier == L1  # type: ignore[union-attr]
    assert call(cache, "invalidate", **arguments) == Invalidation(1)
    assert not holds(cache, question())


def test_one_entry_is_said_in_the_singular() -> None:
    assert str(Invalidation(1)) == "1 entry removed"
    assert str(Invalidation(0, dry_run=True)) == "0 entries would be removed"


# ------------------------------------------------------------------------------------------------- reports


def test_a_reported_hit_is_gone_and_its_pair_never_matched_again(call: Call) -> None:
    cache = make_cache()
    keep(cache, question())
    wrong = ask(cache, question(REWORDED))
    assert isinstance(wrong, Hit)
    assert wrong.match is Match.SEMANTIC
    assert call(cache, "report", wrong.id, wrong=True) is True
    assert not holds(cache, question())
    keep(cache, question())
    assert ask(cache, question(REWORDED)) == Miss(MissReason.ABSENT)
    other = ask(cache, question("How do I reset my password, please?"))
    assert isinstance(other, Hit), "for other questions the entry is as good as ever"


def test_a_reported_exact_hit_is_gone_and_may_come_back(call: Call) -> None:
    cache = make_cache()
    keep(cache, question())
    found = ask(cache, question())
    assert isinstance(found, Hit)
    assert call(cache, "report", found.id, wrong=True) is True
    assert not holds(cache, question())
    keep(cache, question())
    assert holds(cache, question())


def test_a_hit_that_was_right_stays_and_counts(call: Call) -> None:
    cache = make_cache()
    keep(cache, question())
    found = ask(cache, question(REWORDED))
    assert isinstance(found, Hit)
    assert call(cache, "report", found.id, wrong=False) is False
    assert holds(cache, question(REWORDED))
    call(cache, "report", found.id, wrong=True)
    stats = cache.stats()
    assert (stats.reported_right, stats.reported_wrong) == (1, 1)
    assert "reported hits: 1 wrong, 1 right" in str(stats)


def test_a_report_reaches_every_cache_on_the_store(call: Call) -> None:
    store = MemoryStore()
    here, there = make_cache(store, l1=False), make_cache(store, l1=False)
    keep(here, question())
    wrong = ask(there, question(REWORDED))
    assert isinstance(wrong, Hit)
    call(here, "report", wrong.id, wrong=True)
    keep(here, question())
    assert ask(there, question(REWORDED)) == Miss(MissReason.ABSENT)


@pytest.mark.parametrize(
    "text", ["", "x", "ä" * 44, "A" * 43, "A" * 44 + ".", "A" * 44 + ".x", "A" * 43 + "!", None, 7, b"A" * 44]
)
def test_what_is_no_id_is_refused(text: Any) -> None:
    if text == "A" * 44 + ".":
        assert read_report(text).asker is None
        return
    with pytest.raises(ConfigurationError, match=r"^entry_id: give the id"):
        read_report(text)


# ----------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("arguments", "parameter"),
    [
        ({}, "invalidate"),
        ({"like": "x"}, "min_score"),
        ({"min_score": 0.5}, "min_score"),
        ({"like": "x", "min_score": 2}, "min_score"),
        ({"like": 7, "min_score": 0.5}, "like"),
        ({"tag": 7}, "tag"),
        ({"tag": ("a", 7)}, "tag"),
        ({"tag": ()}, "tag"),
        ({"tag": []}, "tag"),
        ({"tag": ""}, "tag"),
        ({"all_tenants": False}, "invalidate"),
        ({"tag": "x", "dry_run": None}, "dry_run"),
        ({"tag": "x", "dry_run": 0}, "dry_run"),
        ({"source": b"x"}, "source"),
        ({"model": b"x"}, "model"),
        ({"older_than": -1}, "older_than"),
        ({"older_than": "1"}, "older_than"),
        ({"all_tenants": "yes", "tag": "x"}, "all_tenants"),
        ({"all_tenants": True, "tenant": "x"}, "all_tenants"),
        ({"entry_id": "x"}, "entry_id"),
        ({"entry_id": "x", "tag": "x"}, "entry_id"),
        ({"ask": question, "tag": "x"}, "prompt"),
        ({"colour": "x"}, "colour"),
    ],
)
def test_a_mistake_is_said_with_the_name_of_the_argument(call: Call, arguments: Any, parameter: str) -> None:
    cache = make_cache()
    keep(cache, question())
    with pytest.raises(ConfigurationError, match=rf"^{parameter}: "):
        call(cache, "invalidate", **arguments)
    assert holds(cache, question())


def test_by_meaning_an_embedder_is_needed(call: Call) -> None:
    cache = SemanticCache(MemoryStore())
    with pytest.raises(ConfigurationError, match=r"^like: this cache has no embedder"):
        call(cache, "invalidate", like="x", min_score=0.5)


def test_an_unknown_tenant_wants_to_be_named(call: Call) -> None:
    cache = make_cache(tenant=lambda: None)
    with pytest.raises(ConfigurationError, match=r"^tenant: .*all_tenants=True"):
        call(cache, "invalidate", tag="x")
    with pytest.raises(ConfigurationError, match=r"^prompt: it is never cached"):
        call(cache, "invalidate", question)


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("invalidate", {"tag": "x"}),
        ("invalidate", {"like": ASKED, "min_score": 0.5}),
        ("report", {"entry_id": "A" * 44, "wrong": True}),
        ("report", {"entry_id": f"{'A' * 44}.{'B' * 44}", "wrong": True}),
    ],
)
def test_a_store_that_cannot_be_reached_is_said(call: Call, method: str, arguments: Any) -> None:
    store = FailingStore(MemoryStore())
    cache = make_cache(store)
    store.fail()
    with pytest.raises(StoreError, match="mend the store and try again"):
        call(cache, method, **arguments)


def test_a_wrong_answer_leaves_this_process_even_if_the_store_cannot_note_the_pair(call: Call) -> None:
    store = FailingStore(MemoryStore())
    cache = make_cache(store)
    keep(cache, question())
    wrong = ask(cache, question(REWORDED))
    assert isinstance(wrong, Hit)
    assert ask(cache, question()).tier == L1  # type: ignore[union-attr]
    store.fail("block")
    with pytest.raises(StoreError, match="could not be taken back"):
        call(cache, "report", wrong.id, wrong=True)
    assert not holds(cache, question())
