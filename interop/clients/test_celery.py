"""A real Celery worker in a process of its own, with results, control and events."""

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from celery import Celery, chain, group
from celery_app import make_app
from kombu import Connection
from proxy import Proxy
from waiting import wait_until

pytestmark = pytest.mark.seconds(60)

HERE = Path(__file__).parent
WITHIN_S = 20


@contextlib.contextmanager
def worker(
    uri: str, prefix: str, name: str, log: Path, *more: str
) -> Iterator[subprocess.Popen[bytes]]:
    """A prefork worker with two processes, in a process group of its own."""
    options = [*more, "-n", name, "-c", "2", "-E", "-l", "INFO", "-f", str(log)]
    process = subprocess.Popen(
        [sys.executable, str(HERE / "celery_app.py"), uri, prefix, *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=log.parent,
        start_new_session=True,
    )
    try:
        wait_until(
            lambda: process.poll() is not None or (log.exists() and " ready." in log.read_text()),
            "the worker is ready",
            WITHIN_S,
        )
        assert process.poll() is None, log.read_text()
        yield process
    finally:
        process.terminate()
        try:
            process.wait(WITHIN_S)
        except subprocess.TimeoutExpired:
            # Its return code tells whoever asks; the next test must not meet it again.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextlib.contextmanager
def cleaned_prefix(uri: str) -> Iterator[str]:
    """A prefix for an application; what Celery leaves under it is deleted in the end."""
    prefix = f"interop.{secrets.token_hex(4)}"
    yield prefix
    with Connection(uri) as connection:
        channel = connection.channel()
        for queue in (f"{prefix}.celery", f"{prefix}.extra"):
            channel.queue_delete(queue)
        for exchange in (
            f"{prefix}.celery",
            f"{prefix}.extra",
            f"{prefix}.events",
            f"{prefix}.control.pidbox",
            f"reply.{prefix}.control.pidbox",
        ):
            channel.exchange_delete(exchange)


@pytest.fixture(scope="module")
def prefix(uri: str) -> Iterator[str]:
    with cleaned_prefix(uri) as prefix:
        yield prefix


@pytest.fixture
def own_prefix(uri: str) -> Iterator[str]:
    """For a test that needs workers of its own."""
    with cleaned_prefix(uri) as prefix:
        yield prefix


@pytest.fixture(scope="module")
def app(uri: str, prefix: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Celery]:
    """The application, with one worker running."""
    app = make_app(uri, prefix)
    log = tmp_path_factory.mktemp("celery") / "worker.log"
    with worker(uri, prefix, "one@interop", log):
        yield app
    app.close()
    assert "CRITICAL" not in log.read_text(), log.read_text()


def test_results_come_back(app: Celery) -> None:
    results = [app.send_task("add", (i, i)) for i in range(50)]
    assert [result.get(timeout=WITHIN_S) for result in results] == [2 * i for i in range(50)]


def test_a_tasks_exception_comes_back(app: Celery) -> None:
    with pytest.raises(ValueError, match="on purpose"):
        app.send_task("fail", ("on purpose",)).get(timeout=WITHIN_S)


def test_groups_and_chains(app: Celery) -> None:
    add = app.tasks["add"]
    many = group(add.s(i, 1) for i in range(10)).apply_async()
    assert many.get(timeout=WITHIN_S) == list(range(1, 11))
    assert chain(add.s(1, 2), add.s(4), add.s(8)).apply_async().get(timeout=WITHIN_S) == 15
    one_by_one = chain(add.s(1, 1), group(add.s(10), add.s(20))).apply_async()
    assert one_by_one.get(timeout=WITHIN_S) == [12, 22]


def test_countdown_and_eta_tasks_wait_without_blocking_others(app: Celery) -> None:
    begun = time.time()
    later = datetime.now(UTC) + timedelta(seconds=1.5)
    waiting = [app.send_task("received_at", countdown=1) for _ in range(6)]
    at = app.send_task("received_at", eta=later)
    assert app.send_task("add", (1, 2)).get(timeout=WITHIN_S) == 3
    assert time.time() < begun + 1, "the tasks that wait held up one that need not"
    assert all(result.get(timeout=WITHIN_S) >= begun + 1 for result in waiting)
    assert at.get(timeout=WITHIN_S) >= later.timestamp()


def test_retries(app: Celery) -> None:
    assert app.send_task("flaky", (3,)).get(timeout=WITHIN_S) == 3


def test_inspect(app: Celery, tmp_path: Path) -> None:
    inspect = app.control.inspect(timeout=WITHIN_S, limit=1)
    assert inspect.ping() == {"one@interop": {"ok": "pong"}}
    assert "add" in inspect.registered()["one@interop"]
    result = app.send_task("hold", (str(tmp_path / "started"), str(tmp_path / "release")))
    wait_until((tmp_path / "started").exists, "the task runs")
    assert [task["id"] for task in inspect.active()["one@interop"]] == [result.id]
    (tmp_path / "release").touch()
    assert result.get(timeout=WITHIN_S) == {"redelivered": False}
    assert inspect.stats()["one@interop"]["pool"]["max-concurrency"] == 2
    (queue,) = inspect.active_queues()["one@interop"]
    assert queue["name"] == app.conf.task_default_queue


def test_control_broadcasts(app: Celery, prefix: str) -> None:
    doomed = app.send_task("received_at", countdown=60)
    inspect = app.control.inspect(timeout=WITHIN_S, limit=1)
    wait_until(lambda: inspect.scheduled()["one@interop"], "the task waits")
    assert app.control.revoke(doomed.id, reply=True, limit=1, timeout=WITHIN_S)
    app.control.broadcast("rate_limit", {"task_name": "fail", "rate_limit": "100/s"})
    extra = f"{prefix}.extra"
    app.control.add_consumer(extra, reply=True, limit=1, timeout=WITHIN_S)
    assert app.send_task("add", (2, 2), queue=extra).get(timeout=WITHIN_S) == 4
    (reply,) = app.control.cancel_consumer(extra, reply=True, limit=1, timeout=WITHIN_S)
    assert "ok" in reply["one@interop"]
    assert doomed.id in inspect.revoked()["one@interop"]


def test_events(app: Celery) -> None:
    seen: dict[str, list[str]] = {}
    ready = threading.Event()

    def watch(event: dict[str, object]) -> None:
        seen.setdefault(str(event.get("uuid")), []).append(str(event["type"]))

    with app.connection_for_read() as connection:
        receiver = app.events.Receiver(connection, handlers={"*": watch})
        receiver.on_consume_ready = lambda *_, **__: ready.set()
        thread = threading.Thread(target=receiver.capture)
        thread.start()
        assert ready.wait(WITHIN_S)
        result = app.send_task("add", (1, 1))
        result.get(timeout=WITHIN_S)
        expected = ["task-received", "task-started", "task-succeeded"]
        wait_until(lambda: seen.get(result.id) == expected, "the events of the task")
        receiver.should_stop = True
        thread.join()


def test_a_task_of_a_killed_worker_is_redelivered(
    uri: str, own_prefix: str, tmp_path: Path
) -> None:
    started, release = tmp_path / "started", tmp_path / "release"
    app = make_app(uri, own_prefix)
    with worker(uri, own_prefix, "doomed@interop", tmp_path / "doomed.log") as doomed:
        result = app.send_task("hold", (str(started), str(release)))
        wait_until(started.exists, "the first worker has the task", WITHIN_S)
        os.killpg(doomed.pid, signal.SIGKILL)
        doomed.wait()
    release.touch()
    with worker(uri, own_prefix, "next@interop", tmp_path / "next.log"):
        assert result.get(timeout=WITHIN_S) == {"redelivered": True}
    app.close()


def test_a_worker_reconnects_after_a_cut_and_stops_in_order(
    uri: str, own_prefix: str, proxy: Proxy, tmp_path: Path
) -> None:
    app = make_app(uri, own_prefix)
    with worker(proxy.uri, own_prefix, "cut@interop", tmp_path / "worker.log") as process:
        assert app.send_task("add", (1, 1)).get(timeout=WITHIN_S) == 2
        proxy.cut()
        assert app.send_task("add", (2, 2)).get(timeout=WITHIN_S) == 4
    assert process.returncode == 0
    app.close()
