"""Whatever clients do and whenever it crashes, a broker keeps its promises."""

import os
from pathlib import Path
from random import SystemRandom

import pytest
from kinds_simulation import KindSimulation
from simulated_disk import Disk, FileDisk
from simulation import Simulation
from stream_simulation import StreamSimulation
from watching import no_internal_error

# So many chains of lives in each part, of so many lives; more of them, and new ones in every run,
# with AMQPD_EXAMPLES (see conftest.py).
CHAINS, LIVES, PARTS = 10, 10, 10
CHAINS_ON_FILES = 3
FACTOR = int(os.environ.get("AMQPD_EXAMPLES", 1))
FIRST_SEED = 0 if FACTOR == 1 else SystemRandom().randrange(10**9)


def run(seed: int, disk: Disk) -> None:
    simulation = Simulation(seed, disk)
    try:
        with no_internal_error():
            simulation.run(LIVES)
    except AssertionError as error:
        error.add_note(f"Simulation({seed}, {type(disk).__name__}), life {simulation.lives}")
        raise
    finally:
        simulation.disk.close()


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_a_broker_that_crashes_again_and_again_keeps_its_promises(part: int) -> None:
    """Slow, since each of a thousand crashes is one of a broker with clients and their deeds."""
    count = CHAINS * FACTOR
    for seed in range(FIRST_SEED + part * count, FIRST_SEED + (part + 1) * count):
        run(seed, Disk())


@pytest.mark.slow
def test_offsets_of_a_stream_mean_the_same_after_any_crash(tmp_path: Path) -> None:
    """Slow for the same reason."""
    for seed in range(FIRST_SEED, FIRST_SEED + CHAINS * FACTOR):
        run_stream(seed, Disk())
    for seed in range(FIRST_SEED, FIRST_SEED + CHAINS_ON_FILES * FACTOR):
        directory = tmp_path / f"{seed}"
        directory.mkdir()
        run_stream(seed, FileDisk(directory))


@pytest.mark.slow
def test_what_was_confirmed_comes_out_of_queues_of_all_kinds(tmp_path: Path) -> None:
    """Slow for the same reason."""
    for seed in range(FIRST_SEED, FIRST_SEED + 4 * CHAINS * FACTOR):
        run_kind(seed, Disk())
    for seed in range(FIRST_SEED, FIRST_SEED + CHAINS_ON_FILES * FACTOR):
        directory = tmp_path / f"{seed}"
        directory.mkdir()
        run_kind(seed, FileDisk(directory))


def run_kind(seed: int, disk: Disk) -> None:
    simulation = KindSimulation(seed, disk)
    try:
        with no_internal_error():
            simulation.run(3)
    except AssertionError as error:
        error.add_note(f"KindSimulation({seed}, {type(disk).__name__}), {simulation.arguments}")
        raise
    finally:
        simulation.disk.close()


def run_stream(seed: int, disk: Disk) -> None:
    simulation = StreamSimulation(seed, disk)
    try:
        with no_internal_error():
            simulation.run(LIVES)
    except AssertionError as error:
        error.add_note(f"StreamSimulation({seed}, {type(disk).__name__})")
        raise
    finally:
        simulation.disk.close()


@pytest.mark.slow
def test_it_keeps_them_also_when_they_are_in_a_file(tmp_path: Path) -> None:
    """Slow, since each of these crashes is one of a file, which the next broker opens."""
    for seed in range(FIRST_SEED, FIRST_SEED + CHAINS_ON_FILES * FACTOR):
        directory = tmp_path / f"{seed}"
        directory.mkdir()
        run(seed, FileDisk(directory))
