"""The rules of the codec: what an entry looks like as bytes, and what is refused when it is read."""

from __future__ import annotations

import base64
import os
import struct
from dataclasses import replace
from importlib.util import find_spec
from math import inf, nan
from zlib import crc32

import pytest

from aicache._codec import FORMAT, Codec, _bound_to, decode, encode
from aicache._envelope import Envelope
from aicache._errors import ConfigurationError, StoreError, UnreadableEntryError, WrongKeyError
from aicache._model import Answer, CacheKey, Entry, Partition, Usage

PARTITION = Partition(b"p" * 16, b"n" * 16, b"t" * 16, b"m" * 16)
KEY = CacheKey(PARTITION, bytes(range(32)))
ENTRY = Entry(
    key=KEY,
    query="What is the capital of France?",
    answer=Answer(b'["Paris"]', b"d" * 16, Usage(12, 3)),
    created=1_700_000_000.25,
    expires=1_700_003_600.0,
    space="minilm/384",
    vector=b"\x00\x00\x80\x3f",
    tags=("geo", "eu"),
    life=3_600.0,
)
SECRET, OLD_SECRET = (base64.urlsafe_b64encode(bytes([n]) * 32).decode() for n in (1, 2))
LONG = replace(ENTRY, answer=Answer(b'["' + b"Paris, as ever. " * 200 + b'"]', b"d" * 16))
PREFIX = 5
"""Bytes of version and checksum, which come before all that the checksum covers."""

needs_cryptography = pytest.mark.skipif(
    find_spec("cryptography") is None and not os.environ.get("CI"), reason="the extra `encryption` is not installed"
)


def resealed(content: bytes, key: CacheKey = KEY) -> bytes:
    """The content under a checksum that is right for it: what a faulty or foreign writer would leave."""
    seed = crc32(key.partition.id, crc32(key.digest, FORMAT))
    return struct.pack("<BI", FORMAT, crc32(content, seed)) + content


def changed_field(index: int, value: float) -> bytes:
    layout = struct.Struct("<ddqqBBHIII")
    content = encode(ENTRY)[PREFIX:]
    fields = list(layout.unpack_from(content))
    fields[index] = value
    return resealed(layout.pack(*fields) + content[layout.size :])


def test_an_entry_comes_back_equal_with_the_expiry_and_vector_of_the_store() -> None:
    assert decode(KEY, encode(ENTRY), expires=ENTRY.expires, vector=ENTRY.vector) == ENTRY


def test_expiry_and_vector_are_the_stores_and_not_in_the_bytes() -> None:
    assert encode(replace(ENTRY, expires=None, vector=None)) == encode(ENTRY)
    read = decode(KEY, encode(ENTRY), expires=None)
    assert (read.expires, read.vector) == (None, None)


def test_the_bytes_contain_neither_the_key_nor_the_tenant() -> None:
    written = encode(ENTRY)
    assert KEY.digest not in written
    assert all(part not in written for part in (PARTITION.id, PARTITION.namespace, PARTITION.tenant))


@pytest.mark.parametrize(
    "entry",
    [
        replace(ENTRY, query=""),
        replace(ENTRY, query="\ud83d half a pair, as json.loads makes it, and \x00"),
        replace(ENTRY, tags=()),
        replace(ENTRY, tags=("", "\ud83d", "a" * 65_535)),
        replace(ENTRY, space=None),
        replace(ENTRY, space=""),
        replace(ENTRY, answer=Answer(b"", b"")),
        replace(ENTRY, answer=Answer(bytes(range(256)) * 5_000, b"", Usage(0, 0))),
        replace(ENTRY, created=-1.5),
    ],
    ids=lambda entry: f"{len(entry.query)} {len(entry.tags)} {entry.space!r} {len(entry.answer.body)}",
)
def test_fields_at_their_limits_come_back_equal(entry: Entry) -> None:
    assert decode(KEY, encode(entry), expires=entry.expires, vector=entry.vector) == entry


