"""The connection class: from the protocol header to connection.open-ok, and both ways of closing.

Source: AMQP 0-9-1 section 2.2.4; RabbitMQ, "Access control" (mechanisms), "Connections".
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from amqpd import errors
from amqpd.broker.topology.removal import remove_queue
from amqpd.log import EventLog
from amqpd.session import events
from amqpd.version import VERSION
from amqpd.wire.constants import (
    PROTOCOL_HEADER,
    PROTOCOL_HEADER_0_9,
    PROTOCOL_HEADER_AMQP_1_SASL,
)
from amqpd.wire.methods import Connection, Method, decode_table, encode_method

if TYPE_CHECKING:
    from amqpd.broker.users import User
    from amqpd.broker.vhost import Vhost
    from amqpd.session.connection import Session

log = EventLog("session")

FRAME_BYTES_BEFORE_TUNE = 8192
FRAME_BYTES_MIN = 8192
CHANNELS_MIN = 1
MECHANISMS = ("PLAIN", "AMQPLAIN")

# Clients look at product and version to decide what they may use, so both are RabbitMQ's.
PRODUCT = "RabbitMQ"
PRODUCT_VERSION = "4.2.0"

# States in which a client that does wrong is told nothing: it hangs in silence for a while, so that
# it costs time to guess passwords.
UNTRUSTED = frozenset(("header", "starting", "tuning"))

CAPABILITIES = {
    "publisher_confirms": True,
    "exchange_exchange_bindings": True,
    "basic.nack": True,
    "consumer_cancel_notify": True,
    "connection.blocked": True,
    "consumer_priorities": True,
    "authentication_failure_close": True,
    "per_consumer_qos": True,
    "direct_reply_to": True,
}


def protocol_header(session: Session, data: bytes) -> int:
    """Answers the first eight bytes; how many were taken (0 while they are not all there)."""
    known = (PROTOCOL_HEADER, PROTOCOL_HEADER_0_9)
    if len(data) < len(PROTOCOL_HEADER):
        if not PROTOCOL_HEADER.startswith(data[:4]):
            _refuse_header(session, data)
        return 0
    header = data[:8]
    if header not in known:
        _refuse_header(session, header)
        return 0
    session.state = "starting"
    properties: dict[str, Any] = {
        "capabilities": CAPABILITIES,
        "cluster_name": session.broker.config.node.name,
        "copyright": "Copyright (c) the amqpd authors",
        "information": "Licensed under Apache-2.0. This is amqpd, compatible with RabbitMQ.",
        "platform": f"Python {platform.python_version()}",
        "product": PRODUCT,
        "version": PRODUCT_VERSION,
        "amqpd_version": VERSION,
    }
    _say(
        session,
        Connection.Start(
            version_major=0,
            version_minor=9,
            server_properties=properties,
            mechanisms=" ".join(MECHANISMS),
            locales="en_US",
        ),
    )
    return 8


def _refuse_header(session: Session, data: bytes) -> None:
    """Says which protocol would be right, and hangs up."""
    what = "an unknown protocol"
    if data[:4] in (b"GET ", b"POST", b"HEAD", b"PUT ", b"DELE", b"OPTI"):
        what = "HTTP"
    elif data[:2] == b"\x16\x03":
        what = "TLS"
    log.warning(
        "refused a client that does not speak AMQP 0-9-1",
        connection=session.peer.name,
        spoke=what,
        bytes=data[:8].hex(),
    )
    speaks_amqp_0 = data[:6] == b"AMQP\x00\x00"
    session.say(PROTOCOL_HEADER if speaks_amqp_0 else PROTOCOL_HEADER_AMQP_1_SASL)
    session.end()


def take(session: Session, method: Method) -> None:
    """A method on channel 0.

    Raises:
        ConnectionException: as RabbitMQ would close the connection.
    """
    if session.state == "closed":
        if isinstance(method, Connection.Close):
            _say(session, Connection.CloseOk())
        return
    if session.state == "closing":
        if isinstance(method, Connection.CloseOk):
            session.end()
        elif isinstance(method, Connection.Close):
            _say(session, Connection.CloseOk())
        return
    if isinstance(method, Connection.Close):
        _closed_by_client(session, method)
        return
    handler = _STEPS.get((session.state, type(method)))
    if handler is None:
        raise errors.channel_error(f"unexpected method in connection state {session.state}")
    handler(session, method)


def _start_ok(session: Session, method: Connection.StartOk) -> None:
    session.client_properties = method.client_properties or {}
    mechanism, response = method.mechanism, method.response or ""
    if mechanism not in MECHANISMS:
        raise errors.command_invalid(f"unknown authentication mechanism '{mechanism}'")
    data = response if isinstance(response, bytes) else response.encode()
    name, password = _plain(data) if mechanism == "PLAIN" else _amqplain(data)
    user = _log_in(session, name, password)
    events.authentication(session, name, mechanism, succeeded=user is not None)
    if user is None:
        _refuse_login(session, mechanism)
        return
    session.user, session.mechanism = user, mechanism
    session.state = "tuning"
    config = session.broker.config.connection
    _say(
        session,
        Connection.Tune(
            channel_max=config.channels_max,
            frame_max=config.frame_bytes_max,
            heartbeat=config.heartbeat_s,
        ),
    )


def _plain(response: bytes) -> tuple[str, bytes]:
    """User and password of a SASL PLAIN response (RFC 4616 with an empty authzid)."""
    parts = response.split(b"\x00")
    if len(parts) != 3 or parts[0]:
        raise errors.syntax_error("response of PLAIN is not NUL, user, NUL, password")
    return parts[1].decode("utf-8", "replace"), parts[2]


def _amqplain(response: bytes) -> tuple[str, bytes]:
    """User and password of an AMQPLAIN response: a field table without its length."""
    try:
        table = decode_table(len(response).to_bytes(4, "big") + response)
    except (ValueError, IndexError) as error:
        raise errors.syntax_error(f"response of AMQPLAIN is not a table: {error}") from error
    login, password = table.get("LOGIN"), table.get("PASSWORD")
    if not isinstance(login, str) or not isinstance(password, str):
        raise errors.syntax_error("response of AMQPLAIN lacks LOGIN or PASSWORD")
    return login, password.encode()


def _log_in(session: Session, name: str, password: bytes) -> User | None:
    user = session.broker.users.get(name)
    why = None
    if user is None or not user.has_password(password):
        why = "unknown user or wrong password"
    elif user.loopback_only and not session.peer.is_loopback:
        why = "this user may only connect from this machine (user.loopback_users)"
    if why is None:
        return user
    log.error("login refused", connection=session.peer.name, user=name, reason=why)
    return None


def _refuse_login(session: Session, mechanism: str) -> None:
    """The reason stays in the log; the client is told only if it said that it wants to know."""
    if session.client_can("authentication_failure_close"):
        error = errors.login_refused(
            f"Login was refused using authentication mechanism {mechanism}. For details see the "
            "broker logfile."
        )
        session.close(error)
    else:
        session.silence()


def _tune_ok(session: Session, method: Connection.TuneOk) -> None:
    config = session.broker.config.connection
    _check_negotiated("frame_max", method.frame_max, FRAME_BYTES_MIN, config.frame_bytes_max)
    _check_negotiated("channel_max", method.channel_max, CHANNELS_MIN, config.channels_max)
    session.frame_bytes_max = method.frame_max
    session.channels_max = method.channel_max
    session.heartbeat_s = method.heartbeat
    session.state = "opening"


def _check_negotiated(name: str, value: int, least: int, most: int) -> None:
    detail = " (no limit)" if name == "channel_max" and value == 0 else ""
    words = f"negotiated {name} = {value}{detail} is"
    error = None
    if value and value < least:
        error = errors.not_allowed(f"{words} lower than the minimum allowed value ({least})")
    elif most and (value == 0 or value > most):
        error = errors.not_allowed(f"{words} higher than the maximum allowed value ({most})")
    if error is not None:
        error.method = (10, 30)  # RabbitMQ blames connection.tune
        raise error


def _open(session: Session, method: Connection.Open) -> None:
    counters = session.broker.counters
    limit = session.broker.config.connection.connections_max
    if limit and counters.connections_opened - counters.connections_closed >= limit:
        raise errors.not_allowed(f"connection refused: node connection limit ({limit}) is reached")
    vhost = session.broker.vhosts.get(method.virtual_host)
    if vhost is None:
        raise errors.not_allowed(f"vhost {method.virtual_host} not found")
    if vhost.name not in session.user.permissions:
        raise errors.not_allowed(
            f"access to vhost '{vhost.name}' refused for user '{session.user.name}'"
        )
    _check_limits(vhost, session.user)
    session.vhost = vhost
    counters.connections_opened += 1
    vhost.connections += 1
    session.user.connections += 1
    log.info(
        "connection opened",
        connection=session.peer.name,
        user=session.user.name,
        vhost=vhost.name,
        name=session.client_properties.get("connection_name", ""),
    )
    _say(session, Connection.OpenOk())
    session.start_running()
    events.connection_created(session)


def _check_limits(vhost: Vhost, user: User) -> None:
    """Refuses a connection that would be one too many; raises ConnectionException 530."""
    if 0 <= vhost.connections_max <= vhost.connections:
        raise errors.not_allowed(
            f"access to vhost '{vhost.name}' refused for user '{user.name}': connection limit "
            f"({vhost.connections_max}) is reached"
        )
    if 0 <= user.connections_max <= user.connections:
        raise errors.not_allowed(
            f"connection refused for user '{user.name}': user connection limit "
            f"({user.connections_max}) is reached"
        )


def leave(session: Session) -> None:
    """A session that was running ends: its exclusive queues go."""
    session.broker.counters.connections_closed += 1
    events.connection_closed(session)
    session.vhost.connections -= 1
    session.user.connections -= 1
    for queue in list(session.exclusive_queues):
        remove_queue(session.broker, session.actor, queue)


def _closed_by_client(session: Session, method: Connection.Close) -> None:
    session.end_batch()
    session.shut()
    _say(session, Connection.CloseOk())
    session.linger()


def _say(session: Session, method: Method) -> None:
    session.say(encode_method(0, method))


_STEPS: dict[tuple[str, type[Method]], Callable[[Session, Any], None]] = {
    ("starting", Connection.StartOk): _start_ok,
    ("tuning", Connection.TuneOk): _tune_ok,
    ("opening", Connection.Open): _open,
}
