"""How the process holds memory: settings of the collector and of the allocator, made once."""

import ctypes
import gc

# The garbage collector need not look at messages (broker/message.py), but at all that is new it
# does, once, and nothing goes on meanwhile: 15 ms for 140,000 objects. Python has it look when so
# many more objects were made than freed, which in a broker that makes as many as it frees may be
# never; then so many are new at last. So it is asked to look every now and then, and finds little.
COLLECT_AFTER_ALLOCATIONS = 50_000
COLLECTIONS = 10, 10
COLLECT_EVERY_S = 0.2

# Parameters of glibc's mallopt(3). With its defaults a broker that passes large messages gives
# their memory back to the system and takes it again a hundred times a second, and most of its time
# goes into page faults.
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
KEPT_BYTES_MAX = 64 * 1024 * 1024
MAPPED_BYTES_MIN = 32 * 1024 * 1024


def settle_memory() -> None:
    """Call when the broker is set up, before the first client."""
    # What was made until now lives as long as the process: the collector need not look at it.
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER_ALLOCATIONS, *COLLECTIONS)
    _keep_freed_memory()


class Something:
    """One more object that the collector knows."""

    __slots__ = ("__dict__",)


class Collector:
    """Has Python's garbage collector look at what is new while the broker works."""

    def __init__(self) -> None:
        self._due = 0.0

    def look(self, now: float) -> None:
        """Call after every turn.

        Args:
            now: seconds on any clock that does not go back.
        """
        if now < self._due:
            return
        self._due = now + COLLECT_EVERY_S
        # Unlike `gc.collect` this looks at older objects, too, if Python finds that it is time.
        gc.set_threshold(1, *COLLECTIONS)
        Something()
        Something()
        gc.set_threshold(COLLECT_AFTER_ALLOCATIONS, *COLLECTIONS)


def _keep_freed_memory() -> None:
    """Has the allocator keep up to 64 MiB that are free; does nothing where it is not glibc's."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(M_TRIM_THRESHOLD, KEPT_BYTES_MAX)
    mallopt(M_MMAP_THRESHOLD, MAPPED_BYTES_MIN)
