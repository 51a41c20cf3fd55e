"""Which source wins, how each is read, and that origins tell the truth."""

import os
from pathlib import Path

import pytest

from amqpd.config import Config
from amqpd.config.problems import ConfigError
from amqpd.config.schema import settings
from amqpd.config.sources import FLAGS, data_dir, default_data_dir, find_file, load, load_file

HOME = "/home/somebody"


def environ(**variables: str) -> dict[str, str]:
    """An environment in which no file of the machine is found."""
    return {"HOME": HOME, "AMQPD_CONFIG": os.devnull} | variables


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_without_any_source_every_setting_has_its_default_but_the_data_directory_is_filled_in():
    loaded = load(environ=environ())
    assert loaded.config.listen == Config().listen
    assert loaded.config.user == Config().user
    assert loaded.config.storage.data_dir.startswith(HOME)
    assert {str(origin) for origin in loaded.sources.origins.values()} == {"default"}
    assert list(loaded.sources.origins) == list(settings())


@pytest.mark.parametrize(
    ("in_file", "variable", "flag", "port", "origin"),
    [
        (None, None, None, 5672, "default"),
        (1, None, None, 1, "{file}:3"),
        (None, "2", None, 2, "env AMQPD_LISTEN__PORT"),
        (1, "2", None, 2, "env AMQPD_LISTEN__PORT"),
        (1, None, "3", 3, "flag --port"),
        (None, "2", "3", 3, "flag --port"),
        (1, "2", "3", 3, "flag --port"),
    ],
)
def test_flag_beats_environment_beats_file_beats_default(
    tmp_path, in_file, variable, flag, port, origin
):
    line = "" if in_file is None else f"port = {in_file}\n"
    file = write(tmp_path / "amqpd.toml", f"\n[listen]\n{line}")
    loaded = load(
        file,
        environ=environ(**({} if variable is None else {"AMQPD_LISTEN__PORT": variable})),
        flags={} if flag is None else {"--port": flag},
    )
    assert loaded.config.listen.port == port
    assert str(loaded.sources.origins["listen", "port"]) == origin.format(file=file)


def test_a_source_beats_another_setting_by_setting(tmp_path):
    file = write(tmp_path / "amqpd.toml", '[listen]\nport = 1\nbacklog = 7\nbind = "::1"\n')
    loaded = load(file, environ=environ(AMQPD_LISTEN__PORT="2"), flags={"--bind": ["a", "b:3"]})
    assert (loaded.config.listen.port, loaded.config.listen.backlog) == (2, 7)
    assert loaded.config.listen.bind == ("a", "b:3")


