"""What the broker knows of a message: its envelope and its content.

A message is a plain tuple, because one is made for each publish and nothing else may be:

    (envelope, header, body, persistent)

`header` and `body` are the pieces that `wire/content.py` describes. Messages are immutable and
shared between queues; what a queue knows of a message (its number, whether it was delivered before)
stands beside it.
"""

from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from amqpd.wire.content import PIECE_OVERHEAD_BYTES, Body
from amqpd.wire.prefixes import deliver_suffix

Message = tuple["Envelope", bytes, Body, bool]
ENVELOPE: Final = 0
HEADER: Final = 1
BODY: Final = 2
PERSISTENT: Final = 3

WAS_DEAD: Final = 1
WAS_PUT_OFF: Final = 2


class Envelope(Struct, gc=False, eq=False):
    """Where a message was published to; shared by all messages of one address.

    Python's garbage collector knows neither envelopes (`gc=False`) nor, since nothing else in them
    could be part of a cycle, messages: a pass over a million of them would take 100 ms.

    Attributes:
        exchange: name of the exchange, "" for the default exchange.
        routing_key: as the publisher gave it.
        past: which headers are the broker's word: WAS_DEAD, what they say of deaths; WAS_PUT_OFF,
            what they say of how often they came back to the queue that they are in.
        suffixes: ends of a basic.deliver frame, for first deliveries and for redeliveries.
    """

    exchange: str
    routing_key: str
    past: int = 0
    suffixes: tuple[bytes, bytes] = (b"", b"")

    def __post_init__(self) -> None:
        self.suffixes = (
            deliver_suffix(False, self.exchange, self.routing_key),
            deliver_suffix(True, self.exchange, self.routing_key),
        )


def bodies_size(messages: Sequence[Message]) -> int:
    """The size of the bodies of all messages, in bytes."""
    return sum([len(message[BODY]) - PIECE_OVERHEAD_BYTES for message in messages if message[BODY]])


def body_bytes(message: Message) -> int:
    """The size of a message's body."""
    return len(message[BODY]) - PIECE_OVERHEAD_BYTES if message[BODY] else 0
