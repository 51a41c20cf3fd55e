"""The command line's own checks; nothing here reaches a network."""

import subprocess
import sys

import pytest
from click.testing import CliRunner

from amqpd.cli.bench import bench


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--size", "5x"], "not a size such as 100, 64k or 4M"),
        (["--size", "600M"], "at most 512M"),
        (["--queue-arg", "x-max-length"], "not of the form KEY=VALUE"),
        (["--producers", "-1"], "producers"),
    ],
)
def test_wrong_usage_is_named_and_exits_with_2(arguments: list[str], text: str) -> None:
    result = CliRunner().invoke(bench, arguments)
    assert result.exit_code == 2
    assert text in result.output


def test_options_that_contradict_each_other_exit_with_1_and_one_line() -> None:
    result = CliRunner().invoke(bench, ["amqp://127.0.0.1:1", "-x", "0", "-y", "0"])
    assert result.exit_code == 1
    assert result.output.splitlines() == [
        "amqpd bench: with neither producers nor consumers there is nothing to do"
    ]


@pytest.mark.slow
def test_importing_the_command_imports_nothing_heavy() -> None:
    """Starts an interpreter, which takes more than 50 ms."""
    heavy = ("rich", "multiprocessing", "pamqp", "trio", "msgspec")
    code = f"import sys, amqpd.cli.bench; print([m for m in {heavy} if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
