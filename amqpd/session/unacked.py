"""Deliveries of one channel that the client has not settled, by delivery tag."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from amqpd import errors
from amqpd.broker.consumer import Consumer
from amqpd.broker.message import Message

# Tags of deliveries that went back because of a timeout; the oldest are forgotten first.
TIMED_OUT_MAX: Final = 16_384

Delivery = tuple[Consumer, int, Message]  # who has it, its number in the queue, the message


class Unacked:
    """Outstanding deliveries.

    Attributes:
        by_tag: in the order of the tags. The hot path adds and removes single entries.
        timed_out: tags of deliveries that have gone back without the client's knowledge, which it
            may still settle; at most TIMED_OUT_MAX.
    """

    __slots__ = ("_lowest", "by_tag", "timed_out")

    def __init__(self) -> None:
        self.by_tag: dict[int, Delivery] = {}
        self.timed_out: dict[int, None] = {}
        self._lowest = 1  # no outstanding tag is below

    def take(self, tag: int, multiple: bool, last_tag: int) -> dict[int, Delivery]:
        """Removes what an ack, nack or reject of the tag speaks for; by tag, in their order.

        Args:
            last_tag: the last delivery tag that the channel has given out.

        Raises:
            ChannelException: 406 for a tag that is not outstanding; tag 0 with `multiple` means all
                and is never wrong.
        """
        by_tag = self.by_tag
        if multiple and tag == 0:
            return self.take_all(last_tag)
        if tag not in by_tag:
            if tag not in self.timed_out:
                raise errors.precondition_failed(f"unknown delivery tag {tag}")
            del self.timed_out[tag]
            if not multiple:
                return {}
        elif not multiple:
            return {tag: by_tag.pop(tag)}
        # Either walk costs no more than what the channel has given out since the last one.
        if tag - self._lowest < 2 * len(by_tag):
            tags = [each for each in range(self._lowest, tag + 1) if each in by_tag]
        else:
            tags = [each for each in by_tag if each <= tag]
        self._lowest = tag + 1
        return {each: by_tag.pop(each) for each in tags}

    def take_all(self, last_tag: int) -> dict[int, Delivery]:
        """Removes everything."""
        taken, self.by_tag = self.by_tag, {}
        self._lowest = last_tag + 1
        return taken

    def time_out(self, tags: Iterable[int]) -> list[Delivery]:
        """Removes deliveries, which the client may settle all the same."""
        taken = [(tag, self.by_tag.pop(tag)) for tag in tags]
        self.timed_out.update((tag, None) for tag, _ in taken)
        while len(self.timed_out) > TIMED_OUT_MAX:
            del self.timed_out[next(iter(self.timed_out))]
        return [delivery for _, delivery in taken]

    def restore(self, deliveries: dict[int, Delivery]) -> None:
        """Puts entries back at their tags (tx.rollback)."""
        if deliveries:
            self.by_tag = dict(sorted((self.by_tag | deliveries).items()))
            self._lowest = min(self._lowest, next(iter(self.by_tag)))
