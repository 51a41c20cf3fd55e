"""Reading messages back from the store: what is asked for, and the answer."""

from collections.abc import Sequence
from typing import NamedTuple

from amqpd.broker.message import Message


class Due(NamedTuple):
    """When a deferred message is due, in milliseconds since 1970, and its number: their order."""

    ms: int
    number: int


class Fetch(NamedTuple):
    """Messages of a queue that are wanted in memory again. All of them are committed.

    Attributes:
        first: the smallest number that is wanted.
        below: no message with this number or a larger one is wanted.
        messages_max: how many at most.
        bytes_max: how many bytes of headers and bodies at most, but one message in any case.
        detailed: the details of the messages matter.
        since_ms: no message is wanted that comes before the first one that was stored then or
            later, in milliseconds since 1970.
        newest: if it is not 0, no messages are wanted but numbers: for each key that a message has
            between `first` and `below`, those of all messages with this key but the newest ones.
        after: of a deferred line: wanted are those that are due after this one, the first ones;
            `first` and `below` say nothing then.
    """

    queue_id: int
    first: int
    below: int
    messages_max: int
    bytes_max: int
    detailed: bool = False
    since_ms: int = 0
    newest: int = 0
    after: Due | None = None


class Details(NamedTuple):
    """What is known of messages beside what they are.

    Attributes:
        enqueued_ms: when each was stored, in milliseconds since 1970.
        returned: how often each has come back from a consumer.
        due_ms: of a deferred line: when each is due, in milliseconds since 1970.
    """

    enqueued_ms: Sequence[int]
    returned: Sequence[int]
    due_ms: Sequence[int] = ()


class Fetched(NamedTuple):
    """The answer: messages in the order of their numbers, or of a deferred line in that in which
    they are due; the two lists run side by side.

    Attributes:
        damaged: numbers of messages that are not as they were written.
        read_below: all stored messages with numbers from `Fetch.first` to below this are in here.
            Of a deferred line: `Fetch.below` if all that are wanted are in here, else 0.
        size: of the bodies of the messages whose numbers alone were wanted.
        details: of the messages, side by side with them; None if the fetch did not ask for it and
            none of them has a TTL of its own.
    """

    numbers: list[int]
    messages: list[Message]
    damaged: list[int]
    read_below: int
    details: Details | None = None
    size: int = 0
