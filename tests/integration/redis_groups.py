"""Groups of real Redis servers for tests, and the cluster. `redis_servers` is the way in."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

from redis.cluster import ClusterNode, RedisCluster
from redis.crc import key_slot
from redis_node import UNREACHABLE, Node, NotThereYetError, free_ports, wait_until

__all__ = ["REPLICATION", "SLOTS", "Cluster", "Group", "follows"]

SLOTS = 16384
"""Hash slots of a cluster."""
NODE_TIMEOUT_MS = 1000
"""How long a cluster waits before it takes a silent server for dead."""


class Group:
    """Several servers that are one to a client; faults of the group go to every server of it."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []

    @property
    def ports(self) -> tuple[int, ...]:
        """The ports a client is told."""
        return tuple(node.port for node in self.nodes)

    def all_nodes(self) -> list[Node]:
        """Every server of the group."""
        return self.nodes

    def kill(self) -> None:
        """Kill every server."""
        for node in self.all_nodes():
            node.kill()

    def pause(self) -> None:
        """Pause every server."""
        for node in self.all_nodes():
            node.pause()

    def resume(self) -> None:
        """Let every server go on."""
        for node in self.all_nodes():
            node.resume()

    def restart(self) -> None:
        """Start again, and on the same ports, those that do not run; return when the group is whole."""
        self.resume()
        for node in self.all_nodes():
            if not node.running:
                node.restart(wait=False)
        self.wait_ready()

    def flush(self) -> None:
        """Remove all keys."""
        raise NotImplementedError

    def reset(self) -> None:
        """Make it whole and empty; settings that tests changed stay."""
        self.restart()
        self.flush()

    def wait_ready(self) -> None:
        """Return when the group is whole."""
        for node in self.all_nodes():
            node.wait_ready()

    def stop(self) -> None:
        """End every server for good."""
        for node in self.all_nodes():
            node.stop()


