"""What a store has kept, of which a broker is made again when it starts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from amqpd.broker.journal import Standing
from amqpd.broker.operations import Operation

if TYPE_CHECKING:
    from amqpd.broker.duplicates import Known
    from amqpd.broker.queues.retention import Segment


class Recovered(NamedTuple):
    """All that a broker needs to know of what is kept; messages are not.

    Attributes:
        operations: that make the topology: vhosts, exchanges, queues, then bindings.
        standings: of the lines of queues, by queue id.
        last_queue_id: larger ones were not used of late.
        segments: those of streams that are full, in their order, by queue id.
        keys: of messages, by which duplicates of them are known, in their order, by queue id.
        places: where consumers of streams are to go on, by queue id and their tags.
    """

    operations: list[Operation]
    standings: Mapping[int, Standing]
    last_queue_id: int
    segments: Mapping[int, list[Segment]]
    places: Mapping[int, dict[str, int]]
    keys: Mapping[int, list[Known]]


NOTHING: Final = Recovered([], {}, 0, {}, {}, {})
