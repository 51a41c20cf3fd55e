"""What every client is made to publish: the routing tables and a header of every common type."""

import datetime
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

# A table of bindings and of messages with the queues that must receive them, read by the
# Python and the Node tests alike.
ROUTES: dict[str, Any] = json.loads((Path(__file__).parent / "routes.json").read_text())

SENT_AT = datetime.datetime(2024, 2, 29, 12, 30, 15, tzinfo=datetime.UTC)

# What all Python clients can encode. Each client's test adds the types that only some can.
HEADERS: dict[str, Any] = {
    "text": "grüße",
    "yes": True,
    "no": False,
    "small": 7,
    "negative": -70_000,
    "big": 2**62,
    "decimal": Decimal("3.14"),
    "nothing": None,
    "table": {"inner": {"deepest": [1, "two", {"three": 3}]}, "flag": False},
    "list": ["a", 1, [True, None], {"k": "v"}],
    "empty table": {},
    "empty list": [],
}

LARGE = bytes(range(256)) * (5 * 1024 * 4)  # 5 MiB: forty frames at the usual frame-max


def routed(kind: str, queue: str) -> list[int]:
    """The positions of the messages of ROUTES[kind] that `queue` must receive, in order."""
    return [i for i, (_, queues) in enumerate(ROUTES[kind]["messages"]) if queue in queues]
