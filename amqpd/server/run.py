"""The broker as a process: listeners, signals, and the order in which it stops."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from random import Random
from secrets import randbits
from time import time

import trio

from amqpd.config import Config
from amqpd.config.addresses import listen_addresses
from amqpd.config.sources import Sources
from amqpd.core import Core
from amqpd.log import EventLog
from amqpd.server.alarms import watch
from amqpd.server.banner import print_ready
from amqpd.server.broker_server import BrokerServer
from amqpd.server.listeners import (
    CannotListen,
    accept,
    close_listeners,
    open_listeners,
    uri,
)
from amqpd.server.memory import settle_memory
from amqpd.server.store import Place
from amqpd.storage.database import damaged_file
from amqpd.storage.errors import StorageError

log = EventLog("server")

SETTLE_S = 10.0  # the store has this long to commit what is left when the broker stops
GOODBYE_S = 4.0  # clients have this long to answer the connection.close of a stopping broker


def serve(config: Config, sources: Sources) -> int:
    """Runs the broker until SIGTERM or SIGINT; the exit status.

    0 after a graceful stop, 1 when a second signal cut it short or it could not start, 74
    (EX_IOERR) when the store has failed or has no room for what is left to write.
    """
    try:
        place = Place(config)
        try:
            status = trio.run(_serve, config, sources, place)
        finally:
            place.close()
    except (CannotListen, StorageError) as error:
        print(f"amqpd: {error}", file=sys.stderr)
        return 1
    log.info("stopped")
    return status


async def _serve(config: Config, sources: Sources, place: Place) -> int:
    core = _core(config, place)
    listeners = await open_listeners(listen_addresses(config.listen), config.listen.backlog)
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            server = BrokerServer(config, core, place, nursery)
            accepting = trio.CancelScope()
            nursery.start_soon(_accept_all, accepting, server, listeners)
            nursery.start_soon(server.tick)
            nursery.start_soon(_watch, config, place, server)
            settle_memory()
            print_ready(
                [uri(listener) for listener in listeners],
                kept=place.words,
                config_file=sources.file,
            )
            await _reason_to_stop(server, signals)
            accepting.cancel()
            close_listeners(listeners)
            graceful = await _say_goodbye(server, signals)
            nursery.cancel_scope.cancel()
        core.stopped()
        settled = False
        with trio.move_on_after(SETTLE_S):
            settled = await server.settle()
    if not settled:
        log.error("what has happened of late could not be written; nothing of it was promised")
        return os.EX_IOERR
    return 0 if graceful else 1


def _core(config: Config, place: Place) -> Core:
    """The broker as it was.

    Raises:
        StorageError: what was kept does not fit together.
    """
    now = trio.current_time()
    random = Random(randbits(256))
    try:
        return Core(config, random, time() - now, now=now, recovered=place.recovered)
    except ValueError as error:
        if place.directory is None:
            raise
        raise damaged_file(place.directory.file, error) from error


async def _watch(config: Config, place: Place, server: BrokerServer) -> None:
    directory = place.directory.path if place.directory else None
    await watch(config, directory, server.alarmed)


async def _reason_to_stop(server: BrokerServer, signals: AsyncIterator[int]) -> None:
    """Waits for a signal, or for the store to fail."""
    async with trio.open_nursery() as nursery:

        async def until_signal() -> None:
            await _next_signal(signals, "stopping")
            nursery.cancel_scope.cancel()

        nursery.start_soon(until_signal)
        await server.store_failed.wait()
        nursery.cancel_scope.cancel()


async def _accept_all(
    scope: trio.CancelScope, server: BrokerServer, listeners: list[socket.socket]
) -> None:
    with scope:
        async with trio.open_nursery() as nursery:
            for listener in listeners:
                nursery.start_soon(accept, server, listener)


async def _next_signal(signals: AsyncIterator[int], what: str) -> None:
    number = await anext(signals)
    log.info(what, signal=signal.Signals(number).name)


async def _say_goodbye(server: BrokerServer, signals: AsyncIterator[int]) -> bool:
    """Asks all clients to go; False if a second signal came before they had."""
    server.core.shutdown("shutdown", trio.current_time())
    server.turn()
    server.relieve()
    hurried = False

    async def hurry(scope: trio.CancelScope) -> None:
        nonlocal hurried
        await _next_signal(signals, "stopping at once")
        hurried = True
        scope.cancel()

    with trio.move_on_after(GOODBYE_S) as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hurry, scope)
            while server.connections:
                await server.connection_ended.wait()
            nursery.cancel_scope.cancel()
    return not hurried
