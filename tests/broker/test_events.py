"""The event exchange and the firehose: what they tell, and that they are silent when off."""

from typing import Any

import pytest

from amqpd.config import Config
from amqpd.config.settings import Events
from amqpd.storage.memory import MemoryStore
from amqpd.testing.client import Client, Told, publish_bytes
from amqpd.testing.harness import Harness
from amqpd.wire.methods import Basic, Channel, Exchange, Queue

EVENTS = Config(events=Events(exchange=True))
FIREHOSE = Config(events=Events(firehose=True))


class Listener:
    """Hears what an exchange of the broker tells."""

    def __init__(self, harness: Harness, exchange: str, key: str = "#") -> None:
        self.client = Client(harness)
        self.client.ask(Queue.Declare(queue="told", exclusive=True))
        self.client.ask(Queue.Bind(queue="told", exchange=exchange, routing_key=key))
        self.client.tell(Basic.Consume(queue="told", no_ack=True, consumer_tag="l"))
        self.told()

    def told(self) -> list[Told]:
        return [each for each in self.client.heard() if isinstance(each.method, Basic.Deliver)]

    def keys(self) -> list[str]:
        return [each.method.routing_key for each in self.told()]

    def headers(self) -> dict[str, Any]:
        """Of the last one that was told."""
        return dict(self.told()[-1].properties.headers)


