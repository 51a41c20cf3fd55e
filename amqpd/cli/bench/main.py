"""From the options of the command line to the printed figures."""

import json
import os
import secrets
from typing import Any

from rich.console import Console

from amqpd.cli.bench import report
from amqpd.cli.bench.conductor import Conductor
from amqpd.cli.bench.plan import Options, make_plan
from amqpd.cli.bench.uri import parse


def run(uri: str, as_json: bool, options: dict[str, Any]) -> bool:
    """Runs, prints, and says whether the run was interrupted.

    Raises:
        BenchError: it could not run to its end.
    """
    run_name = f"amqpd-bench-{secrets.token_hex(3)}"
    plan = make_plan(Options(address=parse(uri), **options), run_name, os.cpu_count() or 1)
    # The live line goes to the terminal even when the figures go into a file.
    with report.LiveLine(Console(stderr=True), plan.options) as line:
        result = Conductor(plan, run_name, line.show).run()
    if as_json:
        print(json.dumps(report.as_json(result), indent=2))
    else:
        report.print_tables(result, Console())
    return result.interrupted
