"""Rules of age and expiry."""

from hypothesis import given
from hypothesis import strategies as st

from aicache._freshness import age_of, expiry, is_expired
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


def test_no_ttl_means_no_expiry() -> None:
    assert expiry(make_key("q"), 10.0, None, 0.5) is None


def test_without_jitter_an_entry_lives_exactly_its_ttl() -> None:
    assert expiry(make_key("q"), 10.0, 60.0, 0.0) == 70.0


@given(
    text=st.text(max_size=20),
    ttl=st.floats(1e-3, 1e9),
    jitter=st.floats(0, 1, exclude_max=True),
    now=st.floats(0, 2e9),
)
def test_jitter_only_shortens_and_never_by_more_than_its_share(
    text: str, ttl: float, jitter: float, now: float
) -> None:
    expires = expiry(make_key(text), now, ttl, jitter)
    assert expires is not None
    rounding = 1e-6 * (now + ttl)
    assert now + ttl * (1 - jitter) - rounding <= expires <= now + ttl + rounding


def test_jitter_spreads_keys_that_are_written_together() -> None:
    lives = {expiry(make_key(str(number)), 0.0, 100.0, 0.5) for number in range(200)}
    assert len(lives) == 200
    known = [life for life in lives if life is not None]
    assert min(known) < 60.0
    assert max(known) > 90.0


def test_the_jitter_of_a_key_is_the_same_every_time() -> None:
    assert expiry(make_key("q"), 0.0, 100.0, 0.5) == expiry(make_key("q"), 0.0, 100.0, 0.5)
