"""aicache: an answer cache for applications built on language models.

Use an adapter: `langchain_aicache.AICache`. This package is the core that they share; what it exports here is what
their users meet.
"""

from aicache._codec import Codec
from aicache._errors import (
    AICacheError,
    ConfigurationError,
    EmbedderError,
    MissingExtraError,
    QueryTooLongError,
    StoreError,
    VerifierError,
)
from aicache._explain import Explanation
from aicache._guards import DEFAULT_GUARDS, Conflict, Guard, Parsed
from aicache._health import Health, PartHealth, PartState
from aicache._invalidation import Invalidation, What
from aicache._model import Hit, Listed, Match, Miss, MissReason, Opinion, Outcome, Query, SkipReason, Turn
from aicache._scopes import bypass, refresh, scope, tagged
from aicache._stats import Percentiles, Stats
from aicache._version import __version__
from aicache.embedders.base import Embedder
from aicache.stores.base import Store
from aicache.verifiers.base import Verifier

__all__ = [
    "DEFAULT_GUARDS",
    "AICacheError",
    "Codec",
    "ConfigurationError",
    "Conflict",
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
    "Parsed",
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
]
