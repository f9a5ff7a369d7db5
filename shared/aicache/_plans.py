"""The order of operations: what a lookup, an update and an invalidation do, top to bottom.

Plans decide and yield steps; they do no I/O and read no clock. The sync and the async driver run the same plan, so
`lookup` and `alookup` cannot differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from aicache._freshness import age_of, is_expired, life_of
from aicache._guards._layout import folded
from aicache._lessons import Trail
from aicache._match import Accept, Judgement, Reject
from aicache._model import (
    L1,
    Answer,
    CacheKey,
    Candidate,
    Entry,
    Hit,
    Match,
    Miss,
    MissReason,
    NotStored,
    Opinion,
    Outcome,
    Query,
    Search,
    SkipReason,
    Space,
    Stored,
    UpdateOutcome,
)
from aicache._policy import CachePolicy
from aicache._steps import (
    CheckEpoch,
    Embed,
    Embedded,
    Fetch,
    Forget,
    Mark,
    Nearest,
    Plan,
    Promote,
    Recall,
    StepFailed,
    Sweep,
    Touch,
    Verify,
    Write,
)

__all__ = ["SWEEP_LIMIT", "Journal", "Matcher", "Request", "Rules", "lookup", "sweep", "update"]

SWEEP_LIMIT = 500
"""Expired entries removed in one go: a few milliseconds of SQLite at the most."""

RENEW_BELOW = 0.9
"""Share of its life left, below which a hit renews an entry whose TTL slides."""


class Matcher(Protocol):
    """Decides whether one of the nearest entries answers the query. No I/O; the static one is pure."""

    @property
    def floor(self) -> float:
        """The score below which candidates change nothing, so that a store may keep them to itself."""

    def decide(self, text: str, candidates: Sequence[Candidate], space: Space, /) -> Accept | Reject:
        """Accept one candidate, or say why none will do. Candidates are nearest first, their vectors of this space."""

    def preview(self, text: str, candidates: Sequence[Candidate], space: Space, /) -> Accept | Reject:
        """What `decide` would say, without a draw of chance; nothing is counted."""

    def explain(self, text: str, candidates: Sequence[Candidate], space: Space, /) -> tuple[Judgement, ...]:
        """What `decide` makes of each candidate, in the same order."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What decides: the user's policy, the matcher, the name of the store, and which parts there are."""

    policy: CachePolicy
    matcher: Matcher
    store: str
    has_embedder: bool
    has_l1: bool = True
    has_verifier: bool = False


@dataclass(frozen=True, slots=True)
class Request:
    """One prompt, identified, at one time."""

    query: Query
    key: CacheKey
    now: float
    """Wall clock, seconds."""
    ttl: float | None = None
    """In place of the policy's TTL."""
    tags: tuple[str, ...] = ()
    look: bool = False
    """It is time to ask whether another process changed entries."""
    sweep: bool = False
    """It is time to remove some expired entries; only with an update."""
    cluster: bytes | None = None
    """With an update: the cluster of its answer, where answers are compared."""


@dataclass(slots=True)
class Journal:
    """What a lookup saw on its way, for `explain`. A journalled lookup leaves no trace in any tier."""

    exact: dict[str, str] = field(default_factory=dict)
    """Tier -> `absent`, `expired` or `fresh`."""
    space: str | None = None
    candidates: Sequence[Candidate] = ()
    opinion: Opinion | None = None
    """What the verifier said of the candidate that the matcher accepted; None where it was not asked."""

    def note(self, tier: str, entry: Entry | None, now: float) -> None:
        """What a tier holds for exactly this prompt."""
        self.exact[tier] = "absent" if entry is None else "expired" if is_expired(entry, now) else "fresh"


# ------------------------------------------------------------------------------------------------ lookup


def lookup(request: Request, rules: Rules, journal: Journal | None = None, trail: Trail | None = None) -> Plan[Outcome]:
    """Find an answer: L1, the store's exact entry, then the nearest by meaning. At most two store reads.

    A step that fails ends the lookup with `StepFailed`, but for the epoch check: L1 keeps answering while a store is
    down. What there is to learn from it stays in the trail.
    """
    key, now = request.key, request.now
    mark: object | None = None
    if rules.has_l1:
        if request.look and journal is None:
            yield from _tolerate(CheckEpoch())
        entry = yield from Recall(key)
        if journal is not None:
            journal.note(L1, entry, now)
        if entry is not None:
            if not is_expired(entry, now):
                if rules.policy.sliding and journal is None:
                    yield from _renew(entry, now)
                return Hit(entry, L1, Match.EXACT, 1.0, age_of(entry, now))
            yield from Forget(key)
        mark = yield from Mark()

    entry = yield from Fetch(key)
    if journal is not None:
        journal.note(rules.store, entry, now)
    if entry is not None and not is_expired(entry, now):
        hit = Hit(entry, rules.store, Match.EXACT, 1.0, age_of(entry, now))
        yield from _keep(hit, mark, request, rules, journal)
        return hit
    without_exact = Miss(MissReason.EXPIRED if entry is not None else MissReason.ABSENT)

    if request.query.exact_only is not None:
        return _first_reason(without_exact, Miss(MissReason.EXACT_ONLY, request.query.exact_only))
    if not rules.has_embedder:
        return _first_reason(without_exact, Miss(MissReason.NO_EMBEDDER))
    found = yield from _lookup_by_meaning(request, rules, mark, journal, trail or Trail())
    return without_exact if found is None else found


