"""What a run declares on the broker before it begins and deletes when it is over."""

from amqpd.cli.bench.frames import CHANNEL
from amqpd.cli.bench.link import Link
from amqpd.cli.bench.plan import Plan
from amqpd.wire.methods import Exchange, Queue


def declare(link: Link, plan: Plan) -> None:
    """Declares the exchange, the queues and the bindings, unless they are said to be there.

    Raises:
        BenchError: the broker refuses one of them.
    """
    options = plan.options
    if options.predeclared:
        return
    if plan.exchange_type:
        exchange = Exchange.Declare(
            exchange=plan.exchange, exchange_type=plan.exchange_type, durable=options.durable
        )
        link.call(CHANNEL, exchange, Exchange.DeclareOk)
    for queue in plan.queues:
        declaration = Queue.Declare(
            queue=queue, durable=options.durable, arguments=options.queue_arguments
        )
        link.call(CHANNEL, declaration, Queue.DeclareOk)
    for queue, key in plan.bindings:
        binding = Queue.Bind(queue=queue, exchange=plan.exchange, routing_key=key)
        link.call(CHANNEL, binding, Queue.BindOk)


def delete(link: Link, plan: Plan) -> None:
    """Deletes what `declare` has declared, with the messages left in it."""
    if plan.options.predeclared or plan.options.keep:
        return
    for queue in plan.queues:
        link.call(CHANNEL, Queue.Delete(queue=queue), Queue.DeleteOk)
    if plan.exchange_type:
        link.call(CHANNEL, Exchange.Delete(exchange=plan.exchange), Exchange.DeleteOk)
