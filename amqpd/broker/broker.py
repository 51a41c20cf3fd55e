"""The broker: vhosts, users, and what they share."""

from __future__ import annotations

from random import Random

from amqpd.broker.counters import Counters
from amqpd.broker.deadlines import Deadlines
from amqpd.broker.journal import Journal
from amqpd.broker.queues.direct_reply import DirectReply
from amqpd.broker.queues.queue import Queue
from amqpd.broker.users import Permissions, User
from amqpd.broker.vhost import Vhost
from amqpd.config import Config


class Broker:
    """Everything that all sessions share.

    Attributes:
        now: seconds on the caller's monotonic clock, as the last input said.
        epoch: wall time at `now` == 0, in seconds since 1970; only for what is stored or shown.
        touched: queues with something to absorb or to dispatch; empty between turns.
    """

    def __init__(self, config: Config, random: Random, epoch: float) -> None:
        self.config = config
        self.random = random
        self.epoch = epoch
        self.now = 0.0
        self.journal = Journal()
        self.deadlines = Deadlines()
        self.counters = Counters()
        self.touched: list[Queue | DirectReply] = []
        self.vhosts: dict[str, Vhost] = {}
        self.users: dict[str, User] = {}
        self._queue_ids = 0
        self._add_configured()

    def _add_configured(self) -> None:
        """The vhost and the user that the configuration names."""
        config = self.config
        self.vhosts[config.vhost.default] = Vhost(config.vhost.default)
        user = User(
            config.user.name,
            config.user.password,
            config.user.tags,
            loopback_only=config.user.name in config.user.loopback_users,
        )
        user.permissions[config.vhost.default] = Permissions.of(
            config.user.configure, config.user.write, config.user.read
        )
        self.users[user.name] = user

    def next_queue_id(self) -> int:
        self._queue_ids += 1
        return self._queue_ids

    def touch(self, queue: Queue | DirectReply) -> None:
        """The queue has something to absorb or may have something to dispatch."""
        if not queue.touched:
            queue.touched = True
            self.touched.append(queue)

    def settle_touched(self) -> None:
        """Absorbs all inboxes and dispatches, in the order in which the queues were touched."""
        while self.touched:
            queues, self.touched = self.touched, []
            for queue in queues:
                queue.touched = False
                queue.absorb()
                queue.dispatch()
