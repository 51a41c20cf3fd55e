"""amqplib for Node: runs node/*.test.js, which say what is tested, and shows what failed."""

import os
import subprocess
from pathlib import Path

import pytest
from conftest import need

HERE = Path(__file__).parent / "node"


@pytest.mark.seconds(90)
def test_amqplib_for_node(uri: str) -> None:
    node = need("node", "nodejs")
    if not (HERE / "node_modules" / "amqplib").is_dir():
        pytest.fail("amqplib is not installed: run interop/clients/run.sh, or npm ci in node/")
    run = subprocess.run(
        [node, "--test", "--test-timeout=60000", "--test-reporter=spec"],
        cwd=HERE,
        env={**os.environ, "AMQP_URI": uri},
        capture_output=True,
        text=True,
        timeout=80,
    )
    assert run.returncode == 0, f"{run.stdout}\n{run.stderr}"
