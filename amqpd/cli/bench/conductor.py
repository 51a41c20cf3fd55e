"""Carries out a plan: starts the processes, moves the phases, takes the figures."""

import multiprocessing
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection as Pipe
from multiprocessing.connection import wait
from multiprocessing.context import ForkProcess, SpawnProcess
from time import monotonic, monotonic_ns
from typing import Any

from amqpd.cli.bench import topology
from amqpd.cli.bench.board import Board, Field, Phase
from amqpd.cli.bench.errors import BenchError
from amqpd.cli.bench.link import TIMEOUT_S, Link
from amqpd.cli.bench.measure import Histogram
from amqpd.cli.bench.plan import DEFAULT_EXCHANGE, Plan
from amqpd.cli.bench.worker import Report, work

# How long nothing must arrive before a counted run whose messages have all been sent is over.
QUIET_S = 2.0
PACE_S = 0.02
FAREWELL_S = 10.0
SECOND_NS = 1_000_000_000


@dataclass(frozen=True)
class Sample:
    """The counters at one time, each a sum over all connections."""

    at_ns: int
    published: int
    confirmed: int
    nacked: int
    returned: int
    delivered: int
    blocked: int


@dataclass
class Result:
    """What a run has measured.

    Attributes:
        broker: what the broker says about itself.
        first, last: the counters at the two ends of the time that counts.
        total: the counters when everything had stopped.
        left_behind: why the queues could not be deleted, if they could not.
    """

    plan: Plan
    broker: dict[str, Any]
    first: Sample
    last: Sample
    total: Sample
    interrupted: bool = False
    end_to_end: Histogram = field(default_factory=Histogram)
    confirm: Histogram = field(default_factory=Histogram)
    publisher_cpu_s: float = 0.0
    consumer_cpu_s: float = 0.0
    left_behind: str | None = None


Show = Callable[[Phase, Sample], None]


