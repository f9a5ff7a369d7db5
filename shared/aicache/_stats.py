"""Counters and latencies of one cache object since it was made (or since `reset`).

When each moves is said beside it. Labels are tiers, match kinds and reasons, never a prompt, tenant or key.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, TypeVar

from aicache._fork import in_forked_child
from aicache._model import Hit, Match, MissReason, Outcome, SkipReason, Stored, UpdateOutcome, Usage

__all__ = ["BlobCounts", "Learned", "Percentiles", "Prices", "Recorder", "Shadow", "ShadowCounter", "Stats"]

K = TypeVar("K", bound=Hashable)

_SUB_BITS: Final = 3
"""Each power of two of nanoseconds is cut into 8 buckets: a percentile is at most 12.5 % too high."""


@dataclass(frozen=True, slots=True)
class Prices:
    """US dollars per million tokens."""

    input: float
    output: float

    def cost(self, usage: Usage) -> float:
        """US dollars for this many tokens."""
        return (usage.input_tokens * self.input + usage.output_tokens * self.output) / 1_000_000


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Latencies in seconds, each at most 12.5 % above the true one."""

    count: int
    p50: float
    p95: float
    p99: float


@dataclass(frozen=True, slots=True)
class Learned:
    """What a cache with `max_error_rate` has learned."""

    lessons: int = 0
    """Fresh answers that were compared with the nearest cached one, by all processes."""
    audits: int = 0
    """Of those, the ones that might have been served and were drawn for a comparison."""
    alarms: int = 0
    """How often the answers turned out to have changed: learning began anew from the last lessons."""
    limit: float = 0.0
    """The largest risk of a wrong answer that is served now, in this process; 0 while it only learns."""
    uncompared: int = 0
    """Fresh answers of this process that could not be compared: nothing was learned from them."""

    def __str__(self) -> str:
        served = f"up to a risk of {self.limit:.4f}" if self.limit > 0 else "nothing by meaning yet"
        text = f"{self.lessons} lessons, {self.audits} audits, {self.alarms} alarms, serving {served}"
        return text + (f", {self.uncompared} answers not compared" if self.uncompared else "")


@dataclass(frozen=True, slots=True)
class Shadow:
    """What a cache in shadow mode would have done. It served nothing."""

    hits: Mapping[Match, int]
    """Lookups that would have been answered."""
    right: Mapping[Match, int]
    """Of those, the ones whose fresh answer said the same as the cached one."""
    wrong: Mapping[Match, int]
    """Those whose fresh answer said something else. With exact hits: how often the model contradicts itself."""
    unknown: int
    """Those that could not be compared, or whose fresh answer has not come."""
    tokens: Usage
    """Tokens that would have been saved."""
    money: float | None
    """Their price in US dollars; None when the cache was given no prices."""

    def __str__(self) -> str:
        def share(match: Match) -> str:
            compared = self.right.get(match, 0) + self.wrong.get(match, 0)
            wrong = f"{self.wrong.get(match, 0)} of {compared} compared wrong" if compared else "none compared yet"
            return f"{self.hits.get(match, 0)} {match} ({wrong})"

        saved = f"{self.tokens.input_tokens + self.tokens.output_tokens} tokens"
        saved += "" if self.money is None else f", ${self.money:.4f}"
        return f"shadow: would have served {share(Match.EXACT)} and {share(Match.SEMANTIC)}, saving {saved}"


@dataclass(frozen=True, slots=True)
class BlobCounts:
    """What became of the blobs of one kind since the cache was made or its counters reset."""

    found: int = 0
    """Blobs asked for that were there."""
    missing: int = 0
    """Blobs asked for that were not there, had expired, or could not be read."""
    stored: int = 0
    """Blobs written to the store."""
    dropped: int = 0
    """Blobs that could not be written, or must not be: inside `bypass()`, or without a known tenant."""


