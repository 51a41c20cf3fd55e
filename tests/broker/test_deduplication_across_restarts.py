"""Keys of messages are on the disk with the messages, never before and never after them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from amqpd.storage.memory import MemoryStore
from amqpd.storage.sqlite import SqliteStore
from amqpd.storage.upkeep import Sizes
from amqpd.testing.client import Client
from amqpd.testing.harness import Harness, Store
from amqpd.wire.methods import Basic, Confirm, Exchange, Queue, Tx

WINDOW = {"x-message-deduplication": True, "x-cache-size": 3}


@pytest.fixture(params=["memory", "file"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """Both stores must do."""
    if request.param == "memory":
        yield MemoryStore()
    else:
        file = SqliteStore(tmp_path / "amqpd.db", "off", Sizes())
        yield file
        file.close()


def restarted(harness: Harness) -> Harness:
    return Harness(store=harness.store, epoch=harness.core.broker.epoch + harness.now)


def declare(harness: Harness, arguments: dict[str, Any]) -> Client:
    client = Client(harness)
    client.ask(Queue.Declare(queue="q", durable=True, arguments=arguments))
    return client


def declare_exchange(harness: Harness, **arguments: Any) -> Client:
    client = declare(harness, {})
    arguments = {f"x-cache-{name}": value for name, value in arguments.items()}
    kind = "x-message-deduplication"
    client.ask(
        Exchange.Declare(exchange="x", exchange_type=kind, durable=True, arguments=arguments)
    )
    client.ask(Queue.Bind(queue="q", exchange="x"))
    return client


def publish(client: Client, body: bytes, key: Any, exchange: str = "", mode: int = 2) -> None:
    headers = {"x-deduplication-header": key}
    client.publish(body, exchange=exchange, routing_key="q", headers=headers, delivery_mode=mode)


@pytest.mark.parametrize("kind", [{"x-queue-type": "quorum"}, {"x-max-priority": 5}])
def test_queues_with_priorities_know_their_keys_too(store: Store, kind: dict[str, Any]) -> None:
    harness = Harness(store=store)
    client = declare(harness, WINDOW | kind)
    for body in (b"1", b"again"):
        publish(client, body, "a")
    client = declare(harness := restarted(harness), WINDOW | kind)
    publish(client, b"once more", "a")
    publish(client, b"2", "b")
    assert take_all(harness) == [b"1", b"2"]


def take_all(harness: Harness) -> list[bytes]:
    """The messages of the queue, each acknowledged."""
    client, found = Client(harness), []
    while (told := client.ask(Basic.Get(queue="q", no_ack=True))).body:
        found.append(told.body)
    return found


def test_a_window_of_a_queue_survives_a_crash_and_keeps_its_order(store: Store) -> None:
    harness = Harness(store=store)
    client = declare(harness, WINDOW)
    for key in ("c", "b", "a", 7):  # the first one goes
        publish(client, b"first", key)
    assert len(take_all(harness)) == 4
    harness.wait(1)
    again = restarted(harness)
    client = Client(again)
    for key in ("b", "a", 7):
        publish(client, b"duplicate", key)
    publish(client, b"d", "d")  # then "b" goes
    publish(client, b"b", "b")
    publish(client, b"duplicate", 7)
    assert take_all(again) == [b"d", b"b"]


@pytest.mark.parametrize("persistence", ["disk", "memory", None])
def test_a_window_of_an_exchange_survives_if_it_is_on_the_disk(
    store: Store, persistence: str | None
) -> None:
    harness = Harness(store=store)
    arguments = {} if persistence is None else {"persistence": persistence}
    publish(declare_exchange(harness, size=10, **arguments), b"1", "key", "x")
    again = restarted(harness)
    publish(Client(again), b"2", "key", "x")
    survives = persistence != "memory"
    assert take_all(again) == ([b"1"] if survives else [b"1", b"2"])


def test_a_key_counts_no_longer_than_it_should_after_a_crash(store: Store) -> None:
    harness = Harness(store=store)
    publish(declare_exchange(harness, size=10, ttl=5000), b"1", "key", "x")
    harness.wait(3)
    again = restarted(harness)
    publish(Client(again), b"2", "key", "x")
    again.wait(3)
    publish(Client(again), b"3", "key", "x")
    assert take_all(again) == [b"1", b"3"]


@pytest.mark.parametrize("by_exchange", [False, True])
def test_what_was_not_committed_is_no_duplicate(store: Store, by_exchange: bool) -> None:
    harness = Harness(store=store)
    client = declare_exchange(harness, size=9) if by_exchange else declare(harness, WINDOW)
    exchange = "x" if by_exchange else ""
    harness.commits = False
    publish(client, b"lost", "key", exchange)
    again = restarted(harness)
    publish(Client(again), b"sent again", "key", exchange)
    assert take_all(again) == [b"sent again"]


def test_a_duplicate_is_confirmed_when_the_first_one_is_on_the_disk(store: Store) -> None:
    harness = Harness(store=store)
    client = declare(harness, WINDOW)
    other = Client(harness)
    other.ask(Confirm.Select())
    harness.commits = False
    publish(client, b"1", "key")
    publish(other, b"2", "key")
    assert other.heard() == []
    harness.commits = True
    harness.commit()
    (told,) = other.heard()
    assert isinstance(told.method, Basic.Ack)
    assert take_all(harness) == [b"1"]


@pytest.mark.parametrize("mode", [1, 2])
def test_without_a_window_a_key_is_as_durable_as_its_message(store: Store, mode: int) -> None:
    harness = Harness(store=store)
    client = declare(harness, {"x-message-deduplication": True})
    publish(client, b"1", "key", mode=mode)
    again = restarted(harness)
    publish(Client(again), b"2", "key")
    assert take_all(again) == ([b"1"] if mode == 2 else [b"2"])
    again.wait(1)
    once_more = restarted(again)
    publish(Client(once_more), b"3", "key")
    assert take_all(once_more) == [b"3"]


def test_keys_go_with_their_exchange_and_their_queue(store: Store) -> None:
    harness = Harness(store=store)
    publish(declare_exchange(harness, size=9), b"1", "key", "x")
    Client(harness).ask(Queue.Delete(queue="q"))
    publish(declare(harness, WINDOW), b"1", "key")
    assert len(store.recover().keys) == 2
    Client(harness).ask(Exchange.Delete(exchange="x"))
    Client(harness).ask(Queue.Delete(queue="q"))
    assert not store.recover().keys
    assert restarted(harness).core.broker.lines == {}


def test_a_transaction_into_a_queue_that_has_gone_leaves_no_key_behind(store: Store) -> None:
    harness = Harness(store=store)
    client = declare(harness, WINDOW)
    client.ask(Tx.Select())
    publish(client, b"1", "key")
    Client(harness).ask(Queue.Delete(queue="q"))
    client.ask(Tx.Commit())
    harness.wait(1)
    assert not store.recover().keys


def test_what_a_transaction_does_not_commit_is_no_duplicate_later(store: Store) -> None:
    harness = Harness(store=store)
    client = declare_exchange(harness, size=9)
    client.ask(Tx.Select())
    publish(client, b"rolled back", "a", "x")
    client.ask(Tx.Rollback())
    publish(client, b"never committed", "b", "x")
    harness.commit()
    again = restarted(harness)
    for key in "ab":
        publish(Client(again), b"sent again", key, "x")
    assert take_all(again) == [b"sent again", b"sent again"]


def test_a_transaction_lets_one_message_with_a_key_through(store: Store) -> None:
    harness = Harness(store=store)
    client = declare_exchange(harness, size=9)
    client.ask(Tx.Select())
    for body in (b"1", b"2"):
        publish(client, body, "a", "x")
    client.ask(Tx.Commit())
    assert take_all(harness) == [b"1"]


def test_what_a_check_or_a_full_queue_refuses_is_no_duplicate_later(store: Store) -> None:
    harness = Harness(store=store)
    client = declare_exchange(harness, size=9)
    full = {"x-max-length": 0, "x-overflow": "reject-publish"}
    client.ask(Queue.Declare(queue="full", arguments=full))
    client.ask(Queue.Bind(queue="full", exchange="x"))
    headers = {"x-deduplication-header": "a"}
    Client(harness).publish(b"forged", exchange="x", headers=headers, user_id="someone else")
    transacted = Client(harness)
    transacted.ask(Tx.Select())
    publish(transacted, b"1", "a", "x")
    assert transacted.ask(Tx.Commit()).method.reply_code == 406
    client.ask(Queue.Delete(queue="full"))
    for _ in range(2):
        publish(client, b"2", "a", "x")
    assert take_all(harness) == [b"1", b"2"]


@pytest.mark.parametrize("kept", [False, True])
def test_of_dead_letters_with_one_key_the_first_arrives(store: Store, kept: bool) -> None:
    harness = Harness(store=store)
    client = declare_exchange(harness, size=9)
    arguments = {"x-queue-type": "quorum", "x-dead-letter-exchange": "x"}
    if kept:
        arguments |= {"x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish"}
    client.ask(Queue.Declare(queue="s", durable=True, arguments=arguments))
    for _ in range(3):
        client.publish(b"a", routing_key="s", headers={"x-deduplication-header": "k"})
    for _ in range(3):
        client.ask(Basic.Get(queue="s"))
    client.tell(Basic.Nack(delivery_tag=0, multiple=True, requeue=False))
    harness.wait(60)
    assert take_all(harness) == [b"a"]
    line = harness.core.broker.vhosts["/"].queues["s"].letters_line
    assert line is None or not line.waiting


def test_a_letter_that_has_no_room_at_first_arrives_through_a_deduplicating_exchange() -> None:
    harness = Harness()
    client = declare_exchange(harness, size=9)
    full = {"x-max-length": 1, "x-overflow": "reject-publish-dlx"}
    full |= {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "copies"}
    for name, arguments in (("full", full), ("copies", {})):
        client.ask(Queue.Declare(queue=name, durable=True, arguments=arguments))
    client.ask(Queue.Bind(queue="full", exchange="x"))
    client.publish(b"in the way", routing_key="full")
    arguments = {"x-queue-type": "quorum", "x-dead-letter-exchange": "x"}
    arguments |= {"x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish"}
    client.ask(Queue.Declare(queue="s", durable=True, arguments=arguments))
    client.publish(b"a", routing_key="s", headers={"x-deduplication-header": "k"})
    tag = client.ask(Basic.Get(queue="s")).method.delivery_tag
    client.tell(Basic.Reject(delivery_tag=tag, requeue=False))
    harness.wait(30)
    assert client.ask(Queue.Declare(queue="copies", passive=True)).method.message_count == 0
    client.ask(Queue.Purge(queue="full"))
    harness.wait(30)
    assert client.ask(Basic.Get(queue="full", no_ack=True)).body == b"a"
    assert take_all(harness) == [b"a"]


def test_a_mandatory_message_is_not_returned_when_a_queue_behind_two_exchanges_has_it() -> None:
    harness = Harness()
    client = declare_exchange(harness, size=9)
    for name, kind, arguments in (
        ("first", "x-recent-history", {}),
        ("second", "x-message-deduplication", {"x-cache-size": 9}),
    ):
        client.ask(Exchange.Declare(exchange=name, exchange_type=kind, arguments=arguments))
        client.ask(Exchange.Bind(source=name, destination="amq.fanout"))
    client.ask(Queue.Bind(queue="q", exchange="amq.fanout"))
    headers = {"x-deduplication-header": "k"}
    for name in ("first", "second"):
        client.publish(b"a", exchange=name, mandatory=True, headers=headers)
    assert client.heard() == []
    assert take_all(harness) == [b"a", b"a"]


@pytest.mark.parametrize(
    "terms",
    [
        {"x-retry-max": 1, "x-retry-min-delay": 1000},
        {"x-queue-type": "quorum", "x-delayed-retry-type": "all"},
    ],
)
def test_what_waits_for_a_retry_keeps_its_key(store: Store, terms: dict[str, Any]) -> None:
    harness = Harness(store=store)
    client = declare(harness, {"x-message-deduplication": True} | terms)
    publish(client, b"1", "key")
    tag = client.ask(Basic.Get(queue="q")).method.delivery_tag
    client.tell(Basic.Nack(delivery_tag=tag, requeue="x-queue-type" in terms))
    publish(client, b"2", "key")
    harness = restarted(harness)
    publish(Client(harness), b"3", "key")
    harness.wait(10)
    publish(Client(harness), b"4", "key")
    assert take_all(harness) == [b"1"]
    publish(Client(harness), b"5", "key")
    assert take_all(harness) == [b"5"]


@pytest.mark.parametrize("arguments", [{"x-message-deduplication": True}, WINDOW])
def test_keys_with_a_nul_are_told_apart_and_found_again(
    store: Store, arguments: dict[str, Any]
) -> None:
    harness = Harness(store=store)
    client = declare(harness, arguments)
    for body, key in ((b"1", "a\0b"), (b"2", "a\0c"), (b"again", "a\0b")):
        publish(client, body, key)
    client = declare(harness := restarted(harness), arguments)
    publish(client, b"once more", "a\0c")
    assert take_all(harness) == [b"1", b"2"]
