"""What an encrypted store shows to somebody who can read and write it, and what such a person can make it serve.

The thief of these tests uses the store's own code, so that all checksums are right, with a codec that copies bytes.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from aicache._codec import Codec
from aicache._errors import UnreadableEntryError, WrongKeyError
from aicache._model import CacheKey, Entry, Search, Vector
from aicache.stores.base import Store
from aicache.stores.sqlite import SqliteStore
from aicache.testing import make_entry, make_key, make_vector

pytestmark = pytest.mark.skipif(
    find_spec("cryptography") is None and not os.environ.get("CI"), reason="the extra `encryption` is not installed"
)

KEY, OLD_KEY = (base64.urlsafe_b64encode(bytes([number]) * 32) for number in (1, 2))
EAST, NORTH = make_vector(1, 0), make_vector(0, 1)
FUTURE = 4e9
QUESTION, ANSWER, TAG = "Whom does the merger concern?", "Initech, but tell nobody. ", "project-blue-harvest"


def secret_entry(question: str = QUESTION, vector: Vector | None = EAST) -> Entry:
    entry = make_entry(question, ANSWER, vector=vector, tags=[TAG], expires=FUTURE, created=1_000.0)
    return replace(entry, life=FUTURE - 1_000.0)


A, B = secret_entry(), secret_entry("Who signs?", NORTH)


class Place:
    """A store that may be opened with any codec, and all the bytes that it keeps."""

    def __init__(self, open_store: Callable[[Codec], Store], everything: Callable[[], bytes]) -> None:
        self._open_store = open_store
        self.everything = everything

    def store(self, codec: Codec) -> closing[Store]:
        return closing(self._open_store(codec))

    def write(self, codec: Codec, *entries: Entry) -> None:
        with self.store(codec) as store:
            for entry in entries:
                store.write(entry)

    def fetch(self, codec: Codec, key: CacheKey = A.key) -> Entry | None:
        with self.store(codec) as store:
            return store.fetch(key)


class Thief(Codec):
    """Somebody who can read and write the store and has no key: keeps the bytes seen last, and writes them again."""

    stolen = b""

    def encode(self, entry: Entry, *, beside: bytes = b"") -> bytes:
        return self.stolen

    def decode(
        self,
        key: CacheKey,
        stored: bytes,
        *,
        expires: float | None,
        vector: Vector | None = None,
        cluster: bytes | None = None,
        beside: bytes = b"",
    ) -> Entry:
        self.stolen = stored
        return A


def stolen_from(place: Place, key: CacheKey) -> Thief:
    thief = Thief()
    place.fetch(thief, key)
    assert thief.stolen
    return thief


@pytest.fixture
def sqlite_place(tmp_path: Path) -> Place:
    folder = tmp_path / "answers"
    return Place(
        lambda codec: SqliteStore(folder / "answers.db", codec=codec),
        lambda: b"".join(path.read_bytes() for path in sorted(folder.iterdir())),
    )


@pytest.fixture
def redis_place(redis_standalone: Any) -> Iterator[Place]:
    from redis_store_tools import PATIENT

    from aicache.stores.redis import RedisStore

    def everything() -> bytes:
        with redis_standalone.client(decode_responses=False) as client:
            return b"".join(b"".join(_all_of(client, name)) for name in client.scan_iter())

    redis_standalone.flush()
    yield Place(lambda codec: RedisStore(redis_standalone.url, codec=codec, **PATIENT), everything)
    redis_standalone.flush()


def _all_of(client: Any, name: bytes) -> Iterator[bytes]:
    """The name and the content of a Redis key. Not by DUMP, which compresses."""
    yield name
    match client.type(name):
        case b"string":
            yield client.get(name)
        case b"zset":
            yield from client.zrange(name, 0, -1)
        case b"set":
            yield from client.smembers(name)
        case b"hash":
            yield from (part for pair in client.hgetall(name).items() for part in pair)
        case b"vectorset":
            for element in client.execute_command("VRANDMEMBER", name, 1_000):
                yield element
                yield client.execute_command("VGETATTR", name, element) or b""
        case other:
            pytest.fail(f"teach this test to read a {other!r}")


@pytest.fixture(params=["sqlite", "redis"])
def place(request: pytest.FixtureRequest) -> Place:
    found: Place = request.getfixturevalue(f"{request.param}_place")
    return found


# --------------------------------------------------------------------------------------------------- reading


def test_without_keys_the_question_the_answer_and_the_tag_can_be_read(place: Place) -> None:
    place.write(Codec(compress_above=None), A)
    for text in (QUESTION, ANSWER, TAG):
        assert text.encode() in place.everything()


@pytest.mark.parametrize("length", [1, 200], ids=["short", "compressed"])
def test_with_keys_neither_the_question_nor_the_answer_nor_the_tag_can_be_read(place: Place, length: int) -> None:
    codec = Codec([KEY])
    entry = replace(A, answer=replace(A.answer, body=ANSWER.encode() * length))
    with place.store(codec) as store:
        store.write(entry)
        seen = place.everything()  # SQLite's log too, which is gone once the file is closed.
    seen += place.everything()
    assert len(seen) > len(entry.query)
    for text in (QUESTION, ANSWER, TAG, "Initech", "merger", "blue-harvest"):
        assert text.encode() not in seen
    assert place.fetch(codec) == entry


def test_with_keys_entries_are_found_by_key_by_meaning_and_by_tag(place: Place) -> None:
    from aicache._model import Selection

    place.write(Codec([KEY]), A, B)
    with place.store(Codec([KEY])) as store:
        assert store.fetch(A.key) == A
        assert [found.entry for found in store.nearest(Search(A.key.partition, "fake/2", EAST, 1))] == [A]
        assert store.clear(Selection(tags=(TAG,))) == 2
        assert store.fetch(A.key) is None


# ------------------------------------------------------------------------------------------------------ keys


@pytest.mark.parametrize("codec", [Codec(), Codec([OLD_KEY])] if find_spec("cryptography") else [], ids=repr)
def test_a_foreign_or_missing_key_is_a_wrong_key(place: Place, codec: Codec) -> None:
    place.write(Codec([KEY]), A)
    with pytest.raises(WrongKeyError):
        place.fetch(codec)
    with place.store(codec) as store, pytest.raises(WrongKeyError):
        store.nearest(Search(A.key.partition, "fake/2", EAST, 5))


def test_entries_of_a_foreign_key_are_left_out_where_others_can_be_read(place: Place) -> None:
    place.write(Codec([OLD_KEY]), A)
    place.write(Codec([KEY]), B)
    with place.store(Codec([KEY])) as store:
        assert [found.entry for found in store.nearest(Search(A.key.partition, "fake/2", EAST, 5))] == [B]


def test_after_a_rotation_old_entries_are_served_and_new_ones_have_the_new_key(place: Place) -> None:
    place.write(Codec([OLD_KEY]), A)
    rotated = Codec([KEY, OLD_KEY])
    assert place.fetch(rotated) == A
    place.write(rotated, B)
    assert place.fetch(Codec([KEY]), B.key) == B
    with pytest.raises(WrongKeyError):
        place.fetch(Codec([KEY]), A.key)


def test_an_entry_is_encrypted_anew_when_it_is_written_anew(place: Place) -> None:
    place.write(Codec([OLD_KEY]), A)
    place.write(Codec([KEY, OLD_KEY]), A)
    assert place.fetch(Codec([KEY])) == A


def test_entries_in_clear_are_served_with_keys_only_while_the_user_accepts_them(place: Place) -> None:
    place.write(Codec(), A)
    with pytest.raises(UnreadableEntryError, match="not encrypted"):
        place.fetch(Codec([KEY]))
    migrating = Codec([KEY], accept_unencrypted=True)
    assert place.fetch(migrating) == A
    place.write(migrating, A)
    assert QUESTION.encode() not in place.everything()
    assert place.fetch(Codec([KEY])) == A


# --------------------------------------------------------------------------------------------------- forging


def test_a_thief_can_put_back_what_was_there(place: Place) -> None:
    # Not prevented, and the proof that the refusals below are not an accident of these tests.
    place.write(Codec([KEY]), A)
    thief = stolen_from(place, A.key)
    with place.store(thief) as store:
        store.remove([A.key])
        store.write(A)
    assert place.fetch(Codec([KEY])) == A


def test_an_answer_moved_to_another_question_is_refused(place: Place) -> None:
    codec = Codec([KEY])
    place.write(codec, A, B)
    place.write(stolen_from(place, A.key), B)
    with pytest.raises(UnreadableEntryError):
        place.fetch(codec, B.key)
    with place.store(codec) as store:
        assert [found.entry for found in store.nearest(Search(B.key.partition, "fake/2", NORTH, 5))] == [A]


def test_an_entry_moved_to_another_partition_is_refused(place: Place) -> None:
    codec = Codec([KEY])
    place.write(codec, A)
    other = make_key(QUESTION, partition=replace(A.key.partition, id=bytes(reversed(A.key.partition.id))))
    place.write(stolen_from(place, A.key), replace(A, key=other))
    with pytest.raises(UnreadableEntryError):
        place.fetch(codec, other)
    with place.store(codec) as store:
        assert not store.nearest(Search(other.partition, "fake/2", EAST, 5))


def test_an_entry_with_another_vector_answers_nothing(place: Place) -> None:
    codec = Codec([KEY])
    place.write(codec, A)
    place.write(stolen_from(place, A.key), replace(A, vector=NORTH))
    with pytest.raises(UnreadableEntryError):
        place.fetch(codec)
    with place.store(codec) as store:
        assert not store.nearest(Search(A.key.partition, "fake/2", NORTH, 5))


def test_an_entry_that_was_given_a_vector_answers_nothing(place: Place) -> None:
    codec = Codec([KEY])
    bare = replace(A, vector=None, space=None)
    place.write(codec, bare)
    place.write(stolen_from(place, A.key), A)
    with place.store(codec) as store:
        assert not store.nearest(Search(A.key.partition, "fake/2", EAST, 5))


def test_an_entry_in_another_space_answers_nothing(place: Place) -> None:
    codec = Codec([KEY])
    place.write(codec, A)
    place.write(stolen_from(place, A.key), replace(A, space="other/2"))
    with place.store(codec) as store:
        assert not store.nearest(Search(A.key.partition, "other/2", EAST, 5))


def test_an_entry_of_limited_life_does_not_lose_its_end(place: Place) -> None:
    codec = Codec([KEY])
    place.write(codec, A)
    place.write(stolen_from(place, A.key), replace(A, expires=None))
    with pytest.raises(UnreadableEntryError):
        place.fetch(codec)


def test_the_age_of_an_entry_cannot_be_changed(place: Place) -> None:
    codec = Codec([KEY])
    place.write(codec, A)
    place.write(stolen_from(place, A.key), replace(A, created=2_000_000_000.0))
    try:
        found = place.fetch(codec)
    except UnreadableEntryError:
        return
    assert found is not None
    assert found.created == A.created


def test_an_entry_made_without_a_key_is_refused(place: Place) -> None:
    codec = Codec([KEY])
    place.write(codec, A)
    place.write(Codec(compress_above=0), replace(A, answer=replace(A.answer, body=b'{"text": "forged"}')))
    with pytest.raises(UnreadableEntryError, match="not encrypted"):
        place.fetch(codec)
    with place.store(codec) as store:
        assert not store.nearest(Search(A.key.partition, "fake/2", EAST, 5))
