"""Runs `amqpd bench` and reads its figures."""

import json
import os
import shlex
import signal
import subprocess
import sys
from typing import Any

from cases import Case, Run

RUN_S_MAX = 180.0


def bench(uri: str, options: str, within_s: float = RUN_S_MAX) -> dict[str, Any]:
    """The JSON figures of one run.

    Raises:
        RuntimeError: it failed, and the text is what it said, or it did not come to its end.
    """
    command = [sys.executable, "-m", "amqpd", "bench", uri, "--json", *shlex.split(options)]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        shown, said = process.communicate(timeout=within_s)
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"bench was not over after {within_s:.0f} s") from error
    finally:
        if process.returncode is None:
            # It has processes of its own, which would go on without it.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if process.returncode:
        raise RuntimeError(said.strip() or f"bench ended with status {process.returncode}")
    figures: dict[str, Any] = json.loads(shown)
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
