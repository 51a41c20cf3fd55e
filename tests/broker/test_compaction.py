"""Compacted streams: of each key the newest messages stay, and their offsets with them."""

from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from amqpd.broker.queues.queue import Queue as QueueModel
from amqpd.storage.memory import MemoryStore
from amqpd.storage.sqlite import SqliteStore
from amqpd.storage.upkeep import Sizes
from amqpd.testing.client import Client, publish_bytes
from amqpd.testing.harness import Harness, Store
from amqpd.wire.methods import Basic, Exchange, Queue


@pytest.fixture(params=["memory", "file"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """Both stores must do."""
    if request.param == "memory":
        yield MemoryStore()
    else:
        file = SqliteStore(tmp_path / "amqpd.db", "off", Sizes())
        yield file
        file.close()


def declare(harness: Harness, newest: int, **more: Any) -> Any:
    client = Client(harness)
    arguments = {"x-queue-type": "stream", "x-max-length-per-key": newest, **more}
    return client.ask(Queue.Declare(queue="s", durable=True, arguments=arguments)).method


def publish(harness: Harness, first: int, keys: list[str]) -> None:
    """Numbered messages with keys, a few at a time."""
    client = Client(harness)
    numbered = list(enumerate(keys, first))
    for start in range(0, len(numbered), 5):
        client.send(
            b"".join(
                publish_bytes(b"%d" % number, routing_key="s", headers={"x-group-id": key})
                for number, key in numbered[start : start + 5]
            )
        )


def read(harness: Harness) -> dict[int, str]:
    """Keys of all messages by their offsets."""
    client = Client(harness)
    client.ask(Basic.Qos(prefetch_count=60_000))
    client.tell(Basic.Consume(queue="s", arguments={"x-stream-offset": "first"}))
    found: dict[int, str] = {}
    for told in client.heard():
        if isinstance(told.method, Basic.Deliver):
            headers = told.properties.headers
            assert headers["x-stream-offset"] == int(told.body)
            found[headers["x-stream-offset"]] = headers["x-group-id"]
    client.link.close()
    return found


def the(harness: Harness) -> QueueModel:
    return harness.core.broker.vhosts["/"].queues["s"]


def compacted(harness: Harness) -> None:
    """Lets the time pass in which it is looked for superseded messages."""
    for _ in range(30):
        harness.wait(0.2)


def newest_of(keys: list[str], newest: int) -> dict[int, str]:
    kept = {}
    for number in range(len(keys)):
        if keys[number:].count(keys[number]) <= newest:
            kept[number] = keys[number]
    return kept


@pytest.mark.parametrize("newest", [1, 3])
def test_of_each_key_the_newest_messages_stay(store: Store, newest: int) -> None:
    harness = Harness(store=store)
    declare(harness, newest)
    random = Random(newest)
    keys: list[str] = []
    for _ in range(5):
        more = [random.choice("abcdefgh") for _ in range(40)]
        publish(harness, len(keys), more)
        keys += more
        compacted(harness)
        expected = newest_of(keys, newest)
        assert read(harness) == expected
        assert the(harness).ready == len(expected)
        assert the(harness).stream.kept_bytes == sum(len(str(each)) for each in expected)


def test_what_was_not_compacted_before_a_crash_is_after_it(store: Store) -> None:
    before = Harness(store=store)
    declare(before, 1)
    publish(before, 0, ["a", "b", "a", "b", "a"])
    harness = Harness(store=store, epoch=before.now)
    compacted(harness)
    assert read(harness) == {3: "b", 4: "a"}
    publish(harness, 5, ["b"])
    compacted(harness)
    again = Harness(store=store, epoch=harness.now)
    assert read(again) == {4: "a", 5: "b"}
    assert the(again).ready == 2


def test_thousands_of_messages_of_one_key_are_compacted_step_by_step(store: Store) -> None:
    harness = Harness(store=store)
    declare(harness, 2)
    client = Client(harness)
    for start in range(0, 20_000, 1000):
        numbers = range(start, start + 1000)
        client.send(b"".join(publish_bytes(b"%d" % each, routing_key="s") for each in numbers))
    compacted(harness)
    assert the(harness).ready == 2


def test_without_a_group_the_routing_key_is_the_key(store: Store) -> None:
    harness = Harness(store=store)
    declare(harness, 1)
    client = Client(harness)
    client.ask(Exchange.Declare(exchange="x", exchange_type="fanout"))
    client.ask(Queue.Bind(queue="s", exchange="x"))
    for key in ("sensor.1", "sensor.2", "sensor.1"):
        client.publish(b"", exchange="x", routing_key=key)
    compacted(harness)
    assert the(harness).ready == 2


def test_a_reader_at_the_end_sees_all_that_comes(store: Store) -> None:
    harness = Harness(store=store)
    declare(harness, 1)
    reader = Client(harness)
    reader.ask(Basic.Qos(prefetch_count=1000))
    reader.tell(Basic.Consume(queue="s"))
    publish(harness, 0, ["a"] * 20)
    compacted(harness)
    assert len(reader.bodies()) == 20
    assert read(harness) == {19: "a"}


@pytest.mark.parametrize(
    ("newest", "more", "why"),
    [
        (0, {}, '"expected a whole number, 1 or more, got 0"'),
        (1, {"x-max-age": "1h"}, '"it goes with no x-max-age"'),
        (1, {"x-max-length-bytes": 9}, '"it goes with no x-max-length-bytes"'),
    ],
)
def test_a_number_that_cannot_be_is_refused(newest: int, more: dict[str, Any], why: str) -> None:
    refusal = declare(Harness(), newest, **more)
    assert refusal.reply_text == (
        "PRECONDITION_FAILED - invalid arg 'x-max-length-per-key' for queue 's' in vhost '/': "
        + why
    )


def test_groups_that_are_no_text_are_keys_too(store: Store) -> None:
    harness = Harness(store=store)
    declare(harness, 1)
    client = Client(harness)
    data = publish_bytes(b"x", routing_key="s", headers={"x-group-id": "abc"})
    for group in (b"\xff\xfe\xff", b"\xed\xa0\x80", b"\xff\xfe\xff"):
        client.send(data.replace(b"abc", group))
    compacted(harness)
    assert the(harness).ready == 2
