"""Listening sockets: TCP (IPv4, IPv6) and Unix, and what their clients are called."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterable

import trio

from amqpd.config.addresses import Address, TcpAddress, UnixAddress
from amqpd.log import EventLog
from amqpd.server.broker_server import BrokerServer
from amqpd.server.connection import Connection
from amqpd.session.connection import Peer

log = EventLog("listener")

REFUSED_PAUSE_S = 0.5


class CannotListen(Exception):
    """An address cannot be listened on; the text says which and why."""


async def open_listeners(addresses: Iterable[Address], backlog: int) -> list[socket.socket]:
    """A listening socket for each address; a host name may have several.

    Raises:
        CannotListen: and then none is left open.
    """
    opened: list[socket.socket] = []
    try:
        for address in addresses:
            if isinstance(address, UnixAddress):
                opened.append(_open_unix(address, backlog))
            else:
                opened += await _open_tcp(address, backlog)
    except BaseException:
        close_listeners(opened)
        raise
    return opened


async def _open_tcp(address: TcpAddress, backlog: int) -> list[socket.socket]:
    opened: list[socket.socket] = []
    try:
        found = await trio.socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        for family, kind, protocol, _, where in found:
            listener = socket.socket(family, kind, protocol)
            opened.append(listener)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                # [::] is every address, as RabbitMQ listens; a plain IPv6 address is only itself.
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, address.host != "::")
            listener.bind(where)
            listener.listen(backlog)
            listener.setblocking(False)
    except OSError as error:
        close_listeners(opened)
        raise CannotListen(
            f"cannot listen on {address.host} port {address.port}: {error.strerror or error}"
        ) from error
    return opened


def _open_unix(address: UnixAddress, backlog: int) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(address.path)
        listener.bind(address.path)
        listener.listen(backlog)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise CannotListen(
            f"cannot listen on unix:{address.path}: {error.strerror or error}"
        ) from error
    return listener


def _remove_stale(path: str) -> None:
    """Removes the socket file of a process that has gone; one in use is left alone."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)


def close_listeners(listeners: Iterable[socket.socket]) -> None:
    """Closes them, and removes the files of Unix sockets."""
    for listener in listeners:
        path = listener.getsockname() if listener.family == socket.AF_UNIX else ""
        listener.close()
        if path and os.path.exists(path):
            os.unlink(path)


def uri(listener: socket.socket) -> str:
    """Where clients find it."""
    if listener.family == socket.AF_UNIX:
        return f"unix:{listener.getsockname()}"
    host, port = listener.getsockname()[:2]
    return f"amqp://[{host}]:{port}" if ":" in host else f"amqp://{host}:{port}"


async def accept(server: BrokerServer, listener: socket.socket) -> None:
    """Takes clients until it is cancelled."""
    while True:
        await trio.lowlevel.wait_readable(listener)
        try:
            sock, _ = listener.accept()
            _start(server, sock)
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            continue
        except OSError as error:
            # No room for another socket, or a network error that the system hands on here. Either
            # may pass, and the clients that are there must not suffer for it.
            log.error("cannot accept a connection", error=error.strerror)
            await trio.sleep(REFUSED_PAUSE_S)


def _start(server: BrokerServer, sock: socket.socket) -> None:
    sock.setblocking(False)
    try:
        if sock.family != socket.AF_UNIX:
            # Small frames must not wait for the client's ack: a window of acks would stall 40 ms.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer = _peer(sock)
    except OSError as error:  # it has gone already
        sock.close()
        log.debug("client is gone", error=error.strerror)
        return
    connection = Connection(server, sock, peer)
    server.connections[connection.session] = connection

    async def run() -> None:
        try:
            await connection.run()
        finally:
            server.forget(connection.session)

    server.start(run)
    server.turn()


def _peer(sock: socket.socket) -> Peer:
    if sock.family == socket.AF_UNIX:
        path = sock.getsockname()
        return Peer(f"unix:{path} -> unix:{path}", True)
    client, own = sock.getpeername(), sock.getsockname()
    host = client[0].removeprefix("::ffff:")
    is_loopback = host == "::1" or host.startswith("127.")
    return Peer(f"{host}:{client[1]} -> {own[0].removeprefix('::ffff:')}:{own[1]}", is_loopback)