@pytest.mark.parametrize(
    "entry",
    [
        replace(ENTRY, created=nan),
        replace(ENTRY, created=inf),
        replace(ENTRY, answer=Answer(b"{}", b"", Usage(-1, 0))),
        replace(ENTRY, answer=Answer(b"{}", b"", Usage(0, 2**63))),
        replace(ENTRY, answer=Answer(b"{}", b"x" * 256)),
        replace(ENTRY, space="s" * 65_536),
        replace(ENTRY, tags=("t" * 65_536,)),
    ],
    ids=["nan", "infinity", "negative tokens", "65-bit tokens", "long digest", "long space", "long tag"],
)
def test_an_entry_the_format_cannot_hold_is_refused_when_it_is_written(entry: Entry) -> None:
    with pytest.raises(StoreError, match="not written"):
        encode(entry)


@pytest.mark.parametrize(("version", "word"), [(FORMAT + 1, "newer"), (255, "newer"), (FORMAT - 1, "older")])
def test_another_format_is_refused_with_its_number_and_whether_it_is_newer(version: int, word: str) -> None:
    written = bytes([version]) + encode(ENTRY)[1:]
    with pytest.raises(UnreadableEntryError, match=rf"format {version}, {word} than the format {FORMAT}"):
        decode(KEY, written, expires=None)


def test_an_entry_under_another_key_is_refused() -> None:
    other = CacheKey(PARTITION, KEY.digest[:-1] + b"\x00")
    with pytest.raises(UnreadableEntryError, match="another key"):
        decode(other, encode(ENTRY), expires=None)


def test_an_entry_in_another_partition_is_refused() -> None:
    other = CacheKey(replace(PARTITION, id=b"q" * 16), KEY.digest)
    with pytest.raises(UnreadableEntryError, match="another key"):
        decode(other, encode(ENTRY), expires=None)


