"""Policies: which one counts, what it says together with others and declarations, and at once."""

from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqpd.broker.policies import KEYS, PolicyError, merged, policy, problems, with_declared
from amqpd.broker.vhost import Vhost
from amqpd.config import Config
from amqpd.config.settings import Policy as Configured
from amqpd.testing.client import Client, publish_bytes
from amqpd.testing.harness import Harness
from amqpd.wire.methods import Basic, Exchange, Queue


def vhost_of(harness: Harness) -> Vhost:
    return harness.core.broker.vhosts["/"]


def set_policy(harness: Harness, name: str, pattern: str, /, **definition: Any) -> None:
    """A policy; `apply_to`, `priority` and `by_operator` may be among its definition."""
    by_operator = definition.pop("by_operator", False)
    options = {key: definition.pop(key) for key in ("apply_to", "priority") if key in definition}
    named = {key.replace("_", "-"): value for key, value in definition.items()}
    made = policy(name, pattern, named, by_operator=by_operator, **options)
    vhost_of(harness).set_policy(made, by_operator=by_operator)
    settle(harness)


def clear_policy(harness: Harness, name: str, *, by_operator: bool = False) -> None:
    vhost_of(harness).clear_policy(name, by_operator=by_operator)
    settle(harness)


def settle(harness: Harness) -> None:
    harness.core.tick(harness.now)
    harness.settle()


def count(client: Client, queue: str) -> int:
    told = client.ask(Queue.Declare(queue=queue, passive=True))
    return int(told.method.message_count)


@pytest.fixture
def harness() -> Harness:
    return Harness()


@pytest.fixture
def client(harness: Harness) -> Client:
    return Client(harness)


# --- which one counts -----------------------------------------------------------------------------


def test_of_the_policies_that_match_the_one_with_the_highest_priority_counts(
    harness: Harness, client: Client
) -> None:
    client.ask(Queue.Declare(queue="orders"))
    set_policy(harness, "all", ".*", max_length=1)
    set_policy(harness, "orders", "^ord", max_length=2, priority=5)
    set_policy(harness, "others", "^x", max_length=3, priority=9)
    queue = vhost_of(harness).queues["orders"]
    assert queue.policy is not None
    assert queue.policy.name == "orders"
    assert queue.terms.length_max == 2
    clear_policy(harness, "orders")
    assert queue.terms.length_max == 1


@pytest.mark.parametrize(
    ("apply_to", "classic", "quorum", "exchange"),
    [
        ("all", True, True, True),
        ("queues", True, True, False),
        ("exchanges", False, False, True),
        ("classic_queues", True, False, False),
        ("quorum_queues", False, True, False),
        ("streams", False, False, False),
    ],
)
def test_a_policy_applies_to_what_it_says(
    harness: Harness, client: Client, apply_to: str, classic: bool, quorum: bool, exchange: bool
) -> None:
    set_policy(harness, "p", ".*", apply_to=apply_to, max_length=7)
    client.ask(Queue.Declare(queue="c"))
    client.ask(Queue.Declare(queue="q", durable=True, arguments={"x-queue-type": "quorum"}))
    client.ask(Exchange.Declare(exchange="x"))
    vhost = vhost_of(harness)
    found = [vhost.queues["c"].policy, vhost.queues["q"].policy, vhost.exchanges["x"].policy]
    assert [each is not None for each in found] == [classic, quorum, exchange]


def test_what_a_policy_says_is_an_empty_definition_where_there_is_none(
    harness: Harness, client: Client
) -> None:
    client.ask(Queue.Declare(queue="q"))
    assert vhost_of(harness).queues["q"].effective_policy_definition == {}


# --- at once --------------------------------------------------------------------------------------


def test_a_length_limit_counts_at_once_for_what_is_there(harness: Harness, client: Client) -> None:
    client.ask(Queue.Declare(queue="q"))
    for number in range(10):
        client.publish(b"%d" % number, routing_key="q")
    set_policy(harness, "p", "q", max_length=3)
    assert count(client, "q") == 3
    assert client.ask(Basic.Get(queue="q")).body == b"7"


def test_a_ttl_counts_for_what_comes_from_then_on(harness: Harness, client: Client) -> None:
    client.ask(Queue.Declare(queue="q"))
    client.publish(b"before", routing_key="q")
    client.ask(Basic.Get(queue="q", no_ack=True))
    set_policy(harness, "p", "q", message_ttl=1000)
    client.publish(b"after", routing_key="q")
    harness.wait(1.1)
    assert count(client, "q") == 0
    clear_policy(harness, "p")
    client.publish(b"later", routing_key="q")
    harness.wait(10)
    assert count(client, "q") == 1


