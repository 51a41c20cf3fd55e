"""The broker as a process: listeners, signals, and the order in which it stops."""

from __future__ import annotations

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
from amqpd.storage.memory import MemoryStore

log = EventLog("server")

GOODBYE_S = 4.0  # clients have this long to answer the connection.close of a stopping broker


def serve(config: Config, sources: Sources) -> int:
    """Runs the broker until SIGTERM or SIGINT; the exit status.

    0 after a graceful stop, 1 when a second signal cut it short or it could not listen.
    """
    try:
        return trio.run(_serve, config, sources)
    except CannotListen as error:
        print(f"amqpd: {error}", file=sys.stderr)
        return 1


async def _serve(config: Config, sources: Sources) -> int:
    listeners = await open_listeners(listen_addresses(config.listen), config.listen.backlog)
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            core = Core(config, Random(randbits(256)), time() - trio.current_time())
            server = BrokerServer(config, core, MemoryStore(), nursery)
            accepting = trio.CancelScope()
            nursery.start_soon(_accept_all, accepting, server, listeners)
            nursery.start_soon(server.tick)
            settle_memory()
            print_ready(
                [uri(listener) for listener in listeners],
                kept="everything in memory, gone when it stops",
                config_file=sources.file,
            )
            await _next_signal(signals, "stopping")
            accepting.cancel()
            close_listeners(listeners)
            graceful = await _say_goodbye(server, signals)
            nursery.cancel_scope.cancel()
    log.info("stopped")
    return 0 if graceful else 1


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
