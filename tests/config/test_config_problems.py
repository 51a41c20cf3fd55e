"""Each way in which a configuration can be wrong, and the exact line that says so."""

import os

import pytest

from amqpd.config.problems import ConfigError
from amqpd.config.sources import load, load_file

NO_FILE = {"HOME": "/home/somebody", "AMQPD_CONFIG": os.devnull}
TABLES = (
    "there are [listen], [connection], [user], [vhost], [node], [message], [consumer], [storage],"
    " [alarms], [log], [compatibility], [events], [limits],"
    " [[policies]], [[operator_policies]]"
)
THERE_ARE = TABLES.capitalize()


def problems_of(tmp_path, text: str) -> list[str]:
    file = tmp_path / "amqpd.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_file(file)
    return [problem.replace(f"{tmp_path}/", "") for problem in caught.value.problems]


PORT = "it may be a whole number from 0 to 65535"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[listen]\nport = 70000", f"2: [listen] port = 70000 is not possible; {PORT}"),
        ("[listen]\n\nport = '1'", f'3: [listen] port = "1" is not possible; {PORT}'),
        ("[listen]\nport = true", f"2: [listen] port = true is not possible; {PORT}"),
        ("listen.port = 1.5", f"1: [listen] port = 1.5 is not possible; {PORT}"),
        ("[listen]\nport = [1, 'a']", f'2: [listen] port = [1, "a"] is not possible; {PORT}'),
        ("[listen.port]\nx = 1", f"1: [listen] port = {{x = 1}} is not possible; {PORT}"),
        (
            "[connection]\nheartbeat_s = -1",
            "2: [connection] heartbeat_s = -1 is not possible;"
            " it may be a whole number from 0 to 65535",
        ),
        (
            "[connection]\nframe_bytes_max = 100",
            "2: [connection] frame_bytes_max = 100 is not possible;"
            " it may be a whole number from 8192 to 16777216",
        ),
        (
            "[connection]\nconnections_max = -1",
            "2: [connection] connections_max = -1 is not possible; it may be a whole number from 0",
        ),
        (
            "[connection]\nhandshake_timeout_s = nan",
            "2: [connection] handshake_timeout_s = nan is not possible;"
            " it may be a number above 0 to 86400",
        ),
        (
            "[log]\nlevel = 'inof'",
            '2: [log] level = "inof" is not possible; did you mean info?'
            " It may be debug, info, warning or error",
        ),
        (
            "[log]\nformat = 'xml'",
            '2: [log] format = "xml" is not possible; it may be text or json',
        ),
        (
            "[storage]\nsync = 'ful'",
            '2: [storage] sync = "ful" is not possible; did you mean full?'
            " It may be full, normal or off",
        ),
        (
            "[storage]\nmemory_only = 'yes'",
            '2: [storage] memory_only = "yes" is not possible; it may be true or false',
        ),
        (
            "[alarms]\nmemory_share_max = 60",
            "2: [alarms] memory_share_max = 60 is not possible; it may be a number above 0 to 1",
        ),
        (
            "[alarms]\ndisk_free_bytes_min = -1",
            "2: [alarms] disk_free_bytes_min = -1 is not possible; it may be a whole number from 0",
        ),
        (
            "[limits]\nuncommitted_bytes_max = 0",
            "2: [limits] uncommitted_bytes_max = 0 is not possible;"
            " it may be a whole number from 65536",
        ),
        (
            "[compatibility]\nglobal_qos = 1",
            "2: [compatibility] global_qos = 1 is not possible; it may be true or false",
        ),
        (
            "[user]\nname = ''",
            '2: [user] name = "" is not possible; it may be a text of 1 to 255 characters',
        ),
        (
            "[user]\npassword = 12345",
            "2: [user] password = (hidden) is not possible; it may be a text that is not empty",
        ),
        (
            "[user]\nread = '('",
            '2: [user] read = "(" is not possible'
            " (missing ), unterminated subpattern at position 0); it may be a regular expression",
        ),
        (
            "[user]\ntags = [1]",
            "2: [user] tags = [1] is not possible; it may be a list of texts",
        ),
        (
            "[listen]\nbind = ['127.0.0.1:x']",
            "2: [listen] bind = [\"127.0.0.1:x\"] is not possible ('x' is not a port from 0 to"
            ' 65535); it may be one or more of "HOST", "HOST:PORT", "[IPv6]:PORT" or "unix:PATH"',
        ),
    ],
)
def test_a_value_of_the_wrong_type_or_an_impossible_one_is_told_with_what_it_may_be(
    tmp_path, text, expected
):
    assert problems_of(tmp_path, text) == [f"amqpd.toml:{expected}"]


