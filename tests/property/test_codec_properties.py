"""For every entry: it comes back equal. For all other bytes: a refusal, and never another exception."""

from __future__ import annotations

import base64
import os
import struct
import sys
from dataclasses import replace
from importlib.util import find_spec
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aicache._codec import FORMAT, Codec, decode, encode
from aicache._errors import UnreadableEntryError
from aicache._model import Answer, CacheKey, Entry, Partition, Usage

settings.register_profile("codec", deadline=None, max_examples=150)
PROFILE = settings.get_profile("codec")

texts = st.text(st.characters(exclude_categories=()), max_size=60)  # lone surrogates included
hashes = st.binary(min_size=16, max_size=16)
counts = st.integers(0, 2**63 - 1)
partitions = st.builds(Partition, hashes, hashes, hashes, hashes)
keys = st.builds(CacheKey, partitions, st.binary(min_size=32, max_size=32))
answers = st.builds(
    Answer,
    body=st.binary(max_size=300),
    digest=st.binary(max_size=32),
    usage=st.none() | st.builds(Usage, counts, counts),
)
entries = st.builds(
    Entry,
    key=keys,
    query=texts,
    answer=answers,
    created=st.floats(allow_nan=False, allow_infinity=False),
    expires=st.none() | st.floats(0, 1e12),
    space=st.none() | texts,
    vector=st.none() | st.binary(max_size=64),
    tags=st.lists(texts, max_size=4).map(tuple),
    life=st.none() | st.floats(0, 1e12, exclude_min=True, allow_infinity=False),
)

KEYS = [base64.urlsafe_b64encode(bytes([number]) * 32) for number in range(2)]
WITHOUT_ENCRYPTION = find_spec("cryptography") is None and not os.environ.get("CI")
needs_cryptography = pytest.mark.skipif(WITHOUT_ENCRYPTION, reason="the extra `encryption` is not installed")
codecs = st.builds(
    lambda keys, above: Codec(keys, compress_above=above),
    st.none() if WITHOUT_ENCRYPTION else st.none() | st.permutations(KEYS),
    st.none() | st.sampled_from([0, 100, 1024]),
)


def refused(key: CacheKey, stored: bytes) -> None:
    """Reads bytes that are no entry: UnreadableEntryError and nothing else, and no module is imported."""
    before = set(sys.modules)
    with pytest.raises(UnreadableEntryError) as caught:
        decode(key, stored, expires=None)
    assert type(caught.value) is UnreadableEntryError
    assert set(sys.modules) == before


@given(entries)
@settings(PROFILE)
def test_every_entry_comes_back_equal(entry: Entry) -> None:
    read = decode(entry.key, encode(entry), expires=entry.expires, vector=entry.vector)
    assert read == entry
    assert type(read.created) is float
    assert encode(read) == encode(entry)


@given(keys, st.binary(max_size=400))
@settings(PROFILE)
def test_random_bytes_are_refused(key: CacheKey, stored: bytes) -> None:
    refused(key, stored)
    refused(key, bytes([FORMAT]) + stored)


@given(entries, st.data())
@settings(PROFILE)
def test_an_entry_with_any_bytes_overwritten_is_refused(entry: Entry, data: st.DataObject) -> None:
    written = encode(entry)
    start = data.draw(st.integers(0, len(written) - 1))
    patch = data.draw(st.binary(min_size=1, max_size=min(12, len(written) - start)))
    damaged = written[:start] + patch + written[start + len(patch) :]
    if damaged != written:
        refused(entry.key, damaged)


@given(entries, st.data())
@settings(PROFILE)
def test_a_truncated_or_extended_entry_is_refused(entry: Entry, data: st.DataObject) -> None:
    written = encode(entry)
    refused(entry.key, written[: data.draw(st.integers(0, len(written) - 1))])
    refused(entry.key, written + data.draw(st.binary(min_size=1, max_size=20)))
    refused(entry.key, data.draw(st.binary(min_size=1, max_size=20)) + written)


