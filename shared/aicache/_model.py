"""The values everything else is written in: frozen, slotted, free of I/O.

No `repr` shows a prompt, an answer or a parameter: values end up in logs.

Hashes are raw SHA-256 bytes (cut to 16 bytes where they only name a group). A vector is `bytes`: float32,
little-endian, length 1, so that it compares, hashes and stores as it is and the core needs no numpy.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Self, TypeAlias

__all__ = [
    "L1",
    "Answer",
    "CacheKey",
    "Candidate",
    "Entry",
    "ExactOnly",
    "Hit",
    "Listed",
    "Match",
    "Miss",
    "MissReason",
    "NotStored",
    "Opinion",
    "Outcome",
    "Partition",
    "Prompt",
    "Query",
    "Search",
    "Selection",
    "SkipReason",
    "Space",
    "StoreSize",
    "Stored",
    "Turn",
    "Unkeyable",
    "UpdateOutcome",
    "Usage",
    "Vector",
]

Vector: TypeAlias = bytes
"""A unit vector: float32, little-endian; `len(vector) // 4` is its dimension."""

Space: TypeAlias = str
"""The vector space of an embedding: the embedder's fingerprint and the dimension, `"<fingerprint>/384"`.

Vectors are compared inside one space only, so a changed embedder can never mix with the old one."""

L1: Final = "l1"
"""The name of the in-process tier in front of a store."""

ENTRY_OVERHEAD: Final = 1_000
"""Bytes an entry costs in memory beyond its texts: objects, keys, table slots (benchmarks/bytes_per_entry.py)."""

_ID_BYTES: Final = 33
"""The first byte of the partition's id, which is all a store needs to know of it, and the digest."""


# --------------------------------------------------------------------------------------------- prompts


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a conversation, neutral to the framework it came from."""

    role: str
    """`system`, `human`, `ai`, `tool`, or what the framework calls it."""
    text: str | None = field(repr=False)
    """The text, when the content is text only; None when it is not (images, files, unknown blocks)."""
    extra: bytes = field(default=b"", repr=False)
    """Canonical bytes of all that matters besides role and text: content blocks, tool calls, names."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A question as an adapter hands it over: every part that can change the answer."""

    kind: str
    """`chat` or `text`; part of the key, for a plain text may look like a serialised conversation."""
    turns: tuple[Turn, ...]
    """The conversation, oldest first; a plain text is one turn."""
    model: bytes = field(repr=False)
    """Canonical bytes of the model, its parameters, tools and output schema."""
    template: bytes | None = field(default=None, repr=False)
    """Where the framework shows a template apart from its variables: canonical bytes of all but `query`."""
    query: str | None = field(default=None, repr=False)
    """With `template`: the variable that holds the question."""
    model_name: str | None = None
    """What the provider calls the model, `gpt-4o-2024-08-06`: part of `model` already, and given apart to select by."""


@dataclass(frozen=True, slots=True)
class Unkeyable:
    """A prompt for which no sound key exists; it bypasses the cache."""

    why: str


class ExactOnly(StrEnum):
    """Why a query is matched exactly and not by meaning."""

    NO_QUESTION = "no question found in a long or structured prompt"
    BAD_QUESTION = "the question extractor failed or named no single part of the last turn"
    NOT_HUMAN = "the last turn is not the user's"
    NOT_TEXT = "the last turn is not text only"
    TOO_LONG = "the question is longer than the embedder takes"
    UNKNOWN_WORDS = "the question has words that the embedder does not know"
    SWITCHED_OFF = "semantic matching is switched off"


@dataclass(frozen=True, slots=True)
class Query:
    """A prompt split in two: `text` may be matched by meaning, `frame` must be equal."""

    kind: str
    text: str = field(repr=False)
    """The text matched by meaning (and, for an exact match, equal)."""
    frame: bytes = field(repr=False)
    """Canonical bytes of all the rest of the conversation, with a hole where `text` stood."""
    model: bytes = field(repr=False)
    exact_only: ExactOnly | None = None
    model_name: str | None = None


# ------------------------------------------------------------------------------------------------ keys


@dataclass(frozen=True, slots=True)
class Partition:
    """Prompts whose answers may be exchanged: all is equal but the query's words.

    `id` is a hash over all the rest; the others only serve to select entries for `clear`.
    """

    id: bytes
    namespace: bytes
    tenant: bytes
    model: bytes
    model_name: bytes = b""
    """Hash of the model's name, which several models with different parameters may share; empty if it is not known."""


