"""Clients that declare, bind and delete, and what must be there of it after a crash.

Each has names of its own, so it knows what there is. What it is about to change is uncertain until
the -ok has arrived; a restart shows what has become of it.
"""

import collections
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pika
from ledger import Ledger, Route, Settled
from patience import pika_connection
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import ChannelClosedByBroker, UnroutableError
from publishers import Pen
from recovery import check_queue

QUEUES, EXCHANGES = 5, 4
HISTORY = 8  # changes of a thing that are told when something is wrong with it
NOT_FOUND, PRECONDITION_FAILED = 404, 406
ARGUMENTS: list[dict[str, Any]] = [
    {},
    {"x-queue-mode": "lazy"},
    {"x-queue-type": "classic"},
    {"x-max-length": 100_000, "x-overflow": "drop-head"},
    {"x-message-ttl": 86_400_000},
]


class QueueState(NamedTuple):
    """A queue that is there; it survives a crash if it is `lasting`."""

    durable: bool
    exclusive: bool
    auto_delete: bool
    arguments: int  # which of ARGUMENTS

    @property
    def lasting(self) -> bool:
        return self.durable and not self.exclusive


class ExchangeState(NamedTuple):
    """An exchange that is there."""

    type: str
    durable: bool
    auto_delete: bool
    internal: bool

    @property
    def lasting(self) -> bool:
        return self.durable


class BindingState(NamedTuple):
    """A binding that is there; it lasts as both its ends do."""

    lasting: bool


class Thing(NamedTuple):
    """What is declared: a queue or an exchange by name, or a binding by ends and key."""

    kind: str
    name: str
    source: str = ""
    key: str = ""


State = QueueState | ExchangeState | BindingState | None


