"""LangChain embeddings as embedders."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings, FakeEmbeddings
from pydantic import BaseModel, PrivateAttr, SecretStr

from aicache._errors import ConfigurationError
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


def test_an_attribute_that_is_no_plain_value_is_left_out_where_the_model_is_named() -> None:
    embeddings: Any = Asymmetric()
    embeddings.base_url = object()
    assert LangChainEmbedder(embeddings).fingerprint == LangChainEmbedder(Asymmetric()).fingerprint


# ----------------------------------------------------------------- classes that do not name their model


class Own(Embeddings):
    """Embeddings of the user's own, that keep what they are under names of their own."""

    def __init__(self, **attributes: Any) -> None:
        vars(self).update(attributes)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        raise AssertionError

    def embed_query(self, text: str) -> list[float]:
        return [1.0]


class Fixed(Own):
    weights = "first"


class FixedOtherwise(Own):
    weights = "second"


class Validated(BaseModel, Own):
    path: str = "a"
    threads: int | None = None
    token: SecretStr | None = None
    _engine: Any = PrivateAttr(default=None)


def of(embeddings: Embeddings) -> str:
    return LangChainEmbedder(embeddings).fingerprint


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Own(path="small.bin"), Own(path="large.bin")),
        (Own(_path="small.bin"), Own(_path="large.bin")),
        (Own(pooled=True), Own(pooled=1)),
        (Own(scale=1), Own(scale="1")),
        (Own(config={"path": "a"}), Own(config={"path": "b"})),
        (Own(layers=[1, 2]), Own(layers=(2, 1))),
        (Own(base_url="https://host.example/small"), Own(base_url="https://host.example/large")),
        (Own(inner=Own(path="a")), Own(inner=Own(path="b"))),
        (Own(inner=Asymmetric("small")), Own(inner=Asymmetric("large"))),
        (Own(model="", path="a"), Own(model="", path="b")),
        (Own(dimensions=8, path="a"), Own(dimensions=8, path="b")),
        (Validated(path="a"), Validated(path="b")),
        (FakeEmbeddings(size=8), FakeEmbeddings(size=16)),
    ],
)
def test_embeddings_that_do_not_name_their_model_are_told_apart_by_their_attributes(
    one: Embeddings, other: Embeddings
) -> None:
    assert of(one) != of(other)
    assert of(one) == of(one)


@pytest.mark.parametrize("name", ["model", "model_id", "model_path", "model_url", "endpoint_name", "endpoint"])
def test_embeddings_that_name_their_model_may_hold_objects(name: str) -> None:
    one, other = (Own(**{name: value}, client=object()) for value in ("first-embedding", "second-embedding"))
    assert of(one) != of(other)
    assert of(one) == of(Own(**{name: "first-embedding"}, client=object(), timeout=3, path="a"))


def test_a_path_or_url_that_names_the_model_is_not_shown() -> None:
    for name in ("model_path", "model_url"):
        assert "private" not in of(Own(**{name: "https://me:private@host.example/private?key=private"}))


def test_an_endpoint_that_is_an_address_names_no_model() -> None:
    with pytest.raises(ConfigurationError):
        LangChainEmbedder(Own(endpoint="https://host.example/v1", client=object()))


def test_attributes_of_the_class_count_too() -> None:
    one, other = Fixed(), FixedOtherwise()
    assert of(one).rpartition(",")[2] != of(other).rpartition(",")[2]


@pytest.mark.parametrize(
    "embeddings",
    [
        Own(encoder=object()),
        Own(_encoder=object()),
        Own(encoder=object(), path="a"),
        Own(model=object()),
        Own(encode=len),
        Own(engines=[object()]),
        Own(inner=Own(encoder=object())),
    ],
    ids=lambda embeddings: str(list(vars(embeddings))),
)
def test_embeddings_that_hide_their_model_in_an_object_need_a_name(embeddings: Embeddings) -> None:
    with pytest.raises(ConfigurationError, match=r"^embeddings: .*name=") as raised:
        to_embedder(embeddings)
    assert " at 0x" not in str(raised.value)
    assert LangChainEmbedder(embeddings, name="mine").fingerprint == "langchain:mine"


def test_private_attributes_of_a_pydantic_class_are_seen() -> None:
    hidden = Validated()
    hidden._engine = object()
    with pytest.raises(ConfigurationError, match=r"^embeddings: "):
        to_embedder(hidden)


def test_embeddings_that_contain_themselves_need_a_name() -> None:
    endless = Own()
    vars(endless)["inner"] = endless
    with pytest.raises(ConfigurationError, match=r"^embeddings: "):
        to_embedder(endless)


@pytest.mark.parametrize(
    "name", ["api_key", "openai_api_key", "apikey", "access_token", "secret", "password", "credentials", "headers"]
)
def test_a_credential_is_no_part_of_the_identity(name: str) -> None:
    results = [Own(path="a", **{name: value}) for value in ("one", "two", SecretStr("x"), object())]
    assert len({of(embeddings) for embeddings in results}) == 1
    assert of(Own(config={name: "one"})) == of(Own(config={name: "two"}))


def test_a_secret_under_any_name_is_no_part_of_the_identity() -> None:
    assert of(Own(path="a", anything=SecretStr("x"))) == of(Own(path="a"))
    assert of(Validated(token=SecretStr("x"))) == of(Validated())


def test_a_name_that_only_looks_like_a_credential_counts() -> None:
    assert of(Own(max_tokens=1)) != of(Own(max_tokens=2))
    assert of(Own(tokenizer_name="a")) != of(Own(tokenizer_name="b"))


def test_embeddings_without_any_attribute_are_known_by_their_class() -> None:
    assert of(Own()) == f"langchain:{__name__}.Own"


def test_the_order_of_attributes_does_not_count() -> None:
    assert of(Own(a=1, b={2, 1})) == of(Own(b={1, 2}, a=1))


def test_the_attributes_are_not_shown() -> None:
    assert "private.bin" not in of(Own(path="/home/me/private.bin"))
