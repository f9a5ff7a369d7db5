"""How the Redis store lays out its keys and its entries: names, and the bytes of a value.

Keys, where `aa` is the bucket: the first byte of the partition's id, in hex, and the hash tag that puts all keys of a
partition on one node of a cluster:

    aicache:{aa}:e:<digest>   an entry
    aicache:{aa}:v:<shelf>    a vector set: the vectors of one partition, space and dimension
    aicache:{aa}:s            the shelves there are, so that a sweep finds a vector without an entry
    aicache:{aa}:i            the index of the bucket: <digest><shelf> -> when it expires, and `g` -> the generation
    aicache:{aa}:g            the generation again, where a read finds it with one MGET
    aicache:{aa}:c:<hash>     a cluster of a partition and generation: <digest> -> until when the server keeps the entry
    aicache:{aa}:x:<digest>   the entries that are never to be near for the prompt of this digest
    aicache:{epoch}:all       changes that others must hear of, and the same of one program each
    aicache:{l:<log>}:l       a log of lessons: a stream whose ids are the positions
    aicache:{l:<log>}:s       the summary of the log: its position, a colon, and its bytes
    aicache:{l:<log>}:<token> how many lessons there were after one call of `append_lessons`, for a minute

A bucket and not a partition of its own, because each conversation is a partition: there may be as many of them as
entries, and `clear`, `sweep` and `size` must find them all without a scan of the whole server.

The generation ties entries to their index. Where Redis may evict any key, the index can go while its entries stay, and
a `clear` would not find them; the next change then begins a new generation, and entries of another one do not count.

Times in a value are the server's: programs whose clocks disagree still agree about ages and expiry. They come here as
they are to be kept, and `shift` says by how much the server is ahead of this host.
"""

from __future__ import annotations

import hashlib
import re
import struct
from dataclasses import dataclass, replace
from math import inf, isfinite
from typing import Final
from zlib import crc32

from aicache._codec import Codec
from aicache._errors import ConfigurationError, StoreError, UnreadableEntryError
from aicache._model import CacheKey, Entry, Partition, Selection, Space, Vector

__all__ = [
    "BUCKETS",
    "NO_SHELF",
    "OFFSETS",
    "Keys",
    "Parts",
    "cluster_field",
    "expiry_field",
    "is_clustered",
    "key_in",
    "name_of",
    "pack",
    "selecting",
    "unpack",
]

FORMAT: Final = 2
"""The version of the bytes before the codec's own, of an entry without a cluster."""
CLUSTERED: Final = 3
"""The version with the cluster behind the fixed fields. No other is read."""

BUCKETS: Final = tuple(f"{number:02x}" for number in range(256))
NO_SHELF: Final = "0" * 32
"""The shelf of an entry without a vector."""

# format | generation | expires | its checksum | created | namespace | tenant | model | model's name | partition |
# shelf | number of tags | vector bytes | checksum. Then 8 bytes for each tag, the vector, and what the codec wrote,
# which has a checksum of its own. Generation and expiry are changed in place, on the server, and are not part of the
# checksum at the end, nor is the cluster, which has one of its own. The partition's id is there for `similar`, which
# finds entries without knowing it.
_HEAD: Final = struct.Struct("<B8sdId16s16s16s16s16s32sHII")
_EXPIRY: Final = struct.Struct("<dI")
_CLUSTER: Final = struct.Struct("<16sI")
_CHECKSUM: Final = struct.Struct("<I")
_MOMENT: Final = struct.Struct("<d")
_CHECKED_FROM: Final = 21
_CHECKED_TO: Final = _HEAD.size - _CHECKSUM.size
_GROUP: Final = 16
_NO_NAME: Final = bytes(_GROUP)

OFFSETS: Final = {
    "FORMAT": str(FORMAT),
    "CLUSTERED": str(CLUSTERED),
    "HEAD": str(_HEAD.size),
    "LONG_HEAD": str(_HEAD.size + _CLUSTER.size),
    "CLUSTER": f"{_HEAD.size + 1}, {_HEAD.size + 16}",
    "GENERATION": "2, 9",
    "GENERATION_AT": "1",
    "EXPIRES": "10, 17",
    "EXPIRES_AT": "9",
    "AFTER_EXPIRY": "22",
    "CREATED": "22, 29",
    "NAMESPACE": "30, 45",
    "TENANT": "46, 61",
    "MODEL": "62, 77",
    "MODEL_NAME": "78, 93",
    "PARTITION": "94, 109",
    "SHELF": "110, 141",
    "TAGS": "142, 143",
    "VECTOR": "144, 147",
}
"""Where the scripts find the fields: Lua counts from 1 and includes the end."""

_TAG: Final = 8
_PREFIX: Final = re.compile(r"[A-Za-z0-9._:-]{1,64}")


