"""Damaged files: what is read from one is what was written, or it is said that something is wrong.

Files are cut, and bytes in them flipped, at places that a seed chooses. Damage in the last two
transactions of a WAL cannot be told from a crash, and what is older than it is then what is there.
"""

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import pytest
from storing import (
    NO_TABLE,
    SMALL,
    Plain,
    answers,
    batch,
    changed,
    message,
    messages,
    opened,
    plain,
    plainly,
    queue_added,
)

from amqpd.broker.journal import Batch, Changes, Standing
from amqpd.broker.message import Envelope, Message
from amqpd.broker.operations import Bound, ExchangeAdded, QueueRemoved, VhostAdded
from amqpd.broker.recovered import Recovered
from amqpd.config import Config
from amqpd.core import Core
from amqpd.storage.errors import StorageError
from amqpd.storage.memory import MemoryStore
from amqpd.storage.wal import read_wal

CASES = 12 * int(os.environ.get("AMQPD_EXAMPLES", "1"))
SEED = 0 if "AMQPD_EXAMPLES" not in os.environ else None  # others on every run, when many
HOWS = ("closed", "crashed", "copied")
COMMITS = 36
WAL_HEADER_BYTES, WAL_FRAME_BYTES = 32, 4096 + 24


# Does it at a place; what it did, and how many of the last commits may be lost without a word.
Harm = Callable[[Path, int, Random], tuple[str, int]]


class Kept(NamedTuple):
    """What is in a store at a moment: topology and standings, and messages by queue."""

    topology: frozenset[Any]
    standings: dict[int, Standing]
    messages: dict[int, dict[int, Plain]]


class Image(NamedTuple):
    """Files of a store, what is in it after each of its last commits, and all it ever had."""

    directory: Path
    moments: list[Kept]
    written: dict[tuple[int, int], set[Plain]]


def kept(recovered: Recovered, found: dict[int, dict[int, Plain]]) -> Kept:
    queues = {queue_id: each for queue_id, each in found.items() if each}
    return Kept(frozenset(recovered.operations), recovered.standings, queues)


def topology() -> Batch:
    exchanges = [ExchangeAdded("/", f"x{n}", "topic", False, False, NO_TABLE) for n in range(20)]
    queues = [queue_added(number) for number in range(1, 45)]
    bound = [
        Bound("/", f"x{number % 20}", "queue", f"q{number}", f"key.{number}.*", NO_TABLE)
        for number in range(1, 40)
    ]
    empty = {f"q{number}": changed() for number in range(1, 45)}
    return batch(VhostAdded("/"), *exchanges, *queues, *bound, **empty)


class Past:
    """What happens to a store before its end; always the same."""

    def __init__(self) -> None:
        self._random = Random(7)
        self._kept: dict[int, list[int]] = {number: [] for number in range(1, 8)}
        self._next = dict.fromkeys(self._kept, 1)

    def batches(self) -> Iterator[Batch]:
        yield topology()
        for number in range(1, COMMITS):
            queue = self._random.randint(1, 5)
            changes = {f"q{queue}": self._change(queue, self._some(number))}
            if number % 5 == 0:
                both = [message(b"%d" % number * 3000)]
                changes |= {f"q{each}": self._change(each, both) for each in (6, 7)}
            removed = [QueueRemoved(40 + number)] if number < 4 else []
            yield batch(*removed, **changes)

    def _some(self, number: int) -> list[Message]:
        key, size = self._random.choice(("a", "b.c", "")), self._random.choice((0, 10, 10, 100))
        count = self._random.randint(1, 60)
        found = [*messages(count, 1, size, envelope=Envelope("x1", key)).values()]
        if number % 9 == 0:
            found.append(message(self._random.randbytes(9000), priority=3))
        return found

    def _change(self, queue: int, added: list[Message]) -> Changes:
        kept, first = self._kept[queue], self._next[queue]
        settled = self._random.sample(kept, len(kept) // 5)
        numbers = range(first, first + len(added))
        self._kept[queue] = [*(each for each in kept if each not in settled), *numbers]
        self._next[queue] = first + len(added)
        standing = Standing(self._next[queue], first, len(self._kept[queue]))
        return changed(standing, added=dict(zip(numbers, added, strict=True)), settled=settled)


def image(directory: Path, how: str) -> Image:
    """A store with a history that is "closed" in good order, or "crashed", or that crashed when all
    of its WAL was "copied"."""
    work = directory / "work"
    work.mkdir()
    store, memory = opened(work), MemoryStore()
    moments: list[Kept] = []
    written: dict[tuple[int, int], set[Plain]] = {}
    batches = [*Past().batches()]
    for number, each in enumerate(batches):
        store.commit(each)
        memory.commit(each)
        now = {queue_id: plainly(found) for queue_id, found in memory.messages.items()}
        for queue_id, found in now.items():
            for place, one in found.items():
                written.setdefault((queue_id, place), set()).add(one)
        moments.append(kept(memory.recover(), now))
        if number == len(batches) // 3:
            store.copy()
            store.tidy(idle=False)
    if how == "copied":
        store.copy()
    elif how == "closed":
        store.close()
    files = directory / "files"
    files.mkdir()
    for file in work.glob("amqpd.db*"):
        shutil.copy(file, files)
    store.close()
    return Image(files, moments, written)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Image]:
    return {how: image(tmp_path_factory.mktemp(how), how) for how in HOWS}


