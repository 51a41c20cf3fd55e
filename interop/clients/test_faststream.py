"""FastStream: subscribers of queues and exchanges of all kinds, requests, and dead letters."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from faststream.rabbit import (
    ExchangeType,
    QueueType,
    RabbitBroker,
    RabbitExchange,
    RabbitMessage,
    RabbitQueue,
)

Name = Callable[[str], str]
WITHIN_S = 10.0


def run(uri: str, test: Callable[[RabbitBroker], Awaitable[None]]) -> None:
    """Runs a test with a broker, which subscribers are added to before it starts."""

    async def whole() -> None:
        broker = RabbitBroker(uri, graceful_timeout=5.0)
        try:
            await test(broker)
        finally:
            await broker.stop()

    asyncio.run(whole())


async def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < deadline, f"not in time: {what}"
        await asyncio.sleep(0.01)


def test_topics_go_to_those_who_asked_for_them(uri: str, name: Name) -> None:
    exchange = RabbitExchange(name("x"), type=ExchangeType.TOPIC, durable=True)
    got: dict[str, list[str]] = {"errors": [], "all": []}

    async def test(broker: RabbitBroker) -> None:
        @broker.subscriber(RabbitQueue(name("errors"), routing_key="*.error"), exchange)
        async def errors(body: str) -> None:
            got["errors"].append(body)

        @broker.subscriber(RabbitQueue(name("all"), routing_key="#"), exchange)
        async def everything(body: str) -> None:
            got["all"].append(body)

        await broker.start()
        await broker.publish("1", exchange=exchange, routing_key="app.error")
        await broker.publish("2", exchange=exchange, routing_key="app.info")
        await until(lambda: len(got["all"]) == 2 and len(got["errors"]) == 1, "all have come")

    run(uri, test)
    assert got == {"errors": ["1"], "all": ["1", "2"]}


def test_a_request_is_answered(uri: str, name: Name) -> None:
    async def test(broker: RabbitBroker) -> None:
        @broker.subscriber(name("double"))
        async def double(number: int) -> int:
            return 2 * number

        await broker.start()
        answers = [await broker.request(number, name("double"), timeout=5) for number in range(5)]
        assert [await answer.decode() for answer in answers] == [0, 2, 4, 6, 8]

    run(uri, test)


def test_a_delayed_message_exchange_waits(uri: str, name: Name) -> None:
    exchange = RabbitExchange(
        name("late"), type=ExchangeType.X_DELAYED_MESSAGE, arguments={"x-delayed-type": "direct"}
    )
    came: list[float] = []

    async def test(broker: RabbitBroker) -> None:
        @broker.subscriber(RabbitQueue(name("q"), routing_key="k"), exchange)
        async def late(body: str) -> None:
            came.append(time.monotonic())

        await broker.start()
        begun = time.monotonic()
        await broker.publish("1", exchange=exchange, routing_key="k", headers={"x-delay": 600})
        await until(lambda: bool(came), "it has come")
        assert came[0] - begun >= 0.59

    run(uri, test)


def test_a_consistent_hash_keeps_keys_together(uri: str, name: Name) -> None:
    exchange = RabbitExchange(name("hash"), type=ExchangeType.X_CONSISTENT_HASH)
    got: dict[str, list[str]] = {"a": [], "b": []}

    async def test(broker: RabbitBroker) -> None:
        @broker.subscriber(RabbitQueue(name("a"), routing_key="1"), exchange)
        async def take_a(body: str) -> None:
            got["a"].append(body)

        @broker.subscriber(RabbitQueue(name("b"), routing_key="1"), exchange)
        async def take_b(body: str) -> None:
            got["b"].append(body)

        await broker.start()
        for number in range(60):
            key = f"user.{number % 20}"
            await broker.publish(key, exchange=exchange, routing_key=key)
        await until(lambda: sum(map(len, got.values())) == 60, "all have come")

    run(uri, test)
    assert not set(got["a"]) & set(got["b"])
    assert got["a"]
    assert got["b"]


def test_what_a_quorum_queue_rejects_is_a_dead_letter(uri: str, name: Name) -> None:
    dead = RabbitQueue(name("dead"))
    queue = RabbitQueue(
        name("quorum"),
        queue_type=QueueType.QUORUM,
        durable=True,
        arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead.name},
    )
    letters: list[Any] = []

    async def test(broker: RabbitBroker) -> None:
        @broker.subscriber(queue)
        async def refuse(body: str, message: RabbitMessage) -> None:
            await message.reject()

        @broker.subscriber(dead)
        async def bury(body: str, message: RabbitMessage) -> None:
            letters.append((body, message.headers["x-death"][0]["reason"]))

        await broker.start()
        await broker.publish("1", queue)
        await until(lambda: bool(letters), "it is a dead letter")

    run(uri, test)
    assert letters == [("1", "rejected")]