@dataclass(frozen=True, slots=True)
class Keys:
    """The names of all keys under one prefix.

    Raises:
        ConfigurationError: the prefix has a character that would break a hash tag or a pattern.
    """

    prefix: str
    quantisation: str

    def __post_init__(self) -> None:
        if not _PREFIX.fullmatch(self.prefix):
            raise ConfigurationError("prefix", "give 1 to 64 letters, digits or the characters . _ : -")

    def base(self, bucket: str) -> str:
        """What all keys of the bucket begin with."""
        return f"{self.prefix}:{{{bucket}}}:"

    def index(self, bucket: str) -> str:
        """The index of the bucket."""
        return f"{self.base(bucket)}i"

    def generation(self, bucket: str) -> str:
        """The generation of the bucket."""
        return f"{self.base(bucket)}g"

    def entry(self, key: CacheKey) -> str:
        """The entry of this key."""
        return f"{self.base(self.bucket(key.partition))}e:{key.digest.hex()}"

    def blocked(self, bucket: str, asker: CacheKey) -> str:
        """The entries of this bucket that are never to be near for the asker."""
        return f"{self.base(bucket)}x:{name_of(asker)}"

    def shelves(self, bucket: str) -> str:
        """The names of the bucket's shelves."""
        return f"{self.base(bucket)}s"

    def vectors(self, bucket: str, shelf: str) -> str:
        """The vector set of the shelf."""
        return f"{self.base(bucket)}v:{shelf}"

    def epochs(self, author: str) -> tuple[str, str]:
        """The number of changes by anybody, and by this program."""
        return f"{self.prefix}:{{epoch}}:all", f"{self.prefix}:{{epoch}}:{author}"

    def log(self, log: bytes) -> str:
        """The lessons of this log."""
        return f"{self.prefix}:{{l:{log.hex()}}}:l"

    def summary(self, log: bytes) -> str:
        """The summary of this log."""
        return f"{self.prefix}:{{l:{log.hex()}}}:s"

    def appended(self, log: bytes, token: str) -> str:
        """What one call appended to this log."""
        return f"{self.prefix}:{{l:{log.hex()}}}:{token}"

    def bucket(self, partition: Partition) -> str:
        """The bucket of the partition."""
        return f"{partition.id[0]:02x}"

    def shelf(self, partition: Partition, space: Space, dimension: int) -> str:
        """The shelf of vectors that may be compared. Vectors of two quantisations cannot be in one set."""
        named = f"{self.quantisation}/{dimension}/{space}".encode("utf-8", "surrogatepass")
        return hashlib.sha256(partition.id + named).digest()[:16].hex()


@dataclass(frozen=True, slots=True)
class Parts:
    """The bytes of an entry: in a string one after the other, in a hash a field each."""

    head: bytes
    """The fixed fields, the cluster if there is one, and the tags."""
    vector: bytes
    content: bytes


def name_of(key: CacheKey) -> str:
    """The entry's name in indexes and vector sets."""
    return key.digest.hex()


def expiry_field(key: CacheKey, expires: float | None) -> bytes:
    """The part of a value that says when it expires, as `touch` puts it in place.

    Raises:
        StoreError: the time is not a finite number.
    """
    if expires is None:
        expires = inf
    elif not isfinite(expires):
        raise StoreError("The entry expires at a time that is no finite number; it was not written.")
    raw = _MOMENT.pack(expires)
    return raw + _CHECKSUM.pack(crc32(raw, crc32(key.digest)))


def cluster_field(key: CacheKey, cluster: bytes | None) -> bytes:
    """The part of a value that says its cluster, as `join` puts it in place; nothing for None.

    Raises:
        StoreError: the cluster has not 16 bytes.
    """
    if cluster is None:
        return b""
    if len(cluster) != _GROUP:
        raise StoreError("The cluster of the entry is not 16 bytes; it was not written.")
    return _CLUSTER.pack(cluster, crc32(cluster, crc32(key.digest)))


def is_clustered(value: object) -> bool:
    """Whether the value says its cluster."""
    return isinstance(value, bytes) and value[:1] == bytes((CLUSTERED,))


def selecting(selection: Selection, shift: float) -> tuple[bytes, ...]:
    """What the scripts look for in a head; an empty one selects all."""
    groups = (selection.namespace, selection.tenant, selection.model)
    before = selection.written_before
    return (
        *(b"" if group is None else _group_id(group) for group in groups),
        b"" if selection.model_name is None else _name_id(selection.model_name),
        b"" if before is None else _MOMENT.pack(before + shift),
        b"".join(map(_tag_id, selection.tags)),
    )