# --- what is read ---------------------------------------------------------------------------------


class Read(NamedTuple):
    """What came of opening a file.

    Attributes:
        refused: why it could not be opened or read; empty if it could.
        reported: what is damaged or missing, if anything is.
    """

    refused: str
    kept: Kept | None = None
    reported: str = ""


def read(directory: Path) -> Read:
    """Opens, recovers, makes a broker of it and reads everything, as a start and consumers do."""
    try:
        store = opened(directory)
        try:
            recovered = store.recover()
            reported = store.wal_damage
            found: dict[int, dict[int, Plain]] = {}
            for queue_id, standing in recovered.standings.items():
                found[queue_id], damaged = read_queue(store, queue_id)
                missing = standing.messages - len(found[queue_id]) - len(damaged)
                if damaged or missing:
                    reported += f" queue {queue_id}: {damaged} damaged, {missing} missing"
            Core(Config(), Random(0), recovered=recovered)
        finally:
            store.close(in_order=False)
    except StorageError as error:
        assert str(directory / "amqpd.db") in str(error)
        assert len(str(error)) > len(str(directory)) + 30, "it does not say what to do"
        return Read(str(error))
    except ValueError as error:  # of the broker, which the server turns into words
        return Read(str(error))
    return Read("", kept(recovered, found), reported)


def read_queue(store: Any, queue_id: int) -> tuple[dict[int, Plain], list[int]]:
    found: dict[int, Plain] = {}
    damaged: list[int] = []
    for answer in answers(store, queue_id):
        assert not found.keys() & {*answer.numbers}
        found.update(zip(answer.numbers, map(plain, answer.messages), strict=True))
        damaged += answer.damaged
    return found, damaged


def check(image: Image, directory: Path, lost_max: int = 0) -> str:
    """What came of a damaged file: "refused", "reported" or "intact".

    Args:
        lost_max: so many of the last commits may be lost without a word.
    """
    found = read(directory)
    if found.refused or found.kept is None:
        return "refused"
    for queue_id, queue in found.kept.messages.items():
        for number, each in queue.items():
            assert each in image.written[queue_id, number], f"queue {queue_id}: {number}: {each}"
    if found.reported:
        return "reported"
    assert found.kept in image.moments[-1 - lost_max :], "what is there is not what was written"
    return "intact"


def damaged_copy(image: Image, directory: Path, suffix: str = "") -> Path:
    """A copy of an image; the file of it that is to be damaged."""
    shutil.rmtree(directory, ignore_errors=True)
    shutil.copytree(image.directory, directory)
    return directory / f"amqpd.db{suffix}"


def try_all(image: Image, directory: Path, suffix: str, harm: Harm, cases: int) -> set[str]:
    """Does harm to a file as often as `cases` says; all that came of it."""
    random, seen = Random(SEED), set()
    for _ in range(cases):
        file = damaged_copy(image, directory, suffix)
        place = random.randrange(file.stat().st_size)
        said, lost_max = harm(file, place, random)
        try:
            seen.add(check(image, directory, lost_max))
        except Exception as error:
            raise AssertionError(f"byte {place} {said}: {error!r}") from error
    return seen


def flip(file: Path, place: int, random: Random) -> tuple[str, int]:
    """Changes a byte of the file."""
    change, frames = random.randint(1, 255), read_wal(file.with_name("amqpd.db"))
    with file.open("r+b") as opened:
        opened.seek(place)
        byte = opened.read(1)[0]
        opened.seek(place)
        opened.write(bytes([byte ^ change]))
    if file.name != "amqpd.db-wal" or place < WAL_HEADER_BYTES:
        return f"changed by {change}", 0
    frame = (place - WAL_HEADER_BYTES) // WAL_FRAME_BYTES + 1
    lost = sum(commit >= frame for commit in frames.commits)
    behind = sum(commit > frame for commit in frames.commits)
    return f"changed by {change} in frame {frame}", lost if behind <= 1 else 0


def cut(file: Path, place: int, _: Random) -> tuple[str, int]:
    """Cuts the file off at a place. What is cut off a WAL that had grown is not missed."""
    os.truncate(file, place)
    is_noticed = file.name == "amqpd.db" or place < SMALL.wal_bytes_high
    return "cut", 0 if is_noticed else COMMITS


