"""One load process: its connections, and the loop that drives them."""

import gc
import select
import signal
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe
from time import monotonic_ns, process_time

from amqpd.cli.bench.board import Board, Phase
from amqpd.cli.bench.consumer import Consumer
from amqpd.cli.bench.errors import BenchError
from amqpd.cli.bench.link import Link
from amqpd.cli.bench.measure import Histogram
from amqpd.cli.bench.plan import Part, Plan, PublisherPart
from amqpd.cli.bench.publisher import Publisher

Peer = Publisher | Consumer
BEFORE_START_MS = 2
TURN_MS = 50
MILLISECOND_NS = 1_000_000
SELECT_FD_MAX = 1023


@dataclass
class Report:
    """What a process has to say at its end; an error is one line of text."""

    publishing: bool
    latency: Histogram
    cpu_s: float
    error: str | None = None


CONNECTED = "connected"


def work(plan: Plan, parts: tuple[Part, ...], name: str, board: Board, pipe: Pipe) -> None:
    """A load process from its first connection to its report."""
    # Ctrl-C reaches the whole process group; the conductor alone decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.disable()
    report = Report(isinstance(parts[0], PublisherPart), Histogram(), 0.0)
    peers: list[Peer] = []
    try:
        peers += [connect(plan, part, name, board) for part in parts]
        pipe.send(CONNECTED)
        before_s = process_time()
        Loop(peers, board).run()
        report.cpu_s = process_time() - before_s
        for peer in peers:
            report.latency.merge(peer.latency)
    except BenchError as error:
        report.error = str(error)
    # First the figures: a broker that blocks us may make the farewell long.
    pipe.send(report)
    pipe.close()
    for peer in peers:
        peer.finish()


def connect(plan: Plan, part: Part, name: str, board: Board) -> Peer:
    """The connection that a part of the plan asks for."""

    def phase() -> int:
        return board.phase

    publishing = isinstance(part, PublisherPart)
    role = f"producer {part.row + 1}"
    if not publishing:
        role = f"consumer {part.row - len(plan.publishers) + 1}"
    link = Link.connect(plan.options.address, f"{name} {role}")
    row = board.row(part.row)
    if isinstance(part, PublisherPart):
        return Publisher(link, plan.exchange, plan.options, part, row, phase)
    return Consumer(link, plan.options, part, row, phase)


class Loop:
    """Waits for sockets and for the times at which messages are due."""

    def __init__(self, peers: list[Peer], board: Board) -> None:
        self._board = board
        self._waiting = list(peers)
        self._peers = {peer.link.sock.fileno(): peer for peer in peers}
        self._masks = {fd: peer.mask for fd, peer in self._peers.items()}
        self._poll = select.poll()
        for fd, mask in self._masks.items():
            self._poll.register(fd, mask)
        # poll counts milliseconds: only select can wait for the next of 2,000 messages a second.
        self._fine = max(self._peers) <= SELECT_FD_MAX

    def run(self) -> None:
        """Until the phase is STOP.

        Raises:
            BenchError: a connection has failed.
        """
        while (phase := self._board.phase) != Phase.STOP:
            now_ns = monotonic_ns()
            if self._waiting:
                self._begin(phase, now_ns)
            due = [at for peer in self._peers.values() if (at := peer.tick(now_ns)) is not None]
            self._settle_masks()
            for fd, events in self._wait(min(due, default=None)):
                peer = self._peers[fd]
                if events & ~select.POLLOUT:
                    peer.readable()
                if events & select.POLLOUT:
                    peer.writable()

    def _begin(self, phase: int, now_ns: int) -> None:
        for peer in self._waiting[:]:
            if phase >= peer.begins_at:
                peer.begin(now_ns)
                self._waiting.remove(peer)

    def _settle_masks(self) -> None:
        for fd, peer in self._peers.items():
            if peer.mask != self._masks[fd]:
                self._masks[fd] = peer.mask
                self._poll.modify(fd, peer.mask)

    def _wait(self, due_ns: int | None) -> list[tuple[int, int]]:
        """The sockets that are ready, as poll tells them."""
        if due_ns is None:
            return self._poll.poll(BEFORE_START_MS if self._waiting else TURN_MS)
        left_ns = max(due_ns - monotonic_ns(), 0)
        if left_ns > 2 * MILLISECOND_NS or not self._fine:
            return self._poll.poll(min(left_ns // MILLISECOND_NS, TURN_MS))
        writers = [fd for fd, mask in self._masks.items() if mask & select.POLLOUT]
        readable, writable, _ = select.select(self._peers, writers, (), left_ns / 1e9)
        return [(fd, select.POLLIN) for fd in readable] + [(fd, select.POLLOUT) for fd in writable]
