"""A model's folder, read: which ONNX file, which pooling, how long a text may be.

The layout is that of sentence-transformers: `modules.json` lists the parts in order, `1_Pooling/config.json` says how
token vectors become one, `sentence_bert_config.json` how many tokens the model was made for.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, cast

from aicache._errors import ConfigurationError, EmbedderError

__all__ = ["ModelFolder", "Pooling", "choose_onnx", "has_weights", "read_folder"]

Pooling: TypeAlias = Literal["mean", "cls"]
"""How the vectors of a text's tokens become one: their mean, or that of the first token."""

WEIGHTS: Final = "model.safetensors"

CONFIGURATION: Final = (
    "tokenizer.json",
    "tokenizer_config.json",
    "config.json",
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "1_Pooling/config.json",
)
"""The files beside the weights that are read here or by the conversion."""

FALLBACK_LENGTH: Final = 512
"""Tokens, where no file says how many: the positions of BERT."""

_LEGACY_POOLING: Final = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """What is needed to run a model."""

    onnx: Path
    tokenizer: Path
    pooling: Pooling
    max_length: int
    """Tokens a text may have, the special ones included."""
    lower_case: bool
    """True: the model wants lower-case texts and its tokenizer does not see to it."""


def read_folder(folder: Path) -> ModelFolder | None:
    """The model of a folder, or None if the folder holds no ONNX file or no tokenizer.

    Raises:
        ConfigurationError: the model has parts that cannot be run here.
        EmbedderError: a configuration file is damaged.
    """
    parts = _read_json(folder / "modules.json") or []
    inner = folder / _part_path(parts, "Transformer")
    names = [path.relative_to(folder).as_posix() for path in _onnx_files(folder)]
    onnx = choose_onnx(names)
    tokenizer = next((path for path in (inner / "tokenizer.json", folder / "tokenizer.json") if path.is_file()), None)
    if onnx is None or tokenizer is None:
        return None
    _refuse_unknown_parts(parts)
    limits = _read_json(inner / "sentence_bert_config.json") or {}
    return ModelFolder(
        onnx=folder / onnx,
        tokenizer=tokenizer,
        pooling=_pooling(_read_json(folder / _part_path(parts, "Pooling", "1_Pooling") / "config.json")),
        max_length=_max_length(limits, inner),
        lower_case=bool(limits.get("do_lower_case")),
    )


def has_weights(folder: Path) -> bool:
    """Whether the folder holds PyTorch weights that can be converted."""
    return (folder / WEIGHTS).is_file() and (folder / "config.json").is_file()


def choose_onnx(names: Sequence[str]) -> str | None:
    """The file to run on this CPU: a quantised one if there is one, else the plain one.

    The names are those that sentence-transformers, optimum and transformers.js write. A quantised file is about a
    quarter of the size and twice as fast, at a cosine of .99 to the plain one.
    """
    for stem in (*_preferred(platform.machine().lower()), "model"):
        for name in (f"onnx/{stem}.onnx", f"{stem}.onnx"):
            if name in names:
                return name
    return None


def _preferred(machine: str) -> Sequence[str]:
    general = ("model_int8", "model_quantized", "model_uint8")
    if machine in {"arm64", "aarch64"}:
        return ("model_qint8_arm64", *general)
    # The files for AVX-512 hold signed weights, which older CPUs run with saturated sums; the one for AVX2 is right
    # everywhere and as fast for a question's length.
    return ("model_quint8_avx2", *general)


def _onnx_files(folder: Path) -> list[Path]:
    return [*folder.glob("*.onnx"), *folder.glob("onnx/*.onnx")]


def _part_path(parts: Any, kind: str, otherwise: str = "") -> str:
    for part in parts:
        if _kind(part) == kind:
            return str(part.get("path", ""))
    return otherwise


def _kind(part: Any) -> str:
    return str(part.get("type", "")).rpartition(".")[2]


def _refuse_unknown_parts(parts: Any) -> None:
    for part in parts:
        if _kind(part) not in {"Transformer", "Pooling", "Normalize"}:
            raise ConfigurationError(
                "model",
                f"it has a part {_kind(part)!r} that only sentence-transformers runs: use SentenceTransformerEmbedder",
            )


def _pooling(config: Any) -> Pooling:
    if config is None:
        return "mean"  # What sentence-transformers does where nothing is said.
    mode = config.get("pooling_mode")
    if mode is None:
        active = [name for key, name in _LEGACY_POOLING.items() if config.get(key)]
        mode = active[0] if len(active) == 1 else active
    if mode not in ("mean", "cls"):
        raise ConfigurationError(
            "model", f"its pooling {mode!r} is not supported, only mean and cls are: use SentenceTransformerEmbedder"
        )
    return cast("Pooling", mode)


def _max_length(limits: Any, inner: Path) -> int:
    told = limits.get("max_seq_length")
    if isinstance(told, int):
        return told
    positions = (_read_json(inner / "config.json") or {}).get("max_position_embeddings", FALLBACK_LENGTH)
    tokens = (_read_json(inner / "tokenizer_config.json") or {}).get("model_max_length", FALLBACK_LENGTH)
    return int(min(positions, tokens))


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise EmbedderError(f"{path.name} of the embedding model is not JSON: fetch the model anew") from error
