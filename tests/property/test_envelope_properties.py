"""Envelopes over any body and any bytes: what is sealed comes back, and nothing else is ever opened."""

import base64
import os
from importlib.util import find_spec

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from aicache._envelope import VERSION, Envelope
from aicache._errors import UnreadableEntryError

KEYS = [base64.urlsafe_b64encode(bytes([n]) * 32) for n in range(3)]
WITHOUT_ENCRYPTION = find_spec("cryptography") is None and not os.environ.get("CI")

needs_cryptography = pytest.mark.skipif(WITHOUT_ENCRYPTION, reason="the extra `encryption` is not installed")

bodies = st.one_of(
    st.binary(max_size=300),
    st.builds(lambda part, times: part * times, st.binary(min_size=1, max_size=30), st.integers(1, 300)),
)
digests = st.binary(min_size=32, max_size=32)
limits = st.sampled_from([None, 0, 64, 1024])
clear = st.builds(lambda above: Envelope(compress_above=above), limits)
encrypting = st.builds(
    lambda above, keys: Envelope(compress_above=above, encryption_keys=keys),
    limits,
    st.lists(st.sampled_from(KEYS), min_size=1, max_size=3),
)
envelopes = clear if WITHOUT_ENCRYPTION else st.one_of(clear, encrypting)
"""Made when drawn: without the extra the second kind could not be made."""


@st.composite
def mutated(draw: st.DrawFn, sealed: bytes) -> bytes:
    """The bytes with some changed, cut off, or put in."""
    at = draw(st.integers(0, len(sealed) - 1))
    match draw(st.sampled_from(["flip", "cut", "insert"])):
        case "flip":
            return sealed[:at] + bytes([sealed[at] ^ draw(st.integers(1, 255))]) + sealed[at + 1 :]
        case "cut":
            return sealed[:at]
        case _:
            return sealed[:at] + draw(st.binary(min_size=1, max_size=8)) + sealed[at:]


@settings(deadline=None)
@given(envelope=envelopes, body=bodies, digest=digests)
def test_what_is_sealed_comes_back(envelope: Envelope, body: bytes, digest: bytes) -> None:
    assert envelope.open(envelope.seal(body, digest), digest) == body


@settings(deadline=None)
@given(body=bodies, digest=digests, sealing=limits, opening=limits)
def test_the_limit_of_compression_may_differ_between_processes(
    body: bytes, digest: bytes, sealing: int | None, opening: int | None
) -> None:
    sealed = Envelope(compress_above=sealing).seal(body, digest)
    assert Envelope(compress_above=opening).open(sealed, digest) == body


@settings(deadline=None)
@given(envelope=envelopes, noise=st.binary(max_size=200), digest=digests, kind=st.integers(0, 3))
def test_random_bytes_are_unreadable_or_plain_and_raise_nothing_else(
    envelope: Envelope, noise: bytes, digest: bytes, kind: int
) -> None:
    for stored in (noise, bytes((0xE0 + VERSION, kind)) + noise):
        try:
            envelope.open(stored, digest)
        except UnreadableEntryError:
            continue


@settings(deadline=None)
@given(envelope=clear, body=bodies, digest=digests, choices=st.data())
def test_damage_to_a_clear_envelope_raises_nothing_else(
    envelope: Envelope, body: bytes, digest: bytes, choices: st.DataObject
) -> None:
    assume(body)
    stored = choices.draw(mutated(envelope.seal(body, digest)))
    try:
        envelope.open(stored, digest)
    except UnreadableEntryError:
        return


@needs_cryptography
@settings(deadline=None)
@given(body=bodies, digest=digests, choices=st.data())
def test_no_damaged_envelope_is_opened_with_a_key(body: bytes, digest: bytes, choices: st.DataObject) -> None:
    envelope = Envelope(encryption_keys=KEYS)
    sealed = envelope.seal(body, digest)
    stored = choices.draw(mutated(sealed))
    assume(stored != sealed)
    with pytest.raises(UnreadableEntryError):
        envelope.open(stored, digest)


@needs_cryptography
@settings(deadline=None)
@given(body=bodies, digest=digests, other=digests)
def test_no_envelope_is_opened_for_another_entry(body: bytes, digest: bytes, other: bytes) -> None:
    assume(digest != other)
    envelope = Envelope(encryption_keys=KEYS)
    with pytest.raises(UnreadableEntryError):
        envelope.open(envelope.seal(body, digest), other)


@needs_cryptography
@settings(deadline=None)
@given(noise=st.binary(max_size=200), digest=digests)
def test_nothing_that_was_not_sealed_is_opened_with_a_key(noise: bytes, digest: bytes) -> None:
    for stored in (noise, Envelope().seal(noise, digest)):
        with pytest.raises(UnreadableEntryError):
            Envelope(encryption_keys=KEYS).open(stored, digest)
