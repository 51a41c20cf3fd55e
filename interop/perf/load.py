"""Runs `amqpd bench` and reads its figures."""

import json
import shlex
import subprocess
import sys
from typing import Any

from cases import Case, Run

RUN_S_MAX = 180.0


def bench(uri: str, options: str) -> dict[str, Any]:
    """The JSON figures of one run.

    Raises:
        RuntimeError: it failed; the text is what it said.
    """
    command = [sys.executable, "-m", "amqpd", "bench", uri, "--json", *shlex.split(options)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_S_MAX, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.strip() or f"bench ended with status {done.returncode}")
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def run_options(run: Run, duration_s: float, warm_up_s: float) -> str:
    """The options of a run; timed ones last as long as the matrix asks for."""
    if not run.timed:
        return run.options
    return f"{run.options} --duration {duration_s} --warm-up {warm_up_s}"


def figures_of(
    case: Case, uri: str, duration_s: float, warm_up_s: float
) -> tuple[dict[str, float], int]:
    """Runs a case once; figure name: value, and how many deliveries that took in all."""
    values = {}
    deliveries = 0
    for run in case.runs:
        shown = bench(uri, run_options(run, duration_s, warm_up_s))
        deliveries += shown["total"]["delivered"]
        for figure in run.figures:
            value: Any = shown
            for key in figure.path.split("."):
                value = value[key]
            values[figure.name] = float(value)
    return values, deliveries
