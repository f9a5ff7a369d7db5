"""Stored bytes on their way out of the process: compressed where that pays, encrypted where keys are given.

Layout. A body that needs neither is stored as it is: the codec's own bytes, whose first byte is its format, below 0xE0.

    first     u8       0xE0 + VERSION; 0xE0 to 0xEF are envelopes of some version
    kind      u8       0: clear, 1: Fernet
    key id    4 bytes  only with Fernet: which key
    content   clear: packed;  Fernet: the token's raw bytes, not its base64, which is a third longer, of bound | packed
    bound     u8 length | the bytes this envelope belongs to. Fernet has no associated data, so they are inside.
    packed    u8 method (0 none, 1 zlib, 2 zstd) | u32 length of the plain body | body

Compressed first, since ciphertext does not shrink. The size of an encrypted entry thus tells a little about its
content, as sizes always do. A clear envelope is not bound to anything: the codec's checksum covers the key. First byte,
kind and key id are not authenticated: with keys, nothing is served but what came out of a Fernet token.
"""

from __future__ import annotations

import base64
import binascii
import struct
import threading
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from aicache._errors import ConfigurationError, MissingExtraError, UnreadableEntryError, WrongKeyError

if TYPE_CHECKING:
    from cryptography.fernet import Fernet

__all__ = ["COMPRESS_ABOVE", "FIRST_ENVELOPE", "Envelope"]

VERSION: Final = 1

COMPRESS_ABOVE: Final = 1024
"""Bytes. Entries of 1.5 KB shrink to 0.65, of 4.6 KB to 0.53; zstd takes 11 us and 22 us for it (zlib 25 us and 57 us),
and 6 us and 11 us to undo it. Below, it saves less than 300 of the 3,000 to 5,000 bytes that an entry takes with its
vector and what a store adds. benchmarks/compression.py measures it."""

FIRST_ENVELOPE: Final = b"\xe0"
"""What begins with less than this has no envelope."""

MAX_BYTES: Final = 16 * 2**20
"""The largest plain body that is unpacked: sixteen times what the default policy stores."""

MAX_WINDOW_LOG: Final = 25
"""2 to this many bytes is what a zstd frame may ask for while it is expanded. Level 1 asks for half a megabyte."""

_ENVELOPES: Final = range(0xE0, 0xF0)
_FIRST: Final = 0xE0 + VERSION
_CLEAR: Final = 0
_FERNET: Final = 1
_IN_CLEAR: Final = bytes((_FIRST, _CLEAR))
_SEALED: Final = bytes((_FIRST, _FERNET))
_KEY_ID_BYTES: Final = 4
_PACKED: Final = struct.Struct("<BI")
_PLAIN: Final = 0
_ZLIB: Final = 1
_ZSTD: Final = 2


@dataclass(frozen=True, slots=True)
class _Method:
    """A way to compress; `expand` gets the length of the plain body and returns no more than that."""

    code: int
    compress: Callable[[bytes], bytes]
    expand: Callable[[bytes, int], bytes]
    error: type[Exception]


