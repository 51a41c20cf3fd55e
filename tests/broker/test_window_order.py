"""The backlog of classic queues against a model: a sorted list."""

from bisect import insort
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from amqpd.broker.memory import Memory
from amqpd.broker.message import Envelope, Message, bodies_size
from amqpd.broker.queues.window import CHUNK_MESSAGES_MAX, Run, Window

ENVELOPE = Envelope("", "q")
steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(1, 40), st.sampled_from((1, 100, 40_000))),
        st.tuples(st.just("take"), st.integers(1, 50), st.none()),
        st.tuples(st.just("give back"), st.integers(1, 9), st.booleans()),
        st.tuples(st.just("forget"), st.integers(1, 9), st.none()),
        st.tuples(st.just("purge"), st.none(), st.none()),
    ),
    max_size=40,
)


def messages(first: int, count: int, size: int) -> list[Message]:
    """Messages that carry their own number."""
    return [
        (ENVELOPE, b"", b"%d" % n + b"." * (size + 5), False) for n in range(first, first + count)
    ]


def number_in(message: Message) -> int:
    return int(message[2].split(b".")[0])


class Model:
    """What a backlog promises: ready and taken messages by number, and which were taken before."""

    def __init__(self) -> None:
        self.backlog = Window(Memory(1 << 30, 1 << 30))
        self.ready: list[int] = []
        self.taken: list[tuple[int, Message]] = []
        self.before: set[int] = set()

    def put(self, count: int, size: int) -> None:
        first = self.backlog.next_number
        made = messages(first, count, size)
        assert self.backlog.put(made, bodies_size(made)) == (first, True)
        self.ready += range(first, first + count)

    def take(self, limit: int, _: Any) -> None:
        if not self.ready:
            return
        run = self.backlog.take(limit)
        assert 1 <= len(run.numbers) <= limit
        self.expect(run)

    def expect(self, run: Run) -> None:
        """The run is the head of the ready ones, and says rightly whether it was taken before."""
        numbers = list(run.numbers)
        assert numbers == self.ready[: len(numbers)]
        assert [number_in(message) for message in run.messages] == numbers
        assert {number in self.before for number in numbers} == {run.redelivered}
        del self.ready[: len(numbers)]
        self.taken += zip(numbers, run.messages, strict=True)

    def give_back(self, count: int, last: bool) -> None:
        chosen = self.taken[-count:] if last else self.taken[:count]
        self.taken = [each for each in self.taken if each not in chosen]
        self.backlog.give_back(chosen)
        for number, _ in chosen:
            insort(self.ready, number)
            self.before.add(number)

    def forget(self, count: int, _: Any) -> None:
        del self.taken[:count]

    def purge(self, *_: Any) -> None:
        purged = self.backlog.purge()
        assert [number for numbers in purged.numbers for number in numbers] == self.ready
        assert purged.messages == len(self.ready)
        self.ready = []


@settings(max_examples=2 * settings.default.max_examples)
@given(steps)
def test_messages_come_in_the_order_of_their_numbers_however_often_they_come_back(
    conversation: list[tuple[str, Any, Any]],
) -> None:
    model = Model()
    for what, first, second in conversation:
        getattr(model, what.replace(" ", "_"))(first, second)
        assert model.backlog.ready == len(model.ready)


def test_many_small_batches_are_kept_in_few_chunks() -> None:
    backlog = Window(Memory(1 << 30, 1 << 30))
    for number in range(1, 1025):
        backlog.put(messages(number, 1, 1), 2)
    assert len(backlog.take(10 * CHUNK_MESSAGES_MAX).numbers) == 1024
    assert backlog.ready == 0
