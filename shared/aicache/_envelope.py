"""Stored bytes on their way out of the process: compressed where that pays, encrypted where keys are given.

Layout. A body that needs neither is stored as it is: the codec's own bytes, whose first byte is its format, below 0xE0.

    first     u8       0xE0 + VERSION; 0xE0 to 0xEF are envelopes of some version
    kind      u8       0: clear, 1: Fernet
    key id    4 bytes  only with Fernet: which key
    content   clear: packed;  Fernet: the token's raw bytes, not its base64, which is a third longer, of bound | packed
    bound     u8 length | the bytes this envelope belongs to. Fernet has no associated data, so they are inside.
    packed    u8 method (0 none, 1 zlib, 2 zstd) | u32 length of the plain body | body

Compressed first, since ciphertext does not shrink. The size of an encrypted entry thus tells a little about its
content, as sizes always do. A clear envelope is not bound to anything: the codec's checksum covers the key.
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

__all__ = ["COMPRESS_ABOVE", "Envelope"]

VERSION: Final = 1

COMPRESS_ABOVE: Final = 1024
"""Bytes. LangChain answers of 1 KB shrink to 0.65, of 4 KB to 0.54; zstd takes 7 us and 17 us for it (zlib 30 us and
55 us) and a third of that to undo it. Below, the saving is lost in what an entry costs besides."""

MAX_BYTES: Final = 16 * 2**20
"""The largest plain body that is unpacked: sixteen times what the default policy stores."""

MAX_WINDOW: Final = 2**25
"""Bytes a zstd frame may ask for while it is expanded. Level 1 asks for half a megabyte."""

_ENVELOPES: Final = range(0xE0, 0xF0)
_FIRST: Final = 0xE0 + VERSION
_CLEAR: Final = 0
_FERNET: Final = 1
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
    """Seals and opens stored bytes. Safe to use from any thread.

    With keys, only what was sealed with one of them is opened: whoever can write to the store but has no key can
    neither read nor forge entries, nor move one to another prompt.

    Args:
        keys: Fernet keys (32 bytes in url-safe base64, as `Fernet.generate_key()` makes them); the first one seals,
            all of them open. To rotate, put the new key first and drop the old one when its entries have expired.
            None for no encryption.
        compress_above: bodies longer than this many bytes are compressed; None for never.
        accept_clear: with keys, open entries that are not encrypted too. For the time of a migration: while it is on,
            entries can be forged.
        max_bytes: a body that would expand to more than this is not opened.

    Raises:
        ConfigurationError: an argument is wrong.
        MissingExtraError: keys are given and `cryptography` is not installed.
    """

    __slots__ = ("_accept_clear", "_by_id", "_compress_above", "_max_bytes", "_method", "_methods", "_sealing_id")

    def __init__(
        self,
        *,
        keys: Sequence[str | bytes] | None = None,
        compress_above: int | None = COMPRESS_ABOVE,
        accept_clear: bool = False,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        if compress_above is not None and compress_above < 0:
            raise ConfigurationError("compress_above", f"give bytes, 0 or more, or None; got {compress_above!r}")
        if max_bytes < 1:
            raise ConfigurationError("max_bytes", f"give bytes, at least 1; got {max_bytes!r}")
        self._by_id = _read_keys(keys) if keys is not None else None
        self._sealing_id = next(iter(self._by_id)) if self._by_id is not None else b""
        self._accept_clear = accept_clear
        self._compress_above = compress_above
        self._max_bytes = max_bytes
        self._methods = _methods()
        self._method = self._methods.get(_ZSTD, self._methods[_ZLIB])

    def seal(self, body: bytes, bound_to: bytes) -> bytes:
        """The bytes to store.

        Args:
            body: what the codec wrote.
            bound_to: at most 255 bytes that say what they belong to: the digest of the entry's key.
        """
        packed = self._pack(body)
        if self._by_id is None:
            if packed[0] == _PLAIN and body and body[0] not in _ENVELOPES:
                return body
            return bytes((_FIRST, _CLEAR)) + packed
        token = self._by_id[self._sealing_id].encrypt(bytes((len(bound_to),)) + bound_to + packed)
        return bytes((_FIRST, _FERNET)) + self._sealing_id + base64.urlsafe_b64decode(token)

    def open(self, stored: bytes, bound_to: bytes) -> bytes:
        """The body that was sealed for the same `bound_to`.

        Raises:
            WrongKeyError: it is encrypted with a key that is not ours.
            UnreadableEntryError: it is damaged, forged, of another format, of another entry, or too large.
        """
        if not stored or stored[0] not in _ENVELOPES:
            return self._only_if_clear_is_accepted(stored)
        if stored[0] != _FIRST or len(stored) < 2:
            raise UnreadableEntryError("The envelope is of another version; the entry is ignored.")
        if stored[1] == _CLEAR:
            return self._unpack(self._only_if_clear_is_accepted(stored)[2:])
        if stored[1] == _FERNET:
            return self._unpack(self._decrypt(stored, bound_to))
        raise UnreadableEntryError("The envelope is of an unknown kind; the entry is ignored.")

    def _only_if_clear_is_accepted(self, stored: bytes) -> bytes:
        if self._by_id is None or self._accept_clear:
            return stored
        raise UnreadableEntryError("The entry is not encrypted although keys are set; it is ignored.")

    # -------------------------------------------------------------------------------------------- encryption

    def _decrypt(self, stored: bytes, bound_to: bytes) -> bytes:
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
            raise UnreadableEntryError("The encrypted entry belongs to another prompt; it is ignored.")
        return inside[len(belongs) :]

    # ------------------------------------------------------------------------------------------- compression

    def _pack(self, body: bytes) -> bytes:
        if self._compress_above is not None and self._compress_above < len(body) <= self._max_bytes:
            compressed = self._method.compress(body)
            if len(compressed) < len(body):
                return _PACKED.pack(self._method.code, len(body)) + compressed
        return _PACKED.pack(_PLAIN, len(body)) + body

    def _unpack(self, packed: bytes) -> bytes:
        if len(packed) < _PACKED.size:
            raise UnreadableEntryError("The envelope is cut short; the entry is ignored.")
        code, length = _PACKED.unpack_from(packed)
        body = packed[_PACKED.size :]
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
    try:
        from cryptography.fernet import Fernet
    except ImportError:
        raise MissingExtraError("encryption at rest", "encryption") from None
    if isinstance(keys, (str, bytes)) or not keys:
        raise ConfigurationError("keys", "give a list of at least one Fernet key")
    read: dict[bytes, Fernet] = {}
    for key in keys:
        try:
            raw = base64.urlsafe_b64decode(key)
            fernet = Fernet(key)
        except (ValueError, TypeError, binascii.Error):
            # Without its text and without its cause: either might show the key.
            raise ConfigurationError(
                "keys", "a key is not 32 bytes in url-safe base64; Fernet.generate_key() makes one"
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

    def expand(body: bytes, length: int) -> bytes:
        expanded: bytes = zstd.ZstdDecompressor().decompress(body, length + 1)
        return expanded

    return _Method(_ZSTD, lambda body: zstd.compress(body, 1), expand, zstd.ZstdError)


def _packaged_zstd() -> _Method:
    import zstandard

    class Tools(threading.local):
        """One pair a thread: they may not be shared, and making them takes longer than using them."""

        def __init__(self) -> None:
            self.compressor = zstandard.ZstdCompressor(level=1)
            self.expander = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW)

    tools = Tools()

    def expand(body: bytes, length: int) -> bytes:
        # The size in a frame's own header would be believed before any limit.
        with tools.expander.stream_reader(body) as reader:
            return reader.read(length + 1)

    def compress(body: bytes) -> bytes:
        return tools.compressor.compress(body)

    return _Method(_ZSTD, compress, expand, zstandard.ZstdError)
