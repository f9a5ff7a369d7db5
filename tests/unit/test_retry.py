"""Rules of the second attempt: what is tried again, and how often."""

# ruff: noqa: E402 - most imports need the extra redis, without which all of this is skipped
from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

redis = pytest.importorskip("redis", reason="needs the extra redis")
pytest.importorskip("tenacity", reason="needs the extra redis")

from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    MaxConnectionsError,
    ReadOnlyError,
    ResponseError,
    SlotNotCoveredError,
)
from redis.sentinel import MasterNotFoundError

from aicache._errors import StoreError
from aicache.stores._redis_clients import AsyncClients, Clients, Limits
from aicache.stores._redis_plan import Command, Operation, Refusal
from aicache.stores._redis_run import run, run_async
from aicache.stores._retry import aretry_once, retry_once

LIMITS = Limits(timeout=1.0, connect_timeout=1.0, max_connections=1)


class Outcomes:
    """Called, it gives the next outcome: raises it, or returns it."""

    def __init__(self, *outcomes: object) -> None:
        self.left = list(outcomes)
        self.calls = 0

    def __call__(self) -> object:
        self.calls += 1
        outcome = self.left.pop(0)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome


class Client(Outcomes):
    """A client of Redis whose commands have these outcomes; a pipeline of it replies with each in turn."""

    def execute_command(self, *words: object, **options: object) -> object:
        return self()


class AsyncClient(Outcomes):
    """The same for async callers."""

    async def execute_command(self, *words: object, **options: object) -> object:
        return self()


class Pipeline(Client):
    """Replies to a pipeline at once: with the exception it is given in place of a reply, as redis-py does."""

    def pipeline(self, *, transaction: bool) -> Pipeline:
        assert not transaction
        return self

    def execute_command(self, *words: object, **options: object) -> object:
        return self

    def execute(self, *, raise_on_error: bool) -> list[object]:
        assert not raise_on_error
        self.calls += 1
        return [b"first", self.left.pop(0)]

    def reset(self) -> None:
        """Nothing to forget."""


def ask(commands: int = 1) -> Operation[Any]:
    replies = yield (Command(("GET", "key"), "key"),) * commands
    return replies[-1]


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


def lost(text: str = "Connection closed by server.") -> Exception:
    error: Exception = redis.ConnectionError(text)
    return error


STALE: list[Callable[[], Exception]] = [
    lost,
    lambda: caused(lost(), ConnectionResetError(104, "reset")),
    lambda: caused(lost(), BrokenPipeError(32, "broken")),
]
FINAL: list[Callable[[], BaseException]] = [
    lambda: caused(lost(), ConnectionRefusedError(111, "refused")),
    lambda: caused(lost(), OSError(113, "no route")),
    lambda: caused(lost(), FileNotFoundError(2, "no such socket")),
    lambda: redis.TimeoutError("Timeout reading from socket"),
    lambda: TimeoutError("timed out"),
    lambda: BusyLoadingError("loading"),
    lambda: MaxConnectionsError("too many"),
    lambda: AuthenticationError("wrong password"),
    lambda: MasterNotFoundError("no primary"),
    lambda: SlotNotCoveredError("slot"),
    lambda: ReadOnlyError("a replica"),
    lambda: ValueError("a fault of the client"),
    KeyboardInterrupt,
]


@pytest.mark.parametrize("error", STALE)
def test_a_stale_connection_is_tried_once_more(error: Callable[[], Exception]) -> None:
    client = Client(error(), b"reply")
    assert run(ask(), Clients(None, LIMITS, client)) == b"reply"
    assert client.calls == 2


@pytest.mark.parametrize("error", STALE)
async def test_a_stale_connection_is_tried_once_more_by_async_callers(error: Callable[[], Exception]) -> None:
    client = AsyncClient(error(), b"reply")
    assert await run_async(ask(), AsyncClients(None, LIMITS, client)) == b"reply"
    assert client.calls == 2


def test_a_pipeline_in_which_a_connection_was_stale_is_sent_once_more() -> None:
    client = Pipeline(lost(), b"reply")
    assert run(ask(2), Clients(None, LIMITS, client)) == b"reply"
    assert client.calls == 2


def test_a_third_attempt_is_never_made() -> None:
    client = Client(lost(), lost(), b"reply")
    with pytest.raises(StoreError, match="closed the connection"):
        run(ask(), Clients(None, LIMITS, client))
    assert client.calls == 2


def test_each_command_has_a_second_attempt_of_its_own() -> None:
    def twice() -> Operation[list[object]]:
        return [(yield from ask()), (yield from ask())]

    client = Client(lost(), b"one", lost(), b"two")
    assert run(twice(), Clients(None, LIMITS, client)) == [b"one", b"two"]


@pytest.mark.parametrize("error", FINAL)
def test_whatever_else_goes_wrong_is_not_tried_again(error: Callable[[], BaseException]) -> None:
    client = Client(error(), b"reply")
    try:
        reply = run(ask(), Clients(None, LIMITS, client))
    except (StoreError, KeyboardInterrupt):
        pass
    else:
        assert isinstance(reply, Refusal)
    assert client.calls == 1


@pytest.mark.parametrize("error", [*FINAL, asyncio.CancelledError])
async def test_whatever_else_goes_wrong_is_not_tried_again_by_async_callers(
    error: Callable[[], BaseException],
) -> None:
    client = AsyncClient(error(), b"reply")
    try:
        reply = await run_async(ask(), AsyncClients(None, LIMITS, client))
    except (StoreError, KeyboardInterrupt, asyncio.CancelledError):
        pass
    else:
        assert isinstance(reply, Refusal)
    assert client.calls == 1


def test_a_refusal_of_the_server_after_a_stale_connection_is_a_reply() -> None:
    client = Client(lost(), ResponseError("OOM command not allowed"))
    assert run(ask(), Clients(None, LIMITS, client)) == Refusal("OOM")


# ------------------------------------------------------------------------------------------------ the attempts alone


@pytest.fixture(params=["sync", "async"])
def retried(request: pytest.FixtureRequest) -> Callable[[Outcomes], object]:
    async def act(outcomes: Outcomes) -> object:
        return outcomes()

    async def nothing() -> None:
        """Nothing to prepare."""

    def when(error: BaseException) -> bool:
        return isinstance(error, LookupError)

    def in_a_loop(outcomes: Outcomes) -> object:
        return asyncio.run(aretry_once(lambda: act(outcomes), when=when, before=nothing))

    return (lambda outcomes: retry_once(outcomes, when=when)) if request.param == "sync" else in_a_loop


def test_the_second_failure_is_the_one_that_is_raised(retried: Callable[[Outcomes], object]) -> None:
    for second in (KeyError("second"), ValueError("second")):
        with pytest.raises(type(second), match="second"):
            retried(Outcomes(KeyError("first"), second))


def test_what_succeeds_is_tried_once(retried: Callable[[Outcomes], object]) -> None:
    outcomes = Outcomes("result", "another")
    assert retried(outcomes) == "result"
    assert outcomes.calls == 1


async def test_what_is_stale_is_dropped_before_the_second_attempt_and_only_then() -> None:
    order: list[str] = []

    async def act() -> str:
        order.append("act")
        if len(order) == 1:
            raise KeyError("first")
        return "result"

    async def before() -> None:
        order.append("before")

    for _ in range(2):
        assert await aretry_once(act, when=lambda error: isinstance(error, KeyError), before=before) == "result"
    assert order == ["act", "before", "act", "act"]