class Cluster(Group):
    """Six servers: three primaries with a third of the slots each, and a replica for each primary."""

    def __init__(self, program: Sequence[str], *options: str) -> None:
        super().__init__()
        ports = free_ports(12)
        try:
            for port, bus in zip(ports[:6], ports[6:], strict=True):
                self.nodes.append(Node(program, port, *_cluster_options(bus), *options))
            super().wait_ready()
            self._join(ports)
        except BaseException:
            self.stop()
            raise

    @property
    def url(self) -> str:
        """All servers' addresses, so that a client finds the cluster whichever of them is down."""
        return "redis+cluster://" + ",".join(f"127.0.0.1:{port}" for port in self.ports)

    def client(self, **options: Any) -> RedisCluster:
        """A new cluster client, which the caller closes."""
        settings: dict[str, Any] = {"socket_timeout": 5, "socket_connect_timeout": 5, "decode_responses": True}
        return RedisCluster(
            startup_nodes=[
                ClusterNode("127.0.0.1", port)  # type: ignore[no-untyped-call]  # redis-py
                for port in self.ports
            ],
            require_full_coverage=False,
            **(settings | options),
        )

    def primaries(self) -> list[Node]:
        """The running servers that own slots, in the order of these."""
        owners = {row["node"]: first for row in self._view() if row["primary"] for first in row["slots"][:1]}
        return sorted((node for node in self.nodes if node.port in owners), key=lambda node: owners[node.port])

    def owner(self, slot: int | str) -> Node:
        """The server that owns a slot, or the slot of a key.

        Raises:
            NotThereYetError: none does.
        """
        number = slot if isinstance(slot, int) else key_slot(slot.encode())
        for row in self._view():
            if row["primary"] and number in row["slots"]:
                return self._node(row["node"])
        raise NotThereYetError(f"No server owns slot {number}.")

    def replicas(self, primary: Node) -> list[Node]:
        """The working replicas of a server."""
        view = self._view()
        (identity,) = (row["id"] for row in view if row["node"] == primary.port)
        return [self._node(row["node"]) for row in view if row["of"] == identity]

    def kill_primary(self, slot: int | str) -> Node:
        """Kill the owner of a slot or key, and return it at once: its replica takes over when it is missed."""
        owner = self.wait_owner(slot)
        owner.kill()
        return owner

    def pause_primary(self, slot: int | str) -> Node:
        """Pause the owner of a slot or key, and return it at once."""
        owner = self.wait_owner(slot)
        owner.pause()
        return owner

    def failover(self, slot: int | str) -> Node:
        """Make a replica the owner of a slot or key, in good order, and return it when it is."""
        (new, *_) = self.replicas(self.owner(slot))
        new.command("CLUSTER", "FAILOVER")
        self.wait_owner(slot, lambda owner: owner is new)
        return new

    def wait_owner(self, slot: int | str, wanted: Callable[[Node], bool] = lambda _: True) -> Node:
        """Return the owner of a slot or key as soon as every waking server names one that is as wanted."""
        number = slot if isinstance(slot, int) else key_slot(slot.encode())

        def agreed() -> Node | None:
            owners = {
                row["node"]
                for node in self.nodes
                if node.awake
                for row in _view(node)
                if row["primary"] and number in row["slots"]
            }
            found = [self._node(port) for port in owners]
            return found[0] if len(found) == 1 and wanted(found[0]) and _is_ok(found[0]) else None

        return wait_until(agreed, f"slot {number} has the owner wanted")

    def reshard(self, slots: Iterable[int | str], to: Node | None = None) -> None:
        """Move slots (or those of keys), with what they hold, while clients go on; by default to another primary."""
        for slot in slots:
            with self.moving(slot, to):
                pass

    @contextlib.contextmanager
    def moving(self, slot: int | str, to: Node | None = None) -> Iterator[Node]:
        """A slot is half moved in the block (half of its keys answer ASK) and moved after it; yields the new owner."""
        number = slot if isinstance(slot, int) else key_slot(slot.encode())
        source = self.owner(number)
        target = to or next(node for node in self.primaries() if node is not source)
        target.command("CLUSTER", "SETSLOT", number, "IMPORTING", _identity(source))
        source.command("CLUSTER", "SETSLOT", number, "MIGRATING", _identity(target))
        keys = source.command("CLUSTER", "GETKEYSINSLOT", number, 1_000_000)
        _migrate(source, target, keys[: (len(keys) + 1) // 2])
        try:
            yield target
        finally:
            while keys := source.command("CLUSTER", "GETKEYSINSLOT", number, 200):
                _migrate(source, target, keys)
            others = [node for node in self.primaries() if node not in {source, target}]
            for node in (target, source, *others):
                node.command("CLUSTER", "SETSLOT", number, "NODE", _identity(target))

    def wait_ready(self) -> None:
        """Return when all six run and agree that every slot is served and every replica follows."""
        super().wait_ready()
        wait_until(lambda: all(map(self._is_whole, self.nodes)), "the cluster is whole")

    def flush(self) -> None:
        """Remove all keys."""
        for primary in self.primaries():
            primary.flush()

    def _is_whole(self, node: Node) -> bool:
        view = _view(node)
        served = sum(len(row["slots"]) for row in view if row["primary"])
        following = sum(1 for row in view if row["of"])
        return _is_ok(node) and (served, following, len(view)) == (SLOTS, 3, 6) and follows(node)

    def _view(self) -> list[dict[str, Any]]:
        """The cluster, as the first server that answers sees it; the paused are not waited for."""
        for node in self.nodes:
            if node.awake:
                with contextlib.suppress(*UNREACHABLE), node.client(socket_timeout=2) as client:
                    return _parsed(client.execute_command("CLUSTER NODES"))
        raise NotThereYetError("No server of the cluster answers.")

    def _node(self, port: int) -> Node:
        return next(node for node in self.nodes if node.port == port)

    def _join(self, ports: Sequence[int]) -> None:
        first, *others = self.nodes
        for epoch, node in enumerate(self.nodes, 1):
            node.command("CLUSTER", "SET-CONFIG-EPOCH", epoch)
        for node, port, bus in zip(others, ports[1:6], ports[7:], strict=True):
            node.command("CLUSTER", "MEET", "127.0.0.1", first.port, ports[6])
            first.command("CLUSTER", "MEET", "127.0.0.1", port, bus)
        shares = [0, 5461, 10923, SLOTS]
        for node, start, end in zip(self.nodes[:3], shares, shares[1:], strict=False):
            node.command("CLUSTER", "ADDSLOTSRANGE", start, end - 1)
        for primary, replica in zip(self.nodes[:3], self.nodes[3:], strict=True):
            wait_until(partial(_replicates, replica, _identity(primary)), "the servers know each other")


def _cluster_options(bus: int) -> list[str]:
    options = {
        "cluster-enabled": "yes",
        "cluster-port": str(bus),
        "cluster-node-timeout": str(NODE_TIMEOUT_MS),
        "cluster-require-full-coverage": "no",
        "cluster-replica-validity-factor": "0",
    }
    return [word for name, value in (options | REPLICATION).items() for word in (f"--{name}", value)]


REPLICATION = {"repl-diskless-sync-delay": "0", "repl-ping-replica-period": "1", "repl-backlog-size": "1mb"}


def _view(node: Node) -> list[dict[str, Any]]:
    return _parsed(node.command("CLUSTER NODES"))


def _parsed(reply: Any) -> list[dict[str, Any]]:
    """CLUSTER NODES (a dict by address in redis-py): the servers that work, with their slots as numbers."""
    rows = []
    for address, row in reply.items():
        flags = set(row["flags"].split(","))
        if flags & {"fail", "fail?", "handshake", "noaddr"} or not row["connected"]:
            continue
        slots = [
            slot
            for ends in row["slots"]
            if not ends[0].startswith("[")
            for slot in range(int(ends[0]), int(ends[-1]) + 1)
        ]
        rows.append(
            {
                "node": int(address.rpartition(":")[2]),
                "id": row["node_id"],
                "primary": "master" in flags,
                "of": row["master_id"] if "slave" in flags else None,
                "slots": slots,
            }
        )
    return rows


def _identity(node: Node) -> str:
    identity: str = node.command("CLUSTER", "MYID")
    return identity


def _replicates(replica: Node, identity: str) -> bool:
    return bool(replica.command("CLUSTER", "REPLICATE", identity))


def _is_ok(node: Node) -> bool:
    return "cluster_state:ok" in node.command("CLUSTER", "INFO")


def follows(node: Node) -> bool:
    """True for a primary, and for a replica that has all its primary has."""
    info = node.info("replication")
    return info["role"] == "master" or (info["master_link_status"] == "up" and not info["master_sync_in_progress"])


def _migrate(source: Node, target: Node, keys: Sequence[str]) -> None:
    if keys:
        source.command("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "REPLACE", "KEYS", *keys)
