"""amqp:// addresses."""

from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from amqpd.cli.bench.errors import BenchError


class Address(NamedTuple):
    """Where a broker is and who calls."""

    host: str
    port: int
    user: str
    password: str
    vhost: str

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def parse(uri: str) -> Address:
    """The parts of amqp://user:password@host:port/vhost, with RabbitMQ's defaults.

    The virtual host is percent-encoded; without one it is "/".

    Raises:
        BenchError: not an amqp address.
    """
    try:
        parts = urlsplit(uri)
        port = parts.port
    except ValueError as error:
        raise BenchError(f"{uri}: {error}") from error
    if parts.scheme == "amqps":
        raise BenchError(f"{uri}: TLS is not supported, give an amqp:// address")
    if parts.scheme != "amqp" or parts.query or parts.fragment:
        raise BenchError(f"{uri}: expected amqp://user:password@host:port/vhost")
    return Address(
        host=unquote(parts.hostname or "127.0.0.1"),
        port=5672 if port is None else port,
        user=unquote("guest" if parts.username is None else parts.username),
        password=unquote("guest" if parts.password is None else parts.password),
        vhost=unquote(parts.path[1:]) or "/",
    )
