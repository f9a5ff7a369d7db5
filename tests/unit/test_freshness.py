"""Rules of age and expiry."""

from hypothesis import given
from hypothesis import strategies as st

from aicache._freshness import age_of, is_expired, life_of
from aicache.testing import make_entry, make_key


def test_an_entry_without_expiry_never_expires() -> None:
    assert not is_expired(make_entry(expires=None), 1e18)


def test_an_entry_is_expired_from_the_moment_its_life_ends() -> None:
    entry = make_entry(expires=100.0)
    assert not is_expired(entry, 99.999)
    assert is_expired(entry, 100.0)
    assert is_expired(entry, 100.001)


def test_age_is_never_negative_when_the_writers_clock_was_ahead() -> None:
    assert age_of(make_entry(created=50.0), 40.0) == 0.0
    assert age_of(make_entry(created=50.0), 53.0) == 3.0


def test_no_ttl_means_no_limit() -> None:
    assert life_of(make_key("q"), None, 0.5) is None


def test_without_jitter_an_entry_lives_exactly_its_ttl() -> None:
    assert life_of(make_key("q"), 60.0, 0.0) == 60.0


@given(text=st.text(max_size=20), ttl=st.floats(1e-3, 1e9), jitter=st.floats(0, 1, exclude_max=True))
def test_jitter_only_shortens_and_never_by_more_than_its_share(text: str, ttl: float, jitter: float) -> None:
    life = life_of(make_key(text), ttl, jitter)
    assert life is not None
    assert ttl * (1 - jitter) * (1 - 1e-9) <= life <= ttl
    assert life > 0


def test_jitter_spreads_keys_that_are_written_together() -> None:
    lives = [life_of(make_key(str(number)), 100.0, 0.5) or 0.0 for number in range(200)]
    assert len(set(lives)) == 200
    assert min(lives) < 60.0
    assert max(lives) > 90.0


def test_the_jitter_of_a_key_is_the_same_every_time() -> None:
    assert life_of(make_key("q"), 100.0, 0.5) == life_of(make_key("q"), 100.0, 0.5)
