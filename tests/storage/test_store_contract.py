"""A store is a store: what `MemoryStore` answers, `SqliteStore` answers too.

Limits of a fetch are kept in one's own way; what must hold is in `check_answer`.
"""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st
from random_clients import TINY_WINDOWS, Act, conversations
from storing import (
    NO_TABLE,
    STORED_MS,
    batch,
    changed,
    in_words,
    message,
    messages,
    opened,
    plain,
    plainly,
    queue_added,
    read_all,
)
from test_journal_complete import Play

from amqpd.broker.duplicates import Known
from amqpd.broker.fetch import Fetch, Fetched
from amqpd.broker.journal import Batch, Changes, Standing
from amqpd.broker.message import BODY, HEADER, Envelope, Message
from amqpd.broker.operations import (
    Bound,
    ExchangeAdded,
    ExchangeRemoved,
    Operation,
    QueueAdded,
    QueueRemoved,
    Unbound,
    VhostAdded,
)
from amqpd.broker.queues.fifo import NUMBER_MAX
from amqpd.broker.queues.retention import Segment
from amqpd.broker.recovered import Recovered
from amqpd.config import Config
from amqpd.storage.memory import MemoryStore
from amqpd.testing.harness import Harness
from amqpd.wire.content import body_size, is_persistent

NUMBERS = 60
QUEUES = (1, 2, 3)
ENVELOPES = (Envelope("", "q"), Envelope("x", "a.b"), Envelope("", "q"))


def as_recovered(recovered: Recovered) -> dict[str, Any]:
    """What was recovered, without the order in which things of one kind came."""
    kinds = [type(each) for each in recovered.operations]
    assert kinds == sorted(kinds, key=[VhostAdded, ExchangeAdded, QueueAdded, Bound].index)
    assert len(set(recovered.operations)) == len(recovered.operations)
    return {
        "operations": set(recovered.operations),
        "standings": recovered.standings,
        "segments": recovered.segments,
        "places": recovered.places,
        "keys": recovered.keys,
    }


def check_answer(fetch: Fetch, answer: Fetched, kept: dict[int, Message]) -> None:
    """The first messages that are wanted, as many as the fetch allows, but one in any case."""
    wanted = sorted(number for number in kept if fetch.first <= number < fetch.below)
    got = answer.numbers
    assert answer.damaged == []
    assert got == wanted[: len(got)]
    assert [plain(each) for each in answer.messages] == [plain(kept[number]) for number in got]
    headers = [kept[number][HEADER] for number in got]
    sizes = [body_size(header) + len(header) for header in headers]
    assert len(got) <= fetch.messages_max
    assert sum(sizes) <= fetch.bytes_max or len(got) == 1
    assert got or not wanted
    read = [number for number in wanted if number < answer.read_below]
    assert read == got, "read_below says that more was read, or less"
    assert answer.read_below <= fetch.below
    frames = sum(len(kept[number][HEADER]) + len(kept[number][BODY]) for number in wanted)
    if len(wanted) < fetch.messages_max and frames <= fetch.bytes_max:
        assert answer.read_below == max(fetch.below, 0), "all was wanted, and would have fitted"


class Both:
    """Two stores that must not differ: one in memory, one in a file."""

    def __init__(self, directory: Path) -> None:
        self.memory = MemoryStore()
        self.file = opened(directory)
        self._directory = directory

    def commit(self, batch: Batch) -> int:
        self.file.commit(batch)
        if batch.ticket % 3 == 0:
            self.file.tidy(idle=batch.ticket % 2 == 0)
        return self.memory.commit(batch)

    def fetch(self, fetch: Fetch) -> Fetched:
        if fetch.newest:
            return self._superseded(fetch)
        if fetch.queue_id in self.memory.spilled:  # streams never are
            fetch = fetch._replace(since_ms=0)
        kept = self.kept(fetch.queue_id)
        if fetch.since_ms:
            dates = self.memory.enqueued_ms[fetch.queue_id] if kept else {}
            since = [each for each in sorted(kept) if dates[each] >= fetch.since_ms]
            kept = {number: kept[number] for number in since}
        answer = self.memory.fetch(fetch)
        check_answer(fetch, answer._replace(messages=as_sent(answer.messages)), kept)
        found = self.file.fetch(fetch)
        check_answer(fetch, found, kept)
        if fetch.detailed and found.numbers == answer.numbers:
            assert found.details == answer.details
        return answer

    def _superseded(self, fetch: Fetch) -> Fetched:
        answer, found = self.memory.fetch(fetch), self.file.fetch(fetch)
        assert len(answer.numbers) == len(found.numbers)
        if len(answer.numbers) < fetch.messages_max:
            assert sorted(answer.numbers) == sorted(found.numbers)
            assert answer.size == found.size
        return answer

    def recover(self) -> Recovered:
        recovered = self.memory.recover()
        assert as_recovered(recovered) == as_recovered(self.file.recover())
        self.compare()
        return recovered

    def kept(self, queue_id: int) -> dict[int, Message]:
        kept, spilled = self.memory.messages, self.memory.spilled
        both = kept.get(queue_id, {}) | spilled.get(queue_id, {})
        return dict(zip(both, as_sent([*both.values()]), strict=True))

    def compare(self) -> None:
        for queue_id in self.memory.messages.keys() | self.memory.spilled.keys() | {*QUEUES}:
            kept = {number & NUMBER_MAX: each for number, each in self.kept(queue_id).items()}
            assert read_all(self.file, queue_id) == plainly(kept)
        counts = self.file._writing.execute(
            "SELECT id >> 43, id & ((1 << 43) - 1), delivery_count FROM stored "
            "WHERE delivery_count AND NOT EXISTS "
            "(SELECT 1 FROM main.gone WHERE id BETWEEN first AND last)"
        )
        found = {(queue, number): count for queue, number, count in counts}
        deliveries = self.memory.deliveries.items()
        assert found == {
            (queue, number & NUMBER_MAX): count for (queue, number), count in deliveries
        }

    def open_again(self, *, in_order: bool) -> None:
        self.file.close(in_order=in_order)
        self.file = opened(self._directory)
        self.recover()


