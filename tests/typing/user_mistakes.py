"""Mistakes a type checker must find; each marked line is an error, checked by test_typing.py, never run."""

from langchain_aicache import AICache

AICache("memory://", treshold=0.9)  # error
AICache("memory://", ttl="60")  # error
AICache(7)  # error
AICache("memory://", usage_on_hit="none")  # error
AICache("memory://").tagged(1)  # error
AICache("memory://", verifier="a/model")  # error
AICache("memory://", verifier=lambda asked, stored: 0.7)  # error
