"""What the journal says is all of what is durable: the store's image against the broker's model."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from random_clients import CLIENTS, TINY_WINDOWS, Act, Encoder, conversations, handshake

from amqpd.broker.vhost import PREDECLARED
from amqpd.config import Config
from amqpd.testing.client import Client
from amqpd.testing.harness import Harness, Link
from amqpd.wire.content import body_payload
from amqpd.wire.methods import Basic

IGNORED = ("stop reading", "read again", "let commits go", "wait")


LINES = (
    "amq.delayed.",
    "amq.waiting.",
    "amq.letters.",
    "amq.keys.",
)  # what the store has of messages that wait


class Play:
    """Random clients of one broker."""

    def __init__(self, harness: Harness) -> None:
        self.harness = harness
        self.links: list[Link] = [self.harness.connect() for _ in range(CLIENTS)]
        self.encoders = [Encoder() for _ in range(CLIENTS)]
        self.unsent = [handshake() for _ in range(CLIENTS)]

    def take(self, act: Act) -> None:
        client = act.client
        if act.what in IGNORED:
            return
        if act.what == "hang up" or self.encoders[client].closed:
            self.connect(client)
        if act.what == "hold commits":
            self.harness.commits = not act.details[0]
        elif act.what == "hold fetches":
            self.harness.fetches = not act.details[0]
        elif act.what == "answer fetches":
            self.harness.fetch()
        elif act.what == "read":
            data, self.unsent[client] = self.unsent[client], b""
            self.links[client].send(data)
            for encoder, link in zip(self.encoders, self.links, strict=True):
                encoder.hear(link.receive())
        elif act.what != "hang up":
            self.unsent[client] += self.encoders[client].encode(act)

    def connect(self, client: int) -> None:
        self.links[client].close()
        self.links[client] = self.harness.connect()
        self.encoders[client] = Encoder()
        self.unsent[client] = handshake()

    def finish(self) -> None:
        """All go, so that nothing is unacknowledged; all is committed."""
        for link in self.links:
            link.close()
        self.harness.commits = self.harness.fetches = True
        self.harness.commit()
        self.harness.fetch()
        self.harness.wait(1)  # nothing waits any more
        self.harness.commit()


def model(harness: Harness) -> dict[str, Any]:
    """The durable things as the broker has them."""
    vhost = harness.core.broker.vhosts["/"]
    predeclared = {name for name, _, _ in PREDECLARED}
    exchanges = vhost.exchanges.values()
    return {
        "exchanges": {
            ("/", each.name): (each.type_name, each.auto_delete, each.internal)
            for each in exchanges
            if each.durable and each.name not in predeclared
        },
        "queues": {
            queue.queue_id: (queue.name, queue.auto_delete)
            for queue in vhost.queues.values()
            if queue.durable
        },
        "bindings": {
            ("/", each.name, end.kind, end.name, binding.key, binding.arguments.encoded)
            for each in exchanges
            for binding in each.bindings.values()
            if (end := binding.destination).durable and each.durable
        },
    }


def image(harness: Harness) -> dict[str, Any]:
    """The durable things as the store has them."""
    store = harness.store
    return {
        "exchanges": {
            key: (each.type, each.auto_delete, each.internal)
            for key, each in store.exchanges.items()
        },
        "queues": {
            key: (each.name, each.auto_delete)
            for key, each in store.queues.items()
            if not each.name.startswith(LINES)
        },
        "bindings": {(*end, *key) for end, bound in store.bindings.items() for key in bound},
    }


def stored_bodies(harness: Harness) -> dict[str, list[bytes]]:
    """What the store has of each queue's messages, in order."""
    return {
        queue.name: [
            body_payload(message[2])
            for line in range(queue_id, queue_id + queue.lines)
            for _, message in sorted(harness.store.messages[line].items())
        ]
        for queue_id, queue in harness.store.queues.items()
        if not queue.name.startswith(LINES)
    }


def drained_bodies(harness: Harness, queue: str) -> list[bytes]:
    """Those of a queue's messages that are kept, as a client gets them."""
    client = Client(harness)
    if queue == "log":
        client.ask(Basic.Qos(prefetch_count=65_535))
        client.tell(Basic.Consume(queue=queue, arguments={"x-stream-offset": "first"}))
        return client.bodies()
    found = []
    while isinstance((told := client.ask(Basic.Get(queue=queue, no_ack=True))).method, Basic.GetOk):
        if told.properties.delivery_mode == 2 or queue == "quorum":
            found.append(told.body)
    return found


@settings(max_examples=2 * settings.default.max_examples)
@given(st.sampled_from((Config(), TINY_WINDOWS)), conversations(garbage=False))
def test_the_image_of_the_store_is_the_durable_part_of_the_broker(
    config: Config, conversation: list[Act]
) -> None:
    play = Play(Harness(config))
    for act in conversation:
        play.take(act)
    play.finish()
    harness = play.harness
    assert image(harness) == model(harness)
    stored = stored_bodies(harness)
    assert {queue: drained_bodies(harness, queue) for queue in stored} == stored
    harness.commit()
    logs = [each.queue_id for each in harness.store.queues.values() if each.name == "log"]
    taken = {queue: each for queue, each in harness.store.messages.items() if queue not in logs}
    assert not any(taken.values()), "messages that are gone are still stored"
