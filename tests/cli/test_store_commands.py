"""`amqpd store check` and `amqpd store export`: what they print, and with which status they end."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from kept_files import COUNT, Broker, alter, flip, kept_file, leaves, malform

from amqpd.cli.main import main


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The file of a broker that was stopped."""
    return kept_file(tmp_path)


def run(*arguments: object, **variables: str) -> Result:
    """Run `amqpd ARGUMENTS` in an environment of its own, with no configuration file about."""
    cleared = {name: None for name in os.environ if name.startswith(("AMQPD_", "RABBITMQ_"))}
    environment = {"HOME": "/home/somebody", "AMQPD_CONFIG": os.devnull} | variables
    words = [str(each) for each in arguments]
    return CliRunner(env=cleared | environment).invoke(main, words, prog_name="amqpd")


def test_check_of_a_fine_file_ends_with_status_0(file: Path) -> None:
    result = run("store", "check", file.parent)
    first, *_, last = result.stdout.splitlines()
    assert (first, last) == (f"checking {file}", "all is fine")
    assert (result.stderr, result.exit_code) == ("", 0)


def test_check_of_a_damaged_file_ends_with_status_1_and_says_what_to_do(file: Path) -> None:
    flip(file, b"order 17 ...")
    result = run("store", "check", file.parent)
    assert "damaged: message 17 of queue 'orders' in vhost '/' is not as written\n" in result.stdout
    assert "1 thing damaged: " in result.stdout
    assert "`amqpd store export`" in result.stdout
    assert result.exit_code == 1


def test_export_prints_lines_of_json_and_tells_how_many_messages_they_are(file: Path) -> None:
    result = run("store", "export", file.parent)
    definitions, *messages = map(json.loads, result.stdout.splitlines())
    assert [each["name"] for each in definitions["queues"]] == ["orders", "mails", "empty"]
    assert len(messages) == COUNT + 5
    assert (result.stderr, result.exit_code) == (f"{COUNT + 5} messages exported\n", 0)


def test_export_of_a_damaged_file_ends_with_status_1_where_something_is_missing(file: Path) -> None:
    flip(file, b"order 17 ...")
    result = run("store", "export", file.parent)
    assert result.exit_code == 0
    assert result.stderr.splitlines() == [
        "amqpd: message 17 of queue 'orders' in vhost '/' is damaged",
        f"{COUNT + 5} messages exported, 1 thing damaged",
    ]
    malform(file, leaves(file, b"order 100 ")[0])
    result = run("store", "export", file.parent)
    assert result.exit_code == 1
    assert "1 thing left out" in result.stderr
    assert "messages cannot be read" in result.stderr


def test_export_writes_to_a_new_file(file: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    arguments = ("store", "export", file.parent, "--output", output, "--queue", "mails")
    result = run(*arguments, "--no-payload", "--vhost", "/")
    assert (result.stdout, result.stderr, result.exit_code) == ("", "4 messages exported\n", 0)
    lines = output.read_text(encoding="utf-8").splitlines()
    assert len(lines) == 5
    assert "payload" not in json.loads(lines[-1])
    again = run(*arguments)
    assert again.exit_code == 2
    assert f"--output: {output} exists already" in again.stderr


def test_export_says_where_it_cannot_write(file: Path) -> None:
    result = run("store", "export", file.parent, "--output", "/dev/full/out")
    assert result.exit_code == 1
    assert "amqpd: cannot write /dev/full/out: Not a directory" in result.stderr


def test_definitions_alone_are_one_line(file: Path) -> None:
    result = run("store", "export", file.parent, "--definitions-only")
    assert len(result.stdout.splitlines()) == 1
    assert result.exit_code == 0


def test_both_may_be_used_while_the_broker_runs(tmp_path: Path) -> None:
    with Broker(tmp_path / "amqpd.db") as broker:
        broker.client.harness.commit()
        assert run("store", "check", tmp_path).exit_code == 0
        assert run("store", "export", tmp_path).exit_code == 0


@pytest.mark.parametrize(
    ("before", "variables"),
    [
        (("--data-dir", "{}"), {}),
        ((), {"AMQPD_STORAGE__DATA_DIR": "{}"}),
        ((), {"HOME": "{}/home"}),
        (("--config", "{}/amqpd.toml"), {}),
    ],
)
def test_the_directory_is_found_as_the_broker_finds_it(file, before, variables) -> None:
    directory = str(file.parent)
    default = file.parent / "home/.local/state/amqpd"
    default.mkdir(parents=True)
    (default / "amqpd.db").write_bytes(file.read_bytes())
    (file.parent / "amqpd.toml").write_text(f"[storage]\ndata_dir = '{directory}'\n")
    result = run(
        *(each.format(directory) for each in before),
        *("store", "check"),
        XDG_STATE_HOME="",
        **{name: value.format(directory) for name, value in variables.items()},
    )
    assert result.stdout.startswith(f"checking {directory}/")
    assert result.exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("store", "check", "/missing"), "amqpd: there is no data directory /missing"),
        (("store", "export", "/missing"), "amqpd: there is no data directory /missing"),
        (("store", "check", "{}/empty"), "has no amqpd.db"),
        (("store", "export", "{}", "--queue", "q"), "amqpd: {}/amqpd.db has no queue 'q'"),
        (("--data-dir", "/x", "store", "check", "{}"), "one of them is enough"),
        (("--port", "1", "store", "check"), "store takes only --config and --data-dir"),
        (("store", "check", "{}", "{}"), "unexpected extra argument"),
        (("store", "nope"), "No such command 'nope'"),
        (("--config", "/missing", "store", "check"), "amqpd: /missing: cannot be read"),
    ],
)
def test_a_wrong_use_ends_with_status_2_and_says_why(file, arguments, reason) -> None:
    (file.parent / "empty").mkdir()
    result = run(*(each.format(file.parent) for each in arguments))
    assert result.exit_code == 2
    assert reason.format(file.parent) in result.stderr
    assert result.stdout == ""


def test_a_file_of_a_newer_version_ends_with_status_2(file: Path) -> None:
    alter(file, "PRAGMA user_version = 99")
    for command in ("check", "export"):
        result = run("store", command, file.parent)
        assert result.exit_code == 2
        assert "was written by a newer amqpd" in result.stderr


@pytest.mark.parametrize("data", [b"", b"no SQLite file " * 1000, b"SQLite format 3\0" + bytes(99)])
def test_a_file_that_is_no_store_ends_with_status_1(file: Path, data: bytes) -> None:
    file.write_bytes(data)
    for command in ("check", "export"):
        result = run("store", command, file.parent)
        assert result.exit_code == 1, result.output


@pytest.mark.slow
def test_who_reads_only_the_first_line_is_not_told_of_a_broken_pipe(file: Path) -> None:
    """Runs another interpreter, as only that has a standard output that can be closed."""
    for number in range(30):
        columns = "exchange, routing_key, header, body, body_id, size, enqueued_ms, checksum"
        copy = f"INSERT INTO stored (id, {columns}) SELECT id + {(number + 1) << 20}, {columns} "
        alter(file, f"{copy} FROM stored WHERE id < {(1 << 43) + 1000}")
    command = [sys.executable, "-m", "amqpd", "store", "export", str(file.parent)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.readline().startswith('{"type":"definitions"')
    process.stdout.close()
    assert "Traceback" not in process.stderr.read()
    process.stderr.close()
    process.wait()
