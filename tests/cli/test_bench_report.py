"""The figures as a program and as a person see them."""

import json
from io import StringIO

from rich.console import Console

from amqpd.cli.bench.board import Phase
from amqpd.cli.bench.conductor import Result, Sample
from amqpd.cli.bench.measure import PERCENTILES
from amqpd.cli.bench.plan import Options, make_plan
from amqpd.cli.bench.report import LiveLine, as_json, milliseconds, print_tables
from amqpd.cli.bench.uri import Address

ADDRESS = Address("127.0.0.1", 5672, "guest", "secret", "/")
SECOND_NS = 1_000_000_000


def sample(at_s: float, messages: int, **counters: int) -> Sample:
    values = dict.fromkeys(("published", "confirmed", "delivered"), messages)
    values |= dict.fromkeys(("nacked", "returned", "blocked"), 0) | counters
    return Sample(at_ns=int(at_s * SECOND_NS), **values)


def result_of(*, interrupted: bool = False, **options: object) -> Result:
    plan = make_plan(Options(address=ADDRESS, **options), "run", 2)  # type: ignore[arg-type]
    result = Result(
        plan,
        {"product": "RabbitMQ", "version": "3.10.8"},
        first=sample(10, 1_000),
        last=sample(14, 5_000),
        total=sample(15, 6_000, nacked=3, returned=2),
        interrupted=interrupted,
    )
    result.publisher_cpu_s = 0.006
    result.end_to_end.record(2_000_000)
    return result


def printed(result: Result) -> str:
    out = StringIO()
    print_tables(result, Console(file=out, width=100))
    return out.getvalue()


def test_json_holds_rates_of_the_measured_time_and_units_in_its_names() -> None:
    figures = as_json(result_of(confirm=10))
    assert figures["measured_s"] == 4.0
    expected = {"messages": 4_000, "messages_per_s": 1_000.0, "bytes_per_s": 100_000.0}
    assert figures["published"] == figures["confirmed"] == figures["delivered"] == expected
    assert figures["generator_cpu_us"] == {"per_published": 1.0, "per_delivered": 0.0}
    assert figures["total"] == {
        "published": 6_000,
        "confirmed": 6_000,
        "nacked": 3,
        "returned": 2,
        "delivered": 6_000,
    }
    assert list(figures["latency_ms"]["end_to_end"]) == list(PERCENTILES)
    assert figures["latency_ms"]["confirm"] is None


def test_json_says_which_broker_and_options_but_not_the_password() -> None:
    figures = as_json(result_of(size=5, queue_arguments={"x-max-length": 1}))
    assert figures["broker"] == {
        "address": "127.0.0.1:5672",
        "vhost": "/",
        "product": "RabbitMQ",
        "version": "3.10.8",
    }
    assert figures["options"]["size"] == 5
    assert "secret" not in json.dumps(figures)


def test_what_did_not_take_part_is_null() -> None:
    assert as_json(result_of(producers=0))["published"] is None
    assert as_json(result_of(consumers=0))["delivered"] is None
    assert as_json(result_of())["confirmed"] is None


def test_a_run_without_time_has_rate_zero() -> None:
    result = result_of()
    result.last = result.first
    assert as_json(result)["published"]["messages_per_s"] == 0.0


def test_the_table_shows_rates_and_latencies_of_what_took_part() -> None:
    text = printed(result_of())
    assert "RabbitMQ 3.10.8 at 127.0.0.1:5672, measured for 4.0 s" in text
    assert "published" in text
    assert "confirmed" not in text
    assert "1,000" in text
    assert "p99.9" in text


def test_the_table_says_what_was_out_of_the_ordinary() -> None:
    text = printed(result_of(interrupted=True))
    assert "interrupted" in text
    assert "3 messages were refused" in text
    assert "2 messages were returned" in text


def test_milliseconds_keep_three_digits_that_matter() -> None:
    assert [milliseconds(value) for value in (0.01234, 1.234, 12.34, 1234.5)] == [
        "0.012",
        "1.23",
        "12.3",
        "1,234",
    ]


def live_text(options: Options, samples: list[Sample], *, terminal: bool) -> str:
    out = StringIO()
    console = Console(file=out, force_terminal=terminal, width=100)
    with LiveLine(console, options) as line:
        for moment in samples:
            line.show(Phase.WARM_UP, moment)
    return out.getvalue()


def test_a_terminal_gets_a_line_with_progress_and_the_rates_since_the_last_one() -> None:
    samples = [sample(0, 0), sample(1, 100), sample(3, 700, blocked=1)]
    text = live_text(Options(address=ADDRESS, confirm=1), samples, terminal=True)
    assert "1 of 11 s  published 100/s  confirmed 100/s  delivered 100/s  warming up" in text
    assert "3 of 11 s  published 300/s" in text
    assert "blocked by the broker" in text


def test_a_counted_run_shows_how_many_are_done() -> None:
    text = live_text(
        Options(address=ADDRESS, count=2000), [sample(0, 0), sample(1, 1500)], terminal=True
    )
    assert "1,500 of 2,000" in text


def test_a_file_gets_no_live_line() -> None:
    samples = [sample(0, 0), sample(1, 100)]
    assert live_text(Options(address=ADDRESS), samples, terminal=False) == ""
