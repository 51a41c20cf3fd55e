"""Configuration: the settings and their defaults; `sources` reads them from file and environment.

Importing this package loads nothing but `msgspec`, so that the core and tests can say `Config()`.
"""

from amqpd.config.settings import (
    Alarms,
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
    "Alarms",
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