@pytest.fixture(params=[True, False], ids=["hot", "slow"])
def hotpath(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


# --- events ---------------------------------------------------------------------------------------


def test_the_life_of_a_connection_is_told(hotpath: bool) -> None:
    harness = Harness(EVENTS, hotpath=hotpath)
    listener = Listener(harness, "amq.rabbitmq.event")
    client = Client(harness)
    assert listener.keys() == [
        "user.authentication.success",
        "connection.created",
        "channel.created",
    ]
    client.ask(Exchange.Declare(exchange="x", exchange_type="topic"))
    client.ask(Queue.Declare(queue="q", auto_delete=True))
    client.ask(Queue.Bind(queue="q", exchange="x", routing_key="a"))
    client.ask(Basic.Consume(queue="q", consumer_tag="c"))
    created = ["exchange.created", "queue.created", "binding.created", "consumer.created"]
    assert listener.keys() == created
    client.link.close()
    gone = ["consumer.deleted", "binding.deleted", "queue.deleted", "channel.closed"]
    assert sorted(listener.keys()) == sorted([*gone, "connection.closed"])


def test_an_event_says_what_has_happened_to_what_and_who_did_it() -> None:
    harness = Harness(EVENTS, epoch=1_000_000)
    listener = Listener(harness, "amq.rabbitmq.event", "queue.*")
    arguments = {"x-max-length": 5, "x-overflow": "drop-head"}
    Client(harness).ask(Queue.Declare(queue="q", durable=True, arguments=arguments))
    (told,) = listener.told()
    assert told.body == b""
    assert told.properties.delivery_mode == 2
    assert told.properties.timestamp.timestamp() == 1_000_000
    assert told.properties.headers == {
        "user_who_performed_action": "guest",
        "vhost": "/",
        "name": "q",
        "durable": True,
        "auto_delete": False,
        "exclusive": False,
        "owner_pid": "",
        "arguments": [
            '{<<"x-max-length">>,byte,5}',
            '{<<"x-overflow">>,longstr,<<"drop-head">>}',
        ],
        "timestamp_in_ms": 1_000_000_000,
    }


def test_a_connection_is_told_with_both_its_ends_and_its_time() -> None:
    harness = Harness(EVENTS, epoch=1_000_000)
    listener = Listener(harness, "amq.rabbitmq.event", "connection.created")
    Client(harness)
    (told,) = listener.told()
    headers = told.properties.headers
    assert headers["name"] == "127.0.0.1:50002 -> 127.0.0.1:5672"
    assert (headers["peer_host"], headers["peer_port"]) == ("127.0.0.1", 50002)
    assert (headers["host"], headers["port"]) == ("127.0.0.1", 5672)
    assert headers["connected_at"] == 1_000_000_000


def test_an_exclusive_queue_is_told_with_its_owner() -> None:
    harness = Harness(EVENTS)
    listener = Listener(harness, "amq.rabbitmq.event", "queue.created")
    client = Client(harness)
    client.ask(Queue.Declare(queue="q", exclusive=True))
    assert listener.headers()["owner_pid"] == client.session.name


def test_what_the_broker_does_by_itself_is_told_as_its_own_deed() -> None:
    harness = Harness(EVENTS)
    listener = Listener(harness, "amq.rabbitmq.event", "queue.deleted")
    Client(harness).ask(Queue.Declare(queue="q", arguments={"x-expires": 1000}))
    harness.wait(2)
    assert listener.headers()["user_who_performed_action"] == "rmq-internal"


def test_alarms_are_told_once_each() -> None:
    harness = Harness(EVENTS)
    listener = Listener(harness, "amq.rabbitmq.event", "alarm.*")
    for on in (True, True, False, False):
        harness.core.alarmed("memory", on, harness.now)
        harness.settle()
    assert listener.keys() == ["alarm.set", "alarm.cleared"]


def test_a_refused_login_is_told() -> None:
    harness = Harness(Config(events=Events(exchange=True)))
    listener = Listener(harness, "amq.rabbitmq.event", "user.#")
    harness.core.broker.users["guest"]._password = b"another"
    with pytest.raises(AssertionError):
        Client(harness).ask(Queue.Declare(queue="q"))
    told = listener.headers()
    assert (told["name"], told["error"]) == ("guest", "user 'guest' - invalid credentials")


def test_events_are_kept_in_a_durable_queue_across_a_crash_and_switching_them_off() -> None:
    store = MemoryStore()
    harness = Harness(EVENTS, store=store)
    client = Client(harness)
    client.ask(Queue.Declare(queue="audit", durable=True))
    client.ask(Queue.Bind(queue="audit", exchange="amq.rabbitmq.event", routing_key="exchange.*"))
    client.ask(Exchange.Declare(exchange="x"))
    off = Harness(store=store)
    client = Client(off)
    client.ask(Exchange.Declare(exchange="y"))
    assert client.ask(Queue.Declare(queue="audit", passive=True)).method.message_count == 1
    again = Harness(EVENTS, store=store)
    client = Client(again)
    client.ask(Exchange.Declare(exchange="z"))
    assert client.ask(Queue.Declare(queue="audit", passive=True)).method.message_count == 2


def test_nothing_is_told_when_it_is_off() -> None:
    client = Client(Harness())
    told = client.ask(Queue.Bind(queue="", exchange="amq.rabbitmq.event", routing_key="#"))
    assert told.method.reply_code == 404


# --- the firehose ---------------------------------------------------------------------------------


def test_the_firehose_copies_what_is_published_and_delivered(hotpath: bool) -> None:
    harness = Harness(FIREHOSE, hotpath=hotpath)
    listener = Listener(harness, "amq.rabbitmq.trace")
    client = Client(harness)
    client.ask(Queue.Declare(queue="q"))
    client.send(
        publish_bytes(b"1", routing_key="q", content_type="t", headers={"a": 1}, priority=3) * 2
    )
    published = listener.told()
    assert [each.method.routing_key for each in published] == ["publish.", "publish."]
    assert published[0].body == b"1"
    headers = dict(published[0].properties.headers)
    assert headers.pop("connection").endswith("5672")
    assert headers == {
        "exchange_name": "",
        "routing_keys": ["q"],
        "properties": {"content_type": "t", "headers": {"a": 1}, "priority": 3},
        "node": "amqpd@localhost",
        "vhost": "/",
        "channel": 1,
        "user": "guest",
        "routed_queues": ["q"],
    }
    told = client.ask(Basic.Get(queue="q"))
    client.tell(Basic.Reject(delivery_tag=told.method.delivery_tag, requeue=True))
    client.tell(Basic.Consume(queue="q", consumer_tag="c", no_ack=True))
    delivered = listener.told()
    assert [each.method.routing_key for each in delivered] == ["deliver.q"] * 3
    assert [each.properties.headers["redelivered"] for each in delivered] == [0, 1, 0]


def test_the_firehose_tells_of_what_goes_nowhere(hotpath: bool) -> None:
    harness = Harness(FIREHOSE, hotpath=hotpath)
    listener = Listener(harness, "amq.rabbitmq.trace", "publish.amq.topic")
    Client(harness).publish(b"1", exchange="amq.topic", routing_key="nowhere")
    assert listener.headers()["routed_queues"] == []


def test_the_firehose_is_silent_when_it_is_off(hotpath: bool) -> None:
    harness = Harness(hotpath=hotpath)
    listener = Listener(harness, "amq.rabbitmq.trace")
    client = Client(harness)
    client.ask(Queue.Declare(queue="q"))
    client.publish(b"1", routing_key="q")
    client.ask(Channel.Close(reply_code=200, reply_text="", class_id=0, method_id=0))
    assert listener.told() == []
