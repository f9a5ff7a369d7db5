"""LangChain embeddings as embedders."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings

from aicache.embedders.callables import CallableEmbedder
from langchain_aicache._embeddings import LangChainEmbedder, to_embedder


class Asymmetric(Embeddings):
    """A provider's embeddings, with a secret and two sides that differ."""

    def __init__(self, model: str = "small", base_url: str | None = None, dimensions: int | None = None) -> None:
        self.model = model
        self.base_url = base_url
        self.dimensions = dimensions
        self.encode_kwargs: dict[str, str] = {}
        self.api_key = "sk-secret"

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        raise AssertionError("questions are compared with questions")

    def embed_query(self, text: str) -> list[float]:
        return [1.0, float(len(text))]


class Awaiting(Asymmetric):
    async def aembed_query(self, text: str) -> list[float]:
        return [2.0, float(len(text))]


def test_both_sides_of_a_comparison_are_queries() -> None:
    assert LangChainEmbedder(Asymmetric()).embed(["a", "bc"]) == [[1.0, 1.0], [1.0, 2.0]]


async def test_a_native_coroutine_is_used_and_langchains_thread_is_not() -> None:
    native = LangChainEmbedder(Awaiting()).aembed
    assert native is not None
    assert await native(["abc"]) == [[2.0, 3.0]]
    assert LangChainEmbedder(Asymmetric()).aembed is None


def test_the_fingerprint_names_class_and_model() -> None:
    fingerprints = {
        LangChainEmbedder(embeddings).fingerprint
        for embeddings in (
            Asymmetric(),
            Awaiting(),
            Asymmetric("large"),
            Asymmetric(dimensions=256),
            Asymmetric(base_url="https://one.example/v1"),
            Asymmetric(base_url="https://two.example/v1"),
            DeterministicFakeEmbedding(size=8),
            DeterministicFakeEmbedding(size=16),
        )
    }
    assert len(fingerprints) == 8
    assert LangChainEmbedder(Asymmetric()).fingerprint == LangChainEmbedder(Asymmetric()).fingerprint


def test_the_fingerprint_holds_no_secret() -> None:
    url = "https://user:password@host.example:8443/v1/key-in-path?api_key=in-query"
    fingerprint = LangChainEmbedder(Asymmetric(base_url=url)).fingerprint
    assert "host.example:8443" in fingerprint
    for secret in ("sk-secret", "password", "user", "key-in-path", "in-query"):
        assert secret not in fingerprint


def test_a_name_takes_the_place_of_class_and_attributes() -> None:
    assert LangChainEmbedder(Asymmetric("large"), name="mine").fingerprint == "langchain:mine"


def test_embeddings_come_before_everything_else() -> None:
    class CallableToo(Asymmetric):
        def __call__(self, text: str) -> Any:
            raise AssertionError

    assert isinstance(to_embedder(CallableToo()), LangChainEmbedder)


def _embed(text: str) -> list[float]:
    return [1.0]


def test_what_langchain_does_not_know_is_left_to_the_core() -> None:
    assert isinstance(to_embedder(_embed), CallableEmbedder)
    assert to_embedder(False) is None


def test_without_an_embedder_installed_the_log_says_what_to_install() -> None:
    code = """
import sys
sys.modules["onnxruntime"] = None
from langchain_aicache._embeddings import to_embedder
print(to_embedder(None))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "None"
    assert done.stderr.count("pip install 'aicache[onnx]'") == 1


def test_texts_that_a_local_model_would_cut_are_refused() -> None:
    code = """
import types
from langchain_core.embeddings import Embeddings
from aicache._errors import QueryTooLongError
from langchain_aicache._embeddings import LangChainEmbedder

class SentenceTransformer:
    max_seq_length = 3
    def tokenizer(self, text, **options):
        return {"input_ids": text.split()}

SentenceTransformer.__module__ = "sentence_transformers.fake"

class Local(Embeddings):
    _client = SentenceTransformer()
    def embed_documents(self, texts): raise AssertionError
    def embed_query(self, text): return [1.0]

embedder = LangChainEmbedder(Local())
print(embedder.embed(["a b c"]))
try:
    embedder.embed(["a b c d"])
except QueryTooLongError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.splitlines() == ["[[1.0]]", "a text has 4 tokens, more than the 3 that the model takes"]


def test_options_in_a_mapping_count_but_are_not_shown() -> None:
    def fingerprint(**options: str) -> str:
        embeddings = Asymmetric()
        embeddings.encode_kwargs = options
        return LangChainEmbedder(embeddings).fingerprint

    assert fingerprint(prompt="query: ") != fingerprint(prompt="passage: ")
    assert fingerprint(a="1", b="2") == fingerprint(b="2", a="1")
    assert "hf_secret" not in fingerprint(token="hf_secret")


@pytest.mark.parametrize("attribute", ["model", "base_url"])
def test_an_attribute_that_is_no_plain_value_is_left_out(attribute: str) -> None:
    embeddings = Asymmetric()
    setattr(embeddings, attribute, object())
    assert " at 0x" not in LangChainEmbedder(embeddings).fingerprint
