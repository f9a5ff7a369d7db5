"""Real Redis servers for tests, on free ports of 127.0.0.1, in folders of their own, with faults to order.

    with standalone() as server:            # Redis 8; also redis7(), redisearch(), cluster(), sentinel()
        server.url                          # what the code under test gets
        server.pause(); server.resume(); server.kill(); server.restart()

`.ci/get-redis` finds or fetches the programs. Every call returns when what it names has come about, not after some
time. A server is known by its process id, never by its name. All end with the `with` block, and with this interpreter,
however that ends.
"""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from redis_groups import SLOTS, Cluster, Group
from redis_node import Node, NotThereYetError, ServerFailedError, ServerMissingError, free_ports, program, wait_until
from redis_sentinels import SentinelSet

__all__ = [
    "SLOTS",
    "Cluster",
    "Node",
    "NotThereYetError",
    "SentinelSet",
    "ServerFailedError",
    "ServerMissingError",
    "TlsServer",
    "cluster",
    "redis7",
    "redisearch",
    "sentinel",
    "standalone",
    "tls",
    "wait_until",
]

G = TypeVar("G", bound="Node | Group")


@contextlib.contextmanager
def _started(make: Callable[[], G]) -> Iterator[G]:
    """What `make` starts, ready, until the block ends; again on other ports if one was taken meanwhile."""
    for attempt in range(5):
        server = make()
        try:
            try:
                server.wait_ready()
            except ServerFailedError as error:
                if attempt < 4 and "Address already in use" in str(error):
                    continue
                raise
            yield server
            return
        finally:
            server.stop()


def standalone(*options: str) -> contextlib.AbstractContextManager[Node]:
    """A Redis of version 8 or newer; `options` as `redis-server` takes them: `"--maxmemory", "5mb"`."""
    server = program("8")
    return _started(lambda: Node(server, free_ports(1)[0], *options))


def redis7(*options: str) -> contextlib.AbstractContextManager[Node]:
    """A Redis of version 7: no vector sets, no modules."""
    server = program("7")
    return _started(lambda: Node(server, free_ports(1)[0], *options))


def redisearch(*options: str) -> contextlib.AbstractContextManager[Node]:
    """A Redis of version 8 with RediSearch and RedisJSON loaded."""
    server, modules = program("8"), program("search")
    return _started(lambda: Node(server, free_ports(1)[0], *modules, *options))


def cluster(*options: str) -> contextlib.AbstractContextManager[Cluster]:
    """A cluster of six servers of version 8 or newer; `options` go to each."""
    server = program("8")
    return _started(lambda: Cluster(server, *options))


def sentinel(*options: str) -> contextlib.AbstractContextManager[SentinelSet]:
    """A primary, two replicas and three Sentinels, version 8 or newer; `options` go to the first three."""
    server = program("8")
    return _started(lambda: SentinelSet(server, *options))


@dataclass(frozen=True, slots=True)
class TlsServer:
    """A server that also listens with TLS."""

    node: Node
    url: str
    """Its address with TLS."""
    certificate: Path
    """What a client must trust: `ssl_ca_certs`."""


@contextlib.contextmanager
def tls(*options: str) -> Iterator[TlsServer]:
    """A Redis of version 8 or newer that also listens with TLS, with a certificate of its own for 127.0.0.1."""
    (port,) = free_ports(1)
    with tempfile.TemporaryDirectory(prefix="aicache-tls-") as folder:
        key, certificate = Path(folder) / "key.pem", Path(folder) / "certificate.pem"
        _make_certificate(key, certificate)
        files = (
            "--tls-key-file",
            str(key),
            "--tls-cert-file",
            str(certificate),
            "--tls-ca-cert-file",
            str(certificate),
        )
        with standalone("--tls-port", str(port), "--tls-auth-clients", "no", *files, *options) as node:
            yield TlsServer(node, f"rediss://127.0.0.1:{port}/0", certificate)


def _make_certificate(key: Path, certificate: Path) -> None:
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    subject = ["-subj", "/CN=aicache tests", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    try:
        subprocess.run([*command, *subject, *files], check=True, capture_output=True, timeout=60)
    except FileNotFoundError:
        raise ServerMissingError("No openssl here to make a certificate with: install it.") from None
