"""aicache for LlamaIndex: `AICache().install()`."""

from aicache._errors import MissingExtraError

try:
    import llama_index.core  # noqa: F401 - only to name the extra when it is missing
except ImportError as error:
    raise MissingExtraError("llamaindex_aicache", "llamaindex") from error

from llamaindex_aicache._kvstore import AICacheKVStore
from llamaindex_aicache.cache import AICache

__all__ = ["AICache", "AICacheKVStore"]
