"""Rules of the exceptions."""

import pickle

import pytest

from aicache import AICacheError, ConfigurationError, MissingExtraError
from aicache import _errors as errors

MADE = [
    ConfigurationError("ttl", "give seconds above 0"),
    MissingExtraError("learning", "onnx"),
    *(
        getattr(errors, name)("said")
        for name in errors.__all__
        if name not in {"CONTROL", "ConfigurationError", "MissingExtraError", "UnavailableError"}
    ),
]


@pytest.mark.parametrize("error", MADE, ids=lambda error: type(error).__name__)
def test_an_exception_survives_the_way_home_from_another_process(error: AICacheError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)
