"""Any model of the sentence-transformers library, run by PyTorch."""

from __future__ import annotations

import hashlib
import math
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aicache._errors import ConfigurationError, EmbedderError, MissingExtraError, QueryTooLongError
from aicache._fork import in_forked_child
from aicache.embedders._installed import is_installed

__all__ = ["SentenceTransformerEmbedder", "refuse_long"]


class SentenceTransformerEmbedder:
    """A sentence-transformers model. For what `OnnxEmbedder` does not run: other poolings, a GPU, fp32.

    The model is loaded at the first `embed`, and PyTorch with it.

    Args:
        model: a name on the hub, a folder, or a loaded `SentenceTransformer`.
        prompt_name: the prompt put before each text, one that the model's configuration names, such as `query`.
        device: where it runs, such as `cpu` or `cuda`; None leaves it to the library.

    Raises:
        MissingExtraError: sentence-transformers is not installed.
    """

    def __init__(self, model: str | Path | Any, *, prompt_name: str | None = None, device: str | None = None) -> None:
        if not is_installed("sentence_transformers"):
            raise MissingExtraError("a sentence-transformers model", "sentence-transformers")
        self._name = str(model) if isinstance(model, str | Path) else None
        self._model: Any = None if self._name is not None else model
        self._prompt_name = prompt_name
        self._device = device
        self._fingerprint: str | None = None
        self._lock = threading.Lock()
        in_forked_child(self._renew_lock)

    def _renew_lock(self) -> None:
        """In a forked child: the lock may be held by a thread that is not there."""
        self._lock = threading.Lock()

    @property
    def fingerprint(self) -> str:
        """A hash over weights, parts and prompt. Loads the model."""
        model = self._ready()
        if self._fingerprint is None:
            self._fingerprint = _fingerprint(model, self._prompt(model))
        return self._fingerprint

    def embed(self, texts: Sequence[str]) -> Any:
        """Unit vectors: float32, shape (len(texts), dimension).

        Raises:
            QueryTooLongError: a text has more tokens than the model takes.
            EmbedderError: the model could not be loaded.
        """
        model = self._ready()
        prompt = self._prompt(model)
        refuse_long(model, [prompt + text for text in texts])
        return model.encode(
            list(texts),
            prompt=prompt or None,
            normalize_embeddings=True,
            convert_to_numpy=True,
            show_progress_bar=False,
        )

    def _prompt(self, model: Any) -> str:
        if self._prompt_name is None:
            return ""
        prompts = getattr(model, "prompts", None) or {}
        if self._prompt_name not in prompts:
            raise ConfigurationError(
                "prompt_name", f"the model has no prompt {self._prompt_name!r}, only {sorted(prompts)}"
            )
        return str(prompts[self._prompt_name])

    def _ready(self) -> Any:
        if self._model is None:
            with self._lock:
                if self._model is None:
                    self._model = self._load()
        return self._model

    def _load(self) -> Any:
        from sentence_transformers import SentenceTransformer

        try:
            return SentenceTransformer(self._name, device=self._device)
        except Exception as error:
            raise EmbedderError(f"the model {self._name} could not be loaded ({type(error).__name__})") from error


def refuse_long(model: Any, texts: Sequence[str]) -> None:
    """Raise if a text has more tokens than a loaded `SentenceTransformer` takes; it would cut the text silently.

    Raises:
        QueryTooLongError: it has.
    """
    limit = getattr(model, "max_seq_length", None)
    if limit is None or not math.isfinite(limit):
        return
    tokenizer = model.tokenizer
    for text in texts:
        # `verbose` only keeps the library from logging the excess, which is what we are about to report.
        count = len(tokenizer(text, truncation=False, verbose=False)["input_ids"])
        if count > limit:
            raise QueryTooLongError(f"a text has {count} tokens, more than the {limit} that the model takes")


def _fingerprint(model: Any, prompt: str) -> str:
    digest = hashlib.sha256(f"{model}\0{prompt}".encode())  # Its text lists the parts and their settings.
    for name, tensor in sorted(model.state_dict().items()):
        flat = tensor.detach().cpu().contiguous().flatten()
        digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(flat.view(_byte_type()).numpy())
    return f"sentence-transformers:{digest.hexdigest()[:16]}"


def _byte_type() -> Any:
    import torch

    return torch.uint8