@dataclass(frozen=True, slots=True)
class CacheKey:
    """The identity of one exact prompt: SHA-256 over its partition and its query."""

    partition: Partition
    digest: bytes

    @property
    def id(self) -> str:
        """The public name of the entry: 44 letters and digits that say where any store keeps it, and nothing else."""
        return urlsafe_b64encode(self.partition.id[:1] + self.digest).decode()

    @classmethod
    def of_id(cls, text: str) -> Self:
        """The key that stands behind an id. Of the partition it has the first byte only: enough to remove the entry.

        Raises:
            ValueError: the text is no such id.
        """
        raw = urlsafe_b64decode(text.encode("ascii"))
        key = cls(Partition(raw[:1], b"", b"", b""), raw[1:])
        if len(raw) != _ID_BYTES or key.id != text:
            raise ValueError("this is no id of an entry")
        return key


@dataclass(frozen=True, slots=True)
class Selection:
    """The entries an operation is about: those that agree with every field that says something."""

    namespace: bytes | None = None
    tenant: bytes | None = None
    model: bytes | None = None
    model_name: bytes | None = None
    tags: tuple[str, ...] = ()
    """Entries that carry all of these."""
    written_before: float | None = None
    """Wall-clock seconds: entries whose `created` is less."""

    def covers(self, entry: Entry) -> bool:
        """Whether the entry is one of them."""
        partition = entry.key.partition
        return (
            self.namespace in {None, partition.namespace}
            and self.tenant in {None, partition.tenant}
            and self.model in {None, partition.model}
            and self.model_name in {None, partition.model_name}
            and set(self.tags).issubset(entry.tags)
            and (self.written_before is None or entry.created < self.written_before)
        )


@dataclass(frozen=True, slots=True)
class Search:
    """A question to a store: the `k` nearest of a partition, without those that were reported wrong for `asker`.

    What scores below `floor` may be left out, even the nearest, which says how near anything is, if it costs something
    to find it.
    """

    partition: Partition
    space: Space
    vector: Vector
    k: int
    asker: CacheKey | None = None
    floor: float = -1.0


# --------------------------------------------------------------------------------------------- entries


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens the model charged for when it gave the answer."""

    input_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model said, in the adapter's own encoding."""

    body: bytes = field(repr=False)
    """JSON written by the adapter that will read it; opaque to the core."""
    digest: bytes
    """Hash of the normalised text: equal for answers that say the same in the same words."""
    usage: Usage | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """An answer with the question it belongs to. Times are wall-clock seconds since the epoch."""

    key: CacheKey
    query: str = field(repr=False)
    answer: Answer
    created: float
    expires: float | None = None
    space: Space | None = None
    vector: Vector | None = field(default=None, repr=False)
    tags: tuple[str, ...] = ()
    life: float | None = None
    """Seconds from writing to expiry, and from a hit to expiry where the TTL slides; None for no limit."""
    cluster: bytes | None = None
    """16 bytes that the entries of a partition share whose answers say the same; None: nobody has compared it."""

    @property
    def id(self) -> str:
        """The public name of the entry, as `explain` and response metadata show it."""
        return self.key.id

    @property
    def weight(self) -> int:
        """Bytes the entry takes in memory, about."""
        return (
            ENTRY_OVERHEAD
            + len(self.query)
            + len(self.answer.body)
            + 2 * len(self.vector or b"")  # the index keeps one of its own
            + sum(len(tag) for tag in self.tags)
        )


@dataclass(frozen=True, slots=True)
class Candidate:
    """An entry near a query. `score` is the cosine, higher is closer, at most 1."""

    entry: Entry
    score: float
    cluster_size: int = 1
    """Entries that the store holds of its cluster, itself included; 1 if it has none."""


@dataclass(frozen=True, slots=True)
class Listed:
    """An entry as `similar` lists it: enough to show it to a person and to remove it."""

    key: CacheKey
    query: str = field(repr=False)
    score: float
    """The cosine of its vector and the one asked for."""
    created: float


@dataclass(frozen=True, slots=True)
class StoreSize:
    """What a store holds: number of entries and their bytes (as the store itself counts them)."""

    entries: int
    bytes: int


# -------------------------------------------------------------------------------------------- outcomes


class Match(StrEnum):
    """How an entry was found."""

    EXACT = "exact"
    SEMANTIC = "semantic"


@dataclass(frozen=True, slots=True)
class Opinion:
    """What a verifier says of two questions, with a word on why."""

    same: bool
    """True: the answer to one is the answer to the other."""
    said: str = ""
    """Why, for people: a score and its bar. It becomes a miss's detail: never put words of a prompt in it."""


