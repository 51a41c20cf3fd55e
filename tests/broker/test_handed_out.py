"""The mark of what was handed out, against every moment at which the broker could crash."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from amqpd.broker.journal import Journal
from amqpd.broker.queues.handed_out import HandedOut
from amqpd.broker.queues.window import Run

AHEAD = 6

step = st.one_of(
    st.tuples(st.just("come"), st.integers(1, 4)),
    st.tuples(st.just("come"), st.integers(1, 4)),
    st.tuples(st.just("deliver"), st.integers(1, 4)),
    st.tuples(st.just("deliver"), st.integers(1, 4)),
    st.tuples(st.just("deliver again"), st.integers(0, 9)),
    st.tuples(st.just("hand over"), st.just(0)),
    st.tuples(st.just("commit"), st.just(0)),
)


class Marked:
    """One queue of which every message is kept, and its store.

    Attributes:
        stored_below: messages with smaller numbers are in the store.
        kept_below: the mark in the store.
        heard: numbers of deliveries that clients may have received.
        held: those that wait for a ticket.
    """

    def __init__(self) -> None:
        self.journal = Journal()
        self.mark = HandedOut(1, AHEAD)
        self.next_number = self.head = 1
        self.stored_below, self.kept_below = 1, 1
        self.flying: tuple[int, int] | None = None
        self.heard: set[int] = set()
        self.held: list[tuple[int, range]] = []

    def come(self, count: int) -> None:
        self.mark.came(self.next_number, self.journal)
        self.next_number += count

    def deliver(self, count: int) -> None:
        numbers = range(self.head, min(self.head + count, self.next_number))
        if numbers:
            self.head = numbers.stop
            self.hand_out(Run(numbers, [], False))

    def deliver_again(self, place: int) -> None:
        """A message that was delivered has come back."""
        if self.head > 1:
            number = 1 + place % (self.head - 1)
            self.hand_out(Run(range(number, number + 1), [], True))

    def hand_out(self, run: Run) -> None:
        _, ticket = self.mark.pass_on(run, self.journal)
        assert ticket <= self.journal.ticket
        self.held.append((ticket, range(run.numbers[0], run.numbers[-1] + 1)))
        self.release()

    def hand_over(self, _: int) -> None:
        if self.flying is None:
            self.flying = self.next_number, self.mark.below
            self.journal.ticket += 1

    def commit(self, _: int) -> None:
        if self.flying is not None:
            (self.stored_below, self.kept_below), self.flying = self.flying, None
            self.journal.committed = self.journal.ticket - 1
            self.release()

    def release(self) -> None:
        """Clients hear what does not wait any more."""
        committed = self.journal.committed
        self.heard.update(*[numbers for ticket, numbers in self.held if ticket <= committed])
        self.held = [(ticket, numbers) for ticket, numbers in self.held if ticket > committed]

    def check(self) -> None:
        """After a crash now, what clients have heard would be redelivered."""
        stored = [number for number in self.heard if number < self.stored_below]
        assert all(number < self.kept_below for number in stored)


@settings(max_examples=4 * settings.default.max_examples)
@given(st.lists(step, max_size=60))
def test_what_clients_may_have_heard_and_the_store_has_is_below_the_mark(
    steps: list[tuple[str, Any]],
) -> None:
    marked = Marked()
    for what, argument in steps:
        getattr(marked, what.replace(" ", "_"))(argument)
        marked.check()
        if marked.flying is not None:  # and if the disk is faster than whoever tells the broker
            kept = marked.stored_below, marked.kept_below
            marked.stored_below, marked.kept_below = marked.flying
            marked.check()
            marked.stored_below, marked.kept_below = kept


@settings(max_examples=settings.default.max_examples)
@given(st.lists(st.integers(1, AHEAD // 3), min_size=1, max_size=30))
def test_where_commits_keep_up_only_the_first_delivery_waits(runs: list[int]) -> None:
    marked = Marked()
    marked.come(sum(runs))
    marked.hand_over(0)
    marked.commit(0)
    for place, count in enumerate(runs):
        marked.deliver(count)
        assert (marked.held == []) == (place > 0)
        marked.hand_over(0)
        marked.commit(0)
