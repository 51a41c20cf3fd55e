"""Configuration: the settings and their defaults; `sources` reads them from file and environment.

Importing this package loads nothing but `msgspec`, so that the core and tests can say `Config()`.
"""

from amqpd.config.settings import (
    Compatibility,
    Config,
    Connection,
    Consumer,
    Limits,
    Listen,
    Log,
    Message,
    Node,
    Storage,
    User,
    Vhost,
)

__all__ = [
    "Compatibility",
    "Config",
    "Connection",
    "Consumer",
    "Limits",
    "Listen",
    "Log",
    "Message",
    "Node",
    "Storage",
    "User",
    "Vhost",
]
