"""A small batch is one statement, and leaves what it would leave statement by statement."""

from pathlib import Path

import pytest

from amqpd.storage.sqlite import SqliteStore
from amqpd.testing.client import Client, publish_bytes
from amqpd.testing.harness import Harness
from amqpd.wire.methods import Basic, Confirm, Queue


@pytest.mark.parametrize("body", [b"small", b"x" * 20_000], ids=["small", "large"])
def test_a_publish_and_the_ack_before_it_are_one_statement(tmp_path: Path, body: bytes) -> None:
    store = SqliteStore(tmp_path / "amqpd.db")
    client = Client(Harness(store=store))
    client.ask(Queue.Declare(queue="q", durable=True))
    client.ask(Confirm.Select())
    client.ask(Basic.Consume(queue="q"))
    client.publish(body, routing_key="q", delivery_mode=2)
    statements: list[str] = []
    store._writing.set_trace_callback(statements.append)
    for tag in range(1, 6):
        statements.clear()
        client.tell(Basic.Ack(delivery_tag=tag))
        client.publish(body, routing_key="q", delivery_mode=2)
        # What its trigger does is traced as the same statement again, or as a comment.
        assert len({each for each in statements if not each.startswith("--")}) == 1
    kept = store._writing.execute("SELECT number, body FROM messages").fetchall()
    assert kept == [(6, body)]
    assert store._writing.execute("SELECT messages FROM standings").fetchall() == [(1,)]
    store.close()


def test_batches_that_are_not_that_simple_leave_the_same(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "amqpd.db")
    client = Client(Harness(store=store))
    client.ask(Queue.Declare(queue="q", durable=True))
    client.send(
        publish_bytes(b"a", routing_key="q", delivery_mode=2)
        + publish_bytes(b"", routing_key="q", delivery_mode=2)
        + publish_bytes(b"b", routing_key="q", delivery_mode=2, content_type="x/y")
    )
    kept = store._writing.execute("SELECT number, body FROM messages").fetchall()
    assert kept == [(1, b"a"), (2, b""), (3, b"b")]
    store.close()
