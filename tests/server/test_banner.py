"""The ready line."""

import io
from pathlib import Path

from amqpd.server.banner import print_ready, ready_line
from amqpd.version import VERSION

ADDRESSES = ["amqp://127.0.0.1:5672", "amqp://[::1]:5672"]


def test_the_ready_line_names_addresses_data_configuration_and_process():
    line = ready_line(ADDRESSES, kept="data /data", config_file=Path("/etc/amqpd.toml"), pid=7)
    assert line == (
        f"amqpd {VERSION} ready: amqp://127.0.0.1:5672 amqp://[::1]:5672"
        " (data /data, config /etc/amqpd.toml, pid 7)"
    )
    without = ready_line(ADDRESSES[:1], kept="data /data", config_file=None, pid=7)
    assert without.endswith("amqp://127.0.0.1:5672 (data /data, config none, pid 7)")


def test_the_ready_line_in_colour_says_the_same():
    plain = ready_line(ADDRESSES, kept="data /data", config_file=None, pid=7)
    coloured = ready_line(ADDRESSES, kept="data /data", config_file=None, pid=7, colour=True)
    for code in ("1;32", "1", "2", "0"):
        coloured = coloured.replace(f"\x1b[{code}m", "")
    assert coloured == plain


def test_the_ready_line_is_one_line_without_colour_where_it_is_not_a_terminal():
    stream = io.StringIO()
    print_ready(ADDRESSES, kept="data /data", config_file=None, stream=stream)
    assert stream.getvalue().startswith(f"amqpd {VERSION} ready: amqp://127.0.0.1:5672 ")
    assert stream.getvalue().endswith(")\n") and stream.getvalue().count("\n") == 1
    assert "\x1b" not in stream.getvalue()


def test_a_closed_standard_output_is_no_error():
    stream = io.StringIO()
    stream.close()
    print_ready(ADDRESSES, kept="data /data", config_file=None, stream=stream)
