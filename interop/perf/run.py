"""Runs the matrix against several brokers in turn and prints medians and ratios."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import click
import resources
from brokers import KINDS, Amqpd, Broker, Running
from cases import (
    CASES,
    RESOURCE_FIGURES,
    RESOURCES,
    Case,
    Figure,
    cpu_figure,
    figures_against_earlier,
    figures_of_cases,
    without_ratio_goal,
)
from load import figures_of
from rich.console import Console
from table import Values, as_table

from amqpd.cli.bench.errors import BenchError


class Matrix:
    """The values measured so far, and who is being measured."""

    def __init__(self, brokers: Sequence[Broker], console: Console) -> None:
        self.brokers = list(brokers)
        self.values: Values = {}
        self.failed = False
        self._console = console

    def add(self, broker: Broker, figures: dict[str, float]) -> None:
        for name, value in figures.items():
            self.values.setdefault(name, {}).setdefault(broker.name, []).append(value)

    def fail(self, broker: Broker, what: str, error: Exception) -> None:
        """Notes that a measurement could not be taken; the others go on."""
        self.failed = True
        self._console.print(f"{broker.name}, {what}: {error}", style="red", markup=False)

    def measure_load(
        self, cases: Sequence[Case], rounds: int, duration_s: float, warm_up_s: float
    ) -> None:
        """Every case against every broker, once a round; one broker runs at a time."""
        started: list[Broker] = []
        try:
            for broker in self.brokers:
                broker.start()
                started.append(broker)
                broker.pause()
            for number in range(rounds):
                for case in cases:
                    # Who comes first changes, so that no broker always finds the colder machine.
                    for broker in started if number % 2 == 0 else reversed(started):
                        self._console.print(f"round {number + 1}: {case.name}, {broker.name}")
                        self._one(broker, case, duration_s, warm_up_s)
        finally:
            for broker in started:
                broker.stop()

    def _one(self, broker: Broker, case: Case, duration_s: float, warm_up_s: float) -> None:
        broker.resume()
        processes = broker.processes
        before_s = processes.cpu_s() if processes else 0.0
        try:
            values, deliveries = figures_of(case, broker.uri, duration_s, warm_up_s)
            self.add(broker, values)
            if processes and deliveries:
                spent_us = (processes.cpu_s() - before_s) * 1e6
                self.add(broker, {cpu_figure(case).name: spent_us / deliveries})
        except (RuntimeError, OSError) as error:
            self.fail(broker, case.name, error)
        finally:
            broker.pause()

    def measure_resources(self, rounds: int) -> None:
        """Start, memory, connections, queues: a fresh broker each time."""
        for number in range(rounds):
            for broker in self.brokers:
                if isinstance(broker, Running):
                    continue
                self._console.print(f"round {number + 1}: {RESOURCES}, {broker.name}")
                try:
                    self.add(broker, resources.measure(broker))
                except (RuntimeError, OSError, BenchError) as error:
                    self.fail(broker, RESOURCES, error)


def chosen(names: str | None) -> tuple[list[Case], bool]:
    """The cases of a comma-separated list, and whether the resources are among them."""
    known = [case.name for case in CASES] + [RESOURCES]
    wanted = names.split(",") if names else known
    for name in wanted:
        if name not in known:
            raise click.BadParameter(f"no case {name!r}; there are: {', '.join(known)}")
    return [case for case in CASES if case.name in wanted], RESOURCES in wanted


def named(text: str, what: str) -> tuple[str, str]:
    """The two sides of NAME=URI or NAME=PATH."""
    name, equals, value = text.partition("=")
    if not equals:
        raise click.BadParameter(f"{text!r} is not of the form NAME={what}")
    return name, value


def brokers_of(names: str, uris: Sequence[str], checkouts: Sequence[str]) -> list[Broker]:
    """The brokers asked for: as NAME=URI, as NAME=PATH, or by kind."""
    brokers: list[Broker] = [Running(*named(text, "URI")) for text in uris]
    for text in checkouts:
        name, path = named(text, "PATH")
        if not (Path(path) / "amqpd/__main__.py").is_file():
            raise click.BadParameter(f"{path} is no checkout of amqpd")
        brokers.append(Amqpd(name, Path(path).resolve()))
    for name in filter(None, names.split(",")):
        if name not in KINDS:
            raise click.BadParameter(f"no broker {name!r}; there are: {', '.join(KINDS)}")
        brokers.append(KINDS[name](name))
    if len({broker.name for broker in brokers}) < len(brokers):
        raise click.BadParameter("two brokers have the same name")
    return brokers


def figures_to_show(
    cases: Sequence[Case], with_resources: bool, *, against_earlier: bool
) -> list[Figure]:
    """The rows of the table; their goals depend on whom amqpd is compared with."""
    figures = figures_against_earlier(cases) if against_earlier else figures_of_cases(cases)
    if with_resources:
        of_resources: Sequence[Figure] = RESOURCE_FIGURES
        figures += map(without_ratio_goal, of_resources) if against_earlier else of_resources
    return figures + [cpu_figure(case) for case in cases]


@click.command(context_settings={"show_default": True})
@click.option("--rounds", type=click.IntRange(min=1), default=3, help="Runs of each case.")
@click.option("--cases", "case_names", metavar="A,B", help="Only these cases.")
@click.option(
    "--brokers", "names", metavar="A,B", help="To start. Default: all; none beside others."
)
@click.option("--uri", "uris", multiple=True, metavar="NAME=URI", help="One that runs already.")
@click.option(
    "--checkout", "checkouts", multiple=True, metavar="NAME=PATH", help="Another amqpd to start."
)
@click.option("--baseline", default="rabbitmq", help="The broker that ratios refer to.")
@click.option("--duration", type=float, default=5.0, help="Seconds that a timed case is measured.")
@click.option("--warm-up", type=float, default=1.0, help="Seconds before.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write values there.")
def main(
    rounds: int,
    case_names: str | None,
    names: str | None,
    uris: tuple[str, ...],
    checkouts: tuple[str, ...],
    baseline: str,
    duration: float,
    warm_up: float,
    json_file: Path | None,
) -> None:
    """Measure brokers side by side. Exit status 1 if a measurement failed."""
    if names is None:
        names = "" if uris or checkouts else ",".join(KINDS)
    cases, with_resources = chosen(case_names)
    matrix = Matrix(brokers_of(names, uris, checkouts), Console(stderr=True, highlight=False))
    if cases:
        matrix.measure_load(cases, rounds, duration, warm_up)
    if with_resources:
        matrix.measure_resources(rounds)
    earlier = {named(text, "PATH")[0] for text in checkouts}
    figures = figures_to_show(cases, with_resources, against_earlier=baseline in earlier)
    present = [broker.name for broker in matrix.brokers]
    reference = baseline if baseline in present else None
    Console(width=None if sys.stdout.isatty() else 140).print(
        as_table(figures, matrix.values, present, reference)
    )
    if json_file:
        json_file.write_text(json.dumps(matrix.values, indent=2) + "\n")
    sys.exit(matrix.failed)


if __name__ == "__main__":
    main()
