"""The Celery application of the tests; run as a program, its worker.

    python celery_app.py URI PREFIX [--quorum] [celery worker options]

PREFIX keeps its queues and exchanges apart from those of any other application. With --quorum its
queues are quorum queues.
"""

import sys
import time
from pathlib import Path
from typing import Any

from celery import Celery, Task


def make_app(uri: str, prefix: str, *, quorum: bool = False) -> Celery:
    app = Celery("interop", broker=uri, backend="rpc://", set_as_current=False)
    app.conf.update(
        task_default_queue=f"{prefix}.celery",
        control_exchange=f"{prefix}.control",
        event_exchange=f"{prefix}.events",
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_connection_retry_on_startup=False,
        broker_transport_options={"confirm_publish": True},
        result_expires=60,
    )
    if quorum:
        app.conf.update(
            task_default_queue_type="quorum",
            task_default_exchange_type="topic",
            worker_detect_quorum_queues=True,
        )

    @app.task(name="add")
    def add(x: int, y: int) -> int:
        return x + y

    @app.task(name="total")
    def total(numbers: list[int]) -> int:
        return sum(numbers)

    @app.task(name="fail")
    def fail(text: str) -> None:
        raise ValueError(text)

    @app.task(name="flaky", bind=True, max_retries=3)
    def flaky(self: Task, failures: int) -> int:
        """Fails `failures` times, then returns how often it was retried."""
        if self.request.retries < failures:
            raise self.retry(countdown=0.05)
        return self.request.retries

    @app.task(name="received_at")
    def received_at() -> float:
        return time.time()

    @app.task(name="hold", bind=True, acks_late=True)
    def hold(self: Task, started: str, release: str) -> dict[str, Any]:
        """Makes the file `started`, then works until somebody makes the file `release`."""
        Path(started).touch()
        while not Path(release).exists():
            time.sleep(0.02)
        return {"redelivered": self.request.delivery_info["redelivered"]}

    return app


if __name__ == "__main__":
    options = [option for option in sys.argv[3:] if option != "--quorum"]
    app = make_app(sys.argv[1], sys.argv[2], quorum="--quorum" in sys.argv)
    app.worker_main(["worker", *options])
