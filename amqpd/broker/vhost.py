"""A virtual host: a namespace of exchanges and queues."""

from __future__ import annotations

from typing import TYPE_CHECKING

from amqpd import errors
from amqpd.broker.exchanges import registry
from amqpd.broker.exchanges.exchange import Exchange
from amqpd.broker.exchanges.spread import Chance
from amqpd.broker.policies import Policies, Policy, merged
from amqpd.broker.printed import printed
from amqpd.broker.queues.direct_reply import DirectReply
from amqpd.broker.queues.queue import Queue
from amqpd.wire.arguments import NO_ARGUMENTS, Arguments
from amqpd.wire.tables import INTEGER_TYPES, TYPE_NAMES

if TYPE_CHECKING:
    from amqpd.broker.permissions import Owner

RESERVED_PREFIX = "amq."

# Name, type and whether it is internal, of the exchanges that every vhost has.
PREDECLARED = (
    ("", "direct", False),
    ("amq.direct", "direct", False),
    ("amq.fanout", "fanout", False),
    ("amq.headers", "headers", False),
    ("amq.match", "headers", False),
    ("amq.rabbitmq.trace", "topic", True),
    ("amq.topic", "topic", False),
)


class Vhost:
    """A virtual host.

    Attributes:
        policies: by name.
        operator_policies: the same of those who run the broker.
        replies: direct reply-to addresses of the channels that are open.
        default_queue_type: of durable shared queues that are declared without one.
        queues_max, connections_max: how many there may be; -1 for any number.
        connections: how many there are.
        generation: rises with every change that can lead a message elsewhere. What sessions
            remember of routes is worth only as much as their memory of this number.
    """

    def __init__(self, name: str, random: Chance) -> None:
        self.name = name
        self.exchanges: dict[str, Exchange] = {}
        self.queues: dict[str, Queue] = {}
        self.replies: dict[str, DirectReply] = {}
        self.policies = Policies()
        self.operator_policies = Policies()
        self.default_queue_type = "classic"
        self.queues_max = self.connections_max = -1
        self.connections = 0
        self.generation = 0
        for exchange, type_name, internal in PREDECLARED:
            self.exchanges[exchange] = Exchange(
                exchange,
                type_name,
                registry.router(type_name, NO_ARGUMENTS, random),
                durable=True,
                auto_delete=False,
                internal=internal,
                arguments=NO_ARGUMENTS,
            )
        self.default_exchange = self.exchanges[""]

    def set_policy(self, policy: Policy, *, by_operator: bool = False) -> None:
        """Adds a policy, or puts it in the place of the one of that name.

        What queues have to do because of it is done when the broker next settles those touched.
        """
        (self.operator_policies if by_operator else self.policies).by_name[policy.name] = policy
        self._apply_all()

    def clear_policy(self, name: str, *, by_operator: bool = False) -> None:
        """Takes a policy away; one that does not exist is fine."""
        (self.operator_policies if by_operator else self.policies).by_name.pop(name, None)
        self._apply_all()

    def _apply_all(self) -> None:
        for queue in self.queues.values():
            self.apply_policies(queue)
        for exchange in self.exchanges.values():
            self.apply_policies(exchange)

    def apply_policies(self, resource: Queue | Exchange) -> None:
        """Has the policies count that match a queue or an exchange."""
        policy = self.policies.matching(resource)
        operator = self.operator_policies.matching(resource)
        if (policy, operator) == (resource.policy, resource.operator_policy):
            return
        resource.policy, resource.operator_policy = policy, operator
        resource.effective_policy_definition = merged(policy, operator)
        resource.apply()
        self.generation += 1

    def exchange(self, name: str) -> Exchange:
        """The exchange of that name; raises ChannelException 404 if there is none."""
        found = self.exchanges.get(name)
        if found is None:
            raise errors.not_found(f"no {self.words('exchange', name)}")
        return found

    def queue(self, name: str, owner: Owner | None) -> Queue:
        """The queue of that name, open to `owner`.

        Raises:
            ChannelException: 404 if there is none, 405 if it is another session's exclusive one.
        """
        found = self.queues.get(name)
        if found is None:
            raise errors.not_found(f"no {self.words('queue', name)}")
        if found.exclusive_owner is not None and found.exclusive_owner is not owner:
            raise self.locked(name)
        return found

    def words(self, kind: str, name: str) -> str:
        """A resource as reply texts name it."""
        return f"{kind} '{name}' in vhost '{self.name}'"

    def locked(self, name: str) -> errors.ChannelException:
        """The refusal to open another session's exclusive queue."""
        return errors.resource_locked(
            f"cannot obtain exclusive access to locked {self.words('queue', name)}. It could be "
            "originally declared on another connection or the exclusive property value does not "
            "match that of the original declaration."
        )

    def check_name(self, kind: str, name: str) -> None:
        """Refuses a new name with the reserved prefix; raises ChannelException 403."""
        if name.startswith(RESERVED_PREFIX):
            raise errors.access_refused(
                f"{kind} name '{name}' contains reserved prefix '{RESERVED_PREFIX}*'"
            )

    def check_equal(
        self, kind: str, name: str, what: str, received: object, current: object
    ) -> None:
        """Refuses a redeclaration with another property; raises ChannelException 406."""
        if received != current:
            raise errors.precondition_failed(
                f"inequivalent arg '{what}' for {self.words(kind, name)}: received "
                f"'{printed(received)}' but current is '{printed(current)}'"
            )

    def check_equal_argument(
        self, kind: str, name: str, argument: str, received: Arguments, current: Arguments
    ) -> None:
        """Refuses a redeclaration with another value of one argument; ChannelException 406."""
        mine, theirs = _comparable(argument, received), _comparable(argument, current)
        if mine == theirs:
            return
        sides = [_one_side(argument, declared) for declared in (received, current)]
        if mine is not None and theirs is not None:
            sides = [f"'{mine[1]}'", f"'{theirs[1]}'"]
        raise errors.precondition_failed(
            f"inequivalent arg '{argument}' for {self.words(kind, name)}: received {sides[0]} but "
            f"current is {sides[1]}"
        )


def _comparable(argument: str, arguments: Arguments) -> tuple[str, str] | None:
    """A value of an argument for comparison: integers of any width are of one kind."""
    if argument not in arguments.values:
        return ("S", "classic") if argument == "x-queue-type" else None
    kind = arguments.types[argument]
    return (
        "integer" if kind in INTEGER_TYPES else kind.decode(),
        printed(arguments.values[argument]),
    )


def _one_side(argument: str, arguments: Arguments) -> str:
    if argument not in arguments.values:
        return "none"
    kind = TYPE_NAMES[arguments.types[argument]]
    return f"the value '{printed(arguments.values[argument])}' of type '{kind}'"
