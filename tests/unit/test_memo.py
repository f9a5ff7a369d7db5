"""Rules of the bounded memory of results."""

from hypothesis import given
from hypothesis import strategies as st

from aicache._memo import Memo


@given(st.integers(1, 8), st.lists(st.tuples(st.booleans(), st.integers(0, 30)), max_size=200))
def test_a_memo_is_bounded_and_never_wrong(size: int, calls: list[tuple[bool, int]]) -> None:
    memo: Memo[int, str] = Memo(size)
    for is_put, key in calls:
        if is_put:
            memo.put(key, str(key))
        else:
            assert memo.get(key) in {None, str(key)}
        assert len(memo) <= 2 * size


@given(st.integers(1, 8), st.lists(st.integers(0, 30), min_size=1, max_size=200))
def test_the_last_keys_used_are_remembered(size: int, keys: list[int]) -> None:
    memo: Memo[int, str] = Memo(size)
    for key in keys:
        if memo.get(key) is None:
            memo.put(key, str(key))
    recent = list(dict.fromkeys(reversed(keys)))[:size]
    assert [memo.get(key) for key in reversed(recent)] == [str(key) for key in reversed(recent)]


def test_a_cleared_memo_is_empty() -> None:
    memo: Memo[int, str] = Memo(2)
    memo.put(1, "one")
    memo.clear()
    assert memo.get(1) is None
    assert len(memo) == 0