LISTEN = "[listen] has bind, port, backlog"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "[listen]\nprot = 5672",
            f"2: [listen] prot = 5672 is unknown; did you mean port? {LISTEN}",
        ),
        (
            "[listen]\nzzzzzz = 'a'",
            f'2: [listen] zzzzzz = "a" is unknown; {LISTEN}',
        ),
        (
            "[listen]\nheartbeat_s = 1",
            "2: [listen] heartbeat_s = 1 is unknown; did you mean [connection] heartbeat_s?"
            f" {LISTEN}",
        ),
        (
            "[listen]\nmax_message_size = 1",
            "2: [listen] max_message_size = 1 is unknown;"
            f" did you mean [message] size_bytes_max? {LISTEN}",
        ),
        (
            "[user]\npasword = 'hunter2'",
            "2: [user] pasword = (hidden) is unknown; did you mean password?"
            " [user] has name, password, tags, configure, write, read, loopback_users,"
            " connections_max, channels_max",
        ),
        (
            "\n[listne]\nport = 1",
            f"2: the table [listne] is unknown; did you mean [listen]? {THERE_ARE}",
        ),
        (
            "listeners.tcp.default = 5672",
            f"1: the table [listeners] is unknown; did you mean [listen]? {THERE_ARE}",
        ),
        (
            "disk_free_limit.absolute = 1",
            "1: the table [disk_free_limit] is unknown;"
            f" did you mean [alarms] disk_free_bytes_min? {THERE_ARE}",
        ),
        (
            "vm_memory_high_watermark.relative = 0.4",
            "1: the table [vm_memory_high_watermark] is unknown;"
            f" did you mean [alarms] memory_share_max? {THERE_ARE}",
        ),
        ("[qqq]\n", f"1: the table [qqq] is unknown; {TABLES}"),
        (
            "heartbeat = 60",
            "1: heartbeat = 60 stands in no table; did you mean [connection] heartbeat_s?"
            f" {THERE_ARE}",
        ),
        (
            "default_pass = 'x'",
            "1: default_pass = (hidden) stands in no table; did you mean [user] password?"
            f" {THERE_ARE}",
        ),
        ("listen = 5672", "1: listen = 5672 is not possible; listen is a table: [listen]"),
        ("[[listen]]\nport = 1", "1: [[listen]] is a list of tables; write [listen], once"),
    ],
)
def test_an_unknown_name_is_told_with_the_nearest_known_one(tmp_path, text, expected):
    assert problems_of(tmp_path, text) == [f"amqpd.toml:{expected}"]


def test_every_problem_of_a_file_is_told_at_once_in_its_order(tmp_path):
    told = problems_of(tmp_path, "[listen]\nport = -1\nprot = 1\n[nope]\n[log]\nlevel = 3\n")
    assert [problem.split(": ")[0] for problem in told] == [
        "amqpd.toml:2",
        "amqpd.toml:3",
        "amqpd.toml:4",
        "amqpd.toml:6",
    ]


def test_what_is_not_toml_is_told_with_line_and_column(tmp_path):
    (told,) = problems_of(tmp_path, "[listen]\nport = \n")
    assert told.startswith("amqpd.toml: is not TOML: ")
    assert "line 2, column 8" in told


