"""Eviction policies: which keys a full cache gives up.

A policy tracks keys and nothing else: it holds no values, reads no clock, does no I/O and takes no lock (its
owner does). L1, the memory store and the simulator use the same objects through one protocol, `Eviction`.

    LRU         the key unused for longest leaves. Simple, no memory of the past, ruined by scans.
    LFU         the key used least often leaves. Resists scans, never forgets old favourites.
    ARC         recency and frequency side by side; the share of each is learned from regretted evictions.
    W-TinyLFU   a newcomer must have been asked for more often than the key it would displace. The default.

Every operation takes O(1) time (amortised for W-TinyLFU: its counters are halved now and then). For bytes,
str and int keys the same calls give the same victims in every process, whatever the hash seed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from hashlib import blake2b
from typing import Any, Final, Generic, Protocol, TypeVar

from aicache._errors import ConfigurationError

__all__ = ["ARC", "EVICTIONS", "LFU", "LRU", "Eviction", "FrequencySketch", "WTinyLFU", "eviction", "spread"]

K = TypeVar("K", bound=Hashable)


class Eviction(Protocol[K]):
    """The keys a cache holds and the order in which it gives them up.

    The owner reports each hit with `touch` and each insert with `admit`, and drops what `admit` and `evict`
    name. A miss is not reported: the insert that follows it counts as the use.
    """

    def touch(self, key: K) -> None:
        """Count a hit; nothing happens for a key that is not held."""

    def admit(self, key: K) -> Sequence[K]:
        """Take the key in; the keys to drop for it, `key` itself if it is refused.

        For a key that is held this is a `touch`.
        """

    def evict(self) -> K | None:
        """Give up one key because another bound of the owner, such as bytes, is exceeded; None when empty."""

    def discard(self, key: K) -> None:
        """Forget a key that the owner removed; nothing happens for one that is not held."""

    def clear(self) -> None:
        """Forget all keys. What was learned about how often keys are used may stay."""

    def __len__(self) -> int:
        """How many keys are held; at most the capacity."""

    def __contains__(self, key: object) -> bool:
        """Whether the key is held."""


# ------------------------------------------------------------------------------------------------- LRU


class LRU(Generic[K]):
    """Least recently used: the key unused for longest leaves first."""

    __slots__ = ("_capacity", "_keys")

    def __init__(self, capacity: int) -> None:
        self._capacity = _checked(capacity)
        # Not a plain dict: its first key is found by skipping the slots of all keys deleted before it.
        self._keys: OrderedDict[K, None] = OrderedDict()

    def touch(self, key: K) -> None:
        if key in self._keys:
            self._keys.move_to_end(key)

    def admit(self, key: K) -> Sequence[K]:
        keys = self._keys
        if key in keys:
            keys.move_to_end(key)
            return ()
        keys[key] = None
        return (keys.popitem(last=False)[0],) if len(keys) > self._capacity else ()

    def evict(self) -> K | None:
        return self._keys.popitem(last=False)[0] if self._keys else None

    def discard(self, key: K) -> None:
        self._keys.pop(key, None)

    def clear(self) -> None:
        self._keys.clear()

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, key: object) -> bool:
        return key in self._keys


# ------------------------------------------------------------------------------------------------- LFU


class _Bucket(Generic[K]):
    """The keys used exactly `count` times, first come first; a link of the list of buckets."""

    __slots__ = ("count", "higher", "keys", "lower")

    def __init__(self, count: int) -> None:
        self.count = count
        self.keys: OrderedDict[K, None] = OrderedDict()
        self.lower: _Bucket[K] = self
        self.higher: _Bucket[K] = self


class LFU(Generic[K]):
    """Least frequently used: the key with the fewest uses leaves; among equals, the first to reach the count.

    A key's uses are counted while it is held and forgotten when it leaves. Source of the list of buckets that
    makes it O(1): Shah, Mitra, Matani, "An O(1) algorithm for implementing the LFU cache eviction scheme", 2010.
    """

    __slots__ = ("_bucket_of", "_capacity", "_root")

    def __init__(self, capacity: int) -> None:
        self._capacity = _checked(capacity)
        self._bucket_of: dict[K, _Bucket[K]] = {}
        self._root: _Bucket[K] = _Bucket(0)  # closes the ring: root.higher is the lowest count

    def touch(self, key: K) -> None:
        bucket = self._bucket_of.get(key)
        if bucket is not None:
            self._enter(key, bucket, bucket.count + 1)
            self._leave(key, bucket)

    def admit(self, key: K) -> Sequence[K]:
        if key in self._bucket_of:
            self.touch(key)
            return ()
        victim = self.evict() if len(self._bucket_of) >= self._capacity else None
        self._enter(key, self._root, 1)
        return () if victim is None else (victim,)

    def evict(self) -> K | None:
        if not self._bucket_of:
            return None
        bucket = self._root.higher
        victim = next(iter(bucket.keys))
        del self._bucket_of[victim]
        self._leave(victim, bucket)
        return victim

    def discard(self, key: K) -> None:
        bucket = self._bucket_of.pop(key, None)
        if bucket is not None:
            self._leave(key, bucket)

    def clear(self) -> None:
        self._bucket_of.clear()
        self._root = _Bucket(0)

    def __len__(self) -> int:
        return len(self._bucket_of)

    def __contains__(self, key: object) -> bool:
        return key in self._bucket_of

    def _enter(self, key: K, below: _Bucket[K], count: int) -> None:
        """Put the key into the bucket of `count`, which is or comes right above `below`."""
        bucket = below.higher
        if bucket.count != count:
            bucket = _Bucket(count)
            bucket.lower, bucket.higher = below, below.higher
            below.higher.lower = bucket
            below.higher = bucket
        bucket.keys[key] = None
        self._bucket_of[key] = bucket

    @staticmethod
    def _leave(key: K, bucket: _Bucket[K]) -> None:
        """Take the key out of the bucket, and an emptied bucket out of the ring."""
        del bucket.keys[key]
        if not bucket.keys:
            bucket.lower.higher = bucket.higher
            bucket.higher.lower = bucket.lower


# ------------------------------------------------------------------------------------------------- ARC


class ARC(Generic[K]):
    """Adaptive replacement: keys used once and keys used again in two LRU lists, their shares learned.

    Each list has a ghost: the keys it gave up lately. A newcomer found in a ghost is an eviction regretted, so
    that list's share grows. Source: Megiddo and Modha, "ARC: a self-tuning, low overhead replacement cache",
    FAST 2003; the names t1, t2, b1, b2 are the paper's. Two differences, neither visible while the cache is
    full: room is made only when there is none (an owner may have removed keys), and the share of t1 grows to
    the number of keys held, which a byte bound may keep below the capacity.
    """

    __slots__ = ("_b1", "_b2", "_capacity", "_t1", "_t2", "_target")

    def __init__(self, capacity: int) -> None:
        self._capacity = _checked(capacity)
        self._t1: OrderedDict[K, None] = OrderedDict()  # held, used once
        self._t2: OrderedDict[K, None] = OrderedDict()  # held, used again
        self._b1: OrderedDict[K, None] = OrderedDict()  # ghost of t1
        self._b2: OrderedDict[K, None] = OrderedDict()  # ghost of t2
        self._target = 0.0  # wanted size of t1, the paper's p

    def touch(self, key: K) -> None:
        if key in self._t2:
            self._t2.move_to_end(key)
        elif key in self._t1:
            del self._t1[key]
            self._t2[key] = None

    def admit(self, key: K) -> Sequence[K]:
        if key in self:
            self.touch(key)
            return ()
        b1, b2 = self._b1, self._b2
        if key in b1:
            wider = min(self._target + max(1.0, len(b2) / len(b1)), len(self))
            self._target = max(self._target, wider)
            victims = self._make_room()
            del b1[key]
            self._t2[key] = None
        elif key in b2:
            self._target = max(0.0, self._target - max(1.0, len(b1) / len(b2)))
            victims = self._make_room(for_b2=True)
            del b2[key]
            self._t2[key] = None
        else:
            victims = self._make_room_for_stranger()
            self._t1[key] = None
        return victims

    def evict(self) -> K | None:
        return self._replace() if len(self) else None

    def discard(self, key: K) -> None:
        self._t1.pop(key, None)
        self._t2.pop(key, None)

    def clear(self) -> None:
        for keys in (self._t1, self._t2, self._b1, self._b2):
            keys.clear()
        self._target = 0.0

    def __len__(self) -> int:
        return len(self._t1) + len(self._t2)

    def __contains__(self, key: object) -> bool:
        return key in self._t1 or key in self._t2

    def _make_room(self, *, for_b2: bool = False) -> Sequence[K]:
        return (self._replace(for_b2=for_b2),) if len(self) >= self._capacity else ()

    def _make_room_for_stranger(self) -> Sequence[K]:
        """Room for a key in neither list nor ghost: t1 + b1 stay within the capacity, all four within twice."""
        once = len(self._t1) + len(self._b1)
        if once >= self._capacity:
            if not self._b1:
                return (self._t1.popitem(last=False)[0],)  # t1 is the whole cache: the paper keeps no ghost
            self._b1.popitem(last=False)
        elif once + len(self._t2) + len(self._b2) >= 2 * self._capacity:
            self._b2.popitem(last=False)
        return self._make_room()

    def _replace(self, *, for_b2: bool = False) -> K:
        """Move the oldest key of the list that exceeds its share to its ghost (the paper's REPLACE)."""
        size = len(self._t1)
        if size and (size > self._target or (for_b2 and size == self._target) or not self._t2):
            source, ghost = self._t1, self._b1
        else:
            source, ghost = self._t2, self._b2
        victim, _ = source.popitem(last=False)
        ghost[victim] = None
        return victim


# -------------------------------------------------------------------------------------------- W-TinyLFU

_TOP: Final = 15
"""Where a counter stops: four bits, enough to rank keys within one sample (Einziger et al., section 3.4.1)."""
_HALVED: Final = bytes(value // 2 for value in range(256))
_SAMPLE: Final = 10
"""Uses per unit of capacity after which all counters are halved: Caffeine's value, TinyLFU's W/C ratio."""
_MIN_WIDTH: Final = 256
"""Least counters a row: a small cache costs 1 KB and its few keys hardly ever share a counter."""


class FrequencySketch:
    """Counts how often keys were used, in fixed memory, forgetting slowly: a count-min sketch that ages.

    Four rows of counters; a key has one counter a row and its estimate is the least of the four, which shares
    push up and never down. After `10 * capacity` uses all counters are halved, so that old favourites fade.
    Sources: Cormode and Muthukrishnan, "An improved data stream summary", 2005; Einziger, Friedman, Manes,
    "TinyLFU: a highly efficient cache admission policy", ACM TOS 2017. A counter of four bits sits in a byte of
    its own: twice the memory of packed ones (16 to 32 bytes a key of capacity), half the Python instructions,
    and halving is one `bytes.translate`. No doorkeeper: it saves memory that is not scarce here and costs a
    second structure per use.
    """

    __slots__ = ("_mask", "_rows", "_sample", "_uses")

    def __init__(self, capacity: int) -> None:
        width = max(_MIN_WIDTH, 1 << (4 * capacity - 1).bit_length())
        self._mask = width - 1
        self._rows = (bytearray(width), bytearray(width), bytearray(width), bytearray(width))
        self._uses = 0
        self._sample = _SAMPLE * capacity

    def add(self, code: int) -> None:
        """Count one use of the key with this code (see `spread`)."""
        row0, row1, row2, row3 = self._rows
        mask = self._mask
        # Four positions from one 64-bit code: first + row * step (Kirsch and Mitzenmacher, 2006); an odd step
        # visits every column. Unrolled: a loop over the rows takes twice as long.
        step = (code >> 32) | 1
        at = code & mask
        if (count := row0[at]) < _TOP:
            row0[at] = count + 1
        at = (at + step) & mask
        if (count := row1[at]) < _TOP:
            row1[at] = count + 1
        at = (at + step) & mask
        if (count := row2[at]) < _TOP:
            row2[at] = count + 1
        at = (at + step) & mask
        if (count := row3[at]) < _TOP:
            row3[at] = count + 1
        self._uses += 1
        if self._uses >= self._sample:
            self._rows = (
                row0.translate(_HALVED),
                row1.translate(_HALVED),
                row2.translate(_HALVED),
                row3.translate(_HALVED),
            )
            self._uses //= 2

    def estimate(self, code: int) -> int:
        """About how often the key was used lately, 0 to 15."""
        row0, row1, row2, row3 = self._rows
        mask = self._mask
        step = (code >> 32) | 1
        return min(
            row0[code & mask],
            row1[(code + step) & mask],
            row2[(code + 2 * step) & mask],
            row3[(code + 3 * step) & mask],
        )


class WTinyLFU(Generic[K]):
    """Windowed TinyLFU: recency for newcomers, frequency for the rest, and a contest at the border.

    A newcomer enters the window, an LRU list of 1 % of the keys, where a burst of uses is served. From there it
    moves to the main part as a candidate; when a key must leave, the candidate stays only if the sketch has
    counted more uses for it than for the main part's oldest key. The main part is a segmented LRU: `probation`
    for keys used once since they came, `protected` (80 %) for those used again. Source: Einziger, Friedman,
    Manes (see `FrequencySketch`) and their library Caffeine. Two differences: shares are of the keys held now,
    not of the capacity, so the policy is the same when a byte bound keeps the cache below it; and the window
    does not adapt to the traffic.

    Hash flooding: somebody who can choose keys can find some that share counters with a key of his and make it
    look popular, so that it keeps others out. Counters decide only what is kept, never what is served, and
    halving ends the effect. Caffeine also takes one in 128 losers at random; not done here, for that costs hits
    on loops and a simulation must repeat itself.
    """

    __slots__ = ("_candidate", "_capacity", "_probation", "_protected", "_sketch", "_window")

    def __init__(self, capacity: int) -> None:
        self._capacity = _checked(capacity)
        self._sketch = FrequencySketch(capacity)
        # The value of a key is its code, so that a hit computes no hash.
        self._window: OrderedDict[K, int] = OrderedDict()
        self._probation: OrderedDict[K, int] = OrderedDict()
        self._protected: OrderedDict[K, int] = OrderedDict()
        self._candidate: K | None = None  # the last key that came from the window and was not contested yet

    def touch(self, key: K) -> None:
        protected = self._protected
        code = protected.get(key)
        if code is not None:
            protected.move_to_end(key)
        elif (code := self._probation.pop(key, None)) is not None:
            protected[key] = code
            self._demote()
        elif (code := self._window.get(key)) is not None:
            self._window.move_to_end(key)
        else:
            return
        self._sketch.add(code)

    def admit(self, key: K) -> Sequence[K]:
        if key in self:
            self.touch(key)
            return ()
        code = spread(key)
        self._sketch.add(code)
        window = self._window
        window[key] = code
        held = len(self)
        while len(window) > max(1, held // 100):
            candidate, code = window.popitem(last=False)
            self._probation[candidate] = code
            self._candidate = candidate
        if held <= self._capacity:
            return ()
        victim = self.evict()
        return () if victim is None else (victim,)

    def evict(self) -> K | None:
        candidate, self._candidate = self._candidate, None
        if candidate is not None and candidate in self._probation and self._loses(candidate):
            del self._probation[candidate]
            return candidate
        for keys in (self._probation, self._protected, self._window):
            if keys:
                return keys.popitem(last=False)[0]
        return None

    def discard(self, key: K) -> None:
        for keys in (self._protected, self._probation, self._window):
            keys.pop(key, None)

    def clear(self) -> None:
        """Forget all keys but not the counts: what was popular will be so again."""
        for keys in (self._protected, self._probation, self._window):
            keys.clear()
        self._candidate = None

    def __len__(self) -> int:
        return len(self._window) + len(self._probation) + len(self._protected)

    def __contains__(self, key: object) -> bool:
        return key in self._protected or key in self._probation or key in self._window

    def _demote(self) -> None:
        """Keep the protected keys within 80 % of the main part, that is, within 4 times the others."""
        while len(self._protected) > 4 * len(self._probation):
            key, code = self._protected.popitem(last=False)
            self._probation[key] = code

    def _loses(self, candidate: K) -> bool:
        """Whether the candidate must leave rather than the oldest key on probation; a draw is lost."""
        oldest = next(iter(self._probation.values()))
        newest = self._probation[candidate]
        return self._sketch.estimate(newest) <= self._sketch.estimate(oldest)


def spread(key: Hashable) -> int:
    """64 well-mixed bits of a key; the same in every process for bytes, str and int.

    Python's own hash of bytes and str changes with the process, which would make a simulation unrepeatable.
    """
    if isinstance(key, str):
        key = key.encode("utf-8", "surrogatepass")
    elif not isinstance(key, bytes):
        key = hash(key).to_bytes(8, "little", signed=True)
    return int.from_bytes(blake2b(key, digest_size=8).digest(), "little")


# --------------------------------------------------------------------------------------------- by name

EVICTIONS: Final[tuple[str, ...]] = ("lru", "lfu", "arc", "w-tinylfu")
"""The names `eviction` knows."""


def eviction(name: str, capacity: int) -> Eviction[Any]:
    """The policy of this name for at most `capacity` keys.

    Raises:
        ConfigurationError: an unknown name, or a capacity that is not a whole number of at least 1.
    """
    policy: Callable[[int], Eviction[Any]]
    match name:
        case "lru":
            policy = LRU
        case "lfu":
            policy = LFU
        case "arc":
            policy = ARC
        case "w-tinylfu":
            policy = WTinyLFU
        case _:
            raise ConfigurationError("eviction", f"give one of {', '.join(EVICTIONS)}; got {name!r}")
    return policy(capacity)


def _checked(capacity: int) -> int:
    if isinstance(capacity, bool) or not isinstance(capacity, int) or capacity < 1:
        raise ConfigurationError("capacity", f"give a whole number of at least 1; got {capacity!r}")
    return capacity
