"""One real Redis server for tests, and the watch that ends it with the tests. `redis_servers` is the way in."""

from __future__ import annotations

import contextlib
import functools
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

__all__ = [
    "START_WITHIN",
    "UNREACHABLE",
    "Node",
    "NotThereYetError",
    "ServerFailedError",
    "ServerMissingError",
    "free_ports",
    "program",
    "wait_until",
]

ROOT = Path(__file__).resolve().parents[2]
START_WITHIN = 30.0
"""Seconds for a server or a group of them to start or to recover; only a broken one needs them."""
PORTS = range(16_000, 30_000)
"""Where servers listen: below the ports that systems lend to outgoing connections, so that a killed server finds its
port free when it comes back."""

T = TypeVar("T")


class ServerMissingError(Exception):
    """There is no such server on this machine; the text says how to get one."""


class NotThereYetError(LookupError):
    """A cluster or a Sentinel set has no such server now; it may have one in a moment."""


class ServerFailedError(Exception):
    """A server ended while it started; the text is the end of its log."""


UNREACHABLE = (redis.RedisError, OSError, NotThereYetError)


def wait_until(condition: Callable[[], T | None], what: str, *, within: float = START_WITHIN) -> T:
    """The condition's first true result; a server that cannot be asked counts as not yet.

    Raises:
        TimeoutError: naming `what` did not come about.
    """
    deadline = time.monotonic() + within
    pause = threading.Event()
    while True:
        with contextlib.suppress(*UNREACHABLE):
            if result := condition():
                return result
        if time.monotonic() > deadline:
            raise TimeoutError(f"Not within {within:g} s: {what}.")
        pause.wait(0.01)


