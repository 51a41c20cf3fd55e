"""The broker: vhosts, users, and what they share."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING

from amqpd import errors
from amqpd.broker import kept_letters
from amqpd.broker.counters import Counters
from amqpd.broker.deadlines import Deadlines
from amqpd.broker.duplicates import KeyLine
from amqpd.broker.events import Events
from amqpd.broker.fetch import Fetch, Fetched
from amqpd.broker.firehose import Firehose
from amqpd.broker.journal import LAZY_BYTES_MAX, Journal
from amqpd.broker.memory import Memory
from amqpd.broker.message import HEADER, Message, bodies_size
from amqpd.broker.operations import VhostAdded
from amqpd.broker.permissions import system_actor
from amqpd.broker.policies import configured_policy
from amqpd.broker.queues.queue import Queue, Waiter
from amqpd.broker.recovered import NOTHING, Recovered
from amqpd.broker.restore import restore
from amqpd.broker.topology.delaying import start_keeping, start_waiting
from amqpd.broker.topology.removal import remove_queue
from amqpd.broker.users import Permissions, User
from amqpd.broker.vhost import Vhost
from amqpd.config import Config
from amqpd.log import EventLog
from amqpd.wire import content
from amqpd.wire.content import EXPIRATION

if TYPE_CHECKING:
    from amqpd.broker.queues.deferred import Deferred
    from amqpd.broker.routing import Target

log = EventLog("broker")

QUEUE_IDS = 1 << 20  # so many lines of queues can exist at one time


class Broker:
    """Everything that all sessions share.

    Attributes:
        now: seconds on the caller's monotonic clock, as the last input said.
        epoch: wall time at `now` == 0, in seconds since 1970; only for what is stored or shown.
        alarms: what has run short: "memory", "disk", "store". Publishers wait while there is any.
        queues: those of all vhosts by their number in the store.
        lines: the same by the numbers of all their lines; and deferred lines, and windows of keys.
        kept_letters: the same that are kept until they have arrived, with the queues that do.
        touched: queues with something to absorb or to dispatch; empty between turns.
        letters: dead letters, and messages that have waited, which have not come to their queues;
            empty between turns.
        events: tells what happens; None if nobody wants to know.
        firehose: copies messages; None if nobody wants them.
        fetches: what is wanted from the store.
        resumable: what was waiting for messages to be at hand, and can go on.
    """

    def __init__(
        self,
        config: Config,
        random: Random,
        epoch: float,
        recovered: Recovered = NOTHING,
        *,
        now: float = 0.0,
    ) -> None:
        self.config = config
        self.random = random
        self.epoch = epoch
        self.now = now
        # Publishers that have reached their limit must not wait for what is put off.
        bytes_max = config.limits.uncommitted_bytes_max
        self.journal = Journal(min(LAZY_BYTES_MAX, bytes_max), bytes_max)
        self.deadlines = Deadlines()
        self.counters = Counters()
        self.memory = Memory(
            config.limits.queue_memory_bytes_max, config.limits.queues_memory_bytes_max
        )
        self.alarms: set[str] = set()
        self.queues: dict[int, Queue] = {}
        self.lines: dict[int, Queue | Deferred | KeyLine] = {}
        self.letters: deque[tuple[Target, list[Message]]] = deque()
        self.kept_letters: deque[tuple[Queue, list[Message]]] = deque()
        self.touched: deque[Target] = deque()
        self.fetches: list[Fetch] = []
        self.resumable: list[Waiter] = []
        self.vhosts: dict[str, Vhost] = {}
        self.users: dict[str, User] = {}
        self._last_queue_id = recovered.last_queue_id
        restore(self, recovered)
        self._last_queue_id = max((self._last_queue_id, *self.lines))
        self.events: Events | None = None
        self.firehose = Firehose(self) if config.events.firehose else None
        self._add_configured()
        self.settle_touched()

    def _add_configured(self) -> None:
        """The vhost and the user that the configuration names."""
        config = self.config
        if config.vhost.default not in self.vhosts:
            self.vhosts[config.vhost.default] = Vhost(config.vhost.default, self.random)
            self.journal.append(VhostAdded(config.vhost.default))
        vhost = self.vhosts[config.vhost.default]
        if config.events.exchange:
            self.events = Events(self, vhost)
        vhost.default_queue_type = config.vhost.default_queue_type
        vhost.queues_max = config.vhost.queues_max or -1
        vhost.connections_max = config.vhost.connections_max or -1
        for configured, by_operator in (
            (config.policies, False),
            (config.operator_policies, True),
        ):
            for each in configured:
                policy = configured_policy(each, by_operator=by_operator)
                vhost.set_policy(policy, by_operator=by_operator)
        user = User(
            config.user.name,
            config.user.password,
            config.user.tags,
            loopback_only=config.user.name in config.user.loopback_users,
        )
        user.connections_max = config.user.connections_max or -1
        user.channels_max = config.user.channels_max or -1
        user.permissions[config.vhost.default] = Permissions.of(
            config.user.configure, config.user.write, config.user.read
        )
        self.users[user.name] = user

    def wall_ms(self) -> int:
        """The time on the wall, in milliseconds since 1970."""
        # A timer for a millisecond must not come a rounding error too early.
        return int((self.epoch + self.now) * 1000 + 0.01)

    def next_queue_id(self, lines: int) -> int:
        """A number that no queue has, nor the `lines - 1` that follow; those of queues that are
        gone come again much later.

        Raises:
            ChannelException: 406 if there are QUEUE_IDS lines of queues already.
        """
        first, tried = self._last_queue_id + 1, 0
        while tried < 2 * QUEUE_IDS:
            if first + lines > QUEUE_IDS:
                tried, first = tried + QUEUE_IDS - first, 1
            taken = [each for each in range(first, first + lines) if each in self.lines]
            if not taken:
                self._last_queue_id = first + lines - 1
                return first
            tried, first = tried + taken[-1] + 1 - first, taken[-1] + 1
        raise errors.precondition_failed(
            f"cannot declare queue: queue limit in cluster ({QUEUE_IDS - 1}) is reached"
        )

    def add(self, queue: Queue) -> None:
        """Makes a queue known by its numbers."""
        self.queues[queue.queue_id] = queue
        self.lines.update(dict.fromkeys(queue.line_ids, queue))

    def remove(self, queue: Queue) -> None:
        """Forgets the numbers of a queue."""
        del self.queues[queue.queue_id]
        for each in queue.line_ids:
            del self.lines[each]

    def expire(self, queue: Queue) -> None:
        """A queue goes that nobody has used for as long as it may be unused."""
        remove_queue(self, system_actor(queue.vhost), queue)

    def waiting_line(self, queue: Queue) -> Deferred:
        """Where messages of a queue wait that are to be delivered later."""
        return queue.waiting_line or start_waiting(self, queue)

    def letters_line(self, queue: Queue) -> Deferred:
        """Where dead letters of a queue wait that could not arrive."""
        return queue.letters_line or start_keeping(self, queue)

    def touch(self, queue: Target) -> None:
        """The queue has something to absorb or may have something to dispatch."""
        if not queue.touched:
            queue.touched = True
            self.touched.append(queue)

    def settle_touched(self) -> None:
        """Absorbs all inboxes and dispatches, in the order in which the queues were touched."""
        while self.touched or self.letters or self.kept_letters:
            while self.letters:
                self._post(*self.letters.popleft())
            while self.kept_letters:
                kept_letters.send(self, *self.kept_letters.popleft())
            self.settle_queues()

    def send(self, targets: Sequence[Target], letters: list[Message]) -> None:
        """Has messages with the same header go to queues, when those that came before are there."""
        gates = [target for target in targets if target.kind == "gate"]
        if gates:
            letters = letters[:1]  # they all have the same key
        for gate in gates:
            gate.is_duplicate(letters[0])
        self.letters += [(target, letters) for target in targets if target not in gates]

    def _post(self, target: Target, letters: list[Message]) -> None:
        """Puts messages into the inbox of a queue, those that it does not refuse."""
        if target.terms.looks_at_each:
            for letter in letters:
                if not target.refuses(letter) and not target.is_duplicate(letter):
                    self.put(target, [letter])
        else:
            self.put(target, letters)

    def put(self, target: Target, messages: list[Message]) -> None:
        """Puts messages into the inbox of a queue, which may not refuse them."""
        target.inbox += messages
        target.inbox_bytes += bodies_size(messages)
        target.inbox_expires |= any(content.flags(each[HEADER]) & EXPIRATION for each in messages)
        self.touch(target)

    def settle_queues(self) -> None:
        """The same without dead letters, which wait."""
        while self.touched:
            queue = self.touched.popleft()
            queue.touched = False
            queue.absorb()
            queue.dispatch()
            if isinstance(queue, Queue) and (queue.backlog.behind or queue.waiters):
                self.fetches += queue.refill()
                self.resumable += queue.wake()

    def fetched(self, fetch: Fetch, answer: Fetched) -> None:
        """The store has answered a fetch."""
        queue = self.lines.get(fetch.queue_id)
        if queue is None or isinstance(queue, KeyLine):
            return
        lost = queue.fetched(fetch, answer)
        if lost:
            log.error(
                "messages are damaged or missing in the file; try `amqpd store check`",
                queue=queue.name,
                messages=lost,
                numbers=answer.damaged[:10],
            )
        # They have waited for this, and consumers that take all would never leave them anything.
        for waiter in queue.wake():
            waiter.resume()
        self.touch(queue)
        self.settle_touched()