class MissReason(StrEnum):
    """Why a lookup gave no answer. Every lookup that is not a hit has exactly one."""

    ABSENT = "absent"
    """Nothing stored for this prompt, nor anything near it."""
    EXPIRED = "expired"
    """Stored, but older than its TTL."""
    EXACT_ONLY = "exact_only"
    """Not stored, and this prompt is not matched by meaning; the detail says why."""
    NO_EMBEDDER = "no_embedder"
    """Not stored, and the cache has no embedder."""
    BELOW_THRESHOLD = "below_threshold"
    """The nearest entry is not near enough."""
    GUARDED = "guarded"
    """The nearest entry is near, but a guard saw a difference that matters; the detail names it."""
    AMBIGUOUS = "ambiguous"
    """An entry with another answer is nearly as near."""
    UNVERIFIED = "unverified"
    """An entry would have been served, but the verifier said no; the detail is what it said."""
    VERIFIER_FAILED = "verifier_failed"
    """An entry would have been served, but the verifier raised an error or gave no yes or no."""
    VERIFIER_SLOW = "verifier_slow"
    """An entry would have been served, but the verifier took longer than its deadline."""
    BYPASSED = "bypassed"
    """The application or the policy asked for no cache."""
    REFRESHING = "refreshing"
    """The application asked for a fresh answer."""
    UNKEYABLE = "unkeyable"
    """No sound key exists for this prompt; the detail says why."""
    UNREADABLE = "unreadable"
    """The stored bytes are damaged or of another format."""
    WRONG_KEY = "wrong_key"
    """The stored bytes are encrypted with a key this cache was not given."""
    STORE_FAILED = "store_failed"
    """The store raised an error."""
    EMBEDDER_FAILED = "embedder_failed"
    """The embedder raised an error or returned no usable vector."""
    EMBEDDER_SLOW = "embedder_slow"
    """The embedder took longer than its deadline."""
    LEARNING = "learning"
    """Too few answers have been compared yet to serve one within the error rate; this one's will be."""
    RISKY = "risky"
    """The nearest entry's answer is wrong with a probability that the error rate does not allow."""
    BUDGET = "budget"
    """As many answers may have been wrong already as the certified error rate allows."""
    AUDIT = "audit"
    """It might be served; drawn by chance for a fresh answer to compare with."""
    SHADOW = "shadow"
    """It would have been served, but the cache only watches; the detail says how it was found."""
    UNAVAILABLE = "unavailable"
    """The store, the embedder or the verifier failed several times and is left alone for a while; nothing was tried."""
    INTERNAL = "internal"
    """A fault in the cache itself; logged, never raised."""


@dataclass(frozen=True, slots=True)
class Hit:
    """An answer that may be served."""

    entry: Entry
    tier: str
    """`l1`, or the name of the store."""
    match: Match
    score: float
    """1.0 for an exact match, else the cosine."""
    age: float
    """Seconds since the answer was written, at least 0."""
    asker: CacheKey | None = None
    """The prompt that was matched by meaning; None for an exact hit, where it is the entry's own."""

    @property
    def id(self) -> str:
        """What `report` takes: the entry's id, and behind a dot that of the prompt that met it by meaning."""
        return self.entry.id if self.asker is None else f"{self.entry.id}.{self.asker.id}"


@dataclass(frozen=True, slots=True)
class Miss:
    """No answer: the application asks its model."""

    reason: MissReason
    detail: str = ""


Outcome: TypeAlias = Hit | Miss


class SkipReason(StrEnum):
    """Why an answer was not stored."""

    BYPASSED = "bypassed"
    UNKEYABLE = "unkeyable"
    EMPTY = "empty"
    TRUNCATED = "truncated"
    FAILED_ANSWER = "failed_answer"
    UNSERIALISABLE = "unserialisable"
    TOO_LARGE = "too_large"
    SHADOW = "shadow"
    """The cache only watches: it would have answered this prompt, and so would have written nothing."""
    EXPIRED = "expired"
    STORE_FAILED = "store_failed"
    """The store raised an error; the answer is kept and written when the store is back, within bounds."""
    UNAVAILABLE = "unavailable"
    """The store is left alone for a while; the answer is kept as after `STORE_FAILED`."""
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True)
class Stored:
    """The answer was written."""

    entry: Entry
    embedding: MissReason | None = None
    """None, or why the entry has no vector although one was wanted: it is matched exactly only."""


@dataclass(frozen=True, slots=True)
class NotStored:
    """The answer was not written."""

    reason: SkipReason
    detail: str = ""


UpdateOutcome: TypeAlias = Stored | NotStored

Extractor: TypeAlias = Callable[[Sequence[Turn]], str | None]
"""Finds the question in a conversation's last turn; None where there is none (exact matching only)."""
