"""From flat options to a wired cache: what both adapters' constructors do."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from os import PathLike
from typing import TYPE_CHECKING, Any, Final, Literal, TypedDict, cast

from aicache._clock import Clock
from aicache._codec import Codec
from aicache._driver import Embedding as EmbeddingPort
from aicache._driver import Verification as VerificationPort
from aicache._errand import Background
from aicache._errors import ConfigurationError
from aicache._guards import Guard
from aicache._learned import Reading
from aicache._learning_choice import LearningChoice, digest_only
from aicache._model import Answer, Extractor, Outcome, Query
from aicache._policy import CachePolicy, is_number
from aicache._resilience import Resilience, Timeout
from aicache._stats import Prices
from aicache.cache import SemanticCache, Tenant
from aicache.embedders.base import Embedder
from aicache.stores import open_store
from aicache.stores.base import Store
from aicache.stores.l1 import L1Cache
from aicache.verifiers.base import VerifierLike

if TYPE_CHECKING:
    from aicache.calibration import Calibration

__all__ = ["CacheOptions", "open_cache"]

_log: Final = logging.getLogger("aicache")


class CacheOptions(TypedDict, total=False):
    """The options of a cache; each has a default, and a wrong one raises `ConfigurationError` at construction."""

    namespace: str
    """Separates applications or versions that share a store. Default: the empty namespace."""
    tenant: Tenant
    """Separates customers: a text, or a callable asked at every call; default None: all share."""
    ttl: float | None
    """Seconds an answer is served from when it was written; default None: no limit. A TTL set later does not change the
    entries that are there: `clear` them."""
    ttl_jitter: float
    """Share in [0, 1) by which lives are shortened at random (by key); default 0."""
    sliding: bool
    """True: a hit starts the TTL anew; default False."""
    threshold: float
    """Least cosine of a semantic hit, in (0, 1]; default 0.97."""
    margin: float
    """Lead over the nearest entry with another answer, in [0, 1); default 0.05."""
    guards: Sequence[Guard]
    """Vetoes on differences that matter (with `max_error_rate`: weighed with all else); default `DEFAULT_GUARDS`."""
    max_error_rate: float | None
    """Share of requests that may be answered wrongly, in (0, 0.5]; learned from the answers to misses, in place of
    `threshold` and `margin`. Default None: nothing is learned."""
    per: Literal["requests", "hits"]
    """What `max_error_rate` is a share of; default `"requests"`."""
    certified: bool
    """True: a bound that holds at any time and under any traffic, at the price of a slower start; default False."""
    comparator: object
    """Whether two answers say the same, and so what "wrong" means: a comparator, a callable of two texts, or a chat
    model as a judge; default None: `aicache.comparators.default_comparator`."""
    calibration: Calibration | str | PathLike[str] | None
    """How often the model disagrees with itself, measured by `aicache calibrate`; default None: never."""
    shadow: bool
    """True: decide and count, serve nothing; see `stats().shadow`. Default False."""
    question: Extractor | None
    """Finds the question in a conversation; default: the last turn, or its labelled question."""
    bypass: Callable[[Query], bool] | None
    """True for a query that must not be cached; default None."""
    candidates: int
    """Neighbours looked at for a decision; default 10."""
    semantic: bool
    """False: exact matching only, whatever embedder there is; default True."""
    max_entry_bytes: int
    """A larger answer is not stored; default 1,000,000."""
    l1_entries: int
    """Entries kept in the process in front of a slower store; 0 for none; default 10,000."""
    l1_bytes: int
    """Their bytes; default 64 MiB."""
    eviction: str
    """`w-tinylfu` (default), `arc`, `lru` or `lfu`: what leaves memory first."""
    max_entries: int
    """Bound of the store; default 100,000 in memory, 1,000,000 in a file."""
    max_bytes: int
    """Bound of the store in bytes; default 512 MiB in memory, 1 GiB in a file."""
    encryption_keys: Sequence[str | bytes]
    """Fernet keys for what a file or a Redis holds; the first one encrypts, all decrypt; default: no encryption."""
    accept_unencrypted: bool
    """With keys: also read what was stored without, for the time of a migration; default False."""
    compress_above: int | None
    """Stored entries of more bytes are compressed; default 1,024; None: never."""
    embed_timeout: float | None
    """Seconds to wait for a vector before the call goes on with exact matching only; default 2; None: no limit."""
    verifier: VerifierLike | None
    """Asked about every semantic hit before it is served: a `Verifier`, or a function of the asked and the stored
    question; unless it says yes in time, the lookup is a miss. Default None: the matcher decides alone."""
    verify_timeout: float | None
    """Seconds to wait for the verifier; default 1; None: no limit."""
    lookup_timeout: Timeout
    """Seconds the store may take for a lookup, embedding and verifying not counted; default `"auto"`: 0.1 over a
    network, else None: no limit."""
    update_timeout: Timeout
    """The same for an update; default `"auto"`: 0.25 over a network, else None."""
    breaker_failures: int
    """Failures in a row after which the store, the embedder or the verifier is left alone; default 5."""
    breaker_reset: float
    """Seconds after which one call tries it again; default 5."""
    pending_entries: int
    """Answers kept that could not be written, until the store is back; default 1,000; 0 for none."""
    pending_bytes: int
    """Their bytes; default 16 MiB."""
    prices: tuple[float, float] | None
    """US dollars per million input and output tokens, for `stats().money_saved`; default None."""
    on_outcome: Callable[[Outcome, float], None] | None
    """Called after every lookup with the outcome and its seconds; default None."""
    clock: Clock
    """Where time comes from; for tests."""
    coin: Callable[[], float]
    """Where chance comes from, uniform in [0, 1); for tests."""


_POLICY_OPTIONS: Final = frozenset(field.name for field in fields(CachePolicy))
_RESILIENCE_OPTIONS: Final = frozenset(field.name for field in fields(Resilience))
_CACHE_OPTIONS: Final = ("namespace", "tenant", "on_outcome", "clock")
_STORE_OPTIONS: Final = ("max_entries", "max_bytes")
_CODEC_OPTIONS: Final = ("encryption_keys", "accept_unencrypted", "compress_above")


def open_cache(
    store: str | Store | None,
    embedder: Embedder | None,
    options: CacheOptions,
    *,
    read: Callable[[Answer], Reading] | None = None,
    background: Background = "thread",
) -> SemanticCache:
    """A cache over a store (a URL, a ready store, or None for the user's own SQLite file).

    Args:
        store: where answers are kept.
        embedder: what turns questions into vectors; None for exact matching only.
        options: what the user chose.
        read: an answer as comparators read it; None: its digest is all there is.
        background: where lessons are learned.

    Raises:
        ConfigurationError: an option is unknown or wrong; the text begins with its name.
    """
    given: Mapping[str, Any] = cast("Mapping[str, Any]", options)
    _refuse_unknown(given)
    policy = CachePolicy(**_pick(given, _POLICY_OPTIONS))
    choice = LearningChoice.of(given)
    opened = _open_store(store, given)
    matcher, studying = choice.make(opened, embedder, policy, read or digest_only, background)
    return SemanticCache(
        opened,
        l1=_make_l1(options) if opened.blocking else None,
        embedding=_make_embedding(embedder, options),
        verification=_make_verification(options),
        policy=policy,
        resilience=Resilience(**_pick(given, _RESILIENCE_OPTIONS)),
        matcher=matcher,
        studying=studying,
        prices=_make_prices(options.get("prices")),
        **_pick(given, _CACHE_OPTIONS),
    )


def _refuse_unknown(given: Mapping[str, Any]) -> None:
    known = CacheOptions.__annotations__
    for name in given:
        if name not in known:
            raise ConfigurationError(name, f"there is no such option; there are: {', '.join(sorted(known))}")


def _pick(given: Mapping[str, Any], names: Sequence[str] | frozenset[str]) -> dict[str, Any]:
    return {name: given[name] for name in names if name in given}


def _open_store(store: str | Store | None, given: Mapping[str, Any]) -> Store:
    bounds, sealing = _pick(given, _STORE_OPTIONS), _pick(given, _CODEC_OPTIONS)
    if sealing.get("encryption_keys", ()) is None:
        # As when a setting got lost: nothing may be written in clear then.
        raise ConfigurationError("encryption_keys", "give at least one Fernet key, or leave it out")
    if store is None or isinstance(store, str):
        codec = Codec(**sealing) if sealing else None
        return open_store(store, eviction=given.get("eviction"), codec=codec, **bounds)
    if not isinstance(store, Store):
        raise ConfigurationError("store", f"give a URL or a Store; got {type(store).__name__}")
    for name in bounds:
        raise ConfigurationError(name, "bounds of a ready store are set where it is made; leave this out")
    for name in sealing:
        raise ConfigurationError(name, "a ready store is given its Codec where it is made; leave this out")
    return store


def _make_l1(options: CacheOptions) -> L1Cache | None:
    entries = options.get("l1_entries", 10_000)
    if entries == 0:
        return None
    try:
        return L1Cache(
            max_entries=entries,
            max_bytes=options.get("l1_bytes", 64 * 2**20),
            eviction=options.get("eviction", "w-tinylfu"),
        )
    except ConfigurationError as error:
        name = {"max_entries": "l1_entries", "max_bytes": "l1_bytes"}.get(error.parameter, error.parameter)
        raise ConfigurationError(name, str(error).partition(": ")[2]) from None


def _make_embedding(embedder: Embedder | None, options: CacheOptions) -> EmbeddingPort | None:
    if embedder is None:
        return None
    from aicache.embedders._embedding import Embedding

    return Embedding(embedder, timeout=_read_timeout("embed_timeout", options.get("embed_timeout", 2.0)))


def _make_verification(options: CacheOptions) -> VerificationPort | None:
    timeout = _read_timeout("verify_timeout", options.get("verify_timeout", 1.0))
    verifier = options.get("verifier")
    if verifier is None:
        return None
    from aicache.verifiers._verification import Verification
    from aicache.verifiers.callables import to_verifier

    return Verification(to_verifier(verifier), timeout=timeout, clock=options.get("clock"))


def _read_timeout(name: str, seconds: float | None) -> float | None:
    if seconds is not None and not (is_number(seconds) and seconds > 0):
        raise ConfigurationError(name, f"give seconds above 0, or None; got {seconds!r}")
    return seconds


def _make_prices(prices: tuple[float, float] | None) -> Prices | None:
    match prices:
        case None:
            return None
        case (cost_in, cost_out) if is_number(cost_in) and is_number(cost_out) and min(cost_in, cost_out) >= 0:
            return Prices(cost_in, cost_out)
        case _:
            raise ConfigurationError("prices", "give two numbers, dollars per million input and output tokens")
