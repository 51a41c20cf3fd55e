"""The keys of messages that have come, so that one with the same key is known as a duplicate.

A window of keys belongs to an exchange or a queue. It holds the newest ones, for as long as they
count; what is durable the store has too, with the same commit as the messages themselves.

Source: the plugin rabbitmq-message-deduplication. A window of a queue that outlives its messages is
amqpd's own: docs/DEDUPLICATION.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from amqpd.broker.message import HEADER, Message
from amqpd.wire import content

if TYPE_CHECKING:
    from amqpd.broker.broker import Broker
    from amqpd.broker.journal import Line

KEY: Final = "x-deduplication-header"  # a header of messages
TTL: Final = "x-cache-ttl"
SIZE: Final = "x-cache-size"

SIZE_DEFAULT: Final = 100_000
SIZE_MAX: Final = 1_000_000  # about 150 MiB
KEY_CHARACTERS_MAX: Final = 100  # for longer ones, and those with a NUL, stands a hash
FOR_EVER: Final = 0
TTL_MS_MAX: Final = 1 << 60  # as long as for ever; the store has no room for larger numbers


class Known(NamedTuple):
    """A key as the store has it.

    Attributes:
        number: keys that came later have a larger one.
        until_ms: when it does not count any more, in milliseconds since 1970; 0 for never.
    """

    key: str
    number: int
    until_ms: int


class KeyLine:
    """Under whose number the store has the keys of an exchange."""

    has_spilled = False
    next_number = 1

    def __init__(self, queue_id: int, name: str, *, durable: bool) -> None:
        self.queue_id = queue_id
        self.name = name
        self.durable = durable

    def standing(self) -> None:
        """It has no messages."""


class Duplicates:
    """A window of keys.

    Args:
        line: under whose number the store has them.
        size: how many are known at most; the oldest go first.
        ttl_ms: for how long each counts; None for ever.
        durable: the store has them.
        heeds_ttls: a message may say itself for how long its key counts.
        known: those that it has, in their order.
    """

    def __init__(
        self,
        broker: Broker,
        line: Line,
        *,
        size: int,
        ttl_ms: int | None,
        durable: bool,
        heeds_ttls: bool = False,
        known: Iterable[Known] = (),
    ) -> None:
        self._broker = broker
        self.line = line
        self._size = size
        self._ttl_ms = ttl_ms
        self._durable = durable
        self._heeds_ttls = heeds_ttls
        self._until_ms: dict[str, int] = {}
        self._number = 0
        for each in known:
            self._until_ms[each.key] = each.until_ms
            self._number = max(self._number, each.number)

    def __len__(self) -> int:
        return len(self._until_ms)

    def is_known(self, headers: Mapping[str, Any], *, durable: bool = True) -> bool:
        """Whether a message with these headers is a duplicate; if not, it is known from now on.

        Args:
            durable: its key is to survive a restart, where keys of this window do.
        """
        key = key_of(headers)
        if key is None:
            return False
        now_ms = self._broker.wall_ms()
        if self._counts(key, now_ms):
            return True
        if key in self._until_ms:
            self._forget(key)
        ttl_ms = headers.get(TTL) if self._heeds_ttls else None
        if not isinstance(ttl_ms, int):
            ttl_ms = self._ttl_ms
        if ttl_ms is not None:
            ttl_ms = min(max(ttl_ms, 1), TTL_MS_MAX)
        self._remember(key, FOR_EVER if ttl_ms is None else now_ms + ttl_ms, durable)
        self._shorten(now_ms)
        return False

    def knows(self, headers: Mapping[str, Any]) -> bool:
        """Whether a message with these headers would be a duplicate."""
        key = key_of(headers)
        return key is not None and self._counts(key, self._broker.wall_ms())

    def _counts(self, key: str, now_ms: int) -> bool:
        until_ms = self._until_ms.get(key)
        return until_ms is not None and (until_ms == FOR_EVER or until_ms > now_ms)

    def _remember(self, key: str, until_ms: int, durable: bool) -> None:
        self._until_ms[key] = until_ms
        self._number += 1
        if self._durable and durable:
            known = Known(key, self._number, until_ms)
            self._broker.journal.know(self.line, known.key, known)

    def _shorten(self, now_ms: int) -> None:
        """The oldest go if there are too many, and those that do not count any more."""
        while self._until_ms:
            key, until_ms = next(iter(self._until_ms.items()))
            is_over = until_ms != FOR_EVER and until_ms <= now_ms
            if not is_over and len(self._until_ms) <= self._size:
                return
            self._forget(key)

    def _forget(self, key: str) -> None:
        del self._until_ms[key]
        if self._durable:
            self._broker.journal.know(self.line, key, None)

    def forget(self, messages: Iterable[Message]) -> None:
        """Messages are gone, or did not come after all: the next with their keys is welcome."""
        for message in messages:
            key = key_of(headers_of(message))
            if key is not None and key in self._until_ms:
                self._forget(key)

    def clear(self) -> None:
        """Nothing is known any more."""
        for key in list(self._until_ms):
            self._forget(key)


def headers_of(message: Message) -> Mapping[str, Any]:
    """The headers of a message; none if it has no table."""
    header = message[HEADER]
    has_table = content.flags(header) & content.HEADERS
    return content.headers(header).values if has_table else {}


def key_of(headers: Mapping[str, Any]) -> str | None:
    """The key of a message; None if its headers have none."""
    value = headers.get(KEY)
    if value is None:
        return None
    key = f"text {value}" if isinstance(value, str) else f"{type(value).__name__} {value!r}"
    if len(key) > KEY_CHARACTERS_MAX or "\0" in key:  # which would end the text in the store
        encoded = key.encode("utf-8", "surrogateescape")
        return f"hash {blake2b(encoded, digest_size=24).hexdigest()}"
    return key.encode("utf-8", "backslashreplace").decode()
