"""Medians, ratios and goals as the table shows them."""

from io import StringIO

import pytest
from cases import CASES, RESOURCE_FIGURES, Figure, figures_against_earlier, without_ratio_goal
from rich.console import Console
from table import Values, as_table, goal, number, ratio, spread

VALUES: Values = {"rate": {"amqpd": [300.0, 90.0, 330.0], "rabbitmq": [100.0, 100.0, 120.0]}}


def test_a_cell_is_the_median_and_the_range() -> None:
    assert spread([300.0, 90.0, 330.0]) == "300 [90.0–330]"
    assert spread([300.0]) == "300"
    assert spread([]) == "failed"
    assert spread([0.0]) == "0"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.123, "0.12"), (12.34, "12.3"), (1234.0, "1,234"), (12345.0, "12.3 k"), (123456.0, "123 k")],
)
def test_numbers_keep_the_digits_that_matter(value: float, text: str) -> None:
    assert number(value) == text


def test_the_ratio_is_that_of_the_medians() -> None:
    assert ratio(VALUES["rate"], "amqpd", "rabbitmq") == 3.0
    assert ratio({"amqpd": [1.0]}, "amqpd", "rabbitmq") is None


@pytest.mark.parametrize(
    ("figure", "ours", "text"),
    [
        (Figure("rate", goal=3.0), 300.0, "≥ 3: yes"),
        (Figure("rate", goal=3.0), 299.0, "≥ 3: NO"),
        (Figure("latency", goal=0.5, small_is_good=True), 60.0, "≤ 0.5: NO"),
        (Figure("start", "", "s", 0.5, small_is_good=True, absolute=True), 0.4, "≤ 0.5 s: yes"),
        (Figure("rate"), 300.0, ""),
    ],
)
def test_a_goal_says_whether_it_is_reached(figure: Figure, ours: float, text: str) -> None:
    assert goal(figure, {"amqpd": [ours], "rabbitmq": [100.0]}, "rabbitmq") == text


def test_the_table_has_a_row_for_what_was_measured_and_none_for_what_was_not() -> None:
    out = StringIO()
    figures = [Figure("rate", goal=3.0), Figure("other")]
    Console(file=out, width=120).print(as_table(figures, VALUES, ["amqpd", "rabbitmq"], "rabbitmq"))
    assert "3.00" in out.getvalue()
    assert "≥ 3: yes" in out.getvalue()
    assert "other" not in out.getvalue()


def test_every_figure_has_a_name_of_its_own() -> None:
    names = [figure.name for case in CASES for run in case.runs for figure in run.figures]
    names += [figure.name for figure in RESOURCE_FIGURES]
    assert len(names) == len(set(names))


def test_against_an_earlier_release_transient_cases_keep_their_rates() -> None:
    goals = {figure.name: figure.goal for figure in figures_against_earlier(CASES)}
    assert goals["transient-ack"] == goals["large-4m"] == 0.95
    assert goals["persistent-confirm"] is None
    assert goals["paced-2k p99"] is None


def test_goals_that_refer_to_rabbitmq_are_not_asked_of_an_earlier_release() -> None:
    shown = [without_ratio_goal(figure) for figure in RESOURCE_FIGURES]
    assert [figure.name for figure in shown] == [figure.name for figure in RESOURCE_FIGURES]
    assert all(figure.absolute for figure in shown if figure.goal is not None)
