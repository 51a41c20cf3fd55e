"""Heartbeats both ways. Source: AMQP 0-9-1 section 4.2.7; RabbitMQ, "Heartbeats".

The broker sends a heartbeat every half interval in which it said nothing else. It looks once an
interval whether anything has come, and gives the client up after two empty looks in a row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from amqpd.broker.deadlines import Deadline
from amqpd.wire.constants import HEARTBEAT

if TYPE_CHECKING:
    from amqpd.session.connection import Session

EMPTY_LOOKS_MAX = 2


class Heartbeat:
    """The heartbeat of one running session.

    Args:
        interval_s: as negotiated, in seconds; more than 0.
    """

    __slots__ = ("_empty_looks", "_interval_s", "_look", "_read", "_said", "_send", "_session")

    def __init__(self, session: Session, interval_s: int) -> None:
        self._session = session
        self._interval_s = interval_s
        self._read = session.bytes_read
        self._said = session.bytes_said
        self._empty_looks = 0
        at, now = session.broker.deadlines.at, session.broker.now
        self._send: Deadline = at(now + interval_s / 2, self._send_if_silent)
        self._look: Deadline = at(now + interval_s, self._look_for_input)

    def stop(self) -> None:
        deadlines = self._session.broker.deadlines
        deadlines.cancel(self._send)
        deadlines.cancel(self._look)

    def _send_if_silent(self) -> None:
        session = self._session
        if session.bytes_said == self._said:
            session.say_at_once(HEARTBEAT)
        self._said = session.bytes_said
        broker = session.broker
        self._send = broker.deadlines.at(broker.now + self._interval_s / 2, self._send_if_silent)

    def _look_for_input(self) -> None:
        session, broker = self._session, self._session.broker
        if session.bytes_read != self._read or session.flow.stopped:
            self._read = session.bytes_read
            self._empty_looks = 0
        else:
            self._empty_looks += 1
            if self._empty_looks >= EMPTY_LOOKS_MAX:
                session.give_up(f"missed heartbeats from client, timeout: {self._interval_s}s")
                return
        self._look = broker.deadlines.at(broker.now + self._interval_s, self._look_for_input)
