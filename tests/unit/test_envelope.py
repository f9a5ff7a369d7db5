"""Rules of stored bytes: what is compressed, what is encrypted, and what is not opened."""

import base64
import os
import struct
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import pytest

from aicache import ConfigurationError, MissingExtraError
from aicache._codec import FORMAT, decode, encode
from aicache._envelope import COMPRESS_ABOVE, VERSION, Envelope
from aicache._errors import UnreadableEntryError, WrongKeyError
from aicache.testing import make_entry

DIGEST, OTHER = b"d" * 32, b"o" * 32
KEY, OLD_KEY = (base64.urlsafe_b64encode(bytes([n]) * 32) for n in (1, 2))
LONG = b'{"text": "' + b"an answer that repeats itself, " * 100 + b'"}'
SHORT = b"\x01 an answer"

needs_cryptography = pytest.mark.skipif(
    find_spec("cryptography") is None and not os.environ.get("CI"), reason="the extra `encryption` is not installed"
)
needs_zstandard = pytest.mark.skipif(
    find_spec("zstandard") is None and not os.environ.get("CI"), reason="zstandard is not installed"
)


def test_a_short_body_without_keys_is_stored_as_it_is() -> None:
    assert Envelope().seal(SHORT, DIGEST) == SHORT


def test_a_body_above_the_limit_is_compressed() -> None:
    sealed = Envelope().seal(LONG, DIGEST)
    assert len(sealed) < len(LONG) / 4
    assert Envelope().open(sealed, DIGEST) == LONG


def test_a_body_at_the_limit_is_not_compressed() -> None:
    body = b"x" * COMPRESS_ABOVE
    assert Envelope().seal(body, DIGEST) == body
    assert len(Envelope().seal(body + b"x", DIGEST)) < COMPRESS_ABOVE


def test_a_body_that_does_not_shrink_is_stored_as_it_is() -> None:
    body = b"\x01" + os.urandom(5_000)
    assert Envelope().seal(body, DIGEST) == body


def test_compression_can_be_switched_off_and_what_was_compressed_is_still_read() -> None:
    never = Envelope(compress_above=None)
    assert never.seal(LONG, DIGEST) == LONG
    assert never.open(Envelope().seal(LONG, DIGEST), DIGEST) == LONG


def test_a_body_that_looks_like_an_envelope_survives() -> None:
    for first in range(0xE0, 0xF0):
        body = bytes([first]) + b"not an envelope"
        assert Envelope().open(Envelope().seal(body, DIGEST), DIGEST) == body


def test_the_codecs_bytes_never_look_like_an_envelope() -> None:
    assert FORMAT < 0xE0
    entry = make_entry()
    stored = encode(entry)
    assert decode(entry.key, Envelope().open(stored, entry.key.digest), expires=None) == entry


@pytest.mark.parametrize("first", [0xE0, 0xE0 + VERSION + 1, 0xEF])
def test_an_envelope_of_another_version_is_unreadable(first: int) -> None:
    with pytest.raises(UnreadableEntryError, match="another version"):
        Envelope().open(bytes([first]) + Envelope().seal(LONG, DIGEST)[1:], DIGEST)


def bomb(length: int, said: int) -> bytes:
    return bytes((0xE0 + VERSION, 0)) + struct.pack("<BI", 1, said) + zlib.compress(b"\0" * length)


def test_a_body_that_would_expand_beyond_the_bound_is_not_opened() -> None:
    envelope = Envelope(max_bytes=10_000)
    assert envelope.open(bomb(10_000, said=10_000), DIGEST) == b"\0" * 10_000
    with pytest.raises(UnreadableEntryError, match="bound"):
        envelope.open(bomb(10_001, said=10_001), DIGEST)


def test_a_body_that_expands_beyond_what_it_says_is_not_opened() -> None:
    with pytest.raises(UnreadableEntryError, match="length"):
        Envelope().open(bomb(10_000_000, said=100), DIGEST)


def test_expanding_stops_at_the_length_the_body_claims(tmp_path: Path) -> None:
    code = """
import resource
import sys
from aicache._envelope import Envelope
from aicache._errors import UnreadableEntryError
resource.setrlimit(resource.RLIMIT_AS, (200 * 2**20,) * 2)
try:
    Envelope().open(open(sys.argv[1], "rb").read(), b"d" * 32)
except UnreadableEntryError:
    print("refused")
"""
    path = tmp_path / "bomb"
    path.write_bytes(bomb(256 * 2**20, said=100))
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.strip() == "refused", done.stderr


