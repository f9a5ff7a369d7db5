"""Rules of learning where something goes wrong, or comes late, twice or never."""

import asyncio
import logging
import os
import random
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from test_learning import TOPICS, WAYS, answer, ask, keep, lessons, log_of, make_cache, question, run, traffic, whole

from aicache._course import FAILURES, LATE_LABELS, SUMMARY_EVERY, Course
from aicache._driver import _NO_DEADLINE, _perform
from aicache._errors import ConfigurationError, UnreadableEntryError
from aicache._learned import Equal, FeatureSet, Label, Learner, Lesson, Reading, Target, Ticket
from aicache._learning import LearnedMatcher
from aicache._lessons import WAITING_BYTES, WAITING_SECONDS, Trail, Waiting, compare, lightened
from aicache._model import (
    Answer,
    Candidate,
    Entry,
    Hit,
    Match,
    Miss,
    MissReason,
    NotStored,
    Opinion,
    Selection,
    SkipReason,
)
from aicache._open import open_cache
from aicache._steps import Verify
from aicache._study import QUEUE_BYTES, Study
from aicache.cache import SemanticCache
from aicache.comparators import InOrder
from aicache.stores.memory import MemoryStore
from aicache.testing import ChaosStore, FailingStore, FakeClock, FakeEmbedder, make_entry, make_key, make_vector
from aicache.verifiers._verification import Verification

SECONDS = 20.0
"""More than anything here takes; who waits so long fails."""


def study_of(cache: SemanticCache) -> Study:
    assert cache._study is not None
    return cache._study


def learner_of(cache: SemanticCache) -> Learner:
    matcher = cache._matcher
    assert isinstance(matcher, LearnedMatcher)
    learner = matcher.courses[-1].learner
    assert learner is not None
    return learner


def taught(store: MemoryStore, **options: Any) -> SemanticCache:
    """A cache that knows enough to serve, and never draws an audit."""
    run(make_cache(store, coin=lambda: 0.99), traffic(rounds=2))
    cache = make_cache(store, coin=lambda: 0.99, **options)
    ask(cache, "wake up")
    return cache


def served(cache: SemanticCache, seed: int = 7) -> list[Hit]:
    outcomes = [ask(cache, text) for text, _ in traffic(seed, rounds=3)]
    return [outcome for outcome in outcomes if isinstance(outcome, Hit) and outcome.match is Match.SEMANTIC]


def topics(number: int) -> list[tuple[str, str]]:
    return [(f"how do I {topic} from {place}", topic) for place in range(number) for topic in TOPICS][:number]


# --------------------------------------------------------------------------------------- lookups broken off