@dataclass(frozen=True, slots=True)
class Stats:
    """A snapshot of the counters."""

    lookups: int
    """Lookups that ended, hits and misses alike."""
    hits: Mapping[tuple[str, Match], int]
    """Hits by tier (`l1` or the store's name) and match."""
    misses: Mapping[MissReason, int]
    """Misses by reason; their sum plus the hits is `lookups`."""
    stored: int
    """Answers written to the store."""
    stored_without_vector: Mapping[MissReason, int]
    """Of those, the ones that are matched exactly only because the embedding failed; by reason."""
    not_stored: Mapping[SkipReason, int]
    """Updates that wrote nothing, by reason."""
    failed_steps: Mapping[tuple[str, MissReason], int]
    """Steps that a store, an embedder or a verifier could not carry out, by step and reason, survived or not."""
    tokens_saved: Usage
    """Tokens that the served answers cost when the model gave them."""
    money_saved: float | None
    """Their price in US dollars; None when the cache was given no prices."""
    latency: Mapping[str, Percentiles]
    """Duration of lookups and updates by outcome: `hit l1 exact`, `miss absent`, `update stored`, ..."""
    reported_wrong: int = 0
    """Hits that the application reported as wrong."""
    reported_right: int = 0
    """Hits that it reported as right."""
    store: Mapping[str, str] = field(default_factory=dict)
    """The store's `name` and what it says of itself: a Redis its `dialect`, and the `reason` if nothing is matched by
    meaning."""
    pending: int = 0
    """Answers that could not be written and wait in memory for the store, now."""
    replayed: int = 0
    """Of such answers, those written later."""
    lost: int = 0
    """Of such answers, those dropped for the bounds, or because the store refused that very entry."""
    learned: Learned | None = None
    """With `max_error_rate`: what was learned."""
    static: str | None = None
    """With `max_error_rate`: why the cache goes by its threshold all the same."""
    shadow: Shadow | None = None
    """In shadow mode: what the cache would have done."""
    blobs: Mapping[str, BlobCounts] = field(default_factory=dict)
    """What is kept beside the answers, by kind: vectors of embedding models, values of a key-value store."""

    @property
    def exact_hits(self) -> int:
        """Hits on the very same prompt."""
        return sum(count for (_, match), count in self.hits.items() if match is Match.EXACT)

    @property
    def semantic_hits(self) -> int:
        """Hits on a prompt that says the same in other words."""
        return sum(count for (_, match), count in self.hits.items() if match is Match.SEMANTIC)

    @property
    def hit_rate(self) -> float:
        """Hits per lookup, 0.0 before the first."""
        return (self.exact_hits + self.semantic_hits) / self.lookups if self.lookups else 0.0

    def __str__(self) -> str:
        lines = [
            f"{self.lookups} lookups, {self.exact_hits} exact + {self.semantic_hits} semantic hits "
            f"({self.hit_rate:.1%})",
            f"{self.stored} answers stored, "
            f"{self.tokens_saved.input_tokens + self.tokens_saved.output_tokens} tokens saved"
            + (f", ${self.money_saved:.4f} saved" if self.money_saved is not None else ""),
            f"{'':32}{'count':>8}{'p50':>11}{'p95':>11}{'p99':>11}",
        ]
        lines += [
            f"{name:32}{times.count:>8}" + "".join(f"{_human(t):>11}" for t in (times.p50, times.p95, times.p99))
            for name, times in sorted(self.latency.items())
        ]
        if len(self.store) > 1:
            lines.append("store: " + ", ".join(f"{name} {text}" for name, text in self.store.items()))
        if self.reported_wrong or self.reported_right:
            lines.append(f"reported hits: {self.reported_wrong} wrong, {self.reported_right} right")
        if self.pending or self.replayed or self.lost:
            lines.append(f"unwritten answers: {self.pending} pending, {self.replayed} replayed, {self.lost} lost")
        if self.learned is not None:
            lines.append(f"learned: {self.learned}")
        if self.static is not None:
            lines.append(f"not learning: {self.static}")
        if self.shadow is not None:
            lines.append(str(self.shadow))
        lines += [
            f"{kind}: {kept.found} found, {kept.missing} missing, {kept.stored} stored, {kept.dropped} dropped"
            for kind, kept in sorted(self.blobs.items())
            if kept != BlobCounts()
        ]
        lines += [f"failed step {step}: {reason} {count} x" for (step, reason), count in self.failed_steps.items()]
        return "\n".join(lines)


class Recorder:
    """Counts outcomes. Safe to call from any thread; about a microsecond a call."""

    def __init__(self, prices: Prices | None) -> None:
        self._prices = prices
        self._lock = threading.Lock()
        in_forked_child(self._renew_lock)
        self.reset()

    def _renew_lock(self) -> None:
        """In a forked child: the lock may be held by a thread that is not there."""
        self._lock = threading.Lock()

    def reset(self) -> None:
        """Start again from zero."""
        with self._lock:
            self._hits: dict[tuple[str, Match], Counter[int]] = {}
            self._misses: dict[MissReason, Counter[int]] = {}
            self._stored: Counter[int] = Counter()
            self._not_stored: dict[SkipReason, Counter[int]] = {}
            self._without_vector: Counter[MissReason] = Counter()
            self._failed_steps: Counter[tuple[str, MissReason]] = Counter()
            self._input_tokens = 0
            self._output_tokens = 0
            self._reported: Counter[bool] = Counter()

    def looked_up(self, outcome: Outcome, seconds: float) -> None:
        """A lookup ended after so many seconds."""
        bucket = _bucket(seconds)
        with self._lock:
            if isinstance(outcome, Hit):
                _observe(self._hits, (outcome.tier, outcome.match), bucket)
                usage = outcome.entry.answer.usage
                if usage is not None:
                    self._input_tokens += usage.input_tokens
                    self._output_tokens += usage.output_tokens
            else:
                _observe(self._misses, outcome.reason, bucket)

    def updated(self, outcome: UpdateOutcome, seconds: float) -> None:
        """An update ended after so many seconds."""
        bucket = _bucket(seconds)
        with self._lock:
            if isinstance(outcome, Stored):
                self._stored[bucket] += 1
                if outcome.embedding is not None:
                    self._without_vector[outcome.embedding] += 1
            else:
                _observe(self._not_stored, outcome.reason, bucket)

    def failed(self, step: str, reason: MissReason) -> None:
        """A step could not be carried out."""
        with self._lock:
            self._failed_steps[step, reason] += 1

    def reported(self, *, wrong: bool) -> None:
        """The application judged a hit."""
        with self._lock:
            self._reported[wrong] += 1

    def snapshot(self) -> Stats:
        """The counters now."""
        with self._lock:
            hits = _totals(self._hits)
            misses = _totals(self._misses)
            saved = Usage(self._input_tokens, self._output_tokens)
            return Stats(
                lookups=sum(hits.values()) + sum(misses.values()),
                hits=MappingProxyType(hits),
                misses=MappingProxyType(misses),
                stored=self._stored.total(),
                stored_without_vector=MappingProxyType(dict(self._without_vector)),
                not_stored=MappingProxyType(_totals(self._not_stored)),
                failed_steps=MappingProxyType(dict(self._failed_steps)),
                tokens_saved=saved,
                money_saved=None if self._prices is None else self._prices.cost(saved),
                reported_wrong=self._reported[True],
                reported_right=self._reported[False],
                latency=MappingProxyType({label: _percentiles(buckets) for label, buckets in self._labelled()}),
            )

    def _labelled(self) -> Iterator[tuple[str, Counter[int]]]:
        for (tier, match), buckets in self._hits.items():
            yield f"hit {tier} {match}", buckets
        for reason, buckets in self._misses.items():
            yield f"miss {reason}", buckets
        if self._stored:
            yield "update stored", self._stored
        for skipped, buckets in self._not_stored.items():
            yield f"update {skipped}", buckets