@given(entries, keys)
@settings(PROFILE)
def test_an_entry_moved_under_another_key_is_refused(entry: Entry, other: CacheKey) -> None:
    written = encode(entry)
    moved = [
        other,
        CacheKey(entry.key.partition, other.digest),
        CacheKey(replace(entry.key.partition, id=other.partition.id), entry.key.digest),
    ]
    for key in moved:
        if (key.partition.id, key.digest) != (entry.key.partition.id, entry.key.digest):
            refused(key, written)


@given(keys, st.binary(max_size=200))
@settings(PROFILE)
def test_content_under_a_right_checksum_is_read_as_an_entry_or_refused(key: CacheKey, content: bytes) -> None:
    seed = crc32(key.partition.id, crc32(key.digest, FORMAT))
    stored = struct.pack("<BI", FORMAT, crc32(content, seed)) + content
    try:
        read = decode(key, stored, expires=None)
    except UnreadableEntryError:
        return
    assert decode(key, encode(read), expires=None) == read


@given(keys, st.tuples(*[st.integers(0, 40)] * 5), st.integers(0, 4), st.binary(max_size=120))
@settings(PROFILE)
def test_any_lengths_under_a_right_checksum_are_read_as_an_entry_or_refused(
    key: CacheKey, lengths: tuple[int, ...], flags: int, rest: bytes
) -> None:
    content = struct.pack("<ddqqBBHIII", 1.0, 60.0, 2, 3, flags, *lengths) + rest.ljust(sum(lengths), b"\0")
    seed = crc32(key.partition.id, crc32(key.digest, FORMAT))
    stored = struct.pack("<BI", FORMAT, crc32(content, seed)) + content
    try:
        read = decode(key, stored, expires=None)
    except UnreadableEntryError:
        return
    assert len(rest) <= sum(lengths)
    assert (len(read.answer.digest), len(read.answer.body)) == (lengths[0], lengths[4])


def with_an_end(entry: Entry) -> Entry:
    """The entry as a cache makes it: what has a limited life has an expiry."""
    return entry if entry.life is None or entry.expires is not None else replace(entry, expires=1.0)


@given(codecs, entries.map(with_an_end))
@settings(PROFILE)
def test_every_entry_comes_back_equal_compressed_and_encrypted(codec: Codec, entry: Entry) -> None:
    stored = codec.encode(entry)
    assert codec.decode(entry.key, stored, expires=entry.expires, vector=entry.vector) == entry


@needs_cryptography
@given(entries.map(with_an_end), keys, st.none() | st.binary(max_size=64))
@settings(PROFILE)
def test_an_encrypted_entry_is_opened_for_its_own_key_partition_and_vector_only(
    entry: Entry, other: CacheKey, vector: bytes | None
) -> None:
    codec = Codec(KEYS)
    stored = codec.encode(entry)
    partition = replace(entry.key.partition, id=other.partition.id)
    moves = [
        (other, entry.vector),
        (CacheKey(entry.key.partition, other.digest), entry.vector),
        (CacheKey(partition, entry.key.digest), entry.vector),
        (entry.key, vector),
    ]
    for key, given_vector in moves:
        same = (key.partition.id, key.digest, given_vector) == (
            entry.key.partition.id,
            entry.key.digest,
            entry.vector,
        )
        if not same:
            with pytest.raises(UnreadableEntryError):
                codec.decode(key, stored, expires=entry.expires, vector=given_vector)


@needs_cryptography
@given(entries, st.binary(max_size=300))
@settings(PROFILE)
def test_nothing_is_read_with_keys_that_was_written_without(entry: Entry, noise: bytes) -> None:
    forgeries = (noise, encode(entry), Codec(compress_above=0).encode(entry), Codec([KEYS[1]]).encode(entry))
    for stored in forgeries:
        with pytest.raises(UnreadableEntryError):
            Codec([KEYS[0]]).decode(entry.key, stored, expires=1.0, vector=entry.vector)


@given(codecs, keys, st.binary(max_size=300))
@settings(PROFILE)
def test_the_codec_reads_noise_or_refuses_it_and_raises_nothing_else(codec: Codec, key: CacheKey, noise: bytes) -> None:
    for start in (b"", b"\xe1\x00", b"\xe1\x00\x01", b"\xe1\x00\x02", b"\xe1\x01"):
        with pytest.raises(UnreadableEntryError):
            codec.decode(key, start + noise, expires=None)
