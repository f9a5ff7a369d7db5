"""Taking answers back: which entries a call means, and the plans that remove, count or report them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, TypedDict

from aicache._errors import AICacheError, ConfigurationError, EmbedderError, StoreError
from aicache._key import model_hash, model_name_hash, namespace_hash, tenant_hash
from aicache._model import CacheKey, Listed, MissReason, Selection
from aicache._policy import is_number
from aicache._scopes import source_tag
from aicache._steps import Block, Clear, Embed, Forget, Plan, Remove, Similar, StepFailed
from aicache._tenancy import NoTenantError, Tenant, current_tenant

__all__ = ["Invalidation", "Reported", "Wanted", "What", "invalidate", "read_report", "read_what", "report", "trouble"]

REMOVED_AT_ONCE: Final = 500
"""Keys in one removal: a few milliseconds of any store."""


class What(TypedDict, total=False):
    """Which entries are meant: those that agree with all that is given, of this cache's namespace and tenant."""

    tag: str | Sequence[str]
    """They carry this tag, or all of these."""
    source: str
    """They were written in a block with this source document (`scope(sources=...)`)."""
    model: str
    """What the provider calls the model, `gpt-4o-2024-08-06`: with whatever parameters, tools and schemas."""
    older_than: float
    """They were written more than so many seconds ago."""
    like: str
    """Their questions are near this text, in whatever conversation they were asked."""
    min_score: float
    """With `like`: the least cosine, in [-1, 1]."""
    entry_id: str
    """This one entry, as response metadata and `explain` name it; nothing else may be given with it."""
    tenant: str
    """Whose; by default the cache's own tenant, a callable one being asked now."""
    all_tenants: bool
    """True: everybody's."""
    namespace: str
    """In place of the cache's own: that of an earlier version of the application, say."""


@dataclass(frozen=True, slots=True)
class Invalidation:
    """What an invalidation removed, or, in a dry run, would remove."""

    count: int
    """Entries in the store; with `like` also those on their way to it. What L1 holds goes too and is not counted."""
    entries: tuple[Listed, ...] = ()
    """With `like`: the entries, nearest first. Shows questions: meant for people, not for logs."""
    dry_run: bool = False

    def __str__(self) -> str:
        verb = "would be removed" if self.dry_run else "removed"
        lines = [f"{self.count} {'entry' if self.count == 1 else 'entries'} {verb}"]
        lines += [f"  {entry.score:.4f}  {entry.key.id}  {entry.query!r}" for entry in self.entries]
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Wanted:
    """The same as `What`, read and hashed."""

    selection: Selection
    key: CacheKey | None = None
    like: str | None = None
    min_score: float = 1.0


@dataclass(frozen=True, slots=True)
class Reported:
    """A hit that somebody judged: the entry, and who asked if it was found by meaning."""

    entry: CacheKey
    asker: CacheKey | None


# ------------------------------------------------------------------------------------------------ reading


def read_what(what: What, described: bytes | None, *, namespace: str, tenant: Tenant, now: float) -> Wanted:
    """The entries meant by a call.

    Args:
        what: as the user said it.
        described: the canonical bytes of a model, as an adapter makes them; None for any model.
        namespace, tenant: the cache's own.
        now: wall-clock seconds.

    Raises:
        ConfigurationError: an argument is wrong, or the tenant callable does not know whose entries are meant.
    """
    _refuse_unknown(what)
    if "entry_id" in what:
        if len(what) > 1 or described is not None:
            raise ConfigurationError("entry_id", "name one entry, or describe several; not both")
        return Wanted(Selection(), key=read_report(what["entry_id"]).entry)
    like, min_score = _read_like(what)
    tags = what.get("tag", ())
    tags = (tags,) if isinstance(tags, str) else tuple(tags)
    if "source" in what:
        tags += (source_tag(what["source"]),)
    owner = _read_tenant(what, tenant)
    selection = Selection(
        namespace=namespace_hash(what.get("namespace", namespace)),
        tenant=None if owner is None else tenant_hash(owner),
        model=None if described is None else model_hash(described),
        model_name=model_name_hash(what["model"]) if "model" in what else None,
        tags=tags,
        written_before=now - what["older_than"] if "older_than" in what else None,
    )
    return Wanted(selection, like=like, min_score=min_score)


def read_report(hit_id: str) -> Reported:
    """The entry and the asker behind the id of a hit.

    Raises:
        ConfigurationError: it is no such id.
    """
    try:
        entry, _, asker = hit_id.partition(".")
        return Reported(CacheKey.of_id(entry), CacheKey.of_id(asker) if asker else None)
    except (ValueError, AttributeError, TypeError):
        raise ConfigurationError(
            "entry_id", 'give the id that a hit carries in response_metadata["aicache"], or one that explain() shows'
        ) from None


