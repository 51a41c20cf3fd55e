"""Where the server keeps things: starts that fail, and stops with work still under way."""

from pathlib import Path

import pytest
import trio
from watching import no_internal_error

from amqpd.broker.fetch import Fetch, Fetched
from amqpd.broker.journal import Batch
from amqpd.broker.operations import Bound, Operation, QueueAdded, QueueRemoved, VhostAdded
from amqpd.config import Config, Storage
from amqpd.config.sources import Sources
from amqpd.server.run import serve
from amqpd.server.store import Place
from amqpd.storage.directory import open_directory
from amqpd.storage.errors import StorageError
from amqpd.storage.sqlite import SqliteStore

NO_TABLE = b"\x00\x00\x00\x00"
QUEUE = QueueAdded(1, "/", "q", False, NO_TABLE)


class Told:
    """A listener."""

    def __init__(self) -> None:
        self.tickets: list[int] = []
        self.failures: list[Exception] = []

    def committed(self, ticket: int) -> None:
        self.tickets.append(ticket)

    def fetched(self, fetch: Fetch, answer: Fetched) -> None: ...

    def full(self, on: bool) -> None: ...

    def failed(self, error: Exception) -> None:
        self.failures.append(error)


def config(directory: Path) -> Config:
    return Config(storage=Storage(data_dir=str(directory), sync="off"))


def batch(ticket: int, *operations: Operation) -> Batch:
    return Batch(ticket, 0, list(operations), {}, promised=True)


def written(directory: Path, *operations: Operation) -> None:
    store = SqliteStore(directory / "amqpd.db", "off")
    store.commit(batch(1, *operations))
    store.close()


def assert_free(directory: Path) -> None:
    """Nobody has the directory."""
    open_directory(str(directory), {}).close()


def test_what_does_not_fit_together_is_told_and_the_status_is_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written(tmp_path, VhostAdded("/"), Bound("/", "amq.direct", "queue", "no", "k", NO_TABLE))
    with no_internal_error():
        assert serve(config(tmp_path), Sources(None, {})) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"amqpd: {tmp_path}/amqpd.db is damaged (a binding leads from exchange")
    assert "`amqpd store check`" in said
    assert_free(tmp_path)


def test_a_file_that_cannot_be_used_is_told_and_the_status_is_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "amqpd.db").write_bytes(b"no SQLite file" * 100)
    assert serve(config(tmp_path), Sources(None, {})) == 1
    assert capsys.readouterr().err.startswith(f"amqpd: {tmp_path}/amqpd.db is damaged")
    assert_free(tmp_path)


def test_a_place_that_cannot_be_used_is_given_back(tmp_path: Path) -> None:
    (tmp_path / "amqpd.db").mkdir()
    with pytest.raises(StorageError):
        Place(config(tmp_path))
    assert_free(tmp_path)


def test_what_was_handed_over_is_committed_when_the_broker_has_stopped(tmp_path: Path) -> None:
    place, told = Place(config(tmp_path)), Told()

    async def stop_at_once() -> None:
        store = place.start(told)
        store.hand_over(batch(1, VhostAdded("/"), QUEUE))
        store.fetch(Fetch(1, 0, 100, 10, 10))

    with no_internal_error():
        trio.run(stop_at_once)
        place.close()
    assert told.tickets in ([], [1])
    place = Place(config(tmp_path))
    assert place.recovered.operations == [VhostAdded("/"), QUEUE]
    place.close()
    store = SqliteStore(tmp_path / "amqpd.db")
    assert store.was_stopped
    store.close()


def test_a_store_in_memory_that_fails_says_so_and_promises_nothing() -> None:
    told = Told()
    store = Place(Config(storage=Storage(memory_only=True))).start(told)
    store.hand_over(batch(1, QueueAdded(1, "/", "q", False, NO_TABLE)))
    store.hand_over(batch(2, QueueRemoved(2, 1)))
    assert told.tickets == [1]
    assert [type(each) for each in told.failures] == [KeyError]
