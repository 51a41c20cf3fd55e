"""Values as RabbitMQ's reply texts print them."""

from typing import Any


def printed(value: Any) -> str:
    """A property or an argument."""
    return str(value).lower() if isinstance(value, bool) else str(value)
