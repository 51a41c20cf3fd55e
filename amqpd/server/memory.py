"""How the process holds memory: settings of the collector and of the allocator, made once."""

import ctypes
import gc

# The collector need not look at messages (broker/message.py), but at all that is new it does, once,
# and nothing goes on meanwhile: some 20 ms for 50,000 objects beside a million messages.
COLLECT_AFTER_ALLOCATIONS = 10_000
COLLECTIONS = 10, 10

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


def _keep_freed_memory() -> None:
    """Has the allocator keep up to 64 MiB that are free; does nothing where it is not glibc's."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(M_TRIM_THRESHOLD, KEPT_BYTES_MAX)
    mallopt(M_MMAP_THRESHOLD, MAPPED_BYTES_MIN)
