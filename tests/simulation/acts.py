"""What clients of the simulation do, and what happens to them and to their broker."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from typing import TYPE_CHECKING

from promises import EXCHANGES, Kind, Published
from simulated_clients import Expected

from amqpd.wire.methods import Basic, Confirm, Connection, Exchange, Queue, Tx, encode_method

if TYPE_CHECKING:
    from simulation import Simulation

QUEUES = {
    "d1": Kind(durable=True),
    "d2": Kind(durable=True),
    "d3": Kind(durable=True),
    "da": Kind(durable=True, auto_delete=True),
    "q1": Kind(durable=True, quorum=True),
    "q2": Kind(durable=True, quorum=True),
    "t1": Kind(),
    "ta": Kind(auto_delete=True),
    "x1": Kind(exclusive=True),
    "x2": Kind(exclusive=True),
}
KEYS = ("a", "b")
SIZES = (10, 10, 10, 100, 100, 700, 3000, 20_000)

Act = Callable[["Simulation"], None]
ACTS: list[Act] = []
SHARES: list[int] = []


def act(share: int) -> Callable[[Act], Act]:
    """Makes a function one of the acts, with its share of all of them."""

    def register(function: Act) -> Act:
        ACTS.append(function)
        SHARES.append(share)
        return function

    return register


# --- messages -------------------------------------------------------------------------------------


@act(30)
def publish(sim: Simulation) -> None:
    client, channel = sim.speaker()
    if channel is None:
        return
    exchange, key = "", sim.random.choice([*sim.ledger.queues, "nowhere"])
    if sim.random.random() < 0.4:
        exchange = sim.random.choice(["amq.fanout", *sim.ledger.exchanges])
        key = sim.random.choice(KEYS)
    size, persistent = sim.random.choice(SIZES), sim.random.random() < 0.7
    uids = []
    for _ in range(sim.random.choice((1, 1, 2, 3, 8))):
        uid = len(sim.ledger.published) + 1
        body = b"%d." % uid + b"x" * size
        sim.ledger.published[uid] = Published(exchange, key, body, persistent)
        uids.append(uid)
    client.publish(channel, uids)


@act(10)
def ack(sim: Simulation) -> None:
    client, channel = sim.speaker(has=lambda each: each.settleable)
    if channel is None:
        return
    tags = channel.settleable
    if sim.random.random() < 0.5:
        last = sim.random.choice(tags)
        client.settle(channel, [tag for tag in channel.unsettled if tag <= last], requeue=False)
        client.tell(channel, Basic.Ack(delivery_tag=last, multiple=True))
        return
    some = sim.random.sample(tags, sim.random.randint(1, len(tags)))
    client.settle(channel, some, requeue=False)
    client.link.send(
        b"".join(encode_method(channel.number, Basic.Ack(delivery_tag=tag)) for tag in some)
    )


@act(5)
def nack(sim: Simulation) -> None:
    client, channel = sim.speaker(has=lambda each: each.settleable)
    if channel is None:
        return
    tags = channel.settleable
    last, requeue = sim.random.choice(tags), sim.random.random() < 0.7
    if sim.random.random() < 0.5:
        client.settle(channel, [last], requeue)
        client.tell(channel, Basic.Reject(delivery_tag=last, requeue=requeue))
        return
    client.settle(channel, [tag for tag in channel.unsettled if tag <= last], requeue)
    client.tell(channel, Basic.Nack(delivery_tag=last, multiple=True, requeue=requeue))


@act(1)
def recover(sim: Simulation) -> None:
    client, channel = sim.speaker()
    if channel is not None:
        client.recover(channel)


@act(8)
def get(sim: Simulation) -> None:
    client, channel = sim.speaker()
    queue = sim.usable_queue(client)
    if channel is None or queue is None or sim.random.random() >= sim.thirst:
        return
    no_ack = sim.random.random() < 0.5
    if channel.gets:
        # Until they are answered, it must be clear which get an answer belongs to.
        queue, no_ack = channel.gets[-1].queue, channel.gets[-1].no_ack
    if queue.removed is None:
        client.get(channel, queue, no_ack, sim.random.choice((1, 1, 3)))


@act(10)
def consume(sim: Simulation) -> None:
    client, channel = sim.speaker()
    queue = sim.usable_queue(client)
    if channel is None or queue is None or sim.random.random() >= sim.thirst:
        return
    if len(channel.consumers) < 3:
        sim.tags += 1
        client.consume(channel, queue, f"c{sim.tags}", sim.random.random() < 0.3)


@act(2)
def cancel(sim: Simulation) -> None:
    client, channel = sim.speaker(has=lambda each: each.consumers)
    if channel is not None:
        tag = sim.random.choice([*channel.consumers])
        client.drop_consumer(channel, tag)
        client.tell(channel, Basic.Cancel(consumer_tag=tag), Expected("Basic.CancelOk"))


@act(3)
def qos(sim: Simulation) -> None:
    client, channel = sim.speaker()
    if channel is None:
        return
    count, everywhere = sim.random.choice((0, 1, 2, 5)), sim.random.random() < 0.3
    if everywhere:
        channel.prefetch_all = count
    else:
        channel.prefetch_each, channel.prefetch_all = count, 0
    client.tell(
        channel, Basic.Qos(prefetch_count=count, global_=everywhere), Expected("Basic.QosOk")
    )


# --- queues, exchanges, bindings ------------------------------------------------------------------


@act(6)
def declare(sim: Simulation) -> None:
    client, channel = sim.speaker()
    name = sim.random.choice([*QUEUES])
    kind, queue = QUEUES[name], sim.ledger.queues.get(name)
    if channel is None or (queue is not None and queue.owner not in (None, client)):
        return
    added = sim.ledger.ticket if queue is None else queue.added
    ready = 0 if queue is None else len(queue.ready)
    method = Queue.Declare(
        queue=name,
        durable=kind.durable,
        auto_delete=kind.auto_delete,
        exclusive=kind.exclusive,
        arguments={"x-queue-type": "quorum", "x-delivery-limit": -1} if kind.quorum else {},
    )
    client.tell(channel, method, Expected("Queue.DeclareOk", added * kind.durable, ready))
    if queue is None:
        queue_id = sim.harness.core.broker.vhosts["/"].queues[name].queue_id
        sim.ledger.declare(queue_id, name, kind, client if kind.exclusive else None)


@act(1)
def delete(sim: Simulation) -> None:
    client, channel = sim.speaker()
    queue = sim.usable_queue(client)
    if channel is None or queue is None:
        return
    ticket = sim.ledger.ticket * queue.kind.durable
    expected = Expected("Queue.DeleteOk", ticket, len(queue.ready))
    may_ask = not queue.kind.quorum
    method = Queue.Delete(queue=queue.name, if_empty=may_ask and not queue.ready)
    sim.ledger.remove(queue)
    client.tell(channel, method, expected)


@act(1)
def purge(sim: Simulation) -> None:
    client, channel = sim.speaker()
    queue = sim.usable_queue(client)
    if channel is None or queue is None:
        return
    kept = any(copy.persistent for copy in queue.ready.values())
    expected = Expected("Queue.PurgeOk", sim.ledger.ticket * kept, len(queue.ready))
    queue.purge(sim.ledger.ticket)
    client.tell(channel, Queue.Purge(queue=queue.name), expected)


@act(3)
def bind(sim: Simulation) -> None:
    client, channel = sim.speaker()
    queue = sim.usable_queue(client)
    if channel is None or queue is None:
        return
    exchange = sim.random.choice(["amq.fanout", *sim.ledger.exchanges])
    binding = (exchange, sim.random.choice(KEYS), queue.name)
    if binding not in sim.ledger.bindings:
        sim.ledger.bind(binding)
    method = Queue.Bind(queue=queue.name, exchange=exchange, routing_key=binding[1])
    client.tell(channel, method, Expected("Queue.BindOk", sim.ledger.since("binding", *binding)))


@act(1)
def unbind(sim: Simulation) -> None:
    client, channel = sim.speaker()
    bindings = [each for each in sim.ledger.bindings if sim.may_use(client, each[2])]
    if channel is None or not bindings:
        return
    binding = sim.random.choice(bindings)
    sim.ledger.unbind(binding)
    method = Queue.Unbind(queue=binding[2], exchange=binding[0], routing_key=binding[1])
    ticket = sim.ledger.since("binding", *binding)
    client.tell(channel, method, Expected("Queue.UnbindOk", ticket))


@act(2)
def declare_exchange(sim: Simulation) -> None:
    client, channel = sim.speaker()
    name = sim.random.choice(("f", "e"))
    if channel is None:
        return
    if name not in sim.ledger.exchanges:
        sim.ledger.declare_exchange(name)
    method = Exchange.Declare(exchange=name, exchange_type=EXCHANGES[name], durable=True)
    ticket = sim.ledger.since("exchange", name)
    client.tell(channel, method, Expected("Exchange.DeclareOk", ticket))


@act(1)
def delete_exchange(sim: Simulation) -> None:
    client, channel = sim.speaker()
    if channel is not None and sim.ledger.exchanges and sim.random.random() < 0.3:
        name = sim.random.choice([*sim.ledger.exchanges])
        sim.ledger.remove_exchange(name)
        expected = Expected("Exchange.DeleteOk", sim.ledger.ticket)
        client.tell(channel, Exchange.Delete(exchange=name), expected)


# --- channels and connections ---------------------------------------------------------------------


@act(4)
def select(sim: Simulation) -> None:
    client, channel = sim.speaker(has=lambda each: not each.mode)
    if channel is None:
        return
    channel.mode = sim.random.choice(("confirm", "confirm", "tx"))
    if channel.mode == "tx":
        client.tell(channel, Tx.Select(), Expected("Tx.SelectOk"))
    else:
        client.tell(channel, Confirm.Select(), Expected("Confirm.SelectOk"))


@act(3)
def end_transaction(sim: Simulation) -> None:
    client, channel = sim.speaker(has=lambda each: each.mode == "tx")
    if channel is None:
        return
    if sim.random.random() < 0.8:
        client.commit(channel)
    else:
        client.rollback(channel)


@act(1)
def close_channel(sim: Simulation) -> None:
    client, channel = sim.speaker()
    if channel is not None:
        client.close_channel(channel)


@act(1)
def close(sim: Simulation) -> None:
    client = sim.random.choice(sim.clients)
    if client.can_speak and sim.random.random() < 0.5:
        client.end()
        client.link.send(encode_method(0, Connection.Close(200, "", 0, 0)))
        sim.replace(client)


@act(1)
def hang_up(sim: Simulation) -> None:
    client = sim.random.choice(sim.clients)
    client.end()
    sim.replace(client)


@act(1)
def stop_reading(sim: Simulation) -> None:
    sim.random.choice(sim.clients).link.reads = False


@act(3)
def read_again(sim: Simulation) -> None:
    sim.random.choice(sim.clients).link.read_again()


# --- the disk and the clock -----------------------------------------------------------------------


@act(20)
def commit(sim: Simulation) -> None:
    sim.harness.commit(1)


@act(15)
def answer_a_read(sim: Simulation) -> None:
    if sim.reads:
        sim.answer_a_read()


@act(4)
def wait(sim: Simulation) -> None:
    sim.harness.wait(0.06)


@act(1)
def come_to_rest(sim: Simulation) -> None:
    if sim.random.random() < 0.5:
        sim.come_to_rest()


CUMULATED = list(accumulate(SHARES))
OPENING = (declare, declare, bind, select, qos, consume, qos, consume, qos, consume)
