"""Topic exchanges: the trie against a matcher that anybody can check by reading."""

import sys
from types import FrameType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amqpd.broker.exchanges.binding import Binding
from amqpd.broker.exchanges.exchange import Exchange
from amqpd.broker.exchanges.topic import Topic
from amqpd.wire.arguments import NO_ARGUMENTS

words = st.sampled_from(("", "a", "b", "aa", "ü"))
keys = st.lists(words, max_size=5).map(".".join)
patterns = st.lists(words | st.sampled_from(("*", "#")), max_size=5).map(".".join)


def exchange(name: str) -> Exchange:
    return Exchange(
        name,
        "topic",
        Topic(),
        durable=False,
        auto_delete=False,
        internal=False,
        arguments=NO_ARGUMENTS,
    )


def bound(topic: Topic, key: str) -> Binding:
    """A new destination, bound with the key."""
    binding = Binding(exchange("source"), exchange(key), key, NO_ARGUMENTS)
    topic.bind(binding)
    return binding


def matches(pattern: list[str], key: list[str]) -> bool:
    """The rule as RabbitMQ's documentation tells it."""
    if not pattern:
        return not key
    if pattern[0] == "#":
        return matches(pattern[1:], key) or (bool(key) and matches(pattern, key[1:]))
    return bool(key) and pattern[0] in ("*", key[0]) and matches(pattern[1:], key[1:])


def split(key: str) -> list[str]:
    return key.split(".") if key else []


@settings(max_examples=3 * settings.default.max_examples)
@given(st.lists(patterns, max_size=12), st.lists(keys, min_size=1, max_size=5), st.data())
def test_a_key_reaches_exactly_the_bindings_whose_patterns_match_it(
    bindings: list[str], routed: list[str], data: st.DataObject
) -> None:
    topic = Topic()
    made = [bound(topic, pattern) for pattern in bindings]
    gone = data.draw(st.sets(st.sampled_from(made))) if made else set()
    for binding in gone:
        topic.unbind(binding)
    for key in routed:
        reached = topic.route([key], {}, b"")
        expected = {
            id(binding.destination)
            for binding in made
            if binding not in gone and matches(split(binding.key), split(key))
        }
        assert {id(each) for each in reached} == expected
        assert len(reached) == len(expected), "a destination came twice"


@given(st.lists(patterns, max_size=12))
def test_nothing_is_left_of_bindings_that_are_gone(bindings: list[str]) -> None:
    topic = Topic()
    for binding in [bound(topic, pattern) for pattern in bindings]:
        topic.unbind(binding)
    assert topic._root.children == {}
    assert topic._root.bound == {}


def calls_and_lines(topic: Topic, key: str) -> int:
    """How many lines of Python run to route one message."""
    count = 0

    def trace(frame: FrameType, event: str, argument: object) -> object:
        nonlocal count
        count += event in ("call", "line")
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        topic.route([key], {}, b"")
    finally:
        sys.settrace(before)
    return count


@pytest.mark.slow
def test_routing_costs_the_same_with_many_bindings_as_with_few() -> None:
    """Slow because it makes bindings by the ten thousand."""
    few, many = Topic(), Topic()
    source, states, all_of_one, alarms = map(exchange, ("source", "states", "all", "alarms"))
    for topic, count in ((few, 10), (many, 20_000)):
        for number in range(count):
            for key, destination in (
                (f"device.{number}.state", states),
                (f"device.{number}.#", all_of_one),
                (f"*.{number}.*.state", states),
            ):
                topic.bind(Binding(source, destination, key, NO_ARGUMENTS))
        topic.bind(Binding(source, alarms, "#.alarm", NO_ARGUMENTS))
    assert (
        len(few.route(["device.7.state"], {}, b""))
        == len(many.route(["device.7.state"], {}, b""))
        == 2
    )
    assert calls_and_lines(many, "device.7.state") == calls_and_lines(few, "device.7.state")


def test_many_hashes_in_one_key_do_not_make_routing_explode() -> None:
    topic = Topic()
    bound(topic, ".".join(["#", "a"] * 20))
    assert calls_and_lines(topic, ".".join(["a"] * 60)) < 60 * 20 * 40
    assert len(topic.route([".".join(["a"] * 60)], {}, b"")) == 1