@functools.cache
def program(kind: str) -> tuple[str, ...]:
    """What `.ci/get-redis` prints, line by line."""
    done = subprocess.run(
        [str(ROOT / ".ci" / "get-redis"), kind],
        env=os.environ | {"PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    if done.returncode:
        raise ServerMissingError(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "get-redis failed.")
    return tuple(done.stdout.splitlines())


# ------------------------------------------------------------------------------------------------ the watch

_WATCH = """
running=' '
while read -r sign pid; do
  case $sign in +) running="$running$pid " ;; -) running=${running%% $pid *}' '${running#* $pid } ;; esac
done
for pid in $running; do kill -s KILL -- "-$pid"; done 2>/dev/null
rm -rf "$1"
"""


class _Watch:
    """A shell that kills the servers and removes their folders when this interpreter ends, by SIGKILL too.

    It reads a pipe of which only this interpreter holds the other end; `atexit` would not see a SIGKILL, and runs in
    forked children as well.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="aicache-redis-"))
        # The writing end is not inherited by programs, and closes when this interpreter ends.
        reading, self._pipe = os.pipe()
        shell = subprocess.Popen(
            ["/bin/sh", "-c", _WATCH, "watch", str(self.folder)],
            stdin=reading,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(reading)
        # It outlives this interpreter by design; without this, Popen would complain of that.
        shell.returncode = 0

    def tell(self, sign: str, pid: int) -> None:
        os.write(self._pipe, f"{sign} {pid}\n".encode())


@functools.cache
def _watch() -> _Watch:
    return _Watch()


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on. Should another program take one first, `redis_servers` tries others."""
    candidates = list(PORTS)
    random.SystemRandom().shuffle(candidates)
    found: list[int] = []
    with contextlib.ExitStack() as held:
        for port in candidates:
            if len(found) == count:
                break
            probe = held.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                found.append(port)
    return found


# ------------------------------------------------------------------------------------------------ one server


class Node:
    """One Redis server. It runs when the constructor returns.

    `options` are arguments of redis-server. Nothing is saved unless asked for: after `kill` and `restart` it is empty,
    or holds what the last SAVE wrote.
    """

    def __init__(self, program: Sequence[str], port: int, *options: str, sentinel_config: str | None = None) -> None:
        self.port = port
        self.folder = Path(tempfile.mkdtemp(prefix=f"{port}-", dir=_watch().folder))
        self.unix_socket = self.folder / "redis.sock"
        self._program = list(program)
        self._options = list(options)
        self._child: subprocess.Popen[bytes] | None = None
        self._paused = False
        password = options[options.index("--requirepass") + 1] if "--requirepass" in options else None
        # One retry: a test may break the connection that this client keeps.
        self._admin = _client(port, password=password, retry=Retry(NoBackoff(), 1))
        self._sentinel = sentinel_config is not None
        if sentinel_config is not None:
            (self.folder / "sentinel.conf").write_text(sentinel_config)
        self._launch(())

    # What a test uses.

    @property
    def url(self) -> str:
        """The address, with no password."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def unix_url(self) -> str:
        """The address of its Unix socket."""
        return f"unix://{self.unix_socket}?db=0"

    @property
    def ports(self) -> tuple[int, ...]:
        """The port, as a group of one."""
        return (self.port,)

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._child is not None
        return self._child.pid

    @property
    def running(self) -> bool:
        """True while the program runs, paused or not."""
        return self._child is not None and self._child.poll() is None

    @property
    def awake(self) -> bool:
        """True while it runs and is not paused."""
        return self.running and not self._paused

    @property
    def log(self) -> str:
        """What it wrote so far."""
        return (self.folder / "log").read_text(errors="replace")

    def client(self, **options: Any) -> redis.Redis:
        """A new client without retries, which the caller closes."""
        return _client(self.port, **options)

    def command(self, *words: str | int | bytes) -> Any:
        """The reply to one command, over a connection of its own."""
        return self._admin.execute_command(*words)  # type: ignore[no-untyped-call]  # redis-py

    def info(self, section: str) -> dict[str, Any]:
        """A section of INFO."""
        result: dict[str, Any] = self._admin.info(section)
        return result

    def kill(self) -> None:
        """End it at once (SIGKILL): open connections break, new ones are refused."""
        self._signal(signal.SIGKILL)
        if self._child is not None:
            self._child.wait(START_WITHIN)
            _watch().tell("-", self._child.pid)
            self._child = None
        self._admin.close()

    def pause(self) -> None:
        """Stop it (SIGSTOP): it accepts connections and answers nothing."""
        self._signal(signal.SIGSTOP)
        self._paused = True

    def resume(self) -> None:
        """Let it go on (SIGCONT)."""
        self._signal(signal.SIGCONT)
        self._paused = False

    def restart(self, *options: str, wait: bool = True) -> None:
        """Kill it if it runs and start it again on its port, with further options this time.

        `wait=False` returns as soon as the program is there, to see it LOADING, say.
        """
        self.kill()
        self._launch(options)
        if wait:
            self.wait_ready()

    def wait_ready(self) -> None:
        """Return when it answers, and not with LOADING.

        Raises:
            ServerFailedError: it has ended.
        """

        def answers() -> bool:
            if not self.running:
                raise ServerFailedError(self.log[-2000:])
            return self._answers()

        wait_until(answers, f"the server at port {self.port} answers")

    def flush(self) -> None:
        """Remove all keys."""
        self.command("FLUSHALL")

    def reset(self) -> None:
        """Start it anew without data: what tests did to it, its settings and its users is undone."""
        self.kill()
        (self.folder / "dump.rdb").unlink(missing_ok=True)
        self.restart()

    def stop(self) -> None:
        """End it for good and remove its folder; a second call does nothing."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    # How it is done.

    def _answers(self) -> bool:
        try:
            return bool(self.command("PING"))
        except (redis.AuthenticationError, redis.exceptions.NoPermissionError):
            return True  # It is up, and a test gave it a password.

    def _launch(self, options: Sequence[str]) -> None:
        given = [
            *("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)),
            *("--unixsocket", str(self.unix_socket)),
        ]
        if self._sentinel:
            arguments = [str(self.folder / "sentinel.conf"), "--sentinel", *given[:6]]
        else:
            # DEBUG for the faults of tests; one I/O thread and no saving, so that many fit on a small machine.
            arguments = [*given, "--save", "", "--appendonly", "no", "--enable-debug-command", "yes"]
        with (self.folder / "log").open("ab") as log:
            self._child = subprocess.Popen(
                [*self._program, *arguments, *self._options, *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,
            )
        self._paused = False
        _watch().tell("+", self._child.pid)

    def _signal(self, number: signal.Signals) -> None:
        if self.running:
            os.killpg(self.pid, number)


def _client(port: int, **options: Any) -> redis.Redis:
    settings: dict[str, Any] = {
        "socket_timeout": 5,
        "socket_connect_timeout": 5,
        "retry": Retry(NoBackoff(), 0),
        "decode_responses": True,
    }
    return redis.Redis(host="127.0.0.1", port=port, **(settings | options))
