"""The rules of the servers that other tests rely on: they are what they are called, and faults happen when ordered."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import redis
from redis_servers import wait_until

if TYPE_CHECKING:
    from conftest import StartRedis
    from redis_servers import Cluster, Node, SentinelSet


def test_the_standalone_server_has_vector_sets_and_listens_on_tcp_and_unix(redis_standalone: Node) -> None:
    redis_standalone.flush()
    redis_standalone.command("VADD", "set", "VALUES", 2, 1, 0, "element", "CAS")
    for url in (redis_standalone.url, redis_standalone.unix_url):
        with redis.Redis.from_url(url) as client:
            assert client.execute_command("VCARD", "set") == 1


def test_redis_7_has_no_vector_sets(redis_7: Node) -> None:
    assert redis_7.info("server")["redis_version"].startswith("7.")
    with pytest.raises(redis.ResponseError, match="unknown command"):
        redis_7.command("VADD", "set", "VALUES", 2, 1, 0, "element")


def test_the_search_server_finds_by_vector(redis_search: Node) -> None:
    redis_search.flush()
    vector = ("VECTOR", "FLAT", 6, "TYPE", "FLOAT32", "DIM", 2, "DISTANCE_METRIC", "COSINE")
    redis_search.command("FT.CREATE", "index", "PREFIX", 1, "e:", "SCHEMA", "v", *vector)
    redis_search.command("HSET", "e:1", "v", b"\0\0\x80\x3f\0\0\0\0")
    query = ("*=>[KNN 1 @v $q]", "PARAMS", 2, "q", b"\0\0\x80\x3f\0\0\0\0", "NOCONTENT", "DIALECT", 2)
    assert "e:1" in str(redis_search.command("FT.SEARCH", "index", *query))


def test_a_tls_server_answers_those_who_trust_its_certificate(start_redis: StartRedis) -> None:
    with start_redis("tls") as server, redis.Redis.from_url(server.url, ssl_ca_certs=str(server.certificate)) as client:
        assert client.ping()


# ----------------------------------------------------------------------------------------------- faults


def test_a_paused_server_is_silent_and_a_resumed_one_answers(start_redis: StartRedis) -> None:
    with start_redis("standalone") as server, server.client(socket_timeout=0.05) as client:
        server.pause()
        with pytest.raises(redis.TimeoutError):
            client.ping()
        server.resume()
    # Stopped while paused, it still ends.
    with start_redis("standalone") as server:
        server.pause()
        pid = server.pid
    assert not alive(pid)


def test_a_killed_server_refuses_and_returns_empty_at_its_port(start_redis: StartRedis) -> None:
    with start_redis("standalone", "--maxmemory", "50mb") as server, server.client() as client:
        client.set("key", "value")
        server.kill()
        with pytest.raises(redis.ConnectionError):
            client.ping()
        server.restart()
        assert client.get("key") is None
        assert client.config_get("maxmemory") == {"maxmemory": str(50 * 2**20)}


def test_a_server_restarted_without_waiting_is_seen_loading_what_was_saved(start_redis: StartRedis) -> None:
    with start_redis("standalone") as server, server.client() as client:
        client.execute_command("DEBUG", "POPULATE", 1000, "key", 100)
        client.save()
        # Slow by order: 5 ms a key, and so a reply about every 50 ms.
        server.restart("--key-load-delay", "5000", "--loading-process-events-interval-bytes", "1024", wait=False)

        def loading() -> bool:
            try:
                client.get("key:0")
            except redis.BusyLoadingError:
                return True
            return False

        assert wait_until(loading, "the server says LOADING")
        server.restart()
        assert client.dbsize() == 1000
        server.reset()
        assert client.dbsize() == 0


def test_a_password_is_for_others_and_not_for_the_server_s_own_commands(start_redis: StartRedis) -> None:
    with start_redis("standalone", "--requirepass", "secret") as server, server.client() as client:
        with pytest.raises(redis.AuthenticationError):
            client.ping()
        assert server.command("PING")


def test_nothing_is_left_of_stopped_servers(start_redis: StartRedis) -> None:
    with start_redis("redisearch") as server:
        pid, folder = server.pid, server.folder
        assert folder.is_dir()
    assert not alive(pid)
    assert not folder.exists()


@pytest.mark.usefixtures("redis_standalone")
def test_servers_end_with_an_interpreter_that_is_killed() -> None:
    code = (
        "import os, signal, redis_servers as servers\n"
        "with servers.standalone() as kept, servers.standalone() as paused:\n"
        "    with servers.standalone(): pass\n"
        "    paused.pause()\n"
        "    print(kept.pid, paused.pid, kept.folder.parent, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == -signal.SIGKILL
    *pids, folder = done.stdout.split()
    assert len(pids) == 2
    wait_until(lambda: not any(alive(int(pid)) for pid in pids), "the servers have ended")
    wait_until(lambda: not Path(folder).exists(), "their folder is gone")


def alive(pid: int) -> bool:
    """True while a program runs under this id; one that ended and waits to be noted does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


