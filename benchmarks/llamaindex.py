"""What a cache adds to a LlamaIndex call that misses, and what a hit takes, for each way to ask.

    python benchmarks/llamaindex.py [--rounds 60] [--entries 1000]

The model answers at once, 1,024 characters, word by word where it streams; so what is timed is LlamaIndex's own road to
the answer, its events and spans included, plus the cache. Ways and contenders:

    uncached        the same class of model, never wrapped
    miss, exact     a question nobody asked; matching by meaning is off; the answer is stored
    miss, meaning   the same with matching by meaning: embedded, compared, stored with its vector
    hit, L1         the question was asked before; the answer is in the process's memory
    hit, SQLite     the same without L1: read from the file
    hit, meaning    in other words, each for the first time; searched for in the file

All caches are SQLite files with `entries` answers, asked for in this very way. Embedding is left out: vectors are
looked up, and what the local model takes for a question is a line of its own. The query engine's retriever finds two
passages without searching. Contenders take turns in short rounds and in changing order; figures are medians of all
calls, and ratios are those to the uncached call of this run. Every outcome is checked to be what the line says.
LlamaIndex has no cache of answers to compare with; for its caches of embeddings see benchmarks/ingestion.py.
"""

# ruff: noqa: ARG002 - the model and the retriever have LlamaIndex's signatures

from __future__ import annotations

import argparse
import asyncio
import os
import re
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseGen,
    LLMMetadata,
    MessageRole,
)
from llama_index.core.llms import LLM, CustomLLM
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.response_synthesizers import get_response_synthesizer
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

from aicache import Hit, Match, Outcome
from aicache.embedders import default_embedder
from llamaindex_aicache import AICache

ANSWER = ("Open the sign-in page, choose 'Forgot password' and follow the link in the mail. " * 13)[:1024]
PIECES = re.findall(r"\S+\s*", ANSWER)
PASSAGE = "The handbook says where each of the menus is found, and what is in it. " * 10
CALLS = 5
"""Calls of a contender before the next one has its turn."""


class Instant(CustomLLM):
    """A chat model that answers at once."""

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(model_name="instant", is_chat_model=False)

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        return CompletionResponse(text=ANSWER)

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        def pieces() -> CompletionResponseGen:
            text = ""
            for piece in PIECES:
                text += piece
                yield CompletionResponse(text=text, delta=piece)

        return pieces()

    @llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        return ChatResponse(message=_said(ANSWER))

    @llm_chat_callback()
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        return ChatResponse(message=_said(ANSWER))

    @llm_chat_callback()
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        def pieces() -> ChatResponseGen:
            text = ""
            for piece in PIECES:
                text += piece
                yield ChatResponse(message=_said(text), delta=piece)

        return pieces()


def _said(text: str) -> ChatMessage:
    return ChatMessage(role=MessageRole.ASSISTANT, content=text)


# ----------------------------------------------------------------------------------------------- questions


def question(number: int) -> str:
    """A question of its own for each number; no digits in it, which guards look at."""
    return f"How do I open the {_name(number)} menu in the settings?"


def reworded(number: int) -> str:
    """The same in other words."""
    return f"How can I open the {_name(number)} menu in the settings?"


def _name(number: int) -> str:
    return "".join(chr(ord("a") + int(digit)) for digit in f"{number:06}")


class LookedUp:
    """Vectors made before: one at random for each question, and nearly the same for its rewording (cosine .99)."""

    fingerprint = "looked-up"
    immediate = True

    def __init__(self, count: int) -> None:
        random = np.random.default_rng(0)
        matrix = _unit(random.standard_normal((count, 384)))
        near = _unit(matrix + 0.14 * _unit(random.standard_normal((count, 384))))
        self._vectors = {}
        for number in range(count):
            self._vectors[question(number)] = matrix[number].astype(np.float32)
            self._vectors[reworded(number)] = near[number].astype(np.float32)

    def embed(self, texts: Sequence[str]) -> Any:
        return np.stack([self._vectors[text] for text in texts])


def _unit(matrix: Any) -> Any:
    return matrix / np.linalg.norm(matrix, axis=1, keepdims=True)


# --------------------------------------------------------------------------------------------- ways to ask


class Found(BaseRetriever):
    """Two passages, without a search."""

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return [NodeWithScore(node=TextNode(text=PASSAGE, id_=name), score=1.0) for name in ("one", "two")]


Ask = Callable[[str], Awaitable[None]]


def by_chat(llm: LLM) -> Ask:
    async def ask(text: str) -> None:
        llm.chat(_messages(text))

    return ask


def by_complete(llm: LLM) -> Ask:
    async def ask(text: str) -> None:
        llm.complete(text)

    return ask


def by_stream_chat(llm: LLM) -> Ask:
    async def ask(text: str) -> None:
        for _ in llm.stream_chat(_messages(text)):
            pass

    return ask


def by_achat(llm: LLM) -> Ask:
    async def ask(text: str) -> None:
        await llm.achat(_messages(text))

    return ask


def by_engine(llm: LLM) -> Ask:
    engine = RetrieverQueryEngine(Found(), get_response_synthesizer(llm=llm))

    async def ask(text: str) -> None:
        engine.query(text)

    return ask


