"""Dramatiq: its queue, its delay queue `.DQ` and its dead letters `.XQ`, with priorities."""

import time
from collections.abc import Callable, Iterator

import dramatiq
import pika
import pytest
from dramatiq import Worker
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.middleware import AgeLimit, Retries
from waiting import wait_until

Name = Callable[[str], str]
WITHIN_S = 15.0


@pytest.fixture
def broker(uri: str) -> Iterator[RabbitmqBroker]:
    """A broker as applications make it, with priorities and confirms."""
    middleware = [AgeLimit(), Retries(min_backoff=100, max_backoff=200)]
    broker = RabbitmqBroker(url=uri, confirm_delivery=True, max_priority=10, middleware=middleware)
    yield broker
    broker.close()


@pytest.fixture
def queue(name: Name) -> str:
    for suffix in ("", ".DQ", ".XQ"):
        name(f"work{suffix}")
    return name("work")


def working(broker: RabbitmqBroker, threads: int = 2) -> Worker:
    worker = Worker(broker, worker_timeout=100, worker_threads=threads)
    worker.start()
    return worker


def ready(uri: str, queue: str) -> int:
    with pika.BlockingConnection(pika.URLParameters(uri)) as connection:
        return connection.channel().queue_declare(queue, passive=True).method.message_count


def test_messages_are_worked_off_at_once_and_after_a_delay(
    broker: RabbitmqBroker, queue: str
) -> None:
    done: list[tuple[int, float]] = []

    @dramatiq.actor(broker=broker, queue_name=queue)
    def work(number: int) -> None:
        done.append((number, time.monotonic()))

    worker = working(broker)
    begun = time.monotonic()
    for number in range(50):
        work.send(number)
    work.send_with_options(args=(99,), delay=700)
    wait_until(lambda: len(done) == 51, "all messages are worked off", WITHIN_S)
    worker.stop()
    assert sorted(number for number, _ in done) == [*range(50), 99]
    assert dict(done)[99] - begun >= 0.69


def test_a_message_that_fails_is_tried_again_and_then_is_a_dead_letter(
    broker: RabbitmqBroker, queue: str, uri: str
) -> None:
    tries: list[float] = []

    @dramatiq.actor(broker=broker, queue_name=queue, max_retries=2)
    def fail() -> None:
        tries.append(time.monotonic())
        raise ValueError("on purpose")

    worker = working(broker)
    fail.send()
    wait_until(lambda: len(tries) == 3, "it was tried three times", WITHIN_S)
    wait_until(lambda: ready(uri, f"{queue}.XQ") == 1, "it is a dead letter", WITHIN_S)
    worker.stop()
    assert ready(uri, queue) == 0
    with pika.BlockingConnection(pika.URLParameters(uri)) as connection:
        _, properties, _ = connection.channel().basic_get(f"{queue}.XQ", auto_ack=True)
    assert properties.headers["x-death"][0]["reason"] == "rejected"


def test_higher_priorities_go_first(broker: RabbitmqBroker, queue: str) -> None:
    done: list[int] = []

    @dramatiq.actor(broker=broker, queue_name=queue)
    def work(priority: int) -> None:
        done.append(priority)

    for priority in (0, 5, 9, 1, 9, 5):
        work.send_with_options(args=(priority,), broker_priority=priority)
    broker.queue_prefetch = 1
    worker = Worker(broker, worker_timeout=100, worker_threads=1, queues=None)
    worker.start()
    wait_until(lambda: len(done) == 6, "all messages are worked off", WITHIN_S)
    worker.stop()
    assert sorted(done) == [0, 1, 5, 5, 9, 9]
    assert done[0] == 9


def test_what_a_worker_leaves_unfinished_another_one_does(
    broker: RabbitmqBroker, queue: str, uri: str
) -> None:
    """A consumer that has a message and loses its connection: no message is lost."""
    done: list[int] = []

    @dramatiq.actor(broker=broker, queue_name=queue)
    def work(number: int) -> None:
        done.append(number)

    work.send(1)
    connection = pika.BlockingConnection(pika.URLParameters(uri))
    method, _, _ = connection.channel().basic_get(queue)
    assert method is not None
    worker = working(broker)
    assert not done
    connection.close()
    wait_until(lambda: done == [1], "another worker does it", WITHIN_S)
    worker.stop()
