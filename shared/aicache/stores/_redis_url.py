"""The URL of a Redis, read once and without I/O; what it says of credentials stays in it.

    redis://[[user]:password@]host[:port][/db][?option=value]     rediss:// with TLS
    unix:///path/to/socket[?db=0]
    redis+cluster://[[user]:password@]host:port[,host:port]       rediss+cluster:// with TLS
    redis+sentinel://[[user]:password@]host:port[,host:port]/service[?db=0]

User, password and options are those of the Redis servers; the Sentinels' own are `sentinel_username` and
`sentinel_password`. Options are redis-py's: `ssl_ca_certs`, `socket_keepalive`, ...
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from redis import connection

from aicache._errors import ConfigurationError

__all__ = ["Address", "Topology", "read_url"]

_FORMS: Final = "give redis://host:port/db, rediss://, unix:///path, redis+cluster://host:port or redis+sentinel://host:port/service"
_parse_url: Callable[[str], dict[str, Any]] = connection.parse_url
_PORT: Final = 6379
_NOT_OF_CLUSTERS: Final = frozenset({"retry_on_timeout", "timeout"})
"""Options that redis-py reads from a URL, and that its async client of a cluster refuses at the first use."""
_SENTINEL_PORT: Final = 26379


class Topology(Enum):
    """How the servers behind a URL are found."""

    SINGLE = auto()
    CLUSTER = auto()
    SENTINEL = auto()


@dataclass(frozen=True, slots=True)
class Address:
    """What a URL says."""

    topology: Topology
    hosts: tuple[tuple[str, int], ...]
    """Cluster nodes or Sentinels; empty for a single server."""
    service: str
    """The name the Sentinels know the primary by."""
    settings: dict[str, Any] = field(repr=False)
    """Arguments for connections to the servers, credentials among them."""
    sentinel_settings: dict[str, Any] = field(repr=False)
    """Arguments for connections to the Sentinels."""


def read_url(url: str) -> Address:
    """What the URL says.

    Raises:
        ConfigurationError: it makes no sense. The text quotes nothing of it.
    """
    try:
        address = _read(url)
        _try_out(address.settings)
        return address
    except ConfigurationError:
        raise
    except (ValueError, TypeError, AttributeError):
        pass
    # Outside of the handler: the error that is left behind quotes the URL.
    raise ConfigurationError("store", _FORMS)


def _read(url: str) -> Address:
    scheme, _, rest = url.partition("://")
    secure = scheme.startswith("rediss")
    match scheme.partition("+"):
        case ("redis" | "rediss" | "unix", "", _):
            settings = _parse_url(url)
            if scheme == "unix" and "path" not in settings:
                raise ConfigurationError("store", "give the path of the socket after unix://")
            return Address(Topology.SINGLE, (), "", settings, {})
        case ("redis" | "rediss", "+", "cluster"):
            settings = _settings(rest, secure=secure)
            if not settings.keys().isdisjoint(_NOT_OF_CLUSTERS):
                raise ConfigurationError(
                    "store", "a cluster's clients take no retry_on_timeout and no timeout: leave them out"
                )
            if settings.pop("db", 0) != 0 or urlsplit(f"//{rest}").path.strip("/") not in ("", "0"):
                raise ConfigurationError("store", "a cluster has one database only: leave the number out")
            return Address(Topology.CLUSTER, _hosts(rest, _PORT), "", settings, {})
        case ("redis" | "rediss", "+", "sentinel"):
            settings = _settings(rest, secure=secure)
            service = unquote(urlsplit(f"//{rest}").path.strip("/"))
            if not service or "/" in service:
                raise ConfigurationError("store", "give the service's name, as in redis+sentinel://host:26379/mymaster")
            sentinel = {
                name.removeprefix("sentinel_"): settings.pop(name)
                for name in ("sentinel_username", "sentinel_password")
                if name in settings
            }
            return Address(Topology.SENTINEL, _hosts(rest, _SENTINEL_PORT), service, settings, sentinel)
        case _:
            raise ConfigurationError("store", _FORMS)


def _try_out(settings: dict[str, Any]) -> None:
    """Make a connection, which connects to nothing yet, of these settings: redis-py refuses an unknown option."""
    others = {name: value for name, value in settings.items() if name not in ("connection_class", "ssl")}
    secure = connection.SSLConnection if settings.get("ssl") else connection.Connection
    kind: Callable[..., object] = settings.get("connection_class", secure)
    kind(**others)


def _settings(rest: str, *, secure: bool) -> dict[str, Any]:
    """User, password and options, which stand where they stand in a plain URL."""
    parts = urlsplit(f"//{rest}")
    user, at, _ = parts.netloc.rpartition("@")
    settings = _parse_url(f"redis://{user}{at}host/?{parts.query}")
    del settings["host"]
    if secure:
        settings["ssl"] = True
    return settings


def _hosts(rest: str, default_port: int) -> tuple[tuple[str, int], ...]:
    netloc = urlsplit(f"//{rest}").netloc.rpartition("@")[2]
    hosts = []
    for each in netloc.split(","):
        parts = urlsplit(f"//{each}")
        if not parts.hostname:
            raise ConfigurationError("store", "give each server as host:port, with commas between them")
        hosts.append((unquote(parts.hostname), parts.port or default_port))
    return tuple(hosts)