def as_sent(messages: list[Message]) -> list[Message]:
    """The messages as their publishers have sent them: in quorum queues all count as persistent."""
    return [(*each[:3], is_persistent(each[1])) for each in messages]


@pytest.fixture
def both(tmp_path: Path) -> Iterator[Both]:
    both = Both(tmp_path)
    yield both
    both.file.close()


# --- what a broker does ---------------------------------------------------------------------------


@settings(max_examples=max(1, settings.default.max_examples // 8))
@given(st.sampled_from((Config(), TINY_WINDOWS)), conversations(garbage=False), st.booleans())
def test_a_broker_cannot_tell_one_store_from_the_other(
    config: Config, conversation: list[Act], in_order: bool
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        both = Both(Path(directory))
        play = Play(Harness(config, store=both))
        for act in conversation:
            play.take(act)
        both.compare()
        play.finish()
        both.open_again(in_order=in_order)
        assert both.file.was_stopped == in_order
        again = Play(Harness(config, store=both))
        for act in conversation[:30]:
            again.take(act)
        again.finish()
        both.open_again(in_order=True)
        both.file.close()


# --- what no broker does, but might ---------------------------------------------------------------


class Writing:
    """Makes random batches of what may happen to three queues, of which the last is transient."""

    def __init__(self, draw: st.DrawFn) -> None:
        self._draw = draw
        self._kept: dict[int, set[int]] = {}
        self._next = dict.fromkeys(QUEUES, 1)
        self._unspilled_below = 1
        self._spilled: set[int] = set()
        self._ticket = 0

    def batch(self) -> Batch:
        operations: list[Operation] = []
        for queue_id in QUEUES[:2]:
            if queue_id not in self._kept:
                operations.append(queue_added(queue_id))
                self._kept[queue_id] = set()
                self._next[queue_id] = 1
            elif self._chance(8):
                operations.append(QueueRemoved(queue_id))
                del self._kept[queue_id]
        changes = {f"q{each}": self._kept_changes(each) for each in self._kept}
        changes["q3"] = self._spilled_changes(3)
        self._ticket += 1
        return batch(*operations, ticket=self._ticket, promised=self._chance(2), **changes)

    def _chance(self, times: int) -> bool:
        return self._draw(st.integers(1, times)) == 1

    def _some(self, numbers: set[int]) -> list[int]:
        if not numbers:
            return []
        return self._draw(st.lists(st.sampled_from(sorted(numbers)), unique=True, max_size=8))

    def _new(self, queue_id: int, mode: int) -> dict[int, Message]:
        """Runs of messages with gaps between them."""
        found: dict[int, Message] = {}
        for _ in range(self._draw(st.integers(0, 3))):
            count, gap = self._draw(st.integers(1, 9)), self._draw(st.integers(0, 2))
            size = self._draw(st.sampled_from((0, 5, 5000)))
            envelope = self._draw(st.sampled_from(ENVELOPES))
            first = self._next[queue_id] + gap
            found.update(messages(count, first, size, mode=mode, envelope=envelope))
            self._next[queue_id] = first + count
        return found

    def _kept_changes(self, queue_id: int) -> Changes:
        kept = self._kept[queue_id]
        changes = changed(added=self._new(queue_id, 2))
        kept |= changes.added.keys()
        changes.returned = dict.fromkeys(self._some(kept), 1)
        if not self._chance(4):
            changes.settled = self._some(kept)
            kept.difference_update(changes.settled)
            changes.damaged = self._some(kept) if self._chance(5) else []
            kept.difference_update(changes.damaged)
        else:
            first, last = sorted(self._draw(st.tuples(*[st.integers(1, NUMBERS)] * 2)))
            changes.dropped = [(first, last), (last + 3, last + 3)]
            kept -= {*range(first, last + 1), last + 3}
            self._next[queue_id] = max(self._next[queue_id], last + 4)
        if changes.added and self._chance(2):
            keys = st.sampled_from(("a", "b"))
            changes.message_keys = {number: self._draw(keys) for number in changes.added}
        firsts = self._some(kept)
        changes.full = [Segment(first, first + 7, 5, STORED_MS) for first in sorted(firsts)]
        for tag in self._draw(st.lists(st.sampled_from(("a", "b", "")), max_size=2)):
            changes.places[tag] = self._draw(st.one_of(st.none(), st.integers(0, NUMBERS)))
        names = st.lists(st.sampled_from(("a", "b", 'é"', "")), max_size=3)
        for number, key in enumerate(self._draw(names), self._ticket * 10):
            known = Known(key, number, self._draw(st.integers(0, 9)))
            changes.keys[key] = self._draw(st.sampled_from((None, known)))
        changes.standing = Standing(self._next[queue_id], min(kept, default=0), len(kept))
        return changes

    def _spilled_changes(self, queue_id: int) -> Changes:
        changes = changed(None, spilled=self._new(queue_id, 1))
        self._spilled |= changes.spilled.keys()
        changes.unspilled = self._some(self._spilled - changes.spilled.keys())
        self._spilled.difference_update(changes.unspilled)
        if self._chance(3):
            below = st.integers(self._unspilled_below, self._next[queue_id])
            changes.unspilled_below = self._unspilled_below = self._draw(below)
            self._spilled = {each for each in self._spilled if each >= self._unspilled_below}
        return changes


def fetches() -> st.SearchStrategy[Fetch]:
    return st.builds(
        Fetch,
        st.sampled_from(QUEUES),
        st.integers(0, NUMBERS),
        st.integers(0, 2 * NUMBERS),
        st.sampled_from((1, 2, 7, 50, 1000)),
        st.sampled_from((0, 1, 11, 6000, 12_345, 10_000_000)),
        detailed=st.booleans(),
        since_ms=st.one_of(st.just(0), st.integers(1, 15).map(lambda each: STORED_MS + each)),
        newest=st.sampled_from((0, 0, 0, 1, 2)),
        after=st.none(),
    )


@st.composite
def steps(draw: st.DrawFn) -> list[Any]:
    """Batches, fetches, tidying up, and opening again."""
    writing = Writing(draw)
    found: list[Any] = []
    for _ in range(draw(st.integers(1, 12))):
        found.append(writing.batch())
        found += draw(st.lists(fetches(), max_size=3))
        found += draw(st.sampled_from(([], [], ["tidy"], ["open"], ["kill"])))
    return found


@settings(max_examples=max(1, settings.default.max_examples // 6))
@given(steps())
def test_random_batches_leave_the_same_in_both(steps: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        both = Both(Path(directory))
        both.commit(batch(VhostAdded("/")))
        take: dict[type, Callable[[Any], Any]] = {Batch: both.commit, Fetch: both.fetch}
        for step in steps:
            if step == "tidy":
                while both.file.tidy(idle=True):
                    pass
            elif isinstance(step, str):
                both.open_again(in_order=step == "open")
            else:
                note(in_words(step) if isinstance(step, Batch) else step)
                take[type(step)](step)
        both.compare()
        both.recover()
        both.file.close()


def test_what_is_added_to_the_topology_and_taken_away_is_recovered_in_both(both: Both) -> None:
    names = ("", "q", "null\0in it", "line\nbreak", "'; DROP TABLE queues; --", "é\U0001fae8" * 40)
    both.commit(batch(*map(VhostAdded, names)))
    for number, name in enumerate(names):
        exchange = ExchangeAdded(name, name, "topic", bool(number % 2), number > 2, NO_TABLE)
        bound = Bound(name, name, "queue", name, name, b"\0\0\0\5\1xt\1\0")
        more = bound._replace(destination_kind="exchange", arguments=NO_TABLE)
        queue = QueueAdded(number + 1, name, name, number > 3, b"\0\0\0\4\1xV\0"[:-1])
        both.commit(batch(exchange, queue, bound, more, bound._replace(binding_key="k")))
    assert len(both.recover().operations) == 6 * len(names)
    both.commit(batch(Unbound("q", "q", "queue", "q", "q", b"\0\0\0\5\1xt\1\0")))
    both.commit(batch(Unbound("q", "q", "queue", "q", "never was", NO_TABLE)))
    both.commit(batch(ExchangeRemoved(names[2], names[2]), QueueRemoved(5)))
    assert len(both.recover().operations) == 6 * len(names) - 1 - 4 - 1
    both.open_again(in_order=False)


def test_what_is_added_and_taken_away_in_one_batch_is_never_there(both: Both) -> None:
    exchange = ExchangeAdded("/", "x", "direct", False, False, NO_TABLE)
    bound = Bound("/", "x", "queue", "q1", "k", NO_TABLE)
    removed = ExchangeRemoved("/", "x"), QueueRemoved(1)
    both.commit(batch(VhostAdded("/"), exchange, queue_added(), bound, *removed))
    assert both.recover().operations == [VhostAdded("/")]
    again = queue_added(2, "q1"), QueueRemoved(2), queue_added(3, "q1")
    both.commit(batch(*again, q3=changed(Standing(2, 0, 1), added={1: message(b"x")})))
    assert both.recover().operations == [VhostAdded("/"), again[2]]


def test_what_is_gone_stays_gone_when_a_part_of_it_goes_again(both: Both) -> None:
    both.commit(batch(VhostAdded("/"), queue_added(), q1=changed(added=messages(10))))
    for last in (4, 2, 6):
        both.commit(batch(q1=changed(dropped=[(1, last)])))
        both.compare()
    while both.file.tidy(idle=True):
        both.compare()


def test_what_is_gone_is_neither_superseded_nor_supersedes_anything(both: Both) -> None:
    changes = changed(added=messages(9))
    changes.message_keys = dict.fromkeys(changes.added, "a")
    both.commit(batch(VhostAdded("/"), queue_added(), q1=changes))
    both.commit(batch(q1=changed(dropped=[(1, 3), (9, 9)])))
    assert both.fetch(Fetch(1, 0, 10, 100, 0, newest=2)).numbers == [4, 5, 6]


def test_a_message_may_come_back_several_times_in_one_batch(both: Both) -> None:
    both.commit(batch(VhostAdded("/"), queue_added(), q1=changed(added=messages(5))))
    both.commit(batch(q1=changed(returned=[2, 3, 2, 2, 5])))
    both.commit(batch(q1=changed(returned=[3, 5, 5], settled=[5])))
    both.compare()
    assert both.memory.deliveries == {(1, 2): 3, (1, 3): 2}


def test_spilled_messages_are_read_between_kept_ones_and_do_not_outlive_the_broker(
    both: Both,
) -> None:
    kept = {number: message(b"kept %d" % number) for number in range(1, 30, 3)}
    spilled = {number: message(b"%d" % number, mode=1) for number in range(2, 30, 3)}
    changes = changed(Standing(30, 0, len(kept)), added=kept, spilled=spilled)
    both.commit(batch(VhostAdded("/"), queue_added(), q1=changes))
    for messages_max in (1, 2, 5, 100):
        both.fetch(Fetch(1, 0, 40, messages_max, 10_000))
    both.commit(batch(q1=changed(unspilled_below=15)))
    both.compare()
    both.recover()
    assert read_all(both.file) == plainly(kept)


def test_spilled_messages_go_with_their_queue_also_in_the_batch_that_they_come_in(
    both: Both,
) -> None:
    one, two = messages(5, mode=1), messages(5, first=6, mode=1)
    both.commit(batch(VhostAdded("/"), queue_added(1), queue_added(2)))
    both.commit(batch(QueueRemoved(2), q1=changed(Standing(6, 0, 0), spilled=one)))
    both.commit(batch(q1=changed(Standing(11, 0, 0), spilled=two)))
    both.compare()
    both.commit(batch(QueueRemoved(1)))
    both.compare()
    both.commit(batch(queue_added(1), q1=changed(spilled=messages(2, first=20, mode=1))))
    both.compare()


def test_spilled_messages_of_a_transient_queue_leave_nothing_behind(both: Both) -> None:
    both.commit(batch(q7=changed(None, spilled=messages(50, mode=1))))
    assert len(read_all(both.file, 7)) == 50
    both.commit(batch(q7=changed(None, unspilled_below=51)))
    assert read_all(both.file, 7) == {}
    while both.file.tidy(idle=True):
        pass
    assert both.file._writing.execute("SELECT count(*) FROM scratch.stored").fetchone() == (0,)
    assert both.recover().standings == {}
