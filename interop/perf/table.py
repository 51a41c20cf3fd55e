"""Medians, ranges and ratios of what was measured."""

import statistics
from collections.abc import Sequence

from cases import Figure
from rich import box
from rich.table import Table

# figure name: broker name: one value a round
Values = dict[str, dict[str, list[float]]]


def number(value: float) -> str:
    """Three digits that matter."""
    if not value:
        return "0"
    for least, text in ((100_000, f"{value / 1000:,.0f} k"), (10_000, f"{value / 1000:,.1f} k")):
        if value >= least:
            return text
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def spread(values: Sequence[float]) -> str:
    """The median, and the range if there are several values."""
    if not values:
        return "failed"
    median = number(statistics.median(values))
    if len(values) == 1:
        return median
    return f"{median} [{number(min(values))}–{number(max(values))}]"


def ratio(values: dict[str, list[float]], broker: str, baseline: str) -> float | None:
    """The broker's median divided by the baseline's; None if one of them has none."""
    ours, theirs = values.get(broker), values.get(baseline)
    if not ours or not theirs or not statistics.median(theirs):
        return None
    return statistics.median(ours) / statistics.median(theirs)


def reached(figure: Figure, values: dict[str, list[float]], baseline: str | None) -> bool | None:
    """Whether amqpd reaches the figure's goal; None without a goal or a value."""
    ours = values.get("amqpd")
    if figure.goal is None or not ours:
        return None
    value = statistics.median(ours) if figure.absolute else ratio(values, "amqpd", baseline or "")
    if value is None:
        return None
    return value <= figure.goal if figure.small_is_good else value >= figure.goal


def goal(figure: Figure, values: dict[str, list[float]], baseline: str | None) -> str:
    """What we want of amqpd, and whether it is so."""
    good = reached(figure, values, baseline)
    if good is None:
        return ""
    sign = "≤" if figure.small_is_good else "≥"
    unit = f" {figure.unit}" if figure.absolute else ""
    return f"{sign} {figure.goal:g}{unit}: {'yes' if good else 'NO'}"


def as_table(
    figures: Sequence[Figure], values: Values, brokers: Sequence[str], baseline: str | None
) -> Table:
    """One row a figure: each broker's median and range, and the ratios to the baseline."""
    others = [broker for broker in brokers if baseline and broker != baseline]
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("case", no_wrap=True)
    for broker in brokers:
        table.add_column(broker, justify="right", no_wrap=True)
    table.add_column("unit")
    for broker in others:
        table.add_column("ratio" if len(others) == 1 else f"{broker} ratio", justify="right")
    table.add_column("goal", no_wrap=True)
    for figure in figures:
        if figure.name not in values:
            continue  # nobody could be measured
        row = values.get(figure.name, {})
        ratios = [ratio(row, broker, baseline or "") for broker in others]
        table.add_row(
            figure.name,
            *(spread(row.get(broker, [])) for broker in brokers),
            figure.unit,
            *("" if value is None else f"{value:.2f}" for value in ratios),
            goal(figure, row, baseline),
        )
    return table