def _messages(text: str) -> list[ChatMessage]:
    system = ChatMessage(role=MessageRole.SYSTEM, content="You are a helpful support desk.")
    return [system, ChatMessage(role=MessageRole.USER, content=text)]


WAYS: dict[str, Callable[[LLM], Ask]] = {
    "chat": by_chat,
    "complete": by_complete,
    "stream_chat, read to its end": by_stream_chat,
    "achat": by_achat,
    "query engine": by_engine,
}


# ------------------------------------------------------------------------------------------------ contenders


@dataclass(frozen=True, slots=True)
class Contender:
    name: str
    ask: Ask
    texts: Iterator[str]
    """What it is asked, one after the other."""
    seen: list[Outcome]
    fits: Callable[[Outcome], bool]
    cache: AICache | None = None


def is_miss(outcome: Outcome) -> bool:
    return not isinstance(outcome, Hit)


def is_hit(tier: str, match: Match) -> Callable[[Outcome], bool]:
    return lambda outcome: isinstance(outcome, Hit) and outcome.tier == tier and outcome.match is match


def _noting(seen: list[Outcome]) -> Callable[[Outcome, float], None]:
    return lambda outcome, _: seen.append(outcome)


async def contenders(way: Callable[[LLM], Ask], entries: int, asked: int, folder: Path) -> list[Contender]:
    """Each with a cache of its own, in which `entries` answers are; a way to ask is one question at a time."""
    embedder = LookedUp(entries + asked)
    new = range(entries, entries + asked)
    again = [question(number % entries) for number in range(asked)]
    rows: list[tuple[str, object, int, list[str], Callable[[Outcome], bool]]] = [
        ("miss, exact", False, 10_000, [question(number) for number in new], is_miss),
        ("miss, meaning", embedder, 10_000, [question(number) for number in new], is_miss),
        ("hit, L1", embedder, 10_000, again, is_hit("l1", Match.EXACT)),
        ("hit, SQLite", embedder, 0, again, is_hit("sqlite", Match.EXACT)),
        (
            "hit, meaning",
            embedder,
            10_000,
            [reworded(number % entries) for number in range(asked)],
            is_hit("sqlite", Match.SEMANTIC),
        ),
    ]
    made = [Contender("uncached", way(Instant()), iter(again), [], is_miss)]
    for name, embeddings, l1_entries, texts, fits in rows:
        seen: list[Outcome] = []
        cache = AICache(
            f"sqlite:///{folder / name.replace(', ', '-')}.db",
            embeddings=embeddings,
            l1_entries=l1_entries,
            on_outcome=_noting(seen),
        )
        ask = way(cache.wrap(Instant()))
        for number in range(entries):
            await ask(question(number))
        seen.clear()
        made.append(Contender(name, ask, iter(texts), seen, fits, cache))
    return made


async def measure(entrants: Sequence[Contender], rounds: int) -> dict[str, float]:
    """Median seconds of a call."""
    times: dict[str, list[float]] = {one.name: [] for one in entrants}
    for turn in range(rounds):
        first = turn % len(entrants)
        for one in (*entrants[first:], *entrants[:first]):  # Nobody is always the first after a certain other.
            for text in islice(one.texts, CALLS):
                started = time.perf_counter()
                await one.ask(text)
                times[one.name].append(time.perf_counter() - started)
    for one in entrants:
        if one.cache is not None and len(one.seen) != len(times[one.name]):
            print(f"! {one.name}: {len(one.seen)} lookups for {len(times[one.name])} calls")
        others = [outcome for outcome in one.seen if not one.fits(outcome)]
        if others:
            print(f"! {one.name}: {len(others)} of {len(one.seen)} were something else, the first {others[0]}")
    return {name: statistics.median(values) for name, values in times.items()}


def print_way(title: str, medians: dict[str, float]) -> None:
    base = medians["uncached"]
    print(f"\n{title:32}{'us':>9}{'x uncached':>12}{'us more':>10}")
    for name, value in medians.items():
        print(f"{name:32}{value * 1e6:>9.0f}{value / base:>12.2f}{(value - base) * 1e6:>+10.0f}")


def print_embedding() -> None:
    """What the local model takes for a question: a miss and a hit by meaning take that much longer with it."""
    embedder = default_embedder()
    if embedder is None:
        print("\nthe local embedding model is not installed")
        return
    embedder.embed([question(0)])
    times = []
    for number in range(50):
        started = time.perf_counter()
        embedder.embed([question(number)])
        times.append(time.perf_counter() - started)
    print(f"\n{'MiniLM embeds a question':32}{statistics.median(times) * 1e6:>9.0f}")


async def compare(rounds: int, entries: int) -> None:
    for title, way in WAYS.items():
        with tempfile.TemporaryDirectory() as folder:
            entrants = await contenders(way, entries, rounds * CALLS, Path(folder))
            print_way(title, await measure(entrants, rounds))
            for one in entrants:
                if one.cache is not None:
                    one.cache.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--entries", type=int, default=1000)
    options = parser.parse_args()
    print(
        f"{options.entries} entries, {options.rounds} rounds of {CALLS} calls, medians; "
        f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores at the start"
    )
    asyncio.run(compare(options.rounds, options.entries))
    print_embedding()
    print(f"load {os.getloadavg()[0]:.1f} at the end")


if __name__ == "__main__":
    main()
