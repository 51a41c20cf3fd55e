"""An exchange: its properties, its bindings, and the router of its type."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from amqpd.broker.exchanges.binding import Binding, Destination, Identity
from amqpd.broker.policies import Policy, with_declared
from amqpd.wire.arguments import Arguments


class Router(Protocol):
    """The seam between an exchange and its type. One file a type implements it.

    `route` answers where the bindings lead that match any of the routing keys; the same destination
    may be in it more than once.

    Attributes:
        uses_headers: it looks at the headers of a message, where it has some.
        varies: messages with the same routing key and headers may go to different places.
    """

    uses_headers: bool
    varies: bool

    def check_binding(self, key: str, arguments: Arguments) -> None:
        """Refuses a binding that the type does not take; ChannelException 406."""

    def bind(self, binding: Binding) -> None: ...

    def unbind(self, binding: Binding) -> None: ...

    def route(
        self, routing_keys: list[str], headers: Mapping[str, Any], header: bytes
    ) -> list[Destination]:
        """Where a message goes.

        Args:
            headers: its headers table; empty if it has none.
            header: its content header; empty if it does not matter.
        """


class Exchange:
    """A named exchange of one vhost.

    Attributes:
        bindings: those that leave from here, by identity.
        incoming: those of other exchanges that lead here, in the order in which they came.
        alternate: where messages go that it has no binding for; None for nowhere.
        policy, operator_policy: those that count for it.
        effective_policy_definition: what they say together.
    """

    kind = "exchange"

    def __init__(
        self,
        name: str,
        type_name: str,
        router: Router,
        *,
        durable: bool,
        auto_delete: bool,
        internal: bool,
        arguments: Arguments,
    ) -> None:
        self.name = name
        self.type_name = type_name
        self.router = router
        self.durable = durable
        self.auto_delete = auto_delete
        self.internal = internal
        self.arguments = arguments
        self.bindings: dict[Identity, Binding] = {}
        self.incoming: dict[Binding, None] = {}
        self.alternate: str | None = None
        self.policy: Policy | None = None
        self.operator_policy: Policy | None = None
        self.effective_policy_definition: dict[str, Any] = {}
        self.apply()

    def apply(self) -> None:
        """Arguments and policies have changed."""
        terms = with_declared(self.effective_policy_definition, self.arguments.values)
        alternate = terms.get("alternate-exchange")
        self.alternate = alternate if isinstance(alternate, str) else None

    def bind(self, binding: Binding) -> None:
        self.bindings[binding.identity] = binding
        self.router.bind(binding)
        binding.destination.incoming[binding] = None

    def unbind(self, binding: Binding) -> None:
        del self.bindings[binding.identity]
        self.router.unbind(binding)
        binding.destination.incoming.pop(binding, None)