class Hanging:
    """A verifier that waits until it is cancelled."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()

    def verify(self, asked: str, stored: str) -> Opinion:
        raise AssertionError("only async callers here")

    async def averify(self, asked: str, stored: str) -> Opinion:
        self.asked.set()
        await asyncio.Event().wait()
        raise AssertionError("cancelled before")


async def test_an_accepted_answer_that_nobody_waits_for_any_more_does_not_count_as_served() -> None:
    verifier = Hanging()
    cache = taught(MemoryStore(), verification=Verification(verifier, timeout=None))
    for text, _ in traffic(seed=7, rounds=3):
        before = list(learner_of(cache)._unsent)
        task = asyncio.create_task(cache.alookup(question(text), whole))
        asked = asyncio.create_task(verifier.asked.wait())
        await asyncio.wait({task, asked}, return_when=asyncio.FIRST_COMPLETED)
        asked.cancel()
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert learner_of(cache)._unsent == [before[0] + 1, before[1]]
            return
    raise AssertionError("nothing was accepted")


def test_a_plan_that_ends_between_decision_and_answer_leaves_no_audit_pending() -> None:
    cache = make_cache(certified=True, coin=lambda: 0.0)
    run(cache, traffic(rounds=2))
    learner = learner_of(cache)
    ticket = Ticket(bytes(4 * FeatureSet().count), 0.1, 0.1, 0.5, audit=True)
    learner._pending[ticket] = ticket.chance
    study_of(cache).broken_off(Trail(Lesson(space_of(cache), ticket=ticket)))
    assert ticket not in learner._pending


def space_of(cache: SemanticCache) -> str:
    matcher = cache._matcher
    assert isinstance(matcher, LearnedMatcher)
    (space,) = matcher._courses
    return space


def test_an_answer_served_but_not_readable_is_no_hit_and_no_lesson() -> None:
    def damaged(hit: Hit) -> Hit:
        raise UnreadableEntryError("Damaged.")

    cache = taught(MemoryStore())
    known = lessons(cache)
    for text, _ in traffic(seed=7, rounds=3):
        before = learner_of(cache)._unsent[1]
        outcome = cache.lookup(question(text), damaged)
        assert isinstance(outcome, Miss)
        if outcome.reason is MissReason.UNREADABLE:
            assert learner_of(cache)._unsent[1] == before
            keep(cache, text, "fresh")
    assert cache.stats().misses[MissReason.UNREADABLE] > 0
    assert lessons(cache) >= known


class Counting:
    """A coin that counts its throws: one for each request that was decided about."""

    def __init__(self) -> None:
        self.chance = random.Random(5)
        self.throws = 0

    def __call__(self) -> float:
        self.throws += 1
        return self.chance.random()


class Refusing:
    """A verifier that refuses, fails or agrees as told."""

    said: bool | None = True

    def verify(self, asked: str, stored: str) -> Opinion:
        if self.said is None:
            raise RuntimeError
        return Opinion(same=self.said)


@cache
def learned_before() -> tuple[Sequence[Entry], bytes, tuple[bytes, ...], tuple[int, bytes]]:
    """Entries, a log, its lessons and its summary, to begin with."""
    store = MemoryStore()
    taught = make_cache(store, rate=0.3, certified=True, coin=lambda: 0.99)
    run(taught, traffic(rounds=2))
    log = log_of(taught)
    summary = store.summary(log)
    assert summary is not None
    return store.entries(Selection()), log, store.lessons(log, 0).items, summary


class Accounts(RuleBasedStateMachine):
    """Whatever becomes of a lookup and of its answer: each request and each answer served is counted once.

    And an audit is pending as long as its answer may come, and no longer.
    """

    def __init__(self) -> None:
        super().__init__()
        self.inner = MemoryStore()
        entries, log, items, (position, summary) = learned_before()
        self.inner.write_many(entries)
        self.inner.append_lessons(log, items)
        self.inner.keep_summary(log, position, summary)
        self.store, self.coin, self.clock, self.verifier = FailingStore(self.inner), Counting(), FakeClock(), Refusing()
        self.cache = make_cache(
            self.store,
            rate=0.3,
            certified=True,
            coin=self.coin,
            clock=self.clock,
            verification=Verification(self.verifier, memo_entries=1),
        )
        ask(self.cache, "wake up")
        before = learner_of(self.cache).ledger
        self.requests, self.hits = before.requests, before.hits
        self.number = self.served = 0
        self.asked: list[tuple[str, str]] = []
        for topic in TOPICS * 7:  # A process serves nothing before it has seen fifty requests of its own.
            self.asks(topic, WAYS[0])
        self.give_up()

    def asks(self, topic: str, way: str) -> None:
        self.number += 1
        text = f"{way.format(topic)} {'now ' * (self.number % 2)}{self.number:b}"
        if isinstance(ask(self.cache, text), Hit):
            self.served += 1
        else:
            self.asked.append((text, topic))

    @rule(topic=st.sampled_from(TOPICS), way=st.sampled_from(WAYS), said=st.sampled_from([True, True, False, None]))
    def look_up(self, topic: str, way: str, said: bool | None) -> None:
        self.verifier.said = said
        self.asks(topic, way)

    @rule(right=st.booleans())
    def answer(self, right: bool) -> None:
        if self.asked:
            text, topic = self.asked.pop(0)
            keep(self.cache, text, topic if right else "something else")

    @rule()
    def refuse(self) -> None:
        if self.asked:
            text, _ = self.asked.pop()
            self.cache.update(question(text), lambda: NotStored(SkipReason.TRUNCATED))

    @rule()
    def break_off(self) -> None:
        """As an async caller that is cancelled while the verifier is asked, or while the store is."""
        self.recover()
        self.number += 1
        plan = self.cache._lookup(question(f"how do I {TOPICS[0]} {self.number:b}"), whole)
        step = next(plan)
        try:
            while not isinstance(step, Verify):
                step = plan.send(_perform(step, self.cache._ports, _NO_DEADLINE))
        except StopIteration as stop:
            if isinstance(stop.value, Hit):
                self.served += 1
        plan.close()

    @rule(method=st.sampled_from(["append_lessons", "lessons", "keep_summary", "join", "nearest"]))
    def fail(self, method: str) -> None:
        self.store.fail(method)

    @rule()
    def recover(self) -> None:
        self.store.recover()
        self.clock.advance(60)

    @rule()
    def give_up(self) -> None:
        """No answer comes to what has been asked."""
        self.asked.clear()
        self.clock.advance(WAITING_SECONDS + 1)

    @invariant()
    def each_request_and_each_hit_is_counted_once(self) -> None:
        matcher = self.cache._matcher
        assert isinstance(matcher, LearnedMatcher)
        course, learner = matcher.courses[-1], learner_of(self.cache)
        log = [Label.from_bytes(item) for item in self.inner.lessons(course._log, learner.position).items]
        waiting = [one for one in (*course._labels, *log) if one is not None]
        requests = learner.ledger.requests + learner._unsent[0] + sum(one.requests for one in waiting)
        hits = learner.ledger.hits + learner._unsent[1] + sum(one.hits for one in waiting)
        behind = requests - self.requests - self.coin.throws
        assert behind >= 0  # While the log is behind, no coin is thrown.
        assert hits - self.hits == self.served

    @invariant()
    def an_audit_is_pending_as_long_as_its_answer_may_come(self) -> None:
        waiting = [lesson for queue in study_of(self.cache)._waiting._lessons.values() for _, lesson in queue]
        tickets = {lesson.ticket for lesson in waiting if lesson.ticket is not None and lesson.ticket.audit}
        assert set(learner_of(self.cache)._pending) == tickets


Accounts.TestCase.settings = settings(max_examples=25, stateful_step_count=40, deadline=None)
TestAccounts = Accounts.TestCase


# ------------------------------------------------------------------------------------------------ the store


class Forgetful(MemoryStore):
    """Appends, and then seems to have failed, while `loses` is True."""

    loses = False

    def append_lessons(self, log: bytes, lessons: Sequence[bytes]) -> int:
        end = super().append_lessons(log, lessons)
        if self.loses:
            raise ConnectionResetError
        return end


def test_lessons_whose_appending_only_seemed_to_fail_are_not_appended_twice() -> None:
    store = Forgetful()
    cache = make_cache(store)
    run(cache, traffic(rounds=1))
    known = lessons(cache)
    store.loses = True
    for text, said in topics(5):
        ask(cache, text)
        keep(cache, text, said)
    store.loses = False
    ask(cache, "how do I track a parcel of mine")
    keep(cache, "how do I track a parcel of mine", "track a parcel")
    items = store.lessons(log_of(cache), 0).items
    assert len(items) == len(set(items)) == known + 6
    assert lessons(cache) == known + 6


def test_an_entry_that_can_never_be_joined_stops_no_lesson() -> None:
    store = FailingStore(MemoryStore(), "join", error=UnreadableEntryError("Damaged."))
    cache = make_cache(store)
    outcomes = run(cache, traffic(rounds=1))
    assert store.calls["join"] > 1
    assert lessons(cache) == len(outcomes) - 1


@pytest.mark.parametrize("method", ["append_lessons", "lessons"])
def test_nothing_is_served_while_the_log_cannot_be_written_or_read(method: str) -> None:
    inner = MemoryStore()
    run(make_cache(inner, coin=lambda: 0.99), traffic(rounds=2))
    store, clock = FailingStore(inner), FakeClock()
    cache = make_cache(store, coin=lambda: 0.99, clock=clock)
    ask(cache, "wake up")
    assert served(cache)
    store.fail(method)
    misses = 0
    for number in range(20 * FAILURES):
        clock.advance(2)
        text = f"which {number:b} zebras run {number % 7:b} parcels?"
        if isinstance(ask(cache, text), Miss):
            keep(cache, text, "in the zoo")
            misses += 1
    assert misses > FAILURES
    assert not served(cache, seed=8)
    assert "store takes no lessons" in str(cache.explain(question(served_text(cache))))
    store.recover()
    clock.advance(60)
    ask(cache, "how do I go on")
    assert served(cache, seed=9)


def served_text(cache: SemanticCache) -> str:
    """A question that is an audit now, whatever the coin."""
    return next(text for text, _ in traffic(10, rounds=3) if reason(ask(cache, text)) is MissReason.AUDIT)


def reason(outcome: Hit | Miss) -> MissReason | None:
    return outcome.reason if isinstance(outcome, Miss) else None


def make_course(store: MemoryStore) -> Course:
    return Course(b"l" * 16, store, Target(0.1), FeatureSet())


def label(number: int, *, ok: bool = True) -> Label:
    row = bytes(4 * FeatureSet().count)
    return Label(row, ok, 1.0, audit=False, risk=0.5, predicted=0.5, requests=number)


def test_a_course_is_behind_when_many_labels_wait() -> None:
    course = make_course(MemoryStore())
    for number in range(LATE_LABELS):
        assert not course.behind
        course.offer(label(number))
    assert course.behind
    course.study()
    assert not course.behind


def test_a_summary_that_cannot_be_kept_keeps_nobody_from_learning() -> None:
    store = FailingStore(MemoryStore(), "keep_summary")
    course = Course(b"l" * 16, store, Target(0.1), FeatureSet())  # type: ignore[arg-type]
    for number in range(20):
        course.offer(label(number))
    with pytest.raises(Exception, match="told to fail"):
        course.study()
    assert course.learner is not None
    assert course.learner.position == 20
    assert course.learner.snapshot().weights.version == 20
    assert not course.behind


def test_a_summary_of_a_log_that_was_lost_is_left_alone() -> None:
    # As a Redis does that evicts the log and not its summary.
    store = MemoryStore()
    before = make_course(store)
    for number in range(SUMMARY_EVERY):
        before.offer(label(number))
    before.study()
    kept = store.summary(b"l" * 16)
    assert kept is not None
    store.forget_lessons(b"l" * 16)
    store.keep_summary(b"l" * 16, *kept)
    after = make_course(store)
    for number in range(40):
        after.offer(label(number))
        after.study()
    before.offer(label(40))
    before.study()
    after.study()
    for course in (before, after):
        assert course.learner is not None
        assert course.learner.ledger.lessons == 41
        assert 0 < course.learner.snapshot().weights.version <= 41


def test_a_long_log_is_taken_in_parts_so_that_no_decision_waits_for_all_of_it() -> None:
    store = MemoryStore()
    reader, writer = make_course(store), make_course(store)
    reader.study()
    for number in range(950):
        writer.offer(label(number))
    writer.study()
    learner = reader.learner
    assert learner is not None
    taken: list[int] = []

    class Watched(Learner):
        def take(self, labels: Any) -> None:
            some = list(labels)
            taken.append(len(some))
            super().take(some)

    learner.__class__ = Watched
    reader.study()
    assert sum(taken) == 950
    assert max(taken) <= 100


# ------------------------------------------------------------------------------------- waiting and memory


def test_lessons_that_wait_are_weighed_with_questions_and_vectors() -> None:
    entry = replace(make_entry("q" * 1000), vector=bytes(10_000))
    assert Lesson("space", (Candidate(entry, 0.9),) * 10).weight > 110_000


def test_a_lesson_that_waits_keeps_one_entry_of_each_cluster_and_no_vector() -> None:
    cluster, vector = b"c" * 16, make_vector(1, 0)
    entries = [make_entry(name, vector=vector) for name in ("a", "b", "c", "d")]
    clusters = (cluster, None, cluster, None)
    near = [
        Candidate(replace(entry, cluster=one), 0.9 - place / 100)
        for place, (entry, one) in enumerate(zip(entries, clusters, strict=True))
    ]
    ticket = Ticket(b"", 0.1, 0.1, 1.0)
    light = lightened(Lesson("space", tuple(near), ticket, accepted=True))
    assert [(one.entry.query, one.entry.cluster, one.entry.vector, one.score) for one in light.near] == [
        (one.entry.query, one.entry.cluster, None, one.score) for one in (near[0], near[1], near[3])
    ]
    assert (light.space, light.ticket, light.accepted) == ("space", ticket, True)


def test_a_lesson_larger_than_all_that_may_wait_is_dropped_and_nothing_else() -> None:
    dropped: list[Lesson] = []
    waiting = Waiting(dropped.append)
    small, later = Lesson("space"), Lesson("space")
    huge = Lesson("space", (Candidate(replace(make_entry("a"), answer=Answer(bytes(WAITING_BYTES), b"d" * 16)), 0.9),))
    waiting.put(make_key("huge"), huge, 0.0)
    assert dropped == [huge]
    waiting.put(make_key("small"), small, 0.0)
    waiting.put(make_key("later"), later, 0.0)
    assert waiting.take(make_key("small")) is small
    assert waiting.take(make_key("later")) is later


def test_hits_that_a_report_may_come_for_keep_no_answers_alive() -> None:
    cache = taught(MemoryStore())
    hits = served(cache)
    kept = [study_of(cache)._served.get(hit.id) for hit in hits]
    assert kept
    assert all(lesson is not None and lesson.near == () and lesson.ticket is not None for lesson in kept)


class Slow:
    """Equal, once the gate is open."""

    immediate = False

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.begun = threading.Event()

    def same(self, a: Reading, b: Reading) -> bool | None:
        self.begun.set()
        assert self.gate.wait(SECONDS)
        return a.digest == b.digest


def test_answers_that_wait_to_be_compared_are_bounded_in_bytes() -> None:
    slow = Slow()
    cache = make_cache(comparator=slow, background="thread")
    ask(cache, "wake up")
    study_of(cache)._studying.settle(SECONDS)
    keep(cache, "how do I begin", "x")
    large = "x" * (QUEUE_BYTES // 20)
    for number in range(30):
        text = f"how do I begin {number:b}"
        ask(cache, text)
        cache.update(question(text), lambda number=number: answer(f"{number}{large}"))  # type: ignore[misc]
    learned = cache.stats().learned
    slow.gate.set()
    cache.close()
    assert learned is not None
    assert learned.uncompared > 0


def test_lessons_of_others_come_in_while_a_comparator_is_slow() -> None:
    store, slow, clock = MemoryStore(), Slow(), FakeClock()
    cache = make_cache(store, comparator=slow, background="thread", clock=clock)
    ask(cache, "wake up")
    study_of(cache)._studying.settle(SECONDS)
    keep(cache, "how do I begin", "x")
    ask(cache, "how do I begin now")
    keep(cache, "how do I begin now", "x")
    assert slow.begun.wait(SECONDS)
    run(make_cache(store), traffic(rounds=1))
    clock.advance(2)
    ask(cache, "anything new?")
    study_of(cache)._studying.settle(SECONDS)
    seen = lessons(cache)
    slow.gate.set()
    cache.close()
    assert seen > 50


def test_nothing_is_begun_after_close() -> None:
    store = FailingStore(MemoryStore())
    clock = FakeClock()
    cache = make_cache(store, background="thread", clock=clock)
    ask(cache, "wake up")
    cache.close()
    before = store.calls["lessons"]
    clock.advance(10)
    ask(cache, "anybody there?")
    study_of(cache).settle(SECONDS)
    assert store.calls["lessons"] == before
    assert study_of(cache)._studying._workers._executor is None


def test_close_waits_for_no_store_that_hangs() -> None:
    store = ChaosStore(MemoryStore())
    cache = make_cache(store, background="thread")
    ask(cache, "wake up")
    study_of(cache).settle(SECONDS)
    keep(cache, "how do I begin", "x")
    store.set(hang=1.0, only=["append_lessons"])
    ask(cache, "how do I begin now")
    keep(cache, "how do I begin now", "x")
    study_of(cache).close()
    hanging = len(store._hanging)
    store.calm()
    cache.close()
    assert hanging == 1


_FORKED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from aicache.stores.memory import MemoryStore
from test_learning import ask, keep, lessons, make_cache, run, settle, traffic

cache = make_cache(MemoryStore(), background="thread", coin=lambda: 0.99)
settle(cache)
run(cache, traffic(rounds=1))
cache._study.settle(20)
known = lessons(cache)
ask(cache, "how do I wait for the parent to track a parcel")
child = os.fork()
if not child:
    signal.alarm(60)
    cache._study._studying.wake()
    cache._study.settle(20)
    assert lessons(cache) == known, (lessons(cache), known)
    keep(cache, "how do I wait for the parent to track a parcel", "x")
    ask(cache, "zebras and how they close this account")
    keep(cache, "zebras and how they close this account", "x")
    cache._study.settle(20)
    assert lessons(cache) == known + 1, (lessons(cache), known)
    cache.close()
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
keep(cache, "how do I wait for the parent to track a parcel", "x")
cache.close()
assert lessons(cache) == known + 1
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_learns_on_its_own_and_leaves_the_parents_lessons_to_the_parent() -> None:
    here = str(Path(__file__).parent)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _FORKED, here], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_comparator_that_panics_teaches_nothing_and_costs_nothing() -> None:
    class PanicError(BaseException):
        """As extension modules written in Rust raise."""

    class Panicking:
        immediate = True

        def same(self, a: Reading, b: Reading) -> bool | None:
            raise PanicError

    near = [Candidate(make_entry("a"), 0.9)]
    found = compare(Answer(b"x", b"x" * 16), near, Panicking(), lambda one: Reading(one.digest))
    assert found.ok is None


def test_a_fresh_answer_is_read_once_however_many_it_is_compared_with() -> None:
    fresh = Answer(b"fresh", b"f" * 16)
    read: list[Answer] = []

    def reading(one: Answer) -> Reading:
        read.append(one)
        return Reading(one.digest)

    near = [
        Candidate(replace(make_entry(name), answer=Answer(name.encode(), name.encode() * 16)), 0.9) for name in "abcde"
    ]
    compare(fresh, near, Equal(), reading)
    assert read.count(fresh) == 1
    assert len(read) == 6


# ------------------------------------------------------------------------------------------------- reports


def test_a_hit_reported_twice_teaches_once() -> None:
    cache = make_cache()
    hits = [outcome for outcome in run(cache, traffic()) if isinstance(outcome, Hit)]
    before = lessons(cache)
    for _ in range(5):
        cache.report(hits[-1].id, wrong=False)
    assert lessons(cache) == before + 1


# --------------------------------------------------------------------------------------------- people


def test_explain_says_that_a_certificate_leaves_no_room() -> None:
    cache = make_cache(rate=0.02, certified=True, coin=lambda: 0.99)
    refused = [
        text
        for text, said in traffic()
        if isinstance(outcome := ask(cache, text), Miss)
        and isinstance(keep(cache, text, said), object)
        and outcome.reason is MissReason.BUDGET
    ]
    text = f"{refused[-1]} today"
    outcome = ask(cache, text)
    assert isinstance(outcome, Miss)
    assert outcome.reason is MissReason.BUDGET
    explained = cache.explain(question(text)).outcome
    assert isinstance(explained, Miss)
    assert explained.reason is MissReason.BUDGET


def test_explain_prints_a_line_for_each_entry_near_that_a_person_can_read() -> None:
    cache = make_cache()
    run(cache, traffic())
    printed = str(cache.explain(question("how do I reset my password this minute")))
    lines = [line for line in printed.splitlines() if line.startswith("  near")]
    assert len(lines) == 10
    assert "risk 0." in lines[0]
    assert "limit 0." in lines[0]
    assert "farther" in lines[1]
    assert "Candidate(" not in printed


def test_what_a_static_cache_explains_names_guards_and_rivals() -> None:
    cache = open_cache("memory://", FakeEmbedder(), {"threshold": 0.5})
    keep(cache, "flight 12 to Rome", "at noon")
    printed = str(cache.explain(question("flight 13 to Rome")))
    assert "guarded" in printed
    assert "'flight 12 to Rome' (guard " in printed


def test_statistics_of_a_cache_that_serves_nothing_yet_say_so() -> None:
    assert "serving nothing by meaning yet" in str(make_cache().stats())


def test_no_log_message_of_learning_quotes_a_question_or_an_answer(caplog: pytest.LogCaptureFixture) -> None:
    class Telling:
        immediate = True

        def same(self, a: Reading, b: Reading) -> bool | None:
            raise ValueError(f"secret {a} {b}")

    store = FailingStore(MemoryStore(), "append_lessons", "join", error=ValueError("secret question"))
    cache = make_cache(store, comparator=Telling())
    with caplog.at_level(logging.DEBUG, logger="aicache"):
        run(cache, traffic(rounds=1))
        cache = make_cache(store)
        run(cache, traffic(rounds=1, seed=2))
    assert caplog.records
    assert "secret" not in caplog.text
    assert not any(topic in caplog.text for topic in TOPICS)


def test_shadow_mode_joins_no_clusters() -> None:
    store = FailingStore(MemoryStore())
    options: Any = {"threshold": 0.8, "shadow": True, "comparator": lambda a, b: True}
    cache = open_cache(store, FakeEmbedder(), options, background="inline")
    for _ in range(3):
        ask(cache, "How do I reset my password?")
        keep(cache, "How do I reset my password?", "by mail")
    shadow = cache.stats().shadow
    assert shadow is not None
    assert shadow.right == {Match.EXACT: 2}
    assert store.calls["join"] == 0


def test_answers_to_lookups_from_before_a_reset_leave_no_negative_count() -> None:
    cache = open_cache("memory://", FakeEmbedder(), {"threshold": 0.8, "shadow": True}, background="inline")
    keep(cache, "How do I reset my password?", "by mail")
    assert isinstance(ask(cache, "How do I reset my password?"), Miss)
    cache.reset_stats()
    keep(cache, "How do I reset my password?", "by mail")
    shadow = cache.stats().shadow
    assert shadow is not None
    assert shadow.unknown == 0


class Closable:
    """Equal, until it is closed."""

    immediate = True
    closed = False

    def same(self, a: Reading, b: Reading) -> bool | None:
        return a.digest == b.digest

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_comparator_that_the_user_made_outlives_the_cache(wrapped: bool) -> None:
    inner = Closable()
    options: Any = {"max_error_rate": 0.1, "comparator": InOrder(inner) if wrapped else inner}
    open_cache("memory://", FakeEmbedder(), options).close()
    assert not inner.closed


def test_a_comparator_that_was_made_for_the_cache_ends_with_it() -> None:
    cache = open_cache("memory://", FakeEmbedder(), {"max_error_rate": 0.1, "comparator": lambda a, b: True})
    comparator = study_of(cache)._comparator
    a, b, c = (Reading(text.encode(), text) for text in "abc")
    assert comparator.same(a, b) is True
    cache.close()
    assert comparator.same(a, c) is None


def test_comparators_in_order_are_closed_together() -> None:
    first, last = Closable(), Closable()
    InOrder(first, Equal(), last).close()
    assert first.closed
    assert last.closed


def test_reset_stats_counts_answers_not_compared_from_zero() -> None:
    class Undecided(Closable):
        def same(self, a: Reading, b: Reading) -> bool | None:
            return None

    cache = make_cache(comparator=Undecided())
    run(cache, traffic(rounds=1))
    assert "answers not compared" in str(cache.stats())
    cache.reset_stats()
    assert "answers not compared" not in str(cache.stats())


def test_an_answer_that_an_adapter_cannot_encode_drops_its_lesson() -> None:
    def broken() -> Answer:
        raise TypeError

    cache = make_cache()
    run(cache, traffic(rounds=1))
    text = "zebras and how they track a parcel"
    ask(cache, text)
    assert isinstance(cache.update(question(text), broken), NotStored)
    assert not study_of(cache)._waiting._lessons


# ------------------------------------------------------------------------------------------------- options


@pytest.mark.parametrize("guards", [None, 5, ["x"], "numbers", [Equal]])
@pytest.mark.parametrize("more", [{}, {"max_error_rate": 0.02}])
def test_what_is_no_sequence_of_guards_is_refused(guards: Any, more: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^guards: "):
        open_cache("memory://", FakeEmbedder(), more | {"guards": guards})


@pytest.mark.parametrize("per", [["hits"], None, 1])
def test_what_is_no_share_of_anything_is_refused(per: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^per: "):
        open_cache("memory://", FakeEmbedder(), {"max_error_rate": 0.02, "per": per})


def test_defaults_may_be_given_without_an_error_rate() -> None:
    cache = open_cache("memory://", FakeEmbedder(), {"max_error_rate": None, "per": "requests", "certified": False})
    assert cache.stats().learned is None


@pytest.mark.parametrize(("name", "value"), [("per", "hits"), ("certified", True)])
def test_what_would_have_no_effect_without_an_error_rate_is_refused(name: str, value: object) -> None:
    with pytest.raises(ConfigurationError, match=f"^{name}: "):
        open_cache("memory://", FakeEmbedder(), {name: value})  # type: ignore[misc]


def test_a_cache_without_guards_learns_all_the_same() -> None:
    cache = open_cache(
        "memory://",
        FakeEmbedder(),
        {"max_error_rate": 0.1, "guards": [], "comparator": Equal(), "coin": lambda: 0.99},
        background="inline",
    )
    outcomes = run(cache, traffic())
    assert lessons(cache) > len(TOPICS) * len(WAYS)
    assert any(isinstance(outcome, Hit) for outcome in outcomes)


def test_under_an_error_rate_per_hit_and_a_certificate_what_is_not_affordable_is_an_audit() -> None:
    options: Any = {"max_error_rate": 0.05, "per": "hits", "certified": True, "comparator": Equal()}
    cache = open_cache("memory://", FakeEmbedder(), options | {"coin": lambda: 0.99}, background="inline")
    outcomes = run(cache, traffic())
    audits = sum(outcome.reason is MissReason.AUDIT for outcome in outcomes if isinstance(outcome, Miss))
    hits = sum(isinstance(outcome, Hit) for outcome in outcomes)
    assert 0 < hits <= 0.05 * (hits + audits)
