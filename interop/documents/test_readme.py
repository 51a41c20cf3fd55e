"""The programs in README.md, run as they stand there against an amqpd; only the port is changed.

    python -m pytest interop/documents

It needs the clients of `pip install .[interop]`, and amqplib in `interop/clients/node`, where
`interop/clients/run.sh` puts it. Without amqplib its test is skipped, or fails where CI is set.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
NODE_MODULES = ROOT / "interop/clients/node/node_modules"
WITHIN_S = 30

# The interop rooms share how an amqpd is started; neither is a package that one installs.
sys.path.append(str(ROOT / "interop/clients"))
from launch import Amqpd  # noqa: E402


def block(language: str, with_text: str) -> str:
    """The one code block of README.md in this language that holds the text."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    (found,) = [each for each in blocks if with_text in each]
    return str(found)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Amqpd]:
    """An amqpd, with everything as it is by default but the port."""
    running = Amqpd(tmp_path_factory.mktemp("amqpd"))
    yield running
    status = running.stop()
    assert not running.bugs, "\n".join(running.log)
    assert status == 0


@pytest.fixture(scope="module")
def port(broker: Amqpd) -> str:
    """The port that it took."""
    match = re.search(r":(\d+)/", broker.uri)
    assert match
    return match[1]


def run(command: list[str], program: Path, text: str, port: str, **environ: str) -> str:
    """What a program of README.md prints."""
    assert ":5672" in text or "from tasks" in text, "where does it connect?"
    program.write_text(text.replace(":5672", f":{port}"))
    done = subprocess.run(
        [*command, str(program)],
        cwd=program.parent,
        env={**os.environ, **environ},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def test_the_ready_line_is_shown_as_it_is(broker: Amqpd, port: str) -> None:
    (line,) = [line for line in broker.log if " ready: " in line]
    shown = line.replace(f":{port}", ":5672").replace(f"pid {broker.pid}", "pid 4711")
    shown = re.sub(r"data in [^,]+", "data in /home/you/.local/state/amqpd", shown)
    assert shown in README


def test_the_program_with_pika_works(port: str, tmp_path: Path) -> None:
    text = block("python", "import pika")
    assert run([sys.executable], tmp_path / "it.py", text, port) == "hello from pika"


def test_the_program_with_aio_pika_works(port: str, tmp_path: Path) -> None:
    text = block("python", "import aio_pika")
    assert run([sys.executable], tmp_path / "it.py", text, port) == "hello from aio-pika"


def test_the_program_with_amqplib_works(port: str, tmp_path: Path) -> None:
    node = shutil.which("node")
    if not node or not (NODE_MODULES / "amqplib").exists():
        missing = "amqplib is not installed: interop/clients/run.sh does it"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    text = block("js", "require('amqplib')")
    output = run([node], tmp_path / "it.js", text, port, NODE_PATH=str(NODE_MODULES))
    assert output == "hello from Node"


def test_the_celery_application_works_with_its_worker(port: str, tmp_path: Path) -> None:
    (tmp_path / "tasks.py").write_text(
        block("python", "from celery import").replace(":5672", f":{port}")
    )
    command = re.search(r"`celery (-A tasks worker .*?)`", README)
    assert command
    log = tmp_path / "worker.log"
    with log.open("w") as output:
        worker = subprocess.Popen(
            [sys.executable, "-m", "celery", *command[1].split()],
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + WITHIN_S
        while " ready." not in log.read_text():
            assert worker.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        text = block("python", "from tasks import add")
        assert run([sys.executable], tmp_path / "it.py", text, port) == "5", log.read_text()
    finally:
        worker.terminate()
        worker.wait(WITHIN_S)
