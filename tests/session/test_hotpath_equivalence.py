"""The hot path and the slow path cannot be told apart: random conversations, played on both."""

from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from random_clients import CLIENTS, TINY_WINDOWS, Act, Encoder, conversations, handshake
from watching import no_internal_error

from amqpd.broker.journal import Batch
from amqpd.broker.message import ENVELOPE, Message
from amqpd.config import Config
from amqpd.config.settings import Limits
from amqpd.config.settings import Message as MessageSettings
from amqpd.testing.harness import Harness, Link

CONFIGS = (
    Config(),
    Config(
        limits=Limits(envelopes_max=2, output_bytes_high=3000),
        message=MessageSettings(size_bytes_max=9000),
    ),
    TINY_WINDOWS,
)


class Twin:
    """One of the two brokers, with its end of each client's connection."""

    def __init__(self, config: Config, *, hotpath: bool) -> None:
        self.harness = Harness(config, hotpath=hotpath)
        self.links: list[Link] = [self.harness.connect() for _ in range(CLIENTS)]
        self.seen: list[Batch] = []
        commit = self.harness.store.commit

        def commit_and_keep(batch: Batch) -> int:
            self.seen.append(batch)
            return commit(batch)

        self.harness.store.commit = commit_and_keep  # type: ignore[method-assign]

    def state(self) -> dict[str, Any]:
        """All that can be seen of the broker, and what it has said since the last look."""
        core = self.harness.core
        queues = core.broker.vhosts["/"].queues
        said, self.seen = self.seen, []
        return {
            "said": [link.receive() for link in self.links],
            "closed": [link.closed for link in self.links],
            "counters": core.broker.counters,
            "stopped": [link.session.flow.stopped for link in self.links],
            "queues": {
                name: (
                    *(queue.ready, queue.unacked, queue.kept, queue.backlog.behind),
                    len(queue.selection.consumers),
                )
                for name, queue in queues.items()
            },
            "memory": core.broker.memory.held,
            "wanted": self.harness.wanted,
            "committed": [plain(batch) for batch in said],
            "held": [plain(batch) for batch in self.harness.held],
            "deadline": self.harness.deadline,
        }


def plain(batch: Batch) -> Any:
    """A batch with envelopes as they read."""
    changes = {
        queue_id: (
            plain_messages(each.added),
            plain_messages(each.spilled),
            each.settled,
            each.returned,
            each.dropped,
            each.unspilled,
            each.unspilled_below,
            each.standing,
        )
        for queue_id, each in batch.changes.items()
    }
    return batch.ticket, batch.operations, changes


def plain_messages(messages: dict[int, Message]) -> list[Any]:
    return [
        (number, each[ENVELOPE].exchange, each[ENVELOPE].routing_key, *each[1:])
        for number, each in messages.items()
    ]


class Twins:
    """Both brokers and the clients that say the same to both."""

    def __init__(self, config: Config) -> None:
        self.twins = (Twin(config, hotpath=True), Twin(config, hotpath=False))
        self.encoders = [Encoder() for _ in range(CLIENTS)]
        self.unsent = [handshake(heartbeat_s=10 * (client == 2)) for client in range(CLIENTS)]

    def play(self, conversation: list[Act]) -> None:
        for act in conversation:
            self.take(act)
        for client in range(CLIENTS):
            self.read(client, [])
            self.both(lambda twin: twin.harness.commit())
            self.both(lambda twin: twin.harness.fetch())

    def take(self, act: Act) -> None:
        client = act.client
        if self.encoders[client].closed and self.gone(client):
            self.connect(client)
        match act.what:
            case "read":
                self.read(client, *act.details)
            case "hang up":
                self.both(lambda twin: twin.links[client].close())
                self.connect(client)
            case "stop reading":
                for twin in self.twins:
                    twin.links[client].reads = False
            case "read again":
                self.both(lambda twin: twin.links[client].read_again())
            case "hold commits":
                for twin in self.twins:
                    twin.harness.commits = not act.details[0]
            case "let commits go":
                self.both(lambda twin: twin.harness.commit(*act.details))
            case "hold fetches":
                for twin in self.twins:
                    twin.harness.fetches = not act.details[0]
            case "answer fetches":
                self.both(lambda twin: twin.harness.fetch())
            case "wait":
                self.both(lambda twin: twin.harness.wait(*act.details))
            case _:
                self.unsent[client] += self.encoders[client].encode(act)

    def gone(self, client: int) -> bool:
        """Whether nothing that the client says will be looked at."""
        return self.twins[0].links[client].closed or not self.unsent[client]

    def connect(self, client: int) -> None:
        """The client comes back on a new connection."""
        self.both(lambda twin: twin.links[client].close())
        for twin in self.twins:
            twin.links[client] = twin.harness.connect()
        self.encoders[client] = Encoder()
        self.unsent[client] = handshake()

    def read(self, client: int, cuts: list[int]) -> None:
        """Both brokers read what the client has said, cut at the same places."""
        data, self.unsent[client] = self.unsent[client], b""
        places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
        for start, end in pairwise(places):
            part = data[start:end]
            self.both(lambda twin, part=part: twin.links[client].send(part))

    def both(self, action: Any) -> None:
        for twin in self.twins:
            action(twin)
        hot, slow = (twin.state() for twin in self.twins)
        for what in hot:
            assert hot[what] == slow[what], what
        for encoder, data in zip(self.encoders, slow["said"], strict=True):
            encoder.hear(data)


def play(config: Config, conversation: list[Act]) -> None:
    """Plays a conversation on both; nothing in it may be an internal error."""
    with no_internal_error():
        Twins(config).play(conversation)


@settings(max_examples=2 * settings.default.max_examples)
@given(st.sampled_from(CONFIGS), conversations(garbage=False))
def test_clients_that_keep_to_the_protocol_cannot_tell_the_hot_path_from_the_slow_one(
    config: Config, conversation: list[Act]
) -> None:
    play(config, conversation)


@settings(max_examples=settings.default.max_examples)
@given(st.sampled_from(CONFIGS), conversations(garbage=True))
def test_clients_that_break_the_protocol_cannot_tell_the_hot_path_from_the_slow_one(
    config: Config, conversation: list[Act]
) -> None:
    play(config, conversation)
