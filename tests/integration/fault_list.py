"""The faults of the matrix: what happens to a real server, or to the way to it, and what may still work meanwhile.

    for fault in FAULTS:
        with fault.happens(scene):     # begins, and has begun
            ...
                                       # has ended

Each is written down with what a cache is expected to do while it lasts; `fault_matrix` sees whether it does.
"""

from __future__ import annotations

import contextlib
import socketserver
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

import redis
from redis.crc import key_slot
from redis_servers import Cluster, Node, SentinelSet, wait_until

from aicache.testing import FaultMode, FaultProxy

__all__ = ["FAULTS", "Expected", "Fault", "Kind", "Scene"]

Kind = Literal["server", "network", "cluster", "sentinel"]
"""What a fault happens to: one server, the way to one server, or a server of a group."""
Expected = Literal["works", "misses", "fails", "either"]
"""`misses`: the store answers that there is nothing."""

ABSENT_PORT: Final = 1
"""Where nobody listens."""
PASSWORD: Final = "open-sesame"
CALLERS: Final = 8
"""Threads or tasks that share too few connections."""


@dataclass(frozen=True, slots=True)
class Scene:
    """Where a fault happens."""

    server: Node | Cluster | SentinelSet
    proxy: FaultProxy
    """The way to a single server, where the fault is of the network."""
    seconds: float
    """How long a fault lasts that ends by itself."""
    cluster: Callable[[], Cluster]
    """A cluster, for a client that takes it for a single server."""

    @property
    def node(self) -> Node:
        """The single server."""
        assert isinstance(self.server, Node)
        return self.server

    def slot(self) -> int:
        """The slot of a cluster that all entries are in."""
        assert isinstance(self.server, Cluster)
        names = {name for primary in self.server.primaries() for name in primary.command("KEYS", "aicache:*:e:*")}
        (slot,) = {key_slot(name.encode()) for name in names}
        return slot


@dataclass(frozen=True, slots=True)
class Fault:
    """One row of the matrix."""

    name: str
    kind: Kind
    happens: Callable[[Scene], contextlib.AbstractContextManager[None]]
    """Begins it, and ends it. What it leaves behind for `mend` may still be broken, but not what clients need."""
    lookups: Expected = "fails"
    """What becomes of lookups while it lasts."""
    updates: Expected = "fails"
    memory: Expected = "works"
    """What becomes of lookups that L1 can answer."""
    keeps: bool = True
    """The server still has what it had before."""
    credentials: str = ""
    """What stands before the host in the client's URL."""
    callers: int = 1
    """Threads or tasks of the application that call at the same time."""
    max_connections: int = 64


# ------------------------------------------------------------------------------------------------ one server


@contextlib.contextmanager
def _paused(scene: Scene) -> Iterator[None]:
    scene.server.pause()
    yield
    scene.server.resume()


@contextlib.contextmanager
def _killed(scene: Scene) -> Iterator[None]:
    scene.node.command("SAVE")
    scene.node.kill()
    yield
    scene.node.restart()


@contextlib.contextmanager
def _clients_paused(scene: Scene) -> Iterator[None]:
    scene.node.command("CLIENT", "PAUSE", int(scene.seconds * 1000))
    yield
    scene.node.command("CLIENT", "UNPAUSE")  # Is paused itself, and so answered when the pause is over.


@contextlib.contextmanager
def _asleep(scene: Scene) -> Iterator[None]:
    with _busy_with(scene.node, "DEBUG", "SLEEP", scene.seconds):
        yield


@contextlib.contextmanager
def _busy_script(scene: Scene) -> Iterator[None]:
    scene.node.command("CONFIG", "SET", "busy-reply-threshold", 10)
    with _busy_with(scene.node, "EVAL", "while true do end", 0):
        wait_until(lambda: _refused(scene.node, "BUSY"), "the server says that it is busy")
        yield
        scene.node.command("SCRIPT", "KILL")
    scene.node.command("CONFIG", "SET", "busy-reply-threshold", 5000)