# --- the cases ------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", HOWS)
def test_an_image_without_damage_is_what_was_written(
    images: dict[str, Image], how: str, tmp_path: Path
) -> None:
    damaged_copy(images[how], tmp_path)
    assert check(images[how], tmp_path) == "intact"
    assert sum(len(each) for each in images[how].moments[-1].messages.values()) > 500


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "suffix", "share"),
    [("closed", "", 4), ("crashed", "", 1), ("copied", "", 1), ("crashed", "-wal", 3)],
)
def test_a_byte_that_has_changed_is_noticed_or_does_not_matter(
    images: dict[str, Image], tmp_path: Path, how: str, suffix: str, share: int
) -> None:
    """Slow: many files are opened and read."""
    seen = try_all(images[how], tmp_path, suffix, flip, share * CASES)
    assert "reported" in seen


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "suffix"), [("closed", ""), ("crashed", ""), ("copied", ""), ("crashed", "-wal")]
)
def test_a_file_that_has_been_cut_is_noticed_or_does_not_matter(
    images: dict[str, Image], tmp_path: Path, how: str, suffix: str
) -> None:
    """Slow: many files are opened and read."""
    seen = try_all(images[how], tmp_path, suffix, cut, CASES)
    assert seen & {"refused", "reported"}


@pytest.mark.slow
@pytest.mark.parametrize("harm", [flip, cut])
def test_a_damaged_wal_that_was_copied_already_brings_up_nothing_that_never_was(
    images: dict[str, Image], tmp_path: Path, harm: Harm
) -> None:
    """Slow: many files are opened and read.

    SQLite does not know how much of a WAL was copied, and puts old pages in front of newer ones.
    """

    def do_harm(file: Path, place: int, random: Random) -> tuple[str, int]:
        return harm(file, place, random)[0], COMMITS

    assert try_all(images["copied"], tmp_path, "-wal", do_harm, CASES)


# --- pages that SQLite takes for well -------------------------------------------------------------

PAGE_BYTES = 4096
CELLS, RIGHTMOST, POINTERS = 3, 8, 12  # places in the head of an inner page


class Pages:
    """A file by its pages.

    Source: SQLite, "Database File Format", section 1.6 (B-tree pages).
    """

    def __init__(self, file: Path, table: str) -> None:
        connection = sqlite3.connect(file)
        query = "SELECT rootpage FROM sqlite_schema WHERE name = ?"
        (root,) = connection.execute(query, (table,)).fetchone()
        connection.close()
        self._file = file
        self._root = (root - 1) * PAGE_BYTES

    def number(self, place: int, size: int) -> int:
        """A number in the head of the table's first page."""
        with self._file.open("rb") as opened:
            opened.seek(self._root + place)
            return int.from_bytes(opened.read(size), "big")

    def put(self, place: int, size: int, number: int) -> None:
        with self._file.open("r+b") as opened:
            opened.seek(self._root + place)
            opened.write(number.to_bytes(size, "big"))

    def child(self, place: int) -> int:
        """Where the number of a page below this one stands."""
        return self.number(POINTERS + 2 * place, 2)


@pytest.mark.parametrize("table", ["exchanges", "queues", "bindings", "standings", "gone"])
def test_rows_that_are_missing_are_noticed(
    images: dict[str, Image], tmp_path: Path, table: str
) -> None:
    pages = Pages(damaged_copy(images["closed"], tmp_path), table)
    count = pages.number(CELLS, 2)
    pages.put(CELLS, 2, count - 1)
    assert check(images["closed"], tmp_path) == "refused"


def test_a_table_in_the_place_of_another_is_noticed(
    images: dict[str, Image], tmp_path: Path
) -> None:
    connection = sqlite3.connect(damaged_copy(images["closed"], tmp_path))
    root = "SELECT rootpage FROM sqlite_schema WHERE name = 'bindings'"
    connection.executescript(
        "PRAGMA writable_schema = ON;"
        f"UPDATE sqlite_schema SET rootpage = ({root}) WHERE name = 'vhosts'"
    )
    connection.close()
    assert check(images["closed"], tmp_path) == "refused"


def test_messages_that_come_twice_are_noticed(images: dict[str, Image], tmp_path: Path) -> None:
    pages = Pages(damaged_copy(images["closed"], tmp_path), "stored")
    pages.put(pages.child(1), 4, pages.number(pages.child(0), 4))
    assert check(images["closed"], tmp_path) == "refused"


def test_messages_of_another_queue_are_noticed(images: dict[str, Image], tmp_path: Path) -> None:
    pages = Pages(damaged_copy(images["closed"], tmp_path), "stored")
    pages.put(RIGHTMOST, 4, pages.number(pages.child(0), 4))
    assert check(images["closed"], tmp_path) == "refused"
