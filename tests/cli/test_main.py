"""The command line: what each command prints, and with which status it ends."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from amqpd.cli.main import main
from amqpd.config.sources import FLAGS
from amqpd.version import VERSION

CONF = Path(__file__).parents[2] / "conf" / "amqpd.toml"


def run(*arguments: str, **variables: str) -> Result:
    """Run `amqpd ARGUMENTS` in an environment of its own, with no configuration file about."""
    cleared = {name: None for name in os.environ if name.startswith(("AMQPD_", "RABBITMQ_"))}
    environment = {"HOME": "/home/somebody", "AMQPD_CONFIG": os.devnull} | variables
    return CliRunner(env=cleared | environment).invoke(main, arguments, prog_name="amqpd")


def test_version_prints_name_and_version():
    result = run("--version")
    assert (result.output, result.exit_code) == (f"amqpd {VERSION}\n", 0)


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_names_every_option_and_the_configuration_command(option):
    result = run(option)
    assert result.exit_code == 0
    for name in ("--config", *FLAGS):
        assert name in result.output
    assert "Check, show and explain the configuration." in result.output


@pytest.mark.parametrize(
    ("arguments", "variables", "problem"),
    [
        (("--port", "70000"), {}, "--port: [listen] port = 70000 is not possible"),
        ((), {"AMQPD_LISTEN__PROT": "1"}, "AMQPD_LISTEN__PROT: there is no such setting"),
        (("--config", "/missing.toml"), {}, "/missing.toml: cannot be read: No such file"),
        (("--log-level", "loud"), {}, '--log-level: [log] level = "loud" is not possible'),
        (("--bind", "a", "--bind", "b:x"), {}, '--bind: [listen] bind = ["a", "b:x"]'),
        (("--port", "x", "config", "show"), {}, '--port: [listen] port = "x" is not possible'),
    ],
)
def test_a_wrong_configuration_ends_with_status_2_and_says_why(arguments, variables, problem):
    result = run(*arguments, **variables)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"amqpd: {problem}")
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "0 settings changed"),
        ("[listen]\nport = 5673\n", "1 setting changed"),
        ("[listen]\nport = 5673\nbacklog = 1\n", "2 settings changed"),
    ],
)
def test_config_check_says_how_many_settings_a_fine_file_changes(tmp_path, text, expected):
    file = tmp_path / "amqpd.toml"
    file.write_text(text, encoding="utf-8")
    result = run("config", "check", str(file), AMQPD_LISTEN__PORT="not looked at")
    assert (result.output, result.exit_code) == (f"{file} is fine: {expected}\n", 0)


def test_config_check_tells_every_problem_of_a_file(tmp_path):
    file = tmp_path / "amqpd.toml"
    file.write_text("[listen]\nport = 70000\n[lgo]\n", encoding="utf-8")
    result = run("config", "check", str(file))
    assert result.exit_code == 2
    first, second = result.stderr.splitlines()
    assert first.startswith(f"amqpd: {file}:2: [listen] port = 70000 is not possible")
    assert second.startswith(f"amqpd: {file}:3: the table [lgo] is unknown; did you mean [log]?")


def test_config_show_takes_file_environment_and_flags_into_account(tmp_path):
    file = tmp_path / "amqpd.toml"
    file.write_text("[listen]\nport = 1\nbacklog = 2\n[log]\nlevel = 'error'\n", encoding="utf-8")
    result = run("--port", "3", "config", "show", "--config", str(file), AMQPD_LOG__LEVEL="debug")
    assert result.exit_code == 0
    assert "port = 3              # flag --port\n" in result.output
    assert f"backlog = 2           # {file}:3\n" in result.output
    assert "# env AMQPD_LOG__LEVEL\n" in result.output
    assert run("--config", str(file), "config", "show").output.count(f"# {file}:") == 3


def test_the_flag_for_memory_takes_no_value_and_beats_the_environment():
    shown = run("--memory", "config", "show", AMQPD_STORAGE__MEMORY_ONLY="no").output
    assert re.search(r"^memory_only = true +# flag --memory$", shown, re.M)
    shown = run("config", "show", AMQPD_STORAGE__MEMORY_ONLY="no").output
    assert re.search(r"^memory_only = false +# env AMQPD_STORAGE__MEMORY_ONLY$", shown, re.M)


def test_config_show_hides_the_password_unless_asked():
    shown = run("config", "show", AMQPD_USER__PASSWORD="hunter2")
    assert "hunter2" not in shown.output
    asked = run("config", "show", "--passwords", AMQPD_USER__PASSWORD="hunter2")
    assert 'password = "hunter2"' in asked.output


def test_config_example_prints_the_example_file():
    assert run("config", "example").output == CONF.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--nope",), "No such option"),
        (("nope",), "No such command 'nope'"),
        (("config", "check"), "Missing argument 'FILE'"),
        (("--port", "1", "config", "check", "x"), "config check looks at FILE only"),
        (("--memory", "bench"), "--memory is for the broker; bench takes none"),
        (("--port", "1", "bench"), "--port is for the broker; bench takes none"),
    ],
)
def test_a_wrong_use_ends_with_status_2_and_says_why(arguments, reason):
    result = run(*arguments)
    assert result.exit_code == 2
    assert reason in result.stderr


@pytest.mark.slow
def test_python_m_amqpd_is_the_same_command():
    """Runs another interpreter, as only that runs `__main__`."""
    told = subprocess.run(
        [sys.executable, "-m", "amqpd", "--version"], capture_output=True, text=True, check=True
    )
    assert told.stdout == f"amqpd {VERSION}\n"


@pytest.mark.slow
def test_the_command_line_loads_no_rich_no_event_loop_and_no_bench_before_they_are_needed():
    """Runs another interpreter, as only a fresh one tells what an import loads."""
    script = "import sys, amqpd.cli.main, amqpd.config.sources; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"rich", "asyncio", "trio", "amqpd.cli.bench", "amqpd.server.run"} & set(loaded)