def test_a_dead_letter_exchange_comes_and_goes(harness: Harness, client: Client) -> None:
    client.ask(Queue.Declare(queue="q"))
    client.ask(Queue.Declare(queue="dead"))
    set_policy(harness, "p", "^q$", dead_letter_exchange="", dead_letter_routing_key="dead")
    for expected in (1, 1):
        client.publish(b"1", routing_key="q")
        tag = client.ask(Basic.Get(queue="q")).method.delivery_tag
        client.tell(Basic.Reject(delivery_tag=tag, requeue=False))
        assert count(client, "dead") == expected
        clear_policy(harness, "p")


def test_a_queue_that_begins_to_refuse_does_so_also_to_a_route_that_is_remembered(
    harness: Harness, client: Client
) -> None:
    client.ask(Queue.Declare(queue="q"))
    same = publish_bytes(b"1", routing_key="q") * 3
    client.send(same)
    assert count(client, "q") == 3
    set_policy(harness, "p", "q", max_length=4, overflow="reject-publish")
    client.send(same)
    assert count(client, "q") == 4
    clear_policy(harness, "p")
    client.send(same)
    assert count(client, "q") == 7


def test_an_alternate_exchange_comes_and_goes_for_a_route_that_is_remembered(
    harness: Harness, client: Client
) -> None:
    client.ask(Exchange.Declare(exchange="x"))
    client.ask(Queue.Declare(queue="lost"))
    client.ask(Queue.Bind(queue="lost", exchange="amq.fanout"))
    same = publish_bytes(b"1", exchange="x", routing_key="nowhere")
    client.send(same)
    assert count(client, "lost") == 0
    set_policy(harness, "p", "^x$", apply_to="exchanges", alternate_exchange="amq.fanout")
    client.send(same)
    assert count(client, "lost") == 1
    clear_policy(harness, "p")
    client.send(same)
    assert count(client, "lost") == 1


def test_a_queue_expires_by_a_policy_that_comes_later(harness: Harness, client: Client) -> None:
    client.ask(Queue.Declare(queue="q"))
    set_policy(harness, "p", "q", expires=5000)
    harness.wait(4.9)
    assert "q" in vhost_of(harness).queues
    harness.wait(0.2)
    assert "q" not in vhost_of(harness).queues


# --- together -------------------------------------------------------------------------------------


def test_of_numbers_the_smallest_counts_and_of_all_else_the_declaration(
    harness: Harness, client: Client
) -> None:
    arguments = {
        "x-max-length": 5,
        "x-message-ttl": 9000,
        "x-overflow": "drop-head",
        "x-dead-letter-exchange": "declared",
    }
    client.ask(Queue.Declare(queue="q", arguments=arguments))
    set_policy(
        harness,
        "p",
        "q",
        max_length=3,
        message_ttl=20_000,
        overflow="reject-publish",
        dead_letter_exchange="policy",
        dead_letter_routing_key="key",
    )
    set_policy(harness, "o", "q", by_operator=True, max_length=4, message_ttl=8000, expires=60_000)
    terms = vhost_of(harness).queues["q"].terms
    assert (terms.length_max, terms.ttl_s, terms.expires_s) == (3, 8.0, 60.0)
    assert (terms.overflow, terms.dead_letter_exchange) == ("drop-head", "declared")
    assert terms.dead_letter_routing_key == "key"


def test_what_a_full_quorum_queue_does_a_policy_says_first(
    harness: Harness, client: Client
) -> None:
    for kind in ("classic", "quorum"):
        arguments = {"x-queue-type": kind, "x-overflow": "drop-head", "x-max-length": 1}
        client.ask(Queue.Declare(queue=kind, durable=True, arguments=arguments))
    set_policy(harness, "p", ".*", overflow="reject-publish")
    queues = vhost_of(harness).queues
    assert queues["classic"].terms.overflow == "drop-head"
    assert queues["quorum"].terms.overflow == "reject-publish"


def test_a_policy_for_all_queues_limits_deliveries_of_quorum_queues_alone(
    harness: Harness, client: Client
) -> None:
    for kind in ("classic", "quorum"):
        arguments = {"x-queue-type": kind}
        client.ask(Queue.Declare(queue=kind, durable=True, arguments=arguments))
    set_policy(harness, "p", ".*", delivery_limit=1, delayed_retry_type="all")
    queues = vhost_of(harness).queues
    assert (queues["classic"].terms.delivery_limit, queues["quorum"].terms.delivery_limit) == (
        None,
        1,
    )
    assert queues["classic"].terms.delayed_retry is None
    assert queues["quorum"].terms.delayed_retry is not None