class Conductor:
    """One run."""

    def __init__(self, plan: Plan, run_name: str, show: Show) -> None:
        """`show` is called about fifty times a second while the load is on."""
        self._plan = plan
        self._name = run_name
        self._show = show
        # A fork costs a millisecond where a fresh interpreter costs a tenth of a second of the
        # processor that the broker needs; elsewhere than on Linux forking is not safe.
        method = "fork" if sys.platform == "linux" else "spawn"
        self._context: Any = multiprocessing.get_context(method)
        self._board = Board(self._context, len(plan.publishers) + len(plan.consumers))
        self._processes: dict[Pipe, ForkProcess | SpawnProcess] = {}
        self._reports: list[Report] = []

    def run(self) -> Result:
        """The whole run.

        Raises:
            BenchError: the broker cannot be reached, refuses something, or breaks off.
        """
        control = Link.connect(self._plan.options.address, f"{self._name} control")
        broker = control.server_properties
        try:
            topology.declare(control, self._plan)
        finally:
            control.close()
        try:
            result = self._measured(broker)
        except BaseException:
            self._board.phase = Phase.STOP
            self._dismiss()
            with suppress(BenchError):  # what is on its way up says more
                self._clean_up()
            raise
        try:
            self._clean_up()
        except BenchError as error:
            result.left_behind = str(error)
        return result

    def _clean_up(self) -> None:
        control = Link.connect(self._plan.options.address, f"{self._name} control")
        topology.delete(control, self._plan)
        control.close()

    def _measured(self, broker: dict[str, Any]) -> Result:
        sample = self._sample()
        result = Result(self._plan, broker, sample, sample, sample)
        try:
            self._connect()
            if self._plan.options.count:
                self._count(result)
            else:
                self._time(result)
        except KeyboardInterrupt:
            result.interrupted = True
        result.last = self._sample()
        if self._plan.options.count and not result.interrupted:
            result.last = replace_time(result.last, max(self._board.column(Field.LAST_NS)))
        self._board.phase = Phase.STOP
        self._dismiss()
        result.total = self._sample()
        for report in self._reports:
            if report.publishing:
                result.confirm.merge(report.latency)
                result.publisher_cpu_s += report.cpu_s
            else:
                result.end_to_end.merge(report.latency)
                result.consumer_cpu_s += report.cpu_s
        return result

    def _connect(self) -> None:
        """Starts the processes and waits for their connections."""
        for parts in self._plan.processes:
            ours, theirs = self._context.Pipe(duplex=False)
            process = self._context.Process(
                target=work, args=(self._plan, parts, self._name, self._board, theirs), daemon=True
            )
            process.start()
            theirs.close()
            self._processes[ours] = process
        connecting = set(self._processes)
        while connecting:
            for pipe in self._listen(TIMEOUT_S):
                connecting.discard(pipe)

    def _consume(self) -> None:
        """Lets the consumers ask for deliveries, and waits until the broker has agreed."""
        self._board.phase = Phase.CONSUME
        deadline = monotonic() + TIMEOUT_S
        while sum(self._board.column(Field.CONSUMING)) < len(self._plan.consumers):
            self._listen(PACE_S / 10)
            if monotonic() > deadline:
                raise BenchError(f"the broker did not accept all consumers in {TIMEOUT_S:.0f} s")

    def _time(self, result: Result) -> None:
        """A run of a given duration."""
        self._consume()
        self._board.phase = Phase.WARM_UP
        self._load_for(self._plan.options.warm_up)
        result.first = self._sample()
        self._board.phase = Phase.MEASURE
        self._load_for(self._plan.options.duration)

    def _count(self, result: Result) -> None:
        """A run of a given number of messages."""
        result.first = self._sample()
        self._consume()
        if self._plan.publishers:
            result.first = self._sample()
        self._board.phase = Phase.MEASURE
        self._load_until_done()

    def _load_for(self, seconds: float) -> None:
        deadline = monotonic() + seconds
        while (left := deadline - monotonic()) > 0:
            self._listen(min(left, PACE_S))
            self._show(Phase(self._board.phase), self._sample())

    def _load_until_done(self) -> None:
        """Until all that was asked for is published, confirmed and consumed.

        A consumer may go on past the count before it is stopped, so `at least` is enough.
        """
        plan = self._plan
        expected = deliveries(plan)
        quiet_since, before = monotonic(), -1
        while True:
            self._listen(PACE_S)
            sample = self._sample()
            self._show(Phase.MEASURE, sample)
            if sum(self._board.column(Field.DONE)) < len(plan.publishers):
                continue
            if not plan.consumers or (expected and sample.delivered >= expected):
                return
            if sample.delivered != before:
                quiet_since, before = monotonic(), sample.delivered
            elif plan.publishers and monotonic() - quiet_since > QUIET_S:
                return

    def _sample(self) -> Sample:
        board = self._board
        return Sample(
            at_ns=monotonic_ns(),
            published=sum(board.column(Field.PUBLISHED)),
            confirmed=sum(board.column(Field.CONFIRMED)),
            nacked=sum(board.column(Field.NACKED)),
            returned=sum(board.column(Field.RETURNED)),
            delivered=sum(board.column(Field.DELIVERED)),
            blocked=sum(board.column(Field.BLOCKED)),
        )

    def _listen(self, timeout_s: float) -> list[Pipe]:
        """Waits for news from the processes.

        Raises:
            BenchError: one of them has failed.
        """
        spoke = []
        for ready in wait(list(self._processes), timeout_s):
            pipe: Any = ready
            try:
                news = pipe.recv()
            except EOFError as error:
                raise BenchError("a load process has died") from error
            if isinstance(news, Report):
                raise BenchError(news.error or "a load process has ended early")
            spoke.append(pipe)
        return spoke

    def _dismiss(self) -> None:
        """Collects the reports of the processes that are still there, and ends those processes."""
        deadline = monotonic() + FAREWELL_S
        for pipe, process in self._processes.items():
            try:
                while pipe.poll(max(deadline - monotonic(), 0)):
                    news = pipe.recv()
                    if isinstance(news, Report):
                        self._reports.append(news)
                        break
            except EOFError:
                # It died; whatever was wrong has been raised by `_listen`, or the run is over.
                pass
            process.join(max(deadline - monotonic(), 0.1))
            if process.is_alive():
                process.kill()
        self._processes.clear()


def replace_time(sample: Sample, at_ns: int) -> Sample:
    """The sample, moved back to the last message: the wait for silence is not part of the run."""
    values = vars(sample) | {"at_ns": at_ns or sample.at_ns}
    return Sample(**values)


def deliveries(plan: Plan) -> int | None:
    """How many deliveries a counted run brings, where the plan alone tells."""
    if not plan.publishers or plan.exchange == DEFAULT_EXCHANGE:
        return plan.options.count
    if plan.exchange_type == "fanout":
        return plan.options.count * len(plan.queues)
    return None
