"""What a person or a program sees of a run: the live line, the table, the JSON."""

from dataclasses import asdict
from typing import Any

from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from amqpd.cli.bench.board import Phase
from amqpd.cli.bench.conductor import Result, Sample
from amqpd.cli.bench.measure import PERCENTILES, Histogram
from amqpd.cli.bench.plan import Options

REFRESH_NS = 500_000_000
SECOND_NS = 1_000_000_000
COUNTERS = ("published", "confirmed", "nacked", "returned", "delivered")


def per_second(first: Sample, last: Sample, name: str) -> float:
    """The rate of one counter between two samples; 0 if no time has passed."""
    elapsed_ns = last.at_ns - first.at_ns
    if elapsed_ns <= 0:
        return 0.0
    return float(getattr(last, name) - getattr(first, name)) * SECOND_NS / elapsed_ns


class LiveLine:
    """One line on a terminal with the rates of the last half second; nothing elsewhere."""

    def __init__(self, console: Console, options: Options) -> None:
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._shown = console.is_terminal
        self._options = options
        self._names = [
            name
            for name, wanted in (
                ("published", options.producers),
                ("confirmed", options.producers and options.confirm),
                ("delivered", options.consumers),
            )
            if wanted
        ]
        self._first: Sample | None = None
        self._last: Sample | None = None

    def __enter__(self) -> "LiveLine":
        if self._shown:
            self._live.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        if self._shown:
            self._live.__exit__(*error)

    def show(self, phase: Phase, sample: Sample) -> None:
        """Takes a sample; redraws the line every half second."""
        if self._first is None or self._last is None:
            self._first = self._last = sample
            return
        if not self._shown or sample.at_ns - self._last.at_ns < REFRESH_NS:
            return
        line = Text(self._line(phase, sample), no_wrap=True, overflow="ellipsis")
        self._live.update(line, refresh=True)
        self._last = sample

    def _line(self, phase: Phase, sample: Sample) -> str:
        assert self._first is not None and self._last is not None
        options = self._options
        if options.count:
            done = sample.published if options.producers else sample.delivered
            parts = [f"{done:,} of {options.count:,}"]
        else:
            elapsed_s = (sample.at_ns - self._first.at_ns) / SECOND_NS
            parts = [f"{elapsed_s:.0f} of {options.warm_up + options.duration:.0f} s"]
        parts += [f"{name} {per_second(self._last, sample, name):,.0f}/s" for name in self._names]
        if sample.blocked:
            parts.append("blocked by the broker")
        elif phase == Phase.WARM_UP:
            parts.append("warming up")
        return "  ".join(parts)


def as_json(result: Result) -> dict[str, Any]:
    """The figures of a run as values that JSON knows; times in the units that the keys name."""
    plan, first, last = result.plan, result.first, result.last
    options = asdict(plan.options)
    del options["address"]  # it holds the password
    properties = result.broker
    size = plan.options.size

    def figures(name: str) -> dict[str, float]:
        rate = per_second(first, last, name)
        return {
            "messages": getattr(last, name) - getattr(first, name),
            "messages_per_s": rate,
            "bytes_per_s": rate * size,
        }

    return {
        "broker": {
            "address": str(plan.options.address),
            "vhost": plan.options.address.vhost,
            "product": str(properties.get("product", "")),
            "version": str(properties.get("version", "")),
        },
        "options": options,
        "interrupted": result.interrupted,
        "measured_s": max(last.at_ns - first.at_ns, 0) / SECOND_NS,
        "published": figures("published") if plan.publishers else None,
        "confirmed": figures("confirmed") if plan.options.confirm and plan.publishers else None,
        "delivered": figures("delivered") if plan.consumers else None,
        "total": {name: getattr(result.total, name) for name in COUNTERS},
        "latency_ms": {
            "end_to_end": result.end_to_end.summary_ms(),
            "confirm": result.confirm.summary_ms(),
        },
        "generator_cpu_us": {
            "per_published": cpu_us(result.publisher_cpu_s, result.total.published),
            "per_delivered": cpu_us(result.consumer_cpu_s, result.total.delivered),
        },
    }


def cpu_us(seconds: float, messages: int) -> float | None:
    """Processor time of the load generator for one message, in microseconds."""
    return seconds * 1e6 / messages if messages else None


def milliseconds(value: float) -> str:
    """Three digits that matter."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 1 else f"{value:.3f}"


def print_tables(result: Result, console: Console) -> None:
    """The final tables, and a line for everything out of the ordinary."""
    figures = as_json(result)
    broker = figures["broker"]
    name = f"{broker['product']} {broker['version']}".strip() or "the broker"
    console.print(
        f"{name} at {broker['address']}, measured for {figures['measured_s']:.1f} s",
        style="bold",
        highlight=False,
    )
    console.print(rates(figures))
    if result.end_to_end.count or result.confirm.count:
        console.print(latencies({"end to end": result.end_to_end, "confirm": result.confirm}))
    for text in remarks(result):
        console.print(text, style="yellow")


def rates(figures: dict[str, Any]) -> Table:
    """Messages, rates and volumes."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("")
    for heading in ("messages", "messages/s", "MiB/s", "generator CPU µs/message"):
        table.add_column(heading, justify="right")
    cpu = {
        "published": figures["generator_cpu_us"]["per_published"],
        "delivered": figures["generator_cpu_us"]["per_delivered"],
    }
    for name in ("published", "confirmed", "delivered"):
        row = figures[name]
        if row is not None:
            spent = cpu.get(name)
            table.add_row(
                name,
                f"{row['messages']:,}",
                f"{row['messages_per_s']:,.0f}",
                f"{row['bytes_per_s'] / 2**20:,.1f}",
                "" if spent is None else f"{spent:.2f}",
            )
    return table


def latencies(histograms: dict[str, Histogram]) -> Table:
    """The percentiles of those that hold something."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("latency, ms")
    for heading in PERCENTILES:
        table.add_column(heading, justify="right")
    for name, histogram in histograms.items():
        summary = histogram.summary_ms()
        if summary is not None:
            table.add_row(name, *(milliseconds(summary[heading]) for heading in PERCENTILES))
    return table


def remarks(result: Result) -> list[str]:
    """What a reader of the figures must know beside them."""
    texts = []
    if result.interrupted:
        texts.append("interrupted: the figures are those of the time until then")
    if result.total.nacked:
        texts.append(f"{result.total.nacked:,} messages were refused by the broker (nack)")
    if result.total.returned:
        texts.append(f"{result.total.returned:,} messages were returned as unroutable")
    if result.left_behind:
        texts.append(f"queues may have been left behind: {result.left_behind}")
    return texts
