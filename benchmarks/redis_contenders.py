"""Who takes part in `redis_peers.py`, and what they are asked.

All speak to one server through their own redis-py clients and get their vectors from one `Recorded`, so that what is
timed is the cache. The two bare ones do the least that a cache on Redis could do: a GET, and a script that searches a
vector set and GETs what it finds.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import redis
import redis.asyncio
from langchain_core.caches import BaseCache
from langchain_core.embeddings import Embeddings
from langchain_core.load import dumps
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.outputs import ChatGeneration

from aicache.stores.redis import RedisStore
from langchain_aicache import AICache

try:
    from langchain_redis import RedisCache, RedisSemanticCache
except ImportError:
    RedisCache = RedisSemanticCache = None

__all__ = ["DIMENSION", "Bare", "Contender", "Questions", "Recorded", "answer", "contenders", "model", "prompt"]

DIMENSION = 384

_WORDS = """
account address again agree always amount answer apply balance bank before begin branch button cancel card carry change
charge check choose clear close code collect confirm contact copy country customer date decide delay deliver deny desk
detail device document email enable enter error every expect fee field find follow forget form given health hour
identity inform letter limit link list login manager message minute missing mobile money month number offer office
online open order page password payment person phone please postal previous print problem proof provide question reach
receive record refund reject renew repeat reply report request reset return review safe screen section security select
send service setting sign staff statement store street submit support tax team telephone test transfer travel try
update validate visit wait week window within without write wrong year
"""


# ------------------------------------------------------------------------------------------------ what is asked


def model(name: str = "gpt-4o-mini") -> str:
    """What LangChain says of a chat model to its cache."""
    kwargs = f'{{"model_name": "{name}", "temperature": 0.0}}'
    identity = '["langchain", "chat_models", "openai", "ChatOpenAI"]'
    return f'{{"id": {identity}, "kwargs": {kwargs}, "lc": 1, "type": "constructor"}}---[(\'stop\', None)]'


def prompt(text: str) -> str:
    """What LangChain says of a chat prompt to its cache."""
    return dumps([HumanMessage(text)])


def answer(text: str, **fields: Any) -> list[ChatGeneration]:
    """A chat model's answer of 1,024 characters, with what OpenAI's models say besides."""
    usage = {"input_tokens": 20, "output_tokens": 200, "total_tokens": 220}
    # Words at random: a sentence repeated would be compressed to nothing.
    words = " ".join(random.Random(text).choices(_WORDS.split(), k=256))
    message = AIMessage(
        f"{text} {words}"[:1024],
        **{"usage_metadata": usage, "response_metadata": {"finish_reason": "stop"}} | fields,
    )
    return [ChatGeneration(message=message)]


class Recorded(Embeddings):
    """Looks vectors up, by the question or by the prompt that holds it: some caches embed the one, some the other."""

    model_name = "recorded"

    def __init__(self) -> None:
        self.known: dict[str, list[float]] = {"test": [1.0] + [0.0] * (DIMENSION - 1)}

    def learn(self, text: str, vector: Any) -> None:
        self.known[text] = self.known[prompt(text)] = (vector / np.linalg.norm(vector)).tolist()

    def embed_query(self, text: str) -> list[float]:
        return self.known[text]

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.known[text] for text in texts]


class Questions:
    """Questions with their vectors, and rewordings of them."""

    def __init__(self, count: int, recorded: Recorded, file: Path | None) -> None:
        self._random = np.random.default_rng(0)
        self._recorded = recorded
        self.source = "clustered synthetic vectors" if file is None else f"recorded vectors of {file.name}"
        texts, self._vectors = self._synthetic(count) if file is None else self._read(count, file)
        for text, vector in zip(texts, self._vectors, strict=True):
            recorded.learn(text, vector)
        self.prompts = [prompt(text) for text in texts]
        self._texts = texts
        self._unasked = len(texts)

    def reworded(self, place: int) -> str:
        """Another wording of one of the questions."""
        return self._near(self._texts[place], self._vectors[place])

    def others(self, count: int) -> list[str]:
        """The last of the questions, each given out once: nothing is written of them."""
        self._unasked -= count
        return self.prompts[self._unasked : self._unasked + count]

    def unknown(self) -> str:
        """A prompt that is near none of the others."""
        return self.pair()[0]

    def pair(self) -> tuple[str, str]:
        """A prompt that is near none of the others, and another wording of it."""
        text, vector = f"What on earth is {self._word()}?", self._random.standard_normal(DIMENSION, dtype=np.float32)
        vector /= np.linalg.norm(vector)
        self._recorded.learn(text, vector)
        return prompt(text), self._near(text, vector)

    def _near(self, text: str, vector: Any) -> str:
        """A made-up word more, which no guard looks at, and a vector at a cosine of 0.995."""
        text = f"{text} {self._word()}"
        noise = self._random.standard_normal(DIMENSION, dtype=np.float32) * 0.005
        self._recorded.learn(text, vector + noise)
        return prompt(text)

    def _word(self) -> str:
        return "".join(self._random.choice(list("abcdefghij"), 10))

    def _synthetic(self, count: int) -> tuple[list[str], Any]:
        centres = self._random.standard_normal((max(1, count // 20), DIMENSION), dtype=np.float32)
        noise = self._random.standard_normal((count, DIMENSION), dtype=np.float32)
        vectors = centres[self._random.integers(len(centres), size=count)] + 0.6 * noise
        texts = [f"How do I solve problem number {number} of my account?" for number in range(count)]
        return texts, vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    @staticmethod
    def _read(count: int, file: Path) -> tuple[list[str], Any]:
        with np.load(file) as arrays:
            # A text with a label ("Question: ...") is not embedded whole by each of the contenders.
            plain = [place for place, text in enumerate(arrays["texts"]) if ":" not in text][:count]
            texts, vectors = arrays["texts"][plain].tolist(), arrays["vectors"][plain]
        if len(texts) < count or vectors.shape[1] != DIMENSION:
            raise SystemExit(f"{file}: {count} texts with vectors of {DIMENSION} numbers are needed")
        return texts, vectors


# ------------------------------------------------------------------------------------------------ who is asked


class Bare(BaseCache):
    """One command and no cache: GET, or the EVALSHA that finds `k` members of a vector set and GETs an entry for each.

    It reads what an AICache has written, so that the values have the same size.
    """

    SEARCH = """
    local found = redis.call('VSIM', KEYS[1], 'FP32', ARGV[1], 'COUNT', ARGV[2])
    for i, name in ipairs(found) do found[i] = redis.call('GET', ARGV[3] .. name) end
    return found
    """

    def __init__(self, url: str, prefix: str, recorded: Recorded, k: int = 0) -> None:
        self._client = redis.Redis.from_url(url)
        self._async_client: Any = redis.asyncio.Redis.from_url(url)
        self._recorded, self._k, self._prefix = recorded, k, prefix
        self._sha = self._client.script_load(self.SEARCH)
        self._keys: Iterator[bytes] = iter(())
        self._vectors = self._base = b""

    def look_around(self) -> None:
        """See which keys there are by now."""
        self._keys = itertools.cycle(list(self._client.scan_iter(f"{self._prefix}:*:e:*", count=1000)))
        self._vectors = next(self._client.scan_iter(f"{self._prefix}:*:v:*", count=10_000))
        self._base = self._vectors.partition(b"v:")[0] + b"e:"

    def _words(self, asked: str) -> Sequence[Any]:
        if not self._k:
            return ("GET", next(self._keys))
        vector = np.array(self._recorded.known[asked], dtype=np.float32).tobytes()
        return ("EVALSHA", self._sha, 1, self._vectors, vector, self._k, self._base)

    def lookup(self, prompt: str, llm_string: str) -> Any:  # noqa: ARG002
        return self._client.execute_command(*self._words(prompt))

    async def alookup(self, prompt: str, llm_string: str) -> Any:  # noqa: ARG002
        return await self._async_client.execute_command(*self._words(prompt))

    def update(self, prompt: str, llm_string: str, return_val: Any) -> None:
        raise NotImplementedError

    def clear(self, **kwargs: Any) -> None:
        raise NotImplementedError


@dataclass(frozen=True)
class Contender:
    """A cache, and which rows it takes part in."""

    name: str
    cache: Any
    exact: bool = True
    semantic: bool = True
    writes: bool = True


def contenders(url: str, recorded: Recorded, ttl: int | None = None) -> list[Contender]:
    """All that are there, over the same server; those of langchain-redis only where it is installed."""

    def ours(prefix: str, dialect: str, **options: Any) -> AICache:
        # Limits out of the way of a busy machine: a reply that comes late is slow here, and not a miss.
        store = RedisStore(url, prefix=prefix, dialect=dialect, timeout=10.0, connect_timeout=10.0)
        # And no limit for the embedder: the thread it takes belongs to the embedding, which is left out here.
        options = {"embeddings": recorded, "embed_timeout": None, "l1_entries": 0, "ttl": ttl} | options
        return AICache(store, lookup_timeout=10.0, update_timeout=10.0, **options)

    found = [
        Contender("AICache, vector sets", ours("sets", "vector sets")),
        Contender("AICache, search", ours("hashes", "search")),
        Contender("AICache, exact only", ours("plain", "plain", embeddings=False), semantic=False),
        Contender("AICache, L1", ours("sets", "vector sets", l1_entries=10_000), semantic=False, writes=False),
    ]
    if RedisCache is not None:
        near = RedisSemanticCache(recorded, redis_url=url, name="theirs-near", ttl=ttl)
        found += [
            Contender("RedisCache", RedisCache(redis_url=url, prefix="theirs", ttl=ttl), semantic=False),
            Contender("RedisSemanticCache", near),
        ]
    return found
