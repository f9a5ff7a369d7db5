"""Verifiers: a second look at what the matcher would serve.

The names are imported when they are first used, for a cache without a verifier needs none of them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from aicache._model import Opinion
from aicache.verifiers.base import Verifier, VerifierLike

if TYPE_CHECKING:
    from aicache.verifiers.callables import CallableVerifier
    from aicache.verifiers.cross_encoder import CrossEncoderVerifier
    from aicache.verifiers.judge import JudgeVerifier

__all__ = [
    "CallableVerifier",
    "CrossEncoderVerifier",
    "JudgeVerifier",
    "Opinion",
    "Verifier",
    "VerifierLike",
]

_HOMES: Final = {
    "CallableVerifier": "callables",
    "CrossEncoderVerifier": "cross_encoder",
    "JudgeVerifier": "judge",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
