"""The cache: wiring of store, L1, embedding, policy and matcher, and the public methods.

An adapter gives `lookup` a way to its question and a function that turns a `Hit` into what its framework expects.
Nothing that goes wrong inside, the adapter's own functions included, leaves `lookup` or `update`.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from types import MappingProxyType, TracebackType
from typing import Final, Self, TypeAlias, TypeVar

from aicache._breaker import Breaker
from aicache._clock import Clock, SystemClock
from aicache._driver import Embedding, Ports, run, run_async
from aicache._errors import (
    CONTROL,
    AICacheError,
    ConfigurationError,
    QueryTooLongError,
    StoreError,
    UnknownWordsError,
    UnreadableEntryError,
    UnwritableEntryError,
)
from aicache._explain import Explanation
from aicache._health import Health, PartHealth, PartState
from aicache._key import identify, model_hash, namespace_hash, tenant_hash
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
from aicache._pending import PendingUpdates
from aicache._plans import Journal, Matcher, Request, Rules
from aicache._plans import lookup as lookup_plan
from aicache._plans import sweep as sweep_plan
from aicache._plans import update as update_plan
from aicache._policy import CachePolicy
from aicache._prompt import split
from aicache._replay import Replay
from aicache._resilience import Resilience
from aicache._scopes import ScopeBlock, bypass, current_scope, refresh, scope, tagged
from aicache._stats import Prices, Recorder, Stats
from aicache._steps import AnyStep, Clear, Plan, StepFailed
from aicache._upkeep import Chore, OnceOnly
from aicache._workers import Workers
from aicache.stores.base import AsyncStore, Store
from aicache.stores.l1 import L1Cache

__all__ = ["Ask", "Question", "SemanticCache", "Tenant"]

T = TypeVar("T")
Tenant: TypeAlias = str | Callable[[], str | None] | None
"""Whose entries these are. A callable is asked at every call; one that returns None or raises means: no cache."""

_log: Final = logging.getLogger("aicache")

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


class SemanticCache:
    """A cache of answers, with the same methods sync (`lookup`) and async (`alookup`).

    `lookup` and `update` never raise. All methods may be called from any thread and any event loop.
    """

    def __init__(
        self,
        store: Store,
        *,
        l1: L1Cache | None = None,
        embedding: Embedding | None = None,
        policy: CachePolicy | None = None,
        resilience: Resilience | None = None,
        matcher: Matcher | None = None,
        namespace: str = "",
        tenant: Tenant = None,
        prices: Prices | None = None,
        on_outcome: Callable[[Outcome, float], None] | None = None,
        clock: Clock | None = None,
    ) -> None:
        if not isinstance(namespace, str):
            raise ConfigurationError("namespace", f"give a text; got {type(namespace).__name__}")
        if not (tenant is None or isinstance(tenant, str) or callable(tenant)):
            raise ConfigurationError("tenant", f"give a text or a callable; got {type(tenant).__name__}")
        if inspect.iscoroutinefunction(tenant):
            raise ConfigurationError("tenant", "give a callable that answers at once, not a coroutine function")
        if on_outcome is not None and not callable(on_outcome):
            raise ConfigurationError("on_outcome", f"give a callable; got {type(on_outcome).__name__}")
        self._policy = policy or CachePolicy()
        self._matcher = matcher or StaticMatcher(threshold=self._policy.threshold, margin=self._policy.margin)
        self._namespace = namespace
        self._tenant = tenant
        self._on_outcome = on_outcome
        self._clock = clock or SystemClock()
        self._recorder = Recorder(prices)
        self._told = OnceOnly()
        resilience = resilience or Resilience()
        self._ports = self._wire(store, l1, embedding, resilience)
        networked = self._ports.native is not None or not self._ports.bounded
        self._lookup_seconds = resilience.lookup_seconds(networked=networked)
        self._update_seconds = resilience.update_seconds(networked=networked)
        self._rules = Rules(
            self._policy, self._matcher, store.name, embedding is not None and self._policy.semantic, l1 is not None
        )
        self._memo: Memo[tuple[bytes, str | None], tuple[Query, CacheKey]] = Memo(MEMO_SIZE)
        now = self._clock.monotonic()
        # Due at once: what is kept before the first look might already be gone below.
        self._epoch_chore = Chore(EPOCH_INTERVAL, -math.inf)
        self._sweep_chore = Chore(SWEEP_INTERVAL, now)

    def _wire(self, store: Store, l1: L1Cache | None, embedding: Embedding | None, resilience: Resilience) -> Ports:
        native = store if isinstance(store, AsyncStore) else None
        bounded = getattr(store, "bounded", True)
        workers = Workers()

        def guard(part: str, *harmless: type[Exception]) -> Breaker:
            return Breaker(
                part,
                clock=self._clock,
                failures=resilience.breaker_failures,
                reset=resilience.breaker_reset,
                harmless=harmless,
                on_change=self._say_change,
            )

        store_breaker = guard(store.name, UnreadableEntryError, UnwritableEntryError)
        embed_breaker = guard("embedder", QueryTooLongError, UnknownWordsError)
        replay = Replay(
            PendingUpdates(max_entries=resilience.pending_entries, max_bytes=resilience.pending_bytes),
            store=store,
            native=native,
            embedding=embedding,
            store_breaker=store_breaker,
            embed_breaker=embed_breaker,
            workers=workers,
            clock=self._clock,
            slow_after=resilience.update_seconds(networked=native is not None or not bounded),
        )
        return Ports(
            store=store,
            native=native,
            bounded=bounded,
            l1=l1,
            embedding=embedding,
            workers=workers,
            clock=self._clock,
            store_breaker=store_breaker,
            embed_breaker=embed_breaker,
            replay=replay,
            report=self._report,
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

    def _lookup(self, ask: Ask, decode: Callable[[Hit], T]) -> Plan[T | Miss]:
        started = self._clock.monotonic()
        outcome: Outcome
        answer: T | Miss
        try:
            request = self._read_request(ask, started)
            outcome = request if isinstance(request, Miss) else (yield from lookup_plan(request, self._rules))
            answer = decode(outcome) if isinstance(outcome, Hit) else outcome
        except CONTROL:
            raise
        except BaseException as error:  # noqa: BLE001 - the promise: nothing leaves a lookup
            outcome = answer = self._contain(error)
        seconds = self._clock.monotonic() - started
        self._recorder.looked_up(outcome, seconds)
        if self._on_outcome is not None:
            self._notify(outcome, seconds)
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
                outcome = yield from update_plan(*found, self._rules)
        except StepFailed as failed:
            unavailable = failed.reason is MissReason.UNAVAILABLE
            outcome = NotStored(SkipReason.UNAVAILABLE if unavailable else SkipReason.STORE_FAILED, failed.detail)
        except CONTROL:
            raise
        except BaseException as error:  # noqa: BLE001 - the promise: nothing leaves an update
            outcome = NotStored(SkipReason.INTERNAL, self._contain(error).detail)
        self._recorder.updated(outcome, self._clock.monotonic() - started)
        return outcome

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
        answer = encode()
        if isinstance(answer, NotStored):
            if answer.reason is SkipReason.UNSERIALISABLE:
                self._warn(f"an answer was not cached, for it cannot be kept without loss ({answer.detail})")
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
        tenant = self._tenant
        if tenant is not None and not isinstance(tenant, str):
            try:
                tenant = _ask_tenant(tenant)
            except _NoTenantError as error:
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
            found = self._contain(error)
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
        return replace(self._recorder.snapshot(), pending=counts.waiting, replayed=counts.replayed, lost=counts.lost)

    def reset_stats(self) -> None:
        """Count from zero again."""
        self._recorder.reset()
        self._ports.replay.pending.reset_counts()

    def health(self) -> Health:
        """How the store and the embedder are, as the last calls found them; asks neither."""
        parts = {self._ports.store.name: self._ports.store_breaker.health}
        if self._ports.embedding is not None:
            parts["embedder"] = self._ports.embed_breaker.health
        return Health(MappingProxyType(parts))

    def size(self) -> StoreSize:
        """What the store holds.

        Raises:
            StoreError: the store could not be read.
        """
        return self._ports.store.size()

    # --------------------------------------------------------------------------------------- invalidation

    def clear(
        self,
        *,
        tenant: str | None = None,
        all_tenants: bool = False,
        model: bytes | None = None,
        tag: str | None = None,
    ) -> int:
        """Remove this namespace's entries that agree with every argument given; how many the store held.

        Args:
            tenant: whose entries; by default the cache's own tenant, a callable one being asked now.
            all_tenants: True: everybody's.
            model: the canonical form of a model's description, as adapters make it.
            tag: only entries with this tag.

        Raises:
            ConfigurationError: the tenant callable does not know whose entries are meant.
            StoreError: the store could not be reached; entries in L1 are gone, those in the store may not be.
        """
        plan = _clear_plan(self._selection(tenant, model, tag, all_tenants=all_tenants))
        return _cleared(run(plan, self._ports))

    async def aclear(
        self,
        *,
        tenant: str | None = None,
        all_tenants: bool = False,
        model: bytes | None = None,
        tag: str | None = None,
    ) -> int:
        """As `clear`, without blocking the event loop."""
        plan = _clear_plan(self._selection(tenant, model, tag, all_tenants=all_tenants))
        return _cleared(await run_async(plan, self._ports))

    def sweep(self) -> int:
        """Remove some of the store's expired entries now; how many. Updates do so once a minute by themselves."""
        return run(sweep_plan(self._clock.wall()), self._ports)

    def _selection(self, tenant: str | None, model: bytes | None, tag: str | None, *, all_tenants: bool) -> Selection:
        if tenant is None and callable(self._tenant) and not all_tenants:
            try:
                tenant = _ask_tenant(self._tenant)
            except _NoTenantError as error:
                raise ConfigurationError("tenant", f"{error}: name the tenant, or say all_tenants=True") from error
        elif tenant is None and isinstance(self._tenant, str) and not all_tenants:
            tenant = self._tenant
        return Selection(
            namespace=namespace_hash(self._namespace),
            tenant=None if tenant is None else tenant_hash(tenant),
            model=None if model is None else model_hash(model),
            tag=tag,
        )

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
        ttl: float | None = None,
    ) -> ScopeBlock:
        """All of these in one block: `with cache.scope(ttl=60, tags=("prices",)): ...`."""
        return scope(bypass=bypass, refresh=refresh, tags=tags, ttl=ttl)

    # --------------------------------------------------------------------------------------------- close

    def close(self) -> None:
        """Release files and threads. Lookups after it are misses.

        Answers that could not be written are tried once more, for a second at the most.
        """
        self._close_all_but_the_store()
        self._ports.store.close()

    async def aclose(self) -> None:
        """As `close`, without blocking the event loop."""
        await asyncio.to_thread(self._close_all_but_the_store)
        if self._ports.native is not None:
            await self._ports.native.aclose()  # on the loop that its connections belong to
        else:
            await asyncio.to_thread(self._ports.store.close)

    def _close_all_but_the_store(self) -> None:
        self._ports.replay.close()
        self._ports.workers.close()
        if self._ports.embedding is not None:
            self._ports.embedding.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    # -------------------------------------------------------------------------------------------- faults

    def _contain(self, error: BaseException) -> Miss:
        """The reason an exception stands for. Only a fault of ours is logged here: the driver logs the ports'."""
        match error:
            case StepFailed():
                return Miss(error.reason, error.detail)
            case UnreadableEntryError():
                return Miss(MissReason.UNREADABLE, type(error).__name__)
            case _:
                kind = type(error).__name__
                self._warn(
                    f"a fault inside the cache ({kind} at {_place(error)}) was contained; the call went uncached"
                )
                return Miss(MissReason.INTERNAL, kind)

    def _report(self, step: AnyStep, failed: StepFailed, error: BaseException) -> None:
        if failed.reason is MissReason.EXACT_ONLY:
            return
        name = type(step).__name__.lower()
        self._recorder.failed(name, failed.reason)
        if failed.reason is MissReason.UNAVAILABLE:
            return  # The breaker's opening has been said.
        # Texts of our own exceptions hold no prompt; a foreign one may quote it, so only its type is shown.
        what = str(error).rstrip(".") if isinstance(error, AICacheError) else type(error).__name__
        self._warn(f"{name} failed: {what}. The application goes on; calls that need it are not cached")

    def _say_change(self, part: str, health: PartHealth) -> None:
        with suppress(Exception):  # a log handler that raises must not cost the answer
            if health.state is PartState.OPEN:
                _log.warning("%s is left alone for a while, for its last calls failed (%s)", part, health.why)
            elif health.state is PartState.UP:
                _log.info("%s is up", part)

    def _warn(self, text: str) -> None:
        if self._told.first_time(text):
            with suppress(Exception):  # a log handler that raises must not cost the answer
                _log.warning("%s (said once)", text)

    def _notify(self, outcome: Outcome, seconds: float) -> None:
        assert self._on_outcome is not None
        try:
            self._on_outcome(outcome, seconds)
        except Exception as error:  # noqa: BLE001 - a listener must not cost the answer
            self._warn(f"on_outcome raised {type(error).__name__}; its errors are ignored")


def _ask_tenant(tenant: Callable[[], str | None]) -> str:
    try:
        answer = tenant()
    except Exception as error:
        raise _NoTenantError(f"the tenant callable raised {type(error).__name__}") from error
    if not isinstance(answer, str):
        raise _NoTenantError(f"the tenant callable returned {type(answer).__name__}, not a text")
    return answer


def _clear_plan(selection: Selection) -> Plan[int | StepFailed]:
    try:
        return (yield from Clear(selection))
    except StepFailed as failed:
        return failed


def _cleared(removed: int | StepFailed) -> int:
    if isinstance(removed, StepFailed):
        raise StoreError(f"the cache could not be cleared ({removed.detail}): mend the store and clear again")
    return removed


def _place(error: BaseException) -> str:
    """Module and line where the exception arose: enough to report the fault, nothing of the prompt."""
    trace = error.__traceback__
    if trace is None:
        return "an unknown place"
    while trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_globals.get('__name__', '?')}:{trace.tb_lineno}"


class _NoTenantError(Exception):
    """The tenant is not known, so nothing may be shared."""
