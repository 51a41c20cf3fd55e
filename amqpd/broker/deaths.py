"""What a message's headers say of how it died: `x-death` and its companions.

`x-death` has an entry for every queue and reason, the newest first. A message that dies again of
the same reason in the same queue counts up its entry, whose other fields stay as they were.

Source: RabbitMQ, "Dead Letter Exchanges", effects on messages.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from amqpd.broker.message import WAS_DEAD, Envelope
from amqpd.wire import content, fields, tables

_DEATHS: Final = "x-death"
_FIRST: Final = ("x-first-death-exchange", "x-first-death-queue", "x-first-death-reason")
_LAST: Final = ("x-last-death-exchange", "x-last-death-queue", "x-last-death-reason")
_OURS: Final = frozenset((_DEATHS, *_FIRST, *_LAST))


class Death(NamedTuple):
    """One entry of `x-death`.

    Attributes:
        times: how often.
        table: all its fields, as they stand in the headers, the size of the table first.
    """

    queue: str
    reason: str
    times: int
    table: bytes


def deaths(header: bytes) -> list[Death]:
    """The deaths that the broker has noted in the headers of a message, the newest first."""
    place = _entry(header, _DEATHS)
    if place is None or place.type != b"A":
        return []
    return [_death(header[start:end]) for _, start, end in tables.items(header, place.value)]


def _entry(header: bytes, name: str) -> tables.Entry | None:
    place = content.locate(header, content.HEADERS)
    if place is None:
        return None
    found, _ = tables.entries(header, place[0])
    return next((entry for entry in found if entry.name == name), None)


@lru_cache(maxsize=32)  # many messages died at one place in one second
def _death(table: bytes) -> Death:
    found = {entry.name: table[entry.value : entry.end] for entry in tables.entries(table, 0)[0]}
    queue, reason = found["queue"][4:].decode(), found["reason"][4:].decode()
    return Death(queue, reason, int.from_bytes(found["count"], "big", signed=True), table)


def died(
    envelope: Envelope, header: bytes, queue: str, reason: str, second: int
) -> tuple[bytes, list[Death]]:
    """The header of messages that have died, and all their deaths, the newest first.

    Args:
        second: when, in seconds since 1970.
    """
    was_dead = envelope.past & WAS_DEAD != 0
    known = deaths(header) if was_dead else []
    same = [death for death in known if (death.queue, death.reason) == (queue, reason)]
    others = [death for death in known if death not in same]
    death = _again(same[0]) if same else _first(envelope, header, queue, reason, second)
    all_deaths = [death, *others]
    kept = _kept(header, was_dead=was_dead)
    if not was_dead:
        kept.append(_said(_FIRST, envelope.exchange, queue, reason))
    kept.append(_said(_LAST, envelope.exchange, queue, reason))
    kept.append(fields.tables(_DEATHS, [each.table for each in all_deaths]))
    alive = content.without_property(header, content.EXPIRATION)
    return content.with_header_entries(alive, kept), all_deaths


@lru_cache(maxsize=32)  # many messages die at one place
def _said(names: Sequence[str], *values: str) -> bytes:
    return b"".join(map(fields.text, names, values))


def _kept(header: bytes, *, was_dead: bool) -> list[bytes]:
    """What stays of the headers: all but what is said anew."""
    if not was_dead and b"-death" not in header:  # the table is rarely walked
        return content.all_header_entries(header)
    return [
        data
        for name, data in content.header_entries(header)
        if name not in _OURS or (was_dead and name in _FIRST)
    ]


def _again(death: Death) -> Death:
    times = death.times + 1
    place = next(entry for entry in tables.entries(death.table, 0)[0] if entry.name == "count")
    table = death.table[: place.value] + times.to_bytes(8, "big") + death.table[place.end :]
    return death._replace(times=times, table=table)


def _first(envelope: Envelope, header: bytes, queue: str, reason: str, second: int) -> Death:
    expiration = content.short_string(header, content.EXPIRATION)
    keys = tuple(routing_keys(envelope, header))
    return _first_of(envelope.exchange, keys, expiration, queue, reason, second)


@lru_cache(maxsize=32)  # many messages die at one place in one second
def _first_of(
    exchange: str,
    keys: tuple[str, ...],
    expiration: str | None,
    queue: str,
    reason: str,
    second: int,
) -> Death:
    entries = [
        fields.long("count", 1),
        fields.text("reason", reason),
        fields.text("queue", queue),
        fields.timestamp("time", second),
        fields.text("exchange", exchange),
        fields.texts("routing-keys", keys),
    ]
    if expiration is not None:
        entries.insert(0, fields.text("original-expiration", expiration))
    return Death(queue, reason, 1, fields.sized(b"".join(entries)))


def routing_keys(envelope: Envelope, header: bytes) -> list[str]:
    """The routing keys that messages came with, those of their header `CC` included."""
    place = _entry(header, "CC") if b"\x02CC" in header else None  # the table is rarely walked
    if place is None or place.type != b"A":
        return [envelope.routing_key]
    found = tables.items(header, place.value)
    more = [header[start + 4 : end].decode() for kind, start, end in found if kind == b"S"]
    return [envelope.routing_key, *more]


def goes_in_circle(queue: str, all_deaths: Sequence[Death]) -> bool:
    """Whether a message that died like this comes to a queue again and no consumer was asked.

    It has died there before, and no death from then on was that a consumer rejected it.
    """
    for death in all_deaths:
        if death.reason == "rejected":
            return False
        if death.queue == queue:
            return True
    return False