@contextlib.contextmanager
def _busy_with(node: Node, *words: str | float) -> Iterator[None]:
    """Another client keeps the server busy with a command during the block; returns when the server has ended it."""
    with node.client(socket_timeout=30) as client:
        client.ping()

        def send() -> None:
            with contextlib.suppress(redis.ResponseError):  # The script is killed.
                client.execute_command(*words)

        thread = threading.Thread(target=send)
        thread.start()
        try:
            yield
        finally:
            thread.join()


def _refused(node: Node, code: str) -> bool:
    try:
        with node.client() as client:
            client.ping()
    except redis.RedisError as error:
        return code in str(error)
    return False


@contextlib.contextmanager
def _out_of_memory(scene: Scene) -> Iterator[None]:
    scene.node.command("CONFIG", "SET", "maxmemory", 1)
    yield
    scene.node.command("CONFIG", "SET", "maxmemory", 0)


@contextlib.contextmanager
def _wrong_types(scene: Scene) -> Iterator[None]:
    node = scene.node
    names = node.command("KEYS", "aicache:*")
    for name in names:
        node.command("DEL", name)
        node.command("LPUSH", name, "of another program")
    yield
    for name in names:
        if node.command("TYPE", name) == "list":  # Else the store has put it right.
            node.command("DEL", name)


@contextlib.contextmanager
def _scripts_forgotten(scene: Scene) -> Iterator[None]:
    over = threading.Event()

    def forget() -> None:
        while not over.wait(0.02):
            scene.node.command("SCRIPT", "FLUSH")

    scene.node.command("SCRIPT", "FLUSH")
    thread = threading.Thread(target=forget)
    thread.start()
    yield
    over.set()
    thread.join()


@contextlib.contextmanager
def _forbidden(scene: Scene) -> Iterator[None]:
    # ACL is what ends it, and the tests' own client is the same user.
    scene.node.command("ACL", "SETUSER", "default", "-@all", "+acl", "+ping", "+client", "+auth")
    yield
    scene.node.command("ACL", "SETUSER", "default", "+@all")


@contextlib.contextmanager
def _password_changed(scene: Scene) -> Iterator[None]:
    # Connections that are open stay logged in: those of the application are closed, that of the tests is used.
    scene.node.command("ACL", "SETUSER", "default", "resetpass", ">another one")
    _disconnect(scene.node)
    yield
    scene.node.command("ACL", "SETUSER", "default", "resetpass", "nopass")


@contextlib.contextmanager
def _password_wanted(scene: Scene) -> Iterator[None]:
    scene.node.command("CONFIG", "SET", "requirepass", PASSWORD)
    _disconnect(scene.node)
    yield
    scene.node.command("CONFIG", "SET", "requirepass", "")


def _disconnect(node: Node) -> None:
    """Close the connections of the store."""
    for client in node.command("CLIENT LIST"):
        if client["name"] == "aicache":
            with contextlib.suppress(redis.ResponseError):  # It has gone by itself.
                node.command("CLIENT", "KILL", "ID", client["id"])


@contextlib.contextmanager
def _too_many_clients(scene: Scene) -> Iterator[None]:
    node = scene.node
    with contextlib.ExitStack() as others:
        for _ in range(4):
            others.enter_context(node.client(single_connection_client=True)).ping()
        ours = sum(client["name"] != "aicache" for client in node.command("CLIENT LIST"))
        node.command("CONFIG", "SET", "maxclients", ours)
        _disconnect(node)
        wait_until(lambda: _refused(node, "max number of clients"), "the server refuses clients")
        yield
        node.command("CONFIG", "SET", "maxclients", 10_000)


