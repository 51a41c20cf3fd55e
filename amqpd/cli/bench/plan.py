"""From what was asked to who does what: queues, bindings, connections, processes."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from amqpd.cli.bench.errors import BenchError
from amqpd.cli.bench.uri import Address

DEFAULT_EXCHANGE = ""
PREFETCH_MAX = 65535


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the command line asks for; sizes in bytes, times in seconds, rates a second."""

    address: Address
    producers: int = 1
    consumers: int = 1
    queues: int = 1
    queue: str = ""  # a made-up name if empty
    size: int = 100
    prefetch: int = 500
    auto_ack: bool = False
    multi_ack_every: int = 1
    confirm: int = 0  # the window; 0: no confirms
    persistent: bool = False
    durable: bool = False
    mandatory: bool = False
    exchange: str | None = None
    exchange_type: str | None = None
    routing_keys: tuple[str, ...] = ()
    binding_keys: tuple[str, ...] = ()
    queue_arguments: dict[str, Any] = field(default_factory=dict)
    consumer_arguments: dict[str, Any] = field(default_factory=dict)
    rate: float = 0.0  # of the whole run; 0: as fast as it goes
    count: int = 0  # messages of the whole run; 0: as many as fit into the duration
    duration: float = 10.0
    warm_up: float = 1.0
    predeclared: bool = False
    keep: bool = False


@dataclass(frozen=True)
class PublisherPart:
    """What one publishing connection does."""

    row: int
    routing_keys: tuple[str, ...]
    rate: float
    count: int


@dataclass(frozen=True)
class ConsumerPart:
    """What one consuming connection does."""

    row: int
    queues: tuple[str, ...]


Part = PublisherPart | ConsumerPart


@dataclass(frozen=True)
class Plan:
    """A run, ready to be carried out."""

    options: Options
    exchange: str
    exchange_type: str | None  # None: nothing to declare
    queues: tuple[str, ...]
    bindings: tuple[tuple[str, str], ...]  # queue, binding key
    publishers: tuple[PublisherPart, ...]
    consumers: tuple[ConsumerPart, ...]
    processes: tuple[tuple[Part, ...], ...]


def make_plan(options: Options, run_name: str, cores: int) -> Plan:
    """Who does what.

    Args:
        run_name: for names that nobody gave, and of the connections.
        cores: beyond four connections each, connections share processes.

    Raises:
        BenchError: options that contradict each other.
    """
    check(options)
    queues = queue_names(options.queue or run_name, options.queues)
    exchange, exchange_type = exchange_of(options, run_name)
    bindings: tuple[tuple[str, str], ...] = ()
    if exchange != DEFAULT_EXCHANGE:
        keys = options.binding_keys or options.routing_keys
        bindings = tuple((queue, key) for queue in queues for key in keys or (queue,))
    publishers = tuple(
        PublisherPart(
            row=index,
            routing_keys=options.routing_keys or share(queues, index, options.producers),
            rate=options.rate / options.producers,
            count=options.count // options.producers + (index < options.count % options.producers),
        )
        for index in range(options.producers)
    )
    consumers = tuple(
        ConsumerPart(options.producers + index, share(queues, index, options.consumers))
        for index in range(options.consumers)
    )
    if options.producers + options.consumers <= cores * 4:
        processes: tuple[tuple[Part, ...], ...] = tuple((part,) for part in publishers + consumers)
    else:
        processes = (*split(publishers, cores * 2), *split(consumers, cores * 2))
    return Plan(
        options, exchange, exchange_type, queues, bindings, publishers, consumers, processes
    )


def check(options: Options) -> None:
    """Raises BenchError for options that contradict each other."""
    if not options.producers and not options.consumers:
        raise BenchError("with neither producers nor consumers there is nothing to do")
    if options.multi_ack_every > 1 and options.auto_ack:
        raise BenchError("--multi-ack-every needs acks: leave --auto-ack out")
    if options.prefetch and options.multi_ack_every > options.prefetch:
        raise BenchError(
            f"--multi-ack-every {options.multi_ack_every} would wait for ever: "
            f"only {options.prefetch} messages come without an ack (--prefetch)"
        )
    if options.rate and not options.producers:
        raise BenchError("--rate is a rate of publishing: there are no producers")
    if options.count and options.count < options.producers:
        raise BenchError(f"--count {options.count} leaves producers without a message")
    if options.predeclared and options.consumers and not options.queue:
        raise BenchError("--predeclared needs the name of the queue to consume from: --queue")
    named = options.exchange is not None or options.exchange_type is not None
    if options.binding_keys and (not named or options.exchange == DEFAULT_EXCHANGE):
        raise BenchError("--binding-key needs --exchange or --exchange-type")


def exchange_of(options: Options, run_name: str) -> tuple[str, str | None]:
    """The exchange's name, and its type if it must be declared."""
    if options.exchange is None:
        if options.exchange_type is None:
            return DEFAULT_EXCHANGE, None
        return run_name, options.exchange_type
    built_in = options.exchange == DEFAULT_EXCHANGE or options.exchange.startswith("amq.")
    if built_in or options.predeclared:
        return options.exchange, None
    return options.exchange, options.exchange_type or "direct"


def queue_names(name: str, count: int) -> tuple[str, ...]:
    """`name` for one queue, otherwise numbered names of equal length.

    Equal lengths make all deliveries of a run alike, which is what counts them fast.
    """
    if count == 1:
        return (name,)
    width = len(str(count))
    return tuple(f"{name}-{number:0{width}}" for number in range(1, count + 1))


def share(queues: Sequence[str], index: int, of: int) -> tuple[str, ...]:
    """The queues of connection `index`: its share, or one of them if there are fewer queues."""
    return tuple(queues[index::of]) or (queues[index % len(queues)],)


def split(parts: Sequence[Part], count: int) -> list[tuple[Part, ...]]:
    """The parts dealt to at most `count` processes."""
    return [tuple(parts[index::count]) for index in range(min(count, len(parts)))]