def test_every_single_changed_bit_is_found() -> None:
    written = encode(ENTRY)
    for position in range(len(written) * 8):
        damaged = bytearray(written)
        damaged[position // 8] ^= 1 << position % 8
        with pytest.raises(UnreadableEntryError):
            decode(KEY, bytes(damaged), expires=None)


def test_every_truncation_is_found() -> None:
    written = encode(ENTRY)
    for length in range(len(written)):
        with pytest.raises(UnreadableEntryError):
            decode(KEY, written[:length], expires=None)


@pytest.mark.parametrize("value", [None, "text", 7, 1.5, bytearray(encode(ENTRY)), memoryview(encode(ENTRY))])
def test_a_column_of_another_type_is_refused(value: object) -> None:
    with pytest.raises(UnreadableEntryError):
        decode(KEY, value, expires=None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("index", "value"),
    [
        (0, nan),
        (0, inf),
        (1, nan),
        (1, 0.0),
        (1, -1.0),
        (2, -1),
        (3, -1),
        (4, 4),
        (4, 255),
        (5, 15),
        (6, 11),
        (7, 8),
        (8, 0),
        (9, 2**32 - 1),
    ],
)
def test_fields_that_contradict_each_other_are_refused_although_the_checksum_is_right(index: int, value: float) -> None:
    with pytest.raises(UnreadableEntryError):
        decode(KEY, changed_field(index, value), expires=None)


def test_texts_that_are_not_utf8_are_refused_although_the_checksum_is_right() -> None:
    content = encode(ENTRY)[PREFIX:]
    for text in (b"minilm", b"geo", b"capital"):
        assert text in content
        with pytest.raises(UnreadableEntryError, match="UTF-8"):
            decode(KEY, resealed(content.replace(text, b"\xff" * len(text))), expires=None)


def test_a_tag_that_runs_past_its_place_is_refused_although_the_checksum_is_right() -> None:
    content = encode(ENTRY)[PREFIX:]
    for length in (b"\x02\x00eu", b"\x02"):
        assert length in content
    with pytest.raises(UnreadableEntryError):
        decode(KEY, resealed(content.replace(b"\x02\x00eu", b"\x03\x00eu")), expires=None)


def test_no_error_text_contains_what_was_stored() -> None:
    for damaged in (encode(ENTRY)[:-1], b"", changed_field(4, 255)):
        with pytest.raises(UnreadableEntryError) as caught:
            decode(KEY, damaged, expires=None)
        assert "France" not in str(caught.value)
        assert "Paris" not in str(caught.value)


def test_the_format_is_the_one_that_earlier_runs_wrote() -> None:
    # Bytes written by format 1. When this fails, the format has changed: raise FORMAT.
    written = bytes.fromhex(GOLDEN)
    assert encode(ENTRY) == written
    assert decode(KEY, written, expires=ENTRY.expires, vector=ENTRY.vector) == ENTRY


GOLDEN = (
    "016d694cfc00001040fc54d941000000000020ac400c00000000000000030000000000000003100a00090000001e0000"
    "0009000000646464646464646464646464646464646d696e696c6d2f333834030067656f020065755768617420697320"
    "746865206361706974616c206f66204672616e63653f5b225061726973225d"
)


# ------------------------------------------------------------------------------------ compressed and encrypted


def read(codec: Codec, stored: bytes, entry: Entry = ENTRY) -> Entry:
    return codec.decode(entry.key, stored, expires=entry.expires, vector=entry.vector)


def test_without_keys_a_short_entry_is_the_bare_format() -> None:
    assert Codec().encode(ENTRY) == encode(ENTRY)
    assert read(Codec(), encode(ENTRY)) == ENTRY


def test_a_long_entry_is_compressed_unless_switched_off_and_read_either_way() -> None:
    small, large = Codec().encode(LONG), Codec(compress_above=None).encode(LONG)
    assert len(small) < len(large) / 4
    assert large == encode(LONG)
    for codec in (Codec(), Codec(compress_above=None)):
        assert read(codec, small, LONG) == read(codec, large, LONG) == LONG


@needs_cryptography
@pytest.mark.parametrize("entry", [ENTRY, LONG, replace(ENTRY, vector=None), replace(ENTRY, expires=None, life=None)])
def test_an_encrypted_entry_comes_back_equal_and_shows_none_of_its_texts(entry: Entry) -> None:
    stored = Codec([SECRET]).encode(entry)
    assert read(Codec([SECRET]), stored, entry) == entry
    for text in (entry.query.encode(), entry.answer.body, b"geo", b"minilm", entry.key.digest, entry.key.partition.id):
        assert text not in stored


@needs_cryptography
def test_a_foreign_or_a_missing_key_is_a_wrong_key() -> None:
    stored = Codec([SECRET]).encode(ENTRY)
    for codec in (Codec([OLD_SECRET]), Codec()):
        with pytest.raises(WrongKeyError):
            read(codec, stored)


@needs_cryptography
def test_all_keys_decrypt_and_the_first_one_encrypts() -> None:
    rotated = Codec([SECRET, OLD_SECRET])
    assert read(rotated, Codec([OLD_SECRET]).encode(ENTRY)) == ENTRY
    assert read(Codec([SECRET]), rotated.encode(ENTRY)) == ENTRY
    with pytest.raises(WrongKeyError):
        read(Codec([OLD_SECRET]), rotated.encode(ENTRY))


@needs_cryptography
@pytest.mark.parametrize(
    ("key", "vector"),
    [
        (CacheKey(PARTITION, b"o" * 32), ENTRY.vector),
        (CacheKey(replace(PARTITION, id=b"o" * 16), KEY.digest), ENTRY.vector),
        (CacheKey(replace(PARTITION, id=PARTITION.id + KEY.digest[:1]), KEY.digest[1:]), ENTRY.vector),
        (KEY, b"\x00\x00\x80\xbf"),
        (KEY, b""),
        (KEY, None),
    ],
    ids=["key", "partition", "a byte from the key to the partition", "vector", "empty vector", "no vector"],
)
def test_with_keys_an_entry_moved_to_another_key_partition_or_vector_is_refused(
    key: CacheKey, vector: bytes | None
) -> None:
    codec = Codec([SECRET])
    with pytest.raises(UnreadableEntryError, match="another prompt or vector") as refused:
        codec.decode(key, codec.encode(ENTRY), expires=ENTRY.expires, vector=vector)
    assert not isinstance(refused.value, WrongKeyError)


@needs_cryptography
def test_with_keys_a_vector_cannot_be_given_to_an_entry_without_one() -> None:
    codec = Codec([SECRET])
    for vector in (b"", b"\x00\x00\x80\x3f"):
        with pytest.raises(UnreadableEntryError, match="another prompt or vector"):
            codec.decode(KEY, codec.encode(replace(ENTRY, vector=None)), expires=ENTRY.expires, vector=vector)


@needs_cryptography
def test_with_keys_what_a_store_keeps_beside_the_entry_cannot_be_changed() -> None:
    codec = Codec([SECRET])
    stored = codec.encode(ENTRY, beside=b"header")
    assert codec.decode(KEY, stored, expires=ENTRY.expires, vector=ENTRY.vector, beside=b"header") == ENTRY
    for beside, vector in ((b"Header", ENTRY.vector), (b"", ENTRY.vector), (b"head", b"er" + (ENTRY.vector or b""))):
        with pytest.raises(UnreadableEntryError, match="another prompt or vector"):
            codec.decode(KEY, stored, expires=ENTRY.expires, vector=vector, beside=beside)


@needs_cryptography
@pytest.mark.parametrize("expires", [None, inf, nan])
def test_with_keys_an_entry_of_limited_life_cannot_lose_its_expiry(expires: float | None) -> None:
    codec = Codec([SECRET])
    with pytest.raises(UnreadableEntryError, match="lost its expiry"):
        codec.decode(KEY, codec.encode(ENTRY), expires=expires, vector=ENTRY.vector)


@needs_cryptography
def test_with_keys_an_entry_in_clear_is_refused_unless_the_user_accepts_it() -> None:
    migrating = Codec([SECRET], accept_unencrypted=True)
    for entry in (ENTRY, LONG):
        stored = Codec().encode(entry)
        with pytest.raises(UnreadableEntryError, match="not encrypted"):
            read(Codec([SECRET]), stored, entry)
        assert read(migrating, stored, entry) == entry
        assert read(Codec([SECRET]), migrating.encode(entry), entry) == entry


@needs_cryptography
def test_an_older_or_newer_format_inside_an_envelope_is_refused() -> None:
    bound_to = _bound_to(KEY, ENTRY.vector, b"")
    for version in (FORMAT - 1, FORMAT + 1):
        stored = Envelope([SECRET]).seal(bytes([version]) + encode(ENTRY)[1:], bound_to)
        with pytest.raises(UnreadableEntryError, match=f"format {version}"):
            read(Codec([SECRET]), stored)


def test_an_envelope_of_another_version_is_refused() -> None:
    stored = Codec().encode(LONG)
    for first in range(0xE0, 0xF0):
        if first != stored[0]:
            with pytest.raises(UnreadableEntryError, match="another version"):
                read(Codec(), bytes([first]) + stored[1:], LONG)


@pytest.mark.parametrize("value", [None, "text", 7, 1.5, b"", bytearray(encode(ENTRY)), memoryview(encode(ENTRY))])
def test_the_codec_refuses_a_column_of_another_type(value: object) -> None:
    with pytest.raises(UnreadableEntryError):
        read(Codec(), value)  # type: ignore[arg-type]


def test_an_entry_the_format_cannot_hold_is_refused_by_the_codec() -> None:
    with pytest.raises(StoreError, match="not written"):
        Codec().encode(replace(ENTRY, created=nan))


@needs_cryptography
@pytest.mark.parametrize("keys", [[], "", SECRET, [SECRET[:-2]], [SECRET, ""], (key for key in [SECRET])])
def test_wrong_keys_are_refused_by_the_name_of_the_parameter(keys: object) -> None:
    with pytest.raises(ConfigurationError, match=r"^encryption_keys: ") as refused:
        Codec(keys)  # type: ignore[arg-type]
    assert SECRET[:-2] not in str(refused.value)


def test_the_codecs_repr_says_what_it_does() -> None:
    assert repr(Codec()) == "Codec(compress_above=1024, accept_unencrypted=False)"


@needs_cryptography
def test_the_codecs_repr_never_shows_a_key() -> None:
    assert repr(Codec([SECRET], compress_above=None)) == (
        "Codec(encryption_keys=[...], compress_above=None, accept_unencrypted=False)"
    )
