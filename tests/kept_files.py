"""Files of brokers that have stopped, and what may happen to them on a disk."""

import sqlite3
from contextlib import closing
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from amqpd.storage.database import PAGE_BYTES
from amqpd.storage.sqlite import SqliteStore
from amqpd.storage.upkeep import Sizes
from amqpd.testing.client import Client
from amqpd.testing.harness import Harness
from amqpd.wire.methods import Exchange, Queue

LEAF = 0x0D  # of a table
COUNT = 300  # messages of the long queue


class Broker:
    """A broker on a file, with a client.

    Leaving the block stops it; `kill` leaves the file as a crash does.
    """

    def __init__(self, file: Path) -> None:
        self.store = SqliteStore(file, "off", Sizes(wal_bytes_high=131_072, free_bytes_min=65_536))
        self.harness = Harness(store=self.store)
        self.client = Client(self.harness)

    def __enter__(self) -> "Broker":
        return self

    def __exit__(self, *_: Any) -> None:
        self.client.link.close()
        self.harness.core.stopped()
        self.harness.commit()
        self.store.close()

    def publish(self, body: bytes, routing_key: str, exchange: str = "", **more: Any) -> None:
        """Publishes a persistent message."""
        self.client.publish(
            body, exchange=exchange, routing_key=routing_key, delivery_mode=2, **more
        )


def declare_and_fill(broker: Broker, count: int = COUNT) -> None:
    """An exchange, three queues, and messages of all kinds in two of them."""
    ask = broker.client.ask
    ask(Exchange.Declare(exchange="shop", exchange_type="topic", durable=True))
    ask(Queue.Declare(queue="orders", durable=True, arguments={"x-max-length": 1_000_000}))
    ask(Queue.Declare(queue="mails", durable=True))
    ask(Queue.Declare(queue="empty", durable=True))
    ask(Queue.Bind(queue="orders", exchange="shop", routing_key="order.#"))
    ask(Queue.Bind(queue="mails", exchange="shop", routing_key="order.paid"))
    for number in range(1, count + 1):
        broker.publish(b"order %d %s" % (number, b"." * 60), "order.new", "shop")
    broker.publish(b"shared " * 1000, "order.paid", "shop")  # of both queues
    broker.publish(b"", "mails", headers={"tries": 3}, message_id="m1")
    broker.publish(b"\xff\x00binary", "mails")
    broker.publish("Größe".encode(), "mails", content_type="text/plain")
    broker.harness.commit()


def kept_file(directory: Path) -> Path:
    """The file of a broker that was stopped, with nothing left over in it from what was before."""
    file = directory / "amqpd.db"
    file.write_bytes(_kept_bytes())
    return file


@cache
def _kept_bytes() -> bytes:
    with TemporaryDirectory() as directory:
        file = Path(directory, "amqpd.db")
        with Broker(file) as broker:
            declare_and_fill(broker)
        alter(file, "VACUUM")
        return file.read_bytes()


def flip(file: Path, text: bytes, *, nth: int = 0) -> None:
    """Changes one byte of a text that stands in the file."""
    data = bytearray(file.read_bytes())
    place = -1
    for _ in range(nth + 1):
        place = data.index(text, place + 1)
    data[place + len(text) // 2] ^= 0x01
    file.write_bytes(data)


def leaves(file: Path, text: bytes) -> list[int]:
    """The pages of tables' rows that hold a text."""
    data = file.read_bytes()
    pages = [data[start : start + PAGE_BYTES] for start in range(0, len(data), PAGE_BYTES)]
    return [place for place, page in enumerate(pages) if page[0] == LEAF and text in page]


def malform(file: Path, page: int) -> None:
    """Makes nonsense of one page."""
    with file.open("r+b") as opened:
        opened.seek(page * PAGE_BYTES)
        opened.write(b"\xee" * PAGE_BYTES)


def alter(file: Path, statement: str, *values: Any) -> None:
    """Changes a file that no broker uses, through SQLite."""
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute(statement, values)