@pytest.mark.parametrize("value", [None, "text", 7, 1.5, bytearray(SHORT), memoryview(SHORT), b""])
def test_a_column_of_another_type_is_unreadable(value: object) -> None:
    with pytest.raises(UnreadableEntryError, match="no bytes"):
        Envelope().open(value, DIGEST)  # type: ignore[arg-type]


@needs_zstandard
@pytest.mark.parametrize(("holds", "claims"), [(2**22, 100), (2**22, 2**20), (100, 2**20)])
def test_a_zstd_frame_of_another_length_than_the_envelope_says_is_unreadable(holds: int, claims: int) -> None:
    import zstandard

    frame = zstandard.ZstdCompressor().compress(b"\0" * holds)
    with pytest.raises(UnreadableEntryError, match="length"):
        Envelope().open(bytes((0xE0 + VERSION, 0)) + struct.pack("<BI", 2, claims) + frame, DIGEST)


@needs_zstandard
def test_a_zstd_frame_that_does_not_say_its_length_is_unreadable() -> None:
    import zstandard

    frame = zstandard.ZstdCompressor(write_content_size=False).compress(LONG)
    with pytest.raises(UnreadableEntryError, match="length"):
        Envelope().open(bytes((0xE0 + VERSION, 0)) + struct.pack("<BI", 2, len(LONG)) + frame, DIGEST)


@needs_zstandard
def test_zstd_is_used_where_it_is_installed_and_what_zlib_compressed_is_still_read() -> None:
    assert Envelope().seal(LONG, DIGEST)[2] == 2
    by_zlib = bytes((0xE0 + VERSION, 0)) + struct.pack("<BI", 1, len(LONG)) + zlib.compress(LONG)
    assert Envelope().open(by_zlib, DIGEST) == LONG


