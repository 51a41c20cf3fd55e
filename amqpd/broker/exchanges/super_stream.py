"""The exchange of a super stream: a hash of the routing key says which partition a message goes to.

`broker/topology/super_streams.py` declares and binds the partitions.
"""

from __future__ import annotations

from typing import Final

from amqpd import errors
from amqpd.broker.exchanges.spread import ModulusHash
from amqpd.wire.arguments import Arguments
from amqpd.wire.tables import INTEGER_TYPES

SUPER_STREAM: Final = "x-super-stream"
PARTITIONS: Final = "x-partitions"
PARTITIONS_MAX: Final = 1000  # as in RabbitMQ 4.3


class SuperStream(ModulusHash):
    """The router of `x-super-stream` exchanges."""


def check_partitions(arguments: Arguments) -> None:
    """Refuses a number of partitions that cannot be; ChannelException 406."""
    value = arguments.values.get(PARTITIONS)
    is_integer = isinstance(value, int) and arguments.types[PARTITIONS] in INTEGER_TYPES
    if value is None or not is_integer or not 1 <= value <= PARTITIONS_MAX:
        shown = "none" if value is None else repr(value)
        raise errors.precondition_failed(
            f"invalid arg '{PARTITIONS}': expected a number from 1 to {PARTITIONS_MAX}, got {shown}"
        )
