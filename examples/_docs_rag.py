"""What the LlamaIndex examples share: this project's documentation, questions about it, two models that need no key.

The embedding model is the MiniLM that the cache brings along. The language model is a provider's when its key is in the
environment and its package is installed, else a stand-in that quotes the best sentence and waits.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from llama_index.core import Document
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.base.llms.types import CompletionResponse, CompletionResponseGen, LLMMetadata
from llama_index.core.llms import LLM, CustomLLM
from llama_index.core.llms.callbacks import llm_completion_callback
from llama_index.core.node_parser import SentenceSplitter
from pydantic import PrivateAttr

from aicache import EmbedderError, MissingExtraError, QueryTooLongError
from aicache.embedders import Embedder, default_embedder

__all__ = ["QUESTIONS", "SPLITTER", "LocalEmbedding", "Question", "QuotingModel", "choose_model", "load_documents"]

ROOT = Path(__file__).resolve().parents[1]

SPLITTER = SentenceSplitter(chunk_size=160, chunk_overlap=0)
"""Passages that fit the embedding model, which takes 256 tokens of its own kind."""


@dataclass(frozen=True, slots=True)
class Question:
    """A question about the documentation."""

    text: str
    kind: str
    """`new`, `repeat` (the very same text), `reworded`, or `near-miss` (much like an earlier one, but with another
    answer)."""
    streamed: bool = False


QUESTIONS = (
    Question("What is shadow mode?", "new"),
    Question("How are stored answers encrypted?", "new", streamed=True),
    Question("Can several processes share one SQLite file?", "new"),
    Question("What is shadow mode?", "repeat"),
    Question("How are stored answers encrypted?", "repeat", streamed=True),
    Question("How are stored answers encrypted?", "repeat"),
    Question("what's shadow mode", "reworded"),
    Question("how do stored answers get encrypted", "reworded", streamed=True),
    Question("How are stored answers compressed?", "near-miss"),
    Question("Can multiple processes share one SQLite file?", "reworded"),
    Question("How do I remove an answer from the cache?", "new"),
    Question("How can I remove an answer from the cache?", "reworded"),
    Question("What happens when Redis cannot be reached?", "new"),
    Question("What happens when Redis is unreachable?", "reworded"),
    Question("Does an entry's key contain the API key?", "new"),
    Question("does an entry's key contain the api key", "reworded"),
    Question("Does an entry's key contain the tenant?", "near-miss"),
)


def load_documents(*names: str) -> list[Document]:
    """The README and the pages of docs/, or only those of these names."""
    files = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    return [
        # The file's name is for the language model; to the embedding model it would be noise.
        Document(
            text=file.read_text(encoding="utf-8"),
            id_=file.name,
            metadata={"file": file.name},
            excluded_embed_metadata_keys=["file"],
        )
        for file in files
        if not names or file.name in names
    ]


# ---------------------------------------------------------------------------------------------- embedding


class Tally:
    """How many texts were embedded. An object: a plain number in a model's attributes would be one of its parameters,
    and with each change the cache would see another model."""

    texts: int = 0


class LocalEmbedding(BaseEmbedding):
    """An aicache embedder as a LlamaIndex embedding model.

    Args:
        embedder: makes the vectors; None for the local MiniLM.
        options: fields of `BaseEmbedding`.

    Raises:
        MissingExtraError: the local MiniLM is not installed.
    """

    _embedder: Embedder = PrivateAttr()
    _tally: Tally = PrivateAttr(default_factory=Tally)

    def __init__(self, embedder: Embedder | None = None, **options: Any) -> None:
        embedder = embedder or default_embedder()
        if embedder is None:
            raise MissingExtraError("the local embedding model", "onnx")
        # The name tells vectors of different models apart, in the cache too.
        super().__init__(model_name=embedder.fingerprint, **options)
        self._embedder = embedder

    @property
    def computed(self) -> int:
        """How many texts it was asked for. With a cache, those that were not there."""
        return self._tally.texts

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_query_embedding(query)

    def _get_text_embedding(self, text: str) -> list[float]:
        self._tally.texts += 1
        vector: list[float] = self.vector(text).tolist()
        return vector

    def vector(self, text: str) -> Any:
        """The vector of a text of any length and any words, as an array. The embedder itself refuses what it would cut
        or misread, as a cache must; to find a passage, the mean of its parts will do."""
        try:
            return np.asarray(self._embedder.embed([text])[0])
        except QueryTooLongError:
            words = text.split(" ")
            half = len(words) // 2
            if half == 0:
                raise
            return (self.vector(" ".join(words[:half])) + self.vector(" ".join(words[half:]))) / 2
        except EmbedderError:
            known = text.encode("ascii", "ignore").decode()  # Without emoji, say, which the model does not know.
            if known == text:
                raise
            return self.vector(known)


# ------------------------------------------------------------------------------------------ language model


class QuotingModel(CustomLLM):
    """A language model for machines without a provider's key: it quotes the sentence of the context whose vector is
    nearest to the question's, and waits as long as a hosted model would.

    Tokens are estimated at four characters each.
    """

    delay: float = 0.3
    """Seconds a call takes."""

    _embedding: LocalEmbedding = PrivateAttr()

    def __init__(self, embedding: LocalEmbedding, **fields: Any) -> None:
        super().__init__(**fields)
        self._embedding = embedding

    @property
    def metadata(self) -> LLMMetadata:
        """What LlamaIndex asks of a model: its context window, its name."""
        return LLMMetadata(model_name="quoting-stand-in")

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:  # noqa: ARG002
        """The sentence."""
        time.sleep(self.delay)
        text = self._quote(prompt)
        return CompletionResponse(text=text, raw=_usage(prompt, text))

    @llm_completion_callback()
    def stream_complete(
        self,
        prompt: str,
        formatted: bool = False,  # noqa: ARG002
        **kwargs: Any,  # noqa: ARG002
    ) -> CompletionResponseGen:
        """The sentence, word by word."""

        def pieces() -> CompletionResponseGen:
            words = self._quote(prompt).split(" ")
            text = ""
            for number, word in enumerate(words):
                time.sleep(self.delay / len(words))
                piece = f" {word}" if number else word
                text += piece
                yield CompletionResponse(text=text, delta=piece, raw=_usage(prompt, text))

        return pieces()

    def _quote(self, prompt: str) -> str:
        question, sentences = _read_prompt(prompt)
        if not sentences:
            return "The documentation has no answer to that."
        asked = self._embedding.vector(question)
        return max(sentences, key=lambda sentence: float(self._embedding.vector(sentence) @ asked))


def _usage(prompt: str, text: str) -> dict[str, Any]:
    read, written = len(prompt) // 4, len(text) // 4
    return {"usage": {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}}


def _read_prompt(prompt: str) -> tuple[str, Sequence[str]]:
    """The question, and the sentences of the context, of LlamaIndex's own template for answers."""
    context = prompt.split("---------------------")[1]
    question = prompt.rpartition("Query: ")[2].partition("\nAnswer:")[0]
    prose = re.sub(r"```.*?(```|\Z)", "\n\n", context, flags=re.DOTALL)
    parts = re.split(r"(?<=[.!?])\s+(?=[A-Z*`])|\n{2,}|\n(?=[-|#>]|\d\. )", prose)
    plain = (re.sub(r"\[(.*?)\]\(.*?\)", r"\1", part).replace("`", "").replace("**", "") for part in parts)
    cleaned = (" ".join(part.strip(" \n|#->").split()) for part in plain)
    return question, [part for part in cleaned if len(part) > 30 and part.endswith(".") and "|" not in part]


_OPENAI = "gpt-4.1-mini"


def choose_model(embedding: LocalEmbedding, *, delay: float = 0.3, stand_in: bool = False) -> tuple[LLM, str]:
    """OpenAI's model if there are a key and a package for it, else the stand-in; and what to call it."""
    reason = "as asked for" if stand_in else "no API key found"
    if not stand_in and os.environ.get("OPENAI_API_KEY"):
        if find_spec("llama_index.llms") is not None and find_spec("llama_index.llms.openai") is not None:
            from llama_index.llms.openai import OpenAI

            return OpenAI(model=_OPENAI, temperature=0), f"openai: {_OPENAI}"
        reason = "OPENAI_API_KEY is set, but its package is missing: pip install llama-index-llms-openai"
    return QuotingModel(embedding, delay=delay), f"stand-in that quotes, fixed delay {delay:g} s ({reason})"
