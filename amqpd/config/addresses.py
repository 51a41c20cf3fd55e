"""What an entry of `listen.bind` means: a TCP address or the path of a Unix socket."""

from typing import Final

from msgspec import Struct

from amqpd.config.settings import Listen

UNIX_PREFIX: Final = "unix:"
FORMS: Final = '"HOST", "HOST:PORT", "[IPv6]:PORT" or "unix:PATH"'


class TcpAddress(Struct, frozen=True):
    """A host name or address, without brackets, and a port (0: any free one)."""

    host: str
    port: int


class UnixAddress(Struct, frozen=True):
    """The path of a Unix socket."""

    path: str


Address = TcpAddress | UnixAddress


def parse_address(entry: str, port: int) -> Address:
    """Read one entry of `listen.bind`; `port` is used where the entry names none.

    Raises ValueError, whose text says what is wrong with the entry.
    """
    if entry.startswith(UNIX_PREFIX):
        path = entry.removeprefix(UNIX_PREFIX)
        if not path:
            raise ValueError("the path after unix: is missing")
        return UnixAddress(path)
    host, port_text = _split(entry)
    if not host:
        raise ValueError("the host is missing; 0.0.0.0 is every IPv4 address, [::] every address")
    if any(character in host for character in "/@*") or host != host.strip() or " " in host:
        raise ValueError(f"{host!r} is not a host")
    if port_text is None:
        return TcpAddress(host, port)
    if not (port_text.isascii() and port_text.isdigit() and int(port_text) <= 65_535):
        raise ValueError(f"{port_text!r} is not a port from 0 to 65535")
    return TcpAddress(host, int(port_text))


def listen_addresses(listen: Listen) -> tuple[Address, ...]:
    """Every address to listen on, in the order of `listen.bind`."""
    return tuple(parse_address(entry, listen.port) for entry in listen.bind)


def _split(entry: str) -> tuple[str, str | None]:
    """Cut an entry into host and port; an IPv6 address is bare (no port) or in brackets."""
    if entry.startswith("["):
        host, bracket, rest = entry[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError("after an IPv6 address in brackets only :PORT may follow")
        if ":" not in host:
            raise ValueError(f"{host!r} is not an IPv6 address")
        return host, rest[1:] if rest else None
    if entry.count(":") > 1:
        return entry, None
    host, colon, port_text = entry.partition(":")
    return host, port_text if colon else None
