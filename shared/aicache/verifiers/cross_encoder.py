"""A cross-encoder of the sentence-transformers library as a verifier, run by PyTorch."""

from __future__ import annotations

import math
import threading
from pathlib import Path
from typing import Any

from aicache._errors import ConfigurationError, MissingExtraError, VerifierError
from aicache._fork import in_forked_child
from aicache._model import Opinion
from aicache._policy import is_number
from aicache.embedders._installed import is_installed

__all__ = ["CrossEncoderVerifier"]


class CrossEncoderVerifier:
    """Reads both questions together and scores the pair, which no embedding of one text at a time can do.

    For models that were trained to tell whether two questions are duplicates or say the same, and give one score a
    pair. A re-ranker for search scores whether a passage is relevant, which is another question.

    The model is loaded at the first `verify`, and PyTorch with it: call it once at start-up, or hand over a loaded one,
    for the first lookups would find it too slow.

    Args:
        model: a name on the hub, a folder, or a loaded `CrossEncoder`.
        threshold: the least score that is a yes. There is no default, for the scores of two models have nothing in
            common; a model with one output usually puts them between 0 and 1.
        device: where it runs, such as `cpu` or `cuda`; None leaves it to the library.

    Raises:
        ConfigurationError: `threshold` is no number.
        MissingExtraError: sentence-transformers is not installed.
    """

    def __init__(self, model: str | Path | Any, *, threshold: float, device: str | None = None) -> None:
        if not is_number(threshold):
            raise ConfigurationError("threshold", f"give a number, the least score that is a yes; got {threshold!r}")
        if not is_installed("sentence_transformers"):
            raise MissingExtraError("a cross-encoder", "sentence-transformers")
        self._name = str(model) if isinstance(model, str | Path) else None
        self._model: Any = None if self._name is not None else model
        self._is_checked = False
        self._threshold = threshold
        self._device = device
        self._lock = threading.Lock()
        in_forked_child(self._renew_lock)

    def _renew_lock(self) -> None:
        """In a forked child: the lock may be held by a thread that is not there."""
        self._lock = threading.Lock()

    def verify(self, asked: str, stored: str, /) -> Opinion:
        """Whether the pair's score reaches the threshold. No, where the model would not read all of both questions.

        Raises:
            VerifierError: the model could not be loaded, or gives no score.
            ConfigurationError: the model is no cross-encoder, or gives more than one score a pair.
        """
        # One at a time: a tokenizer is not safe to share between threads.
        with self._lock:
            model = self._ready()
            unread = _unread(model, asked, stored)
            if unread is not None:
                return Opinion(same=False, said=unread)
            score = float(model.predict([(asked, stored)], show_progress_bar=False)[0])
        if math.isnan(score):
            raise VerifierError("the cross-encoder's score is NaN")
        return Opinion(same=score >= self._threshold, said=f"score {score:.4f}, threshold {self._threshold:g}")

    def _ready(self) -> Any:
        if self._model is None:
            self._model = self._load()
        if not self._is_checked:  # One that is refused stays, so that it is not loaded again for every call.
            _check(self._model)
            self._is_checked = True
        return self._model

    def _load(self) -> Any:
        from sentence_transformers import CrossEncoder

        try:
            return CrossEncoder(self._name, device=self._device)
        except Exception as error:
            raise VerifierError(f"the model {self._name} could not be loaded ({type(error).__name__})") from error


def _check(model: Any) -> None:
    """Refuse a model whose scores mean nothing.

    The library puts a head with random weights on a model that has none, and says so in its log only.
    """
    config = getattr(model, "config", None)
    kinds = getattr(config, "architectures", None) or ()
    if kinds and not kinds[0].endswith(("ForSequenceClassification", "ForCausalLM")):
        raise ConfigurationError("model", f"it is a {kinds[0]}, which scores no pairs: give a cross-encoder")
    labels = getattr(model, "num_labels", None) or getattr(config, "num_labels", 1)
    if labels != 1:
        raise ConfigurationError("model", f"it gives {labels} scores a pair: give a cross-encoder with one")


def _unread(model: Any, asked: str, stored: str) -> str | None:
    """What of the questions the model would not see; None if it sees all."""
    tokenizer = model.tokenizer
    limit = getattr(model, "max_seq_length", None)
    if limit is None:  # Before version 6 of the library.
        limit = getattr(model, "max_length", None) or tokenizer.model_max_length
    # `verbose` only keeps the library from logging the excess, which is what we look for.
    tokens = tokenizer(asked, stored, truncation=False, verbose=False)["input_ids"]
    if len(tokens) > limit:
        return f"{len(tokens)} tokens, more than the {limit} that the model takes"
    if tokenizer.unk_token_id is not None and tokenizer.unk_token_id in tokens:
        return "words that the model does not know"
    return None