@pytest.mark.parametrize(
    ("variable", "text", "value"),
    [
        ("AMQPD_LISTEN__PORT", " 5673 ", 5673),
        ("AMQPD_CONNECTION__HANDSHAKE_TIMEOUT_S", "0.5", 0.5),
        ("AMQPD_CONNECTION__HANDSHAKE_TIMEOUT_S", "3", 3.0),
        ("AMQPD_USER__PASSWORD", " a,b ", " a,b "),
        ("AMQPD_USER__PASSWORD", "5672", "5672"),
        ("AMQPD_LOG__LEVEL", "debug", "debug"),
        ("AMQPD_COMPATIBILITY__GLOBAL_QOS", "false", False),
        ("AMQPD_COMPATIBILITY__GLOBAL_QOS", "No", False),
        ("AMQPD_COMPATIBILITY__GLOBAL_QOS", "1", True),
        ("AMQPD_STORAGE__MEMORY_ONLY", "yes", True),
        ("AMQPD_STORAGE__SYNC", "off", "off"),
        ("AMQPD_ALARMS__MEMORY_SHARE_MAX", "1", 1.0),
        ("AMQPD_ALARMS__DISK_FREE_BYTES_MIN", "0", 0),
        ("AMQPD_LISTEN__BIND", "::1", ("::1",)),
        ("AMQPD_LISTEN__BIND", "127.0.0.1, [::1]:5673", ("127.0.0.1", "[::1]:5673")),
        ("AMQPD_LISTEN__BIND", "[::1]:5673,unix:/run/a.sock", ("[::1]:5673", "unix:/run/a.sock")),
        ("AMQPD_LISTEN__BIND", '["127.0.0.1", "unix:/a,b"]', ("127.0.0.1", "unix:/a,b")),
        ("AMQPD_USER__LOOPBACK_USERS", "", ()),
        ("AMQPD_USER__LOOPBACK_USERS", "[]", ()),
        ("RABBITMQ_DEFAULT_USER", "app", "app"),
        ("RABBITMQ_DEFAULT_PASS", "secret", "secret"),
        ("RABBITMQ_DEFAULT_VHOST", "orders", "orders"),
        ("RABBITMQ_DEFAULT_USER", "", "guest"),
    ],
)
def test_a_variable_is_read_by_the_type_of_its_setting(variable, text, value):
    loaded = load(environ=environ(**{variable: text}))
    keys = {one.variable: key for key, one in settings().items()} | {
        "RABBITMQ_DEFAULT_USER": ("user", "name"),
        "RABBITMQ_DEFAULT_PASS": ("user", "password"),
        "RABBITMQ_DEFAULT_VHOST": ("vhost", "default"),
    }
    table, key = keys[variable]
    assert getattr(getattr(loaded.config, table), key) == value
    assert loaded.sources.origins[table, key].kind == ("environment" if text else "default") or (
        value == ()
    )


def test_every_setting_has_a_variable_that_sets_it():
    texts = {
        one.variable: ",".join(one.default) if one.is_list else str(one.default)
        for one in settings().values()
    }
    loaded = load(environ=environ(**texts))
    assert {str(origin) for origin in loaded.sources.origins.values()} == {
        f"env {name}" for name in texts
    }
    assert loaded.config.limits == Config().limits


def test_the_variables_of_rabbitmq_beat_the_file_and_ours_beat_them(tmp_path):
    file = write(tmp_path / "amqpd.toml", '[user]\nname = "file"\npassword = "file"\n')
    loaded = load(
        file,
        environ=environ(
            RABBITMQ_DEFAULT_USER="rabbit", RABBITMQ_DEFAULT_PASS="rabbit", AMQPD_USER__NAME="ours"
        ),
    )
    assert (loaded.config.user.name, loaded.config.user.password) == ("ours", "rabbit")
    assert str(loaded.sources.origins["user", "password"]) == "env RABBITMQ_DEFAULT_PASS"


def test_a_user_named_by_rabbitmqs_variable_may_connect_from_anywhere_unless_it_is_guest():
    named = load(environ=environ(RABBITMQ_DEFAULT_USER="app")).config.user
    assert named.name not in named.loopback_users
    guest = load(environ=environ(RABBITMQ_DEFAULT_USER="guest")).config.user
    assert guest.name in guest.loopback_users


def test_every_flag_sets_its_setting():
    texts = {"--bind": ["0.0.0.0"], "--port": "0", "--data-dir": "/data", "--memory": "true"}
    logs = {"--log-level": "error", "--log-format": "json"}
    loaded = load(environ=environ(), flags=texts | logs)
    assert loaded.config.listen.bind == ("0.0.0.0",)
    assert loaded.config.listen.port == 0
    assert loaded.config.storage.data_dir == "/data"
    assert loaded.config.storage.memory_only
    assert (loaded.config.log.level, loaded.config.log.format) == ("error", "json")
    assert {str(loaded.sources.origins[key]) for key in FLAGS.values()} == {
        f"flag {name}" for name in FLAGS
    }