def test_a_file_that_cannot_be_read_is_told(tmp_path):
    missing = tmp_path / "missing.toml"
    with pytest.raises(ConfigError, match=r"missing\.toml: cannot be read: No such file"):
        load_file(missing)
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load_file(tmp_path)
    with pytest.raises(ConfigError, match=r"missing\.toml: cannot be read"):
        load(environ={"AMQPD_CONFIG": str(missing)})
    missing.write_bytes(b"[user]\nname = '\xff'\n")
    with pytest.raises(ConfigError, match=r"missing\.toml:2: is not UTF-8"):
        load_file(missing)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        (
            {"AMQPD_LISTEN__PORT": "abc"},
            f'AMQPD_LISTEN__PORT: [listen] port = "abc" is not possible; {PORT}',
        ),
        (
            {"AMQPD_LISTEN__PORT": ""},
            f'AMQPD_LISTEN__PORT: [listen] port = "" is not possible; {PORT}',
        ),
        (
            {"AMQPD_LISTEN__PORT": "70000"},
            f"AMQPD_LISTEN__PORT: [listen] port = 70000 is not possible; {PORT}",
        ),
        (
            {"AMQPD_COMPATIBILITY__GLOBAL_QOS": "maybe"},
            'AMQPD_COMPATIBILITY__GLOBAL_QOS: [compatibility] global_qos = "maybe" is not possible;'
            " it may be true or false",
        ),
        (
            {"AMQPD_USER__TAGS": '["a"'},
            'AMQPD_USER__TAGS: [user] tags = "[\\"a\\"" is not possible (not a TOML list);'
            " it may be a list of texts",
        ),
        (
            {"AMQPD_USER__NAME": "\udcff"},
            'AMQPD_USER__NAME: [user] name = "\udcff" is not possible (not UTF-8);'
            " it may be a text of 1 to 255 characters",
        ),
        (
            {"AMQPD_USER__PASSWORD": ""},
            "AMQPD_USER__PASSWORD: [user] password = (hidden) is not possible;"
            " it may be a text that is not empty",
        ),
        (
            {"RABBITMQ_DEFAULT_VHOST": "x" * 256},
            f'RABBITMQ_DEFAULT_VHOST: [vhost] default = "{"x" * 256}" is not possible;'
            " it may be a text of 1 to 255 characters",
        ),
        (
            {"AMQPD_LISTEN__PROT": "1"},
            "AMQPD_LISTEN__PROT: there is no such setting; did you mean AMQPD_LISTEN__PORT?"
            " A name is AMQPD_TABLE__KEY",
        ),
        (
            {"AMQPD_PORT": "1"},
            "AMQPD_PORT: there is no such setting; did you mean AMQPD_LISTEN__PORT?"
            " A name is AMQPD_TABLE__KEY",
        ),
        (
            {"AMQPD_QQQQQQQQQQQQQQQ": "1"},
            "AMQPD_QQQQQQQQQQQQQQQ: there is no such setting; a name is AMQPD_TABLE__KEY",
        ),
    ],
)
def test_a_wrong_variable_is_told_by_its_name(variables, expected):
    with pytest.raises(ConfigError) as caught:
        load(environ=NO_FILE | variables)
    assert caught.value.problems == (expected,)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"--port": "70000"}, f"--port: [listen] port = 70000 is not possible; {PORT}"),
        (
            {"--bind": ("127.0.0.1", "/run/a.sock")},
            '--bind: [listen] bind = ["127.0.0.1", "/run/a.sock"] is not possible'
            " ('/run/a.sock' is not a host);"
            ' it may be one or more of "HOST", "HOST:PORT", "[IPv6]:PORT" or "unix:PATH"',
        ),
        (
            {"--log-level": "warn"},
            '--log-level: [log] level = "warn" is not possible; did you mean warning?'
            " It may be debug, info, warning or error",
        ),
    ],
)
def test_a_wrong_flag_is_told_by_its_name(flags, expected):
    with pytest.raises(ConfigError) as caught:
        load(environ=NO_FILE, flags=flags)
    assert caught.value.problems == (expected,)
