"""TTL, limits, priorities, dead letters and delivery counts of what was stored before a restart."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from amqpd.config import Config
from amqpd.config.settings import Limits
from amqpd.storage.memory import MemoryStore
from amqpd.storage.sqlite import SqliteStore
from amqpd.testing.client import Client, publish_bytes
from amqpd.testing.harness import Harness, Store
from amqpd.wire.methods import Basic, Exchange, Queue

SMALL = Config(limits=Limits(queue_memory_bytes_max=65_536))


UPTIME_S = 1_000_000.0


class Lives:
    """A broker that can crash, and the next one on the same store."""

    def __init__(self, store: Store, config: Config) -> None:
        self.store = store
        self.config = config
        self.harness = Harness(config, store=store)
        self.client = Client(self.harness)

    def crash(self, down_s: float = 0.0) -> None:
        """The broker is gone for so long."""
        self.harness.commit()
        wall = self.harness.core.broker.epoch + self.harness.now + down_s
        # The clock of another process, or of the machine after a boot, begins anywhere.
        self.harness = Harness(self.config, store=self.store, epoch=wall - UPTIME_S, now=UPTIME_S)
        self.client = Client(self.harness)

    def declare(self, name: str, **arguments: Any) -> None:
        self.client.ask(
            Queue.Declare(
                queue=name,
                durable=True,
                arguments={f"x-{key.replace('_', '-')}": each for key, each in arguments.items()},
            )
        )

    def publish(self, queue: str, *bodies: bytes, **properties: Any) -> None:
        properties = {"delivery_mode": 2, **properties}
        self.client.send(
            b"".join(publish_bytes(body, routing_key=queue, **properties) for body in bodies)
        )

    def count(self, queue: str) -> int:
        told = self.client.ask(Queue.Declare(queue=queue, passive=True))
        return int(told.method.message_count)

    def get(self, queue: str, *, no_ack: bool = True) -> Any:
        return self.client.ask(Basic.Get(queue=queue, no_ack=no_ack))


@pytest.fixture(params=["memory", "file"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "memory":
        yield MemoryStore()
        return
    file = SqliteStore(tmp_path / "amqpd.db")
    yield file
    file.close()


@pytest.fixture(params=["large", "small"])
def lives(request: pytest.FixtureRequest, store: Store) -> Lives:
    """With a window that holds all, and with one that does not."""
    return Lives(store, SMALL if request.param == "small" else Config())


BODIES = [b"%05d" % number for number in range(1000)]


def test_the_ttl_of_a_queue_goes_on_while_the_broker_is_down(lives: Lives) -> None:
    lives.declare("q", message_ttl=60_000)
    lives.publish("q", *BODIES)
    lives.crash(down_s=30)
    lives.harness.wait(29.9)
    assert lives.count("q") == 1000
    lives.harness.wait(0.2)
    assert lives.count("q") == 0


def test_what_has_expired_while_the_broker_was_down_is_never_delivered(lives: Lives) -> None:
    lives.declare("q")
    lives.publish("q", *BODIES, expiration="1000")
    lives.publish("q", b"left")
    lives.crash(down_s=2)
    assert lives.get("q").body == b"left"


def test_a_message_of_its_own_ttl_expires_after_a_restart_though_nobody_consumes(
    lives: Lives,
) -> None:
    lives.declare("dead")
    lives.declare("q", dead_letter_exchange="", dead_letter_routing_key="dead")
    lives.publish("q", *BODIES, expiration="60000")
    lives.crash(down_s=10)
    lives.harness.wait(49.9)
    assert (lives.count("q"), lives.count("dead")) == (1000, 0)
    lives.harness.wait(0.2)
    assert (lives.count("q"), lives.count("dead")) == (0, 1000)
    assert [lives.get("dead").body for _ in range(1000)] == BODIES


def test_a_deadline_is_by_the_clock_on_the_wall_whatever_that_does(lives: Lives) -> None:
    lives.declare("q", message_ttl=60_000)
    lives.publish("q", b"1")
    lives.crash(down_s=-30)
    lives.harness.wait(89.9)
    assert lives.count("q") == 1
    lives.harness.wait(0.2)
    assert lives.count("q") == 0


def test_priorities_hold_after_a_restart(lives: Lives) -> None:
    lives.declare("q", max_priority=5)
    for place, body in enumerate(BODIES):
        lives.publish("q", body, priority=place % 7)
    lives.crash()
    assert lives.count("q") == 1000
    expected = sorted(range(1000), key=lambda place: -min(place % 7, 5))
    assert [lives.get("q").body for _ in range(1000)] == [BODIES[place] for place in expected]
    lives.crash()
    assert lives.count("q") == 0


def test_a_priority_queue_that_is_deleted_takes_all_its_lines_along(lives: Lives) -> None:
    lives.declare("q", max_priority=5)
    for priority in range(6):
        lives.publish("q", *BODIES[:50], priority=priority)
    lives.client.ask(Queue.Delete(queue="q"))
    lives.crash()
    lives.declare("q", max_priority=5)
    lives.declare("p", max_priority=5)
    assert (lives.count("q"), lives.count("p")) == (0, 0)


def test_limits_hold_after_a_restart_by_length_and_by_bytes(lives: Lives) -> None:
    lives.declare("length", max_length=900)
    lives.declare("bytes", max_length_bytes=4500)
    for queue in ("length", "bytes"):
        lives.publish(queue, *BODIES)
        assert lives.count(queue) == 900
    lives.crash()
    for queue in ("length", "bytes"):
        lives.publish(queue, *BODIES[:10])
        assert lives.count(queue) == 900
        assert lives.get(queue).body == BODIES[110]


def test_a_full_queue_refuses_after_a_restart(lives: Lives) -> None:
    lives.declare("q", max_length_bytes=5000, overflow="reject-publish")
    lives.publish("q", *BODIES)
    lives.crash()
    lives.publish("q", b"1")
    assert lives.count("q") == 1000


def test_delivery_counts_hold_after_a_restart(lives: Lives) -> None:
    lives.declare("dead")
    lives.declare(
        "q",
        queue_type="quorum",
        delivery_limit=3,
        dead_letter_exchange="",
        dead_letter_routing_key="dead",
    )
    lives.publish("q", b"1")
    for count in (None, 1, 2, 3):
        told = lives.get("q", no_ack=False)
        assert (told.properties.headers or {}).get("x-delivery-count") == count
        lives.client.tell(Basic.Reject(delivery_tag=told.method.delivery_tag, requeue=True))
        lives.crash()
    assert (lives.count("q"), lives.count("dead")) == (0, 1)


def test_deaths_are_the_brokers_word_also_after_a_restart(lives: Lives) -> None:
    lives.declare("q", dead_letter_exchange="")
    lives.publish(
        "q", b"1", headers={"x-death": [{"count": 7, "queue": "q", "reason": "rejected"}]}
    )
    for count in (1, 2, 3):
        lives.crash()
        told = lives.get("q", no_ack=False)
        lives.client.tell(Basic.Reject(delivery_tag=told.method.delivery_tag, requeue=False))
        lives.crash()
        told = lives.get("q", no_ack=False)
        (death,) = told.properties.headers["x-death"]
        assert death["count"] == count
        lives.client.tell(Basic.Nack(delivery_tag=told.method.delivery_tag, requeue=True))


def test_a_message_and_its_dead_letter_are_never_both_there_nor_both_gone(lives: Lives) -> None:
    lives.declare("dead")
    lives.declare("q", max_length=1, dead_letter_exchange="", dead_letter_routing_key="dead")
    lives.harness.commits = False
    lives.publish("q", *BODIES[:3])
    lives.harness.commit(1)
    before = {BODIES[0], BODIES[1], BODIES[2]}
    lives.harness = Harness(lives.config, store=lives.store)
    lives.client = Client(lives.harness)
    found = [lives.get(queue).body for queue in ("q", "dead", "dead")]
    assert sorted(found) == sorted(before)


def test_a_queue_that_may_be_unused_for_a_time_has_that_time_again_after_a_restart(
    lives: Lives,
) -> None:
    lives.declare("q", expires=10_000)
    lives.harness.wait(6)
    lives.crash(down_s=6)
    lives.harness.wait(9.9)
    assert "q" in lives.harness.core.broker.vhosts["/"].queues
    lives.harness.wait(0.2)
    assert "q" not in lives.harness.core.broker.vhosts["/"].queues
    lives.crash()
    assert "q" not in lives.harness.core.broker.vhosts["/"].queues


def test_a_transient_message_is_kept_in_a_quorum_queue_and_not_as_its_dead_letter(
    lives: Lives,
) -> None:
    lives.declare("dead")
    lives.declare("q", queue_type="quorum", dead_letter_exchange="", dead_letter_routing_key="dead")
    lives.publish("q", b"1", delivery_mode=1)
    lives.crash()
    told = lives.get("q", no_ack=False)
    lives.client.tell(Basic.Reject(delivery_tag=told.method.delivery_tag, requeue=False))
    assert lives.count("dead") == 1
    lives.crash()
    assert (lives.count("q"), lives.count("dead")) == (0, 0)


def test_a_retry_goes_on_after_a_restart(lives: Lives) -> None:
    lives.declare("q", retry_max=5, retry_min_delay=10_000, retry_jitter=0)
    lives.publish("q", *BODIES[:300])
    for _ in range(300):
        tag = lives.get("q", no_ack=False).method.delivery_tag
        lives.client.tell(Basic.Reject(delivery_tag=tag, requeue=False))
    lives.crash(down_s=4)
    lives.harness.wait(5.9)
    assert lives.count("q") == 0
    lives.harness.wait(0.2)
    assert lives.count("q") == 300
    told = lives.get("q")
    assert (told.body, told.properties.headers) == (BODIES[0], {"x-retry-count": 1})
    lives.crash()
    assert lives.count("q") == 299


def test_what_a_publisher_has_delayed_waits_on_after_a_restart(lives: Lives) -> None:
    lives.declare("q", delayed=True)
    for number, body in enumerate(BODIES):
        lives.publish("q", body, headers={"x-delay": 10_000 - number})
    lives.crash(down_s=5)
    assert lives.count("q") == 0
    lives.harness.wait(5.1)
    assert [lives.get("q").body for _ in range(1000)] == BODIES[::-1]


def test_what_waits_goes_with_its_queue(lives: Lives) -> None:
    lives.declare("q", delayed=True)
    lives.publish("q", *BODIES, headers={"x-delay": 10_000})
    lives.crash()
    lives.client.ask(Queue.Delete(queue="q"))
    lives.crash()
    lives.declare("q")
    lives.harness.wait(20)
    assert lives.count("q") == 0


@pytest.mark.parametrize(
    "arguments",
    [
        {"retry_max": 3, "retry_min_delay": 2**63 - 1},
        {"queue_type": "quorum", "delayed_retry_type": "all", "delayed_retry_min": 2**63 - 1},
        {"message_deduplication": True, "cache_ttl": 2**63 - 1},
    ],
)
def test_no_time_is_too_long_for_the_store(lives: Lives, arguments: dict[str, Any]) -> None:
    lives.declare("q", **arguments)
    lives.publish("q", b"1", headers={"x-deduplication-header": "k", "x-cache-ttl": 2**63 - 1})
    tag = lives.get("q", no_ack=False).method.delivery_tag
    requeue = "retry_max" not in arguments
    lives.client.tell(Basic.Reject(delivery_tag=tag, requeue=requeue))
    lives.crash()
    assert lives.count("q") == ("cache_ttl" in arguments)
    lives.publish("q", b"2")
    assert lives.count("q") == ("cache_ttl" in arguments) + 1


def test_no_time_that_a_publisher_gives_a_key_is_too_long_for_the_store(lives: Lives) -> None:
    lives.declare("q")
    kind, arguments = "x-message-deduplication", {"x-cache-size": 10, "x-cache-persistence": "disk"}
    lives.client.ask(
        Exchange.Declare(exchange="x", exchange_type=kind, durable=True, arguments=arguments)
    )
    lives.client.ask(Queue.Bind(queue="q", exchange="x"))
    headers = {"x-deduplication-header": "k", "x-cache-ttl": 2**63 - 1}
    again = publish_bytes(b"1", exchange="x", delivery_mode=2, headers=headers)
    lives.client.send(again)
    lives.crash()
    lives.client.send(again)
    assert lives.count("q") == 1
