"""What the script of deep queues concludes from what it has measured."""

from pathlib import Path

import pytest
from cases import Figure
from deep import QUEUES, all_reached, figures_of, on_disk_bytes
from table import Values

GOALS = [figure for figure in figures_of(QUEUES["1m"]) if figure.goal is not None]


def just_reached() -> Values:
    """Every goal of the queue of a million, with nothing to spare."""
    return {figure.name: {"amqpd": [float(figure.goal or 0)]} for figure in GOALS}


def test_goals_that_are_just_reached_are_reached() -> None:
    assert all_reached(figures_of(QUEUES["1m"]), just_reached())


@pytest.mark.parametrize("figure", GOALS, ids=lambda figure: figure.name)
def test_one_goal_that_is_missed_or_not_measured_is_enough_to_fail(figure: Figure) -> None:
    values = just_reached()
    values[figure.name]["amqpd"][0] += 0.01 if figure.small_is_good else -0.01
    assert not all_reached(GOALS, values)
    del values[figure.name]
    assert not all_reached(GOALS, values)


def test_only_a_queue_that_is_killed_must_boot() -> None:
    boots = [
        name for name, queue in QUEUES.items() if any("boot" in f.name for f in figures_of(queue))
    ]
    assert boots == ["100k", "1m"]


def test_every_figure_of_deep_queues_has_a_name_of_its_own() -> None:
    names = [figure.name for queue in QUEUES.values() for figure in figures_of(queue)]
    assert len(names) == len(set(names))


def test_the_size_of_a_directory_is_what_its_files_take_on_the_disk(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_bytes(b"x" * 100_000)
    assert 100_000 <= on_disk_bytes(tmp_path) < 200_000
    assert on_disk_bytes(tmp_path / "nothing") == 0
