"""Latencies: a histogram that costs one dictionary entry per distinct bucket, and its percentiles.

Buckets are exact below 256 ns and within 0.8 % above: the top eight bits of a value say its bucket.
"""

from collections.abc import Mapping
from math import ceil

PERCENTILES = {
    "min": 0.0,
    "median": 0.50,
    "p75": 0.75,
    "p95": 0.95,
    "p99": 0.99,
    "p99.9": 0.999,
    "max": 1.0,
}
EXACT = 256


def bucket(value_ns: int) -> int:
    """The bucket that holds a value of at least 0."""
    if value_ns < EXACT:
        return value_ns
    shift = value_ns.bit_length() - 8
    return (shift << 7) + (value_ns >> shift)


def middle(index: int) -> int:
    """The value in the middle of a bucket, in nanoseconds."""
    if index < EXACT:
        return index
    shift = (index >> 7) - 1
    return ((index - (shift << 7)) << shift) + (1 << shift >> 1)


class Histogram:
    """Counts of latencies in nanoseconds; cheap to fill, to send between processes, to merge."""

    __slots__ = ("count", "counts", "max_ns", "min_ns")

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}
        self.count = 0
        self.min_ns = 0
        self.max_ns = 0

    def record(self, value_ns: int) -> None:
        """Adds one latency; a negative one, which only a stepping clock can give, counts as 0."""
        value_ns = max(value_ns, 0)
        if not self.count or value_ns < self.min_ns:
            self.min_ns = value_ns
        if value_ns > self.max_ns:
            self.max_ns = value_ns
        self.count += 1
        index = bucket(value_ns)
        self.counts[index] = self.counts.get(index, 0) + 1

    def merge(self, other: "Histogram") -> None:
        """Adds everything the other histogram has counted."""
        if not other.count:
            return
        self.min_ns = min(self.min_ns, other.min_ns) if self.count else other.min_ns
        self.max_ns = max(self.max_ns, other.max_ns)
        self.count += other.count
        for index, count in other.counts.items():
            self.counts[index] = self.counts.get(index, 0) + count

    def percentile(self, share: float) -> int:
        """The smallest value that `share` (0 to 1) of the values do not exceed, in nanoseconds.

        Raises:
            ValueError: nothing has been recorded.
        """
        if not self.count:
            raise ValueError("no latency has been recorded")
        if share <= 0:
            return self.min_ns
        rank = ceil(share * self.count)
        if rank >= self.count:
            return self.max_ns
        seen = 0
        for index in sorted(self.counts):
            seen += self.counts[index]
            if seen >= rank:
                return min(max(middle(index), self.min_ns), self.max_ns)
        raise AssertionError("the counts do not add up")

    def summary_ms(self) -> Mapping[str, float] | None:
        """The percentiles that are reported, in milliseconds; None when nothing was recorded."""
        if not self.count:
            return None
        return {name: self.percentile(share) / 1e6 for name, share in PERCENTILES.items()}