def test_threads_compress_at_the_same_time() -> None:
    envelope = Envelope(compress_above=0)
    bodies = [b"\x01" + bytes([number]) * 5_000 for number in range(64)]
    with ThreadPoolExecutor(8) as threads:
        sealed = list(threads.map(lambda body: envelope.seal(body, DIGEST), bodies))
        assert list(threads.map(lambda stored: envelope.open(stored, DIGEST), sealed)) == bodies
    assert len(set(sealed)) == len(bodies)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_opens_and_seals_what_its_parent_does() -> None:
    code = f"""
import os, sys
from aicache._envelope import Envelope
envelope = Envelope()
sealed = envelope.seal({LONG!r}, {DIGEST!r})
child = os.fork()
if not child:
    os._exit(envelope.open(sealed, {DIGEST!r}) != {LONG!r} or envelope.seal({LONG!r}, {DIGEST!r}) != sealed)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_an_unknown_compression_is_unreadable() -> None:
    with pytest.raises(UnreadableEntryError, match="cannot undo"):
        Envelope().open(bytes((0xE0 + VERSION, 0)) + struct.pack("<BI", 9, 4) + b"body", DIGEST)


# ----------------------------------------------------------------------------------------------- encryption


@needs_cryptography
@pytest.mark.parametrize("body", [b"", SHORT, LONG])
def test_encrypted_bytes_show_nothing_and_come_back(body: bytes) -> None:
    envelope = Envelope(encryption_keys=[KEY])
    sealed = envelope.seal(body, DIGEST)
    assert body not in sealed or not body
    assert DIGEST not in sealed
    assert envelope.open(sealed, DIGEST) == body


@needs_cryptography
def test_long_bodies_are_compressed_before_they_are_encrypted() -> None:
    assert len(Envelope(encryption_keys=[KEY]).seal(LONG, DIGEST)) < len(LONG) / 4


@needs_cryptography
def test_the_same_body_is_never_sealed_to_the_same_bytes() -> None:
    envelope = Envelope(encryption_keys=[KEY])
    assert envelope.seal(SHORT, DIGEST) != envelope.seal(SHORT, DIGEST)


@needs_cryptography
def test_without_the_key_an_encrypted_entry_is_a_wrong_key() -> None:
    sealed = Envelope(encryption_keys=[KEY]).seal(SHORT, DIGEST)
    for envelope in (Envelope(), Envelope(encryption_keys=[OLD_KEY])):
        with pytest.raises(WrongKeyError):
            envelope.open(sealed, DIGEST)


@needs_cryptography
def test_a_rotated_key_opens_old_entries_and_seals_new_ones_with_the_first() -> None:
    sealed_before = Envelope(encryption_keys=[OLD_KEY]).seal(SHORT, DIGEST)
    rotated = Envelope(encryption_keys=[KEY, OLD_KEY])
    assert rotated.open(sealed_before, DIGEST) == SHORT
    assert Envelope(encryption_keys=[KEY]).open(rotated.seal(SHORT, DIGEST), DIGEST) == SHORT


@needs_cryptography
def test_an_entry_moved_to_another_prompt_is_not_opened() -> None:
    envelope = Envelope(encryption_keys=[KEY])
    with pytest.raises(UnreadableEntryError, match="another prompt or vector"):
        envelope.open(envelope.seal(SHORT, DIGEST), OTHER)


@needs_cryptography
def test_what_it_is_bound_to_cannot_be_moved_into_the_body() -> None:
    envelope = Envelope(encryption_keys=[KEY], compress_above=None)
    with pytest.raises(UnreadableEntryError):
        envelope.open(envelope.seal(b"b", b"ab"), b"a")


@needs_cryptography
def test_with_keys_an_entry_in_clear_is_a_forgery() -> None:
    envelope = Envelope(encryption_keys=[KEY])
    for stored in (SHORT, Envelope().seal(LONG, DIGEST)):
        with pytest.raises(UnreadableEntryError, match="not encrypted"):
            envelope.open(stored, DIGEST)


@needs_cryptography
def test_entries_in_clear_are_read_with_keys_where_the_user_says_so() -> None:
    migrating = Envelope(encryption_keys=[KEY], accept_unencrypted=True)
    for body in (SHORT, LONG):
        assert migrating.open(Envelope().seal(body, DIGEST), DIGEST) == body


@needs_cryptography
@pytest.mark.parametrize(
    "keys",
    [[], "text", b"bytes", 7, {KEY}, ["short"], [b"not base64 at all!" * 3], [None], [7], [KEY, "short"]],
)
def test_wrong_keys_are_refused_and_not_shown(keys: object) -> None:
    with pytest.raises(ConfigurationError, match=r"^encryption_keys: ") as refused:
        Envelope(encryption_keys=keys)  # type: ignore[arg-type]
    assert KEY.decode() not in str(refused.value)
    assert "short" not in str(refused.value)
    assert refused.value.__context__ is None or refused.value.__suppress_context__


@needs_cryptography
def test_a_key_shows_in_no_text_form() -> None:
    envelope = Envelope(encryption_keys=[KEY])
    assert KEY.decode() not in f"{envelope!r} {envelope}"
    assert base64.urlsafe_b64decode(KEY)[:4] not in envelope.seal(SHORT, DIGEST)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("compress_above", -1),
        ("compress_above", True),
        ("compress_above", 1.5),
        ("compress_above", "1024"),
        ("accept_unencrypted", "no"),
        ("accept_unencrypted", True),
    ],
)
def test_a_wrong_option_is_refused_by_name(option: str, value: object) -> None:
    with pytest.raises(ConfigurationError, match=rf"^{option}: "):
        Envelope(**{option: value})  # type: ignore[arg-type]


HIDDEN = """
import importlib.abc, sys

class NotInstalled(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"cryptography", "zstandard"} or name == "compression.zstd":
            raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, NotInstalled())
from aicache._envelope import Envelope
"""


def run_without_extras(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", HIDDEN + code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_keys_without_the_extra_name_the_extra() -> None:
    code = f"""
try:
    Envelope(encryption_keys=[{KEY!r}])
except ImportError as error:
    print(type(error).__name__, error)
"""
    said = run_without_extras(code)
    assert said.startswith(MissingExtraError.__name__)
    assert "encryption at rest" in said
    assert "aicache[encryption]" in said


def test_without_zstd_it_compresses_with_zlib_and_every_process_reads_that() -> None:
    sealed = bytes.fromhex(run_without_extras(f"print(Envelope().seal({LONG!r}, {DIGEST!r}).hex())"))
    assert sealed[2] == 1
    assert Envelope().open(sealed, DIGEST) == LONG


def test_what_zstd_compressed_is_unreadable_without_zstd() -> None:
    sealed = bytes((0xE0 + VERSION, 0)) + struct.pack("<BI", 2, 4) + b"body"
    code = f"""
from aicache._errors import UnreadableEntryError
try:
    Envelope().open({sealed!r}, {DIGEST!r})
except UnreadableEntryError as error:
    print(error)
"""
    assert "cannot undo" in run_without_extras(code)