_TEXTS: Final = frozenset({"source", "model", "like", "entry_id", "tenant", "namespace"})


def _refuse_unknown(what: What) -> None:
    given: dict[str, Any] = dict(what)
    for name, value in given.items():
        if name not in What.__annotations__:
            raise ConfigurationError(name, f"there is no such argument; there are: {', '.join(What.__annotations__)}")
        if name in _TEXTS and not isinstance(value, str):
            raise ConfigurationError(name, f"give a text; got {type(value).__name__}")
        if name == "tag" and not (_items(value) and all(isinstance(tag, str) and tag for tag in _items(value))):
            # None at all would select everything: not what somebody means whose list of tags turned out empty.
            raise ConfigurationError(name, "give a text or several, none of them empty")
        if name == "all_tenants" and not isinstance(value, bool):
            raise ConfigurationError(name, f"give True or False; got {type(value).__name__}")
        if name == "older_than" and not (is_number(value) and value >= 0):
            raise ConfigurationError(name, "give seconds, 0 or more")


def _items(value: object) -> Sequence[object]:
    return value if isinstance(value, list | tuple) else (value,)


def _read_like(what: What) -> tuple[str | None, float]:
    if ("like" in what) != ("min_score" in what):
        raise ConfigurationError(
            "min_score", "it belongs to `like`: give both; a dry run shows the scores of what would go"
        )
    score = what.get("min_score", 1.0)
    if not (is_number(score) and -1 <= score <= 1):
        raise ConfigurationError("min_score", f"give a cosine between -1 and 1; got {score!r}")
    return what.get("like"), score


def _read_tenant(what: What, own: Tenant) -> str | None:
    if what.get("all_tenants"):
        if "tenant" in what:
            raise ConfigurationError("all_tenants", "name a tenant or say all_tenants=True; not both")
        return None
    if "tenant" in what:
        return what["tenant"]
    try:
        return current_tenant(own)
    except NoTenantError as error:
        raise ConfigurationError("tenant", f"{error}: name the tenant, or say all_tenants=True") from error


# -------------------------------------------------------------------------------------------------- plans


def invalidate(wanted: Wanted, *, dry_run: bool) -> Plan[Invalidation | StepFailed]:
    """Remove what is meant from all tiers, or say what would go."""
    try:
        if wanted.like is not None:
            return (yield from _by_meaning(wanted, wanted.like, dry_run=dry_run))
        if wanted.key is not None:
            return Invalidation((yield from Remove((wanted.key,), dry_run)), dry_run=dry_run)
        return Invalidation((yield from Clear(wanted.selection, dry_run)), dry_run=dry_run)
    except StepFailed as failed:
        return failed


def _by_meaning(wanted: Wanted, like: str, *, dry_run: bool) -> Plan[Invalidation]:
    embedded = yield from Embed(like)
    listed = tuple((yield from Similar(wanted.selection, embedded.space, embedded.vector, wanted.min_score)))
    if dry_run:
        return Invalidation(len(listed), listed, dry_run=True)
    # L1 keeps no vectors: an entry that is there only, since the store has evicted it, could not be told apart.
    yield from Forget(wanted.selection)
    keys = iter([entry.key for entry in listed])
    for some in _batches(keys):
        yield from Remove(some)
    # Those counted that waited to be written, as in a dry run; they never were in the store.
    return Invalidation(len(listed), listed)


def _batches(keys: Iterator[CacheKey]) -> Iterator[tuple[CacheKey, ...]]:
    while some := tuple(islice(keys, REMOVED_AT_ONCE)):
        yield some


def report(reported: Reported) -> Plan[int | StepFailed]:
    """Take back a hit that was wrong: the pair is never matched again, and the entry is gone. How many were there.

    The pair first: if the second part fails, the entry that stays does no more harm to this question.
    """
    unblocked: StepFailed | None = None
    try:
        if reported.asker is not None:
            try:
                yield from Block(reported.asker, reported.entry)
            except StepFailed as failed:
                # The entry leaves this process's memory all the same.
                unblocked = failed
        removed = yield from Remove((reported.entry,))
    except StepFailed as failed:
        return failed
    return removed if unblocked is None else unblocked


def trouble(failed: StepFailed, what: str) -> AICacheError:
    """The failure of a plan as an error for the one who called it."""
    if failed.reason in {MissReason.EMBEDDER_FAILED, MissReason.EMBEDDER_SLOW, MissReason.EXACT_ONLY}:
        return EmbedderError(f"{what}, for the text has no vector ({failed.detail}): mend the embedder and try again")
    return StoreError(f"{what} ({failed.detail}): mend the store and try again")
