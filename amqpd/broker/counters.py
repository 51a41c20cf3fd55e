"""What has happened since the start, counted a batch at a time."""

from dataclasses import dataclass


@dataclass(slots=True)
class Counters:
    """Totals since the broker started; each only ever rises."""

    published: int = 0
    unroutable_dropped: int = 0
    unroutable_returned: int = 0
    confirmed: int = 0
    delivered: int = 0
    redelivered: int = 0
    got: int = 0
    got_empty: int = 0
    acknowledged: int = 0
    rejected: int = 0
    requeued: int = 0
    connections_opened: int = 0
    connections_closed: int = 0
    channels_opened: int = 0
    channels_closed: int = 0
    queues_created: int = 0
    queues_deleted: int = 0
