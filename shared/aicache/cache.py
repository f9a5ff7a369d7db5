"""The cache: wiring of store, L1, embedding, policy and matcher, and the public methods.

An adapter gives `lookup` a way to its question and a function that turns a `Hit` into what its framework expects.
Nothing that goes wrong inside, the adapter's own functions included, leaves `lookup` or `update`.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final, TypeAlias, TypeVar, Unpack

from aicache._blobs import Blobs, BlobSetup
from aicache._clock import Clock, SystemClock
from aicache._closing import Closing
from aicache._driver import Embedding, Verification, run, run_async
from aicache._errors import CONTROL, ConfigurationError
from aicache._explain import Explanation
from aicache._health import Health
from aicache._invalidation import (
    Invalidation,
    Reported,
    Wanted,
    What,
    invalidate,
    read_report,
    read_what,
    report,
    trouble,
)
from aicache._key import identify
from aicache._learning import LearnedMatcher
from aicache._lessons import Trail
from aicache._match import StaticMatcher
from aicache._memo import Memo
from aicache._model import (
    Answer,
    CacheKey,
    Hit,
    Miss,
    MissReason,
    NotStored,
    Outcome,
    Prompt,
    Query,
    Selection,
    SkipReason,
    StoreSize,
    Unkeyable,
    UpdateOutcome,
)
from aicache._plans import Journal, Matcher, Request, Rules
from aicache._plans import lookup as lookup_plan
from aicache._plans import sweep as sweep_plan
from aicache._plans import update as update_plan
from aicache._policy import CachePolicy
from aicache._prompt import split
from aicache._reporting import Reporter
from aicache._resilience import Resilience
from aicache._scopes import ScopeBlock, bypass, current_scope, refresh, scope, tagged
from aicache._stats import Prices, Recorder, ShadowCounter, Stats
from aicache._steps import Plan, StepFailed
from aicache._study import Study, Studying
from aicache._tenancy import NoTenantError, Tenant, check_tenant, current_tenant
from aicache._together import together
from aicache._upkeep import Chore
from aicache._wiring import is_networked, wire
from aicache.stores.base import LessonStore, Store
from aicache.stores.l1 import L1Cache

__all__ = ["Ask", "Question", "SemanticCache", "Tenant"]

T = TypeVar("T")

EPOCH_INTERVAL: Final = 1.0
"""Seconds within which L1 notices that another process removed or replaced entries."""
SWEEP_INTERVAL: Final = 60.0
"""Seconds between two sweeps of expired entries, at the least; an update carries them out."""
MEMO_SIZE: Final = 2048
"""Parsed prompts remembered: a lookup and its update, and exact repetitions, parse once."""
MEMO_BYTES: Final = 4096
"""A longer one is parsed each time, so that the memory of all stays below 16 MiB."""


@dataclass(frozen=True, slots=True)
class Question:
    """A prompt that is read only when it has not been seen before."""

    raw: bytes
    """Hash of the framework's own form of the prompt: equal bytes mean an equal prompt."""
    read: Callable[[], Prompt | Unkeyable]
    """Turns it into a neutral prompt."""


Ask: TypeAlias = Callable[[], Question | Unkeyable]
"""How an adapter hands a question over: its own code runs where faults are contained."""


