"""Users: who may log in, from where, and what they may do in a vhost."""

import hmac
import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Permissions:
    """Three patterns, searched for in the name of a resource; an empty one matches no name.

    Source: RabbitMQ, "Authentication, authorisation, access control".
    """

    configure: re.Pattern[str]
    write: re.Pattern[str]
    read: re.Pattern[str]

    @classmethod
    def of(cls, configure: str, write: str, read: str) -> "Permissions":
        """From regular expressions as text; raises re.error for one that cannot be compiled."""
        return cls(*(re.compile(pattern or "^$") for pattern in (configure, write, read)))


class User:
    """A user of the broker.

    Attributes:
        loopback_only: may connect only from this machine.
        permissions: by the name of the vhost.
        connections_max, channels_max: how many it may have at a time; -1 for any number.
        connections, channels: how many it has.
    """

    def __init__(
        self, name: str, password: str, tags: tuple[str, ...], *, loopback_only: bool
    ) -> None:
        self.name = name
        self.tags = tags
        self.loopback_only = loopback_only
        self.permissions: dict[str, Permissions] = {}
        self.connections_max = self.channels_max = -1
        self.connections = self.channels = 0
        self._password = password.encode()

    def has_password(self, password: bytes) -> bool:
        """Compares in constant time."""
        return hmac.compare_digest(self._password, password)
