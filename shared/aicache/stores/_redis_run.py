"""Carrying out the operations of the Redis store: the one place that waits for the network.

A connection that turns out to be stale is replaced and the commands are sent once more: the server was restarted, or
has closed what was idle. If only the reply was lost they are carried out twice, which all of them allow: they say how
things are to be, not how they change. Two things may be seen of it: what was removed is counted as less, and a change
is announced twice.

Whatever redis-py raises becomes a `StoreError` here. The original is not chained: some of its messages quote the whole
command, and with it questions and answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final, TypeVar

import redis
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ClusterError,
    MaxConnectionsError,
    RedisClusterException,
    ResponseError,
)
from redis.sentinel import MasterNotFoundError

from aicache._errors import StoreError
from aicache.stores._redis_clients import CLOSED, AsyncClients, Clients
from aicache.stores._redis_plan import Command, Operation, Spread, Unreached, complaint, refusal
from aicache.stores._retry import aretry_once, retry_once

__all__ = ["run", "run_async"]

R = TypeVar("R")


def run(operation: Operation[R], clients: Clients) -> R:
    """Carry out an operation, blocking.

    Raises:
        StoreError: whatever went wrong.
    """
    try:
        commands = next(operation)
        while True:
            replies, problem = _send(commands, clients)
            if problem is not None and clients.is_cluster and isinstance(commands, Spread) and not clients.closed:
                replies, problem = _send_apart(commands, clients), None
            if problem is not None:
                raise problem
            commands = operation.send(replies)
    except StopIteration as stop:
        returned: R = stop.value
        return returned
    finally:
        operation.close()


async def run_async(operation: Operation[R], clients: AsyncClients) -> R:
    """Carry out an operation without blocking the event loop.

    Raises:
        StoreError: whatever went wrong.
    """
    try:
        commands = next(operation)
        while True:
            replies, problem = await _send_async(commands, clients)
            if problem is not None and clients.is_cluster and isinstance(commands, Spread) and not clients.closed:
                replies, problem = await _send_apart_async(commands, clients), None
            if problem is not None:
                raise problem
            commands = operation.send(replies)
    except StopIteration as stop:
        returned: R = stop.value
        return returned
    finally:
        operation.close()


_Sent = tuple[Sequence[Any], StoreError | None]


def _send(commands: tuple[Command, ...], clients: Clients) -> _Sent:
    try:
        return retry_once(partial(_exchange, commands, clients), when=_is_stale), None
    except StoreError as error:
        return (), error
    except Exception as error:  # noqa: BLE001 - redis-py raises far more than RedisError (see _problem)
        return ((), StoreError(CLOSED)) if clients.closed else _failed(error, commands)


def _exchange(commands: tuple[Command, ...], clients: Clients) -> Sequence[Any]:
    with clients.use() as client:
        if len(commands) == 1:
            options = clients.options(client, commands[0])
            return [client.execute_command(*commands[0].words, **options)]
        pipeline = client.pipeline(transaction=False)
        try:
            for command in commands:
                pipeline.execute_command(*command.words, **clients.options(client, command))
            return _read(pipeline.execute(raise_on_error=False))
        finally:
            pipeline.reset()


def _send_apart(commands: Spread, clients: Clients) -> Sequence[Any]:
    """The commands of each node by themselves. Some may be carried out for the second time, which they allow."""
    replies: dict[int, Any] = {}
    try:
        with clients.use() as client:
            groups = _by_node(commands, client)
    except Exception:  # noqa: BLE001 - as in `_send`, which will say it
        groups = {_NOBODY: list(range(len(commands)))}
    for node, places in groups.items():
        some, problem = _send(tuple(commands[place] for place in places), clients)
        replies.update(_placed(node, places, some, problem))
    return [replies[place] for place in range(len(commands))]


async def _send_apart_async(commands: Spread, clients: AsyncClients) -> Sequence[Any]:
    """As `_send_apart`."""
    replies: dict[int, Any] = {}
    try:
        async with clients.use() as client:
            groups = _by_node(commands, client)
    except Exception:  # noqa: BLE001 - as in `_send`, which will say it
        groups = {_NOBODY: list(range(len(commands)))}
    for node, places in groups.items():
        some, problem = await _send_async(tuple(commands[place] for place in places), clients)
        replies.update(_placed(node, places, some, problem))
    return [replies[place] for place in range(len(commands))]


_NOBODY: Final = "nobody"


def _by_node(commands: Sequence[Command], client: Any) -> dict[str, list[int]]:
    """The places of the commands by the node that gets them."""
    groups: dict[str, list[int]] = {}
    for place, command in enumerate(commands):
        name = _NOBODY
        with suppress(RedisClusterException):  # No node serves this slot.
            name = client.get_node_from_key(command.key).name
        groups.setdefault(name, []).append(place)
    return groups


def _placed(node: str, places: Sequence[int], replies: Sequence[Any], problem: StoreError | None) -> dict[int, Any]:
    if problem is not None:
        return dict.fromkeys(places, Unreached(node, str(problem)))
    return dict(zip(places, replies, strict=True))


async def _send_async(commands: tuple[Command, ...], clients: AsyncClients) -> _Sent:
    try:
        exchange = partial(_exchange_async, commands, clients)
        return await aretry_once(exchange, when=_is_stale, before=partial(clients.refresh, commands)), None
    except StoreError as error:
        return (), error
    except Exception as error:  # noqa: BLE001 - redis-py raises far more than RedisError (see _problem)
        return ((), StoreError(CLOSED)) if clients.closed else _failed(error, commands)


async def _exchange_async(commands: tuple[Command, ...], clients: AsyncClients) -> Sequence[Any]:
    async with clients.use() as client:
        if len(commands) == 1:
            options = clients.options(client, commands[0])
            return [await client.execute_command(*commands[0].words, **options)]
        pipeline = client.pipeline(transaction=False)
        try:
            for command in commands:
                pipeline.execute_command(*command.words, **clients.options(client, command))
            return _read(await pipeline.execute(raise_on_error=False))
        finally:
            await pipeline.reset()


def _is_stale(error: BaseException) -> bool:
    """Whether the connection was there and is gone: closed by the server in good order, or broken.

    Not where there was none: a refusal, a name that is unknown, an unreachable network. Not after a timeout, nor
    after a reply, which redis-py also makes kinds of `ConnectionError`.
    """
    if type(error) is not redis.ConnectionError:
        return False
    cause = error.__cause__ or error.__context__
    return not isinstance(cause, OSError) or isinstance(cause, (ConnectionResetError, BrokenPipeError))


def _failed(error: Exception, commands: tuple[Command, ...]) -> _Sent:
    """A refusal of the only command is its reply; anything else ends the operation."""
    if isinstance(error, ResponseError) and len(commands) == 1:
        return [refusal(_text(error))], None
    return (), _problem(error)


def _read(replies: Sequence[Any]) -> Sequence[Any]:
    """The replies, the server's errors as `Refusal`; any other error among them is raised."""
    read: list[Any] = []
    for reply in replies:
        if isinstance(reply, ResponseError):
            read.append(refusal(_text(reply)))
        elif isinstance(reply, Exception):
            raise reply
        else:
            read.append(reply)
    return read


