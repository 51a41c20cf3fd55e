"""How exchanges that spread messages share them out."""

from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amqpd.broker.exchanges import registry
from amqpd.broker.exchanges.binding import Binding
from amqpd.broker.exchanges.exchange import Exchange
from amqpd.wire.arguments import NO_ARGUMENTS

KEYS = [f"user.{number}" for number in range(6000)]


def exchange(name: str, type_name: str = "fanout") -> Exchange:
    return Exchange(
        name,
        type_name,
        registry.router(type_name, NO_ARGUMENTS, Random(0)),
        durable=True,
        auto_delete=False,
        internal=False,
        arguments=NO_ARGUMENTS,
    )


class Spreading:
    """An exchange with destinations, which are exchanges here."""

    def __init__(self, type_name: str) -> None:
        self.exchange = exchange("x", type_name)

    def bind(self, name: str, key: str = "1") -> Exchange:
        destination = exchange(name)
        self.exchange.bind(Binding(self.exchange, destination, key, NO_ARGUMENTS))
        return destination

    def where(self, key: str) -> str:
        (found,) = self.exchange.router.route([key], {}, b"")
        return found.name

    def map(self) -> dict[str, str]:
        return {key: self.where(key) for key in KEYS}


@settings(max_examples=max(1, settings.default.max_examples // 8))
@given(st.lists(st.integers(1, 5), min_size=2, max_size=6))
def test_consistent_hashing_shares_keys_out_by_weight(weights: list[int]) -> None:
    spreading = Spreading("x-consistent-hash")
    for place, weight in enumerate(weights):
        spreading.bind(f"d{place}", str(weight))
    counts = Counter(spreading.map().values())
    for place, weight in enumerate(weights):
        expected = len(KEYS) * weight / sum(weights)
        assert abs(counts[f"d{place}"] - expected) < 6 * expected**0.5


def test_consistent_hashing_moves_only_the_keys_of_what_comes_or_goes() -> None:
    spreading = Spreading("x-consistent-hash")
    for place in range(4):
        spreading.bind(f"d{place}")
    before = spreading.map()
    spreading.bind("new")
    after = spreading.map()
    moved = {key for key in KEYS if before[key] != after[key]}
    assert {after[key] for key in moved} == {"new"}
    assert 900 < len(moved) < 1500
    new = next(
        each for each in spreading.exchange.bindings.values() if each.destination.name == "new"
    )
    spreading.exchange.unbind(new)
    assert spreading.map() == before


def test_only_the_first_binding_of_a_destination_gives_its_weight() -> None:
    spreading = Spreading("x-consistent-hash")
    first = spreading.bind("a")
    spreading.exchange.bind(Binding(spreading.exchange, first, "99", NO_ARGUMENTS))
    spreading.bind("b")
    assert 2700 < Counter(spreading.map().values())["a"] < 3300


@pytest.mark.parametrize("type_name", ["x-consistent-hash", "x-modulus-hash"])
def test_hashes_are_the_same_in_every_process(type_name: str) -> None:
    spreading = Spreading(type_name)
    for name in ("a", "b", "c"):
        spreading.bind(name)
    found = "".join(spreading.where(key) for key in KEYS[:12])
    assert (
        found == {"x-consistent-hash": "ccaaacbccbac", "x-modulus-hash": "bccbaaccaaca"}[type_name]
    )


def test_a_modulus_hash_does_not_mind_in_which_order_queues_were_bound() -> None:
    forwards, backwards = Spreading("x-modulus-hash"), Spreading("x-modulus-hash")
    for name in "abc":
        forwards.bind(name)
    for name in "cba":
        backwards.bind(name)
    assert forwards.map() == backwards.map()


@pytest.mark.parametrize("type_name", ["x-random", "x-local-random"])
def test_random_exchanges_choose_anew_for_each_message(type_name: str) -> None:
    spreading = Spreading(type_name)
    for name in "abc":
        spreading.bind(name)
    counts = Counter(spreading.where("k") for _ in range(3000))
    assert all(800 < counts[name] < 1200 for name in "abc")


def test_what_is_bound_more_often_is_chosen_more_often() -> None:
    spreading = Spreading("x-random")
    for key in ("", "1", "2"):
        spreading.bind("often", key)
    spreading.bind("once")
    counts = Counter(spreading.where("k") for _ in range(3000))
    assert 2100 < counts["often"] < 2400