class Churn:
    """One client that changes its topology all the time, over all lives of the broker.

    Attributes:
        allowed: the states that each thing may be in; one, except where an -ok is missing.
    """

    def __init__(self, ledger: Ledger, number: int) -> None:
        self.ledger = ledger
        self.allowed: dict[Thing, set[State]] = {}
        self.prefix = f"crash.t{number}"
        # For bindings between exchanges: a fanout to a queue, neither of which is ever deleted.
        self.sink = f"{self.prefix}.sink"
        self.join = f"{self.prefix}.join"
        self._operations: list[Callable[[BlockingChannel, random.Random], None]] = [
            self._queue,
            self._exchange,
            *[self._binding] * 4,
            *[self._publish] * 2,
            self._purge,
        ]
        self._history: dict[Thing, collections.deque[str]] = {}

    def prepare(self, uri: str) -> None:
        """Declares what is never deleted."""
        queue = QueueState(durable=True, exclusive=False, auto_delete=False, arguments=0)
        exchange = ExchangeState("fanout", durable=True, auto_delete=False, internal=False)
        with pika_connection(uri) as connection:
            channel = connection.channel()
            with self.changing({Thing("queue", self.sink): queue}):
                declare_queue(channel, self.sink, queue)
            with self.changing({Thing("exchange", self.join): exchange}):
                declare_exchange(channel, self.join, exchange)
            with self.changing({Thing("binding", self.sink, self.join): BindingState(True)}):
                channel.queue_bind(self.sink, self.join, "")

    def run(self, uri: str, ledger: Ledger, rng: random.Random) -> None:
        """Changes things until the end."""
        with pika_connection(uri) as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            while not ledger.ending.is_set():
                rng.choice(self._operations)(channel, rng)

    def there(self, kind: str) -> list[tuple[Thing, Any]]:
        """The things of a kind that are there for certain."""
        found = []
        for thing, states in self.allowed.items():
            (state,) = states if len(states) == 1 else (None,)
            if thing.kind == kind and state is not None:
                found.append((thing, state))
        return found

    @contextmanager
    def changing(self, changes: dict[Thing, State]) -> Iterator[None]:
        """Around the call of a method: uncertain before, certain once it has returned."""
        for thing, state in changes.items():
            self.allowed.setdefault(thing, {None}).add(state)
            self._remember(thing, f"sent {state}")
        yield
        for thing, state in changes.items():
            self.allowed[thing] = {state}
            self._remember(thing, "ok")

    def crashed(self) -> None:
        """What does not last is gone, messages included."""
        for thing, states in self.allowed.items():
            if any(isinstance(state, QueueState) and not state.lasting for state in states):
                self.ledger.settle(self.ledger.queues[thing.name].values(), Settled.TOLD)
            self.allowed[thing] = {
                state if state is not None and state.lasting else None for state in states
            }

    def _remember(self, thing: Thing, what: str) -> None:
        self._history.setdefault(thing, collections.deque(maxlen=HISTORY)).append(what)

    def _is(self, thing: Thing) -> Any:
        (state,) = self.allowed.get(thing, {None})
        return state

    def _bindings_of(self, name: str) -> dict[Thing, State]:
        """The bindings that go with a queue or an exchange, as gone."""
        return {
            thing: None
            for thing in self.allowed
            if thing.kind == "binding" and name in (thing.name, thing.source)
        }

    def _queue(self, channel: BlockingChannel, rng: random.Random) -> None:
        name = f"{self.prefix}.q{rng.randrange(QUEUES)}"
        thing = Thing("queue", name)
        if self._is(thing) is None:
            exclusive = rng.random() < 0.1
            arguments = rng.randrange(len(ARGUMENTS))
            state = QueueState(rng.random() < 0.8, exclusive, rng.random() < 0.2, arguments)
            with self.changing({thing: state}):
                declare_queue(channel, name, state)
            return
        copies = list(self.ledger.queues[name].values())
        self.ledger.settle(copies, Settled.TOLD)
        with self.changing({thing: None, **self._bindings_of(name)}):
            channel.queue_delete(name)
        self.ledger.settle(copies, Settled.PROMISED)

    def _exchange(self, channel: BlockingChannel, rng: random.Random) -> None:
        name = f"{self.prefix}.e{rng.randrange(EXCHANGES)}"
        thing = Thing("exchange", name)
        if self._is(thing) is None:
            kind = rng.choice(["direct", "topic", "headers"])
            odd = rng.random()
            state = ExchangeState(kind, rng.random() < 0.8, odd < 0.15, odd > 0.85)
            with self.changing({thing: state}):
                declare_exchange(channel, name, state)
        else:
            with self.changing({thing: None, **self._bindings_of(name)}):
                channel.exchange_delete(name)

    def _binding(self, channel: BlockingChannel, rng: random.Random) -> None:
        """Binds or unbinds; what deletes itself with its last binding is left alone."""
        sources = [
            (thing.name, state)
            for thing, state in self.there("exchange")
            if not state.auto_delete and not state.internal and thing.name != self.join
        ]
        if not sources:
            return
        source, source_state = rng.choice(sources)
        ends = [
            (thing.name, state.lasting)
            for thing, state in self.there("queue")
            if thing.name != self.sink
        ]
        name, lasting = rng.choice([*ends, (self.join, True)])
        # A key for one destination only: so one can tell from outside who is bound.
        key = f"{name}.k{rng.randrange(3)}"
        thing = Thing("binding", name, source, key)
        bound = self._is(thing) is not None
        state = None if bound else BindingState(source_state.lasting and lasting)
        arguments = {"x-match": "all", "n": key} if source_state.type == "headers" else None
        exchanges = (channel.exchange_unbind, channel.exchange_bind)
        queues = (channel.queue_unbind, channel.queue_bind)
        call = (exchanges if name == self.join else queues)[not bound]
        with self.changing({thing: state}):
            call(name, source, key, arguments=arguments)

    def _publish(self, channel: BlockingChannel, rng: random.Random) -> None:
        """A few confirmed messages, which must go with their queue if it is deleted."""
        queues = [thing.name for thing, state in self.there("queue") if not state.auto_delete]
        if not queues:
            return
        name = rng.choice(queues)
        pen = Pen(self.ledger, rng, [Route("", name, (name,))], persistent_share=0.8)
        for _ in range(3):
            message, properties, body = pen.write()
            message.possible = True
            channel.basic_publish("", name, body, pika.BasicProperties(**properties))
            self.ledger.promised([message])

    def _purge(self, channel: BlockingChannel, rng: random.Random) -> None:
        """purge-ok is no promise of RabbitMQ's: what was purged may come back after a crash."""
        queues = self.there("queue")
        if queues and rng.random() < 0.3:
            name = rng.choice(queues)[0].name
            self.ledger.settle(list(self.ledger.queues[name].values()), Settled.TOLD)
            channel.queue_purge(name)

    def check(self, uri: str) -> None:
        """After a crash: what is there is what may be, with its content and properties."""
        self.crashed()
        with pika_connection(uri) as connection:
            for thing, states in list(self.allowed.items()):
                if thing.kind != "binding":
                    self._check_thing(connection, thing, states)
            self._check_content(uri)
            channel = connection.channel()
            channel.confirm_delivery()
            for thing, states in list(self.allowed.items()):
                if thing.kind == "binding":
                    self._check_binding(channel, thing, states)
            for thing, _ in self.there("queue"):
                channel.queue_purge(thing.name)

    def _violate(self, kind: str, thing: Thing) -> None:
        history = "; ".join(self._history[thing])
        self.ledger.violations.add(f"{thing.kind} {kind}", f"{thing}: {history}")

    def _check_thing(
        self, connection: pika.BlockingConnection, thing: Thing, states: set[State]
    ) -> None:
        there = is_there(connection, thing)
        self._remember(thing, f"restart, {'' if there else 'not '}found")
        if not there:
            if None not in states:
                self._violate("lost", thing)
            self.allowed[thing] = {None}
            return
        candidates = [state for state in states if state is not None]
        if not candidates:
            self._violate("there that must not be", thing)
        for state in candidates:
            if accepts(connection, thing, state):
                if accepts(connection, thing, _otherwise(state)):
                    self._violate("redeclared with other properties", thing)
                self.allowed[thing] = {state}
                return
        if candidates:
            self._violate("there with other properties", thing)

    def _check_content(self, uri: str) -> None:
        present = {thing.name: state for thing, state in self.there("queue")}
        names = [thing.name for thing in self.allowed if thing.kind == "queue"]
        for name in names:
            if name not in present:
                self.ledger.compare(name, [])
            elif not present[name].auto_delete:  # a consumer that goes would take it along
                check_queue(uri, self.ledger, name, drain=True)

    def _check_binding(self, channel: BlockingChannel, thing: Thing, states: set[State]) -> None:
        """Publishes where only this binding leads on."""
        exchanges = [each for each, state in self.there("exchange") if not state.internal]
        ends = {each.name for each in [*exchanges, *(queue for queue, _ in self.there("queue"))]}
        if not {thing.name, thing.source} <= ends:
            self.allowed[thing] = {None}
            return
        properties = pika.BasicProperties(headers={"n": thing.key})
        try:
            channel.basic_publish(thing.source, thing.key, b"probe", properties, mandatory=True)
            bound = True
        except UnroutableError:
            bound = False
        certain = {state for state in states if (state is not None) == bound}
        if not certain:
            self._violate("there that must not be" if bound else "lost", thing)
        self.allowed[thing] = certain or {None}
        self._remember(thing, f"found {certain}")


