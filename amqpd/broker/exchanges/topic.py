"""Topic exchanges: a trie of binding keys, walked a word at a time.

A key is words between dots, the empty key no words; `*` in a binding key stands for one word, `#`
for any number of words, none included. The walk carries the set of nodes that the words so
far can have led to, so its cost is the number of words times the patterns that still match, not
the number of bindings, and several `#` in one key cannot make it explode. (Many bindings that are
long, all wildcards and all different are still many patterns.)

Source: RabbitMQ, "Topic exchanges"; AMQP 0-9-1 section 3.1.3.3.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from amqpd.broker.exchanges.binding import Binding, Destination
from amqpd.wire.arguments import Arguments


class _Node:
    __slots__ = ("bound", "children", "takes_many")

    def __init__(self, takes_many: bool) -> None:
        self.children: dict[str, _Node] = {}
        self.bound: dict[Binding, None] = {}
        self.takes_many = takes_many  # the word that leads here is "#"


class Topic:
    """The router of topic exchanges."""

    uses_headers = False
    varies = False

    def __init__(self) -> None:
        self._root = _Node(False)

    def check_binding(self, key: str, arguments: Arguments) -> None:
        """Takes any binding."""

    def bind(self, binding: Binding) -> None:
        node = self._root
        for word in _words(binding.key):
            child = node.children.get(word)
            if child is None:
                child = node.children[word] = _Node(word == "#")
            node = child
        node.bound[binding] = None

    def unbind(self, binding: Binding) -> None:
        path = []
        node = self._root
        for word in _words(binding.key):
            path.append((node, word))
            node = node.children[word]
        del node.bound[binding]
        for parent, word in reversed(path):
            child = parent.children[word]
            if child.bound or child.children:
                break
            del parent.children[word]

    def route(
        self, routing_keys: list[str], headers: Mapping[str, Any], header: bytes
    ) -> list[Destination]:
        found: dict[Destination, None] = {}
        for key in routing_keys:
            for node in self._reached(key):
                for binding in node.bound:
                    found[binding.destination] = None
        return list(found)

    def _reached(self, routing_key: str) -> dict[_Node, None]:
        """The nodes whose binding keys match."""
        # A dict is the ordered set: the same queues in the same order on every run.
        reached = _with_empty_hashes({self._root: None})
        for word in _words(routing_key):
            following: dict[_Node, None] = {}
            for node in reached:
                if node.takes_many:
                    following[node] = None
                for pattern in (word, "*"):
                    child = node.children.get(pattern)
                    if child is not None:
                        following[child] = None
            if not following:
                return {}
            reached = _with_empty_hashes(following)
        return reached


def _words(key: str) -> list[str]:
    return key.split(".") if key else []


def _with_empty_hashes(nodes: dict[_Node, None]) -> dict[_Node, None]:
    """The nodes and those that a `#` without any word leads to."""
    waiting = [node for node in nodes if "#" in node.children]
    while waiting:
        child = waiting.pop().children["#"]
        if child not in nodes:
            nodes[child] = None
            if "#" in child.children:
                waiting.append(child)
    return nodes