def _text(error: ResponseError) -> str:
    """The server's own words: redis-py cuts off the code of the errors it has a class for."""
    code = getattr(error, "status_code", None) or _CODES.get(type(error).__name__, "")
    return f"{code} {error}" if code else str(error)


_CODES = {
    "NoScriptError": "NOSCRIPT",
    "OutOfMemoryError": "OOM",
    "ReadOnlyError": "READONLY",
    "NoPermissionError": "NOPERM",
    "MovedError": "MOVED",
    "AskError": "ASK",
    "ClusterDownError": "CLUSTERDOWN",
    "MasterDownError": "MASTERDOWN",
    "TryAgainError": "TRYAGAIN",
    "ClusterCrossSlotError": "CROSSSLOT",
}


def _problem(error: Exception) -> StoreError:
    """One sentence: what is wrong, what to do. Of the error itself it says the type only."""
    match error:
        case ResponseError():  # To a command of redis-py's own, as it connects.
            return complaint(refusal(_text(error)))
        case AuthenticationError() | AuthorizationError():
            text = "Redis refused the user name or the password, or wants one: see the URL."
        case BusyLoadingError():
            text = "Redis is still loading its file: wait."
        case MaxConnectionsError():
            text = "All connections to Redis are in use: allow more with max_connections."
        case MasterNotFoundError():
            text = "The Sentinels name no primary: check the service's name, or wait for the failover to end."
        case redis.TimeoutError() | TimeoutError():
            text = "Redis did not answer in time."
        case redis.ConnectionError() | OSError():
            text = "Redis cannot be reached, or has closed the connection."
        case RedisClusterException() if isinstance(error.__cause__, redis.TimeoutError):
            text = "The cluster's nodes did not answer in time."
        case ClusterError():
            text = "The cluster's nodes sent a command from one to the next: the slot is moving."
        case RedisClusterException():  # Not a RedisError; nor is its SlotNotCoveredError.
            text = "The cluster does not serve this slot, or cannot be reached."
        case _:
            text = "Redis gave a reply that makes no sense, or its client failed."
    return StoreError(f"{text} ({type(error).__name__})")