@contextlib.contextmanager
def _replica(scene: Scene, stale: str) -> Iterator[None]:
    """A replica whose primary is gone; it answers reads, or says MASTERDOWN."""
    scene.node.command("CONFIG", "SET", "replica-serve-stale-data", stale)
    scene.node.command("REPLICAOF", "127.0.0.1", ABSENT_PORT)
    yield
    scene.node.command("REPLICAOF", "NO", "ONE")


@contextlib.contextmanager
def _loading(scene: Scene) -> Iterator[None]:
    # Takes longer than any fault lasts; it is told to hurry when the time has come.
    scene.node.command("DEBUG", "POPULATE", 5000, "filling", 64)
    scene.node.command("SAVE")
    scene.node.restart("--key-load-delay", "1000", "--loading-process-events-interval-bytes", "1024", wait=False)
    wait_until(lambda: _refused(scene.node, "loading"), "the server is loading")
    yield
    scene.node.command("CONFIG", "SET", "key-load-delay", 0)
    scene.node.wait_ready()


# ------------------------------------------------------------------------------------------------ the network


def _network(mode: FaultMode, **options: Any) -> Callable[[Scene], contextlib.AbstractContextManager[None]]:
    @contextlib.contextmanager
    def happens(scene: Scene) -> Iterator[None]:
        scene.proxy.set(mode, **options)
        yield
        scene.proxy.set("pass")

    return happens


@contextlib.contextmanager
def _cluster_instead(scene: Scene) -> Iterator[None]:
    """The address leads to one server of a cluster."""
    scene.proxy.route("127.0.0.1", scene.cluster().primaries()[0].port)
    yield
    scene.proxy.route("127.0.0.1", scene.node.port)


