"""A real Redis with replicas and Sentinels for tests. `redis_servers` is the way in."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel
from redis_groups import REPLICATION, Group, follows
from redis_node import UNREACHABLE, Node, NotThereYetError, free_ports, wait_until

__all__ = ["SentinelSet"]

DOWN_AFTER_MS = 1500
"""How long a silent server is waited for. Sentinels ask once a second, so 1000 takes sound servers for dead."""


class SentinelSet(Group):
    """A primary with two replicas, and three Sentinels that watch them. `ports` are the Sentinels'."""

    service = "cache"
    """The name the Sentinels know the primary by."""

    def __init__(self, program: Sequence[str], *options: str) -> None:
        super().__init__()
        self.servers: list[Node] = []
        first, *ports = free_ports(6)
        replication = [word for name, value in REPLICATION.items() for word in (f"--{name}", value)]
        try:
            self.servers.append(Node(program, first, *replication, *options))
            for port in ports[:2]:
                self.servers.append(Node(program, port, *replication, "--replicaof", f"127.0.0.1 {first}", *options))
            # The Sentinels ask the primary for its replicas only every 10 s, so these must be there the first time.
            for server in self.servers:
                server.wait_ready()
            wait_until(lambda: all(map(follows, self.servers)), "the replicas follow")
            wait_until(lambda: self.servers[0].info("replication")["connected_slaves"] == 2, "two replicas")
            self.nodes = [Node(program, port, sentinel_config=_sentinel_config(first)) for port in ports[2:]]
        except BaseException:
            self.stop()
            raise

    @property
    def url(self) -> str:
        """The Sentinels' addresses and the name of the service."""
        return f"redis+sentinel://{','.join(f'127.0.0.1:{port}' for port in self.ports)}/{self.service}"

    def all_nodes(self) -> list[Node]:
        """The three servers, then the three Sentinels."""
        return [*self.servers, *self.nodes]

    def client(self, **options: Any) -> redis.Redis:
        """A new client of the primary, which the caller closes."""
        settings: dict[str, Any] = {"socket_timeout": 5, "socket_connect_timeout": 5, "decode_responses": True}
        settings["retry"] = Retry(NoBackoff(), 0)
        addresses = [("127.0.0.1", port) for port in self.ports]
        found = Sentinel(addresses, sentinel_kwargs={"socket_timeout": 1, "retry": settings["retry"]})  # type: ignore[no-untyped-call]  # redis-py
        client: redis.Redis = found.master_for(self.service, **(settings | options))  # type: ignore[no-untyped-call]
        return client

    def primary(self) -> Node:
        """The server that most Sentinels name and that takes itself for the primary.

        Raises:
            NotThereYetError: there is none now.
        """
        named = [self._named_by(node) for node in self.nodes if node.awake]
        for server in self.servers:
            if named.count(server.port) >= 2 and server.awake:
                with contextlib.suppress(*UNREACHABLE), server.client(socket_timeout=2) as client:
                    if client.execute_command("ROLE")[0] == "master":
                        return server
        raise NotThereYetError("No primary now.")

    def kill_primary(self) -> Node:
        """Kill the primary, and return it at once: a replica takes over when the Sentinels miss it."""
        primary = self.wait_primary()
        primary.kill()
        return primary

    def pause_primary(self) -> Node:
        """Pause the primary, and return it at once."""
        primary = self.wait_primary()
        primary.pause()
        return primary

    def failover(self) -> Node:
        """Make a replica the primary, in good order, and return it when it is."""
        old = self.wait_primary()
        # Refused (INPROG, NOGOODSLAVE) while an earlier one is being finished.
        wait_until(
            lambda: self.nodes[0].command("SENTINEL", "FAILOVER", self.service) is not None, "a failover is accepted"
        )
        new = self.wait_primary(lambda primary: primary is not old)
        _follow(old, new.port)
        return new

    def wait_primary(self, wanted: Callable[[Node], bool] = lambda _: True) -> Node:
        """Return the primary as soon as there is one as wanted, and every Sentinel names it."""

        def found() -> Node | None:
            primary = self.primary()
            agreed = all(self._named_by(node) == primary.port for node in self.nodes if node.awake)
            return primary if agreed and wanted(primary) else None

        return wait_until(found, "there is the primary wanted")

    def wait_ready(self) -> None:
        """Return when every Sentinel sees a primary with two good replicas and two other Sentinels."""
        super().wait_ready()
        wait_until(lambda: all(map(self._is_whole, self.nodes)), "the Sentinels see each other and the replicas")

    def flush(self) -> None:
        """Remove all keys."""
        self.wait_primary().flush()

    def restart(self) -> None:
        """Start again, and on the same ports, those that do not run; return when the group is whole."""
        primary = self._last_primary()
        for server in self.servers:
            if not server.running:
                following = () if server.port == primary else ("--replicaof", f"127.0.0.1 {primary}")
                server.restart(*following, wait=False)
            elif server.port != primary:
                server.resume()
                _follow(server, primary)
        super().restart()

    def _last_primary(self) -> int:
        """The port of the primary, or of the one there was last."""
        with contextlib.suppress(NotThereYetError):
            return self.primary().port
        config = (self.nodes[0].folder / "sentinel.conf").read_text()
        (line,) = (line for line in config.splitlines() if line.startswith("sentinel monitor"))
        return int(line.split()[4])

    def _named_by(self, node: Node) -> int | None:
        with contextlib.suppress(*UNREACHABLE), node.client(socket_timeout=2) as client:
            address = client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.service)
            return int(address[1]) if address else None
        return None

    def _is_whole(self, node: Node) -> bool:
        primary = self.primary()
        state = node.command("SENTINEL MASTER", self.service)
        replicas = node.command("SENTINEL REPLICAS", self.service)
        followers = [server for server in self.servers if server is not primary]
        return (
            state["flags"] == "master"
            and state["port"] == primary.port
            and int(state["num-other-sentinels"]) == 2
            and len(replicas) == 2
            and all(follows(server) and server.info("replication")["role"] == "slave" for server in followers)
        )


def _follow(server: Node, primary: int) -> None:
    """Make a former primary a replica now: the Sentinels tell it only after 10 s."""
    server.wait_ready()
    if server.info("replication")["role"] == "master":
        server.command("REPLICAOF", "127.0.0.1", primary)


def _sentinel_config(port: int) -> str:
    name = SentinelSet.service
    return "\n".join(
        [
            f"sentinel monitor {name} 127.0.0.1 {port} 2",
            f"sentinel down-after-milliseconds {name} {DOWN_AFTER_MS}",
            # Twice this passes before a failover is tried again after a vote without a winner.
            f"sentinel failover-timeout {name} 2000",
            f"sentinel parallel-syncs {name} 2",
            "",
        ]
    )
