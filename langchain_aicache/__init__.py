"""aicache for LangChain: `set_llm_cache(AICache())`."""

from aicache._errors import MissingExtraError

try:
    import langchain_core  # noqa: F401 - only to name the extra when it is missing
except ImportError as error:
    raise MissingExtraError("langchain_aicache", "langchain") from error

from langchain_aicache.cache import AICache

__all__ = ["AICache"]
