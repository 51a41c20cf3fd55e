"""Histograms and their percentiles."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqpd.cli.bench.measure import PERCENTILES, Histogram, bucket, middle

latencies = st.integers(0, 10**12)


def histogram_of(values: list[int]) -> Histogram:
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    return histogram


@given(latencies)
def test_a_bucket_is_within_a_hundredth_of_its_values(value: int) -> None:
    assert abs(middle(bucket(value)) - value) <= value / 100


@given(latencies, latencies)
def test_buckets_keep_the_order_of_values(one: int, other: int) -> None:
    low, high = sorted((one, other))
    assert bucket(low) <= bucket(high)


@given(st.lists(latencies, min_size=1), st.floats(0, 1))
def test_a_percentile_is_near_the_value_of_its_rank(values: list[int], share: float) -> None:
    exact = sorted(values)[max(-int(-share * len(values) // 1), 1) - 1]
    found = histogram_of(values).percentile(share)
    assert abs(found - exact) <= exact / 100


def test_least_and_greatest_are_exact() -> None:
    histogram = histogram_of([1_000_003, 2_000_005, 3_000_007])
    assert histogram.percentile(0) == 1_000_003
    assert histogram.percentile(1) == 3_000_007


@pytest.mark.slow
@given(st.lists(latencies), st.lists(latencies))
def test_merging_is_the_same_as_recording_everything_in_one(
    one: list[int], other: list[int]
) -> None:
    """A hundred pairs of lists."""
    merged = histogram_of(one)
    merged.merge(histogram_of(other))
    both = histogram_of(one + other)
    assert merged.counts == both.counts
    assert (merged.count, merged.min_ns, merged.max_ns) == (both.count, both.min_ns, both.max_ns)


def test_the_summary_names_every_percentile_in_milliseconds() -> None:
    summary = histogram_of([1_000_000] * 99 + [5_000_000]).summary_ms()
    assert summary is not None
    assert list(summary) == list(PERCENTILES)
    assert summary["min"] == 1.0
    assert summary["median"] == pytest.approx(1.0, rel=0.01)
    assert summary["max"] == 5.0


def test_nothing_recorded_has_no_summary_and_no_percentile() -> None:
    assert Histogram().summary_ms() is None
    with pytest.raises(ValueError, match="no latency"):
        Histogram().percentile(0.5)


def test_a_negative_latency_counts_as_zero() -> None:
    assert histogram_of([-5]).percentile(0.5) == 0