def declare_queue(channel: BlockingChannel, name: str, state: QueueState) -> None:
    channel.queue_declare(
        name,
        durable=state.durable,
        exclusive=state.exclusive,
        auto_delete=state.auto_delete,
        arguments=ARGUMENTS[state.arguments],
    )


def declare_exchange(channel: BlockingChannel, name: str, state: ExchangeState) -> None:
    channel.exchange_declare(
        name,
        state.type,
        durable=state.durable,
        auto_delete=state.auto_delete,
        internal=state.internal,
    )


def is_there(connection: pika.BlockingConnection, thing: Thing) -> bool:
    """Whether a passive declare finds it."""
    channel = connection.channel()
    try:
        if thing.kind == "queue":
            channel.queue_declare(thing.name, passive=True)
        else:
            channel.exchange_declare(thing.name, passive=True)
    except ChannelClosedByBroker as closed:
        if closed.reply_code != NOT_FOUND:
            raise
        return False
    channel.close()
    return True


def accepts(connection: pika.BlockingConnection, thing: Thing, state: Any) -> bool:
    """Whether it can be declared again like this; 406 is the only other answer."""
    channel = connection.channel()
    declare = declare_queue if thing.kind == "queue" else declare_exchange
    try:
        declare(channel, thing.name, state)
    except ChannelClosedByBroker as closed:
        if closed.reply_code != PRECONDITION_FAILED:
            raise
        return False
    channel.close()
    return True


def _otherwise(state: Any) -> Any:
    return state._replace(auto_delete=not state.auto_delete)
