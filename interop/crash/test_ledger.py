"""The book itself: each kind of broken promise is noticed, and a kept one is none."""

from collections.abc import Callable

import pytest
import stamp
from ledger import Ledger, Message, Route, Settled
from link import Arrival
from pamqp import commands

QUEUE = "q"
ROUTE = Route("x", "key", (QUEUE,))


def published(ledger: Ledger, seq: int, persistent: bool = True) -> Message:
    """A message that was sent and confirmed."""
    message = ledger.note(1, seq, ROUTE, 100, persistent)
    message.possible = True
    ledger.promised([message])
    return message


def arrival(message: Message, redelivered: bool = False, flip: int | None = None) -> Arrival:
    """The message as a broker sends it, or with one byte changed."""
    properties, body = stamp.compose(*message.key, message.length, message.persistent)
    if flip is not None:
        body = body[:flip] + bytes([body[flip] ^ 1]) + body[flip + 1 :]
    return Arrival(QUEUE, 1, redelivered, *ROUTE[:2], commands.Basic.Properties(**properties), body)


def after_restart(ledger: Ledger, *arrivals: Arrival) -> set[str]:
    """The kinds of violations when the queue holds these."""
    ledger.compare(QUEUE, list(arrivals))
    return ledger.violations.kinds


def copy_of(ledger: Ledger, message: Message) -> list:
    return [ledger.queues[QUEUE][message.key]]


def test_what_is_as_it_was_promised_is_no_violation() -> None:
    ledger = Ledger()
    messages = [published(ledger, seq) for seq in range(1, 9)]
    assert after_restart(ledger, *map(arrival, messages)) == set()


def test_a_confirmed_message_that_is_missing_is_noticed() -> None:
    ledger = Ledger()
    messages = [published(ledger, seq) for seq in (1, 2, 3)]
    assert after_restart(ledger, arrival(messages[0]), arrival(messages[2])) == {"lost"}


def test_a_message_without_a_confirm_may_be_missing_but_not_once_it_was_there() -> None:
    ledger = Ledger()
    message = ledger.note(1, 1, ROUTE, 100, True)
    message.possible = True
    assert after_restart(ledger, arrival(message)) == set()
    assert after_restart(ledger) == {"lost"}


def test_a_transient_message_must_be_missing() -> None:
    ledger = Ledger()
    message = published(ledger, 1, persistent=False)
    assert after_restart(ledger, arrival(message)) == {"transient, and has survived"}


def test_a_message_that_was_acknowledged_may_come_back_unless_that_was_promised() -> None:
    ledger = Ledger()
    told, promised = published(ledger, 1), published(ledger, 2)
    ledger.settle(copy_of(ledger, told), Settled.TOLD)
    assert after_restart(ledger, arrival(told), arrival(promised)) == set()
    ledger.settle(copy_of(ledger, promised), Settled.PROMISED)
    found = after_restart(ledger, arrival(told, True), arrival(promised, True))
    assert found == {"there again after its end was promised"}


def test_a_message_of_an_uncommitted_transaction_must_be_missing() -> None:
    ledger = Ledger()
    message = ledger.note(1, 1, ROUTE, 100, True)
    assert after_restart(ledger, arrival(message)) == {"there without a commit"}


def wrong_order(first: Message, second: Message) -> list[Arrival]:
    return [arrival(second), arrival(first)]


def one_twice(first: Message, second: Message) -> list[Arrival]:
    return [arrival(first), arrival(second), arrival(second)]


def changed_body(first: Message, second: Message) -> list[Arrival]:
    return [arrival(first), arrival(second), arrival(second, flip=99)]


def changed_key(first: Message, second: Message) -> list[Arrival]:
    return [arrival(first), arrival(second), arrival(second)._replace(key="other")]


def stranger(first: Message, second: Message) -> list[Arrival]:
    return [arrival(first), arrival(second), arrival(published(Ledger(), 3))]


@pytest.mark.parametrize(
    ("hold", "kind"),
    [
        (wrong_order, "out of order"),
        (one_twice, "twice in a queue"),
        (changed_body, "damaged"),
        (changed_key, "damaged"),
        (stranger, "never published"),
    ],
)
def test_what_must_not_be_in_a_queue_is_noticed(
    hold: Callable[[Message, Message], list[Arrival]], kind: str
) -> None:
    ledger = Ledger()
    messages = published(ledger, 1), published(ledger, 2)
    assert kind in after_restart(ledger, *hold(*messages))


def test_a_message_that_was_gone_after_a_restart_must_not_come_back() -> None:
    ledger = Ledger()
    message = published(ledger, 1)
    ledger.settle(copy_of(ledger, message), Settled.TOLD)
    assert after_restart(ledger) == set()
    assert after_restart(ledger, arrival(message)) == {"came back, or is in a wrong queue"}


def test_a_message_that_was_delivered_must_come_back_as_redelivered() -> None:
    ledger = Ledger()
    message = published(ledger, 1)
    assert ledger.received(QUEUE, "a client", arrival(message)) is not None
    assert after_restart(ledger, arrival(message, redelivered=True)) == set()
    assert after_restart(ledger, arrival(message)) == {"there without the flag redelivered"}


def test_what_a_living_broker_delivers_twice_is_noticed() -> None:
    ledger = Ledger()
    held, acked = published(ledger, 1), published(ledger, 2)
    ledger.received(QUEUE, "a client", arrival(held))
    ledger.received(QUEUE, "another", arrival(held, redelivered=True))
    assert ledger.violations.kinds == {"delivered to two consumers at a time"}
    ledger.settle(copy_of(ledger, acked), Settled.TOLD)
    ledger.received(QUEUE, "another", arrival(acked))
    assert "delivered again after it was acknowledged" in ledger.violations.kinds
