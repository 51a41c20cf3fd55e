"""How much of all messages is held in memory, and how much of them one queue may hold."""

# What a message costs in memory beside its body.
MESSAGE_OVERHEAD_BYTES = 165

# What every queue may hold, however full the memory is.
WINDOW_BYTES_MIN = 65_536


class Memory:
    """What the backlogs of all queues hold together.

    Attributes:
        held: bytes of ready messages in memory, about.
        queue_max: what one queue may hold while there is room, in bytes.
        all_max: what all queues may hold together; over it each may hold WINDOW_BYTES_MIN.
    """

    __slots__ = ("_least", "all_max", "held", "queue_max")

    def __init__(self, queue_max: int, all_max: int) -> None:
        self.queue_max = queue_max
        self.all_max = all_max
        self.held = 0
        self._least = min(queue_max, WINDOW_BYTES_MIN)

    def window(self) -> int:
        """The bytes that one queue may hold now."""
        return self.queue_max if self.held < self.all_max else self._least
