"""What happens to the topology, as the journal hands it to the store and the store brings it back.

Arguments are encoded field tables, so that no type is lost.
"""

from __future__ import annotations

from typing import NamedTuple


class VhostAdded(NamedTuple):
    """A virtual host was made."""

    name: str


class ExchangeAdded(NamedTuple):
    """A durable exchange was declared."""

    vhost: str
    name: str
    type: str
    auto_delete: bool
    internal: bool
    arguments: bytes


class ExchangeRemoved(NamedTuple):
    """A durable exchange is gone, and the bindings that leave from it."""

    vhost: str
    name: str


class QueueAdded(NamedTuple):
    """A durable queue was declared.

    Attributes:
        lines: how many lines its messages stand in. Each has a queue id of its own: that of the
            queue, and those that follow.
    """

    queue_id: int
    vhost: str
    name: str
    auto_delete: bool
    arguments: bytes
    lines: int = 1


class QueueRemoved(NamedTuple):
    """A durable queue is gone, and its messages."""

    queue_id: int
    lines: int = 1


class Bound(NamedTuple):
    """A binding between durable ends was made."""

    vhost: str
    source: str
    destination_kind: str
    destination: str
    binding_key: str
    arguments: bytes


class Unbound(NamedTuple):
    """A binding between durable ends is gone."""

    vhost: str
    source: str
    destination_kind: str
    destination: str
    binding_key: str
    arguments: bytes


Operation = (
    VhostAdded | ExchangeAdded | ExchangeRemoved | QueueAdded | QueueRemoved | Bound | Unbound
)
