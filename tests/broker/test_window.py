"""The window of a backlog and what stands behind it in the store, against a sorted list."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from amqpd.broker.fetch import Fetch, Fetched
from amqpd.broker.memory import Memory, held_bytes
from amqpd.broker.message import (
    BODY,
    PERSISTENT,
    Envelope,
    Message,
    bodies_size,
    body_bytes,
)
from amqpd.broker.queues.window import Window

ENVELOPE = Envelope("", "q")
QUEUE_MAX = (2000, 100_000)
ALL_MAX = 10_000
PUT_MAX = 12 * 3010

some = st.integers(1, 9)
step = st.one_of(
    st.tuples(st.just("put"), st.integers(1, 12), st.sampled_from((0, 10, 300, 3000))),
    st.tuples(st.just("put"), st.integers(1, 12), st.sampled_from((0, 10, 300, 3000))),
    st.tuples(st.just("take"), st.integers(1, 20), st.none()),
    st.tuples(st.just("take"), st.integers(1, 20), st.none()),
    st.tuples(st.just("give back"), some, st.booleans()),
    st.tuples(st.just("forget"), some, st.none()),
    st.tuples(st.just("fetch"), some, st.none()),
    st.tuples(st.just("answer"), some, st.none()),
    st.tuples(st.just("answer"), some, st.none()),
    st.tuples(st.just("purge"), st.none(), st.none()),
    st.tuples(st.just("others"), st.sampled_from((0, ALL_MAX)), st.none()),
)


class Model:
    """What a backlog promises, and a store that answers when it is told to.

    Attributes:
        ready: numbers of the ready messages, without those that the store has lost.
        behind: those of them that stand behind the window, with the messages.
        window: those of them that are in memory and were never taken, with the messages.
        is_harmed: the store has lost or spoilt something.
        lost: numbers of messages that the store does not have and that were not missed yet.
    """

    def __init__(self, queue_max: int, seen: int, fresh: int) -> None:
        """A queue that comes back with so many messages handed out before, and others."""
        self.memory = Memory(queue_max, ALL_MAX)
        self.others_hold = 0
        self.behind = {number: message(number, 12) for number in range(1, seen + fresh + 1)}
        self.backlog = Window(
            self.memory,
            next_number=seen + fresh + 1,
            behind=seen + fresh,
            behind_bytes=bodies_size([*self.behind.values()]),
            seen_below=seen + 1,
        )
        self.ready = sorted(self.behind)
        self.before = set(range(1, seen + 1))
        self.lost: dict[int, Message] = {}
        self.window: dict[int, Message] = {}
        self.taken: dict[int, Message] = {}
        self.returned: dict[int, Message] = {}
        self.fetches: list[Fetch] = []
        self.is_harmed = False

    # --- steps ----------------------------------------------------------------------------------

    def put(self, count: int, size: int) -> None:
        first = self.backlog.next_number
        made = {number: message(number, size) for number in range(first, first + count)}
        before, more = cost(self.window) + cost(self.returned), cost(made)
        fits = not before or before + more <= self.memory.window()
        _, at_hand = self.backlog.put([*made.values()], bodies_size([*made.values()]))
        assert at_hand == (fits and not self.behind and not self.lost)
        if at_hand:
            self.window |= made
        else:
            self.behind |= made
        self.ready += made

    def take(self, limit: int, _: Any) -> None:
        """The run is the head of the ready ones, and says rightly whether it was taken before."""
        if not self.backlog.at_hand:
            return
        run = self.backlog.take(limit)
        numbers = list(run.numbers)
        assert 1 <= len(numbers) <= limit
        assert numbers == self.ready[: len(numbers)]
        assert [number_in(each) for each in run.messages] == numbers
        assert {number in self.before for number in numbers} == {run.redelivered}
        del self.ready[: len(numbers)]
        for number, each in zip(numbers, run.messages, strict=True):
            self.window.pop(number, None)
            self.returned.pop(number, None)
            self.taken[number] = each

    def give_back(self, count: int, last: bool) -> None:
        chosen = [*self.taken][-count:] if last else [*self.taken][:count]
        back = {number: self.taken.pop(number) for number in chosen}
        self.backlog.give_back([*back.items()])
        self.returned |= back
        self.before.update(back)
        self.ready = sorted([*self.ready, *back])

    def forget(self, count: int, _: Any) -> None:
        for number in [*self.taken][:count]:
            del self.taken[number]

    def fetch(self, share: int, _: Any) -> None:
        """Asks for what is behind, as if the store had a share of it."""
        if self.backlog.wants_more:
            first, end = self.backlog.behind_from, self.backlog.next_number
            below = max(first + 1, first + (end - first) * share // 9)
            self.fetches.append(self.backlog.next_fetch(7, below))

    def answer(self, harm: int, _: Any) -> None:
        """The store answers the oldest question; at 8 it has lost a message, at 9 spoilt one."""
        if not self.fetches:
            return
        fetch = self.fetches.pop(0)
        if not self.backlog.expects(fetch):
            return
        wanted = [number for number in self.behind if fetch.first <= number < fetch.below]
        damaged: list[int] = []
        if wanted and harm >= 8:
            number = wanted.pop(0)
            self.ready.remove(number)
            gone = self.behind.pop(number)
            if harm == 8:
                self.lost[number] = gone
            elif gone[PERSISTENT]:
                damaged.append(number)
            else:
                self.lost[number] = gone  # of what was spilled the store keeps no remains
        missing = self.backlog.fetched(self.found(fetch, wanted, damaged))
        self.is_harmed |= harm >= 8
        if not self.behind:
            assert missing[:2] == (len(self.lost), count_kept(self.lost))
            self.lost.clear()
        assert missing.messages == 0 or not self.behind

    def found(self, fetch: Fetch, wanted: list[int], damaged: list[int]) -> Fetched:
        """As much of what is wanted as the fetch allows; it is in the window then."""
        size, read_below = 0, fetch.below
        for place, number in enumerate(wanted):
            size += body_bytes(self.behind[number])
            if place and size > fetch.bytes_max:
                wanted, read_below = wanted[:place], number
                break
        found = {number: self.behind.pop(number) for number in wanted}
        self.window |= found
        return Fetched([*found], [*found.values()], damaged, read_below)

    def purge(self, *_: Any) -> None:
        purged = self.backlog.purge()
        numbers = [number for numbers in purged.numbers for number in numbers]
        gone = self.returned | self.window | self.behind | self.lost
        assert numbers == sorted(set(numbers))
        assert gone.keys() - self.lost.keys() <= set(numbers)
        assert not self.taken.keys() & set(numbers)
        assert (purged.messages, purged.kept) == (len(gone), count_kept(gone))
        if not self.is_harmed:
            assert purged.kept_bytes == bodies_size(
                [each for each in gone.values() if each[PERSISTENT]]
            )
        self.is_harmed = False
        for each in (self.ready, self.returned, self.window, self.behind, self.lost):
            each.clear()

    def others(self, hold: int, _: Any) -> None:
        """Other queues hold so much."""
        self.memory.held += hold - self.others_hold
        self.others_hold = hold

    # --- what always holds ----------------------------------------------------------------------

    def check(self) -> None:
        backlog = self.backlog
        assert backlog.ready == len(self.ready) + len(self.lost)
        assert backlog.behind == len(self.behind) + len(self.lost)
        if not self.is_harmed:  # it is not known how large that was which is missing
            there = self.returned | self.window | self.behind
            assert backlog.ready_bytes == bodies_size([*there.values()])
        assert self.memory.held - self.others_hold == cost(self.window) + cost(self.returned)
        bodies = bodies_size([*self.window.values()])
        assert bodies <= self.memory.queue_max + PUT_MAX

    def drain(self) -> None:
        """Whatever has happened, all that is left can be had, and then nothing is held."""
        self.others(0, None)
        while self.backlog.ready:
            self.take(1000, None)
            self.fetch(9, None)
            self.answer(1, None)
            self.check()
        assert self.ready == []
        assert self.memory.held == 0


def message(number: int, size: int) -> Message:
    """A message that carries its own number; recovered ones, of 12 bytes, are all persistent."""
    return ENVELOPE, b"", b"%d" % number + b"." * (size + 5), number % 3 > 0 or size == 12


def number_in(message: Message) -> int:
    return int(message[BODY].split(b".")[0])


def cost(messages: dict[int, Message]) -> int:
    return held_bytes([*messages.values()], bodies_size([*messages.values()]))


def count_kept(messages: dict[int, Message]) -> int:
    return sum(each[PERSISTENT] for each in messages.values())


@settings(max_examples=2 * settings.default.max_examples)
@given(
    st.lists(step, max_size=80), st.sampled_from(QUEUE_MAX), st.integers(0, 30), st.integers(0, 30)
)
def test_messages_come_in_order_from_memory_and_from_the_store(
    steps: list[tuple[str, Any, Any]], queue_max: int, seen: int, fresh: int
) -> None:
    model = Model(queue_max, seen, fresh)
    for what, first, second in steps:
        getattr(model, what.replace(" ", "_"))(first, second)
        model.check()
    model.drain()
