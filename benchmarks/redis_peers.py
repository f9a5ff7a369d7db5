"""(g) The shared store against LangChain's own caches on Redis, on one server.

    python benchmarks/redis_peers.py [--sizes 1000,10000] [--rounds 30] [--vectors FILE.npz]

`langchain_redis.RedisCache` (exact) and `RedisSemanticCache` (by meaning) beside `AICache` over `RedisStore`, in its
two dialects that match by meaning, and beside one bare command. The server has vector sets and RediSearch; the script
starts it and ends it. Contenders take turns in short rounds; each figure is a median, and ratios are of this run.

FILE.npz holds `texts` and `vectors` (384 numbers each, of length 1); without it they are synthetic.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import statistics
import sys
import time
import warnings
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from redis_contenders import Bare, Contender, Questions, Recorded, answer, contenders, model

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "integration"))

from redis_fidelity import compare_answers
from redis_servers import Node, ServerMissingError, redisearch

from aicache.testing import FaultProxy

CALLS = 10
"""Calls of a contender before the next one has its turn."""
CLIENTS = 16
REQUESTS = 320
"""Requests of all clients together before the next contender has its turn."""

GET, SEARCH, SEARCH_10 = "GET", "EVALSHA, VSIM + 1 GET", "EVALSHA, VSIM + 10 GET"
BARE = (GET, SEARCH, SEARCH_10)

Medians = dict[str, float]


# ------------------------------------------------------------------------------------------------ latency


def latency(askers: Sequence[tuple[str, Callable[[str], object]]], asked: Sequence[str]) -> tuple[Medians, Medians]:
    """Median seconds of one call, and the share of calls that brought something."""
    times: dict[str, list[float]] = {name: [] for name, _ in askers}
    answered = dict.fromkeys(times, 0)
    for begin in range(0, len(asked), CALLS):
        turn = begin // CALLS % len(askers)
        for name, ask in (*askers[turn:], *askers[:turn]):  # Nobody is always the first after a certain other.
            for prompt in asked[begin : begin + CALLS]:
                started = time.perf_counter()
                found = ask(prompt)
                times[name].append(time.perf_counter() - started)
                answered[name] += found is not None
    return (
        {name: statistics.median(values) for name, values in times.items()},
        {name: answered[name] / len(asked) for name in times},
    )


def table(title: str, unit: str, found: Medians, shares: Medians | None = None, *, scale: float = 1.0) -> None:
    """A line for each, with its ratio to the bare command, where there is one, and to the peer of its own kind."""
    bare = next((value for name, value in found.items() if name in BARE), None)
    print(f"\n{title}\n{'':26}{unit:>10}{'x bare':>10}{'x peer':>10}{'' if shares is None else '  answered'}")
    for name, value in found.items():
        peer = found.get(peer_of(name, found))
        ratios = "".join(f"{'-' if base is None else format(value / base, '.2f'):>10}" for base in (bare, peer))
        print(f"{name:26}{value * scale:>10.0f}{ratios}{'' if shares is None else format(shares[name], '>10.0%')}")


def peer_of(name: str, found: Medians) -> str:
    """Who does the same with what LangChain calls `RedisCache` and `RedisSemanticCache`, as far as they take part.

    An exact hit is compared with the exact cache; what is written with a vector, with the one that keeps vectors.
    """
    exact = "RedisSemanticCache" not in found or (GET in found) or name in {"AICache, exact only", "RedisCache"}
    return "RedisCache" if exact else "RedisSemanticCache"


def lookups(entrants: Sequence[Contender], bare: dict[str, Bare], kind: str) -> list[tuple[str, Callable[[str], Any]]]:
    """How each one that takes part is asked; the bare ones first."""
    takers = [(name, one) for name, one in bare.items() if (name == GET) == (kind == "exact")]
    takers += [(one.name, one.cache) for one in entrants if (one.exact if kind == "exact" else one.semantic)]
    return [(name, lambda asked, cache=cache: cache.lookup(asked, model())) for name, cache in takers]


def compare_calls(size: int, rounds: int, entrants: list[Contender], bare: dict[str, Bare], all_: Questions) -> None:
    random = np.random.default_rng(size)
    places = random.integers(size, size=rounds * CALLS)
    again, reworded = [all_.prompts[place] for place in places], [all_.reworded(place) for place in places]
    for title, kind, asked in (("exact hit", "exact", again), ("hit by meaning", "semantic", reworded)):
        askers = lookups(entrants, bare, kind)
        for prompt in {*asked} if kind == "exact" else asked[:CALLS]:  # What L1 is to hold is asked for once before.
            for _, ask in askers:
                ask(prompt)
        table(f"{title}, {size} entries", "us", *latency(askers, asked), scale=1e6)
    # Questions like the others, for a vector at random is as far from one entry as from the next: no question is.
    missed = all_.others(rounds * CALLS)
    table(f"miss, {size} entries", "us", *latency(lookups(entrants, {}, "semantic"), missed), scale=1e6)


def compare_writes(size: int, entrants: list[Contender], texts: Sequence[str]) -> None:
    def asker(cache: Any) -> Callable[[str], object]:
        return lambda prompt: cache.update(prompt, model(), answer(prompt[-40:]))

    askers = [(one.name, asker(one.cache)) for one in entrants if one.writes]
    found, _ = latency(askers, texts)
    table(f"update, {size} entries", "us", found, scale=1e6)


def fill(server: Node, entrants: Sequence[Contender], prompts: Sequence[str]) -> Medians:
    """Write all prompts into each cache; the server's memory for one entry."""
    grown = {}
    for one in entrants:
        if one.writes:
            before = int(server.info("memory")["used_memory"])
            for prompt in prompts:
                one.cache.update(prompt, model(), answer(prompt[-40:]))
            grown[one.name] = (int(server.info("memory")["used_memory"]) - before) / len(prompts)
    return grown