OTHERWISE = ("delivery-limit", "max-age")  # these have tests of their own
NUMBERS = [key for key, each in KEYS.items() if each.lesser and key not in OTHERWISE]


@given(
    st.sampled_from(NUMBERS),
    st.none() | st.integers(1, 9),
    st.none() | st.integers(1, 9),
    st.none() | st.integers(1, 9),
)
def test_a_number_is_the_smallest_of_those_that_were_said(
    key: str, by_policy: int | None, by_operator: int | None, declared: int | None
) -> None:
    if not KEYS[key].by_operator:
        by_operator = None
    made = policy("p", "", {key: by_policy}) if by_policy else None
    operator = policy("o", "", {key: by_operator}, by_operator=True) if by_operator else None
    found = with_declared(merged(made, operator), {key: declared} if declared else {})
    said = [each for each in (by_policy, by_operator, declared) if each]
    assert found == ({key: min(said)} if said else {})


@pytest.mark.parametrize(
    ("one", "other", "together"), [(-1, 5, 5), (5, -1, 5), (3, 5, 3), (-1, -2, -1)]
)
def test_a_delivery_limit_below_0_is_none(one: int, other: int, together: int) -> None:
    found = merged(
        policy("p", "", {"delivery-limit": one}),
        policy("o", "", {"delivery-limit": other}, by_operator=True),
    )
    assert found == {"delivery-limit": together}


# --- what cannot be -------------------------------------------------------------------------------


def test_of_two_ages_the_shorter_counts() -> None:
    assert with_declared({"max-age": "1h"}, {"max-age": "90m"}) == {"max-age": "1h"}
    assert with_declared({"max-age": "1D"}, {"max-age": "90m"}) == {"max-age": "90m"}


@pytest.mark.parametrize(
    ("pattern", "definition", "text"),
    [
        ("(", {"max-length": 1}, "pattern '(' is no regular expression: "),
        (".*", {}, "its definition is empty"),
        (
            ".*",
            {"max-lenght": 1},
            "max-lenght in its definition is unknown; there are ack-",
        ),
        (".*", {"max-length": -1}, "max-length = -1 is not a valid maximum length"),
        (".*", {"max-length": True}, "max-length = True is not a valid maximum length"),
        (".*", {"message-ttl": "60000"}, "message-ttl = '60000' is not a valid message TTL"),
        (".*", {"max-rate": inf}, "max-rate = inf is not a valid rate"),
        (".*", {"expires": 0}, "expires = 0 is not a valid queue expiry"),
        (".*", {"overflow": "drop"}, "overflow = 'drop' is not a valid overflow value"),
        (".*", {"dead-letter-exchange": 1}, "is not a valid dead letter exchange name"),
    ],
)
def test_a_policy_that_cannot_be_says_why(
    pattern: str, definition: dict[str, Any], text: str
) -> None:
    with pytest.raises(PolicyError) as refused:
        policy("p", pattern, definition)
    assert text in str(refused.value)


def test_an_operator_may_not_say_everything() -> None:
    with pytest.raises(PolicyError) as refused:
        policy("p", ".*", {"dead-letter-exchange": "x"}, by_operator=True)
    assert "dead-letter-exchange in its definition is unknown" in str(refused.value)


def test_policies_of_the_configuration_count_from_the_start() -> None:
    limits = Configured(name="limits", pattern="^q", definition={"max-length": 1})
    operator = Configured(name="o", pattern="^q", definition={"max-length-bytes": 1})
    harness = Harness(Config(policies=(limits,), operator_policies=(operator,)))
    client = Client(harness)
    client.ask(Queue.Declare(queue="q"))
    terms = vhost_of(harness).queues["q"].terms
    assert (terms.length_max, terms.bytes_max) == (1, 1)


def test_all_that_is_wrong_with_configured_policies_is_told() -> None:
    bad = Configured(name="bad", pattern="(", definition={"max-length": 1})
    worse = Configured(name="worse", pattern="", definition={"x": 1})
    found = problems(Config(policies=(bad,), operator_policies=(worse,)))
    assert [line.partition(":")[0] for line in found] == [
        "[[policies]] 'bad' is not possible",
        "[[operator_policies]] 'worse' is not possible",
    ]
