"""RabbitMQ's alarms: memory or disk run short, and publishers must wait.

Once a second the process's memory and the free room on the data directory's disk are measured.
`ResourceAlarms` decides, from figures alone; `watch` measures, logs and tells.
"""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import Final, NamedTuple

import trio

from amqpd.config import Config
from amqpd.log import EventLog

log = EventLog("alarms")

ALARM_CHECK_S: Final = 1.0
MEMORY: Final = "memory"
DISK: Final = "disk"

STATM: Final = Path("/proc/self/statm")
CONTROL_GROUPS: Final = Path("/proc/self/cgroup")
CONTROL_GROUPS_ROOT: Final = Path("/sys/fs/cgroup")


class Figures(NamedTuple):
    """What was measured; None is not known, and then nothing changes."""

    memory_bytes: int
    memory_total_bytes: int | None
    disk_free_bytes: int | None


class Change(NamedTuple):
    """An alarm that goes on or off: the figure, and the bound it has passed."""

    resource: str
    on: bool
    measured_bytes: int
    bound_bytes: int


class ResourceAlarms:
    """Which resources are short: figures in, changes out.

    As in RabbitMQ there is one bound for each: what passes it sets the alarm, what comes back to it
    clears it.
    """

    def __init__(self, memory_share_max: float, disk_free_bytes_min: int) -> None:
        self._memory_share_max = memory_share_max
        self._disk_free_bytes_min = disk_free_bytes_min
        self._on = {MEMORY: False, DISK: False}

    def judge(self, figures: Figures) -> list[Change]:
        """What these figures change."""
        found: list[Change] = []
        used, total, free = figures
        least = self._disk_free_bytes_min
        if total is not None:
            most = int(total * self._memory_share_max)
            found.append(Change(MEMORY, used > most, used, most))
        if free is not None:
            found.append(Change(DISK, free < least, free, least))
        changes = [change for change in found if change.on != self._on[change.resource]]
        self._on.update((change.resource, change.on) for change in changes)
        return changes


async def watch(
    config: Config, directory: Path | None, alarmed: Callable[[str, bool], None]
) -> None:
    """Tells of every alarm that goes on or off, until it is cancelled.

    Args:
        directory: the data directory; None where nothing is kept, and then no disk runs short.
        alarmed: called with "memory" or "disk", and whether it has become short.
    """
    alarms = ResourceAlarms(config.alarms.memory_share_max, config.alarms.disk_free_bytes_min)
    meter = Meter(directory)
    while True:
        for change in alarms.judge(meter.measure()):
            log_change(change)
            alarmed(change.resource, change.on)
        await trio.sleep(ALARM_CHECK_S)


def log_change(change: Change) -> None:
    """Writes what changed, with its figures."""
    figure, bound = change.measured_bytes, change.bound_bytes
    if change.resource == MEMORY:
        if change.on:
            log.warning("memory is short: publishers wait", used_bytes=figure, max_bytes=bound)
        else:
            log.info("memory is no longer short", used_bytes=figure, max_bytes=bound)
    elif change.on:
        log.warning("disk space is short: publishers wait", free_bytes=figure, min_bytes=bound)
    else:
        log.info("disk space is no longer short", free_bytes=figure, min_bytes=bound)


class Meter:
    """Measures this process and the disk of a directory."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._disk_fails = False
        self._limit_files = limit_files(_read(CONTROL_GROUPS), CONTROL_GROUPS_ROOT)

    def measure(self) -> Figures:
        """The figures of this moment."""
        # A group's limit may be moved while the broker runs, so it is read every time.
        total = least_known([machine_bytes(), *map(limit_bytes, self._limit_files)])
        return Figures(resident_bytes(), total, self._free_bytes())

    def _free_bytes(self) -> int | None:
        if self._directory is None:
            return None
        try:
            free = free_bytes(self._directory)
        except OSError as error:
            if not self._disk_fails:  # once, not every second
                log.error(
                    "cannot measure the disk", directory=self._directory, error=error.strerror
                )
            self._disk_fails = True
            return None
        self._disk_fails = False
        return free


def free_bytes(directory: Path) -> int:
    """What a process without privileges may still write to the disk of a directory."""
    disk = os.statvfs(directory)
    return disk.f_bavail * disk.f_frsize


def resident_bytes() -> int:
    """The memory of this process that is not swapped out; its peak where there is no /proc."""
    if fields := _read(STATM).split():
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def machine_bytes() -> int | None:
    """The memory of the machine; None where the system does not tell."""
    try:
        pages = os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE") if pages > 0 else None


def limit_files(control_groups: str, root: Path) -> list[Path]:
    """The files that say how much memory the process's control group may use, and those above it.

    Args:
        control_groups: what /proc/self/cgroup says: `0::/path`, in version 1 `4:memory:/path`.
        root: where control groups are mounted.
    """
    found: list[Path] = []
    for line in control_groups.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            base, name = root, "memory.max"
        elif "memory" in controllers.split(","):
            base, name = root / "memory", "memory.limit_in_bytes"
        else:
            continue
        # In a container the path may be the host's, of which only the root can be seen.
        group = PurePosixPath(path.lstrip("/"))
        found += [base / each / name for each in (group, *group.parents)]
    return [file for file in dict.fromkeys(found) if file.is_file()]


def limit_bytes(file: Path) -> int | None:
    """The limit in a control group's file; None if there is none."""
    text = _read(file).strip()
    return int(text) if text.isdigit() else None  # "max" is no limit


def least_known(figures: Iterable[int | None]) -> int | None:
    """The least of the figures that are known; None if none is."""
    return min((figure for figure in figures if figure is not None), default=None)


def _read(file: Path) -> str:
    """A file of the system's; empty where there is none."""
    try:
        return file.read_text()
    except OSError:
        return ""
