"""The `expiration` that a publisher gives a message, which must be a whole number of milliseconds.

Source: RabbitMQ, "Time-To-Live and Expiration", "Per-Message TTL in Publishers".
"""

import re

from amqpd.broker.arguments import EXPIRY_MS_MAX

INTEGER = re.compile(r"[+-]?[0-9]+")


def problem(expiration: str) -> str:
    """What is wrong with it, in RabbitMQ's words; empty if nothing is."""
    number = INTEGER.match(expiration)
    if number is None:
        return "no_integer"
    if number.end() < len(expiration):
        return f'{{leftover_string,"{expiration[number.end() :]}"}}'
    if int(expiration) < 0:
        return f"{{value_negative,{int(expiration)}}}"
    if int(expiration) > EXPIRY_MS_MAX:
        return f"{{value_too_large,{int(expiration)}}}"
    return ""