class SemanticCache(Closing):
    """A cache of answers, with the same methods sync (`lookup`) and async (`alookup`).

    `lookup` and `update` never raise. All methods may be called from any thread and any event loop.
    """

    def __init__(
        self,
        store: Store,
        *,
        l1: L1Cache | None = None,
        embedding: Embedding | None = None,
        verification: Verification | None = None,
        policy: CachePolicy | None = None,
        resilience: Resilience | None = None,
        matcher: Matcher | None = None,
        studying: Studying | None = None,
        namespace: str = "",
        tenant: Tenant = None,
        prices: Prices | None = None,
        on_outcome: Callable[[Outcome, float], None] | None = None,
        clock: Clock | None = None,
    ) -> None:
        if not isinstance(namespace, str):
            raise ConfigurationError("namespace", f"give a text; got {type(namespace).__name__}")
        check_tenant(tenant)
        if on_outcome is not None and not callable(on_outcome):
            raise ConfigurationError("on_outcome", f"give a callable; got {type(on_outcome).__name__}")
        self._policy = policy or CachePolicy()
        self._matcher = matcher or StaticMatcher(threshold=self._policy.threshold, margin=self._policy.margin)
        self._namespace = namespace
        self._tenant = tenant
        self._clock = clock or SystemClock()
        self._recorder = Recorder(prices)
        self._reporter = Reporter(self._recorder, on_outcome)
        resilience = resilience or Resilience()
        self._ports = wire(
            store,
            l1,
            embedding,
            verification,
            resilience=resilience,
            clock=self._clock,
            report=self._reporter.step_failed,
            on_change=self._reporter.part_changed,
        )
        self._lookup_seconds = resilience.lookup_seconds(networked=is_networked(store))
        self._update_seconds = resilience.update_seconds(networked=is_networked(store))
        self._rules = Rules(
            self._policy,
            self._matcher,
            store.name,
            has_embedder=embedding is not None and self._policy.semantic,
            has_l1=l1 is not None,
            has_verifier=verification is not None,
        )
        self._memo: Memo[tuple[bytes, str | None], tuple[Query, CacheKey]] = Memo(MEMO_SIZE)
        self._studying = studying
        self._study = None if studying is None else self._begin_study(studying, prices)
        now = self._clock.monotonic()
        # Due at once: what is kept before the first look might already be gone below.
        self._epoch_chore = Chore(EPOCH_INTERVAL, -math.inf)
        self._sweep_chore = Chore(SWEEP_INTERVAL, now)
        self._blobs: dict[tuple[str, str], Blobs] = {}

    def _begin_study(self, studying: Studying, prices: Prices | None) -> Study:
        store = self._ports.store
        return Study(
            studying.comparator,
            studying.read,
            matcher=self._matcher if isinstance(self._matcher, LearnedMatcher) else None,
            shadow=ShadowCounter(prices) if studying.shadow else None,
            store=store if isinstance(store, LessonStore) else None,
            breaker=self._ports.store_breaker,
            clock=self._clock,
            report=self._reporter.lesson_failed,
            background=studying.background,
            owned=studying.owned,
        )

    # ------------------------------------------------------------------------------------------ lookup

    def lookup(self, ask: Ask, decode: Callable[[Hit], T]) -> T | Miss:
        """The decoded answer, or why there is none.

        `decode` may raise `UnreadableEntryError`: a miss, like damaged bytes in the store.
        """
        return run(self._lookup(ask, decode), self._ports, self._lookup_seconds)

    async def alookup(self, ask: Ask, decode: Callable[[Hit], T]) -> T | Miss:
        """As `lookup`, without blocking the event loop."""
        return await run_async(self._lookup(ask, decode), self._ports, self._lookup_seconds)

    def lookup_many(self, asks: Sequence[Ask], decode: Callable[[Hit], T]) -> list[T | Miss]:
        """As `lookup` of each, in their order; a networked store is asked for all in one or two round trips.

        The time that the store may take is that of one lookup.
        """
        plans = [self._lookup(ask, decode) for ask in asks]
        return run(together(plans), self._ports, self._lookup_seconds)

    async def alookup_many(self, asks: Sequence[Ask], decode: Callable[[Hit], T]) -> list[T | Miss]:
        """As `lookup_many`, without blocking the event loop."""
        plans = [self._lookup(ask, decode) for ask in asks]
        return await run_async(together(plans), self._ports, self._lookup_seconds)

    def _lookup(self, ask: Ask, decode: Callable[[Hit], T]) -> Plan[T | Miss]:
        started = self._clock.monotonic()
        outcome: Outcome
        answer: T | Miss
        key: CacheKey | None = None
        trail = Trail()
        try:
            request = self._read_request(ask, started)
            if isinstance(request, Miss):
                outcome = request
            else:
                key = request.key
                outcome = yield from lookup_plan(request, self._rules, trail=trail)
                if self._study is not None and isinstance(outcome, Hit):
                    outcome = self._study.watch(outcome, trail) or outcome
            answer = decode(outcome) if isinstance(outcome, Hit) else outcome
        except CONTROL:
            if self._study is not None:
                self._study.broken_off(trail)
            raise
        except BaseException as error:  # noqa: BLE001 - the promise: nothing leaves a lookup
            outcome = answer = self._reporter.contain(error)
        if self._study is not None:
            self._study.looked_up(key, outcome, trail)
        self._reporter.looked_up(outcome, self._clock.monotonic() - started)
        return answer

    def _read_request(self, ask: Ask, monotonic: float) -> Request | Miss:
        wishes = current_scope()
        if wishes.bypass:
            return Miss(MissReason.BYPASSED, "scope")
        if wishes.refresh:
            return Miss(MissReason.REFRESHING)
        found = self._identify(ask)
        if isinstance(found, Miss):
            return found
        query, key = found
        due = self._epoch_chore.due(monotonic)
        return Request(query, key, self._clock.wall(), ttl=wishes.ttl, look=due)

    # ------------------------------------------------------------------------------------------ update

    def update(self, ask: Ask, encode: Callable[[], Answer | NotStored]) -> UpdateOutcome:
        """Keep a fresh answer; says whether it was written, and if not, why."""
        return run(self._update(ask, encode), self._ports, self._update_seconds)

    async def aupdate(self, ask: Ask, encode: Callable[[], Answer | NotStored]) -> UpdateOutcome:
        """As `update`, without blocking the event loop."""
        return await run_async(self._update(ask, encode), self._ports, self._update_seconds)

    def _update(self, ask: Ask, encode: Callable[[], Answer | NotStored]) -> Plan[UpdateOutcome]:
        started = self._clock.monotonic()
        outcome: UpdateOutcome
        try:
            found = self._write_request(ask, encode, started)
            if isinstance(found, NotStored):
                outcome = found
            else:
                outcome = yield from self._keep(*found)
        except StepFailed as failed:
            unavailable = failed.reason is MissReason.UNAVAILABLE
            outcome = NotStored(SkipReason.UNAVAILABLE if unavailable else SkipReason.STORE_FAILED, failed.detail)
        except CONTROL:
            raise
        except BaseException as error:  # noqa: BLE001 - the promise: nothing leaves an update
            outcome = NotStored(SkipReason.INTERNAL, self._reporter.contain(error).detail)
        self._recorder.updated(outcome, self._clock.monotonic() - started)
        return outcome

    def _keep(self, request: Request, answer: Answer) -> Plan[UpdateOutcome]:
        """Write the answer, and learn from it whatever becomes of the writing."""
        noted = None if self._study is None else self._study.answered(request.key, answer)
        if noted is None or self._study is None:
            return (yield from update_plan(request, answer, self._rules))
        try:
            if noted.lesson.unserved is not None:
                # Nothing would have been asked nor written.
                return NotStored(SkipReason.SHADOW)
            return (yield from update_plan(replace(request, cluster=noted.cluster), answer, self._rules))
        finally:
            self._study.learn(noted)

    def _write_request(
        self, ask: Ask, encode: Callable[[], Answer | NotStored], monotonic: float
    ) -> tuple[Request, Answer] | NotStored:
        wishes = current_scope()
        if wishes.bypass:
            return NotStored(SkipReason.BYPASSED, "scope")
        found = self._identify(ask)
        if isinstance(found, Miss):
            unkeyable = found.reason is MissReason.UNKEYABLE
            return NotStored(SkipReason.UNKEYABLE if unkeyable else SkipReason.BYPASSED, found.detail)
        answer: Answer | NotStored | None = None
        try:
            answer = encode()
        finally:
            if self._study is not None and not isinstance(answer, Answer):
                self._study.unanswered(found[1])
        if isinstance(answer, NotStored):
            if answer.reason is SkipReason.UNSERIALISABLE:
                self._reporter.warn(f"an answer was not cached, for it cannot be kept without loss ({answer.detail})")
            return answer
        query, key = found
        request = Request(
            query,
            key,
            self._clock.wall(),
            ttl=wishes.ttl,
            tags=wishes.tags,
            look=self._epoch_chore.due(monotonic),
            sweep=self._sweep_chore.due(monotonic),
        )
        return request, answer

    # ------------------------------------------------------------------------------------------ identity

    def _identify(self, ask: Ask) -> tuple[Query, CacheKey] | Miss:
        try:
            tenant = current_tenant(self._tenant)
        except NoTenantError as error:
            return Miss(MissReason.UNKEYABLE, str(error))
        question = ask()
        if isinstance(question, Unkeyable):
            return Miss(MissReason.UNKEYABLE, question.why)
        located = self._memo.get((question.raw, tenant))
        if located is None:
            prompt = question.read()
            if isinstance(prompt, Unkeyable):
                return Miss(MissReason.UNKEYABLE, prompt.why)
            query = split(prompt, question=self._policy.question)
            located = query, identify(query, namespace=self._namespace, tenant=tenant)
            if self._policy.bypass is None:
                # Only that rule reads the frame again, and a frame may be a long conversation.
                located = replace(query, frame=b""), located[1]
            if len(located[0].frame) + len(query.text) <= MEMO_BYTES:
                self._memo.put((question.raw, tenant), located)
        if self._policy.bypass is not None and self._policy.bypass(located[0]):
            return Miss(MissReason.BYPASSED, "policy")
        return located

    # ------------------------------------------------------------------------------------- asked by people

    def explain(self, ask: Ask) -> Explanation:
        """What a lookup of this prompt would do now, and why. Leaves no trace in tiers or statistics."""
        try:
            found = self._identify(ask)
        except Exception as error:  # noqa: BLE001 - explains what a lookup would do: contain it
            found = self._reporter.contain(error)
        if isinstance(found, Miss):
            return Explanation.of_miss(found)
        query, key = found
        journal = Journal()
        request = Request(query, key, self._clock.wall())
        outcome: Outcome
        try:
            outcome = run(lookup_plan(request, self._rules, journal), self._ports, self._lookup_seconds)
        except StepFailed as failed:
            outcome = Miss(failed.reason, failed.detail)
        return Explanation.of_lookup(request, outcome, journal, self._matcher)

    def stats(self) -> Stats:
        """Counters and latencies since construction or `reset_stats`."""
        counts = self._ports.replay.pending.counts
        facts: Mapping[str, str] = getattr(self._ports.store, "facts", {})
        study = self._study
        return replace(
            self._recorder.snapshot(),
            learned=None if study is None else study.learned(),
            blobs=MappingProxyType({kind: blobs.counts for (kind, _), blobs in self._blobs.items()}),
            static=None if self._studying is None else self._studying.static,
            shadow=None if study is None or study.shadow is None else study.shadow.snapshot(),
            store=MappingProxyType({"name": self._ports.store.name, **facts}),
            pending=counts.waiting,
            replayed=counts.replayed,
            lost=counts.lost,
        )

    def reset_stats(self) -> None:
        """Count from zero again."""
        self._recorder.reset()
        self._ports.replay.pending.reset_counts()
        for blobs in self._blobs.values():
            blobs.reset_counts()
        if self._study is not None:
            self._study.reset_counts()

    def health(self) -> Health:
        """How the store, the embedder and the verifier are, as the last calls found them; asks none of them."""
        parts = {self._ports.store.name: self._ports.store_breaker.health}
        if self._ports.embedding is not None:
            parts["embedder"] = self._ports.embed_breaker.health
        if self._ports.verification is not None:
            parts["verifier"] = self._ports.verify_breaker.health
        return Health(MappingProxyType(parts))

    def size(self) -> StoreSize:
        """What the store holds.

        Raises:
            StoreError: the store could not be read.
        """
        return self._ports.store.size()

    # --------------------------------------------------------------------------------------- invalidation

    def invalidate(
        self, ask: Ask | None = None, *, described: bytes | None = None, dry_run: bool = False, **what: Unpack[What]
    ) -> Invalidation:
        """Take answers back, in this process and for all that share the store.

        L1 of another process follows when it asks the store, or within a second.

        Args:
            ask: exactly this prompt's answer; nothing else may be given with it.
            described: only answers of this model: the canonical bytes of its description, as adapters make them.
            dry_run: True: say what would go, and change nothing.
            what: which entries; see `What`.

        Raises:
            ConfigurationError: an argument is wrong, or none is given.
            StoreError: the store could not be reached; entries in L1 are gone, those in the store may not be.
            EmbedderError: there is no vector for `like`.
        """
        return _done(run(invalidate(self._wanted(ask, described, what), dry_run=_flag(dry_run)), self._ports))

    async def ainvalidate(
        self, ask: Ask | None = None, *, described: bytes | None = None, dry_run: bool = False, **what: Unpack[What]
    ) -> Invalidation:
        """As `invalidate`, without blocking the event loop."""
        return _done(
            await run_async(invalidate(self._wanted(ask, described, what), dry_run=_flag(dry_run)), self._ports)
        )

    def clear(self, *, described: bytes | None = None, **what: Unpack[What]) -> int:
        """As `invalidate`, and without arguments all entries of this namespace and tenant; how many the store held."""
        return _done(run(invalidate(self._read_what(described, what), dry_run=False), self._ports)).count

    async def aclear(self, *, described: bytes | None = None, **what: Unpack[What]) -> int:
        """As `clear`, without blocking the event loop."""
        return _done(await run_async(invalidate(self._read_what(described, what), dry_run=False), self._ports)).count

    def report(self, entry_id: str, *, wrong: bool) -> bool:
        """Say whether a hit was right. A wrong one is removed everywhere, and its pair is never matched again.

        The pair is the question that was asked and the entry that answered it by meaning. Whether the entry was still
        there to remove.

        Args:
            entry_id: what the hit carries (`Hit.id`).
            wrong: True: it answered another question. False only counts.

        Raises:
            ConfigurationError: this is no such id.
            StoreError: the store could not be reached; report it again.
        """
        reported = self._read_report(entry_id, wrong=wrong)
        return wrong and _reported(run(report(reported), self._ports))

    async def areport(self, entry_id: str, *, wrong: bool) -> bool:
        """As `report`, without blocking the event loop."""
        reported = self._read_report(entry_id, wrong=wrong)
        return wrong and _reported(await run_async(report(reported), self._ports))

    def _read_report(self, entry_id: str, *, wrong: bool) -> Reported:
        reported = read_report(entry_id)
        self._recorder.reported(wrong=wrong)
        if self._study is not None:
            self._study.reported(entry_id, wrong=wrong)
        return reported

    def sweep(self) -> int:
        """Remove some of the store's expired entries now; how many. Updates do so once a minute by themselves."""
        return run(sweep_plan(self._clock.wall()), self._ports)

    def _wanted(self, ask: Ask | None, described: bytes | None, what: What) -> Wanted:
        if ask is None:
            said = set(what) if what.get("all_tenants") else set(what) - {"all_tenants"}
            if described is None and not said:
                raise ConfigurationError("invalidate", "say which entries; to remove all, use clear()")
            return self._read_what(described, what)
        if what or described is not None:
            raise ConfigurationError("prompt", "name one prompt, or describe entries; not both")
        found = self._identify(ask)
        if isinstance(found, Miss):
            raise ConfigurationError("prompt", f"it is never cached: {found.detail or found.reason}")
        return Wanted(Selection(), key=found[1])

    def _read_what(self, described: bytes | None, what: What) -> Wanted:
        now = self._clock.wall()
        wanted = read_what(what, described, namespace=self._namespace, tenant=self._tenant, now=now)
        if wanted.like is not None and self._ports.embedding is None:
            raise ConfigurationError("like", "this cache has no embedder, and so no vectors to compare")
        return wanted

    # -------------------------------------------------------------------------------------------- scopes

    def bypass(self) -> ScopeBlock:
        """`with cache.bypass(): ...`: neither read nor write (any cache) inside the block."""
        return bypass()

    def refresh(self) -> ScopeBlock:
        """`with cache.refresh(): ...`: ask the model anew and keep its answer in place of the cached one."""
        return refresh()

    def tagged(self, *tags: str) -> ScopeBlock:
        """`with cache.tagged("prices"): ...`: answers stored inside carry the tags; see `clear(tag=...)`."""
        return tagged(*tags)

    def scope(
        self,
        *,
        bypass: bool = False,
        refresh: bool = False,
        tags: tuple[str, ...] = (),
        sources: tuple[str, ...] = (),
        ttl: float | None = None,
    ) -> ScopeBlock:
        """All of these in one block: `with cache.scope(ttl=60, sources=("handbook.pdf",)): ...`."""
        return scope(bypass=bypass, refresh=refresh, tags=tags, sources=sources, ttl=ttl)

    # --------------------------------------------------------------------------------------------- blobs

    def blobs(self, kind: str, *, namespace: str | None = None) -> Blobs:
        """Plain bytes beside the answers, of one kind: `blobs("vector")`. The same object for the same arguments.

        `clear()` without arguments removes them too.

        Args:
            kind: what they are; kinds never meet.
            namespace: in place of the cache's own.
        """
        group = self._namespace if namespace is None else namespace
        found = self._blobs.get((kind, group))
        if found is None:
            setup = BlobSetup(
                ports=self._ports,
                policy=self._policy,
                namespace=group,
                tenant=self._tenant,
                clock=self._clock,
                reporter=self._reporter,
                lookup_seconds=self._lookup_seconds,
                update_seconds=self._update_seconds,
                epoch_chore=self._epoch_chore,
                sweep_chore=self._sweep_chore,
            )
            found = self._blobs.setdefault((kind, group), Blobs(kind, setup))
        return found

    # --------------------------------------------------------------------------------------------- close

    def close(self) -> None:
        """Release files and threads. Lookups after it are misses.

        Answers that could not be written are tried once more; this waits a second for that at the most, even if the
        store hangs.
        """
        try:
            self._close_all_but_the_store()
        finally:
            self._ports.store.close()

    async def aclose(self) -> None:
        """As `close`, without blocking the event loop."""
        try:
            await asyncio.to_thread(self._close_all_but_the_store)
        finally:
            if self._ports.native is not None:
                await self._ports.native.aclose()  # on the loop that its connections belong to
            else:
                await asyncio.to_thread(self._ports.store.close)

    def _close_all_but_the_store(self) -> None:
        try:
            if self._study is not None:
                self._study.close()
            self._ports.replay.close()
        finally:
            self._ports.workers.close()
            for part in (self._ports.embedding, self._ports.verification):
                if part is not None:
                    part.close()


def _flag(dry_run: object) -> bool:
    """What looks false must not remove: `dry_run=settings.get("dry_run")`."""
    if not isinstance(dry_run, bool):
        raise ConfigurationError("dry_run", f"give True or False; got {type(dry_run).__name__}")
    return dry_run


def _done(result: Invalidation | StepFailed) -> Invalidation:
    if isinstance(result, StepFailed):
        raise trouble(result, "the cache could not be cleared")
    return result


def _reported(removed: int | StepFailed) -> bool:
    if isinstance(removed, StepFailed):
        raise trouble(removed, "the wrong answer could not be taken back")
    return removed > 0
