"""For every entry: it comes back equal. For all other bytes: a refusal, and never another exception."""

from __future__ import annotations

import struct
import sys
from dataclasses import replace
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aicache._codec import FORMAT, decode, encode
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
