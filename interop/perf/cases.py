"""The matrix: which load each case is, which figures it gives, and what we want of them.

A case is one or more runs of `amqpd bench`; bodies have 100 bytes unless it says otherwise, and
figures are messages delivered per second unless named. Publisher and consumer are processes of
their own on the broker's machine, publishes leave in writes of up to 64 KiB, and no case waits for
anything but the broker.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

RATE = "delivered.messages_per_s"
CONFIRMED_RATE = "confirmed.messages_per_s"
DURABLE = "--durable --persistent"
STREAM = "--queue-arg x-queue-type=stream"
BACKLOG = 300_000
# The least share of an earlier release's rate that a transient case must keep.
KEPT = 0.95


@dataclass(frozen=True)
class Figure:
    """One number that a run gives.

    Attributes:
        path: where it stands in the JSON of `amqpd bench`.
        goal: the least ratio of amqpd to RabbitMQ that we accept; the greatest, if small is good.
        absolute: the goal is one for amqpd's own value instead.
    """

    name: str
    path: str = RATE
    unit: str = "msg/s"
    goal: float | None = None
    small_is_good: bool = False
    absolute: bool = False


@dataclass(frozen=True)
class Run:
    """One run of `amqpd bench` and what is read from it."""

    options: str
    figures: tuple[Figure, ...]
    timed: bool = True  # it lasts as long as the matrix asks for


@dataclass(frozen=True)
class Case:
    """One row of the matrix, or a few that need each other."""

    name: str
    about: str
    runs: tuple[Run, ...]


def rate_case(name: str, options: str, about: str, goal: float | None = None) -> Case:
    """The usual case: one run, the rate of deliveries."""
    return Case(name, about, (Run(options, (Figure(name, goal=goal),)),))


def paced(name: str, options: str, goal: float | None = None) -> Run:
    """2,000 messages a second, one write each; latencies instead of rates."""
    delivery = "latency_ms.end_to_end"
    figures = [
        Figure(f"{name} p50", f"{delivery}.median", "ms", small_is_good=True),
        Figure(f"{name} p99", f"{delivery}.p99", "ms", goal=goal, small_is_good=True),
    ]
    if "--confirm" in options:
        confirm = "latency_ms.confirm"
        figures += [
            Figure(f"{name}, confirm p50", f"{confirm}.median", "ms", small_is_good=True),
            Figure(f"{name}, confirm p99", f"{confirm}.p99", "ms", goal=goal, small_is_good=True),
        ]
    return Run(f"--rate 2000 {DURABLE} {options}", tuple(figures))


CASES = (
    rate_case("transient-autoack", "--auto-ack", "no acks, no confirms", goal=3.0),
    rate_case("transient-ack", "", "one ack a message, prefetch 500", goal=3.0),
    rate_case(
        "transient-ack-window",
        "--multi-ack-every 500",
        "prefetch 500, one multiple ack for every 500 messages: finds stalls",
        goal=3.0,
    ),
    rate_case(
        "transient-ack-terms",
        "--queue-arg x-max-length=10000000 --queue-arg x-message-ttl=3600000"
        " --queue-arg x-dead-letter-exchange=dlx --queue-arg x-max-priority=10",
        "the same with a length limit, a TTL, a dead letter exchange and priorities, which do not"
        " come to anything",
        goal=2.0,
    ),
    rate_case(
        "persistent-confirm",
        f"{DURABLE} --confirm 1000",
        "durable queue, delivery mode 2, confirms with a window of 1,000, prefetch 500",
        goal=3.0,
    ),
    rate_case(
        "persistent-1k", f"{DURABLE} --confirm 1000 --size 1k", "the same with 1 KiB", goal=3.0
    ),
    rate_case(
        "confirm-window-1",
        f"{DURABLE} --confirm 1",
        "the same with a window of 1: the round trip",
        goal=1.0,
    ),
    rate_case("transient-64k", "--auto-ack --size 64k", "64 KiB, no acks", goal=1.5),
    rate_case("large-4m", "--size 4M --prefetch 10", "4 MiB, acks, prefetch 10", goal=1.0),
    rate_case(
        "topic-fanout-4",
        "--consumers 4 --queues 4 --exchange-type topic --routing-key bench.a.b "
        "--binding-key bench.*.b",
        "a topic exchange, each message to four queues; deliveries are counted",
        goal=3.0,
    ),
    rate_case(
        "4p4c4q", "--producers 4 --consumers 4 --queues 4", "four of each, prefetch 500", goal=3.0
    ),
    rate_case(
        "work-queue-8c", "--consumers 8 --prefetch 50", "eight consumers of one queue", goal=3.0
    ),
    Case(
        "backlog",
        f"{BACKLOG:,} persistent messages, confirms with a window of 5,000: filled, then drained",
        (
            Run(
                f"{DURABLE} --queue perf-backlog --keep --consumers 0 --confirm 5000 "
                f"--count {BACKLOG}",
                (Figure("backlog-pub", CONFIRMED_RATE, goal=5.0),),
                timed=False,
            ),
            Run(
                f"{DURABLE} --queue perf-backlog --producers 0 --count {BACKLOG}",
                (Figure("backlog-drain", goal=5.0),),
                timed=False,
            ),
        ),
    ),
    Case(
        "stream",
        f"{BACKLOG:,} messages into a stream, with confirms as above, then read from the first on",
        (
            Run(
                f"{DURABLE} {STREAM} --queue perf-stream --keep --consumers 0 --confirm 1000 "
                f"--count {BACKLOG}",
                (Figure("stream-pub", CONFIRMED_RATE, goal=3.0),),
                timed=False,
            ),
            Run(
                f"{DURABLE} {STREAM} --queue perf-stream --producers 0 --count {BACKLOG} "
                "--consumer-arg x-stream-offset=first",
                (Figure("stream-replay", goal=3.0),),
                timed=False,
            ),
        ),
    ),
    Case("paced-2k", "2,000 messages a second, persistent", (paced("paced-2k", "", goal=0.5),)),
    Case(
        "paced-2k-confirm",
        "the same with confirms",
        (paced("paced-2k-confirm", "--confirm 1000", goal=0.5),),
    ),
)

RESOURCES = "resources"
START = Figure("start to first connection", "", "s", 0.5, small_is_good=True, absolute=True)
IDLE_MEMORY = Figure("idle memory", "", "MiB", 50, small_is_good=True, absolute=True)
CONNECTION = Figure(
    "each of 1,000 idle connections", "", "KiB", 60, small_is_good=True, absolute=True
)
DECLARE = Figure("10,000 transient queues", "", "s", 10, small_is_good=True, absolute=True)
DURABLE_DECLARE = Figure("10,000 durable queues", "", "s", 1.0, small_is_good=True)
PIPELINED_DECLARE = Figure(
    "10,000 durable queues, pipelined", "", "s", 3, small_is_good=True, absolute=True
)
CROWDED = Figure("transient-ack beside them", "", "of empty", 0.9, absolute=True)
CROWDED_CPU = Figure("its CPU per message", "", "of empty", small_is_good=True)
RESOURCE_FIGURES = (
    START,
    IDLE_MEMORY,
    CONNECTION,
    DECLARE,
    CROWDED,
    CROWDED_CPU,
    DURABLE_DECLARE,
    PIPELINED_DECLARE,
)


def cpu_figure(case: Case) -> Figure:
    """The broker's processor time for a delivered message: less shaken by the machine than rates.

    Messages that were published and not delivered are paid for as well.
    """
    return Figure(f"CPU, {case.name}", unit="µs/msg", small_is_good=True)


def figures_of_cases(cases: Sequence[Case]) -> list[Figure]:
    """All figures of some cases, with the goals that refer to RabbitMQ."""
    return [figure for case in cases for run in case.runs for figure in run.figures]


def figures_against_earlier(cases: Sequence[Case]) -> list[Figure]:
    """The same with the goals that refer to an earlier amqpd: transient cases keep their rates."""
    return [
        replace(figure, goal=None if DURABLE in run.options else KEPT)
        for case in cases
        for run in case.runs
        for figure in run.figures
    ]


def without_ratio_goal(figure: Figure) -> Figure:
    """The figure without a goal that refers to RabbitMQ."""
    return figure if figure.absolute else replace(figure, goal=None)