# ------------------------------------------------------------------------------------------------ throughput


async def crowd(ask: Callable[[str], Awaitable[object]], asked: Sequence[str]) -> tuple[float, int]:
    """Requests a second of all clients together, and how many brought something."""
    waiting = iter(asked)
    answered = 0

    async def client() -> None:
        nonlocal answered
        for prompt in waiting:
            found = await ask(prompt)
            answered += found is not None

    started = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return len(asked) / (time.perf_counter() - started), answered


async def compare_crowds(
    size: int, rounds: int, entrants: list[Contender], bare: dict[str, Bare], all_: Questions
) -> None:
    random = np.random.default_rng(-size % 2**32)
    places = random.integers(size, size=REQUESTS)
    exact, reworded = [all_.prompts[place] for place in places], [all_.reworded(place) for place in places]
    mixed = [reworded[place] if place % 10 == 0 else exact[place] for place in range(REQUESTS)]
    for title, asked in (("exact hits", exact), ("hits by meaning", reworded), ("nine exact, one by meaning", mixed)):
        takers: list[tuple[str, Any]] = []
        if asked is not mixed:
            takers += [(name, one) for name, one in bare.items() if (name == GET) == (asked is exact)]
        takers += [(one.name, one.cache) for one in entrants if (one.exact if asked is exact else one.semantic)]
        rates: dict[str, list[float]] = {name: [] for name, _ in takers}
        answered = dict.fromkeys(rates, 0)
        for number in range(rounds + 1):
            for name, cache in takers:
                rate, count = await crowd(lambda prompt, cache=cache: cache.alookup(prompt, model()), asked)
                if number:  # The first opens connections and fills L1.
                    rates[name].append(rate)
                    answered[name] += count
        medians = {name: statistics.median(values) for name, values in rates.items()}
        shares = {name: answered[name] / (rounds * REQUESTS) for name in rates}
        table(f"{title}, {CLIENTS} async clients", "ops/s", medians, shares)
    for one in entrants:
        with contextlib.suppress(AttributeError):
            await one.cache.aclose()


# ------------------------------------------------------------------------------------------------ round trips


def count_trips(server: Node, recorded: Recorded, all_: Questions, ttl: int | None) -> dict[str, list[str]]:
    """Round trips of an exact hit, a hit by meaning, a miss and a write, counted between client and server."""
    rows: dict[str, list[str]] = {}
    with FaultProxy("127.0.0.1", server.port) as proxy:
        for one in contenders(proxy.url, recorded, ttl):
            kept, near = all_.pair()
            one.cache.update(kept, model(), answer("kept"))
            steps: list[Callable[[], object]] = [
                lambda one=one, kept=kept: one.cache.lookup(kept, model()),
                lambda one=one, near=near: one.cache.lookup(near, model()),
                lambda one=one: one.cache.lookup(all_.unknown(), model()),
                lambda one=one: one.cache.update(all_.unknown(), model(), answer("new")),
            ]
            counted = []
            for number, step in enumerate(steps):
                step()
                before = proxy.round_trips
                for _ in range(CALLS):
                    step()
                counted.append("-" if number == 1 and not one.semantic else f"{(proxy.round_trips - before) / CALLS:g}")
            rows[one.name] = counted
    return rows


def show(title: str, columns: Sequence[str], rows: dict[str, list[str]]) -> None:
    print(f"\n{title}\n{'':26}" + "".join(f"{column:>14}" for column in columns))
    for name, values in rows.items():
        print(f"{name:26}" + "".join(f"{value:>14}" for value in values))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="1000,10000")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--vectors", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    sizes = [int(size) for size in options.sizes.split(",")]
    recorded = Recorded()
    spare = options.rounds * CALLS
    all_ = Questions(max(sizes) + 2 * spare * len(sizes), recorded, options.vectors)
    try:
        with redisearch() as server:
            run(server, sizes, options.rounds, recorded, all_)
    except ServerMissingError as error:
        raise SystemExit(f"no server to measure with: {error}") from None


def run(server: Node, sizes: Sequence[int], rounds: int, recorded: Recorded, all_: Questions) -> None:
    entrants = contenders(server.url, recorded)
    if not any(one.name == "RedisCache" for one in entrants):
        print("the peers are left out: pip install --group bench")
    print(f"Redis {server.info('server')['redis_version']} with RediSearch; {all_.source}; 1,024-character answers")
    bare = {
        GET: Bare(server.url, "sets", recorded),
        SEARCH: Bare(server.url, "sets", recorded, 1),
        SEARCH_10: Bare(server.url, "sets", recorded, 10),
    }
    written, spare = 0, max(sizes)
    for size in sizes:
        grown = fill(server, entrants, all_.prompts[written:size])
        for one in bare.values():
            one.look_around()
        compare_calls(size, rounds, entrants, bare, all_)
        compare_writes(size, entrants, all_.prompts[spare : spare + rounds * CALLS])
        written, spare = size, spare + rounds * CALLS
    table(f"an entry in the server's memory, at {sizes[-1]} entries", "bytes", grown)
    asyncio.run(compare_crowds(sizes[-1], max(5, rounds // 5), entrants, bare, all_))
    columns = ("exact hit", "by meaning", "miss", "update")
    show("round trips", columns, count_trips(server, recorded, all_, None))
    show("round trips, with a TTL", columns, count_trips(server, recorded, all_, 3600))
    compare_answers(server, recorded)


if __name__ == "__main__":
    main()
