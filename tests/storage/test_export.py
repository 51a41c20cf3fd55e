"""What `amqpd store export` gets out of a file: all of a whole one, and of others what is left."""

import json
from base64 import b64decode
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kept_files import COUNT, Broker, alter, flip, kept_file, leaves, malform

from amqpd.storage.check import Check
from amqpd.storage.database import PAGE_BYTES
from amqpd.storage.errors import StorageError
from amqpd.storage.export import Export, Selection
from amqpd.storage.schema import NUMBER_BITS
from amqpd.wire.methods import Basic, Exchange, Queue

ORDERS = [f"order {number} {'.' * 60}" for number in range(1, COUNT + 1)]
SHARED = "shared " * 1000


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The file of a broker that was stopped."""
    return kept_file(tmp_path)


class Exported(NamedTuple):
    """An export: definitions, messages, what was said, and how many things were left out."""

    definitions: dict[str, Any]
    messages: list[dict[str, Any]]
    said: list[str]
    left_out: int

    def payloads(self, queue: str | None) -> list[Any]:
        """The bodies of one queue."""
        return [each["payload"] for each in self.messages if each["queue"] == queue]


def exported(file: Path, **selection: Any) -> Exported:
    said: list[str] = []
    export = Export(file, Selection(**selection), said.append)
    lines = [json.loads(line) for line in export.lines()]
    definitions, *messages = lines or [{}]
    assert all(each["type"] == "message" for each in messages)
    assert export.messages == len(messages)
    return Exported(definitions, messages, said, export.left_out.count)


def test_definitions_come_first_and_are_named_as_those_of_rabbitmq(file: Path) -> None:
    assert exported(file).definitions == {
        "type": "definitions",
        "vhosts": [{"name": "/"}],
        "exchanges": [
            {
                "vhost": "/",
                "name": "shop",
                "type": "topic",
                "auto_delete": False,
                "internal": False,
                "arguments": {},
                "durable": True,
            }
        ],
        "queues": [
            {
                "vhost": "/",
                "name": name,
                "auto_delete": False,
                "arguments": arguments,
                "durable": True,
            }
            for name, arguments in (
                ("orders", {"x-max-length": 1_000_000}),
                ("mails", {}),
                ("empty", {}),
            )
        ],
        "bindings": [
            {
                "vhost": "/",
                "source": "shop",
                "destination_type": "queue",
                "destination": name,
                "routing_key": key,
                "arguments": {},
            }
            for name, key in (("mails", "order.paid"), ("orders", "order.#"))
        ],
    }


def test_messages_come_queue_by_queue_in_their_order(file: Path) -> None:
    found = exported(file)
    assert found.payloads("orders") == [*ORDERS, SHARED]
    assert [each["number"] for each in found.messages] == [*range(1, COUNT + 2), 1, 2, 3, 4]
    assert (found.said, found.left_out) == ([], 0)


def test_a_message_is_named_as_in_the_http_api_of_rabbitmq(file: Path) -> None:
    _, empty, binary, text = exported(file, queue="mails").messages
    assert empty == {
        "type": "message",
        "vhost": "/",
        "queue": "mails",
        "number": 2,
        "exchange": "",
        "routing_key": "mails",
        "redelivered": False,
        "delivery_count": 0,
        "enqueued_at": "1970-01-01T00:00:00.000Z",
        "properties": {"headers": {"tries": 3}, "delivery_mode": 2, "message_id": "m1"},
        "types": {"/headers/tries": "byte"},
        "payload_bytes": 0,
        "payload": "",
        "payload_encoding": "string",
    }
    assert b64decode(binary["payload"]) == b"\xff\x00binary"
    assert binary["payload_encoding"] == "base64"
    assert (text["payload"], text["payload_encoding"]) == ("Größe", "string")


def test_what_came_back_from_a_consumer_is_marked(file: Path) -> None:
    with Broker(file) as broker:
        broker.client.ask(Basic.Get(queue="mails"))
        broker.client.tell(Basic.Nack(delivery_tag=1))
    first, *_ = exported(file, queue="mails").messages
    assert (first["redelivered"], first["delivery_count"]) == (True, 1)


def test_types_that_json_does_not_have_stand_beside_the_arguments(tmp_path: Path) -> None:
    file = tmp_path / "amqpd.db"
    arguments = {"x-match": "any", "n": bytearray(b"\x01")}
    with Broker(file) as broker:
        broker.client.ask(Queue.Declare(queue="q", durable=True))
        broker.client.ask(Queue.Bind(queue="q", exchange="amq.headers", arguments=arguments))
        broker.client.ask(Exchange.Declare(exchange="e", exchange_type="headers", durable=True))
        broker.client.ask(Exchange.Bind(destination="e", source="amq.headers", routing_key="k"))
    to_exchange, to_queue = exported(file).definitions["bindings"]
    assert to_exchange["destination_type"] == "exchange"
    assert to_queue["arguments"] == {"x-match": "any", "n": "AQ=="}
    assert to_queue["types"] == {"/n": "binary:base64"}


@pytest.mark.parametrize(
    ("selection", "count"),
    [
        ({"queue": "mails"}, 4),
        ({"queue": "empty"}, 0),
        ({"vhost": "/"}, COUNT + 5),
        ({"vhost": "/", "queue": "orders"}, COUNT + 1),
        ({"definitions_only": True}, 0),
    ],
)
def test_a_part_can_be_asked_for(file: Path, selection: dict[str, Any], count: int) -> None:
    found = exported(file, **selection)
    assert len(found.messages) == count
    assert found.definitions == exported(file).definitions


def test_the_definitions_of_other_virtual_hosts_are_left_out(file: Path) -> None:
    alter(file, "INSERT INTO vhosts VALUES ('other', 0)")
    found = exported(file, vhost="other")
    assert found.definitions == {
        "type": "definitions",
        "vhosts": [{"name": "other", "damaged": True}],
        "exchanges": [],
        "queues": [],
        "bindings": [],
    }
    assert found.messages == []


@pytest.mark.parametrize(
    ("selection", "words"),
    [
        ({"queue": "q"}, "has no queue 'q'$"),
        ({"vhost": "v"}, "has no vhost 'v'$"),
        ({"vhost": "/", "queue": "q"}, "has no queue 'q' in vhost '/'$"),
    ],
)
def test_what_is_not_there_cannot_be_asked_for(file: Path, selection: Any, words: str) -> None:
    with pytest.raises(StorageError, match=words):
        exported(file, **selection)


def test_payloads_can_be_left_out(file: Path) -> None:
    for each in exported(file, payloads=False).messages:
        assert "payload" not in each
        assert "payload_bytes" in each


def test_an_export_goes_on_while_the_broker_works(file: Path) -> None:
    with Broker(file) as broker:
        lines = Export(file, Selection(), lambda text: None).lines()
        next(lines)
        broker.client.ask(Queue.Declare(queue="new", durable=True))
        broker.publish(b"while it was read", "new")
        broker.client.ask(Queue.Delete(queue="mails"))
        messages = [json.loads(line) for line in lines]
    assert len(messages) == COUNT + 2
    assert (messages[-1]["queue"], messages[-1]["payload"]) == ("new", "while it was read")


def test_a_queue_that_is_purged_is_not_exported(file: Path) -> None:
    with Broker(file) as broker:
        broker.client.ask(Queue.Purge(queue="orders"))
        broker.harness.commit()
        assert len(exported(file).messages) == 4


# --- damaged files --------------------------------------------------------------------------------


def test_a_damaged_message_is_exported_and_marked(file: Path) -> None:
    flip(file, b"order 17 ...")
    found = exported(file)
    assert [each["number"] for each in found.messages if "damaged" in each] == [17]
    assert len(found.payloads("orders")) == COUNT + 1
    assert found.said == ["message 17 of queue 'orders' in vhost '/' is damaged"]
    assert found.left_out == 0


def test_messages_that_the_broker_has_set_aside_are_exported_and_marked(file: Path) -> None:
    flip(file, b"\xff\x00binary")
    with Broker(file) as broker:
        broker.client.tell(Basic.Consume(queue="mails", no_ack=True))
        broker.client.heard()
    *_, last = exported(file).messages
    assert (last["queue"], last["number"], last["damaged"]) == ("mails", 3, True)
    assert last["noticed_at"].startswith("1970-01-01T")
    assert len(b64decode(last["payload"])) == len(b"\xff\x00binary")
    assert last in exported(file, queue="mails").messages
    assert last not in exported(file, queue="orders").messages


def test_reading_goes_on_behind_a_malformed_page(file: Path) -> None:
    (page,) = leaves(file, b"order 100 ")
    text = file.read_bytes()[page * PAGE_BYTES : (page + 1) * PAGE_BYTES].decode("latin-1")
    lost = [order for order in ORDERS if order in text]
    malform(file, page)
    found = exported(file)
    assert found.payloads("orders") == [*(each for each in ORDERS if each not in lost), SHARED]
    assert len(found.payloads("mails")) == 4
    assert found.left_out == 1
    assert found.said[0].startswith("between message ")
    assert found.said[1] == f"about {len(lost)} messages cannot be read"


def test_a_good_page_between_two_malformed_ones_is_read(file: Path) -> None:
    pages = [leaves(file, b"order %d " % number)[0] for number in (80, 160, 240)]
    assert len(set(pages)) == 3
    malform(file, pages[0])
    malform(file, pages[2])
    found = exported(file)
    assert ORDERS[159] in found.payloads("orders")
    assert found.left_out == 2


def test_a_body_on_a_malformed_page_leaves_the_rest_of_its_message(tmp_path: Path) -> None:
    file = tmp_path / "amqpd.db"
    with Broker(file) as broker:
        broker.client.ask(Queue.Declare(queue="q", durable=True))
        broker.publish(b"x" * 20_000, "q", message_id="m")
        broker.publish(b"next", "q")
    overflow = file.read_bytes().index(b"x" * (PAGE_BYTES - 4)) // PAGE_BYTES
    with file.open("r+b") as opened:
        opened.seek(overflow * PAGE_BYTES)
        opened.write(b"\xee" * 4)  # the number of the page that follows
    malform(file, 1)  # where SQLite looks it up first
    first, second = exported(file).messages
    assert first["properties"]["message_id"] == "m"
    assert (first["payload"], first["damaged"]) == (None, True)
    assert second["payload"] == "next"
    assert exported(file).left_out == 1


def test_the_names_of_queues_are_found_where_their_table_cannot_be_read(file: Path) -> None:
    pages = [page for page in leaves(file, b"/orders") if page in leaves(file, b"/mails")]
    for page in pages:
        malform(file, page)
    found = exported(file)
    assert found.payloads("orders") == [*ORDERS, SHARED]
    assert found.definitions["queues"] == []
    assert found.left_out == 1


def test_messages_of_a_queue_without_a_name_are_exported(file: Path) -> None:
    alter(file, "DELETE FROM queues WHERE name = 'mails'")
    found = exported(file)
    assert len(found.payloads(None)) == 4
    assert {each["queue_id"] for each in found.messages if each["queue"] is None} == {2}


@pytest.mark.parametrize(
    ("statement", "left_out"),
    [
        ("UPDATE stored SET header = x'00' WHERE body IS NULL", 0),
        ("UPDATE stored SET header = 7 WHERE body IS NULL", 2),
        ("UPDATE stored SET enqueued_ms = 1 << 62, delivery_count = 'x'", 0),
        ("UPDATE stored SET enqueued_ms = x'ff', size = x'ff'", 0),
        ("UPDATE stored SET exchange = CAST(x'ff' AS TEXT), routing_key = x'fe'", 0),
        ("UPDATE queues SET name = CAST(x'ff' AS TEXT) WHERE id = 1", 0),
        ("UPDATE queues SET arguments = x'00000009' WHERE id = 1", 1),
        ("UPDATE queues SET arguments = 5 WHERE id = 1", 1),
        ("UPDATE exchanges SET type = 5, auto_delete = x'00'", 0),
        ("UPDATE standings SET handed_out_below = 'x', messages = 1.5", 0),
        ("DROP TABLE standings", 1),
        ("DROP TABLE gone", 1),
        ("DROP TABLE bodies", 2),
        ("DROP TABLE bindings", 1),
        ("DROP TABLE damaged", 1),
        ("UPDATE stored SET id = -id WHERE id & 1023 = 9", 0),
        (f"UPDATE stored SET id = (1 << 62) + id WHERE id >> {NUMBER_BITS} = 1", 0),
    ],
)
def test_whatever_stands_in_a_row_is_exported(file: Path, statement: str, left_out: int) -> None:
    alter(file, statement)
    found = exported(file)
    assert len(found.messages) == COUNT + 5
    assert found.left_out == left_out


def test_of_a_file_without_messages_the_definitions_are_exported(file: Path) -> None:
    alter(file, "DROP VIEW messages")
    alter(file, "DROP VIEW queue_lengths")
    alter(file, "DROP TABLE stored")
    found = exported(file)
    assert len(found.definitions["queues"]) == 3
    assert found.said[0] == "from the first message to the last nothing can be read"
    assert found.said[1] == f"about {COUNT + 5} messages cannot be read"


@pytest.mark.parametrize("data", [b"", b"no SQLite file " * 1000])
def test_of_a_file_that_is_no_store_nothing_is_exported(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "amqpd.db"
    file.write_bytes(data)
    assert exported(file).left_out > 0


blows = st.one_of(
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=20).map(
        lambda flips: ("flip", flips)
    ),
    st.lists(st.floats(0, 1), min_size=1, max_size=3).map(lambda pages: ("malform", pages)),
    st.floats(0, 1).map(lambda size: ("cut", size)),
    st.tuples(st.floats(0, 1), st.floats(0, 1)).map(lambda pages: ("copy", pages)),
)


def struck(data: bytes, kind: str, where: Any) -> bytes:
    """What is left of a file."""
    found = bytearray(data)
    last_page = len(data) // PAGE_BYTES - 1
    if kind == "flip":
        for place, value in where:
            found[int(place * (len(found) - 1))] = value
    elif kind == "malform":
        for page in where:
            start = int(page * last_page) * PAGE_BYTES
            found[start : start + PAGE_BYTES] = b"\xee" * PAGE_BYTES
    elif kind == "cut":
        del found[int(where * len(found)) :]
    else:
        source, target = (int(page * last_page) * PAGE_BYTES for page in where)
        found[target : target + PAGE_BYTES] = data[source : source + PAGE_BYTES]
    return bytes(found)


class Victim:
    """A file that is damaged again and again, and what was in it."""

    def __init__(self, directory: Path) -> None:
        self.file = kept_file(directory)
        self._data = self.file.read_bytes()
        self.messages = exported(self.file).messages

    def strike(self, kind: str, where: Any) -> None:
        self.file.write_bytes(struck(self._data, kind, where))
        for beside in ("-wal", "-shm"):
            self.file.with_name(self.file.name + beside).unlink(missing_ok=True)


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Victim:
    return Victim(tmp_path_factory.mktemp("victim"))


@given(blows)
def test_whatever_happens_to_a_file_it_is_checked_and_what_is_left_is_exported(
    victim: Victim, blow: tuple[str, Any]
) -> None:
    victim.strike(*blow)
    check = Check(victim.file, lambda text: None)
    check.run()
    believed = [each for each in exported(victim.file).messages if "damaged" not in each]
    whole = [without(each, UNCHECKED) for each in victim.messages]
    assert all(without(each, UNCHECKED) in whole for each in believed)
    assert check.damaged or len(believed) == len(whole)


# What no checksum of a message is of.
UNCHECKED = ("vhost", "queue", "queue_id", "redelivered", "delivery_count", "enqueued_at")


def without(found: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """The same without some of its names."""
    return {name: value for name, value in found.items() if name not in names}


def test_what_waits_is_told_and_is_no_queue_to_declare(tmp_path: Path) -> None:
    file = tmp_path / "amqpd.db"
    arguments = {"x-delayed-type": "fanout"}
    late = Exchange.Declare(
        exchange="late", exchange_type="x-delayed-message", durable=True, arguments=arguments
    )
    with Broker(file) as broker:
        broker.client.ask(late)
        broker.client.ask(Queue.Declare(queue="q", durable=True, arguments={"x-delayed": True}))
        broker.publish(b"1", "", "late", headers={"x-delay": 1000})
        broker.publish(b"2", "q", headers={"x-delay": 1000})
    found = exported(file)
    assert [each["name"] for each in found.definitions["queues"]] == ["q"]
    waiting = [(each["queue"], each["payload"]) for each in found.messages]
    assert sorted(waiting) == [("amq.delayed.late", "1"), ("amq.waiting.q", "2")]
    said: list[str] = []
    check = Check(file, said.append)
    check.run()
    assert check.damaged == 0, said
