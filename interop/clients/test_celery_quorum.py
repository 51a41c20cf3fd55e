"""A Celery worker on quorum queues: tasks with an ETA wait in Celery's delayed delivery topology,
which is 28 queues, each with a TTL and a dead letter exchange."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import Celery
from celery_app import make_app
from kombu import Connection
from test_celery import WITHIN_S, cleaned_prefix, worker

pytestmark = pytest.mark.seconds(90)

LEVELS = 28


@pytest.fixture
def app(uri: str, tmp_path: Path) -> Iterator[Celery]:
    with cleaned_prefix(uri) as prefix, contextlib.ExitStack() as stack:
        stack.callback(delete_topology, uri)
        app = make_app(uri, prefix, quorum=True)
        log = tmp_path / "worker.log"
        stack.enter_context(worker(uri, prefix, "quorum@interop", log, "--quorum"))
        yield app
        app.close()
        assert "CRITICAL" not in log.read_text(), log.read_text()


def delete_topology(uri: str) -> None:
    with Connection(uri) as connection:
        channel = connection.channel()
        for level in range(LEVELS):
            channel.queue_delete(f"celery_delayed_{level}")
            channel.exchange_delete(f"celery_delayed_{level}")
        channel.exchange_delete("celery_delayed_delivery")


def test_tasks_with_a_countdown_wait_in_the_broker(app: Celery, uri: str) -> None:
    begun = time.time()
    waiting = [app.send_task("received_at", countdown=seconds) for seconds in (1, 2, 3)]
    with Connection(uri) as connection:
        lengths = [
            connection.channel()
            .queue_declare(f"celery_delayed_{level}", passive=True)
            .message_count
            for level in (0, 1)
        ]
    assert sum(lengths) >= 1, "they wait somewhere else"
    assert app.send_task("add", (1, 2)).get(timeout=WITHIN_S) == 3
    for seconds, result in enumerate(waiting, 1):
        assert result.get(timeout=WITHIN_S) >= begun + seconds - 0.05


def test_results_come_back(app: Celery) -> None:
    results = [app.send_task("add", (i, i)) for i in range(20)]
    assert [result.get(timeout=WITHIN_S) for result in results] == [2 * i for i in range(20)]