# ----------------------------------------------------------------------------------------------- groups


def test_a_replica_takes_over_the_slots_of_a_killed_primary(redis_cluster: Cluster) -> None:
    redis_cluster.reset()
    with redis_cluster.client() as client:
        client.set("key", "value")
        (replica,) = redis_cluster.replicas(redis_cluster.owner("key"))
        # Replication is asynchronous: what the replica has not seen yet would be lost.
        wait_until(lambda: replica.info("keyspace"), "the replica has the key")
    killed = redis_cluster.kill_primary("key")
    owner = redis_cluster.wait_owner("key", lambda node: node is not killed)
    assert owner is replica
    assert owner.command("GET", "key") == "value"
    redis_cluster.restart()
    assert killed.info("replication")["role"] == "slave"


def test_a_failover_by_order_makes_a_replica_the_owner(redis_cluster: Cluster) -> None:
    redis_cluster.restart()
    old = redis_cluster.owner("key")
    assert redis_cluster.failover("key") is redis_cluster.owner("key") is not old


def test_a_replica_takes_over_from_a_paused_primary(redis_cluster: Cluster) -> None:
    redis_cluster.restart()
    # Another primary than that of the test before: nobody votes twice in 2 s about the same one.
    paused = redis_cluster.pause_primary("b")
    assert redis_cluster.wait_owner("b", lambda node: node is not paused).awake
    redis_cluster.restart()


def test_a_half_moved_slot_asks_and_a_moved_one_has_kept_its_keys(redis_cluster: Cluster) -> None:
    redis_cluster.reset()
    keys = [f"{{tag}}:{number}" for number in range(20)]
    with redis_cluster.client() as client:
        for key in keys:
            client.set(key, key)
        old = redis_cluster.owner("{tag}")
        with redis_cluster.moving("{tag}") as new:
            with pytest.raises(redis.exceptions.AskError):
                [old.command("GET", key) for key in keys]
            assert [client.get(key) for key in keys] == keys
        assert redis_cluster.owner("{tag}") is new is not old
        assert [client.get(key) for key in keys] == keys
        redis_cluster.reshard(["{tag}"], to=old)
        assert [client.get(key) for key in keys] == keys
    assert redis_cluster.owner("{tag}") is old


def test_the_sentinels_name_a_replica_after_the_primary_is_killed(redis_sentinel: SentinelSet) -> None:
    redis_sentinel.reset()
    killed = redis_sentinel.kill_primary()
    primary = redis_sentinel.wait_primary(lambda node: node is not killed)
    assert primary in redis_sentinel.servers
    with redis_sentinel.client() as client:
        assert client.set("key", "value")
    redis_sentinel.restart()
    assert killed.info("replication")["role"] == "slave"
    before = redis_sentinel.wait_primary()
    after = redis_sentinel.failover()
    assert after is not before
    assert after.info("replication")["role"] == "master"


def test_urls_name_every_port_of_a_group(redis_cluster: Cluster, redis_sentinel: SentinelSet) -> None:
    for group, scheme, end in ((redis_cluster, "redis+cluster", ""), (redis_sentinel, "redis+sentinel", "/cache")):
        assert group.url == f"{scheme}://{','.join(f'127.0.0.1:{port}' for port in group.ports)}{end}"
