"""Who acts, and whether they may: the three permissions of RabbitMQ on exchanges and queues."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from amqpd import errors
from amqpd.broker.users import User

if TYPE_CHECKING:
    from amqpd.broker.queues.queue import Queue
    from amqpd.broker.vhost import Vhost


class Owner(Protocol):
    """Who can own exclusive queues: a session."""

    exclusive_queues: dict[Queue, None]

    @property
    def name(self) -> str:
        """What it is called where people look."""


class Actor(NamedTuple):
    """On whose behalf something is done.

    Attributes:
        owner: the session whose exclusive queues are open to it, None outside a session.
    """

    user: User
    vhost: Vhost
    owner: Owner | None


def system_actor(vhost: Vhost) -> Actor:
    """The broker itself, as RabbitMQ names it."""
    return Actor(User("rmq-internal", "", (), loopback_only=False), vhost, None)


def check_any(actor: Actor, kind: str, name: str) -> None:
    """Refuses unless the user has one of the permissions on the resource (a passive declare).

    Raises:
        ChannelException: 403.
    """
    permissions = actor.user.permissions.get(actor.vhost.name)
    if permissions is None or not any(
        getattr(permissions, each).search(name) for each in ("write", "read")
    ):
        check(actor, "configure", kind, name)


def check(actor: Actor, permission: str, kind: str, name: str) -> None:
    """Refuses unless the user has the permission on the resource.

    Args:
        permission: "configure", "write" or "read".
        kind: "exchange" or "queue".

    Raises:
        ChannelException: 403.
    """
    permissions = actor.user.permissions.get(actor.vhost.name)
    known_as = name or "amq.default"
    if permissions is None or not getattr(permissions, permission).search(known_as):
        raise errors.access_refused(
            f"{permission} access to {kind} '{known_as if kind == 'exchange' else name}' in vhost "
            f"'{actor.vhost.name}' refused for user '{actor.user.name}'"
        )
