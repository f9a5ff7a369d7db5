"""(a) `llm.invoke` with an exact hit: AICache against LangChain's InMemoryCache and SQLiteCache, in one run.

    python benchmarks/invoke.py [--rounds 400]

The caches take turns in short rounds, so that a machine that slows down slows all of them; each figure is the median
of the rounds. The model answers at once, so what is timed is LangChain's own road to a hit plus the cache.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

from langchain_core.caches import BaseCache, InMemoryCache
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage

from langchain_aicache import AICache

ANSWER = "Open the sign-in page, choose 'Forgot password' and follow the link in the mail. " * 12


def short_prompt() -> list[BaseMessage]:
    return [SystemMessage("You are a helpful support desk."), HumanMessage("How do I reset my password?")]


def long_prompt() -> list[BaseMessage]:
    messages: list[BaseMessage] = [SystemMessage("You are a helpful support desk.")]
    for turn in range(10):
        messages += [HumanMessage(f"Question {turn}: how do I reset password {turn}?"), AIMessage(ANSWER[:300])]
    return [*messages[:-1], HumanMessage("And how do I change it later?")]


def caches(folder: Path) -> dict[str, BaseCache | None]:
    found: dict[str, BaseCache | None] = {
        "no cache": None,
        "InMemoryCache": InMemoryCache(),
        "AICache memory://": AICache("memory://", embeddings=False),
        "AICache L1 + SQLite": AICache(f"sqlite:///{folder / 'ours.db'}", embeddings=False),
        "AICache SQLite, no L1": AICache(f"sqlite:///{folder / 'bare.db'}", embeddings=False, l1_entries=0),
    }
    warnings.simplefilter("ignore")  # SQLiteCache warns at every hit, which would be timed too
    try:
        from langchain_community.cache import SQLiteCache

        found["SQLiteCache"] = SQLiteCache(str(folder / "theirs.db"))
    except ImportError:
        print("SQLiteCache left out: pip install --group bench")
    return found


def measure(messages: Sequence[BaseMessage], rounds: int, folder: Path) -> dict[str, float]:
    models = {
        name: FakeListChatModel(responses=[ANSWER], cache=False if cache is None else cache)
        for name, cache in caches(folder).items()
    }
    times: dict[str, list[float]] = {name: [] for name in models}
    for model in models.values():
        for _ in range(20):
            model.invoke(list(messages))
    for _ in range(rounds):
        for name, model in models.items():
            started = time.perf_counter()
            for _ in range(5):
                model.invoke(list(messages))
            times[name].append((time.perf_counter() - started) / 5)
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=400)
    rounds = parser.parse_args().rounds
    print(f"llm.invoke, exact hit, {len(ANSWER)}-character answer; median of {rounds} rounds of 5 calls")
    for title, messages in (("short prompt", short_prompt()), (f"{len(long_prompt())} messages", long_prompt())):
        with tempfile.TemporaryDirectory() as folder:
            medians = measure(messages, rounds, Path(folder))
        base = medians["InMemoryCache"]
        print(f"\n{title:26}{'us':>10}{'x InMemoryCache':>18}")
        for name, value in medians.items():
            print(f"{name:26}{value * 1e6:>10.1f}{value / base:>18.2f}")


if __name__ == "__main__":
    main()
