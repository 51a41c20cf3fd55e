"""How often the garbage collector looks, and at what."""

import gc
from collections.abc import Iterator
from typing import Any

import pytest

from amqpd.broker.message import Envelope
from amqpd.server.memory import COLLECT_AFTER_ALLOCATIONS, COLLECT_EVERY_S, Collector
from amqpd.testing.client import Client, publish_bytes
from amqpd.testing.harness import Harness
from amqpd.wire.methods import Queue


@pytest.fixture
def looks() -> Iterator[list[int]]:
    """The generations at which the collector has looked."""
    before, seen = gc.get_threshold(), []

    def note(phase: str, info: dict[str, Any]) -> None:
        if phase == "stop":
            seen.append(info["generation"])

    gc.collect()
    gc.set_threshold(COLLECT_AFTER_ALLOCATIONS, *before[1:])
    gc.callbacks.append(note)
    yield seen
    gc.callbacks.remove(note)
    gc.set_threshold(*before)


def test_it_looks_at_what_is_new_once_in_a_while_and_at_older_objects_more_rarely(
    looks: list[int],
) -> None:
    collector = Collector()
    kept = []
    for turn in range(120):
        kept.append([[number] for number in range(100)])
        collector.look(turn * COLLECT_EVERY_S * 0.6)
    assert len(looks) == 120 // 2
    assert set(looks[:11]) == {0}
    assert 1 in looks
    assert gc.get_threshold()[0] == COLLECT_AFTER_ALLOCATIONS


def test_it_does_not_look_where_nothing_is_new(looks: list[int]) -> None:
    collector = Collector()
    collector.look(0.0)
    looks.clear()
    collector.look(1.0)
    assert looks == []


def test_messages_are_none_of_its_business() -> None:
    client = Client(Harness())
    client.ask(Queue.Declare(queue="q"))
    client.send(publish_bytes(b"x", routing_key="q", expiration="60000") * 10)
    gc.collect()
    run = client.harness.core.broker.vhosts["/"].queues["q"].backlog.take(10)
    assert [gc.is_tracked(message) for message in run.messages] == [False] * 10
    assert not gc.is_tracked(Envelope("x", "key"))