class Envelope:
    """Seals and opens stored bytes: what `aicache.Codec` does with them besides its format, with the same arguments.

    Args:
        encryption_keys: as of `Codec`.
        compress_above: as of `Codec`.
        accept_unencrypted: as of `Codec`.
        max_bytes: a body that would expand to more than this is not opened.
    """

    __slots__ = ("_accept_unencrypted", "_by_id", "_compress_above", "_max_bytes", "_method", "_methods", "_sealing_id")

    def __init__(
        self,
        encryption_keys: Sequence[str | bytes] | None = None,
        *,
        compress_above: int | None = COMPRESS_ABOVE,
        accept_unencrypted: bool = False,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        if compress_above is not None and not (type(compress_above) is int and compress_above >= 0):
            raise ConfigurationError("compress_above", f"give bytes, 0 or more, or None; got {compress_above!r}")
        if type(accept_unencrypted) is not bool:
            raise ConfigurationError("accept_unencrypted", "give True or False")
        if accept_unencrypted and encryption_keys is None:
            # Somebody who says this means to encrypt, and would not see that nothing is encrypted.
            raise ConfigurationError("accept_unencrypted", "has a meaning with encryption_keys only; none are given")
        self._by_id = _read_keys(encryption_keys) if encryption_keys is not None else None
        self._sealing_id = next(iter(self._by_id)) if self._by_id is not None else b""
        self._accept_unencrypted = accept_unencrypted
        self._compress_above = compress_above
        self._max_bytes = max_bytes
        self._methods = _methods()
        self._method = self._methods.get(_ZSTD, self._methods[_ZLIB])

    def seal(self, body: bytes, bound_to: bytes) -> bytes:
        """The bytes to store.

        Args:
            body: what the codec wrote.
            bound_to: at most 255 bytes that say what they belong to; not looked at without keys.
        """
        if self._by_id is not None:
            token = self._by_id[self._sealing_id].encrypt(bytes((len(bound_to),)) + bound_to + self._pack(body))
            return _SEALED + self._sealing_id + base64.urlsafe_b64decode(token)
        compressed = self._compressed(body)
        if compressed is not None:
            return _IN_CLEAR + compressed
        if body and body[0] not in _ENVELOPES:
            return body
        return _IN_CLEAR + _PACKED.pack(_PLAIN, len(body)) + body

    def open(self, stored: bytes, bound_to: bytes) -> bytes:
        """The body that was sealed for the same `bound_to`.

        Raises:
            WrongKeyError: it is encrypted with a key that is not ours.
            UnreadableEntryError: it is damaged, forged, of another format, of another entry, or too large.
        """
        # A damaged or foreign database may return any type from a column.
        if type(stored) is not bytes or not stored:
            raise UnreadableEntryError("The stored bytes are empty, or no bytes; the entry is ignored.")
        if stored[0] not in _ENVELOPES:
            return self._only_if_unencrypted_is_accepted(stored)
        if stored[0] != _FIRST or len(stored) < 2:
            raise UnreadableEntryError("The envelope is of another version; the entry is ignored.")
        if stored[1] == _CLEAR:
            return self._unpack(self._only_if_unencrypted_is_accepted(stored), 2)
        if stored[1] == _FERNET:
            return self._unpack(*self._decrypt(stored, bound_to))
        raise UnreadableEntryError("The envelope is of an unknown kind; the entry is ignored.")

    def _only_if_unencrypted_is_accepted(self, stored: bytes) -> bytes:
        if self._by_id is None or self._accept_unencrypted:
            return stored
        raise UnreadableEntryError("The entry is not encrypted although keys are set; it is ignored.")

    # -------------------------------------------------------------------------------------------- encryption

    def _decrypt(self, stored: bytes, bound_to: bytes) -> tuple[bytes, int]:
        """What is inside, and where in it the packed body begins."""
        start = 2 + _KEY_ID_BYTES
        fernet = None if self._by_id is None else self._by_id.get(stored[2:start])
        if fernet is None:
            raise WrongKeyError("The entry is encrypted with a key that is not among ours; it is ignored.")
        from cryptography.fernet import InvalidToken

        try:
            inside = fernet.decrypt(base64.urlsafe_b64encode(stored[start:]))
        except InvalidToken:
            raise UnreadableEntryError("The encrypted entry is damaged or forged; it is ignored.") from None
        belongs = bytes((len(bound_to),)) + bound_to
        if not inside.startswith(belongs):
            raise UnreadableEntryError("The encrypted entry belongs to another prompt or vector; it is ignored.")
        return inside, len(belongs)

    # ------------------------------------------------------------------------------------------- compression

    def _pack(self, body: bytes) -> bytes:
        return self._compressed(body) or _PACKED.pack(_PLAIN, len(body)) + body

    def _compressed(self, body: bytes) -> bytes | None:
        """The body packed and smaller, or None where that is not wanted or not to be had."""
        if self._compress_above is None or not self._compress_above < len(body) <= self._max_bytes:
            return None
        compressed = self._method.compress(body)
        if _PACKED.size + len(compressed) >= len(body):
            return None
        return _PACKED.pack(self._method.code, len(body)) + compressed

    def _unpack(self, inside: bytes, start: int) -> bytes:
        begin = start + _PACKED.size
        if len(inside) < begin:
            raise UnreadableEntryError("The envelope is cut short; the entry is ignored.")
        code, length = _PACKED.unpack_from(inside, start)
        body = inside[begin:]
        if code != _PLAIN:
            method = self._methods.get(code)
            if method is None:
                raise UnreadableEntryError("The entry is compressed in a way this process cannot undo; it is ignored.")
            if length > self._max_bytes:
                raise UnreadableEntryError("The entry would expand beyond the bound; it is ignored.")
            try:
                body = method.expand(body, length)
            except method.error:
                raise UnreadableEntryError("The compressed entry is damaged; it is ignored.") from None
        if len(body) != length:
            raise UnreadableEntryError("The entry has not the length it should have; it is ignored.")
        return body


def _read_keys(keys: Sequence[str | bytes]) -> dict[bytes, Fernet]:
    """Fernets by the id of their key: a hash's first bytes, which say nothing of the key."""
    # An empty list too: a setting that got lost must not switch encryption off unseen.
    if isinstance(keys, (str, bytes)) or not isinstance(keys, Sequence) or not keys:
        raise ConfigurationError("encryption_keys", "give a list of at least one Fernet key, or None")
    try:
        from cryptography.fernet import Fernet
    except ImportError:
        raise MissingExtraError("encryption at rest", "encryption") from None
    read: dict[bytes, Fernet] = {}
    for key in keys:
        try:
            raw = base64.urlsafe_b64decode(key)
            fernet = Fernet(key)
        except (ValueError, TypeError, binascii.Error):
            # Without its text and without its cause: either might show the key.
            raise ConfigurationError(
                "encryption_keys", "a key is not 32 bytes in url-safe base64; Fernet.generate_key() makes one"
            ) from None
        read.setdefault(sha256(b"aicache key id" + raw).digest()[:_KEY_ID_BYTES], fernet)
    return read


def _methods() -> Mapping[int, _Method]:
    """What this process can undo. zstd where Python has it (3.14) or `zstandard` is installed; zlib always."""
    methods = {_ZLIB: _Method(_ZLIB, lambda body: zlib.compress(body, 1), _expand_zlib, zlib.error)}
    with suppress(ImportError):
        methods[_ZSTD] = _stdlib_zstd()
    if _ZSTD not in methods:
        with suppress(ImportError):
            methods[_ZSTD] = _packaged_zstd()
    return MappingProxyType(methods)


def _expand_zlib(body: bytes, length: int) -> bytes:
    expander = zlib.decompressobj()
    # A limit of 0 would mean none.
    return expander.decompress(body, length + 1)


def _stdlib_zstd() -> _Method:
    from importlib import import_module

    zstd: Any = import_module("compression.zstd")  # The type checker looks at 3.11, which has no such module.
    options = {zstd.DecompressionParameter.window_log_max: MAX_WINDOW_LOG}

    def expand(body: bytes, length: int) -> bytes:
        expanded: bytes = zstd.ZstdDecompressor(options=options).decompress(body, length + 1)
        return expanded

    return _Method(_ZSTD, lambda body: zstd.compress(body, 1), expand, zstd.ZstdError)


def _packaged_zstd() -> _Method:
    import zstandard

    class Tools(threading.local):
        """One pair a thread: they may not be shared, and making them takes longer than using them."""

        def __init__(self) -> None:
            self.compressor = zstandard.ZstdCompressor(level=1)
            self.expander = zstandard.ZstdDecompressor(max_window_size=2**MAX_WINDOW_LOG)

    tools = Tools()

    def expand(body: bytes, length: int) -> bytes:
        # The expander allocates what the frame's own header says; what the envelope says is bounded already.
        if zstandard.get_frame_parameters(body).content_size != length:
            return b""
        return tools.expander.decompress(body)

    def compress(body: bytes) -> bytes:
        return tools.compressor.compress(body)

    return _Method(_ZSTD, compress, expand, zstandard.ZstdError)
