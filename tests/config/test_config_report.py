"""The example file equals the settings; what `config show` prints can be read back."""

import os
from itertools import pairwise
from pathlib import Path

import tomli

from amqpd.config import Config
from amqpd.config.report import EXAMPLE_TAIL, changed, example, in_force
from amqpd.config.schema import LISTS, may_be, settings
from amqpd.config.sources import load, load_file

CONF = Path(__file__).parents[2] / "conf" / "amqpd.toml"
ENVIRON = {"HOME": "/home/somebody", "AMQPD_CONFIG": os.devnull}


def uncommented(text: str) -> dict[str, dict[str, object]]:
    """The file as it is once every setting is uncommented: a setting's # has no space behind it."""
    lines = [
        line[1:] if line.startswith("#") and not line.startswith(("# ", "#\n")) else line
        for line in text.splitlines(keepends=True)
    ]
    return tomli.loads("".join(lines))


def test_the_example_file_is_what_config_example_prints():
    assert CONF.read_text(encoding="utf-8") == example()


def test_the_example_file_has_every_setting_with_its_default_and_nothing_else():
    written = uncommented(CONF.read_text(encoding="utf-8"))
    expected: dict[str, dict[str, object]] = {}
    for (table, key), setting in settings().items():
        default = setting.default
        expected.setdefault(table, {})[key] = list(default) if setting.is_list else default
    assert {table: written[table] for table in written if table not in LISTS} == expected


def test_every_setting_of_the_example_file_follows_a_sentence():
    lines = CONF.read_text(encoding="utf-8").removesuffix(EXAMPLE_TAIL).splitlines()
    for before, line in pairwise(lines):
        if line.startswith("#") and not line.startswith("# ") and line != "#":
            assert before.startswith("# ") and before.endswith("."), line


def test_the_example_file_changes_nothing_as_it_is():
    assert load_file(CONF).config == Config()
    assert changed(load_file(CONF).config) == 0


def test_every_setting_says_what_it_may_be_and_has_a_description():
    for setting in settings().values():
        assert may_be(setting)
        assert (setting.meta.description or "").endswith(".")


def test_what_is_in_force_can_be_read_back(tmp_path):
    loaded = load(
        environ=ENVIRON
        | {
            "AMQPD_USER__PASSWORD": 'quo"te\\ \u20ac \x7f\x01',
            "AMQPD_LISTEN__BIND": "[::1]:1,unix:/a b",
            "AMQPD_USER__TAGS": "",
        },
        flags={"--port": "7", "--log-format": "json"},
    )
    file = tmp_path / "again.toml"
    file.write_text(in_force(loaded, secrets=True), encoding="utf-8")
    assert load_file(file).config == loaded.config


def test_what_is_in_force_names_the_origin_of_each_value(tmp_path):
    file = tmp_path / "amqpd.toml"
    file.write_text("[listen]\nbacklog = 9\n", encoding="utf-8")
    shown = in_force(
        load(file, environ={"HOME": "/x", "AMQPD_LOG__LEVEL": "debug"}, flags={"--port": "7"})
    )
    assert f"# configuration file: {file}\n" in shown
    assert f"backlog = 9           # {file}:2\n" in shown
    assert "port = 7              # flag --port\n" in shown
    assert 'level = "debug"  # env AMQPD_LOG__LEVEL\n' in shown
    assert 'default = "/"                   # default\n' in shown


def test_passwords_are_shown_only_when_asked_for():
    loaded = load(environ=ENVIRON | {"RABBITMQ_DEFAULT_PASS": "hunter2"})
    assert "hunter2" not in in_force(loaded)
    assert "# password is hidden; --passwords shows it" in in_force(loaded)
    assert "env RABBITMQ_DEFAULT_PASS" in in_force(loaded)
    assert 'password = "hunter2"' in in_force(loaded, secrets=True)


def test_changed_counts_the_settings_that_differ_from_their_default(tmp_path):
    file = tmp_path / "amqpd.toml"
    file.write_text("[listen]\nport = 5672\nbacklog = 9\n[log]\nlevel = 'error'\n", "utf-8")
    assert changed(load_file(file).config) == 2
