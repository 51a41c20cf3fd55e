"""The forms of an address in `listen.bind`."""

import pytest

from amqpd.config import Listen
from amqpd.config.addresses import TcpAddress, UnixAddress, listen_addresses, parse_address


@pytest.mark.parametrize(
    ("entry", "address"),
    [
        ("127.0.0.1", TcpAddress("127.0.0.1", 5672)),
        ("127.0.0.1:5673", TcpAddress("127.0.0.1", 5673)),
        ("localhost:0", TcpAddress("localhost", 0)),
        ("::1", TcpAddress("::1", 5672)),
        ("::", TcpAddress("::", 5672)),
        ("[::1]", TcpAddress("::1", 5672)),
        ("[::1]:5673", TcpAddress("::1", 5673)),
        ("[fe80::1%eth0]:1", TcpAddress("fe80::1%eth0", 1)),
        ("unix:/run/amqpd.sock", UnixAddress("/run/amqpd.sock")),
        ("unix:a:b", UnixAddress("a:b")),
    ],
)
def test_an_entry_is_a_host_a_port_or_a_path(entry, address):
    assert parse_address(entry, 5672) == address


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ("", "the host is missing"),
        (":5672", "the host is missing"),
        ("unix:", "the path after unix: is missing"),
        ("*", "'\\*' is not a host"),
        ("/run/amqpd.sock", "'/run/amqpd.sock' is not a host"),
        ("my host", "'my host' is not a host"),
        ("amqp://localhost", "'//localhost' is not a port"),
        ("host:", "'' is not a port"),
        ("host:65536", "'65536' is not a port"),
        ("host:-1", "'-1' is not a port"),
        ("host:\u0661", "is not a port"),
        ("[::1", "only :PORT may follow"),
        ("[::1]5672", "only :PORT may follow"),
        ("[localhost]:5672", "'localhost' is not an IPv6 address"),
    ],
)
def test_any_other_entry_is_refused_with_its_reason(entry, reason):
    with pytest.raises(ValueError, match=reason):
        parse_address(entry, 5672)


def test_all_addresses_come_in_the_order_written():
    listen = Listen(bind=("b:1", "unix:/a", "c"), port=9)
    assert listen_addresses(listen) == (
        TcpAddress("b", 1),
        UnixAddress("/a"),
        TcpAddress("c", 9),
    )