def test_the_file_is_the_named_one_then_the_variables_then_the_users(tmp_path):
    flag = write(tmp_path / "flag.toml", "[listen]\nport = 1\n")
    variable = write(tmp_path / "variable.toml", "[listen]\nport = 2\n")
    home = write(tmp_path / ".config/amqpd/amqpd.toml", "[listen]\nport = 3\n")
    xdg = write(tmp_path / "xdg/amqpd/amqpd.toml", "[listen]\nport = 4\n")
    base = {"HOME": str(tmp_path)}
    named = {**base, "AMQPD_CONFIG": str(variable)}
    assert load(flag, environ=named).sources.file == flag
    assert load(environ=named).sources.file == variable
    assert load(environ={**base, "AMQPD_CONFIG": "~/flag.toml"}).sources.file == flag
    assert load(environ=base).config.listen.port == 3
    assert find_file({**base, "AMQPD_CONFIG": ""}) == home
    assert find_file({**base, "XDG_CONFIG_HOME": str(tmp_path / "xdg")}) == xdg


def test_a_file_in_the_working_directory_is_not_read(tmp_path, monkeypatch):
    here = write(tmp_path / "amqpd.toml", "[listen]\nport = 1\n")
    monkeypatch.chdir(tmp_path)
    assert find_file({"HOME": str(tmp_path)}) not in (here, Path("amqpd.toml"))


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {}, "/home/somebody/.local/state/amqpd"),
        ("linux", {"XDG_STATE_HOME": "/state"}, "/state/amqpd"),
        ("darwin", {}, "/home/somebody/Library/Application Support/amqpd"),
        (
            "darwin",
            {"XDG_STATE_HOME": "/state"},
            "/home/somebody/Library/Application Support/amqpd",
        ),
    ],
)
def test_the_data_directory_follows_the_platform(platform, variables, expected):
    assert default_data_dir(environ(**variables), platform) == expected
    assert data_dir("", environ(**variables), platform) == expected


@pytest.mark.parametrize(
    ("written", "expected"),
    [("~/data", "/home/somebody/data"), ("/var/../data", "/data"), ("~", HOME)],
)
def test_the_data_directory_is_made_absolute_and_its_tilde_replaced(written, expected):
    assert (
        load(environ=environ(), flags={"--data-dir": written}).config.storage.data_dir == expected
    )
    assert data_dir(written, environ()) == expected


def test_without_a_home_only_a_broker_that_keeps_nothing_needs_no_data_directory():
    homeless = environ(AMQPD_STORAGE__DATA_DIR="~nobody_has_this_name/data")
    with pytest.raises(ConfigError, match="there is no home directory"):
        load(environ=homeless)
    assert load(environ=homeless, flags={"--memory": "true"}).config.storage.memory_only


def test_a_file_is_checked_without_regard_to_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("AMQPD_LISTEN__PORT", "nonsense")
    loaded = load_file(write(tmp_path / "a.toml", "listen = { port = 9 }\nuser.name = 'x'\n"))
    assert (loaded.config.listen.port, loaded.config.user.name) == (9, "x")
    assert str(loaded.sources.origins["user", "name"]).endswith("a.toml:2")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("AMQPD_PORT", "tcp://10.0.0.1:5672"),
        ("AMQPD_PORT_5672_TCP", "tcp://10.0.0.1:5672"),
        ("AMQPD_PORT_5672_TCP_ADDR", "10.0.0.1"),
        ("AMQPD_SERVICE_HOST", "10.0.0.1"),
        ("AMQPD_SERVICE_PORT", "5672"),
        ("AMQPD_SERVICE_PORT_AMQP", "5672"),
        ("AMQPD_EU_WEST_SERVICE_HOST", "10.0.0.1"),
        ("AMQPD_EU_WEST_PORT", "tcp://10.0.0.1:5672"),
    ],
)
def test_what_kubernetes_says_of_a_service_called_amqpd_is_not_taken_for_a_setting(name, text):
    assert load(environ=environ(**{name: text})).config.listen == Config().listen