def pack(entry: Entry, shelf: str, codec: Codec, shift: float) -> Parts:
    """The bytes of the entry; the generation is filled in by the script that writes them.

    Raises:
        StoreError: a field exceeds the format.
    """
    key, vector = entry.key, entry.vector or b""
    partition = key.partition
    if len(entry.tags) > 0xFFFF:
        raise StoreError("The entry has more tags than the format holds; it was not written.")
    cluster = cluster_field(key, entry.cluster)
    head = _HEAD.pack(
        CLUSTERED if cluster else FORMAT,
        bytes(8),
        *_EXPIRY.unpack(expiry_field(key, None if entry.expires is None else entry.expires + shift)),
        entry.created + shift,
        _group_id(partition.namespace),
        _group_id(partition.tenant),
        _group_id(partition.model),
        _name_id(partition.model_name),
        partition.id,
        shelf.encode(),
        len(entry.tags),
        len(vector),
        0,
    )
    tags = b"".join(map(_tag_id, entry.tags))
    content = codec.encode(entry, beside=head[_CHECKED_FROM:_CHECKED_TO] + tags)
    checksum = _checksum(key, head, tags, vector)
    return Parts(head[:_CHECKED_TO] + _CHECKSUM.pack(checksum) + cluster + tags, vector, content)


def unpack(key: CacheKey, value: object, generation: object, codec: Codec, shift: float) -> Entry | None:
    """The entry whose parts `pack` made, joined; None if it belongs to no generation or to an earlier one.

    Raises:
        UnreadableEntryError: `value` is not an intact entry of this format and this key.
    """
    if not isinstance(value, bytes) or len(value) < _HEAD.size:
        raise UnreadableEntryError("The stored value is too short, or no bytes; the entry is ignored.")
    if not FORMAT <= value[0] <= CLUSTERED:
        order = "newer" if value[0] > CLUSTERED else "older"
        raise UnreadableEntryError(
            f"The value has format {value[0]}, {order} than the formats {FORMAT} and {CLUSTERED} read here; the entry "
            "is ignored."
        )
    _, written_in, expires, expires_checksum, created, *_, tags, vector_bytes, checksum = _HEAD.unpack_from(value)
    if written_in != generation:
        return None
    cluster = None if value[0] == FORMAT else _cluster(key, value)
    tags_start = _HEAD.size if cluster is None else _HEAD.size + _CLUSTER.size
    tags_end = tags_start + tags * _TAG
    vector_end = tags_end + vector_bytes
    tag_ids, vector = value[tags_start:tags_end], value[tags_end:vector_end]
    if (
        vector_end > len(value)
        or checksum != _checksum(key, value, tag_ids, vector)
        or expires_checksum != crc32(_MOMENT.pack(expires), crc32(key.digest))
    ):
        raise UnreadableEntryError("The stored value is damaged or of another key; the entry is ignored.")
    entry = codec.decode(
        key,
        value[vector_end:],
        expires=None if expires == inf else expires - shift,
        vector=Vector(vector) if vector_bytes else None,
        cluster=cluster,
        beside=value[_CHECKED_FROM:_CHECKED_TO] + tag_ids,
    )
    # What the codec kept is the time by the writer's clock.
    return entry if entry.created == created - shift else replace(entry, created=created - shift)


def _cluster(key: CacheKey, value: bytes) -> bytes:
    field = value[_HEAD.size : _HEAD.size + _CLUSTER.size]
    if field != cluster_field(key, field[:_GROUP].ljust(_GROUP)):
        raise UnreadableEntryError("The stored cluster is damaged or of another key; the entry is ignored.")
    return field[:_GROUP]


def key_in(head: object, name: object) -> CacheKey:
    """The key of the entry with this head and name. Not verified: `unpack` does that.

    Raises:
        UnreadableEntryError: these are no head and name.
    """
    try:
        if isinstance(head, bytes) and isinstance(name, bytes):
            *_, namespace, tenant, model, model_name, partition, _, _, _, _ = _HEAD.unpack_from(head)
            named = b"" if model_name == _NO_NAME else model_name
            return CacheKey(Partition(partition, namespace, tenant, model, named), bytes.fromhex(name.decode("ascii")))
    except (struct.error, ValueError):
        pass
    raise UnreadableEntryError("The stored head is damaged; the entry is ignored.")


def _group_id(value: bytes) -> bytes:
    """A namespace, tenant or model as 16 bytes, which those of the core are already."""
    return value if len(value) == _GROUP else hashlib.sha256(value).digest()[:_GROUP]


def _name_id(value: bytes) -> bytes:
    return _group_id(value) if value else _NO_NAME


def _tag_id(tag: str) -> bytes:
    """A tag as it stands in a header. Two tags with equal 64 bits would be cleared together: no harm in a cache."""
    return hashlib.sha256(tag.encode("utf-8", "surrogatepass")).digest()[:_TAG]


def _checksum(key: CacheKey, head: bytes, tags: bytes, vector: bytes) -> int:
    return crc32(vector, crc32(tags, crc32(head[_CHECKED_FROM:_CHECKED_TO], crc32(key.digest))))
