"""Limits of the broker, its virtual host and its user, and the queue type that is the default."""

from typing import Any

import pytest

from amqpd.config import Config
from amqpd.config import settings as config
from amqpd.testing.client import Client
from amqpd.testing.harness import Harness
from amqpd.wire.methods import Channel, Connection, Exchange, Queue


def refusal(client: Client, method: Any, channel: int = 1) -> tuple[int, str]:
    told = client.ask(method, channel).method
    return told.reply_code, told.reply_text


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (
            {"vhost": config.Vhost(queues_max=2)},
            "PRECONDITION_FAILED - cannot declare queue 'c': queue limit in vhost '/' (2) is "
            "reached",
        ),
        (
            {"limits": config.Limits(queues_max=2)},
            "PRECONDITION_FAILED - cannot declare queue 'c': queue limit in cluster (2) is reached",
        ),
    ],
    ids=["vhost", "broker"],
)
def test_no_more_queues_are_declared_than_there_may_be(settings: dict[str, Any], text: str) -> None:
    client = Client(Harness(Config(**settings)), channels=2)
    client.ask(Queue.Declare(queue="a"))
    client.ask(Queue.Declare(queue="b"))
    assert client.ask(Queue.Declare(queue="b")).method.queue == "b", "it is there already"
    assert refusal(client, Queue.Declare(queue="c")) == (406, text)
    client.ask(Queue.Delete(queue="a"), 2)
    assert client.ask(Queue.Declare(queue="c"), 2).method.queue == "c"


def test_no_more_exchanges_are_declared_than_there_may_be() -> None:
    predeclared = len(Harness().core.broker.vhosts["/"].exchanges)
    client = Client(Harness(Config(limits=config.Limits(exchanges_max=predeclared + 1))))
    client.ask(Exchange.Declare(exchange="x"))
    limit = predeclared + 1
    assert refusal(client, Exchange.Declare(exchange="y")) == (
        406,
        "PRECONDITION_FAILED - cannot declare exchange 'y' in vhost '/': exchange limit of "
        f"{limit} is reached",
    )


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (
            {"vhost": config.Vhost(connections_max=2)},
            "NOT_ALLOWED - access to vhost '/' refused for user 'guest': connection limit (2) is "
            "reached",
        ),
        (
            {"user": config.User(connections_max=2)},
            "NOT_ALLOWED - connection refused for user 'guest': user connection limit (2) is "
            "reached",
        ),
    ],
    ids=["vhost", "user"],
)
def test_no_more_clients_connect_than_may_and_one_that_goes_makes_room(
    settings: dict[str, Any], text: str
) -> None:
    harness = Harness(Config(**settings))
    first, _ = Client(harness), Client(harness)
    refused = RefusedClient(harness)
    assert (refused.code, refused.text) == (530, text)
    first.link.close()
    assert Client(harness).ask(Queue.Declare(queue="q")).method.queue == "q"


class RefusedClient(Client):
    """A client that is told why it may not connect."""

    code, text = 0, ""

    def heard(self) -> list[Any]:
        told = super().heard()
        for each in told:
            if isinstance(each.method, Connection.Close):
                self.code, self.text = each.method.reply_code, each.method.reply_text
        return told


def test_a_user_has_no_more_channels_than_it_may_on_all_its_connections() -> None:
    harness = Harness(Config(user=config.User(channels_max=3)))
    first, second = Client(harness, channels=2), Client(harness)
    second.tell(Channel.Open(), 2)
    (told,) = second.heard()
    assert (told.method.reply_code, told.method.reply_text) == (
        530,
        "NOT_ALLOWED - number of channels opened for user 'guest' has reached the maximum allowed "
        "user limit of (3)",
    )
    first.tell(Channel.Close(reply_code=200, reply_text="", class_id=0, method_id=0), 2)
    assert isinstance(Client(harness).ask(Queue.Declare(queue="q")).method, Queue.DeclareOk)


@pytest.mark.parametrize(
    ("properties", "kind"),
    [
        ({"durable": True}, "quorum"),
        ({}, "classic"),
        ({"durable": True, "exclusive": True}, "classic"),
        ({"durable": True, "auto_delete": True}, "classic"),
        ({"durable": True, "arguments": {"x-queue-type": "classic"}}, "classic"),
    ],
)
def test_a_durable_shared_queue_is_of_the_default_type(
    properties: dict[str, Any], kind: str
) -> None:
    harness = Harness(Config(vhost=config.Vhost(default_queue_type="quorum")))
    client = Client(harness)
    client.ask(Queue.Declare(queue="q", **properties))
    queue = harness.core.broker.vhosts["/"].queues["q"]
    assert queue.type == kind
    assert isinstance(client.ask(Queue.Declare(queue="q", **properties)).method, Queue.DeclareOk)


def test_a_queue_stays_what_it_was_when_the_default_changes() -> None:
    before = Harness()
    Client(before).ask(Queue.Declare(queue="q", durable=True))
    settings = Config(vhost=config.Vhost(default_queue_type="quorum"))
    after = Harness(settings, store=before.store)
    assert after.core.broker.vhosts["/"].queues["q"].type == "classic"
    code, text = refusal(Client(after), Queue.Declare(queue="q", durable=True))
    assert code == 406
    assert "received 'quorum' but current is 'classic'" in text