class ShadowCounter:
    """Counts what a cache in shadow mode would have served. Safe to call from any thread."""

    def __init__(self, prices: Prices | None = None) -> None:
        self._prices = prices
        self._renew_lock()
        in_forked_child(self._renew_lock)
        self.reset()

    def _renew_lock(self) -> None:
        """Also in a forked child: the lock may be held by a thread that is not there."""
        self._lock = threading.Lock()

    def reset(self) -> None:
        """Start again from zero."""
        with self._lock:
            self._hits: Counter[Match] = Counter()
            self._right: Counter[Match] = Counter()
            self._wrong: Counter[Match] = Counter()
            self._input_tokens = self._output_tokens = 0

    def seen(self, hit: Hit) -> None:
        """This would have been served."""
        usage = hit.entry.answer.usage or Usage(0, 0)
        with self._lock:
            self._hits[hit.match] += 1
            self._input_tokens += usage.input_tokens
            self._output_tokens += usage.output_tokens

    def compared(self, hit: Hit, *, same: bool) -> None:
        """The fresh answer in its place has come."""
        with self._lock:
            (self._right if same else self._wrong)[hit.match] += 1

    def snapshot(self) -> Shadow:
        """The counters now."""
        with self._lock:
            tokens = Usage(self._input_tokens, self._output_tokens)
            return Shadow(
                MappingProxyType(dict(self._hits)),
                MappingProxyType(dict(self._right)),
                MappingProxyType(dict(self._wrong)),
                # After `reset` there may come answers to lookups from before it.
                max(0, self._hits.total() - self._right.total() - self._wrong.total()),
                tokens,
                None if self._prices is None else self._prices.cost(tokens),
            )


def _observe(histograms: dict[K, Counter[int]], label: K, bucket: int) -> None:
    buckets = histograms.get(label)
    if buckets is None:
        buckets = histograms[label] = Counter()
    buckets[bucket] += 1


def _totals(histograms: Mapping[K, Counter[int]]) -> dict[K, int]:
    return {label: buckets.total() for label, buckets in histograms.items()}


def _bucket(seconds: float) -> int:
    """The number of the bucket: the position of the highest bit of the nanoseconds and the 3 bits after it."""
    nanoseconds = max(1 << _SUB_BITS, int(seconds * 1e9))
    shift = nanoseconds.bit_length() - 1 - _SUB_BITS
    return (shift << _SUB_BITS) + (nanoseconds >> shift)


def _upper_bound(bucket: int) -> float:
    """Seconds at the upper end of a bucket."""
    shift, mantissa = divmod(bucket - (1 << _SUB_BITS), 1 << _SUB_BITS)
    return ((mantissa + (1 << _SUB_BITS) + 1) << shift) / 1e9


def _percentiles(buckets: Counter[int]) -> Percentiles:
    total = buckets.total()
    found: list[float] = []
    for share in (0.50, 0.95, 0.99):
        rank, seen = share * total, 0
        for bucket in sorted(buckets):
            seen += buckets[bucket]
            if seen >= rank:
                found.append(_upper_bound(bucket))
                break
    return Percentiles(total, *found)


def _human(seconds: float) -> str:
    if seconds < 1e-3:
        return f"{seconds * 1e6:.1f} us"
    return f"{seconds * 1e3:.2f} ms" if seconds < 1 else f"{seconds:.2f} s"