def _lookup_by_meaning(
    request: Request, rules: Rules, mark: object | None, journal: Journal | None, trail: Trail
) -> Plan[Outcome | None]:
    """A hit, a miss, or None where nothing is near."""
    embedded = yield from Embed(request.query.text)
    # People want to see the candidates that do not count, too.
    floor = rules.matcher.floor if journal is None else -1.0
    partition, k = request.key.partition, rules.policy.candidates
    search = Search(partition, embedded.space, embedded.vector, k, asker=request.key, floor=floor)
    near = yield from Nearest(search)
    fresh = [candidate for candidate in near if not is_expired(candidate.entry, request.now)]
    if journal is not None:
        journal.space = embedded.space
        journal.candidates = fresh
    decide = rules.matcher.decide if journal is None else rules.matcher.preview
    decision = decide(request.query.text, fresh, embedded.space)
    trail.lesson = decision.lesson
    match decision:
        case Accept(candidate):
            entry = candidate.entry
            refused = yield from _verify(request, entry, rules, journal)
            if refused is not None:
                return refused
            hit = Hit(entry, rules.store, Match.SEMANTIC, candidate.score, age_of(entry, request.now), request.key)
            yield from _keep(hit, mark, request, rules, journal)
            return hit
        case Reject(MissReason.ABSENT):
            return None
        case Reject(reason, detail):
            return Miss(reason, detail)


def _verify(request: Request, entry: Entry, rules: Rules, journal: Journal | None) -> Plan[Miss | None]:
    """Why an accepted entry is not served after all; None: it may be.

    The verifier is asked last, for it is the dearest. It is not asked about an exact hit, nor about the same text but
    for white space without meaning: these need no judgement. Where it fails or is late, `StepFailed` ends the lookup:
    what is not verified is a miss.
    """
    asked = request.query.text
    if not rules.has_verifier or folded(asked) == folded(entry.query):
        return None
    opinion = yield from Verify(asked, entry.query)
    if journal is not None:
        journal.opinion = opinion
    return None if opinion.same else Miss(MissReason.UNVERIFIED, opinion.said)


def _keep(hit: Hit, mark: object | None, request: Request, rules: Rules, journal: Journal | None) -> Plan[None]:
    """Keep an entry from the store in L1, and renew its life when the TTL slides."""
    if rules.has_l1 and journal is None:
        yield from Promote(hit.entry, mark)
    if rules.policy.sliding and journal is None:
        yield from _renew(hit.entry, request.now)


def _renew(entry: Entry, now: float) -> Plan[None]:
    """Let the life that the entry was written with begin anew; not its policy's, for the call may have set another.

    Not before a tenth of it is over: else every hit in memory would write to the store.
    """
    if entry.expires is not None and entry.life is not None and entry.expires - now < RENEW_BELOW * entry.life:
        yield from _tolerate(Touch(entry.key, now + entry.life))


def _tolerate(step: CheckEpoch | Touch) -> Plan[None]:
    """Carry out a step whose failure must not cost the answer. The driver has counted and logged it."""
    try:
        yield from step
    except StepFailed:
        return


def _first_reason(without_exact: Miss, otherwise: Miss) -> Miss:
    """An expired exact entry is the better explanation; else the reason for not looking further."""
    return without_exact if without_exact.reason is MissReason.EXPIRED else otherwise


# ------------------------------------------------------------------------------------------------ update


def update(request: Request, answer: Answer, rules: Rules) -> Plan[UpdateOutcome]:
    """Keep a fresh answer: in L1 first, so that it is served even if the store is down, then in the store.

    Without a vector (the embedder failed) the entry is still found by an exact match.
    """
    policy = rules.policy
    if len(answer.body) > policy.max_entry_bytes:
        return NotStored(SkipReason.TOO_LARGE, f"{len(answer.body)} bytes")

    embedded: Embedded | None = None
    problem: MissReason | None = None
    by_meaning = request.query.exact_only is None and rules.has_embedder
    if by_meaning:
        try:
            embedded = yield from Embed(request.query.text)
        except StepFailed as failed:
            problem = failed.reason

    life = life_of(request.key, request.ttl or policy.ttl, policy.ttl_jitter)
    entry = Entry(
        key=request.key,
        query=request.query.text,
        answer=answer,
        created=request.now,
        expires=None if life is None else request.now + life,
        space=embedded.space if embedded else None,
        vector=embedded.vector if embedded else None,
        tags=request.tags,
        life=life,
        cluster=request.cluster,
    )
    if rules.has_l1:
        if request.look:
            yield from _tolerate(CheckEpoch())
        yield from Promote(entry)
    yield from Write(entry, wants_vector=by_meaning and embedded is None)
    if request.sweep:
        yield from sweep(request.now)
    return Stored(entry, problem)


def sweep(now: float) -> Plan[int]:
    """Remove some expired entries; a failure costs nothing, the next sweep tries again."""
    try:
        return (yield from Sweep(now, SWEEP_LIMIT))
    except StepFailed:
        return 0