class _Babble(socketserver.BaseRequestHandler):
    """Answers everything with bytes that are not Redis's protocol, some of which look like it."""

    ANSWERS = (
        *(b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x00\xff\xfe", b"$-7\r\n"),
        *(b"*99999999\r\n", b":x\r\n", b"$5\r\nab\r\n"),
    )

    def handle(self) -> None:
        number = self.client_address[1]
        with contextlib.suppress(OSError):
            while self.request.recv(65536):
                self.request.sendall(self.ANSWERS[number % len(self.ANSWERS)])
                number += 1


class _BabbleServer(socketserver.ThreadingTCPServer):
    daemon_threads = True


@contextlib.contextmanager
def _babble(scene: Scene) -> Iterator[None]:
    """The address leads to a program that is no Redis."""
    with _BabbleServer(("127.0.0.1", 0), _Babble) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        scene.proxy.route("127.0.0.1", server.server_address[1])
        yield
        scene.proxy.route("127.0.0.1", scene.node.port)
        server.shutdown()
        thread.join()


# ------------------------------------------------------------------------------------------------ groups


@contextlib.contextmanager
def _primary_lost(scene: Scene, how: Literal["kill", "pause"]) -> Iterator[None]:
    """Ends when a replica has taken over; the lost one stays lost."""
    server = scene.server
    if isinstance(server, Cluster):
        slot = scene.slot()
        owner = server.wait_owner(slot)
        owner.command("WAIT", 1, 2000)
        heirs = server.replicas(owner)
    else:
        assert isinstance(server, SentinelSet)
        owner = server.wait_primary()
        owner.command("WAIT", 2, 2000)
        heirs = [each for each in server.servers if each is not owner]
    owner.kill() if how == "kill" else owner.pause()
    yield
    # Asked seldom, and of few: this runs beside what is timed.
    tick = threading.Event()
    while not any(heir.command("ROLE")[0] == "master" for heir in heirs):
        tick.wait(0.05)
    if isinstance(server, Cluster):
        server.wait_owner(slot, lambda other: other is not owner)
    else:
        server.wait_primary(lambda other: other is not owner)


@contextlib.contextmanager
def _half_moved(scene: Scene) -> Iterator[None]:
    assert isinstance(scene.server, Cluster)
    with scene.server.moving(scene.slot()):
        yield


@contextlib.contextmanager
def _resharding(scene: Scene) -> Iterator[None]:
    """The slot wanders from one primary to the next."""
    cluster, slot, over = scene.server, scene.slot(), threading.Event()
    assert isinstance(cluster, Cluster)
    problems: list[Exception] = []

    def wander() -> None:
        try:
            while not over.is_set():
                cluster.wait_owner(slot)  # Until all have heard of the last move.
                cluster.reshard([slot])
        except Exception as error:  # noqa: BLE001 - raised again below
            problems.append(error)

    thread = threading.Thread(target=wander)
    thread.start()
    yield
    over.set()
    thread.join()
    for problem in problems:
        raise problem


# ------------------------------------------------------------------------------------------------ the list

FAULTS: Final = (
    Fault("stopped (SIGSTOP)", "server", _paused),
    Fault("killed (SIGKILL), started again", "server", _killed),
    Fault("CLIENT PAUSE", "server", _clients_paused),
    Fault("DEBUG SLEEP", "server", _asleep),
    Fault("no memory left (OOM)", "server", _out_of_memory, lookups="works"),
    Fault("keys of another type (WRONGTYPE)", "server", _wrong_types, lookups="misses", memory="either", keeps=False),
    Fault("scripts forgotten (NOSCRIPT)", "server", _scripts_forgotten, lookups="works", updates="works"),
    Fault("a long script of another client (BUSY)", "server", _busy_script),
    Fault("permissions withdrawn (NOPERM)", "server", _forbidden),
    Fault("password changed (WRONGPASS)", "server", _password_changed, credentials=f"default:{PASSWORD}@"),
    Fault("password wanted (NOAUTH)", "server", _password_wanted),
    Fault("too many clients (maxclients)", "server", _too_many_clients),
    Fault("turned replica (READONLY)", "server", lambda scene: _replica(scene, "yes"), lookups="works"),
    Fault("replica without its primary (MASTERDOWN)", "server", lambda scene: _replica(scene, "no")),
    Fault("loading its file (LOADING)", "server", _loading),
    Fault("a cluster in its place (MOVED)", "network", _cluster_instead),
    Fault("no Redis in its place (no protocol)", "network", _babble),
    Fault(
        "all connections in use",
        "network",
        _network("latency", ms=60),
        lookups="either",
        updates="either",
        callers=CALLERS,
        max_connections=2,
    ),
    Fault("latency 20 ms", "network", _network("latency", ms=20), lookups="either", updates="either"),
    Fault("latency 400 ms", "network", _network("latency", ms=400)),
    Fault("jitter 60 ± 60 ms", "network", _network("latency", ms=60, jitter=60), lookups="either", updates="either"),
    Fault("500 bytes a second", "network", _network("rate", bytes_per_second=500)),
    Fault("black hole", "network", _network("blackhole")),
    Fault("connections refused", "network", _network("refuse")),
    Fault("connections reset (RST)", "network", _network("reset")),
    Fault("replies cut off", "network", _network("truncate")),
    Fault("replies damaged", "network", _network("corrupt"), lookups="either", updates="either", memory="either"),
    Fault(
        "one byte of each reply damaged",
        "network",
        _network("corrupt", share=0.0),
        lookups="either",
        updates="either",
        memory="either",
    ),
    Fault("cluster: primary killed", "cluster", lambda scene: _primary_lost(scene, "kill")),
    Fault("cluster: primary stopped", "cluster", lambda scene: _primary_lost(scene, "pause")),
    Fault("cluster: slot half moved", "cluster", _half_moved, lookups="either", updates="either"),
    Fault("cluster: slot wandering", "cluster", _resharding, lookups="either", updates="either"),
    Fault("Sentinel: primary killed", "sentinel", lambda scene: _primary_lost(scene, "kill")),
    Fault("Sentinel: primary stopped", "sentinel", lambda scene: _primary_lost(scene, "pause")),
)
