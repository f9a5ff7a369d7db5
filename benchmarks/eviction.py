"""Prints the hit ratio of every eviction policy on synthetic traces, beside libcachesim's in the same run.

    python benchmarks/eviction.py

Needs `pip install libcachesim` for the comparison; the traces are made here, from fixed seeds.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any

from aicache._eviction import EVICTIONS, Eviction, eviction

CAPACITY = 500
REQUESTS = 50_000

Trace = Sequence[int]


def zipf(chance: random.Random, *, keys: int, exponent: float, requests: int) -> list[int]:
    """Requests for keys 1..n, the k-th most popular with a probability proportional to 1 / k ** exponent."""
    weights = list(accumulate(1 / rank**exponent for rank in range(1, keys + 1)))
    return chance.choices(range(1, keys + 1), cum_weights=weights, k=requests)


def traces(requests: int = REQUESTS, capacity: int = CAPACITY) -> dict[str, Trace]:
    """The traces by name; the same in every run."""
    chance = random.Random(20_240)
    keys = 20 * capacity
    popular = zipf(chance, keys=keys, exponent=0.9, requests=requests)
    return {
        "zipf": popular,
        "scan+zipf": list(_with_scans(popular, capacity, first_new=keys + 1)),
        "loop": [1 + number % (capacity * 3 // 2) for number in range(requests)],
        "shifting": list(_shifting(chance, capacity, requests)),
    }


def _with_scans(popular: Trace, capacity: int, first_new: int) -> Iterator[int]:
    """After every 4 x capacity requests, a scan of 2 x capacity keys that are never asked for again."""
    new = first_new
    for number, key in enumerate(popular):
        if number and number % (4 * capacity) == 0:
            yield from range(new, new + 2 * capacity)
            new += 2 * capacity
        yield key


def _shifting(chance: random.Random, capacity: int, requests: int) -> Iterator[int]:
    """Ten phases; in each, other keys are the popular ones (the ranks move on by twice the capacity)."""
    keys = 20 * capacity
    for phase in range(10):
        for key in zipf(chance, keys=keys, exponent=1.0, requests=requests // 10):
            yield 1 + (key + phase * 2 * capacity) % keys


def hit_ratio(policy: Eviction[int], trace: Trace) -> float:
    """The share of requests whose key the policy held."""
    hits = 0
    for key in trace:
        if key in policy:
            hits += 1
            policy.touch(key)
        else:
            policy.admit(key)
    return hits / len(trace)


def peer_hit_ratio(name: str, capacity: int, trace: Trace) -> float:
    """The same for libcachesim's policy of this name.

    Raises:
        ImportError: libcachesim is not installed.
    """
    import libcachesim

    classes = {"lru": "LRU", "lfu": "LFU", "arc": "ARC", "w-tinylfu": "WTinyLFU"}
    # hashpower: the first size of its hash table as a power of two; the default takes 128 MB.
    cache: Any = getattr(libcachesim, classes[name])(cache_size=capacity, hashpower=14)
    request = libcachesim.Request()
    request.obj_size = 1
    hits = 0
    for now, key in enumerate(trace):
        request.obj_id = key
        request.clock_time = now
        hits += bool(cache.get(request))
    return hits / len(trace)


def main() -> None:
    print(f"hit ratio in %, capacity {CAPACITY} keys: aicache / libcachesim (difference)\n")
    made = traces()
    print("| trace | requests | keys | " + " | ".join(EVICTIONS) + " |")
    print("|---|---|---|" + "---|" * len(EVICTIONS))
    for title, trace in made.items():
        cells = [_cell(name, trace) for name in EVICTIONS]
        print(f"| {title} | {len(trace)} | {len(set(trace))} | " + " | ".join(cells) + " |")
    print("\nmicroseconds a request, hits and inserts of the zipf trace: ", end="")
    print(", ".join(f"{name} {_cost(name, made['zipf']):.2f}" for name in EVICTIONS))


def _cell(name: str, trace: Trace) -> str:
    ours = 100 * hit_ratio(eviction(name, CAPACITY), trace)
    try:
        theirs = 100 * peer_hit_ratio(name, CAPACITY, trace)
    except ImportError:
        return f"{ours:.2f} / -"
    return f"{ours:.2f} / {theirs:.2f} ({ours - theirs:+.2f})"


def _cost(name: str, trace: Trace) -> float:
    started = time.perf_counter()
    hit_ratio(eviction(name, CAPACITY), trace)
    return (time.perf_counter() - started) / len(trace) * 1e6


if __name__ == "__main__":
    main()
