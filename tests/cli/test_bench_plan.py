"""From options to the plan of a run."""

import pytest

from amqpd.cli.bench.errors import BenchError
from amqpd.cli.bench.plan import Options, Plan, make_plan
from amqpd.cli.bench.uri import Address, parse

LOCAL = Address("127.0.0.1", 5672, "guest", "guest", "/")


def plan_for(cores: int = 2, **options: object) -> Plan:
    return make_plan(Options(address=LOCAL, **options), "run", cores)  # type: ignore[arg-type]


def test_without_options_one_producer_reaches_one_consumer_through_the_default_exchange() -> None:
    plan = plan_for()
    assert (plan.exchange, plan.exchange_type, plan.queues, plan.bindings) == (
        "",
        None,
        ("run",),
        (),
    )
    assert [part.routing_keys for part in plan.publishers] == [("run",)]
    assert [part.queues for part in plan.consumers] == [("run",)]


def test_every_connection_has_a_row_and_a_process_of_its_own_while_they_are_few() -> None:
    plan = plan_for(producers=2, consumers=3)
    assert [part.row for part in plan.publishers + plan.consumers] == [0, 1, 2, 3, 4]
    assert [len(parts) for parts in plan.processes] == [1] * 5


def test_many_connections_share_two_processes_a_core_and_role() -> None:
    plan = plan_for(cores=2, producers=1, consumers=100)
    assert len(plan.processes) == 1 + 4
    assert sorted(part.row for parts in plan.processes for part in parts) == list(range(101))


def test_queues_are_shared_out_when_there_are_more_of_them_than_connections() -> None:
    plan = plan_for(queues=3, producers=2, consumers=2)
    assert plan.publishers[0].routing_keys == ("run-1", "run-3")
    assert plan.publishers[1].routing_keys == ("run-2",)
    assert plan.consumers[0].queues == ("run-1", "run-3")


def test_connections_take_turns_at_queues_when_there_are_fewer_queues() -> None:
    plan = plan_for(queues=2, consumers=3)
    assert [part.queues for part in plan.consumers] == [("run-1",), ("run-2",), ("run-1",)]


def test_numbered_queue_names_have_equal_lengths() -> None:
    names = plan_for(queues=10, queue="orders").queues
    assert names[0] == "orders-01"
    assert names[9] == "orders-10"


def test_rate_and_count_are_those_of_the_whole_run() -> None:
    plan = plan_for(producers=3, rate=300.0, count=10)
    assert [part.rate for part in plan.publishers] == [100.0] * 3
    assert [part.count for part in plan.publishers] == [4, 3, 3]


def test_an_exchange_type_without_a_name_declares_an_exchange_named_like_the_run() -> None:
    plan = plan_for(exchange_type="topic", routing_keys=("a.b",), binding_keys=("a.*",), queues=2)
    assert (plan.exchange, plan.exchange_type) == ("run", "topic")
    assert plan.bindings == (("run-1", "a.*"), ("run-2", "a.*"))


def test_queues_are_bound_with_the_routing_key_and_else_with_their_own_name() -> None:
    assert plan_for(exchange="e", routing_keys=("k",)).bindings == (("run", "k"),)
    assert plan_for(exchange="e").bindings == (("run", "run"),)


@pytest.mark.parametrize("exchange", ["amq.direct", "amq.topic", ""])
def test_built_in_exchanges_are_not_declared(exchange: str) -> None:
    assert plan_for(exchange=exchange, exchange_type="direct").exchange_type is None


def test_a_named_exchange_is_direct_if_nothing_else_is_said() -> None:
    assert plan_for(exchange="orders").exchange_type == "direct"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"producers": 0, "consumers": 0}, "nothing to do"),
        ({"auto_ack": True, "multi_ack_every": 5}, "--auto-ack"),
        ({"prefetch": 10, "multi_ack_every": 11}, "--prefetch"),
        ({"producers": 0, "rate": 1.0}, "--rate"),
        ({"producers": 3, "count": 2}, "--count"),
        ({"binding_keys": ("a",)}, "--binding-key"),
        ({"predeclared": True}, "--queue"),
    ],
)
def test_options_that_contradict_each_other_are_refused_by_name(
    options: dict[str, object], text: str
) -> None:
    with pytest.raises(BenchError, match=text):
        plan_for(**options)


@pytest.mark.parametrize(
    ("uri", "address"),
    [
        ("amqp://", LOCAL),
        ("amqp://localhost", LOCAL._replace(host="localhost")),
        ("amqp://127.0.0.1:5673/", LOCAL._replace(port=5673)),
        ("amqp://a:b%40c@h/%2f", Address("h", 5672, "a", "b@c", "/")),
        ("amqp://h/my%2Fvhost", LOCAL._replace(host="h", vhost="my/vhost")),
        ("amqp://[::1]:1", LOCAL._replace(host="::1", port=1)),
    ],
)
def test_an_address_is_read_with_rabbitmqs_defaults(uri: str, address: Address) -> None:
    assert parse(uri) == address


@pytest.mark.parametrize(
    "uri", ["http://h", "h:5672", "amqps://h", "amqp://h:port", "amqp://h?x=1"]
)
def test_what_is_no_amqp_address_is_refused(uri: str) -> None:
    with pytest.raises(BenchError, match=r"amqp|Port"):
        parse(uri)
