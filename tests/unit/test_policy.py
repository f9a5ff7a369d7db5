"""Rules of the policy: a wrong value fails at construction, with the parameter's name."""

from typing import Any

import pytest

from aicache import ConfigurationError
from aicache._policy import CachePolicy


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("ttl", 0),
        ("ttl", -5),
        ("ttl", float("nan")),
        ("ttl", "60"),
        ("ttl", True),
        ("ttl_jitter", 1.0),
        ("ttl_jitter", -0.1),
        ("threshold", 0),
        ("threshold", 1.01),
        ("threshold", None),
        ("margin", 1),
        ("margin", -0.01),
        ("candidates", 0),
        ("candidates", 2.5),
        ("candidates", True),
        ("max_entry_bytes", 0),
    ],
)
def test_a_wrong_value_is_refused_by_name(parameter: str, value: object) -> None:
    wrong: dict[str, Any] = {parameter: value}
    with pytest.raises(ConfigurationError, match=rf"^{parameter}: ") as refusal:
        CachePolicy(**wrong)
    assert refusal.value.parameter == parameter


def test_the_bounds_themselves_are_allowed() -> None:
    policy = CachePolicy(ttl=1e-3, ttl_jitter=0, threshold=1, margin=0, candidates=1, max_entry_bytes=1)
    assert policy.threshold == 1
