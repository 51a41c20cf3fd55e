"""Alarms: what figures change, and what is measured on this machine."""

import logging
import os

import pytest
import trio
from trio.testing import MockClock

from amqpd.config import Alarms, Config
from amqpd.log import FIELDS
from amqpd.server.alarms import (
    Change,
    Figures,
    Meter,
    ResourceAlarms,
    least_known,
    limit_bytes,
    limit_files,
    log_change,
    resident_bytes,
    watch,
)

NEVER_SHORT = Alarms(memory_share_max=1.0, disk_free_bytes_min=0)
ALWAYS_SHORT = Alarms(memory_share_max=1e-9, disk_free_bytes_min=2**62)


def figures(memory: int = 0, total: int | None = 1000, free: int | None = 1000) -> Figures:
    return Figures(memory, total, free)


def watched(alarms: Alarms, directory, seconds: float = 10) -> list[tuple[str, bool]]:
    """What is told in so many seconds, of a clock that jumps."""
    told: list[tuple[str, bool]] = []

    async def watch_for_a_while() -> None:
        with trio.move_on_after(seconds):
            await watch(Config(alarms=alarms), directory, lambda *change: told.append(change))

    trio.run(watch_for_a_while, clock=MockClock(autojump_threshold=0))
    return told


def test_memory_is_short_above_its_share_and_no_longer_at_it():
    alarms = ResourceAlarms(0.6, 0)
    assert alarms.judge(figures(memory=600)) == []
    assert alarms.judge(figures(memory=601)) == [Change("memory", True, 601, 600)]
    assert alarms.judge(figures(memory=900)) == []
    assert alarms.judge(figures(memory=600)) == [Change("memory", False, 600, 600)]
    assert alarms.judge(figures(memory=0)) == []


def test_the_disk_is_short_below_its_bound_and_no_longer_at_it():
    alarms = ResourceAlarms(1.0, 50)
    assert alarms.judge(figures(free=50)) == []
    assert alarms.judge(figures(free=49)) == [Change("disk", True, 49, 50)]
    assert alarms.judge(figures(free=0)) == []
    assert alarms.judge(figures(free=50)) == [Change("disk", False, 50, 50)]


def test_both_can_run_short_at_once_and_recover_one_by_one():
    alarms = ResourceAlarms(0.5, 50)
    both = alarms.judge(figures(memory=501, free=0))
    assert [(change.resource, change.on) for change in both] == [("memory", True), ("disk", True)]
    assert alarms.judge(figures(memory=1, free=0)) == [Change("memory", False, 1, 500)]
    assert alarms.judge(figures(memory=1, free=99)) == [Change("disk", False, 99, 50)]


def test_a_bound_of_zero_never_makes_the_disk_short():
    assert ResourceAlarms(1.0, 0).judge(figures(free=0)) == []


def test_the_share_is_of_the_memory_there_is_at_the_moment():
    alarms = ResourceAlarms(0.5, 0)
    assert alarms.judge(figures(memory=400, total=1000)) == []
    assert alarms.judge(figures(memory=400, total=600)) == [Change("memory", True, 400, 300)]


def test_figures_that_are_not_known_change_nothing():
    alarms = ResourceAlarms(0.5, 50)
    assert alarms.judge(figures(memory=10**12, total=None, free=None)) == []
    assert len(alarms.judge(figures(memory=501, free=0))) == 2
    assert alarms.judge(figures(memory=0, total=None, free=None)) == []


def test_each_change_is_told_once(tmp_path):
    assert watched(ALWAYS_SHORT, tmp_path) == [("memory", True), ("disk", True)]
    assert watched(NEVER_SHORT, tmp_path) == []


def test_without_a_directory_no_disk_runs_short():
    assert watched(ALWAYS_SHORT, None) == [("memory", True)]


def test_a_disk_that_cannot_be_measured_is_logged_once_and_alarms_nobody(tmp_path, caplog):
    assert watched(ALWAYS_SHORT, tmp_path / "gone") == [("memory", True)]
    told = [record.message for record in caplog.records if record.levelno == logging.ERROR]
    assert told == ["cannot measure the disk"]


@pytest.mark.parametrize(
    ("change", "level", "event", "fields"),
    [
        (
            Change("memory", True, 601, 600),
            "WARNING",
            "memory is short: publishers wait",
            {"used_bytes": 601, "max_bytes": 600},
        ),
        (
            Change("memory", False, 1, 600),
            "INFO",
            "memory is no longer short",
            {"used_bytes": 1, "max_bytes": 600},
        ),
        (
            Change("disk", True, 49, 50),
            "WARNING",
            "disk space is short: publishers wait",
            {"free_bytes": 49, "min_bytes": 50},
        ),
        (
            Change("disk", False, 50, 50),
            "INFO",
            "disk space is no longer short",
            {"free_bytes": 50, "min_bytes": 50},
        ),
    ],
)
def test_a_change_is_logged_with_its_figures(caplog, change, level, event, fields):
    with caplog.at_level(logging.INFO, logger="amqpd"):
        log_change(change)
    (record,) = caplog.records
    assert (record.name, record.levelname, record.message) == ("amqpd.alarms", level, event)
    assert getattr(record, FIELDS) == fields


def test_what_is_measured_here_is_plausible(tmp_path):
    measured = Meter(tmp_path).measure()
    assert measured.memory_total_bytes is not None
    assert 1_000_000 < measured.memory_bytes < measured.memory_total_bytes
    assert measured.disk_free_bytes is not None
    disk = os.statvfs(tmp_path)
    assert 0 <= measured.disk_free_bytes <= disk.f_blocks * disk.f_frsize
    assert Meter(None).measure().disk_free_bytes is None


def test_memory_that_is_taken_is_seen():
    before = resident_bytes()
    taken = b"x" * 64_000_000
    assert resident_bytes() - before > len(taken) / 2


@pytest.mark.parametrize(
    ("control_groups", "files"),
    [
        ("0::/\n", ["memory.max"]),
        ("0::/a/b\n", ["a/b/memory.max", "a/memory.max", "memory.max"]),
        ("0::/elsewhere/x\n", ["memory.max"]),
        ("0::/../..\n", ["memory.max"]),
        (
            "5:cpu,cpuacct:/v1\n4:memory:/v1\n",
            ["memory/v1/memory.limit_in_bytes", "memory/memory.limit_in_bytes"],
        ),
        ("4:hugetlb,memory:/docker/0123\n", ["memory/memory.limit_in_bytes"]),
        ("1:name=systemd:/a\n", []),
        ("", []),
    ],
)
def test_limits_are_those_of_the_control_group_and_all_above_it(tmp_path, control_groups, files):
    there = ("memory.max", "a/memory.max", "a/b/memory.max", "memory/memory.limit_in_bytes")
    for name in (*there, "memory/v1/memory.limit_in_bytes"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("max\n")
    assert limit_files(control_groups, tmp_path) == [tmp_path / name for name in files]


@pytest.mark.parametrize(
    ("text", "expected"), [("max\n", None), ("1073741824\n", 1 << 30), ("", None)]
)
def test_a_control_group_has_a_limit_or_none(tmp_path, text, expected):
    (tmp_path / "memory.max").write_text(text)
    assert limit_bytes(tmp_path / "memory.max") == expected
    assert limit_bytes(tmp_path / "gone") is None


def test_the_least_limit_that_is_known_counts():
    assert least_known([None, 3, None, 2]) == 2
    assert least_known([None]) is None
