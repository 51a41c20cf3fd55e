"""What the event exchange tells of connections and channels. Source: as of `broker/events.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from amqpd.wire import fields

if TYPE_CHECKING:
    from amqpd.session.channel import Channel
    from amqpd.session.connection import Session

PROTOCOL = "{0,9,1}"


def connection_created(session: Session) -> None:
    """A client has connected."""
    events = session.broker.events
    if events is None:
        return
    events.tell(
        "connection.created",
        *_of(session),
        fields.text("type", "network"),
        *_ends(session),
        fields.text("protocol", PROTOCOL),
        fields.text("auth_mechanism", session.mechanism),
        fields.boolean("ssl", False),
        fields.text("user", session.user.name),
        fields.text("vhost", session.vhost.name),
        fields.long("timeout", session.heartbeat_s),
        fields.long("frame_max", session.frame_bytes_max),
        fields.long("channel_max", session.channels_max),
        fields.long("connected_at", session.connected_ms),
        fields.text("node", session.broker.config.node.name),
        user=session.user,
    )


def connection_closed(session: Session) -> None:
    """It has gone."""
    events = session.broker.events
    if events is not None:
        node = fields.text("node", session.broker.config.node.name)
        events.tell("connection.closed", *_of(session), node, user=session.user)


def channel_created(channel: Channel) -> None:
    """A channel was opened."""
    session = channel.session
    if session.broker.events is not None:
        session.broker.events.tell(
            "channel.created",
            fields.text("pid", channel.name),
            fields.text("name", channel.name),
            fields.text("connection", session.name),
            fields.long("number", channel.number),
            fields.text("user", session.user.name),
            fields.text("vhost", session.vhost.name),
            user=session.user,
        )


def channel_closed(channel: Channel) -> None:
    """It is closed."""
    session = channel.session
    if session.broker.events is not None:
        session.broker.events.tell(
            "channel.closed", fields.text("pid", channel.name), user=session.user
        )


def authentication(session: Session, name: str, mechanism: str, *, succeeded: bool) -> None:
    """Somebody has logged in, or has not."""
    events = session.broker.events
    if events is None:
        return
    error = () if succeeded else (fields.text("error", f"user '{name}' - invalid credentials"),)
    events.tell(
        f"user.authentication.{'success' if succeeded else 'failure'}",
        fields.text("name", name),
        fields.text("connection_name", session.name),
        fields.text("connection_type", "network"),
        *_ends(session),
        fields.text("protocol", PROTOCOL),
        fields.text("auth_mechanism", mechanism),
        fields.boolean("ssl", False),
        *error,
    )


def _of(session: Session) -> tuple[bytes, ...]:
    said = session.client_properties.get("connection_name", "")
    name = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
    return (
        fields.text("name", session.name),
        fields.text("pid", session.name),
        fields.text("user_provided_name", name),
    )


def _ends(session: Session) -> list[bytes]:
    """The addresses of both ends, out of the connection's name; without ports for a Unix socket."""
    told: list[bytes] = []
    for prefix, end in zip(("peer_", ""), session.name.split(" -> ", 1), strict=True):
        host, _, port = end.rpartition(":")
        if not port.isdecimal():
            told.append(fields.text(f"{prefix}host", end))
            continue
        told.append(fields.text(f"{prefix}host", host.strip("[]")))
        told.append(fields.long(f"{prefix}port", int(port)))
    return told
