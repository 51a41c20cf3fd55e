"""The exchange types by name."""

from collections.abc import Callable

from amqpd import errors
from amqpd.broker.exchanges.direct import Direct
from amqpd.broker.exchanges.exchange import Router
from amqpd.broker.exchanges.fanout import Fanout
from amqpd.broker.exchanges.headers import Headers
from amqpd.broker.exchanges.topic import Topic

TYPES: dict[str, Callable[[], Router]] = {
    "direct": Direct,
    "fanout": Fanout,
    "headers": Headers,
    "topic": Topic,
}


def router(type_name: str) -> Router:
    """A new router of the type.

    Raises:
        ChannelException: 406 for a type that the broker does not have.
    """
    if not type_name:
        raise errors.precondition_failed("invalid exchange type ''")
    factory = TYPES.get(type_name)
    if factory is None:
        raise errors.precondition_failed(f"unknown exchange type '{type_name}'")
    return factory()
