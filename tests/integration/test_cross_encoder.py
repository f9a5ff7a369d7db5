"""The cross-encoder verifier over a tiny model with random weights, made here: a folder as the library writes it."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from typing import Any

import pytest

MAKE = """
import json, sys, threading, torch
from pathlib import Path
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification, BertModel, PreTrainedTokenizerFast

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "how", "do", "i", "pay", "reset", "my", "password", "?"]

def make(kind, **more):
    folder = Path(sys.argv[1], kind.__name__ + "".join(map(str, more.values())))
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=16, **more,
    )
    kind(config).save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=16,
        unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]",
    ).save_pretrained(folder)
    return folder
"""

USE = (
    """
from aicache._errors import ConfigurationError, VerifierError
from aicache.verifiers import CrossEncoderVerifier
from aicache.verifiers._verification import Verification

verifier = CrossEncoderVerifier("any/model", threshold=0.5)
early = [name for name in ("torch", "sentence_transformers") if name in sys.modules]

ASKED, STORED = "How do I pay?", "how do i reset my password"
"""
    + MAKE
    + """
from sentence_transformers import CrossEncoder

folder = make(BertForSequenceClassification, num_labels=1)
score = float(CrossEncoder(str(folder), device="cpu").predict([(ASKED, STORED)], show_progress_bar=False)[0])

def said(**options):
    opinion = CrossEncoderVerifier(folder, device="cpu", **options).verify(ASKED, STORED)
    return [opinion.same, opinion.said]

loaded = CrossEncoderVerifier(CrossEncoder(str(folder), device="cpu"), threshold=score - 1e-4)
def refusal(model, *pair):
    try:
        return CrossEncoderVerifier(model, threshold=0.5, device="cpu").verify(*(pair or (ASKED, STORED))).said
    except (ConfigurationError, VerifierError) as error:
        return f"{type(error).__name__} {error}"

shared = Verification(loaded, memo_entries=0, workers=4, timeout=60)
opinions = []
def ask():
    for _ in range(20):
        opinions.append(shared.verify(ASKED, STORED).same)
threads = [threading.Thread(target=ask) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()

print(json.dumps(dict(
    early=early,
    score=score,
    below=said(threshold=score - 1e-4),
    above=said(threshold=score + 1e-4),
    loaded=loaded.verify(ASKED, STORED).same,
    opinions=[len(opinions), all(opinions)],
    longest=refusal(folder, "pay " * 6, "pay " * 7),
    too_long=refusal(folder, "pay " * 7, "pay " * 7),
    unknown=refusal(folder, ASKED, "how do i pay in zloty"),
    three=refusal(make(BertForSequenceClassification, num_labels=3)),
    headless=refusal(make(BertModel)),
    absent=refusal(sys.argv[1] + "/nothing here"),
)))
"""
)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What the verifier made of the tiny models, from a process of its own: PyTorch stays out of this one."""
    packages = ("torch", "transformers", "tokenizers", "sentence_transformers")
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing and os.environ.get("CI") == "true":
        pytest.fail(f"not installed, and CI must test with them: {missing}")
    if missing:
        pytest.skip(f"not installed: {missing}")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", "import sys\n" + USE, str(tmp_path_factory.mktemp("models"))],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.model
def test_the_score_of_the_library_against_the_bar_decides(found: Any) -> None:
    score = found["score"]
    assert found["below"] == [True, f"score {score:.4f}, threshold {score - 1e-4:g}"]
    assert found["above"] == [False, f"score {score:.4f}, threshold {score + 1e-4:g}"]
    assert found["loaded"]


@pytest.mark.model
def test_nothing_heavy_is_imported_before_the_first_verdict(found: Any) -> None:
    assert found["early"] == []


@pytest.mark.model
def test_threads_share_one_model(found: Any) -> None:
    assert found["opinions"] == [80, True]


@pytest.mark.model
def test_a_pair_that_the_model_would_cut_is_a_no(found: Any) -> None:
    assert found["longest"].startswith("score ")
    assert found["too_long"] == "17 tokens, more than the 16 that the model takes"


@pytest.mark.model
def test_a_pair_with_words_that_the_model_does_not_know_is_a_no(found: Any) -> None:
    assert found["unknown"] == "words that the model does not know"


@pytest.mark.model
def test_a_model_whose_scores_mean_nothing_is_refused(found: Any) -> None:
    assert found["three"] == "ConfigurationError model: it gives 3 scores a pair: give a cross-encoder with one"
    assert found["headless"].startswith("ConfigurationError model: it is a BertModel, which scores no pairs")


@pytest.mark.model
def test_a_model_that_cannot_be_loaded_is_a_failure_that_names_it(found: Any) -> None:
    assert found["absent"].startswith("VerifierError the model ")
    assert "could not be loaded" in found["absent"]
